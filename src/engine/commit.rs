//! Group commit: one thread owns all writing.
//!
//! A mutation is a closure that reads and writes through a [`Tx`]. The committer runs
//! every mutation that waits, each seeing what those before it wrote, moves finished
//! payload files to their places, syncs the directories, and then writes one batch with
//! one sync of the journal. Only then are the callers told, so whatever is acknowledged
//! survives a power cut, and a thousand small tokens cost a handful of syncs.
//!
//! Mutations are serial: a check and the write that depends on it need no lock. A
//! mutation that returns an error leaves nothing behind.
//!
//! Crash consistency: a file is renamed before the batch that names it, so a crash
//! between leaves a file without a record, which the sweep at start removes; a deleted
//! payload's file goes after the batch, so a crash between leaves the same. Copies on
//! storage devices are treated alike (see `replicas.rs`), except that one device that fails
//! does not fail the commit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use fjall::{PersistMode, Slice};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::db::{Db, Records, Space, StorageError};
use super::listing::Listings;
use super::payload::{Files, PendingFile};
use super::pools::News;
use super::records::{Payload, Place, Totals, encode};
use super::replicas::{Holders, PendingCopy, Replicas};
use crate::env::Env;

/// Most mutations and bytes in one group: bounds memory and the wait of the first.
const GROUP_JOBS: usize = 4_096;
const GROUP_BYTES: usize = 8 << 20;

const TOTALS: &[u8] = b"totals";

/// Whether a mutation must survive a power cut, or only the death of the process; the
/// stricter is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Durability {
    /// Reservations and rejections: losing one costs a retry.
    Process,
    /// Everything that is acknowledged as kept.
    Machine,
}

type Key = (Space, Vec<u8>);
type Release = Box<dyn FnOnce(bool) + Send>;
type Mutation = Box<dyn FnOnce(&mut Tx<'_>) -> Release + Send>;

enum Job {
    Run(Durability, Mutation),
    Stop,
}

/// What the mutations of one group have written so far.
pub(super) struct Tx<'a> {
    db: &'a Db,
    files: &'a Files,
    replicas: &'a Replicas,
    /// Wall time of the group, in milliseconds since the epoch.
    pub(super) now: u64,
    group: HashMap<Key, Option<Slice>>,
    local: HashMap<Key, Option<Slice>>,
    totals: Totals,
    local_totals: Totals,
    effects: Effects,
    local_effects: Effects,
    bytes: usize,
}

/// What follows from a commit besides its records.
#[derive(Debug, Default)]
struct Effects {
    dirs: BTreeSet<PathBuf>,
    placed: Vec<Uuid>,
    removed_files: Vec<Uuid>,
    copied: Vec<Copied>,
    removed_copies: Vec<(Uuid, Vec<String>)>,
    removed_bytes: u64,
    listed: Vec<(Uuid, u64)>,
    unlisted: Vec<(Uuid, u64)>,
    news: Vec<News>,
}

/// A payload's copies that were put in place.
#[derive(Debug)]
struct Copied {
    /// Each device and the directory there to sync.
    dirs: Vec<(String, PathBuf)>,
    /// Whether the engine has the payload too.
    kept: bool,
}

impl Effects {
    fn absorb(&mut self, other: Self) {
        self.dirs.extend(other.dirs);
        self.placed.extend(other.placed);
        self.removed_files.extend(other.removed_files);
        self.copied.extend(other.copied);
        self.removed_copies.extend(other.removed_copies);
        self.removed_bytes += other.removed_bytes;
        self.listed.extend(other.listed);
        self.unlisted.extend(other.unlisted);
        self.news.extend(other.news);
    }
}

impl Records for Tx<'_> {
    fn raw(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StorageError> {
        let owned = (space, key.to_vec());
        match self.local.get(&owned).or_else(|| self.group.get(&owned)) {
            Some(value) => Ok(value.clone()),
            None => self.db.raw(space, key),
        }
    }
}

