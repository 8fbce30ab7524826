//! What the operations take and give; no kernel binding's types.

use std::time::SystemTime;

pub use crate::catalog::format::names::NAME_MAX;
pub use crate::catalog::{Ino, Kind, ROOT_INO};

/// Attributes, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Kind.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included (`mode & 0o7777`).
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Allocated 512-byte units.
    pub blocks: u64,
    /// Last access.
    pub atime: SystemTime,
    /// Last content change.
    pub mtime: SystemTime,
    /// Last attribute change.
    pub ctime: SystemTime,
    /// Birth.
    pub crtime: SystemTime,
}

/// Owners and permission bits to show instead of those that are kept, for people who want
/// one owner for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits that nothing is shown with.
    pub umask: u16,
    /// Permission bits of everything but folders and symbolic links.
    pub file_mode: Option<u16>,
    /// Permission bits of folders.
    pub dir_mode: Option<u16>,
}

impl Shown {
    /// Changes what `stat` shows.
    pub fn apply(&self, attr: &mut Attr) {
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        let mode = match attr.kind {
            Kind::Symlink => return,
            Kind::Dir => self.dir_mode,
            _ => self.file_mode,
        };
        attr.perm = mode.unwrap_or(attr.perm) & !self.umask;
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process; 0 for the kernel itself.
    pub pid: u32,
    /// Permission bits that what it makes shall not have, unless the folder has a default
    /// access control list.
    pub umask: u16,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time now.
    Now,
    /// This time.
    At(SystemTime),
}

/// Which attributes to change; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (`mode & 0o7777`).
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend to this many bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last content change.
    pub mtime: Option<SetTime>,
}

/// How a file is opened (from `open(2)` flags).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Reads allowed.
    pub read: bool,
    /// Writes allowed.
    pub write: bool,
    /// Content is dropped at open.
    pub truncate: bool,
    /// `O_SYNC` or `O_DSYNC`: every write is also an `fsync`.
    pub sync: bool,
}

/// An opened file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Handle number, unique while open.
    pub fh: u64,
    /// Whether the kernel may keep the pages it has (`FOPEN_KEEP_CACHE`).
    pub keep_cache: bool,
}

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Cookie to continue *after* this entry; stable while the handle is open.
    pub offset: u64,
    /// Name, raw bytes.
    pub name: Vec<u8>,
    /// Inode.
    pub ino: Ino,
    /// Kind.
    pub kind: Kind,
    /// Full attributes where they were asked for (`readdirplus`); `None` for `.` and `..`.
    pub attr: Option<Attr>,
}

/// `statfs` figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Fragment size in bytes; the counts below are in this unit.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free.
    pub free: u64,
    /// Free to an unprivileged user.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// How `rename` treats an existing target (`renameat2` flags).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Fail with EEXIST (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// How `setxattr` treats an existing attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Either,
    /// Fail if it exists (`XATTR_CREATE`).
    Create,
    /// Fail if it does not (`XATTR_REPLACE`).
    Replace,
}

/// What the kernel must be told after a change it did not make itself (a merge of
/// another machine's segments, a discovered token).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Attributes (and, if `data`, cached pages) of an inode are stale.
    Inode {
        /// Which.
        ino: Ino,
        /// Whether its pages are too.
        data: bool,
    },
    /// A name in a directory is stale.
    Entry {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
}
