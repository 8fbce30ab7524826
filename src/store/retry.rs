//! Tries again what may succeed later, within a number of attempts and a time.
//!
//! The unit is the whole store call, because a put has to begin with a new reservation;
//! the error's kind alone decides. A stream that breaks after `get` returned is for its
//! reader to fetch again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreResult,
    Token,
};
use crate::env::Env;

/// How often and how long [`Retry`] tries.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Attempts at most, the first included.
    pub attempts: u32,
    /// No attempt begins later than this after the first began.
    pub budget: Duration,
    /// Pause before the second attempt; doubles each time. The actual pause is a random
    /// part of it, at least half.
    pub base: Duration,
    /// Longest pause.
    pub max: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 8,
            budget: Duration::from_secs(60),
            base: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

/// See the module's header.
pub struct Retry {
    inner: Arc<dyn Store>,
    config: RetryConfig,
    env: Env,
    /// Told of each vote that is waited for; without it, no vote is.
    told: Option<Told>,
}

/// Hears of an operation that waits for a vote.
pub type Told = Box<dyn Fn(&StoreError) + Send + Sync>;

impl Retry {
    /// Retries what `inner` fails at; `env` gives the jitter.
    pub fn new(inner: Arc<dyn Store>, config: RetryConfig, env: Env) -> Self {
        Self { inner, config, env, told: None }
    }

    /// Waits for votes too, however long they take, for callers that have nothing else to
    /// do. A vote costs no attempt, but the time it takes counts.
    #[must_use]
    pub fn through_votes(self, told: Told) -> Self {
        Self { told: Some(told), ..self }
    }

    async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let last = Instant::now() + self.config.budget;
        let mut tried = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let (Some(hold), Some(told)) = (&error.hold, &self.told) {
                told(&error);
                hold.settled().await;
                continue;
            }
            let pause = self.pause(tried, &error);
            let may = error.is_retryable() && tried < self.config.attempts;
            if !may || Instant::now() + pause > last {
                return Err(error);
            }
            // the message only: the target may be a file's name
            tracing::debug!(error = error.message, tried, ?pause, "trying again");
            sleep(pause).await;
            tried += 1;
        }
    }

    fn pause(&self, tried: u32, error: &StoreError) -> Duration {
        let doubled = self.config.base.saturating_mul(1 << tried.saturating_sub(1).min(20));
        let spread = (self.env.random_u64() % 1_024) as f64 / 2_048.0;
        let pause = doubled.min(self.config.max).mul_f64(0.5 + spread);
        // What the service asks for counts, up to the budget.
        pause.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)))
    }
}

#[async_trait]
impl Store for Retry {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        self.run(|| self.inner.put(meta, mark, payload.clone())).await
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        self.run(|| self.inner.get(token)).await
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        self.run(|| self.inner.delete(token)).await
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        self.run(|| self.inner.update_meta(token, meta)).await
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        self.run(|| self.inner.set_risk(token, risk)).await
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        self.run(|| self.inner.list(filter, page)).await
    }

    fn clock(&self) -> Option<u64> {
        self.inner.clock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, Op, StoreErrorKind};
    use super::*;
    use crate::env::doubles::seeded_env;

    fn over(memory: &Arc<MemoryStore>, attempts: u32, budget: u64) -> Retry {
        let budget = Duration::from_secs(budget);
        let config = RetryConfig { attempts, budget, ..RetryConfig::default() };
        Retry::new(Arc::clone(memory) as Arc<dyn Store>, config, seeded_env(1))
    }

    #[tokio::test(start_paused = true)]
    async fn retryable_failures_are_tried_again_and_others_are_not() {
        let memory = Arc::new(MemoryStore::new());
        let retry = over(&memory, 5, 60);
        memory.fail_next(Op::List, 3, StoreErrorKind::Unavailable);
        retry.list(&ListFilter::default(), 1).await.unwrap();
        assert_eq!(memory.count(Op::List), 4);

        memory.fail_next(Op::List, 1, StoreErrorKind::Denied);
        let error = retry.list(&ListFilter::default(), 1).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Denied);
        assert_eq!(memory.count(Op::List), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_time_are_bounded() {
        let memory = Arc::new(MemoryStore::new());
        memory.fail_next(Op::List, 1_000, StoreErrorKind::TimedOut);
        assert!(over(&memory, 3, 60).list(&ListFilter::default(), 1).await.is_err());
        assert_eq!(memory.count(Op::List), 3);

        let started = Instant::now();
        assert!(over(&memory, 1_000, 20).list(&ListFilter::default(), 1).await.is_err());
        assert!(started.elapsed() <= Duration::from_secs(20));
        assert!(memory.count(Op::List) > 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_sets_the_pace_within_the_budget() {
        let retry = over(&Arc::new(MemoryStore::new()), 3, 60);
        let mut error = StoreError::new(StoreErrorKind::RateLimited, "list", "slow down");
        error.retry_after_ms = Some(7_000);
        assert!(retry.pause(1, &error) >= Duration::from_secs(7));
    }
}
