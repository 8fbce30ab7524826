//! The local record of content that waits for the vault, and picking it up again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::body::{Body, Chunk, Overlay, Recorded, State};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::format::VersionId;
use crate::catalog::format::record::Place;
use crate::catalog::local::schema;
use crate::catalog::{DirtyKind, Inode, Kind, Txn};
use crate::content::staging::{Held, StagingError};
use crate::db::{Space, decode, encode};

/// How long a mount with a local database waits for news: it has a tree to show.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Most days that the vault's setting may say (docs/format.md, 6.2).
const TRASH_DAYS_MAX: u64 = 36_500;

/// Changes that a file may see while it is held once.
const GENERATION_BITS: u32 = 32;

impl Vfs {
    /// Records a file's content state, its small content itself, and its times.
    pub(super) fn record_body(&self, ino: Ino, state: &mut State) -> VfsResult<()> {
        let mut txn = self.tree.begin();
        let Some(mut inode) = txn.find_inode(ino)? else { return Ok(()) };
        if state.is_unnamed() {
            let (id, stamp) = txn.new_version();
            state.recorded.push(Recorded { id, stamp, generation: state.generation });
        }
        inode.local.dirty = state.record();
        if let Some(mtime) = state.mtime.take() {
            txn.touch_content(&mut inode, mtime);
        }
        match &state.overlay {
            Overlay::Small(bytes) => {
                txn.raw(Space::Data, schema::waiting(ino), Some(bytes.clone()));
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
            txn.raw(Space::Meta, schema::waiting(ino), Some(Vec::new()));
        }
        txn.put_inode(inode)?;
        txn.commit()?;
        Ok(())
    }

    /// Forgets an inode that has no name and no handle. What was stored of it and nobody has
    /// heard of goes with it.
    pub(super) fn purge(&self, ino: Ino) -> VfsResult<()> {
        let dropped = self.tree.purge(ino)?;
        if dropped.is_empty() {
            return Ok(());
        }
        let mut txn = self.tree.begin();
        self.discard_places(&mut txn, &dropped);
        txn.commit()?;
        Ok(())
    }

    /// Notes that nothing names these places any more, of which nobody was told.
    pub(super) fn discard_places(&self, txn: &mut Txn<'_>, places: &[Place]) {
        for base in places.iter().filter_map(|place| place.base.as_ref()) {
            let reference = base.reference();
            txn.discard(&reference.token);
            self.fetcher.forget(reference);
        }
    }

    /// Records that a chunk is staged in the blob of this name.
    pub(super) fn record_chunk(&self, ino: Ino, index: u32, name: &str) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &schema::chunk(ino, index), &encode(&name.to_owned()));
        Ok(batch.commit()?)
    }

    /// Gives up a staged chunk.
    pub(super) fn drop_chunk(&self, ino: Ino, index: u32, chunk: &Chunk) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, &schema::chunk(ino, index));
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
            // The last of them is of what is loaded now, the others of what was before it.
            let stamp = dirty.stamp;
            let named = |id: &VersionId| Recorded { id: *id, stamp, generation: generation - 1 };
            state.recorded = dirty.recorded.iter().map(named).collect();
            if let Some(last) = state.recorded.last_mut() {
                last.generation = generation;
            }
            state.dirty = true;
            state.cut_chunks(self, ino)?;
        }
        Ok(body)
    }

    fn small_content(&self, inode: &Inode) -> VfsResult<Vec<u8>> {
        let stored = self.tree.db().get(Space::Data, &schema::waiting(inode.ino))?;
        stored.ok_or_else(|| VfsError::Corrupt {
            what: self.name_of(inode.ino),
            why: "its content is missing from the local database".into(),
        })
    }

    fn staged_chunks(&self, ino: Ino, generation: u64) -> VfsResult<BTreeMap<u32, Chunk>> {
        let prefix = schema::chunks(ino);
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
        self.tree.db().scan(schema::CHUNKS, schema::CHUNKS, |key, value| {
            found.push((key.to_vec(), decode::<String>(&value)?));
            Ok(true)
        })?;
        let mut named = BTreeSet::new();
        let mut batch = self.tree.db().batch();
        for (key, name) in found {
            let inode = self.tree.find_inode(schema::number(&key, 1))?;
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
        self.discard_all_sent()?;
        let mut waiting = Vec::new();
        self.tree.db().scan(schema::WAITING, schema::WAITING, |key, _| {
            waiting.push(schema::number(key, 1));
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
        self.tree.db().scan(schema::ORPHANS, schema::ORPHANS, |key, _| {
            orphans.push(schema::number(key, 1));
            Ok(true)
        })?;
        for ino in orphans {
            let inode = self.tree.find_inode(ino)?;
            if inode.is_some_and(|i| i.local.nlink == 0) {
                for (index, chunk) in self.staged_chunks(ino, 0)? {
                    self.drop_chunk(ino, index, &chunk)?;
                }
                self.purge(ino)?;
            }
            let mut batch = self.tree.db().batch();
            batch.remove(Space::Meta, &schema::orphan(ino));
            batch.commit()?;
        }
        Ok(())
    }

    fn forget_waiting(&self, ino: Ino) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, &schema::waiting(ino));
        batch.remove(Space::Data, &schema::waiting(ino));
        Ok(batch.commit()?)
    }

    /// For how many days trash is kept is a setting of the vault: one that was asked for here
    /// becomes everybody's.
    fn say_trash_days(&self) -> VfsResult<()> {
        let (now, _) = self.tree.vault().trash_days();
        let Some(days) = self.config.trash_days else { return Ok(()) };
        let days = u64::from(days).min(TRASH_DAYS_MAX);
        if self.config.read_only || days == now {
            return Ok(());
        }
        let mut txn = self.tree.begin();
        let value = crate::catalog::format::cbor::Item::Unsigned(days);
        let name = "trash-days".to_owned();
        txn.record_vault(crate::catalog::format::Body::Setting { name, value })?;
        txn.commit()?;
        self.want_publish();
        Ok(())
    }

    /// After a local start: the vault's catalog. A new state directory needs it; an old one
    /// goes on without, and looks again in the background.
    pub(super) async fn first_look(&self) -> VfsResult<()> {
        if self.remote.has_followed()? {
            // What others did meanwhile, if the vault answers at once.
            match tokio::time::timeout(FIRST_LOOK, self.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "mounted as this machine last saw it"),
                Err(_) => tracing::warn!("mounted as this machine last saw it: no answer yet"),
            }
            self.say_trash_days()?;
            return Ok(());
        }
        self.look().await?;
        if !self.config.read_only {
            self.remote.found(self.config.new_catalog).await?;
        }
        self.say_trash_days()?;
        // A vault without a catalog of this key may hold other clients' files: show them
        // before the mount answers, as far as the listing goes.
        self.look_for_files(true).await
    }
}
