//! Extended attributes (design section 4).
//!
//! `user.privicore.*` other than the risk attributes and `.extension` are computed and
//! read-only; meta of a directory goes to the service ([`super::directories`]). Access control lists keep the permission bits in step. Everything else is
//! kept in the catalog as the caller set it; other attributes of the `system` namespace are
//! refused.

use std::path::Path;

use super::acl::{self, Acl};
use super::error::{VfsError, VfsResult};
use super::{Caller, Ino, Kind, Vfs, XattrMode};
use crate::catalog::local::inode::RISK;
use crate::catalog::{Inode, Version};
use crate::env::disk::Disk;

/// Prefix of the drive's own attributes.
const OWN: &[u8] = b"user.privicore.";

/// The writable file extension.
pub(super) const EXTENSION: &[u8] = b"user.privicore.extension";

/// Computed attributes of a committed file.
const COMPUTED: [&[u8]; 7] = [
    b"user.privicore.token",
    b"user.privicore.state",
    b"user.privicore.pool",
    b"user.privicore.context",
    b"user.privicore.file_name",
    b"user.privicore.size",
    b"user.privicore.created",
];

/// A file's SELinux label.
const LABEL: &[u8] = b"security.selinux";

pub(super) const SET_GROUP_ID: u16 = 0o2000;

/// Longest name and largest value, as Linux has it (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const NAME_LIMIT: usize = 255;
const VALUE_LIMIT: usize = 65_536;

/// Longest list of names that can be asked for (`XATTR_LIST_MAX`): more would never be seen.
const LIST_LIMIT: usize = 65_536;

