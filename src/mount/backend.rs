//! From configuration to a token store: the engine if it is embedded, the client, and
//! the decorators.
//!
//! The embedded engine is reached over loopback, like any other: there is one client code
//! path. Where the vault is known here already, an unreachable service is no obstacle:
//! the client then connects in the background.

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
use crate::store::{Limit, Retry, RetryConfig, Store, StoreError, StoreErrorKind};

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
                let vault = embedded::open(dir, env)?;
                let engine = EngineConfig::new(&vault.engine_dir);
                let engine = Engine::start(engine, env.clone()).await?;
                let urls = (parsed(&engine.api_url())?, parsed(&engine.ws_url())?);
                let (api_url, ws_url) = urls.clone();
                let login = ClientConfig::new(api_url, ws_url, vault.username, vault.password);
                match log_in_or_register(with_deadlines(login, config), env).await {
                    Ok(client) => {
                        let engine = Some(engine);
                        Ok((Self::stacked(client, urls, engine, config, env), vault.key))
                    }
                    Err(error) => {
                        engine.shutdown().await;
                        Err(MountError::Connect(error))
                    }
                }
            }
        }
    }

    /// `Retry` over `Limit`: what waits to try again holds no permit.
    fn stacked(
        client: Arc<Client>,
        (api_url, ws_url): (Url, Url),
        engine: Option<Engine>,
        config: &MountConfig,
        env: &Env,
    ) -> Self {
        let limited = Limit::new(Arc::clone(&client) as _, config.tuning.parallel, READS);
        let retry = Retry::new(Arc::new(limited), RetryConfig::default(), env.clone());
        Self { store: Arc::new(retry), client, api_url, ws_url, engine }
    }

    /// Leaves the channel and stops the engine.
    pub(super) async fn close(self) {
        self.client.close().await;
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
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
