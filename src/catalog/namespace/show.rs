//! Keeps the entries in step with the rows: where each object stands, and under which name.
//!
//! This is `conflict::tree` piece by piece: what changes is computed again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::CatalogResult;
use super::txn::{Stale, Txn};
use crate::catalog::conflict::names::{Claim, Claimant, assign};
use crate::catalog::conflict::object::{Attributes, Held, Object, Origin, Times};
use crate::catalog::format::names::derive;
use crate::catalog::format::record::Name;
use crate::catalog::format::{Subject, VersionId};
use crate::catalog::local::entry::EntryClaim;
use crate::catalog::local::inode::{Ino, Kind, ROOT_INO, Time};
use crate::catalog::local::row::{Row, Standing};
use crate::catalog::local::schema;
use crate::db::{Space, encode};

/// The machine that names of other clients' files have in conflict names.
pub(super) const OTHERS: &str = "another client";

/// The number of the file that a copy becomes.
pub(super) fn copy_number(version: VersionId) -> Ino {
    derive("copy", &version.0, |_| false)
}

/// The number of a copy's link.
pub(super) fn copy_link(version: VersionId) -> u64 {
    derive("copy link", &version.0, |_| false)
}

impl Txn<'_> {
    /// Computes again where an object stands, and what stands beside it.
    pub(super) fn show(&mut self, ino: Ino) -> CatalogResult<()> {
        let Some(row) = self.find_row(ino)? else { return Ok(()) };
        if row.is_folder { self.show_folder(ino, row) } else { self.show_file(ino, row) }
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
            if self.find_row(*gone)?.is_some_and(|copy| copy.is_derived()) {
                self.remove_row(*gone);
                self.stale.push(Stale::Inode { ino: *gone, data: true });
            }
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
        let stamp = version.stamp;
        let derived = Origin::Derived;
        let nature = row.object.nature.clone().map(|h| Held { stamp, origin: derived, ..h });
        let attributes = row.object.attributes.as_ref().map(|h| h.value);
        let changed = crate::catalog::local::inode::time_of(stamp);
        let attributes = attributes.map(|value| Held {
            stamp,
            origin: derived,
            value: Attributes { changed, ..value },
        });
        let written = millis_time(version.value.millis);
        let times = Times { access: written, modification: written };
        let xattrs = row.object.xattrs.iter().map(|(name, held)| {
            (name.clone(), Held { stamp, origin: derived, value: held.value.clone() })
        });
        let link = copy_link(id);
        let value = Name {
            link,
            folder: name.folder,
            name: name.name.clone(),
            rank: stamp,
            machine: version.value.machine.clone(),
            millis: version.value.millis,
        };
        let object = Object {
            nature,
            attributes,
            times: Some(Held { stamp, origin: derived, value: times }),
            xattrs: xattrs.collect(),
            names: BTreeMap::from([(link, Held { stamp, origin: derived, value })]),
            split: Some(Held { stamp, origin: derived, value: (id, file) }),
            borrowed: Some(crate::catalog::conflict::object::Borrowed { covered: false, ..lent }),
            ..Object::default()
        };
        let local = now.map(|copy| copy.local).unwrap_or_default();
        let copy = Row { object, local, ..Row::of(Subject::File(number)) };
        if self.find_row(number)?.as_ref() != Some(&copy) {
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
            let lent = self.lent(ino, &row.object, id)?;
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

    fn show_folder(&mut self, ino: Ino, row: Row) -> CatalogResult<()> {
        if ino == ROOT_INO {
            return Ok(());
        }
        self.cut_circles(ino, &row)?;
        let row = self.row(ino)?;
        let mut wanted = Vec::new();
        if row.object.nature.is_some()
            && let Some(candidate) = row.object.candidate()
            && (!candidate.again || row.holdings.entries > 0)
        {
            let name = &candidate.name;
            let claimant = match row.is_derived() {
                true => Claimant::Other { number: ino },
                false => {
                    Claimant::Link { again: candidate.again, rank: name.rank, link: name.link }
                }
            };
            let folder = if row.is_cut { ROOT_INO } else { name.folder };
            wanted.push(standing(name, folder, claimant, ino));
        }
        self.stand(ino, wanted)
    }

    /// The folder that a folder is recorded to be in, if it lives.
    fn candidate_parent(
        &self,
        ino: Ino,
    ) -> CatalogResult<Option<(Ino, (crate::catalog::format::Stamp, Ino))>> {
        let Some(row) = self.find_row(ino)? else { return Ok(None) };
        if !row.is_folder || row.object.nature.is_none() {
            return Ok(None);
        }
        let candidate = row.object.candidate();
        let lives = |again: bool| !again || row.holdings.entries > 0;
        let candidate = candidate.filter(|candidate| lives(candidate.again));
        Ok(candidate.map(|candidate| (candidate.name.folder, (candidate.stamp, ino))))
    }

    /// The circle that a folder is in, and of it the one whose place is the latest.
    fn circle_of(&self, ino: Ino) -> CatalogResult<Option<Ino>> {
        let (mut at, mut latest, mut seen) = (ino, None, BTreeSet::new());
        while at != ROOT_INO && seen.insert(at) {
            let Some((parent, place)) = self.candidate_parent(at)? else { return Ok(None) };
            latest = latest.max(Some(place));
            at = parent;
        }
        Ok(latest.filter(|_| at == ino).map(|(_, number)| number))
    }

    /// Of each circle that this folder's place makes, the latest stands in the root.
    fn cut_circles(&mut self, ino: Ino, row: &Row) -> CatalogResult<()> {
        let mut cuts = BTreeSet::new();
        self.tree.db.scan(schema::CUTS, schema::CUTS, |key, _| {
            cuts.insert(schema::number(key, 1));
            Ok(true)
        })?;
        cuts.extend(self.cut_here.iter().copied());
        if row.holdings.folders == 0 && cuts.is_empty() && !row.is_cut {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for start in cuts.iter().copied().chain([ino]) {
            wanted.extend(self.circle_of(start)?);
        }
        for number in cuts.union(&wanted).copied().collect::<Vec<_>>() {
            let Some(mut folder) = self.find_row(number)? else { continue };
            let cut = wanted.contains(&number);
            if folder.is_cut == cut {
                continue;
            }
            folder.is_cut = cut;
            self.put_row(number, folder);
            let value = cut.then(|| encode(&()));
            self.raw(Space::Meta, schema::cut(number), value);
            match cut {
                true => drop(self.cut_here.insert(number)),
                false => drop(self.cut_here.remove(&number)),
            }
            if number != ino {
                self.show(number)?;
            }
        }
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
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        let was = |new: &Standing| had.iter().find(|old| same(old, new)).cloned();
        row.local.unlinked &= new.is_empty();
        row.standings = wanted.into_iter().map(|new| was(&new).unwrap_or(new)).collect();
        self.put_row(ino, row);
        let mut touched: BTreeMap<Ino, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (standing, change) in gone.iter().map(|s| (s, -1)).chain(new.iter().map(|s| (s, 1))) {
            self.claim(standing, change)?;
            let names = touched.entry(standing.folder).or_default();
            names.insert(standing.name.clone());
            names.extend(standing.shown.clone());
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
                let full = self.full_claim(folder, &claim, name)?;
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

    fn full_claim(&self, folder: Ino, claim: &EntryClaim, name: &[u8]) -> CatalogResult<Claim> {
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
        debug_assert!(said.is_some(), "a claim in {folder} of what is not there");
        let (machine, millis) = said.unwrap_or_default();
        Ok(Claim { claimant: claim.claimant, name: name.to_vec(), machine, millis })
    }
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
