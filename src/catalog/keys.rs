//! Keys of the local database. Numbers are big-endian, so that scans are in order.
//!
//! ```text
//! I ino              inode            L link             link
//! D parent tag       entry            A parent tag       conflict name -> link
//! B ino link         back reference   O kind id          outbox
//! P tag page         part tokens      C ino chunk        staged chunk
//! W ino              dirty content    T tag              token that the catalog names
//! G due seq          token to delete  U mark             upload under way
//! R ino              meta to align    M name             bookkeeping
//! Z ino              unlinked, open   V writer           newest segment applied
//! Q ino index        part sent, not committed
//! F family ino       inode that may share parts with the family's first
//! S ino              directory whose place must be looked at once all segments are in
//! ```

use super::record::Ino;

/// Builds a key from a prefix byte and numbers.
fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(prefix);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// An inode.
pub fn inode(ino: Ino) -> Vec<u8> {
    key(b'I', &[&ino.to_be_bytes()])
}

/// A link.
pub fn link(id: u64) -> Vec<u8> {
    key(b'L', &[&id.to_be_bytes()])
}

/// What stands at a name; `tag` is `LocalKeys::name_tag(parent, name)`.
pub fn entry(parent: Ino, tag: &[u8; 16]) -> Vec<u8> {
    key(b'D', &[&parent.to_be_bytes(), tag])
}

/// All entries of a directory.
pub fn entries(parent: Ino) -> Vec<u8> {
    key(b'D', &[&parent.to_be_bytes()])
}

/// The link shown under a conflict name.
pub fn alias(parent: Ino, tag: &[u8; 16]) -> Vec<u8> {
    key(b'A', &[&parent.to_be_bytes(), tag])
}

/// A link of an inode, found from the inode.
pub fn back(ino: Ino, link: u64) -> Vec<u8> {
    key(b'B', &[&ino.to_be_bytes(), &link.to_be_bytes()])
}

/// All links of an inode.
pub fn backs(ino: Ino) -> Vec<u8> {
    key(b'B', &[&ino.to_be_bytes()])
}

/// Outbox entry of an inode.
pub fn outbox_inode(ino: Ino) -> Vec<u8> {
    key(b'O', &[b"I", &ino.to_be_bytes()])
}

/// Outbox entry of a link.
pub fn outbox_link(id: u64) -> Vec<u8> {
    key(b'O', &[b"L", &id.to_be_bytes()])
}

/// Prefix of the outbox.
pub const OUTBOX: &[u8] = b"O";

/// Prefix of the links in the outbox.
pub const OUTBOX_LINKS: &[u8] = b"OL";

/// A page of a manifest's part tokens; `tag` is of the manifest's token.
pub fn parts(tag: &[u8; 16], page: u32) -> Vec<u8> {
    key(b'P', &[tag, &page.to_be_bytes()])
}

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
    key(b'Q', &[&ino.to_be_bytes()])
}

/// An inode with content that waits; in `Space::Data` the small content itself.
pub fn waiting(ino: Ino) -> Vec<u8> {
    key(b'W', &[&ino.to_be_bytes()])
}

/// Prefix of all inodes with content that waits.
pub const WAITING: &[u8] = b"W";

/// A token that the catalog names.
pub fn token(tag: &[u8; 16]) -> Vec<u8> {
    key(b'T', &[tag])
}

/// A token to delete once due (milliseconds since 1970).
pub fn garbage(due: u64, number: u64) -> Vec<u8> {
    key(b'G', &[&due.to_be_bytes(), &number.to_be_bytes()])
}

/// Prefix of all tokens to delete.
pub const GARBAGE: &[u8] = b"G";

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

/// A member of a family of split files, other than its first.
pub fn member(family: Ino, ino: Ino) -> Vec<u8> {
    key(b'F', &[&family.to_be_bytes(), &ino.to_be_bytes()])
}

/// All members of a family but its first.
pub fn members(family: Ino) -> Vec<u8> {
    key(b'F', &[&family.to_be_bytes()])
}

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

/// A directory whose place is to be settled.
pub fn unsettled(dir: Ino) -> Vec<u8> {
    key(b'S', &[&dir.to_be_bytes()])
}

/// Prefix of all directories whose places are to be settled.
pub const UNSETTLED: &[u8] = b"S";

/// The newest segment applied of a writer.
pub fn applied(writer: u32) -> Vec<u8> {
    key(b'V', &[&writer.to_be_bytes()])
}

/// Prefix of all writers' newest segments.
pub const APPLIED: &[u8] = b"V";

/// The number behind a one-byte prefix (two for the outbox).
pub fn number(key: &[u8], prefix: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(part) = key.get(prefix..prefix + 8) {
        bytes.copy_from_slice(part);
    }
    u64::from_be_bytes(bytes)
}
