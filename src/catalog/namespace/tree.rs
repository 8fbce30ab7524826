//! The tree of names over the local database: lookups.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use super::outbox::Outbox;
use super::txn::Txn;
use crate::catalog::attributes::NamesInUse;
use crate::catalog::conflict::names::{Claimant, copy_link};
use crate::catalog::conflict::object::{Attributes, Held, Nature, Origin, Times};
use crate::catalog::format::names::{NAME_MAX, is_name};
use crate::catalog::format::record::ObjectKind;
use crate::catalog::format::{Body, Record, Stamp, Subject};
use crate::catalog::local::clock::StampClock;
use crate::catalog::local::entry::{Entry, EntryClaim, EntryLink};
use crate::catalog::local::inode::{Ino, Inode, Kind, Link, ROOT_INO};
use crate::catalog::local::row::Row;
use crate::catalog::local::schema;
use crate::catalog::local::vault::{VaultRow, VaultState};
use crate::crypto::LocalKeys;
use crate::db::{Db, DbError, DbResult, Space, decode};
use crate::env::Env;
use crate::store::{RiskMeta, Token};

/// Decoded inodes kept in memory: about 400 bytes each, so 16 MiB at most.
const INODE_CACHE: usize = 40_000;

/// Of the rows in the local database: another number for each change of one.
pub(super) const FORMAT: u32 = 20;

/// How far a clock may be ahead of the service's, in milliseconds: a day.
const AHEAD_MS: u64 = 86_400_000;

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

