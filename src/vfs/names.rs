//! Names: lookup, create, link, unlink, rename.

use super::acl::{self, Acl, Inherited};
use super::error::{VfsError, VfsResult};
use super::xattrs::{SET_GROUP_ID, inherited_risk};
use super::{Attr, Caller, Ino, Kind, OpenMode, Opened, ROOT_INO, RenameMode, Vfs};
use crate::catalog::{Inode, NewInode, Removed};

/// Longest symbolic link target, in bytes (`PATH_MAX` without the final zero).
const TARGET_MAX: usize = 4095;

impl Vfs {
    /// The inode that a name leads to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> VfsResult<Attr> {
        let inode = self.tree.lookup(parent, name)?;
        Ok(self.attr_of(&inode))
    }

    /// The kernel lets go of an inode. It does so once, with all its lookups, and inodes
    /// live in the local database whether or not it knows them: only one that has no name
    /// any more waits for this.
    pub fn forget(&self, ino: Ino, _nlookup: u64) {
        if self.nameless.lock().remove(&ino)
            && self.find_body(ino).is_none()
            && let Err(error) = self.purge(ino)
        {
            let error = error.logged();
            tracing::warn!(ino, error, "a removed inode could not be forgotten");
        }
    }

    /// A symbolic link's target.
    pub fn readlink(&self, ino: Ino) -> VfsResult<Vec<u8>> {
        let inode = self.tree.inode(ino)?;
        match inode.kind {
            Kind::Symlink => Ok(inode.target.clone()),
            _ => Err(VfsError::Invalid { what: self.name_of(ino), why: "not a symbolic link" }),
        }
    }

    fn make(&self, caller: &Caller, parent: Ino, name: &[u8], new: NewInode) -> VfsResult<Attr> {
        self.refuse_if_read_only(name)?;
        if self.is_closing() {
            return Err(VfsError::Closing { what: String::from_utf8_lossy(name).into_owned() });
        }
        let dir = self.tree.inode(parent)?;
        let mut xattrs = inherited_risk(&dir);
        let perm = inherited_perm(caller, &dir, &new, &mut xattrs);
        let unwanted = new.kind == Kind::File && self.is_local_name(name);
        let inode = self.tree.create(parent, name, NewInode { perm, xattrs, unwanted, ..new })?;
        self.want_publish();
        Ok(self.attr_of(&inode))
    }

    /// Makes a file, a pipe, a socket or a device node.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        perm: u16,
        rdev: u32,
    ) -> VfsResult<Attr> {
        let attr =
            self.make(caller, parent, name, new_inode(caller, kind, perm, rdev, Vec::new()))?;
        if kind == Kind::File {
            self.begin_empty(attr.ino)?;
        }
        Ok(attr)
    }

    /// Makes a directory.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], perm: u16) -> VfsResult<Attr> {
        self.make(caller, parent, name, new_inode(caller, Kind::Dir, perm, 0, Vec::new()))
    }

    /// Gives a folder at the top that is there already what a new one has: owner, permission
    /// bits, and what the root hands down.
    pub(super) fn furnish(&self, caller: &Caller, ino: Ino, perm: u16) -> VfsResult<Attr> {
        let root = self.tree.inode(ROOT_INO)?;
        let new = new_inode(caller, Kind::Dir, perm, 0, Vec::new());
        let mut xattrs = inherited_risk(&root);
        let handed = root.attrs.perm & SET_GROUP_ID;
        let perm = inherited_perm(caller, &root, &new, &mut xattrs) | handed;
        let gid = if handed == 0 { caller.gid } else { root.attrs.gid };
        let inode = self.tree.set_attrs(ino, |inode, now| {
            let attrs = &mut inode.attrs;
            (attrs.perm, attrs.uid, attrs.gid, attrs.mtime) = (perm, caller.uid, gid, now);
            for (name, value) in xattrs {
                inode.set_xattr(&name, Some(value));
            }
        })?;
        self.tree.set_attrs(ROOT_INO, |root, now| root.attrs.mtime = now)?;
        self.want_publish();
        Ok(self.attr_of(&inode))
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> VfsResult<Attr> {
        if target.is_empty() || target.len() > TARGET_MAX {
            return Err(VfsError::NameTooLong { what: String::from_utf8_lossy(name).into_owned() });
        }
        self.make(caller, parent, name, new_inode(caller, Kind::Symlink, 0o777, 0, target.to_vec()))
    }

    /// Makes a regular file and opens it.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        mode: OpenMode,
    ) -> VfsResult<(Attr, Opened)> {
        let attr =
            self.make(caller, parent, name, new_inode(caller, Kind::File, perm, 0, Vec::new()))?;
        let mode = OpenMode { truncate: false, ..mode };
        let opened = self.open_file(attr.ino, mode)?;
        self.begin_empty(attr.ino)?;
        Ok((attr, opened))
    }

    /// A new file has content, of no bytes, that the vault does not have yet.
    fn begin_empty(&self, ino: Ino) -> VfsResult<()> {
        let body = self.body(ino)?;
        {
            let mut state = body.state.write();
            state.truncate(self, ino, 0, &[])?;
            state.mtime = None;
        }
        if body.state.read().writers == 0 {
            self.persist(&body)?;
            self.queue_upload(&body);
        }
        Ok(())
    }

    /// Gives an inode another name.
    pub fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> VfsResult<Attr> {
        self.refuse_if_read_only(new_name)?;
        let inode = self.tree.link(ino, new_parent, new_name)?;
        self.want_publish();
        Ok(self.attr_of(&inode))
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> VfsResult<()> {
        self.refuse_if_read_only(name)?;
        let removed = self.tree.unlink(parent, name, false)?;
        self.settle_removed(&removed)
    }

    /// Removes an empty directory, unless it is one of the service's.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> VfsResult<()> {
        self.refuse_if_read_only(name)?;
        self.refuse_directory(parent, name)?;
        let removed = self.tree.unlink(parent, name, true)?;
        self.settle_removed(&removed)
    }

    /// Moves a name, unless it is that of one of the service's directories.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> VfsResult<()> {
        self.refuse_if_read_only(name)?;
        let (from, to) = ((parent, name), (new_parent, new_name));
        self.refuse_directory(parent, name)?;
        self.refuse_directory(new_parent, new_name)?;
        if mode == RenameMode::Exchange {
            self.tree.exchange(from, to)?;
            self.align_wanted.notify_one();
            self.want_publish();
            return Ok(());
        }
        let replace = mode == RenameMode::Replace;
        let unwanted = self.is_local_name(new_name);
        let removed = self.tree.rename(from, to, replace, unwanted)?;
        self.align_wanted.notify_one();
        if self.is_local_name(name) && !unwanted {
            self.queue_if_dirty(new_parent, new_name);
        }
        match removed {
            Some(removed) => self.settle_removed(&removed),
            None => {
                self.want_publish();
                Ok(())
            }
        }
    }

    /// A file whose last name is gone lives as long as it is open.
    fn settle_removed(&self, removed: &Removed) -> VfsResult<()> {
        self.want_publish();
        if !removed.last {
            return Ok(());
        }
        let ino = removed.inode.ino;
        if removed.inode.kind != Kind::File {
            // It may still be open, or somebody's working directory: until `forget`.
            self.nameless.lock().insert(ino);
            return Ok(());
        }
        let body = match removed.inode.local.dirty.is_some() {
            true => Some(self.body(ino)?),
            false => self.find_body(ino),
        };
        match body {
            Some(body) => {
                let result = self.discard(&body);
                self.retire(&body);
                result
            }
            None => self.purge(ino),
        }
    }
}

/// The permission bits of something new, and what its folder's default access control list
/// adds to `xattrs`.
fn inherited_perm(
    caller: &Caller,
    dir: &Inode,
    new: &NewInode,
    xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>,
) -> u16 {
    if new.kind == Kind::Symlink {
        return new.perm;
    }
    let Some(handed) = dir.xattr(acl::DEFAULT).and_then(|value| Acl::parse(value)) else {
        return new.perm & !caller.umask;
    };
    let Inherited { perm, access } = handed.hand_down(new.perm);
    xattrs.extend(access.map(|list| (acl::ACCESS.to_vec(), list.to_bytes())));
    if new.kind == Kind::Dir {
        xattrs.push((acl::DEFAULT.to_vec(), handed.to_bytes()));
    }
    perm
}

fn new_inode(caller: &Caller, kind: Kind, perm: u16, rdev: u32, target: Vec<u8>) -> NewInode {
    NewInode {
        kind,
        perm: perm & 0o7777,
        uid: caller.uid,
        gid: caller.gid,
        rdev,
        target,
        unwanted: false,
        xattrs: Vec::new(),
    }
}
