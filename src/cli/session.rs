//! What every command group that talks to the service begins with: connection options, and
//! a client that is logged in.
//!
//! A group is one file: its grammar (clap types with a `connect: Connect`), and a `run` that
//! calls [`with`] and does its work on [`Session::client`]. To add one: a line in
//! `args::Command`, one in `cli::run`.
//!
//! Which login counts: a password that is given (flag, environment, file); else the kept
//! session of `account login`. The embedded vault logs in by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use clap::{Args, ValueHint};
use url::Url;

use super::kept::Kept;
use super::output::Output;
use super::{Exit, environment};
use crate::config::{self, ConfigError, Connection, Endpoint, Layer, Place};
use crate::crypto::{CatalogKeys, MasterKey, PayloadCipher};
use crate::engine::EngineError;
use crate::env::Env;
use crate::mount::{EmbeddedVault, MountError};
use crate::privicore::{Authorization, Client, ClientConfig, Secret};
use crate::store::{Retry, RetryConfig, Store, StoreError, StoreErrorKind};
use crate::telemetry::{self, LogLevel, LogTo};

/// Connection options: those of `mount`, word for word (a test compares them).
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Connect {
    /// Run the engine of the vault in DIR for this command; not while it is mounted
    ///
    /// The vault knows its own login and key.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Vault")]
    embedded: Option<PathBuf>,
    /// The service's API [env: PRIVICORE_API_URL]
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    api_url: Option<String>,
    /// The service's WebSocket [env: PRIVICORE_WS_URL]
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    ws_url: Option<String>,
    /// The upstream server, where the service does not name it itself
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    upstream_url: Option<String>,
    /// The downstream server, where the service does not name it itself
    #[arg(long, value_name = "URL", help_heading = "Vault")]
    downstream_url: Option<String>,
    /// The profile's name [env: PRIVICORE_USERNAME]
    #[arg(long, value_name = "NAME", help_heading = "Vault")]
    username: Option<String>,
    /// File with the password, mode 0600 [env: PRIVICORE_PASSWORD holds it directly]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    password_file: Option<PathBuf>,
    /// Command whose first line of output is the password, run by `sh -c`
    #[arg(long, value_name = "COMMAND", help_heading = "Vault", conflicts_with = "password_file")]
    password_command: Option<String>,
    /// File with the key, mode 0600 [env: PRIVICOREFS_KEY_FILE]
    ///
    /// 64 hexadecimal digits or 32 raw bytes; `privicorefs key generate` makes one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    ca_file: Option<PathBuf>,
    /// TOML file with options [default: $XDG_CONFIG_HOME/privicorefs/config.toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Vault")]
    config: Option<PathBuf>,
    /// How much is logged [default: warn]
    #[arg(long, value_name = "LEVEL", help_heading = "Vault")]
    log_level: Option<LogLevel>,
}

/// What a command takes beside its own arguments.
#[derive(Args, Debug)]
pub(super) struct Plain {
    #[command(flatten)]
    pub(super) connect: Connect,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Why there is no session, or not any more. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Neither a password nor a kept session.
    #[error("not logged in: run `privicorefs account login`, or give the password")]
    None,
    /// Several kept sessions agree with what was said.
    #[error("several sessions are kept: choose one by --api-url and --username")]
    Several,
    /// The kept session's time is over.
    #[error("the kept session has expired: run `privicorefs account login`")]
    Expired,
    /// The service refused the kept session.
    #[error("the service refuses the kept session: run `privicorefs account login`")]
    Refused,
    /// A command about logins, for a vault that has its own.
    #[error("an embedded vault logs in by itself: DIR/login.json holds its login")]
    Embedded,
    /// The embedded vault is in use.
    #[error("the vault in {} is in use by a mount or an engine: unmount it first", .0.display())]
    InUse(PathBuf),
}

impl Connect {
    /// Reads flags, environment and file, and starts logging.
    pub(super) fn resolve(&self) -> Result<Connection, ConfigError> {
        let Self { embedded, api_url, ws_url, upstream_url, downstream_url, .. } = self.clone();
        let Self { username, password_file, password_command, .. } = self.clone();
        let Self { key_file, ca_file, config, log_level, .. } = self.clone();
        let flags = Layer {
            embedded,
            api_url,
            ws_url,
            upstream_url,
            downstream_url,
            username,
            password_file,
            password_command,
            key_file,
            ca_file,
            log_level,
            ..Layer::default()
        };
        let connection = config::connection(flags, config.as_deref(), &environment)?;
        telemetry::init(connection.log_level, LogTo::Stream);
        Ok(connection)
    }
}

