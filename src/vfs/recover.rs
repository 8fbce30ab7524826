//! The local record of content that waits for the vault, and picking it up again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::body::{Body, Chunk, Overlay, State};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::{DirtyKind, Inode, Kind, keys};
use crate::content::staging::{Held, StagingError};
use crate::db::{Space, decode, encode};

/// How long a mount with a local database waits for news: it has a tree to show.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Changes that a file may see while it is held once.
const GENERATION_BITS: u32 = 32;

impl Vfs {
    /// Records a file's content state, its small content itself, and its times.
    pub(super) fn record_body(&self, ino: Ino, state: &mut State) -> VfsResult<()> {
        let mut txn = self.tree.begin();
        let Some(mut inode) = txn.find_inode(ino)? else { return Ok(()) };
        inode.local.dirty = state.record();
        match state.mtime.take() {
            Some(mtime) if inode.local.nlink > 0 => txn.touch_content(&mut inode, mtime)?,
            Some(mtime) => {
                inode.attrs.mtime = mtime;
                inode.attrs.ctime = inode.attrs.ctime.max(mtime);
            }
            None => txn.adopt(&mut inode)?,
        }
        match &state.overlay {
            Overlay::Small(bytes) => {
                txn.raw(Space::Data, keys::waiting(ino), Some(bytes.clone()));
                self.staging.hold(Held::Small(ino), bytes.len() as u64);
            }
            // Synced with the next group commit: not before, or a file that is written for
            // minutes would be synced all the time, and written to the disk twice.
            Overlay::Chunks(chunks) => {
                for chunk in chunks.values().filter(|c| c.generation > state.persisted) {
                    self.staging.note_written(&chunk.name, &chunk.blob);
                }
            }
            Overlay::None => {}
        }
        if state.dirty {
            txn.raw(Space::Meta, keys::waiting(ino), Some(Vec::new()));
        }
        txn.put_inode(inode);
        txn.commit()?;
        Ok(())
    }

