//! Taking in what others have published, and what this machine has.

use std::collections::BTreeSet;

use super::history::day_of;
use super::tree::{CatalogResult, Tree};
use super::txn::{Stale, Txn};
use crate::catalog::conflict::object::{Object, Origin};
use crate::catalog::format::{Body, Record, Subject, VersionId};
use crate::catalog::local::inode::Ino;
use crate::catalog::local::row::Row;
use crate::catalog::local::vault::Day;

/// Records taken in by one change of the local database.
const AT_ONCE: usize = 2000;

impl Tree {
    /// Takes records in; the last of the changes that this needs does what `with` says too.
    /// Applying them again changes nothing. Gives what caches must forget.
    pub fn apply(
        &self,
        records: &[(Record, Origin)],
        with: impl FnOnce(&mut Txn<'_>),
    ) -> CatalogResult<Vec<Stale>> {
        let mut stale = Vec::new();
        let mut rest = records;
        while rest.len() > AT_ONCE {
            // What is told of one object is taken in at once, where it comes together.
            let subject = rest[AT_ONCE - 1].0.subject;
            let more = rest[AT_ONCE..].iter().take_while(|(record, _)| record.subject == subject);
            let (some, others) = rest.split_at(AT_ONCE + more.count());
            let mut txn = self.begin();
            txn.apply(some)?;
            stale.extend(txn.commit()?);
            rest = others;
        }
        let mut txn = self.begin();
        txn.apply(rest)?;
        with(&mut txn);
        stale.extend(txn.commit()?);
        Ok(stale)
    }

    /// A day that a checkpoint brought counts as it is (docs/format.md, 6.3).
    pub fn count_day(&self, record: &Record) {
        if let Body::Day { count, server_millis, own_millis } = record.body {
            let day = Day { count, server: server_millis, own: own_millis };
            self.vault.write().count_day(day);
        }
    }
}

impl Txn<'_> {
    /// Takes records in.
    pub fn apply(&mut self, records: &[(Record, Origin)]) -> CatalogResult<()> {
        let mut touched: BTreeSet<Ino> = BTreeSet::new();
        self.is_of_others = true;
        for (record, origin) in records {
            self.clock.observe(record.stamp);
            let Some(ino) = record.subject.number() else {
                self.vault.push((record.clone(), *origin));
                continue;
            };
            let mut row = match self.find_row(ino)? {
                Some(row) => row,
                None => Row::of(record.subject),
            };
            touched.insert(ino);
            if row.object == Object::default() {
                // Until now it was known only as what something stands in, or is split off.
                row.is_folder = matches!(record.subject, Subject::Folder(_));
            }
            if let Body::Name(name) = &record.body
                && matches!(origin, Origin::Published(_) | Origin::Sent)
            {
                row.known.insert(name.link);
            }
            if let Body::Removal(_) = &record.body {
                self.note_ended(day_of(*origin, self.tree.today()), ino);
            }
            self.take(ino, &mut row, record, *origin)?;
            self.put_row(ino, row);
            if let (Body::Split { version, file }, Subject::File(to)) =
                (&record.body, record.subject)
            {
                let of = self.find_row(*file)?;
                let mut of = of.unwrap_or_else(|| Row::of(Subject::File(*file)));
                let split = (record.stamp, to);
                let least = of.object.split_off.entry(*version).or_insert(split);
                let not_it = split.max(*least).1;
                *least = split.min(*least);
                let it = least.1;
                self.restore_split(*file, &mut of, *version)?;
                self.put_row(*file, of);
                if not_it != it {
                    self.take_back(not_it, *file, *version)?;
                    touched.insert(not_it);
                }
                touched.insert(*file);
            }
        }
        for ino in &touched {
            self.settle(*ino)?;
        }
        self.unshown.extend(touched);
        self.show_all()
    }

    /// A version has become yet another file, which has it: of several splits one holds.
    fn take_back(&mut self, ino: Ino, from: Ino, id: VersionId) -> CatalogResult<()> {
        let Some(mut row) = self.find_row(ino)? else { return Ok(()) };
        if let Some(borrowed) = &mut row.object.borrowed
            && borrowed.from == from
            && borrowed.version.as_ref().is_some_and(|held| held.value.id == id)
        {
            (borrowed.version, borrowed.place, borrowed.covered) = (None, None, false);
            self.put_row(ino, row);
        }
        Ok(())
    }

    /// A version that becomes another file leaves the history.
    fn restore_split(&mut self, file: Ino, row: &mut Row, id: VersionId) -> CatalogResult<()> {
        let mut history = self.history(file, id)?;
        row.object.versions.extend(history.version.take().map(|version| (id, version)));
        row.object.places.extend(history.place.take().map(|place| (id, place)));
        row.object.lost_places.append(&mut history.lost);
        self.put_history(file, id, history);
        Ok(())
    }
}
