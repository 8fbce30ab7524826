//! Making a content shorter, longer or zero in places. The invariants are those of
//! [`super::body`]: what is cut off or cleared does not come back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::body::{Need, Overlay, SMALL_MAX, State, pieces};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::cleared::Cleared;
use crate::content::CHUNK;
use crate::content::blob::BLOCK;
use crate::content::staging::Held;
use crate::store::Reference;

const BLOCK64: u64 = BLOCK as u64;

impl State {
    /// Makes whole blocks zero: `from` is at the start of one, `to` at the end of one or of
    /// the file. Nothing is written for it, and what was staged there is given up.
    pub(super) fn clear(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        (from, to): (u64, u64),
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        if self.frozen {
            return Ok(Some(Need::Thaw));
        }
        if let Some(need) = self.unread() {
            return Ok(Some(need));
        }
        if let Some(need) = self.prepare(vfs, ino, self.size, held)? {
            return Ok(Some(need));
        }
        let generation = self.generation + 1;
        match &mut self.overlay {
            Overlay::Small(bytes) => bytes[from as usize..to as usize].fill(0),
            Overlay::None => {}
            Overlay::Chunks(_) => self.cleared.add(from, to, generation),
        }
        self.changed(vfs.now());
        self.give_up_blocks(vfs, ino, (from, to))?;
        Ok(None)
    }

    /// Gives up what is staged of a cleared range, once it is recorded that it is cleared:
    /// what lies below would come up otherwise, if the process died between the two.
    fn give_up_blocks(&mut self, vfs: &Vfs, ino: Ino, (from, to): (u64, u64)) -> VfsResult<()> {
        let Overlay::Chunks(chunks) = &self.overlay else { return Ok(()) };
        if !pieces(from, to - from, CHUNK).any(|piece| chunks.contains_key(&piece.index32())) {
            return Ok(());
        }
        vfs.record_body(ino, self)?;
        self.persisted = self.generation;
        let (size, generation) = (self.size, self.generation);
        let Overlay::Chunks(chunks) = &mut self.overlay else { return Ok(()) };
        for piece in pieces(from, to - from, CHUNK) {
            let index = piece.index32();
            let end = piece.offset + piece.len as u64;
            if piece.within == 0 && (end == size || piece.len as u64 == CHUNK) {
                if let Some(chunk) = chunks.remove(&index) {
                    vfs.drop_chunk(ino, index, &chunk)?;
                }
            } else if let Some(chunk) = chunks.get_mut(&index) {
                let first = piece.within / BLOCK64;
                let last = (piece.within + piece.len as u64).div_ceil(BLOCK64);
                let cleared = chunk.blob.clear(first..last);
                cleared.map_err(|e| VfsError::from_blob(vfs.name_of_open(), e))?;
                chunk.generation = generation;
                vfs.account(chunk)?;
            }
        }
        Ok(())
    }

    /// Cuts or extends to `size` bytes.
    pub(super) fn truncate(
        &mut self,
        vfs: &Vfs,
        ino: Ino,
        size: u64,
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        if self.frozen {
            return Ok(Some(Need::Thaw));
        }
        if size > 0
            && let Some(need) = self.unread()
        {
            return Ok(Some(need));
        }
        let mut given_up = BTreeMap::new();
        if size == 0 {
            if let Overlay::Chunks(chunks) = std::mem::take(&mut self.overlay) {
                given_up = chunks;
            }
            self.cleared = Cleared::default();
            vfs.staging.hold(Held::Small(ino), 0);
            self.overlay = Overlay::Small(Vec::new());
            self.base_len = 0;
        } else if size <= SMALL_MAX
            && self.size <= SMALL_MAX
            && let Some(need) = self.prepare(vfs, ino, size, held)?
        {
            return Ok(Some(need));
        }
        if let Overlay::Small(bytes) = &mut self.overlay {
            if size <= SMALL_MAX {
                bytes.resize(size as usize, 0);
            } else if let Some(need) = self.prepare(vfs, ino, size, held)? {
                return Ok(Some(need));
            }
        } else if matches!(self.overlay, Overlay::None) {
            self.overlay = Overlay::Chunks(BTreeMap::new());
        }
        let cuts = size < self.size && matches!(&self.overlay, Overlay::Chunks(c) if !c.is_empty());
        self.base_len = self.base_len.min(size);
        self.cleared.cut(size);
        self.size = size;
        let now = vfs.now();
        self.changed(now);
        self.cut = self.generation;
        if cuts || !given_up.is_empty() {
            // What is given up is needed as long as the record speaks of it.
            vfs.record_body(ino, self)?;
            self.persisted = self.generation;
            for (index, chunk) in given_up {
                vfs.drop_chunk(ino, index, &chunk)?;
            }
            self.cut_chunks(vfs, ino)?;
        }
        Ok(None)
    }

    /// Gives up what is staged beyond the end: also of writes that nobody recorded before
    /// the process died, for they would come up when the file is extended.
    pub(super) fn cut_chunks(&mut self, vfs: &Vfs, ino: Ino) -> VfsResult<()> {
        let (size, generation) = (self.size, self.generation);
        let blob_error = |e| VfsError::from_blob(vfs.name_of_open(), e);
        let Overlay::Chunks(chunks) = &mut self.overlay else { return Ok(()) };
        let boundary = u32::try_from(size / CHUNK).unwrap_or(u32::MAX);
        let keep_boundary = !size.is_multiple_of(CHUNK);
        let dropped = chunks.split_off(&(boundary + u32::from(keep_boundary)));
        for (index, chunk) in dropped {
            vfs.drop_chunk(ino, index, &chunk)?;
        }
        let Some(chunk) = chunks.get_mut(&boundary) else { return Ok(()) };
        let within = size % CHUNK;
        chunk.blob.truncate(within.div_ceil(BLOCK64)).map_err(blob_error)?;
        let tail = (within % BLOCK64) as usize;
        if tail > 0 {
            let mut block = vec![0; BLOCK];
            let last = within / BLOCK64;
            let whole = chunk.blob.read(last, &mut block).map_err(blob_error)?.is_all();
            if whole && block[tail..].iter().any(|byte| *byte != 0) {
                block[tail..].fill(0);
                chunk.blob.write(last, &block).map_err(blob_error)?;
            }
        }
        chunk.generation = generation;
        vfs.account(chunk)
    }

    /// Gives up the overlay and what it holds in the staging area.
    pub(super) fn drop_overlay(&mut self, vfs: &Vfs, ino: Ino) -> VfsResult<()> {
        if let Overlay::Chunks(chunks) = std::mem::take(&mut self.overlay) {
            for (index, chunk) in chunks {
                vfs.drop_chunk(ino, index, &chunk)?;
            }
        }
        self.cleared = Cleared::default();
        vfs.staging.hold(Held::Small(ino), 0);
        Ok(())
    }
}
