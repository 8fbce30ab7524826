//! The end of an upload: a version that the vault has becomes the file's content; and the
//! record of parts that have been sent and are not committed yet.

use std::collections::BTreeMap;

use super::Ino;
use super::Vfs;
use super::body::{Body, Chunk, Overlay, State};
use super::error::VfsResult;
use super::status::LiveMark;
use crate::catalog::format::VersionId;
use crate::catalog::format::record::PlaceBase;
use crate::catalog::local::row::least_cover;
use crate::catalog::local::schema;
use crate::catalog::{Content, NewVersion, Stale, Version};
use crate::content::blob::BLOCK;
use crate::content::fetch::cache_name;
use crate::content::holes::{HOLES_MAX, Hole};
use crate::content::staging::Held;
use crate::db::{Space, decode, encode};
use crate::store::{Reference, Token};

/// A part that is in the vault, and the generation of the file whose bytes it holds.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Where; `None` for one of zeros, which is not stored.
    pub(super) reference: Option<Reference>,
    pub(super) generation: u64,
    pub(super) len: u64,
    pub(super) holes: Vec<Hole>,
}

/// A part as the local database has it: who sent it, and what it is.
type SentRow = (u64, Option<Reference>, u64, u64, Vec<Hole>);

/// What a snapshot was taken of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) generation: u64,
    pub(super) size: u64,
}

/// A version that is in the vault and becomes the file's content.
pub(super) struct Uploaded {
    pub(super) base: PlaceBase,
    pub(super) holes: Vec<Hole>,
    /// Lives until the catalog names the token.
    pub(super) mark: LiveMark,
}

impl Vfs {
    /// Makes an uploaded version the file's content, in one change of the local database.
    pub(super) fn commit_version(
        &self,
        body: &Body,
        snapshot: Snapshot,
        uploaded: Uploaded,
        adopted: &BTreeMap<u32, Sent>,
    ) -> VfsResult<()> {
        let Uploaded { base, mut holes, mark } = uploaded;
        let mut state = body.state.write();
        let unchanged = state.generation == snapshot.generation;
        let mut txn = self.tree.begin();
        let named = txn.find_inode(body.ino)?.is_some_and(|inode| inode.local.nlink > 0);
        if state.discarded || !named {
            // Nothing will name it: housekeeping deletes what the vault has acknowledged.
            return Ok(());
        }
        holes.truncate(HOLES_MAX);
        // What was recorded before the snapshot is in it; what was since is made from it.
        let before = state.recorded.iter().filter(|of| of.generation < snapshot.generation);
        let before: Vec<VersionId> = before.map(|of| of.id).collect();
        let known = state.recorded.iter().find(|of| of.generation == snapshot.generation);
        let (id, stamp) = match known {
            Some(of) => (of.id, of.stamp),
            None => txn.new_version(),
        };
        let covers = least_cover(state.base.id, &before);
        let (size, place) = (snapshot.size, Some(base.clone()));
        let version = NewVersion { id, stamp, covers, size, holes: holes.clone(), base: place };
        txn.commit_version(body.ino, version)?;
        let tag = self.tree.token_tag(&base.reference().token);
        txn.raw(Space::Meta, schema::garbage(&tag), None);
        // Its parts are recorded already.
        txn.raw(Space::Meta, schema::unindexed(&tag), None);
        let version = match base {
            PlaceBase::Whole(reference) => Version::Whole(reference),
            PlaceBase::Parts(list) => Version::Parts(list),
        };
        let content = Content { id: Some(id), stamp, size, version, holes };
        state.recorded.retain(|of| of.generation > snapshot.generation);
        let dropped = self.rebase(&mut state, content, snapshot, unchanged);
        let mut inode = txn.inode(body.ino)?;
        inode.local.dirty = state.record();
        if let Some(mtime) = state.mtime.filter(|_| unchanged) {
            txn.touch_content(&mut inode, mtime);
            state.mtime = None;
        }
        if unchanged {
            txn.raw(Space::Meta, schema::waiting(body.ino), None);
            txn.raw(Space::Data, schema::waiting(body.ino), None);
            state.persisted = state.generation;
        }
        for (index, _) in &dropped {
            txn.raw(Space::Meta, schema::chunk(body.ino, *index), None);
        }
        txn.put_inode(inode)?;
        let mut stale = txn.commit()?;
        drop(mark);
        if unchanged {
            self.staging.hold(Held::Small(body.ino), 0);
        }
        drop(state);
        for (index, chunk) in dropped {
            self.retire_chunk(chunk, adopted.get(&index));
        }
        if self.refresh_body(body)? {
            // Another machine's version goes first: this one is beside it now.
            stale.push(Stale::Inode { ino: body.ino, data: true });
        }
        self.announce_later(stale);
        self.want_publish();
        if !unchanged {
            let size = body.state.read().size;
            self.queue.set(body.ino, size, std::time::Duration::from_secs(1));
        }
        Ok(())
    }

