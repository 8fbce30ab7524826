//! Versions of files: what is written here, what comes from others, and what is covered.

use std::collections::BTreeSet;

use super::tree::CatalogResult;
use super::txn::Txn;
use crate::catalog::conflict::object::{CoveredList, Held, Object, Origin, Taken};
use crate::catalog::format::record::{Place, PlaceBase, Version};
use crate::catalog::format::{Body, Record, Reference, Stamp, Subject, VersionId};
use crate::catalog::local::inode::Ino;
use crate::catalog::local::row::{History, Row};
use crate::catalog::local::schema;
use crate::db::{Space, encode};

/// A version that is in the vault and is to be the file's content.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// The identity that the journal has recorded for it.
    pub id: VersionId,
    /// The stamp of that.
    pub stamp: Stamp,
    /// What it covers, ascending.
    pub covers: Vec<VersionId>,
    /// Bytes of the file.
    pub size: u64,
    /// What may be sparse.
    pub holes: Vec<(u64, u64)>,
    /// Where it is; `None` is empty.
    pub base: Option<PlaceBase>,
}

/// Most identities in one version's list.
const COVERS_MAX: usize = 1000;

impl Txn<'_> {
    /// Takes a record of an object into its row, or into the history.
    pub(super) fn take(
        &mut self,
        ino: Ino,
        row: &mut Row,
        record: &Record,
        origin: Origin,
    ) -> CatalogResult<Taken> {
        let id = match &record.body {
            Body::Version(version) => Some(version.id),
            Body::Place(place) | Body::Accepted(place) => {
                self.index_place(ino, place);
                Some(place.version)
            }
            Body::Others { token, .. } => {
                self.index_token(token, ino, VersionId::default());
                None
            }
            _ => None,
        };
        if let Some(id) = id
            && !row.object.split_off.contains_key(&id)
            && !row.object.versions.contains_key(&id)
        {
            let mut history = self.history(ino, id)?;
            if history.ended.is_some() {
                let taken = history.take(record, origin, id);
                // It is covered already, but what it lists may have come before it.
                self.listed.entry(ino).or_default().extend(history.lists());
                self.put_history(ino, id, history);
                return Ok(taken);
            }
        }
        if matches!(record.body, Body::Version(_) | Body::Place(_) | Body::Covered { .. }) {
            self.listed.entry(ino).or_default();
        }
        let taken = row.take(record, origin);
        if let (Body::Place(_), Taken::Lost) = (&record.body, taken) {
            self.note_ended(day_of(origin, self.tree.today()), ino);
        }
        Ok(taken)
    }

    /// Moves into the history what versions that are in the vault cover, if any came since the
    /// last time.
    pub(super) fn settle(&mut self, ino: Ino) -> CatalogResult<()> {
        let Some(mut listed) = self.listed.remove(&ino) else { return Ok(()) };
        let Some(mut row) = self.find_row(ino)? else { return Ok(()) };
        let lists = std::mem::take(&mut row.object.covered);
        let mut changed = false;
        for list in lists {
            if list.origin == Origin::Derived {
                // Perhaps what it stands for is in the vault by now.
                for id in list.value.covers {
                    let ended = self.history(ino, id)?.ended;
                    listed.extend(ended.map(|day| (id, day)));
                }
                changed = true;
                continue;
            }
            let counts = match list.value.version {
                Some(id) => {
                    row.object.place(id).is_some() && row.object.version(id).is_some()
                        || self.history(ino, id)?.is_placed()
                }
                None => true,
            };
            match (counts, list.origin) {
                (true, Origin::Published(brought)) => {
                    listed.extend(list.value.covers.iter().map(|covered| (*covered, brought.day)));
                    changed = true;
                }
                _ => row.object.covered.push(list),
            }
        }
        for (id, held) in &row.object.versions {
            if let Origin::Published(brought) = held.origin
                && row.object.places.contains_key(id)
            {
                listed.extend(held.value.covers.iter().map(|covered| (*covered, brought.day)));
            }
        }
        while let Some((id, day)) = listed.pop() {
            let before = self.history(ino, id)?;
            let mut history = before.clone();
            history.ended = Some(before.ended.map_or(day, |ended| ended.min(day)));
            let version = row.object.versions.get(&id);
            if version.is_some_and(|held| !matches!(held.origin, Origin::Published(_))) {
                // It is still to be sent from the row, where it must be covered meanwhile.
                let (stamp, origin) = (Stamp::ZERO, Origin::Derived);
                let value = CoveredList { version: None, covers: vec![id] };
                let held = Held { stamp, origin, value };
                if !row.object.covered.contains(&held) {
                    row.object.covered.push(held);
                }
                changed = true;
            } else if !row.object.split_off.contains_key(&id) {
                let moved = take_out(&mut row.object, row.is_folder, ino, id);
                changed |= !moved.is_empty();
                for (record, origin) in &moved {
                    history.take(record, *origin, id);
                }
                if !moved.is_empty() {
                    // What it lists is covered too, whether or not it is covered itself.
                    listed.extend(history.lists());
                }
            }
            if let Some(borrowed) = &mut row.object.borrowed
                && !borrowed.covered
                && borrowed.version.as_ref().is_some_and(|held| held.value.id == id)
            {
                borrowed.covered = true;
                changed = true;
            }
            if history != before {
                self.note_ended(history.ended.unwrap_or(day), ino);
                self.put_history(ino, id, history);
            }
        }
        if changed {
            self.put_row(ino, row);
        }
        Ok(())
    }

    /// Makes a version that the vault has the file's content. What it covers is told too, also
    /// where nobody has heard of it yet: it is kept as long as any old version.
    pub fn commit_version(&mut self, ino: Ino, new: NewVersion) -> CatalogResult<()> {
        self.act_on(ino)?;
        let mut row = self.row(ino)?;
        let NewVersion { id, stamp, covers, size, holes, base } = new;
        let covers = covers.into_iter().filter(|old| *old != id);
        let covers: Vec<VersionId> = covers.collect::<BTreeSet<_>>().into_iter().collect();
        let (machine, millis) = (self.tree.machine.clone(), self.tree.env.millis());
        let mut rest = covers;
        let first: Vec<VersionId> = rest.drain(..rest.len().min(COVERS_MAX)).collect();
        let version = Version { id, covers: first, size, holes, machine, millis, source: None };
        let subject = Subject::File(ino);
        self.clock.observe(stamp);
        let placed = self.stamp();
        let place = Place { version: id, base, changes: Vec::new(), base_size: None };
        let mut bodies = vec![(stamp, Body::Version(version)), (placed, Body::Place(place))];
        for some in rest.chunks(COVERS_MAX) {
            let body = Body::Covered { version: Some(id), covers: some.to_vec() };
            bodies.push((placed, body));
        }
        let shown = row.inode(ino).map(|inode| inode.attrs.ctime);
        for (stamp, body) in bodies {
            let record = Record::new(subject, stamp, body);
            self.take(ino, &mut row, &record, Origin::Unpublished)?;
        }
        // That a content has come to the vault is no change of the file.
        shown.into_iter().for_each(|time| row.set_change_time(time));
        self.put_row(ino, row);
        self.queue_unless_local(ino, None)?;
        self.settle(ino)?;
        self.show(ino)
    }

    /// What the first read of another client's token has shown: it is pinned from now on.
    pub fn pin_others(
        &mut self,
        ino: Ino,
        reference: &Reference,
        size: u64,
        is_list: bool,
    ) -> CatalogResult<()> {
        let mut row = self.row(ino)?;
        let Some(others) = &row.object.others else { return Ok(()) };
        if others.value.reference.is_some() || others.value.token != reference.token {
            return Ok(());
        }
        let (known, stamp) = (others.origin, others.stamp);
        let id =
            crate::catalog::format::names::version_of_others(&reference.token, &reference.identity);
        let version = Version {
            id,
            covers: Vec::new(),
            size,
            holes: Vec::new(),
            machine: super::show::OTHERS.to_owned(),
            millis: 0,
            source: None,
        };
        let base = match is_list {
            true => PlaceBase::Parts(reference.clone()),
            false => PlaceBase::Whole(reference.clone()),
        };
        let place = Place { version: id, base: Some(base), changes: Vec::new(), base_size: None };
        // What others know of the token without its content is told again with it.
        let origin = match known {
            Origin::Derived => Origin::Derived,
            _ => Origin::Unpublished,
        };
        let subject = Subject::File(ino);
        let (token, pinned) = (reference.token.clone(), Some(reference.clone()));
        let others = Body::Others { token, reference: pinned };
        row.take(&Record::new(subject, stamp, others), origin);
        for body in [Body::Version(version), Body::Place(place)] {
            let record = Record::new(subject, Stamp::ZERO, body);
            self.take(ino, &mut row, &record, origin)?;
        }
        self.put_row(ino, row);
        if origin == Origin::Unpublished {
            self.queue_unless_local(ino, None)?;
        }
        self.show(ino)
    }

    /// Notes which tokens a place names.
    pub(super) fn index_place(&mut self, ino: Ino, place: &Place) {
        let Some(base) = &place.base else { return };
        self.index_token(&base.reference().token, ino, place.version);
        if let PlaceBase::Parts(list) = base {
            let tag = self.tree.token_tag(&list.token);
            self.raw(Space::Meta, schema::unindexed(&tag), Some(encode(list)));
        }
        for (change, _) in &place.changes {
            self.index_token(&change.token, ino, place.version);
        }
    }

    fn index_token(&mut self, token: &crate::store::Token, ino: Ino, version: VersionId) {
        let key = schema::token(&self.tree.token_tag(token), ino, version);
        self.raw(Space::Meta, key, Some(encode(&())));
    }

    /// Forgets that a place names its tokens.
    pub(super) fn forget_place(&mut self, ino: Ino, place: &Place) {
        if let Some(base) = &place.base {
            let tag = self.tree.token_tag(&base.reference().token);
            self.raw(Space::Meta, schema::token(&tag, ino, place.version), None);
        }
    }
}

