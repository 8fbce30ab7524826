//! Voting configurations (C.7) and voting pools (C.9).
//!
//! Where a service does not offer a call, the error's kind is `Unsupported`; where the
//! profile has no such configuration or pool, `NotFound`. The `POST /voting/create` that
//! the vendor's own client sends as a form is a call of a device, not of a profile, and is
//! not made here.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::authenticators::Strategy;
use super::client::Client;
use super::config::ClientConfig;
use super::devices::IDENTIFIERS;
use super::forms::{How, Object, number, texts};
use super::oauth::OauthCredentials;
use super::optional::incomplete;
use super::reply::{created, field, time};
use super::transport::{Call, CallBody, encode};
use super::wire::Wire;
use crate::protocol::governance::{old_path, path};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How often a record that was just made is asked for, and the pause between (C.8): it may
/// show a little after the acknowledgement.
const SHOWN: (usize, Duration) = (5, Duration::from_secs(1));
/// Where a pool stands, in the embedded engine's words.
const STATUSES: [&str; 5] = ["open", "approved", "rejected", "timed_out", "cancelled"];
const POOL_IDS: [&str; 6] = ["poolId", "pollId", "pool_id", "poll_id", "votingPoolId", "id"];

/// Who votes, how and for how long. Policies and pools refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotingConfiguration {
    /// Its id, where the service says.
    pub id: Option<String>,
    /// Unique in the profile.
    pub name: String,
    /// How votes decide, where the service says.
    pub strategy: Option<Strategy>,
    /// How long a vote is open, in seconds.
    pub time_limit: Option<u64>,
    /// The authenticators that are asked; empty for all that the profile has.
    pub devices: Vec<String>,
    /// When it was registered.
    pub created: Option<SystemTime>,
}

/// What a voting configuration is registered with.
#[derive(Clone, Debug)]
pub struct NewVotingConfiguration {
    /// Unique in the profile.
    pub name: String,
    /// How votes decide.
    pub strategy: Strategy,
    /// How long a vote is open, in seconds.
    pub time_limit: u64,
    /// The authenticators that are asked; empty for all that the profile has.
    pub devices: Vec<String>,
}

/// What changes of a voting configuration; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct VotingConfigurationChange {
    /// Another name.
    pub name: Option<String>,
    /// How votes decide.
    pub strategy: Option<Strategy>,
    /// How long a vote is open, in seconds.
    pub time_limit: Option<u64>,
    /// The authenticators that are asked; empty for all.
    pub devices: Option<Vec<String>>,
}

/// What a pool is opened with.
#[derive(Clone, Debug)]
pub struct NewVotingPool {
    /// Who votes and how: a voting configuration's id or name.
    pub configuration: String,
    /// Shown to the voters.
    pub title: String,
    /// What they are asked.
    pub question: String,
    /// Authenticators that are not asked.
    pub skip: Vec<String>,
    /// A text that goes with the pool.
    pub nonce: Option<String>,
}

/// One device's vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

impl Vote {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

/// A device that is asked in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// The device.
    pub device: String,
    /// Its name.
    pub name: Option<String>,
    /// Its vote, once it has cast one.
    pub vote: Option<Vote>,
}

/// A vote: who is asked, about what, and how it stands. The sources name none of the
/// members for certain; what the service does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotingPool {
    /// Its id; opaque.
    pub id: String,
    /// Where it stands: `open`, `approved`, `rejected`, `timed_out`, `cancelled`, or
    /// whatever else the service says.
    pub status: Option<String>,
    /// Shown to the voters.
    pub title: Option<String>,
    /// What they are asked.
    pub question: Option<String>,
    /// The event of an operation that it holds.
    pub event: Option<String>,
    /// The policy that wants the vote, by name.
    pub policy: Option<String>,
    /// The data token that it is about.
    pub token: Option<String>,
    /// The device that it is about.
    pub device: Option<String>,
    /// How votes decide.
    pub strategy: Option<Strategy>,
    /// When it was opened.
    pub created: Option<SystemTime>,
    /// When it ends at the latest.
    pub expires: Option<SystemTime>,
    /// The devices that are asked.
    pub ballots: Vec<Ballot>,
}

