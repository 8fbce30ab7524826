//! From a callback on the event loop's thread to a future that may reach the network.
//!
//! Poll once on the calling thread; if the future is still pending, move it, with the
//! owned reply, to a task. Measured on two cores: blocking in the callback freezes the
//! mount behind four slow reads, and spawning always triples the latency of a cached
//! `stat`; polling once first has neither fault.
//!
//! Invariants:
//! * The first poll uses a waker that does nothing. That is sound because a future must
//!   wake only the waker of its *latest* poll, and a spawned task always polls again.
//! * A permit is taken *before* the first poll. A future that was polled may hold a lock
//!   that permit holders wait for, so it must never wait for a permit itself; one that was
//!   never polled holds nothing.
//! * Dropping a reply answers EIO (fuser does that), so no request is lost when the
//!   runtime stops.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Most operations in flight that wait for something. The kernel's own bounds are lower
/// in practice (64 background requests, one per blocked thread otherwise); this one keeps
/// memory bounded when thousands of threads block on a dead network.
const IN_FLIGHT: usize = 1024;

/// Runs operations' futures; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    runtime: Handle,
    permits: Arc<Semaphore>,
}

impl Bridge {
    /// Spawns onto `runtime`, which must be multi-threaded.
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, permits: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Runs `future` here if it is ready at its first poll, else in a task; `reply` gets
    /// its output.
    pub(super) fn run<T, F, R>(&self, future: F, reply: R)
    where
        F: Future<Output = T> + Send + 'static,
        R: FnOnce(T) + Send + 'static,
        T: Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return self.run_later(future, reply);
        };
        let mut future = Box::pin(future);
        let polled = {
            // timers and sockets that the future makes belong to the runtime
            let _inside = self.runtime.enter();
            future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        match polled {
            Poll::Ready(output) => reply(output),
            Poll::Pending => {
                self.runtime.spawn(async move {
                    reply(future.await);
                    drop(permit);
                });
            }
        }
    }

    /// The slow way: every permit is taken, so wait for one before the first poll.
    fn run_later<T, F, R>(&self, future: F, reply: R)
    where
        F: Future<Output = T> + Send + 'static,
        R: FnOnce(T) + Send + 'static,
        T: Send + 'static,
    {
        let permits = Arc::clone(&self.permits);
        self.runtime.spawn(async move {
            // the semaphore is never closed; were it, running unbounded beats not answering
            let _permit = permits.acquire_owned().await.ok();
            reply(future.await);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn a_ready_future_is_answered_on_the_calling_thread() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone());
        let here = std::thread::current().id();
        let (sent, got) = mpsc::channel();
        bridge.run(async { 7 }, move |n| {
            sent.send((n, std::thread::current().id())).unwrap();
        });
        assert_eq!(got.try_recv().unwrap(), (7, here));
    }

    #[test]
    fn a_pending_future_does_not_block_the_caller_and_is_answered_later() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone());
        let (go, gone) = oneshot::channel::<u32>();
        let (sent, got) = mpsc::channel();
        bridge.run(gone, move |n| sent.send(n).unwrap());
        assert!(got.try_recv().is_err(), "run returned before the future was ready");
        go.send(9).unwrap();
        assert_eq!(got.recv_timeout(PATIENCE).unwrap(), Ok(9));
    }

    #[test]
    fn a_future_may_use_timers_at_its_first_poll() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone());
        let (sent, got) = mpsc::channel();
        let work = async { tokio::time::sleep(Duration::from_millis(1)).await };
        bridge.run(work, move |()| sent.send(()).unwrap());
        got.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn past_the_cap_futures_wait_unpolled_and_are_all_answered() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone());
        let (sent, got) = mpsc::channel();
        let gates: Vec<_> = (0..IN_FLIGHT + 10)
            .map(|_| {
                let (go, gone) = oneshot::channel::<()>();
                let sent = sent.clone();
                bridge.run(gone, move |r| sent.send(r.is_ok()).unwrap());
                go
            })
            .collect();
        assert_eq!(bridge.permits.available_permits(), 0);
        for go in gates {
            go.send(()).unwrap();
        }
        for _ in 0..IN_FLIGHT + 10 {
            assert!(got.recv_timeout(PATIENCE).unwrap());
        }
    }

    #[test]
    fn a_reply_is_dropped_not_leaked_when_the_runtime_stops() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone());
        let (sent, got) = mpsc::channel::<()>();
        bridge.run(std::future::pending::<()>(), move |()| sent.send(()).unwrap());
        runtime.shutdown_timeout(PATIENCE);
        assert!(matches!(got.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected)));
    }
}
