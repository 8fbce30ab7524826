//! What the operations of a drive do to names and attributes.

use std::collections::BTreeMap;

use super::tree::{CatalogError, CatalogResult, Tree, check_name, shown};
use super::txn::Txn;
use crate::catalog::conflict::object::{Attributes, Held, Nature, Object, Origin, Times};
use crate::catalog::format::record::{Name, Place, Removal, Version};
use crate::catalog::format::{Body, Record, Stamp, Subject};
use crate::catalog::local::entry::EntryLink;
use crate::catalog::local::inode::{Ino, Inode, Kind, Local, Time};
use crate::catalog::local::row::{Row, Standing, least_cover};
use crate::catalog::local::schema;
use crate::db::{Space, encode};

/// Most hard links of one inode (ext4's limit is 65,000).
const LINK_MAX: u32 = 65_000;

/// A new inode, as its maker wants it.
#[derive(Clone, Debug)]
pub struct NewInode {
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// Symbolic link's target.
    pub target: Vec<u8>,
    /// Never wanted in a vault (by its name).
    pub unwanted: bool,
    /// Extended attributes it starts with (inherited defaults).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A link that was removed.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Its inode, as it is now.
    pub inode: Inode,
    /// Whether that was the inode's last name.
    pub last: bool,
}

impl Tree {
    /// Makes an inode with one name.
    pub fn create(&self, parent: Ino, name: &[u8], new: NewInode) -> CatalogResult<Inode> {
        check_name(name)?;
        let mut txn = self.begin();
        let dir = txn.inode(parent)?;
        check_dir(&dir, name)?;
        if txn.lookup(parent, name)?.is_some() {
            return Err(CatalogError::Exists { what: shown(name) });
        }
        if !new.unwanted {
            txn.act_on(parent)?;
        }
        let ino = txn.number();
        let (now, stamp, origin) = (txn.now(), txn.stamp(), Origin::Unpublished);
        // POSIX: a set-gid directory hands its group (and, to directories, the bit) down.
        let inherits = dir.attrs.perm & 0o2000 != 0;
        let group = if inherits { dir.attrs.gid } else { new.gid };
        let mode = if inherits && new.kind == Kind::Dir { new.perm | 0o2000 } else { new.perm };
        let is_folder = new.kind == Kind::Dir;
        let nature = Nature {
            kind: new.kind.into(),
            birth: now,
            device: new.rdev.into(),
            target: new.target,
        };
        let attributes = Attributes { mode, owner: new.uid, group, changed: now };
        let times = Times { access: now, modification: now };
        let link = txn.number();
        let name = txn.new_name(link, parent, name, stamp);
        let xattrs = new.xattrs.into_iter();
        let object = Object {
            nature: Some(Held { stamp, origin, value: nature }),
            attributes: Some(Held { stamp, origin, value: attributes }),
            times: Some(Held { stamp, origin, value: times }),
            xattrs: xattrs.map(|(k, v)| (k, Held { stamp, origin, value: Some(v) })).collect(),
            names: BTreeMap::from([(link, Held { stamp, origin, value: name })]),
            ..Object::default()
        };
        let subject = if is_folder { Subject::Folder(ino) } else { Subject::File(ino) };
        let local = Local { unwanted: new.unwanted, ..Local::default() };
        let mut row = Row { object, local, ..Row::of(subject) };
        if new.kind == Kind::File {
            // Without a content no other machine would show it (docs/format.md, 8.3).
            txn.write_nothing(subject, &mut row);
        }
        row.set_change_time(now);
        txn.put_row(ino, row);
        txn.queue_unless_local(ino, None)?;
        txn.show(ino)?;
        txn.touch_dir(parent)?;
        let inode = txn.inode(ino)?;
        txn.commit()?;
        Ok(inode)
    }

