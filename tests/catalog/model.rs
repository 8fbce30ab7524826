//! The operations layer against a reference model, without a kernel: random operations on
//! both, the whole tree compared after each remount, crash, cache loss and on a second
//! machine; over a store that fails now and then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::crypto::MasterKey;
use privicorefs::env::Env;
use privicorefs::store::{Store, StoreErrorKind, TokenRecord};
use privicorefs::vfs::{
    Caller, DirEntry, Durability, Kind, OpenMode, ROOT_INO, RenameMode, SetAttr, Shown, Vfs,
    VfsConfig, VfsError, XattrMode,
};
use proptest::prelude::*;

use crate::house;
use crate::house::memory_store::{MemoryStore, Op as StoreOp};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
const READ: OpenMode = OpenMode { read: true, write: false, truncate: false, sync: false };
const WRITE: OpenMode = OpenMode { read: true, write: true, ..READ };

/// Names are few, so that operations meet.
const NAMES: [&str; 5] = ["a", "b.txt", "c", "d", "ü\n"];

#[derive(Clone, Debug)]
enum Op {
    Create { dir: usize, name: usize },
    Mkdir { dir: usize, name: usize },
    Symlink { dir: usize, name: usize },
    Link { file: usize, dir: usize, name: usize },
    Write { file: usize, offset: u32, len: u32, byte: u8 },
    Truncate { file: usize, size: u32 },
    Zero { file: usize, offset: u32, len: u32, keep: bool },
    Copy { from: usize, to: usize },
    Tidy,
    Remove { dir: usize, name: usize },
    Rename { from: usize, name: usize, to: usize, new: usize, exchange: bool },
    Chmod { file: usize, perm: u16 },
    Xattr { file: usize, value: Option<u8> },
    Sync,
    Fsync { file: usize },
    Remount,
    Crash,
    LoseCache,
    OtherMachine,
    FailPuts { n: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let d = 0usize..8;
    let n = 0usize..NAMES.len();
    let size = prop_oneof![0u32..200, 4000u32..4200, 60_000u32..70_000, 100_000u32..200_000];
    prop_oneof![
        6 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Create { dir, name }),
        2 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Symlink { dir, name }),
        2 => (d.clone(), d.clone(), n.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        8 => (d.clone(), size.clone(), prop_oneof![1u32..300, 4000u32..9000, 50_000u32..90_000], any::<u8>())
            .prop_map(|(file, offset, len, byte)| Op::Write { file, offset, len, byte }),
        4 => (d.clone(), size.clone()).prop_map(|(file, size)| Op::Truncate { file, size }),
        4 => (d.clone(), size.clone(), size.clone(), any::<bool>())
            .prop_map(|(file, offset, len, keep)| Op::Zero { file, offset, len, keep }),
        3 => (d.clone(), d.clone()).prop_map(|(from, to)| Op::Copy { from, to }),
        1 => Just(Op::Tidy),
        4 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Remove { dir, name }),
        4 => (d.clone(), n.clone(), d.clone(), n, any::<bool>()).prop_map(
            |(from, name, to, new, exchange)| Op::Rename { from, name, to, new, exchange }
        ),
        2 => (d.clone(), 0u16..0o1000).prop_map(|(file, perm)| Op::Chmod { file, perm }),
        2 => (d.clone(), proptest::option::of(any::<u8>()))
            .prop_map(|(file, value)| Op::Xattr { file, value }),
        2 => Just(Op::Sync),
        2 => d.prop_map(|file| Op::Fsync { file }),
        1 => Just(Op::Remount),
        1 => Just(Op::Crash),
        1 => Just(Op::LoseCache),
        1 => Just(Op::OtherMachine),
        1 => (1u32..4).prop_map(|n| Op::FailPuts { n }),
    ]
}

