//! From what was typed, exported and written down to a [`MountConfig`]: flags over
//! environment over file over defaults, checked and absolute.
//!
//! The environment is read through a function that is passed in, so tests need not touch
//! the process's own. Secrets come from the environment or from files that only their
//! owner may read, never from flags, and end in types whose `Debug` hides them.

mod connection;
mod layer;
mod mode;
mod paths;
mod secret_file;
mod size;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use connection::{Connection, Endpoint, Place, connection, session_name};
pub use layer::{DurabilityName, Layer, SessionStore};
pub use mode::Mode;
pub use paths::mount_point;
pub use size::{Size, SplitAbove};

use crate::control;
use crate::crypto::{KeyError, MasterKey};
use crate::mount::{Backend, MountConfig, Service, Tuning};
use crate::privicore::{PasswordSource, Secret};
use crate::vfs::{DEFAULT_LOCAL_NAMES, Durability, Shown};

/// Reads an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Why no configuration came of it. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file given, or found, cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {message}", path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// An option has to be given.
    #[error("{what} is missing: {hint}")]
    Missing {
        /// The option.
        what: &'static str,
        /// How to give it.
        hint: &'static str,
    },
    /// Two options exclude each other.
    #[error("--embedded needs no service: leave out {what}")]
    Conflict {
        /// The other.
        what: &'static str,
    },
    /// A value that cannot be.
    #[error("{what}: {why}")]
    Invalid {
        /// The option.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A secret that others can read.
    #[error("{} has mode {mode:04o}, open to others: run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Neither the variable nor HOME is set.
    #[error("neither ${variable} nor $HOME is set: give --state-dir and --cache-dir")]
    NoHome {
        /// The variable.
        variable: &'static str,
    },
    /// The mount point cannot be one.
    #[error("mount point {}: {source}", path.display())]
    MountPoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount whose process is gone.
    #[error(
        "{0} is the mount of a process that died: free it with `fusermount3 -uz {0}`, then try again",
        path.display()
    )]
    StaleMount {
        /// Where.
        path: PathBuf,
    },
    /// No safe place for the control socket.
    #[error("no private folder for the control socket: {0}")]
    ControlDir(io::Error),
}

/// Resolves the options of `mount`. `file` is `--config`; without it the default file is
/// read if there is one.
pub fn resolve(
    mount_point: &Path,
    flags: Layer,
    file: Option<&Path>,
    env: Environment<'_>,
) -> Result<MountConfig, ConfigError> {
    let Gathered { layer, embedded, password } = gather(flags, file, env)?;
    let backend = match embedded {
        Some(dir) => Backend::Embedded { dir: settled("--embedded", &dir)? },
        None => Backend::Service(Box::new(service(&layer, password)?)),
    };
    let id = id(&backend)?;
    let base = |variable, fallback| -> Result<PathBuf, ConfigError> {
        Ok(paths::xdg(env, variable, fallback)?.join("privicorefs").join(&id))
    };
    let state_dir = match &layer.state_dir {
        Some(dir) => settled("--state-dir", dir)?,
        None => base("XDG_STATE_HOME", ".local/state")?,
    };
    let cache_dir = match &layer.cache_dir {
        Some(dir) => settled("--cache-dir", dir)?,
        None => base("XDG_CACHE_HOME", ".cache")?,
    };
    let mount_point = paths::mount_point(mount_point)?;
    check_folders(&mount_point, &state_dir, &cache_dir, &backend)?;
    Ok(MountConfig {
        mount_point,
        backend,
        state_dir,
        cache_dir,
        tuning: tuning(&layer)?,
        allow_other: layer.allow_other.unwrap_or(false),
        read_only: layer.read_only.unwrap_or(false),
        register_directories: layer.register_directories.unwrap_or(false),
        drain_timeout: Duration::from_secs(layer.drain_timeout.unwrap_or(60)),
        log_level: layer.log_level.unwrap_or_default(),
        control_dir: control::socket_dir(env).map_err(ConfigError::ControlDir)?,
    })
}