impl Client {
    /// Registers a voting configuration. Returns it as the service shows it; `None` if it
    /// does not show it soon.
    pub async fn register_voting_configuration(
        &self,
        new: &NewVotingConfiguration,
    ) -> StoreResult<Option<VotingConfiguration>> {
        const OPERATION: &str = "register voting configuration";
        let mut body = json!({
            "name": new.name, "timeLimit": new.time_limit, "strategy": new.strategy.word(),
            "deviceIdentifiers": new.devices,
        });
        if let Some(percentage) = new.strategy.percentage() {
            body["percentageRequired"] = percentage.into();
        }
        let calls = [
            Call::json(OPERATION, path::CONFIGURATION_REGISTER, &body),
            form(OPERATION, old_path::CONFIGURATION_REGISTER, &body),
        ];
        self.order_forms(&calls).await?;
        let call = Call::get(OPERATION, path::CONFIGURATION_RETRIEVE).with_id(&new.name);
        self.shown(&call, configuration).await
    }

    /// Changes a voting configuration, by id or name.
    pub async fn update_voting_configuration(
        &self,
        wanted: &str,
        change: &VotingConfigurationChange,
    ) -> StoreResult<()> {
        const OPERATION: &str = "update voting configuration";
        let mut body = json!({ "votingConfigurationId": wanted });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        set("name", change.name.as_deref().map(Value::from));
        set("strategy", change.strategy.map(|strategy| strategy.word().into()));
        let percentage = change.strategy.and_then(Strategy::percentage);
        set("percentageRequired", percentage.map(Value::from));
        set("timeLimit", change.time_limit.map(Value::from));
        set("deviceIdentifiers", change.devices.clone().map(Value::from));
        let calls = [Call::json(OPERATION, path::CONFIGURATION_UPDATE, &body)];
        self.about(Object::Configuration(wanted), How::Order, &calls).await.map(drop)
    }

    /// The voting configurations of the profile.
    pub async fn voting_configurations(&self) -> StoreResult<Vec<VotingConfiguration>> {
        let calls = [Call::get("list voting configurations", path::CONFIGURATION_LIST)];
        self.every(&calls, |item| configuration(item).map(|found| (found.name.clone(), found)))
            .await
    }

    /// A voting configuration, by id or name.
    pub async fn voting_configuration(&self, wanted: &str) -> StoreResult<VotingConfiguration> {
        const OPERATION: &str = "retrieve voting configuration";
        let calls = [Call::get(OPERATION, path::CONFIGURATION_RETRIEVE).with_id(wanted)];
        let reply = self.about(Object::Configuration(wanted), How::Ask, &calls).await?;
        reply.json().as_ref().and_then(configuration).ok_or_else(|| incomplete(OPERATION))
    }

    /// Deletes a voting configuration, by id or name. `Invalid` or `Denied` while a policy
    /// uses it.
    pub async fn delete_voting_configuration(&self, wanted: &str) -> StoreResult<()> {
        let fields = [("votingConfigurationId", wanted)];
        let operation = "delete voting configuration";
        let calls = [Call::form(operation, path::CONFIGURATION_DELETE, &fields)];
        self.about(Object::Configuration(wanted), How::Order, &calls).await.map(drop)
    }

    /// Opens a pool, and returns its id. The devices that it asks are told.
    pub async fn create_voting_pool(&self, new: &NewVotingPool) -> StoreResult<String> {
        const OPERATION: &str = "create voting pool";
        let mut body = json!({
            "votingConfigurationId": new.configuration, "title": new.title,
            "question": new.question,
        });
        if !new.skip.is_empty() {
            body["skipAuthenticatorDevices"] = json!(new.skip);
        }
        if let Some(nonce) = &new.nonce {
            body["nonce"] = nonce.as_str().into();
        }
        let reply = self.order_forms(&[Call::json(OPERATION, path::POOL_CREATE, &body)]).await?;
        let json = reply.json().unwrap_or_default();
        let named = field(&json, &POOL_IDS).or_else(|| reply.command_id());
        named.ok_or_else(|| incomplete(OPERATION))
    }

    /// A pool.
    pub async fn voting_pool(&self, id: &str) -> StoreResult<VotingPool> {
        const OPERATION: &str = "check pool status";
        let calls = [Call::get(OPERATION, path::POOL_STATUS).with_id(id)];
        let reply = self.about(Object::Pool(id), How::Ask, &calls).await?;
        // A service that says nothing but a word.
        let word = || reply.json().and_then(|json| json.as_str().map(str::to_owned));
        let json = reply.json().unwrap_or_default();
        let found = pool(&json, Some(id));
        found
            .or_else(|| pool(&json!({ "status": word()? }), Some(id)))
            .ok_or_else(|| incomplete(OPERATION))
    }

