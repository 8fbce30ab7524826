//! The records about the vault itself, and what they come to.
//!
//! Invariants
//! 1. Of a setting or a snapshot the value that holds is kept; every other record stays.
//! 2. A day counts if it is the first, or the one before it counts, or a checkpoint brought it
//!    (docs/format.md, 6.3). The calendar never goes back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::conflict::object::Origin;
use crate::catalog::format::cbor::Item;
use crate::catalog::format::{Body, Identity, Record, Stamp};
use crate::store::Token;

/// A record of the vault as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRow {
    /// Its bytes.
    pub record: Vec<u8>,
    /// Where it is besides here.
    pub origin: Origin,
}

/// A day of the calendar: when it began, by two clocks, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// Its count.
    pub count: u64,
    /// By the server's clock.
    pub server: u64,
    /// By the clock of who began it.
    pub own: u64,
}

/// A setting that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its value.
    pub value: Item,
    /// When it was made.
    pub stamp: Stamp,
    /// The day from which it holds.
    pub day: u64,
}

/// What the records of the vault come to.
#[derive(Clone, Debug, Default)]
pub struct VaultState {
    /// The vault's identity: of several the least.
    pub identity: Option<[u8; 16]>,
    /// The calendar.
    pub today: Day,
    /// Days that do not count yet.
    waiting: BTreeMap<u64, Day>,
    /// Settings by name.
    pub settings: BTreeMap<String, Setting>,
    /// Whether any record says that names are private: that stays.
    pub names_private: bool,
    /// Payloads that nobody waits for any more.
    pub given_up: BTreeSet<Identity>,
    /// Tokens of such.
    pub given_up_tokens: BTreeSet<Token>,
    /// Writers that have ended, with the stamp of their end.
    pub ended: BTreeMap<u64, Stamp>,
    /// When the trash was emptied, of which versions (`None`: all), and on which day.
    pub emptied: Vec<(Stamp, Option<Vec<crate::catalog::format::VersionId>>, u64)>,
    /// Whether a newer program has written something about the vault.
    pub is_newer: bool,
}

/// Days for which trash is kept where no setting says so.
pub const TRASH_DAYS: u64 = 7;

impl VaultState {
    /// Takes a record in.
    pub fn apply(&mut self, record: &Record, origin: Origin) {
        let day = match origin {
            Origin::Published(brought) => brought.day,
            Origin::Derived | Origin::Unpublished | Origin::Sent => self.today.count,
        };
        self.is_newer |= record.is_newer();
        match &record.body {
            Body::Vault { identity, .. } => {
                self.identity = Some(self.identity.map_or(*identity, |now| now.min(*identity)));
            }
            Body::Setting { name, value } => {
                let setting = Setting { value: value.clone(), stamp: record.stamp, day };
                self.names_private |= name == "names" && *value == Item::text("private");
                let holds = self.settings.get(name).is_none_or(|now| now.stamp <= record.stamp);
                if holds {
                    self.settings.insert(name.clone(), setting);
                }
            }
            Body::Day { count, server_millis, own_millis } => {
                let new = Day { count: *count, server: *server_millis, own: *own_millis };
                self.add_day(new);
            }
            Body::GivenUp { identities, tokens, .. } => {
                self.given_up.extend(identities.iter().copied());
                self.given_up_tokens.extend(tokens.iter().cloned());
            }
            Body::WriterEnd => {
                let writer = match origin {
                    Origin::Published(brought) => brought.writer,
                    _ => record.stamp.writer,
                };
                self.ended.insert(writer, record.stamp);
            }
            Body::Emptied { versions } => {
                self.emptied.push((record.stamp, versions.clone(), day));
            }
            _ => {}
        }
    }

    /// A day that a checkpoint brought: it counts as it is.
    pub fn count_day(&mut self, day: Day) {
        self.waiting.insert(day.count, day);
        self.today.count = self.today.count.max(day.count.saturating_sub(1));
        self.catch_up();
    }

    fn add_day(&mut self, new: Day) {
        if new.count < self.today.count {
            return;
        }
        let known = self.waiting.entry(new.count).or_insert(new);
        known.server = known.server.max(new.server);
        known.own = known.own.max(new.own);
        self.catch_up();
    }

    fn catch_up(&mut self) {
        while let Some(next) = self.waiting.remove(&(self.today.count + 1)) {
            self.today = next;
        }
        if let Some(same) = self.waiting.remove(&self.today.count) {
            self.today.server = self.today.server.max(same.server);
            self.today.own = self.today.own.max(same.own);
        }
        let today = self.today.count;
        self.waiting.retain(|count, _| *count > today);
    }

    /// For how many days trash and old versions are kept, and since which day that holds.
    pub fn trash_days(&self) -> (u64, u64) {
        let setting = self.settings.get("trash-days");
        let days = setting.and_then(|s| Some((s.value.as_number()?, s.day)));
        days.unwrap_or((TRASH_DAYS, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::format::Subject;

    #[test]
    fn a_day_counts_behind_the_one_before_it() {
        let mut state = VaultState::default();
        let mut say = |count: u64| {
            let body = Body::Day { count, server_millis: count, own_millis: count };
            state.apply(&Record::new(Subject::Vault, Stamp::ZERO, body), Origin::Unpublished);
            state.today.count
        };
        assert_eq!([say(3), say(1), say(5), say(2)], [0, 1, 1, 3]);
        state.count_day(Day { count: 9, server: 9, own: 9 });
        assert_eq!(state.today, Day { count: 9, server: 9, own: 9 });
    }
}
