//! A scripted service for what the embedded engine does not do: other hosts for streams,
//! redirects, refused joins, channels that fall silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig};
use privicorefs::store::{Payload, Store, StoreErrorKind, Token};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::house::conformance::{content, mark, meta};
use crate::house::connected::eventually;

/// One request as a peer saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An HTTP server that answers by a function of method and path, and notes everything.
struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Peer {
    async fn start(answer: impl Fn(&str) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (noted, answer) = (Arc::clone(&seen), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
                let line = format!("{} {}", parts.method, parts.uri.path());
                noted.lock().push(Seen { line: line.clone(), headers: parts.headers, body });
                answer(&line)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A WebSocket server; `serve` gets every connection with its number.
async fn channel<F>(
    serve: impl Fn(usize, WebSocketStream<TcpStream>) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                tokio::spawn(serve(number, socket));
            }
        }
    });
    address
}

/// Reads the join and answers it.
async fn join(socket: &mut WebSocketStream<TcpStream>, status: u16) {
    join_noting(socket, status, |_| ()).await;
}

/// Answers a join; `asked` is given its authorization token, before the answer goes out.
async fn join_noting(
    socket: &mut WebSocketStream<TcpStream>,
    status: u16,
    asked: impl FnOnce(&str),
) {
    let Some(Ok(Message::Text(text))) = socket.next().await else { return };
    let join: Value = serde_json::from_str(&text).unwrap();
    asked(join["data"]["authorizationToken"].as_str().unwrap_or_default());
    let data = if status == 200 { json!({"channelId": "ch"}) } else { json!([]) };
    let reply = json!({"correlationId": join["correlationId"], "status": status, "data": data});
    socket.send(Message::text(reply.to_string())).await.unwrap();
}

fn accepted(id: &str) -> Response {
    (StatusCode::ACCEPTED, [("x-dpt-cab-id", id.to_owned())]).into_response()
}

fn login(line: &str, token: &str) -> Option<Response> {
    (line == "POST /profile/authenticate")
        .then(|| json!({"authorizationToken": token}).to_string().into_response())
}

fn config(api: &Peer, ws: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new(
        api.url().parse().unwrap(),
        format!("ws://{ws}").parse().unwrap(),
        "u",
        "p",
    );
    config.ack_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(4);
    config.reply_timeout = Duration::from_secs(4);
    config.probe_after = Duration::from_millis(50);
    config
}