    /// Gives an inode another name.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> CatalogResult<Inode> {
        check_name(name)?;
        let mut txn = self.begin();
        let mut inode = txn.inode(ino)?;
        if inode.is_dir() {
            return Err(CatalogError::NotPermitted { what: shown(name) });
        }
        if inode.local.nlink == 0 {
            return Err(CatalogError::not_found(shown(name)));
        }
        if inode.local.nlink >= LINK_MAX {
            return Err(CatalogError::TooManyLinks { what: shown(name) });
        }
        check_dir(&txn.inode(parent)?, name)?;
        if txn.lookup(parent, name)?.is_some() {
            return Err(CatalogError::Exists { what: shown(name) });
        }
        txn.act_on(ino)?;
        txn.act_on(parent)?;
        let (link, stamp) = (txn.number(), txn.stamp());
        let name = txn.new_name(link, parent, name, stamp);
        let mut row = txn.row(ino)?;
        let record = Record::new(row.subject(ino), stamp, Body::Name(name));
        row.take(&record, Origin::Unpublished);
        txn.put_row(ino, row);
        txn.queue_unless_local(ino, None)?;
        txn.show(ino)?;
        inode.attrs.ctime = txn.now();
        let nlink = txn.inode(ino)?.local.nlink;
        inode.local.nlink = nlink;
        txn.put_inode(inode)?;
        txn.touch_dir(parent)?;
        let inode = txn.inode(ino)?;
        txn.commit()?;
        Ok(inode)
    }

    /// Removes a name: of a directory if `dir`, of anything else if not.
    pub fn unlink(&self, parent: Ino, name: &[u8], dir: bool) -> CatalogResult<Removed> {
        check_name(name)?;
        let mut txn = self.begin();
        let Some(entry) = txn.lookup(parent, name)? else {
            return Err(CatalogError::not_found(shown(name)));
        };
        match (dir, entry.kind == Kind::Dir) {
            (true, false) => return Err(CatalogError::NotDir { what: shown(name) }),
            (false, true) => return Err(CatalogError::IsDir { what: shown(name) }),
            (true, true) if txn.row(entry.ino)?.holdings.entries > 0 => {
                return Err(CatalogError::NotEmpty { what: shown(name) });
            }
            _ => {}
        }
        txn.act_on(parent)?;
        let removed = remove_name(&mut txn, entry, (parent, name), None)?;
        txn.touch_dir(parent)?;
        txn.commit()?;
        Ok(removed)
    }

    /// Moves a name, replacing what stands at the target (which must fit).
    ///
    /// `unwanted` says whether the new name is one that is never wanted in a vault.
    pub fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        replace: bool,
        unwanted: bool,
    ) -> CatalogResult<Option<Removed>> {
        check_name(from.1)?;
        check_name(to.1)?;
        let mut txn = self.begin();
        let Some(source) = txn.lookup(from.0, from.1)? else {
            return Err(CatalogError::not_found(shown(from.1)));
        };
        check_dir(&txn.inode(to.0)?, to.1)?;
        let target = txn.lookup(to.0, to.1)?;
        if let Some(target) = target {
            if !replace {
                return Err(CatalogError::Exists { what: shown(to.1) });
            }
            if target.ino == source.ino {
                return Ok(None); // POSIX: two names of one file, nothing happens
            }
            match (source.kind == Kind::Dir, target.kind == Kind::Dir) {
                (true, false) => return Err(CatalogError::NotDir { what: shown(to.1) }),
                (false, true) => return Err(CatalogError::IsDir { what: shown(to.1) }),
                (true, true) if txn.row(target.ino)?.holdings.entries > 0 => {
                    return Err(CatalogError::NotEmpty { what: shown(to.1) });
                }
                _ => {}
            }
        }
        if source.kind == Kind::Dir && txn.is_below(to.0, source.ino)? {
            let why = "a directory cannot be moved into itself";
            return Err(CatalogError::Invalid { what: shown(from.1), why });
        }
        txn.act_on(from.0)?;
        txn.act_on(to.0)?;
        if let Some(target) = target {
            txn.act_on(target.ino)?;
        }
        let rank = target.map(|target| txn.rank_at(target.ino, to)).transpose()?.flatten();
        let content = Some(source.ino).filter(|_| source.kind == Kind::File);
        let removed =
            target.map(|target| remove_name(&mut txn, target, to, content)).transpose()?;
        move_name(&mut txn, source, from, to, (unwanted, rank))?;
        txn.touch_dir(from.0)?;
        if to.0 != from.0 {
            txn.touch_dir(to.0)?;
        }
        txn.commit()?;
        Ok(removed)
    }

    /// Swaps what two names lead to (`RENAME_EXCHANGE`).
    pub fn exchange(&self, a: (Ino, &[u8]), b: (Ino, &[u8])) -> CatalogResult<()> {
        check_name(a.1)?;
        check_name(b.1)?;
        let mut txn = self.begin();
        let find = |txn: &Txn<'_>, at: (Ino, &[u8])| {
            txn.lookup(at.0, at.1)?.ok_or_else(|| CatalogError::not_found(shown(at.1)))
        };
        let (first, second) = (find(&txn, a)?, find(&txn, b)?);
        if first.link == second.link {
            return Ok(());
        }
        for (moved, to) in [(first, b.0), (second, a.0)] {
            if moved.kind == Kind::Dir && txn.is_below(to, moved.ino)? {
                let why = "a directory cannot be moved into itself";
                return Err(CatalogError::Invalid { what: shown(a.1), why });
            }
        }
        txn.act_on(a.0)?;
        txn.act_on(b.0)?;
        if first.ino != second.ino {
            txn.act_on(first.ino)?;
            txn.act_on(second.ino)?;
            let (rank_a, rank_b) = (txn.rank_at(first.ino, a)?, txn.rank_at(second.ino, b)?);
            // Both are recorded before either is shown, so that they never ask for one name.
            let unwanted = |ino: Ino| Ok::<_, CatalogError>(txn.row(ino)?.local.unwanted);
            let (is_first_unwanted, is_second_unwanted) =
                (unwanted(first.ino)?, unwanted(second.ino)?);
            record_move(&mut txn, first, a, b, (is_first_unwanted, rank_b))?;
            record_move(&mut txn, second, b, a, (is_second_unwanted, rank_a))?;
            txn.unshown.extend([first.ino, second.ino]);
            txn.show_all()?;
            changed_now(&mut txn, first.ino)?;
            changed_now(&mut txn, second.ino)?;
        }
        txn.touch_dir(a.0)?;
        txn.touch_dir(b.0)?;
        txn.commit().map(drop)
    }

    /// Changes an inode's attributes, and perhaps extended attributes with them.
    pub fn set_attrs(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut Inode, Time),
    ) -> CatalogResult<Inode> {
        let mut txn = self.begin();
        let mut inode = txn.inode(ino)?;
        let now = txn.now();
        inode.attrs.ctime = now;
        change(&mut inode, now);
        txn.put_inode(inode)?;
        let inode = txn.inode(ino)?;
        txn.commit()?;
        Ok(inode)
    }

    /// Sets (or with `None` removes) an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: Option<Vec<u8>>) -> CatalogResult<Inode> {
        self.set_attrs(ino, |inode, _| inode.set_xattr(name, value))
    }

    /// Forgets an inode that has no name, no handle and nothing to upload, and that no other
    /// machine has heard of. What is known of others is kept: they may give it a name again.
    /// Gives the places of contents that nobody has heard of.
    pub fn purge(&self, ino: Ino) -> CatalogResult<Vec<Place>> {
        let mut txn = self.begin();
        let Some(mut row) = txn.find_row(ino)? else { return Ok(Vec::new()) };
        if row.inode(ino).is_some_and(|inode| inode.local.nlink > 0) {
            return Ok(Vec::new());
        }
        let mut dropped = Vec::new();
        if is_known_elsewhere(&row) {
            row.local = Local { unlinked: row.local.unlinked, ..Local::default() };
            txn.put_row(ino, row);
            txn.show(ino)?;
        } else {
            let places = row.object.places.values().map(|held| held.value.clone());
            dropped.extend(places);
            dropped.iter().for_each(|place| txn.forget_place(ino, place));
            txn.remove_row(ino);
        }
        txn.raw(Space::Meta, schema::waiting(ino), None);
        txn.raw(Space::Data, schema::waiting(ino), None);
        txn.raw(Space::Meta, schema::orphan(ino), None);
        txn.commit()?;
        Ok(dropped)
    }
}