impl History {
    /// Whether its version can be read, or said to be damaged.
    fn is_placed(&self) -> bool {
        self.version.is_some() && self.place.is_some()
    }

    /// What its version covers, with the day of that.
    fn lists(&self) -> Vec<(VersionId, u64)> {
        match &self.version {
            Some(Held { origin: Origin::Published(brought), value, .. }) if self.is_placed() => {
                value.covers.iter().map(|covered| (*covered, brought.day)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes a record of its version in.
    pub(super) fn take(&mut self, record: &Record, origin: Origin, id: VersionId) -> Taken {
        let mut object = Object::default();
        object.versions.extend(self.version.take().map(|held| (id, held)));
        object.places.extend(self.place.take().map(|held| (id, held)));
        object.lost_places = std::mem::take(&mut self.lost);
        let taken = object.take(record, origin);
        self.version = object.versions.remove(&id);
        self.place = object.places.remove(&id);
        self.lost = object.lost_places;
        taken
    }
}

/// Takes a version out of an object, with its places.
fn take_out(object: &mut Object, is_folder: bool, ino: Ino, id: VersionId) -> Moved {
    let subject = if is_folder { Subject::Folder(ino) } else { Subject::File(ino) };
    let version = object.versions.remove(&id).into_iter();
    let mut moved: Moved = version
        .map(|held| (Record::new(subject, held.stamp, Body::Version(held.value)), held.origin))
        .collect();
    let lost = object.lost_places.extract_if(.., |held| held.value.version == id);
    let places = object.places.remove(&id).into_iter().chain(lost);
    moved.extend(
        places.map(|held| (Record::new(subject, held.stamp, Body::Place(held.value)), held.origin)),
    );
    moved
}

/// Records that go from a row into the history.
type Moved = Vec<(Record, Origin)>;

/// The day that a record counts for.
pub(super) fn day_of(origin: Origin, today: u64) -> u64 {
    match origin {
        Origin::Published(brought) => brought.day,
        Origin::Derived | Origin::Unpublished | Origin::Sent => today,
    }
}
