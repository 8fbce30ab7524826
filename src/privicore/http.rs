//! HTTP to the API and to the stream servers.
//!
//! * The authorization token goes to the API's host only; redirects are not followed, so
//!   it cannot be carried elsewhere.
//! * Loopback services are reached without a proxy, and without reading the system's
//!   certificates.
//! * Every wait has a deadline: connection, whole reply (API), head and each chunk (streams).

use std::borrow::Cow;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;
use url::form_urlencoded;

use super::config::ClientConfig;
use super::reply::{Reply, presentable};
use crate::protocol;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Idle connections kept: as many as there are concurrent requests at most.
const POOL_SIZE: usize = 64;
/// Idle connections are dropped before servers commonly drop them, so that a request is
/// seldom sent into a closing one.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Largest API reply: a page of 100 records with long names fits many times over.
const REPLY_LIMIT: usize = 16 << 20;

/// One API call, kept so that it can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) path: Cow<'static, str>,
    /// Last segment of the path, to be escaped.
    pub(super) id: Option<String>,
    /// Encoded query.
    pub(super) query: Option<String>,
    pub(super) body: CallBody,
    /// The `Authorization` header of OAuth calls (C.11).
    pub(super) basic: Option<HeaderValue>,
}

/// A call's body, encoded.
#[derive(Debug, Clone)]
pub(super) enum CallBody {
    Empty,
    Form(Bytes),
    Json(Bytes),
}

impl Call {
    pub(super) fn get(operation: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        let (method, body) = (Method::GET, CallBody::Empty);
        let path = path.into();
        Self { operation, method, path, id: None, query: None, body, basic: None }
    }

    pub(super) fn post(operation: &'static str, path: impl Into<Cow<'static, str>>) -> Self {
        Self { method: Method::POST, ..Self::get(operation, path) }
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
}

/// Encodes pairs as a form or a query.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let target = String::with_capacity(bytes + bytes / 8);
    form_urlencoded::Serializer::new(target).extend_pairs(fields).finish()
}

/// How a host is reached.
#[derive(Clone, Copy)]
enum Route {
    /// Loopback without TLS.
    Local,
    /// Loopback with TLS.
    LocalTls,
    /// Anything else: proxies of the environment count.
    Remote,
}

impl Route {
    fn to(url: &Url) -> Self {
        match (is_loopback(url), matches!(url.scheme(), "https" | "wss")) {
            (true, false) => Self::Local,
            (true, true) => Self::LocalTls,
            (false, _) => Self::Remote,
        }
    }
}

type Shared<T> = OnceLock<Result<T, StoreError>>;

/// The connection pools and what they are made from.
pub(super) struct Http {
    api: String,
    api_url: Url,
    ca_file: Option<PathBuf>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    idle_timeout: Duration,
    /// For the API. Streams have pools of their own: a server that refuses an upload
    /// closes the connection behind its reply, which no API call should run into.
    api_client: Shared<reqwest::Client>,
    stream_clients: [Shared<reqwest::Client>; 3],
    tls: Shared<Arc<rustls::ClientConfig>>,
}

impl Http {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            api: config.api_url.as_str().trim_end_matches('/').to_owned(),
            api_url: config.api_url.clone(),
            ca_file: config.ca_file.clone(),
            connect_timeout: config.connect_timeout,
            reply_timeout: config.reply_timeout,
            idle_timeout: config.idle_timeout,
            api_client: OnceLock::new(),
            stream_clients: Default::default(),
            tls: OnceLock::new(),
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// TLS with the system's certificates and the configured ones.
    pub(super) fn tls(&self) -> StoreResult<Arc<rustls::ClientConfig>> {
        self.tls.get_or_init(|| tls_config(self.ca_file.as_ref(), true)).clone()
    }

