//! The channel: one WebSocket per profile and process, owned by one task (protocol B.5).
//!
//! * The task connects, joins, reads, pings, and reconnects with backoff; everybody else
//!   sees its state through a watch and gets messages through the two meeting places.
//! * A channel that came back says so by a higher `joins`: acknowledgements of the gap are
//!   lost, so whoever waits then polls once (commands) or asks again (data requests).
//! * A new authorization token is joined on the same socket, so that no message is missed.
//! * Every step has a deadline; a silent socket is given up after two pings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::config::ClientConfig;
use super::push::{self, Ack, Answer, Push};
use super::rendezvous::Rendezvous;
use super::reply::{kind_of_status, presentable};
use super::session::Session;
use super::transport::{Connection, Incoming};
use super::wire::Wire;
use crate::env::Env;
use crate::env::tasks::Task;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// First pause between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause between attempts to connect; a caller in need cuts it short.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that held this long resets the backoff.
const HELD: Duration = Duration::from_secs(10);
/// How long sending a frame may take.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How often unclaimed messages are looked through, while there are any.
const SWEEP: Duration = Duration::from_secs(1);
/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Whether the channel is up, and since when it is so.
#[derive(Clone, Debug)]
pub struct ChannelState {
    /// Joined, and as far as known alive.
    pub connected: bool,
    /// Since when `connected` is as it is.
    pub since: SystemTime,
    /// Joins so far.
    pub joins: u64,
    /// Attempts to connect that failed, ever.
    pub failures: u64,
    /// Why it is not connected, for a person.
    pub error: Option<String>,
}

/// The channel as callers see it.
pub(super) struct Channel {
    pub(super) acks: Rendezvous<Ack>,
    pub(super) answers: Rendezvous<Answer>,
    state: watch::Receiver<ChannelState>,
    foreign: watch::Receiver<u64>,
    poke: Arc<Notify>,
    closing: CancellationToken,
    task: Mutex<Option<Task<()>>>,
}

impl Channel {
    /// Starts the task, which begins to connect at once. Needs a tokio runtime.
    pub(super) fn start(
        config: &ClientConfig,
        wire: Wire,
        session: Arc<Session>,
        env: Env,
    ) -> Self {
        let (acks, answers) = (Rendezvous::default(), Rendezvous::default());
        let state = watch::Sender::new(ChannelState {
            connected: false,
            since: env.clock.now(),
            joins: 0,
            failures: 0,
            error: None,
        });
        let foreign = watch::Sender::new(0);
        let (poke, closing) = (Arc::new(Notify::new()), CancellationToken::new());
        let (state_seen, foreign_seen) = (state.subscribe(), foreign.subscribe());
        let owner = Owner {
            url: config.ws_url.clone(),
            connect_timeout: config.connect_timeout,
            ping_interval: config.ping_interval,
            wire,
            session,
            env: env.clone(),
            acks: acks.clone(),
            answers: answers.clone(),
            state,
            foreign,
            poke: Arc::clone(&poke),
            closing: closing.clone(),
        };
        let task = Mutex::new(Some(env.spawn(owner.run())));
        Self { acks, answers, state: state_seen, foreign: foreign_seen, poke, closing, task }
    }

    /// The state, to look at and to watch.
    pub(super) fn state(&self) -> watch::Receiver<ChannelState> {
        self.state.clone()
    }

    /// Changes when another client of the profile did something.
    pub(super) fn foreign(&self) -> watch::Receiver<u64> {
        self.foreign.clone()
    }

    /// Waits until the channel is joined: until the next attempt has failed, or `limit`.
    pub(super) async fn ready(&self, limit: Duration, operation: &'static str) -> StoreResult<()> {
        let mut state = self.state.clone();
        let seen = state.borrow().failures;
        if state.borrow().connected {
            return Ok(());
        }
        self.poke.notify_one();
        let settled = timeout(limit, state.wait_for(|s| s.connected || s.failures > seen)).await;
        let why = match settled {
            Ok(Ok(state)) if state.connected => return Ok(()),
            Ok(Ok(state)) => state.error.clone().unwrap_or_default(),
            Ok(Err(_)) => "the client is closed".into(),
            Err(_) => format!("the channel is not connected after {} s", limit.as_secs_f32()),
        };
        Err(StoreError::new(StoreErrorKind::Unavailable, operation, why))
    }

