//! Folders of a mount on the local disk: private, and used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MountError;

/// The folder in the state directory that the operations layer's database is in. If it
/// exists, this machine has mounted the vault before and can do so without the service.
const DATABASE: &str = "catalog";
/// Held while a process uses the state directory.
const LOCK: &str = "lock";
/// Log of a mount in the background.
const LOG: &str = "privicorefs.log";
/// Size past which the log is begun anew at the next mount; one older one is kept.
const LOG_LIMIT: u64 = 8 << 20;

/// Turns an I/O error into the mount's, for `path`.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> MountError + use<> {
    let path = path.to_owned();
    move |source| MountError::Local { path, source }
}

/// Makes `dir` and what is missing above it; what is made is 0700.
pub(super) fn private_dir(dir: &Path) -> Result<(), MountError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

/// Whether this machine knows the vault.
pub(super) fn knows_vault(state_dir: &Path) -> bool {
    state_dir.join(DATABASE).is_dir()
}

/// How often, and how often again, a lock that is held is asked for.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Holds a state directory for this process; the kernel lets go of it however it ends.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// As [`StateLock::take`], and waits a moment: a process that was killed lets go only when
    /// the last of its threads is gone.
    pub(super) async fn wait(state_dir: &Path) -> Result<Self, MountError> {
        for _ in 0..LOCK_TRIES {
            match Self::take(state_dir) {
                Err(MountError::StateInUse(_)) => tokio::time::sleep(LOCK_PAUSE).await,
                taken => return taken,
            }
        }
        Self::take(state_dir)
    }

    pub(super) fn take(state_dir: &Path) -> Result<Self, MountError> {
        let path = state_dir.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(MountError::StateInUse(state_dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }
}

/// Opens the log for appending, 0600. An overlong one is set aside first.
pub(super) fn open_log(state_dir: &Path) -> Result<(File, PathBuf), MountError> {
    private_dir(state_dir)?;
    let path = state_dir.join(LOG);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(&path, path.with_extension("log.old")).map_err(at(&path))?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    Ok((file.map_err(at(&path))?, path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_state_directory_serves_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateLock::take(dir.path()).unwrap();
        assert!(matches!(StateLock::take(dir.path()), Err(MountError::StateInUse(_))));
        drop(held);
        StateLock::take(dir.path()).unwrap();
    }

    #[test]
    fn the_log_is_private_and_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made").join("state");
        let (log, path) = open_log(&state).unwrap();
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        log.set_len(LOG_LIMIT + 1).unwrap();
        let (log, _) = open_log(&state).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
        assert!(path.with_extension("log.old").exists());
    }
}