/// What a file is, in the model; directories hold numbers of nodes.
#[derive(Clone, Debug)]
enum Node {
    File { bytes: Vec<u8>, perm: u16, xattr: Option<u8> },
    Dir { names: BTreeMap<String, usize>, perm: u16 },
    Symlink,
}

#[derive(Clone, Debug)]
struct Model {
    nodes: Vec<Node>,
}

impl Model {
    fn new() -> Self {
        Self { nodes: vec![Node::Dir { names: BTreeMap::new(), perm: 0o755 }] }
    }

    fn names(&self, dir: usize) -> &BTreeMap<String, usize> {
        match &self.nodes[dir] {
            Node::Dir { names, .. } => names,
            _ => panic!("not a directory"),
        }
    }

    fn names_mut(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.nodes[dir] {
            Node::Dir { names, .. } => names,
            _ => panic!("not a directory"),
        }
    }

    /// Every reachable (path, node), the root first.
    fn walk(&self) -> Vec<(String, usize)> {
        let mut all = vec![(String::new(), 0)];
        let mut at = 0;
        while at < all.len() {
            let (path, node) = all[at].clone();
            if let Node::Dir { names, .. } = &self.nodes[node] {
                all.extend(names.iter().map(|(n, i)| (format!("{path}/{n}"), *i)));
            }
            at += 1;
        }
        all
    }

    fn pick(&self, index: usize, want: impl Fn(&Node) -> bool) -> Option<(String, usize)> {
        let mut all = self.walk();
        all.retain(|(_, node)| want(&self.nodes[*node]));
        (!all.is_empty()).then(|| all[index % all.len()].clone())
    }

    fn dir(&self, index: usize) -> (String, usize) {
        self.pick(index, |n| matches!(n, Node::Dir { .. })).unwrap()
    }

    fn file(&self, index: usize) -> Option<(String, usize)> {
        self.pick(index, |n| matches!(n, Node::File { .. }))
    }

    fn links(&self, node: usize) -> usize {
        self.walk().iter().filter(|(_, n)| *n == node).count()
    }
}

struct Machine {
    runtime: tokio::runtime::Runtime,
    vfs: Arc<Vfs>,
}

impl Machine {
    fn start(dir: &Path, store: &Arc<MemoryStore>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = VfsConfig {
            state_dir: dir.join("state"),
            cache_dir: dir.join("cache"),
            cache_limit: 64 << 20,
            cache_floor: 0,
            staging_limit: 1 << 30,
            memory: 32 << 20,
            split_above: Some(80_000),
            part_size: 32_768,
            durability: Durability::Fsync,
            trash_days: 0,
            local_names: Vec::new(),
            parallel: 4,
            deadline: Duration::from_secs(20),
            approval_timeout: Duration::from_secs(20),
            poll_interval: Duration::ZERO,
            read_only: false,
            shown: Shown::default(),
            default_uid: 0,
            default_gid: 0,
        };
        let store: Arc<dyn Store> = store.clone();
        let key = MasterKey::from_bytes([7; 32]);
        let vfs = runtime.block_on(Vfs::open(config, store, key, Env::system())).unwrap();
        vfs.start(runtime.handle().clone(), Box::new(|_| ()));
        Self { runtime, vfs }
    }

    /// Ends it as `kill -9` would: no drain, no flush of open files.
    fn crash(self) {
        let Self { runtime, vfs } = self;
        runtime.shutdown_timeout(Duration::from_secs(10));
        assert_eq!(Arc::strong_count(&vfs), 1, "something outlives the runtime");
        drop(vfs);
    }

    fn stop(self) {
        let report = self.runtime.block_on(self.vfs.clone().shutdown(Duration::from_secs(30)));
        assert_eq!((report.files_left, report.records_left), (0, 0), "{report:?}");
        self.crash();
    }

    fn sync(&self) {
        let quiet = Arc::new(|_| ());
        self.runtime.block_on(self.vfs.clone().sync_all(None, quiet)).unwrap();
    }