/// The options of all layers, and of the vault what depends on who says it.
struct Gathered {
    layer: Layer,
    embedded: Option<PathBuf>,
    /// `None` also for an embedded vault, which knows its own.
    password: Option<Password>,
}

/// A password, and where it can be read again.
struct Password {
    secret: Secret,
    source: Option<PasswordSource>,
}

/// Puts flags over the environment over the file.
fn gather(
    flags: Layer,
    file: Option<&Path>,
    env: Environment<'_>,
) -> Result<Gathered, ConfigError> {
    let file = read_file(file, env)?;
    let exported = Layer::from_env(env);
    let embedded = embedded([&flags, &exported, &file])?;
    let password = match embedded {
        Some(_) => None,
        None => password(&flags, &file, env)?,
    };
    Ok(Gathered { layer: flags.over(exported).over(file), embedded, password })
}

/// The embedded engine's folder, if the first layer that names a vault at all names that:
/// `--api-url` goes over an `embedded` in the file, and `--embedded` over an exported URL.
fn embedded(layers: [&Layer; 3]) -> Result<Option<PathBuf>, ConfigError> {
    for layer in layers {
        match (&layer.embedded, layer.api_url.is_some() || layer.ws_url.is_some()) {
            (Some(_), true) => return Err(ConfigError::Conflict { what: "the URLs" }),
            (Some(dir), false) => return Ok(Some(dir.clone())),
            (None, true) => return Ok(None),
            (None, false) => {}
        }
    }
    Ok(None)
}

/// Folders that would bite each other.
fn check_folders(
    mount_point: &Path,
    state_dir: &Path,
    cache_dir: &Path,
    backend: &Backend,
) -> Result<(), ConfigError> {
    let wrong = |what, why: &str| Err(ConfigError::Invalid { what, why: why.to_owned() });
    if state_dir.starts_with(cache_dir) {
        return wrong("--state-dir", "is in the cache folder, which may be deleted at any time");
    }
    let below = "is below the mount point: the drive would wait for itself";
    if state_dir.starts_with(mount_point) {
        return wrong("--state-dir", below);
    }
    if cache_dir.starts_with(mount_point) {
        return wrong("--cache-dir", below);
    }
    match backend {
        Backend::Embedded { dir } if dir.starts_with(mount_point) => wrong("--embedded", below),
        _ => Ok(()),
    }
}

