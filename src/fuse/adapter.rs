//! The callbacks: call the operation, reply or error. No decisions.
//!
//! Lookup counts are raised by `vfs` before it returns an entry, so before the reply that
//! makes the kernel count it. Requests of different threads may finish in any order, so
//! `release` may overtake a late reply; handles below are counted references, which makes
//! that harmless.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::bridge::Bridge;
use super::{convert, errno};
use crate::vfs::{Ino, Kind, SetAttr, Vfs, VfsError, VfsResult};

/// How long the kernel may keep an entry and its attributes without asking: long, because
/// every change it did not make itself is pushed to it.
const TTL: Duration = Duration::from_secs(3600);
/// How long it may keep the absence of a name. Shorter: a push that races with the very
/// lookup that found nothing is lost, and a file that does not appear is worse than one
/// round trip a minute.
const NEGATIVE_TTL: Duration = Duration::from_secs(60);
/// Inode numbers are never reused, so one generation serves.
const GENERATION: Generation = Generation(0);
/// Largest write request; more than the 1 MiB (256 pages) that kernels allow by default
/// would only enlarge buffers.
const MAX_WRITE: u32 = 1 << 20;
/// Background requests (read-ahead, asynchronous I/O) before the kernel holds back; its
/// default of 16 starves parallel readers of a store with a long round trip.
const MAX_BACKGROUND: u16 = 128;

/// Wanted from the kernel where it has them. fuser asks for ASYNC_READ, BIG_WRITES and
/// MAX_PAGES by itself; it reads requests with `read(2)`, so SPLICE flags would do nothing.
const WANTED: InitFlags = InitFlags::FUSE_DO_READDIRPLUS
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_POSIX_ACL)
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_ASYNC_DIO);

/// The `fuser` filesystem over [`Vfs`].
pub(super) struct Adapter {
    vfs: Arc<Vfs>,
    bridge: Bridge,
}

impl Adapter {
    /// Pending operations go to `runtime`.
    pub(super) fn new(vfs: Arc<Vfs>, runtime: Handle) -> Self {
        Self { vfs, bridge: Bridge::new(runtime) }
    }

    /// Runs an operation that may wait, and answers.
    fn later<T, R: Fail>(
        &self,
        operation: &'static str,
        ino: INodeNo,
        future: impl Future<Output = VfsResult<T>> + Send + 'static,
        reply: R,
        ok: impl FnOnce(R, T) + Send + 'static,
    ) where
        T: Send + 'static,
    {
        self.bridge.run(future, move |result| answer(operation, ino, result, reply, ok));
    }
}

