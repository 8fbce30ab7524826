//! The profile, its authorization and its public keys (protocol C.2, C.3).
//!
//! Where the sources name an older form of a call, it is tried once after the service did
//! not know the first (B.4).

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::client::{Client, awaited, closed};
use super::reply::{Authorization, Reply, authorization, created, expiry, field, single};
use super::secret::Secret;
use super::transport::Call;
use crate::protocol::{AUTHORIZATION_TTLS, old_path, path, public_key};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

const CHANGE_PASSWORD: &str = "change-password";
const EXPIRY: &str = "expiry";
const EXTEND: &str = "extend";
const KEY: &str = "public-key";
const REVOKE: &str = "revoke";
const WHOAMI: &str = "whoami";

/// Between looks whether a revoked token has ended, doubling up to the second.
const REVOKED: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_000));

/// Who the service takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whoami {
    /// The profile's id; opaque.
    pub profile: String,
    /// The name that the client logs in with: the service does not say it.
    pub username: String,
    /// When the authorization token expires, where the service says.
    pub expires: Option<SystemTime>,
    /// What the token may do; `None` where the service does not say.
    pub scope: Option<Vec<String>>,
}

/// A single-use token for another device's login. `Debug` does not show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QrToken {
    /// The text to be shown as a QR code.
    pub token: Secret,
    /// Until when it can be used, where the service says.
    pub expires: Option<SystemTime>,
}

/// A registered public key, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// 200 hexadecimal digits, lower case (section A, "Key format").
    pub text: String,
    /// When it was registered, where the service says.
    pub created: Option<SystemTime>,
}

impl Client {
    /// Profile id, expiry and scope.
    pub async fn whoami(&self) -> StoreResult<Whoami> {
        let reply = self.accepted(&Call::get(WHOAMI, path::PROFILE_ID)).await?;
        let json = reply.json().unwrap_or_default();
        let profile = field(&json, &["profileId", "profile_id", "id"]).or_else(|| single(&json));
        let profile = profile.ok_or_else(|| unreadable(WHOAMI, "a reply without a profile id"))?;
        let expires = self.expiry().await?;
        // Known from the vendor's own client only: a service may lack it.
        let reply = self.call(&Call::get(WHOAMI, path::SCOPE)).await?;
        let scope = if reply.is_success() { reply.json().and_then(scope) } else { None };
        Ok(Whoami { profile, username: self.config.username.clone(), expires, scope })
    }

    /// When the authorization token expires; `None` where the service does not say.
    pub async fn expiry(&self) -> StoreResult<Option<SystemTime>> {
        let (call, older) = (Call::post(EXPIRY, path::EXPIRY), Call::get(EXPIRY, old_path::EXPIRY));
        let reply = self.either(&call, &older).await?;
        if !reply.is_success() {
            return Err(self.error(&reply, EXPIRY));
        }
        let expires = expiry(&reply);
        if let Some(at) = expires {
            self.session.extend(at);
        }
        Ok(expires)
    }

    /// Changes the password. Tokens stay valid.
    ///
    /// `Denied` where the service rejects it (a wrong current password), `Invalid` where it
    /// refuses the new one. Neither password is in an error.
    pub async fn change_password(&self, current: &Secret, new: &Secret) -> StoreResult<()> {
        let (old, fresh) = (current.expose(), new.expose());
        let fields = [("oldPassword", old), ("newPassword", fresh), ("newPasswordRepeat", fresh)];
        let outcome = self.password_call(&fields).await;
        let outcome = match outcome {
            Err(first) if first.kind == StoreErrorKind::Invalid => {
                let fields = [("currentPassword", old), ("newPassword", fresh)];
                match self.password_call(&fields).await {
                    // What is wrong is said in terms of the form that the service knows (D.8).
                    Err(second)
                        if second.kind == StoreErrorKind::Invalid
                            && !first.message.contains("currentPassword") =>
                    {
                        Err(first)
                    }
                    other => other,
                }
            }
            other => other,
        };
        match outcome {
            Ok(()) => {
                self.session.set_password(new);
                Ok(())
            }
            Err(error) => {
                let message = new.redacted_from(current.redacted_from(error.message));
                Err(StoreError { message, ..error })
            }
        }
    }

    async fn password_call(&self, fields: &[(&str, &str)]) -> StoreResult<()> {
        let call = Call::form(CHANGE_PASSWORD, path::CHANGE_PASSWORD, fields);
        self.command(&call).await.map(drop)
    }

    /// Makes the authorization last `ttl` seconds from now, one of the lifetimes that the
    /// protocol lists, or as long as the service likes. Services extend the token or give
    /// another one in its place (D.9): what is returned is the one that counts.
    pub async fn extend(&self, ttl: Option<u64>) -> StoreResult<Authorization> {
        let call = match ttl {
            Some(ttl) if AUTHORIZATION_TTLS.contains(&ttl) => {
                Call::form(EXTEND, path::REAUTHORIZE, &[("ttl", &ttl.to_string())])
            }
            Some(ttl) => {
                let what = format!("{ttl} seconds is not one of the lifetimes offered");
                return Err(StoreError::new(StoreErrorKind::Invalid, EXTEND, what));
            }
            None => Call::post(EXTEND, path::REAUTHORIZE),
        };
        let reply = self.command(&call).await?;
        match authorization(&reply) {
            Some(new) => {
                self.session.adopt(new)?;
            }
            None => {
                self.expiry().await?;
            }
        }
        self.session.authorization().ok_or_else(|| closed(EXTEND))
    }

