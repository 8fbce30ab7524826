//! Handles, and which files' contents are held open.
//!
//! A body is in the table while anyone holds it, or it is more than the local database
//! describes. It leaves only in [`Vfs::retire`], when the table's is the last reference but
//! the caller's. Nobody loads one file twice at a time: what is loaded is the newest, since
//! a content changes only through the body in the table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::base::PartHeader;
use super::body::{Body, State};
use super::error::{VfsError, VfsResult};
use super::{DirEntry, Ino, Kind, OpenMode, Opened, Vfs};
use crate::catalog::Version;
use crate::store::{Reference, RiskMeta};

/// Bytes read in a row before the next parts are fetched ahead.
const SEQUENTIAL: u64 = 512 << 10;

/// Parts fetched ahead of a sequential reader.
const AHEAD: u64 = 2;

/// Small files fetched ahead in a folder that is being read.
const SIBLINGS: usize = 256;

/// Largest file fetched ahead with its folder.
const SIBLING_MAX: u64 = 256 << 10;

/// How long after a miss a listed folder's files are fetched ahead, in milliseconds.
const MISS_MEMORY_MS: u64 = 2_000;

/// Where a handle has read last.
#[derive(Debug, Default)]
struct Cursor {
    next: u64,
    run: u64,
    ahead: Option<u64>,
}

#[derive(Debug)]
enum Target {
    File(Arc<Body>),
    Dir(Ino),
}

/// An open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    target: Target,
    pub(super) mode: OpenMode,
    cursor: Mutex<Cursor>,
}

impl Handle {
    /// The file's content.
    pub(super) fn body(&self, fh: u64) -> VfsResult<Arc<Body>> {
        match &self.target {
            Target::File(body) => Ok(body.clone()),
            Target::Dir(_) => Err(VfsError::BadHandle { fh }),
        }
    }

    /// The file's content, if it was opened for writing.
    pub(super) fn writable(&self, fh: u64) -> VfsResult<Arc<Body>> {
        match self.mode.write {
            true => self.body(fh),
            false => Err(VfsError::BadHandle { fh }),
        }
    }
}

impl Vfs {
    pub(super) fn handle(&self, fh: u64) -> VfsResult<Arc<Handle>> {
        self.handles.read().get(&fh).cloned().ok_or(VfsError::BadHandle { fh })
    }

    fn add_handle(&self, target: Target, mode: OpenMode) -> u64 {
        let fh = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let handle = Handle { target, mode, cursor: Mutex::default() };
        self.handles.write().insert(fh, Arc::new(handle));
        fh
    }

    /// The content of a file, if it is held.
    pub(super) fn find_body(&self, ino: Ino) -> Option<Arc<Body>> {
        self.bodies.lock().get(&ino).cloned()
    }

    /// The content of a file, loaded if need be.
    pub(super) fn body(&self, ino: Ino) -> VfsResult<Arc<Body>> {
        if let Some(body) = self.find_body(ino) {
            return Ok(body);
        }
        let _one = self.loading[ino as usize % self.loading.len()].lock();
        if let Some(body) = self.find_body(ino) {
            return Ok(body);
        }
        let body = Arc::new(self.load_body(ino)?);
        self.bodies.lock().insert(ino, body.clone());
        // What a merge has brought between the two lines above looked for it in vain.
        self.refresh_body(&body)?;
        Ok(body)
    }

    /// A clean file shows the version that the catalog names. Says whether that is another.
    pub(super) fn refresh_body(&self, body: &Body) -> VfsResult<bool> {
        let mut state = body.state.write();
        let Some(inode) = self.tree.find_inode(body.ino)? else { return Ok(false) };
        if state.dirty || state.base == inode.content {
            return Ok(false);
        }
        state.base = inode.content.clone();
        state.base_len = inode.content.size;
        state.size = inode.content.size;
        Ok(true)
    }

    /// The contents that somebody has open, each once.
    pub(super) fn open_bodies(&self) -> Vec<Arc<Body>> {
        let handles: Vec<_> = self.handles.read().values().cloned().collect();
        let mut bodies: Vec<_> = handles.iter().filter_map(|h| h.body(0).ok()).collect();
        bodies.sort_by_key(|body| body.ino);
        bodies.dedup_by_key(|body| body.ino);
        bodies
    }

    /// Drops a content that nobody else holds and that the local database describes. A
    /// split one stays until it is in the vault: it knows which parts are there already.
    pub(super) fn retire(&self, body: &Arc<Body>) {
        let mut bodies = self.bodies.lock();
        let held = bodies.get(&body.ino).is_some_and(|b| Arc::ptr_eq(b, body));
        // Two references: the table's and the caller's.
        if held && Arc::strong_count(body) <= 2 {
            let idle = |s: &State| s.handles == 0 && (!s.dirty || self.can_load_again(s));
            if body.state.try_read().is_some_and(|state| idle(&state)) {
                bodies.remove(&body.ino);
            }
        }
    }

