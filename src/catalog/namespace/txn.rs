//! One change of the catalog: reads its own writes, commits as one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::outbox::OutboxEntry;
use super::tree::{CatalogError, CatalogResult, Tree};
use crate::catalog::conflict::object::Origin;
use crate::catalog::format::{Record, Stamp, Subject, VersionId};
use crate::catalog::local::clock::{StampClock, new_number};
use crate::catalog::local::entry::{Entry, EntryLink};
use crate::catalog::local::inode::{Ino, Inode, Time};
use crate::catalog::local::row::{History, Row};
use crate::catalog::local::schema;
use crate::catalog::local::vault::VaultRow;
use crate::db::{Space, encode};

/// What the kernel may have cached and must forget, after a change it did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Attributes (and pages, if `data`).
    Inode {
        /// Which.
        ino: Ino,
        /// Whether its pages are stale too.
        data: bool,
    },
    /// A name.
    Entry {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
}

/// A running change. Dropping it without [`Txn::commit`] changes nothing.
pub struct Txn<'a> {
    pub(super) tree: &'a Tree,
    pub(super) clock: MutexGuard<'a, StampClock>,
    rows: BTreeMap<Ino, Option<Row>>,
    entries: BTreeMap<Vec<u8>, (Ino, Entry)>,
    histories: BTreeMap<(Ino, VersionId), History>,
    raw: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    pub(super) vault: Vec<(Record, Origin)>,
    pub(super) queued: BTreeMap<Ino, Option<OutboxEntry>>,
    /// Folders that this change has cut out of a circle.
    pub(super) cut_here: BTreeSet<Ino>,
    /// By file, what is covered and not in the history yet, with the day of that; a file whose
    /// versions have to be looked at is here even if nothing is known.
    pub(super) listed: BTreeMap<Ino, Vec<(VersionId, u64)>>,
    /// Objects whose standings have to be computed again.
    pub(super) unshown: BTreeSet<Ino>,
    /// Whether somebody is computing them.
    pub(super) is_showing: bool,
    /// Whether others made this change: what the kernel must forget is found at the commit.
    pub(super) is_of_others: bool,
    /// What other caches must forget.
    pub stale: Vec<Stale>,
}

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Txn")
    }
}

impl<'a> Txn<'a> {
    pub(super) fn new(tree: &'a Tree, clock: MutexGuard<'a, StampClock>) -> Self {
        Self {
            tree,
            clock,
            rows: BTreeMap::new(),
            entries: BTreeMap::new(),
            histories: BTreeMap::new(),
            raw: BTreeMap::new(),
            vault: Vec::new(),
            queued: BTreeMap::new(),
            cut_here: BTreeSet::new(),
            listed: BTreeMap::new(),
            unshown: BTreeSet::new(),
            is_showing: false,
            is_of_others: false,
            stale: Vec::new(),
        }
    }

    /// A new stamp, greater than all before.
    pub fn stamp(&mut self) -> Stamp {
        let millis = self.tree.stamp_millis();
        self.clock.tick(millis)
    }

    /// Who makes the stamps of this mount.
    pub fn writer(&self) -> u64 {
        self.clock.writer()
    }

    /// A new number for an object or a link.
    pub(super) fn number(&self) -> u64 {
        new_number(&self.tree.env)
    }

    /// The time now.
    pub fn now(&self) -> Time {
        Time::from(self.tree.env.clock.now())
    }

