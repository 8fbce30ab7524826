//! Keys of the local database. Numbers are big-endian, so that scans are in order.
//!
//! ```text
//! I ino              row of an object            H ino version      version that is covered
//! D parent tag       entry                       V kind key         record of the vault
//! O ino              change that waits           T tag ino version  place that names a token
//! Q tag page         page of a part list         P tag tag          part, and a list with it
//! C ino chunk        staged chunk                W ino              content that waits
//! U mark             upload under way            R ino              meta to align
//! N ino index        part sent, not committed    Z ino              unlinked, open
//! E day ino          something of it is not needed since that day
//! Y ino              folder that was cut out of a circle
//! S ...              replication: segments, ends, manifests, doubt
//! G tag              token that nothing names and nobody was told of: deleted soon
//! X tag              part list whose parts are not in the index yet
//! M name             bookkeeping
//! ```

use super::inode::Ino;
use crate::catalog::format::VersionId;

/// Builds a key from a prefix byte and numbers.
fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(prefix);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The row of an object.
pub fn row(ino: Ino) -> Vec<u8> {
    key(b'I', &[&ino.to_be_bytes()])
}

/// Prefix of all rows.
pub const ROWS: &[u8] = b"I";

/// A version of a file that is covered.
pub fn history(ino: Ino, version: VersionId) -> Vec<u8> {
    key(b'H', &[&ino.to_be_bytes(), &version.0])
}

/// The covered versions of a file.
pub fn histories(ino: Ino) -> Vec<u8> {
    key(b'H', &[&ino.to_be_bytes()])
}

/// What stands at a name; `tag` is `LocalKeys::name_tag(parent, name)`.
pub fn entry(parent: Ino, tag: &[u8; 16]) -> Vec<u8> {
    key(b'D', &[&parent.to_be_bytes(), tag])
}

/// All entries of a directory.
pub fn entries(parent: Ino) -> Vec<u8> {
    key(b'D', &[&parent.to_be_bytes()])
}

/// A record of the vault: its kind, and what tells it from others of that kind.
pub fn vault(kind: u64, tag: &[u8; 16]) -> Vec<u8> {
    key(b'V', &[&kind.to_be_bytes(), tag])
}

/// All records of the vault of one kind.
pub fn vault_kind(kind: u64) -> Vec<u8> {
    key(b'V', &[&kind.to_be_bytes()])
}

/// Prefix of all records of the vault.
pub const VAULT: &[u8] = b"V";

/// A change of an object that waits to be published; 0 is the vault.
pub fn outbox(ino: Ino) -> Vec<u8> {
    key(b'O', &[&ino.to_be_bytes()])
}

/// Prefix of the outbox.
pub const OUTBOX: &[u8] = b"O";

/// A place of a version that names a token.
pub fn token(tag: &[u8; 16], ino: Ino, version: VersionId) -> Vec<u8> {
    key(b'T', &[tag, &ino.to_be_bytes(), &version.0])
}

/// All places that name a token.
pub fn tokens(tag: &[u8; 16]) -> Vec<u8> {
    key(b'T', &[tag])
}

/// A page of a part list; `tag` is of the list's token.
pub fn parts(tag: &[u8; 16], page: u32) -> Vec<u8> {
    key(b'Q', &[tag, &page.to_be_bytes()])
}

/// All pages of a part list.
pub fn parts_of(tag: &[u8; 16]) -> Vec<u8> {
    key(b'Q', &[tag])
}

/// A part, and a list that names it.
pub fn part(part: &[u8; 16], list: &[u8; 16]) -> Vec<u8> {
    key(b'P', &[part, list])
}

/// All lists that name a part.
pub fn lists_with(part: &[u8; 16]) -> Vec<u8> {
    key(b'P', &[part])
}

/// A part list whose parts are not in the index.
pub fn unindexed(tag: &[u8; 16]) -> Vec<u8> {
    key(b'X', &[tag])
}

/// Prefix of all part lists that are not in the index.
pub const UNINDEXED: &[u8] = b"X";

/// A token that nothing names and nobody was told of.
pub fn garbage(tag: &[u8; 16]) -> Vec<u8> {
    key(b'G', &[tag])
}

/// Prefix of all tokens that nothing names.
pub const GARBAGE: &[u8] = b"G";

/// A staged chunk.
pub fn chunk(ino: Ino, index: u32) -> Vec<u8> {
    key(b'C', &[&ino.to_be_bytes(), &index.to_be_bytes()])
}

/// All staged chunks of an inode.
pub fn chunks(ino: Ino) -> Vec<u8> {
    key(b'C', &[&ino.to_be_bytes()])
}

/// Prefix of all staged chunks.
pub const CHUNKS: &[u8] = b"C";

/// Parts of a file that have been sent and not committed.
pub fn sent(ino: Ino) -> Vec<u8> {
    key(b'N', &[&ino.to_be_bytes()])
}

/// Prefix of all parts that have been sent and not committed.
pub const SENT: &[u8] = b"N";

/// An inode with content that waits; in `Space::Data` the small content itself.
pub fn waiting(ino: Ino) -> Vec<u8> {
    key(b'W', &[&ino.to_be_bytes()])
}

/// Prefix of all inodes with content that waits.
pub const WAITING: &[u8] = b"W";

/// An upload under way.
pub fn intent(mark: &str) -> Vec<u8> {
    key(b'U', &[mark.as_bytes()])
}

/// Prefix of all uploads under way.
pub const INTENTS: &[u8] = b"U";

/// An inode whose meta at the service must be brought in line.
pub fn align(ino: Ino) -> Vec<u8> {
    key(b'R', &[&ino.to_be_bytes()])
}

/// Prefix of all inodes to bring in line.
pub const ALIGN: &[u8] = b"R";

/// An object of which something has not been needed since a day; 0 is the vault.
pub fn ended(day: u64, ino: Ino) -> Vec<u8> {
    key(b'E', &[&day.to_be_bytes(), &ino.to_be_bytes()])
}

/// Prefix of all objects of which something is not needed.
pub const ENDED: &[u8] = b"E";

/// A folder that was cut out of a circle.
pub fn cut(ino: Ino) -> Vec<u8> {
    key(b'Y', &[&ino.to_be_bytes()])
}

/// Prefix of all folders that were cut out of a circle.
pub const CUTS: &[u8] = b"Y";

/// Bookkeeping.
pub fn meta(name: &str) -> Vec<u8> {
    key(b'M', &[name.as_bytes()])
}

/// An inode without a name that is still open.
pub fn orphan(ino: Ino) -> Vec<u8> {
    key(b'Z', &[&ino.to_be_bytes()])
}

/// Prefix of all orphans.
pub const ORPHANS: &[u8] = b"Z";

/// A record of the replication: a letter for its table, and its key there.
pub fn replication(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![b'S', table];
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The number behind a one-byte prefix.
pub fn number(key: &[u8], prefix: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(part) = key.get(prefix..prefix + 8) {
        bytes.copy_from_slice(part);
    }
    u64::from_be_bytes(bytes)
}
