//! An operation that the service holds until a vote is over.
//!
//! The error of a held call carries its [`Hold`]. Whoever made the call decides whether to
//! wait for [`Hold::settled`] and then calls again: the store resumes what was held (a put
//! by its mark, everything else by its token) and asks for no second vote.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// One held operation.
#[derive(Debug)]
pub struct Hold {
    operation: &'static str,
    since: SystemTime,
    began: Instant,
    pool: Mutex<Option<String>>,
    over: watch::Receiver<()>,
}

/// The store's side of a [`Hold`]; dropping it settles the hold.
#[derive(Debug)]
pub struct Holding {
    hold: Arc<Hold>,
    _over: watch::Sender<()>,
}

impl Hold {
    /// A hold that lasts as long as the other side lives.
    pub fn begin(operation: &'static str, pool: Option<String>, since: SystemTime) -> Holding {
        let (end, over) = watch::channel(());
        let hold = Arc::new(Self {
            operation,
            since,
            began: Instant::now(),
            pool: Mutex::new(pool),
            over,
        });
        Holding { hold, _over: end }
    }

    /// `put`, `get`, `delete` …
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// When it was first known to be held.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// For how long.
    pub fn lasted(&self) -> Duration {
        self.began.elapsed()
    }

    /// The voting pool, where the service named it; with several policies, the latest.
    pub fn pool(&self) -> Option<String> {
        self.pool.lock().clone()
    }

    /// Whether the outcome is known: calling again gives it.
    pub fn is_settled(&self) -> bool {
        self.over.has_changed().is_err()
    }

    /// Waits until the outcome is known, however long that takes.
    pub async fn settled(&self) {
        // Nothing is ever sent: what ends the wait is that the other side is gone.
        let _ = self.over.clone().changed().await;
    }
}

impl Holding {
    /// For the error of the call.
    pub fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// The operation waits in another pool now.
    pub fn moved_to(&self, pool: Option<String>) {
        *self.hold.pool.lock() = pool;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hold_is_settled_when_its_other_side_is_gone() {
        let holding = Hold::begin("get", None, SystemTime::UNIX_EPOCH);
        let hold = holding.hold();
        holding.moved_to(Some("p".into()));
        assert_eq!((hold.pool().as_deref(), hold.is_settled()), (Some("p"), false));
        let waiting = tokio::spawn({
            let hold = Arc::clone(&hold);
            async move { hold.settled().await }
        });
        drop(holding);
        waiting.await.unwrap();
        assert!(hold.is_settled());
    }
}
