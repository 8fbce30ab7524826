//! Versions of files: what is written here, what comes from others, and what is covered.

use super::tree::CatalogResult;
use super::txn::Txn;
use crate::catalog::conflict::object::{Held, Object, Origin, Taken};
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
            if history.ended.is_some() || history.version.is_some() {
                let taken = history.take(record, origin, id);
                self.put_history(ino, id, history);
                return Ok(taken);
            }
        }
        let taken = row.object.take(record, origin);
        if let (Body::Place(_), Taken::Lost) = (&record.body, taken) {
            self.note_ended(day_of(origin, self.tree.today()), ino);
        }
        Ok(taken)
    }

    /// Moves into the history what versions that are in the vault cover.
    pub(super) fn settle(&mut self, ino: Ino) -> CatalogResult<()> {
        let Some(mut row) = self.find_row(ino)? else { return Ok(()) };
        let mut listed: Vec<(VersionId, u64)> = Vec::new();
        for (id, held) in &row.object.versions {
            if let Origin::Published(brought) = held.origin
                && row.object.places.contains_key(id)
            {
                listed.extend(held.value.covers.iter().map(|covered| (*covered, brought.day)));
            }
        }
        let lists = std::mem::take(&mut row.object.covered);
        for list in lists {
            let placed = list.value.version.is_none_or(|id| row.object.places.contains_key(&id));
            let counts = match list.value.version {
                Some(id) if !placed => self.history(ino, id)?.place.is_some(),
                _ => placed,
            };
            match (counts, list.origin) {
                (true, Origin::Published(brought)) => {
                    listed.extend(list.value.covers.iter().map(|covered| (*covered, brought.day)));
                }
                _ => row.object.covered.push(list),
            }
        }
        let mut changed = !listed.is_empty();
        while let Some((id, day)) = listed.pop() {
            let mut history = self.history(ino, id)?;
            let before = history.ended;
            history.ended = Some(before.map_or(day, |ended| ended.min(day)));
            if !row.object.split_off.contains_key(&id)
                && let Some(version) = row.object.versions.remove(&id)
            {
                changed = true;
                history.place = row.object.places.remove(&id);
                let (lost, kept) = std::mem::take(&mut row.object.lost_places)
                    .into_iter()
                    .partition(|held: &Held<Place>| held.value.version == id);
                (history.lost, row.object.lost_places) = (lost, kept);
                // What it lists is covered too, whether or not it is covered itself.
                if let (Origin::Published(brought), Some(_)) = (version.origin, &history.place) {
                    listed.extend(version.value.covers.iter().map(|c| (*c, brought.day)));
                }
                history.version = Some(version);
            }
            if history.ended != before || changed {
                self.note_ended(history.ended.unwrap_or(day), ino);
                self.put_history(ino, id, history);
            }
        }
        if changed {
            self.put_row(ino, row);
        }
        Ok(())
    }

    /// Makes a version that the vault has the file's content. Gives the places of those that
    /// were never told to anybody, and that it takes the place of.
    pub fn commit_version(&mut self, ino: Ino, new: NewVersion) -> CatalogResult<Vec<Place>> {
        self.act_on(ino)?;
        let mut row = self.row(ino)?;
        let NewVersion { id, stamp, covers, size, holes, base } = new;
        let mut dropped = Vec::new();
        for old in &covers {
            let unpublished = |held: &Held<Version>| held.origin == Origin::Unpublished;
            if row.object.versions.get(old).is_some_and(unpublished) {
                row.object.versions.remove(old);
                if let Some(place) = row.object.places.remove(old) {
                    self.forget_place(ino, &place.value);
                    dropped.push(place.value);
                }
            }
        }
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
        for (stamp, body) in bodies {
            let record = Record::new(subject, stamp, body);
            self.take(ino, &mut row, &record, Origin::Unpublished)?;
        }
        self.put_row(ino, row);
        self.queue_unless_local(ino, None)?;
        self.settle(ino)?;
        self.show(ino)?;
        Ok(dropped)
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
        let Some(others) = &mut row.object.others else { return Ok(()) };
        if others.value.reference.is_some() || others.value.token != reference.token {
            return Ok(());
        }
        let known = others.origin;
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
        others.value.reference = Some(reference.clone());
        // What others know of the token without its content is told again with it.
        let origin = match known {
            Origin::Derived => Origin::Derived,
            _ => Origin::Unpublished,
        };
        others.origin = origin;
        let subject = Subject::File(ino);
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

/// The day that a record counts for.
pub(super) fn day_of(origin: Origin, today: u64) -> u64 {
    match origin {
        Origin::Published(brought) => brought.day,
        Origin::Derived | Origin::Unpublished | Origin::Sent => today,
    }
}
