//! The transport with the configured deadlines: every wait of the client for the service
//! goes through here or through the channel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::config::ClientConfig;
use super::http::HttpTransport;
use super::secret::{Secret, place};
use super::transport::{BodyIn, Call, Connection, Reply, StreamReply, Transport};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// See the module's header.
#[derive(Clone)]
pub(super) struct Wire {
    transport: Arc<dyn Transport>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    idle_timeout: Duration,
}

impl Wire {
    /// Over HTTP and WebSockets, to the service of `config`.
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self::over(Arc::new(HttpTransport::new(config)), config)
    }

    /// Over `transport`, with the deadlines of `config`.
    pub(super) fn over(transport: Arc<dyn Transport>, config: &ClientConfig) -> Self {
        Self {
            transport,
            connect_timeout: config.connect_timeout,
            reply_timeout: config.reply_timeout,
            idle_timeout: config.idle_timeout,
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Sends one API call once and reads its reply whole.
    pub(super) async fn send(&self, call: &Call, token: Option<&Secret>) -> StoreResult<Reply> {
        let exchange = self.transport.call(call, token);
        within(self.reply_timeout, call.operation, "no reply from the service", exchange).await
    }

    /// Starts to post a payload; the caller watches its progress.
    pub(super) async fn upload(
        &self,
        operation: &'static str,
        url: &Url,
        len: u64,
        body: BodyIn,
    ) -> StoreResult<StreamReply> {
        self.transport.upload(operation, url, len, body).await
    }

    /// Asks a stream server for a payload, and waits for the head of its reply.
    pub(super) async fn download(
        &self,
        operation: &'static str,
        url: &Url,
    ) -> StoreResult<StreamReply> {
        let head = self.transport.download(operation, url);
        within(self.reply_timeout, operation, "no reply from the stream server", head).await
    }

    /// Reads a stream server's reply that is known to be short.
    pub(super) async fn short_reply(
        &self,
        operation: &'static str,
        reply: StreamReply,
    ) -> StoreResult<Reply> {
        let whole = reply.whole(operation);
        within(self.reply_timeout, operation, "the stream server's reply stalled", whole).await
    }

    /// Opens a connection for messages. The error is for a person.
    pub(super) async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, String> {
        let limit = self.connect_timeout;
        let opening = timeout(limit, self.transport.connect(url)).await;
        opening.unwrap_or_else(|_| {
            Err(format!("{}: no connection within {} s", place(url), limit.as_secs_f32()))
        })
    }
}

/// Awaits `work` no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    what: &str,
    work: impl Future<Output = StoreResult<T>>,
) -> StoreResult<T> {
    match timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::new(
            StoreErrorKind::TimedOut,
            operation,
            format!("{what} within {} s", limit.as_secs_f32()),
        )),
    }
}
