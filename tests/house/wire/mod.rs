//! A raw client of the wire: reqwest and tungstenite, sharing no code with the crate's own
//! client.

pub(crate) mod governance;

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use privicorefs::protocol::{self, path};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "correct horse battery";

type Ws = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

#[derive(Clone)]
pub(crate) struct WireClient {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) ws_url: String,
    pub(crate) token: Option<String>,
}

impl WireClient {
    /// Without a login.
    pub(crate) fn new(base: String, ws_url: String) -> Self {
        // Another test of the same process may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { http: reqwest::Client::new(), base, ws_url, token: None }
    }

    pub(crate) fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header(protocol::AUTHORIZATION, token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.request(Method::POST, path).form(form).send().await.unwrap()
    }

    pub(crate) async fn register(&self, username: &str) {
        let form = [("username", username), ("password", PASSWORD)];
        let id = self.command(path::REGISTER_PROFILE, &form).await;
        assert_eq!(self.poll(&id).await, "succeeded");
    }

    pub(crate) async fn login(&mut self, username: &str, password: &str) {
        let form = [("username", username), ("password", password)];
        let reply = self.post(path::AUTHENTICATE, &form).await;
        assert_eq!(reply.status(), StatusCode::OK);
        let body: Value = body(reply).await;
        self.token = Some(body["authorizationToken"].as_str().unwrap().to_owned());
    }

    /// A call that is answered `202`; the command's id.
    pub(crate) async fn command(&self, path: &str, form: &[(&str, &str)]) -> String {
        let reply = self.post(path, form).await;
        assert_eq!(reply.status(), StatusCode::ACCEPTED, "{path}");
        let id = header(&reply, protocol::COMMAND_ID);
        assert_eq!(body(reply).await, json!([id]));
        id
    }

    /// Polls until a command is settled.
    pub(crate) async fn poll(&self, id: &str) -> String {
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

    pub(crate) async fn connect(&self) -> Channel {
        let (socket, _) = tokio_tungstenite::connect_async(&self.ws_url).await.unwrap();
        Channel { socket, seen: VecDeque::new() }
    }

    pub(crate) async fn join(&self) -> Channel {
        let mut channel = self.connect().await;
        let reply = channel.ask("joinChannel", json!({ "authorizationToken": self.token })).await;
        assert_eq!(reply["status"], 200, "{reply}");
        channel
    }

    /// Reserves, and returns what the temporary token's call gives.
    pub(crate) async fn reserve(&self, channel: &mut Channel, context: &str) -> Value {
        let form = [("context", context), ("ttl", "5")];
        let id = self.command(path::RESERVE, &form).await;
        channel.ack(&id).await;
        self.temporary(&id).await
    }

    pub(crate) async fn temporary(&self, id: &str) -> Value {
        let reply = self.get(&format!("{}{id}", path::TEMPORARY_TOKEN)).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await
    }

    pub(crate) async fn exchange(
        &self,
        channel: &mut Channel,
        temporary: &str,
        data: &[u8],
    ) -> u64 {
        let text = STANDARD.encode(data);
        let form = [("temporaryTokenSpace", temporary), ("data", text.as_str())];
        let id = self.command(path::EXCHANGE, &form).await;
        channel.settled(&id).await["command_status"].as_u64().unwrap()
    }

    pub(crate) async fn configure(&self, temporary: &str, context: &str, name: &str) -> Response {
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
    pub(crate) async fn store(
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
    pub(crate) async fn upload(
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
    pub(crate) async fn request_data(&self, channel: &mut Channel, token: &str) -> Value {
        let reply = self.post(path::REQUEST_DATA, &[("token", token)]).await;
        assert_eq!(reply.status(), StatusCode::ACCEPTED);
        let request = header(&reply, protocol::REQUEST_ID);
        channel.ack(&header(&reply, protocol::COMMAND_ID)).await;
        channel.find(protocol::TYPE_REQUEST, &request).await
    }

    /// The whole fetch flow, inline or by address.
    pub(crate) async fn fetch(&self, channel: &mut Channel, token: &str) -> Vec<u8> {
        let answer = self.request_data(channel, token).await;
        let text = answer["body"].as_str().unwrap();
        if answer["output_type"] == 0 {
            return STANDARD.decode(text).unwrap();
        }
        let reply = self.http.get(text).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        reply.bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn delete(&self, channel: &mut Channel, token: &str) -> Value {
        let id = self.command(path::DELETE, &[("token", token)]).await;
        channel.settled(&id).await
    }

    pub(crate) async fn list(&self, query: &[(&str, &str)]) -> Value {
        let reply = self.get(&with_query(path::LIST, query)).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await
    }

    /// The names on a page.
    pub(crate) async fn names(&self, query: &[(&str, &str)]) -> Vec<String> {
        let page = self.list(query).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["fileName"].as_str().unwrap().to_owned()).collect()
    }

    /// Puts a fault plan with these rules in force.
    pub(crate) async fn faults(&self, rules: Value) {
        self.control("faults", &json!({ "seed": 1, "rules": rules })).await;
    }

    pub(crate) async fn control(&self, what: &str, value: &Value) {
        let request = self.request(Method::POST, &format!("/_engine/{what}"));
        let reply = request.body(value.to_string()).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::NO_CONTENT);
    }
}

pub(crate) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

pub(crate) fn header(reply: &Response, name: &str) -> String {
    reply.headers()[name].to_str().unwrap().to_owned()
}

pub(crate) async fn body(reply: Response) -> Value {
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

/// A socket, and the messages that arrived while another was awaited.
pub(crate) struct Channel {
    pub(crate) socket: Ws,
    pub(crate) seen: VecDeque<Value>,
}

impl Channel {
    pub(crate) async fn ask(&mut self, action: &str, data: Value) -> Value {
        let request = json!({ "action": action, "correlationId": "c-1", "data": data });
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        self.wait(|message| message["correlationId"] == "c-1").await
    }

    /// The next message, or `None` when the socket has closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
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
    pub(crate) async fn find(&mut self, kind: &str, id: &str) -> Value {
        let message = self
            .wait(|message| message["data"]["type"] == kind && message["data"]["id"] == id)
            .await;
        message["data"].clone()
    }

    pub(crate) async fn settled(&mut self, id: &str) -> Value {
        self.find(protocol::TYPE_COMMAND, id).await
    }

    pub(crate) async fn ack(&mut self, id: &str) {
        assert_eq!(self.settled(id).await["command_status"], 2);
    }
}
