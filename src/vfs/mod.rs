//! One method per filesystem operation. (temporary stub: the real one replaces it at merge)
#![allow(missing_docs, unused_variables, clippy::unused_async)]

pub mod error;
pub mod types;

pub use error::{VfsError, VfsResult};
pub use types::*;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::MasterKey;
use crate::env::Env;
use crate::store::Store;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Fsync,
    Close,
    Local,
}

#[derive(Clone, Debug)]
pub struct VfsConfig {
    pub state_dir: PathBuf,
    pub cache_dir: PathBuf,
    pub cache_limit: u64,
    pub cache_floor: u64,
    pub staging_limit: u64,
    pub memory: u64,
    pub split_above: Option<u64>,
    pub part_size: u64,
    pub durability: Durability,
    pub trash_days: u32,
    pub local_names: Vec<String>,
    pub parallel: usize,
    pub deadline: Duration,
    pub poll_interval: Duration,
    pub read_only: bool,
    pub default_uid: u32,
    pub default_gid: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncProgress {
    pub files_left: u64,
    pub bytes_left: u64,
    pub records_left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    pub files_left: u64,
    pub bytes_left: u64,
    pub records_left: u64,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    pub dirty_files: u64,
}

#[derive(Debug)]
pub struct Vfs;

fn no<T>() -> VfsResult<T> {
    Err(VfsError::Unsupported { what: "stub".into() })
}

impl Vfs {
    pub async fn open(
        c: VfsConfig,
        s: Arc<dyn Store>,
        k: MasterKey,
        e: Env,
    ) -> VfsResult<Arc<Self>> {
        Ok(Arc::new(Self))
    }
    pub fn start(
        self: &Arc<Self>,
        handle: tokio::runtime::Handle,
        invalidate: Box<dyn Fn(Vec<Invalidation>) + Send + Sync>,
    ) {
    }
    pub fn hint_changes(&self) {}
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> VfsResult<Attr> {
        no()
    }
    pub fn forget(&self, ino: Ino, nlookup: u64) {}
    pub fn getattr(&self, ino: Ino) -> VfsResult<Attr> {
        no()
    }
    pub fn readlink(&self, ino: Ino) -> VfsResult<Vec<u8>> {
        no()
    }
    #[allow(clippy::too_many_arguments)]
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        perm: u16,
        rdev: u32,
    ) -> VfsResult<Attr> {
        no()
    }
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], perm: u16) -> VfsResult<Attr> {
        no()
    }
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> VfsResult<Attr> {
        no()
    }
    pub fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> VfsResult<Attr> {
        no()
    }
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> VfsResult<()> {
        no()
    }
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> VfsResult<()> {
        no()
    }
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> VfsResult<()> {
        no()
    }
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        mode: OpenMode,
    ) -> VfsResult<(Attr, Opened)> {
        no()
    }
    pub fn open_file(&self, ino: Ino, mode: OpenMode) -> VfsResult<Opened> {
        no()
    }
    pub fn try_read(&self, fh: u64, offset: u64, size: u32) -> VfsResult<Option<Vec<u8>>> {
        no()
    }
    pub async fn read(self: Arc<Self>, fh: u64, offset: u64, size: u32) -> VfsResult<Vec<u8>> {
        no()
    }
    pub fn try_write(&self, fh: u64, offset: u64, data: &[u8]) -> VfsResult<Option<u32>> {
        no()
    }
    pub async fn write(self: Arc<Self>, fh: u64, offset: u64, data: Vec<u8>) -> VfsResult<u32> {
        no()
    }
    pub async fn setattr(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        fh: Option<u64>,
        set: SetAttr,
    ) -> VfsResult<Attr> {
        no()
    }
    pub async fn flush(self: Arc<Self>, fh: u64) -> VfsResult<()> {
        no()
    }
    pub async fn fsync(self: Arc<Self>, fh: u64, datasync: bool) -> VfsResult<()> {
        no()
    }
    pub async fn fsyncdir(self: Arc<Self>, ino: Ino) -> VfsResult<()> {
        no()
    }
    pub fn release(&self, fh: u64) -> VfsResult<()> {
        no()
    }
    pub fn opendir(&self, ino: Ino) -> VfsResult<Opened> {
        no()
    }
    pub fn readdir(
        &self,
        fh: u64,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> VfsResult<()> {
        no()
    }
    pub fn releasedir(&self, fh: u64) -> VfsResult<()> {
        no()
    }
    pub fn statfs(&self) -> StatFs {
        StatFs::default()
    }
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> VfsResult<Vec<u8>> {
        no()
    }
    pub fn listxattr(&self, ino: Ino) -> VfsResult<Vec<Vec<u8>>> {
        no()
    }
    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> VfsResult<()> {
        no()
    }
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> VfsResult<()> {
        no()
    }
    pub async fn fallocate(
        self: Arc<Self>,
        fh: u64,
        offset: u64,
        length: u64,
        keep_size: bool,
        punch: bool,
    ) -> VfsResult<()> {
        no()
    }
    pub fn lseek(&self, fh: u64, offset: i64, hole: bool) -> VfsResult<u64> {
        no()
    }
    pub async fn sync_all(
        self: Arc<Self>,
        deadline: Option<Duration>,
        progress: Arc<dyn Fn(SyncProgress) + Send + Sync>,
    ) -> VfsResult<()> {
        no()
    }
    pub fn status(&self) -> Status {
        Status::default()
    }
    pub async fn shutdown(self: Arc<Self>, deadline: Duration) -> DrainReport {
        DrainReport::default()
    }
}
