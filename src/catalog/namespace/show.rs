//! Keeps the entries in step with the rows: where each object stands, and under which name.
//!
//! This is `conflict::tree` piece by piece: what changes is computed again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::CatalogResult;
use super::txn::{Stale, Txn};
use crate::catalog::conflict::folder::Candidate;
use crate::catalog::conflict::names::{Claim, Claimant, assign, copy_link, copy_number};
use crate::catalog::conflict::object::{Attributes, Held, Object, Origin, Times};
use crate::catalog::format::record::Name;
use crate::catalog::format::{Stamp, Subject, VersionId};
use crate::catalog::local::entry::EntryClaim;
use crate::catalog::local::inode::{Ino, Kind, ROOT_INO, Time};
use crate::catalog::local::row::{Row, Standing, drop_derived};
use crate::catalog::local::schema;
use crate::db::{Space, encode};

/// The machine that names of other clients' files have in conflict names.
pub(super) const OTHERS: &str = "another client";

impl Txn<'_> {
    /// Computes again where an object stands, and what stands beside it, and whatever that
    /// changes. Within such a computation it is done later.
    pub(super) fn show(&mut self, ino: Ino) -> CatalogResult<()> {
        self.unshown.insert(ino);
        if self.is_showing { Ok(()) } else { self.show_all() }
    }

    /// Computes again where all stand that have changed.
    pub(super) fn show_all(&mut self) -> CatalogResult<()> {
        self.is_showing = true;
        self.not_in_circles.borrow_mut().clear();
        // A list, because each level of a deep tree may change the one above it.
        while let Some(ino) = self.unshown.pop_first() {
            let Some(row) = self.find_row(ino)? else { continue };
            if row.is_folder { self.show_folder(ino)? } else { self.show_file(ino, row)? }
        }
        self.is_showing = false;
        Ok(())
    }

    fn show_file(&mut self, ino: Ino, row: Row) -> CatalogResult<()> {
        let mut wanted = Vec::new();
        let mut copies = Vec::new();
        // The names of a copy that nobody has acted on are kept with its file.
        let is_copy = row.is_derived() && row.object.borrowed.is_some();
        if row.object.nature.is_some() && !is_copy {
            let shown = row.shown();
            if !row.is_empty_shell(&shown) {
                for live in &shown.links {
                    let name = &row.object.names[&live.link].value;
                    let (again, rank, link) = (live.again, live.rank, live.link);
                    let claimant = match row.is_derived() {
                        true => Claimant::Other { number: ino },
                        false => Claimant::Link { again, rank, link },
                    };
                    wanted.push(standing(name, name.folder, claimant, ino));
                }
                if let Some(beside) = shown.links.first() {
                    let name = row.object.names[&beside.link].value.clone();
                    for version in shown.copies {
                        let Some(held) = row.object.version(version) else { continue };
                        let claimant = Claimant::Copy { stamp: held.stamp, version };
                        let number = copy_number(version);
                        wanted.push(standing(&name, name.folder, claimant, number));
                        copies.push((version, name.clone()));
                    }
                }
            }
        }
        let before: BTreeSet<Ino> =
            row.standings.iter().map(|s| s.ino).filter(|number| *number != ino).collect();
        let after: BTreeSet<Ino> = copies.iter().map(|(id, _)| copy_number(*id)).collect();
        for (version, name) in copies {
            self.show_copy(ino, &row, version, &name)?;
        }
        self.lend(ino, &row)?;
        self.stand(ino, wanted)?;
        for gone in before.difference(&after) {
            self.hide_copy(*gone)?;
        }
        Ok(())
    }

    /// A conflict copy is no more; what others have told of it, if they have, is kept.
    fn hide_copy(&mut self, number: Ino) -> CatalogResult<()> {
        let Some(mut copy) = self.find_row(number)?.filter(Row::is_derived) else { return Ok(()) };
        self.stale.push(Stale::Inode { ino: number, data: true });
        drop_derived(&mut copy.object);
        copy.object.split.take_if(|held| held.origin == Origin::Derived);
        if copy.object.split.is_none() {
            copy.object.borrowed = None;
        }
        match copy.object == Object::default() {
            true => self.remove_row(number),
            false => self.put_row(number, copy),
        }
        Ok(())
    }

    /// The file that a conflict copy is shown as, until somebody acts on it.
    fn show_copy(&mut self, file: Ino, row: &Row, id: VersionId, name: &Name) -> CatalogResult<()> {
        let number = copy_number(id);
        let now = self.find_row(number)?;
        if now.as_ref().is_some_and(|copy| !copy.is_derived()) {
            return Ok(());
        }
        let lent = self.lent(file, &row.object, id)?;
        let Some(version) = lent.version.clone() else { return Ok(()) };
        let (stamp, origin) = (version.stamp, Origin::Derived);
        let before = now.unwrap_or_else(|| Row::of(Subject::File(number)));
        let mut copy = before.clone();
        // What others have told of it, though not yet that it is a file of its own, is kept.
        drop_derived(&mut copy.object);
        copy.object.nature =
            row.object.nature.as_ref().map(|h| Held { stamp, origin, value: h.value.clone() });
        if copy.object.attributes.is_none() {
            let changed = crate::catalog::local::inode::time_of(stamp);
            let of_file = row.object.attributes.as_ref().map(|h| h.value);
            let value = of_file.map(|value| Attributes { changed, ..value });
            copy.object.attributes = value.map(|value| Held { stamp, origin, value });
        }
        if copy.object.times.is_none() {
            let written = millis_time(version.value.millis);
            let value = Times { access: written, modification: written };
            copy.object.times = Some(Held { stamp, origin, value });
        }
        for (name, held) in &row.object.xattrs {
            let held = Held { stamp, origin, value: held.value.clone() };
            copy.object.xattrs.entry(name.clone()).or_insert(held);
        }
        let value = Name {
            link: copy_link(id),
            folder: name.folder,
            name: name.name.clone(),
            rank: stamp,
            machine: version.value.machine.clone(),
            millis: version.value.millis,
        };
        copy.object.names.entry(value.link).or_insert(Held { stamp, origin, value });
        let split = Held { stamp, origin, value: (id, file) };
        copy.object.split.get_or_insert(split);
        copy.object.borrowed =
            Some(crate::catalog::conflict::object::Borrowed { covered: false, ..lent });
        if before != copy {
            self.put_row(number, copy);
        }
        Ok(())
    }

    /// What a file has of a version that became, or is shown as, another.
    pub(super) fn lent(
        &self,
        file: Ino,
        object: &Object,
        id: VersionId,
    ) -> CatalogResult<crate::catalog::conflict::object::Borrowed> {
        let mut lent = object.lent(file, id);
        let history = self.history(file, id)?;
        lent.covered |= history.ended.is_some();
        lent.version = lent.version.or(history.version);
        lent.place = lent.place.or(history.place);
        Ok(lent)
    }

    /// Gives each version that was split off to its own file.
    fn lend(&mut self, ino: Ino, row: &Row) -> CatalogResult<()> {
        for (id, (_, to)) in row.object.split_off.clone() {
            let mut lent = self.lent(ino, &row.object, id)?;
            lent.covered |= self.history(to, id)?.ended.is_some();
            let mut copy = self.find_row(to)?.unwrap_or_else(|| Row::of(Subject::File(to)));
            if copy.object.borrowed.as_ref() != Some(&lent) {
                copy.object.borrowed = Some(lent);
                self.put_row(to, copy);
                self.show(to)?;
                self.stale.push(Stale::Inode { ino: to, data: true });
            }
        }
        Ok(())
    }

    fn show_folder(&mut self, ino: Ino) -> CatalogResult<()> {
        if ino == ROOT_INO {
            return Ok(());
        }
        let mut row = self.row(ino)?;
        let place = self.place_of(ino, &row)?;
        let of = place.as_ref().filter(|_| !row.is_derived()).map(|place| place.name.folder);
        let changed = row.counted != of;
        if changed {
            let before = std::mem::replace(&mut row.counted, of);
            self.put_row(ino, row);
            for (folder, change) in before.map(|f| (f, -1)).into_iter().chain(of.map(|f| (f, 1))) {
                self.count_living(folder, change)?;
                self.show(folder)?;
            }
        }
        self.cut_circles(ino, changed)?;
        let row = self.row(ino)?;
        let wanted = place.map(|candidate| {
            let name = &candidate.name;
            let claimant = match row.is_derived() {
                true => Claimant::Other { number: ino },
                false => {
                    Claimant::Link { again: candidate.again, rank: name.rank, link: name.link }
                }
            };
            let folder = if row.is_cut { ROOT_INO } else { name.folder };
            standing(name, folder, claimant, ino)
        });
        self.stand(ino, wanted.into_iter().collect())
    }

    /// One more, or one less, by which a folder lives.
    fn count_living(&mut self, folder: Ino, change: i64) -> CatalogResult<()> {
        let row = self.find_row(folder)?;
        let mut row = row.unwrap_or_else(|| Row::of(Subject::Folder(folder)));
        row.holdings.living = row.holdings.living.saturating_add_signed(change);
        self.put_row(folder, row);
        Ok(())
    }

    /// Where a folder is recorded to be, if it lives.
    fn place_of(&self, ino: Ino, row: &Row) -> CatalogResult<Option<Candidate>> {
        let Some(candidate) = recorded_place(row) else { return Ok(None) };
        let lives = !candidate.again
            || row.holdings.living > 0 && self.circle(ino)?.is_none_or(|circle| lives(&circle));
        Ok(Some(candidate).filter(|_| lives))
    }

    /// The circle that a folder would be in, if it and all above it stood where they are
    /// recorded, whether or not they live.
    fn circle(&self, ino: Ino) -> CatalogResult<Option<Vec<OfCircle>>> {
        // Where folders are recorded to be does not change while their standings are computed.
        let mut others = self.not_in_circles.borrow_mut();
        let (mut at, mut seen, mut circle) = (ino, BTreeSet::new(), Vec::new());
        while at != ROOT_INO && !others.contains(&at) && seen.insert(at) {
            let row = self.find_row(at)?;
            let candidate = row.as_ref().and_then(recorded_place);
            let (Some(row), Some(candidate)) = (row, candidate) else { break };
            let (again, above, stamp) = (candidate.again, candidate.name.folder, candidate.stamp);
            let (living, counted) = (row.holdings.living, row.counted == Some(above));
            circle.push(OfCircle { ino: at, again, stamp, living, counted });
            at = above;
        }
        // What leads to a circle is not of it.
        let first = circle.iter().position(|folder| folder.ino == at && seen.contains(&at));
        let leads = first.unwrap_or(circle.len());
        others.extend(circle[..leads].iter().map(|folder| folder.ino));
        Ok(Some(circle).filter(|_| first == Some(0)))
    }

    /// The folders that are cut out of a circle.
    pub(super) fn cuts(&mut self) -> CatalogResult<BTreeSet<Ino>> {
        if let Some(cuts) = &self.cuts {
            return Ok(cuts.clone());
        }
        let mut cuts = BTreeSet::new();
        self.tree.db.scan(schema::CUTS, schema::CUTS, |key, _| {
            cuts.insert(schema::number(key, 1));
            Ok(true)
        })?;
        self.cuts = Some(cuts.clone());
        Ok(cuts)
    }

    /// Of each circle that there is, and that this folder's new place makes, the latest stands in
    /// the root.
    fn cut_circles(&mut self, ino: Ino, is_new: bool) -> CatalogResult<()> {
        let cuts = self.cuts()?;
        if cuts.is_empty() && !is_new {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for start in cuts.iter().copied().chain([ino]) {
            let circle = self.circle(start)?.filter(|circle| lives(circle));
            let latest = circle.iter().flatten().max_by_key(|folder| (folder.stamp, folder.ino));
            wanted.extend(latest.map(|folder| folder.ino));
        }
        for number in cuts.symmetric_difference(&wanted).copied() {
            let Some(mut folder) = self.find_row(number)? else { continue };
            folder.is_cut = wanted.contains(&number);
            self.raw(Space::Meta, schema::cut(number), folder.is_cut.then(|| encode(&())));
            self.put_row(number, folder);
            if number != ino {
                self.show(number)?;
            }
        }
        self.cuts = Some(wanted);
        Ok(())
    }

    /// Takes an object, whose records are gone, out of the entries.
    pub(super) fn show_nothing(&mut self, ino: Ino) -> CatalogResult<()> {
        self.stand(ino, Vec::new())
    }

    /// Makes an object stand where it is wanted, and nowhere else.
    fn stand(&mut self, ino: Ino, wanted: Vec<Standing>) -> CatalogResult<()> {
        let mut row = self.row(ino)?;
        let same = |a: &Standing, b: &Standing| {
            (a.folder, &a.name, &a.claimant, a.ino) == (b.folder, &b.name, &b.claimant, b.ino)
        };
        let had = std::mem::take(&mut row.standings);
        let gone: Vec<Standing> =
            had.iter().filter(|old| !wanted.iter().any(|new| same(old, new))).cloned().collect();
        let new: Vec<Standing> =
            wanted.iter().filter(|new| !had.iter().any(|old| same(old, new))).cloned().collect();
        // A conflict name has the machine and the minute of the record, which may be another now.
        let lost: Vec<Standing> = had.iter().filter(|old| old.shown.is_some()).cloned().collect();
        if gone.is_empty() && new.is_empty() && lost.is_empty() {
            return Ok(());
        }
        let was = |new: &Standing| had.iter().find(|old| same(old, new)).cloned();
        // What waits was removed with its last name, also if another content brings that back.
        row.local.unlinked &= new.is_empty() || row.local.dirty.is_some();
        row.standings = wanted.into_iter().map(|new| was(&new).unwrap_or(new)).collect();
        self.put_row(ino, row);
        let mut touched: BTreeMap<Ino, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (standing, change) in gone.iter().map(|s| (s, -1)).chain(new.iter().map(|s| (s, 1))) {
            self.claim(standing, change)?;
            let names = touched.entry(standing.folder).or_default();
            names.insert(standing.name.clone());
            names.extend(standing.shown.clone());
        }
        for standing in lost {
            touched.entry(standing.folder).or_default().insert(standing.name);
        }
        for (folder, names) in touched {
            self.assign_names(folder, names)?;
            // A removed folder lives as long as anything in it does.
            if folder != ROOT_INO && self.find_row(folder)?.is_some_and(|row| row.is_folder) {
                self.show(folder)?;
            }
        }
        Ok(())
    }

    fn claim(&mut self, standing: &Standing, change: i64) -> CatalogResult<()> {
        let row = self.find_row(standing.ino)?;
        let plain = |row: &Row| if row.is_folder { Kind::Dir } else { Kind::File };
        let kind = row.map_or(Kind::File, |row| row.kind().unwrap_or(plain(&row)));
        let claim = EntryClaim { claimant: standing.claimant, ino: standing.ino, kind };
        let mut entry = self.entry(standing.folder, &standing.name)?;
        let same = |other: &EntryClaim| (other.claimant, other.ino) == (claim.claimant, claim.ino);
        entry.claims.retain(|other| !same(other));
        if change > 0 {
            entry.claims.push(claim);
            entry.claims.sort();
        } else if entry.holder.as_ref().is_some_and(same) {
            entry.holder = None;
            self.stale.push(Stale::Entry { parent: standing.folder, name: entry.name.clone() });
        }
        self.put_entry(standing.folder, entry);
        if change < 0
            && let Some(shown) = &standing.shown
        {
            let mut entry = self.entry(standing.folder, shown)?;
            if entry.holder.as_ref().is_some_and(same) {
                entry.holder = None;
                self.stale.push(Stale::Entry { parent: standing.folder, name: shown.clone() });
                self.put_entry(standing.folder, entry);
            }
        }
        let folder = self.find_row(standing.folder)?;
        let mut folder = folder.unwrap_or_else(|| Row::of(Subject::Folder(standing.folder)));
        let holdings = &mut folder.holdings;
        holdings.entries = holdings.entries.saturating_add_signed(change);
        if kind == Kind::Dir {
            let change = i32::try_from(change).unwrap_or(0);
            holdings.folders = holdings.folders.saturating_add_signed(change);
        } else if matches!(standing.claimant, Claimant::Link { .. }) {
            holdings.living = holdings.living.saturating_add_signed(change);
        }
        self.put_row(standing.folder, folder);
        Ok(())
    }

    /// Gives the names of a folder to those that claim them, as far as `touched` may change it.
    fn assign_names(&mut self, folder: Ino, touched: BTreeSet<Vec<u8>>) -> CatalogResult<()> {
        let row = self.find_row(folder)?.unwrap_or_else(|| Row::of(Subject::Folder(folder)));
        let (contested, given) = (row.holdings.contested.clone(), row.holdings.given.clone());
        let mut simple = contested.is_empty() && given.is_empty();
        for name in &touched {
            simple &= !is_contested(&self.entry(folder, name)?.claims);
        }
        if simple {
            for name in touched {
                let claim = self.entry(folder, &name)?.claims.first().copied();
                self.hold(folder, &name, claim)?;
            }
            return Ok(());
        }
        let mut names: BTreeSet<Vec<u8>> = contested.into_iter().chain(touched).collect();
        names.extend(given);
        let (mut fought, mut claims) = (BTreeSet::new(), Vec::new());
        let mut found = BTreeMap::new();
        for name in &names {
            let entry = self.entry(folder, name)?;
            if !is_contested(&entry.claims) {
                self.hold(folder, name, entry.claims.first().copied())?;
                if let Some(claim) = entry.claims.first() {
                    self.set_shown(folder, claim, name, None)?;
                }
                continue;
            }
            fought.insert(name.clone());
            for claim in entry.claims {
                let full = self.full_claim(&claim, name)?;
                found.insert(full.claimant, claim);
                claims.push(full);
            }
        }
        let is_had = |name: &[u8]| {
            let claims = self.entry(folder, name)?.claims;
            let is_copy = |claim: &EntryClaim| matches!(claim.claimant, Claimant::Copy { .. });
            Ok::<_, super::tree::CatalogError>(claims.iter().any(|claim| !is_copy(claim)))
        };
        let named = assign(claims, is_had)?;
        let given: Vec<Vec<u8>> = named
            .iter()
            .filter(|(name, claim)| **name != claim.name)
            .map(|(n, _)| n.clone())
            .collect();
        for name in fought.iter().filter(|name| !named.contains_key(*name)) {
            self.hold(folder, name, None)?; // only copies claim it
        }
        for (name, claim) in named {
            let Some(short) = found.get(&claim.claimant).copied() else { continue };
            self.hold(folder, &name, Some(short))?;
            let shown = (name != claim.name).then(|| name.clone());
            self.set_shown(folder, &short, &claim.name, shown)?;
        }
        let mut row = self.find_row(folder)?.unwrap_or(row);
        row.holdings.contested = fought.into_iter().collect();
        row.holdings.given = given;
        self.put_row(folder, row);
        Ok(())
    }

    fn hold(&mut self, folder: Ino, name: &[u8], claim: Option<EntryClaim>) -> CatalogResult<()> {
        let mut entry = self.entry(folder, name)?;
        if entry.holder != claim {
            entry.holder = claim;
            self.stale.push(Stale::Entry { parent: folder, name: name.to_vec() });
            self.put_entry(folder, entry);
        }
        Ok(())
    }

    /// The object whose row has the standing of a claim.
    fn owner_of(&self, claim: &EntryClaim) -> CatalogResult<Ino> {
        match claim.claimant {
            Claimant::Copy { .. } => {
                let copy = self.find_row(claim.ino)?;
                let split = copy.and_then(|row| row.object.split).map(|held| held.value.1);
                Ok(split.unwrap_or(claim.ino))
            }
            Claimant::Link { .. } | Claimant::Other { .. } => Ok(claim.ino),
        }
    }

    fn set_shown(
        &mut self,
        folder: Ino,
        claim: &EntryClaim,
        name: &[u8],
        shown: Option<Vec<u8>>,
    ) -> CatalogResult<()> {
        let owner = self.owner_of(claim)?;
        let Some(mut row) = self.find_row(owner)? else { return Ok(()) };
        let found = row.standings.iter_mut().find(|standing| {
            (standing.folder, &standing.name[..], standing.claimant)
                == (folder, name, claim.claimant)
        });
        if let Some(standing) = found
            && standing.shown != shown
        {
            standing.shown = shown;
            self.put_row(owner, row);
        }
        Ok(())
    }

    fn full_claim(&self, claim: &EntryClaim, name: &[u8]) -> CatalogResult<Claim> {
        let owner = self.find_row(self.owner_of(claim)?)?.unwrap_or_default();
        let of_name = |link: u64| {
            let held = owner.object.names.get(&link);
            held.map(|held| (held.value.machine.clone(), held.value.millis))
        };
        let said = match claim.claimant {
            Claimant::Link { link, .. } => of_name(link),
            Claimant::Copy { version, .. } => {
                let held = owner.object.version(version);
                held.map(|held| (held.value.machine.clone(), held.value.millis))
            }
            Claimant::Other { .. } => Some((OTHERS.to_owned(), 0)),
        };
        // What has changed and is not computed again yet may claim what it has no more.
        let (machine, millis) = said.unwrap_or_default();
        Ok(Claim { claimant: claim.claimant, name: name.to_vec(), machine, millis })
    }
}

