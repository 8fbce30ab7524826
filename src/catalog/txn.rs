//! One change of the catalog: reads its own writes, commits as one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::hlc::Stamp;
use super::keys;
use super::outbox::Change;
use super::record::{
    Entry, EntryLink, Ino, Inode, Kind, Link, Time, Version, conflict_names, shown_name,
};
use super::tree::{CatalogError, CatalogResult, Tree};
use super::writer::Writer;
use crate::db::{Space, decode, encode};
use crate::store::Token;

/// What the kernel may have cached and must forget, after a change it did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Attributes (and pages, if `data`).
    Inode {
        /// Which.
        ino: Ino,
        /// Whether its pages are stale too.
        data: bool,
    },
    /// A name.
    Entry {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
}

/// What is known of a change that waits to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutboxEntry {
    /// Not before this inode's content is committed.
    pub after: Option<Ino>,
    /// Of a link: the directories in which other machines may still see it.
    pub left: Vec<Ino>,
}

/// A token to delete later.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Garbage {
    /// The token.
    pub token: Token,
    /// Whether it is a manifest, whose parts go too.
    pub manifest: bool,
    /// Of a part or a manifest: what other files of this family use stays.
    pub family: Option<Ino>,
    /// Whether it is a payload of the catalog itself, which no record names.
    pub catalog: bool,
}

impl Garbage {
    fn new(token: &Token) -> Self {
        Self { token: token.clone(), manifest: false, family: None, catalog: false }
    }
}

/// A running change. Dropping it without [`Txn::commit`] changes nothing.
pub struct Txn<'a> {
    pub(super) tree: &'a Tree,
    pub(super) writer: MutexGuard<'a, Writer>,
    inodes: BTreeMap<Ino, Option<Inode>>,
    links: BTreeMap<u64, Option<Link>>,
    entries: BTreeMap<Vec<u8>, (Ino, Entry)>,
    raw: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    /// What other caches must forget.
    pub stale: Vec<Stale>,
}

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Txn")
    }
}

impl<'a> Txn<'a> {
    pub(super) fn new(tree: &'a Tree, writer: MutexGuard<'a, Writer>) -> Self {
        Self {
            tree,
            writer,
            inodes: BTreeMap::new(),
            links: BTreeMap::new(),
            entries: BTreeMap::new(),
            raw: BTreeMap::new(),
            stale: Vec::new(),
        }
    }

    /// A new stamp, greater than all before.
    pub fn stamp(&mut self) -> Stamp {
        let millis = self.tree.env.millis();
        self.writer.clock.tick(millis)
    }

    /// The time now.
    pub fn now(&self) -> Time {
        Time::from(self.tree.env.clock.now())
    }

    /// An inode, `None` if there is no such record.
    pub fn find_inode(&self, ino: Ino) -> CatalogResult<Option<Inode>> {
        match self.inodes.get(&ino) {
            Some(inode) => Ok(inode.clone()),
            None => Ok(self.tree.find_inode(ino)?.map(|i| (*i).clone())),
        }
    }

    /// An inode that must exist.
    pub fn inode(&self, ino: Ino) -> CatalogResult<Inode> {
        self.find_inode(ino)?.ok_or_else(|| CatalogError::not_found(format!("inode {ino}")))
    }

    /// Sets an inode.
    pub fn put_inode(&mut self, inode: Inode) {
        self.inodes.insert(inode.ino, Some(inode));
    }

    /// Removes an inode's record.
    pub fn remove_inode(&mut self, ino: Ino) {
        self.inodes.insert(ino, None);
        self.raw(Space::Meta, keys::outbox_inode(ino), None);
        self.raw(Space::Meta, keys::align(ino), None);
    }

    /// A link, `None` if there is no such record.
    pub fn find_link(&self, id: u64) -> CatalogResult<Option<Link>> {
        match self.links.get(&id) {
            Some(link) => Ok(link.clone()),
            None => Ok(self.tree.db.load(&keys::link(id))?),
        }
    }

    /// Sets a link's record, without moving it in the entry table.
    pub fn put_link(&mut self, link: Link) {
        self.links.insert(link.id, Some(link));
    }

    /// Removes a link's record.
    pub fn remove_link(&mut self, id: u64) {
        self.links.insert(id, None);
        self.raw(Space::Meta, keys::outbox_link(id), None);
    }

