//! An engine in the test's own process, for raw clients of the wire.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::engine::{Engine, EngineConfig};
use privicorefs::env::Env;
use privicorefs::protocol::{path, public_key};
use serde_json::json;
use tempfile::TempDir;

use super::doubles::FixedClock;
use super::wire::{Channel, PASSWORD, USER, WireClient};

/// An engine on a temporary directory, with a clock that moves when told.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) env: Env,
    pub(crate) engine: Option<Engine>,
    pub(crate) change: fn(&mut EngineConfig),
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: fn(&mut EngineConfig)) -> Self {
        let clock = Arc::new(FixedClock::default());
        let env = Env { clock: clock.clone(), ..Env::system() };
        let mut server =
            Self { dir: tempfile::tempdir().unwrap(), clock, env, engine: None, change };
        server.start().await;
        server
    }

    pub(crate) fn config(&self) -> EngineConfig {
        let mut config = EngineConfig::new(self.dir.path().join("engine"));
        config.test_controls = true;
        config.password_iterations = NonZeroU32::new(10).unwrap();
        config.sweep_every = Duration::from_millis(20);
        (self.change)(&mut config);
        config
    }

    pub(crate) async fn start(&mut self) {
        self.engine = Some(Engine::start(self.config(), self.env.clone()).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.engine.take().unwrap().shutdown().await;
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn anonymous(&self) -> WireClient {
        WireClient::new(self.engine().api_url(), self.engine().ws_url())
    }

    /// A new profile with a key, logged in.
    pub(crate) async fn register(&self, username: &str) -> WireClient {
        let mut client = self.anonymous();
        client.register(username).await;
        client.login(username, PASSWORD).await;
        let key = public_key::encode(&[9; 32]);
        // Joined, so that the ack is not left in the buffer for a test's own socket.
        let mut channel = client.join().await;
        let id = client.command(path::REGISTER_KEY, &[("publicKey", &key)]).await;
        channel.ack(&id).await;
        assert_eq!(channel.ask("leaveChannel", json!({})).await["status"], 200);
        client
    }

    pub(crate) async fn login(&self, username: &str) -> WireClient {
        let mut client = self.anonymous();
        client.login(username, PASSWORD).await;
        client
    }

    /// A profile, logged in and joined.
    pub(crate) async fn user(&self) -> (WireClient, Channel) {
        let client = self.register(USER).await;
        let channel = client.join().await;
        (client, channel)
    }
}