    fn ino(&self, path: &str) -> u64 {
        let parts = path.split('/').filter(|p| !p.is_empty());
        parts.fold(ROOT_INO, |dir, name| self.vfs.lookup(dir, name.as_bytes()).unwrap().ino)
    }

    fn list(&self, ino: u64) -> Vec<(String, Kind)> {
        let fh = self.vfs.opendir(ino).unwrap().fh;
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            // A few at a time, so that cookies are put to use.
            let mut got = 0;
            self.vfs
                .readdir(fh, offset, true, &mut |entry: &DirEntry| {
                    if got == 3 {
                        return true;
                    }
                    got += 1;
                    offset = entry.offset;
                    if entry.name != b"." && entry.name != b".." {
                        names.push((String::from_utf8(entry.name.clone()).unwrap(), entry.kind));
                    }
                    false
                })
                .unwrap();
            if got == 0 {
                break;
            }
        }
        self.vfs.releasedir(fh).unwrap();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    }

    fn read(&self, ino: u64) -> Vec<u8> {
        let fh = self.vfs.open_file(ino, READ).unwrap().fh;
        let size = self.vfs.getattr(ino).unwrap().size;
        let mut out = Vec::new();
        while (out.len() as u64) < size {
            let at = out.len() as u64;
            let piece = match self.vfs.try_read(fh, at, 50_000).unwrap() {
                Some(piece) => piece,
                None => self.runtime.block_on(self.vfs.clone().read(fh, at, 50_000)).unwrap(),
            };
            assert!(!piece.is_empty(), "a short read at {at} of {size}");
            out.extend(piece);
        }
        self.vfs.release(fh).unwrap();
        out
    }

    fn compare(&self, model: &Model) {
        for (path, node) in model.walk() {
            let ino = self.ino(&path);
            let attr = self.vfs.getattr(ino).unwrap();
            match &model.nodes[node] {
                Node::Dir { names, perm } => {
                    assert_eq!((attr.kind, attr.perm), (Kind::Dir, *perm), "{path}");
                    let listed: Vec<_> = self.list(ino).into_iter().map(|(n, _)| n).collect();
                    let expected: Vec<_> = names.keys().cloned().collect();
                    assert_eq!(listed, expected, "in {path:?}");
                    let dirs = names
                        .values()
                        .filter(|n| matches!(model.nodes[**n], Node::Dir { .. }))
                        .count();
                    assert_eq!(attr.nlink as usize, 2 + dirs, "nlink of {path:?}");
                }
                Node::File { bytes, perm, xattr } => {
                    assert_eq!((attr.kind, attr.perm), (Kind::File, *perm), "{path}");
                    assert_eq!(attr.size, bytes.len() as u64, "size of {path:?}");
                    assert_eq!(attr.nlink as usize, model.links(node), "nlink of {path:?}");
                    let content = self.read(ino);
                    if let Some(at) = (0..bytes.len()).find(|&i| content[i] != bytes[i]) {
                        panic!("{path:?} differs at {at}: {} != {}", content[at], bytes[at]);
                    }
                    let got = self.vfs.getxattr(ino, b"user.x").ok();
                    assert_eq!(got, xattr.map(|v| vec![v]), "xattr of {path:?}");
                }
                Node::Symlink => {
                    assert_eq!(self.vfs.readlink(ino).unwrap(), b"tar get", "{path}");
                }
            }
        }
    }
}

