//! The transport with the configured deadlines: every wait of the client for the service
//! goes through here or through the channel.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
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
    shown: Arc<Mutex<Option<Shown>>>,
}

/// What the service's clock showed.
#[derive(Clone, Copy)]
struct Shown {
    /// In milliseconds since 1970.
    ms: u64,
    /// When it was heard.
    at: Instant,
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
            shown: Arc::default(),
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Sends one API call once and reads its reply whole.
    pub(super) async fn send(&self, call: &Call, token: Option<&Secret>) -> StoreResult<Reply> {
        let (limit, exchange) = (self.reply_timeout, self.transport.call(call, token));
        let reply = within(limit, call.operation, "no reply from the service", exchange).await?;
        if let Some(ms) = reply.date_ms {
            *self.shown.lock() = Some(Shown { ms, at: Instant::now() });
        }
        Ok(reply)
    }

    /// The clock of the service, by the latest reply of its API that said it. Stream servers
    /// do not count: they may be other machines.
    pub(super) fn clock(&self) -> Option<u64> {
        let Shown { ms, at } = (*self.shown.lock())?;
        Some(ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)))
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Replies that say what they are told to, and nothing else.
    struct Dated(Mutex<StoreResult<Option<u64>>>);

    #[async_trait]
    impl Transport for Dated {
        async fn call(&self, _: &Call, _: Option<&Secret>) -> StoreResult<Reply> {
            let date_ms = self.0.lock().clone()?;
            Ok(Reply { status: 200, date_ms, ..Reply::default() })
        }

        async fn upload(
            &self,
            operation: &'static str,
            _: &Url,
            _: u64,
            _: BodyIn,
        ) -> StoreResult<StreamReply> {
            Err(none(operation))
        }

        async fn download(&self, operation: &'static str, _: &Url) -> StoreResult<StreamReply> {
            Err(none(operation))
        }

        async fn connect(&self, _: &Url) -> Result<Box<dyn Connection>, String> {
            Err("none here".to_owned())
        }
    }

    fn none(operation: &'static str) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, operation, "none here")
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_what_the_latest_reply_said_and_the_time_since() {
        let dated = Arc::new(Dated(Mutex::new(Ok(None))));
        let url = Url::parse("http://127.0.0.1:1").unwrap();
        let config = ClientConfig::new(url.clone(), url, "u", "p");
        let wire = Wire::over(Arc::clone(&dated) as Arc<dyn Transport>, &config);
        // A clone, as the session has one: what it hears counts too.
        let other = wire.clone();
        let hear = async |said: StoreResult<Option<u64>>| {
            *dated.0.lock() = said;
            other.send(&Call::get("test", "/"), None).await.map(drop)
        };
        let pass = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;

        assert_eq!(wire.clock(), None);
        hear(Ok(None)).await.unwrap();
        assert_eq!(wire.clock(), None, "nobody has said it yet");
        hear(Ok(Some(50_000))).await.unwrap();
        assert_eq!(wire.clock(), Some(50_000));
        pass(7).await;
        assert_eq!(wire.clock(), Some(57_000));
        hear(Ok(None)).await.unwrap();
        hear(Err(none("test"))).await.unwrap_err();
        assert_eq!(wire.clock(), Some(57_000), "what says nothing changes nothing");
        pass(1).await;
        hear(Ok(Some(20_000))).await.unwrap();
        assert_eq!(wire.clock(), Some(20_000), "it was set back");
    }
}
