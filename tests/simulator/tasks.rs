//! Tasks, threads and clocks of simulated machines.
//!
//! Everything runs in one thread on a runtime whose time is paused: it goes on only when
//! nothing else can. A [`Process`] is one life of one machine's program. It ends at once:
//! from then on its tasks are never polled again, and the disk, the local database and the
//! store that it was given answer nothing that counts.
//!
//! Which of several ready tasks goes first would always be the one that was woken first.
//! So each poll of a task may be put off, by its own random choice, which the script's
//! schedule fixes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use privicorefs::env::Clock;
use privicorefs::env::tasks::{Every, Tasks, Thread};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::company::Machine;
use super::doubles::SeededRandom;
use super::random::Draws;

/// Wall time at the beginning of a run, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// One poll in so many is put off.
const PUT_OFF: u64 = 8;

/// A runtime in this thread whose time is virtual. It lacks the I/O driver: whoever opened a
/// socket would fail.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// One life of one machine's program.
pub struct Process {
    /// Whose.
    pub machine: Machine,
    alive: AtomicBool,
    died: Notify,
    draws: Mutex<Draws>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.machine)
    }
}

impl Process {
    /// A new life; `seed` fixes its schedule.
    pub fn new(machine: Machine, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            machine,
            alive: AtomicBool::new(true),
            died: Notify::new(),
            draws: Mutex::new(Draws::new(seed)),
            tasks: Mutex::default(),
        })
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::SeqCst);
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
        self.died.notify_waiters();
    }

    /// Waits for its end.
    pub async fn death(&self) {
        loop {
            let died = self.died.notified();
            if !self.is_alive() {
                return;
            }
            died.await;
        }
    }

    /// A number below `bound`, as the schedule says.
    pub fn below(&self, bound: u64) -> u64 {
        self.draws.lock().below(bound)
    }

    fn put_off(&self) -> bool {
        self.below(PUT_OFF) == 0
    }
}

/// A task of a process.
struct Guarded {
    process: Arc<Process>,
    task: Option<BoxFuture<'static, ()>>,
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.process.is_alive() {
            self.task = None;
            return Poll::Ready(());
        }
        if self.process.put_off() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &mut self.task {
            Some(task) => task.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

/// The tasks of one process.
#[derive(Debug)]
pub struct SimTasks(pub Arc<Process>);

impl Tasks for SimTasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        let task = Guarded { process: self.0.clone(), task: Some(task) };
        let handle = tokio::spawn(task).abort_handle();
        let mut tasks = self.0.tasks.lock();
        if tasks.len() > 256 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(handle.clone());
        handle
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn thread(&self, _name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Thread> {
        work();
        Ok(Thread::done())
    }

    fn every(
        &self,
        _name: &str,
        period: Duration,
        mut work: Box<dyn FnMut() + Send>,
    ) -> io::Result<Box<dyn Every>> {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        drop(self.spawn(Box::pin(async move {
            while !stop.load(Ordering::SeqCst) {
                tokio::time::sleep(period).await;
                if !stop.load(Ordering::SeqCst) {
                    work();
                }
            }
        })));
        Ok(Box::new(Repeated(stopped)))
    }

    /// Nothing is behind: all that could catch up runs in this thread.
    fn pause(&self, _time: Duration) {}
}

struct Repeated(Arc<AtomicBool>);

impl Every for Repeated {
    fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A machine's wall clock: virtual time, and what it is off by. It belongs to the machine,
/// not to a process.
#[derive(Debug)]
pub struct SimClock {
    began: Instant,
    off: AtomicI64,
}

impl SimClock {
    /// A right clock; `began` is the beginning of the run.
    pub fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self { began, off: AtomicI64::new(0) })
    }

    /// Sets it by so many milliseconds.
    pub fn jump(&self, ms: i64) {
        self.off.fetch_add(ms, Ordering::SeqCst);
    }

    /// Off by as much as another.
    pub fn set_like(&self, other: &Self) {
        self.off.store(other.off.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn millis(&self) -> u64 {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        (EPOCH_MS + passed).saturating_add_signed(self.off.load(Ordering::SeqCst))
    }
}

impl Clock for SimClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis())
    }
}

/// The random source of one process.
pub fn random(seed: u64) -> Arc<SeededRandom> {
    Arc::new(SeededRandom::new(seed))
}
