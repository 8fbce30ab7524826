//! First use of a profile: register it, log in, register a public key.
//!
//! There is no channel before a login, so commands are polled here (protocol C.2).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::Client;
use super::config::ClientConfig;
use super::reply::{
    Authorization, CommandStatus, Reply, command_status, field, rejection, storage_count,
};
use super::session::{Grant, Session};
use super::transport::{Call, CallBody, Method};
use super::wire::Wire;
use crate::env::Env;
use crate::protocol::{old_path, path, public_key};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

const REGISTER: &str = "register";
/// Between polls, doubling up to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

impl Client {
    /// Whether the service of `config` answers and says that it is well (C.1). Asks without a
    /// login; only the addresses and the timeouts of `config` count.
    pub async fn check_health(config: &ClientConfig) -> StoreResult<()> {
        const OPERATION: &str = "check health";
        let wire = Wire::new(config);
        let mut reply = wire.send(&Call::get(OPERATION, path::HEALTH), None).await?;
        if matches!(reply.status, 404 | 405) {
            reply = wire.send(&Call::get(OPERATION, old_path::HEALTH), None).await?;
        }
        if reply.is_success() { Ok(()) } else { Err(reply.error(OPERATION)) }
    }

    /// Logs in, and nothing else: the authorization is for [`Client::resume`].
    pub async fn login(config: &ClientConfig, env: Env) -> StoreResult<Authorization> {
        let session = Session::new(Wire::new(config), config, env);
        session.grant().await?;
        let granted = session.authorization();
        granted.ok_or_else(|| StoreError::new(StoreErrorKind::Protocol, "login", "no token"))
    }

    /// Registers the profile of `config` and a public key for it, where that is not done
    /// yet; doing it again changes nothing. Warns if there is no storage device.
    ///
    /// The private half of the key is not kept: payloads are sealed with the drive's own
    /// key, and no documented call uses the other.
    pub async fn register(config: ClientConfig, env: Env) -> StoreResult<()> {
        let wire = Wire::new(&config);
        let session = Session::new(wire.clone(), &config, env.clone());
        let first_use = FirstUse { wire: &wire, env: &env, limit: config.ack_timeout };
        let registered = first_use.profile(&config).await;
        let grant = match (session.grant().await, registered) {
            (Ok(grant), _) => grant,
            // Why there is no profile tells more than that it cannot log in.
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        first_use.key(&grant).await?;
        let reply = wire.send(&Call::get(REGISTER, path::STORAGE_LIST), Some(&grant.token)).await?;
        if reply.is_success() && storage_count(&reply) == Some(0) {
            tracing::warn!("the profile has no storage device: nothing can be stored");
        }
        Ok(())
    }
}

struct FirstUse<'a> {
    wire: &'a Wire,
    env: &'a Env,
    limit: Duration,
}

impl FirstUse<'_> {
    async fn profile(&self, config: &ClientConfig) -> StoreResult<()> {
        let fields = [("username", &*config.username), ("password", config.password.expose())];
        let call = Call::form(REGISTER, path::REGISTER_PROFILE, &fields);
        let reply = self.wire.send(&call, None).await?;
        if reply.status == 409 {
            return Ok(());
        }
        // A service may repeat what it refuses.
        self.finished(reply, None).await.map_err(|error| {
            let message = config.password.redacted_from(error.message);
            StoreError { message, ..error }
        })
    }

    async fn key(&self, grant: &Grant) -> StoreResult<()> {
        let call = Call::get(REGISTER, path::OWN_KEY);
        let reply = self.wire.send(&call, Some(&grant.token)).await?;
        let known = reply.json().and_then(|json| field(&json, &["publicKey", "public_key"]));
        if reply.is_success() && known.is_some() {
            return Ok(());
        }
        let key = self.env.random.x25519_public_key().ok_or_else(|| {
            StoreError::new(StoreErrorKind::Local, REGISTER, "no key pair could be made")
        })?;
        let key = public_key::encode(&key);
        let call = Call::form(REGISTER, path::REGISTER_KEY, &[("publicKey", &key)]);
        let reply = self.wire.send(&call, Some(&grant.token)).await?;
        self.finished(reply, Some(grant)).await
    }

    /// Polls the command of `reply` until it is settled.
    async fn finished(&self, reply: Reply, grant: Option<&Grant>) -> StoreResult<()> {
        if !reply.is_success() {
            return Err(reply.error(REGISTER));
        }
        let id = match (reply.status, reply.command_id()) {
            (202, Some(id)) => id,
            (202, None) => {
                let what = "the service accepted the command without naming it";
                return Err(StoreError::new(StoreErrorKind::Protocol, REGISTER, what));
            }
            _ => return Ok(()),
        };
        let deadline = Instant::now() + self.limit;
        let mut pause = POLL.0;
        loop {
            match self.status(&id, grant).await? {
                CommandStatus::Succeeded => return Ok(()),
                CommandStatus::Rejected(text) => return Err(rejection(REGISTER, &text)),
                CommandStatus::Pending | CommandStatus::Unknown => {}
            }
            if Instant::now() + pause > deadline {
                let what = format!("not settled within {} s", self.limit.as_secs_f32());
                return Err(StoreError::new(StoreErrorKind::TimedOut, REGISTER, what));
            }
            sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// `GET`, and `POST` where that says nothing (B.6).
    async fn status(&self, id: &str, grant: Option<&Grant>) -> StoreResult<CommandStatus> {
        let mut call = Call::get(REGISTER, path::REQUEST_STATUS).with_id(id);
        let header = grant.map(|grant| &grant.token);
        let status = command_status(&self.wire.send(&call, header).await?);
        if status != CommandStatus::Unknown {
            return Ok(status);
        }
        call.method = Method::Post;
        call.body = CallBody::Json(bytes::Bytes::from_static(b"{}"));
        Ok(command_status(&self.wire.send(&call, header).await?))
    }
}
