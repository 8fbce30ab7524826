//! What the commands that talk to the service without a drive need to know. The options are
//! those of `mount`; what is missing may be known from a kept session, so that little is
//! required here.

use std::path::{Path, PathBuf};

use url::Url;

use super::{ConfigError, Environment, Gathered, Layer, STREAM_SCHEMES, SessionStore};
use super::{gather, paths, settled, url};
use crate::privicore::Secret;
use crate::protocol::directory::DirectoryTable;
use crate::telemetry::LogLevel;

/// Where the vault is.
#[derive(Clone, Debug)]
pub enum Place {
    /// An embedded one, which knows its login and key.
    Embedded {
        /// Absolute.
        dir: PathBuf,
    },
    /// A service somewhere.
    Service(Box<Endpoint>),
}

/// What is said of a service and of the profile there. `Debug` shows no password.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// API.
    pub api_url: Option<Url>,
    /// WebSocket.
    pub ws_url: Option<Url>,
    /// Upstream server, for services that do not name theirs.
    pub upstream_url: Option<Url>,
    /// Downstream server, likewise.
    pub downstream_url: Option<Url>,
    /// Profile.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Methods, paths and fields of its directory calls.
    pub directory: DirectoryTable,
}

/// Everything about one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The vault.
    pub place: Place,
    /// The vault's key, if it is given.
    pub key_file: Option<PathBuf>,
    /// Folder of the kept sessions.
    pub sessions: PathBuf,
    /// Where new ones are kept.
    pub session_store: SessionStore,
    /// How much is logged: warnings, if nothing else is said.
    pub log_level: LogLevel,
}

/// Resolves the options of a command. `file` is `--config`; without it the default file is
/// read if there is one.
pub fn connection(
    flags: Layer,
    file: Option<&Path>,
    env: Environment<'_>,
) -> Result<Connection, ConfigError> {
    let log_level = flags.log_level.unwrap_or(LogLevel::Warn);
    let Gathered { layer, embedded, password } = gather(flags, file, env)?;
    let path =
        |what, path: &Option<PathBuf>| path.as_deref().map(|path| settled(what, path)).transpose();
    let place = match embedded {
        Some(dir) => Place::Embedded { dir: settled("--embedded", &dir)? },
        None => Place::Service(Box::new(Endpoint {
            api_url: url("--api-url", &["http", "https"], layer.api_url.as_deref())?,
            ws_url: url("--ws-url", &["ws", "wss"], layer.ws_url.as_deref())?,
            upstream_url: url("--upstream-url", STREAM_SCHEMES, layer.upstream_url.as_deref())?,
            downstream_url: url(
                "--downstream-url",
                STREAM_SCHEMES,
                layer.downstream_url.as_deref(),
            )?,
            username: layer.username.clone(),
            password: password.map(|password| password.secret),
            ca_file: path("--ca-file", &layer.ca_file)?,
            directory: layer.directory.clone().unwrap_or_default(),
        })),
    };
    let state = paths::xdg(env, "XDG_STATE_HOME", ".local/state")?;
    Ok(Connection {
        place,
        key_file: path("--key-file", &layer.key_file)?,
        sessions: state.join("privicorefs").join("sessions"),
        session_store: layer.session_store.unwrap_or_default(),
        log_level,
    })
}

/// What tells the kept session of one profile from others on this machine.
pub fn session_name(api_url: &Url, username: &str) -> String {
    paths::vault_id(&[api_url.as_str().as_bytes(), username.as_bytes()])
}
