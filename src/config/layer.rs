//! One layer of options: the flags, the environment, or the file. All have the same
//! names and the same parsers; a layer says nothing about what it does not set.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use serde::Deserialize;

use super::mode::Mode;
use super::size::{Size, SplitAbove};
use crate::protocol::directory::DirectoryTable;
use crate::telemetry::LogLevel;

/// What `fsync` and `close` wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityName {
    /// `close` means safe on this machine, `fsync` safe in the vault.
    Fsync,
    /// `close` waits for the vault too.
    Close,
    /// `fsync` waits for the local disk only (databases, build trees).
    Local,
}

/// Where `account login` keeps a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStore {
    /// In the desktop's keyring if one answers, else in a file.
    #[default]
    Auto,
    /// In the desktop's keyring, or not at all.
    Keyring,
    /// In a private file.
    File,
}

/// Options of `mount` that may come from flags, environment and file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// Run an engine inside the mount; its vault, login and key are in DIR
    ///
    /// The first use makes the profile, its password (DIR/login.json) and the key
    /// (DIR/key). Whoever has that folder has the data.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Vault")]
    pub embedded: Option<PathBuf>,
    /// The service's API [env: PRIVICORE_API_URL]
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    pub api_url: Option<String>,
    /// The service's WebSocket [env: PRIVICORE_WS_URL]
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    pub ws_url: Option<String>,
    /// The upstream server, where the service does not name it itself
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    pub upstream_url: Option<String>,
    /// The downstream server, where the service does not name it itself
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    pub downstream_url: Option<String>,
    /// The profile's name [env: PRIVICORE_USERNAME]
    #[arg(long, value_name = "NAME", help_heading = "Vault")]
    pub username: Option<String>,
    /// File with the password, mode 0600 [env: PRIVICORE_PASSWORD holds it directly]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    pub password_file: Option<PathBuf>,
    /// Command whose first line of output is the password, run by `sh -c`
    ///
    /// A mount in the background runs it twice: once to check, once to serve.
    #[arg(long, value_name = "COMMAND", help_heading = "Vault", conflicts_with = "password_file")]
    pub password_command: Option<String>,
    /// File with the key, mode 0600 [env: PRIVICOREFS_KEY_FILE]
    ///
    /// 64 hexadecimal digits or 32 raw bytes; `privicorefs key generate` makes one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    pub ca_file: Option<PathBuf>,

    /// Journal, staging and catalog [default: $XDG_STATE_HOME/privicorefs/ID]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Local disk")]
    pub state_dir: Option<PathBuf>,
    /// Clean data only; may be deleted [default: $XDG_CACHE_HOME/privicorefs/ID]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Local disk")]
    pub cache_dir: Option<PathBuf>,
    /// Most that the cache may take [default: 10GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub cache_size: Option<Size>,
    /// Free space that the cache leaves on its disk [default: 1GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub cache_free_floor: Option<Size>,
    /// Most that written data not yet in the vault may take [default: 64GiB]
    ///
    /// Past it, writers get "no space left on device".
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub staging_limit: Option<Size>,
    /// Memory for buffers [default: 96MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub memory: Option<Size>,

    /// Split larger files into parts, or `never` [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Behaviour")]
    pub split_above: Option<SplitAbove>,
    /// Size of a part [default: 16MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Behaviour")]
    pub part_size: Option<Size>,
    /// What close and fsync wait for [default: fsync]
    #[arg(long, value_name = "WHEN", help_heading = "Behaviour")]
    pub durability: Option<DurabilityName>,
    /// Keep deleted and overwritten content for so many days of the vault's calendar
    ///
    /// This is a setting of the vault: it holds for every machine, until one sets another.
    /// [default: the vault's setting, at first 7]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=36_500),
          help_heading = "Behaviour")]
    pub trash_days: Option<u32>,
    /// Names that are kept on this machine and never uploaded; repeat for more
    ///
    /// A name, or a pattern with `*`. Replaces the built-in list (editor swap files,
    /// .DS_Store, ._* and the like).
    #[arg(long = "local-name", value_name = "PATTERN", help_heading = "Behaviour")]
    pub local_names: Option<Vec<String>>,
    /// Uploads at once [default: 16]
    #[arg(long, value_name = "N", help_heading = "Behaviour")]
    pub parallel: Option<usize>,
    /// Look for other clients' changes this often; 0: at mount and on hints [default: 60]
    #[arg(long, value_name = "SECS", help_heading = "Behaviour")]
    pub poll_interval: Option<u64>,
    /// How long one operation may wait for the network [default: 30]
    #[arg(long, value_name = "SECS", help_heading = "Behaviour")]
    pub deadline: Option<u64>,
    /// How long a read, or an fsync, waits for a vote before it is refused [default: 60]
    #[arg(long, value_name = "SECS", help_heading = "Behaviour")]
    pub approval_timeout: Option<u64>,
    /// How long a signal or fusermount3 -u may wait for uploads [default: 60]
    #[arg(long, value_name = "SECS", help_heading = "Behaviour")]
    pub drain_timeout: Option<u64>,
    /// Register a folder that is made at the top as a directory at the service
    ///
    /// Directories that the profile owns or is assigned to are folders at the top in any
    /// case. Without this, `mkdir` there makes an ordinary folder.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Behaviour")]
    pub register_directories: Option<bool>,
    /// What people know this machine by, in the names of conflict copies [default: its host name]
    #[arg(long, value_name = "NAME", help_heading = "Behaviour")]
    pub machine_name: Option<String>,

    /// Begin a new catalog in a vault that holds what a drive of this key has stored and shows no
    /// catalog that this key opens
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Behaviour")]
    pub new_catalog: Option<bool>,

    /// Let other users in (subject to modes and owners)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Mount")]
    pub allow_other: Option<bool>,
    /// Refuse every change
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Mount")]
    pub read_only: Option<bool>,
    /// Show every file as this user's, by number
    ///
    /// For people who want one owner for all. What chown, chmod and rsync set is kept in the
    /// vault, and shown by mounts without these options.
    #[arg(long, value_name = "UID", help_heading = "Mount")]
    pub uid: Option<u32>,
    /// Show every file as this group's, by number
    #[arg(long, value_name = "GID", help_heading = "Mount")]
    pub gid: Option<u32>,
    /// Permission bits not to show, in octal
    #[arg(long, value_name = "MODE", help_heading = "Mount")]
    pub umask: Option<Mode>,
    /// Show every file (but no folder) with these permission bits, in octal
    #[arg(long, value_name = "MODE", help_heading = "Mount")]
    pub file_mode: Option<Mode>,
    /// Show every folder with these permission bits, in octal
    #[arg(long, value_name = "MODE", help_heading = "Mount")]
    pub dir_mode: Option<Mode>,
    /// How much is logged [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Mount")]
    pub log_level: Option<LogLevel>,

    /// Where `account login` keeps a session; in the file only.
    #[arg(skip)]
    pub session_store: Option<SessionStore>,
    /// Methods, paths and fields of the directory calls; in the file only.
    #[arg(skip)]
    pub directory: Option<DirectoryTable>,
}

