//! What must be so, at any time and in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::house::{Machine, Segment};
use crate::catalog::conflict::names::Claimant;
use crate::catalog::conflict::object::Origin;
use crate::catalog::conflict::tree::Objects;
use crate::catalog::format::record::ROOT;
use crate::catalog::format::{Record, Subject, VersionId};
use crate::catalog::local::entry::{Entry, EntryClaim};
use crate::catalog::local::inode::{Ino, Inode, Kind, ROOT_INO};
use crate::catalog::local::row::{Holdings, Row};
use crate::catalog::local::schema;
use crate::catalog::namespace::{Stale, Tree};
use crate::db::decode;

/// A name and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) ino: Ino,
    pub(super) kind: Kind,
    pub(super) content: Option<VersionId>,
    pub(super) mode: u16,
}

/// All names that are reached from the root.
pub(super) type Listing = BTreeMap<(Ino, String), Shown>;

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// What a tree shows.
pub(super) fn listing(tree: &Tree) -> Listing {
    let (mut open, mut seen, mut found) = (vec![ROOT_INO], BTreeSet::new(), Listing::new());
    while let Some(folder) = open.pop() {
        assert!(seen.insert(folder), "folder {folder} is reached twice");
        let mut names = Vec::new();
        tree.list(folder, 0, |_, name, link| {
            names.push((name.to_vec(), *link));
            true
        })
        .unwrap();
        for (name, link) in names {
            let inode = tree.lookup(folder, &name).unwrap();
            assert_eq!((inode.ino, inode.kind), (link.ino, link.kind), "{}", text(&name));
            assert!(inode.local.nlink > 0, "{} is shown and has no name", text(&name));
            if inode.is_dir() {
                open.push(inode.ino);
            }
            let content = inode.content.id;
            let (ino, kind, mode) = (inode.ino, inode.kind, inode.attrs.perm);
            found.insert((folder, text(&name)), Shown { ino, kind, content, mode });
        }
    }
    found
}

/// What a set of records shows.
pub(super) fn expected<'a>(records: impl IntoIterator<Item = &'a Record>) -> Listing {
    let objects = Objects::of(records);
    let tree = objects.tree();
    let (mut open, mut found) = (vec![ROOT], Listing::new());
    while let Some(folder) = open.pop() {
        for (name, entry) in &tree[&folder] {
            let object = match entry.subject {
                Subject::Folder(number) => {
                    open.push(number);
                    objects.folders.get(&number)
                }
                Subject::File(number) => objects.files.get(&number),
                Subject::Vault => None,
            };
            // A copy has the kind and the mode of its file until it is one itself.
            let of_file = || {
                let has = |object: &&crate::catalog::conflict::object::Object| {
                    entry.version.is_some_and(|id| object.versions.contains_key(&id))
                };
                objects.files.values().find(has)
            };
            let itself = object.filter(|_| entry.link.is_some());
            let shown = itself.or_else(of_file).unwrap();
            let own = object.and_then(|object| object.attributes.as_ref());
            let attributes = own.or(shown.attributes.as_ref());
            let kind = Kind::from(shown.nature.as_ref().unwrap().value.kind);
            let (ino, content) = (entry.subject.number().unwrap(), entry.version);
            let mode = attributes.map_or(0o600, |held| held.value.mode);
            found.insert((folder, text(name)), Shown { ino, kind, content, mode });
        }
    }
    found
}

/// Nothing of what others know, and nothing else, waits here.
pub(super) fn is_calm(tree: &Tree) -> bool {
    let mut calm = true;
    each_row(tree, |_, row| {
        row.each_origin(|origin| {
            calm &= !matches!(origin, Origin::Unpublished | Origin::Sent)
                || row.standings.is_empty() && row.known.is_empty();
        });
        calm &= row.local.dirty.is_none();
    });
    calm
}

pub(super) fn each_row(tree: &Tree, mut each: impl FnMut(Ino, &Row)) {
    tree.db()
        .scan(schema::ROWS, schema::ROWS, |key, value| {
            each(schema::number(key, 1), &decode(&value)?);
            Ok(true)
        })
        .unwrap();
}

fn entries(tree: &Tree) -> Vec<(Ino, Entry)> {
    let mut found = Vec::new();
    let keep = |key: &[u8], value: Vec<u8>| {
        found.push((schema::number(key, 1), decode(&value)?));
        Ok(true)
    };
    tree.db().scan(b"D", b"D", keep).unwrap();
    found
}

