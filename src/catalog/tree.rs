//! The tree of names over the local database: lookups and local operations.
//!
//! Every operation is one [`Txn`] under one lock: short, never across the network.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::attributes::NamesInUse;
pub use super::format::names::NAME_MAX;
use super::format::names::is_name;
use super::hlc::Stamp;
use super::keys;
use super::outbox::{Change, Outbox};
use super::record::{
    Attrs, Content, Entry, EntryLink, Ino, Inode, Kind, Link, Local, ROOT_INO, Time, shown_name,
};
use super::txn::{Stale, Txn};
use super::writer::{Writer, check_format};
use crate::crypto::LocalKeys;
use crate::db::{Db, DbError, DbResult, Space};
use crate::env::Env;
use crate::store::{RiskMeta, Token};

/// Decoded inodes kept in memory: about 400 bytes each, so 16 MiB at most.
const INODE_CACHE: usize = 40_000;

/// Most hard links of one inode (ext4's limit is 65,000).
const LINK_MAX: u32 = 65_000;

/// Why a catalog operation failed; `what` is the victim.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message is its meaning; `what` is the victim")]
pub enum CatalogError {
    #[error("{what}: no such file or directory")]
    NotFound { what: String },
    #[error("{what}: already exists")]
    Exists { what: String },
    #[error("{what}: not a directory")]
    NotDir { what: String },
    #[error("{what}: is a directory")]
    IsDir { what: String },
    #[error("{what}: directory not empty")]
    NotEmpty { what: String },
    #[error("{what}: {why}")]
    Invalid { what: String, why: &'static str },
    #[error("{what}: name longer than 255 bytes")]
    NameTooLong { what: String },
    #[error("{what}: too many links")]
    TooManyLinks { what: String },
    #[error("{what}: operation not permitted")]
    NotPermitted { what: String },
    #[error(transparent)]
    Db(#[from] DbError),
}

impl CatalogError {
    /// No such thing.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }
}

/// A result of a catalog operation.
pub type CatalogResult<T> = Result<T, CatalogError>;

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

/// The tree.
pub struct Tree {
    pub(super) db: Arc<Db>,
    pub(super) keys: Arc<LocalKeys>,
    pub(super) env: Env,
    pub(super) lock: Mutex<Writer>,
    pub(super) cache: Mutex<LruCache<Ino, Arc<Inode>>>,
    /// Taken after `lock`, for a few instructions.
    pub(super) outbox: Mutex<Outbox>,
    /// By token tag: risk meta that one listing has shown to be changed by others.
    pub(super) risk_seen: Mutex<BTreeMap<[u8; 16], RiskMeta>>,
    pub(super) names_in_use: NamesInUse,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tree")
    }
}

impl Tree {
    /// Opens the tree; a new one gets a root owned by `uid` and `gid`.
    pub fn open(
        db: Arc<Db>,
        keys: Arc<LocalKeys>,
        env: Env,
        uid: u32,
        gid: u32,
    ) -> CatalogResult<Self> {
        let (writer, fresh) = Writer::load(&db, &env)?;
        check_format(&db, fresh)?;
        let names_in_use = NamesInUse::load(&db)?;
        let cache = LruCache::new(NonZeroUsize::new(INODE_CACHE).unwrap_or(NonZeroUsize::MIN));
        let mut outbox = Outbox::default();
        db.scan(keys::OUTBOX, keys::OUTBOX, |key, _| {
            Change::of_key(key).into_iter().for_each(|change| outbox.add(change));
            Ok(outbox.len().is_some())
        })?;
        let (lock, cache, outbox) = (Mutex::new(writer), Mutex::new(cache), Mutex::new(outbox));
        let risk_seen = Mutex::default();
        let tree = Self { db, keys, env, lock, cache, outbox, risk_seen, names_in_use };
        if fresh {
            tree.make_root(uid, gid)?;
        }
        Ok(tree)
    }

