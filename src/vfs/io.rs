//! Reading, writing, truncating.

use std::sync::Arc;

use bytes::Bytes;

use super::base::PartHeader;
use super::body::{Body, Need, State};
use super::error::{VfsError, VfsResult};
use super::{Durability, Ino, Vfs};
use crate::catalog::Version;
use crate::content::blob::BLOCK;
use crate::store::Reference;

/// How often an operation asks again for bytes that it has just fetched: more means that
/// the content keeps changing under it or cannot be kept at all.
const TRIES: usize = 64;

/// Largest file of all: as ext4 has it.
const SIZE_MAX: u64 = (1 << 44) - 4096;

/// Most parts of one file: 2 TiB of them with the default part size. The table of parts is
/// in memory while a file is uploaded.
const PARTS_MAX: u64 = 1 << 17;

/// Pieces in which zeros are written.
const ZEROS: usize = 1 << 20;

/// Cleared ranges of one file that are kept; beyond, zeros are written.
const CLEARED_MAX: usize = 1024;

/// Bytes that one answer of `share` may count: the kernel takes 32 bits.
const SHARED_AT_ONCE: u64 = 1 << 31;

impl Vfs {
    /// Reads what is on this machine; `None` if the vault must be asked.
    pub fn try_read(&self, fh: u64, offset: u64, size: u32) -> VfsResult<Option<Vec<u8>>> {
        let handle = self.handle(fh)?;
        let body = handle.body(fh)?;
        let read = self.read_state(&body.state.read(), offset, size, &[]);
        let read = read.map_err(|e| self.blame(body.ino, e))?;
        match read {
            Ok(bytes) => {
                self.note_read(&handle, &body, offset, bytes.len());
                Ok(Some(bytes))
            }
            Err(_) => Ok(None),
        }
    }

    /// Reads, from the vault if need be.
    pub async fn read(self: Arc<Self>, fh: u64, offset: u64, size: u32) -> VfsResult<Vec<u8>> {
        let handle = self.handle(fh)?;
        let body = handle.body(fh)?;
        let mut first = true;
        let mut held = Vec::new();
        for _ in 0..TRIES {
            let read = self.read_state(&body.state.read(), offset, size, &held);
            match read.map_err(|e| self.blame(body.ino, e))? {
                Ok(bytes) => {
                    self.note_read(&handle, &body, offset, bytes.len());
                    return Ok(bytes);
                }
                Err(need) => {
                    self.note_read(&handle, &body, offset, size as usize);
                    self.satisfy(body.ino, need, &mut held).await?;
                    if std::mem::take(&mut first) {
                        self.note_miss(&body);
                    }
                }
            }
        }
        Err(self.cannot_keep(body.ino))
    }

