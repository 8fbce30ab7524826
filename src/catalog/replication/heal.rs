//! What the vault lost of this mount's and earlier mounts' segments, put again
//! (docs/format.md, 4.6): healing adds, it never takes.
//!
//! Invariant: what is put again is the very bytes that were acknowledged, at least a minute after
//! they were missed, and only what nothing has replaced.

use std::collections::BTreeSet;

use super::paths::Paths;
use super::remote::{Remote, RemoteError};
use super::state::{EndRow, SegmentRow, end_key, identity_key};
use crate::catalog::format::Reference;
use crate::catalog::local::schema;
use crate::db::{Space, encode};
use crate::store::{StoreErrorKind, Token, TokenRecord};

/// What is missed is put again after so many milliseconds.
const AFTER: u64 = 60_000;

impl Remote {
    /// The sealed bytes of a segment that this machine has sent.
    pub(super) fn bytes_key(&self, token: &Token) -> Vec<u8> {
        schema::replication(b'b', &[&self.tree.token_tag(token)])
    }

    /// Puts segments again that this machine has sent and a whole listing lacks.
    pub(super) async fn heal(&self, log: &[TokenRecord]) -> Result<(), RemoteError> {
        let listed: BTreeSet<&Token> = log.iter().map(|record| &record.token).collect();
        let rows: Vec<SegmentRow> = self.all(b'g')?;
        for row in rows {
            let token = &row.reference.token;
            let missed = schema::replication(b'l', &[&self.tree.token_tag(token)]);
            if listed.contains(token) || self.is_replaced(token)? {
                if self.load::<u64>(&missed)?.is_some() {
                    let mut batch = self.tree.db().batch();
                    batch.remove(Space::Meta, &missed);
                    batch.commit()?;
                }
                continue;
            }
            let Some(bytes) = self.tree.db().get(Space::Data, &self.bytes_key(token))? else {
                continue;
            };
            match self.load::<u64>(&missed)? {
                None => {
                    let mut batch = self.tree.db().batch();
                    batch.store(&missed, &self.env.millis());
                    batch.commit()?;
                }
                Some(since) if self.env.millis().saturating_sub(since) >= AFTER => {
                    match self.fetch_pinned(&row.reference).await {
                        Ok(_) => {}
                        Err(RemoteError::Store(error))
                            if error.kind == StoreErrorKind::NotFound =>
                        {
                            self.put_again(&row, &missed, bytes).await?;
                        }
                        Err(RemoteError::Replaced { .. }) => {
                            self.put_again(&row, &missed, bytes).await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn put_again(
        &self,
        row: &SegmentRow,
        missed: &[u8],
        bytes: Vec<u8>,
    ) -> Result<(), RemoteError> {
        let name = Paths::segment_name(row.writer, row.sequence);
        let token = self.put(self.paths.log(), name, &self.new_mark(), &bytes).await?;
        tracing::warn!(
            writer = row.writer,
            sequence = row.sequence,
            "the vault lost a segment of the catalog: it was put again"
        );
        let identity = row.reference.identity;
        let reference = Reference { token: token.clone(), identity };
        let mut batch = self.tree.db().batch();
        let old = &row.reference.token;
        batch.remove(Space::Meta, &self.by_token(b'g', old));
        batch.remove(Space::Data, &self.bytes_key(old));
        batch.remove(Space::Meta, missed);
        batch.store(&self.by_token(b'g', &token), &SegmentRow { reference, ..row.clone() });
        batch.put(Space::Data, &self.bytes_key(&token), &bytes);
        batch.put(Space::Meta, &identity_key(b'i', &identity), &encode(&token));
        let end = end_key(row.writer, &identity);
        if let Some(known) = self.load::<EndRow>(&end)? {
            batch.store(&end, &EndRow { token: Some(token), ..known });
        }
        Ok(batch.commit()?)
    }
}
