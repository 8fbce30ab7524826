//! Sending what waits to the vault in segments.
//!
//! Invariants
//! 1. One publisher runs at a time (the caller holds a lock).
//! 2. A segment is sealed once, with the change of the local database that takes its records
//!    out of the outbox; every attempt sends the same bytes under the same mark, also the next
//!    mount's.
//! 3. A look not older than a minute precedes what is sealed.
//! 4. Each names its predecessor, and the ends of others that its writer had applied.

use tokio::time::Instant;

use super::position::{Chain, EMPTIED};
use super::remote::{Followed, Published, Remote, RemoteError};
use super::state::{EndRow, ManifestRow, PendingRow, SegmentRow, note_segment, pending};
use crate::catalog::conflict::object::{Brought, Origin};
use crate::catalog::format::payload::{PayloadKind, seal};
use crate::catalog::format::{Body, End, Header, Identity, Record, Reference, Segment};
use crate::db::{Space, encode};

/// Bytes of records in one segment, about.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Most bytes of records: what is stored may have 8 MiB.
const SEGMENT_MAX: usize = 7 << 20;

/// A look is as good as new for this long.
const LOOK_MS: u64 = 60_000;

impl Remote {
    /// Publishes all records that are ready; returns when the vault has acknowledged them.
    pub async fn publish(&self) -> Result<Published, RemoteError> {
        let mut total = Published::default();
        self.send_pending(false).await?;
        loop {
            let started = Instant::now();
            let mut found = self.tree.find_ready(SEGMENT_BYTES)?;
            total.looking += started.elapsed();
            total.held = found.held;
            if found.ready.is_empty() {
                return Ok(total);
            }
            self.look_if_old().await?;
            if self.is_emptied() {
                return Err(RemoteError::Refused(EMPTIED.to_owned()));
            }
            if self.begin_chain()? {
                found = self.tree.find_ready(SEGMENT_BYTES)?;
            }
            let sent = self.seal_segment(&found.ready)?;
            self.send_pending(true).await?;
            total.sent += sent;
            if !found.more && sent > 0 && self.tree.outbox_len(1)? == 0 {
                return Ok(total);
            }
        }
    }

    /// How many changes wait to be in the vault, those of a segment that is not acknowledged
    /// included; at least `limit` if there are more.
    pub fn waiting(&self, limit: u64) -> Result<u64, RemoteError> {
        let sealed = self.load::<PendingRow>(&pending())?;
        let sealed = sealed.map_or(0, |row| row.objects.len() as u64);
        Ok(self.tree.outbox_len(limit)? + sealed)
    }

    /// Looks, if the last look is older than a minute.
    async fn look_if_old(&self) -> Result<(), RemoteError> {
        if !self.looked_within(LOOK_MS) {
            let mut followed = Followed::default();
            let done = self.follow(&mut followed).await;
            self.keep_stale(followed.stale);
            done?;
        }
        Ok(())
    }

    /// Sees to it that this mount has a writer, and that the vault has an identity; says whether
    /// something was recorded for that.
    pub(super) fn begin_chain(&self) -> Result<bool, RemoteError> {
        let mut txn = self.tree.begin();
        let writer = txn.writer();
        let mut chain = self.chain.lock();
        if chain.writer == writer {
            return Ok(false);
        }
        *chain = Chain { writer, ..Chain::default() };
        let program = concat!("privicorefs ", env!("CARGO_PKG_VERSION")).to_owned();
        if self.tree.vault().identity.is_none() {
            let mut identity = [0; 16];
            self.env.random.fill(&mut identity);
            txn.record_vault(Body::Vault { identity, made_by: program.clone() })?;
            txn.record_vault(self.first_day())?;
        }
        let machine = self.tree.machine().to_owned();
        txn.record_vault(Body::Writer { machine, program })?;
        txn.commit().map_err(RemoteError::from)?;
        Ok(true)
    }

