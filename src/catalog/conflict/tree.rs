//! The whole tree of a set of records: what every implementation must come to
//! (docs/format.md, 8). The drive keeps it up to date piece by piece; here it is computed at
//! once, to be compared with.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Shown;
use super::folder::Candidate;
use super::names::{Claim, Claimant, assign};
use super::object::{Object, Origin};
use crate::catalog::format::names::derive;
use crate::catalog::format::record::{Name, ROOT};
use crate::catalog::format::{Body, Record, Subject, VersionId};

/// All objects of a vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Files, and whatever else is no folder.
    pub files: BTreeMap<u64, Object>,
    /// Folders.
    pub folders: BTreeMap<u64, Object>,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub subject: Subject,
    /// Of a file, the content that is shown.
    pub version: Option<VersionId>,
    /// The link, or none for a copy.
    pub link: Option<u64>,
}

/// The folders by number, each with its entries by name.
pub type Tree = BTreeMap<u64, BTreeMap<Vec<u8>, Entry>>;

impl Objects {
    /// The objects of a set of records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut objects = Self::default();
        records.into_iter().for_each(|record| objects.take(record));
        objects.lend();
        objects
    }

    fn take(&mut self, record: &Record) {
        let object = match record.subject {
            Subject::Vault => return,
            Subject::File(number) => self.files.entry(number).or_default(),
            Subject::Folder(number) => self.folders.entry(number).or_default(),
        };
        object.take(record, Origin::Unpublished);
        if let (Body::Split { version, file }, Subject::File(to)) = (&record.body, record.subject) {
            let from = self.files.entry(*file).or_default();
            let split = (record.stamp, to);
            let least = from.split_off.entry(*version).or_insert(split);
            *least = split.min(*least);
        }
    }

    /// Gives each version that was split off to its own file.
    fn lend(&mut self) {
        let mut lent = Vec::new();
        for (number, file) in &self.files {
            lent.extend(file.split_off.iter().map(|(id, (_, to))| (*to, file.lent(*number, *id))));
        }
        for (to, borrowed) in lent {
            self.files.entry(to).or_default().borrowed = Some(borrowed);
        }
    }

    /// The tree.
    pub fn tree(&self) -> Tree {
        let files = self.shown();
        let places = self.folder_places(&files);
        let mut claims: BTreeMap<u64, Vec<(Claim, Entry)>> = BTreeMap::new();
        for folder in places.keys().copied().chain([ROOT]) {
            claims.entry(folder).or_default();
        }
        for (number, (parent, candidate)) in &places {
            let name = &candidate.name;
            let (rank, link) = (name.rank, name.link);
            let claimant = Claimant::Link { again: candidate.again, rank, link };
            let entry =
                Entry { subject: Subject::Folder(*number), version: None, link: Some(name.link) };
            claims.entry(*parent).or_default().push((claim(claimant, name), entry));
        }
        for (number, file, shown) in &files {
            for live in &shown.links {
                let name = &file.names[&live.link].value;
                let claimant =
                    Claimant::Link { again: live.again, rank: live.rank, link: live.link };
                let subject = Subject::File(*number);
                let entry = Entry { subject, version: shown.first, link: Some(live.link) };
                claims.entry(name.folder).or_default().push((claim(claimant, name), entry));
            }
            let Some(beside) = shown.links.first() else { continue };
            for version in &shown.copies {
                let name = &file.names[&beside.link].value;
                let Some(held) = file.version(*version) else { continue };
                let claimant = Claimant::Copy { stamp: held.stamp, version: *version };
                let (machine, millis) = (held.value.machine.clone(), held.value.millis);
                let copy = Claim { claimant, name: name.name.clone(), machine, millis };
                let subject = Subject::File(derive("copy", &version.0, |_| false));
                let entry = Entry { subject, version: Some(*version), link: None };
                claims.entry(name.folder).or_default().push((copy, entry));
            }
        }
        let known = |folder: &u64| *folder == ROOT || places.contains_key(folder);
        claims.into_iter().filter(|(folder, _)| known(folder)).map(named).collect()
    }

    /// The files of which anything is shown, and what.
    fn shown(&self) -> Vec<(u64, &Object, Shown)> {
        let known = self.files.iter().filter(|(_, file)| file.nature.is_some());
        let all = known.map(|(number, file)| (*number, file, file.shown()));
        all.filter(|(_, file, shown)| !file.is_empty_shell(shown)).collect()
    }

    /// The folders that live, with the folder that each stands in.
    fn folder_places(&self, files: &[(u64, &Object, Shown)]) -> BTreeMap<u64, (u64, Candidate)> {
        let exists = |number: &u64| {
            *number == ROOT || self.folders.get(number).is_some_and(|f| f.nature.is_some())
        };
        let candidates: BTreeMap<u64, Candidate> = self
            .folders
            .iter()
            .filter(|(number, folder)| **number != ROOT && folder.nature.is_some())
            .filter_map(|(number, folder)| Some((*number, folder.candidate()?)))
            .collect();
        // The least set: nothing is in it but for a reason that is in it already.
        let mut open: Vec<u64> =
            candidates.iter().filter(|(_, c)| !c.again).map(|(number, _)| *number).collect();
        for (_, file, shown) in files {
            open.extend(shown.links.iter().map(|live| file.names[&live.link].value.folder));
        }
        let mut living = BTreeSet::new();
        while let Some(number) = open.pop() {
            if exists(&number) && living.insert(number) {
                open.extend(candidates.get(&number).map(|candidate| candidate.name.folder));
            }
        }
        let mut places: BTreeMap<u64, (u64, Candidate)> = candidates
            .into_iter()
            .filter(|(number, candidate)| living.contains(number) && exists(&candidate.name.folder))
            .map(|(number, candidate)| (number, (candidate.name.folder, candidate)))
            .collect();
        for number in circles(&places) {
            if let Some((parent, _)) = places.get_mut(&number) {
                *parent = ROOT;
            }
        }
        // What hangs below a folder that is not known waits for it.
        loop {
            let before = places.len();
            let known: BTreeSet<u64> = places.keys().copied().chain([ROOT]).collect();
            places.retain(|_, (parent, _)| known.contains(parent));
            if places.len() == before {
                return places;
            }
        }
    }
}

