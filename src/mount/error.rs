//! Why a mount did not come about, or ended badly.

use std::io;
use std::path::PathBuf;

use crate::control::Progress;
use crate::crypto::KeyError;
use crate::engine::EngineError;
use crate::store::{StoreError, StoreErrorKind};
use crate::vfs::VfsError;

/// Why there is no mount. Holds no secret; `Display` is for a person.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Reading or making a file or folder of ours.
    #[error("{}: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another mount has this state directory.
    #[error("{}: in use by another mount", .0.display())]
    StateInUse(PathBuf),
    /// The mount point already has a mount of ours.
    #[error("{}: mounted already", .0.display())]
    MountedAlready(PathBuf),
    /// A login without its key: content would be unreadable under a new one.
    #[error("{}: missing, while {} exists: put the key back", key.display(), login.display())]
    KeyLost {
        /// The key file.
        key: PathBuf,
        /// The login file.
        login: PathBuf,
    },
    /// `login.json` is not what this program wrote.
    #[error("{}: not a login file: {why}", path.display())]
    BadLogin {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The embedded engine did not start.
    #[error("the embedded engine: {0}")]
    Engine(#[from] EngineError),
    /// The service was not reached, and this machine knows nothing of the vault yet.
    #[error("{}: {}", first_contact(.0), .0)]
    Connect(StoreError),
    /// The operations layer did not start.
    #[error("{0}")]
    Open(#[from] VfsError),
    /// The kernel or `fusermount3` refused.
    #[error("cannot mount {}: {source}{}", path.display(), mount_hint(source))]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount does not answer.
    #[error("{}: mounted, but does not answer: {source}", path.display())]
    Probe {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control socket could not be made.
    #[error("control socket: {0}")]
    Control(io::Error),
    /// The process in the background could not be started, or ended without a word.
    #[error("{0}")]
    Daemon(String),
    /// Threads or signals.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// How the mount ended, and what did not reach the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Kept in the state directory for the next mount.
    pub left: Progress,
}

fn first_contact(error: &StoreError) -> &'static str {
    match error.kind {
        StoreErrorKind::Unauthenticated => "the service refuses the login",
        StoreErrorKind::Unavailable | StoreErrorKind::TimedOut => {
            "the service cannot be reached, and this machine has not mounted the vault before"
        }
        _ => "the service cannot be used",
    }
}

fn mount_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is the `fuse` kernel module loaded, and is fuse3 installed?)",
        io::ErrorKind::PermissionDenied => {
            " (may this user open /dev/fuse? --allow-other needs `user_allow_other` in /etc/fuse.conf)"
        }
        _ => "",
    }
}