    fn build(&self, route: Route) -> StoreResult<reqwest::Client> {
        let tls = match route {
            Route::Local => tls_config(None, false)?,
            Route::LocalTls | Route::Remote => self.tls()?,
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(POOL_SIZE)
            .pool_idle_timeout(POOL_IDLE)
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none());
        if !matches!(route, Route::Remote) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| local(format!("cannot set up HTTP: {}", chain(&error))))
    }

    /// Sends one API call once and reads its reply whole.
    pub(super) async fn send(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
    ) -> StoreResult<Reply> {
        let client = self.api_client.get_or_init(|| self.build(Route::to(&self.api_url)));
        let client = client.as_ref().map_err(Clone::clone)?;
        let request = client.request(call.method.clone(), self.url(call)?);
        let request = match &call.body {
            CallBody::Empty => request,
            CallBody::Form(form) => request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .body(form.clone()),
            CallBody::Json(json) => request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(json.clone()),
        };
        let request = match token {
            Some(token) => request.header(protocol::AUTHORIZATION, token),
            None => request,
        };
        let request = match &call.basic {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        };
        let exchange = async {
            let response = request.send().await.map_err(|e| transport(call.operation, e))?;
            read_reply(call.operation, response).await
        };
        within(self.reply_timeout, call.operation, "no reply from the service", exchange).await
    }

    fn url(&self, call: &Call) -> StoreResult<Url> {
        let mut url = Url::parse(&format!("{}{}", self.api, call.path))
            .map_err(|error| local(format!("bad API address: {error}")))?;
        if let Some(id) = &call.id
            && let Ok(mut segments) = url.path_segments_mut()
        {
            segments.pop_if_empty().push(id);
        }
        url.set_query(call.query.as_deref());
        Ok(url)
    }

    /// Starts a request to a stream server: never with the authorization token (B.7).
    pub(super) fn stream(&self, method: Method, url: &Url) -> StoreResult<reqwest::RequestBuilder> {
        let route = Route::to(url);
        let client = self.stream_clients[route as usize].get_or_init(|| self.build(route));
        Ok(client.as_ref().map_err(Clone::clone)?.request(method, url.clone()))
    }

    /// Waits for the head of a stream's reply.
    pub(super) async fn head(
        &self,
        operation: &'static str,
        request: reqwest::RequestBuilder,
    ) -> StoreResult<Response> {
        let head = async { request.send().await.map_err(|e| transport(operation, e)) };
        within(self.reply_timeout, operation, "no reply from the stream server", head).await
    }

    /// Reads a stream server's reply that is known to be short.
    pub(super) async fn short_reply(
        &self,
        operation: &'static str,
        response: Response,
    ) -> StoreResult<Reply> {
        let reply = read_reply(operation, response);
        within(self.reply_timeout, operation, "the stream server's reply stalled", reply).await
    }
}

/// Awaits `work` no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    what: &str,
    work: impl Future<Output = StoreResult<T>>,
) -> StoreResult<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::new(
            StoreErrorKind::TimedOut,
            operation,
            format!("{what} within {} s", limit.as_secs_f32()),
        )),
    }
}

async fn read_reply(operation: &'static str, mut response: Response) -> StoreResult<Reply> {
    let headers = response.headers();
    let mut reply = Reply {
        status: response.status().as_u16(),
        command_header: header(headers, protocol::COMMAND_ID),
        request_header: header(headers, protocol::REQUEST_ID),
        retry_after_ms: headers.get(RETRY_AFTER).and_then(retry_after),
        body: Bytes::new(),
    };
    let mut more = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport(operation, e))? {
        if reply.body.is_empty() {
            // Most replies are one chunk: no copy.
            reply.body = chunk;
            continue;
        }
        if more.is_empty() {
            more.extend_from_slice(&reply.body);
        }
        more.extend_from_slice(&chunk);
        if more.len() > REPLY_LIMIT {
            let what = format!("reply larger than {REPLY_LIMIT} bytes");
            return Err(StoreError::new(StoreErrorKind::Protocol, operation, what));
        }
    }
    if !more.is_empty() {
        reply.body = more.freeze();
    }
    Ok(reply)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Milliseconds of a `Retry-After` in seconds; the date form is not worth a clock.
fn retry_after(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

/// The error of a request that got no reply. Never names the URL, which may hold a secret.
pub(super) fn transport(operation: &'static str, error: reqwest::Error) -> StoreError {
    let error = error.without_url();
    let kind = match error.is_timeout() && !error.is_connect() {
        true => StoreErrorKind::TimedOut,
        false => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, operation, chain(&error))
}

/// An error and its causes in one line.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    presentable(&text)
}

fn local(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Local, "connect", message)
}

/// Whether a URL names this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn tls_config(ca_file: Option<&PathBuf>, system: bool) -> StoreResult<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    if system {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = ca_file {
        let bad = |why: &dyn std::fmt::Display| {
            local(format!("CA certificates in {}: {why}", path.display()))
        };
        let pem = std::fs::read(path).map_err(|error: io::Error| bad(&error))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| local(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (url, expected) in [
            ("http://127.0.0.1:80/", true),
            ("http://127.9.9.9/", true),
            ("https://[::1]:9/", true),
            ("http://localhost/", true),
            ("http://localhost.example.com/", false),
            ("https://sandbox.privicore.com:9009/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn ids_are_escaped_and_bases_may_have_a_path() {
        let base = Url::parse("http://127.0.0.1:1/api/").unwrap();
        let http = Http::new(&ClientConfig::new(base.clone(), base, "u", "p"));
        let mut call = Call::get("poll", "/request-status/").with_id("a/b?c");
        call.query = Some(encode(&[("filters[context]", "a b")]));
        let url = http.url(&call).unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/api/request-status/a%2Fb%3Fc?filters%5Bcontext%5D=a+b"
        );
    }
}