/// The file's layer; the default file may be absent, a named one may not.
fn read_file(named: Option<&Path>, env: Environment<'_>) -> Result<Layer, ConfigError> {
    let (path, required) = match named {
        Some(path) => (path.to_owned(), true),
        None => match paths::xdg(env, "XDG_CONFIG_HOME", ".config") {
            Ok(base) => (base.join("privicorefs").join("config.toml"), false),
            Err(_) => return Ok(Layer::default()),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
            return Ok(Layer::default());
        }
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let absolute = std::path::absolute(&path)
        .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    Layer::from_toml(&text, folder).map_err(|error| {
        // the error's own text quotes the line, which may hold what should not be shown
        let at = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let message = match at {
            Some(line) => format!("line {line}: {}", error.message()),
            None => error.message().to_owned(),
        };
        ConfigError::Toml { path, message }
    })
}

/// The password: `--password-file` or `--password-command`, else `PRIVICORE_PASSWORD`, else
/// the file's `password_file` or `password_command`.
fn password(
    flags: &Layer,
    file: &Layer,
    env: Environment<'_>,
) -> Result<Option<Password>, ConfigError> {
    let of = |layer: &Layer| -> Result<Option<Password>, ConfigError> {
        let (file, command) = (layer.password_file.as_deref(), layer.password_command.as_deref());
        let found = secret(file, command)?;
        Ok(found.map(|secret| Password { secret, source: source(file, command) }))
    };
    if let Some(password) = of(flags)? {
        return Ok(Some(password));
    }
    let exported = env("PRIVICORE_PASSWORD").filter(|text| !text.is_empty());
    if let Some(text) = exported {
        let not_text =
            |_| ConfigError::Invalid { what: "PRIVICORE_PASSWORD", why: "is not UTF-8".to_owned() };
        let text = text.into_string().map_err(not_text)?;
        return Ok(Some(Password { secret: Secret::new(text), source: None }));
    }
    of(file)
}

/// Where a password can be read again: a file every other second if need be, and a command,
/// which may disturb a person, once a minute. What is no plain file is read once only.
fn source(file: Option<&Path>, command: Option<&str>) -> Option<PasswordSource> {
    let told = |found: Result<Secret, ConfigError>| {
        found.inspect_err(|error| tracing::warn!(%error, "the password cannot be read again")).ok()
    };
    match (file, command) {
        (Some(path), _) => {
            // The process that reads it again may stand elsewhere.
            let path = std::path::absolute(path).ok().filter(|path| path.is_file())?;
            let place = format!("the file {}", path.display());
            let read = move || told(secret_file::read(&path));
            Some(PasswordSource::new(place, Duration::from_secs(2), read))
        }
        (None, Some(command)) => {
            let command = command.to_owned();
            let read = move || told(secret_file::said_by(&command));
            let place = "what --password-command prints";
            Some(PasswordSource::new(place, Duration::from_secs(60), read))
        }
        (None, None) => None,
    }
}

/// A secret beside the password: from a file that is closed to others, or from a command.
pub fn secret(file: Option<&Path>, command: Option<&str>) -> Result<Option<Secret>, ConfigError> {
    match (file, command) {
        (Some(path), _) => secret_file::read(path).map(Some),
        (None, Some(command)) => secret_file::said_by(command).map(Some),
        (None, None) => Ok(None),
    }
}

fn service(layer: &Layer, password: Option<Password>) -> Result<Service, ConfigError> {
    let missing = |what, hint| ConfigError::Missing { what, hint };
    if layer.api_url.is_none() && layer.ws_url.is_none() {
        return Err(missing("the vault", "give --embedded DIR, or --api-url and its companions"));
    }
    let api_url = layer.api_url.as_deref();
    let ws_url = layer.ws_url.as_deref();
    let (secret, source) = password.map(|password| (password.secret, password.source)).unzip();
    Ok(Service {
        api_url: url("--api-url", &["http", "https"], api_url)?
            .ok_or_else(|| missing("the API's address", "--api-url or PRIVICORE_API_URL"))?,
        ws_url: url("--ws-url", &["ws", "wss"], ws_url)?
            .ok_or_else(|| missing("the WebSocket's address", "--ws-url or PRIVICORE_WS_URL"))?,
        upstream_url: url("--upstream-url", STREAM_SCHEMES, layer.upstream_url.as_deref())?,
        downstream_url: url("--downstream-url", STREAM_SCHEMES, layer.downstream_url.as_deref())?,
        username: layer
            .username
            .clone()
            .ok_or_else(|| missing("the profile's name", "--username or PRIVICORE_USERNAME"))?,
        password_source: source.flatten(),
        password: secret
            .ok_or_else(|| missing("the password", "--password-file or PRIVICORE_PASSWORD"))?,
        ca_file: layer.ca_file.as_deref().map(|path| settled("--ca-file", path)).transpose()?,
        key_file: layer
            .key_file
            .as_deref()
            .map(|path| settled("--key-file", path))
            .transpose()?
            .ok_or_else(|| missing("the key", "--key-file or PRIVICOREFS_KEY_FILE"))?,
    })
}

/// Streams may be HTTP or WebSocket (protocol B.7).
const STREAM_SCHEMES: &[&str] = &["http", "https", "ws", "wss"];

fn url(
    what: &'static str,
    schemes: &[&str],
    text: Option<&str>,
) -> Result<Option<Url>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |why: String| ConfigError::Invalid { what, why };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !schemes.contains(&url.scheme()) || url.host().is_none() {
        return Err(wrong(format!("must begin with {}://", schemes.join(":// or "))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a login".to_owned()));
    }
    Ok(Some(url))
}

/// What tells this vault from others on this machine. Reads the key, so a key that is
/// missing or open to others is refused here.
fn id(backend: &Backend) -> Result<String, ConfigError> {
    Ok(match backend {
        Backend::Embedded { dir } => paths::vault_id(&[dir.as_os_str().as_bytes()]),
        Backend::Service(service) => {
            let key = MasterKey::load(&service.key_file)?.key_id();
            let parts = [service.api_url.as_str(), &service.username, &key];
            paths::vault_id(&parts.map(str::as_bytes))
        }
    })
}

fn tuning(layer: &Layer) -> Result<Tuning, ConfigError> {
    let bytes = |size: Option<Size>, default| size.map_or(default, |size| size.0);
    let tuning = Tuning {
        cache_limit: bytes(layer.cache_size, 10 * GIB),
        cache_floor: bytes(layer.cache_free_floor, GIB),
        staging_limit: bytes(layer.staging_limit, 64 * GIB),
        memory: bytes(layer.memory, 96 * MIB),
        split_above: layer.split_above.map_or(Some(64 * MIB), |split| split.0),
        part_size: bytes(layer.part_size, 16 * MIB),
        durability: match layer.durability.unwrap_or(DurabilityName::Fsync) {
            DurabilityName::Fsync => Durability::Fsync,
            DurabilityName::Close => Durability::Close,
            DurabilityName::Local => Durability::Local,
        },
        trash_days: layer.trash_days,
        machine_name: layer.machine_name.clone(),
        new_catalog: layer.new_catalog.unwrap_or(false),
        local_names: layer
            .local_names
            .clone()
            .unwrap_or_else(|| DEFAULT_LOCAL_NAMES.iter().map(|&name| name.to_owned()).collect()),
        parallel: layer.parallel.unwrap_or(16),
        deadline: Duration::from_secs(layer.deadline.unwrap_or(30)),
        approval_timeout: Duration::from_secs(layer.approval_timeout.unwrap_or(60)),
        poll_interval: Duration::from_secs(layer.poll_interval.unwrap_or(60)),
        shown: Shown {
            uid: layer.uid,
            gid: layer.gid,
            umask: layer.umask.map_or(0, |mode| mode.0),
            file_mode: layer.file_mode.map(|mode| mode.0),
            dir_mode: layer.dir_mode.map(|mode| mode.0),
        },
    };
    check(&tuning)?;
    Ok(tuning)
}

/// Bounds beyond which nothing sensible can work.
fn check(tuning: &Tuning) -> Result<(), ConfigError> {
    let within = |what, value: u64, low: u64, high: u64| {
        if (low..=high).contains(&value) {
            return Ok(());
        }
        let why = format!("{} is not between {} and {}", Size(value), Size(low), Size(high));
        Err(ConfigError::Invalid { what, why })
    };
    within("--part-size", tuning.part_size, 4 * KIB, GIB)?;
    within("--memory", tuning.memory, 16 * MIB, 64 * GIB)?;
    within("--staging-limit", tuning.staging_limit, MIB, u64::MAX)?;
    if !(1..=256).contains(&tuning.parallel) {
        let why = "is not between 1 and 256".to_owned();
        return Err(ConfigError::Invalid { what: "--parallel", why });
    }
    if tuning.deadline.is_zero() {
        let why = "must be at least one second".to_owned();
        return Err(ConfigError::Invalid { what: "--deadline", why });
    }
    Ok(())
}

fn settled(what: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
    let wrong = |error| ConfigError::Invalid { what, why: format!("{}: {error}", path.display()) };
    paths::settled(path).map_err(wrong)
}