/// Every `fuser` reply can fail with an errno.
trait Fail: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! fail {
    ($($reply:ty),*) => {
        $(impl Fail for $reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}
fail!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr
);

/// Replies, or reports the error and answers its errno.
fn answer<T, R: Fail>(
    operation: &'static str,
    ino: INodeNo,
    result: VfsResult<T>,
    reply: R,
    ok: impl FnOnce(R, T),
) {
    match result {
        Ok(value) => ok(reply, value),
        Err(error) => reply.fail(errno::report(operation, ino.0, &error)),
    }
}

fn entry(reply: ReplyEntry, attr: crate::vfs::Attr) {
    reply.entry(&TTL, &convert::attr(&attr), GENERATION);
}

fn attr(reply: ReplyAttr, attr: crate::vfs::Attr) {
    reply.attr(&TTL, &convert::attr(&attr));
}

fn ok(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// `getxattr(2)`'s protocol: a size of 0 asks for the length, a short buffer is ERANGE.
fn xattr(operation: &'static str, ino: INodeNo, size: u32, value: Vec<u8>, reply: ReplyXattr) {
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(len);
    } else if len > size {
        let error = VfsError::Range { what: String::new() };
        reply.error(errno::report(operation, ino.0, &error));
    } else {
        reply.data(&value);
    }
}

fn unsupported<T>(what: &str) -> VfsResult<T> {
    Err(VfsError::Unsupported { what: what.to_owned() })
}

fn invalid<T>(what: &str, why: &'static str) -> VfsResult<T> {
    Err(VfsError::Invalid { what: what.to_owned(), why })
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities() & WANTED;
        let refused = config.add_capabilities(offered).err();
        let write = config.set_max_write(MAX_WRITE);
        let background = config.set_max_background(MAX_BACKGROUND);
        tracing::debug!(?offered, ?refused, ?write, ?background, abi = %config.kernel_abi(), "init");
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.vfs.lookup(parent.0, name.as_bytes()) {
            // inode 0 with a lifetime: the kernel remembers that there is no such name
            Err(VfsError::NotFound { .. }) => {
                let none = convert::bare_attr(0, Kind::File);
                reply.entry_with_ttls(&Duration::ZERO, &NEGATIVE_TTL, &none, GENERATION);
            }
            result => answer("lookup", parent, result, reply, entry),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.vfs.forget(ino.0, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer("getattr", ino, self.vfs.getattr(ino.0), reply, attr);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            perm: mode.map(convert::perm),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        let vfs = Arc::clone(&self.vfs);
        let work = vfs.setattr(convert::caller(request), ino.0, fh.map(|fh| fh.0), set);
        self.later("setattr", ino, work, reply, attr);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        answer("readlink", ino, self.vfs.readlink(ino.0), reply, |r, target| r.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let result = match convert::node_kind(mode) {
            Some(kind) => {
                let (caller, perm) = (convert::maker(request, umask), convert::perm(mode));
                self.vfs.mknod(&caller, parent.0, name.as_bytes(), kind, perm, rdev)
            }
            None => invalid("mknod", "not a kind of node"),
        };
        answer("mknod", parent, result, reply, entry);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, perm) = (convert::maker(request, umask), convert::perm(mode));
        let (vfs, name) = (Arc::clone(&self.vfs), name.as_bytes().to_vec());
        let work = vfs.make_directory(caller, parent.0, name, perm);
        self.later("mkdir", parent, work, reply, entry);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("unlink", parent, self.vfs.unlink(parent.0, name.as_bytes()), reply, ok);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("rmdir", parent, self.vfs.rmdir(parent.0, name.as_bytes()), reply, ok);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, target) = (convert::caller(request), target.as_os_str().as_bytes());
        let result = self.vfs.symlink(&caller, parent.0, name.as_bytes(), target);
        answer("symlink", parent, result, reply, entry);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.as_bytes(), newname.as_bytes());
        let result = match convert::rename_mode(flags) {
            Some(mode) => self.vfs.rename(parent.0, name, newparent.0, newname, mode),
            None => invalid("rename", "flags that are not offered"),
        };
        answer("rename", parent, result, reply, ok);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let result = self.vfs.link(ino.0, newparent.0, newname.as_bytes());
        answer("link", ino, result, reply, entry);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, perm) = (convert::maker(request, umask), convert::perm(mode));
        let mode = convert::open_mode(flags);
        let result = self.vfs.create(&caller, parent.0, name.as_bytes(), perm, mode);
        answer("create", parent, result, reply, |reply, (attr, opened)| {
            let (attr, fh) = (convert::attr(&attr), FileHandle(opened.fh));
            reply.created(&TTL, &attr, GENERATION, fh, convert::fopen(opened, mode));
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = convert::open_mode(flags.0);
        answer("open", ino, self.vfs.open_file(ino.0, mode), reply, |reply, opened| {
            reply.opened(FileHandle(opened.fh), convert::fopen(opened, mode));
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.vfs.try_read(fh.0, offset, size) {
            Ok(None) => {
                let work = Arc::clone(&self.vfs).read(fh.0, offset, size);
                self.later("read", ino, work, reply, |reply, bytes| reply.data(&bytes));
            }
            Ok(Some(bytes)) => reply.data(&bytes),
            Err(error) => reply.error(errno::report("read", ino.0, &error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.vfs.try_write(fh.0, offset, data) {
            // the buffer is the event loop's: what must wait takes a copy
            Ok(None) => {
                let work = Arc::clone(&self.vfs).write(fh.0, offset, data.to_vec());
                self.later("write", ino, work, reply, ReplyWrite::written);
            }
            Ok(Some(count)) => reply.written(count),
            Err(error) => reply.error(errno::report("write", ino.0, &error)),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.later("flush", ino, Arc::clone(&self.vfs).flush(fh.0), reply, ok);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        answer("release", ino, self.vfs.release(fh.0), reply, ok);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.later("fsync", ino, Arc::clone(&self.vfs).fsync(fh.0, datasync), reply, ok);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer("opendir", ino, self.vfs.opendir(ino.0), reply, |reply, opened| {
            reply.opened(FileHandle(opened.fh), convert::fopen_dir(opened));
        });
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.vfs.readdir(fh.0, offset, false, &mut |e| {
            let name = OsStr::from_bytes(&e.name);
            reply.add(INodeNo(e.ino), e.offset, convert::file_type(e.kind), name)
        });
        answer("readdir", ino, result, reply, |reply, ()| reply.ok());
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result = self.vfs.readdir(fh.0, offset, true, &mut |e| {
            let attr = match &e.attr {
                Some(attr) => convert::attr(attr),
                None => convert::bare_attr(e.ino, e.kind),
            };
            let name = OsStr::from_bytes(&e.name);
            reply.add(INodeNo(e.ino), e.offset, name, &TTL, &attr, GENERATION)
        });
        answer("readdirplus", ino, result, reply, |reply, ()| reply.ok());
    }

    fn releasedir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        answer("releasedir", ino, self.vfs.releasedir(fh.0), reply, ok);
    }

    fn fsyncdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.later("fsyncdir", ino, Arc::clone(&self.vfs).fsyncdir(ino.0), reply, ok);
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = self.vfs.statfs();
        reply.statfs(
            s.blocks,
            s.free,
            s.available,
            s.files,
            s.files_free,
            s.block_size,
            s.name_max,
            s.block_size,
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let caller = convert::caller(request);
        let Some(mode) = convert::xattr_mode(flags) else {
            let refused = invalid("setxattr", "flags that are not offered");
            return answer("setxattr", ino, refused, reply, ok);
        };
        let (vfs, name) = (Arc::clone(&self.vfs), name.as_bytes().to_vec());
        let work = vfs.set_attribute(caller, ino.0, name, value.to_vec(), mode);
        self.later("setxattr", ino, work, reply, ok);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let result = self.vfs.getxattr(ino.0, name.as_bytes());
        answer("getxattr", ino, result, reply, |reply, value| {
            xattr("getxattr", ino, size, value, reply);
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let result = self.vfs.listxattr(&convert::caller(request), ino.0);
        answer("listxattr", ino, result, reply, |reply, names| {
            xattr("listxattr", ino, size, convert::xattr_names(&names), reply);
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = convert::caller(request);
        let (vfs, name) = (Arc::clone(&self.vfs), name.as_bytes().to_vec());
        self.later("removexattr", ino, vfs.remove_attribute(caller, ino.0, name), reply, ok);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some((keep_size, punch)) = convert::fallocate_mode(mode) else {
            return answer("fallocate", ino, unsupported("this fallocate mode"), reply, ok);
        };
        let work = Arc::clone(&self.vfs).fallocate(fh.0, offset, length, keep_size, punch);
        self.later("fallocate", ino, work, reply, ok);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // the kernel asks for these two only; it seeks by itself otherwise
        let result = match whence {
            libc::SEEK_DATA => self.vfs.lseek(fh.0, offset, false),
            libc::SEEK_HOLE => self.vfs.lseek(fh.0, offset, true),
            _ => invalid("lseek", "whence"),
        };
        answer("lseek", ino, result, reply, |reply, at| {
            reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
        });
    }

    // What follows is answered ENOSYS, once: the kernel remembers and does it by itself.
    // fuser's defaults would answer the same, with a warning in the log.

    fn access(&self, _: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _ino: INodeNo, _block_size: u32, _index: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        match self.vfs.share((fh_in.0, offset_in), (fh_out.0, offset_out), len) {
            // the kernel's word for: copy it by reading and writing
            Err(VfsError::Unsupported { .. }) => reply.error(Errno::EOPNOTSUPP),
            result => answer("copy_file_range", ino_out, result, reply, ReplyWrite::written),
        }
    }
}

/// The inode that the kernel's `FUSE_ROOT_ID` names; `vfs` uses the same number.
const _: () = assert!(INodeNo::ROOT.0 == crate::vfs::ROOT_INO as Ino);
