//! The profile's directories as folders at the top of the drive.
//!
//! Invariants
//! * The service has the directories and their meta; the table here is what it said last,
//!   and is kept in the local database, so that a mount without the service knows it.
//! * A folder that is in the table can be neither removed nor moved, because no call removes
//!   or renames a directory. One whose directory the profile has left is an ordinary folder.
//! * A directory keeps its folder as long as both are there, whatever else gets its name.
//! * What is listed while something of this machine changes at the service may be older than
//!   that change: it is not taken in, and listed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::{VfsError, VfsResult};
use super::{Attr, Caller, Ino, NAME_MAX, ROOT_INO, Vfs, XattrMode};
use crate::catalog::format::names::cut;
use crate::catalog::local::schema;
use crate::catalog::{Owner, Paths, Stale, Time, TopFolder};
use crate::db::Space;
use crate::store::{StoreError, StoreResult};
use crate::telemetry;

/// Prefix of the attributes of a directory's folder.
const PREFIX: &str = "user.privicore.directory.";

/// All meta of a directory, as JSON; a dot and a name lead to one member.
const META: &str = "user.privicore.directory.meta";

/// How long opening waits for the first list, where an older one is known.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// A directory that the profile is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryInfo {
    /// What calls take.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What the profile is there: `owner` or `member`, where the service says.
    pub role: Option<String>,
    /// When it was registered.
    pub created: Option<SystemTime>,
    /// Its meta information.
    pub meta: BTreeMap<String, String>,
}

/// The calls about directories. A service that lacks one answers `Unsupported`.
#[async_trait]
pub trait Directories: Send + Sync + 'static {
    /// The directories that the profile owns or is assigned to.
    async fn list(&self) -> StoreResult<Vec<DirectoryInfo>>;

    /// Registers a directory that the profile owns, and returns its id.
    async fn register(&self, name: &str) -> StoreResult<String>;

    /// Changes meta: members given are replaced, those with an empty value removed, others
    /// stay.
    async fn store_meta(&self, id: &str, changes: &BTreeMap<String, String>) -> StoreResult<()>;
}

struct Service {
    calls: Arc<dyn Directories>,
    /// Whether a folder that is made at the top becomes a directory.
    register: bool,
}

type Folders = BTreeMap<Ino, DirectoryInfo>;

#[derive(Default)]
struct Known {
    folders: Folders,
    /// Raised by everything that this machine changes at the service.
    changes: u64,
}

/// Which folders are directories.
#[derive(Default)]
pub(super) struct Table {
    service: OnceLock<Service>,
    known: Mutex<Known>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    /// The service has no directories.
    absent: AtomicBool,
    /// The last list failed, and the log has it.
    failing: AtomicBool,
}

impl Table {
    fn of(&self, ino: Ino) -> Option<DirectoryInfo> {
        self.known.lock().folders.get(&ino).cloned()
    }
}

impl Vfs {
    /// Shows the profile's directories as folders; with `register`, a folder that is made at
    /// the top becomes a directory. Waits a little for the first list. To be called once,
    /// before [`Vfs::start`].
    pub async fn show_directories(&self, calls: Arc<dyn Directories>, register: bool) {
        let kept = self.tree.db().load::<Vec<(Ino, DirectoryInfo)>>(&schema::meta("directories"));
        let kept = kept.unwrap_or_default();
        // A vault that is new here has just answered: this is bounded by the deadline.
        let limit = if kept.is_some() { FIRST_LOOK } else { Duration::MAX };
        self.directories.known.lock().folders = kept.into_iter().flatten().collect();
        drop(self.directories.service.set(Service { calls, register }));
        if timeout(limit, self.look_for_directories()).await.is_err() {
            tracing::warn!("directories are shown as they were last seen: no answer yet");
        }
    }

