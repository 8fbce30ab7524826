//! Contents that nobody needs any more, and when they go (docs/format.md, 10.1 and 10.2).
//!
//! Invariants
//! 1. What is due follows from the records and the vault's calendar and setting alone.
//! 2. A token that another place names, published or not, is not among what goes.
//! 3. What was deleted stays in the catalog for a calendar day, as what it was: then only that it
//!    is covered.

use super::history::day_of;
use super::tree::{CatalogResult, Tree};
use super::txn::Txn;
use crate::catalog::conflict::object::{Held, Origin};
use crate::catalog::format::record::{Place, PlaceBase};
use crate::catalog::format::{Reference, Stamp, VersionId};
use crate::catalog::local::inode::Ino;
use crate::catalog::local::row::{History, Row};
use crate::catalog::local::schema;
use crate::catalog::local::vault::VaultState;
use crate::db::{DbError, Space, decode};
use crate::store::Token;

/// A calendar day later is at least so many counts.
const A_DAY: u64 = 2;

/// A content that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its file.
    pub ino: Ino,
    /// The version, or, of another client's token that nobody has read, its default.
    pub version: VersionId,
    /// Its visible token.
    pub token: Token,
    /// What is in it; of another client's token that nobody has read it is not known.
    pub base: Option<PlaceBase>,
    /// The stamp of its place.
    pub placed: Stamp,
}

impl Due {
    /// The part list, if it is one: its parts go before it.
    pub fn list(&self) -> Option<&Reference> {
        match &self.base {
            Some(PlaceBase::Parts(list)) => Some(list),
            Some(PlaceBase::Whole(_)) | None => None,
        }
    }
}

/// What of one object may go now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// The object.
    pub ino: Ino,
    /// Under which day it was noted.
    pub day: u64,
    /// The contents that go.
    pub due: Vec<Due>,
    /// Whether something else that ended on that day waits.
    pub waits: bool,
}

impl Tree {
    /// The objects of which something may go today, at most about so many.
    pub fn unneeded(&self, most: usize) -> CatalogResult<Vec<Unneeded>> {
        let vault = self.vault();
        let (days, _) = vault.trash_days();
        let emptied = vault.emptied.iter().map(|(_, _, day)| *day).max();
        let today = vault.today.count;
        let ripe = |day: u64| {
            day + days + A_DAY <= today
                || emptied.is_some_and(|at| day <= at && at + A_DAY <= today)
        };
        let mut noted = Vec::new();
        self.db.scan(schema::ENDED, schema::ENDED, |key, _| {
            let (day, ino) = (schema::number(key, 1), schema::number(key, 9));
            if ripe(day) {
                noted.push((day, ino));
            }
            Ok(ripe(day) && noted.len() < most)
        })?;
        let mut found = Vec::new();
        for (day, ino) in noted {
            found.push(self.unneeded_of(ino, day, &vault)?);
        }
        Ok(found)
    }

    fn unneeded_of(&self, ino: Ino, day: u64, vault: &VaultState) -> CatalogResult<Unneeded> {
        let mut of = Unneeded { ino, day, ..Unneeded::default() };
        let Some(row) = self.find_row(ino)? else { return Ok(of) };
        let today = vault.today.count;
        let mut judge = |ended: Option<u64>, written: Stamp, place: &Held<Place>| {
            let Some(base) = place.value.base.clone() else { return Ok(()) };
            let version = place.value.version;
            let token = base.reference().token.clone();
            let key = schema::token(&self.token_tag(&token), ino, version);
            // What nobody was told of, and what is deleted already, does not count.
            if !matches!(place.origin, Origin::Published(_))
                || !self.db.contains(Space::Meta, &key)?
            {
                return Ok::<_, DbError>(());
            }
            match ended {
                Some(ended) if due_day(vault, ended, written, version) + A_DAY <= today => {
                    let (base, placed) = (Some(base), place.stamp);
                    of.due.push(Due { ino, version, token, base, placed });
                }
                Some(ended) if ended <= day => of.waits = true,
                _ => {}
            }
            Ok(())
        };
        let taken_on = taken_on(&row, today);
        for (id, place) in &row.object.places {
            let version = row.object.versions.get(id);
            let is_taken = row.object.taken().contains(id) && row.standings.is_empty();
            let ended = taken_on.filter(|_| is_taken && row.local.dirty.is_none());
            let own = version.map_or(0, |held| day_of(held.origin, today));
            judge(ended.map(|day| day.max(own)), version.map_or(Stamp::ZERO, |v| v.stamp), place)?;
        }
        for lost in &row.object.lost_places {
            let winner = row.object.places.get(&lost.value.version);
            let ended =
                winner.map(|held| day_of(held.origin, today).max(day_of(lost.origin, today)));
            judge(ended, lost.stamp, lost)?;
        }
        let prefix = schema::histories(ino);
        self.db.scan(&prefix, &prefix, |_, value| {
            let history: History = decode(&value)?;
            if history.deleted.is_some() {
                return Ok(true);
            }
            let version = history.version.as_ref();
            let own = version.map_or(0, |held| day_of(held.origin, today));
            let ended = history.ended.map(|ended| ended.max(own));
            let written = version.map_or(Stamp::ZERO, |held| held.stamp);
            for place in history.place.iter().chain(&history.lost) {
                judge(ended, written, place)?;
            }
            Ok(true)
        })?;
        // Another client's token that was removed before anybody read it.
        if let (Some(others), Some(day_taken)) = (&row.object.others, taken_on)
            && row.standings.is_empty()
            && matches!(others.origin, Origin::Published(_))
            && others.value.reference.is_none()
        {
            let version = VersionId::default();
            let token = others.value.token.clone();
            let key = schema::token(&self.token_tag(&token), ino, version);
            if self.db.contains(Space::Meta, &key)? {
                match due_day(vault, day_taken, others.stamp, version) + A_DAY <= today {
                    true => {
                        let placed = others.stamp;
                        of.due.push(Due { ino, version, token, base: None, placed });
                    }
                    false => of.waits |= day_taken <= day,
                }
            }
        }
        Ok(of)
    }

