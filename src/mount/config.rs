//! What a mount needs to know: validated, absolute, nothing optional that has a default.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::privicore::{PasswordSource, Secret};
use crate::telemetry::LogLevel;
use crate::vfs::{Durability, Shown};

/// Where the vault is.
#[derive(Clone, Debug)]
pub enum Backend {
    /// An engine inside this process; login, key and the engine's own folder are in `dir`.
    Embedded {
        /// Absolute.
        dir: PathBuf,
    },
    /// A service somewhere.
    Service(Box<Service>),
}

/// A service and the profile there. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Service {
    /// API.
    pub api_url: Url,
    /// WebSocket.
    pub ws_url: Url,
    /// Upstream server, for services that do not name theirs.
    pub upstream_url: Option<Url>,
    /// Downstream server, likewise.
    pub downstream_url: Option<Url>,
    /// Profile.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Where the password was read, and can be read again.
    pub password_source: Option<PasswordSource>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The vault's key.
    pub key_file: PathBuf,
}

/// Sizes and policies of the operations layer, as `vfs` takes them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Most bytes of the cache.
    pub cache_limit: u64,
    /// Free bytes it leaves on its disk.
    pub cache_floor: u64,
    /// Most bytes of staged data.
    pub staging_limit: u64,
    /// Bytes of buffers.
    pub memory: u64,
    /// Larger files are split; `None`: never.
    pub split_above: Option<u64>,
    /// Bytes of a part.
    pub part_size: u64,
    /// What `fsync` and `close` wait for.
    pub durability: Durability,
    /// Days that deleted content is kept; 0: none.
    pub trash_days: Option<u32>,
    /// What people know this machine by; `None`: its host name.
    pub machine_name: Option<String>,
    /// Begin a catalog though the vault holds what a drive of this key has stored.
    pub new_catalog: bool,
    /// Patterns of names never uploaded.
    pub local_names: Vec<String>,
    /// Uploads at once.
    pub parallel: usize,
    /// Longest wait of one operation for the network.
    pub deadline: Duration,
    /// Longest wait of one operation for a vote.
    pub approval_timeout: Duration,
    /// Between looks for other clients' changes; zero: only on hints.
    pub poll_interval: Duration,
    /// Owners and modes to show instead of those that are kept.
    pub shown: Shown,
}

/// Everything about one mount.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// Where; canonical.
    pub mount_point: PathBuf,
    /// The vault.
    pub backend: Backend,
    /// Journal, staging, catalog, log; absolute.
    pub state_dir: PathBuf,
    /// Clean data; absolute.
    pub cache_dir: PathBuf,
    /// For the operations layer.
    pub tuning: Tuning,
    /// Whether other users may enter.
    pub allow_other: bool,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Whether a folder that is made at the top becomes a directory at the service.
    pub register_directories: bool,
    /// How long a signal or an unmount by others may wait for uploads.
    pub drain_timeout: Duration,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Folder of the control socket, checked to be private.
    pub control_dir: PathBuf,
}
