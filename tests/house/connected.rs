//! The crate's own client, connected to an engine in the test's process over real sockets on
//! loopback.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::engine::{Engine, EngineConfig, Fault, FaultPlan, Rule, Shape, When};
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig};
use privicorefs::store::{Retry, RetryConfig, Store};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::doubles::seeded_env;

/// An engine, a registered profile, and a client that is joined.
pub(crate) struct Connected {
    pub(crate) engine: Engine,
    pub(crate) client: Arc<Client>,
    pub(crate) config: ClientConfig,
    pub(crate) dir: TempDir,
}

/// Limits that are far above what loopback needs, and short enough for a fault's test.
pub(crate) fn client_config(engine: &Engine) -> ClientConfig {
    let mut config = ClientConfig::new(
        engine.api_url().parse().unwrap(),
        engine.ws_url().parse().unwrap(),
        "someone",
        "correct horse battery staple 7",
    );
    config.upstream_url = Some(engine.upstream_url().parse().unwrap());
    config.downstream_url = Some(engine.downstream_url().parse().unwrap());
    config.ack_timeout = Duration::from_secs(4);
    config.connect_timeout = Duration::from_secs(4);
    config.reply_timeout = Duration::from_secs(2);
    config.idle_timeout = Duration::from_secs(1);
    config.probe_after = Duration::from_millis(300);
    config
}

/// An engine's configuration without the cost of stretching a password.
pub(crate) fn engine_config(dir: &TempDir) -> EngineConfig {
    let mut config = EngineConfig::new(dir.path());
    config.password_iterations = NonZeroU32::MIN;
    config
}

impl Connected {
    pub(crate) async fn new() -> Self {
        Self::with(Shape::default()).await
    }

    pub(crate) async fn with(shape: Shape) -> Self {
        Self::custom(shape, Env::system(), |_| {}).await
    }

    pub(crate) async fn custom(shape: Shape, env: Env, adjust: impl Fn(&mut EngineConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut engine_config = engine_config(&dir);
        engine_config.shape = shape;
        adjust(&mut engine_config);
        let engine = Engine::start(engine_config, env.clone()).await.unwrap();
        let config = client_config(&engine);
        Client::register(config.clone(), env.clone()).await.unwrap();
        let client = Client::connect(config.clone(), env).await.unwrap();
        Self { engine, client, config, dir }
    }

    /// Another client of the same profile.
    pub(crate) async fn another(&self) -> Arc<Client> {
        Client::connect(self.config.clone(), Env::system()).await.unwrap()
    }

    /// The client behind patience.
    pub(crate) fn retrying(&self) -> Arc<dyn Store> {
        let config = RetryConfig {
            base: Duration::from_millis(20),
            max: Duration::from_millis(500),
            ..RetryConfig::default()
        };
        Arc::new(Retry::new(Arc::clone(&self.client) as Arc<dyn Store>, config, seeded_env(3)))
    }

    /// Breaks `op` in one way.
    pub(crate) fn fault(&self, op: &str, kind: Fault, when: When) {
        self.engine
            .set_faults(FaultPlan { seed: 1, rules: vec![Rule { op: op.into(), kind, when }] });
    }

    pub(crate) fn no_faults(&self) {
        self.engine.set_faults(FaultPlan::default());
    }

    /// How often a call arrived, for example `POST /data-token/delete-data`.
    pub(crate) fn requests(&self, call: &str) -> u64 {
        self.engine.metrics().requests.get(call).copied().unwrap_or(0)
    }

    pub(crate) async fn end(self) {
        self.client.close().await;
        self.engine.shutdown().await;
        drop(self.dir);
    }
}

/// Waits until `holds`, and fails if it does not within a generous while.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(10)).await;
    }
}
