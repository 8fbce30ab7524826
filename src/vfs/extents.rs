//! Where a file has data and where it has holes: `st_blocks`, `SEEK_DATA`, `SEEK_HOLE`.

use std::ops::Range;

use super::Vfs;
use super::body::{Overlay, State};
use super::error::{VfsError, VfsResult};
use crate::content::CHUNK;
use crate::content::blob::{BLOCK, Presence};
use crate::content::holes;

const BLOCK64: u64 = BLOCK as u64;

impl State {
    /// Whether the committed version is known to show a zero at `at`, and up to where that
    /// holds at least: in its holes, nothing has to be fetched.
    pub(super) fn zero_at(&self, at: u64) -> (bool, u64) {
        let (hole, hole_until) = holes::at(&self.base.holes, at);
        let (cleared, cleared_until) = self.cleared.at(at);
        match (hole, cleared) {
            (true, true) => (true, hole_until.max(cleared_until)),
            (true, false) => (true, hole_until),
            (false, true) => (true, cleared_until),
            (false, false) => (false, hole_until.min(cleared_until)),
        }
    }

    /// Bytes that are not holes, roughly: what `st_blocks` shows.
    pub(super) fn allocated(&self) -> u64 {
        let (mut base, mut at) = (0, 0);
        while at < self.base_len {
            let (zero, until) = self.zero_at(at);
            let until = until.min(self.base_len);
            base += if zero { 0 } else { until - at };
            at = until;
        }
        let staged = match &self.overlay {
            Overlay::None => 0,
            Overlay::Small(bytes) => bytes.len() as u64,
            Overlay::Chunks(chunks) => chunks.values().map(|c| c.bytes).sum(),
        };
        base.saturating_add(staged).min(self.size)
    }

    /// The next data (or hole) from `offset` on; a hole at the end of the file always
    /// exists, data may not.
    pub(super) fn seek(&self, vfs: &Vfs, offset: u64, hole: bool) -> VfsResult<Option<u64>> {
        let found = self.seek_within(vfs, offset..self.size, hole)?;
        Ok(found.or(hole.then_some(self.size)))
    }

    /// Whether there is no data in a range.
    pub(super) fn is_hole(&self, vfs: &Vfs, range: Range<u64>) -> VfsResult<bool> {
        Ok(self.seek_within(vfs, range, false)?.is_none())
    }

    fn seek_within(&self, vfs: &Vfs, range: Range<u64>, hole: bool) -> VfsResult<Option<u64>> {
        let mut at = range.start;
        let mut known: Option<(u64, Presence)> = None;
        while at < range.end {
            let (is_data, next) = self.extent_at(vfs, at, &mut known)?;
            if is_data != hole {
                return Ok(Some(at));
            }
            at = next.max(at + 1);
        }
        Ok(None)
    }

    /// Whether there is data at `at`, and where the answer may change. `known` keeps the
    /// presence of the chunk looked at last.
    fn extent_at(
        &self,
        vfs: &Vfs,
        at: u64,
        known: &mut Option<(u64, Presence)>,
    ) -> VfsResult<(bool, u64)> {
        let chunks = match &self.overlay {
            Overlay::Small(_) => return Ok((true, self.size)),
            Overlay::None => return Ok(self.base_at(at, u64::MAX)),
            Overlay::Chunks(chunks) => chunks,
        };
        let index = at / CHUNK;
        let Some(chunk) = chunks.get(&u32::try_from(index).unwrap_or(u32::MAX)) else {
            return Ok(self.base_at(at, (index + 1) * CHUNK));
        };
        if known.as_ref().is_none_or(|(of, _)| *of != index) {
            let error = |e| VfsError::from_blob(vfs.name_of_open(), e);
            *known = Some((index, chunk.blob.present(0..CHUNK / BLOCK64).map_err(error)?));
        }
        let block = (at % CHUNK / BLOCK64) as usize;
        let end = (at / BLOCK64 + 1) * BLOCK64;
        match known {
            Some((_, presence)) if presence.get(block) => Ok((true, end)),
            _ => Ok(self.base_at(at, end)),
        }
    }

    /// Whether the base has data at `at`, and where that may change, at most `limit`.
    fn base_at(&self, at: u64, limit: u64) -> (bool, u64) {
        if at >= self.base_len {
            return (false, limit);
        }
        let (zero, next) = self.zero_at(at);
        (!zero, next.min(self.base_len).min(limit))
    }
}