    /// Revokes the authorization token, and returns when the service no longer takes it.
    /// Every call after it fails with `Unauthenticated`.
    pub async fn revoke(&self) -> StoreResult<()> {
        let grant = self.session.grant().await?;
        let reply = self.wire.send(&Call::post(REVOKE, path::REVOKE), Some(&grant.token)).await?;
        if !reply.is_success() {
            return Err(self.error(&reply, REVOKE));
        }
        // A service that does it by a command cannot be asked about it with this token: it
        // is done when the token is refused.
        if awaited(&reply, REVOKE)?.is_some() {
            let deadline = Instant::now() + self.config.ack_timeout;
            let mut pause = REVOKED.0;
            let call = Call::post(REVOKE, path::EXPIRY);
            while self.wire.send(&call, Some(&grant.token)).await?.status != 401 {
                if Instant::now() + pause > deadline {
                    let what = "accepted, but the token still counts";
                    return Err(StoreError::new(StoreErrorKind::TimedOut, REVOKE, what));
                }
                sleep(pause).await;
                pause = (pause * 2).min(REVOKED.1);
            }
        }
        self.session.end();
        Ok(())
    }

    /// A token for another device's login.
    pub async fn qr_token(&self) -> StoreResult<QrToken> {
        const QR: &str = "qr-token";
        let (call, older) = (Call::post(QR, path::QR_TOKEN), Call::post(QR, old_path::QR_TOKEN));
        let reply = self.either(&call, &older).await?;
        if !reply.is_success() {
            return Err(self.error(&reply, QR));
        }
        let json = reply.json().unwrap_or_default();
        let token = field(&json, &["qrToken", "qr_token", "token"]).or_else(|| single(&json));
        let token = token.ok_or_else(|| unreadable(QR, "a reply without a token"))?;
        Ok(QrToken { token: Secret::new(token), expires: expiry(&reply) })
    }

    /// The profile's public key; `None` if none is registered.
    pub async fn own_key(&self) -> StoreResult<Option<PublicKey>> {
        let mut reply = self.call(&Call::get(KEY, path::OWN_KEY)).await?;
        if reply.status == 405 {
            reply = self.call(&Call::post(KEY, path::OWN_KEY)).await?;
        }
        match reply.status {
            404 => Ok(None),
            _ if reply.is_success() => key(&reply).map(Some),
            _ => Err(self.error(&reply, KEY)),
        }
    }

    /// The engine's own public key, which may change at any time.
    pub async fn engine_key(&self) -> StoreResult<PublicKey> {
        let (call, older) =
            (Call::get(KEY, path::ENGINE_KEY), Call::get(KEY, old_path::ENGINE_KEY));
        let reply = self.either(&call, &older).await?;
        if reply.is_success() { key(&reply) } else { Err(self.error(&reply, KEY)) }
    }

    /// Registers a public key in place of the one before. `Invalid`, without asking the
    /// service, if `text` is not one or its checksum does not match.
    pub async fn register_key(&self, text: &str) -> StoreResult<()> {
        public_key::parse(text)
            .map_err(|error| StoreError::new(StoreErrorKind::Invalid, KEY, error.to_string()))?;
        let text = text.to_ascii_lowercase();
        let call = Call::form(KEY, path::REGISTER_KEY, &[("publicKey", &text)]);
        self.command(&call).await.map(drop)
    }

    /// A call whose reply outside 2xx is an error.
    pub(super) async fn accepted(&self, call: &Call) -> StoreResult<Reply> {
        let reply = self.call(call).await?;
        if reply.is_success() { Ok(reply) } else { Err(self.error(&reply, call.operation)) }
    }

    /// `call`, or `older` where the service does not know it. If it knows neither, the
    /// reply to `call`.
    async fn either(&self, call: &Call, older: &Call) -> StoreResult<Reply> {
        let reply = self.call(call).await?;
        if !is_unknown_route(&reply) {
            return Ok(reply);
        }
        let second = self.call(older).await?;
        Ok(if is_unknown_route(&second) { reply } else { second })
    }
}

/// Whether the service may not have such a call (B.4: a missing record looks the same).
pub(super) fn is_unknown_route(reply: &Reply) -> bool {
    matches!(reply.status, 404 | 405 | 501)
}

fn key(reply: &Reply) -> StoreResult<PublicKey> {
    let json = reply.json().unwrap_or_default();
    let text = field(&json, &["publicKey", "public_key"]).or_else(|| single(&json));
    let text = text.ok_or_else(|| unreadable(KEY, "a reply without a key"))?;
    public_key::parse(&text).map_err(|error| unreadable(KEY, &error.to_string()))?;
    Ok(PublicKey { text: text.to_ascii_lowercase(), created: created(&json) })
}

/// Names of a scope: a list, or a list in a member.
fn scope(json: Value) -> Option<Vec<String>> {
    let list = json.as_array().or_else(|| json.get("scope")?.as_array())?;
    Some(list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

fn unreadable(operation: &'static str, what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, operation, what)
}
