//! Payload files: written aside, synced, renamed into place; read in large pieces.
//!
//! `payloads/tmp/<id>` while a payload arrives, `payloads/<xx>/<id>` once it is complete,
//! `xx` being the last two digits of the id. Whatever is in `tmp` at start is half
//! written and goes; a file in place that no record names goes too (see `commit.rs`).
//! Both directions hold a few pieces in memory whatever the payload's size.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::commit::Received;
use super::db::{Db, Records, Space, StorageError};

/// Bytes collected before one write.
const WRITE_PIECE: usize = 512 << 10;
/// Bytes that a stream reads at a time.
pub(super) const READ_PIECE: usize = 512 << 10;
const SHARDS: u8 = u8::MAX;

/// The directory of payload files.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    runtime: Handle,
    /// Renamed into place, its record not yet committed: the sweep must leave it.
    in_flight: Mutex<HashSet<Uuid>>,
}

impl Files {
    /// Makes the directories where missing and removes half-written files.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        private_dir(&dir)?;
        let files = Self { dir, runtime: Handle::current(), in_flight: Mutex::new(HashSet::new()) };
        private_dir(&files.incoming_dir())?;
        for shard in 0..=SHARDS {
            private_dir(&files.dir.join(format!("{shard:02x}")))?;
        }
        sync_dir(&files.dir)?;
        for entry in std::fs::read_dir(files.incoming_dir())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(files)
    }

    fn incoming_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn shard(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{:02x}", id.as_bytes()[15]))
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.shard(id).join(id.to_string())
    }

    /// Starts to receive a payload; up to `inline` bytes of it stay in memory.
    pub(super) fn incoming(&self, id: Uuid, inline: usize) -> Incoming {
        Incoming {
            path: self.incoming_dir().join(id.to_string()),
            inline,
            waiting: Vec::new(),
            waiting_len: 0,
            len: 0,
            file: None,
            writing: None,
        }
    }

    /// Takes a whole payload from `source`: as bytes up to `inline` of them, else as a
    /// synced file. Blocks.
    pub(super) fn take(
        &self,
        id: Uuid,
        inline: usize,
        source: &dyn Source,
        len: u64,
    ) -> io::Result<Received> {
        let piece = |at: u64| source.read(at, piece_len(len, at));
        if len <= inline as u64 {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < len {
                bytes.extend_from_slice(&piece(bytes.len() as u64)?);
            }
            return Ok(Received::Bytes(bytes));
        }
        let path = self.incoming_dir().join(id.to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut pending = PendingFile { path, len: 0, synced: true, placed: false };
        while pending.len < len {
            let bytes = piece(pending.len)?;
            file.write_all(&bytes)?;
            pending.len += bytes.len() as u64;
        }
        sync_and_let_go(&file)?;
        Ok(Received::File(pending))
    }

    /// A payload's file or copies may be in place from now on, its record not yet.
    pub(super) fn claim(&self, id: Uuid) {
        self.in_flight.lock().insert(id);
    }

    /// Whether a payload is claimed and not yet settled.
    pub(super) fn is_in_flight(&self, id: Uuid) -> bool {
        self.in_flight.lock().contains(&id)
    }

    /// Renames a finished file into place; returns the directory to sync.
    pub(super) fn place(&self, id: Uuid, mut pending: PendingFile) -> io::Result<PathBuf> {
        self.claim(id);
        if !pending.synced {
            File::open(&pending.path)?.sync_data()?;
        }
        std::fs::rename(&pending.path, self.path(id))?;
        pending.placed = true;
        Ok(self.shard(id))
    }

    /// The records of these files have been committed, or never will be.
    pub(super) fn settled(&self, ids: &[Uuid]) {
        if !ids.is_empty() {
            let mut in_flight = self.in_flight.lock();
            ids.iter().for_each(|id| {
                in_flight.remove(id);
            });
        }
    }

    /// Removes files whose records are gone, off the calling thread.
    pub(super) fn unlink(&self, ids: Vec<Uuid>) {
        if ids.is_empty() {
            return;
        }
        let paths: Vec<PathBuf> = ids.into_iter().map(|id| self.path(id)).collect();
        self.runtime.spawn_blocking(move || {
            for path in paths {
                if let Err(error) = remove(&path) {
                    tracing::warn!(%error, "a deleted payload's file stays until the next start");
                }
            }
        });
    }

    /// Opens a payload for reading.
    pub(super) fn read(&self, id: Uuid) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Removes files in place that no record names. May run beside uploads.
    pub(super) fn sweep(&self, db: &Db) -> Result<usize, StorageError> {
        let mut removed = 0;
        for shard in 0..=SHARDS {
            for entry in std::fs::read_dir(self.dir.join(format!("{shard:02x}")))? {
                let entry = entry?;
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| Uuid::parse_str(name).ok());
                if !self.is_known(db, id)? {
                    remove(&entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// The set is asked before the database: an id leaves it only after its commit.
    fn is_known(&self, db: &Db, id: Option<Uuid>) -> Result<bool, StorageError> {
        let Some(id) = id else { return Ok(false) };
        let in_flight = self.in_flight.lock().contains(&id);
        Ok(in_flight || db.raw(Space::Files, id.as_bytes())?.is_some())
    }
}

/// A complete file that waits for its commit; removed if dropped before.
#[derive(Debug)]
pub(super) struct PendingFile {
    path: PathBuf,
    len: u64,
    /// Whether its data is; one that storage devices copy is not.
    synced: bool,
    placed: bool,
}

impl PendingFile {
    /// Opens it for reading, for as long as it is not in place.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, "an abandoned upload's file stays until the next start");
        }
    }
}

/// A payload on its way in: one piece is written while the next collects.
pub(super) struct Incoming {
    path: PathBuf,
    inline: usize,
    waiting: Vec<Bytes>,
    waiting_len: usize,
    len: u64,
    file: Option<(Arc<File>, PendingFile)>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Incoming {
    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Takes the next bytes.
    pub(super) async fn push(&mut self, chunk: Bytes) -> io::Result<()> {
        self.len += chunk.len() as u64;
        self.waiting_len += chunk.len();
        self.waiting.push(chunk);
        let limit = if self.file.is_some() { WRITE_PIECE } else { self.inline.max(WRITE_PIECE) };
        if self.waiting_len >= limit { self.write_out().await } else { Ok(()) }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        self.written().await?;
        let file = match &self.file {
            Some((file, _)) => Arc::clone(file),
            None => self.create()?,
        };
        let pieces = std::mem::take(&mut self.waiting);
        self.waiting_len = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || write_all(&file, &pieces)));
        Ok(())
    }

    fn create(&mut self) -> io::Result<Arc<File>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        let file = Arc::new(file);
        let pending = PendingFile { path: self.path.clone(), len: 0, synced: false, placed: false };
        self.file = Some((Arc::clone(&file), pending));
        Ok(file)
    }

    async fn written(&mut self) -> io::Result<()> {
        match self.writing.take() {
            Some(task) => task.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    /// Ends the payload: small ones as bytes, others with their file's data synced, if it is
    /// to be kept rather than copied.
    pub(super) async fn finish(mut self, keep: bool) -> io::Result<Received> {
        if self.file.is_none() && self.len <= self.inline as u64 {
            return Ok(Received::Bytes(self.waiting.concat()));
        }
        self.write_out().await?;
        self.written().await?;
        let Some((file, mut pending)) = self.file.take() else {
            return Err(io::Error::other("no file to finish"));
        };
        pending.len = self.len;
        if !keep {
            return Ok(Received::File(pending));
        }
        pending.synced = true;
        tokio::task::spawn_blocking(move || sync_and_let_go(&file))
            .await
            .map_err(io::Error::other)??;
        Ok(Received::File(pending))
    }
}

/// Syncs a file, and lets the kernel drop its pages: an upload is seldom read back soon, and
/// memory that is used again costs less than memory that is new.
fn sync_and_let_go(file: &File) -> io::Result<()> {
    file.sync_data()?;
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "pages of a payload file stay in memory");
    }
    Ok(())
}

