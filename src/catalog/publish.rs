//! Sending the outbox to the vault in segments.
//!
//! One publisher runs at a time (the caller holds a lock). A segment is a snapshot of the
//! current registers of the changed records, so create, write, chmod and rename in quick
//! succession become one record. Order (invariant 6 of the catalog): a record is left
//! for a later segment while the content it needs is not in the vault.
//!
//! Crash: the number is recorded, and the links marked as published, before the segment
//! is sent. If its fate is unknown, the same records go out again in the next segment;
//! applying records twice changes nothing.

use super::keys;
use super::record::{Ino, Inode, Kind, Link};
use super::remote::{Remote, RemoteError};
use super::segment::{InodeRecord, Paths, Record, Segment};
use super::txn::OutboxEntry;
use crate::db::{Space, decode};
use crate::store::Token;

/// Most records in one segment: about 4 MiB sealed.
const SEGMENT_RECORDS: usize = 16_000;

/// What one call of [`Remote::publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records acknowledged by the vault.
    pub sent: u64,
    /// Records that wait for a content.
    pub held: u64,
}

/// One outbox entry with the record as it is now.
enum Ready {
    Inode(Box<Inode>),
    Link(Link),
}

/// What one pass over the outbox found.
#[derive(Default)]
struct Found {
    ready: Vec<Ready>,
    gone: Vec<Vec<u8>>,
    held: u64,
}

impl Remote {
    /// Number of records in the outbox, counted up to `limit`.
    pub fn outbox_len(&self, limit: u64) -> Result<u64, RemoteError> {
        let mut count = 0;
        self.tree.db().scan(keys::OUTBOX, keys::OUTBOX, |_, _| {
            count += 1;
            Ok(count < limit)
        })?;
        Ok(count)
    }

    /// Publishes all records that are ready; returns when the vault has acknowledged them.
    pub async fn publish(&self) -> Result<Published, RemoteError> {
        let mut total = Published::default();
        loop {
            let found = self.find_ready()?;
            total.held = found.held;
            self.drop_gone(&found.gone)?;
            if found.ready.is_empty() {
                return Ok(total);
            }
            let full = found.ready.len() >= SEGMENT_RECORDS;
            total.sent += found.ready.len() as u64;
            self.send(found.ready).await?;
            if !full {
                return Ok(total);
            }
        }
    }

    fn find_ready(&self) -> Result<Found, RemoteError> {
        let mut entries = Vec::new();
        self.tree.db().scan(keys::OUTBOX, keys::OUTBOX, |key, value| {
            entries.push((key.to_vec(), decode::<OutboxEntry>(&value)?));
            Ok(entries.len() < SEGMENT_RECORDS * 4)
        })?;
        let mut found = Found::default();
        for (key, entry) in entries {
            if found.ready.len() >= SEGMENT_RECORDS {
                break;
            }
            let number = keys::number(&key, 2);
            let ready = match key.get(1) {
                Some(b'I') => self.inode_ready(number)?,
                _ => self.link_ready(number, entry)?,
            };
            match ready {
                State::Ready(ready) => found.ready.push(ready),
                State::Held => found.held += 1,
                State::Gone => found.gone.push(key),
            }
        }
        Ok(found)
    }

    fn inode_ready(&self, ino: Ino) -> Result<State, RemoteError> {
        let Some(inode) = self.tree.find_inode(ino)? else { return Ok(State::Gone) };
        if inode.local.unwanted || (inode.local.nlink == 0 && !inode.is_dir()) {
            return Ok(State::Gone);
        }
        Ok(match inode.local.dirty {
            Some(_) => State::Held,
            None => State::Ready(Ready::Inode(Box::new((*inode).clone()))),
        })
    }

