//! The record store: one fjall database, and reads that see committed data only.
//!
//! Writes go through `commit.rs` alone, which is the only place that makes a batch.

use std::path::Path;

use fjall::config::PartitioningPolicy;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, Readable,
    Slice, Snapshot,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::records::decode;

/// The record store failed. Its text names no record.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The database refused.
    #[error("the engine's database failed: {0}")]
    Database(#[from] fjall::Error),
    /// A record does not decode: damage, or a newer version of this program.
    #[error("a record of the engine's database cannot be read")]
    Record,
    /// The records are of another version of this program.
    #[error("the engine's records have format {found}, this program reads format {wanted}")]
    Format {
        /// The format of the directory.
        found: u32,
        /// The format of this program.
        wanted: u32,
    },
    /// A payload file could not be written or moved.
    #[error("a payload file failed: {0}")]
    File(#[from] std::io::Error),
    /// The committer has stopped, after a failure or at shutdown.
    #[error("the engine is not writing any more")]
    Stopped,
}

/// A family of records with its own keys. The number is the first byte of their keys in
/// the database, so it must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Space {
    /// Single values: secret, format, totals.
    Meta = 0,
    /// Profile id -> profile.
    Profiles = 1,
    /// User name -> profile id.
    Usernames = 2,
    /// Digest of a bearer token -> session.
    Sessions = 3,
    /// Command id -> outcome.
    Commands = 4,
    /// Token string -> token or alias.
    Tokens = 5,
    /// Profile and sequence -> permanent token.
    Order = 6,
    /// Profile, context digest and sequence -> permanent token.
    Contexts = 7,
    /// Expiry and token string -> nothing.
    Expiries = 8,
    /// Payload id -> bytes of a small payload.
    Payloads = 9,
    /// Payload id of each payload file -> nothing.
    Files = 10,
    /// Payload id of each payload that only storage devices have -> nothing.
    Held = 11,
    /// Device identifier -> device.
    Devices = 20,
    /// Profile id -> identifiers of its devices, oldest first.
    ProfileDevices = 21,
    /// Profile id -> its voting configurations and policies.
    Governance = 22,
    /// Pool id -> voting pool.
    Pools = 23,
    /// Profile and pool id -> nothing.
    ProfilePools = 24,
    /// Profile and digest of what is voted on -> id of its last pool.
    Gates = 25,
    /// Time when an open pool ends or a settled one is forgotten, and its id -> nothing.
    PoolTimes = 26,
    /// Application id -> OAuth application.
    OauthApplications = 32,
    /// Owner and application id -> nothing.
    OauthOwned = 33,
    /// Client id -> application id.
    OauthClients = 34,
    /// Command id -> request for an authorization code.
    OauthRequests = 35,
    /// Digest of an authorization code -> what it opens.
    OauthCodes = 36,
    /// Digest of an access token -> the pair it belongs to.
    OauthAccess = 37,
    /// Directory id -> directory.
    Directories = 40,
    /// Directory and profile -> member.
    DirectoryMembers = 41,
    /// Profile and directory -> nothing.
    DirectoriesOf = 42,
    /// Invitation id -> invitation.
    DirectoryInvites = 43,
    /// Directory and profile, and profile and directory -> invitation id.
    DirectoryInvited = 44,
    /// Profile id -> counts of transactions.
    Statistics = 48,
}

// The engine shares a process with a mount whose memory is bounded: small buffers.
const CACHE_BYTES: u64 = 8 << 20;
const RECORD_MEMTABLE_BYTES: u64 = 8 << 20;
const PAYLOAD_MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 64 << 20;
/// Values above this leave the tree, so compaction does not rewrite them.
const SEPARATE_ABOVE: u32 = 1 << 10;

/// The open database: one keyspace for payloads, whose values live outside its tree, and
/// one for everything else, because each keyspace costs syncs at start and a buffer.
pub(super) struct Db {
    database: Database,
    records: Keyspace,
    payloads: Keyspace,
}

