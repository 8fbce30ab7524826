//! Attributes: `stat`, `chmod`, `chown`, `utimes`, `statfs`.

use std::sync::Arc;
use std::time::SystemTime;

use super::acl::{self, Acl};
use super::error::VfsResult;
use super::{Attr, Caller, Ino, Kind, NAME_MAX, SetAttr, SetTime, StatFs, Vfs};
use crate::catalog::{Inode, Time};

/// Figures of `statfs`: the vault states no quota (protocol E.2), so it is shown as this
/// many bytes, less what the drive stores.
const VAULT_BYTES: u64 = 1 << 50;

/// Inodes that the drive is designed for, as `statfs` shows it.
const VAULT_FILES: u64 = 1 << 32;

/// `statfs` block size: what `df` and `cp` work with.
const FRAGMENT: u32 = 4096;

impl Vfs {
    /// Attributes of an inode, with what open handles have written so far.
    pub fn getattr(&self, ino: Ino) -> VfsResult<Attr> {
        let inode = self.tree.inode(ino)?;
        Ok(self.attr_of(&inode))
    }

    pub(super) fn attr_of(&self, inode: &Inode) -> Attr {
        let mut size = inode.size();
        let holes = inode.content.holes.iter().map(|h| h.1).sum::<u64>();
        let mut allocated = match &inode.local.dirty {
            Some(dirty) => dirty.allocated,
            None => size.saturating_sub(holes),
        };
        let mut mtime = inode.attrs.mtime;
        let mut ctime = inode.attrs.ctime;
        if inode.kind == Kind::File
            && let Some(body) = self.find_body(inode.ino)
        {
            let state = body.state.read();
            size = state.size;
            allocated = state.allocated();
            if let Some(written) = state.mtime {
                mtime = written;
                ctime = ctime.max(written);
            }
        }
        let mut attr = Attr {
            ino: inode.ino,
            kind: inode.kind,
            perm: inode.attrs.perm,
            uid: inode.attrs.uid,
            gid: inode.attrs.gid,
            nlink: inode.local.nlink,
            rdev: inode.rdev,
            size: if inode.is_dir() { u64::from(FRAGMENT) } else { size },
            blocks: if inode.is_dir() { 8 } else { allocated.div_ceil(512) },
            atime: inode.attrs.atime.into(),
            mtime: mtime.into(),
            ctime: ctime.into(),
            crtime: inode.born.into(),
        };
        self.config.shown.apply(&mut attr);
        attr
    }

    /// Changes attributes; waits for the vault only where a truncation needs old bytes.
    pub async fn setattr(
        self: Arc<Self>,
        _caller: Caller,
        ino: Ino,
        fh: Option<u64>,
        mut set: SetAttr,
    ) -> VfsResult<Attr> {
        if self.config.read_only {
            self.refuse_if_read_only(self.name_of(ino).as_bytes())?;
        }
        if let Some(size) = set.size
            && self.tree.inode(ino)?.kind == Kind::File
        {
            if self.getattr(ino)?.size != size {
                self.truncate(ino, size, fh.is_some()).await?;
            } else {
                // To the size that it has: nothing to cut, and the times move all the same.
                set.mtime.get_or_insert(SetTime::Now);
            }
        }
        let SetAttr { perm, uid, gid, size: _, atime, mtime } = set;
        if perm.is_none() && uid.is_none() && gid.is_none() && atime.is_none() && mtime.is_none() {
            return self.getattr(ino);
        }
        if mtime.is_some()
            && let Some(body) = self.find_body(ino)
        {
            // What was written before is older than the time that is set now.
            self.persist(&body)?;
            body.state.write().mtime = None;
        }
        let inode = self.tree.set_attrs(ino, |inode, now| {
            if let Some(perm) = perm
                && let Some(mut acl) = inode.xattr(acl::ACCESS).and_then(|v| Acl::parse(v))
            {
                acl.chmod(perm);
                inode.set_xattr(acl::ACCESS, Some(acl.to_bytes()));
            }
            let attrs = &mut inode.attrs;
            attrs.perm = perm.unwrap_or(attrs.perm);
            attrs.uid = uid.unwrap_or(attrs.uid);
            attrs.gid = gid.unwrap_or(attrs.gid);
            attrs.atime = atime.map_or(attrs.atime, |t| resolve(t, now));
            attrs.mtime = mtime.map_or(attrs.mtime, |t| resolve(t, now));
        })?;
        self.want_publish();
        Ok(self.attr_of(&inode))
    }

    /// Size and room. Free space is the smaller of what the vault is shown with and what
    /// may still wait on this machine.
    pub fn statfs(&self) -> StatFs {
        let unit = u64::from(FRAGMENT);
        let (files, bytes) = self.counters.stored(&self.tree);
        let staging = self.staging.limit().saturating_sub(self.staging.used());
        let disk = self.staging.free();
        let free = VAULT_BYTES.saturating_sub(bytes);
        StatFs {
            block_size: FRAGMENT,
            blocks: VAULT_BYTES / unit,
            free: free / unit,
            available: free.min(staging).min(disk) / unit,
            files: VAULT_FILES,
            files_free: VAULT_FILES.saturating_sub(files),
            name_max: u32::try_from(NAME_MAX).unwrap_or(255),
        }
    }
}

fn resolve(set: SetTime, now: Time) -> Time {
    match set {
        SetTime::Now => now,
        SetTime::At(time) => Time::from(time),
    }
}

/// For tests and messages: a time as the record keeps it.
impl From<SystemTime> for SetTime {
    fn from(time: SystemTime) -> Self {
        Self::At(time)
    }
}
