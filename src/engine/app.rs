//! What every handler shares, and how an accepted command runs to its ack.
//!
//! A command is answered `202` at once and runs in its own task, which outlives the
//! connection. Its outcome is committed together with its effect, so a poll after a
//! restart tells the truth; only then does the ack go out.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use axum::http::{HeaderMap, header};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::commit::{Committer, Durability, Tx};
use super::db::{Db, Records, Space, StorageError};
use super::downloads::Downloads;
use super::faults::{ACK, Fault, Faults, Moment, WS};
use super::gate::{Gate, Ticket};
use super::hub::Hub;
use super::listing::Listings;
use super::metrics::Counters;
use super::payload::Files;
use super::records::Command;
use super::refusal::Refusal;
use super::replicas::Replicas;
use super::secrets::{DeviceSecrets, StreamTokens};
use super::shape::Shape;
use super::{EngineConfig, tokens};
use crate::env::Env;
use crate::protocol;

/// Data requests whose outcome can still be polled; they are not committed.
const REMEMBERED_READS: usize = 4_096;
/// Passwords stretched at once: each takes a core for a tenth of a second.
const STRETCHERS: usize = 2;

/// The engine's shared state.
pub(super) struct App {
    pub env: Env,
    pub config: EngineConfig,
    /// `http://host:port` of the listener.
    pub base: String,
    pub db: Arc<Db>,
    pub files: Arc<Files>,
    pub replicas: Arc<Replicas>,
    pub listings: Arc<Listings>,
    pub committer: Committer,
    pub hub: Hub,
    pub faults: Faults,
    pub shape: RwLock<Shape>,
    pub counters: Counters,
    pub downloads: Downloads,
    /// Operations that wait for a vote.
    pub gate: Gate,
    pub stream_tokens: StreamTokens,
    pub device_secrets: DeviceSecrets,
    /// The engine's public key, as published.
    pub public_key: String,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub stretchers: Semaphore,
    /// Upload tokens in use or used up, until their reservation expires.
    pub used_uploads: Mutex<HashMap<String, u64>>,
    /// Life of an authorization token from a login, in milliseconds.
    pub session_ms: AtomicU64,
    running: Mutex<HashSet<Uuid>>,
    /// When the last complete sweep began; what ran out before is gone.
    swept: AtomicU64,
    reads: Mutex<LruCache<Uuid, Option<String>>>,
}

/// The parts that `Engine::start` puts together.
pub(super) struct Parts {
    pub env: Env,
    pub config: EngineConfig,
    pub base: String,
    pub db: Arc<Db>,
    pub files: Arc<Files>,
    pub replicas: Arc<Replicas>,
    pub listings: Arc<Listings>,
    pub committer: Committer,
    pub stream_tokens: StreamTokens,
    pub device_secrets: DeviceSecrets,
    pub public_key: String,
}

/// A command as its poll sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Running,
    Succeeded,
    Rejected(String),
}

impl App {
    pub(super) fn new(parts: Parts) -> Self {
        let ttl = parts.config.session_ttl.as_millis();
        let session_ms = AtomicU64::new(u64::try_from(ttl).unwrap_or(u64::MAX));
        let shape = RwLock::new(parts.config.shape.clone());
        let remembered = NonZeroUsize::new(REMEMBERED_READS).unwrap_or(NonZeroUsize::MIN);
        Self {
            env: parts.env,
            config: parts.config,
            base: parts.base,
            db: parts.db,
            files: parts.files,
            replicas: parts.replicas,
            listings: parts.listings,
            committer: parts.committer,
            hub: Hub::default(),
            faults: Faults::default(),
            shape,
            counters: Counters::default(),
            downloads: Downloads::default(),
            gate: Gate::default(),
            stream_tokens: parts.stream_tokens,
            device_secrets: parts.device_secrets,
            public_key: parts.public_key,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stretchers: Semaphore::new(STRETCHERS),
            used_uploads: Mutex::new(HashMap::new()),
            session_ms,
            running: Mutex::new(HashSet::new()),
            swept: AtomicU64::new(0),
            reads: Mutex::new(LruCache::new(remembered)),
        }
    }

