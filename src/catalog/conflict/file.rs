//! One file: which of its contents are shown, and which of its links live
//! (docs/format.md, 8.2 and 8.3).

use std::collections::BTreeSet;

use super::object::{Borrowed, Held, Nature, Object};
use crate::catalog::format::names::derive;
use crate::catalog::format::record::{ObjectKind, Removal};
use crate::catalog::format::{Stamp, VersionId};

/// The link with which something stands again that lost its last (docs/format.md, 8.6).
pub fn link_again(link: u64) -> u64 {
    derive("again", &link.to_be_bytes(), |_| false)
}

/// A link that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveLink {
    /// Whether it was removed, and lives again because of a content that its removal had not seen.
    pub again: bool,
    /// What goes first among links of one name.
    pub rank: Stamp,
    /// The link.
    pub link: u64,
}

/// What is shown of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The content under its names; without one it is empty.
    pub first: Option<VersionId>,
    /// Contents that were written without knowledge of the first, each a file beside it.
    pub copies: Vec<VersionId>,
    /// Its links, those of the least rank first; links of one place are one.
    pub links: Vec<LiveLink>,
}

impl Object {
    /// Whether a version can be read, or said to be damaged: it has a place.
    fn is_placed(&self, id: VersionId) -> bool {
        self.version(id).is_some() && self.place(id).is_some()
    }

    /// The versions that were written to the file, and the one that it was split off as.
    pub fn ids(&self) -> impl Iterator<Item = VersionId> + '_ {
        let borrowed = self.borrowed.iter().filter_map(|b| Some(b.version.as_ref()?.value.id));
        self.versions.keys().copied().chain(borrowed)
    }

    /// The identities that are covered: a version counts once it has a place, and whether
    /// it is itself covered, or has become another file, does not matter.
    pub fn covered(&self) -> BTreeSet<VersionId> {
        let placed = self.ids().filter(|id| self.is_placed(*id)).filter_map(|id| self.version(id));
        let listed = placed.flat_map(|version| version.value.covers.iter());
        let counts = |version: Option<VersionId>| version.is_none_or(|id| self.is_placed(id));
        let besides = self.covered.iter().filter(|list| counts(list.value.version));
        let borrowed = self.borrowed.iter().filter(|borrowed| borrowed.covered);
        let borrowed = borrowed.filter_map(|borrowed| Some(borrowed.version.as_ref()?.value.id));
        let listed = listed.chain(besides.flat_map(|list| &list.value.covers)).copied();
        listed.chain(borrowed).collect()
    }

    /// What another file, to which one of the versions of this one was split off, has of it.
    pub fn lent(&self, from: u64, id: VersionId) -> Borrowed {
        let (version, place) = (self.versions.get(&id).cloned(), self.places.get(&id).cloned());
        let covered = self.covered().contains(&id) || self.taken().contains(&id);
        Borrowed { from, version, place, covered }
    }

    /// Versions that nothing covers, the first to be shown first.
    pub fn heads(&self) -> Vec<VersionId> {
        let covered = self.covered();
        let is_head = |id: &VersionId| {
            self.is_placed(*id) && !covered.contains(id) && !self.split_off.contains_key(id)
        };
        let mut heads: Vec<_> = self.ids().filter(is_head).collect();
        let pinned = self.others.as_ref().and_then(|held| held.value.version());
        heads.sort_by_key(|id| {
            let stamp = self.version(*id).map(|version| version.stamp);
            let first = stamp == Some(Stamp::ZERO) && pinned == Some(*id);
            std::cmp::Reverse((stamp, first, *id))
        });
        heads
    }

    /// What a removal of a file's last name took, having seen it.
    pub fn taken(&self) -> BTreeSet<VersionId> {
        let last: Vec<_> = self.removals.iter().filter(|removal| removal.value.last).collect();
        let mut taken: BTreeSet<_> =
            last.iter().flat_map(|removal| removal.value.takes.iter().copied()).collect();
        let others = self.versions.values().filter(|held| held.stamp == Stamp::ZERO);
        let others: Vec<_> = others.map(|held| held.value.id).collect();
        // Who takes no version of another client's token knew only that the token is there.
        let unread =
            |removal: &&&Held<Removal>| !removal.value.takes.iter().any(|id| others.contains(id));
        if self.others.is_some() && last.iter().any(|removal| unread(&removal)) {
            taken.extend(others);
        }
        taken
    }

    /// What is shown of a file, or of anything else that is no folder.
    pub fn shown(&self) -> Shown {
        self.shown_with(false)
    }

    /// As [`Object::shown`], where the file is perhaps `edited` here by what no removal has seen
    /// and no version names yet.
    pub fn shown_with(&self, edited: bool) -> Shown {
        let (heads, taken) = (self.heads(), self.taken());
        let mut shown: Vec<_> = heads.iter().copied().filter(|id| !taken.contains(id)).collect();
        let mut links = self.links(|link| !self.is_removed(link), false);
        if links.is_empty() {
            let latest = self.last_removed().filter(|_| edited || !shown.is_empty());
            links = self.links(|link| latest == Some(link), true);
        } else if shown.is_empty() && !edited {
            // A link that only stands for a removed one keeps nothing that was taken with that.
            let again: BTreeSet<u64> = self.names.keys().map(|link| link_again(*link)).collect();
            if links.iter().any(|live| !again.contains(&live.link)) {
                shown = heads;
            } else {
                links = Vec::new();
            }
        }
        let mut shown = shown.into_iter();
        Shown { first: shown.next(), copies: shown.collect(), links }
    }

    /// Whether it is a regular file of which nobody has committed anything that is shown: it has
    /// no names then.
    pub fn is_empty_shell(&self, shown: &Shown) -> bool {
        let is_file = |nature: &Held<Nature>| nature.value.kind == ObjectKind::File;
        shown.first.is_none() && self.others.is_none() && self.nature.as_ref().is_some_and(is_file)
    }

    /// Some of the links, least rank first; of those of one folder and name, the least.
    fn links(&self, wanted: impl Fn(u64) -> bool, again: bool) -> Vec<LiveLink> {
        let found = self.names.iter().filter(|(link, _)| wanted(**link));
        let mut links: Vec<_> = found
            .map(|(link, name)| LiveLink { again, rank: name.value.rank, link: *link })
            .collect();
        links.sort();
        let mut places = BTreeSet::new();
        links.retain(|live| {
            let name = &self.names[&live.link].value;
            places.insert((name.folder, name.name.clone()))
        });
        links
    }
}
