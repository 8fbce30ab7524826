//! The authorization token: login, expiry, renewal.
//!
//! * One login serves all who wait for one: they queue behind `gate`, and whoever finds a
//!   newer generation than the one that failed them uses it.
//! * A failed login is shared with those who queued behind it, and for a few
//!   seconds more, so that a wrong password is not tried once per waiter.
//! * Renewal ahead of expiry happens in the background (`Client::renew_early`): callers
//!   go on with the old token, which still counts. Where the service swaps tokens the old
//!   one dies a moment before the new one is here: who is refused then waits for it.
//! * A refused login is tried again with another password as soon as the password's source
//!   has one; the refused one itself is tried again now and then only.
//! * A session that was resumed with a token has no password: nothing renews it, and a
//!   token that does not count any more is `Unauthenticated`.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::ClientConfig;
use super::reply::{Authorization, authorization};
use super::secret::{PasswordSource, Secret};
use super::transport::Call;
use super::wire::Wire;
use crate::env::Env;
use crate::protocol::path;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How long before its expiry a token is renewed (D.18); a quarter of its life, if that
/// is less.
const RENEW_EARLY: Duration = Duration::from_secs(60);
/// Between attempts to renew.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// How long a refused caller waits for a renewal under way.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// How long a failed login answers for those that come after it.
const FAILURE_SHARED: Duration = Duration::from_secs(2);
/// The same where the service refused the credentials: services lock accounts.
const REFUSAL_SHARED: Duration = Duration::from_secs(10);

/// How long reading the password again may take.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// A token in use, fit for a header. Its generation tells it from the ones before.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) token: Secret,
    pub(super) generation: u64,
}

struct Current {
    grant: Grant,
    expires: Option<SystemTime>,
    renew_at: Option<SystemTime>,
}

/// See the module's header.
pub(super) struct Session {
    wire: Wire,
    env: Env,
    username: String,
    /// `None`: this session was resumed, or ended, and cannot log in.
    password: Mutex<Option<Secret>>,
    source: Option<PasswordSource>,
    /// When the source was last read.
    looked: Mutex<Option<Instant>>,
    /// Why the last login was refused, until one succeeds.
    refused: Mutex<Option<String>>,
    current: Mutex<Option<Current>>,
    gate: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    renewing: watch::Sender<bool>,
    generation: watch::Sender<u64>,
}

impl Session {
    pub(super) fn new(wire: Wire, config: &ClientConfig, env: Env) -> Self {
        Self {
            wire,
            env,
            username: config.username.clone(),
            password: Mutex::new(Some(config.password.clone())),
            source: config.password_source.clone(),
            looked: Mutex::new(None),
            refused: Mutex::new(None),
            current: Mutex::new(None),
            gate: tokio::sync::Mutex::new(None),
            renewing: watch::Sender::new(false),
            generation: watch::Sender::new(0),
        }
    }

    /// A session that goes on with a token from before and never logs in.
    pub(super) fn resumed(
        wire: Wire,
        config: &ClientConfig,
        kept: Authorization,
        env: Env,
    ) -> StoreResult<Self> {
        let session = Self::new(wire, config, env);
        *session.password.lock() = None;
        let expires = kept.expires;
        session.adopt(kept)?;
        if let Some(current) = &mut *session.current.lock() {
            current.expires = expires;
            current.renew_at = None;
        }
        Ok(session)
    }

    /// The token in use.
    pub(super) fn authorization(&self) -> Option<Authorization> {
        let current = self.current.lock();
        let Current { grant, expires, .. } = current.as_ref()?;
        Some(Authorization { token: grant.token.clone(), expires: *expires })
    }

    /// The password is another from now on.
    pub(super) fn set_password(&self, new: &Secret) {
        if let Some(password) = &mut *self.password.lock() {
            *password = new.clone();
        }
    }

    /// The token was revoked: none is used from now on, and there is no login.
    pub(super) fn end(&self) {
        *self.password.lock() = None;
        *self.current.lock() = None;
    }

    /// Why the last login was refused, if that was a moment ago.
    pub(super) async fn refusal(&self) -> Option<StoreError> {
        let gate = self.gate.lock().await;
        let (at, error) = gate.as_ref()?;
        let refused = error.kind == StoreErrorKind::Unauthenticated;
        (refused && at.elapsed() < REFUSAL_SHARED).then(|| error.clone())
    }

    /// Tells when the token changes, so that the channel joins with the new one.
    pub(super) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The token to use now; logs in if there is none that counts.
    pub(super) async fn grant(&self) -> StoreResult<Grant> {
        let stale = match &*self.current.lock() {
            Some(current) if current.expires.is_none_or(|at| self.env.clock.now() < at) => {
                return Ok(current.grant.clone());
            }
            Some(current) => current.grant.generation,
            None => 0,
        };
        self.renew(stale).await
    }

    /// Logs in, unless somebody did since generation `stale`.
    pub(super) async fn renew(&self, stale: u64) -> StoreResult<Grant> {
        let mut gate = self.gate.lock().await;
        if let Some(current) = &*self.current.lock()
            && current.grant.generation > stale
        {
            return Ok(current.grant.clone());
        }
        if let Some((at, error)) = &*gate
            && at.elapsed() < shared_for(error)
            && !(is_refusal(error) && self.another_password().await)
        {
            return Err(error.clone());
        }
        let mut outcome = self.login().await;
        if outcome.as_ref().is_err_and(is_refusal) && self.another_password().await {
            outcome = self.login().await;
        }
        *self.refused.lock() =
            outcome.as_ref().err().filter(|e| is_refusal(e)).map(|e| e.message.clone());
        let outcome = outcome.and_then(|authorization| self.adopt(authorization));
        *gate = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        outcome
    }

