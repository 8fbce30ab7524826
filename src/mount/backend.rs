//! From configuration to a token store: the engine if it is embedded, the client, and
//! the decorators.
//!
//! The embedded engine is reached over loopback, like any other: there is one client code
//! path. Where the vault is known here already, an unreachable service is no obstacle:
//! the client then connects in the background.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::config::{Backend, Service};
use super::{MountConfig, MountError, embedded, local};
use crate::crypto::MasterKey;
use crate::engine::{Engine, EngineConfig};
use crate::env::Env;
use crate::privicore::{Client, ClientConfig};
use crate::store::{Limit, Proved, Retry, RetryConfig, Store, StoreError, StoreErrorKind};

/// How long a mount that could do without the service waits for it first.
const PATIENCE: Duration = Duration::from_secs(5);
/// Store calls at once that read. They have a lane of their own, so that a reader never
/// queues behind uploads.
const READS: usize = 32;

/// Everything below the operations layer.
pub(super) struct Vault {
    /// The decorated store.
    pub(super) store: Arc<dyn Store>,
    /// The client in it.
    pub(super) client: Arc<Client>,
    /// The API in use.
    pub(super) api_url: Url,
    /// The WebSocket in use.
    pub(super) ws_url: Url,
    engine: Option<Engine>,
}

impl Vault {
    /// Starts the engine if need be, connects, and stacks the decorators. The key is for
    /// the one layer that seals with it.
    pub(super) async fn open(
        config: &MountConfig,
        env: &Env,
    ) -> Result<(Self, MasterKey), MountError> {
        match &config.backend {
            Backend::Service(service) => {
                let known = local::knows_vault(&config.state_dir);
                let key = MasterKey::load(&service.key_file)?;
                let urls = (service.api_url.clone(), service.ws_url.clone());
                let client = connect(client_config(service, config), env, known).await?;
                Ok((Self::stacked(client, urls, None, config, env), key))
            }
            Backend::Embedded { dir } => {
                let adjust = |login| with_deadlines(login, config);
                let vault = EmbeddedVault::open_with(dir, env, adjust).await?;
                let EmbeddedVault { client, api_url, ws_url, key, engine, .. } = vault;
                let urls = (api_url, ws_url);
                Ok((Self::stacked(client, urls, Some(engine), config, env), key))
            }
        }
    }

    /// `Proved` over `Retry` over `Limit`: what waits to try again holds no permit.
    fn stacked(
        client: Arc<Client>,
        (api_url, ws_url): (Url, Url),
        engine: Option<Engine>,
        config: &MountConfig,
        env: &Env,
    ) -> Self {
        let limited = Limit::new(Arc::clone(&client) as _, config.tuning.parallel, READS);
        let retry = Retry::new(Arc::new(limited), RetryConfig::default(), env.clone());
        Self { store: Arc::new(Proved::new(Arc::new(retry))), client, api_url, ws_url, engine }
    }

    /// Leaves the channel and stops the engine.
    pub(super) async fn close(self) {
        self.client.close().await;
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
    }
}

/// An embedded vault whose engine runs in this process, without a mount.
#[derive(Debug)]
pub struct EmbeddedVault {
    /// Logged in.
    pub client: Arc<Client>,
    /// Where the engine listens for this time.
    pub api_url: Url,
    /// Its WebSocket.
    pub ws_url: Url,
    /// The profile.
    pub username: String,
    /// The vault's key.
    pub key: MasterKey,
    engine: Engine,
}

impl EmbeddedVault {
    /// Starts the engine of the vault in `dir` and logs in; makes what first use has to make.
    pub async fn open(dir: &Path, env: &Env) -> Result<Self, MountError> {
        Self::open_with(dir, env, |login| login).await
    }

    async fn open_with(
        dir: &Path,
        env: &Env,
        adjust: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Result<Self, MountError> {
        let vault = embedded::open(dir, env)?;
        let engine = Engine::start(EngineConfig::new(&vault.engine_dir), env.clone()).await?;
        let (api_url, ws_url) = (parsed(&engine.api_url())?, parsed(&engine.ws_url())?);
        let embedded::Vault { username, password, key, .. } = vault;
        let login = ClientConfig::new(api_url.clone(), ws_url.clone(), username.clone(), password);
        match log_in_or_register(adjust(login), env).await {
            Ok(client) => Ok(Self { client, api_url, ws_url, username, key, engine }),
            Err(error) => {
                engine.shutdown().await;
                Err(MountError::Connect(error))
            }
        }
    }

    /// Leaves the channel and stops the engine.
    pub async fn close(self) {
        self.client.close().await;
        self.engine.shutdown().await;
    }
}

/// Connects. Where the vault is `known` on this machine, a service that cannot be reached
/// is waited for in the background; a login that is refused is an error all the same.
async fn connect(config: ClientConfig, env: &Env, known: bool) -> Result<Arc<Client>, MountError> {
    if !known {
        return Client::connect(config, env.clone()).await.map_err(MountError::Connect);
    }
    let error = match timeout(PATIENCE, Client::connect(config.clone(), env.clone())).await {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) if !error.is_retryable() => return Err(MountError::Connect(error)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer yet".to_owned(),
    };
    tracing::warn!(error, "the service cannot be reached; mounting from what is known here");
    Ok(Client::new_offline(config, env.clone()))
}

/// Logs in at the embedded engine, registering the profile if it is not there yet.
async fn log_in_or_register(config: ClientConfig, env: &Env) -> Result<Arc<Client>, StoreError> {
    match Client::connect(config.clone(), env.clone()).await {
        Err(error) if error.kind == StoreErrorKind::Unauthenticated => {
            Client::register(config.clone(), env.clone()).await?;
            Client::connect(config, env.clone()).await
        }
        result => result,
    }
}

fn client_config(service: &Service, config: &MountConfig) -> ClientConfig {
    let mut client = ClientConfig::new(
        service.api_url.clone(),
        service.ws_url.clone(),
        service.username.clone(),
        service.password.clone(),
    );
    client.password_source = service.password_source.clone();
    client.upstream_url = service.upstream_url.clone();
    client.downstream_url = service.downstream_url.clone();
    client.ca_file = service.ca_file.clone();
    with_deadlines(client, config)
}

/// No single wait of the client is longer than an operation may wait.
fn with_deadlines(mut client: ClientConfig, config: &MountConfig) -> ClientConfig {
    let deadline = config.tuning.deadline;
    client.connect_timeout = client.connect_timeout.min(deadline);
    client
}

fn parsed(url: &str) -> Result<Url, MountError> {
    Url::parse(url).map_err(|error| {
        let message = format!("the engine's address: {error}");
        MountError::Connect(StoreError::new(StoreErrorKind::Local, "connect", message))
    })
}
