//! The bytes of a pack: entries one after the other, then a table of them.
//!
//! ```text
//! pack   magic(8) version(4) zero(4) | entries … | table, sealed | trailer
//! entry  magic(4) plain length(4) key(8) | per block: nonce(12) ciphertext tag(16)
//! table  nonce(12) | rows of key(8) offset(4) length(4), sealed | tag(16)
//! ```
//!
//! An entry's blocks are bound to its tag, its length and their numbers, not to a place:
//! an entry may be copied to another pack as it is, and never passes for another entry.
//! The last block is as long as the content leaves it.

use std::ops::Range;

use crate::content::blob::BLOCK;
use crate::crypto::{IV_LEN, LocalKeys, OVERHEAD, RecordKey, TAG_LEN};
use crate::env::Random;

/// Content up to this many bytes lives in packs.
pub(super) const SMALL: usize = 64 * 1024;
/// Bytes before an entry's first record.
pub(super) const HEAD: usize = 16;
/// Bytes before a pack's first entry.
pub(super) const PACK_HEAD: usize = 16;
/// Bytes of a table's row.
pub(super) const ROW: usize = 16;
/// Bytes of the trailer.
pub(super) const TRAILER: usize = 16;

const RECORD: usize = BLOCK + OVERHEAD;
const ENTRY_MAGIC: [u8; 4] = *b"pce1";
const PACK_MAGIC: [u8; 12] = *b"pcfspack\x01\0\0\0";
const TRAILER_MAGIC: [u8; 8] = *b"pcfstabl";

/// A keyed name for one chunk of one token.
pub(super) type Tag = [u8; 16];
/// A keyed name for a token: the first half of its chunks' tags.
pub(super) type TokenTag = [u8; 8];

/// Where an entry is within its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: TokenTag,
    pub(super) offset: u32,
    /// Of the plaintext, in bytes.
    pub(super) len: u32,
}

/// Bytes of the sealed entry for `plain` bytes.
pub(super) fn entry_len(plain: usize) -> usize {
    HEAD + plain + plain.div_ceil(BLOCK) * OVERHEAD
}

/// Seals a whole entry.
pub(super) fn seal(
    key: &RecordKey,
    keys: &LocalKeys,
    random: &dyn Random,
    tag: &Tag,
    plain: &[u8],
) -> Vec<u8> {
    let mut entry = Vec::with_capacity(entry_len(plain.len()));
    let len = plain.len() as u32;
    entry.extend_from_slice(&ENTRY_MAGIC);
    entry.extend_from_slice(&len.to_le_bytes());
    entry.extend_from_slice(&tag[..8]);
    let mut nonces = [[0; IV_LEN]; SMALL / BLOCK];
    let nonces = &mut nonces[..plain.len().div_ceil(BLOCK)];
    keys.fill_nonces(random, nonces);
    for (number, (block, nonce)) in plain.chunks(BLOCK).zip(nonces).enumerate() {
        entry.extend_from_slice(nonce);
        let start = entry.len();
        entry.extend_from_slice(block);
        let sealed = key.seal(*nonce, &aad(tag, len, number), &mut entry[start..]);
        entry.extend_from_slice(&sealed);
    }
    entry
}

/// Reads an entry's head: its row, for an entry at `offset`.
pub(super) fn parse_head(head: &[u8; HEAD], offset: u32) -> Option<Row> {
    let mut key = [0; 8];
    key.copy_from_slice(&head[8..]);
    let len = u32_at(head, 4);
    let known = head[..4] == ENTRY_MAGIC && (1..=SMALL as u32).contains(&len);
    known.then_some(Row { key, offset, len })
}

/// The bytes, within an entry of `len` plain bytes, that hold its blocks `blocks`.
pub(super) fn record_bytes(len: u32, blocks: Range<usize>) -> Range<usize> {
    let end = (HEAD + blocks.end * RECORD).min(entry_len(len as usize));
    HEAD + blocks.start * RECORD..end
}

/// Opens the records of `blocks` (as [`record_bytes`] gives them) into `out`, whose last
/// block is filled up with zeros. False if any does not open.
pub(super) fn open(
    key: &RecordKey,
    tag: &Tag,
    len: u32,
    first: usize,
    records: &[u8],
    out: &mut [u8],
) -> bool {
    let pairs = records.chunks(RECORD).zip(out.chunks_exact_mut(BLOCK));
    for (index, (record, out)) in pairs.enumerate() {
        if record.len() < OVERHEAD {
            return false;
        }
        let (text, rest) = out.split_at_mut(record.len() - OVERHEAD);
        text.copy_from_slice(&record[IV_LEN..record.len() - TAG_LEN]);
        let (mut nonce, mut seal) = ([0; IV_LEN], [0; TAG_LEN]);
        nonce.copy_from_slice(&record[..IV_LEN]);
        seal.copy_from_slice(&record[record.len() - TAG_LEN..]);
        if key.open(nonce, &aad(tag, len, first + index), text, seal).is_err() {
            return false;
        }
        rest.fill(0);
    }
    true
}

fn aad(tag: &Tag, len: u32, block: usize) -> [u8; 24] {
    let mut aad = [0; 24];
    aad[..16].copy_from_slice(tag);
    aad[16..20].copy_from_slice(&len.to_le_bytes());
    aad[20..].copy_from_slice(&(block as u32).to_le_bytes());
    aad
}