    /// Takes in which directories there are, unless the service has none.
    pub(super) async fn look_for_directories(&self) {
        let table = &self.directories;
        let Some(service) = table.service.get() else { return };
        if table.absent.load(Ordering::Relaxed) {
            return;
        }
        match self.take_directories_in(service).await {
            Ok(()) => table.failing.store(false, Ordering::Relaxed),
            Err(VfsError::Unsupported { .. }) => {
                table.absent.store(true, Ordering::Relaxed);
                table.known.lock().folders.clear();
                self.keep_directories();
                tracing::info!("the service has no directories: every folder is an ordinary one");
            }
            Err(error) if !table.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    error = error.logged(),
                    "directories could not be listed; trying again"
                );
            }
            Err(_) => {}
        }
    }

    async fn take_directories_in(&self, service: &Service) -> VfsResult<()> {
        let table = &self.directories;
        let _one = table.looking.lock().await;
        let (before, held) = {
            let known = table.known.lock();
            let held = known.folders.iter().map(|(ino, info)| (info.id.clone(), *ino));
            (known.changes, held.collect::<BTreeMap<_, _>>())
        };
        let listed = self.in_time("directories", service.calls.list()).await?;
        let mut stale = Vec::new();
        let folders = self.place_directories(listed, &held, &mut stale);
        self.announce(stale);
        let folders = folders?;
        {
            let mut known = table.known.lock();
            if known.changes != before {
                self.hint_changes();
                return Ok(());
            }
            if known.folders == folders && (!folders.is_empty() || self.has_kept_directories()?) {
                return Ok(());
            }
            known.folders = folders;
        }
        self.keep_directories();
        Ok(())
    }

    /// Gives every directory its folder. Those that have one come first, so that it stays
    /// theirs; the others in an order that is the same on every machine.
    fn place_directories(
        &self,
        mut listed: Vec<DirectoryInfo>,
        held: &BTreeMap<String, Ino>,
        stale: &mut Vec<Stale>,
    ) -> VfsResult<Folders> {
        listed.sort_by_cached_key(|info| {
            (!held.contains_key(&info.id), info.created, info.id.clone())
        });
        let (mut folders, mut taken) = (Folders::new(), BTreeSet::new());
        for info in listed {
            match self.place_directory(&info, held.get(&info.id).copied(), &taken, stale)? {
                Some(ino) => {
                    taken.insert(ino);
                    folders.insert(ino, info);
                }
                None => tracing::warn!(id = info.id, "there is no name for a directory's folder"),
            }
        }
        Ok(folders)
    }

    fn place_directory(
        &self,
        info: &DirectoryInfo,
        before: Option<Ino>,
        except: &BTreeSet<Ino>,
        stale: &mut Vec<Stale>,
    ) -> VfsResult<Option<Ino>> {
        let created = Time::from(info.created.unwrap_or(UNIX_EPOCH));
        let owner = self.owner_of_others();
        let mut names = vec![folder_name(info), substitute(info)];
        if let Some(ino) = before {
            let links = self.tree.links_of(ino)?.into_iter();
            names.splice(0..0, links.filter(|l| l.parent == ROOT_INO).map(|l| l.name));
        }
        for name in names {
            let wanted = TopFolder { name: &name, before, except, owner, created };
            let Some((ino, changed)) = self.tree.top_folder(wanted)? else { continue };
            stale.extend(changed);
            if before.is_none() && name != info.name.as_bytes() {
                let id = &info.id;
                match telemetry::shows_names() {
                    true => {
                        tracing::warn!(id, info.name, folder = %name.escape_ascii(), "{RENAMED}")
                    }
                    false => tracing::warn!(id, "{RENAMED}"),
                }
            }
            return Ok(Some(ino));
        }
        Ok(None)
    }

    fn has_kept_directories(&self) -> VfsResult<bool> {
        Ok(self.tree.db().contains(Space::Meta, &schema::meta("directories"))?)
    }

    /// Writes the table down for the next mount.
    fn keep_directories(&self) {
        let mut folders: Vec<_> =
            self.directories.known.lock().folders.clone().into_iter().collect();
        folders.sort_by_key(|(ino, _)| *ino);
        let mut batch = self.tree.db().batch();
        batch.store(&schema::meta("directories"), &folders);
        if let Err(error) = batch.commit() {
            tracing::warn!(%error, "directories could not be written down");
        }
    }

    /// A call, bounded by the operation deadline. Where its outcome is not known, the next
    /// look tells.
    async fn in_time<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> VfsResult<T> {
        let limit = self.config.deadline;
        match timeout(limit, call).await {
            Ok(result) => result.map_err(|error| VfsError::from_store(what, &error)),
            Err(_) => {
                let why = format!("no answer after {} s", limit.as_secs_f32());
                Err(VfsError::TimedOut { what: what.to_owned(), why })
            }
        }
    }

    /// Fails for the folder of a directory: it can be neither removed nor moved.
    pub(super) fn refuse_directory(&self, parent: Ino, name: &[u8]) -> VfsResult<()> {
        if parent != ROOT_INO || self.directories.known.lock().folders.is_empty() {
            return Ok(());
        }
        match self.tree.lookup(parent, name) {
            Ok(inode) if self.directories.of(inode.ino).is_some() => {
                Err(VfsError::NotPermitted { what: String::from_utf8_lossy(name).into_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Makes a folder; at the top a directory, if that is wanted. Waits for the service in
    /// that case only.
    pub async fn make_directory(
        self: Arc<Self>,
        caller: Caller,
        parent: Ino,
        name: Vec<u8>,
        perm: u16,
    ) -> VfsResult<Attr> {
        let service = self.directories.service.get().filter(|service| service.register);
        let Some(service) = service.filter(|_| parent == ROOT_INO) else {
            return self.mkdir(&caller, parent, &name, perm);
        };
        let what = || String::from_utf8_lossy(&name).into_owned();
        self.refuse_if_read_only(&name)?;
        match self.tree.lookup(parent, &name).map_err(VfsError::from) {
            Ok(_) => return Err(VfsError::Exists { what: what() }),
            Err(VfsError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let text = std::str::from_utf8(&name)
            .ok()
            .filter(|text| !Paths::is_hidden(text))
            .ok_or_else(|| VfsError::Invalid { what: what(), why: "no name for a directory" })?;
        let id = match self.in_time(text, service.calls.register(text)).await {
            Ok(id) => id,
            Err(error) => {
                self.hint_changes();
                return Err(error);
            }
        };
        let info = DirectoryInfo {
            id,
            name: text.to_owned(),
            role: Some("owner".to_owned()),
            created: Some(self.env.clock.now()),
            meta: BTreeMap::new(),
        };
        let attr = self.make_folder_of(&caller, &info, perm);
        self.hint_changes();
        attr
    }

    fn make_folder_of(&self, caller: &Caller, info: &DirectoryInfo, perm: u16) -> VfsResult<Attr> {
        let name = info.name.as_bytes();
        let (others, before) = {
            let known = self.directories.known.lock();
            // A look may have been quicker.
            let same = known.folders.iter().find(|(_, found)| found.id == info.id);
            let before = same.map(|(ino, _)| *ino);
            let others = known.folders.keys().copied().filter(|ino| Some(*ino) != before);
            (others.collect::<BTreeSet<_>>(), before)
        };
        let owner = Owner { uid: caller.uid, gid: caller.gid, umask: 0 };
        let created = Time::from(info.created.unwrap_or(UNIX_EPOCH));
        let wanted = TopFolder { name, before, except: &others, owner, created };
        let Some((ino, stale)) = self.tree.top_folder(wanted)? else {
            return Err(VfsError::Exists { what: info.name.clone() });
        };
        self.announce_later(stale);
        let attr = self.furnish(caller, ino, perm)?;
        {
            let mut known = self.directories.known.lock();
            known.folders.entry(ino).or_insert_with(|| info.clone());
            known.changes += 1;
        }
        self.keep_directories();
        Ok(attr)
    }

    /// An attribute of a directory's folder.
    pub(super) fn directory_xattr(&self, ino: Ino, name: &[u8]) -> Option<String> {
        let part = std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?;
        let DirectoryInfo { id, name, role, meta, .. } = self.directories.of(ino)?;
        match part {
            "id" => Some(id),
            "name" => Some(name),
            "role" => role,
            "meta" => serde_json::to_string(&meta).ok(),
            _ => meta.get(part.strip_prefix("meta.")?).cloned(),
        }
    }

    /// Sets an attribute; waits for the service if it is meta of a directory.
    pub async fn set_attribute(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> VfsResult<()> {
        let Some((info, member)) = self.meta_of(ino, &name) else {
            return self.setxattr(&caller, ino, &name, &value, mode);
        };
        self.refuse_if_read_only(&name)?;
        let what = || String::from_utf8_lossy(&name).into_owned();
        let there = member.as_ref().is_none_or(|member| info.meta.contains_key(member));
        match (mode, there) {
            (XattrMode::Create, true) => return Err(VfsError::Exists { what: what() }),
            (XattrMode::Replace, false) => return Err(VfsError::NoAttr { what: what() }),
            _ => {}
        }
        let invalid = |why| VfsError::Invalid { what: what(), why };
        let given: BTreeMap<String, String> = match &member {
            Some(member) => {
                let value = String::from_utf8(value).map_err(|_| invalid("meta is UTF-8"))?;
                BTreeMap::from([(member.clone(), value)])
            }
            None => {
                serde_json::from_slice(&value).map_err(|_| invalid("not a JSON object of texts"))?
            }
        };
        // An empty value would remove the member.
        if given.values().any(String::is_empty) {
            return Err(invalid("meta is not empty"));
        }
        let mut changes = BTreeMap::new();
        if member.is_none() {
            changes.extend(info.meta.keys().map(|member| (member.clone(), String::new())));
        }
        changes.extend(given);
        if !changes.keys().all(|member| is_member(member)) {
            return Err(invalid("no name for meta"));
        }
        self.store_directory_meta(ino, info, changes, what()).await
    }

    /// Removes an attribute; waits for the service if it is meta of a directory.
    pub async fn remove_attribute(
        self: Arc<Self>,
        caller: Caller,
        ino: Ino,
        name: Vec<u8>,
    ) -> VfsResult<()> {
        let Some((info, member)) = self.meta_of(ino, &name) else {
            return self.removexattr(&caller, ino, &name);
        };
        self.refuse_if_read_only(&name)?;
        let what = String::from_utf8_lossy(&name).into_owned();
        let gone: Vec<_> = match member {
            Some(member) if !info.meta.contains_key(&member) => {
                return Err(VfsError::NoAttr { what });
            }
            Some(member) => vec![member],
            None => info.meta.keys().cloned().collect(),
        };
        let changes = gone.into_iter().map(|member| (member, String::new())).collect();
        self.store_directory_meta(ino, info, changes, what).await
    }

    /// The directory whose meta an attribute is, and the member; `None` for all of it.
    fn meta_of(&self, ino: Ino, name: &[u8]) -> Option<(DirectoryInfo, Option<String>)> {
        let rest = std::str::from_utf8(name).ok()?.strip_prefix(META)?;
        let member = match rest {
            "" => None,
            _ => Some(rest.strip_prefix('.').filter(|member| !member.is_empty())?.to_owned()),
        };
        Some((self.directories.of(ino)?, member))
    }

    async fn store_directory_meta(
        &self,
        ino: Ino,
        info: DirectoryInfo,
        changes: BTreeMap<String, String>,
        what: String,
    ) -> VfsResult<()> {
        let service = self.directories.service.get();
        let service = service.ok_or_else(|| VfsError::Unsupported { what: what.clone() })?;
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.in_time(&what, service.calls.store_meta(&info.id, &changes)).await;
        {
            let mut known = self.directories.known.lock();
            known.changes += 1;
            let kept = known.folders.get_mut(&ino).filter(|kept| kept.id == info.id);
            if let (Ok(()), Some(kept)) = (&stored, kept) {
                for (member, value) in changes {
                    match value.is_empty() {
                        true => drop(kept.meta.remove(&member)),
                        false => drop(kept.meta.insert(member, value)),
                    }
                }
            }
        }
        match &stored {
            Ok(()) => self.keep_directories(),
            Err(_) => self.hint_changes(),
        }
        stored
    }
}

/// What the log says of a directory whose name cannot be its folder's.
const RENAMED: &str = "a directory's folder has another name than the directory";

/// Whether a text can name a member of meta: brackets enclose it on its way.
fn is_member(text: &str) -> bool {
    !text.is_empty() && !text.contains(['[', ']', '\0'])
}

/// A directory's name as that of a folder; the same, wherever that is possible.
fn folder_name(info: &DirectoryInfo) -> Vec<u8> {
    let name = info.name.replace(['/', '\0'], "_");
    let name = match name.as_str() {
        "" => return substitute(info),
        "." | ".." => format!("_{name}"),
        _ if Paths::is_hidden(&name) => format!("_{name}"),
        _ => name,
    };
    cut(name.as_bytes(), NAME_MAX).to_vec()
}

/// The name of a directory's folder where something else has its own.
fn substitute(info: &DirectoryInfo) -> Vec<u8> {
    let clean = |text: &str| text.replace(['/', '\0'], "_");
    let mark = format!("(directory {})", clean(&info.id));
    let mark = cut(mark.as_bytes(), NAME_MAX);
    let name = clean(&info.name);
    let name = cut(name.as_bytes(), NAME_MAX.saturating_sub(mark.len() + 1));
    match name.is_empty() {
        true => mark.to_vec(),
        false => [name, b" ", mark].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> DirectoryInfo {
        let (id, name) = ("7a/b".to_owned(), name.to_owned());
        DirectoryInfo { id, name, role: None, created: None, meta: BTreeMap::new() }
    }

    #[test]
    fn every_name_becomes_one_that_a_folder_can_have() {
        for (name, folder) in [
            ("works", "works"),
            ("a/b\0c", "a_b_c"),
            ("..", "_.."),
            (".privicorefs", "_.privicorefs"),
            ("", "(directory 7a_b)"),
        ] {
            assert_eq!(folder_name(&named(name)), folder.as_bytes());
        }
        assert_eq!(substitute(&named("w/x")), b"w_x (directory 7a_b)");
        let long = named(&"\u{e9}".repeat(300));
        assert_eq!(folder_name(&long).len(), 254);
        let substitute = String::from_utf8(substitute(&long)).unwrap();
        assert!(substitute.len() <= NAME_MAX && substitute.ends_with(" (directory 7a_b)"));
    }
}
