//! Where the service is, who we are there, and how long we wait for it.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::secret::{PasswordSource, Secret};
use crate::protocol::directory::DirectoryTable;

/// Configuration of a [`Client`](super::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Base of the API, for example `https://sandbox.privicore.com:9009`.
    pub api_url: Url,
    /// The WebSocket proxy, for example `wss://sandbox.privicore.com:8083`.
    pub ws_url: Url,
    /// Base of the upstream server, for services that name only a stream token (B.7).
    pub upstream_url: Option<Url>,
    /// Base of the downstream server, for services that name only a stream token (B.8).
    pub downstream_url: Option<Url>,
    /// The profile's name.
    pub username: String,
    /// The profile's password.
    pub password: Secret,
    /// Where another password may be found once this one is refused.
    pub password_source: Option<PasswordSource>,
    /// Certificates (PEM) trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a command's acknowledgement is waited for before its outcome counts as
    /// unknown. At least the time limit of the longest vote that gates an operation.
    pub ack_timeout: Duration,
    /// How long a TCP and TLS connection, or the join of the channel, may take.
    pub connect_timeout: Duration,
    /// How long an API reply may take, body included; also a stream's reply headers.
    pub reply_timeout: Duration,
    /// How long a stream may stand still, in either direction.
    pub idle_timeout: Duration,
    /// After how long without an acknowledgement its command is first polled: an
    /// acknowledgement can get lost while the channel stays up (B.5). Doubles each time.
    pub probe_after: Duration,
    /// Between keepalive pings on the channel; idle connections are dropped (B.5).
    pub ping_interval: Duration,
    /// Methods, paths and fields of the directory calls, which no source tells (C.10).
    pub directory: DirectoryTable,
}

impl ClientConfig {
    /// The given service and profile, with the timeouts that the protocol's samples use.
    pub fn new(
        api_url: Url,
        ws_url: Url,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        Self {
            api_url,
            ws_url,
            upstream_url: None,
            downstream_url: None,
            username: username.into(),
            password: password.into(),
            password_source: None,
            ca_file: None,
            ack_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            probe_after: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            directory: DirectoryTable::default(),
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}