    /// Whether a place other than this one names a token.
    pub fn is_shared(&self, due: &Due) -> CatalogResult<bool> {
        let tag = self.token_tag(&due.token);
        let own = schema::token(&tag, due.ino, due.version);
        let prefix = schema::tokens(&tag);
        let mut shared = false;
        self.db.scan(&prefix, &prefix, |key, _| {
            shared |= key != own;
            Ok(!shared)
        })?;
        Ok(shared)
    }

    /// The days on which what was deleted is forgotten: for the files of which it was.
    pub fn forget_deleted(&self, ino: Ino) -> CatalogResult<()> {
        let today = self.today();
        let mut old = Vec::new();
        let prefix = schema::histories(ino);
        self.db.scan(&prefix, &prefix, |key, value| {
            let history: History = decode(&value)?;
            if history.deleted.is_some_and(|day| day + A_DAY <= today) {
                let mut id = [0; 16];
                id.copy_from_slice(&key[9..25]);
                old.push((VersionId(id), history.ended));
            }
            Ok(true)
        })?;
        if old.is_empty() {
            return Ok(());
        }
        let mut txn = self.begin();
        for (id, ended) in old {
            txn.put_history(ino, id, History { ended, ..History::default() });
        }
        txn.commit().map(drop)
    }
}

impl Txn<'_> {
    /// Notes that a content's tokens are gone.
    pub fn note_deleted(&mut self, due: &Due) -> CatalogResult<()> {
        let tag = self.tree.token_tag(&due.token);
        self.raw(Space::Meta, schema::token(&tag, due.ino, due.version), None);
        let mut history = self.history(due.ino, due.version)?;
        if history.version.is_some() || history.place.is_some() {
            history.deleted = Some(self.tree.today());
            self.put_history(due.ino, due.version, history);
            self.note_ended(self.tree.today(), due.ino);
            return Ok(());
        }
        if let Some(mut row) = self.find_row(due.ino)? {
            let of =
                |held: &Held<Place>| held.value.version == due.version && held.stamp == due.placed;
            row.object.lost_places.retain(|held| !of(held));
            self.put_row(due.ino, row);
        }
        Ok(())
    }

    /// An object has been seen to: nothing of it that ended by this day waits.
    pub fn done_with(&mut self, of: &Unneeded) {
        self.raw(Space::Meta, schema::ended(of.day, of.ino), None);
    }
}

/// The greatest day of a removal of a file's links.
fn taken_on(row: &Row, today: u64) -> Option<u64> {
    row.object.removals.iter().map(|removal| day_of(removal.origin, today)).max()
}

/// The day on which a content comes due.
fn due_day(vault: &VaultState, ended: u64, written: Stamp, id: VersionId) -> u64 {
    let (days, since) = vault.trash_days();
    let mut due = ended + days;
    for (stamp, versions, day) in &vault.emptied {
        let named = versions.as_ref().is_none_or(|all| all.contains(&id));
        if named && written < *stamp {
            due = due.min(*day);
        }
    }
    due.max(since)
}