    /// The root's attributes start at stamp zero, so that the first machine's real changes
    /// win everywhere and a new machine's default never overrides them.
    fn make_root(&self, uid: u32, gid: u32) -> CatalogResult<()> {
        let mut txn = self.begin();
        let now = txn.now();
        txn.put_inode(Inode {
            ino: ROOT_INO,
            kind: Kind::Dir,
            born: now,
            rdev: 0,
            target: Vec::new(),
            attrs_stamp: Stamp::ZERO,
            attrs: Attrs { perm: 0o755, uid, gid, atime: now, mtime: now, ctime: now },
            content: Content::default(),
            xattrs: std::collections::BTreeMap::new(),
            local: Local { nlink: 2, ..Local::default() },
        });
        txn.commit().map(drop)
    }

    /// Starts a change; others wait until it is committed or dropped.
    pub fn begin(&self) -> Txn<'_> {
        Txn::new(self, self.lock.lock())
    }

    /// The local database.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// This machine's writer number.
    pub fn writer(&self) -> u32 {
        self.lock.lock().clock.writer()
    }

    pub(super) fn entry_key(&self, parent: Ino, name: &[u8]) -> Vec<u8> {
        keys::entry(parent, &self.keys.name_tag(parent, name))
    }

    pub(super) fn alias_key(&self, parent: Ino, name: &[u8]) -> Vec<u8> {
        keys::alias(parent, &self.keys.name_tag(parent, name))
    }

    /// The keyed tag of a token, for keys that must not show it.
    pub fn token_tag(&self, token: &Token) -> [u8; 16] {
        self.keys.tag("token", token.as_str().as_bytes())
    }

    /// Whether the catalog names this token.
    pub fn knows_token(&self, token: &Token) -> CatalogResult<bool> {
        Ok(self.db.contains(Space::Meta, &keys::token(&self.token_tag(token)))?)
    }

    /// An inode, if there is such a record.
    pub fn find_inode(&self, ino: Ino) -> CatalogResult<Option<Arc<Inode>>> {
        if let Some(inode) = self.cache.lock().get(&ino) {
            return Ok(Some(inode.clone()));
        }
        let Some(inode) = self.db.load::<Inode>(&keys::inode(ino))? else { return Ok(None) };
        let inode = Arc::new(inode);
        // A change that committed meanwhile has put its own, newer record: keep that.
        let mut cache = self.cache.lock();
        let kept = cache.get_or_insert(ino, || inode);
        Ok(Some(kept.clone()))
    }

    /// Whether an inode may have an extended attribute of this name. Knows it without a look
    /// at the inode: `ls -l` asks for the access control list of each file.
    pub fn may_have_xattr(&self, name: &[u8]) -> bool {
        self.names_in_use.may_have(name)
    }

    /// An inode that must exist.
    pub fn inode(&self, ino: Ino) -> CatalogResult<Arc<Inode>> {
        self.find_inode(ino)?.ok_or_else(|| CatalogError::not_found(format!("inode {ino}")))
    }