    /// Milliseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        self.env.millis()
    }

    /// Life of an authorization token from a login.
    pub(super) fn session_ttl(&self) -> Duration {
        Duration::from_millis(self.session_ms.load(Ordering::Relaxed))
    }

    /// A new id whose order is that of its making.
    pub(super) fn new_id(&self) -> Uuid {
        let mut random = [0; 10];
        self.env.random.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(self.now(), &random).into_uuid()
    }

    /// Waits without occupying a thread; not longer than the engine runs.
    pub(super) async fn pause(&self, duration: Duration) {
        if !duration.is_zero() {
            self.stop.run_until_cancelled(tokio::time::sleep(duration)).await;
        }
    }

    /// The configured latency.
    pub(super) async fn lag(&self) {
        self.pause(self.config.latency).await;
    }

    /// Runs something long and silent off the async threads, a few at a time.
    pub(super) async fn stretch<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _permit = self.stretchers.acquire().await;
        let outcome = tokio::task::spawn_blocking(work).await;
        outcome.map_err(|_| Refusal::Storage(StorageError::Stopped))
    }

    /// Accepts a command: starts `prepare` and then `step` in a task of their own, and
    /// returns the id for the `202`. `step` may return what it made, for [`Command::made`].
    pub(super) async fn accept<P: Send + 'static>(
        self: &Arc<Self>,
        op: &'static str,
        profile: Option<Uuid>,
        durability: Durability,
        prepare: impl Future<Output = Result<P, Refusal>> + Send + 'static,
        step: impl FnOnce(&mut Tx<'_>, P) -> Result<Option<String>, Refusal> + Send + 'static,
    ) -> Uuid {
        self.accept_as(self.new_id(), op, profile, durability, prepare, step).await
    }

    /// As [`App::accept`], under an id from [`App::new_id`]: for a command that makes
    /// something which is known by the command's id from then on.
    pub(super) async fn accept_as<P: Send + 'static>(
        self: &Arc<Self>,
        id: Uuid,
        op: &'static str,
        profile: Option<Uuid>,
        durability: Durability,
        prepare: impl Future<Output = Result<P, Refusal>> + Send + 'static,
        step: impl FnOnce(&mut Tx<'_>, P) -> Result<Option<String>, Refusal> + Send + 'static,
    ) -> Uuid {
        self.accept_with(id, op, profile, durability, |_| prepare, step).await
    }

    /// As [`App::accept_as`], for a preparation that knows its command.
    pub(super) async fn accept_with<P, F>(
        self: &Arc<Self>,
        id: Uuid,
        op: &'static str,
        profile: Option<Uuid>,
        durability: Durability,
        prepare: impl FnOnce(Ticket) -> F,
        step: impl FnOnce(&mut Tx<'_>, P) -> Result<Option<String>, Refusal> + Send + 'static,
    ) -> Uuid
    where
        P: Send + 'static,
        F: Future<Output = Result<P, Refusal>> + Send + 'static,
    {
        self.begin(id);
        let fault = self.faults.strike(Moment::Ack, &[op, ACK]);
        let early = fault == Some(Fault::EarlyAck);
        let answered = CancellationToken::new();
        let prepare = prepare(Ticket { command: id, answered: answered.clone() });
        let app = Arc::clone(self);
        // The handler waits only when the ack has to be early.
        let done = answered.clone().drop_guard();
        self.tasks.spawn(async move {
            let outcome = match &fault {
                Some(Fault::RejectAck { reason }) => {
                    app.reject(id, profile, Refusal::Rejected(reason.clone())).await
                }
                _ => app.run(id, profile, durability, prepare, step).await,
            };
            app.finish(id);
            match &outcome {
                Ok(()) => tracing::debug!(op, %id, "command succeeded"),
                Err(refusal) => tracing::debug!(op, %id, %refusal, "command rejected"),
            }
            if let Some(profile) = profile {
                app.ack(profile, id, outcome.err(), fault).await;
            }
            drop(done);
        });
        if early {
            answered.cancelled().await;
        }
        id
    }

    /// Notes that a command is under way.
    pub(super) fn begin(&self, id: Uuid) {
        self.running.lock().insert(id);
    }

    /// Notes that a command's outcome can be read.
    pub(super) fn finish(&self, id: Uuid) {
        self.running.lock().remove(&id);
    }

    async fn run<P: Send + 'static>(
        &self,
        id: Uuid,
        profile: Option<Uuid>,
        durability: Durability,
        prepare: impl Future<Output = Result<P, Refusal>> + Send,
        step: impl FnOnce(&mut Tx<'_>, P) -> Result<Option<String>, Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let prepared = match prepare.await {
            Ok(prepared) => prepared,
            Err(refusal) => return self.reject(id, profile, refusal).await,
        };
        // The outer result is the commit's, the inner one the command's: a rejection is
        // committed too.
        self.committer
            .run(durability, move |tx| {
                let outcome = tx.attempt(|tx| step(tx, prepared));
                let (rejected, made) = match &outcome {
                    Ok(made) => (None, made.clone()),
                    Err(refusal) => (Some(refusal.key().to_owned()), None),
                };
                let record = Command { profile, rejected, made };
                tx.put(Space::Commands, id.as_bytes(), &record)?;
                Ok::<_, StorageError>(outcome.map(drop))
            })
            .await?
    }

    async fn reject(
        &self,
        id: Uuid,
        profile: Option<Uuid>,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let record = Command { profile, rejected: Some(refusal.key().to_owned()), made: None };
        let put = move |tx: &mut Tx<'_>| tx.put(Space::Commands, id.as_bytes(), &record);
        self.committer.run(Durability::Process, put).await?;
        Err(refusal)
    }

    /// Sends a command's ack after the latency, as far as the fault plan lets it.
    pub(super) async fn ack(
        &self,
        profile: Uuid,
        id: Uuid,
        refusal: Option<Refusal>,
        fault: Option<Fault>,
    ) {
        if matches!(refusal, Some(Refusal::Storage(StorageError::Stopped))) {
            // Nothing is promised and nothing denied: the client has to find out.
            return;
        }
        let settled = match &refusal {
            None => {
                let text = json!("Command completed successfully");
                ack_message(id, protocol::STATUS_SUCCEEDED, &text)
            }
            Some(refusal) => ack_message(id, protocol::STATUS_REJECTED, &json!(refusal.key())),
        };
        self.lag().await;
        if fault == Some(Fault::PendingAck) {
            let pending = ack_message(id, protocol::STATUS_PENDING, &Value::Null);
            self.push(profile, &pending);
        }
        if self.deliver(profile, &settled, fault).await {
            self.counters.ack();
        }
    }

    /// Sends an ack or a data answer, bent by `fault`; tells whether it was sent.
    pub(super) async fn deliver(
        &self,
        profile: Uuid,
        message: &Value,
        fault: Option<Fault>,
    ) -> bool {
        match fault {
            Some(Fault::LoseAck) => return false,
            Some(Fault::CutSocket) => {
                self.hub.cut(profile);
                return false;
            }
            Some(Fault::LateAck { ms }) => self.pause(Duration::from_millis(ms)).await,
            Some(Fault::DuplicateAck) => self.push(profile, message),
            _ => {}
        }
        self.push(profile, message);
        true
    }

    /// Puts a message on the profile's channel now.
    pub(super) fn push(&self, profile: Uuid, message: &Value) {
        let text = Utf8Bytes::from(message.to_string());
        match self.faults.strike(Moment::Push, &[WS]) {
            Some(Fault::CutSocket) => self.hub.cut(profile),
            Some(Fault::LoseAck) => {}
            Some(Fault::DuplicateAck) => {
                self.hub.broadcast(profile, &text, self.now());
                self.hub.broadcast(profile, &text, self.now());
            }
            _ => self.hub.broadcast(profile, &text, self.now()),
        }
    }

    /// Remembers how a data request's command ended, which is not committed.
    pub(super) fn remember_read(&self, id: Uuid, rejected: Option<String>) {
        self.reads.lock().put(id, rejected);
    }

    /// Where a command stands; `None` for an unknown one.
    pub(super) fn progress(&self, id: Uuid) -> Result<Option<Progress>, StorageError> {
        // In this order: a command leaves `running` only after its outcome is readable.
        if self.running.lock().contains(&id) {
            return Ok(Some(Progress::Running));
        }
        let settled = |rejected: Option<String>| match rejected {
            None => Progress::Succeeded,
            Some(reason) => Progress::Rejected(reason),
        };
        if let Some(rejected) = self.reads.lock().get(&id) {
            return Ok(Some(settled(rejected.clone())));
        }
        let command: Option<Command> = self.db.load(Space::Commands, id.as_bytes())?;
        Ok(command.map(|command| settled(command.rejected)))
    }

    /// Removes what has run out: reservations with their data, sessions, old outcomes,
    /// download tokens, buffered messages.
    pub(super) async fn sweep(self: &Arc<Self>) -> Result<(), StorageError> {
        let now = self.now();
        self.hub.sweep(now);
        self.downloads.sweep(now);
        self.used_uploads.lock().retain(|_, expires_at| *expires_at > now);
        // A clock that was set back makes the sweep start over.
        let since = Some(self.swept.load(Ordering::Relaxed)).filter(|since| *since <= now);
        super::sweep::expire_records(self, since.unwrap_or(0), now).await?;
        self.swept.store(now, Ordering::Relaxed);
        super::sweep::reclaim(self).await
    }

    /// Where a client reaches the engine: the listener's address, or on an unspecified
    /// one, the name the client used.
    pub(super) fn base(&self, headers: &HeaderMap) -> String {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match host.filter(|_| self.config.listen.ip().is_unspecified()) {
            Some(host) => format!("http://{host}"),
            None => self.base.clone(),
        }
    }

    /// The live token of a name that a profile owns.
    pub(super) fn own_token(&self, profile: Uuid, name: &str) -> Result<tokens::Found, Refusal> {
        tokens::own(&*self.db, profile, name, self.now())
    }
}

/// The channel message that settles a command, or says it is pending (B.5).
pub(super) fn ack_message(id: Uuid, status: u8, body: &Value) -> Value {
    json!({ "data": {
        "type": protocol::TYPE_COMMAND, "id": id, "command_status": status, "body": body,
    }})
}