/// The names of each file and folder, by what is shown.
pub(super) fn check_links(tree: &Tree) {
    let shown = listing(tree);
    let mut names: BTreeMap<Ino, BTreeSet<(Ino, String)>> = BTreeMap::new();
    let mut folders: BTreeMap<Ino, u32> = BTreeMap::from([(ROOT_INO, 0)]);
    for ((folder, name), what) in &shown {
        names.entry(what.ino).or_default().insert((*folder, name.clone()));
        if what.kind == Kind::Dir {
            *folders.entry(*folder).or_default() += 1;
            folders.entry(what.ino).or_default();
            assert_eq!(tree.parent_of(what.ino).unwrap(), *folder);
        }
    }
    for (ino, names) in names {
        let inode = tree.inode(ino).unwrap();
        let links = match inode.is_dir() {
            true => 2 + folders[&ino],
            false => u32::try_from(names.len()).unwrap(),
        };
        assert_eq!(inode.local.nlink, links, "{ino} {names:?}");
        let found = tree.links_of(ino).unwrap().into_iter();
        let found: BTreeSet<_> = found.map(|link| (link.parent, text(&link.name))).collect();
        assert_eq!(found, names);
        let mut path = tree.path_of(ino).unwrap().unwrap();
        path.insert(0, b'/');
        let mut at = ROOT_INO;
        for name in path[1..].split(|byte| *byte == b'/') {
            at = shown[&(at, text(name))].ino;
        }
        assert_eq!(at, ino);
    }
    assert_eq!(tree.inode(ROOT_INO).unwrap().local.nlink, 2 + folders[&ROOT_INO]);
}

/// Rows and entries say the same.
pub(super) fn check(tree: &Tree) {
    let mut claims: BTreeMap<(Ino, Vec<u8>), Vec<EntryClaim>> = BTreeMap::new();
    let mut holders: BTreeMap<(Ino, Vec<u8>), EntryClaim> = BTreeMap::new();
    let mut holdings: BTreeMap<Ino, Holdings> = BTreeMap::new();
    let (mut cuts, mut said) = (BTreeSet::new(), BTreeSet::new());
    let mut rows = BTreeMap::new();
    each_row(tree, |ino, row| drop(rows.insert(ino, row.clone())));
    for (ino, row) in &rows {
        let standings = row.standings.iter().map(|s| (s.folder, &s.name, s.claimant));
        let unique: BTreeSet<_> = standings.clone().collect();
        assert_eq!(unique.len(), standings.count(), "{ino} stands twice in one place");
        for standing in &row.standings {
            let what = &rows[&standing.ino];
            let kind = what.kind().unwrap();
            let claim = EntryClaim { claimant: standing.claimant, ino: standing.ino, kind };
            let place = (standing.folder, standing.name.clone());
            claims.entry(place).or_default().push(claim);
            let shown = (standing.folder, standing.shown().to_vec());
            let other = holders.insert(shown, claim);
            assert!(other.is_none(), "{} is had twice", text(standing.shown()));
            let of = holdings.entry(standing.folder).or_default();
            of.entries += 1;
            of.folders += u32::from(kind == Kind::Dir);
            let is_link = matches!(claim.claimant, Claimant::Link { .. });
            of.living += u64::from(is_link && kind != Kind::Dir);
            if let Claimant::Copy { version, .. } = claim.claimant {
                assert_eq!(what.object.split.as_ref().unwrap().value, (version, *ino));
            }
        }
        if let Some(above) = row.counted {
            holdings.entry(above).or_default().living += 1;
        }
        if row.is_cut {
            cuts.insert(*ino);
        }
        check_versions(tree, *ino, row);
    }
    for ((folder, name), all) in &mut claims {
        all.sort();
        let is_copy = |claim: &EntryClaim| matches!(claim.claimant, Claimant::Copy { .. });
        if all.len() > 1 || all.iter().any(is_copy) {
            holdings.get_mut(folder).unwrap().contested.push(name.clone());
        }
    }
    for (ino, row) in &rows {
        for standing in row.standings.iter().filter(|standing| standing.shown.is_some()) {
            let of = holdings.get_mut(&standing.folder).unwrap();
            of.given.push(standing.shown().to_vec());
            of.given.sort();
            assert_ne!(standing.shown(), standing.name, "{ino}");
        }
    }
    let (mut stored_claims, mut stored_holders) = (BTreeMap::new(), BTreeMap::new());
    for (folder, entry) in entries(tree) {
        assert!(!entry.is_vacant());
        if !entry.claims.is_empty() {
            stored_claims.insert((folder, entry.name.clone()), entry.claims);
        }
        stored_holders.extend(entry.holder.map(|holder| ((folder, entry.name), holder)));
    }
    assert_eq!(stored_claims, claims);
    assert_eq!(stored_holders, holders);
    for (ino, row) in &rows {
        let mut of = row.holdings.clone();
        of.contested.sort();
        of.given.sort();
        assert_eq!(of, holdings.remove(ino).unwrap_or_default(), "what is in {ino}");
    }
    assert!(holdings.is_empty(), "{holdings:?}");
    let mut note = |key: &[u8], _| {
        said.insert(schema::number(key, 1));
        Ok(true)
    };
    tree.db().scan(schema::CUTS, schema::CUTS, &mut note).unwrap();
    assert_eq!(said, cuts);
}