    /// The inode that a name leads to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> CatalogResult<Arc<Inode>> {
        check_name(name)?;
        let link = self.find_entry(parent, name)?;
        match link {
            Some(link) => self.inode(link.ino),
            None => Err(CatalogError::not_found(shown(name))),
        }
    }

    fn find_entry(&self, parent: Ino, name: &[u8]) -> CatalogResult<Option<EntryLink>> {
        let entry: Option<Entry> = self.db.load(&self.entry_key(parent, name))?;
        if let Some(first) = entry.and_then(|e| e.links.first().copied()) {
            return Ok(Some(first));
        }
        let Some(id) = self.db.load::<u64>(&self.alias_key(parent, name))? else { return Ok(None) };
        let link: Option<Link> = self.db.load(&keys::link(id))?;
        let Some(link) = link.filter(|l| l.live) else { return Ok(None) };
        let shown = self.shown_name(parent, &link.name, link.id)?;
        Ok((shown == name).then(|| EntryLink::from(&link)))
    }

    /// The name under which a link that lost its own is shown.
    fn shown_name(&self, parent: Ino, name: &[u8], link: u64) -> DbResult<Vec<u8>> {
        shown_name(name, link, |name| self.db.contains(Space::Meta, &self.entry_key(parent, name)))
    }

    /// Calls `each(cookie, name, link)` for the entries after `cookie` (0: from the start),
    /// until it answers `false`. A cookie stays valid whatever else changes.
    pub fn list(
        &self,
        parent: Ino,
        after: u64,
        mut each: impl FnMut(u64, &[u8], &EntryLink) -> bool,
    ) -> CatalogResult<()> {
        let prefix = keys::entries(parent);
        let mut from = prefix.clone();
        if after > 0 {
            from.extend_from_slice(&((after + 1) << 1).to_be_bytes());
        }
        let listed = self.db.scan(&prefix, &from, |key, value| {
            let entry: Entry = crate::db::decode(&value)?;
            let cookie = (keys::number(key, 9) >> 1).max(3);
            for (rank, link) in entry.links.iter().enumerate() {
                let name = match rank {
                    0 => entry.name.clone(),
                    _ => self.shown_name(parent, &entry.name, link.link)?,
                };
                if !each(cookie, &name, link) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        Ok(listed?)
    }

    /// The cookie of a name in [`Tree::list`].
    pub fn cookie_of(&self, parent: Ino, name: &[u8]) -> u64 {
        (keys::number(&self.keys.name_tag(parent, name), 0) >> 1).max(3)
    }

    /// Whether a directory has an entry.
    pub fn has_entries(&self, dir: Ino) -> CatalogResult<bool> {
        Ok(self.db.any(&keys::entries(dir))?)
    }

    /// The links of an inode, live ones only.
    pub fn links_of(&self, ino: Ino) -> CatalogResult<Vec<Link>> {
        let mut ids = Vec::new();
        let prefix = keys::backs(ino);
        self.db.scan(&prefix, &prefix, |key, _| {
            ids.push(keys::number(key, 9));
            Ok(true)
        })?;
        let mut links = Vec::with_capacity(ids.len());
        for id in ids {
            links.extend(self.db.load::<Link>(&keys::link(id))?.filter(|l| l.live));
        }
        Ok(links)
    }

    /// The path of an inode from the root, without a leading slash; empty for the root and
    /// `None` for an inode without a name.
    pub fn path_of(&self, ino: Ino) -> CatalogResult<Option<Vec<u8>>> {
        let Some(link) = self.links_of(ino)?.into_iter().next() else {
            return Ok((ino == ROOT_INO).then(Vec::new));
        };
        let mut names = vec![link.name];
        let mut at = link.parent;
        while at != ROOT_INO && names.len() < 4096 {
            let Some(link) = self.db.load::<Link>(&keys::link(at))? else { return Ok(None) };
            names.push(link.name);
            at = link.parent;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// The directory that holds a directory; the root holds itself.
    pub fn parent_of(&self, dir: Ino) -> CatalogResult<Ino> {
        if dir == ROOT_INO {
            return Ok(ROOT_INO);
        }
        Ok(self.db.load::<Link>(&keys::link(dir))?.map_or(ROOT_INO, |link| link.parent))
    }

    /// Makes an inode with one name.
    pub fn create(&self, parent: Ino, name: &[u8], new: NewInode) -> CatalogResult<Inode> {
        check_name(name)?;
        let mut txn = self.begin();
        let dir = txn.inode(parent)?;
        check_dir(&dir, name)?;
        if txn.lookup(parent, name)?.is_some() {
            return Err(CatalogError::Exists { what: shown(name) });
        }
        let ino = txn.writer.number();
        let (now, stamp) = (txn.now(), txn.stamp());
        let nlink = if new.kind == Kind::Dir { 2 } else { 0 };
        let xattrs = new.xattrs.into_iter().map(|(k, v)| (k, (stamp, Some(v)))).collect();
        // POSIX: a set-gid directory hands its group (and, to directories, the bit) down.
        let inherits = dir.attrs.perm & 0o2000 != 0;
        let gid = if inherits { dir.attrs.gid } else { new.gid };
        let perm = if inherits && new.kind == Kind::Dir { new.perm | 0o2000 } else { new.perm };
        txn.put_inode(Inode {
            ino,
            kind: new.kind,
            born: now,
            rdev: new.rdev,
            target: new.target,
            attrs_stamp: stamp,
            attrs: Attrs { perm, uid: new.uid, gid, atime: now, mtime: now, ctime: now },
            content: Content::default(),
            xattrs,
            local: Local { nlink, unwanted: new.unwanted, ..Local::default() },
        });
        let link = Link {
            id: ino,
            stamp,
            parent,
            name: name.to_vec(),
            ino,
            kind: new.kind,
            live: true,
            published: false,
        };
        txn.attach(&link)?;
        txn.put_link(link);
        if !new.unwanted {
            txn.publish_inode(ino);
            txn.publish_link(ino, None, None)?;
        }
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
        txn.touch_inode(&mut inode)?;
        txn.put_inode(inode);
        let (id, stamp) = (txn.writer.number(), txn.stamp());
        let kind = txn.inode(ino)?.kind;
        let link = Link {
            id,
            stamp,
            parent,
            name: name.to_vec(),
            ino,
            kind,
            live: true,
            published: false,
        };
        txn.attach(&link)?;
        txn.put_link(link);
        txn.publish_link(id, None, None)?;
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
            (true, true) if self.has_entries(entry.ino)? => {
                return Err(CatalogError::NotEmpty { what: shown(name) });
            }
            _ => {}
        }
        let removed = remove_link(&mut txn, entry.link, None)?;
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
                (true, true) if self.has_entries(target.ino)? => {
                    return Err(CatalogError::NotEmpty { what: shown(to.1) });
                }
                _ => {}
            }
        }
        if source.kind == Kind::Dir && txn.is_below(to.0, source.ino)? {
            let why = "a directory cannot be moved into itself";
            return Err(CatalogError::Invalid { what: shown(from.1), why });
        }
        let removed =
            target.map(|t| remove_link(&mut txn, t.link, Some(source.ino))).transpose()?;
        move_link(&mut txn, source.link, to, unwanted)?;
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
        move_link(&mut txn, first.link, b, false)?;
        move_link(&mut txn, second.link, a, false)?;
        txn.touch_dir(a.0)?;
        txn.touch_dir(b.0)?;
        txn.commit().map(drop)
    }

    /// Changes an inode's attribute register, and perhaps extended attributes with it.
    pub fn set_attrs(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut Inode, Time),
    ) -> CatalogResult<Inode> {
        let mut txn = self.begin();
        let mut inode = txn.inode(ino)?;
        let now = txn.now();
        txn.touch_inode(&mut inode)?;
        change(&mut inode, now);
        txn.put_inode(inode.clone());
        txn.commit()?;
        Ok(inode)
    }

    /// Sets (or with `None` removes) an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: Option<Vec<u8>>) -> CatalogResult<Inode> {
        self.set_attrs(ino, |inode, _| inode.set_xattr(name, value))
    }

    /// Gives up an inode that has no name, no handle and nothing to upload, and gives the
    /// tokens it held to the trash for `keep_ms`. Its registers are kept where another
    /// machine has heard of it: that one may give it a name again.
    pub fn purge(&self, ino: Ino, keep_ms: u64) -> CatalogResult<()> {
        let mut txn = self.begin();
        let Some(mut inode) = txn.find_inode(ino)? else { return Ok(()) };
        if inode.local.nlink > 0 || inode.local.gone {
            return Ok(());
        }
        txn.discard_version(&inode.content.version, keep_ms);
        if inode.local.known {
            inode.local = Local { known: true, gone: true, ..Local::default() };
            txn.put_inode(inode);
        } else {
            txn.remove_inode(ino);
        }
        txn.raw(Space::Meta, keys::waiting(ino), None);
        txn.raw(Space::Data, keys::waiting(ino), None);
        txn.raw(Space::Meta, keys::orphan(ino), None);
        txn.commit().map(drop)
    }

    /// Drops decoded records, so that the next read comes from the database (after a merge
    /// or in tests).
    pub fn forget_cached(&self, stale: &[Stale]) {
        let mut cache = self.cache.lock();
        for item in stale {
            if let Stale::Inode { ino, .. } = item {
                cache.pop(ino);
            }
        }
    }

    /// Records everything at once on the disk.
    pub fn sync(&self) -> DbResult<()> {
        self.db.sync()
    }
}