    /// A chunk whose bytes are in the vault: the cache takes it over if it is one whole part.
    pub(super) fn retire_chunk(&self, chunk: Chunk, part: Option<&Sent>) {
        let blocks = part.map_or(0, |p| p.len.div_ceil(BLOCK as u64));
        if let Some(reference) = part.and_then(|part| part.reference.as_ref())
            && self.cache.adopt(&cache_name(reference), 0, &chunk.blob, blocks)
        {
            self.staging.release(&chunk.name);
            // Its plaintext is in the kernel's cache, where readers look first.
            chunk.blob.let_go();
            return;
        }
        self.staging.remove(&chunk.name);
    }

    /// Puts the committed version under the overlay; gives the chunks that are done with.
    pub(super) fn rebase(
        &self,
        state: &mut State,
        content: Content,
        snapshot: Snapshot,
        unchanged: bool,
    ) -> Vec<(u32, Chunk)> {
        state.base = content;
        state.committed = snapshot.generation;
        state.cleared.forget(snapshot.generation);
        if unchanged {
            state.base_len = snapshot.size;
            state.dirty = false;
            return match std::mem::take(&mut state.overlay) {
                Overlay::Chunks(chunks) => chunks.into_iter().collect(),
                Overlay::Small(_) | Overlay::None => Vec::new(),
            };
        }
        let Overlay::Chunks(chunks) = &mut state.overlay else { return Vec::new() };
        // Every block that the snapshot saw is in the new base; what was cut off since is not.
        state.base_len = snapshot.size.min(state.low_water);
        let done: Vec<u32> = chunks
            .iter()
            .filter(|(_, chunk)| chunk.generation <= snapshot.generation)
            .map(|(index, _)| *index)
            .collect();
        done.into_iter().filter_map(|index| Some((index, chunks.remove(&index)?))).collect()
    }

    /// A payload that the catalog never named: nobody can be reading it.
    pub(super) fn discard_now(&self, token: &Token) -> VfsResult<()> {
        let mut txn = self.tree.begin();
        txn.discard(token);
        txn.commit()?;
        Ok(())
    }

    fn sent_key(ino: Ino, index: u64) -> Vec<u8> {
        let mut key = schema::sent(ino);
        key.extend_from_slice(&index.to_be_bytes());
        key
    }

    /// Parts that earlier rounds of this upload sent.
    pub(super) fn sent_parts(&self, ino: Ino) -> VfsResult<BTreeMap<u64, Sent>> {
        let prefix = schema::sent(ino);
        let mut sent = BTreeMap::new();
        self.tree.db().scan(&prefix, &prefix, |key, value| {
            let (run, reference, generation, len, holes): SentRow = decode(&value)?;
            if run == self.counters.run {
                let part = Sent { reference, generation, len, holes };
                sent.insert(schema::number(key, 9), part);
            }
            Ok(true)
        })?;
        Ok(sent)
    }

    /// Records a part that is in the vault: from now on that record is what knows of its token.
    pub(super) fn record_sent(&self, ino: Ino, index: u64, part: &Sent) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        if let Some(reference) = &part.reference {
            let tag = self.tree.token_tag(&reference.token);
            batch.remove(Space::Meta, &schema::garbage(&tag));
        }
        let run = self.counters.run;
        let value = (run, &part.reference, part.generation, part.len, &part.holes);
        batch.store(&Self::sent_key(ino, index), &value);
        Ok(batch.commit()?)
    }

    /// The parts that were sent of a file are committed.
    pub(super) fn forget_sent(&self, ino: Ino) -> VfsResult<()> {
        self.remove_sent(&schema::sent(ino), false)
    }

    /// They will not be.
    pub(super) fn discard_sent(&self, ino: Ino) -> VfsResult<()> {
        self.remove_sent(&schema::sent(ino), true)
    }

    /// Parts that an earlier process sent: whether they still match is not known.
    pub(super) fn discard_all_sent(&self) -> VfsResult<()> {
        self.remove_sent(schema::SENT, true)
    }

    fn remove_sent(&self, prefix: &[u8], discard: bool) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        self.tree.db().scan(prefix, prefix, |key, value| {
            batch.remove(Space::Meta, key);
            let (_, reference, ..): SentRow = decode(&value)?;
            if let Some(Reference { token, .. }) = reference.filter(|_| discard) {
                let garbage = schema::garbage(&self.tree.token_tag(&token));
                batch.put(Space::Meta, &garbage, &encode(&token));
            }
            Ok(true)
        })?;
        Ok(batch.commit()?)
    }
}
