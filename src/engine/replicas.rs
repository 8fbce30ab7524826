//! Storage devices on disk: copies of payloads, each device's in a folder of its own.
//!
//! ```text
//! devices/<device>/tmp/<payload>.<n>    a copy while it is written
//! devices/<device>/<xx>/<payload>       a copy, `xx` the last two digits of the payload's id
//! ```
//!
//! A profile begins with one virtual device, the engine's own disk, which keeps payloads as
//! `payload.rs` and the database do. A device that is registered beside it is a folder here.
//! By the protocol every exchange goes to every storage device, so the virtual one keeps
//! taking part for as long as it has the role; who wants real devices only removes it from
//! storage. There is no silent change of homes: what happens to data follows from what was
//! registered, synchronized and removed.
//!
//! Invariants:
//!  * **Default.** A profile whose only storage device is the virtual one has no folder, no
//!    copy and no record because of this module; its payloads are written and read as ever.
//!  * **Fan-out.** A payload is acknowledged after its copy on every device that works is
//!    synced, in place, and its name synced; on at least one device in any case. A device
//!    that fails meanwhile (no space, no folder to write to) misses it, and gets it by
//!    `synchronize`: one lost device stops nobody.
//!  * **A copy proves itself.** It is a row of blocks, each followed by a checksum over the
//!    payload's id, the block's number and its bytes. A copy that is short, long, of another
//!    payload or changed is damaged, and a damaged block is never served.
//!  * **Reads** try the devices in turn, block by block, those with checksums first and the
//!    engine's own disk, which has none, last; they fail once no device has the block. A
//!    device without the storage role is not asked, whatever its folder holds.
//!  * **Payloads never change.** An id is never used for other bytes, so a copy is missing,
//!    damaged or right, and never out of date: a device that comes back is no danger.
//!  * **No loss by removal.** The role is taken from a device only while every payload that
//!    it has can be read whole from the others; otherwise the command is rejected.
//!  * **Orphans.** A copy is renamed into place before the commit that names its payload and
//!    unlinked after the commit that forgets it, so a crash between leaves a copy without a
//!    record; the start and `synchronize` remove those, and the start empties `tmp`. The
//!    folder of a device without the role is left as it is.
//!
//! Copies are checked against damage, not against forgery: payloads are sealed by clients.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use ring::digest;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::commit::Received;
use super::db::{Db, Records, Space, StorageError};
use super::devices;
use super::payload::{Files, READ_PIECE, Source, remove, sync_dir};
use super::records::{Payload, Place};

/// Bytes under one checksum: what a stream reads at a time.
const BLOCK: usize = READ_PIECE;
/// Bytes of a checksum: half of a SHA-256.
const SUM: usize = 16;

/// Who keeps a profile's payloads, oldest device first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// Whether the engine's own disk does, as the virtual device.
    pub engine: bool,
    /// Identifiers of the real ones.
    pub devices: Vec<String>,
}

impl Holders {
    /// The storage devices of a profile.
    pub(super) fn of(records: &impl Records, profile: Uuid) -> Result<Self, StorageError> {
        let mut holders = Self::default();
        for device in devices::all(records, profile)?.into_iter().filter(|d| d.storage) {
            match device.embedded {
                true => holders.engine = true,
                false => holders.devices.push(device.identifier),
            }
        }
        Ok(holders)
    }

    /// Whether nothing can be stored.
    pub(super) fn is_empty(&self) -> bool {
        !self.engine && self.devices.is_empty()
    }

    /// Whether the engine's own disk is all there is.
    pub(super) fn is_engine_alone(&self) -> bool {
        self.engine && self.devices.is_empty()
    }

    /// The others of one device, and it by itself.
    pub(super) fn split(&self, embedded: bool, identifier: &str) -> (Self, Self) {
        let (mut others, mut one) = (self.clone(), Self::default());
        if embedded {
            (others.engine, one.engine) = (false, self.engine);
        } else {
            others.devices.retain(|device| device != identifier);
            one.devices = self.devices.iter().filter(|d| *d == identifier).cloned().collect();
        }
        (others, one)
    }
}