impl Vfs {
    /// The value of an attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> VfsResult<Vec<u8>> {
        check_name(name)?;
        let value = match name.starts_with(OWN) {
            true => self.own_xattr(&*self.tree.inode(ino)?, name)?,
            false if !self.tree.may_have_xattr(name) => None,
            false => self.tree.inode(ino)?.xattr(name).cloned(),
        };
        value.ok_or_else(|| match name == LABEL {
            // On a machine with SELinux the kernel answers this itself. Without it, `ls -l`
            // asks for each file, unless it once hears that there is no such thing.
            true => VfsError::Unsupported { what: "security label".into() },
            false => VfsError::NoAttr { what: format!("inode {ino}") },
        })
    }

    /// Names of all attributes; trusted ones for root only. The computed ones are not listed: `rsync -X` and `cp -a`
    /// would try to set them elsewhere.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> VfsResult<Vec<Vec<u8>>> {
        let inode = self.tree.inode(ino)?;
        let shown = |name: &[u8]| caller.uid == 0 || !name.starts_with(b"trusted.");
        Ok(inode.xattrs.keys().filter(|name| shown(name)).cloned().collect())
    }

    fn own_xattr(&self, inode: &Inode, name: &[u8]) -> VfsResult<Option<Vec<u8>>> {
        if let Some(set) = inode.xattr(name) {
            return Ok(Some(set.clone()));
        }
        if inode.kind != Kind::File {
            return Ok(self.directory_xattr(inode.ino, name).map(String::into_bytes));
        }
        let token = inode.content.version.token();
        let known = inode.local.known_as.as_ref();
        let text = match name {
            b"user.privicore.token" => token.map(|t| t.as_str().to_owned()),
            b"user.privicore.state" => Some(self.state_text(inode)),
            b"user.privicore.pool" => self.approvals.of(inode.ino).and_then(|hold| hold.pool()),
            b"user.privicore.size" => token.map(|_| inode.content.size.to_string()),
            b"user.privicore.context" => {
                token.map(|_| known.map_or_else(|| self.meta_names(inode).1, |k| k.1.clone()))
            }
            b"user.privicore.file_name" => {
                token.map(|_| known.map_or_else(|| self.meta_names(inode).0, |k| k.0.clone()))
            }
            b"user.privicore.extension" => {
                token.map(|_| super::put::extension_of(&self.meta_names(inode).0))
            }
            b"user.privicore.created" => token.map(|_| {
                let millis = match inode.content.is_of_others() {
                    true => u64::try_from(inode.born.secs).unwrap_or(0) * 1000,
                    false => inode.content.stamp.hlc >> 16,
                };
                format!("{}.{:03}", millis / 1000, millis % 1000)
            }),
            _ => None,
        };
        Ok(text.map(String::into_bytes))
    }

    fn state_text(&self, inode: &Inode) -> String {
        if self.approvals.of(inode.ino).is_some() {
            return "awaiting-approval".into();
        }
        if let Some(body) = self.find_body(inode.ino) {
            let state = body.state.read();
            if let Some(failure) = &state.failure {
                return format!("failed: {failure}");
            }
            if state.uploading {
                return "uploading".into();
            }
            if state.dirty {
                return "local".into();
            }
        }
        if let Some(failure) = self.counters.failure(inode.ino) {
            return format!("failed: {failure}");
        }
        match (&inode.local.dirty, inode.content.version.token()) {
            (None, Some(_)) => "committed".into(),
            (None, None) if inode.content.version == Version::Damaged => "damaged".into(),
            _ => "local".into(),
        }
    }

    /// Sets an attribute.
    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> VfsResult<()> {
        self.refuse_if_read_only(name)?;
        let what = || String::from_utf8_lossy(name).into_owned();
        if name.len() > NAME_LIMIT || value.len() > VALUE_LIMIT {
            return Err(VfsError::Range { what: what() });
        }
        self.check_writable(name)?;
        let inode = self.tree.inode(ino)?;
        match (mode, inode.xattr(name).is_some()) {
            (XattrMode::Create, true) => return Err(VfsError::Exists { what: what() }),
            (XattrMode::Replace, false) => return Err(VfsError::NoAttr { what: what() }),
            _ => {}
        }
        if inode.xattr(name).is_none() {
            let listed: usize = inode.xattrs.keys().map(|name| name.len() + 1).sum();
            if listed + name.len() + 1 > LIST_LIMIT {
                return Err(VfsError::AttributesFull { what: self.name_of(ino) });
            }
        }
        if name == acl::ACCESS || name == acl::DEFAULT {
            return self.set_acl(caller, &inode, name, value);
        }
        self.tree.set_xattr(ino, name, Some(value.to_vec()))?;
        self.after_xattr(ino, name)
    }

    /// Sets an access control list, and the permission bits that it stands for.
    /// Like `chmod`, that takes the set-group-id bit from an owner outside the group.
    fn set_acl(&self, caller: &Caller, inode: &Inode, name: &[u8], value: &[u8]) -> VfsResult<()> {
        let what = || String::from_utf8_lossy(name).into_owned();
        if inode.kind == Kind::Symlink || (name == acl::DEFAULT && !inode.is_dir()) {
            return Err(VfsError::Unsupported { what: what() });
        }
        let Some(list) = Acl::parse(value) else {
            return Err(VfsError::Invalid { what: what(), why: "not an access control list" });
        };
        let in_group = caller.uid == 0 || caller.is_in(inode.attrs.gid, &*self.env.disk);
        self.tree.set_attrs(inode.ino, |inode, _| {
            let mut kept = Some(list.to_bytes());
            if name == acl::ACCESS {
                inode.attrs.perm = list.perm(inode.attrs.perm);
                if !in_group {
                    inode.attrs.perm &= !SET_GROUP_ID;
                }
                kept = kept.filter(|_| !list.is_minimal());
            }
            if kept.is_some() || inode.xattr(name).is_some() {
                inode.set_xattr(name, kept);
            }
        })?;
        self.want_publish();
        Ok(())
    }

    /// Removes an attribute.
    pub fn removexattr(&self, _caller: &Caller, ino: Ino, name: &[u8]) -> VfsResult<()> {
        self.refuse_if_read_only(name)?;
        self.check_writable(name)?;
        if self.tree.inode(ino)?.xattr(name).is_none() {
            if name == acl::ACCESS || name == acl::DEFAULT {
                return Ok(()); // nothing beyond the permission bits: as it is asked for
            }
            return Err(VfsError::NoAttr { what: String::from_utf8_lossy(name).into_owned() });
        }
        // Removing a risk attribute restores the folder's default.
        let inherited = match RISK.contains(&name) {
            true => self.risk_default(ino, name)?,
            false => None,
        };
        self.tree.set_xattr(ino, name, inherited)?;
        self.after_xattr(ino, name)
    }

    fn check_writable(&self, name: &[u8]) -> VfsResult<()> {
        let what = || String::from_utf8_lossy(name).into_owned();
        check_name(name)?;
        let risk = RISK.contains(&name) || name == EXTENSION;
        if COMPUTED.contains(&name) || (name.starts_with(OWN) && !risk) {
            return Err(VfsError::NotPermitted { what: what() });
        }
        Ok(())
    }

    fn after_xattr(&self, ino: Ino, name: &[u8]) -> VfsResult<()> {
        self.want_publish();
        if RISK.contains(&name) || name == EXTENSION {
            self.want_alignment(ino)?;
        }
        Ok(())
    }

    fn risk_default(&self, ino: Ino, name: &[u8]) -> VfsResult<Option<Vec<u8>>> {
        let Some(link) = self.tree.links_of(ino)?.into_iter().next() else { return Ok(None) };
        Ok(self.tree.inode(link.parent)?.xattr(name).cloned())
    }
}

impl Caller {
    /// Whether the process is in a group. A FUSE request names its first group only.
    fn is_in(&self, gid: u32, disk: &dyn Disk) -> bool {
        let status = disk.read(Path::new(&format!("/proc/{}/status", self.pid)));
        let status = String::from_utf8(status.unwrap_or_default()).unwrap_or_default();
        let others = status.lines().find_map(|line| line.strip_prefix("Groups:"));
        let mut others = others.unwrap_or_default().split_whitespace();
        self.gid == gid || others.any(|group| group.parse() == Ok(gid))
    }
}

/// Refuses names outside of the namespaces that Linux knows, as other file systems do.
fn check_name(name: &[u8]) -> VfsResult<()> {
    let what = || String::from_utf8_lossy(name).into_owned();
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if spaces.contains(&name) {
        return Err(VfsError::Invalid { what: what(), why: "a name has to follow" });
    }
    let known = spaces.iter().any(|space| name.starts_with(space));
    if known || name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(());
    }
    Err(VfsError::Unsupported { what: what() })
}

/// The risk attributes that a new file or folder below `dir` starts with.
pub(super) fn inherited_risk(dir: &Inode) -> Vec<(Vec<u8>, Vec<u8>)> {
    let set = |name: &[u8]| dir.xattr(name).map(|value| (name.to_vec(), value.clone()));
    RISK.into_iter().filter_map(set).collect()
}