/// Kills a link and counts it out; a link that no segment ever carried leaves no trace.
pub(super) fn remove_link(
    txn: &mut Txn<'_>,
    id: u64,
    after: Option<Ino>,
) -> CatalogResult<Removed> {
    let mut link =
        txn.find_link(id)?.ok_or_else(|| CatalogError::not_found(format!("link {id}")))?;
    let mut inode = txn.inode(link.ino)?;
    txn.adopt(&mut inode)?;
    txn.put_inode(inode);
    link = txn.find_link(id)?.unwrap_or(link);
    txn.detach(&link)?;
    if link.published {
        txn.publish_link(id, Some(&link), after)?;
        link.live = false;
        link.stamp = txn.stamp();
        txn.put_link(link.clone());
    } else {
        txn.remove_link(id);
    }
    let mut inode = txn.inode(link.ino)?;
    inode.local.known |= link.published;
    let last = match inode.kind {
        Kind::Dir => true,
        _ => inode.local.nlink == 0,
    };
    if last {
        inode.local.nlink = 0;
        txn.raw(Space::Meta, keys::orphan(link.ino), Some(Vec::new()));
        txn.raw(Space::Meta, keys::outbox_inode(link.ino), None);
        txn.put_inode(inode.clone());
    } else {
        txn.touch_inode(&mut inode)?;
        txn.put_inode(inode.clone());
    }
    Ok(Removed { inode, last })
}

