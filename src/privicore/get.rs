//! Fetching a payload: request, answer on the channel, perhaps a download (protocol B.5,
//! B.8, C.4.9).
//!
//! A data request cannot be polled: what is lost is asked for again. Its links are single
//! use and its answers nobody else's, so asking twice costs work and nothing more.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Client, closed};
use super::holds;
use super::push::{Ack, Answer};
use super::reply::{CommandStatus, Reply, rejection, stream_url};
use super::secret::{Secret, SecretUrl};
use super::transport::{Call, Connection, Incoming, StreamReply};
use crate::protocol::path;
use crate::store::{Download, StoreError, StoreErrorKind, StoreResult, Token};

const GET: &str = "get";
/// How often a payload is asked for in one call.
const ROUNDS: u32 = 3;
/// How long the announcement of a payload downstream is waited for (B.5).
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(10);
/// Pauses before a link that is "not there yet" is tried again.
const NOT_YET: [u64; 4] = [100, 200, 400, 800];

/// How one request ended.
enum Round {
    Done(Download),
    /// Ask again; the error to give if that was the last time.
    Again(StoreError),
}

/// Where a payload was said to be.
enum Place {
    Here(bytes::Bytes),
    At(SecretUrl),
    /// Nowhere: ask again.
    Lost(StoreError),
}

impl Client {
    pub(super) async fn fetch(&self, token: &Token) -> StoreResult<Download> {
        let deadline = Instant::now() + self.config.ack_timeout * 2;
        let mut round = 1;
        loop {
            match self.request(token).await? {
                Round::Done(download) => return Ok(download),
                Round::Again(error)
                    if round >= ROUNDS || (Instant::now() >= deadline && !holds::was_held()) =>
                {
                    return Err(error);
                }
                Round::Again(error) => {
                    tracing::debug!(%error, round, "asking for the payload again");
                    round += 1;
                }
            }
        }
    }

    /// One data request, to its end.
    async fn request(&self, token: &Token) -> StoreResult<Round> {
        self.ready(GET).await?;
        let call = Call::form(GET, path::REQUEST_DATA, &[("token", token.as_str())]);
        let reply = self.call(&call).await?;
        if !reply.is_success() {
            return Err(self.error(&reply, GET));
        }
        match self.answer(&reply).await? {
            Place::Here(payload) => {
                let len = Some(payload.len() as u64);
                let stream = stream::once(async { Ok(payload) }).boxed();
                Ok(Round::Done(Download { len, stream }))
            }
            Place::At(url) => match self.download(&url).await {
                Ok(download) => Ok(Round::Done(download)),
                // Local troubles stay; a link that does not serve is replaced.
                Err(error) if error.kind == StoreErrorKind::Local => Err(error),
                Err(error) => Ok(Round::Again(error)),
            },
            Place::Lost(error) => Ok(Round::Again(error)),
        }
    }

