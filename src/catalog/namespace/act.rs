//! What is acted on stays where it is shown (docs/format.md, 8.6).

use super::tree::CatalogResult;
use super::txn::Txn;
use crate::catalog::conflict::file::link_again;
use crate::catalog::conflict::names::Claimant;
use crate::catalog::conflict::object::{Held, Origin};
use crate::catalog::format::record::Name;
use crate::catalog::format::{Body, Record, Stamp, VersionId};
use crate::catalog::local::inode::{Ino, Inode, ROOT_INO};
use crate::catalog::local::row::{Row, Standing};

impl Txn<'_> {
    /// Before something on, in or beside an object is recorded: what makes it stand where it
    /// does is recorded too, if nothing says so yet.
    pub fn act_on(&mut self, ino: Ino) -> CatalogResult<()> {
        let mut at = ino;
        // A path is at most 4096 bytes.
        for _ in 0..4096 {
            let Some(row) = self.find_row(at)? else { return Ok(()) };
            let parent = row.standings.first().map(|standing| standing.folder);
            if row.is_derived() {
                match row.object.borrowed.is_some() {
                    true => self.split(at, row)?,
                    false => self.publish_derived(at, row)?,
                }
            } else if row.standings.iter().any(|standing| is_passing(standing, &row, at)) {
                self.publish_standing(at, row)?;
            } else {
                return Ok(());
            }
            match parent.or_else(|| self.parent_of(at)) {
                Some(parent) if parent != at && parent != ROOT_INO => at = parent,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn parent_of(&self, ino: Ino) -> Option<Ino> {
        let row = self.find_row(ino).ok().flatten()?;
        row.standings.first().map(|standing| standing.folder)
    }

    /// What only a listing shows becomes part of the catalog.
    fn publish_derived(&mut self, ino: Ino, mut row: Row) -> CatalogResult<()> {
        row.object.each_origin(|origin| {
            if *origin == Origin::Derived {
                *origin = Origin::Unpublished;
            }
        });
        let shown = row.standings.first().and_then(|standing| standing.shown.clone());
        if let Some(shown) = shown {
            row.object.names.values_mut().for_each(|held| held.value.name.clone_from(&shown));
        }
        row.known.extend(row.object.names.keys().copied());
        self.put_row(ino, row);
        self.queue(ino, None)?;
        self.show(ino)
    }

    /// A conflict copy becomes a file of its own.
    fn split(&mut self, ino: Ino, mut row: Row) -> CatalogResult<()> {
        let Some((id, file)) = row.object.split.as_ref().map(|held| held.value) else {
            return Ok(());
        };
        let mut of = self.row(file)?;
        let is_this = |standing: &&Standing| standing.ino == ino;
        let Some(standing) = of.standings.iter().find(is_this).cloned() else { return Ok(()) };
        row.object.each_origin(|origin| {
            if *origin == Origin::Derived {
                *origin = Origin::Unpublished;
            }
        });
        for held in row.object.names.values_mut() {
            held.value.name = standing.shown().to_vec();
            held.value.folder = standing.folder;
        }
        row.known.extend(row.object.names.keys().copied());
        let stamp = row.object.split.as_ref().map(|held| held.stamp).unwrap_or_default();
        of.object.split_off.insert(id, (stamp, ino));
        let lent = self.lent(file, &of.object, id)?;
        row.object.borrowed = Some(lent);
        self.put_row(ino, row);
        self.put_row(file, of);
        self.queue(ino, None)?;
        self.show(file)?;
        self.show(ino)
    }

    /// Names that stand by living again, by a cut circle or by a conflict become names like any.
    fn publish_standing(&mut self, ino: Ino, mut row: Row) -> CatalogResult<()> {
        let subject = row.subject(ino);
        for standing in row.standings.clone() {
            if !is_passing(&standing, &row, ino) {
                continue;
            }
            let Claimant::Link { again, link, .. } = standing.claimant else { continue };
            let Some(first) = row.object.names.get(&link).map(|held| held.value.clone()) else {
                continue;
            };
            // The links that are one under the name go with it.
            let is_one = |(other, held): &(&u64, &Held<Name>)| {
                let here = (held.value.folder, &held.value.name) == (first.folder, &first.name);
                **other == link || !again && here && !row.object.is_removed(**other)
            };
            let all = row.object.names.iter().filter(is_one);
            let all: Vec<(u64, Held<Name>)> = all.map(|(k, held)| (*k, held.clone())).collect();
            for (link, held) in all {
                let stood = if again { row.object.removed_at(link) } else { None };
                let stood = stood.unwrap_or(held.stamp).max(held.stamp);
                let stamp = Stamp { hlc: stood.hlc + 1, ..stood };
                self.clock.observe(stamp);
                let (folder, name) = (standing.folder, standing.shown().to_vec());
                let mut now = Name { folder, name, ..held.value };
                if again {
                    // One that is removed already stands for nothing.
                    now.link = link_again(link);
                    while row.object.is_removed(now.link) {
                        now.link = link_again(now.link);
                    }
                    row.known.insert(now.link);
                }
                row.take(&Record::new(subject, stamp, Body::Name(now)), Origin::Unpublished);
            }
        }
        self.put_row(ino, row);
        self.queue_unless_local(ino, None)?;
        self.show(ino)
    }

    /// Sets an inode: what differs from its row becomes records with a new stamp.
    pub fn put_inode(&mut self, inode: Inode) -> CatalogResult<()> {
        let ino = inode.ino;
        let mut row = self.row(ino)?;
        let Some(before) = row.inode(ino) else { return Ok(()) };
        let waited = row.local.dirty.is_some();
        let recorded = before.attrs != inode.attrs || before.xattrs != inode.xattrs;
        if recorded {
            self.act_on(ino)?;
            row = self.row(ino)?;
            let stamp = self.stamp();
            for body in differences(&before, &inode) {
                let record = Record::new(row.subject(ino), stamp, body);
                row.take(&record, Origin::Unpublished);
            }
            row.set_change_time(inode.attrs.ctime);
        }
        row.local = inode.local;
        if waited != row.local.dirty.is_some() && !row.object.removals.is_empty() {
            self.put_row(ino, row);
            self.show(ino)?;
        } else {
            self.put_row(ino, row);
        }
        if recorded {
            self.queue_unless_local(ino, None)?;
        }
        Ok(())
    }

    /// Puts an object into the outbox, unless it is never wanted in a vault.
    pub(super) fn queue_unless_local(&mut self, ino: Ino, after: Option<Ino>) -> CatalogResult<()> {
        match self.find_row(ino)?.is_some_and(|row| row.local.unwanted) {
            true => Ok(()),
            false => self.queue(ino, after),
        }
    }

    /// The identity under which a content that waits is recorded from now on, and its stamp.
    pub fn new_version(&mut self) -> (VersionId, Stamp) {
        let mut id = [0; 16];
        self.tree.env.random.fill(&mut id);
        (VersionId(id), self.stamp())
    }
}

/// Whether something stands somewhere though no record names that place for it.
fn is_passing(standing: &Standing, row: &Row, ino: Ino) -> bool {
    let again = matches!(standing.claimant, Claimant::Link { again: true, .. });
    standing.ino == ino && (again || standing.shown.is_some() || row.is_cut)
}

/// What has to be recorded so that one inode becomes another.
fn differences(before: &Inode, after: &Inode) -> Vec<Body> {
    let (old, new) = (&before.attrs, &after.attrs);
    let mut bodies = Vec::new();
    if (old.perm, old.uid, old.gid, old.ctime) != (new.perm, new.uid, new.gid, new.ctime) {
        let (mode, owner, group, changed) = (new.perm, new.uid, new.gid, new.ctime);
        bodies.push(Body::Attributes { mode, owner, group, changed });
    }
    if (old.atime, old.mtime) != (new.atime, new.mtime) {
        bodies.push(Body::Times { access: new.atime, modification: new.mtime });
    }
    for (name, value) in &after.xattrs {
        if before.xattrs.get(name) != Some(value) {
            bodies.push(Body::Xattr { name: name.clone(), value: Some(value.clone()) });
        }
    }
    for name in before.xattrs.keys().filter(|name| !after.xattrs.contains_key(*name)) {
        bodies.push(Body::Xattr { name: name.clone(), value: None });
    }
    bodies
}