impl Txn<'_> {
    /// The empty content that a new file has.
    fn write_nothing(&mut self, subject: Subject, row: &mut Row) {
        let (id, stamp) = self.new_version();
        let (machine, millis) = (self.tree.machine.clone(), self.tree.env.millis());
        let (covers, holes, source) = (Vec::new(), Vec::new(), None);
        let version = Version { id, covers, size: 0, holes, machine, millis, source };
        let place = Place { version: id, base: None, changes: Vec::new(), base_size: None };
        for body in [Body::Version(version), Body::Place(place)] {
            row.take(&Record::new(subject, stamp, body), Origin::Unpublished);
        }
    }

    /// A name record for a new place of a link.
    pub(super) fn new_name(&self, link: u64, folder: Ino, name: &[u8], rank: Stamp) -> Name {
        let (machine, millis) = (self.tree.machine.clone(), self.tree.env.millis());
        Name { link, folder, name: name.to_vec(), rank, machine, millis }
    }

    /// Marks a directory as changed: its times move, and it is published.
    pub fn touch_dir(&mut self, ino: Ino) -> CatalogResult<()> {
        let mut dir = self.inode(ino)?;
        let now = self.now();
        dir.attrs.mtime = now;
        dir.attrs.ctime = now;
        self.put_inode(dir)
    }

    /// Notes when an inode's content was changed, which may be a while ago.
    pub fn touch_content(&mut self, inode: &mut Inode, at: Time) {
        inode.attrs.mtime = at;
        inode.attrs.ctime = inode.attrs.ctime.max(at);
    }

    /// What goes first, of the names that are one under a name.
    fn rank_at(&self, ino: Ino, at: (Ino, &[u8])) -> CatalogResult<Option<Stamp>> {
        let links = self.links_at(&self.row(ino)?, at);
        let row = self.row(ino)?;
        Ok(links.iter().filter_map(|link| row.object.names.get(link)).map(|h| h.value.rank).min())
    }

    /// The links that are one under a name: those of its folder and recorded name that live.
    fn links_at(&self, row: &Row, at: (Ino, &[u8])) -> Vec<u64> {
        let Some(standing) = row.standings.iter().find(|s| stands_at(s, at)) else {
            return Vec::new();
        };
        let is_live = |link: u64| !row.object.is_removed(link);
        let recorded = (&standing.name, standing.folder);
        let names = row.object.names.iter();
        let here = names.filter(|(_, held)| (&held.value.name, held.value.folder) == recorded);
        here.map(|(link, _)| *link).filter(|link| is_live(*link)).collect()
    }

    /// Folders that are recorded to be in one that is to be removed, and stand in the root
    /// because of a circle, are recorded there: it would live on by them.
    fn act_on_cuts(&mut self, folder: Ino) -> CatalogResult<()> {
        for cut in self.cuts()? {
            if self.find_row(cut)?.is_some_and(|row| row.counted == Some(folder)) {
                self.act_on(cut)?;
            }
        }
        Ok(())
    }
}

