//! A store that is wrong on purpose, to try the judge.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use privicorefs::store::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreErrorKind,
    StoreResult, Token, collect,
};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Returns a token that nothing is under.
    OtherToken,
    /// Stores what it was not given.
    OtherBytes,
    /// Says of a put that was carried out that it failed.
    Denies,
    /// The same, in doubt, after storing under another mark.
    OtherMark,
    /// Gives a payload with one byte changed.
    Flips,
    /// Gives a payload without its end.
    Shortens,
    /// Lets a put take an hour.
    Sleeps,
    /// Leaves a record out of a listing.
    Forgets,
    /// Lists a record twice.
    Doubles,
    /// Deletes nothing.
    KeepsDeleted,
    /// Changes no names.
    KeepsName,
    /// Sets no risk meta.
    KeepsRisk,
    /// Fails to list.
    Fails,
}

/// See the module's header.
pub(crate) struct Planted {
    /// What is asked.
    pub(crate) inner: Arc<dyn Store>,
    /// What is wrong with its answers.
    pub(crate) plant: Plant,
}

impl Planted {
    fn is(&self, plant: Plant) -> bool {
        self.plant == plant
    }
}

#[async_trait]
impl Store for Planted {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        let denied = || StoreError::new(StoreErrorKind::Denied, "put", "planted");
        match self.plant {
            Plant::OtherToken => Ok(Token::new("nothing's")),
            Plant::OtherBytes => {
                let other = Payload::Bytes(Bytes::from(vec![7; payload.len() as usize]));
                self.inner.put(meta, mark, other).await
            }
            Plant::Denies => match self.inner.put(meta, mark, payload).await {
                Ok(_) => Err(denied()),
                other => other,
            },
            Plant::OtherMark => {
                let other = format!("f{}", &mark[1..]);
                match self.inner.put(meta, &other, payload).await {
                    Ok(_) => Err(denied().or_not()),
                    other => other,
                }
            }
            Plant::Sleeps => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                self.inner.put(meta, mark, payload).await
            }
            _ => self.inner.put(meta, mark, payload).await,
        }
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        let download = self.inner.get(token).await?;
        if !self.is(Plant::Flips) && !self.is(Plant::Shortens) {
            return Ok(download);
        }
        let mut bytes = collect(download, 1 << 30).await?;
        match self.plant {
            Plant::Flips => bytes[0] ^= 1,
            _ => bytes.truncate(bytes.len() - 1),
        }
        let len = Some(bytes.len() as u64);
        Ok(Download { len, stream: stream::once(async { Ok(bytes.into()) }).boxed() })
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        if self.is(Plant::KeepsDeleted) { Ok(()) } else { self.inner.delete(token).await }
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        if self.is(Plant::KeepsName) { Ok(()) } else { self.inner.update_meta(token, meta).await }
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        if self.is(Plant::KeepsRisk) { Ok(()) } else { self.inner.set_risk(token, risk).await }
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        let mut got = self.inner.list(filter, page).await?;
        match self.plant {
            Plant::Forgets => drop(got.records.pop()),
            Plant::Doubles => got.records.extend(got.records.first().cloned()),
            Plant::Fails => {
                return Err(StoreError::new(StoreErrorKind::Denied, "list", "planted"));
            }
            _ => {}
        }
        Ok(got)
    }

    fn clock(&self) -> Option<u64> {
        self.inner.clock()
    }
}