impl Db {
    /// Opens or creates the database in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, StorageError> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(2)
            .open()?;
        // Filters and indexes in blocks of a page: a whole one of a large table does not stay
        // in a small cache, and would be read and checked again for every key that is asked.
        let options = || {
            KeyspaceCreateOptions::default()
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let records =
            database.keyspace("records", || options().max_memtable_size(RECORD_MEMTABLE_BYTES))?;
        // Every value file may be collected, not only old ones.
        let separation =
            KvSeparationOptions::default().separation_threshold(SEPARATE_ABOVE).age_cutoff(1.0);
        let payloads = database.keyspace("payloads", || {
            let options = options().max_memtable_size(PAYLOAD_MEMTABLE_BYTES);
            options.with_kv_separation(Some(separation.clone()))
        })?;
        Ok(Self { database, records, payloads })
    }

    /// A batch to commit; see [`Db::put`] and [`Db::remove`].
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    pub(super) fn put(&self, batch: &mut OwnedWriteBatch, space: Space, key: &[u8], value: Slice) {
        batch.insert(self.keyspace(space), tagged(space, key), value);
    }

    pub(super) fn remove(&self, batch: &mut OwnedWriteBatch, space: Space, key: &[u8]) {
        batch.remove(self.keyspace(space), tagged(space, key));
    }

    /// One moment of the whole database, for reads that belong together. Keep it short.
    pub(super) fn view(&self) -> View<'_> {
        View { db: self, snapshot: self.database.snapshot() }
    }

    /// Gives the disk space of removed small payloads back, which the database does by
    /// itself only as more is written. Takes a while; runs beside everything else.
    pub(super) fn reclaim(&self) -> Result<(), StorageError> {
        // The first pass finds what is dead, the second rewrites files that are partly so.
        for _ in 0..2 {
            self.payloads.rotate_memtable_and_wait()?;
            self.payloads.major_compact()?;
        }
        Ok(())
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        if space == Space::Payloads { &self.payloads } else { &self.records }
    }
}

/// A key as the database has it.
fn tagged(space: Space, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(key.len() + 1);
    tagged.push(space as u8);
    tagged.extend_from_slice(key);
    tagged
}

/// A key, without its space, and a value.
pub(super) type Item = (Vec<u8>, Slice);

/// The database as it was at one moment.
pub(super) struct View<'a> {
    db: &'a Db,
    snapshot: Snapshot,
}

impl View<'_> {
    /// Keys and values of a space from a key on, under a prefix, in key order.
    pub(super) fn from(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Item, StorageError>> + use<> {
        let prefix = tagged(space, prefix);
        let range = self.snapshot.range(self.db.keyspace(space), tagged(space, from)..);
        range.map(|guard| Ok(guard.into_inner()?)).map_while(move |item| match item {
            Ok((key, value)) => key.starts_with(&prefix).then(|| Ok((key[1..].to_vec(), value))),
            Err(error) => Some(Err(error)),
        })
    }

    /// How many keys of a space have a prefix.
    pub(super) fn count(&self, space: Space, prefix: &[u8]) -> Result<usize, StorageError> {
        let mut count = 0;
        for guard in self.snapshot.prefix(self.db.keyspace(space), tagged(space, prefix)) {
            guard.key()?;
            count += 1;
        }
        Ok(count)
    }
}

impl Records for View<'_> {
    fn raw(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StorageError> {
        Ok(self.snapshot.get(self.db.keyspace(space), tagged(space, key))?)
    }
}

/// Point reads, from the committed state or from inside a commit.
pub(super) trait Records {
    /// The bytes under a key.
    fn raw(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StorageError>;

    /// The record under a key.
    fn load<T: DeserializeOwned>(
        &self,
        space: Space,
        key: &[u8],
    ) -> Result<Option<T>, StorageError> {
        self.raw(space, key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

impl Records for Db {
    fn raw(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StorageError> {
        Ok(self.keyspace(space).get(tagged(space, key))?)
    }
}
