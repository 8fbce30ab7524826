//! What people do on one machine, at random.

use super::house::{Draw, Machine, new_inode};
use super::judge::{Listing, Shown, each_row, listing};
use crate::catalog::cleared::Cleared;
use crate::catalog::format::Reference;
use crate::catalog::format::record::PlaceBase;
use crate::catalog::local::inode::{Dirty, DirtyKind, Ino, Kind, ROOT_INO};
use crate::catalog::local::row::least_cover;
use crate::catalog::namespace::{CatalogError, NewVersion};
use crate::crypto::Identity;
use crate::store::Token;

const NAMES: [&str; 4] = ["a.txt", "b", ".rc", "a (conflict m1 2023-11-14 2213).txt"];

/// A payload that nobody has.
fn reference(draw: &Draw) -> Reference {
    let token = Token::new(format!("dtk-{:x}", u128::from_be_bytes(draw.bytes())));
    let mut iv = [0; 12];
    iv.copy_from_slice(&draw.bytes()[..12]);
    Reference { token, identity: Identity { len: 40, iv, tag: draw.bytes(), key: [1; 8] } }
}

/// Whether an operation was refused for a reason that there can be.
fn may_be<T>(done: Result<T, CatalogError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(CatalogError::Db(error)) => panic!("{error}"),
        Err(CatalogError::NotFound { what }) => panic!("{what} is shown and not there"),
        Err(_) => None,
    }
}

impl Machine {
    /// Begins a new content, or goes on with one: it waits here.
    pub(super) fn write(&self, ino: Ino) {
        let mut txn = self.tree.begin();
        let mut inode = txn.inode(ino).unwrap();
        let (id, stamp) = txn.new_version();
        let base = inode.content.clone();
        let dirty = inode.local.dirty.get_or_insert(Dirty {
            kind: DirtyKind::Small,
            size: 5,
            base_len: 0,
            base,
            cleared: Cleared::default(),
            allocated: 5,
            recorded: Vec::new(),
            stamp,
        });
        dirty.recorded.push(id);
        dirty.stamp = stamp;
        txn.put_inode(inode).unwrap();
        txn.commit().unwrap();
    }

    /// A content is in the vault: what waits here, or a new one.
    pub(super) fn store(&self, draw: &Draw, ino: Ino) {
        let mut txn = self.tree.begin();
        let inode = txn.inode(ino).unwrap();
        let (id, stamp, covers) = match &inode.local.dirty {
            Some(dirty) => {
                let (last, before) = dirty.recorded.split_last().unwrap();
                (*last, dirty.stamp, least_cover(dirty.base.id, before))
            }
            None => {
                let (id, stamp) = txn.new_version();
                (id, stamp, least_cover(inode.content.id, &[]))
            }
        };
        let base = (!draw.one_in(5)).then(|| PlaceBase::Whole(reference(draw)));
        let size = if base.is_some() { 12 } else { 0 };
        let new = NewVersion { id, stamp, covers, size, holes: Vec::new(), base };
        txn.commit_version(ino, new).unwrap();
        let mut inode = txn.inode(ino).unwrap();
        inode.local.dirty = None;
        inode.attrs.mtime = txn.now();
        txn.put_inode(inode).unwrap();
        txn.commit().unwrap();
        // Another that was written meanwhile may be the first; and what had waited when the last
        // name was removed was removed with it, whatever brought the file back.
        let shown = listing(&self.tree);
        let is_there = shown.values().any(|what| what.content == Some(id));
        let is_taken = self.tree.find_row(ino).unwrap().unwrap().object.taken().contains(&id);
        assert!(is_there || is_taken, "what was written is not shown");
    }

    pub(super) fn make(&self, folder: Ino, name: &str, kind: Kind) -> Option<Ino> {
        let made = may_be(self.tree.create(folder, name.as_bytes(), new_inode(kind)))?;
        assert_eq!(self.tree.lookup(folder, name.as_bytes()).unwrap().ino, made.ino);
        Some(made.ino)
    }

    pub(super) fn remove(&self, folder: Ino, name: &str, what: &Shown) -> bool {
        let is_dir = what.kind == Kind::Dir;
        let Some(removed) = may_be(self.tree.unlink(folder, name.as_bytes(), is_dir)) else {
            return false;
        };
        // Another that asks for the name may have it now.
        let now = self.tree.lookup(folder, name.as_bytes());
        assert!(!now.is_ok_and(|now| now.ino == what.ino), "{name} is still there");
        assert_eq!(removed.inode.ino, what.ino);
        assert_eq!(removed.last, removed.inode.local.nlink == 0);
        if is_dir {
            assert!(removed.last);
        }
        true
    }