fn stands_at(standing: &Standing, (folder, name): (Ino, &[u8])) -> bool {
    standing.folder == folder && standing.shown() == name
}

/// Whether another machine may know of an object, or the vault has a content of it.
pub(super) fn is_known_elsewhere(row: &Row) -> bool {
    let mut known = !row.known.is_empty() || row.object.others.is_some();
    row.each_origin(|origin| known |= matches!(origin, Origin::Sent | Origin::Published(_)));
    known |= !row.object.places.is_empty();
    known || !row.object.split_off.is_empty() || row.object.split.is_some()
}

/// Removes a name and counts it out; one that nobody was told of leaves no trace.
fn remove_name(
    txn: &mut Txn<'_>,
    entry: EntryLink,
    at: (Ino, &[u8]),
    after: Option<Ino>,
) -> CatalogResult<Removed> {
    let ino = entry.ino;
    txn.act_on(ino)?;
    if entry.kind == Kind::Dir {
        txn.act_on_cuts(ino)?;
    }
    let row = txn.row(ino)?;
    let mine = row.standings.iter().filter(|standing| standing.ino == ino);
    let last = mine.filter(|standing| !stands_at(standing, at)).count() == 0;
    let copies = row.standings.iter().map(|s| s.ino).filter(|number| *number != ino);
    for copy in copies.filter(|_| last).collect::<Vec<_>>() {
        txn.act_on(copy)?;
    }
    let mut row = txn.row(ino)?;
    let links = match entry.kind {
        Kind::Dir => {
            let all = row.object.names.keys().copied();
            all.filter(|link| !row.object.is_removed(*link)).collect()
        }
        _ => txn.links_at(&row, at),
    };
    let takes = if last && entry.kind == Kind::File { takes(&row) } else { Vec::new() };
    let known_elsewhere = is_known_elsewhere(&row);
    let mut told = false;
    let stamp = txn.stamp();
    for link in links {
        // What is in the vault of it goes by the records, as everything that was there.
        let kept = last && !row.object.places.is_empty();
        if !row.known.contains(&link) && !kept {
            row.object.names.remove(&link);
            // Nobody knows the link; but those who know the file must hear what was taken.
            if !last || !known_elsewhere {
                continue;
            }
        }
        told = true;
        let (machine, millis) = (txn.tree.machine.clone(), txn.tree.env.millis());
        let removal = Removal { link, last, takes: takes.clone(), machine, millis };
        let record = Record::new(row.subject(ino), stamp, Body::Removal(removal));
        row.take(&record, Origin::Unpublished);
    }
    // What waits here of its content was taken with it.
    row.local.unlinked = last;
    txn.put_row(ino, row);
    txn.show(ino)?;
    if told {
        txn.queue_unless_local(ino, after)?;
    } else if last && !is_known_elsewhere(&txn.row(ino)?) {
        txn.unqueue(ino);
    }
    if last {
        txn.raw(Space::Meta, schema::orphan(ino), Some(encode(&())));
    } else {
        let mut inode = txn.inode(ino)?;
        inode.attrs.ctime = txn.now();
        txn.put_inode(inode)?;
    }
    let inode = txn.inode(ino)?;
    Ok(Removed { inode, last })
}

