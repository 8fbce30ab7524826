//! Authenticated calls, and commands with their acknowledgements.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::channel::{Channel, ChannelState};
use super::config::ClientConfig;
use super::holds::{self, Holds};
use super::learned::Learned;
use super::push::Ack;
use super::reply::{
    Authorization, CommandStatus, Reply, authorization, command_status, expiry, rejection,
    storage_count,
};
use super::session::Session;
use super::transport::{Call, CallBody, Transport};
use super::wire::Wire;
use crate::env::Env;
use crate::protocol::path;
use crate::store::{StoreError, StoreErrorKind, StoreResult, Token};

/// How often a command is polled while the channel is down.
const POLL_DISCONNECTED: Duration = Duration::from_secs(1);

/// Puts in doubt that are remembered: more than are ever under way at once.
const DOUBTS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// A connection to one Privicore profile. See the module's header.
///
/// Needs a tokio runtime for its whole life. Dropping it ends its channel.
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) wire: Wire,
    pub(super) session: Arc<Session>,
    pub(super) channel: Channel,
    pub(super) learned: Learned,
    /// Marks of puts that ended without knowing whether the last step was carried out,
    /// with their temporary tokens.
    pub(super) doubtful: Mutex<LruCache<String, Token>>,
    pub(super) holds: Holds,
    pub(super) env: Env,
    this: Weak<Client>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Logs in, joins the channel, and looks whether there is a storage device.
    ///
    /// Fails with `Unauthenticated` for wrong credentials, and with `Unavailable` or
    /// `TimedOut` where the service is not reached within the configured timeouts.
    pub async fn connect(config: ClientConfig, env: Env) -> StoreResult<Arc<Self>> {
        let client = Self::new_offline(config, env);
        client.session.grant().await?;
        // A login that failed before this one may have cost the channel an attempt.
        let limit = client.config.connect_timeout;
        if client.channel.ready(limit, "connect").await.is_err() {
            client.channel.ready(limit, "connect").await?;
        }
        client.warn_without_storage().await;
        Ok(client)
    }

    /// A client that connects in the background, again and again until it succeeds.
    /// Until then calls fail with `Unavailable`, at the latest after the connect timeout.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new_offline(config: ClientConfig, env: Env) -> Arc<Self> {
        let wire = Wire::new(&config);
        let session = Session::new(wire.clone(), &config, env.clone());
        Self::over(config, wire, session, env)
    }

    /// As [`Client::new_offline`], over another transport than HTTP and WebSockets. The
    /// addresses of `config` then mean what the transport takes them for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn over_transport(
        config: ClientConfig,
        transport: Arc<dyn Transport>,
        env: Env,
    ) -> Arc<Self> {
        let wire = Wire::over(transport, &config);
        let session = Session::new(wire.clone(), &config, env.clone());
        Self::over(config, wire, session, env)
    }

    /// A client that goes on with an authorization token from before, and has no password:
    /// `config.password` is not used. Where the token has expired, or the service refuses
    /// it, calls fail with `Unauthenticated`; there is never a login. The token is not
    /// renewed by itself: see [`Client::extend`].
    ///
    /// Asks the service nothing yet. Fails with `Local` if the token is not fit for a header.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn resume(config: ClientConfig, kept: Authorization, env: Env) -> StoreResult<Arc<Self>> {
        let wire = Wire::new(&config);
        let session = Session::resumed(wire.clone(), &config, kept, env.clone())?;
        Ok(Self::over(config, wire, session, env))
    }

    fn over(config: ClientConfig, wire: Wire, session: Session, env: Env) -> Arc<Self> {
        let session = Arc::new(session);
        let channel = Channel::start(&config, wire.clone(), Arc::clone(&session), env.clone());
        Arc::new_cyclic(|this| Self {
            config,
            wire,
            session,
            channel,
            learned: Learned::default(),
            doubtful: Mutex::new(LruCache::new(DOUBTS)),
            holds: Holds::default(),
            env,
            this: this.clone(),
        })
    }

    /// Whether the channel is up, and since when it is so.
    pub fn health(&self) -> ChannelState {
        self.channel.state().borrow().clone()
    }

    /// When the authorization in use expires; `None` while there is none, and where the
    /// service does not say.
    pub fn authorized_until(&self) -> Option<SystemTime> {
        self.session.expires()
    }

    /// What is wrong with the login and what to do about it, for a person; `None` while none
    /// is known to be refused.
    pub fn login_trouble(&self) -> Option<String> {
        self.session.trouble()
    }

    /// The authorization to go on with later ([`Client::resume`]); logs in if there is none.
    pub async fn authorize(&self) -> StoreResult<Authorization> {
        self.session.grant().await?;
        self.session.authorization().ok_or_else(|| closed("login"))
    }

    /// Itself, for what goes on after the call that began it.
    pub(super) fn shared(&self, operation: &'static str) -> StoreResult<Arc<Self>> {
        self.this.upgrade().ok_or_else(|| closed(operation))
    }

    /// Changes whenever a command was acknowledged that this client did not issue:
    /// another client of the profile did something. A hint only: it may come late, for
    /// nothing, or not at all. Not debounced.
    pub fn subscribe_foreign(&self) -> watch::Receiver<u64> {
        self.channel.foreign()
    }

    /// Leaves the channel. Calls after it fail; calls under way may.
    pub async fn close(&self) {
        self.channel.close().await;
    }

    /// Sends an authenticated call; after a 401, once more with a new token. Any status
    /// comes back as a reply, except 401, 429 and 5xx.
    pub(super) async fn call(&self, call: &Call) -> StoreResult<Reply> {
        if self.channel.is_closed() {
            return Err(closed(call.operation));
        }
        let grant = self.session.grant().await?;
        self.renew_early();
        let mut reply = self.wire.send(call, Some(&grant.token)).await?;
        if reply.status == 401 {
            self.session.renewal_over().await;
            let grant = self.session.renew(grant.generation).await?;
            reply = self.wire.send(call, Some(&grant.token)).await?;
        }
        match reply.status {
            401 | 429 | 500..=599 => Err(self.error(&reply, call.operation)),
            _ => Ok(reply),
        }
    }

    /// Waits until the channel is joined; a refused login is told as such.
    pub(super) async fn ready(&self, operation: &'static str) -> StoreResult<()> {
        match self.channel.ready(self.config.connect_timeout, operation).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.session.refusal().await.unwrap_or(error)),
        }
    }

    /// The error of a reply, without our token in it.
    pub(super) fn error(&self, reply: &Reply, operation: &'static str) -> StoreError {
        let mut error = reply.error(operation);
        error.message = self.session.redact(error.message);
        error
    }

    /// Sends a command and awaits its acknowledgement. A reply outside 2xx is an error.
    pub(super) async fn command(&self, call: &Call) -> StoreResult<Reply> {
        let reply = self.command_reply(call).await?;
        if reply.is_success() { Ok(reply) } else { Err(self.error(&reply, call.operation)) }
    }

    /// The same, but a reply outside 2xx comes back for the caller to judge.
    pub(super) async fn command_reply(&self, call: &Call) -> StoreResult<Reply> {
        self.command_within(call, self.config.ack_timeout).await
    }

    /// The same for a command that may take longer than others: up to `limit`.
    pub(super) async fn command_within(&self, call: &Call, limit: Duration) -> StoreResult<Reply> {
        self.ready(call.operation).await?;
        let reply = self.call(call).await?;
        if reply.is_success()
            && let Some(id) = awaited(&reply, call.operation)?
        {
            self.settled_within(&id, call.operation, limit).await?;
        }
        Ok(reply)
    }

    /// Awaits the acknowledgement of command `id`. A rejection is an error by its text;
    /// silence past the deadline is `TimedOut`: the outcome is unknown then. A command that
    /// a vote holds is followed for longer, where the operation is one that can be held;
    /// otherwise it is `AwaitingApproval` when the time is over.
    pub(super) async fn settled(&self, id: &str, operation: &'static str) -> StoreResult<()> {
        self.settled_within(id, operation, self.config.ack_timeout).await
    }

    async fn settled_within(
        &self,
        id: &str,
        operation: &'static str,
        limit: Duration,
    ) -> StoreResult<()> {
        let mut wait = self.channel.acks.wait(id);
        let mut state = self.channel.state();
        let mut joins = state.borrow_and_update().joins;
        let mut deadline = Instant::now() + limit;
        let mut gap = self.config.probe_after;
        let mut probe = Instant::now() + gap;
        let (mut held, mut unfollowed) = (false, None);
        loop {
            tokio::select! {
                biased;
                ack = wait.next() => match ack {
                    Ack::Done => return Ok(()),
                    Ack::Rejected(text) => return Err(rejection(operation, &text)),
                    Ack::Held(pool) => {
                        if !holds::tell_held(pool.clone()) {
                            unfollowed = Some(pool);
                            continue;
                        }
                        (held, deadline) = (true, Instant::now() + holds::FOLLOWED);
                        (gap, probe) = (holds::POLL_HELD, Instant::now() + holds::POLL_HELD);
                        continue;
                    }
                },
                changed = state.changed() => {
                    if changed.is_err() {
                        return Err(closed(operation));
                    }
                    let now = state.borrow_and_update().clone();
                    // Acknowledgements of the gap are lost (B.5): poll at once.
                    if now.joins == joins {
                        probe = probe.min(Instant::now() + POLL_DISCONNECTED);
                        continue;
                    }
                    joins = now.joins;
                }
                () = sleep_until(probe.min(deadline)) => {
                    gap = match state.borrow().connected {
                        true if held => holds::POLL_HELD,
                        true => gap * 2,
                        false => POLL_DISCONNECTED,
                    };
                    probe = Instant::now() + gap;
                }
            }
            match self.poll(id, operation).await {
                Ok(CommandStatus::Succeeded) => return Ok(()),
                Ok(CommandStatus::Rejected(text)) => return Err(rejection(operation, &text)),
                // It does not outlive the service's memory of it.
                Ok(CommandStatus::Unknown) if held => return Err(unsettled(operation, limit)),
                _ if Instant::now() < deadline => {}
                Ok(CommandStatus::Pending) if !held && self.may_be_held().await => {
                    holds::tell_held(None);
                    (held, deadline) = (true, Instant::now() + holds::FOLLOWED);
                }
                Ok(_) => {
                    return Err(match unfollowed {
                        Some(pool) => waits_for_a_vote(operation, pool),
                        None => unsettled(operation, limit),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a command that is still pending after its time can be taken to wait for a
    /// vote: without a storage device, nothing that is stored is ever acknowledged (C.4.3).
    pub(super) async fn may_be_held(&self) -> bool {
        holds::can_be_held() && self.storage_devices().await != Some(0)
    }

    /// Asks once where a command stands: `GET`, or `POST` where that is how it is asked
    /// (B.6). Remembers which one answered.
    pub(super) async fn poll(
        &self,
        id: &str,
        operation: &'static str,
    ) -> StoreResult<CommandStatus> {
        let known = &self.learned.status_by_get;
        if !known.no() {
            let call = Call::get(operation, path::REQUEST_STATUS).with_id(id);
            let reply = self.call(&call).await?;
            let status = command_status(&reply);
            if reply.status != 405 && status != CommandStatus::Unknown {
                known.set(true);
            }
            if known.yes() {
                return Ok(status);
            }
        }
        let mut call = Call::post(operation, path::REQUEST_STATUS).with_id(id);
        call.body = CallBody::Json(Bytes::from_static(b"{}"));
        let reply = self.call(&call).await?;
        let status = command_status(&reply);
        if status != CommandStatus::Unknown {
            known.set(false);
        }
        Ok(status)
    }

    /// Renews the token in the background, if it is time.
    fn renew_early(&self) {
        if !self.session.should_renew() {
            return;
        }
        let Some(client) = self.this.upgrade() else { return self.session.renewed(false) };
        drop(self.env.spawn(async move {
            let outcome = client.reauthorize().await;
            if let Err(error) = &outcome {
                tracing::debug!(%error, "the token could not be renewed early");
            }
            client.session.renewed(outcome.is_ok());
        }));
    }

    /// Extends the token or swaps it, whichever the service does (D.9); else logs in.
    async fn reauthorize(&self) -> StoreResult<()> {
        let grant = self.session.grant().await?;
        let call = Call::post("reauthorize", path::REAUTHORIZE);
        let reply = self.wire.send(&call, Some(&grant.token)).await?;
        if reply.is_success() {
            if let Some(new) = authorization(&reply) {
                return self.session.adopt(new).map(|_| ());
            }
            if let Some(id) = reply.command_id()
                && self.settled(&id, "reauthorize").await.is_ok()
            {
                let call = Call::post("reauthorize", path::EXPIRY);
                let reply = self.wire.send(&call, Some(&grant.token)).await?;
                if let Some(at) = expiry(&reply) {
                    self.session.extend(at);
                    if !self.session.is_due() {
                        return Ok(());
                    }
                }
            }
        }
        self.session.renew(grant.generation).await.map(|_| ())
    }

    /// How many storage devices there are; `None` where the service does not say.
    pub(super) async fn storage_devices(&self) -> Option<usize> {
        let reply = self.call(&Call::get("connect", path::STORAGE_LIST)).await.ok()?;
        reply.is_success().then(|| storage_count(&reply))?
    }

    async fn warn_without_storage(&self) {
        if self.storage_devices().await == Some(0)
            && !self.learned.told_no_storage.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the profile has no storage device: nothing can be stored");
        }
    }
}

/// A vote holds what nobody follows here.
fn waits_for_a_vote(operation: &'static str, pool: Option<String>) -> StoreError {
    let pool = pool.map(|pool| format!(" in pool {pool}")).unwrap_or_default();
    let what = format!("accepted by the service, and waits for approval{pool}");
    StoreError::new(StoreErrorKind::AwaitingApproval, operation, what)
}

/// The id of the command to await, if the reply names one; a 202 has to.
pub(super) fn awaited(reply: &Reply, operation: &'static str) -> StoreResult<Option<String>> {
    if reply.status == 202 || reply.command_header.is_some() {
        return reply.command_id().map(Some).ok_or_else(|| {
            let what = "the service accepted the command without naming it";
            StoreError::new(StoreErrorKind::Protocol, operation, what)
        });
    }
    // A synchronous 200 where a 202 is documented: its body may be anything else.
    Ok(reply.json().filter(|json| !json.is_string()).and_then(|_| reply.command_id()))
}

fn unsettled(operation: &'static str, limit: Duration) -> StoreError {
    let limit = limit.as_secs_f32();
    let what = format!("not acknowledged within {limit} s; its outcome is unknown");
    StoreError::new(StoreErrorKind::TimedOut, operation, what)
}

pub(super) fn closed(operation: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, operation, "the client is closed")
}
