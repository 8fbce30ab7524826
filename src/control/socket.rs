//! Where control sockets live, and under which name.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest;

/// Hex digits of a mount point's hash in a socket's name: short enough for the 108 bytes
/// of a socket address below any runtime folder, long enough not to collide.
const NAME_DIGITS: usize = 16;

/// The effective user of this process.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Folders that may hold this user's sockets, the one for new sockets first. `env` reads
/// an environment variable. A client looks in all: a mount may have been made by a login
/// that had a runtime folder, and asked about by one that has none.
pub fn socket_dirs(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let uid = own_uid();
    let chosen = env("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let mut dirs: Vec<_> =
        chosen.into_iter().chain([usual]).map(|dir| dir.join("privicorefs")).collect();
    dirs.push(PathBuf::from(format!("/tmp/privicorefs-{uid}")));
    dirs.dedup();
    dirs
}

/// The folder for a new socket, made if it is missing: the first of [`socket_dirs`] whose
/// parent exists. Fails if someone else owns it or may enter it.
pub fn socket_dir(env: &dyn Fn(&str) -> Option<OsString>) -> io::Result<PathBuf> {
    let dirs = socket_dirs(env);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for dir in dirs {
        match private_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) => {
                last = io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
            }
        }
    }
    Err(last)
}

/// Makes `dir` (0700), or checks that it is a folder of ours that nobody else may enter.
fn private_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // not through a symlink, which another user could have planted in /tmp
    let found = fs::symlink_metadata(dir)?;
    if found.is_dir() && found.uid() == own_uid() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a private folder of this user"))
}

/// The socket's file name for a mount point, which must be canonical.
pub fn socket_name(mount_point: &Path) -> String {
    let hash = digest::digest(&digest::SHA256, mount_point.as_os_str().as_bytes());
    format!("{}.sock", &HEXLOWER.encode(hash.as_ref())[..NAME_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_folder_comes_first_and_must_be_absolute() {
        let with = socket_dirs(&|_| Some("/run/me".into()));
        assert_eq!(with[0], Path::new("/run/me/privicorefs"));
        let without = socket_dirs(&|_| Some("relative".into()));
        assert!(without[0].starts_with("/run/user"));
        assert!(with.last().unwrap().starts_with("/tmp"));
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("privicorefs");
        private_dir(&dir).unwrap();
        private_dir(&dir).unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(private_dir(&dir).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_planted_symlink_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("privicorefs"));
        private_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(private_dir(&link).is_err());
    }

    #[test]
    fn names_differ_by_mount_point_and_are_short() {
        let (a, b) = (socket_name(Path::new("/mnt/a")), socket_name(Path::new("/mnt/b")));
        assert_ne!(a, b);
        assert_eq!(a.len(), NAME_DIGITS + ".sock".len());
    }
}