fn write_all(mut file: &File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

type Reading = JoinHandle<io::Result<Bytes>>;

/// Something that a payload's bytes can be read from.
pub(super) trait Source: Send + Sync + 'static {
    /// Reads exactly `want` bytes at an offset, which is a multiple of [`READ_PIECE`]. Blocks.
    fn read(&self, at: u64, want: usize) -> io::Result<Bytes>;
}

impl Source for File {
    fn read(&self, at: u64, want: usize) -> io::Result<Bytes> {
        let mut piece = vec![0; want];
        self.read_exact_at(&mut piece, at)?;
        Ok(Bytes::from(piece))
    }
}

impl Source for Bytes {
    fn read(&self, at: u64, want: usize) -> io::Result<Bytes> {
        let at = usize::try_from(at).ok();
        let range = at.and_then(|at| Some(at..at.checked_add(want)?));
        let range = range.filter(|range| range.end <= self.len());
        range.map(|range| self.slice(range)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// How much to read at an offset of a payload.
fn piece_len(len: u64, at: u64) -> usize {
    usize::try_from(len - at).unwrap_or(usize::MAX).min(READ_PIECE)
}

/// The bytes of a payload in pieces, the next one read while one is sent.
pub(super) fn read_stream(
    source: impl Source,
    len: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let source = Arc::new(source);
    let next = start_read(&source, 0, len);
    futures_util::stream::unfold((source, 0, next), move |(source, at, next)| async move {
        let piece = match next?.await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Some((Err(error), (source, len, None))),
            Err(error) => return Some((Err(io::Error::other(error)), (source, len, None))),
        };
        let at = at + piece.len() as u64;
        let next = start_read(&source, at, len);
        Some((Ok(piece), (source, at, next)))
    })
}

fn start_read(source: &Arc<impl Source>, at: u64, len: u64) -> Option<Reading> {
    let want = piece_len(len, at);
    let source = Arc::clone(source);
    (want > 0).then(|| tokio::task::spawn_blocking(move || source.read(at, want)))
}

/// Removes a file that another thread may just have removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner may enter, if it is not there.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