    /// The row of an object, `None` if there is none.
    pub fn find_row(&self, ino: Ino) -> CatalogResult<Option<Row>> {
        match self.rows.get(&ino) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.tree.db.load(&schema::row(ino))?),
        }
    }

    /// The row of an object that must exist.
    pub fn row(&self, ino: Ino) -> CatalogResult<Row> {
        self.find_row(ino)?.ok_or_else(|| CatalogError::not_found(format!("inode {ino}")))
    }

    /// Sets a row.
    pub(super) fn put_row(&mut self, ino: Ino, row: Row) {
        self.rows.insert(ino, Some(row));
    }

    /// Removes a row, and what waits of it.
    pub(super) fn remove_row(&mut self, ino: Ino) {
        self.rows.insert(ino, None);
        self.queued.insert(ino, None);
        self.raw(Space::Meta, schema::align(ino), None);
    }

    /// An inode, `None` if there is no such object.
    pub fn find_inode(&self, ino: Ino) -> CatalogResult<Option<Inode>> {
        match self.rows.get(&ino) {
            Some(row) => Ok(row.as_ref().and_then(|row| row.inode(ino))),
            None => Ok(self.tree.find_inode(ino)?.map(|inode| (*inode).clone())),
        }
    }

    /// An inode that must exist.
    pub fn inode(&self, ino: Ino) -> CatalogResult<Inode> {
        self.find_inode(ino)?.ok_or_else(|| CatalogError::not_found(format!("inode {ino}")))
    }

    /// What stands at a name.
    pub(super) fn entry(&self, parent: Ino, name: &[u8]) -> CatalogResult<Entry> {
        let key = self.tree.entry_key(parent, name);
        if let Some((_, entry)) = self.entries.get(&key) {
            return Ok(entry.clone());
        }
        let stored = self.tree.db.load(&key)?;
        Ok(stored.unwrap_or_else(|| Entry { name: name.to_vec(), ..Entry::default() }))
    }

    pub(super) fn put_entry(&mut self, parent: Ino, entry: Entry) {
        let key = self.tree.entry_key(parent, &entry.name);
        self.entries.insert(key, (parent, entry));
    }

    /// What a name leads to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> CatalogResult<Option<EntryLink>> {
        let holder = self.entry(parent, name)?.holder;
        Ok(holder.map(super::tree::link_of))
    }

    /// What is known of a covered version.
    pub(super) fn history(&self, ino: Ino, id: VersionId) -> CatalogResult<History> {
        if let Some(history) = self.histories.get(&(ino, id)) {
            return Ok(history.clone());
        }
        Ok(self.tree.db.load(&schema::history(ino, id))?.unwrap_or_default())
    }

    pub(super) fn put_history(&mut self, ino: Ino, id: VersionId, history: History) {
        self.histories.insert((ino, id), history);
    }

    /// Sets or removes any other record.
    pub fn raw(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.raw.insert((space, key), value);
    }

    /// Puts an object into the outbox, to wait for the content of `after` too, if that is given.
    pub(super) fn queue(&mut self, ino: Ino, after: Option<Ino>) -> CatalogResult<()> {
        let mut entry = match self.queued.get(&ino) {
            Some(entry) => entry.clone(),
            None => self.tree.db.load(&schema::outbox(ino))?,
        }
        .unwrap_or_default();
        entry.after.extend(after);
        entry.after.sort_unstable();
        entry.after.dedup();
        self.queued.insert(ino, Some(entry));
        Ok(())
    }

    /// Takes an object out of the outbox.
    pub(super) fn unqueue(&mut self, ino: Ino) {
        self.queued.insert(ino, None);
    }

    /// Notes a token of ours that nothing names and nobody was told of: housekeeping deletes it.
    pub fn discard(&mut self, token: &crate::store::Token) {
        let key = schema::garbage(&self.tree.token_tag(token));
        self.raw(Space::Meta, key, Some(encode(token)));
    }

    /// Records something about the vault, to be published.
    pub fn record_vault(&mut self, body: crate::catalog::format::Body) -> CatalogResult<()> {
        let stamp = self.stamp();
        self.vault.push((Record::new(Subject::Vault, stamp, body), Origin::Unpublished));
        self.queue(0, None)
    }

    /// Whether `ancestor` is `ino` or above it.
    pub fn is_below(&self, ino: Ino, ancestor: Ino) -> CatalogResult<bool> {
        let mut at = ino;
        // A path is at most 4096 bytes, so deeper than this is a circle already.
        for _ in 0..4096 {
            if at == ancestor {
                return Ok(true);
            }
            match self.find_row(at)?.and_then(|row| row.standings.first().map(|s| s.folder)) {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Makes the change visible and durable; gives what caches must forget.
    pub fn commit(mut self) -> CatalogResult<Vec<Stale>> {
        let tree = self.tree;
        self.find_stale()?;
        let mut batch = tree.db.batch();
        let mut inodes = Vec::with_capacity(self.rows.len());
        for (ino, row) in &self.rows {
            match row {
                Some(row) => batch.store(&schema::row(*ino), row),
                None => batch.remove(Space::Meta, &schema::row(*ino)),
            }
            inodes.push((*ino, row.as_ref().and_then(|row| row.inode(*ino))));
        }
        for (key, (_, entry)) in &self.entries {
            match entry.is_vacant() {
                true => batch.remove(Space::Meta, key),
                false => batch.store(key, entry),
            }
        }
        for ((ino, id), history) in &self.histories {
            match history.is_vacant() {
                true => batch.remove(Space::Meta, &schema::history(*ino, *id)),
                false => batch.store(&schema::history(*ino, *id), history),
            }
        }
        for ((space, key), value) in &self.raw {
            match value {
                Some(value) => batch.put(*space, key, value),
                None => batch.remove(*space, key),
            }
        }
        for (ino, entry) in &self.queued {
            match entry {
                Some(entry) => batch.store(&schema::outbox(*ino), entry),
                None => batch.remove(Space::Meta, &schema::outbox(*ino)),
            }
        }
        let (mut vault, mut of_vault) = (tree.vault.write(), BTreeMap::new());
        for (record, origin) in &self.vault {
            let key = tree.vault_key(record);
            let before: Option<VaultRow> = match of_vault.get(&key) {
                Some(row) => Some(VaultRow::clone(row)),
                None => tree.db.load(&key)?,
            };
            if let Some(row) = kept(before, record, *origin) {
                of_vault.insert(key, row);
                vault.apply(record, *origin);
            }
        }
        drop(vault);
        of_vault.iter().for_each(|(key, row)| batch.store(key, row));
        let named = inodes.iter().filter_map(|(_, inode)| inode.as_ref());
        tree.names_in_use.add(named.flat_map(|inode| inode.xattrs.keys()), &mut batch);
        self.clock.record(&mut batch);
        batch.commit().inspect_err(|_| tree.names_in_use.forget())?;
        let waits = |inode: &Inode| inode.local.dirty.is_some() && inode.local.nlink > 0;
        let waits = |inode: &Inode| waits(inode) && !inode.local.unwanted;
        let free = inodes.iter().filter(|(_, inode)| !inode.as_ref().is_some_and(waits));
        let free: Vec<Ino> = free.map(|(ino, _)| *ino).collect();
        let mut cache = tree.cache.lock();
        for (ino, inode) in inodes {
            match inode {
                Some(inode) => drop(cache.put(ino, Arc::new(inode))),
                None => drop(cache.pop(&ino)),
            }
        }
        drop(cache);
        // after the cache: whoever is waked must see what this change has done
        let mut outbox = tree.outbox.lock();
        for (ino, entry) in &self.queued {
            match entry {
                Some(_) => outbox.add(*ino),
                None => outbox.remove(*ino),
            }
        }
        free.into_iter().for_each(|ino| outbox.wake(ino));
        drop(outbox);
        Ok(std::mem::take(&mut self.stale))
    }

    /// Of a change that others made: the inodes that it changes, and the names of which those
    /// that it touched lead elsewhere now.
    fn find_stale(&mut self) -> CatalogResult<()> {
        let mut found: Vec<Stale> = Vec::new();
        for item in std::mem::take(&mut self.stale) {
            let changed = match &item {
                Stale::Entry { parent, name } if self.is_of_others => {
                    let key = self.tree.entry_key(*parent, name);
                    let stored: Option<Entry> = self.tree.db.load(&key)?;
                    let before = stored.and_then(|entry| entry.holder).map(|holder| holder.ino);
                    let now = self.entry(*parent, name)?.holder.map(|holder| holder.ino);
                    before != now
                }
                Stale::Inode { .. } if self.is_of_others => false,
                Stale::Entry { .. } | Stale::Inode { .. } => true,
            };
            if changed && !found.contains(&item) {
                found.push(item);
            }
        }
        if self.is_of_others {
            for (ino, row) in &self.rows {
                let before = self.tree.find_inode(*ino)?;
                let now = row.as_ref().and_then(|row| row.inode(*ino));
                let content = |inode: Option<&Inode>| inode.map(|inode| inode.content.clone());
                let data = content(before.as_deref()) != content(now.as_ref());
                if before.as_deref() != now.as_ref() {
                    found.push(Stale::Inode { ino: *ino, data });
                }
            }
        }
        self.stale = found;
        Ok(())
    }

    /// Notes that an object has to be looked at once `day` is long enough ago.
    pub(super) fn note_ended(&mut self, day: u64, ino: Ino) {
        self.raw(Space::Meta, schema::ended(day, ino), Some(encode(&())));
    }
}

/// The row of a record of the vault, if it changes anything.
fn kept(before: Option<VaultRow>, record: &Record, origin: Origin) -> Option<VaultRow> {
    let bytes = record.encode();
    let Some(before) = before else { return Some(VaultRow { record: bytes, origin }) };
    if before.record == bytes {
        let stays = match (before.origin, origin) {
            (Origin::Published(old), Origin::Published(new)) => new.day <= old.day,
            (Origin::Published(_), _) => true,
            (old, new) => old == new,
        };
        return (!stays).then_some(VaultRow { record: bytes, origin });
    }
    let holds = Record::decode(&before.record).map_or(true, |old| record.beats(&old));
    holds.then_some(VaultRow { record: bytes, origin })
}