    /// The pools of the profile, oldest first where the service sorts; those of one status
    /// if it is given.
    pub async fn voting_pools(&self, status: Option<&str>) -> StoreResult<Vec<VotingPool>> {
        let mut call = Call::get("list voting pools", path::POOL_LIST);
        call.query = status.map(|status| encode(&[("status", status)]));
        let read = |item: &Value| pool(item, None).map(|found| (found.id.clone(), found));
        let mut found = self.every(&[call], read).await?;
        if let Some(wanted) = status {
            // A service may list all of them. A word that is not ours may mean anything.
            let other = |status: &str| status != wanted && STATUSES.contains(&status);
            let lowered = |pool: &VotingPool| pool.status.as_deref().map(str::to_ascii_lowercase);
            found.retain(|pool| !lowered(pool).is_some_and(|status| other(&status)));
        }
        Ok(found)
    }

    /// Ends an open pool without a decision; what it holds is refused.
    pub async fn cancel_voting_pool(&self, id: &str) -> StoreResult<()> {
        let calls = [Call::form("cancel pool", path::POOL_CANCEL, &[("poolId", id)])];
        self.about(Object::Pool(id), How::Order, &calls).await.map(drop)
    }

    /// Votes as a device; returns the pool as it is then. A call of the embedded engine:
    /// no source tells how devices vote at the real service.
    ///
    /// `Denied` if the credentials are refused, or the device is not asked.
    pub async fn cast_ballot(
        &self,
        device: &OauthCredentials,
        pool: &str,
        vote: Vote,
    ) -> StoreResult<VotingPool> {
        cast(&self.wire, device, pool, vote).await
    }

    /// As [`Client::cast_ballot`], for a device that knows no profile's login: of `config`,
    /// only the addresses and the timeouts count.
    pub async fn cast_ballot_alone(
        config: &ClientConfig,
        device: &OauthCredentials,
        pool: &str,
        vote: Vote,
    ) -> StoreResult<VotingPool> {
        cast(&Wire::new(config), device, pool, vote).await
    }

    /// What a `GET` shows, once it shows something.
    pub(super) async fn shown<T>(
        &self,
        call: &Call,
        read: impl Fn(&Value) -> Option<T>,
    ) -> StoreResult<Option<T>> {
        for attempt in 1..=SHOWN.0 {
            let reply = match self.call(call).await {
                Err(error) if error.kind == StoreErrorKind::Unsupported => return Ok(None),
                other => other?,
            };
            if reply.is_success() {
                return Ok(reply.json().as_ref().and_then(read));
            }
            if reply.status != 404 {
                break;
            }
            if attempt < SHOWN.0 {
                sleep(SHOWN.1).await;
            }
        }
        Ok(None)
    }
}

async fn cast(
    wire: &Wire,
    device: &OauthCredentials,
    pool_id: &str,
    vote: Vote,
) -> StoreResult<VotingPool> {
    const OPERATION: &str = "cast ballot";
    let fail = |kind, what: &str| StoreError::new(kind, OPERATION, what).on(pool_id);
    let credential = device.basic();
    let fields = [("poolId", pool_id), ("vote", vote.word())];
    let call = Call::form(OPERATION, path::POOL_BALLOT, &fields)
        .with_basic(&credential)
        .ok_or_else(|| fail(StoreErrorKind::Invalid, "the credentials are not fit for a header"))?;
    let reply = wire.send(&call, None).await?;
    match reply.status {
        200..=299 => {
            let json = reply.json().unwrap_or_default();
            pool(&json, Some(pool_id)).ok_or_else(|| incomplete(OPERATION))
        }
        401 => Err(fail(StoreErrorKind::Denied, "the device's credentials are refused")),
        404 => Err(fail(StoreErrorKind::NotFound, "no such voting pool here")),
        405 | 501 => Err(fail(StoreErrorKind::Unsupported, "this service takes no ballots so")),
        _ => {
            let mut error = reply.error(OPERATION).on(pool_id);
            error.message = device.client_secret.redacted_from(error.message);
            error.message = credential.redacted_from(error.message);
            Err(error)
        }
    }
}

