//! The local disk: every file access of the layers below `fuse`.
//!
//! Staging, the cache and their blobs reach files through [`Disk`] alone, so that a test
//! can put a disk in memory in its place, cut its power, fill it up or let it fail. The
//! local database is not among them: it has a seam of its own.
//!
//! **What survives.** The death of the process loses nothing that a call has returned from.
//! The death of the machine (power, kernel) is another matter; there, and there alone, these
//! are the promises that callers may build on:
//!
//! * *A file's bytes, length and holes* are durable once [`DiskFile::sync_data`] has
//!   returned without an error. What was changed since may be there as a whole, in part, or
//!   not at all, each file by itself, and a write may be torn at any sector.
//! * *A folder's names* (created, renamed, removed) are durable once [`Disk::sync_dir`] of
//!   that folder has. Until then a new file may vanish however often it was synced itself,
//!   and a removed one may be back, with its content.
//! * *A rename is atomic*: the file has its old name or its new one, never both, never none;
//!   a file that is replaced by it is there until the new one is. POSIX promises this to the
//!   processes of a running machine alone; ext4, xfs and btrfs keep it across a crash too,
//!   from folder to folder, because it is one transaction of their journal.
//! * Nothing orders changes of two files, or of a file and its folder, but a sync between
//!   them.
//!
//! **Repeatable.** [`Disk::read_dir`] sorts, so that what is done to the files of a folder is
//! done in the same order in every run. No call depends on the process's current folder as
//! long as paths are absolute.
//!
//! Every call may block for as long as the disk takes.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// A file system, as far as the drive uses one. See the module's header for what is durable
/// when.
///
/// Errors are those of the system: [`io::ErrorKind::NotFound`] for a missing name,
/// [`io::ErrorKind::AlreadyExists`], [`io::ErrorKind::CrossesDevices`] and so on.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a file that only its owner may read and write (mode 0600), and opens it. Fails
    /// if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file, making it if need be (mode 0600), and locks it until the last reference
    /// to what is returned is dropped or the process dies. An error of kind
    /// [`io::ErrorKind::WouldBlock`]: somebody else has locked it.
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// The whole content of a small file, also of one that may not be written, or that has
    /// no length (`/proc`).
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Gives a file or folder another name within its file system; a file that has the name
    /// `to` is replaced, and stays usable by those who have it open.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file; whoever has it open may go on using it.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder that only its owner may enter (mode 0700), with all missing ones
    /// above it. No error if it is there already.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it. Does not follow links.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, sorted by their bytes; without `.` and `..`.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// What is known of a name. Does not follow links.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Returns when the names in a folder are durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The size of the file system that a path lies on, and what is free there.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file. Reads and writes name their place, so threads can share it; it stays usable
/// when its name is changed or removed.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads some bytes from `at` on, at most as many as fit; 0 at the file's end. May be
    /// interrupted ([`io::ErrorKind::Interrupted`]).
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `data` at `at`; what lies between the file's end and `at` becomes a
    /// hole. After an error any part of it may have been written.
    fn write_all_at(&self, data: &[u8], at: u64) -> io::Result<()>;

    /// Cuts the file off, or makes it longer by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length, room and times.
    fn stat(&self) -> io::Result<FileStat>;

    /// Returns when the file's bytes and length are durable; its name and times need not be.
    fn sync_data(&self) -> io::Result<()>;

    /// Zeros a range that ends within the file, and gives its space back where the file
    /// system can. The length stays.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;

    /// The first byte from `from` on that does not lie in a hole; `None` if only holes, or
    /// nothing, follow. A file system without holes says `from`.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>>;

    /// Lets the kernel drop what it keeps of the file in memory. What is not on the disk yet
    /// stays.
    fn drop_cached(&self) -> io::Result<()>;

    /// Fills `out` from `at` on; an error of kind [`io::ErrorKind::UnexpectedEof`] if the
    /// file ends before.
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.read_at(&mut out[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a file system says of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Length in bytes, holes included.
    pub len: u64,
    /// Bytes of the disk that it occupies, as the file system counts them.
    pub allocated: u64,
    /// When its content last changed; `None` where the file system keeps no times.
    pub modified: Option<SystemTime>,
    /// When it was last read, often to the day only (`relatime`).
    pub accessed: Option<SystemTime>,
}

/// The size of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of its bytes.
    pub total: u64,
    /// Bytes that a process without privileges may still write.
    pub free: u64,
}

/// The machine's own file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(SystemFile(options.open(path)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        file.try_lock()?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(path)?;
        let mut names: Vec<_> =
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        fs::symlink_metadata(path).map(stat_of)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let disk = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(DiskSpace { total: bytes(disk.f_blocks), free: bytes(disk.f_bavail) })
    }
}

fn stat_of(metadata: Metadata) -> FileStat {
    FileStat {
        len: metadata.len(),
        allocated: metadata.blocks() * 512,
        modified: metadata.modified().ok(),
        accessed: metadata.accessed().ok(),
    }
}

#[derive(Debug)]
struct SystemFile(File);

impl DiskFile for SystemFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(out, at)
    }

    fn write_all_at(&self, data: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(data, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.0.metadata().map(stat_of)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, mode, range.start, len) {
            Err(Errno::OPNOTSUPP) => write_zeros(&self.0, range),
            other => Ok(other?),
        }
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn drop_cached(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

/// For file systems without holes.
fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        SystemDisk.create_dir_all(&below).unwrap();
        SystemDisk.create_dir_all(&below).unwrap();
        for name in ["x", "B", "10", "9", "é", "a"] {
            SystemDisk.create_new(&below.join(name)).unwrap();
        }
        assert_eq!(SystemDisk.read_dir(&below).unwrap(), ["10", "9", "B", "a", "x", "é"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&below), mode(&below.join("x"))), (0o700, 0o600));
        SystemDisk.remove_dir_all(&dir.path().join("a")).unwrap();
        let missing = SystemDisk.read_dir(&below).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_ends_with_its_last_reference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = SystemDisk.lock(&path).unwrap();
        let again = SystemDisk.lock(&path).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        SystemDisk.lock(&path).unwrap();
    }

    #[test]
    fn a_punched_range_is_zeros_and_the_length_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk.create_new(&dir.path().join("f")).unwrap();
        file.write_all_at(&[7; 20_000], 0).unwrap();
        file.punch(5000..5000).unwrap();
        file.punch(5000..12_000).unwrap();
        let mut out = [1; 20_000];
        file.read_exact_at(&mut out, 0).unwrap();
        assert!(out.iter().enumerate().all(|(i, b)| (*b == 0) == (5000..12_000).contains(&i)));
        assert_eq!(file.stat().unwrap().len, 20_000);
        let past = file.read_exact_at(&mut out, 1).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(file.next_data(20_000).unwrap(), None);
        let data = file.next_data(12_000).unwrap().unwrap();
        assert!((12_000..20_000).contains(&data));
    }

    #[test]
    fn zeros_are_written_where_holes_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![7; 200_000]).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        write_zeros(&file, 10..150_001).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.iter().enumerate().all(|(i, b)| (*b == 0) == (10..150_001).contains(&i)));
    }
}
