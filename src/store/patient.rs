//! Waits for votes, however long they take, for callers that have nothing else to do.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreResult,
    Token,
};

/// Called once for each vote that is waited for.
pub type Tell = Box<dyn Fn(&StoreError) + Send + Sync>;

/// See the module's header.
pub struct Patient {
    inner: Arc<dyn Store>,
    tell: Tell,
}

impl Patient {
    /// Waits for what a vote holds at `inner`, and tells of it first.
    pub fn new(inner: Arc<dyn Store>, tell: Tell) -> Self {
        Self { inner, tell }
    }

    async fn run<T, F>(&self, mut call: impl FnMut() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(hold) = error.hold.clone() else { return Err(error) };
            (self.tell)(&error);
            hold.settled().await;
        }
    }
}

#[async_trait]
impl Store for Patient {
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
        self.inner.list(filter, page).await
    }
}