/// The folders of the storage devices.
#[derive(Debug)]
pub(super) struct Replicas {
    dir: PathBuf,
    runtime: Handle,
    /// One synchronization at a time.
    pub(super) work: Arc<tokio::sync::Mutex<()>>,
    /// Whether payloads of some profile are elsewhere than on the engine's own disk alone.
    in_use: AtomicBool,
    /// Devices that somebody was warned about.
    suspects: Mutex<HashSet<String>>,
    /// Copies that a working set of devices would have had, and one of them missed.
    missed: AtomicU64,
    number: AtomicU64,
}

impl Replicas {
    /// Over `dir`, which is made when it is needed; removes half-written copies.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let replicas = Self {
            dir,
            runtime: Handle::current(),
            work: Arc::default(),
            in_use: AtomicBool::new(false),
            suspects: Mutex::default(),
            missed: AtomicU64::new(0),
            number: AtomicU64::new(0),
        };
        let folders = match std::fs::read_dir(&replicas.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(replicas),
            folders => folders?,
        };
        for folder in folders {
            let folder = folder?.path();
            if let Err(error) = empty(&folder.join("tmp")) {
                tracing::warn!(%error, folder = %folder.display(), "half-written copies stay");
            }
        }
        Ok(replicas)
    }

    /// Storage devices may be other than the virtual ones from now on.
    pub(super) fn use_devices(&self) {
        self.in_use.store(true, Ordering::Release);
    }

    /// Whether anybody's storage devices may be other than the virtual one: while not, nobody
    /// needs to look.
    pub(super) fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    fn folder(&self, device: &str) -> PathBuf {
        self.dir.join(device)
    }

    fn shard(&self, device: &str, id: Uuid) -> PathBuf {
        self.folder(device).join(format!("{:02x}", id.as_bytes()[15]))
    }

    fn path(&self, device: &str, id: Uuid) -> PathBuf {
        self.shard(device, id).join(id.to_string())
    }

    /// Writes a payload of `len` bytes to a device, synced but not in place. Blocks.
    pub(super) fn write(
        &self,
        device: &str,
        id: Uuid,
        source: &dyn Source,
        len: u64,
    ) -> io::Result<PendingCopy> {
        let tmp = self.folder(device).join("tmp");
        durable_dir(&tmp)?;
        let path = tmp.join(format!("{id}.{}", self.number.fetch_add(1, Ordering::Relaxed)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let copy = PendingCopy { device: device.to_owned(), path, placed: false };
        for number in 0..blocks(len) {
            let bytes = source.read(number * BLOCK as u64, block_len(len, number))?;
            file.write_all(&bytes)?;
            file.write_all(&sum(id, number, &bytes))?;
        }
        file.sync_data()?;
        Ok(copy)
    }

    /// Renames a copy into place; returns the directory to sync.
    pub(super) fn place(&self, id: Uuid, mut copy: PendingCopy) -> io::Result<PathBuf> {
        let shard = self.shard(&copy.device, id);
        durable_dir(&shard)?;
        std::fs::rename(&copy.path, self.path(&copy.device, id))?;
        copy.placed = true;
        Ok(shard)
    }

    /// Writes a payload that has arrived to a device, and puts it in place. Blocks.
    pub(super) fn copy(&self, device: &str, id: Uuid, received: &Received) -> io::Result<PathBuf> {
        let copy = match received {
            Received::Bytes(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                self.write(device, id, &bytes, received.len())
            }
            Received::File(pending) => self.write(device, id, &pending.open()?, received.len()),
        };
        self.place(id, copy?)
    }

    /// One block of a device's copy, if it is right.
    fn block(&self, device: &str, id: Uuid, len: u64, number: u64) -> io::Result<Bytes> {
        let file = File::open(self.path(device, id))?;
        if file.metadata()?.len() != len + blocks(len) * SUM as u64 {
            return Err(damaged("a copy has the wrong length"));
        }
        let want = block_len(len, number);
        let mut bytes = vec![0; want + SUM];
        file.read_exact_at(&mut bytes, number * (BLOCK + SUM) as u64)?;
        let found = bytes.split_off(want);
        if found != sum(id, number, &bytes) {
            return Err(damaged("a copy is damaged"));
        }
        Ok(Bytes::from(bytes))
    }

    /// Says once that a device did not do its part.
    pub(super) fn suspect(&self, device: &str, error: &io::Error) {
        if self.suspects.lock().insert(device.to_owned()) {
            tracing::warn!(device, %error, "a storage device fails; the others go on");
        }
    }

    /// The device has everything again.
    pub(super) fn trust(&self, device: &str) {
        self.suspects.lock().remove(device);
    }

    /// Notes that a payload is committed without its copy on one of the devices.
    pub(super) fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many copies were missed so far.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Removes copies whose payload is gone, off the calling thread.
    pub(super) fn unlink(&self, copies: Vec<(Uuid, Vec<String>)>) {
        if copies.is_empty() {
            return;
        }
        let of = |(id, devices): (Uuid, Vec<String>)| {
            devices.into_iter().map(move |device| self.path(&device, id)).collect::<Vec<_>>()
        };
        let paths: Vec<PathBuf> = copies.into_iter().flat_map(of).collect();
        self.runtime.spawn_blocking(move || {
            for path in paths {
                if let Err(error) = remove(&path) {
                    tracing::warn!(%error, "a deleted payload's copy stays until it is swept");
                }
            }
        });
    }

    /// Removes one copy, where its payload may just have been deleted.
    pub(super) fn unlink_one(&self, device: &str, id: Uuid) -> io::Result<()> {
        remove(&self.path(device, id))
    }

    /// Removes a device's copies of payloads that nothing names. May run beside uploads.
    pub(super) fn sweep(
        &self,
        device: &str,
        db: &Db,
        files: &Files,
    ) -> Result<usize, StorageError> {
        let mut removed = 0;
        for shard in 0..=u8::MAX {
            let entries = match std::fs::read_dir(self.folder(device).join(format!("{shard:02x}")))
            {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| Uuid::parse_str(name).ok());
                let known = id.map(|id| is_known(db, files, id)).transpose()?;
                if known != Some(true) {
                    remove(&entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// Whether a payload is committed, or about to be.
pub(super) fn is_known(db: &Db, files: &Files, id: Uuid) -> Result<bool, StorageError> {
    // The set is asked first: an id leaves it only after its commit.
    let mut known = files.is_in_flight(id);
    for space in [Space::Held, Space::Files, Space::Payloads] {
        known = known || db.raw(space, id.as_bytes())?.is_some();
    }
    Ok(known)
}

/// A synced copy that is not in place; removed if dropped before.
#[derive(Debug)]
pub(super) struct PendingCopy {
    pub(super) device: String,
    path: PathBuf,
    placed: bool,
}

impl Drop for PendingCopy {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(%error, "an abandoned copy stays until the next start");
        }
    }
}

/// A payload to read from its holders, block by block from whichever has it.
pub(super) struct Copies {
    db: Arc<Db>,
    files: Arc<Files>,
    replicas: Arc<Replicas>,
    payload: Payload,
    holders: Holders,
    /// The holder that served last.
    turn: AtomicUsize,
}

impl Copies {
    /// A payload as `holders` have it.
    pub(super) fn new(
        db: &Arc<Db>,
        files: &Arc<Files>,
        replicas: &Arc<Replicas>,
        payload: Payload,
        holders: Holders,
    ) -> Self {
        let (db, files, replicas) = (Arc::clone(db), Arc::clone(files), Arc::clone(replicas));
        Self { db, files, replicas, payload, holders, turn: AtomicUsize::new(0) }
    }

    /// Whether the first block can be read. Blocks.
    pub(super) fn is_there(&self) -> bool {
        self.read(0, block_len(self.payload.len, 0)).is_ok()
    }

    /// Whether all of it can be read. Blocks for as long as that takes.
    pub(super) fn is_whole(&self) -> bool {
        let Payload { len, .. } = self.payload;
        (0..blocks(len)).all(|n| self.read(n * BLOCK as u64, block_len(len, n)).is_ok())
    }

    fn engine_block(&self, at: u64, want: usize) -> io::Result<Bytes> {
        let Payload { id, place, .. } = self.payload;
        match place {
            Place::Record => {
                let bytes = self.db.raw(Space::Payloads, id.as_bytes());
                let bytes = bytes.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
                Bytes::copy_from_slice(&bytes).read(at, want)
            }
            Place::File => self.files.read(id)?.read(at, want),
            Place::Devices => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Source for Copies {
    /// Reads of one whole block, at its beginning.
    fn read(&self, at: u64, want: usize) -> io::Result<Bytes> {
        let Payload { id, len, .. } = self.payload;
        let devices = &self.holders.devices;
        let first = self.turn.load(Ordering::Relaxed);
        for turn in 0..devices.len() {
            let turn = (first + turn) % devices.len();
            match self.replicas.block(&devices[turn], id, len, at / BLOCK as u64) {
                Ok(bytes) => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return Ok(bytes);
                }
                Err(error) => self.replicas.suspect(&devices[turn], &error),
            }
        }
        let nobody = || io::Error::new(io::ErrorKind::NotFound, "no storage device has it");
        match self.holders.engine {
            true => self.engine_block(at, want).map_err(|_| nobody()),
            false => Err(nobody()),
        }
    }
}

/// An empty payload has one block, so that its copy proves itself too.
fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK as u64).max(1)
}

fn block_len(len: u64, number: u64) -> usize {
    let left = len.saturating_sub(number * BLOCK as u64);
    usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)
}

fn sum(id: Uuid, number: u64, bytes: &[u8]) -> [u8; SUM] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(id.as_bytes());
    context.update(&number.to_be_bytes());
    context.update(bytes);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&context.finish().as_ref()[..SUM]);
    sum
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Makes a directory and those above it where they are missing, with durable names.
fn durable_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable_dir(dir.parent().ok_or(io::ErrorKind::NotFound)?)?;
            durable_dir(dir)
        }
        Err(error) => Err(error),
        Ok(()) => sync_dir(dir.parent().ok_or(io::ErrorKind::NotFound)?),
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        entries => entries?.try_for_each(|entry| remove(&entry?.path())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "device";

    fn written(len: usize) -> (tempfile::TempDir, Replicas, Uuid, Bytes) {
        let dir = tempfile::tempdir().unwrap();
        let replicas = Replicas::open(dir.path().join("devices")).unwrap();
        let id = Uuid::from_u128(7);
        let bytes: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
        let copy = replicas.write(DEVICE, id, &bytes, len as u64).unwrap();
        replicas.place(id, copy).unwrap();
        (dir, replicas, id, bytes)
    }

    fn read(replicas: &Replicas, id: Uuid, len: usize) -> io::Result<Vec<u8>> {
        let len = len as u64;
        let pieces = (0..blocks(len)).map(|number| replicas.block(DEVICE, id, len, number));
        Ok(pieces.collect::<io::Result<Vec<_>>>()?.concat())
    }

    #[tokio::test]
    async fn a_copy_reads_back_at_every_length() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let (_dir, replicas, id, bytes) = written(len);
            assert!(read(&replicas, id, len).unwrap() == bytes, "{len}");
        }
    }

    #[tokio::test]
    async fn whatever_is_changed_is_found() {
        let len = BLOCK + 100;
        let (_dir, replicas, id, _) = written(len);
        let path = replicas.path(DEVICE, id);
        let good = std::fs::read(&path).unwrap();
        for at in [0, BLOCK - 1, BLOCK, BLOCK + SUM, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(read(&replicas, id, len).is_err(), "{at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(read(&replicas, id, len).is_err());
        std::fs::write(&path, &good).unwrap();
        assert!(read(&replicas, id, len).is_ok());
        // Another payload's copy under this one's name.
        let other = Uuid::from_u128(7 | 1 << 64);
        std::fs::rename(&path, replicas.path(DEVICE, other)).unwrap();
        assert!(read(&replicas, other, len).is_err());
    }

    #[tokio::test]
    async fn what_is_not_in_place_goes() {
        let (dir, replicas, id, bytes) = written(10);
        let tmp = replicas.folder(DEVICE).join("tmp");
        let waiting = || std::fs::read_dir(&tmp).unwrap().count();
        let copy = replicas.write(DEVICE, id, &bytes, 10).unwrap();
        assert_eq!(waiting(), 1);
        drop(copy);
        assert_eq!(waiting(), 0);
        std::mem::forget(replicas.write(DEVICE, id, &bytes, 10).unwrap());
        let again = Replicas::open(dir.path().join("devices")).unwrap();
        assert_eq!(waiting(), 0);
        assert!(read(&again, id, 10).unwrap() == bytes);
    }
}
