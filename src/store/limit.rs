//! Bounds how many calls are under way at once, separately up and down: the service
//! documents no rate limit, so the drive sets its own (protocol E.2).
//!
//! A `get` counts until its stream is read to the end or dropped.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreErrorKind,
    StoreResult, Token,
};

/// See the module's header.
pub struct Limit {
    inner: Arc<dyn Store>,
    up: Arc<Semaphore>,
    down: Arc<Semaphore>,
}

impl Limit {
    /// At most `up` calls that change something and `down` that read, each at least 1.
    pub fn new(inner: Arc<dyn Store>, up: usize, down: usize) -> Self {
        let permits = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        Self { inner, up: permits(up), down: permits(down) }
    }
}

async fn permit(
    semaphore: &Arc<Semaphore>,
    operation: &'static str,
) -> StoreResult<OwnedSemaphorePermit> {
    Arc::clone(semaphore)
        .acquire_owned()
        .await
        .map_err(|_| StoreError::new(StoreErrorKind::Unavailable, operation, "the store is closed"))
}

#[async_trait]
impl Store for Limit {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        let _permit = permit(&self.up, "put").await?;
        self.inner.put(meta, mark, payload).await
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        let permit = permit(&self.down, "get").await?;
        let Download { len, stream } = self.inner.get(token).await?;
        let held = stream.map(move |chunk| {
            let _held = &permit;
            chunk
        });
        Ok(Download { len, stream: held.boxed() })
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        let _permit = permit(&self.up, "delete").await?;
        self.inner.delete(token).await
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        let _permit = permit(&self.up, "update-meta").await?;
        self.inner.update_meta(token, meta).await
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        let _permit = permit(&self.up, "set-risk").await?;
        self.inner.set_risk(token, risk).await
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        let _permit = permit(&self.down, "list").await?;
        self.inner.list(filter, page).await
    }

    fn clock(&self) -> Option<u64> {
        self.inner.clock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::super::{MemoryStore, Op};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_puts_than_allowed_are_under_way() {
        let memory = Arc::new(MemoryStore::new());
        memory.delay(Op::Put, Duration::from_secs(1));
        let limit = Arc::new(Limit::new(Arc::clone(&memory) as Arc<dyn Store>, 2, 1));
        let puts: Vec<_> = (0..6)
            .map(|_| {
                let limit = Arc::clone(&limit);
                tokio::spawn(async move {
                    let payload = Payload::Bytes(Bytes::from_static(b"x"));
                    limit.put(&FileMeta::default(), "", payload).await.map(drop)
                })
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
        assert_eq!(memory.most_at_once(Op::Put), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_counts_until_it_is_dropped() {
        let memory = Arc::new(MemoryStore::new());
        let payload = Payload::Bytes(Bytes::from_static(b"x"));
        let token = memory.put(&FileMeta::default(), "", payload).await.unwrap();
        let limit = Limit::new(memory, 1, 1);
        let held = limit.get(&token).await.unwrap();
        let second = timeout(Duration::from_secs(9), limit.get(&token)).await;
        assert!(second.is_err());
        drop(held);
        limit.get(&token).await.unwrap();
    }
}
