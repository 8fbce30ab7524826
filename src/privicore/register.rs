//! First use of a profile: register it, log in, register a public key.
//!
//! There is no channel before a login, so commands are polled here (protocol C.2).

use std::time::Duration;

use blake2::{Blake2b512, Digest};
use ring::agreement::{EphemeralPrivateKey, X25519};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::config::ClientConfig;
use super::http::{Call, Http};
use super::reply::{CommandStatus, Reply, command_status, field, rejection, storage_count};
use super::session::{Grant, Session};
use crate::env::Env;
use crate::protocol::path;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

const REGISTER: &str = "register";
/// Version tag of an exported public key (section A).
const KEY_VERSION: [u8; 4] = [0x31, 0x42, 0x05, 0x00];
/// Between polls, doubling up to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

impl Client {
    /// Registers the profile of `config` and a public key for it, where that is not done
    /// yet; doing it again changes nothing. Warns if there is no storage device.
    ///
    /// The private half of the key is not kept: payloads are sealed with the drive's own
    /// key, and no documented call uses the other.
    pub async fn register(config: ClientConfig, env: Env) -> StoreResult<()> {
        let http = std::sync::Arc::new(Http::new(&config));
        let session = Session::new(std::sync::Arc::clone(&http), &config, env);
        let first_use = FirstUse { http: &http, limit: config.ack_timeout };
        let registered = first_use.profile(&config).await;
        let grant = match (session.grant().await, registered) {
            (Ok(grant), _) => grant,
            // Why there is no profile tells more than that it cannot log in.
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        first_use.key(&grant).await?;
        let reply =
            http.send(&Call::get(REGISTER, path::STORAGE_LIST), Some(&grant.header)).await?;
        if reply.is_success() && storage_count(&reply) == Some(0) {
            tracing::warn!("the profile has no storage device: nothing can be stored");
        }
        Ok(())
    }
}

struct FirstUse<'a> {
    http: &'a Http,
    limit: Duration,
}

impl FirstUse<'_> {
    async fn profile(&self, config: &ClientConfig) -> StoreResult<()> {
        let fields = [("username", &*config.username), ("password", config.password.expose())];
        let call = Call::form(REGISTER, path::REGISTER_PROFILE, &fields);
        let reply = self.http.send(&call, None).await?;
        if reply.status == 409 {
            return Ok(());
        }
        self.finished(reply, None).await
    }

    async fn key(&self, grant: &Grant) -> StoreResult<()> {
        let call = Call::get(REGISTER, path::OWN_KEY);
        let reply = self.http.send(&call, Some(&grant.header)).await?;
        let known = reply.json().and_then(|json| field(&json, &["publicKey", "public_key"]));
        if reply.is_success() && known.is_some() {
            return Ok(());
        }
        let key = exported(&new_public_key()?);
        let call = Call::form(REGISTER, path::REGISTER_KEY, &[("publicKey", &key)]);
        let reply = self.http.send(&call, Some(&grant.header)).await?;
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
        let header = grant.map(|grant| &grant.header);
        let status = command_status(&self.http.send(&call, header).await?);
        if status != CommandStatus::Unknown {
            return Ok(status);
        }
        call.method = reqwest::Method::POST;
        call.body = super::http::CallBody::Json("{}");
        Ok(command_status(&self.http.send(&call, header).await?))
    }
}

fn new_public_key() -> StoreResult<Vec<u8>> {
    let random = ring::rand::SystemRandom::new();
    EphemeralPrivateKey::generate(&X25519, &random)
        .and_then(|private| private.compute_public_key())
        .map(|public| public.as_ref().to_vec())
        .map_err(|_| StoreError::new(StoreErrorKind::Local, REGISTER, "no key pair could be made"))
}

/// 100 bytes as 200 hexadecimal digits: version, key, BLAKE2b-512 of both (section A).
fn exported(key: &[u8]) -> String {
    let mut bytes = KEY_VERSION.to_vec();
    bytes.extend_from_slice(key);
    let checksum = Blake2b512::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exported_key_has_its_version_and_checksum() {
        let key = new_public_key().unwrap();
        let hex = exported(&key);
        assert_eq!(hex.len(), 200);
        assert!(hex.starts_with("31420500"));
        let bytes: Vec<u8> =
            (0..100).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(bytes[4..36], key);
        assert_eq!(bytes[36..], Blake2b512::digest(&bytes[..36])[..]);
    }
}
