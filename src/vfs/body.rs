//! A regular file's content while it is open or dirty.
//!
//! What a reader sees is an *overlay* of local changes over the *base*, the committed
//! version that was in view when the changes began:
//!
//! ```text
//! byte at i  =  overlay has its block   -> the overlay's byte
//!               i was cleared           -> zero
//!               i < base_len            -> the base's byte
//!               otherwise               -> zero
//! ```
//!
//! Invariants
//! 1. `base_len <= size`, and `base_len` only shrinks until a new base is committed: what
//!    was cut off by a truncation never comes back when the file grows again.
//! 2. Overlay blocks lie below `size`; bytes of the last one beyond `size` are zero.
//! 3. `generation` counts content changes, and never goes back while the process lives;
//!    `persisted` is the one that the local database describes. `flush` makes them equal,
//!    so a closed file survives the process, and need not stay in memory.
//! 4. A byte that changes, even one of a write that fails behind it, has a new generation: what
//!    was read twice at one generation is the same.
//! 5. What the local database describes has an identity of its own from then on, under which it
//!    may become a version here or on a copy of this machine.
//! 6. The state lock is never held across the network. An operation that lacks bytes says
//!    which payload it needs ([`Need`]), lets go, and tries again once it is fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::cleared::Cleared;
use crate::catalog::format::{Stamp, VersionId};
use crate::catalog::{Content, Dirty, DirtyKind, Time, Version};
use crate::content::CHUNK;
use crate::content::blob::{BLOCK, Blob};
use crate::store::{Reference, Token};

/// A file up to this many bytes is kept whole in memory while it is written, and in the
/// local database until it is committed: no file of its own, no sync of its own.
pub(super) const SMALL_MAX: u64 = 64 << 10;

const BLOCK64: u64 = BLOCK as u64;

/// A payload that must be fetched before an operation can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Content.
    Content(Reference),
    /// Another client's, which nobody has read yet.
    Unread(Token),
    /// The list that names the parts.
    Manifest(Reference),
    /// A writer must wait until an upload that froze the file is done.
    Thaw,
}

/// One staged chunk.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) name: String,
    pub(super) blob: Arc<Blob>,
    /// Bytes it counts in the staging area.
    pub(super) bytes: u64,
    /// The file's generation when it last changed.
    pub(super) generation: u64,
}

/// Local changes.
#[derive(Debug, Default)]
pub(super) enum Overlay {
    /// None.
    #[default]
    None,
    /// The whole content.
    Small(Vec<u8>),
    /// Blocks in staged chunks.
    Chunks(BTreeMap<u32, Chunk>),
}

/// An identity under which the local database has described a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) id: VersionId,
    pub(super) stamp: Stamp,
    /// Which content that was.
    pub(super) generation: u64,
}

/// The content's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) base: Content,
    pub(super) base_len: u64,
    pub(super) size: u64,
    pub(super) overlay: Overlay,
    /// Only over an overlay of chunks.
    pub(super) cleared: Cleared,
    pub(super) dirty: bool,
    pub(super) generation: u64,
    pub(super) persisted: u64,
    /// What was recorded since the base, in order.
    pub(super) recorded: Vec<Recorded>,
    /// The generation of the last truncation.
    pub(super) cut: u64,
    /// The newest generation that is in the vault.
    pub(super) committed: u64,
    /// Modification time set by writes and not yet in the local database.
    pub(super) mtime: Option<Time>,
    pub(super) handles: u32,
    pub(super) writers: u32,
    /// Set while an upload needs the content to stand still.
    pub(super) frozen: bool,
    /// Smallest size since the running upload took its snapshot.
    pub(super) low_water: u64,
    pub(super) failure: Option<VfsError>,
    pub(super) last_change: Instant,
    /// When the oldest change that is not committed was made.
    pub(super) dirty_since: Instant,
    pub(super) uploading: bool,
    /// No name and no handle: nothing of it is owed to anyone.
    pub(super) discarded: bool,
}

/// A file's content.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) ino: Ino,
    pub(super) state: RwLock<State>,
    /// One upload at a time.
    pub(super) upload: tokio::sync::Mutex<()>,
    /// Woken when a frozen file thaws or an upload ends.
    pub(super) changed: Notify,
}

