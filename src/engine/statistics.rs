//! Counts of a profile's transactions, in all and by day (C.4.12).
//!
//! A store or a deletion is counted in the commit that carries it out; a retrieval in one
//! without a sync, so a power cut may lose the last of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError};

const DAY_MS: u64 = 86_400_000;
/// Days that are shown, today included.
const DAYS: u64 = 30;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    /// Data was exchanged, uploaded or replaced.
    Store,
    /// A data request was answered.
    Retrieval,
    /// A token was deleted.
    Deletion,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub stores: u64,
    pub retrievals: u64,
    pub deletions: u64,
}

impl Counts {
    fn add(&mut self, transaction: Transaction) {
        match transaction {
            Transaction::Store => self.stores += 1,
            Transaction::Retrieval => self.retrievals += 1,
            Transaction::Deletion => self.deletions += 1,
        }
    }
}

/// A profile's counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Statistics {
    pub total: Counts,
    /// By days since the epoch; those that are not shown any more are let go.
    days: BTreeMap<u64, Counts>,
}

impl Statistics {
    fn add(&mut self, transaction: Transaction, now: u64) {
        let today = now / DAY_MS;
        self.total.add(transaction);
        self.days.entry(today).or_default().add(transaction);
        self.days.retain(|day, _| day + DAYS > today);
    }

    /// The last days on which there was something, oldest first, each with its start in
    /// milliseconds since the epoch.
    pub(super) fn recent(&self, now: u64) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let today = now / DAY_MS;
        let from = (today + 1).saturating_sub(DAYS);
        self.days.range(from..=today).map(|(day, counts)| (day * DAY_MS, *counts))
    }
}

/// The counts of a profile.
pub(super) fn of(records: &impl Records, profile: Uuid) -> Result<Statistics, StorageError> {
    Ok(records.load(Space::Statistics, profile.as_bytes())?.unwrap_or_default())
}

/// Counts one transaction that is part of this commit.
pub(super) fn count(
    tx: &mut Tx<'_>,
    profile: Uuid,
    transaction: Transaction,
) -> Result<(), StorageError> {
    count_at(tx, profile, transaction, tx.now)
}

/// Counts one transaction that was at another time.
pub(super) fn count_at(
    tx: &mut Tx<'_>,
    profile: Uuid,
    transaction: Transaction,
    now: u64,
) -> Result<(), StorageError> {
    let mut statistics = of(tx, profile)?;
    statistics.add(transaction, now);
    tx.put(Space::Statistics, profile.as_bytes(), &statistics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_shown_for_thirty_days_and_counted_for_ever() {
        let mut statistics = Statistics::default();
        for day in [100, 100, 110, 129] {
            statistics.add(Transaction::Store, day * DAY_MS + 5);
        }
        let shown = |statistics: &Statistics, day: u64| -> Vec<(u64, u64)> {
            let days = statistics.recent(day * DAY_MS);
            days.map(|(start, counts)| (start / DAY_MS, counts.stores)).collect()
        };
        assert_eq!(shown(&statistics, 129), [(100, 2), (110, 1), (129, 1)]);
        assert_eq!(shown(&statistics, 130), [(110, 1), (129, 1)]);
        // A clock that was set back.
        assert_eq!(shown(&statistics, 110), [(100, 2), (110, 1)]);
        statistics.add(Transaction::Deletion, 130 * DAY_MS);
        assert_eq!(statistics.days.len(), 3);
        assert_eq!(statistics.total, Counts { stores: 4, retrievals: 0, deletions: 1 });
    }
}