/// A client that is logged in, and what the command may need beside it.
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) api_url: Url,
    pub(super) username: String,
    pub(super) env: Env,
    /// The session that `account login` kept, if that is the one in use.
    pub(super) kept: Option<Kept>,
    key_file: Option<PathBuf>,
    embedded: Option<EmbeddedVault>,
}

impl Session {
    async fn open(connection: Connection) -> anyhow::Result<Self> {
        let env = Env::system();
        let Connection { place, key_file, sessions, .. } = connection;
        let said = match place {
            Place::Service(said) => *said,
            Place::Embedded { dir } => {
                let vault = EmbeddedVault::open(&dir, &env).await.map_err(|error| match error {
                    MountError::Engine(EngineError::InUse(_)) => SessionError::InUse(dir).into(),
                    other => anyhow::Error::from(other),
                })?;
                return Ok(Self {
                    client: Arc::clone(&vault.client),
                    api_url: vault.api_url.clone(),
                    username: vault.username.clone(),
                    env,
                    kept: None,
                    key_file,
                    embedded: Some(vault),
                });
            }
        };
        let (config, kept) = match &said.password {
            Some(password) => (client_config(&said, password.clone())?, None),
            None => {
                if said.api_url.is_none() && said.ws_url.is_some() {
                    // the kept token is for its own service's WebSocket only
                    client_config(&said, Secret::new(""))?;
                }
                let kept = kept_session(&sessions, &said)?;
                let expired = kept.authorization.expires.is_some_and(|at| at <= env.clock.now());
                if expired {
                    return Err(SessionError::Expired.into());
                }
                let endpoint = over(&said, &kept.endpoint);
                (client_config(&endpoint, Secret::new(""))?, Some(kept))
            }
        };
        let (api_url, username) = (config.api_url.clone(), config.username.clone());
        let client = match &kept {
            Some(kept) => Client::resume(config, kept.authorization.clone(), env.clone())?,
            None => {
                let client = Client::new_offline(config, env.clone());
                client.authorize().await?;
                client
            }
        };
        Ok(Self { client, api_url, username, env, kept, key_file, embedded: None })
    }

    /// The client behind patience, for payloads.
    pub(super) fn store(&self) -> Retry {
        let client = Arc::clone(&self.client) as Arc<dyn Store>;
        let tell = |error: &StoreError| Output::new().note(&format!("{error}; Ctrl-C gives up"));
        let retry = Retry::new(client, RetryConfig::default(), self.env.clone());
        retry.through_votes(Box::new(tell))
    }

    /// Seals and opens with the vault's key.
    pub(super) fn cipher(&self) -> anyhow::Result<PayloadCipher> {
        Ok(self.opening_keys()?.0)
    }

    /// The same, and what tells the drive's part lists from other contents.
    pub(super) fn opening_keys(&self) -> anyhow::Result<(PayloadCipher, CatalogKeys)> {
        let keys =
            |key: &MasterKey| (PayloadCipher::new(key, self.env.clone()), CatalogKeys::new(key));
        if let Some(vault) = &self.embedded {
            return Ok(keys(&vault.key));
        }
        let path = self.key_file.as_deref().ok_or(ConfigError::Missing {
            what: "the key",
            hint: "--key-file or PRIVICOREFS_KEY_FILE",
        })?;
        Ok(keys(&MasterKey::load(path)?))
    }

    /// Keeps another authorization in place of the one that is kept.
    pub(super) fn keep(&self, authorization: &Authorization) -> anyhow::Result<()> {
        if let Some(kept) = &self.kept {
            kept.with(authorization).save()?;
        }
        Ok(())
    }

    async fn close(self) {
        self.client.close().await;
        if let Some(vault) = self.embedded {
            vault.close().await;
        }
    }
}

/// Logs in, does `work`, and closes. A kept session that the service refuses is told as
/// such.
pub(super) fn with(
    connect: &Connect,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    with_connection(connect.resolve()?, work)
}

/// The same with options that are resolved already.
pub(super) fn with_connection(
    connection: Connection,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    block_on(async {
        let session = Session::open(connection).await?;
        let result = work(&session).await;
        let is_kept = session.kept.is_some();
        session.close().await;
        result.map_err(|error| if is_kept && is_refusal(&error) { refused() } else { error })
    })
}