    /// Whether the client was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Ends the task; the socket is closed if that goes quickly.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let task = self.task.lock().take();
        if let Some(mut task) = task
            && timeout(CLOSE_LIMIT, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

struct Owner {
    url: Url,
    connect_timeout: Duration,
    ping_interval: Duration,
    wire: Wire,
    session: Arc<Session>,
    env: Env,
    acks: Rendezvous<Ack>,
    answers: Rendezvous<Answer>,
    state: watch::Sender<ChannelState>,
    foreign: watch::Sender<u64>,
    poke: Arc<Notify>,
    closing: CancellationToken,
}

/// A connection that is joined, and the joins sent on it.
struct Joined {
    connection: Box<dyn Connection>,
    correlations: VecDeque<String>,
    generation: u64,
}

impl Owner {
    async fn run(self) {
        self.keep_connected().await;
        self.is_down("the client is closed".into(), 0);
    }

    async fn keep_connected(&self) {
        let closing = self.closing.clone();
        let mut backoff = BACKOFF_MIN;
        loop {
            let attempt = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                attempt = self.connect() => attempt,
            };
            match attempt {
                Ok(joined) => {
                    self.is_up();
                    let since = Instant::now();
                    let Some(why) = self.serve(joined).await else { return };
                    tracing::info!(reason = why, "channel lost; reconnecting");
                    self.is_down(why, 0);
                    if since.elapsed() >= HELD {
                        backoff = BACKOFF_MIN;
                    }
                }
                Err(why) => {
                    tracing::debug!(reason = why, "channel not connected");
                    self.is_down(why, 1);
                }
            }
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                () = self.pause(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits between attempts: `backoff` with jitter, or less if somebody needs the
    /// channel now, but never less than the shortest.
    async fn pause(&self, backoff: Duration) {
        sleep(BACKOFF_MIN).await;
        let spread = self.env.random_u64() % 1_000;
        let rest = backoff.saturating_sub(BACKOFF_MIN).mul_f64(0.5 + spread as f64 / 2_000.0);
        tokio::select! {
            biased;
            // Before the time, so that a call for the channel is used up by this pause and
            // does not cut the next one short.
            () = self.poke.notified() => {}
            () = sleep(rest) => {}
        }
    }

    fn is_up(&self) {
        let since = self.env.clock.now();
        self.state.send_modify(|state| {
            let (joins, failures) = (state.joins + 1, state.failures);
            *state = ChannelState { connected: true, since, joins, failures, error: None };
        });
    }

    fn is_down(&self, why: String, failures: u64) {
        let since = self.env.clock.now();
        self.state.send_modify(|state| {
            if state.connected {
                state.since = since;
            }
            state.connected = false;
            state.failures += failures;
            state.error = Some(why);
        });
    }

    async fn connect(&self) -> Result<Joined, String> {
        let grant = self.session.grant().await.map_err(|error| error.to_string())?;
        match self.join(grant.token.expose(), grant.generation).await {
            Err(Refusal { unauthenticated: true, .. }) => {
                let renewed = self.session.renew(grant.generation).await;
                let grant = renewed.map_err(|error| error.to_string())?;
                self.join(grant.token.expose(), grant.generation)
                    .await
                    .map_err(|refusal| refusal.why)
            }
            other => other.map_err(|refusal| refusal.why),
        }
    }

    async fn join(&self, token: &str, generation: u64) -> Result<Joined, Refusal> {
        let connection = self.wire.connect(&self.url).await?;
        let mut joined = Joined { connection, correlations: VecDeque::new(), generation };
        self.send_join(&mut joined, token).await?;
        let reply = async {
            loop {
                match next_text(&mut *joined.connection).await? {
                    None => {}
                    Some(text) => match push::read(&text, joined.correlations.make_contiguous()) {
                        Push::Joined => return Ok(()),
                        Push::Refused { status, text } => return Err(refusal(status, &text)),
                        // What was buffered before the join may come first.
                        other => self.dispatch(other),
                    },
                }
            }
        };
        match timeout(self.connect_timeout, reply).await {
            Ok(outcome) => outcome.map(|()| joined),
            Err(_) => Err(Refusal::from("no reply to the join".to_owned())),
        }
    }

    async fn send_join(&self, joined: &mut Joined, token: &str) -> Result<(), String> {
        let mut bytes = [0; 16];
        self.env.random.fill(&mut bytes);
        let correlation = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
        let message = push::join_message(token, &correlation);
        joined.correlations.push_back(correlation);
        if joined.correlations.len() > 4 {
            joined.correlations.pop_front();
        }
        sent(joined.connection.send(message)).await
    }

    /// Serves a joined socket; returns why it ended, or `None` when the client closes.
    async fn serve(&self, mut joined: Joined) -> Option<String> {
        let mut ping = interval(self.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut generations = self.session.generations();
        // The token may have changed while the join was under way.
        generations.mark_changed();
        let mut heard = Instant::now();
        loop {
            let has_strays = self.acks.has_strays() || self.answers.has_strays();
            // Texts may come without a pause, so what is rare and must not wait stands before
            // them: the end, a new token, and the look for strays, once a second. The ping
            // stands behind them: what has arrived counts before silence is judged, and while
            // texts come no sign of life need be asked for.
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    let _ = timeout(CLOSE_LIMIT / 2, joined.connection.close()).await;
                    return None;
                }
                changed = generations.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    if let Err(why) = self.rejoin(&mut joined).await {
                        return Some(why);
                    }
                }
                _ = sweep.tick(), if has_strays => self.sweep(),
                text = next_text(&mut *joined.connection) => {
                    heard = Instant::now();
                    match text {
                        Err(why) => return Some(why),
                        Ok(None) => {}
                        Ok(Some(text)) => {
                            match push::read(&text, joined.correlations.make_contiguous()) {
                                Push::Refused { status, text } => {
                                    return Some(refusal(status, &text).why);
                                }
                                other => self.dispatch(other),
                            }
                        }
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > self.ping_interval * 2 {
                        return Some("no sign of life from the service".into());
                    }
                    if let Err(why) = sent(joined.connection.ping()).await {
                        return Some(why);
                    }
                }
            }
        }
    }

    async fn rejoin(&self, joined: &mut Joined) -> Result<(), String> {
        let grant = self.session.grant().await.map_err(|error| error.to_string())?;
        if grant.generation == joined.generation {
            return Ok(());
        }
        joined.generation = grant.generation;
        self.send_join(joined, grant.token.expose()).await
    }

    fn sweep(&self) {
        self.answers.sweep(|_| false);
        if self.acks.sweep(Ack::is_change) {
            self.foreign.send_modify(|count| *count += 1);
        }
    }

    fn dispatch(&self, push: Push) {
        match push {
            Push::Acknowledged { id, ack } => self.acks.deliver(&id, ack),
            Push::Answered { id, other, answer } => {
                if let Some(other) = other {
                    self.answers.deliver(&other, answer.clone());
                }
                self.answers.deliver(&id, answer);
            }
            Push::Joined | Push::Refused { .. } | Push::Nothing => {}
        }
    }
}

/// Why a join failed.
struct Refusal {
    why: String,
    unauthenticated: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, unauthenticated: false }
    }
}

fn refusal(status: u64, text: &str) -> Refusal {
    let kind = u16::try_from(status).map_or(StoreErrorKind::Protocol, kind_of_status);
    let unauthenticated = matches!(kind, StoreErrorKind::Unauthenticated | StoreErrorKind::Denied);
    let why =
        format!("the service refused the channel with status {status}: {}", presentable(text));
    Refusal { why, unauthenticated }
}

/// The next message, if it is text. Safe to cancel, as receiving is.
async fn next_text(connection: &mut dyn Connection) -> Result<Option<String>, String> {
    match connection.receive().await? {
        Incoming::Text(text) => Ok(Some(text)),
        Incoming::Closed => Err("the service closed the channel".into()),
        Incoming::Binary(_) | Incoming::Keepalive => Ok(None),
    }
}

async fn sent(sending: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match timeout(SEND_LIMIT, sending).await {
        Ok(outcome) => outcome,
        Err(_) => Err("the channel does not take messages".into()),
    }
}