impl Body {
    /// A content without local changes. Generations count on from the one given.
    pub(super) fn new(ino: Ino, base: Content, generation: u64) -> Self {
        let now = Instant::now();
        let size = base.size;
        Self {
            ino,
            state: RwLock::new(State {
                base,
                base_len: size,
                size,
                overlay: Overlay::None,
                cleared: Cleared::default(),
                dirty: false,
                generation,
                persisted: generation,
                recorded: Vec::new(),
                cut: generation,
                committed: generation,
                mtime: None,
                handles: 0,
                writers: 0,
                frozen: false,
                low_water: u64::MAX,
                failure: None,
                last_change: now,
                dirty_since: now,
                uploading: false,
                discarded: false,
            }),
            upload: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        }
    }
}

impl State {
    /// What the local database records of it.
    pub(super) fn record(&self) -> Option<Dirty> {
        let kind = match self.overlay {
            Overlay::Small(_) => DirtyKind::Small,
            Overlay::None | Overlay::Chunks(_) => DirtyKind::Chunks,
        };
        self.dirty.then(|| Dirty {
            kind,
            size: self.size,
            base_len: self.base_len,
            base: self.base.clone(),
            cleared: self.cleared.clone(),
            allocated: self.allocated(),
            recorded: self.recorded.iter().map(|recorded| recorded.id).collect(),
            stamp: self.recorded.last().map(|recorded| recorded.stamp).unwrap_or_default(),
        })
    }

    /// Whether what is to be recorded now has no identity yet.
    pub(super) fn is_unnamed(&self) -> bool {
        let named = self.recorded.last().map(|recorded| recorded.generation);
        self.dirty && named != Some(self.generation)
    }

    /// Of another client's content that nobody has read, how much there is is not known either:
    /// it has to be read before a part of it is shown or changed.
    pub(super) fn unread(&self) -> Option<Need> {
        let shows = self.base_len > 0 || matches!(self.overlay, Overlay::None);
        match &self.base.version {
            Version::Unread(token) if shows => Some(Need::Unread(token.clone())),
            _ => None,
        }
    }

    /// Notes a content change at time `now`.
    pub(super) fn changed(&mut self, now: Time) {
        self.last_change = Instant::now();
        if !self.dirty {
            self.dirty_since = self.last_change;
        }
        self.dirty = true;
        self.generation += 1;
        self.mtime = Some(now);
        self.low_water = self.low_water.min(self.size);
    }

    /// Reads `out.len()` bytes from `offset`; the range must lie below `size`. `held` are
    /// plaintexts that were fetched for this very read.
    pub(super) fn read(
        &self,
        vfs: &Vfs,
        offset: u64,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        match &self.overlay {
            Overlay::None => self.read_base(vfs, offset, out, held),
            Overlay::Small(bytes) => {
                out.fill(0);
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let len = out.len().min(bytes.len() - start);
                out[..len].copy_from_slice(&bytes[start..start + len]);
                Ok(None)
            }
            Overlay::Chunks(chunks) => {
                for piece in pieces(offset, out.len() as u64, CHUNK) {
                    let part = &mut out[piece.at..piece.at + piece.len];
                    let need = match chunks.get(&piece.index32()) {
                        Some(chunk) => self.read_chunk(vfs, chunk, &piece, part, held)?,
                        None => self.read_base(vfs, piece.offset, part, held)?,
                    };
                    if need.is_some() {
                        return Ok(need);
                    }
                }
                Ok(None)
            }
        }
    }

    fn read_chunk(
        &self,
        vfs: &Vfs,
        chunk: &Chunk,
        piece: &Piece,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let first = piece.within / BLOCK64;
        let skip = (piece.within % BLOCK64) as usize;
        let aligned = (skip + piece.len).next_multiple_of(BLOCK);
        let mut scratch;
        let direct = skip == 0 && aligned == piece.len;
        let buffer: &mut [u8] = match direct {
            true => out,
            false => {
                scratch = vec![0; aligned];
                &mut scratch
            }
        };
        let blob_error = |e| VfsError::from_blob(vfs.name_of_open(), e);
        let presence = chunk.blob.read(first, buffer).map_err(blob_error)?;
        if !presence.is_all() {
            let start = piece.offset - skip as u64;
            for (block, present) in presence.iter().enumerate() {
                if present {
                    continue;
                }
                let at = block * BLOCK;
                // Only the wanted bytes of a block: what lies around them may need a
                // payload that nobody asked for.
                let from = at.max(skip);
                let to = (at + BLOCK).min(skip + piece.len);
                let gap = &mut buffer[from..to];
                if let Some(need) = self.read_base(vfs, start + from as u64, gap, held)? {
                    return Ok(Some(need));
                }
            }
        }
        if !direct {
            let wanted = buffer[skip..skip + piece.len].to_vec();
            out.copy_from_slice(&wanted);
        }
        Ok(None)
    }