fn check_versions(tree: &Tree, ino: Ino, row: &Row) {
    let object = &row.object;
    let is_published = |origin: Origin| matches!(origin, Origin::Published(_));
    for (id, held) in &object.versions {
        if is_published(held.origin) && object.places.contains_key(id) {
            for old in &held.value.covers {
                let is_here = object.versions.get(old).is_some_and(|h| is_published(h.origin));
                assert!(!is_here || object.split_off.contains_key(old), "{ino} keeps {old:?}");
            }
        }
    }
    for id in object.split_off.keys() {
        let txn = tree.begin();
        let history = txn.history(ino, *id).unwrap();
        assert!(history.version.is_none() && history.place.is_none(), "{ino} splits {id:?}");
    }
    if let Some(behind) = &row.behind {
        assert!(behind.origins().all(is_published), "{ino}");
        assert!(behind.origins().count() > 0, "{ino}");
    }
}

/// What a change is compared by.
pub(super) struct Moment {
    inodes: BTreeMap<Ino, Inode>,
    holders: BTreeMap<(Ino, Vec<u8>), Ino>,
}

impl Moment {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut inodes = BTreeMap::new();
        each_row(tree, |ino, row| inodes.extend(row.inode(ino).map(|inode| (ino, inode))));
        let holders = entries(tree)
            .into_iter()
            .filter_map(|(folder, entry)| Some(((folder, entry.name), entry.holder?.ino)));
        Self { inodes, holders: holders.collect() }
    }

    /// What was announced is what has changed.
    pub(super) fn check(&self, now: &Self, stale: &[Stale]) {
        let mut wanted = Vec::new();
        let names: BTreeSet<_> = self.holders.keys().chain(now.holders.keys()).collect();
        for (parent, name) in names {
            let place = (*parent, name.clone());
            if self.holders.get(&place) != now.holders.get(&place) {
                wanted.push(Stale::Entry { parent: *parent, name: name.clone() });
            }
        }
        let inodes: BTreeSet<_> = self.inodes.keys().chain(now.inodes.keys()).collect();
        for &ino in inodes {
            let (old, new) = (self.inodes.get(&ino), now.inodes.get(&ino));
            let content = |inode: Option<&Inode>| inode.map(|inode| inode.content.clone());
            if old != new {
                wanted.push(Stale::Inode { ino, data: content(old) != content(new) });
            }
        }
        let sorted = |all: &[Stale]| -> BTreeSet<String> {
            all.iter().map(|item| format!("{item:?}")).collect()
        };
        assert_eq!(sorted(stale), sorted(&wanted));
    }
}

/// Every record that a machine's database has of the vault.
pub(super) fn kept(tree: &Tree) -> Segment {
    let mut found = Vec::new();
    Tree::each_record(&tree.db().snapshot(), Subject::Vault, |_, records| {
        found.extend(records.into_iter().map(|(r, brought)| (r, Origin::Published(brought))));
        true
    })
    .unwrap();
    found
}

/// A machine that starts from what another keeps shows what `records` say.
pub(super) fn check_checkpoint(machine: &Machine, records: &[&Record]) {
    let kept = kept(&machine.tree);
    let wanted = expected(records.iter().copied());
    assert_eq!(expected(kept.iter().map(|(record, _)| record)), wanted);
    let fresh = Machine::new(77, "fresh");
    fresh.apply(&kept);
    check(&fresh.tree);
    assert_eq!(listing(&fresh.tree), wanted);
}