/// What a removal of a file's last name takes: what was shown under it, and what this journal
/// has recorded of it (docs/format.md, 6.7).
fn takes(row: &Row) -> Vec<crate::catalog::format::VersionId> {
    match &row.local.dirty {
        Some(dirty) => least_cover(dirty.base.id, &dirty.recorded),
        None => row.shown().first.into_iter().collect(),
    }
}

fn move_name(
    txn: &mut Txn<'_>,
    entry: EntryLink,
    from: (Ino, &[u8]),
    to: (Ino, &[u8]),
    (unwanted, rank): (bool, Option<Stamp>),
) -> CatalogResult<()> {
    txn.act_on(entry.ino)?;
    record_move(txn, entry, from, to, (unwanted, rank))?;
    txn.show(entry.ino)?;
    changed_now(txn, entry.ino)
}

/// Records another name for what stands at one, and shows nothing of it yet.
fn record_move(
    txn: &mut Txn<'_>,
    entry: EntryLink,
    from: (Ino, &[u8]),
    to: (Ino, &[u8]),
    (unwanted, rank): (bool, Option<Stamp>),
) -> CatalogResult<()> {
    let ino = entry.ino;
    let mut row = txn.row(ino)?;
    let links = txn.links_at(&row, from);
    let stamp = txn.stamp();
    let subject = row.subject(ino);
    for link in links {
        let Some(held) = row.object.names.get(&link) else { continue };
        let rank = rank.unwrap_or(held.value.rank);
        let name = txn.new_name(link, to.0, to.1, rank);
        row.take(&Record::new(subject, stamp, Body::Name(name)), Origin::Unpublished);
    }
    let was_local = row.local.unwanted;
    if !unwanted || !row.known.is_empty() {
        row.local.unwanted = false;
    }
    let is_local = row.local.unwanted;
    let aligns = row.object.places.values().any(|held| held.value.base.is_some());
    let aligns = aligns || row.object.others.is_some() || entry.kind == Kind::Dir;
    txn.put_row(ino, row);
    if was_local || !is_local {
        // Others see no name before its content is in the vault.
        let after = (entry.kind == Kind::File).then_some(ino);
        txn.queue_unless_local(ino, after)?;
    }
    if aligns {
        txn.raw(Space::Meta, schema::align(ino), Some(encode(&())));
    }
    Ok(())
}

/// Sets an inode's change time.
fn changed_now(txn: &mut Txn<'_>, ino: Ino) -> CatalogResult<()> {
    let mut inode = txn.inode(ino)?;
    inode.attrs.ctime = txn.now();
    txn.put_inode(inode)
}

fn check_dir(dir: &Inode, what: &[u8]) -> CatalogResult<()> {
    if !dir.is_dir() {
        return Err(CatalogError::NotDir { what: shown(what) });
    }
    if dir.local.nlink == 0 {
        return Err(CatalogError::not_found(shown(what))); // removed, but still open
    }
    Ok(())
}