    /// Records that a chunk is staged in the blob of this name.
    pub(super) fn record_chunk(&self, ino: Ino, index: u32, name: &str) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &keys::chunk(ino, index), &encode(&name.to_owned()));
        Ok(batch.commit()?)
    }

    /// Gives up a staged chunk.
    pub(super) fn drop_chunk(&self, ino: Ino, index: u32, chunk: &Chunk) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, &keys::chunk(ino, index));
        batch.commit()?;
        self.staging.remove(&chunk.name);
        Ok(())
    }

    /// Counts what a chunk has grown by.
    pub(super) fn account(&self, chunk: &mut Chunk) -> VfsResult<()> {
        let blob_error = |e| VfsError::from_blob(self.name_of_open(), e);
        let now = chunk.blob.allocated_bytes().map_err(blob_error)?;
        self.staging.hold_blob(&chunk.name, now);
        chunk.bytes = now;
        Ok(())
    }

    pub(super) fn staging_error(&self, ino: Ino, error: StagingError) -> VfsError {
        VfsError::from_staging(self.name_of(ino), error)
    }

    /// A file's content as the local database describes it.
    pub(super) fn load_body(&self, ino: Ino) -> VfsResult<Body> {
        let inode = self.tree.inode(ino)?;
        if inode.kind != Kind::File {
            return Err(VfsError::Invalid { what: self.name_of(ino), why: "not a file" });
        }
        // Later than any that the file had when it was held before: parts that were sent
        // then may be of older bytes.
        let generation = self.loads.fetch_add(1, Ordering::Relaxed) << GENERATION_BITS;
        let Some(dirty) = &inode.local.dirty else {
            return Ok(Body::new(ino, inode.content.clone(), generation));
        };
        let body = Body::new(ino, dirty.base.clone(), generation);
        {
            let mut state = body.state.write();
            state.overlay = match dirty.kind {
                DirtyKind::Small => Overlay::Small(self.small_content(&inode)?),
                DirtyKind::Chunks => Overlay::Chunks(self.staged_chunks(ino, generation)?),
            };
            state.size = dirty.size;
            state.base_len = dirty.base_len;
            // An earlier process may have counted further than this one will before it commits.
            state.cleared = dirty.cleared.as_of(generation);
            state.dirty = true;
            state.cut_chunks(self, ino)?;
        }
        Ok(body)
    }

    fn small_content(&self, inode: &Inode) -> VfsResult<Vec<u8>> {
        let stored = self.tree.db().get(Space::Data, &keys::waiting(inode.ino))?;
        stored.ok_or_else(|| VfsError::Corrupt {
            what: self.name_of(inode.ino),
            why: "its content is missing from the local database".into(),
        })
    }

    fn staged_chunks(&self, ino: Ino, generation: u64) -> VfsResult<BTreeMap<u32, Chunk>> {
        let prefix = keys::chunks(ino);
        let mut named = Vec::new();
        self.tree.db().scan(&prefix, &prefix, |key, value| {
            let mut index = [0; 4];
            index.copy_from_slice(&key[9..13]);
            named.push((u32::from_be_bytes(index), decode::<String>(&value)?));
            Ok(true)
        })?;
        let mut chunks = BTreeMap::new();
        for (index, name) in named {
            let blob = self.staging.reopen(&name).map_err(|e| self.staging_error(ino, e))?;
            let bytes =
                blob.allocated_bytes().map_err(|e| VfsError::from_blob(self.name_of(ino), e))?;
            chunks.insert(index, Chunk { name, blob, bytes, generation });
        }
        Ok(chunks)
    }

    /// After a start: sweeps what nobody names, gives up files that were removed while
    /// open, and queues everything that still waits for the vault.
    pub(super) fn recover(&self) -> VfsResult<()> {
        let mut found = Vec::new();
        self.tree.db().scan(keys::CHUNKS, keys::CHUNKS, |key, value| {
            found.push((key.to_vec(), decode::<String>(&value)?));
            Ok(true)
        })?;
        let mut named = BTreeSet::new();
        let mut batch = self.tree.db().batch();
        for (key, name) in found {
            let inode = self.tree.find_inode(keys::number(&key, 1))?;
            let dirty = inode.and_then(|i| i.local.dirty.clone());
            // A chunk of a file that was never flushed belongs to nothing.
            match dirty.is_some_and(|d| d.kind == DirtyKind::Chunks) {
                true => drop(named.insert(name)),
                false => batch.remove(Space::Meta, &key),
            }
        }
        batch.commit()?;
        for name in &named {
            self.staging.recount_blob(name);
        }
        self.staging.sweep(&named);
        self.purge_orphans()?;
        let mut waiting = Vec::new();
        self.tree.db().scan(keys::WAITING, keys::WAITING, |key, _| {
            waiting.push(keys::number(key, 1));
            Ok(true)
        })?;
        for ino in waiting {
            match self.tree.find_inode(ino)? {
                Some(inode) if inode.local.unwanted => {}
                Some(inode) if inode.local.dirty.is_some() => {
                    if inode.local.dirty.as_ref().is_some_and(|d| d.kind == DirtyKind::Small) {
                        self.staging.hold(Held::Small(ino), inode.size());
                    }
                    self.queue.add(ino, inode.size());
                }
                _ => self.forget_waiting(ino)?,
            }
        }
        Ok(())
    }

    fn purge_orphans(&self) -> VfsResult<()> {
        let mut orphans = Vec::new();
        self.tree.db().scan(keys::ORPHANS, keys::ORPHANS, |key, _| {
            orphans.push(keys::number(key, 1));
            Ok(true)
        })?;
        for ino in orphans {
            let inode = self.tree.find_inode(ino)?;
            if inode.is_some_and(|i| i.local.nlink == 0) {
                for (index, chunk) in self.staged_chunks(ino, 0)? {
                    self.drop_chunk(ino, index, &chunk)?;
                }
                self.tree.purge(ino, self.trash_ms())?;
            }
            let mut batch = self.tree.db().batch();
            batch.remove(Space::Meta, &keys::orphan(ino));
            batch.commit()?;
        }
        Ok(())
    }

    fn forget_waiting(&self, ino: Ino) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, &keys::waiting(ino));
        batch.remove(Space::Data, &keys::waiting(ino));
        Ok(batch.commit()?)
    }

    /// After a local start: the vault's catalog. A new state directory needs it; an old one
    /// goes on without, and looks again in the background.
    pub(super) async fn first_look(&self) -> VfsResult<()> {
        let known = self.tree.db().contains(Space::Meta, &keys::meta("followed"))?;
        if known {
            // What others did meanwhile, if the vault answers at once.
            match tokio::time::timeout(FIRST_LOOK, self.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "mounted as this machine last saw it"),
                Err(_) => tracing::warn!("mounted as this machine last saw it: no answer yet"),
            }
            return Ok(());
        }
        self.look().await?;
        // A vault without a catalog of this key may hold other clients' files: show them
        // before the mount answers, as far as the listing goes.
        self.look_for_files(true).await
    }
}
