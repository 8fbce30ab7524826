//! Operations on names, on the drive and on the model alike.

use std::collections::BTreeMap;

use privicorefs::vfs::{RenameMode, SetAttr, VfsError, VfsResult, XattrMode};

use super::tree::Node;
use super::{CALLER, NAMES, WRITE, World};

impl World {
    /// A name is made, unless it is taken; says whether it was free.
    fn made<T>(&self, made: VfsResult<T>, dir: usize, name: usize) -> Option<T> {
        if self.model.names(dir).contains_key(NAMES[name]) {
            assert!(matches!(made, Err(VfsError::Exists { .. })));
            return None;
        }
        Some(made.unwrap())
    }

    fn add(&mut self, dir: usize, name: usize, node: Node) {
        self.model.nodes.push(node);
        let number = self.model.nodes.len() - 1;
        self.model.names_mut(dir).insert(NAMES[name].to_owned(), number);
    }

    pub(super) async fn create(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let (vfs, ino) = (self.vfs(), self.ino(&path));
        let made = vfs.create(&CALLER, ino, NAMES[name].as_bytes(), 0o644, WRITE);
        let Some((_, opened)) = self.made(made, dir, name) else { return };
        vfs.clone().flush(opened.fh).await.unwrap();
        vfs.release(opened.fh).unwrap();
        self.add(dir, name, Node::File { bytes: Vec::new(), perm: 0o644, xattr: None });
    }

    pub(super) fn mkdir(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let made = self.vfs().mkdir(&CALLER, self.ino(&path), NAMES[name].as_bytes(), 0o750);
        if self.made(made, dir, name).is_some() {
            self.add(dir, name, Node::Dir { names: BTreeMap::new(), perm: 0o750 });
        }
    }

    pub(super) fn symlink(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let ino = self.ino(&path);
        let made = self.vfs().symlink(&CALLER, ino, NAMES[name].as_bytes(), b"tar get");
        if self.made(made, dir, name).is_some() {
            self.add(dir, name, Node::Symlink);
        }
    }

    pub(super) fn link(&mut self, file: usize, dir: usize, name: usize) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (dir_path, dir) = self.model.dir(dir);
        let (ino, dir_ino) = (self.ino(&path), self.ino(&dir_path));
        let made = self.vfs().link(ino, dir_ino, NAMES[name].as_bytes());
        if self.made(made, dir, name).is_some() {
            self.model.names_mut(dir).insert(NAMES[name].to_owned(), file);
        }
    }

    pub(super) async fn setattr(&self, path: &str, set: SetAttr) {
        self.vfs().setattr(CALLER, self.ino(path), None, set).await.unwrap();
    }

    pub(super) async fn chmod(&mut self, file: usize, new: u16) {
        let (path, node) = self.model.pick(file, |n| !matches!(n, Node::Symlink)).unwrap();
        self.setattr(&path, SetAttr { perm: Some(new), ..SetAttr::default() }).await;
        match &mut self.model.nodes[node] {
            Node::File { perm, .. } | Node::Dir { perm, .. } => *perm = new,
            Node::Symlink => panic!(),
        }
    }

    pub(super) fn xattr(&mut self, file: usize, value: Option<u8>) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (vfs, ino) = (self.vfs(), self.ino(&path));
        let Node::File { xattr, .. } = &mut self.model.nodes[file] else { panic!() };
        match value {
            Some(value) => {
                vfs.setxattr(&CALLER, ino, b"user.x", &[value], XattrMode::Either).unwrap();
            }
            None => {
                let removed = vfs.removexattr(&CALLER, ino, b"user.x");
                assert_eq!(removed.is_ok(), xattr.is_some());
            }
        }
        *xattr = value;
    }

    pub(super) fn remove(&mut self, dir: usize, name: usize) {
        let (path, dir) = self.model.dir(dir);
        let (vfs, ino) = (self.vfs(), self.ino(&path));
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

    pub(super) fn rename(
        &mut self,
        from: usize,
        name: usize,
        to: usize,
        new: usize,
        exchange: bool,
    ) {
        let ((from_path, from), (to_path, to)) = (self.model.dir(from), self.model.dir(to));
        let (name, new) = (NAMES[name], NAMES[new]);
        let mode = if exchange { RenameMode::Exchange } else { RenameMode::Replace };
        let (from_ino, to_ino) = (self.ino(&from_path), self.ino(&to_path));
        let moved = self.vfs().rename(from_ino, name.as_bytes(), to_ino, new.as_bytes(), mode);
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
}
