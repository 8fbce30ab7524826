//! Extended attributes by path, without following symbolic links.

use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};

/// The largest value that Linux allows.
const LARGEST: usize = 65_536;

pub(crate) fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; LARGEST];
    let length = lgetxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// An attribute that must be there, as text.
#[track_caller]
pub(crate) fn text(path: &Path, name: &str) -> String {
    let value = get(path, name).unwrap_or_else(|error| panic!("{name} of {path:?}: {error}"));
    String::from_utf8(value).unwrap()
}

pub(crate) fn set(path: &Path, name: &str, value: &[u8], flags: XattrFlags) -> io::Result<()> {
    Ok(lsetxattr(path, name, value, flags)?)
}

pub(crate) fn remove(path: &Path, name: &str) -> io::Result<()> {
    Ok(lremovexattr(path, name)?)
}

/// Attributes, sorted: the drive's `user.privicore.*` are left out, and what a security
/// module of the machine adds by itself.
pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut list = vec![0; LARGEST];
    let length = llistxattr(path, &mut list[..])?;
    let mut found: Vec<_> = list[..length]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !name.is_empty() && name != "security.selinux")
        .filter(|name| !name.starts_with("user.privicore."))
        .collect();
    found.sort();
    Ok(found)
}