    /// What stands at a name.
    pub fn entry(&self, parent: Ino, name: &[u8]) -> CatalogResult<Entry> {
        let key = self.tree.entry_key(parent, name);
        if let Some((_, entry)) = self.entries.get(&key) {
            return Ok(entry.clone());
        }
        let stored = self.tree.db.load(&key)?;
        Ok(stored.unwrap_or_else(|| Entry { name: name.to_vec(), links: Vec::new() }))
    }

    /// The link that a name leads to, conflict names included.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> CatalogResult<Option<EntryLink>> {
        if let Some(first) = self.entry(parent, name)?.links.first() {
            return Ok(Some(*first));
        }
        let alias = self.tree.alias_key(parent, name);
        let link: Option<u64> = self.load(alias)?;
        let Some(link) = link.map(|id| self.find_link(id)).transpose()?.flatten() else {
            return Ok(None);
        };
        if !link.live {
            return Ok(None);
        }
        let taken = |name: &[u8]| self.entry(parent, name).map(|entry| !entry.links.is_empty());
        let shown = shown_name(&link.name, link.id, taken)?;
        Ok((shown == name).then(|| EntryLink::from(&link)))
    }

    /// Sets or removes any other record.
    pub fn raw(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.raw.insert((space, key), value);
    }

    /// Puts an inode into the outbox.
    pub fn publish_inode(&mut self, ino: Ino) {
        let entry = encode(&OutboxEntry::default());
        self.raw(Space::Meta, keys::outbox_inode(ino), Some(entry));
    }

    /// Puts a link into the outbox, to wait for an inode's content if `after` is given.
    /// `before` is the link as it was until now, if it was there.
    pub fn publish_link(
        &mut self,
        id: u64,
        before: Option<&Link>,
        after: Option<Ino>,
    ) -> CatalogResult<()> {
        let left = match self.outbox_entry(id)? {
            Some(waiting) => waiting.left,
            None => {
                before.filter(|l| l.published && l.live).map(|l| l.parent).into_iter().collect()
            }
        };
        self.put_outbox_entry(id, &OutboxEntry { after, left });
        Ok(())
    }

    /// The outbox entry of a link.
    pub(super) fn outbox_entry(&self, id: u64) -> CatalogResult<Option<OutboxEntry>> {
        self.load(keys::outbox_link(id))
    }

    /// Any other record of `Space::Meta`, as this change has left it so far.
    fn load<T: serde::de::DeserializeOwned>(&self, key: Vec<u8>) -> CatalogResult<Option<T>> {
        let key = (Space::Meta, key);
        match self.raw.get(&key) {
            Some(value) => Ok(value.as_deref().map(decode).transpose()?),
            None => Ok(self.tree.db.load(&key.1)?),
        }
    }

    pub(super) fn put_outbox_entry(&mut self, id: u64, entry: &OutboxEntry) {
        self.raw(Space::Meta, keys::outbox_link(id), Some(encode(entry)));
    }

    /// Notes a directory whose place must be looked at once all segments are in.
    pub(super) fn unsettle(&mut self, dir: Ino) {
        self.raw(Space::Meta, keys::unsettled(dir), Some(Vec::new()));
    }

    /// Notes that the catalog names a token.
    pub fn know_token(&mut self, token: &Token, ino: Ino) {
        let key = keys::token(&self.tree.token_tag(token));
        self.raw(Space::Meta, key, Some(encode(&ino)));
    }

    /// Notes that a token that nobody shares may be deleted after `delay_ms`.
    pub fn discard_token(&mut self, token: &Token, delay_ms: u64) {
        self.discard(&Garbage::new(token), delay_ms);
    }

    /// The same of a payload of the catalog.
    pub fn discard_catalog(&mut self, token: &Token, delay_ms: u64) {
        self.discard(&Garbage { catalog: true, ..Garbage::new(token) }, delay_ms);
    }

    /// Notes that a part may be deleted after `delay_ms`, unless its family uses it.
    pub fn discard_part(&mut self, token: &Token, family: Option<Ino>, delay_ms: u64) {
        self.discard(&Garbage { family, ..Garbage::new(token) }, delay_ms);
    }

    /// Notes that a version may be deleted after `delay_ms`, with all its parts.
    pub fn discard_version(&mut self, version: &Version, delay_ms: u64) {
        let family = version.family();
        if let Some(token) = version.token() {
            let manifest = family.is_some();
            self.discard(&Garbage { manifest, family, ..Garbage::new(token) }, delay_ms);
        }
    }

    fn discard(&mut self, garbage: &Garbage, delay_ms: u64) {
        let due = self.tree.env.millis().saturating_add(delay_ms);
        self.writer.garbage += 1;
        let number = self.tree.env.random_u64() ^ self.writer.garbage;
        self.raw(Space::Meta, keys::garbage(due, number), Some(encode(garbage)));
    }

    /// Puts a live link into the entry table and counts it.
    pub fn attach(&mut self, link: &Link) -> CatalogResult<()> {
        let mut entry = self.entry(link.parent, &link.name)?;
        let before = entry.links.clone();
        entry.links.retain(|l| l.link != link.id);
        entry.links.push(EntryLink::from(link));
        self.put_entry(link.parent, entry, &before);
        self.raw(Space::Meta, keys::back(link.ino, link.id), Some(Vec::new()));
        self.count(link, 1)
    }

    /// Takes a link out of the entry table; its record stays.
    pub fn detach(&mut self, link: &Link) -> CatalogResult<()> {
        let mut entry = self.entry(link.parent, &link.name)?;
        let before = entry.links.clone();
        entry.links.retain(|l| l.link != link.id);
        if entry.links.len() == before.len() {
            return Ok(());
        }
        self.put_entry(link.parent, entry, &before);
        self.raw(Space::Meta, keys::back(link.ino, link.id), None);
        self.count(link, -1)
    }

    fn put_entry(&mut self, parent: Ino, mut entry: Entry, before: &[EntryLink]) {
        entry.links.sort_by_key(|l| std::cmp::Reverse((l.stamp, l.link)));
        self.stale.push(Stale::Entry { parent, name: entry.name.clone() });
        for lost in before.iter().skip(1) {
            for shown in conflict_names(&entry.name, lost.link) {
                let alias = self.tree.alias_key(parent, &shown);
                self.raw(Space::Meta, alias, None);
                self.stale.push(Stale::Entry { parent, name: shown });
            }
        }
        for loser in entry.links.iter().skip(1) {
            for shown in conflict_names(&entry.name, loser.link) {
                let alias = self.tree.alias_key(parent, &shown);
                self.raw(Space::Meta, alias, Some(encode(&loser.link)));
            }
        }
        let key = self.tree.entry_key(parent, &entry.name);
        self.entries.insert(key, (parent, entry));
    }

    fn count(&mut self, link: &Link, change: i32) -> CatalogResult<()> {
        let holder = if link.kind == Kind::Dir { link.parent } else { link.ino };
        if let Some(mut inode) = self.find_inode(holder)? {
            if inode.is_dir() && change > 0 {
                inode.local.nlink = inode.local.nlink.max(2); // one that was removed comes back
            }
            inode.local.nlink = inode.local.nlink.saturating_add_signed(change);
            self.put_inode(inode);
        }
        if link.kind == Kind::Dir
            && let Some(mut dir) = self.find_inode(link.ino)?
        {
            dir.local.nlink = if change > 0 { dir.local.nlink.max(2) } else { dir.local.nlink };
            self.put_inode(dir);
        }
        Ok(())
    }

    /// Marks a directory as changed: its times move, and it is published.
    pub fn touch_dir(&mut self, ino: Ino) -> CatalogResult<()> {
        let mut dir = self.inode(ino)?;
        self.adopt(&mut dir)?;
        let now = self.now();
        dir.attrs.mtime = now;
        dir.attrs.ctime = now;
        dir.attrs_stamp = self.stamp();
        self.put_inode(dir);
        self.publish_inode(ino);
        Ok(())
    }

    /// Takes a discovered file (and the folders above it) into the catalog, because a local
    /// operation is about to change it.
    pub fn adopt(&mut self, inode: &mut Inode) -> CatalogResult<()> {
        if !std::mem::take(&mut inode.local.foreign) {
            return Ok(());
        }
        self.publish_inode(inode.ino);
        // A discovered inode has one link, with the inode's own number.
        if let Some(mut link) = self.find_link(inode.ino)? {
            link.published = true;
            self.publish_link(link.id, None, None)?;
            let parent = link.parent;
            self.put_link(link);
            let mut parent = self.inode(parent)?;
            self.adopt(&mut parent)?;
            self.put_inode(parent);
        }
        Ok(())
    }

    /// Marks an inode's attributes as changed now.
    pub fn touch_inode(&mut self, inode: &mut Inode) -> CatalogResult<()> {
        inode.attrs.ctime = self.now();
        self.restamp(inode)
    }

    /// Notes when an inode's content was changed, which may be a while ago.
    pub fn touch_content(&mut self, inode: &mut Inode, at: Time) -> CatalogResult<()> {
        inode.attrs.mtime = at;
        inode.attrs.ctime = inode.attrs.ctime.max(at);
        self.restamp(inode)
    }

    fn restamp(&mut self, inode: &mut Inode) -> CatalogResult<()> {
        self.adopt(inode)?;
        inode.attrs_stamp = self.stamp();
        if !inode.local.unwanted {
            self.publish_inode(inode.ino);
        }
        Ok(())
    }

    /// Whether `ancestor` is `ino` or above it.
    pub fn is_below(&self, ino: Ino, ancestor: Ino) -> CatalogResult<bool> {
        let mut at = ino;
        // A path is at most 4096 bytes, so deeper than this is a cycle already.
        for _ in 0..4096 {
            if at == ancestor {
                return Ok(true);
            }
            match self.parent_of(at)? {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The directory that holds a directory.
    pub fn parent_of(&self, dir: Ino) -> CatalogResult<Option<Ino>> {
        if dir == super::record::ROOT_INO {
            return Ok(None);
        }
        // A directory has one link, with the directory's own number.
        Ok(self.find_link(dir)?.map(|link| link.parent))
    }

    /// Makes the change visible and durable; gives the inodes it changed.
    pub fn commit(mut self) -> CatalogResult<Vec<Stale>> {
        let tree = self.tree;
        let mut batch = tree.db.batch();
        for (ino, inode) in &self.inodes {
            match inode {
                Some(inode) => {
                    batch.store(&keys::inode(*ino), inode);
                    for family in inode.families().filter(|family| family != ino) {
                        batch.put(Space::Meta, &keys::member(family, *ino), &[]);
                    }
                }
                None => batch.remove(Space::Meta, &keys::inode(*ino)),
            }
        }
        for (id, link) in &self.links {
            match link {
                Some(link) => batch.store(&keys::link(*id), link),
                None => batch.remove(Space::Meta, &keys::link(*id)),
            }
        }
        for (key, (_, entry)) in &self.entries {
            match entry.links.is_empty() {
                true => batch.remove(Space::Meta, key),
                false => batch.store(key, entry),
            }
        }
        for ((space, key), value) in &self.raw {
            match value {
                Some(value) => batch.put(*space, key, value),
                None => batch.remove(*space, key),
            }
        }
        let named = self.inodes.values().flatten().flat_map(|inode| inode.xattrs.keys());
        tree.names_in_use.add(named, &mut batch);
        self.writer.reserve(&mut batch);
        batch.commit().inspect_err(|_| tree.names_in_use.forget())?;
        let settled = |inode: &Option<Inode>| {
            let waits = |i: &Inode| i.local.dirty.is_some() && i.local.nlink > 0;
            !inode.as_ref().is_some_and(|i| waits(i) && !i.local.unwanted)
        };
        let settled = self.inodes.iter().filter(|(_, inode)| settled(inode));
        let settled: Vec<Ino> = settled.map(|(ino, _)| *ino).collect();
        let mut cache = tree.cache.lock();
        for (ino, inode) in std::mem::take(&mut self.inodes) {
            match inode {
                Some(inode) => drop(cache.put(ino, Arc::new(inode))),
                None => drop(cache.pop(&ino)),
            }
        }
        drop(cache);
        // after the cache: whoever is waked must see what this change has settled
        let mut outbox = tree.outbox.lock();
        for ((_, key), value) in &self.raw {
            match (Change::of_key(key), value) {
                (Some(change), Some(_)) => outbox.add(change),
                (Some(change), None) => outbox.remove(change),
                (None, _) => {}
            }
        }
        settled.into_iter().for_each(|ino| outbox.wake(ino));
        drop(outbox);
        Ok(std::mem::take(&mut self.stale))
    }
}