struct World {
    dir: tempfile::TempDir,
    store: Arc<MemoryStore>,
    machine: Option<Machine>,
    model: Model,
    others: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::with_page_size(7));
        let machine = Machine::start(&dir.path().join("own"), &store);
        Self { dir, store, machine: Some(machine), model: Model::new(), others: 0 }
    }

    fn machine(&self) -> &Machine {
        self.machine.as_ref().unwrap()
    }

    fn restart(&mut self) {
        let own = self.dir.path().join("own");
        self.machine = Some(Machine::start(&own, &self.store));
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { dir, name } => self.create(*dir, *name),
            Op::Mkdir { dir, name } => self.mkdir(*dir, *name),
            Op::Symlink { dir, name } => self.symlink(*dir, *name),
            Op::Link { file, dir, name } => self.link(*file, *dir, *name),
            Op::Write { file, offset, len, byte } => self.write(*file, *offset, *len, *byte),
            Op::Truncate { file, size } => self.truncate(*file, *size),
            Op::Zero { file, offset, len, keep } => self.zero(*file, *offset, *len, *keep),
            Op::Copy { from, to } => self.copy(*from, *to),
            Op::Tidy => {
                let machine = self.machine();
                machine.runtime.block_on(machine.vfs.clone().tidy());
            }
            Op::Remove { dir, name } => self.remove(*dir, *name),
            Op::Rename { from, name, to, new, exchange } => {
                self.rename(*from, *name, *to, *new, *exchange);
            }
            Op::Chmod { file, perm } => self.chmod(*file, *perm),
            Op::Xattr { file, value } => self.xattr(*file, *value),
            Op::Sync => self.machine().sync(),
            Op::Fsync { file } => self.fsync(*file),
            Op::Remount => {
                self.machine.take().unwrap().stop();
                self.restart();
                self.machine().compare(&self.model);
            }
            Op::Crash => {
                self.machine.take().unwrap().crash();
                self.restart();
                self.machine().compare(&self.model);
            }
            Op::LoseCache => {
                self.machine.take().unwrap().stop();
                std::fs::remove_dir_all(self.dir.path().join("own/cache")).unwrap();
                self.restart();
                self.machine().compare(&self.model);
            }
            Op::OtherMachine => {
                self.machine().sync();
                self.others += 1;
                let dir = self.dir.path().join(format!("other{}", self.others));
                let other = Machine::start(&dir, &self.store);
                other.compare(&self.model);
                other.crash();
            }
            Op::FailPuts { n } => {
                self.store.fail_next(StoreOp::Put, *n, StoreErrorKind::Unavailable);
            }
        }
    }

    fn create(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let machine = self.machine();
        let made =
            machine.vfs.create(&CALLER, machine.ino(&path), NAMES[name].as_bytes(), 0o644, WRITE);
        if self.model.names(dir).contains_key(NAMES[name]) {
            assert!(matches!(made, Err(VfsError::Exists { .. })));
            return;
        }
        let fh = made.unwrap().1.fh;
        machine.runtime.block_on(machine.vfs.clone().flush(fh)).unwrap();
        machine.vfs.release(fh).unwrap();
        self.add(dir, name, Node::File { bytes: Vec::new(), perm: 0o644, xattr: None });
    }

    fn add(&mut self, dir: usize, name: usize, node: Node) {
        self.model.nodes.push(node);
        let number = self.model.nodes.len() - 1;
        self.model.names_mut(dir).insert(NAMES[name].to_owned(), number);
    }

    fn mkdir(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let ino = self.machine().ino(&path);
        let made = self.machine().vfs.mkdir(&CALLER, ino, NAMES[name].as_bytes(), 0o750);
        if self.model.names(dir).contains_key(NAMES[name]) {
            assert!(matches!(made, Err(VfsError::Exists { .. })));
            return;
        }
        made.unwrap();
        self.add(dir, name, Node::Dir { names: BTreeMap::new(), perm: 0o750 });
    }

    fn symlink(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let ino = self.machine().ino(&path);
        let made = self.machine().vfs.symlink(&CALLER, ino, NAMES[name].as_bytes(), b"tar get");
        if self.model.names(dir).contains_key(NAMES[name]) {
            assert!(matches!(made, Err(VfsError::Exists { .. })));
            return;
        }
        made.unwrap();
        self.add(dir, name, Node::Symlink);
    }

    fn link(&mut self, file: usize, dir: usize, name: usize) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (dir_path, dir) = self.model.dir(dir);
        let machine = self.machine();
        let made =
            machine.vfs.link(machine.ino(&path), machine.ino(&dir_path), NAMES[name].as_bytes());
        if self.model.names(dir).contains_key(NAMES[name]) {
            assert!(matches!(made, Err(VfsError::Exists { .. })));
            return;
        }
        made.unwrap();
        self.model.names_mut(dir).insert(NAMES[name].to_owned(), file);
    }

    fn write(&mut self, file: usize, offset: u32, len: u32, byte: u8) {
        let Some((path, file)) = self.model.file(file) else { return };
        let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add((i / 97) as u8)).collect();
        let machine = self.machine();
        let fh = machine.vfs.open_file(machine.ino(&path), WRITE).unwrap().fh;
        let offset = u64::from(offset);
        if machine.vfs.try_write(fh, offset, &data).unwrap().is_none() {
            let write = machine.vfs.clone().write(fh, offset, data.clone());
            machine.runtime.block_on(write).unwrap();
        }
        machine.runtime.block_on(machine.vfs.clone().flush(fh)).unwrap();
        machine.vfs.release(fh).unwrap();
        let Node::File { bytes, .. } = &mut self.model.nodes[file] else { panic!() };
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(&data);
    }

    fn zero(&mut self, file: usize, offset: u32, len: u32, keep: bool) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (offset, len) = (offset as usize, len.max(1) as usize);
        let machine = self.machine();
        let fh = machine.vfs.open_file(machine.ino(&path), WRITE).unwrap().fh;
        let zero = machine.vfs.clone().fallocate(fh, offset as u64, len as u64, keep, true);
        machine.runtime.block_on(zero).unwrap();
        machine.runtime.block_on(machine.vfs.clone().flush(fh)).unwrap();
        machine.vfs.release(fh).unwrap();
        let Node::File { bytes, .. } = &mut self.model.nodes[file] else { panic!() };
        if !keep && bytes.len() < offset + len {
            bytes.resize(offset + len, 0);
        }
        let end = (offset + len).min(bytes.len());
        bytes[offset.min(end)..end].fill(0);
    }

    /// As the kernel does it: what cannot be shared is read and written.
    fn copy(&mut self, from: usize, to: usize) {
        let (Some((from_path, from)), Some((to_path, to))) =
            (self.model.file(from), self.model.file(to))
        else {
            return;
        };
        if from == to {
            return;
        }
        self.setattr(&to_path, SetAttr { size: Some(0), ..SetAttr::default() });
        let machine = self.machine();
        let vfs = &machine.vfs;
        let source = vfs.open_file(machine.ino(&from_path), READ).unwrap().fh;
        let target = vfs.open_file(machine.ino(&to_path), WRITE).unwrap().fh;
        let Node::File { bytes, .. } = self.model.nodes[from].clone() else { panic!() };
        let mut done = 0;
        while done < bytes.len() as u64 {
            match vfs.share((source, done), (target, done), bytes.len() as u64) {
                Ok(count) => done += u64::from(count),
                Err(VfsError::Unsupported { .. }) => {
                    let read = vfs.clone().read(source, done, bytes.len() as u32);
                    let rest = machine.runtime.block_on(read).unwrap();
                    let len = rest.len() as u64;
                    let write = vfs.clone().write(target, done, rest);
                    machine.runtime.block_on(write).unwrap();
                    done += len;
                }
                Err(error) => panic!("{error}"),
            }
        }
        machine.runtime.block_on(vfs.clone().flush(target)).unwrap();
        vfs.release(target).unwrap();
        vfs.release(source).unwrap();
        let Node::File { bytes: copy, .. } = &mut self.model.nodes[to] else { panic!() };
        *copy = bytes;
    }

    fn setattr(&self, path: &str, set: SetAttr) {
        let machine = self.machine();
        let ino = machine.ino(path);
        let set = machine.vfs.clone().setattr(CALLER, ino, None, set);
        machine.runtime.block_on(set).unwrap();
    }

    fn truncate(&mut self, file: usize, size: u32) {
        let Some((path, file)) = self.model.file(file) else { return };
        self.setattr(&path, SetAttr { size: Some(u64::from(size)), ..SetAttr::default() });
        let Node::File { bytes, .. } = &mut self.model.nodes[file] else { panic!() };
        bytes.resize(size as usize, 0);
    }

    fn chmod(&mut self, file: usize, new: u16) {
        let (path, node) = self.model.pick(file, |n| !matches!(n, Node::Symlink)).unwrap();
        self.setattr(&path, SetAttr { perm: Some(new), ..SetAttr::default() });
        match &mut self.model.nodes[node] {
            Node::File { perm, .. } | Node::Dir { perm, .. } => *perm = new,
            Node::Symlink => panic!(),
        }
    }

    fn xattr(&mut self, file: usize, value: Option<u8>) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (vfs, ino) = (&self.machine().vfs, self.machine().ino(&path));
        let mode = XattrMode::Either;
        let Node::File { xattr, .. } = &self.model.nodes[file] else { panic!() };
        match value {
            Some(value) => vfs.setxattr(&CALLER, ino, b"user.x", &[value], mode).unwrap(),
            None => {
                let removed = vfs.removexattr(&CALLER, ino, b"user.x");
                assert_eq!(removed.is_ok(), xattr.is_some());
            }
        }
        let Node::File { xattr, .. } = &mut self.model.nodes[file] else { panic!() };
        *xattr = value;
    }

    fn remove(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let (vfs, ino) = (&self.machine().vfs, self.machine().ino(&path));
        let name = NAMES[name];
        match self.model.names(dir).get(name).copied() {
            None => {
                let gone = vfs.unlink(ino, name.as_bytes());
                assert!(matches!(gone, Err(VfsError::NotFound { .. })));
                return;
            }
            Some(node) => match &self.model.nodes[node] {
                Node::Dir { names, .. } if names.is_empty() => {
                    assert!(vfs.unlink(ino, name.as_bytes()).is_err());
                    vfs.rmdir(ino, name.as_bytes()).unwrap();
                }
                Node::Dir { .. } => {
                    let full = vfs.rmdir(ino, name.as_bytes());
                    assert!(matches!(full, Err(VfsError::NotEmpty { .. })));
                    return;
                }
                _ => vfs.unlink(ino, name.as_bytes()).unwrap(),
            },
        }
        self.model.names_mut(dir).remove(name);
    }

    fn rename(&mut self, from: usize, name: usize, to: usize, new: usize, exchange: bool) {
        let ((from_path, from), (to_path, to)) = (self.model.dir(from), self.model.dir(to));
        let (name, new) = (NAMES[name], NAMES[new]);
        let mode = if exchange { RenameMode::Exchange } else { RenameMode::Replace };
        let machine = self.machine();
        let (from_ino, to_ino) = (machine.ino(&from_path), machine.ino(&to_path));
        let moved = machine.vfs.rename(from_ino, name.as_bytes(), to_ino, new.as_bytes(), mode);
        let source = self.model.names(from).get(name).copied();
        let target = self.model.names(to).get(new).copied();
        let Some(source) = source else {
            assert!(moved.is_err());
            return;
        };
        if !self.allowed(source, target, from, to, exchange) {
            assert!(moved.is_err(), "{from_path}/{name} -> {to_path}/{new} {exchange}");
            return;
        }
        moved.unwrap();
        if target == Some(source) {
            return;
        }
        match (exchange, target) {
            (true, Some(target)) => {
                self.model.names_mut(from).insert(name.to_owned(), target);
            }
            _ => drop(self.model.names_mut(from).remove(name)),
        }
        self.model.names_mut(to).insert(new.to_owned(), source);
    }

    fn allowed(
        &self,
        source: usize,
        target: Option<usize>,
        from: usize,
        to: usize,
        exchange: bool,
    ) -> bool {
        let is_dir = |n: usize| matches!(self.model.nodes[n], Node::Dir { .. });
        if target == Some(source) {
            return true;
        }
        if is_dir(source) && self.below(to, source) {
            return false;
        }
        match (target, exchange) {
            (None, exchange) => !exchange,
            (Some(target), true) => !(is_dir(target) && self.below(from, target)),
            (Some(target), false) => {
                is_dir(source) == is_dir(target)
                    && (!is_dir(target) || self.model.names(target).is_empty())
            }
        }
    }

    fn below(&self, node: usize, ancestor: usize) -> bool {
        if node == ancestor {
            return true;
        }
        match &self.model.nodes[ancestor] {
            Node::Dir { names, .. } => names.values().any(|n| self.below(node, *n)),
            _ => false,
        }
    }

    fn fsync(&mut self, file: usize) {
        let Some((path, _)) = self.model.file(file) else { return };
        let machine = self.machine();
        let fh = machine.vfs.open_file(machine.ino(&path), WRITE).unwrap().fh;
        // A store that fails makes fsync fail, loudly; it must then work again.
        let synced =
            (0..5).any(|_| machine.runtime.block_on(machine.vfs.clone().fsync(fh, false)).is_ok());
        assert!(synced, "fsync keeps failing");
        machine.vfs.release(fh).unwrap();
    }

    fn finish(mut self) {
        self.machine().sync();
        self.machine().compare(&self.model);
        self.apply(&Op::OtherMachine);
        self.machine.take().unwrap().stop();
    }
}