/// A folder of a circle.
struct OfCircle {
    ino: Ino,
    again: bool,
    stamp: Stamp,
    /// By how much it lives.
    living: u64,
    /// Whether it counts for the one above it.
    counted: bool,
}

/// Whether a circle lives: not by itself, but by a link that was not removed, or by what is in
/// it and not of it.
fn lives(circle: &[OfCircle]) -> bool {
    let below = circle.iter().cycle().skip(circle.len().saturating_sub(1));
    circle
        .iter()
        .zip(below)
        .any(|(folder, below)| !folder.again || folder.living > u64::from(below.counted))
}

/// Where a folder is recorded to be, whether or not it lives.
fn recorded_place(row: &Row) -> Option<Candidate> {
    let is_known = row.is_folder && row.object.nature.is_some();
    if is_known { row.object.candidate() } else { None }
}

fn standing(name: &Name, folder: Ino, claimant: Claimant, ino: Ino) -> Standing {
    Standing { folder, name: name.name.clone(), shown: None, claimant, ino }
}

fn is_contested(claims: &[EntryClaim]) -> bool {
    claims.len() > 1 || claims.iter().any(|c| matches!(c.claimant, Claimant::Copy { .. }))
}

/// A moment from milliseconds since 1970.
pub(super) fn millis_time(millis: u64) -> Time {
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    Time { secs: (millis / 1000).cast_signed(), nanos }
}