impl Tx<'_> {
    /// Writes a record.
    pub(super) fn put<T: Serialize>(
        &mut self,
        space: Space,
        key: &[u8],
        value: &T,
    ) -> Result<(), StorageError> {
        let bytes = encode(value)?;
        self.put_raw(space, key, Slice::from(bytes));
        Ok(())
    }

    /// Writes bytes as they are.
    pub(super) fn put_raw(&mut self, space: Space, key: &[u8], value: Slice) {
        self.bytes += key.len() + value.len();
        self.local.insert((space, key.to_vec()), Some(value));
    }

    /// Removes a record, present or not.
    pub(super) fn remove(&mut self, space: Space, key: &[u8]) {
        self.local.insert((space, key.to_vec()), None);
    }

    /// The next number in the order of promotion.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.local_totals.sequence += 1;
        self.local_totals.sequence
    }

    /// Notes that a permanent token came into being.
    pub(super) fn listed(&mut self, profile: Uuid, sequence: u64) {
        self.local_totals.tokens += 1;
        self.local_effects.listed.push((profile, sequence));
    }

    /// Notes that a permanent token is gone.
    pub(super) fn unlisted(&mut self, profile: Uuid, sequence: u64) {
        self.local_totals.tokens = self.local_totals.tokens.saturating_sub(1);
        self.local_effects.unlisted.push((profile, sequence));
    }

    /// Has something told once it is committed.
    pub(super) fn tell(&mut self, news: News) {
        self.local_effects.news.push(news);
    }

    /// Takes a received payload to where `holders` keep it. Call last, after every check.
    pub(super) fn keep(
        &mut self,
        holders: &Holders,
        id: Uuid,
        arrival: Arrival,
    ) -> Result<Payload, StorageError> {
        let Arrival { received, copies } = arrival;
        if holders.devices.is_empty() {
            return self.keep_here(id, received);
        }
        self.files.claim(id);
        self.local_effects.placed.push(id);
        let dirs = self.place_copies(&holders.devices, id, &received, copies);
        if dirs.len() < holders.devices.len() {
            self.replicas.miss();
        }
        let nowhere = dirs.is_empty() && !holders.engine;
        self.local_effects.copied.push(Copied { dirs, kept: holders.engine });
        if nowhere {
            self.files.settled(&[id]);
            let why = "no storage device took the payload";
            return Err(StorageError::File(std::io::Error::other(why)));
        }
        if holders.engine {
            return self.keep_here(id, received);
        }
        self.put_raw(Space::Held, id.as_bytes(), Slice::from(Vec::new()));
        Ok(Payload { id, len: received.len(), place: Place::Devices })
    }

    /// Puts copies in place, and makes those of devices that came while the payload did.
    fn place_copies(
        &self,
        devices: &[String],
        id: Uuid,
        received: &Received,
        mut copies: Vec<PendingCopy>,
    ) -> Vec<(String, PathBuf)> {
        let mut dirs = Vec::new();
        for device in devices {
            let ready = copies.iter().position(|copy| copy.device == *device);
            let placed = match ready.map(|at| copies.swap_remove(at)) {
                Some(copy) => self.replicas.place(id, copy),
                None => self.replicas.copy(device, id, received),
            };
            match placed {
                Ok(dir) => dirs.push((device.clone(), dir)),
                Err(error) => self.replicas.suspect(device, &error),
            }
        }
        dirs
    }

    /// Takes a payload that storage devices have into the engine's own store again; its old
    /// place there, if it had one, is forgotten.
    pub(super) fn take_back(
        &mut self,
        old: Payload,
        received: Received,
    ) -> Result<Payload, StorageError> {
        for space in [Space::Payloads, Space::Files, Space::Held] {
            self.remove(space, old.id.as_bytes());
        }
        self.keep_here(old.id, received)
    }

    /// Takes a payload into the engine's own store: its bytes, or its finished file.
    fn keep_here(&mut self, id: Uuid, received: Received) -> Result<Payload, StorageError> {
        match received {
            Received::Bytes(bytes) => {
                let len = bytes.len() as u64;
                self.put_raw(Space::Payloads, id.as_bytes(), Slice::from(bytes));
                Ok(Payload { id, len, place: Place::Record })
            }
            Received::File(pending) => {
                let len = pending.len();
                self.local_effects.dirs.insert(self.files.place(id, pending)?);
                self.local_effects.placed.push(id);
                self.put_raw(Space::Files, id.as_bytes(), Slice::from(Vec::new()));
                Ok(Payload { id, len, place: Place::File })
            }
        }
    }

    /// Lets go of a payload; files and copies are unlinked after the commit.
    pub(super) fn discard(&mut self, profile: Uuid, payload: Payload) -> Result<(), StorageError> {
        if self.replicas.in_use() {
            let Holders { devices, .. } = Holders::of(self, profile)?;
            self.local_effects.removed_copies.push((payload.id, devices));
        }
        match payload.place {
            Place::Record => {
                self.remove(Space::Payloads, payload.id.as_bytes());
                self.local_effects.removed_bytes += payload.len;
            }
            Place::File => {
                self.remove(Space::Files, payload.id.as_bytes());
                self.local_effects.removed_files.push(payload.id);
            }
            Place::Devices => self.remove(Space::Held, payload.id.as_bytes()),
        }
        Ok(())
    }

    /// Who has the storage role is about to change.
    pub(super) fn use_devices(&self) {
        self.replicas.use_devices();
    }

    /// How many copies storage devices have missed so far.
    pub(super) fn missed(&self) -> u64 {
        self.replicas.missed()
    }

    /// Runs `step`; if it fails, everything it wrote is forgotten.
    pub(super) fn attempt<T, E>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let outcome = step(self);
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    fn forget(&mut self) {
        self.local.clear();
        self.local_totals = self.totals;
        self.local_effects = Effects::default();
    }

    fn absorb(&mut self) {
        self.group.extend(self.local.drain());
        self.totals = self.local_totals;
        self.effects.absorb(std::mem::take(&mut self.local_effects));
    }
}