    /// Waits for the answer of a request that was accepted by `reply`.
    async fn answer(&self, reply: &Reply) -> StoreResult<Place> {
        let command = reply.command_id();
        let Some(request) = reply.request_id().or_else(|| command.clone()) else {
            let what = "the service accepted the request without naming it";
            return Err(StoreError::new(StoreErrorKind::Protocol, GET, what));
        };
        let mut answers = self.channel.answers.wait(&request);
        let mut acks = command.as_ref().map(|id| self.channel.acks.wait(id));
        let mut state = self.channel.state();
        let mut joins = state.borrow_and_update().joins;
        let mut deadline = Instant::now() + self.config.ack_timeout;
        let mut held = false;
        let mut gap = self.config.probe_after;
        let mut probe = Instant::now() + gap;
        let mut pending = Pending::default();
        loop {
            let wake = pending.until.unwrap_or(probe).min(probe).min(deadline);
            tokio::select! {
                biased;
                answer = answers.next() => {
                    if let Some(place) = self.decide(answer, &mut pending) {
                        return Ok(place);
                    }
                }
                ack = next_ack(&mut acks) => match ack {
                    Ack::Done => {}
                    Ack::Rejected(text) => return Err(rejection(GET, &text)),
                    Ack::Held(pool) => if holds::tell_held(pool) {
                        (held, deadline) = (true, Instant::now() + holds::FOLLOWED);
                        (gap, probe) = (holds::POLL_HELD, Instant::now() + holds::POLL_HELD);
                    },
                },
                changed = state.changed() => {
                    if changed.is_err() {
                        return Err(closed(GET));
                    }
                    let now = state.borrow_and_update().joins;
                    if now != joins && !held {
                        return Ok(Place::Lost(lost("the channel was interrupted")));
                    }
                    // What is held may have been answered in the gap: ask at once.
                    if now != joins {
                        (joins, probe) = (now, Instant::now());
                    }
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if pending.until.is_some_and(|until| now >= until) {
                        return self.unannounced(pending);
                    }
                    let overdue = now >= deadline;
                    gap = if held { holds::POLL_HELD } else { gap * 2 };
                    probe = now + gap;
                    // A request that was served, but whose answer is not here, went
                    // elsewhere (B.5).
                    let status = match &command {
                        Some(id) if pending.token.is_none() => self.poll(id, GET).await.ok(),
                        _ => None,
                    };
                    match status {
                        Some(CommandStatus::Rejected(text)) => return Err(rejection(GET, &text)),
                        Some(CommandStatus::Succeeded) => {
                            return Ok(Place::Lost(lost("the answer went elsewhere")));
                        }
                        Some(CommandStatus::Unknown) if held => {
                            return Ok(Place::Lost(lost("the service has forgotten the request")));
                        }
                        Some(CommandStatus::Pending)
                            if overdue && !held && self.may_be_held().await =>
                        {
                            holds::tell_held(None);
                            (held, deadline) = (true, Instant::now() + holds::FOLLOWED);
                        }
                        _ if overdue => {
                            let waited = self.config.ack_timeout.as_secs_f32();
                            return Ok(Place::Lost(lost(&format!("no answer within {waited} s"))));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The download decision of B.5, message by message.
    fn decide(&self, answer: Answer, pending: &mut Pending) -> Option<Place> {
        match answer {
            Answer::Inline(payload) => Some(Place::Here(payload)),
            Answer::Link(url) | Answer::Ready(Some(url)) => Some(Place::At(url)),
            Answer::Note => None,
            Answer::Ready(None) => {
                self.learned.announces.set(true);
                pending.announced = true;
                let token = pending.token.as_ref()?;
                self.downstream(token).ok().map(Place::At)
            }
            Answer::Token(token) => {
                if (pending.announced || self.learned.announces.no())
                    && let Ok(url) = self.downstream(&token)
                {
                    return Some(Place::At(url));
                }
                pending.token = Some(token);
                pending.until = Some(Instant::now() + ANNOUNCED_WITHIN);
                None
            }
        }
    }

    /// No announcement came for a stream token: it is tried anyway.
    fn unannounced(&self, pending: Pending) -> StoreResult<Place> {
        match pending.token {
            Some(token) => {
                self.learned.announces.set(false);
                self.downstream(&token).map(Place::At)
            }
            None => Ok(Place::Lost(lost("no announcement of the payload"))),
        }
    }

    fn downstream(&self, token: &Secret) -> StoreResult<SecretUrl> {
        let base = self.config.downstream_url.as_ref();
        stream_url(token.expose(), None, None, base).ok_or_else(|| {
            let what =
                "the service named only a stream token, and no downstream server is configured";
            StoreError::new(StoreErrorKind::Unsupported, GET, what)
        })
    }

    /// Opens a link: HTTP, or a WebSocket whose binary frames are the payload.
    async fn download(&self, url: &SecretUrl) -> StoreResult<Download> {
        if url.is_websocket() {
            let opening = self.wire.connect(url.expose()).await;
            let connection =
                opening.map_err(|why| StoreError::new(StoreErrorKind::Unavailable, GET, why))?;
            return Ok(frames(connection, self.wire.idle_timeout()));
        }
        let mut pauses = NOT_YET.iter();
        loop {
            let reply = self.wire.download(GET, url.expose()).await?;
            if reply.head.is_success() {
                return Ok(body(reply, self.wire.idle_timeout()));
            }
            if matches!(reply.head.status, 404 | 425 | 503)
                && let Some(pause) = pauses.next()
            {
                sleep(Duration::from_millis(*pause)).await;
                continue;
            }
            let reply = self.wire.short_reply(GET, reply).await?;
            // The link is used up or gone; that says nothing about the token or the login.
            let what = format!("download from {url} refused: {}", reply.error_text());
            return Err(StoreError::new(StoreErrorKind::Unavailable, GET, what));
        }
    }
}

/// What is known of an answer in several messages.
#[derive(Default)]
struct Pending {
    token: Option<Secret>,
    announced: bool,
    until: Option<Instant>,
}

async fn next_ack(
    acks: &mut Option<super::rendezvous::Wait<super::push::Ack>>,
) -> super::push::Ack {
    match acks {
        Some(acks) => acks.next().await,
        None => std::future::pending().await,
    }
}

fn lost(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::TimedOut, GET, what)
}

fn stalled(idle: Duration) -> StoreError {
    let what = format!("the download stood still for {} s", idle.as_secs_f32());
    StoreError::new(StoreErrorKind::TimedOut, GET, what)
}

/// A reply's body, chunk by chunk; ends after the first error.
fn body(reply: StreamReply, idle: Duration) -> Download {
    let StreamReply { len, body, .. } = reply;
    let stream = stream::unfold(Some(body), move |state| async move {
        let mut body = state?;
        match timeout(idle, body.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Err(_) => Some((Err(stalled(idle)), None)),
        }
    });
    Download { len, stream: stream.boxed() }
}

/// A connection's binary messages until it is closed properly (B.5, third variant).
fn frames(connection: Box<dyn Connection>, idle: Duration) -> Download {
    let stream = stream::unfold(Some(connection), move |state| async move {
        let mut connection = state?;
        loop {
            let broken = match timeout(idle, connection.receive()).await {
                Ok(Ok(Incoming::Binary(chunk))) => return Some((Ok(chunk), Some(connection))),
                Ok(Ok(Incoming::Closed)) => return None,
                Ok(Ok(Incoming::Text(_) | Incoming::Keepalive)) => continue,
                Ok(Err(why)) => StoreError::new(StoreErrorKind::Unavailable, GET, why),
                Err(_) => stalled(idle),
            };
            return Some((Err(broken), None));
        }
    });
    Download { len: None, stream: stream.boxed() }
}
