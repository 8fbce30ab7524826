//! The whole of a simulated disk: a tree of folders and files, and who uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};
use std::time::SystemTime;

use privicorefs::env::Random;
use privicorefs::env::disk::DiskSpace;
use rustix::io::Errno;

use super::content::{Change, Content, FileNode, PAGE};
use super::names::{Folder, Id, NameChange, Names, Rename};
use super::{Hook, Lost, Tree, below};

const ROOT: Id = 0;
/// Bytes of a disk.
const TOTAL: u64 = 1 << 40;

pub(super) struct State {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    renames: u64,
    /// Handles of an earlier generation are dead.
    pub(super) generation: u64,
    pub(super) hook: Option<Hook>,
    pub(super) kill_in_write: Option<u64>,
    /// Bytes that other programs have taken.
    others: u64,
}

struct Node {
    kind: Kind,
    /// It has a name that processes see.
    named: bool,
    /// Handles of living processes.
    opened: u32,
    locked: bool,
}

enum Kind {
    File(FileNode),
    Folder(Folder),
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, named: true, opened: 0, locked: false }
    }

    fn file(&self) -> Option<&FileNode> {
        match &self.kind {
            Kind::File(file) => Some(file),
            Kind::Folder(_) => None,
        }
    }

    fn folder(&self) -> Option<&Folder> {
        match &self.kind {
            Kind::Folder(folder) => Some(folder),
            Kind::File(_) => None,
        }
    }

    fn folder_mut(&mut self) -> Option<&mut Folder> {
        match &mut self.kind {
            Kind::Folder(folder) => Some(folder),
            Kind::File(_) => None,
        }
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::new(Kind::Folder(Folder::default())))]),
            next: ROOT + 1,
            renames: 0,
            generation: 0,
            hook: None,
            kill_in_write: None,
            others: 0,
        }
    }

    // Looking up.

    fn node(&self, id: Id) -> io::Result<&Node> {
        Ok(self.nodes.get(&id).ok_or(Errno::NOENT)?)
    }

    fn node_mut(&mut self, id: Id) -> io::Result<&mut Node> {
        Ok(self.nodes.get_mut(&id).ok_or(Errno::NOENT)?)
    }

    pub(super) fn file(&self, id: Id) -> io::Result<&FileNode> {
        Ok(self.node(id)?.file().ok_or(Errno::ISDIR)?)
    }

    fn file_mut(&mut self, id: Id) -> io::Result<&mut FileNode> {
        match &mut self.node_mut(id)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Folder(_) => Err(Errno::ISDIR.into()),
        }
    }

    pub(super) fn folder(&self, id: Id) -> io::Result<&Folder> {
        Ok(self.node(id)?.folder().ok_or(Errno::NOTDIR)?)
    }

    fn folder_mut(&mut self, id: Id) -> io::Result<&mut Folder> {
        Ok(self.node_mut(id)?.folder_mut().ok_or(Errno::NOTDIR)?)
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<Id> {
        let mut at = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    at = *self.folder(at)?.now.get(name).ok_or(Errno::NOENT)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
            }
        }
        Ok(at)
    }

    /// The folder that a name is in, and the name.
    fn split(&self, path: &Path) -> io::Result<(Id, OsString)> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::BUSY.into());
        };
        let id = self.resolve(folder)?;
        self.folder(id)?;
        Ok((id, name.to_owned()))
    }

    // Files.

    pub(super) fn create(&mut self, path: &Path, now: SystemTime) -> io::Result<Id> {
        self.add(path, Kind::File(FileNode::new(Content::default(), now)))
    }

    fn add(&mut self, path: &Path, kind: Kind) -> io::Result<Id> {
        let (folder, name) = self.split(path)?;
        if self.folder(folder)?.now.contains_key(&name) {
            return Err(Errno::EXIST.into());
        }
        let id = self.insert(kind);
        let added = Some((name, id));
        self.folder_mut(folder)?.change(NameChange { added, ..NameChange::default() });
        Ok(id)
    }

    fn insert(&mut self, kind: Kind) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node::new(kind));
        id
    }

    pub(super) fn open(&mut self, id: Id) -> io::Result<()> {
        self.file(id)?;
        self.node_mut(id)?.opened += 1;
        Ok(())
    }

    pub(super) fn lock(&mut self, id: Id) -> io::Result<()> {
        let node = self.node_mut(id)?;
        if node.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        node.locked = true;
        Ok(())
    }

    pub(super) fn close(&mut self, id: Id, unlock: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opened = node.opened.saturating_sub(1);
            node.locked &= !unlock;
        }
    }

    /// Writes as much as there is room for; all of it, or an error.
    pub(super) fn write(
        &mut self,
        id: Id,
        at: u64,
        data: &[u8],
        now: SystemTime,
    ) -> io::Result<()> {
        if at.checked_add(data.len() as u64).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Errno::FBIG.into());
        }
        if let Some(pages) = self.kill_in_write.take() {
            let end = (at / PAGE + pages) * PAGE;
            let kept = data.len().min(end.saturating_sub(at) as usize);
            self.store(id, at, &data[..kept], now)?;
            self.kill();
            return Err(dead());
        }
        // An empty disk is never full: no need to count.
        let fitting = match self.others {
            0 => data.len(),
            _ => self.file(id)?.now.fitting(at, data.len(), self.space().free / PAGE),
        };
        self.store(id, at, &data[..fitting], now)?;
        match fitting == data.len() {
            true => Ok(()),
            false => Err(Errno::NOSPC.into()),
        }
    }

    fn store(&mut self, id: Id, at: u64, data: &[u8], now: SystemTime) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.change(id, Change::Write { at, data: data.to_vec() }, now)
    }

    pub(super) fn change(&mut self, id: Id, change: Change, now: SystemTime) -> io::Result<()> {
        self.file_mut(id)?.change(change, now);
        Ok(())
    }

    pub(super) fn sync(&mut self, id: Id) -> io::Result<()> {
        self.file_mut(id)?.sync();
        Ok(())
    }

    pub(super) fn space(&self) -> DiskSpace {
        let alive = self.nodes.values().filter(|node| node.named || node.opened > 0);
        let used: u64 = alive.filter_map(Node::file).map(|file| file.now.allocated()).sum();
        DiskSpace { total: TOTAL, free: TOTAL.saturating_sub(used).saturating_sub(self.others) }
    }

    pub(super) fn set_free(&mut self, bytes: u64) {
        self.others = 0;
        self.others = self.space().free.saturating_sub(bytes);
    }

    // Names.

    pub(super) fn mkdir(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Kind::Folder(Folder::default())).map(drop)
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.split(path)?;
        let id = self.resolve(path)?;
        self.file(id)?;
        self.remove(folder, name, id)
    }

    pub(super) fn rmdir(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.split(path)?;
        let id = self.resolve(path)?;
        if !self.folder(id)?.now.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        self.remove(folder, name, id)
    }

    fn remove(&mut self, folder: Id, name: OsString, id: Id) -> io::Result<()> {
        let removed = Some((name, id));
        self.folder_mut(folder)?.change(NameChange { removed, ..NameChange::default() });
        self.node_mut(id)?.named = false;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, old) = self.split(from)?;
        let (target, new) = self.split(to)?;
        let id = self.resolve(from)?;
        if to != from && to.starts_with(from) {
            return Err(Errno::INVAL.into());
        }
        if to != from && from.starts_with(to) {
            return Err(Errno::NOTEMPTY.into());
        }
        let replaced = self.folder(target)?.now.get(&new).copied();
        if replaced == Some(id) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            self.check_replaceable(id, replaced)?;
            self.node_mut(replaced)?.named = false;
        }
        let (removed, added) = (Some((old, id)), Some((new, id)));
        if source == target {
            self.folder_mut(source)?.change(NameChange { removed, added, rename: None });
            return Ok(());
        }
        self.renames += 1;
        let half = |other| Some(Rename { number: self.renames, other });
        let (taken, given) = (half(target), half(source));
        self.folder_mut(source)?.change(NameChange { removed, added: None, rename: taken });
        self.folder_mut(target)?.change(NameChange { removed: None, added, rename: given });
        Ok(())
    }

    fn check_replaceable(&self, id: Id, replaced: Id) -> io::Result<()> {
        match (&self.node(id)?.kind, &self.node(replaced)?.kind) {
            (Kind::File(_), Kind::File(_)) => Ok(()),
            (Kind::File(_), Kind::Folder(_)) => Err(Errno::ISDIR.into()),
            (Kind::Folder(_), Kind::File(_)) => Err(Errno::NOTDIR.into()),
            (Kind::Folder(_), Kind::Folder(folder)) => match folder.now.is_empty() {
                true => Ok(()),
                false => Err(Errno::NOTEMPTY.into()),
            },
        }
    }

    pub(super) fn sync_dir(&mut self, id: Id) -> io::Result<()> {
        let Ok(folder) = self.folder(id) else {
            // Opening does not ask what it is that is opened.
            return self.sync(id);
        };
        let all = folder.unsynced().len();
        self.make_durable(BTreeMap::from([(id, all)]));
        Ok(())
    }

    /// Makes the first changes of some folders durable, so many each, and whatever belongs
    /// to them: the other half of a rename with all before it, and what happened in a folder
    /// before it was removed.
    fn make_durable(&mut self, mut counts: BTreeMap<Id, usize>) {
        let mut unchecked: Vec<Id> = counts.keys().copied().collect();
        while let Some(id) = unchecked.pop() {
            let count = counts.get(&id).copied().unwrap_or_default();
            for (other, least) in self.needed_by(id, count) {
                let planned = counts.entry(other).or_default();
                if *planned < least {
                    *planned = least;
                    unchecked.push(other);
                }
            }
        }
        for (id, count) in counts {
            if let Some(folder) = self.nodes.get_mut(&id).and_then(Node::folder_mut) {
                folder.sync(count);
            }
        }
    }

    fn needed_by(&self, id: Id, count: usize) -> Vec<(Id, usize)> {
        let folder = |id: &Id| self.nodes.get(id).and_then(Node::folder);
        let changes = folder(&id).map_or(&[][..], |found| &found.unsynced()[..count]);
        let needs = changes.iter().filter_map(|change| match (&change.removed, change.rename) {
            (_, Some(half)) => Some((half.other, folder(&half.other)?.upto(half.number))),
            (Some((_, gone)), None) if change.added.is_none() => {
                Some((*gone, folder(gone)?.unsynced().len()))
            }
            _ => None,
        });
        needs.collect()
    }

    // Fates.

    pub(super) fn kill(&mut self) {
        self.generation += 1;
        self.kill_in_write = None;
        for node in self.nodes.values_mut() {
            (node.opened, node.locked) = (0, false);
        }
        self.refresh();
    }

    pub(super) fn power_cut(&mut self, random: &dyn Random, whole: bool) -> Lost {
        if !whole {
            let folders = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.folder()?)));
            let kept = folders.filter(|(_, folder)| !folder.unsynced().is_empty());
            let kept = kept.map(|(id, folder)| (id, below(random, folder.unsynced().len() + 1)));
            let kept = kept.collect();
            self.make_durable(kept);
        }
        let mut lost = Lost::default();
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(file) => lost.changes += file.power_cut(random, whole),
                Kind::Folder(folder) => lost.names += folder.power_cut(),
            }
        }
        self.kill();
        lost
    }

    pub(super) fn write_back(&mut self) {
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(file) => file.sync(),
                Kind::Folder(folder) => folder.sync(folder.unsynced().len()),
            }
        }
        self.refresh();
    }

    pub(super) fn copy_out(&self, id: Id) -> Tree {
        match self.nodes.get(&id).map(|node| &node.kind) {
            Some(Kind::File(file)) => Tree::File(file.now.clone(), file.modified),
            Some(Kind::Folder(folder)) => {
                let copy = |(name, id): (&OsString, &Id)| (name.clone(), self.copy_out(*id));
                Tree::Folder(folder.now.iter().map(copy).collect())
            }
            None => Tree::Folder(BTreeMap::new()),
        }
    }

    pub(super) fn restore(&mut self, path: &Path, tree: &Tree) -> io::Result<()> {
        match (self.split(path), tree) {
            (Ok((folder, name)), tree) => {
                let id = self.copy_in(tree);
                let added = Some((name, id));
                self.folder_mut(folder)?.change(NameChange { added, ..NameChange::default() });
                self.sync_dir(folder)?;
            }
            (Err(_), Tree::Folder(below)) if path == Path::new("/") => {
                let names = self.copy_names(below);
                let root = Node::new(Kind::Folder(Folder::new(names)));
                self.nodes.insert(ROOT, root);
            }
            (Err(error), _) => return Err(error),
        }
        self.refresh();
        Ok(())
    }

    fn copy_in(&mut self, tree: &Tree) -> Id {
        let kind = match tree {
            Tree::File(content, at) => Kind::File(FileNode::new(content.clone(), *at)),
            Tree::Folder(below) => Kind::Folder(Folder::new(self.copy_names(below))),
        };
        self.insert(kind)
    }

    fn copy_names(&mut self, below: &BTreeMap<OsString, Tree>) -> Names {
        below.iter().map(|(name, tree)| (name.clone(), self.copy_in(tree))).collect()
    }

    /// Finds out anew what has a name, and drops what nobody can ever reach again.
    fn refresh(&mut self) {
        let named = self.walk(|folder| folder.now.values().copied().collect());
        let reachable = self.walk(|folder| folder.reachable().collect());
        self.nodes.retain(|id, node| {
            node.named = named.contains(id);
            node.opened > 0 || reachable.contains(id)
        });
    }

    fn walk(&self, below: impl Fn(&Folder) -> Vec<Id>) -> BTreeSet<Id> {
        let mut found = BTreeSet::from([ROOT]);
        let mut unvisited = vec![ROOT];
        while let Some(id) = unvisited.pop() {
            let folder = self.nodes.get(&id).and_then(Node::folder);
            let ids = folder.map(&below).unwrap_or_default();
            unvisited.extend(ids.into_iter().filter(|id| found.insert(*id)));
        }
        found
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        for node in self.nodes.values() {
            match &node.kind {
                Kind::File(file) => file.check(),
                Kind::Folder(folder) => folder.check(),
            }
        }
        let named = self.walk(|folder| folder.now.values().copied().collect());
        assert!(self.nodes.iter().all(|(id, node)| node.named == named.contains(id)));
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

/// What a process that has died is answered.
pub(super) fn dead() -> io::Error {
    Errno::IO.into()
}