/// The bytes that start a pack.
pub(super) fn pack_head() -> [u8; PACK_HEAD] {
    let mut head = [0; PACK_HEAD];
    head[..12].copy_from_slice(&PACK_MAGIC);
    head
}

/// Bytes of the table and trailer of a pack with `rows` entries.
pub(super) fn table_len(rows: usize) -> usize {
    rows * ROW + OVERHEAD + TRAILER
}

/// Table and trailer, to be written at `offset` of the pack `number`.
pub(super) fn seal_table(
    key: &RecordKey,
    keys: &LocalKeys,
    random: &dyn Random,
    (number, offset): (u32, u32),
    rows: &[Row],
) -> Vec<u8> {
    let mut nonce = [[0; IV_LEN]];
    keys.fill_nonces(random, &mut nonce);
    let mut table = Vec::with_capacity(table_len(rows.len()));
    table.extend_from_slice(&nonce[0]);
    for row in rows {
        table.extend_from_slice(&row.key);
        table.extend_from_slice(&row.offset.to_le_bytes());
        table.extend_from_slice(&row.len.to_le_bytes());
    }
    let tag = key.seal(nonce[0], &table_aad(number), &mut table[IV_LEN..]);
    table.extend_from_slice(&tag);
    table.extend_from_slice(&TRAILER_MAGIC);
    table.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    table.extend_from_slice(&offset.to_le_bytes());
    table
}

/// Reads a trailer: how many rows, and where the table starts.
pub(super) fn parse_trailer(trailer: &[u8; TRAILER]) -> Option<(usize, u64)> {
    let known = trailer[..8] == TRAILER_MAGIC;
    known.then(|| (u32_at(trailer, 8) as usize, u64::from(u32_at(trailer, 12))))
}

/// Opens the sealed rows of the pack `number` (without the trailer).
pub(super) fn open_table(key: &RecordKey, number: u32, table: &mut [u8]) -> Option<Vec<Row>> {
    if table.len() < OVERHEAD {
        return None;
    }
    let (nonce_bytes, rest) = table.split_at_mut(IV_LEN);
    let (rows, tag_bytes) = rest.split_at_mut(rest.len() - TAG_LEN);
    let (mut nonce, mut tag) = ([0; IV_LEN], [0; TAG_LEN]);
    nonce.copy_from_slice(nonce_bytes);
    tag.copy_from_slice(tag_bytes);
    key.open(nonce, &table_aad(number), rows, tag).ok()?;
    let parse = |row: &[u8]| {
        let mut key = [0; 8];
        key.copy_from_slice(&row[..8]);
        Row { key, offset: u32_at(row, 8), len: u32_at(row, 12) }
    };
    Some(rows.chunks_exact(ROW).map(parse).collect())
}

fn table_aad(number: u32) -> [u8; 9] {
    let mut aad = *b"table\0\0\0\0";
    aad[5..].copy_from_slice(&number.to_le_bytes());
    aad
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::env::doubles::SeededRandom;

    fn keys() -> (LocalKeys, RecordKey, SeededRandom) {
        let keys = LocalKeys::new(&MasterKey::from_bytes([1; 32]));
        let key = keys.record_key(&[2; 16]);
        (keys, key, SeededRandom::new(1))
    }

    #[test]
    fn an_entry_opens_block_by_block_and_only_as_itself() {
        let (keys, key, random) = keys();
        for len in [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, SMALL] {
            let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let entry = seal(&key, &keys, &random, &[7; 16], &plain);
            assert_eq!(entry.len(), entry_len(len));
            let mut head = [0; HEAD];
            head.copy_from_slice(&entry[..HEAD]);
            let row = parse_head(&head, 5).unwrap();
            assert_eq!(row, Row { key: [7; 8], offset: 5, len: len as u32 });
            let blocks = len.div_ceil(BLOCK);
            for first in 0..blocks {
                let records = &entry[record_bytes(row.len, first..blocks)];
                let mut out = vec![0xee; (blocks - first) * BLOCK];
                assert!(open(&key, &[7; 16], row.len, first, records, &mut out));
                assert_eq!(out[..len - first * BLOCK], plain[first * BLOCK..]);
                assert!(out[len - first * BLOCK..].iter().all(|b| *b == 0));
                assert!(!open(&key, &[8; 16], row.len, first, records, &mut out));
                assert!(!open(&key, &[7; 16], row.len, first + 1, records, &mut out));
            }
        }
    }

    #[test]
    fn a_table_reads_back_and_only_as_its_own_packs() {
        let (keys, key, random) = keys();
        let rows: Vec<Row> =
            (0..50).map(|i| Row { key: [i; 8], offset: i.into(), len: 9 }).collect();
        let table = seal_table(&key, &keys, &random, (3, 4096), &rows);
        assert_eq!(table.len(), table_len(rows.len()));
        let (sealed, trailer) = table.split_at(table.len() - TRAILER);
        assert_eq!(parse_trailer(trailer.try_into().unwrap()), Some((50, 4096)));
        assert_eq!(open_table(&key, 3, &mut sealed.to_vec()), Some(rows));
        assert_eq!(open_table(&key, 4, &mut sealed.to_vec()), None);
        assert_eq!(open_table(&key, 3, &mut sealed[1..].to_vec()), None);
        assert_eq!(parse_trailer(&[0; TRAILER]), None);
        assert_eq!(parse_head(&[0; HEAD], 0), None);
    }
}