    /// Looks whether the password's source has another one than was refused, and takes it.
    async fn another_password(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let recently = |at: Instant| at.elapsed() < source.every();
        if self.password.lock().is_none() || self.looked.lock().is_some_and(recently) {
            return false;
        }
        let found = source.look(&*self.env.tasks, LOOK_LIMIT).await;
        *self.looked.lock() = Some(Instant::now());
        let mut password = self.password.lock();
        let other = found.filter(|found| password.as_ref().is_some_and(|used| used != found));
        if other.is_some() {
            tracing::info!("the password was changed where it is kept: trying the new one");
            *password = other;
            return true;
        }
        false
    }

    /// What is wrong with the login and what helps, for a person; `None` if nothing is known.
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.refused.lock().clone()?;
        let name = &self.username;
        Some(match &self.source {
            Some(source) => format!(
                "the service refuses the login of {name}: {why}. Put the right password into \
                 {}; it is read again, without a new mount",
                source.place()
            ),
            None => format!(
                "the service refuses the login of {name}: {why}. Unmount, and mount again with \
                 the right password"
            ),
        })
    }

    async fn login(&self) -> StoreResult<Authorization> {
        let Some(password) = self.password.lock().clone() else {
            let why = "the authorization token has expired, or is refused".to_owned();
            return Err(self.refused(StoreErrorKind::Unauthenticated, why));
        };
        let fields = [("username", self.username.as_str()), ("password", password.expose())];
        let reply = self.wire.send(&Call::form("login", path::AUTHENTICATE, &fields), None).await?;
        if reply.status == 401 {
            // A service may also answer so for a profile without a public key (D.7).
            let said = password.redacted_from(reply.error_text());
            let why = format!("{said} (wrong name or password, or no public key registered yet)");
            return Err(self.refused(StoreErrorKind::Unauthenticated, why));
        }
        if !reply.is_success() {
            let error = reply.error("login").on(&self.username);
            let message = password.redacted_from(error.message);
            return Err(StoreError { message, ..error });
        }
        authorization(&reply).ok_or_else(|| {
            self.refused(StoreErrorKind::Protocol, "no authorizationToken in the reply".into())
        })
    }

    fn refused(&self, kind: StoreErrorKind, why: String) -> StoreError {
        StoreError::new(kind, "login", why).on(&self.username)
    }

    /// Takes over a new token.
    pub(super) fn adopt(&self, new: Authorization) -> StoreResult<Grant> {
        if !new.token.fits_a_header() {
            let why = "the token is not fit for a header";
            return Err(self.refused(StoreErrorKind::Protocol, why.into()));
        }
        let generation = *self.generation.borrow() + 1;
        let grant = Grant { token: new.token, generation };
        // A new token that has expired already means that the clocks disagree: then only
        // a 401 tells.
        let expires = new.expires.filter(|expires| *expires > self.env.clock.now());
        let renews = self.password.lock().is_some();
        let renew_at = expires.filter(|_| renews).map(|expires| self.renewal(expires));
        *self.current.lock() = Some(Current { grant: grant.clone(), expires, renew_at });
        self.generation.send_replace(generation);
        Ok(grant)
    }

    /// The token lives until `expires` now.
    pub(super) fn extend(&self, expires: SystemTime) {
        if let Some(current) = &mut *self.current.lock() {
            current.expires = Some(expires);
            let renews = self.password.lock().is_some();
            current.renew_at = renews.then(|| self.renewal(expires));
        }
    }

    fn renewal(&self, expires: SystemTime) -> SystemTime {
        let life = expires.duration_since(self.env.clock.now()).unwrap_or_default();
        expires - RENEW_EARLY.min(life / 4)
    }

    /// When the token in use expires, if that is known.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.current.lock().as_ref().and_then(|current| current.expires)
    }

    /// Whether it is time to renew the token.
    pub(super) fn is_due(&self) -> bool {
        match &*self.current.lock() {
            Some(Current { renew_at: Some(at), .. }) => self.env.clock.now() >= *at,
            _ => false,
        }
    }

    /// Whether the caller should renew the token in the background; says so to one
    /// caller at a time, who ends with [`Session::renewed`].
    pub(super) fn should_renew(&self) -> bool {
        self.is_due() && !self.renewing.send_replace(true)
    }

    /// Waits for a renewal in the background to end, but not long: it may itself be what
    /// waits.
    pub(super) async fn renewal_over(&self) {
        let mut renewing = self.renewing.subscribe();
        // The sender is in `self`, so only the time can run out.
        let _ = tokio::time::timeout(RENEWAL_LIMIT, renewing.wait_for(|renewing| !renewing)).await;
    }

    /// Ends what [`Session::should_renew`] began. A failed renewal is left alone for a
    /// while: the token still counts, and a 401 would bring a login.
    pub(super) fn renewed(&self, succeeded: bool) {
        if !succeeded && let Some(current) = &mut *self.current.lock() {
            current.renew_at = Some(self.env.clock.now() + RENEWAL_PAUSE);
        }
        self.renewing.send_replace(false);
    }

    /// `text` without the token, should the service have repeated it.
    pub(super) fn redact(&self, text: String) -> String {
        match &*self.current.lock() {
            Some(current) => current.grant.token.redacted_from(text),
            None => text,
        }
    }
}

fn is_refusal(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::Unauthenticated
}

fn shared_for(error: &StoreError) -> Duration {
    match error.kind {
        StoreErrorKind::Unauthenticated => REFUSAL_SHARED,
        _ => FAILURE_SHARED,
    }
}
