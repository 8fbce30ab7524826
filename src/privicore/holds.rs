//! Operations that a policy holds until a vote is over (section A, "Policy / voting gate").
//!
//! The service accepts a gated command like any other and acknowledges it late, perhaps
//! minutes later. Whoever called must not be kept that long, with its permits and buffers,
//! and must not ask for a second vote by calling again. So:
//! * an operation that may be held runs as one future. When it hears of a vote, it is moved
//!   to a task of its own and goes on there; its caller gets `AwaitingApproval` at once;
//! * it is remembered under its key (the mark of a put, otherwise the token). Calling again
//!   before it is over gives the same error; after it, the outcome, once;
//! * an outcome that nobody asks for is dropped after [`KEPT`]: a put's token can then be
//!   found by its mark, a download is asked for again;
//! * at most one remembered operation per key. A second one that is held under the same
//!   key (two callers at once) takes the first's place, whose task goes on for itself.
//!
//! How an operation hears of a vote: the service says so (a status 1 with a pool), or the
//! command is still pending when its acknowledgement is overdue, which is all that a
//! service that says nothing lets one see.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use crate::store::{Download, Hold, Holding, StoreError, StoreResult, Token};

/// How long an outcome waits for somebody to ask.
const KEPT: Duration = Duration::from_secs(300);

/// How long a held command is followed: an engine keeps its id that long (E.2).
pub(super) const FOLLOWED: Duration = Duration::from_secs(24 * 3600);

/// How often a held command is polled beside listening for its acknowledgement.
pub(super) const POLL_HELD: Duration = Duration::from_secs(15);

tokio::task_local! {
    static TELL: Tell;
}

/// Where a running operation says that it is held: `None` until it is, then the pool.
type Tell = watch::Sender<Option<Option<String>>>;

/// Says that the running operation is held, if it is one that can be.
pub(super) fn tell_held(pool: Option<String>) -> bool {
    TELL.try_with(|tell| tell.send_replace(Some(pool))).is_ok()
}

/// Whether the running operation can be held.
pub(super) fn can_be_held() -> bool {
    TELL.try_with(|_| ()).is_ok()
}

/// Whether the running operation has been held.
pub(super) fn was_held() -> bool {
    TELL.try_with(|tell| tell.borrow().is_some()).unwrap_or(false)
}

/// What is resumed by calling again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// By the put's mark.
    Put(String),
    Get(Token),
    Delete(Token),
    Meta(Token),
    Risk(Token),
}

/// What an operation gives.
#[derive(Debug)]
pub(super) enum Outcome {
    Stored(Token),
    Fetched(Download),
    Done,
}

type Work = Pin<Box<dyn Future<Output = StoreResult<Outcome>> + Send>>;

/// An outcome, and since when it is there.
type Slot = Arc<Mutex<Option<(Instant, StoreResult<Outcome>)>>>;

#[derive(Debug)]
struct Held {
    hold: Arc<Hold>,
    target: String,
    outcome: Slot,
}

/// The operations that are held, or were and have an outcome.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<BTreeMap<Key, Held>>);

impl Holds {
    /// What became of an operation that was held: its outcome, or that it still is.
    fn resume(&self, key: &Key) -> Option<StoreResult<Outcome>> {
        let mut held = self.0.lock();
        if held.is_empty() {
            return None;
        }
        held.retain(|_, held| !held.is_stale());
        let earlier = held.get(key)?;
        let outcome = earlier.outcome.lock().take();
        let Some((_, outcome)) = outcome else {
            return Some(Err(StoreError::awaiting(Arc::clone(&earlier.hold)).on(&earlier.target)));
        };
        held.remove(key);
        Some(outcome)
    }

    fn waiting(&self) -> Vec<(String, Arc<Hold>)> {
        let held = self.0.lock();
        let waiting = held.values().filter(|held| !held.hold.is_settled());
        waiting.map(|held| (held.target.clone(), Arc::clone(&held.hold))).collect()
    }
}

impl Held {
    fn is_stale(&self) -> bool {
        match &*self.outcome.lock() {
            Some((since, _)) => since.elapsed() > KEPT,
            // Its task has ended without an outcome: the runtime is going away.
            None => self.hold.is_settled(),
        }
    }
}

impl Client {
    /// What waits for a vote now: the token or file name, and the hold.
    pub fn held(&self) -> Vec<(String, Arc<Hold>)> {
        self.holds.waiting()
    }

    /// Runs an operation on `target`, or resumes the one that is held under `key`.
    pub(super) async fn unless_held<F>(
        &self,
        key: Key,
        operation: &'static str,
        target: &str,
        work: F,
    ) -> StoreResult<Outcome>
    where
        F: Future<Output = StoreResult<Outcome>> + Send + 'static,
    {
        if let Some(earlier) = self.holds.resume(&key) {
            return earlier;
        }
        let (tell, mut told) = watch::channel(None);
        let mut work: Work = Box::pin(TELL.scope(tell, work));
        tokio::select! {
            biased;
            result = &mut work => return result,
            Ok(()) = told.changed() => {}
        }
        let pool = told.borrow_and_update().clone().flatten();
        tracing::debug!(operation, pool, "held for a vote");
        let since = self.env.clock.now();
        let holding = Hold::begin(operation, pool, since);
        let outcome = Slot::default();
        let held =
            Held { hold: holding.hold(), target: target.to_owned(), outcome: Arc::clone(&outcome) };
        let error = StoreError::awaiting(holding.hold()).on(target);
        self.holds.0.lock().insert(key, held);
        drop(self.env.spawn(async move {
            let result = follow(work, told, &holding).await;
            *outcome.lock() = Some((Instant::now(), result));
            drop(holding);
        }));
        Err(error)
    }
}

/// The held operation, to its end.
async fn follow(
    mut work: Work,
    mut told: watch::Receiver<Option<Option<String>>>,
    holding: &Holding,
) -> StoreResult<Outcome> {
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            Ok(()) = told.changed() => {
                holding.moved_to(told.borrow_and_update().clone().flatten());
            }
        }
    }
}