/// A payload as it arrived.
#[derive(Debug)]
pub(super) enum Received {
    /// Small: goes into the database.
    Bytes(Vec<u8>),
    /// Large: already synced in a file of its own.
    File(PendingFile),
}

impl Received {
    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(pending) => pending.len(),
        }
    }
}

/// A payload with the copies that storage devices have taken.
#[derive(Debug)]
pub(super) struct Arrival {
    pub received: Received,
    pub copies: Vec<PendingCopy>,
}

/// Hands mutations to the committer thread.
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
    gauges: Arc<Gauges>,
}

/// Figures the committer leaves for others.
#[derive(Debug, Default)]
struct Gauges {
    tokens: AtomicU64,
    /// Bytes of small payloads removed since somebody took note.
    removed: AtomicU64,
}

impl Committer {
    /// Runs `step` in the next group and returns its result once that is committed.
    ///
    /// # Errors
    /// The step's own, with nothing written; or [`StorageError`], with nothing promised.
    pub(super) async fn run<T, E>(
        &self,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let (release, released) = oneshot::channel();
        let mutation: Mutation = Box::new(move |tx| {
            let outcome = tx.attempt(step);
            Box::new(move |committed| {
                let outcome = if committed { outcome } else { Err(E::from(StorageError::Stopped)) };
                // A caller that gave up does not want to know.
                let _ = release.send(outcome);
            })
        });
        let sent = self.jobs.send(Job::Run(durability, mutation));
        if sent.is_err() {
            return Err(E::from(StorageError::Stopped));
        }
        released.await.unwrap_or_else(|_| Err(E::from(StorageError::Stopped)))
    }

    /// Runs `step` before whatever is handed in later; nobody waits for it or hears of it.
    pub(super) fn post(
        &self,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<(), StorageError> + Send + 'static,
    ) {
        let mutation: Mutation = Box::new(move |tx| {
            if let Err(error) = tx.attempt(step) {
                tracing::warn!(%error, "a note was not taken");
            }
            Box::new(|_| {})
        });
        // A committer that has stopped takes no notes.
        let _ = self.jobs.send(Job::Run(durability, mutation));
    }

    /// Permanent tokens as of the last commit.
    pub(super) fn tokens(&self) -> u64 {
        self.gauges.tokens.load(Ordering::Relaxed)
    }

    /// Bytes of small payloads removed since the count was last taken; takes it if it has
    /// reached `enough`.
    pub(super) fn take_removed(&self, enough: u64) -> Option<u64> {
        let removed = &self.gauges.removed;
        (removed.load(Ordering::Relaxed) >= enough).then(|| removed.swap(0, Ordering::Relaxed))
    }

    /// Ends the thread after what was handed in before.
    pub(super) fn stop(&self) {
        let _ = self.jobs.send(Job::Stop);
    }
}

/// The committer's own side.
pub(super) struct Writer {
    pub(super) db: Arc<Db>,
    pub(super) files: Arc<Files>,
    pub(super) replicas: Arc<Replicas>,
    pub(super) listings: Arc<Listings>,
    pub(super) env: Env,
    jobs: mpsc::Receiver<Job>,
    totals: Totals,
    gauges: Arc<Gauges>,
    news: UnboundedSender<News>,
}

/// The mutations of a group, run and waiting for its commit.
struct Collected {
    durability: Durability,
    releases: Vec<Release>,
    go_on: bool,
}

impl Writer {
    /// Reads the totals and makes both ends.
    pub(super) fn new(
        db: Arc<Db>,
        files: Arc<Files>,
        replicas: Arc<Replicas>,
        listings: Arc<Listings>,
        env: Env,
        news: UnboundedSender<News>,
    ) -> Result<(Committer, Self), StorageError> {
        let totals: Totals = db.load(Space::Meta, TOTALS)?.unwrap_or_default();
        let tokens = AtomicU64::new(totals.tokens);
        let gauges = Arc::new(Gauges { tokens, ..Gauges::default() });
        let (sender, jobs) = mpsc::channel();
        let committer = Committer { jobs: sender, gauges: Arc::clone(&gauges) };
        Ok((committer, Self { db, files, replicas, listings, env, jobs, totals, gauges, news }))
    }

