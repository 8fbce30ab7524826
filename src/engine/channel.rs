//! The WebSocket proxy of B.5: join, leave, and the pushed messages.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::app::App;
use super::hub::{Outbox, Socket};
use super::refusal::Refusal;
use super::{oauth, profiles, scopes, secrets};

const PING: Duration = Duration::from_secs(30);
/// Requests on the channel are small.
const INCOMING_BYTES: usize = 64 << 10;

/// Upgrades a connection to the channel.
pub(super) fn upgrade(app: Arc<App>, ws: WebSocketUpgrade) -> Response {
    let tracker = app.tasks.clone();
    ws.max_message_size(INCOMING_BYTES).on_upgrade(move |socket| {
        let session = Session::start(app);
        tracker.track_future(session.run(socket))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    action: String,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    data: RequestData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestData {
    authorization_token: Option<String>,
    correlation_id: Option<String>,
    channel_id: Option<String>,
}

/// One socket; at most one channel at a time.
struct Session {
    app: Arc<App>,
    socket: Socket,
    outbox: Outbox,
    cut: CancellationToken,
    joined: Option<(Uuid, Uuid)>,
}

impl Session {
    fn start(app: Arc<App>) -> Self {
        let cut = app.stop.child_token();
        let (socket, outbox) = Socket::new(app.new_id(), cut.clone());
        Self { app, socket, outbox, cut, joined: None }
    }

    async fn run(mut self, socket: WebSocket) {
        let cut = self.cut.clone();
        // Cutting drops the socket wherever it is, even in a send that does not move.
        if cut.run_until_cancelled(self.serve(socket)).await.is_none() {
            tracing::debug!("socket cut");
        }
        self.leave();
    }

    async fn serve(&mut self, mut socket: WebSocket) {
        let mut ping = tokio::time::interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut messages = Vec::new();
        loop {
            // The ping is rare. What the client sends comes before what waits for it: one that
            // sends without a pause delays its own messages only, while messages without a
            // pause would keep its close from being seen.
            let alive = tokio::select! {
                biased;
                _ = ping.tick() => socket.send(Message::Ping(Bytes::new())).await.is_ok(),
                incoming = socket.next() => match incoming {
                    Some(Ok(Message::Text(text))) => match self.answer(&text) {
                        Some(reply) => socket.send(Message::Text(reply)).await.is_ok(),
                        None => true,
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                    Some(Ok(_)) => true,
                },
                _ = self.outbox.take(&mut messages) => push(&mut socket, &mut messages).await,
            };
            if !alive {
                break;
            }
        }
    }

    /// The reply to a request; none to what is not one.
    fn answer(&mut self, text: &str) -> Option<Utf8Bytes> {
        let Ok(request) = serde_json::from_str::<Request>(text) else {
            return Some(reply(None, 400, json!({ "message": "not a channel request" })));
        };
        let Request { action, correlation_id, data } = request;
        let correlation = correlation_id.or(data.correlation_id.clone());
        let (status, body) = match action.as_str() {
            "joinChannel" => self.join(&data),
            "leaveChannel" => self.leave_channel(&data),
            _ => (400, json!({ "message": "unknown action" })),
        };
        let reply = reply(correlation, status, body);
        if action == "joinChannel" && status == 200 {
            // Behind the reply, so that the client sees the reply first.
            self.socket.send(reply);
            if let Some((profile, _)) = self.joined {
                self.app.hub.join(profile, &self.socket, self.app.now());
            }
            return None;
        }
        Some(reply)
    }

    fn join(&mut self, data: &RequestData) -> (u16, Value) {
        let token = data.authorization_token.as_deref().unwrap_or_default();
        let profile = match self.profile(&secrets::digest(token)) {
            Ok(profile) => profile,
            Err(Refusal::Scope) => return (403, json!({ "message": Refusal::Scope.to_string() })),
            Err(_) => return (401, json!({ "message": "invalid token" })),
        };
        self.leave();
        let channel = self.app.new_id();
        self.joined = Some((profile, channel));
        let message = "Successfully joined profile channel.";
        (200, json!({ "channelId": channel, "message": message }))
    }

    /// The profile of a login's token, or of an access token that may see data: the
    /// answers to every data request of the profile pass here.
    fn profile(&self, digest: &[u8; 32]) -> Result<Uuid, Refusal> {
        let (db, now) = (&*self.app.db, self.app.now());
        if let Some(session) = profiles::session(db, digest, now)? {
            return Ok(session.profile);
        }
        let access = oauth::access(db, digest, now)?.ok_or(Refusal::Unauthorized)?;
        let sees_data = scopes::cover(&access.scopes, "data_token.all");
        if sees_data { Ok(access.profile) } else { Err(Refusal::Scope) }
    }

    fn leave_channel(&mut self, data: &RequestData) -> (u16, Value) {
        let Some((_, channel)) = self.joined else {
            return (404, json!({ "message": "no channel is joined" }));
        };
        let asked = data.channel_id.as_deref();
        if asked.is_some_and(|asked| asked != channel.to_string()) {
            return (404, json!({ "message": "unknown channel" }));
        }
        self.leave();
        let message = "Successfully left profile channel.";
        (200, json!({ "channelId": channel, "message": message }))
    }

    fn leave(&mut self) {
        if let Some((profile, _)) = self.joined.take() {
            self.app.hub.leave(profile, &self.socket);
        }
    }
}

async fn push(socket: &mut WebSocket, messages: &mut Vec<Utf8Bytes>) -> bool {
    for message in messages.drain(..) {
        if socket.feed(Message::Text(message)).await.is_err() {
            return false;
        }
    }
    socket.flush().await.is_ok()
}

fn reply(correlation: Option<String>, status: u16, data: Value) -> Utf8Bytes {
    json!({ "correlationId": correlation, "status": status, "data": data }).to_string().into()
}