    /// Seals one segment of these objects' records; gives how many records it has.
    fn seal_segment(&self, ready: &[u64]) -> Result<u64, RemoteError> {
        let ends = self.other_ends()?;
        let manifests: Vec<ManifestRow> = self.all(b'k')?;
        let mut txn = self.tree.begin();
        let mut chain = self.chain.lock();
        let (mut records, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
        for &ino in ready {
            if bytes >= SEGMENT_MAX / 2 {
                break; // the rest is still in the outbox
            }
            for record in txn.send(ino)? {
                let record = record.encode();
                bytes += record.len() + 8;
                records.push(record);
            }
            objects.push(ino);
        }
        if records.is_empty() {
            txn.commit().map_err(RemoteError::from)?;
            return Ok(0);
        }
        let count = records.len() as u64;
        chain.sequence += 1;
        let (writer, sequence) = (chain.writer, chain.sequence);
        let new_ends: Vec<End> = ends
            .iter()
            .filter(|end| !chain.has_named(end.writer, &end.reference.identity))
            .cloned()
            .collect();
        let loaded: Vec<Reference> = manifests
            .iter()
            .filter(|row| row.loaded && !chain.loaded.contains(&row.reference.token))
            .map(|row| row.reference.clone())
            .collect();
        let day = self.tree.today();
        let segment = Segment {
            predecessor: chain.last.clone(),
            day,
            ends: new_ends.clone(),
            records,
            millis: self.env.millis(),
            manifests: loaded.clone(),
        };
        let key = self.catalog_keys.id();
        let kind = PayloadKind::Segment;
        let header = Header { kind, key, writer, sequence, number: 0, count: 0 };
        let content = segment.encode();
        let sealed = seal(&self.catalog_keys, &*self.env.random, header, None, &content);
        let row = PendingRow {
            mark: self.new_mark(),
            writer,
            sequence,
            day,
            objects,
            since: self.env.millis(),
        };
        txn.store(pending(), Some(&row));
        txn.raw(Space::Data, pending(), Some(sealed));
        txn.commit().map_err(RemoteError::from)?;
        for end in new_ends {
            chain.named.entry(end.writer).or_default().push(end.reference.identity);
        }
        chain.loaded.extend(loaded.into_iter().map(|reference| reference.token));
        Ok(count)
    }

    /// The ends of other writers whose tokens are known.
    fn other_ends(&self) -> Result<Vec<End>, RemoteError> {
        let own = self.chain.lock().writer;
        let rows: Vec<EndRow> = self.all(b'e')?;
        let others = rows.into_iter().filter(|row| row.writer != own);
        Ok(others
            .filter_map(|row| {
                let reference = Reference { token: row.token?, identity: row.identity };
                Some(End { writer: row.writer, sequence: row.sequence, reference })
            })
            .collect())
    }

    /// Sends the segment that is sealed and not acknowledged, if there is one.
    async fn send_pending(&self, fresh: bool) -> Result<(), RemoteError> {
        let Some(row) = self.load::<PendingRow>(&pending())? else { return Ok(()) };
        let sealed = self.tree.db().get(Space::Data, &pending())?;
        let Some(sealed) = sealed else { return self.give_up_number(&row) };
        if !fresh && self.env.millis().saturating_sub(row.since) > LOOK_MS {
            self.look_if_old().await?;
            if self.tree.today() > row.day + 1 {
                return self.give_up_number(&row);
            }
        }
        if self.is_emptied() {
            return Err(RemoteError::Refused(EMPTIED.to_owned()));
        }
        let name = super::paths::Paths::segment_name(row.writer, row.sequence);
        let token = self.put(self.paths.log(), name, &row.mark, &sealed).await?;
        let Some(identity) = Identity::of_catalog(&sealed) else { return Ok(()) };
        self.acknowledge(&row, &sealed, Reference { token, identity })
    }

    /// The number of a segment that can not be sent any more: its records go in a new one.
    fn give_up_number(&self, row: &PendingRow) -> Result<(), RemoteError> {
        let mut txn = self.tree.begin();
        txn.unsend(&row.objects)?;
        txn.store::<PendingRow>(pending(), None);
        txn.raw(Space::Data, pending(), None);
        txn.commit().map_err(RemoteError::from)?;
        Ok(())
    }

    fn acknowledge(
        &self,
        row: &PendingRow,
        sealed: &[u8],
        reference: Reference,
    ) -> Result<(), RemoteError> {
        let (writer, sequence, day) = (row.writer, row.sequence, row.day);
        let opened = self
            .open_payload(sealed)
            .map_err(|source| RemoteError::Unopened { token: reference.token.clone(), source })?;
        let (_, super::segments::Opened::Segment(_, segment)) = opened else { return Ok(()) };
        let origin = Origin::Published(Brought { writer, sequence, day });
        let records: Vec<(Record, Origin)> = segment
            .records
            .iter()
            .filter_map(|bytes| Some((Record::decode(bytes).ok()?, origin)))
            .collect();
        let closes = records.iter().any(|(record, _)| matches!(record.body, Body::WriterEnd));
        let known = SegmentRow { writer, sequence, reference: reference.clone(), day };
        let mut failed = Ok(());
        let stale = self.tree.apply(&records, |txn| {
            failed = note_segment(self, txn, &known, segment.predecessor.as_ref(), closes);
            txn.store::<PendingRow>(pending(), None);
            txn.raw(Space::Data, pending(), None);
            txn.raw(Space::Data, self.bytes_key(&reference.token), Some(sealed.to_vec()));
        })?;
        failed?;
        drop(stale); // what this machine did is shown already
        self.note_weight(reference.identity.len)?;
        let mut chain = self.chain.lock();
        if chain.writer == writer && chain.sequence == sequence {
            chain.last = Some(reference);
        }
        Ok(())
    }

    /// A segment of this mount's writer that this mount has not sent: the machine was set back.
    pub(super) fn notice_own(&self, writer: u64, identity: &Identity) -> Result<(), RemoteError> {
        let pending: Option<PendingRow> = self.load(&pending())?;
        let chain = self.chain.lock();
        let own = chain.writer == writer && chain.writer != 0;
        let is_last = chain.last.as_ref().is_some_and(|last| last.identity == *identity);
        drop(chain);
        if own && !is_last && pending.is_none_or(|row| row.writer != writer) {
            tracing::warn!(
                "this machine was set back to an earlier state: it goes on as another writer"
            );
            self.tree.start_writer();
        }
        Ok(())
    }

    /// The next number of a checkpoint of this mount's writer.
    pub(super) fn next_manifest(&self) -> Result<(u64, u64), RemoteError> {
        self.begin_chain()?;
        let mut chain = self.chain.lock();
        chain.manifests += 1;
        Ok((chain.writer, chain.manifests))
    }

    /// Says that this mount's writer writes nothing any more, if nothing of it is unpublished.
    pub async fn close_writer(&self) -> Result<(), RemoteError> {
        let has_written = self.chain.lock().last.is_some();
        if !has_written || self.waiting(1)? > 0 || self.is_emptied() {
            return Ok(());
        }
        let mut txn = self.tree.begin();
        txn.record_vault(Body::WriterEnd)?;
        txn.commit().map_err(RemoteError::from)?;
        self.publish().await.map(drop)
    }

    pub(super) fn note_weight(&self, bytes: u64) -> Result<(), RemoteError> {
        let key = crate::catalog::local::schema::meta("since-checkpoint");
        let (segments, weight) = self.load::<(u64, u64)>(&key)?.unwrap_or_default();
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &key, &encode(&(segments + 1, weight + bytes)));
        Ok(batch.commit()?)
    }
}