/// The members of a JSON body as a form: `name[]` for arrays, `name[member]` for objects
/// (B.2).
pub(super) fn form(operation: &'static str, path: &'static str, body: &Value) -> Call {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut fields = Vec::new();
    for (name, value) in body.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => {
                fields.extend(items.iter().map(|item| (format!("{name}[]"), text(item))));
            }
            Value::Object(members) => {
                let member =
                    |(key, value): (&String, &Value)| (format!("{name}[{key}]"), text(value));
                fields.extend(members.iter().map(member));
            }
            other => fields.push((name.clone(), text(other))),
        }
    }
    let fields: Vec<_> = fields.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let body = CallBody::Form(encode(&fields).into());
    Call { body, ..Call::post(operation, path) }
}

fn configuration(json: &Value) -> Option<VotingConfiguration> {
    let id = field(json, &["votingConfigurationId", "configurationId", "id", "uuid"]);
    Some(VotingConfiguration {
        name: field(json, &["name"]).or_else(|| id.clone())?,
        id,
        strategy: Strategy::read(json),
        time_limit: number(json, &["timeLimit", "time_limit"]),
        devices: texts(json, &["deviceIdentifiers", "device_identifiers", "devices"]),
        created: created(json),
    })
}

fn pool(json: &Value, asked: Option<&str>) -> Option<VotingPool> {
    json.as_object()?;
    let status = field(json, &["status", "state", "poolStatus"]);
    // Without a status nothing tells a pool from any other object.
    let id = match asked {
        Some(id) => status.is_some().then(|| id.to_owned())?,
        None => field(json, &POOL_IDS)?,
    };
    let ballots = json.get("ballots").or_else(|| json.get("votes")).and_then(Value::as_array);
    Some(VotingPool {
        id,
        status,
        title: field(json, &["title"]),
        question: field(json, &["question"]),
        event: field(json, &["event"]),
        policy: field(json, &["policy", "policyName", "policyId"]),
        token: field(json, &["token"]),
        device: field(json, &IDENTIFIERS),
        strategy: Strategy::read(json),
        created: created(json),
        expires: time(json, &["expiresAt", "expires_at"]),
        ballots: ballots.into_iter().flatten().filter_map(ballot).collect(),
    })
}

fn ballot(json: &Value) -> Option<Ballot> {
    let vote = match json.get("vote") {
        Some(Value::Bool(true)) => Some(Vote::Approve),
        Some(Value::Bool(false)) => Some(Vote::Reject),
        other => match other.and_then(Value::as_str).unwrap_or_default() {
            "approve" | "approved" | "yes" => Some(Vote::Approve),
            "reject" | "rejected" | "no" => Some(Vote::Reject),
            _ => None,
        },
    };
    let device = field(json, &IDENTIFIERS)?;
    Some(Ballot { device, name: field(json, &["name", "deviceName"]), vote })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_the_form_that_it_was_before() {
        let body = json!({"name": "a b", "n": 3, "list": ["x", "y"], "map": {"k": "v"}});
        let CallBody::Form(bytes) = form("test", "/x", &body).body else { panic!("no form") };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields: Vec<_> = text.split('&').collect();
        fields.sort_unstable();
        assert_eq!(fields, ["list%5B%5D=x", "list%5B%5D=y", "map%5Bk%5D=v", "n=3", "name=a+b"]);
    }

    #[test]
    fn pools_and_configurations_are_read_by_what_they_have() {
        let found = pool(
            &json!({
                "pollId": "p", "state": "open", "votes": [
                    {"deviceId": "d", "vote": true}, {"deviceIdentifier": "e", "vote": null},
                ],
            }),
            None,
        );
        let found = found.unwrap();
        assert_eq!((found.id.as_str(), found.status.as_deref()), ("p", Some("open")));
        let votes: Vec<_> = found.ballots.iter().map(|ballot| ballot.vote).collect();
        assert_eq!(votes, [Some(Vote::Approve), None]);
        assert!(pool(&json!({"message": "no"}), Some("p")).is_none());
        assert!(pool(&json!([]), Some("p")).is_none());

        let newer = configuration(&json!({
            "votingConfigurationId": "1", "name": "n", "strategy": "affirmative",
            "timeLimit": 60, "deviceIdentifiers": ["d"],
        }));
        let older = configuration(&json!({
            "id": 1, "name": "n", "strategy": "affirmative", "time_limit": "60",
            "devices": [{"deviceIdentifier": "d"}],
        }));
        assert_eq!(newer, older);
        assert!(configuration(&json!({"strategy": "affirmative"})).is_none());
    }
}
