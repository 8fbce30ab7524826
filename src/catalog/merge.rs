//! Taking other writers' records in.
//!
//! Each register keeps its newest stamp, so records may come in any order and twice.
//! Five cases need more than that, and each is settled by an ordinary local operation
//! with a new stamp, which every other machine then sees:
//! * contents written concurrently: the machine whose own content lost keeps it as a new
//!   file beside, whose number follows from the lost version, so two machines that do
//!   this make the same file;
//! * a removal of a file that has unsaved changes here: the name comes back;
//! * a name for a file whose last name was removed here: what was changed here before and
//!   dropped with that name is sent again, which is why registers outlive names;
//! * a live link in a removed directory: the directory comes back;
//! * a move that would make a cycle: of the moves on the cycle the newest is undone, to
//!   the root, where the subtree is found again.
//!
//! The last two are looked at in [`Tree::settle`], when *everything* that the vault listed
//! is in. Between two segments, of one writer or of several, a directory may look removed
//! while its last entry's way out is still to come, or hang below itself because it
//! changed places with one inside it; acting on that would spoil every other machine's
//! tree. The directories in question are recorded with the records that raised them
//! ([`keys::unsettled`]), so that a crash in between loses no question. The publisher sees
//! to it that the segments of one writer never show such a state at their end.

use std::collections::BTreeSet;

use super::hlc::Stamp;
use super::keys;
use super::record::{Content, Ino, Inode, Kind, Link, Local, ROOT_INO, conflict_name};
use super::segment::{Applied, InodeRecord, Record, Segment};
use super::tree::{CatalogResult, Tree};
use super::txn::{Stale, Txn};
use crate::db::{Space, encode};
use crate::store::Token;

impl Tree {
    /// Which segments of a writer have been applied here.
    pub fn applied(&self, writer: u32) -> CatalogResult<Applied> {
        Ok(self.db.load(&keys::applied(writer))?.unwrap_or_default())
    }

    /// Applies a segment and notes it as applied. Gives what caches must forget.
    pub fn apply_segment(&self, segment: &Segment) -> CatalogResult<Vec<Stale>> {
        let mut txn = self.begin();
        note_tokens(&mut txn, &segment.tokens);
        apply_records(&mut txn, &segment.records)?;
        let mut applied = self.applied(segment.writer)?;
        applied.add(segment.seq);
        txn.raw(Space::Meta, keys::applied(segment.writer), Some(encode(&applied)));
        txn.commit()
    }

    /// Applies one page of a checkpoint.
    pub fn apply_page(&self, page: &Segment) -> CatalogResult<Vec<Stale>> {
        let mut txn = self.begin();
        note_tokens(&mut txn, &page.tokens);
        apply_records(&mut txn, &page.records)?;
        txn.commit()
    }

    /// Settles the places of directories that the applied records have put in question:
    /// brings back removed ones that hold something, and breaks cycles. For a moment when
    /// every known segment is in.
    pub fn settle(&self) -> CatalogResult<Vec<Stale>> {
        let mut txn = self.begin();
        let mut dirs = Vec::new();
        self.db.scan(keys::UNSETTLED, keys::UNSETTLED, |key, _| {
            dirs.push(keys::number(key, 1));
            Ok(true)
        })?;
        if dirs.is_empty() {
            return Ok(Vec::new());
        }
        let mut moved = Vec::new();
        for dir in dirs {
            txn.raw(Space::Meta, keys::unsettled(dir), None);
            let Some(link) = txn.find_link(dir)? else { continue };
            if link.live {
                moved.push(dir);
            } else if self.has_entries(dir)? {
                revive(&mut txn, link, &mut moved)?;
            } else if let Some(mut inode) = txn.find_inode(dir)? {
                inode.local.nlink = 0;
                txn.put_inode(inode);
            }
        }
        for dir in moved {
            break_cycle(&mut txn, dir)?;
        }
        txn.commit()
    }

    /// Whether a file with a name has this token as its content.
    pub fn is_content(&self, token: &Token) -> CatalogResult<bool> {
        let Some(ino) = self.db.load::<Ino>(&keys::token(&self.token_tag(token)))? else {
            return Ok(false);
        };
        let inode = self.find_inode(ino)?;
        Ok(inode.is_some_and(|i| i.local.nlink > 0 && i.content.version.token() == Some(token)))
    }

    /// Notes what a checkpoint covered, once all its pages are in.
    pub fn join_applied(&self, writer: u32, covered: &Applied) -> CatalogResult<()> {
        let mut applied = self.applied(writer)?;
        applied.join(covered);
        let mut batch = self.db.batch();
        batch.store(&keys::applied(writer), &applied);
        Ok(batch.commit()?)
    }
}