/// A client that is not logged in, for calls that have credentials of their own: the service
/// needs to be named only, by what is said or by the kept session.
pub(super) fn with_service(
    connect: &Connect,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let connection = connect.resolve()?;
    let said = match &connection.place {
        Place::Service(said) => said,
        Place::Embedded { .. } => {
            return with_connection(connection, async |session| work(&session.client).await);
        }
    };
    let mut endpoint = match (&said.api_url, &said.ws_url) {
        (Some(_), Some(_)) => (**said).clone(),
        _ => match found_session(&connection.sessions, said) {
            Ok(kept) => over(said, &kept.endpoint),
            // what is missing is said by what follows
            Err(_) => (**said).clone(),
        },
    };
    endpoint.username.get_or_insert_default();
    let config = client_config(&endpoint, Secret::new(""))?;
    // Expired, so that it is never sent, and never replaced by a login.
    let nobody = Authorization { token: Secret::new("none"), expires: Some(UNIX_EPOCH) };
    block_on(async {
        let client = Client::resume(config, nobody, Env::system())?;
        let result = work(&client).await;
        client.close().await;
        result
    })
}

fn refused() -> anyhow::Error {
    SessionError::Refused.into()
}

/// Whether the service refused the token.
pub(super) fn is_refusal(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<StoreError>();
    error.is_some_and(|error| error.kind == StoreErrorKind::Unauthenticated)
}

/// Runs to the end on a runtime of its own.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// The service of a command that is about its logins.
pub(super) fn service(connection: &Connection) -> Result<&Endpoint, SessionError> {
    match &connection.place {
        Place::Service(endpoint) => Ok(endpoint),
        Place::Embedded { .. } => Err(SessionError::Embedded),
    }
}

/// What is asked of a service without a login, and without listening to it: only its address
/// and its certificates count.
pub(super) fn without_login(connect: &Connect, what: &'static str) -> anyhow::Result<ClientConfig> {
    let connection = connect.resolve()?;
    let endpoint = service(&connection)?;
    let hint = "--api-url or PRIVICORE_API_URL";
    let url = endpoint.api_url.clone().ok_or(ConfigError::Missing { what, hint })?;
    let mut config = ClientConfig::new(url.clone(), url, "", "");
    config.ca_file = endpoint.ca_file.clone();
    Ok(config)
}

/// The one kept session that agrees with what was said, with its token.
fn kept_session(dir: &Path, said: &Endpoint) -> anyhow::Result<Kept> {
    Ok(found_session(dir, said)?.whole()?)
}

/// The same, whose token may not have been fetched yet.
pub(super) fn found_session(dir: &Path, said: &Endpoint) -> anyhow::Result<Kept> {
    let mut found = Kept::matching(dir, said)?;
    match found.len() {
        0 => Err(SessionError::None.into()),
        1 => Ok(found.remove(0)),
        _ => Err(SessionError::Several.into()),
    }
}

/// What was said, and `kept` for the rest.
fn over(said: &Endpoint, kept: &Endpoint) -> Endpoint {
    let said = said.clone();
    let kept = kept.clone();
    Endpoint {
        api_url: said.api_url.or(kept.api_url),
        ws_url: said.ws_url.or(kept.ws_url),
        upstream_url: said.upstream_url.or(kept.upstream_url),
        downstream_url: said.downstream_url.or(kept.downstream_url),
        username: said.username.or(kept.username),
        password: said.password,
        ca_file: said.ca_file.or(kept.ca_file),
        directory: said.directory,
    }
}

/// A client's configuration; fails with what is missing.
pub(super) fn client_config(
    endpoint: &Endpoint,
    password: Secret,
) -> Result<ClientConfig, ConfigError> {
    let missing = |what, hint| ConfigError::Missing { what, hint };
    let endpoint = endpoint.clone();
    let api_url = endpoint
        .api_url
        .ok_or_else(|| missing("the API's address", "--api-url or PRIVICORE_API_URL"))?;
    let ws_url = endpoint
        .ws_url
        .ok_or_else(|| missing("the WebSocket's address", "--ws-url or PRIVICORE_WS_URL"))?;
    let username = endpoint
        .username
        .ok_or_else(|| missing("the profile's name", "--username or PRIVICORE_USERNAME"))?;
    let mut config = ClientConfig::new(api_url, ws_url, username, password);
    config.upstream_url = endpoint.upstream_url;
    config.downstream_url = endpoint.downstream_url;
    config.ca_file = endpoint.ca_file;
    config.directory = endpoint.directory;
    Ok(config)
}
