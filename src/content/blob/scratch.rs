//! Buffers for one run of sealed records, kept for the next use: making and faulting in
//! a megabyte for each request costs more than sealing it.
//!
//! Only sealed bytes and plaintext about to be sealed in place ever lie in one.

use parking_lot::Mutex;

use super::layout::{JOURNAL_HEAD, RECORD, RUN};

/// As many as requests usually run at once; more are made and dropped when needed.
const KEPT: usize = 4;

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer that returns to the pool when dropped.
pub(super) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(super) fn take() -> Self {
        let kept = POOL.lock().pop();
        Self(kept.unwrap_or_else(|| vec![0; JOURNAL_HEAD + RUN * RECORD].into_boxed_slice()))
    }

    /// Room for `blocks` records, at most [`RUN`]; holds what an earlier use left.
    pub(super) fn records(&mut self, blocks: usize) -> &mut [u8] {
        &mut self.headed_records(blocks)[JOURNAL_HEAD..]
    }

    /// The same records, with room for a journal's head before them.
    pub(super) fn headed_records(&mut self, blocks: usize) -> &mut [u8] {
        &mut self.0[..JOURNAL_HEAD + blocks * RECORD]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let mut pool = POOL.lock();
        if pool.len() < KEPT {
            pool.push(buffer);
        }
    }
}
