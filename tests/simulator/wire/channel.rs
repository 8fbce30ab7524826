//! The service's side of the channel, and the connections it is reached by.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use privicorefs::privicore::transport::{Connection, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::transport::Wire;

type Message = Result<Incoming, String>;

/// All open connections of the profile.
#[derive(Default)]
pub(super) struct Hub {
    lines: Vec<Line>,
    made: u64,
}

struct Line {
    id: u64,
    joined: bool,
    mute: bool,
    out: UnboundedSender<Message>,
}

impl Line {
    fn say(&self, message: Message) {
        if !self.mute {
            // The client may have dropped its side.
            let _ = self.out.send(message);
        }
    }
}

impl Hub {
    /// A new connection, not joined yet.
    pub(super) fn open(&mut self) -> (u64, UnboundedReceiver<Message>) {
        let (out, inbox) = unbounded_channel();
        self.made += 1;
        self.lines.push(Line { id: self.made, joined: false, mute: false, out });
        (self.made, inbox)
    }

    /// Sends to whoever is joined; who is not never hears of it.
    pub(super) fn tell(&self, text: &str) {
        for line in self.lines.iter().filter(|line| line.joined) {
            line.say(Ok(Incoming::Text(text.to_owned())));
        }
    }

    /// Breaks all connections.
    pub(super) fn cut(&mut self) {
        self.lines.clear();
    }

    /// Nothing comes over the connections of now any more, and they stay open.
    pub(super) fn mute(&mut self) {
        self.lines.iter_mut().for_each(|line| line.mute = true);
    }

    fn line(&mut self, id: u64) -> Result<&mut Line, String> {
        let mut lines = self.lines.iter_mut();
        lines.find(|line| line.id == id).ok_or_else(|| "broken pipe".to_owned())
    }

    fn drop_line(&mut self, id: u64) {
        self.lines.retain(|line| line.id != id);
    }

    /// Answers what a client sends: a join, if its token `counts`.
    fn hear(&mut self, id: u64, text: &str, counts: impl Fn(&str) -> bool) -> Result<(), String> {
        let line = self.line(id)?;
        let asked: Value = serde_json::from_str(text).unwrap_or_default();
        if asked["action"] != "joinChannel" {
            return Ok(());
        }
        let token = asked["data"]["authorizationToken"].as_str().unwrap_or_default();
        let correlation = &asked["correlationId"];
        let reply = if counts(token) {
            line.joined = true;
            let data = json!({"channelId": format!("channel-{id}"), "message": "joined"});
            json!({"correlationId": correlation, "status": 200, "data": data})
        } else {
            let data = json!({"message": "invalid token"});
            json!({"correlationId": correlation, "status": 401, "data": data})
        };
        line.say(Ok(Incoming::Text(reply.to_string())));
        Ok(())
    }
}

/// A client's side of a connection of the channel.
pub(super) struct Joinable {
    pub(super) wire: Wire,
    pub(super) id: u64,
    pub(super) inbox: UnboundedReceiver<Message>,
}

#[async_trait]
impl Connection for Joinable {
    async fn receive(&mut self) -> Result<Incoming, String> {
        match self.inbox.recv().await {
            Some(message) => message,
            None => Err("connection reset by peer".into()),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), String> {
        self.wire.latency().await;
        let mut state = self.wire.state();
        let super::transport::State { hub, vault, .. } = &mut *state;
        hub.hear(self.id, &text, |token| vault.authorizes(Some(token)))
    }

    async fn ping(&mut self) -> Result<(), String> {
        self.wire.latency().await;
        self.wire.state().hub.line(self.id)?.say(Ok(Incoming::Keepalive));
        Ok(())
    }

    async fn close(&mut self) {
        self.wire.state().hub.drop_line(self.id);
    }
}

impl Drop for Joinable {
    fn drop(&mut self) {
        self.wire.state().hub.drop_line(self.id);
    }
}

/// A payload in binary messages; what is left when it breaks or stalls never comes.
pub(super) struct Pieces {
    pub(super) pieces: std::vec::IntoIter<Bytes>,
    pub(super) end: PiecesEnd,
}

/// How such a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PiecesEnd {
    Closed,
    Broken,
    Stalled,
}

#[async_trait]
impl Connection for Pieces {
    async fn receive(&mut self) -> Result<Incoming, String> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match (self.pieces.next(), self.end) {
            (Some(piece), _) => Ok(Incoming::Binary(piece)),
            (None, PiecesEnd::Closed) => Ok(Incoming::Closed),
            (None, PiecesEnd::Broken) => Err("connection reset by peer".into()),
            (None, PiecesEnd::Stalled) => std::future::pending().await,
        }
    }

    async fn send(&mut self, _text: String) -> Result<(), String> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&mut self) {}
}