    fn link_ready(&self, id: u64, entry: OutboxEntry) -> Result<State, RemoteError> {
        let Some(link) = self.tree.db().load::<Link>(&keys::link(id))? else {
            return Ok(State::Gone);
        };
        if let Some(ino) = entry.after
            && self.content_waits(ino)?
        {
            return Ok(State::Held);
        }
        if link.live && link.kind == Kind::File && self.content_waits(link.ino)? {
            return Ok(State::Held);
        }
        Ok(State::Ready(Ready::Link(link)))
    }

    fn drop_gone(&self, gone: &[Vec<u8>]) -> Result<(), RemoteError> {
        let mut batch = self.tree.db().batch();
        for key in gone {
            batch.remove(Space::Meta, key);
        }
        Ok(batch.commit()?)
    }

    async fn send(&self, ready: Vec<Ready>) -> Result<(), RemoteError> {
        let (seq, ready) = self.prepare(ready)?;
        if ready.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(ready.len());
        let mut tokens: Vec<Token> = Vec::new();
        let (inodes, links): (Vec<_>, Vec<_>) =
            ready.iter().partition(|r| matches!(r, Ready::Inode(_)));
        for item in inodes.into_iter().chain(links) {
            match item {
                Ready::Inode(inode) => {
                    tokens.extend(inode.content.version.token().cloned());
                    records.push(Record::Inode(InodeRecord::from(&**inode)));
                }
                Ready::Link(link) => records.push(Record::Link(link.clone())),
            }
        }
        let writer = self.tree.writer();
        let segment = Segment { writer, seq, records, tokens };
        let name = Paths::segment_name(writer, seq);
        let token = self.put(self.paths.log(), name, &segment.to_bytes()).await?;
        self.acknowledge(&ready, &token, seq)
    }

    /// Takes the next number, and marks the links as known to others, so that a removal
    /// from now on leaves a tombstone. What has changed since it was found ready (a link
    /// that was removed without a trace, above all) is left for the next segment.
    fn prepare(&self, ready: Vec<Ready>) -> Result<(u64, Vec<Ready>), RemoteError> {
        let mut txn = self.tree.begin();
        let mut still = Vec::with_capacity(ready.len());
        for item in ready {
            let same = match &item {
                Ready::Inode(found) => txn
                    .find_inode(found.ino)?
                    .is_some_and(|now| now.newest() == found.newest() && now.local.dirty.is_none()),
                Ready::Link(found) => {
                    txn.find_link(found.id)?.is_some_and(|now| now.stamp == found.stamp)
                }
            };
            if same {
                still.push(item);
            }
        }
        let ready = still;
        let seq = self.tree.db().load::<u64>(&keys::meta("seq"))?.unwrap_or(0) + 1;
        txn.raw(Space::Meta, keys::meta("seq"), Some(crate::db::encode(&seq)));
        for item in &ready {
            if let Ready::Link(link) = item
                && let Some(mut now) = txn.find_link(link.id)?
                && !now.published
            {
                now.published = true;
                txn.put_link(now);
            }
        }
        txn.commit()?;
        Ok((seq, ready))
    }

    fn acknowledge(&self, ready: &[Ready], token: &Token, seq: u64) -> Result<(), RemoteError> {
        let writer = self.tree.writer();
        let mut applied = self.tree.applied(writer)?;
        applied.add(seq);
        let mut txn = self.tree.begin();
        for item in ready {
            match item {
                Ready::Inode(sent) => {
                    if let Some(now) = txn.find_inode(sent.ino)?
                        && now.newest() == sent.newest()
                        && now.local.dirty.is_none()
                    {
                        txn.raw(Space::Meta, keys::outbox_inode(sent.ino), None);
                    }
                }
                Ready::Link(sent) => {
                    if txn.find_link(sent.id)?.is_some_and(|now| now.stamp == sent.stamp) {
                        txn.raw(Space::Meta, keys::outbox_link(sent.id), None);
                    }
                }
            }
        }
        txn.know_token(token, 0);
        txn.raw(Space::Meta, keys::applied(writer), Some(crate::db::encode(&applied)));
        txn.commit()?;
        Ok(())
    }
}

enum State {
    Ready(Ready),
    Held,
    Gone,
}