    fn can_load_again(&self, state: &State) -> bool {
        let whole = self.config.split_above.is_none_or(|limit| state.size <= limit);
        whole && state.persisted == state.generation && state.mtime.is_none()
    }

    /// Opens a regular file.
    pub fn open_file(&self, ino: Ino, mode: OpenMode) -> VfsResult<Opened> {
        let inode = self.tree.inode(ino)?;
        match inode.kind {
            Kind::File => {}
            Kind::Dir => return Err(VfsError::IsDir { what: self.name_of(ino) }),
            _ => return Err(VfsError::Invalid { what: self.name_of(ino), why: "not a file" }),
        }
        if mode.write && self.config.read_only {
            self.refuse_if_read_only(self.name_of(ino).as_bytes())?;
        }
        let body = self.body(ino)?;
        let truncate = mode.truncate && mode.write;
        let was_empty = {
            let mut state = body.state.write();
            state.handles += 1;
            state.writers += u32::from(mode.write);
            let empty = state.size == 0;
            if truncate && !empty {
                let need = state.truncate(self, ino, 0, &[]);
                need.map_err(|e| self.blame(ino, e))?;
            }
            empty
        };
        let fh = self.add_handle(Target::File(body), mode);
        if truncate && was_empty {
            // Nothing to cut, and the times move all the same.
            self.tree.set_attrs(ino, |inode, now| inode.attrs.mtime = now)?;
            self.want_publish();
        }
        Ok(Opened { fh, keep_cache: !mode.truncate })
    }

    /// Closes a file for good: its content is recorded, and goes to the vault soon.
    pub fn release(&self, fh: u64) -> VfsResult<()> {
        let Some(handle) = self.handles.write().remove(&fh) else {
            return Err(VfsError::BadHandle { fh });
        };
        let Target::File(body) = &handle.target else { return Ok(()) };
        let body = body.clone();
        let mode = handle.mode;
        drop(handle);
        let (last, dirty) = {
            let mut state = body.state.write();
            state.handles -= 1;
            state.writers -= u32::from(mode.write);
            (state.handles == 0, state.dirty)
        };
        let persisted = if mode.write { self.persist(&body) } else { Ok(()) };
        if last && self.tree.find_inode(body.ino)?.is_none_or(|i| i.local.nlink == 0) {
            self.discard(&body)?;
        } else if dirty && mode.write {
            self.queue_upload(&body);
        }
        self.retire(&body);
        persisted
    }

    /// Gives up a file that has no name and no handle.
    pub(super) fn discard(&self, body: &Arc<Body>) -> VfsResult<()> {
        let ino = body.ino;
        let split = {
            let mut state = body.state.write();
            if state.handles > 0 {
                return Ok(());
            }
            state.discarded = true;
            state.dirty = false;
            state.drop_overlay(self, ino)?;
            self.config.split_above.is_some_and(|limit| state.size > limit)
        };
        self.queue.remove(ino);
        body.changed.notify_waiters();
        // Not one that an upload still holds either: another machine may give the file a name
        // again, and whoever opens it then must find what is committed.
        let mut bodies = self.bodies.lock();
        if bodies.get(&ino).is_some_and(|held| Arc::ptr_eq(held, body)) {
            bodies.remove(&ino);
        }
        drop(bodies);
        if split {
            self.discard_sent(ino)?;
        }
        self.purge(ino)
    }

    /// Opens a directory.
    pub fn opendir(&self, ino: Ino) -> VfsResult<Opened> {
        let inode = self.tree.inode(ino)?;
        if !inode.is_dir() {
            return Err(VfsError::NotDir { what: self.name_of(ino) });
        }
        let missed = self.counters.last_miss_ms.load(Ordering::Relaxed);
        if missed > 0 && self.env.millis().saturating_sub(missed) < MISS_MEMORY_MS {
            self.prefetch_folder(ino, 0);
        }
        let fh = self.add_handle(Target::Dir(ino), OpenMode::default());
        Ok(Opened { fh, keep_cache: true })
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) -> VfsResult<()> {
        match self.handles.write().remove(&fh) {
            Some(_) => Ok(()),
            None => Err(VfsError::BadHandle { fh }),
        }
    }

