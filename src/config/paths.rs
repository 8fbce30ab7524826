//! Where things are by default, and what a mount point may be.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest;

use super::ConfigError;

/// Hex digits of a vault's id in default folder names.
const ID_DIGITS: usize = 12;

/// A base folder of the XDG specification: `$variable` if it is absolute, else
/// `$HOME/fallback`.
pub(super) fn xdg(
    env: &dyn Fn(&str) -> Option<OsString>,
    variable: &'static str,
    fallback: &str,
) -> Result<PathBuf, ConfigError> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(fallback)))
        .ok_or(ConfigError::NoHome { variable })
}

/// A short id of whatever distinguishes one vault on this machine from another.
pub(super) fn vault_id(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        // the length first: two lists of parts never run together
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    HEXLOWER.encode(context.finish().as_ref())[..ID_DIGITS].to_owned()
}

/// Absolute, and canonical as far as it exists: the same folder gives the same path
/// before and after it is made.
pub(super) fn settled(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut base = path.as_path();
    loop {
        match base.canonicalize() {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (base.parent(), base.file_name()) else {
                    return Err(error);
                };
                missing.push(name.to_owned());
                base = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The mount point, canonical; it must be a folder, and not a mount whose process died.
pub fn mount_point(path: &Path) -> Result<PathBuf, ConfigError> {
    let wrong = |source: io::Error| {
        let path = path.to_owned();
        if source.raw_os_error() == Some(libc::ENOTCONN) {
            ConfigError::StaleMount { path }
        } else {
            ConfigError::MountPoint { path, source }
        }
    };
    let found = path.canonicalize().map_err(wrong)?;
    if !std::fs::metadata(&found).map_err(wrong)?.is_dir() {
        return Err(wrong(io::ErrorKind::NotADirectory.into()));
    }
    // attributes of a dead mount may still be cached; opening it asks its process
    match std::fs::read_dir(&found) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Err(wrong(error)),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_folders_must_be_absolute() {
        let env = |name: &str| match name {
            "XDG_STATE_HOME" => Some("relative".into()),
            "HOME" => Some("/users/me".into()),
            _ => None,
        };
        let dir = xdg(&env, "XDG_STATE_HOME", ".local/state").unwrap();
        assert_eq!(dir, Path::new("/users/me/.local/state"));
        assert!(xdg(&|_| None, "XDG_STATE_HOME", ".local/state").is_err());
    }

    #[test]
    fn ids_tell_vaults_apart() {
        assert_ne!(vault_id(&[b"ab", b"c"]), vault_id(&[b"a", b"bc"]));
        assert_eq!(vault_id(&[b"a"]), vault_id(&[b"a"]));
        assert_eq!(vault_id(&[b"a"]).len(), ID_DIGITS);
    }

    #[test]
    fn a_folder_has_the_same_path_before_and_after_it_is_made() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        let wanted = link.join("a").join("b");
        let before = settled(&wanted).unwrap();
        std::fs::create_dir_all(&wanted).unwrap();
        assert_eq!(before, settled(&wanted).unwrap());
    }

    #[test]
    fn a_file_is_no_mount_point() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(mount_point(file.path()), Err(ConfigError::MountPoint { .. })));
        let missing = file.path().join("missing");
        assert!(matches!(mount_point(&missing), Err(ConfigError::MountPoint { .. })));
    }
}
