//! Which extended attributes are in use at all.
//!
//! Programs ask for attributes that hardly any file has: `ls -l` for the access control
//! list of each, every write for its capabilities. The names in use are few and known, so
//! most of these questions are answered without a look at the inode.
//!
//! Invariant: before an inode with an attribute can be read, the attribute's name is in
//! the set, here and in the database; names are never taken out.

use std::collections::BTreeSet;

use parking_lot::RwLock;

use super::local::schema;
use crate::db::{Batch, Db, DbResult};

/// Most names kept; with more, every inode may have any.
const KEPT: usize = 1_000;

/// The set; `None` if there are too many.
pub(super) struct NamesInUse(RwLock<Option<BTreeSet<Vec<u8>>>>);

fn key() -> Vec<u8> {
    schema::meta("xattrs")
}

impl NamesInUse {
    pub(super) fn load(db: &Db) -> DbResult<Self> {
        let names = db.load::<Option<BTreeSet<Vec<u8>>>>(&key())?;
        Ok(Self(RwLock::new(names.unwrap_or_else(|| Some(BTreeSet::new())))))
    }

    /// The database may not have what is here: every inode may have any from now on.
    pub(super) fn forget(&self) {
        *self.0.write() = None;
    }

    /// Whether any inode may have an attribute of this name.
    pub(super) fn may_have(&self, name: &[u8]) -> bool {
        self.0.read().as_ref().is_none_or(|names| names.contains(name))
    }

    /// Adds the names of inodes that `batch` stores. One change at a time calls this.
    pub(super) fn add<'a>(&self, names: impl Iterator<Item = &'a Vec<u8>>, batch: &mut Batch<'_>) {
        let new: Vec<_> = names.filter(|name| !self.may_have(name)).collect();
        if new.is_empty() {
            return;
        }
        let mut known = self.0.write();
        if let Some(names) = &mut *known {
            names.extend(new.into_iter().cloned());
        }
        if known.as_ref().is_some_and(|names| names.len() > KEPT) {
            *known = None;
        }
        batch.store(&key(), &*known);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crypto::{LocalKeys, MasterKey};
    use crate::env::doubles::seeded_env;

    #[test]
    fn names_are_remembered_until_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([5; 32])));
        let db = Db::open(dir.path(), keys, seeded_env(3)).unwrap();
        let add = |names: &[Vec<u8>]| {
            let known = NamesInUse::load(&db).unwrap();
            let mut batch = db.batch();
            known.add(names.iter(), &mut batch);
            batch.commit().unwrap();
            known
        };
        assert!(!add(&[]).may_have(b"user.a"));
        assert!(add(&[b"user.a".to_vec()]).may_have(b"user.a"));
        let known = NamesInUse::load(&db).unwrap();
        assert!(known.may_have(b"user.a") && !known.may_have(b"user.b"));
        let many: Vec<_> = (0..=KEPT).map(|n| format!("user.{n}").into_bytes()).collect();
        assert!(add(&many).may_have(b"user.b"));
        assert!(NamesInUse::load(&db).unwrap().may_have(b"user.b"));
    }
}
