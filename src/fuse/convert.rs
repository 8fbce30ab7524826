//! Between `fuser`'s words and `vfs`' words. Pure.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, OpenAccMode, OpenFlags, RenameFlags};
use fuser::{Request, TimeOrNow};

use crate::vfs::{Attr, Caller, Ino, Kind, OpenMode, Opened, RenameMode, SetTime, XattrMode};

/// Preferred I/O size that `stat` shows: what one request to us can carry.
const BLOCK_SIZE: u32 = 1 << 20;

/// Permission bits, set-id and sticky included.
pub(super) fn perm(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or_default()
}

/// Who asks.
pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask: 0 }
}

/// Who makes something.
pub(super) fn maker(request: &Request, umask: u32) -> Caller {
    Caller { umask: perm(umask), ..caller(request) }
}

/// Kind to `fuser`'s.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind that `mknod`'s mode asks for; `None` for a directory or nonsense.
pub(super) fn node_kind(mode: u32) -> Option<Kind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(Kind::File),
        libc::S_IFIFO => Some(Kind::Fifo),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFCHR => Some(Kind::CharDevice),
        libc::S_IFBLK => Some(Kind::BlockDevice),
        _ => None,
    }
}

/// Attributes to `fuser`'s.
pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.crtime,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes that carry only an inode and a kind: for `.` and `..`, whose attributes the
/// kernel does not take from a listing, and (with inode 0) for a negative entry.
pub(super) fn bare_attr(ino: Ino, kind: Kind) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// `open(2)` flags.
pub(super) fn open_mode(flags: i32) -> OpenMode {
    let access = OpenFlags(flags).acc_mode();
    OpenMode {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
        sync: flags & libc::O_DSYNC != 0 || flags & libc::O_SYNC == libc::O_SYNC,
    }
}

/// What the kernel may do with an opened file. One that cannot be written has nothing to
/// flush, which saves a round trip per close.
pub(super) fn fopen(opened: Opened, mode: OpenMode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_NOFLUSH, !mode.write);
    flags
}

/// What the kernel may do with an opened directory. A listing that may be kept is also
/// cached; the kernel drops it when an entry of it is invalidated.
pub(super) fn fopen_dir(opened: Opened) -> FopenFlags {
    if opened.keep_cache {
        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR
    } else {
        FopenFlags::empty()
    }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(before_epoch(at)),
    }
}

/// fuser 0.18 reads a time before 1970 as `-(seconds + nanoseconds)`, while the kernel
/// means `-seconds + nanoseconds` (its `time.rs` says so in a note); this puts it right.
fn before_epoch(at: SystemTime) -> SystemTime {
    match SystemTime::UNIX_EPOCH.duration_since(at) {
        Ok(before) => at + 2 * Duration::from_nanos(u64::from(before.subsec_nanos())),
        Err(_) => at,
    }
}

/// `renameat2` flags; `None` for one that is not offered (whiteout, or both at once).
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// `setxattr(2)` flags; `None` for nonsense.
pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Either),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// `fallocate(2)` mode as (keep size, zero the range); `None` for what is not offered
/// (collapse, insert, unshare).
pub(super) fn fallocate_mode(mode: i32) -> Option<(bool, bool)> {
    const ZERO: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
    if mode & !(ZERO | libc::FALLOC_FL_KEEP_SIZE) != 0 {
        return None;
    }
    Some((mode & libc::FALLOC_FL_KEEP_SIZE != 0, mode & ZERO != 0))
}

/// Names as `listxattr(2)` returns them: each ended by a NUL.
pub(super) fn xattr_names(names: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(names.iter().map(|n| n.len() + 1).sum());
    for name in names {
        list.extend_from_slice(name);
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_become_a_mode() {
        let mode = open_mode(libc::O_WRONLY | libc::O_TRUNC);
        assert_eq!(mode, OpenMode { read: false, write: true, truncate: true, sync: false });
        assert!(open_mode(libc::O_RDWR | libc::O_DSYNC).sync);
        assert!(open_mode(libc::O_RDWR | libc::O_SYNC).sync);
        assert!(!open_mode(libc::O_RDONLY).write);
    }

    #[test]
    fn times_before_1970_survive_fusers_reading() {
        // the kernel says (-1 s, 500 ms), half a second before the epoch; fuser: 1.5 s before
        let fuser_says = SystemTime::UNIX_EPOCH - Duration::new(1, 500_000_000);
        let meant = SystemTime::UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(before_epoch(fuser_says), meant);
        let after = SystemTime::UNIX_EPOCH + Duration::new(7, 9);
        assert_eq!(before_epoch(after), after);
    }

    #[test]
    fn only_offered_fallocate_modes_pass() {
        assert_eq!(fallocate_mode(0), Some((false, false)));
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(fallocate_mode(punch), Some((true, true)));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_ZERO_RANGE), Some((false, true)));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
    }

    #[test]
    fn a_read_only_open_is_not_flushed() {
        let opened = Opened { fh: 1, keep_cache: true };
        let flags = fopen(opened, open_mode(libc::O_RDONLY));
        assert_eq!(flags, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
        assert_eq!(fopen(opened, open_mode(libc::O_RDWR)), FopenFlags::FOPEN_KEEP_CACHE);
    }

    #[test]
    fn xattr_names_are_nul_ended() {
        assert_eq!(xattr_names(&[b"user.a".to_vec(), b"b".to_vec()]), b"user.a\0b\0");
        assert!(xattr_names(&[]).is_empty());
    }

    #[test]
    fn rename_flags_do_not_combine() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE), Some(RenameMode::NoReplace));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE), None);
    }
}