/// The tree.
pub struct Tree {
    pub(super) db: Arc<Db>,
    pub(super) keys: Arc<LocalKeys>,
    pub(super) env: Env,
    /// The machine's name, for people.
    pub(super) machine: String,
    pub(super) lock: Mutex<StampClock>,
    pub(super) cache: Mutex<LruCache<Ino, Arc<Inode>>>,
    /// Taken after `lock`, for a few instructions.
    pub(super) outbox: Mutex<Outbox>,
    /// Taken after `lock`, for a few instructions.
    pub(super) vault: RwLock<VaultState>,
    /// By token tag: risk meta that one listing has shown to be changed by others.
    pub(in crate::catalog) risk_seen: Mutex<BTreeMap<[u8; 16], RiskMeta>>,
    pub(super) names_in_use: NamesInUse,
    /// The service's clock, when it was last told.
    service_millis: Mutex<Option<u64>>,
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
        machine: String,
        (uid, gid): (u32, u32),
    ) -> CatalogResult<Self> {
        let fresh = check_format(&db)?;
        let clock = StampClock::load(&db, &env)?;
        let names_in_use = NamesInUse::load(&db)?;
        let cache = LruCache::new(NonZeroUsize::new(INODE_CACHE).unwrap_or(NonZeroUsize::MIN));
        let mut outbox = Outbox::default();
        db.scan(schema::OUTBOX, schema::OUTBOX, |key, _| {
            outbox.add(schema::number(key, 1));
            Ok(outbox.len().is_some())
        })?;
        let (mut vault, mut ends) = (VaultState::default(), Vec::new());
        db.scan(schema::VAULT, schema::VAULT, |key, value| {
            let row: VaultRow = decode(&value)?;
            if let Ok(record) = Record::decode(&row.record) {
                // The end of a mount that could not say it: nobody else can say it for that.
                let unsaid = row.origin == Origin::Unpublished;
                if unsaid && matches!(record.body, Body::WriterEnd) {
                    ends.push(key.to_vec());
                    return Ok(true);
                }
                vault.apply(&record, row.origin);
            }
            Ok(true)
        })?;
        let mut batch = db.batch();
        ends.iter().for_each(|key| batch.remove(Space::Meta, key));
        batch.commit()?;
        let tree = Self {
            db,
            keys,
            env,
            machine,
            lock: Mutex::new(clock),
            cache: Mutex::new(cache),
            outbox: Mutex::new(outbox),
            vault: RwLock::new(vault),
            risk_seen: Mutex::default(),
            names_in_use,
            service_millis: Mutex::new(None),
        };
        if fresh {
            tree.make_root(uid, gid)?;
        }
        Ok(tree)
    }

    /// The root of a new state directory: nobody has said anything about it, so that the first
    /// machine's real changes win everywhere.
    fn make_root(&self, owner: u32, group: u32) -> CatalogResult<()> {
        let mut txn = self.begin();
        let now = txn.now();
        let mut row = Row::of(Subject::Folder(ROOT_INO));
        let (stamp, origin) = (Stamp::ZERO, Origin::Derived);
        let (kind, device, target) = (ObjectKind::Folder, 0, Vec::new());
        let nature = Nature { kind, birth: now, device, target };
        let attributes = Attributes { mode: 0o755, owner, group, changed: now };
        let times = Times { access: now, modification: now };
        row.object.nature = Some(Held { stamp, origin, value: nature });
        row.object.attributes = Some(Held { stamp, origin, value: attributes });
        row.object.times = Some(Held { stamp, origin, value: times });
        txn.put_row(ROOT_INO, row);
        txn.raw(Space::Meta, schema::meta("format"), Some(crate::db::encode(&FORMAT)));
        txn.commit().map(drop)
    }

    /// Starts a change; others wait until it is committed or dropped.
    pub fn begin(&self) -> Txn<'_> {
        Txn::new(self, self.lock.lock())
    }

    /// Goes on as another writer: this machine was set back to an earlier state.
    pub fn start_writer(&self) {
        self.lock.lock().start_writer(&self.env);
    }

    /// The local database.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// What the records of the vault come to.
    pub fn vault(&self) -> VaultState {
        self.vault.read().clone()
    }

    /// The vault's calendar, as far as this machine knows.
    pub fn today(&self) -> u64 {
        self.vault.read().today.count
    }

    /// The machine's name, for people.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Takes note of the service's clock, in milliseconds since 1970.
    pub fn note_service_clock(&self, millis: u64) {
        *self.service_millis.lock() = Some(millis);
    }

    /// The wall clock for stamps: the service's, where this machine's is a day ahead of it.
    pub(super) fn stamp_millis(&self) -> u64 {
        let own = self.env.millis();
        match *self.service_millis.lock() {
            Some(service) if own > service.saturating_add(AHEAD_MS) => service,
            _ => own,
        }
    }

    pub(super) fn vault_key(&self, record: &Record) -> Vec<u8> {
        let kind = record.kind();
        let tag = match record.register() {
            Some(register) => self.keys.tag("vault register", &register.key),
            None => self.keys.tag("vault record", &record.encode()),
        };
        schema::vault(kind, &tag)
    }

    pub(super) fn entry_key(&self, parent: Ino, name: &[u8]) -> Vec<u8> {
        schema::entry(parent, &self.keys.name_tag(parent, name))
    }

    /// The keyed tag of a token, for keys that must not show it.
    pub fn token_tag(&self, token: &Token) -> [u8; 16] {
        self.keys.tag("token", token.as_str().as_bytes())
    }

    /// Whether the catalog, or a part list, names this token.
    pub fn knows_token(&self, token: &Token) -> CatalogResult<bool> {
        let tag = self.token_tag(token);
        Ok(self.db.any(&schema::tokens(&tag))? || self.db.any(&schema::lists_with(&tag))?)
    }

    /// The file that has a token, if one has.
    pub fn file_with(&self, token: &Token) -> CatalogResult<Option<Ino>> {
        let prefix = schema::tokens(&self.token_tag(token));
        let mut found = None;
        self.db.scan(&prefix, &prefix, |key, _| {
            found = Some(schema::number(key, 17));
            Ok(false)
        })?;
        Ok(found)
    }

    /// An inode, if there is such an object.
    pub fn find_inode(&self, ino: Ino) -> CatalogResult<Option<Arc<Inode>>> {
        if let Some(inode) = self.cache.lock().get(&ino) {
            return Ok(Some(inode.clone()));
        }
        let Some(row) = self.find_row(ino)? else { return Ok(None) };
        let Some(inode) = row.inode(ino) else { return Ok(None) };
        let inode = Arc::new(inode);
        // A change that committed meanwhile has put its own, newer record: keep that.
        let mut cache = self.cache.lock();
        let kept = cache.get_or_insert(ino, || inode);
        Ok(Some(kept.clone()))
    }

    /// The row of an object.
    pub fn find_row(&self, ino: Ino) -> DbResult<Option<Row>> {
        self.db.load(&schema::row(ino))
    }

    /// Calls `each` for every object that there is.
    pub fn each_inode(&self, mut each: impl FnMut(Inode) -> bool) -> CatalogResult<()> {
        Ok(self.db.scan(schema::ROWS, schema::ROWS, |key, value| {
            let row: Row = decode(&value)?;
            Ok(row.inode(schema::number(key, 1)).is_none_or(&mut each))
        })?)
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
        let entry: Option<Entry> = self.db.load(&self.entry_key(parent, name))?;
        match entry.and_then(|entry| entry.holder) {
            Some(holder) => self.inode(holder.ino),
            None => Err(CatalogError::not_found(shown(name))),
        }
    }

    /// Calls `each(cookie, name, link)` for the entries after `cookie` (0: from the start),
    /// until it answers `false`. A cookie stays valid whatever else changes.
    pub fn list(
        &self,
        parent: Ino,
        after: u64,
        mut each: impl FnMut(u64, &[u8], &EntryLink) -> bool,
    ) -> CatalogResult<()> {
        let prefix = schema::entries(parent);
        let mut from = prefix.clone();
        if after > 0 {
            from.extend_from_slice(&((after + 1) << 1).to_be_bytes());
        }
        let listed = self.db.scan(&prefix, &from, |key, value| {
            let entry: Entry = decode(&value)?;
            let cookie = (schema::number(key, 9) >> 1).max(3);
            Ok(entry.holder.is_none_or(|holder| each(cookie, &entry.name, &link_of(holder))))
        });
        Ok(listed?)
    }

    /// The cookie of a name in [`Tree::list`].
    pub fn cookie_of(&self, parent: Ino, name: &[u8]) -> u64 {
        (schema::number(&self.keys.name_tag(parent, name), 0) >> 1).max(3)
    }

    /// Whether a directory has an entry.
    pub fn has_entries(&self, dir: Ino) -> CatalogResult<bool> {
        Ok(self.find_row(dir)?.is_some_and(|row| row.holdings.entries > 0))
    }

    /// The links of an inode that are shown.
    pub fn links_of(&self, ino: Ino) -> CatalogResult<Vec<Link>> {
        let Some(row) = self.find_row(ino)? else { return Ok(Vec::new()) };
        let mut from = row;
        // The name of a copy is kept with the file that it is a copy of.
        if from.is_derived()
            && let Some(split) = &from.object.split
            && let Some(file) = self.find_row(split.value.1)?
        {
            from = file;
        }
        let mine = from.standings.iter().filter(|standing| standing.ino == ino);
        Ok(mine
            .map(|standing| Link {
                id: claimed_link(&standing.claimant),
                parent: standing.folder,
                name: standing.shown().to_vec(),
                ino,
            })
            .collect())
    }

    /// The path of an inode from the root, without a leading slash; empty for the root and
    /// `None` for an inode without a name.
    pub fn path_of(&self, ino: Ino) -> CatalogResult<Option<Vec<u8>>> {
        if ino == ROOT_INO {
            return Ok(Some(Vec::new()));
        }
        let Some(link) = self.links_of(ino)?.into_iter().next() else { return Ok(None) };
        let mut names = vec![link.name];
        let mut at = link.parent;
        while at != ROOT_INO && names.len() < 4096 {
            let Some(row) = self.find_row(at)? else { return Ok(None) };
            let Some(standing) = row.standings.first() else { return Ok(None) };
            names.push(standing.shown().to_vec());
            at = standing.folder;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// The directory that holds a directory; the root holds itself.
    pub fn parent_of(&self, dir: Ino) -> CatalogResult<Ino> {
        let row = self.find_row(dir)?;
        Ok(row.and_then(|row| row.standings.first().map(|s| s.folder)).unwrap_or(ROOT_INO))
    }

    /// Records everything at once on the disk.
    pub fn sync(&self) -> DbResult<()> {
        self.db.sync()
    }

    /// Number of changes in the outbox; at least `limit` if there are more.
    pub fn outbox_len(&self, limit: u64) -> CatalogResult<u64> {
        if let Some(count) = self.outbox.lock().len() {
            return Ok(count);
        }
        let mut count = 0;
        self.db.scan(schema::OUTBOX, schema::OUTBOX, |_, _| {
            count += 1;
            Ok(count < limit)
        })?;
        Ok(count)
    }

    /// Whether something of an object waits to be published.
    pub fn is_queued(&self, ino: Ino) -> CatalogResult<bool> {
        Ok(self.db.contains(Space::Meta, &schema::outbox(ino))?)
    }
}

/// What an operation finds at a name.
pub(super) fn link_of(holder: EntryClaim) -> EntryLink {
    let EntryClaim { claimant, ino, kind } = holder;
    EntryLink { link: claimed_link(&claimant), ino, kind }
}

fn claimed_link(claimant: &Claimant) -> u64 {
    match claimant {
        Claimant::Link { link, .. } => *link,
        Claimant::Copy { version, .. } => copy_link(*version),
        Claimant::Other { number } => *number,
    }
}

/// Refuses a database whose records this version would misread; says whether it is new.
fn check_format(db: &Db) -> DbResult<bool> {
    match db.load::<u32>(&schema::meta("format"))? {
        None => Ok(true),
        Some(FORMAT) => Ok(false),
        Some(found) => Err(DbError::Format { found, read: FORMAT }),
    }
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
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Whether something of this kind can have a content of its own.
pub(super) fn has_content(kind: Kind) -> bool {
    kind == Kind::File
}