/// Notes what a segment mentions; before its records, which say of which inodes it is the
/// content: housekeeping deletes no token that a file with a name has.
fn note_tokens(txn: &mut Txn<'_>, tokens: &[Token]) {
    for token in tokens {
        txn.know_token(token, 0);
    }
}

fn apply_records(txn: &mut Txn<'_>, records: &[Record]) -> CatalogResult<()> {
    // Inodes first, whatever the order they came in: links count themselves in.
    for record in records {
        if let Record::Inode(inode) = record {
            apply_inode(txn, inode)?;
        }
    }
    for record in records {
        if let Record::Link(link) = record {
            apply_link(txn, link)?;
        }
    }
    Ok(())
}

fn observe(txn: &mut Txn<'_>, stamp: Stamp) {
    txn.writer.clock.observe(stamp);
}

fn apply_inode(txn: &mut Txn<'_>, record: &InodeRecord) -> CatalogResult<()> {
    observe(txn, record.attrs_stamp);
    observe(txn, record.content.stamp);
    if let Some(token) = record.content.version.token() {
        forget_discovered(txn, token, record.ino)?;
        txn.know_token(token, record.ino);
    }
    let Some(mut inode) = txn.find_inode(record.ino)? else {
        let mut inode = record.clone().into_inode();
        inode.local.nlink = count_links(txn, &inode)?;
        txn.put_inode(inode);
        return Ok(());
    };
    inode.local.foreign = false;
    let mut data = false;
    if record.attrs_stamp > inode.attrs_stamp {
        inode.attrs_stamp = record.attrs_stamp;
        inode.attrs = record.attrs.clone();
    }
    for (name, (stamp, value)) in &record.xattrs {
        if inode.xattrs.get(name).is_none_or(|(held, _)| stamp > held) {
            inode.xattrs.insert(name.clone(), (*stamp, value.clone()));
        }
    }
    if record.content.stamp > inode.content.stamp {
        let lost = std::mem::replace(&mut inode.content, record.content.clone());
        data = inode.local.dirty.is_none();
        let mine = lost.stamp.writer == txn.writer.clock.writer();
        if mine && !record.content.covers(&lost) {
            keep_lost(txn, &inode, lost)?;
        }
    }
    txn.stale.push(Stale::Inode { ino: inode.ino, data });
    txn.put_inode(inode);
    Ok(())
}

/// A token that was shown as another client's turns out to be the catalog's.
fn forget_discovered(txn: &mut Txn<'_>, token: &Token, ino: Ino) -> CatalogResult<()> {
    let shadow = super::discover::file_number(txn.tree, token);
    if shadow == ino {
        return Ok(());
    }
    let Some(inode) = txn.find_inode(shadow)? else { return Ok(()) };
    if !inode.local.foreign {
        return Ok(());
    }
    if let Some(link) = txn.find_link(shadow)? {
        txn.detach(&link)?;
        txn.remove_link(shadow);
    }
    txn.remove_inode(shadow);
    Ok(())
}

/// Links and subdirectories that arrived before their inode.
fn count_links(txn: &Txn<'_>, inode: &Inode) -> CatalogResult<u32> {
    if inode.kind != Kind::Dir {
        return Ok(u32::try_from(txn.tree.links_of(inode.ino)?.len()).unwrap_or(u32::MAX));
    }
    let mut count = 2;
    txn.tree.list(inode.ino, 0, |_, _, link| {
        count += u32::from(link.kind == Kind::Dir);
        true
    })?;
    Ok(count)
}

/// Keeps a content that lost against a concurrent one, as a file beside it.
pub fn keep_lost(txn: &mut Txn<'_>, inode: &Inode, lost: Content) -> CatalogResult<()> {
    if lost.version.token().is_none() {
        return Ok(());
    }
    let Some(link) = txn.tree.links_of(inode.ino)?.into_iter().next() else { return Ok(()) };
    let mut seed = inode.ino.to_be_bytes().to_vec();
    seed.extend_from_slice(&encode(&lost.stamp));
    let number = derived_number(txn.tree, "lost-content", &seed);
    if txn.find_inode(number)?.is_some() {
        return Ok(());
    }
    let stamp = txn.stamp();
    let mut copy = inode.clone();
    copy.ino = number;
    copy.attrs_stamp = stamp;
    copy.content = lost;
    if let Some(token) = copy.content.version.token() {
        txn.know_token(token, number);
    }
    copy.local = Local::default();
    txn.put_inode(copy);
    let link = Link {
        id: number,
        stamp,
        parent: link.parent,
        name: conflict_name(&link.name, number),
        ino: number,
        kind: Kind::File,
        live: true,
        published: false,
    };
    txn.attach(&link)?;
    txn.put_link(link);
    txn.publish_inode(number);
    txn.publish_link(number, None, None)
}

