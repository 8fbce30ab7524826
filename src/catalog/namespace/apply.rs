//! Taking in what others have published, and what this machine has.

use std::collections::BTreeSet;

use super::history::day_of;
use super::tree::{CatalogResult, Tree};
use super::txn::{Stale, Txn};
use crate::catalog::conflict::object::Origin;
use crate::catalog::format::{Body, Record, Subject};
use crate::catalog::local::inode::{Content, Ino};
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
        let mut chunks = records.chunks(AT_ONCE).peekable();
        while let Some(some) = chunks.next_if(|some| some.len() == AT_ONCE) {
            let mut txn = self.begin();
            txn.apply(some)?;
            stale.extend(txn.commit()?);
        }
        let mut txn = self.begin();
        txn.apply(chunks.next().unwrap_or_default())?;
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
        let mut before: Vec<(Ino, Option<Content>)> = Vec::new();
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
            if touched.insert(ino) {
                before.push((ino, row.inode(ino).map(|inode| inode.content)));
                // What only a listing showed is now said by somebody.
                self.give_way(ino, &mut row, *origin)?;
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
                *least = split.min(*least);
                self.restore_split(*file, &mut of, *version)?;
                self.put_row(*file, of);
                touched.insert(*file);
            }
        }
        for ino in &touched {
            self.settle(*ino)?;
        }
        for ino in &touched {
            self.show(*ino)?;
        }
        for (ino, content) in before {
            let now = self.find_inode(ino)?.map(|inode| inode.content);
            let data = now != content;
            self.stale.push(Stale::Inode { ino, data });
        }
        Ok(())
    }

    /// Records of others about what is only derived here: the derived ones go, all of them,
    /// because those that come are the whole of it.
    fn give_way(&mut self, ino: Ino, row: &mut Row, origin: Origin) -> CatalogResult<()> {
        let _ = ino;
        if !row.is_derived() || !matches!(origin, Origin::Published(_)) {
            return Ok(());
        }
        let object = &mut row.object;
        let derived = |origin: Origin| origin == Origin::Derived;
        object.nature.take_if(|held| derived(held.origin));
        object.attributes.take_if(|held| derived(held.origin));
        object.times.take_if(|held| derived(held.origin));
        object.xattrs.retain(|_, held| !derived(held.origin));
        object.names.retain(|_, held| !derived(held.origin));
        // The token, and what was pinned of it, stay: the catalog says the same of them.
        Ok(())
    }

    /// A version that becomes another file leaves the history.
    fn restore_split(
        &mut self,
        file: Ino,
        row: &mut Row,
        id: crate::catalog::format::VersionId,
    ) -> CatalogResult<()> {
        let mut history = self.history(file, id)?;
        let Some(version) = history.version.take() else { return Ok(()) };
        row.object.versions.insert(id, version);
        row.object.places.extend(history.place.take().map(|place| (id, place)));
        row.object.lost_places.append(&mut history.lost);
        self.put_history(file, id, history);
        Ok(())
    }
}
