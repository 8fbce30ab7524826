//! Following the other writers: finding segments that have not been applied here.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::remote::{Remote, RemoteError};
use super::segment::{Paths, Segment};
use super::txn::Stale;
use crate::db::DbError;
use crate::store::{ListFilter, StoreErrorKind, Token, list_all};

/// Segments fetched at once.
const FETCHES: usize = 8;

/// What a look at the vault brought.
#[derive(Debug, Default)]
pub struct Followed {
    /// Segments applied.
    pub segments: u64,
    /// Whether a checkpoint was loaded.
    pub checkpoint: bool,
    /// Payloads under the catalog's context that could not be used, with the reason.
    pub damaged: Vec<String>,
    /// What caches must forget.
    pub stale: Vec<Stale>,
}

impl Remote {
    /// Applies every segment that is new here; a checkpoint first, where segments that it
    /// covers are gone or nothing has been applied yet. `followed` holds what was applied
    /// also when an error ends it early.
    pub async fn follow(&self, followed: &mut Followed) -> Result<(), RemoteError> {
        let segments = self.list_segments().await?;
        self.guard_own_numbers(&segments)?;
        if self.needs_checkpoint(&segments)? {
            followed.checkpoint = self.load_checkpoint(followed).await?;
        }
        let mut wanted = Vec::new();
        for (&(writer, seq), token) in &segments {
            if !self.tree.applied(writer)?.has(seq) {
                wanted.push((writer, seq, token.clone()));
            }
        }
        let mut fetched = stream::iter(wanted)
            .map(|(writer, seq, token)| async move {
                (writer, seq, self.fetch_segment(writer, seq, &token).await)
            })
            .buffered(FETCHES);
        let mut gone = false;
        while let Some((writer, seq, segment)) = fetched.next().await {
            match segment {
                Ok(segment) => {
                    followed.stale.extend(self.tree.apply_segment(&segment)?);
                    followed.segments += 1;
                }
                Err(RemoteError::Store(error)) if error.is_retryable() => {
                    return Err(error.into());
                }
                // Deleted since it was listed: a checkpoint covers it.
                Err(RemoteError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                    gone = true;
                }
                Err(error) => {
                    followed.damaged.push(format!("segment {writer:08x}-{seq}: {error}"));
                }
            }
        }
        drop(fetched);
        if gone {
            followed.checkpoint |= self.load_checkpoint(followed).await?;
        }
        followed.stale.extend(self.tree.settle()?);
        Ok(())
    }

    /// Whether the vault holds a catalog of this key, or of another.
    pub async fn foreign_catalogs(&self) -> Result<bool, RemoteError> {
        let all = list_all(&*self.store, &ListFilter::default()).await?;
        let own = (self.paths.log(), self.paths.checkpoints(), self.paths.parts());
        Ok(all.iter().any(|r| {
            Paths::is_hidden(&r.context)
                && r.context != own.0
                && r.context != own.1
                && r.context != own.2
        }))
    }

    async fn list_segments(&self) -> Result<BTreeMap<(u32, u64), Token>, RemoteError> {
        let filter = ListFilter { context: Some(self.paths.log()), ..ListFilter::default() };
        let records = list_all(&*self.store, &filter).await?;
        Ok(records
            .into_iter()
            .filter_map(|r| Some((Paths::parse_segment(r.file_name.as_deref()?)?, r.token)))
            .collect())
    }

    /// A state directory restored from a backup would use its numbers again: refuse to.
    fn guard_own_numbers(&self, segments: &BTreeMap<(u32, u64), Token>) -> Result<(), RemoteError> {
        let writer = self.tree.writer();
        let Some(newest) = segments.keys().filter(|k| k.0 == writer).map(|k| k.1).max() else {
            return Ok(());
        };
        let key = super::keys::meta("seq");
        let own = self.tree.db().load::<u64>(&key)?.unwrap_or(0);
        if newest > own {
            tracing::warn!(
                newest,
                own,
                "the vault has newer segments of this writer than this state directory: continuing after them"
            );
            let mut batch = self.tree.db().batch();
            batch.store(&key, &newest);
            batch.commit()?;
        }
        Ok(())
    }

    fn needs_checkpoint(
        &self,
        segments: &BTreeMap<(u32, u64), Token>,
    ) -> Result<bool, RemoteError> {
        if !self.tree.db().contains(crate::db::Space::Meta, &super::keys::meta("followed"))? {
            return Ok(true);
        }
        let mut first: BTreeMap<u32, u64> = BTreeMap::new();
        for &(writer, seq) in segments.keys() {
            let lowest = first.entry(writer).or_insert(seq);
            *lowest = seq.min(*lowest);
        }
        for (writer, lowest) in first {
            if lowest > self.tree.applied(writer)?.through + 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn fetch_segment(
        &self,
        writer: u32,
        seq: u64,
        token: &Token,
    ) -> Result<Segment, RemoteError> {
        let segment = Segment::from_bytes(&self.get(token).await?)?;
        if (segment.writer, segment.seq) != (writer, seq) {
            let why = format!("segment {token} is not the one its name says");
            return Err(DbError::Corrupt(why).into());
        }
        Ok(segment)
    }

    /// Fetches pages in order, a few at a time.
    pub(super) async fn fetch_pages(
        &self,
        pages: Vec<Token>,
        mut each: impl FnMut(Segment) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let fetched = stream::iter(pages)
            .map(|token| async move {
                Ok::<_, RemoteError>(Segment::from_bytes(&self.get(&token).await?)?)
            })
            .buffered(2);
        let mut fetched = std::pin::pin!(fetched);
        while let Some(page) = fetched.try_next().await? {
            each(page)?;
        }
        Ok(())
    }
}