/// Of each circle of folders, the one whose place has the latest stamp.
fn circles(places: &BTreeMap<u64, (u64, Candidate)>) -> Vec<u64> {
    let (mut seen, mut cut) = (BTreeSet::new(), Vec::new());
    for &start in places.keys() {
        let (mut path, mut at) = (Vec::new(), start);
        while let Some((parent, _)) = places.get(&at)
            && seen.insert(at)
        {
            path.push(at);
            at = *parent;
        }
        if let Some(first) = path.iter().position(|number| *number == at) {
            let latest = path[first..].iter().max_by_key(|n| (places[*n].1.stamp, **n));
            cut.extend(latest);
        }
    }
    cut
}

fn claim(claimant: Claimant, name: &Name) -> Claim {
    let (machine, millis) = (name.machine.clone(), name.millis);
    Claim { claimant, name: name.name.clone(), machine, millis }
}

fn named((folder, claims): (u64, Vec<(Claim, Entry)>)) -> (u64, BTreeMap<Vec<u8>, Entry>) {
    let entries: BTreeMap<Claim, Entry> = claims.into_iter().collect();
    let nobody_else = |_: &[u8]| Ok::<_, std::convert::Infallible>(false);
    let Ok(named) = assign(entries.keys().cloned().collect(), nobody_else);
    let entry = |(name, claim): (Vec<u8>, Claim)| (name, entries[&claim].clone());
    (folder, named.into_iter().map(entry).collect())
}
