//! The end of an upload: a version that the vault has becomes the file's content; and the
//! record of parts that have been sent and are not committed yet.

use std::collections::{BTreeMap, BTreeSet};

use super::Ino;
use super::Vfs;
use super::body::{Body, Chunk, Overlay, State};
use super::error::VfsResult;
use super::status::LiveMark;
use crate::catalog::merge::keep_lost;
use crate::catalog::{Content, Version, keys};
use crate::content::blob::BLOCK;
use crate::content::holes::{HOLES_MAX, Hole};
use crate::content::staging::Held;
use crate::db::Space;
use crate::store::Token;

/// A part that is in the vault, and the generation of the file whose bytes it holds.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) token: Token,
    pub(super) generation: u64,
    pub(super) len: u64,
    pub(super) holes: Vec<Hole>,
}

/// What a snapshot was taken of.
pub(super) struct Snapshot {
    pub(super) generation: u64,
    pub(super) size: u64,
}

impl Vfs {
    /// Makes an uploaded version the file's content, in one change of the local database.
    pub(super) fn commit_version(
        &self,
        body: &Body,
        snapshot: &Snapshot,
        (version, mut holes, mark): (Version, Vec<Hole>, LiveMark),
        replaced: &[Token],
        adopted: &BTreeMap<u32, Sent>,
    ) -> VfsResult<()> {
        let mut state = body.state.write();
        if state.discarded {
            // Nothing names it: the recorded intent lets housekeeping delete it.
            return Ok(());
        }
        let unchanged = state.generation == snapshot.generation;
        let mut txn = self.tree.begin();
        let Some(mut inode) = txn.find_inode(body.ino)? else { return Ok(()) };
        let stamp = txn.stamp();
        let concurrent = inode.content.stamp != state.base.stamp;
        let seen = state.base.lineage();
        holes.truncate(HOLES_MAX);
        let content = Content { stamp, size: snapshot.size, version, holes, seen };
        let old = std::mem::replace(&mut inode.content, content.clone());
        if concurrent && !content.covers(&old) {
            keep_lost(&mut txn, &inode, old)?;
        } else {
            // A version made from the old one keeps the parts that were not replaced.
            let still_split = matches!(content.version, Version::Parts { .. });
            match old.version.token() {
                Some(token) if still_split && state.base.version == old.version => {
                    txn.discard_token(token, self.trash_ms());
                }
                _ => txn.discard_version(&old.version, self.trash_ms()),
            }
            for token in replaced {
                txn.discard_part(token, state.base.version.family(), self.trash_ms());
            }
        }
        if let Some(token) = content.version.token() {
            txn.know_token(token, body.ino);
        }
        txn.raw(Space::Meta, keys::intent(mark.as_str()), None);
        txn.adopt(&mut inode)?;
        let dropped = self.rebase(&mut state, content, snapshot, unchanged);
        inode.local.dirty = state.record();
        if let Some(mtime) = state.mtime.filter(|_| unchanged) {
            // A stamp of its own: these attributes may have been published without it.
            txn.touch_content(&mut inode, mtime)?;
            state.mtime = None;
        }
        if unchanged {
            txn.raw(Space::Meta, keys::waiting(body.ino), None);
            txn.raw(Space::Data, keys::waiting(body.ino), None);
            state.persisted = state.generation;
        }
        for (index, _) in &dropped {
            txn.raw(Space::Meta, keys::chunk(body.ino, *index), None);
        }
        if inode.local.nlink > 0 {
            txn.publish_inode(body.ino);
        }
        txn.put_inode(inode);
        txn.commit()?;
        if unchanged {
            self.staging.hold(Held::Small(body.ino), 0);
        }
        drop(state);
        for (index, chunk) in dropped {
            self.retire_chunk(chunk, adopted.get(&index));
        }
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
        if let Some(part) = part
            && self.cache.adopt(part.token.as_str(), 0, &chunk.blob, blocks)
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
        snapshot: &Snapshot,
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
    pub(super) fn discard_now(&self, token: &Token, family: Option<Ino>) -> VfsResult<()> {
        let mut txn = self.tree.begin();
        txn.discard_part(token, family, 0);
        txn.commit()?;
        Ok(())
    }

    fn sent_key(ino: Ino, index: u64) -> Vec<u8> {
        let mut key = keys::sent(ino);
        key.extend_from_slice(&index.to_be_bytes());
        key
    }

    /// Parts that earlier rounds of this upload sent.
    pub(super) fn sent_parts(&self, ino: Ino) -> VfsResult<BTreeMap<u64, Sent>> {
        let prefix = keys::sent(ino);
        let (mut sent, mut stale) = (BTreeMap::new(), Vec::new());
        self.tree.db().scan(&prefix, &prefix, |key, value| {
            let index = keys::number(key, 9);
            let (run, token, generation, len, holes): (u64, Token, u64, u64, Vec<Hole>) =
                crate::db::decode(&value)?;
            match run == self.counters.run {
                true => drop(sent.insert(index, Sent { token, generation, len, holes })),
                false => stale.push((key.to_vec(), token)),
            }
            Ok(true)
        })?;
        // Parts that an earlier process sent: whether they still match is not known.
        let mut batch = self.tree.db().batch();
        let mut gone = BTreeSet::new();
        for (key, token) in stale {
            batch.remove(Space::Meta, &key);
            if !gone.contains(&token) {
                self.discard_now(&token, Some(ino))?;
                gone.insert(token);
            }
        }
        batch.commit()?;
        Ok(sent)
    }

    pub(super) fn record_sent(
        &self,
        ino: Ino,
        index: u64,
        part: &Sent,
        mark: Option<&LiveMark>,
    ) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        if let Some(mark) = mark {
            batch.remove(Space::Meta, &keys::intent(mark.as_str()));
        }
        let run = self.counters.run;
        let value = (run, &part.token, part.generation, part.len, &part.holes);
        batch.store(&Self::sent_key(ino, index), &value);
        Ok(batch.commit()?)
    }

    pub(super) fn forget_sent(&self, ino: Ino) -> VfsResult<()> {
        let prefix = keys::sent(ino);
        let mut found = Vec::new();
        self.tree.db().scan(&prefix, &prefix, |key, _| {
            found.push(key.to_vec());
            Ok(true)
        })?;
        let mut batch = self.tree.db().batch();
        for key in found {
            batch.remove(Space::Meta, &key);
        }
        Ok(batch.commit()?)
    }
}