fn run(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.apply(op);
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PRIVICOREFS_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_gives_the_models_tree(ops in proptest::collection::vec(op(), 1..40)) {
        run(&ops);
    }
}

#[test]
fn a_truncated_tail_never_comes_back() {
    run(&[
        Op::Create { dir: 0, name: 0 },
        Op::Write { file: 0, offset: 0, len: 90_000, byte: 5 },
        Op::Sync,
        Op::Truncate { file: 0, size: 70_001 },
        Op::Truncate { file: 0, size: 90_000 },
        Op::Crash,
        Op::Sync,
        Op::OtherMachine,
    ]);
}

/// A new machine reads one checkpoint and the segments after it; the segments that the
/// checkpoint covers may be gone.
#[test]
fn a_checkpoint_stands_for_the_segments_it_covers() {
    let mut world = World::new();
    for round in 0..80 {
        world.apply(&Op::Create { dir: 0, name: round % 3 });
        world.apply(&Op::Write { file: 0, offset: 0, len: 10, byte: round as u8 });
        if round == 40 {
            world.apply(&Op::Mkdir { dir: 0, name: 3 });
        }
        world.apply(&Op::Sync);
    }
    let name_of = |r: &TokenRecord| r.file_name.clone().unwrap_or_default();
    let checkpoint =
        || world.store.records().into_iter().find(|r| name_of(r).ends_with(".checkpoint"));
    let deadline = house::process::now() + Duration::from_secs(30);
    while checkpoint().is_none() {
        assert!(house::process::now() < deadline, "no checkpoint after 80 segments");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What comes after the checkpoint is in segments of its own.
    world.apply(&Op::Create { dir: 0, name: 4 });
    world.apply(&Op::Sync);
    let mut segments: Vec<_> =
        world.store.records().into_iter().filter(|r| r.context.ends_with("/log")).collect();
    segments.sort_by_key(name_of);
    assert!(segments.len() > 64);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for covered in &segments[..60] {
        runtime.block_on(world.store.delete(&covered.token)).unwrap();
    }
    world.apply(&Op::OtherMachine);
    world.finish();
}
