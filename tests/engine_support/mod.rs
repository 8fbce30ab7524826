//! A raw client of the wire for the engine's tests: reqwest and tungstenite, sharing no
//! code with the crate's own client.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops by panicking")]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use privicorefs::engine::{Engine, EngineConfig};
use privicorefs::env::{Env, FixedClock};
use privicorefs::protocol::{self, path, public_key};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse battery";

type Ws = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// An engine on a temporary directory, with a clock that moves when told.
pub struct Rig {
    pub dir: TempDir,
    pub clock: Arc<FixedClock>,
    pub env: Env,
    pub engine: Option<Engine>,
    pub change: fn(&mut EngineConfig),
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: fn(&mut EngineConfig)) -> Self {
        let clock = Arc::new(FixedClock::default());
        let env = Env { clock: clock.clone(), ..Env::system() };
        let mut rig = Self { dir: tempfile::tempdir().unwrap(), clock, env, engine: None, change };
        rig.start().await;
        rig
    }

    pub fn config(&self) -> EngineConfig {
        let mut config = EngineConfig::new(self.dir.path().join("engine"));
        config.test_controls = true;
        config.password_iterations = NonZeroU32::new(10).unwrap();
        config.sweep_every = Duration::from_millis(20);
        (self.change)(&mut config);
        config
    }

    pub async fn start(&mut self) {
        self.engine = Some(Engine::start(self.config(), self.env.clone()).await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.engine.take().unwrap().shutdown().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub fn anonymous(&self) -> Client {
        Client {
            http: http_client(),
            base: self.engine().api_url(),
            ws_url: self.engine().ws_url(),
            token: None,
        }
    }

    /// A new profile with a key, logged in.
    pub async fn register(&self, username: &str) -> Client {
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

    pub async fn login(&self, username: &str) -> Client {
        let mut client = self.anonymous();
        client.login(username, PASSWORD).await;
        client
    }

    /// A profile, logged in and joined.
    pub async fn user(&self) -> (Client, Channel) {
        let client = self.register(USER).await;
        let channel = client.join().await;
        (client, channel)
    }
}

fn http_client() -> reqwest::Client {
    // Another test of the same process may have chosen it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
    pub ws_url: String,
    pub token: Option<String>,
}

impl Client {
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header(protocol::AUTHORIZATION, token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.request(Method::POST, path).form(form).send().await.unwrap()
    }

    pub async fn register(&self, username: &str) {
        let form = [("username", username), ("password", PASSWORD)];
        let id = self.command(path::REGISTER_PROFILE, &form).await;
        assert_eq!(self.poll(&id).await, "succeeded");
    }

    pub async fn login(&mut self, username: &str, password: &str) {
        let form = [("username", username), ("password", password)];
        let reply = self.post(path::AUTHENTICATE, &form).await;
        assert_eq!(reply.status(), StatusCode::OK);
        let body: Value = body(reply).await;
        self.token = Some(body["authorizationToken"].as_str().unwrap().to_owned());
    }

    /// A call that is answered `202`; the command's id.
    pub async fn command(&self, path: &str, form: &[(&str, &str)]) -> String {
        let reply = self.post(path, form).await;
        assert_eq!(reply.status(), StatusCode::ACCEPTED, "{path}");
        let id = header(&reply, protocol::COMMAND_ID);
        assert_eq!(body(reply).await, json!([id]));
        id
    }

    /// Polls until a command is settled.
    pub async fn poll(&self, id: &str) -> String {
        let polling = async {
            loop {
                let reply = self.get(&format!("{}{id}", path::REQUEST_STATUS)).await;
                let code = reply.status();
                let word = body(reply).await[0].as_str().unwrap_or_default().to_owned();
                if word != "started" {
                    let expected = if word == "succeeded" { 200 } else { 404 };
                    assert_eq!(code.as_u16(), expected);
                    return word;
                }
                assert_eq!(code, StatusCode::ACCEPTED);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polling).await.unwrap()
    }

    pub async fn connect(&self) -> Channel {
        let (socket, _) = tokio_tungstenite::connect_async(&self.ws_url).await.unwrap();
        Channel { socket, seen: VecDeque::new() }
    }

    pub async fn join(&self) -> Channel {
        let mut channel = self.connect().await;
        let reply = channel.ask("joinChannel", json!({ "authorizationToken": self.token })).await;
        assert_eq!(reply["status"], 200, "{reply}");
        channel
    }

    /// Reserves, and returns what the temporary token's call gives.
    pub async fn reserve(&self, channel: &mut Channel, context: &str) -> Value {
        let form = [("context", context), ("ttl", "5")];
        let id = self.command(path::RESERVE, &form).await;
        channel.ack(&id).await;
        self.temporary(&id).await
    }

    pub async fn temporary(&self, id: &str) -> Value {
        let reply = self.get(&format!("{}{id}", path::TEMPORARY_TOKEN)).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await
    }

    pub async fn exchange(&self, channel: &mut Channel, temporary: &str, data: &[u8]) -> u64 {
        let text = STANDARD.encode(data);
        let form = [("temporaryTokenSpace", temporary), ("data", text.as_str())];
        let id = self.command(path::EXCHANGE, &form).await;
        channel.settled(&id).await["command_status"].as_u64().unwrap()
    }

    pub async fn configure(&self, temporary: &str, context: &str, name: &str) -> Response {
        let form = [
            ("token", temporary),
            ("fileName", name),
            ("extension", "txt"),
            ("context", context),
            ("size", "11"),
            ("path", "/"),
        ];
        self.post(path::CONFIGURE_FILE, &form).await
    }

    /// The whole inline flow; the permanent token.
    pub async fn store(
        &self,
        channel: &mut Channel,
        context: &str,
        name: &str,
        data: &[u8],
    ) -> String {
        let reserved = self.reserve(channel, context).await;
        let temporary = reserved["token"].as_str().unwrap();
        assert_eq!(self.exchange(channel, temporary, data).await, 2);
        let reply = self.configure(temporary, context, name).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await["token"].as_str().unwrap().to_owned()
    }

    /// The whole stream flow; the permanent token.
    pub async fn upload(
        &self,
        channel: &mut Channel,
        context: &str,
        name: &str,
        data: Vec<u8>,
    ) -> String {
        let reserved = self.reserve(channel, context).await;
        let stream = reserved["stream"].as_str().unwrap();
        let reply = self.http.post(stream).body(data).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let reply = self.configure(reserved["token"].as_str().unwrap(), context, name).await;
        body(reply).await["token"].as_str().unwrap().to_owned()
    }

    /// Asks for data; the answer's `data` object.
    pub async fn request_data(&self, channel: &mut Channel, token: &str) -> Value {
        let reply = self.post(path::REQUEST_DATA, &[("token", token)]).await;
        assert_eq!(reply.status(), StatusCode::ACCEPTED);
        let request = header(&reply, protocol::REQUEST_ID);
        channel.ack(&header(&reply, protocol::COMMAND_ID)).await;
        channel.find(protocol::TYPE_REQUEST, &request).await
    }

    /// The whole fetch flow, inline or by address.
    pub async fn fetch(&self, channel: &mut Channel, token: &str) -> Vec<u8> {
        let answer = self.request_data(channel, token).await;
        let text = answer["body"].as_str().unwrap();
        if answer["output_type"] == 0 {
            return STANDARD.decode(text).unwrap();
        }
        let reply = self.http.get(text).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        reply.bytes().await.unwrap().to_vec()
    }

    pub async fn delete(&self, channel: &mut Channel, token: &str) -> Value {
        let id = self.command(path::DELETE, &[("token", token)]).await;
        channel.settled(&id).await
    }

    pub async fn list(&self, query: &[(&str, &str)]) -> Value {
        let reply = self.get(&with_query(path::LIST, query)).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await
    }

    /// The names on a page.
    pub async fn names(&self, query: &[(&str, &str)]) -> Vec<String> {
        let page = self.list(query).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["fileName"].as_str().unwrap().to_owned()).collect()
    }

    /// Puts a fault plan with these rules in force.
    pub async fn faults(&self, rules: Value) {
        self.control("faults", &json!({ "seed": 1, "rules": rules })).await;
    }

    pub async fn control(&self, what: &str, value: &Value) {
        let request = self.request(Method::POST, &format!("/_engine/{what}"));
        let reply = request.body(value.to_string()).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::NO_CONTENT);
    }
}

pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

pub fn header(reply: &Response, name: &str) -> String {
    reply.headers()[name].to_str().unwrap().to_owned()
}

pub async fn body(reply: Response) -> Value {
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

/// A socket, and the messages that arrived while another was awaited.
pub struct Channel {
    pub socket: Ws,
    pub seen: VecDeque<Value>,
}

impl Channel {
    pub async fn ask(&mut self, action: &str, data: Value) -> Value {
        let request = json!({ "action": action, "correlationId": "c-1", "data": data });
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        self.wait(|message| message["correlationId"] == "c-1").await
    }

    /// The next message, or `None` when the socket has closed.
    pub async fn next(&mut self) -> Option<Value> {
        if let Some(message) = self.seen.pop_front() {
            return Some(message);
        }
        self.read().await
    }

    async fn read(&mut self) -> Option<Value> {
        let reading = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Some(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("nothing on the channel")
    }

    async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return self.seen.remove(at).unwrap();
        }
        loop {
            let message = self.read().await.expect("the socket closed");
            if wanted(&message) {
                return message;
            }
            self.seen.push_back(message);
        }
    }

    /// The `data` of the message of a type with an id.
    pub async fn find(&mut self, kind: &str, id: &str) -> Value {
        let message = self
            .wait(|message| message["data"]["type"] == kind && message["data"]["id"] == id)
            .await;
        message["data"].clone()
    }

    pub async fn settled(&mut self, id: &str) -> Value {
        self.find(protocol::TYPE_COMMAND, id).await
    }

    pub async fn ack(&mut self, id: &str) {
        assert_eq!(self.settled(id).await["command_status"], 2);
    }
}

pub mod governance;
