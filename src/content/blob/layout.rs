//! Where things lie in a blob's file, and what can be told from bytes alone.

use super::BLOCK;
use crate::crypto::{IV_LEN, OVERHEAD, TAG_LEN};

/// Bytes of one sealed block: nonce, ciphertext, tag.
pub(super) const RECORD: usize = BLOCK + OVERHEAD;
/// Blocks that are sealed and written, or read, in one system call: 1 MiB, the largest
/// request that the kernel sends.
pub(super) const RUN: usize = 256;
/// Bytes of the overwrite journal at the start of the file. A hole unless used.
pub(super) const JOURNAL: u64 = 256 * 1024;
/// Bytes of the journal's head: a count and as many block numbers.
pub(super) const JOURNAL_HEAD: usize = 8 + 8 * JOURNAL_RECORDS;
/// Records that fit behind the head.
pub(super) const JOURNAL_RECORDS: usize = 63;
/// Bytes of the header, which lies between journal and records, so that a small blob
/// has it on the page of its first record.
pub(super) const HEADER: usize = 64;
/// Where record 0 starts.
const RECORDS_AT: u64 = JOURNAL + HEADER as u64;
/// Blocks that a blob can hold: keeps every offset well inside an `i64`.
pub(super) const MAX_BLOCKS: u64 = 1 << 50;
/// Writes that are cut short end at a multiple of this on every platform.
const PAGE: u64 = 4096;

const _: () = assert!((JOURNAL_HEAD + JOURNAL_RECORDS * RECORD) as u64 <= JOURNAL);

const MAGIC: [u8; 8] = *b"pcfsblob";
const VERSION: u32 = 1;

/// The file offset of a block's record; saturates, so that an absurd block number is
/// refused by the file system instead of wrapping onto another record.
pub(super) fn offset(block: u64) -> u64 {
    block.saturating_mul(RECORD as u64).saturating_add(RECORDS_AT)
}

/// How many records a file of `len` bytes reaches into.
pub(super) fn blocks_within(len: u64) -> u64 {
    len.saturating_sub(RECORDS_AT).div_ceil(RECORD as u64)
}

/// The block whose record a byte of the file lies in.
pub(super) fn block_at(byte: u64) -> u64 {
    byte.saturating_sub(RECORDS_AT) / RECORD as u64
}

/// The header of a blob: magic, version, id, binding, rest zero.
pub(super) struct Header {
    /// Random; the container's key is derived from it.
    pub(super) id: [u8; 16],
    /// What the blob is bound to; zero when nothing.
    pub(super) binding: [u8; 16],
}

/// Where the binding lies, to be changed on its own.
pub(super) const BINDING_AT: u64 = JOURNAL + 32;

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..48].copy_from_slice(&self.binding);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("no blob header");
        }
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err("written by another version");
        }
        let mut header = Self { id: [0; 16], binding: [0; 16] };
        header.id.copy_from_slice(&bytes[16..32]);
        header.binding.copy_from_slice(&bytes[32..48]);
        Ok(header)
    }
}

/// What a record is bound to: its blob and its place there.
pub(super) fn aad(id: &[u8; 16], block: u64) -> [u8; 24] {
    let mut aad = [0; 24];
    aad[..16].copy_from_slice(id);
    aad[16..].copy_from_slice(&block.to_le_bytes());
    aad
}

/// A record's nonce; all zero means that the record is absent.
pub(super) fn nonce(record: &[u8]) -> [u8; IV_LEN] {
    let mut nonce = [0; IV_LEN];
    nonce.copy_from_slice(&record[..IV_LEN]);
    nonce
}

/// A record's tag.
pub(super) fn tag(record: &[u8]) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&record[RECORD - TAG_LEN..]);
    tag
}

/// Where, within the record of `block`, its last page starts.
pub(super) fn last_page(block: u64) -> usize {
    let start = offset(block);
    let end = start.saturating_add(RECORD as u64);
    let page = (end - 1) / PAGE * PAGE;
    // RECORD is longer than a page, so the boundary is inside the record.
    usize::try_from(page - start).unwrap_or(RECORD)
}

/// Whether a record that failed to open looks like a first write that was cut short:
/// what lies on its last page was never written.
pub(super) fn is_torn_first_write(block: u64, record: &[u8]) -> bool {
    is_zero(&record[last_page(block)..])
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Splits a journal's head into the block numbers it names; none for nonsense.
pub(super) fn journal_blocks(head: &[u8; JOURNAL_HEAD]) -> Vec<u64> {
    let mut words = head.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    });
    let count = words.next().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if count > JOURNAL_RECORDS { Vec::new() } else { words.take(count).collect() }
}

/// The head that names `blocks` consecutive blocks from `first`.
pub(super) fn journal_head(first: u64, blocks: u64) -> [u8; JOURNAL_HEAD] {
    let mut head = [0; JOURNAL_HEAD];
    let words = std::iter::once(blocks).chain(first..first + blocks);
    for (bytes, word) in head.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_the_header_without_gaps() {
        assert_eq!(offset(0), JOURNAL + 64);
        assert_eq!(offset(3) - offset(2), RECORD as u64);
        assert_eq!(offset(u64::MAX), u64::MAX);
        for (len, blocks) in [(0, 0), (offset(0), 0), (offset(0) + 1, 1), (offset(1), 1)] {
            assert_eq!(blocks_within(len), blocks, "{len}");
        }
    }

    #[test]
    fn the_last_page_of_a_record_starts_inside_it() {
        for block in 0..5000 {
            let at = last_page(block);
            assert!(at > 0 && at < RECORD);
            assert_eq!((offset(block) + at as u64) % PAGE, 0);
        }
    }

    #[test]
    fn a_journal_head_reads_back_and_nonsense_is_empty() {
        assert!(journal_blocks(&[0; JOURNAL_HEAD]).is_empty());
        let mut head = journal_head(7, 3);
        assert_eq!(journal_blocks(&head), [7, 8, 9]);
        head[..8].fill(0xff);
        assert!(journal_blocks(&head).is_empty());
    }
}