/// A channel that joins everybody and says nothing more: acknowledgements are polled.
async fn quiet_channel() -> SocketAddr {
    channel(|_, mut socket| async move {
        join(&mut socket, 200).await;
        while socket.next().await.is_some() {}
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_the_api_only() {
    let upstream = Peer::start(|_| StatusCode::OK.into_response()).await;
    let stream = format!("{}/?auth=one+two%2F", upstream.url());
    let api = Peer::start(move |line| {
        login(line, "T-secret").unwrap_or_else(|| match line {
            "POST /data-token/reserve-token-space" => accepted("c1"),
            "GET /request-status/c1" => r#"["succeeded"]"#.into_response(),
            "GET /data-token/retrieve-temporary-data-token/c1" => {
                json!({"token": "temp", "stream": stream}).to_string().into_response()
            }
            "POST /data-token/configure-file-meta" => {
                json!({"token": "perm"}).to_string().into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        })
    })
    .await;
    let client = Client::connect(config(&api, quiet_channel().await), Env::system()).await.unwrap();
    let bytes = content(1, 100_000);
    let payload = Payload::Bytes(bytes.clone());
    let token = client.put(&meta("c", "n.bin", 1), &mark(1), payload).await.unwrap();
    assert_eq!(token, Token::new("perm"));

    let uploads = upstream.seen.lock().clone();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].line, "POST /");
    assert!(uploads[0].body == bytes, "the raw payload");
    assert_eq!(uploads[0].headers["content-length"], "100000");
    assert_eq!(uploads[0].headers["content-type"], "application/octet-stream");
    assert!(!uploads[0].headers.contains_key("x-dpt-authorization"));
    let shown: Vec<_> = api.seen.lock().iter().map(|seen| seen.headers.clone()).collect();
    assert!(shown[1..].iter().all(|headers| headers["x-dpt-authorization"] == "T-secret"));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let elsewhere = Peer::start(|_| StatusCode::OK.into_response()).await;
    let target = elsewhere.url();
    let api = Peer::start(move |line| {
        login(line, "T").unwrap_or_else(|| {
            (StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response()
        })
    })
    .await;
    let client = Client::connect(config(&api, quiet_channel().await), Env::system()).await.unwrap();
    let error = client.delete(&Token::new("t")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Protocol, "{error}");
    assert!(elsewhere.seen.lock().is_empty());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_do_not_repeat_what_is_secret() {
    let api = Peer::start(|line| {
        login(line, "T-secret").unwrap_or_else(|| {
            let text = "bad token T-secret for https://up.example.com/?auth=s3cret";
            (StatusCode::UNPROCESSABLE_ENTITY, text).into_response()
        })
    })
    .await;
    let client = Client::connect(config(&api, quiet_channel().await), Env::system()).await.unwrap();
    let error = client.delete(&Token::new("t")).await.unwrap_err();
    let shown = format!("{error} {error:?} {client:?}");
    assert!(shown.contains("bad token"), "{shown}");
    assert!(!shown.contains("T-secret") && !shown.contains("s3cret"), "{shown}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_join_brings_a_new_login() {
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&logins);
    let api = Peer::start(move |line| {
        if line == "POST /profile/authenticate" {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            return login(line, &format!("T{number}")).unwrap();
        }
        StatusCode::NOT_FOUND.into_response()
    })
    .await;
    let joined: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&joined);
    let ws = channel(move |number, mut socket| {
        let noted = Arc::clone(&noted);
        async move {
            // The client goes on with the answer, before this task does.
            let asked = |token: &str| noted.lock().push(token.to_owned());
            join_noting(&mut socket, if number == 0 { 401 } else { 200 }, asked).await;
            while socket.next().await.is_some() {}
        }
    })
    .await;
    let client = Client::connect(config(&api, ws), Env::system()).await.unwrap();
    assert_eq!(*joined.lock(), ["T0", "T1"]);
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_channel_is_given_up_and_joined_again() {
    let api = Peer::start(|line| {
        login(line, "T").unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
    })
    .await;
    let ws = channel(|number, mut socket| async move {
        join(&mut socket, 200).await;
        if number == 0 {
            // Neither read nor closed: no pong comes back.
            std::future::pending::<()>().await;
        }
        while socket.next().await.is_some() {}
    })
    .await;
    let mut config = config(&api, ws);
    config.ping_interval = Duration::from_millis(100);
    let client = Client::connect(config, Env::system()).await.unwrap();
    eventually("a second join", || client.health().joins >= 2).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_the_oldest_shape_serves_small_files() {
    // No stream, no promotion reply, a bare command id, ids in bodies only.
    let api = Peer::start(|line| {
        login(line, "T").unwrap_or_else(|| match line {
            "POST /data-token/reserve-token-space" => {
                (StatusCode::ACCEPTED, r#"{"X-DPT-CAB-ID":"c1"}"#).into_response()
            }
            "POST /data-token/exchange-data-for-token" => {
                (StatusCode::ACCEPTED, "c2").into_response()
            }
            "POST /data-token/configure-file-meta" => {
                (StatusCode::ACCEPTED, r#""c3""#).into_response()
            }
            "GET /request-status/c1" | "GET /request-status/c2" | "GET /request-status/c3" => {
                StatusCode::OK.into_response()
            }
            "GET /data-token/retrieve-temporary-data-token/c1" => {
                r#"{"uuid":"u","createdAt":"x","token":"temp","context":"c"}"#.into_response()
            }
            "GET /data-token/list-data-tokens" => {
                r#"[{"token":"temp","context":"c","meta":[]}]"#.into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        })
    })
    .await;
    let client = Client::connect(config(&api, quiet_channel().await), Env::system()).await.unwrap();
    let put = |len| {
        let client = Arc::clone(&client);
        async move {
            let payload = Payload::Bytes(content(1, len));
            client.put(&meta("c", "n", 1), &mark(1), payload).await
        }
    };
    assert_eq!(put(100).await.unwrap(), Token::new("temp"));
    let error = put(100_000).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unsupported, "{error}");
    client.close().await;
}