    /// Reads from the committed version; zeros beyond `base_len`.
    fn read_base(
        &self,
        vfs: &Vfs,
        offset: u64,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let shown = self.base_len.saturating_sub(offset).min(out.len() as u64) as usize;
        let (shown, zeros) = out.split_at_mut(shown);
        zeros.fill(0);
        let mut at = 0;
        while at < shown.len() {
            let from = offset + at as u64;
            let (zero, until) = self.zero_at(from);
            let len = (until - from).min((shown.len() - at) as u64) as usize;
            let part = &mut shown[at..at + len];
            if zero {
                part.fill(0);
            } else if let Some(need) = vfs.read_version(&self.base, from, part, held)? {
                return Ok(Some(need));
            }
            at += len;
        }
        Ok(None)
    }

    /// Puts a version of another file under an empty one, or more of the version that was
    /// put there before: the first `len` bytes of it. Says whether it could.
    pub(super) fn borrow(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        version: &Content,
        (from, to): (u64, u64),
    ) -> VfsResult<bool> {
        let empty = self.size == 0 && from == 0;
        let goes_on =
            self.base.version == version.version && self.base_len == from && self.size == from;
        // What an upload under way commits would take the place of what is put here.
        if self.frozen || self.uploading || !(empty || goes_on) {
            return Ok(false);
        }
        if empty {
            self.drop_overlay(vfs, ino)?;
            // Its own history: what is borrowed is the bytes.
            let (id, stamp) = (self.base.id, self.base.stamp);
            self.base = Content { id, stamp, ..version.clone() };
            self.overlay = Overlay::Chunks(BTreeMap::new());
        }
        let now = vfs.now();
        self.base_len = to;
        self.size = to;
        self.changed(now);
        // what was sent of the file before is of other bytes
        self.cut = self.generation;
        Ok(true)
    }