    pub(super) fn rename(&self, from: (Ino, &str), to: (Ino, &str)) -> bool {
        let what = self.tree.lookup(from.0, from.1.as_bytes()).unwrap().ino;
        let places = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        let before = self.tree.lookup(to.0, to.1.as_bytes()).ok().map(|inode| inode.ino);
        if may_be(self.tree.rename(places.0, places.1, true, false)).is_none() {
            return false;
        }
        assert_eq!(self.tree.lookup(to.0, to.1.as_bytes()).unwrap().ino, what);
        if before != Some(what) {
            let now = self.tree.lookup(from.0, from.1.as_bytes());
            assert!(!now.is_ok_and(|now| now.ino == what), "{} is still there", from.1);
        }
        true
    }

    /// Removes a folder with all that is in it.
    fn remove_all(&self, folder: Ino, name: &str, what: &Shown) {
        let inside: Vec<_> =
            listing(&self.tree).into_iter().filter(|((of, _), _)| *of == what.ino).collect();
        for ((of, name), what) in inside {
            // What was beside it may have another name now.
            if self.tree.lookup(of, name.as_bytes()).is_ok_and(|inode| inode.ino == what.ino) {
                match what.kind {
                    Kind::Dir => self.remove_all(of, &name, &what),
                    _ => assert!(self.remove(of, &name, &what)),
                }
            }
        }
        self.remove(folder, name, what);
    }

    /// Does something.
    pub(super) fn act(&mut self, draw: &Draw) {
        let shown = listing(&self.tree);
        let folders: Vec<Ino> = folders(&shown);
        let folder = *draw.of(&folders).unwrap();
        let name = *draw.of(&NAMES).unwrap();
        // What stands by a conflict is acted upon more often than it comes up.
        let all: Vec<_> = shown.iter().collect();
        let odd: Vec<_> = all.iter().filter(|((_, n), _)| n.contains("(conflict")).collect();
        let one = match draw.one_in(3) {
            true => draw.of(&odd).copied().or_else(|| draw.of(&all)),
            false => draw.of(&all),
        };
        if draw.one_in(4) {
            self.tick(1);
        }
        let what = draw.below(24);
        if let 0..5 = what {
            let kind = match what {
                0 => Kind::Symlink,
                1 | 2 => Kind::Dir,
                _ => Kind::File,
            };
            let made = self.make(folder, name, kind).filter(|_| kind == Kind::File);
            match (made, draw.below(3)) {
                (Some(ino), 0) => self.write(ino),
                (Some(ino), 1) => self.store(draw, ino),
                _ => {}
            }
            return;
        }
        let Some(((of, old), found)) = one else { return };
        match (what, found.kind) {
            (5..8, Kind::File) => self.store(draw, found.ino),
            (8, Kind::File) => self.write(found.ino),
            (9, Kind::Dir) => self.remove_all(*of, old, found),
            (9..12, _) => {
                if self.remove(*of, old, found) && draw.one_in(2) {
                    self.tree.purge(found.ino).unwrap();
                }
            }
            (12..17, _) => drop(self.rename((*of, old), (folder, name))),
            (17, _) => {
                let ((to, new), other) = draw.of(&all).unwrap();
                let places = ((*of, old.as_bytes()), (*to, new.as_bytes()));
                let done = may_be(self.tree.exchange(places.0, places.1));
                if done.is_some() {
                    let at =
                        |(folder, name): (Ino, &[u8])| self.tree.lookup(folder, name).unwrap().ino;
                    assert_eq!((at(places.0), at(places.1)), (other.ino, found.ino));
                }
            }
            (18 | 19, kind) if kind != Kind::Dir => {
                if may_be(self.tree.link(found.ino, folder, name.as_bytes())).is_some() {
                    assert_eq!(self.tree.lookup(folder, name.as_bytes()).unwrap().ino, found.ino);
                }
            }
            (20 | 21, _) => {
                let mode = 0o600 + u16::try_from(draw.below(64)).unwrap();
                self.tree.set_attrs(found.ino, |inode, _| inode.attrs.perm = mode).unwrap();
                assert_eq!(self.tree.inode(found.ino).unwrap().attrs.perm, mode);
            }
            (22, _) => {
                let value = (!draw.one_in(3)).then(|| draw.bytes().to_vec());
                let inode = self.tree.set_xattr(found.ino, b"user.x", value.clone()).unwrap();
                assert_eq!(inode.xattr(b"user.x"), value.as_ref());
            }
            _ => {}
        }
    }

    /// Whatever waits here goes into the vault.
    pub(super) fn store_all(&self, draw: &Draw) {
        let mut waiting = Vec::new();
        each_row(&self.tree, |ino, row| {
            if row.local.dirty.is_some() {
                waiting.push((ino, row.inode(ino).is_some_and(|inode| inode.local.nlink > 0)));
            }
        });
        for (ino, has_name) in waiting {
            match has_name {
                true => self.store(draw, ino),
                false => drop(self.tree.purge(ino).unwrap()),
            }
        }
    }
}

fn folders(shown: &Listing) -> Vec<Ino> {
    let folders = shown.values().filter(|what| what.kind == Kind::Dir).map(|what| what.ino);
    folders.chain([ROOT_INO]).collect()
}