fn move_link(txn: &mut Txn<'_>, id: u64, to: (Ino, &[u8]), unwanted: bool) -> CatalogResult<()> {
    let mut link =
        txn.find_link(id)?.ok_or_else(|| CatalogError::not_found(format!("link {id}")))?;
    let mut inode = txn.inode(link.ino)?;
    txn.adopt(&mut inode)?;
    txn.put_inode(inode);
    link = txn.find_link(id)?.unwrap_or(link);
    txn.detach(&link)?;
    let before = link.clone();
    link.parent = to.0;
    link.name = to.1.to_vec();
    link.stamp = txn.stamp();
    txn.attach(&link)?;
    let mut inode = txn.inode(link.ino)?;
    if !unwanted || link.published {
        inode.local.unwanted = false;
        let after = (inode.kind == Kind::File).then_some(inode.ino);
        txn.publish_link(id, Some(&before), after)?;
        if inode.content.version.token().is_some() || inode.is_dir() {
            txn.raw(Space::Meta, keys::align(inode.ino), Some(Vec::new()));
        }
    }
    txn.touch_inode(&mut inode)?;
    txn.put_inode(inode);
    txn.put_link(link);
    Ok(())
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

/// Refuses names that no directory can hold.
pub fn check_name(name: &[u8]) -> CatalogResult<()> {
    if name.len() > NAME_MAX {
        return Err(CatalogError::NameTooLong { what: shown(name) });
    }
    if !is_name(name) {
        return Err(CatalogError::Invalid { what: shown(name), why: "not a file name" });
    }
    Ok(())
}

/// A name as an error message shows it.
pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::writer::FORMAT;
    use super::*;
    use crate::crypto::MasterKey;
    use crate::env::doubles::seeded_env;

    #[test]
    fn a_database_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([5; 32])));
        let env = seeded_env(3);
        let db = Arc::new(Db::open(dir.path(), keys.clone(), env.clone()).unwrap());
        let open = || Tree::open(db.clone(), keys.clone(), env.clone(), 0, 0);
        open().unwrap();
        open().unwrap();
        let mut batch = db.batch();
        batch.store(&keys::meta("format"), &(FORMAT + 1));
        batch.commit().unwrap();
        let refused = open().unwrap_err().to_string();
        let said = format!("its format is {}", FORMAT + 1);
        assert!(refused.contains(&said), "{refused}");
    }
}
