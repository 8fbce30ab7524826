//! The vault's calendar: a count of days that no clock alone moves (docs/format.md, 6.3).
//!
//! Invariants
//! 1. A count is added at most once a mount and once a day of running, when twenty hours have
//!    passed since the times of the present one, by the service's clock and by this machine's.
//! 2. A recorded time that is ahead of a clock counts, for that clock, from when this machine
//!    first saw it.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::remote::{Remote, RemoteError};
use crate::catalog::format::Body;
use crate::catalog::local::schema;

/// How long a count lasts at least, in milliseconds.
const HOURS_20: u64 = 20 * 3_600_000;

/// When this machine first saw the present count, by the two clocks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    count: u64,
    server: u64,
    own: u64,
}

impl Remote {
    /// The first day of a new vault.
    pub(super) fn first_day(&self) -> Body {
        let own_millis = self.env.millis();
        let server_millis = self.store.clock().unwrap_or(own_millis);
        Body::Day { count: 1, server_millis, own_millis }
    }

    /// Adds a day to the calendar, if it is time and anything waits for it; says whether.
    pub fn advance_calendar(&self) -> Result<bool, RemoteError> {
        let today = self.tree.vault().today;
        if today.count == 0 || !self.waits_for_a_day()? {
            return Ok(false);
        }
        let own = self.env.millis();
        let server = self.store.clock().unwrap_or(own);
        let key = schema::meta("day-seen");
        let seen = self.load::<Seen>(&key)?.filter(|seen| seen.count == today.count);
        let seen = match seen {
            Some(seen) => seen,
            None => {
                let seen = Seen { count: today.count, server, own };
                let mut batch = self.tree.db().batch();
                batch.store(&key, &seen);
                batch.commit()?;
                seen
            }
        };
        let passed = |now: u64, recorded: u64, first_seen: u64| {
            now.saturating_sub(recorded.min(first_seen)) >= HOURS_20
        };
        let lately = |at: Instant| at.elapsed().as_millis() < u128::from(HOURS_20);
        if !passed(server, today.server, seen.server)
            || !passed(own, today.own, seen.own)
            || self.advanced.lock().is_some_and(lately)
        {
            return Ok(false);
        }
        let (count, server_millis, own_millis) = (today.count + 1, server, own);
        let mut txn = self.tree.begin();
        txn.record_vault(Body::Day { count, server_millis, own_millis })?;
        txn.commit().map_err(RemoteError::from)?;
        *self.advanced.lock() = Some(Instant::now());
        Ok(true)
    }

    /// Whether anything goes, or is forgotten, on a later day.
    fn waits_for_a_day(&self) -> Result<bool, RemoteError> {
        let db = self.tree.db();
        let table = |letter: u8| schema::replication(letter, &[]);
        Ok(db.any(schema::ENDED)?
            || db.any(&table(b'r'))?
            || db.any(&table(b'q'))?
            || db.any(&table(b'u'))?)
    }
}