    /// The bytes, or what must be fetched first.
    fn read_state(
        &self,
        state: &State,
        offset: u64,
        size: u32,
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Result<Vec<u8>, Need>> {
        if let Some(need) = state.unread() {
            return Ok(Err(need));
        }
        let len = state.size.saturating_sub(offset).min(u64::from(size)) as usize;
        let mut out = vec![0; len];
        match state.read(self, offset, &mut out, held)? {
            None => Ok(Ok(out)),
            Some(need) => Ok(Err(need)),
        }
    }

    fn cannot_keep(&self, ino: Ino) -> VfsError {
        let why = "fetched content could not be kept: is the cache directory full?".into();
        VfsError::Local { what: self.name_of(ino), why }
    }

    /// Names the file in an error that was met under its lock.
    pub(super) fn blame(&self, ino: Ino, error: VfsError) -> VfsError {
        use VfsError as E;
        match error {
            E::StagingFull { why, .. } => E::StagingFull { what: self.name_of(ino), why },
            E::Corrupt { what, why } if what == "open file" => {
                E::Corrupt { what: self.name_of(ino), why }
            }
            E::Local { what, why } if what == "open file" => {
                E::Local { what: self.name_of(ino), why }
            }
            other => other,
        }
    }

    /// Writes if nothing must be waited for; `None` otherwise.
    pub fn try_write(&self, fh: u64, offset: u64, data: &[u8]) -> VfsResult<Option<u32>> {
        let handle = self.handle(fh)?;
        let body = handle.writable(fh)?;
        if handle.mode.sync {
            return Ok(None);
        }
        match self.write_once(&body, offset, data, &[])? {
            None => Ok(Some(written(data))),
            Some(_) => Ok(None),
        }
    }

    fn write_once(
        &self,
        body: &Arc<Body>,
        offset: u64,
        data: &[u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let mut state = body.state.write();
        self.check_size(body.ino, offset.checked_add(data.len() as u64))?;
        let need = state.write(self, body.ino, offset, data, held);
        let need = need.map_err(|e| self.blame(body.ino, e))?;
        let early = need.is_none() && self.wants_early_upload(&state, offset, data.len());
        drop(state);
        if early {
            self.queue_early(body.ino);
        }
        Ok(need)
    }

    /// Writes, waiting for what must be read first (the rest of a partly written block).
    pub async fn write(self: Arc<Self>, fh: u64, offset: u64, data: Vec<u8>) -> VfsResult<u32> {
        let handle = self.handle(fh)?;
        let body = handle.writable(fh)?;
        self.write_waiting(&body, offset, &data).await?;
        if handle.mode.sync {
            self.commit_file(&body).await?;
        }
        Ok(written(&data))
    }

    async fn write_waiting(&self, body: &Arc<Body>, offset: u64, data: &[u8]) -> VfsResult<()> {
        let mut held = Vec::new();
        for _ in 0..TRIES {
            match self.write_once(body, offset, data, &held)? {
                None => return Ok(()),
                Some(need) => self.satisfy(body.ino, need, &mut held).await?,
            }
        }
        Err(self.cannot_keep(body.ino))
    }

    /// Cuts or extends a file, opening its content for the time if need be. `open`: through
    /// a handle, whose flush records it; otherwise it is recorded before this returns.
    pub(super) async fn truncate(&self, ino: Ino, size: u64, open: bool) -> VfsResult<()> {
        self.check_size(ino, Some(size))?;
        let body = self.body(ino)?;
        let mut held = Vec::new();
        for _ in 0..TRIES {
            let need = {
                let mut state = body.state.write();
                state.truncate(self, ino, size, &held).map_err(|e| self.blame(ino, e))?
            };
            match need {
                None => {
                    let writers = body.state.read().writers;
                    if !open || writers == 0 {
                        self.persist(&body)?;
                    }
                    if writers == 0 {
                        self.queue_upload(&body);
                    }
                    return Ok(());
                }
                Some(need) => self.satisfy(ino, need, &mut held).await?,
            }
        }
        Err(self.cannot_keep(ino))
    }

    /// `fallocate(2)`: extends, or makes a range zero.
    pub async fn fallocate(
        self: Arc<Self>,
        fh: u64,
        offset: u64,
        length: u64,
        keep_size: bool,
        punch: bool,
    ) -> VfsResult<()> {
        let handle = self.handle(fh)?;
        let body = handle.writable(fh)?;
        let size = body.state.read().size;
        let end = self.check_size(body.ino, offset.checked_add(length))?;
        self.staging
            .check_room(if punch { 0 } else { length })
            .map_err(|e| self.staging_error(body.ino, e))?;
        let before = body.state.read().generation;
        if !keep_size && end > size {
            self.truncate(body.ino, end, true).await?;
        }
        if punch {
            self.make_zero(&body, offset, end).await?;
            // What was staged there is gone from the disk: the record must say so too.
            self.persist(&body)?;
        }
        if body.state.read().generation == before {
            // Nothing changed, and the times move all the same, as they do elsewhere. What
            // was written before is older.
            self.persist(&body)?;
            self.tree.set_attrs(body.ino, |inode, now| inode.attrs.mtime = now)?;
            self.want_publish();
        }
        Ok(())
    }

    /// Refuses a file that would have too many parts for the memory that is allowed, or
    /// more bytes than any program expects.
    fn check_size(&self, ino: Ino, size: Option<u64>) -> VfsResult<u64> {
        let most = match self.config.split_above {
            Some(limit) => limit.max(self.config.part_size.saturating_mul(PARTS_MAX)),
            None => SIZE_MAX,
        };
        let size = size.filter(|size| *size <= most.min(SIZE_MAX));
        size.ok_or_else(|| VfsError::TooLarge { what: self.name_of(ino) })
    }

    /// Whole blocks are cleared; what the range has of its first and last one is written.
    async fn make_zero(&self, body: &Arc<Body>, from: u64, to: u64) -> VfsResult<()> {
        let (size, ranges) = {
            let state = body.state.read();
            (state.size, state.cleared.len())
        };
        let to = to.min(size);
        let first = from.next_multiple_of(BLOCK as u64).min(to);
        let last = if to == size { to } else { (to - to % BLOCK as u64).max(first) };
        let first = if ranges < CLEARED_MAX { first } else { last };
        self.write_zeros(body, from, first).await?;
        self.write_zeros(body, last, to).await?;
        let mut held = Vec::new();
        for _ in 0..TRIES {
            let need = {
                let mut state = body.state.write();
                let last = last.min(state.size); // cut meanwhile, by somebody else
                if first >= last {
                    return Ok(());
                }
                let cleared = state.clear(self, body.ino, (first, last), &held);
                cleared.map_err(|e| self.blame(body.ino, e))?
            };
            match need {
                None => return Ok(()),
                Some(need) => self.satisfy(body.ino, need, &mut held).await?,
            }
        }
        Err(self.cannot_keep(body.ino))
    }

    async fn write_zeros(&self, body: &Arc<Body>, from: u64, to: u64) -> VfsResult<()> {
        let mut at = from;
        while at < to {
            let len = (to - at).min(ZEROS as u64) as usize;
            self.write_waiting(body, at, &vec![0; len]).await?;
            at += len as u64;
        }
        Ok(())
    }

    /// `copy_file_range(2)` of parts that are in the vault: the copy names them too, and no
    /// byte is moved. Anything else is the kernel's to copy, by reading and writing.
    pub fn share(&self, from: (u64, u64), to: (u64, u64), len: u64) -> VfsResult<u32> {
        let ((fh_in, offset), (fh_out, offset_out)) = (from, to);
        let (source, target) = (self.handle(fh_in)?.body(fh_in)?, self.handle(fh_out)?);
        let target = target.writable(fh_out)?;
        let by_reading = || VfsError::Unsupported { what: "sharing these bytes".into() };
        let version = {
            let state = source.state.read();
            let clean = !state.dirty && state.base_len == state.size;
            clean.then(|| state.base.clone()).ok_or_else(by_reading)?
        };
        let Version::Parts(list) = &version.version else { return Err(by_reading()) };
        let Some(PartHeader { part_size, .. }) = self.part_header(list)? else {
            return Err(by_reading());
        };
        let split = self.config.split_above.is_some_and(|limit| version.size > limit);
        let end = offset.saturating_add(len.min(SHARED_AT_ONCE)).min(version.size);
        let end = if end < version.size { end - end % part_size } else { end };
        let whole = offset == offset_out && offset.is_multiple_of(part_size) && end > offset;
        if !split || !whole || source.ino == target.ino {
            return Err(by_reading());
        }
        let mut state = target.state.write();
        match state.borrow(self, target.ino, &version, (offset, end))? {
            true => Ok(u32::try_from(end - offset).unwrap_or(u32::MAX)),
            false => Err(by_reading()),
        }
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub fn lseek(&self, fh: u64, offset: i64, hole: bool) -> VfsResult<u64> {
        let handle = self.handle(fh)?;
        let body = handle.body(fh)?;
        let state = body.state.read();
        let found = match u64::try_from(offset) {
            Ok(at) if at < state.size => state.seek(self, at, hole)?,
            _ => None,
        };
        found.ok_or(VfsError::NoData { fh })
    }

    /// After a close or a truncation: content and size survive the process.
    pub(super) fn persist(&self, body: &Body) -> VfsResult<()> {
        let mut state = body.state.write();
        if state.persisted == state.generation || state.discarded {
            return Ok(());
        }
        self.record_body(body.ino, &mut state)?;
        state.persisted = state.generation;
        Ok(())
    }

    /// `close(2)` of one descriptor.
    pub async fn flush(self: Arc<Self>, fh: u64) -> VfsResult<()> {
        let handle = self.handle(fh)?;
        let Ok(body) = handle.body(fh) else { return Ok(()) };
        if !handle.mode.write {
            return Ok(());
        }
        self.persist(&body)?;
        if self.config.durability == Durability::Close && body.state.read().dirty {
            return self.commit_file(&body).await;
        }
        Ok(())
    }

    /// `fsync(2)`.
    pub async fn fsync(self: Arc<Self>, fh: u64, _datasync: bool) -> VfsResult<()> {
        let handle = self.handle(fh)?;
        let body = handle.body(fh)?;
        self.persist(&body)?;
        match self.config.durability {
            Durability::Local => Ok(self.tree.sync()?),
            Durability::Fsync | Durability::Close => self.commit_file(&body).await,
        }
    }

    /// `fsync(2)` of a directory: its names are committed.
    pub async fn fsyncdir(self: Arc<Self>, _ino: Ino) -> VfsResult<()> {
        match self.config.durability {
            Durability::Local => Ok(self.tree.sync()?),
            Durability::Fsync | Durability::Close => self.publish_patiently().await,
        }
    }
}

fn written(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