/// `$set` from the first layer that has it.
macro_rules! prefer {
    ($first:ident, $second:ident; $($set:ident),* $(,)?) => {
        Layer { $($set: $first.$set.or($second.$set)),* }
    };
}

impl Layer {
    /// What the environment says; empty values count as unset. `env` reads a variable.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name| path(name).and_then(|value| value.into_os_string().into_string().ok());
        Self {
            api_url: text("PRIVICORE_API_URL"),
            ws_url: text("PRIVICORE_WS_URL"),
            username: text("PRIVICORE_USERNAME"),
            key_file: path("PRIVICOREFS_KEY_FILE"),
            ..Self::default()
        }
    }

    /// What a TOML file says. Its relative paths are relative to `folder`, the file's own.
    pub fn from_toml(text: &str, folder: &Path) -> Result<Self, toml::de::Error> {
        let mut layer: Self = toml::from_str(text)?;
        let paths = [
            &mut layer.embedded,
            &mut layer.password_file,
            &mut layer.key_file,
            &mut layer.ca_file,
            &mut layer.state_dir,
            &mut layer.cache_dir,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(layer)
    }

    /// This layer, and `below` for what it does not set.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        prefer!(self, below;
            embedded, api_url, ws_url, upstream_url, downstream_url, username, password_file,
            password_command, key_file, ca_file, state_dir, cache_dir, cache_size, cache_free_floor,
            staging_limit, memory, split_above, part_size, durability, trash_days, local_names,
            parallel, poll_interval, deadline, approval_timeout, drain_timeout, register_directories,
            machine_name, new_catalog,
            allow_other, read_only, uid, gid, umask, file_mode, dir_mode, log_level, session_store, directory,
        )
    }
}
