//! The cache's own folder: layout, version, lock, and getting rid of what is stale.
//!
//! ```text
//! <cache dir>/privicorefs-content/   nothing outside of it is ever touched
//!     lock        held while a process uses it
//!     format      version, a random id (makes the packs' key), a proof of the master key
//!     packs/      small contents, many to a file
//!     chunks/xx/  large ones, a blob each
//!     tmp/<run>/  being written by this run; those of other runs are garbage
//! ```
//!
//! A format file that is missing, old, or made under another key makes everything beside
//! it garbage. Garbage is renamed into `tmp` at once and removed in the background.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CacheError;
use crate::crypto::LocalKeys;
use crate::env::disk::{Disk, DiskFile};
use crate::env::{Env, Random};

const NAME: &str = "privicorefs-content";
const FORMAT_MAGIC: [u8; 16] = *b"pcfs-cache\0\0\x01\0\0\0";
const FORMAT_LEN: usize = 48;

/// The folder, locked for this process.
pub(super) struct Root {
    dir: PathBuf,
    /// This run's part of `tmp`.
    run: String,
    format: [u8; FORMAT_LEN],
    disk: Arc<dyn Disk>,
    _lock: Arc<dyn DiskFile>,
}

impl Root {
    /// Makes or takes over the folder below `dir`.
    pub(super) fn open(dir: &Path, keys: &LocalKeys, env: &Env) -> Result<Self, CacheError> {
        let dir = dir.join(NAME);
        let fail = |source| CacheError::Io { dir: dir.clone(), source };
        let disk = env.disk.clone();
        disk.create_dir_all(&dir).map_err(fail)?;
        let lock = disk.lock(&dir.join("lock")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => CacheError::Busy { dir: dir.clone() },
            _ => fail(source),
        })?;
        let run = format!("{:016x}", env.random_u64());
        let known =
            disk.read(&dir.join("format")).ok().and_then(|bytes| check_format(&bytes, keys));
        let format = known.unwrap_or_else(|| new_format(keys, &*env.random));
        let root = Self { dir: dir.clone(), run, format, disk, _lock: lock };
        root.discard_unknown(known.is_some()).map_err(fail)?;
        root.ensure().map_err(fail)?;
        Ok(root)
    }

    /// The random id that this folder's pack key is made from.
    pub(super) fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.format[16..32]);
        id
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn packs(&self) -> PathBuf {
        self.dir.join("packs")
    }

    pub(super) fn chunks(&self) -> PathBuf {
        self.dir.join("chunks")
    }

    /// A name for a file being written, not used before.
    pub(super) fn temporary(&self, random: &dyn Random) -> PathBuf {
        let mut name = [0; 8];
        random.fill(&mut name);
        self.dir.join("tmp").join(&self.run).join(format!("{:016x}", u64::from_le_bytes(name)))
    }

    /// Makes what is missing, at first or after somebody removed it under a running mount.
    pub(super) fn ensure(&self) -> io::Result<()> {
        for dir in [self.packs(), self.chunks(), self.dir.join("tmp").join(&self.run)] {
            self.disk.create_dir_all(&dir)?;
        }
        let path = self.dir.join("format");
        if self.disk.read(&path).is_ok_and(|found| found == self.format) {
            return Ok(());
        }
        let _ = self.disk.remove_file(&path);
        self.disk.create_new(&path)?.write_all_at(&self.format, 0)
    }

    /// Removes what earlier runs left in `tmp`. May take long; `go_on` can end it.
    pub(super) fn remove_garbage(&self, go_on: impl Fn() -> bool) {
        let tmp = self.dir.join("tmp");
        for name in self.disk.read_dir(&tmp).into_iter().flatten() {
            if name != self.run.as_str() && go_on() {
                let path = tmp.join(name);
                let removed = self.disk.remove_dir_all(&path);
                let _ = removed.or_else(|_| self.disk.remove_file(&path));
            }
        }
    }

    /// Moves aside what this version does not know, and everything if `known` is false.
    fn discard_unknown(&self, known: bool) -> io::Result<()> {
        let tmp = self.dir.join("tmp");
        self.disk.create_dir_all(&tmp)?;
        for name in self.disk.read_dir(&self.dir)? {
            let keep: &[&str] = if known {
                &["lock", "tmp", "format", "packs", "chunks"]
            } else {
                &["lock", "tmp"]
            };
            if keep.iter().any(|kept| name == *kept) {
                continue;
            }
            let mut aside = std::ffi::OsString::from(format!("{}-", self.run));
            aside.push(&name);
            self.disk.rename(&self.dir.join(name), &tmp.join(aside))?;
        }
        Ok(())
    }
}

fn new_format(keys: &LocalKeys, random: &dyn Random) -> [u8; FORMAT_LEN] {
    let mut format = [0; FORMAT_LEN];
    let (magic, rest) = format.split_at_mut(16);
    let (id, proof) = rest.split_at_mut(16);
    magic.copy_from_slice(&FORMAT_MAGIC);
    random.fill(id);
    proof.copy_from_slice(&keys.tag("cache format", id));
    format
}

fn check_format(bytes: &[u8], keys: &LocalKeys) -> Option<[u8; FORMAT_LEN]> {
    let format = <[u8; FORMAT_LEN]>::try_from(bytes).ok()?;
    let proof = keys.tag("cache format", &format[16..32]);
    (format[..16] == FORMAT_MAGIC && format[32..] == proof).then_some(format)
}