/// A number that every machine with the key derives alike; the top bit keeps it apart
/// from counted ones.
pub(super) fn derived_number(tree: &Tree, domain: &str, bytes: &[u8]) -> u64 {
    let tag = tree.keys.tag(domain, bytes);
    keys::number(&tag, 0) | (1 << 63)
}

fn apply_link(txn: &mut Txn<'_>, record: &Link) -> CatalogResult<()> {
    observe(txn, record.stamp);
    let held = txn.find_link(record.id)?;
    if held.as_ref().is_some_and(|h| h.stamp >= record.stamp) {
        return Ok(());
    }
    if let Some(held) = held.as_ref().filter(|h| h.live) {
        txn.detach(held)?;
    }
    let mut link = Link { published: true, ..record.clone() };
    let dirty = txn.find_inode(link.ino)?.is_some_and(|i| i.local.dirty.is_some());
    // What waited to be published of it is older than this.
    txn.raw(Space::Meta, keys::outbox_link(link.id), None);
    if !link.live && dirty {
        link.live = true;
        link.stamp = txn.stamp();
        txn.publish_link(link.id, None, Some(link.ino))?;
    }
    if link.kind == Kind::Dir {
        txn.unsettle(link.id);
    }
    if link.live {
        restate(txn, link.ino)?;
        txn.put_link(link.clone());
        txn.attach(&link)?;
        if txn.find_link(link.parent)?.is_some_and(|above| !above.live) {
            txn.unsettle(link.parent);
        }
    } else {
        settle_removed(txn, &link)?;
        txn.put_link(link);
    }
    Ok(())
}

/// Before an inode without a name gets one again: changes made here may have been dropped
/// unsent when its last name went.
fn restate(txn: &mut Txn<'_>, ino: Ino) -> CatalogResult<()> {
    let Some(mut inode) = txn.find_inode(ino)? else { return Ok(()) };
    // A directory that something was put into is counted already, but not found.
    let nameless = inode.is_dir() && !txn.find_link(ino)?.is_some_and(|l| l.live);
    if nameless || inode.local.nlink == 0 {
        if inode.has_stamp_of(txn.writer.clock.writer()) {
            txn.publish_inode(ino);
        }
        inode.local.gone = false;
        txn.put_inode(inode);
    }
    Ok(())
}

/// After a remote removal: the last name of an inode is gone.
fn settle_removed(txn: &mut Txn<'_>, link: &Link) -> CatalogResult<()> {
    let Some(inode) = txn.find_inode(link.ino)? else { return Ok(()) };
    if inode.kind == Kind::Dir {
        return Ok(()); // what is inside may bring it back: see `Tree::settle`
    }
    if inode.local.nlink == 0 {
        txn.raw(Space::Meta, keys::outbox_inode(inode.ino), None);
    }
    txn.stale.push(Stale::Inode { ino: inode.ino, data: false });
    Ok(())
}

/// Brings a removed directory back, and the removed ones above it.
fn revive(txn: &mut Txn<'_>, mut link: Link, revived: &mut Vec<Ino>) -> CatalogResult<()> {
    while !link.live {
        restate(txn, link.ino)?;
        link.live = true;
        link.stamp = txn.stamp();
        txn.put_link(link.clone());
        txn.attach(&link)?;
        txn.publish_link(link.id, None, None)?;
        revived.push(link.id);
        match txn.find_link(link.parent)? {
            Some(above) => link = above,
            None => break, // the root, or one that is still to arrive
        }
    }
    Ok(())
}

/// If a directory's place closes a cycle, moves the newest directory on it to the root.
fn break_cycle(txn: &mut Txn<'_>, dir: u64) -> CatalogResult<()> {
    let Some(link) = txn.find_link(dir)? else { return Ok(()) };
    let mut newest = link.clone();
    let mut seen = BTreeSet::new();
    let mut at = link.parent;
    while at != link.ino {
        // A cycle further up is not this directory's: one of its own members breaks it.
        if at == ROOT_INO || !seen.insert(at) {
            return Ok(());
        }
        let Some(above) = txn.find_link(at)? else { return Ok(()) };
        at = above.parent;
        if above.stamp > newest.stamp {
            newest = above;
        }
    }
    let before = newest.clone();
    txn.detach(&newest)?;
    newest.parent = ROOT_INO;
    newest.stamp = txn.stamp();
    txn.put_link(newest.clone());
    txn.attach(&newest)?;
    txn.publish_link(newest.id, Some(&before), None)
}