    /// Lists a directory from a cookie on; `add` answers `true` when it is full. With
    /// `plus`, entries carry attributes.
    pub fn readdir(
        &self,
        fh: u64,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> VfsResult<()> {
        let handle = self.handle(fh)?;
        let Target::Dir(dir) = handle.target else { return Err(VfsError::BadHandle { fh }) };
        let dots: [(u64, &[u8]); 2] = [(1, b"."), (2, b"..")];
        for (cookie, name) in dots.into_iter().filter(|(cookie, _)| *cookie > offset) {
            let ino = if cookie == 1 { dir } else { self.tree.parent_of(dir)? };
            let kind = Kind::Dir;
            let entry = DirEntry { offset: cookie, name: name.to_vec(), ino, kind, attr: None };
            if add(&entry) {
                return Ok(());
            }
        }
        let after = if offset <= 2 { 0 } else { offset };
        let mut failed = None;
        self.tree.list(dir, after, |cookie, name, link| {
            let attr = match plus.then(|| self.getattr(link.ino)).transpose() {
                Ok(attr) => attr,
                Err(VfsError::NotFound { .. }) => return true, // its inode is still to arrive
                Err(error) => {
                    failed = Some(error);
                    return false;
                }
            };
            let (ino, kind) = (link.ino, link.kind);
            !add(&DirEntry { offset: cookie, name: name.to_vec(), ino, kind, attr })
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Keeps track of sequential reading, and fetches the next parts ahead of it.
    pub(super) fn note_read(&self, handle: &Handle, body: &Arc<Body>, offset: u64, len: usize) {
        let mut cursor = handle.cursor.lock();
        cursor.run = if offset == cursor.next { cursor.run + len as u64 } else { len as u64 };
        cursor.next = offset + len as u64;
        if cursor.run < SEQUENTIAL {
            return;
        }
        let Some(state) = body.state.try_read() else { return };
        let Version::Parts(list) = state.base.version.clone() else { return };
        let (size, dirty) = (state.base.size, state.dirty);
        drop(state);
        if dirty {
            return;
        }
        let Ok(Some(PartHeader { part_size, .. })) = self.part_header(&list) else { return };
        let here = cursor.next / part_size;
        let last = (here + AHEAD).min(size.saturating_sub(1) / part_size);
        let from = cursor.ahead.map_or(here + 1, |ahead| (ahead + 1).max(here + 1));
        if from > last {
            return;
        }
        cursor.ahead = Some(last);
        drop(cursor);
        for index in from..=last {
            if let Ok(Some(Some(part))) = self.part(&list, index) {
                self.prefetch(part);
            }
        }
    }

    fn prefetch(&self, payload: Reference) {
        let fetcher = self.fetcher.clone();
        self.spawn(async move {
            if !fetcher.has(&payload) {
                drop(fetcher.fetch(&payload).await);
            }
        });
    }

    /// A read had to ask the vault: the files beside it are likely to be read next.
    pub(super) fn note_miss(&self, body: &Arc<Body>) {
        self.counters.last_miss_ms.store(self.env.millis().max(1), Ordering::Relaxed);
        if body.state.try_read().is_some_and(|s| s.size > SIBLING_MAX) {
            return;
        }
        if let Ok(links) = self.tree.links_of(body.ino)
            && let Some(link) = links.first()
        {
            let after = self.tree.cookie_of(link.parent, &link.name);
            self.prefetch_folder(link.parent, after);
        }
    }

    /// Fetches the small files of a folder after a cookie, a few at a time.
    fn prefetch_folder(&self, dir: Ino, after: u64) {
        if self.approvals.reads_are_held() {
            return;
        }
        if !self.counters.prefetching.lock().insert(dir) {
            return; // one sweep of a folder at a time
        }
        let mut payloads = Vec::new();
        let listed = self.tree.list(dir, after, |_, _, link| {
            if link.kind == Kind::File
                && let Ok(Some(inode)) = self.tree.find_inode(link.ino)
                && inode.content.size <= SIBLING_MAX
                && inode.local.dirty.is_none()
                && inode.risk() == RiskMeta::default() // a policy may be about it
                && let Version::Whole(payload) = &inode.content.version
            {
                payloads.push(payload.clone());
            }
            payloads.len() < SIBLINGS
        });
        let (fetcher, counters) = (self.fetcher.clone(), self.counters.clone());
        self.spawn(async move {
            use futures_util::StreamExt;
            if listed.is_ok() {
                futures_util::stream::iter(payloads)
                    .for_each_concurrent(16, |payload| {
                        let fetcher = fetcher.clone();
                        async move {
                            if !fetcher.has(&payload) {
                                drop(fetcher.fetch(&payload).await);
                            }
                        }
                    })
                    .await;
            }
            counters.prefetching.lock().remove(&dir);
        });
    }
}
