//! A put is believed when it is proved (design D3a.9).
//!
//! Invariants
//! 1. The first put of a session, and one that was in doubt before, is read back, or found by its
//!    mark where reading waits for a vote, before its token is given to the caller.
//! 2. What is read back is the payload, or the put has failed, in doubt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;

use super::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreErrorKind,
    StoreResult, Token, list_all,
};
use crate::crypto::{IV_LEN, TAG_LEN};

/// See the module's header.
pub struct Proved {
    inner: Arc<dyn Store>,
    /// A put of this session has been proved.
    believed: AtomicBool,
    /// Marks of puts whose outcome was not known.
    doubtful: Mutex<BTreeSet<String>>,
}

/// What a payload is known by: its length, its first bytes and its last.
#[derive(Debug, PartialEq, Eq)]
struct Ends {
    len: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Proved {
    /// Proves the puts of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, believed: AtomicBool::new(false), doubtful: Mutex::default() }
    }

    async fn prove(
        &self,
        token: &Token,
        (meta, mark): (&FileMeta, &str),
        payload: &Payload,
    ) -> StoreResult<()> {
        let expected = match payload {
            Payload::Bytes(bytes) => Ends {
                len: bytes.len() as u64,
                first: bytes[..IV_LEN.min(bytes.len())].to_vec(),
                last: bytes[bytes.len().saturating_sub(TAG_LEN)..].to_vec(),
            },
            Payload::Stream { .. } => return self.find(token, (meta, mark)).await,
        };
        let found = match self.inner.get(token).await {
            Ok(download) => ends_of(download).await?,
            Err(error) if error.kind == StoreErrorKind::AwaitingApproval => {
                return self.find(token, (meta, mark)).await;
            }
            Err(error) if error.kind == StoreErrorKind::Denied => {
                return self.find(token, (meta, mark)).await;
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(not_there(token));
            }
            Err(error) => return Err(error.or_not()),
        };
        if found == expected { Ok(()) } else { Err(not_there(token)) }
    }

    /// Looks for the mark in the listing, where the service keeps marks.
    async fn find(&self, token: &Token, (meta, mark): (&FileMeta, &str)) -> StoreResult<()> {
        let (context, file_name) = (Some(meta.context.clone()), Some(meta.file_name.clone()));
        let filter = ListFilter { context, file_name, ..ListFilter::default() };
        let listed = list_all(&*self.inner, &filter).await.map_err(StoreError::or_not)?;
        let found = listed.iter().find(|record| record.token == *token);
        match found {
            Some(record) if record.mark.as_deref().is_none_or(|kept| kept == mark) => Ok(()),
            _ => Err(not_there(token)),
        }
    }
}

async fn ends_of(download: Download) -> StoreResult<Ends> {
    let mut ends = Ends { len: 0, first: Vec::new(), last: Vec::new() };
    let mut stream = download.stream;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(StoreError::or_not)?;
        ends.len += piece.len() as u64;
        let missing = IV_LEN.saturating_sub(ends.first.len()).min(piece.len());
        ends.first.extend_from_slice(&piece[..missing]);
        ends.last.extend_from_slice(&piece[piece.len().saturating_sub(TAG_LEN)..]);
        let more = ends.last.len().saturating_sub(TAG_LEN);
        ends.last.drain(..more);
    }
    Ok(ends)
}

fn not_there(token: &Token) -> StoreError {
    let said = "the service acknowledged a payload that it does not give back";
    StoreError::new(StoreErrorKind::Protocol, "put", said).on(token).or_not()
}

#[async_trait]
impl Store for Proved {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        let stored = self.inner.put(meta, mark, payload.clone()).await;
        let token = match stored {
            Ok(token) => token,
            Err(error) => {
                if error.in_doubt {
                    self.doubtful.lock().insert(mark.to_owned());
                }
                return Err(error);
            }
        };
        let doubtful = self.doubtful.lock().contains(mark);
        if doubtful || !self.believed.load(Ordering::SeqCst) {
            let proved = self.prove(&token, (meta, mark), &payload).await;
            if let Err(error) = proved {
                self.doubtful.lock().insert(mark.to_owned());
                return Err(error);
            }
            self.believed.store(true, Ordering::SeqCst);
            self.doubtful.lock().remove(mark);
        }
        Ok(token)
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        self.inner.get(token).await
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        self.inner.delete(token).await
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        self.inner.update_meta(token, meta).await
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        self.inner.set_risk(token, risk).await
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        self.inner.list(filter, page).await
    }

    fn clock(&self) -> Option<u64> {
        self.inner.clock()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{MemoryStore, Op};
    use super::*;

    fn payload(byte: u8) -> Payload {
        Payload::Bytes(Bytes::from(vec![byte; 40]))
    }

    #[tokio::test]
    async fn the_first_put_and_one_in_doubt_are_read_back_and_no_other() {
        let memory = Arc::new(MemoryStore::new());
        let proved = Proved::new(Arc::clone(&memory) as Arc<dyn Store>);
        let meta = FileMeta { file_name: "a".into(), context: "/".into(), ..FileMeta::default() };
        proved.put(&meta, "mark-1", payload(1)).await.unwrap();
        assert_eq!(memory.count(Op::Get), 1);
        proved.put(&meta, "mark-2", payload(2)).await.unwrap();
        assert_eq!(memory.count(Op::Get), 1);
        memory.fail_next_after_effect(Op::Put, 1, StoreErrorKind::TimedOut);
        let error = proved.put(&meta, "mark-3", payload(3)).await.unwrap_err();
        if error.in_doubt {
            proved.put(&meta, "mark-3", payload(3)).await.unwrap();
            assert_eq!(memory.count(Op::Get), 2);
        }
    }

    #[tokio::test]
    async fn what_the_service_does_not_give_back_is_not_believed() {
        struct Loses(Arc<MemoryStore>);
        #[async_trait]
        impl Store for Loses {
            async fn put(&self, meta: &FileMeta, mark: &str, of: Payload) -> StoreResult<Token> {
                let token = self.0.put(meta, mark, of).await?;
                self.0.tamper(&token, Bytes::from_static(b"something else that is long enough"));
                Ok(token)
            }
            async fn get(&self, token: &Token) -> StoreResult<Download> {
                self.0.get(token).await
            }
            async fn delete(&self, token: &Token) -> StoreResult<()> {
                self.0.delete(token).await
            }
            async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
                self.0.update_meta(token, meta).await
            }
            async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
                self.0.set_risk(token, risk).await
            }
            async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
                self.0.list(filter, page).await
            }
        }
        let proved = Proved::new(Arc::new(Loses(Arc::new(MemoryStore::new()))));
        let error = proved.put(&FileMeta::default(), "mark", payload(1)).await.unwrap_err();
        assert!(error.in_doubt && error.kind == StoreErrorKind::Protocol, "{error}");
    }
}
