//! The transport that ships: HTTP to the API and to the stream servers, WebSockets beside.
//! The only file, with `socket`, that names reqwest, tungstenite or rustls.
//!
//! * The authorization token goes to the API's host only; redirects are not followed, so
//!   it cannot be carried elsewhere.
//! * Loopback services are reached without a proxy, and without reading the system's
//!   certificates.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::Response;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::config::ClientConfig;
use super::reply::{Reply, presentable};
use super::secret::Secret;
use super::socket;
use super::transport::{BodyIn, Call, CallBody, Connection, Method, StreamReply, Transport};
use crate::protocol;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Idle connections kept: as many as there are concurrent requests at most.
const POOL_SIZE: usize = 64;
/// Idle connections are dropped before servers commonly drop them, so that a request is
/// seldom sent into a closing one.
const POOL_IDLE: Duration = Duration::from_secs(50);

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
pub(super) struct HttpTransport {
    api: String,
    api_url: Url,
    ca_file: Option<PathBuf>,
    connect_timeout: Duration,
    /// For the API. Streams have pools of their own: a server that refuses an upload
    /// closes the connection behind its reply, which no API call should run into.
    api_client: Shared<reqwest::Client>,
    stream_clients: [Shared<reqwest::Client>; 3],
    tls: Shared<Arc<rustls::ClientConfig>>,
}

impl HttpTransport {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            api: config.api_url.as_str().trim_end_matches('/').to_owned(),
            api_url: config.api_url.clone(),
            ca_file: config.ca_file.clone(),
            connect_timeout: config.connect_timeout,
            api_client: OnceLock::new(),
            stream_clients: Default::default(),
            tls: OnceLock::new(),
        }
    }

    /// TLS with the system's certificates and the configured ones.
    fn tls(&self) -> StoreResult<Arc<rustls::ClientConfig>> {
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

    fn request(&self, call: &Call, token: Option<&Secret>) -> StoreResult<reqwest::RequestBuilder> {
        let client = self.api_client.get_or_init(|| self.build(Route::to(&self.api_url)));
        let client = client.as_ref().map_err(Clone::clone)?;
        let mut request = client.request(method(call.method), self.url(call)?);
        request = match &call.body {
            CallBody::Empty => request,
            CallBody::Form(form) => request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .body(form.clone()),
            CallBody::Json(json) => request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(json.clone()),
        };
        if let Some(token) = token {
            request = request.header(protocol::AUTHORIZATION, sensitive(token)?);
        }
        if let Some(basic) = &call.basic {
            request = request.header(AUTHORIZATION, sensitive(basic)?);
        }
        Ok(request)
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
    fn stream(&self, method: Method, url: &Url) -> StoreResult<reqwest::RequestBuilder> {
        let route = Route::to(url);
        let client = self.stream_clients[route as usize].get_or_init(|| self.build(route));
        Ok(client.as_ref().map_err(Clone::clone)?.request(self::method(method), url.clone()))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, call: &Call, token: Option<&Secret>) -> StoreResult<Reply> {
        let request = self.request(call, token)?;
        respond(call.operation, request).await?.whole(call.operation).await
    }

    async fn upload(
        &self,
        operation: &'static str,
        url: &Url,
        len: u64,
        body: BodyIn,
    ) -> StoreResult<StreamReply> {
        let request = self
            .stream(Method::Post, url)?
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, len)
            .body(reqwest::Body::wrap_stream(body));
        respond(operation, request).await
    }

    async fn download(&self, operation: &'static str, url: &Url) -> StoreResult<StreamReply> {
        respond(operation, self.stream(Method::Get, url)?).await
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, String> {
        let tls = match url.scheme() {
            "wss" => Some(self.tls().map_err(|error| error.to_string())?),
            _ => None,
        };
        socket::open(url, tls).await
    }
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    }
}

/// A header that no log shows.
fn sensitive(secret: &Secret) -> StoreResult<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| local("a credential is not fit for a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a request and waits for the head of its reply.
async fn respond(
    operation: &'static str,
    request: reqwest::RequestBuilder,
) -> StoreResult<StreamReply> {
    let response: Response = request.send().await.map_err(|e| failed(operation, e))?;
    let headers = response.headers();
    let head = Reply {
        status: response.status().as_u16(),
        command_header: header(headers, protocol::COMMAND_ID),
        request_header: header(headers, protocol::REQUEST_ID),
        retry_after_ms: headers.get(RETRY_AFTER).and_then(retry_after),
        date_ms: headers.get(DATE).and_then(date),
        body: Bytes::new(),
    };
    let len = response.content_length();
    let body = response.bytes_stream().map(move |chunk| chunk.map_err(|e| failed(operation, e)));
    Ok(StreamReply { head, len, body: body.boxed() })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Milliseconds of a `Retry-After` in seconds; the date form is not worth a clock.
fn retry_after(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

/// Milliseconds since 1970 of a `Date`; one that cannot be read is as good as none.
fn date(value: &HeaderValue) -> Option<u64> {
    let at = httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()?;
    u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// The error of a request that got no reply. Never names the URL, which may hold a secret.
fn failed(operation: &'static str, error: reqwest::Error) -> StoreError {
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
fn is_loopback(url: &Url) -> bool {
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
    use super::super::transport::encode;
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
    fn dates_are_read_in_every_form_of_http() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777_000)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777_000)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("1994-11-06T08:49:37Z", None),
            ("", None),
        ] {
            assert_eq!(date(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn ids_are_escaped_and_bases_may_have_a_path() {
        let base = Url::parse("http://127.0.0.1:1/api/").unwrap();
        let http = HttpTransport::new(&ClientConfig::new(base.clone(), base, "u", "p"));
        let mut call = Call::get("poll", "/request-status/").with_id("a/b?c");
        call.query = Some(encode(&[("filters[context]", "a b")]));
        let url = http.url(&call).unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/api/request-status/a%2Fb%3Fc?filters%5Bcontext%5D=a+b"
        );
    }
}
