//! Work beside the caller: tasks, blocking work, threads and pauses.
//!
//! Production runs tasks on the tokio runtime it is called in, and the rest on threads. A
//! simulator runs all of it in one thread, in an order that its seed fixes, and can end
//! everything of one machine at once. Hence nothing below `fuse` starts a thread, spawns on
//! a runtime or sleeps in a thread by itself.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Starts work beside the caller.
pub trait Tasks: Send + Sync + fmt::Debug {
    /// Runs a future to its end, unless it is aborted. Must be called in a tokio runtime.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle;

    /// Runs work that takes the processor or the disk for long, where it delays no task.
    /// Must be called in a tokio runtime.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Runs work on a thread of its own; gives the way to wait for its end.
    ///
    /// # Errors
    /// Where the system gives no thread; the work is not run then.
    fn thread(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Thread>;

    /// Does `work` every `period` until it is stopped.
    ///
    /// # Errors
    /// Where the system gives no thread.
    fn every(
        &self,
        name: &str,
        period: Duration,
        work: Box<dyn FnMut() + Send>,
    ) -> io::Result<Box<dyn Every>>;

    /// Lets time pass in the calling thread, for work of other threads that has to catch up.
    fn pause(&self, time: Duration);
}

/// Work that is done again and again; dropping it does not stop it.
pub trait Every: Send + Sync {
    /// Returns when the work has been done for the last time.
    fn stop(&self);
}

/// The work of [`Tasks::thread`].
pub struct Thread(Option<JoinHandle<()>>);

impl Thread {
    /// Work that has been done already, in the caller's thread.
    pub fn done() -> Self {
        Self(None)
    }

    /// Waits for its end; a panic in it stays there.
    pub fn join(self) {
        if let Some(thread) = self.0 {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thread")
    }
}

/// The task did not come to its end: aborted, ended with its runtime, or it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff;

/// A future's result, computed by a task of its own; dropping it lets the task go on.
#[derive(Debug)]
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    abort: AbortHandle,
}

impl<T> Task<T> {
    /// Ends the task at its next await; waiting for it then gives [`CutOff`] when it has
    /// been dropped.
    pub fn abort(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, CutOff>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.poll_unpin(context).map_err(|_| CutOff)
    }
}

/// Runs `future` as a task. Must be called in a tokio runtime.
pub fn spawn<T: Send + 'static>(
    tasks: &dyn Tasks,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let (done, result) = oneshot::channel();
    let task = async move {
        // The receiver may be gone: nobody wants to know.
        let _ = done.send(future.await);
    };
    Task { result, abort: tasks.spawn(task.boxed()) }
}

/// Runs `work` where it delays no task, and gives its result.
pub async fn blocking<T: Send + 'static>(
    tasks: &dyn Tasks,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CutOff> {
    let (done, result) = oneshot::channel();
    tasks.spawn_blocking(Box::new(move || {
        let _ = done.send(work());
    }));
    result.await.map_err(|_| CutOff)
}

/// The tokio runtime of the caller, and the system's threads.
#[derive(Debug)]
pub(super) struct SystemTasks;

impl Tasks for SystemTasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        tokio::spawn(task).abort_handle()
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }

    fn thread(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Thread> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Thread(Some(thread)))
    }

    fn every(
        &self,
        name: &str,
        period: Duration,
        mut work: Box<dyn FnMut() + Send>,
    ) -> io::Result<Box<dyn Every>> {
        let shared = Arc::new(Shared { stop: Mutex::new(false), wake: Condvar::new() });
        let run = {
            let shared = shared.clone();
            move || {
                let mut stop = shared.stop.lock();
                while !*stop {
                    shared.wake.wait_for(&mut stop, period);
                    parking_lot::MutexGuard::unlocked(&mut stop, &mut work);
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Box::new(Repeated { shared, thread: Mutex::new(Some(thread)) }))
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
}

struct Repeated {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Every for Repeated {
    fn stop(&self) {
        *self.shared.stop.lock() = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn repeated_work_ends_when_it_is_stopped() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let period = Duration::from_millis(1);
        let work = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let every = SystemTasks.every("test", period, work).unwrap();
        while count.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        every.stop();
        let stopped_at = count.load(Ordering::SeqCst);
        SystemTasks.pause(period * 20);
        assert_eq!(count.load(Ordering::SeqCst), stopped_at);
    }

    #[tokio::test]
    async fn a_task_gives_its_result_or_says_that_it_was_cut_off() {
        assert_eq!(spawn(&SystemTasks, async { 7 }).await, Ok(7));
        let endless = spawn(&SystemTasks, std::future::pending::<()>());
        endless.abort();
        assert_eq!(endless.await, Err(CutOff));
        assert_eq!(blocking(&SystemTasks, || 8).await, Ok(8));
    }
}
