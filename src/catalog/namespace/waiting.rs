//! What waits to be published: gathered for a segment, marked as sent, and as in the vault.

use std::collections::BTreeSet;

use super::operations::is_known_elsewhere;
use super::outbox::OutboxEntry;
use super::tree::{CatalogResult, Tree, has_content};
use super::txn::Txn;
use crate::catalog::conflict::object::{Brought, Origin};
use crate::catalog::format::{Body, Record, Subject, VersionId};
use crate::catalog::local::inode::Ino;
use crate::catalog::local::row::{History, Row};
use crate::catalog::local::schema;
use crate::catalog::local::vault::VaultRow;
use crate::db::{DbSnapshot, decode, encode};

/// Outbox entries looked at in one go.
const SCAN: usize = 4_000;

/// Identities in one record of what is forgotten.
const COVERED_AT_ONCE: usize = 1000;

/// What can be published now.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The objects whose records can go; 0 is the vault.
    pub ready: Vec<Ino>,
    /// How many wait for a content.
    pub held: u64,
    /// Whether there is more than was asked for.
    pub more: bool,
}

/// What of an outbox entry can be sent.
enum State {
    Ready(u64),
    /// It waits for this inode's content.
    Held(Ino),
    Gone,
}

impl Tree {
    /// What of the outbox can be published now, up to about so many bytes of records.
    pub fn find_ready(&self, bytes: u64) -> CatalogResult<Waiting> {
        let mut found = Waiting::default();
        let mut gone = Vec::new();
        let all = self.outbox.lock().start_over();
        let (mut from, mut weight) = (0, 0);
        'all: loop {
            let changes = match all {
                true => self.stored_from(from)?,
                false => self.outbox.lock().look_from(from, SCAN),
            };
            let Some(&last) = changes.last() else { break };
            from = last + 1;
            for change in changes {
                if weight >= bytes {
                    found.more = true;
                    if all {
                        self.outbox.lock().miss();
                    }
                    break 'all;
                }
                match self.look_at(change)? {
                    State::Ready(size) => {
                        weight += size;
                        found.ready.push(change);
                    }
                    State::Held(ino) => {
                        self.outbox.lock().park(change, ino);
                        if !self.content_waits(ino)? {
                            self.outbox.lock().wake(ino);
                        }
                        found.held += 1;
                    }
                    State::Gone => gone.push(change),
                }
            }
        }
        if !gone.is_empty() {
            let mut txn = self.begin();
            for change in gone {
                if matches!(self.look_at(change)?, State::Gone) {
                    txn.unqueue(change);
                }
            }
            txn.commit()?;
        }
        Ok(found)
    }

    /// The next entries from the database, of which there were more than memory keeps.
    fn stored_from(&self, from: Ino) -> CatalogResult<Vec<Ino>> {
        let mut changes = Vec::new();
        self.db.scan(schema::OUTBOX, &schema::outbox(from), |key, _| {
            changes.push(schema::number(key, 1));
            Ok(changes.len() < SCAN)
        })?;
        let mut outbox = self.outbox.lock();
        changes.iter().for_each(|change| outbox.add(*change));
        Ok(changes)
    }

    fn look_at(&self, change: Ino) -> CatalogResult<State> {
        let Some(entry) = self.db.load::<OutboxEntry>(&schema::outbox(change))? else {
            return Ok(State::Gone);
        };
        if change == 0 {
            return Ok(State::Ready(256));
        }
        let Some(row) = self.find_row(change)? else { return Ok(State::Gone) };
        if row.local.unwanted || !row.is_unpublished() {
            return Ok(State::Gone);
        }
        // What nobody has heard of, and has no name any more, stays unheard of.
        if row.standings.is_empty() && change != 1 && !is_known_elsewhere(&row) {
            return Ok(State::Gone);
        }
        let waits = |row: &Row| {
            row.local.dirty.is_some() && !row.local.unlinked && row.kind().is_some_and(has_content)
        };
        if waits(&row) {
            return Ok(State::Held(change));
        }
        for ino in entry.after {
            if ino != change && self.find_row(ino)?.as_ref().is_some_and(waits) {
                return Ok(State::Held(ino));
            }
        }
        Ok(State::Ready(row.object.records(row.subject(change)).len() as u64 * 96))
    }

    fn content_waits(&self, ino: Ino) -> CatalogResult<bool> {
        Ok(self.find_inode(ino)?.is_some_and(|i| i.local.dirty.is_some() && !i.local.unlinked))
    }

    /// Calls `each` for every record that this machine has published or taken in, as it was at
    /// the moment of the snapshot, subject by subject in the order of checkpoints, from one on,
    /// until it answers `false`. What is forgotten of a file's history is one record, which lists
    /// what is covered.
    pub fn each_record(
        snapshot: &DbSnapshot,
        from: Subject,
        mut each: impl FnMut(Subject, Vec<(Record, Brought)>) -> bool,
    ) -> CatalogResult<()> {
        if from == Subject::Vault {
            let mut of_vault = Vec::new();
            snapshot.scan(schema::VAULT, schema::VAULT, |_, value| {
                let row: VaultRow = decode(&value)?;
                if let (Ok(record), Some(brought)) =
                    (Record::decode(&row.record), published(row.origin))
                {
                    of_vault.push((record, brought));
                }
                Ok(true)
            })?;
            if !of_vault.is_empty() && !each(from, of_vault) {
                return Ok(());
            }
        }
        for folders in [false, true] {
            let first = match (from, folders) {
                (Subject::Folder(_), false) => continue,
                (Subject::File(number), false) | (Subject::Folder(number), true) => number,
                _ => 0,
            };
            let mut more = true;
            snapshot.scan(schema::ROWS, &schema::row(first), |key, value| {
                let (ino, row): (Ino, Row) = (schema::number(key, 1), decode(&value)?);
                if row.is_folder != folders {
                    return Ok(true);
                }
                let records = object_records(snapshot, ino, &row)?;
                more = records.is_empty() || each(row.subject(ino), records);
                Ok(more)
            })?;
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn published(origin: Origin) -> Option<Brought> {
    match origin {
        Origin::Published(brought) => Some(brought),
        Origin::Derived | Origin::Unpublished | Origin::Sent => None,
    }
}

/// Every record of an object that is in the vault.
fn object_records(
    snapshot: &DbSnapshot,
    ino: Ino,
    row: &Row,
) -> crate::db::DbResult<Vec<(Record, Brought)>> {
    let subject = row.subject(ino);
    let behind = row.behind.iter().flat_map(|behind| behind.records(subject));
    let all = row.object.records(subject).into_iter().chain(behind);
    let mut records: Vec<(Record, Brought)> =
        all.filter_map(|(record, origin)| Some((record, published(origin)?))).collect();
    let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
    if !row.is_folder {
        let prefix = schema::histories(ino);
        snapshot.scan(&prefix, &prefix, |key, value| {
            let history: History = decode(&value)?;
            let mut id = [0; 16];
            id.copy_from_slice(&key[9..25]);
            match (history.ended, &history.version) {
                (Some(_), None) => forgotten.push(VersionId(id)),
                (Some(_), Some(_)) => kept.push(VersionId(id)),
                (None, _) => {}
            }
            let all = history.records(subject).into_iter();
            records.extend(all.filter_map(|(record, origin)| Some((record, published(origin)?))));
            Ok(true)
        })?;
    }
    // What no version lists that is here, because what listed it is forgotten, or was a list.
    let placed: BTreeSet<VersionId> = records
        .iter()
        .filter_map(|(record, _)| match &record.body {
            Body::Place(place) => Some(place.version),
            _ => None,
        })
        .collect();
    let mut listed = BTreeSet::new();
    for (record, _) in &records {
        if let Body::Version(version) = &record.body
            && placed.contains(&version.id)
        {
            listed.extend(version.covers.iter().copied());
        }
    }
    forgotten.extend(kept.into_iter().filter(|id| !listed.contains(id)));
    forgotten.sort_unstable();
    let latest = records.iter().map(|(record, brought)| (record.stamp, *brought));
    let latest = latest.max_by_key(|(stamp, _)| *stamp);
    for some in forgotten.chunks(COVERED_AT_ONCE) {
        let Some((stamp, brought)) = latest else { break };
        let body = Body::Covered { version: None, covers: some.to_vec() };
        records.push((Record::new(subject, stamp, body), brought));
    }
    Ok(records)
}

impl Txn<'_> {
    /// The records of an object that wait, which count as sent from now on.
    pub fn send(&mut self, ino: Ino) -> CatalogResult<Vec<Record>> {
        if ino == 0 {
            return self.send_vault();
        }
        let Some(mut row) = self.find_row(ino)? else { return Ok(Vec::new()) };
        let subject = row.subject(ino);
        let waits = |origin: &Origin| *origin == Origin::Unpublished;
        let records = row.object.records(subject);
        let records = records.into_iter().filter(|(_, origin)| waits(origin));
        let records: Vec<Record> = records.map(|(record, _)| record).collect();
        row.object.each_origin(|origin| {
            if waits(origin) {
                *origin = Origin::Sent;
            }
        });
        row.known.extend(row.object.names.keys().copied());
        self.put_row(ino, row);
        self.unqueue(ino);
        Ok(records)
    }

    fn send_vault(&mut self) -> CatalogResult<Vec<Record>> {
        let mut records = Vec::new();
        self.tree.db.scan(schema::VAULT, schema::VAULT, |_, value| {
            let row: VaultRow = decode(&value)?;
            if let (Ok(record), Origin::Unpublished) = (Record::decode(&row.record), row.origin) {
                records.push(record);
            }
            Ok(true)
        })?;
        self.vault.extend(records.iter().map(|record| (record.clone(), Origin::Sent)));
        self.unqueue(0);
        Ok(records)
    }

    /// What was sent of these objects did not reach the vault: it waits again.
    pub fn unsend(&mut self, inos: &[Ino]) -> CatalogResult<()> {
        for &ino in inos {
            if ino == 0 {
                let mut records = Vec::new();
                self.tree.db.scan(schema::VAULT, schema::VAULT, |_, value| {
                    let row: VaultRow = decode(&value)?;
                    if let (Ok(record), Origin::Sent) = (Record::decode(&row.record), row.origin) {
                        records.push(record);
                    }
                    Ok(true)
                })?;
                self.vault.extend(records.into_iter().map(|r| (r, Origin::Unpublished)));
            } else if let Some(mut row) = self.find_row(ino)? {
                row.object.each_origin(|origin| {
                    if *origin == Origin::Sent {
                        *origin = Origin::Unpublished;
                    }
                });
                self.put_row(ino, row);
            }
            self.queue(ino, None)?;
        }
        Ok(())
    }

    /// Sets or removes a record of another room.
    pub fn store<T: serde::Serialize>(&mut self, key: Vec<u8>, value: Option<&T>) {
        self.raw(crate::db::Space::Meta, key, value.map(encode));
    }
}

impl History {
    /// Every record of it, with where it is besides here.
    pub(super) fn records(&self, subject: Subject) -> Vec<(Record, Origin)> {
        let version = self.version.iter().map(|held| {
            let body = Body::Version(held.value.clone());
            (Record::new(subject, held.stamp, body), held.origin)
        });
        let places = self.place.iter().chain(&self.lost).map(|held| {
            let body = Body::Place(held.value.clone());
            (Record::new(subject, held.stamp, body), held.origin)
        });
        version.chain(places).collect()
    }
}
