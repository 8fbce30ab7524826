//! What carries the client's traffic: API calls, bodies in and out, and the connection on
//! which the service pushes messages.
//!
//! Everything above sees these traits and types only. One implementation ships (`http`,
//! over reqwest and tungstenite); a simulation brings its own. The contract:
//! * Each call is made once: a transport repeats nothing, follows no redirect, logs in
//!   nowhere. Any HTTP status is a reply; an error means that there was none.
//! * Apart from opening a TCP connection, a transport keeps no deadline. Whoever waits gives
//!   up by dropping the future; what was sent by then may still be carried out.
//! * A stream's address carries a single-use credential: no error names more of it than
//!   its host, and the authorization token is never sent there (protocol B.7).

use std::borrow::Cow;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use url::Url;
use url::form_urlencoded;

pub use super::reply::Reply;
use super::secret::Secret;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Largest reply that is read whole: a page of 100 records with long names fits many times.
const REPLY_LIMIT: usize = 16 << 20;

/// See the module's header.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one API call, with the authorization token if there is one, and reads its
    /// reply whole.
    async fn call(&self, call: &Call, token: Option<&Secret>) -> StoreResult<Reply>;

    /// Posts `body`, which has exactly `len` bytes, to a stream server, and returns when
    /// the head of the reply is there. Takes from `body` only as fast as it can send: what
    /// was taken counts as progress of the upload.
    async fn upload(
        &self,
        operation: &'static str,
        url: &Url,
        len: u64,
        body: BodyIn,
    ) -> StoreResult<StreamReply>;

    /// Gets from a stream server, and returns when the head of the reply is there.
    async fn download(&self, operation: &'static str, url: &Url) -> StoreResult<StreamReply>;

    /// Opens a connection for messages. The error is for a person.
    async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, String>;
}

/// An open connection for messages: the channel, or a payload that comes in binary frames.
/// Dropping it cuts it.
#[async_trait]
pub trait Connection: Send {
    /// The next message. Safe to cancel: a message is taken only when it is returned.
    /// Keepalives of the other side are answered here.
    async fn receive(&mut self) -> Result<Incoming, String>;

    /// Sends a text.
    async fn send(&mut self, text: String) -> Result<(), String>;

    /// Sends a keepalive; its answer comes as [`Incoming::Keepalive`].
    async fn ping(&mut self) -> Result<(), String>;

    /// Says goodbye; nothing is sent or received after it.
    async fn close(&mut self);
}

/// What comes over a [`Connection`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A sign of life without content.
    Keepalive,
    /// The other side closed the connection properly, or it ended. The last message.
    Closed,
}

/// A payload on its way to a stream server.
pub type BodyIn = BoxStream<'static, std::io::Result<Bytes>>;

/// A stream server's reply: its head, and a body that is still to be read.
pub struct StreamReply {
    /// Status and headers; its body is empty.
    pub head: Reply,
    /// Length of the body, where the server said it.
    pub len: Option<u64>,
    /// The body; nothing is read from it after its first error.
    pub body: BoxStream<'static, StoreResult<Bytes>>,
}

impl StreamReply {
    /// Reads the body whole, where it is known to be short.
    pub(super) async fn whole(self, operation: &'static str) -> StoreResult<Reply> {
        let Self { mut head, mut body, .. } = self;
        let mut more = BytesMut::new();
        while let Some(chunk) = body.next().await.transpose()? {
            if head.body.is_empty() {
                // Most replies are one chunk: no copy.
                head.body = chunk;
                continue;
            }
            if more.is_empty() {
                more.extend_from_slice(&head.body);
            }
            more.extend_from_slice(&chunk);
            if more.len() > REPLY_LIMIT {
                let what = format!("reply larger than {REPLY_LIMIT} bytes");
                return Err(StoreError::new(StoreErrorKind::Protocol, operation, what));
            }
        }
        if !more.is_empty() {
            head.body = more.freeze();
        }
        Ok(head)
    }
}

/// The method of an API call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the methods of HTTP")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// One API call, kept so that it can be sent again.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it is for, as errors name it.
    pub operation: &'static str,
    /// The method of HTTP.
    pub method: Method,
    /// Below the API's base address.
    pub path: Cow<'static, str>,
    /// Last segment of the path, not escaped yet.
    pub id: Option<String>,
    /// Encoded query.
    pub query: Option<String>,
    /// The body.
    pub body: CallBody,
    /// The `Authorization` header of OAuth calls (C.11).
    pub basic: Option<Secret>,
}

/// A call's body, encoded.
#[derive(Debug, Clone)]
pub enum CallBody {
    /// No body.
    Empty,
    /// `application/x-www-form-urlencoded`.
    Form(Bytes),
    /// `application/json`.
    Json(Bytes),
}

impl Call {
    pub(super) fn get(operation: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        let (method, body) = (Method::Get, CallBody::Empty);
        let path = path.into();
        Self { operation, method, path, id: None, query: None, body, basic: None }
    }

    pub(super) fn post(operation: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        Self { method: Method::Post, ..Self::get(operation, path) }
    }

    pub(super) fn form(
        operation: &'static str,
        path: impl Into<Cow<'static, str>>,
        fields: &[(&str, &str)],
    ) -> Self {
        let body = CallBody::Form(Bytes::from(encode(fields)));
        Self { body, ..Self::post(operation, path) }
    }

    pub(super) fn json(
        operation: &'static str,
        path: &'static str,
        value: &serde_json::Value,
    ) -> Self {
        let body = CallBody::Json(Bytes::from(value.to_string()));
        Self { body, ..Self::post(operation, path) }
    }

    pub(super) fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Sends `Authorization: Basic` with this credential; `None` if no header can carry it.
    pub(super) fn with_basic(mut self, credential: &Secret) -> Option<Self> {
        let value = Secret::new(format!("Basic {}", credential.expose()));
        self.basic = value.fits_a_header().then_some(value);
        self.basic.is_some().then_some(self)
    }
}

/// Encodes pairs as a form or a query.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let target = String::with_capacity(bytes + bytes / 8);
    form_urlencoded::Serializer::new(target).extend_pairs(fields).finish()
}
