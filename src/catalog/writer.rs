//! What a machine writes with: its number, its clock, its counter of inodes.

use super::hlc::Hlc;
use super::keys;
use crate::db::{Batch, Db, DbError, DbResult};
use crate::env::Env;

/// Of the records in the local database: another number for each change of one.
pub(super) const FORMAT: u32 = 4;

/// Numbers reserved per write of the bookkeeping record.
const NUMBER_BLOCK: u64 = 4096;

/// How far the clock may run ahead of what is recorded, in milliseconds.
const CLOCK_BLOCK_MS: u64 = 60_000;

/// What this machine writes with: clock and numbers. Guarded by the tree's lock.
#[derive(Debug)]
pub struct Writer {
    pub(super) clock: Hlc,
    pub(super) next: u64,
    reserved: u64,
    clock_ceiling: u64,
    pub(super) garbage: u64,
}

/// The recorded part of [`Writer`].
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct WriterRecord {
    writer: u32,
    next: u64,
    clock_ceiling: u64,
}

impl Writer {
    /// The recorded writer, or a new one; and whether it is new.
    pub(super) fn load(db: &Db, env: &Env) -> DbResult<(Self, bool)> {
        let record: Option<WriterRecord> = db.load(&keys::meta("writer"))?;
        let fresh = record.is_none();
        let record = record.unwrap_or_else(|| {
            let writer = (env.random_u64() as u32) & 0x7f_ffff;
            // The writer's number in the upper bits keeps two machines' inodes apart.
            let first = (u64::from(writer) << 40) | 0x100;
            WriterRecord { writer, next: first, clock_ceiling: 0 }
        });
        let writer = Self {
            clock: Hlc::new(record.writer, record.clock_ceiling),
            next: record.next,
            reserved: record.next,
            clock_ceiling: record.clock_ceiling,
            garbage: 0,
        };
        Ok((writer, fresh))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Records numbers and clock far enough ahead that a crash repeats none.
    pub(super) fn reserve(&mut self, batch: &mut Batch<'_>) {
        if self.next < self.reserved && self.clock.last() < self.clock_ceiling {
            return;
        }
        self.reserved = self.next + NUMBER_BLOCK;
        self.clock_ceiling = self.clock.last() + (CLOCK_BLOCK_MS << 16);
        let record = WriterRecord {
            writer: self.clock.writer(),
            next: self.reserved,
            clock_ceiling: self.clock_ceiling,
        };
        batch.store(&keys::meta("writer"), &record);
    }
}

/// Refuses a database whose records this version would misread.
pub(super) fn check_format(db: &Db, fresh: bool) -> DbResult<()> {
    let key = keys::meta("format");
    if fresh {
        let mut batch = db.batch();
        batch.store(&key, &FORMAT);
        return batch.commit();
    }
    match db.load::<u32>(&key)?.unwrap_or(1) {
        FORMAT => Ok(()),
        found => Err(DbError::Format { found, read: FORMAT }),
    }
}
