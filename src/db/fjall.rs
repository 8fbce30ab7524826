//! The backend that ships: fjall, whose write-ahead log is the drive's local journal.

use std::ops::Bound;
use std::path::Path;

use fjall::config::PartitioningPolicy;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::backend::{Backend, Change, Each, Reader};
use super::{DbResult, Space};

/// Memory for blocks read from disk. A million files' inodes are about 200 MB on disk;
/// this keeps the hot few per cent.
const CACHE_BYTES: u64 = 16 << 20;

/// Memory of one keyspace's write buffer; there are two.
pub(super) const MEMTABLE_BYTES: u64 = 8 << 20;

/// A database of two keyspaces.
pub(super) struct Fjall {
    database: Database,
    spaces: Spaces,
}

#[derive(Clone)]
struct Spaces {
    meta: Keyspace,
    data: Keyspace,
}

impl Spaces {
    fn of(&self, space: Space) -> &Keyspace {
        match space {
            Space::Meta => &self.meta,
            Space::Data => &self.data,
        }
    }
}

impl Fjall {
    /// Opens or makes the database in `dir`.
    pub(super) fn open(dir: &Path) -> DbResult<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).worker_threads(2).open()?;
        // Filters and indexes in blocks of a page, which stay in a small cache.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let meta = database.keyspace("meta", options)?;
        let data = database.keyspace("data", options)?;
        Ok(Self { database, spaces: Spaces { meta, data } })
    }
}

fn each_of(pairs: impl Iterator<Item = Guard>, each: Each<'_>) -> DbResult<()> {
    for guard in pairs {
        let (key, value) = guard.into_inner()?;
        if !each(&key, &value)? {
            break;
        }
    }
    Ok(())
}

impl Reader for Fjall {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        match self.spaces.of(space).get(key)? {
            Some(value) => with(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        Ok(self.spaces.of(space).contains_key(key)?)
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        each_of(self.spaces.meta.range((Bound::Included(from.to_vec()), end)), each)
    }
}

impl Backend for Fjall {
    fn snapshot(&self) -> Box<dyn Reader> {
        Box::new(Moment { snapshot: self.database.snapshot(), spaces: self.spaces.clone() })
    }

    fn commit(&self, changes: Vec<Change>) -> DbResult<()> {
        let mut batch = self.database.batch();
        for Change { space, key, value } in changes {
            match value {
                Some(value) => batch.insert(self.spaces.of(space), key, value),
                None => batch.remove(self.spaces.of(space), key),
            }
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> DbResult<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn write_buffer(&self) -> u64 {
        self.database.write_buffer_size()
    }

    fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

/// A snapshot with the keyspaces that it is read by.
struct Moment {
    snapshot: Snapshot,
    spaces: Spaces,
}

impl Reader for Moment {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        match self.snapshot.get(self.spaces.of(space), key)? {
            Some(value) => with(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        Ok(self.snapshot.contains_key(self.spaces.of(space), key)?)
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        each_of(self.snapshot.range(&self.spaces.meta, (Bound::Included(from.to_vec()), end)), each)
    }
}