    /// Commits group after group until told to stop, or until the disk fails.
    pub(super) fn run(mut self) {
        while let Ok(Job::Run(durability, first)) = self.jobs.recv() {
            match self.group(durability, first) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "commit failed; the engine stops writing");
                    break;
                }
            }
        }
    }

    /// One group; `false` if it ended with the order to stop.
    fn group(&mut self, durability: Durability, first: Mutation) -> Result<bool, StorageError> {
        let mut tx = self.begin();
        let collected = Self::collect(&self.jobs, &mut tx, durability, first);
        let Tx { group, totals, effects, .. } = tx;
        let outcome = self.commit(group, totals, &effects, collected.durability);
        if outcome.is_ok() {
            self.totals = totals;
            self.gauges.tokens.store(totals.tokens, Ordering::Relaxed);
            self.gauges.removed.fetch_add(effects.removed_bytes, Ordering::Relaxed);
            self.listings.apply(&effects.listed, &effects.unlisted);
        }
        self.files.settled(&effects.placed);
        for release in collected.releases {
            release(outcome.is_ok());
        }
        outcome?;
        self.files.unlink(effects.removed_files);
        self.replicas.unlink(effects.removed_copies);
        for news in effects.news {
            // Nobody listens any more once the engine stops.
            let _ = self.news.send(news);
        }
        Ok(collected.go_on)
    }

    fn begin(&self) -> Tx<'_> {
        Tx {
            db: &self.db,
            files: &self.files,
            replicas: &self.replicas,
            now: self.env.millis(),
            group: HashMap::new(),
            local: HashMap::new(),
            totals: self.totals,
            local_totals: self.totals,
            effects: Effects::default(),
            local_effects: Effects::default(),
            bytes: 0,
        }
    }

    /// Runs `first` and whatever else waits, up to the limits of a group.
    fn collect(
        jobs: &mpsc::Receiver<Job>,
        tx: &mut Tx<'_>,
        durability: Durability,
        first: Mutation,
    ) -> Collected {
        let mut collected = Collected { durability, releases: vec![first(tx)], go_on: true };
        tx.absorb();
        while collected.releases.len() < GROUP_JOBS && tx.bytes < GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Run(durability, mutation)) => {
                    collected.durability = collected.durability.max(durability);
                    collected.releases.push(mutation(tx));
                    tx.absorb();
                }
                Ok(Job::Stop) => {
                    collected.go_on = false;
                    break;
                }
                Err(_) => break,
            }
        }
        collected
    }

    /// Makes the names of copies durable. A device that fails is left out, unless a payload
    /// would be nowhere then.
    fn sync_copies(&self, copied: &[Copied]) -> Result<(), StorageError> {
        let dirs: HashSet<_> = copied.iter().flat_map(|copied| &copied.dirs).collect();
        let mut failed: HashSet<&PathBuf> = HashSet::new();
        for (device, dir) in dirs {
            if let Err(error) = super::payload::sync_dir(dir) {
                self.replicas.suspect(device, &error);
                self.replicas.miss();
                failed.insert(dir);
            }
        }
        let lost = |copied: &Copied| {
            !copied.kept && copied.dirs.iter().all(|(_, dir)| failed.contains(dir))
        };
        if !failed.is_empty() && copied.iter().any(lost) {
            let why = "no storage device could make a payload durable";
            return Err(StorageError::File(std::io::Error::other(why)));
        }
        Ok(())
    }

    fn commit(
        &self,
        group: HashMap<Key, Option<Slice>>,
        totals: Totals,
        effects: &Effects,
        mode: Durability,
    ) -> Result<(), StorageError> {
        for dir in &effects.dirs {
            super::payload::sync_dir(dir)?;
        }
        self.sync_copies(&effects.copied)?;
        let persist = match mode {
            Durability::Process => PersistMode::Buffer,
            Durability::Machine => PersistMode::SyncData,
        };
        let mut batch = self.db.batch().durability(Some(persist));
        for ((space, key), value) in group {
            match value {
                Some(value) => self.db.put(&mut batch, space, &key, value),
                None => self.db.remove(&mut batch, space, &key),
            }
        }
        if totals != self.totals {
            self.db.put(&mut batch, Space::Meta, TOTALS, encode(&totals)?.into());
        }
        Ok(batch.commit()?)
    }
}