    /// Writes `data` at `offset`.
    pub(super) fn write(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        offset: u64,
        data: &[u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        if self.frozen {
            return Ok(Some(Need::Thaw));
        }
        if data.is_empty() {
            return Ok(None);
        }
        if let Some(need) = self.unread() {
            return Ok(Some(need));
        }
        let end = offset + data.len() as u64;
        if let Some(need) = self.prepare(vfs, ino, end.max(self.size), held)? {
            return Ok(Some(need));
        }
        let now = vfs.now();
        if let Overlay::Small(bytes) = &mut self.overlay {
            let end = end as usize;
            if bytes.len() < end {
                let more = (end - bytes.len()) as u64;
                vfs.staging.check_room(more).map_err(|e| vfs.staging_error(ino, e))?;
                bytes.resize(end, 0);
            }
            bytes[offset as usize..end].copy_from_slice(data);
        } else {
            for piece in pieces(offset, data.len() as u64, CHUNK) {
                let part = &data[piece.at..piece.at + piece.len];
                let done = self.write_chunk(vfs, ino, &piece, part, held);
                if matches!(done, Ok(None)) {
                    continue;
                }
                if piece.at > 0 {
                    // What has been written so far is there, whatever becomes of the rest.
                    self.size = self.size.max(piece.offset);
                    self.changed(now);
                }
                return done;
            }
        }
        self.size = self.size.max(end);
        self.changed(now);
        Ok(None)
    }

    /// Chooses the overlay's form for a file that will have `size` bytes.
    pub(super) fn prepare(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        size: u64,
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let small = size <= SMALL_MAX;
        match (&mut self.overlay, small) {
            (Overlay::Chunks(_), _) | (Overlay::Small(_), true) => Ok(None),
            (Overlay::None, false) => {
                self.overlay = Overlay::Chunks(BTreeMap::new());
                Ok(None)
            }
            (Overlay::None, true) => {
                let mut bytes = vec![0; self.size as usize];
                let need = self.read_base(vfs, 0, &mut bytes, held)?;
                if need.is_none() {
                    self.overlay = Overlay::Small(bytes);
                    self.base_len = 0;
                }
                Ok(need)
            }
            (Overlay::Small(bytes), false) => {
                let bytes = std::mem::take(bytes);
                self.overlay = Overlay::Chunks(BTreeMap::new());
                self.base_len = 0;
                for piece in pieces(0, bytes.len() as u64, CHUNK) {
                    let part = &bytes[piece.at..piece.at + piece.len];
                    if let Err(error) = self.write_chunk(vfs, ino, &piece, part, &[]) {
                        self.overlay = Overlay::Small(bytes);
                        return Err(error);
                    }
                }
                Ok(None)
            }
        }
    }

    fn write_chunk(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        piece: &Piece,
        data: &[u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let first = piece.within / BLOCK64;
        let skip = (piece.within % BLOCK64) as usize;
        let aligned = (skip + data.len()).next_multiple_of(BLOCK);
        let merged;
        let blocks: &[u8] = if skip == 0 && aligned == data.len() {
            data
        } else {
            let start = piece.offset - skip as u64;
            let mut buffer = vec![0; aligned];
            if let Some(need) = self.read_edges(vfs, start, skip, data.len(), &mut buffer, held)? {
                return Ok(Some(need));
            }
            buffer[skip..skip + data.len()].copy_from_slice(data);
            merged = buffer;
            &merged
        };
        vfs.staging.check_room(blocks.len() as u64).map_err(|e| vfs.staging_error(ino, e))?;
        self.generation += 1;
        let generation = self.generation;
        let chunk = self.chunk(vfs, ino, piece.index32())?;
        let blob_error = |e| VfsError::from_blob(vfs.name_of_open(), e);
        chunk.blob.write(first, blocks).map_err(blob_error)?;
        chunk.generation = generation;
        vfs.account(chunk)?;
        Ok(None)
    }

    /// Fills what of the first and last block a write does not cover.
    fn read_edges(
        &self,
        vfs: &Vfs,
        start: u64,
        skip: usize,
        len: usize,
        buffer: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let tail = skip + len;
        let last = (tail - 1) / BLOCK * BLOCK;
        let ranges = [(0, BLOCK, skip > 0), (last, last + BLOCK, !tail.is_multiple_of(BLOCK))];
        for (from, to, wanted) in ranges {
            let at = start + from as u64;
            let have = self.size.saturating_sub(at).min((to - from) as u64) as usize;
            if wanted && have > 0 {
                let need = self.read(vfs, at, &mut buffer[from..from + have], held)?;
                if need.is_some() {
                    return Ok(need);
                }
            }
        }
        Ok(None)
    }

    fn chunk(&mut self, vfs: &Vfs, ino: Ino, index: u32) -> VfsResult<&mut Chunk> {
        let Overlay::Chunks(chunks) = &mut self.overlay else {
            return Err(VfsError::Invalid {
                what: vfs.name_of_open(),
                why: "no staged chunks in this state",
            });
        };
        use std::collections::btree_map::Entry;
        match chunks.entry(index) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let (name, blob) = vfs.staging.create().map_err(|e| vfs.staging_error(ino, e))?;
                vfs.record_chunk(ino, index, &name)?;
                Ok(entry.insert(Chunk { name, blob, bytes: 0, generation: 0 }))
            }
        }
    }
}

/// A part of a range that lies in one chunk (or part) of `unit` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Number of the unit.
    pub(super) index: u64,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Offset in the unit.
    pub(super) within: u64,
    /// Offset in the caller's buffer.
    pub(super) at: usize,
    /// Bytes.
    pub(super) len: usize,
}

impl Piece {
    pub(super) fn index32(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX)
    }
}

/// Splits a range at multiples of `unit`.
pub(super) fn pieces(offset: u64, len: u64, unit: u64) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done;
        let within = at % unit;
        let take = (unit - within).min(len - done);
        let piece =
            Piece { index: at / unit, offset: at, within, at: done as usize, len: take as usize };
        done += take;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_once_and_in_order() {
        let got: Vec<_> =
            pieces(6, 10, 4).map(|p| (p.index, p.offset, p.within, p.at, p.len)).collect();
        assert_eq!(got, [(1, 6, 2, 0, 2), (2, 8, 0, 2, 4), (3, 12, 0, 6, 4)]);
        assert_eq!(pieces(3, 0, 4).count(), 0);
    }
}
