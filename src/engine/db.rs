//! The record store: keyspaces of one fjall database, reads that see committed data only.
//!
//! Writes go through `commit.rs` alone, which is the only place that makes a batch.

use std::path::Path;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, Readable, Slice, Snapshot,
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
    /// A payload file could not be written or moved.
    #[error("a payload file failed: {0}")]
    File(#[from] std::io::Error),
    /// The committer has stopped, after a failure or at shutdown.
    #[error("the engine is not writing any more")]
    Stopped,
}

/// A family of records with its own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Space {
    /// Single values: secret, engine key, totals.
    Meta,
    /// Profile id -> profile.
    Profiles,
    /// User name -> profile id.
    Usernames,
    /// Digest of a bearer token -> session.
    Sessions,
    /// Command id -> outcome.
    Commands,
    /// Token string -> token or alias.
    Tokens,
    /// Profile and sequence -> permanent token.
    Order,
    /// Profile, context digest and sequence -> permanent token.
    Contexts,
    /// Expiry and token string -> nothing.
    Expiries,
    /// Payload id -> bytes of a small payload.
    Payloads,
    /// Payload id of each payload file -> nothing.
    Files,
}

const SPACES: [(Space, &str); 11] = [
    (Space::Meta, "meta"),
    (Space::Profiles, "profiles"),
    (Space::Usernames, "usernames"),
    (Space::Sessions, "sessions"),
    (Space::Commands, "commands"),
    (Space::Tokens, "tokens"),
    (Space::Order, "order"),
    (Space::Contexts, "contexts"),
    (Space::Expiries, "expiries"),
    (Space::Payloads, "payloads"),
    (Space::Files, "files"),
];

// The engine shares a process with a mount whose memory is bounded: small buffers.
const CACHE_BYTES: u64 = 8 << 20;
const RECORD_MEMTABLE_BYTES: u64 = 8 << 20;
const PAYLOAD_MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 128 << 20;
/// Values above this leave the tree, so compaction does not rewrite them.
const SEPARATE_ABOVE: u32 = 1 << 10;

/// The open database.
pub(super) struct Db {
    database: Database,
    spaces: Vec<Keyspace>,
}

impl Db {
    /// Opens or creates the database in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, StorageError> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(2)
            .open()?;
        let spaces = SPACES
            .iter()
            .map(|(space, name)| database.keyspace(name, || options(*space)))
            .collect::<Result<_, _>>()?;
        Ok(Self { database, spaces })
    }

    pub(super) fn batch(&self) -> fjall::OwnedWriteBatch {
        self.database.batch()
    }

    /// One moment of the whole database, for reads that belong together. Keep it short.
    pub(super) fn view(&self) -> View<'_> {
        View { db: self, snapshot: self.database.snapshot() }
    }

    pub(super) fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }
}

fn options(space: Space) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default();
    if space == Space::Payloads {
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATE_ABOVE);
        options.max_memtable_size(PAYLOAD_MEMTABLE_BYTES).with_kv_separation(Some(separation))
    } else {
        options.max_memtable_size(RECORD_MEMTABLE_BYTES)
    }
}

/// The database as it was at one moment.
pub(super) struct View<'a> {
    db: &'a Db,
    snapshot: Snapshot,
}

impl View<'_> {
    /// Values from a key on, under a prefix, in key order.
    pub(super) fn values_from(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Slice, StorageError>> {
        let prefix = prefix.to_vec();
        let range = self.snapshot.range(self.db.keyspace(space), from.to_vec()..);
        range.map(|guard| Ok(guard.into_inner()?)).map_while(move |item| match item {
            Ok((key, value)) => key.starts_with(&prefix).then_some(Ok(value)),
            Err(error) => Some(Err(error)),
        })
    }

    /// How many keys have a prefix.
    pub(super) fn count(&self, space: Space, prefix: &[u8]) -> Result<usize, StorageError> {
        let mut count = 0;
        for guard in self.snapshot.prefix(self.db.keyspace(space), prefix) {
            guard.key()?;
            count += 1;
        }
        Ok(count)
    }
}

impl Records for View<'_> {
    fn raw(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StorageError> {
        Ok(self.snapshot.get(self.db.keyspace(space), key)?)
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
        Ok(self.keyspace(space).get(key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_listed_in_the_order_of_their_numbers() {
        assert!(SPACES.iter().enumerate().all(|(i, (space, _))| *space as usize == i));
    }
}
