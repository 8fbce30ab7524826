//! C.7: verified authenticators, a profile's voting defaults, and voting configurations.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::object::Object;
use super::params::{Caller, Fields};
use super::{command, devices, reply};
use crate::engine::app::App;
use crate::engine::db::Records;
use crate::engine::devices::{Role, authenticators, set_role};
use crate::engine::governance::{
    self, Configuration, Defaults, Governance, Strategy, TIME_LIMIT, check_authenticators,
};
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::protocol::governance::path;

/// Largest quorum and largest number of attempts.
const COUNT: u64 = 1_000;

/// `POST /verified-authenticator/register`.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set(&app, path::AUTHENTICATOR_REGISTER, caller, &fields, true).await
}

/// `POST /verified-authenticator/remove`. Its votes in open pools stay; it casts no more.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set(&app, path::AUTHENTICATOR_REMOVE, caller, &fields, false).await
}

async fn set(
    app: &Arc<App>,
    op: &'static str,
    caller: Caller,
    fields: &Fields,
    votes: bool,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, devices::own(app, caller, fields)?);
    Ok(command::plain(app, op, profile, move |tx| {
        set_role(tx, profile, &identifier, Role::Authenticator, votes)
    })
    .await)
}

/// `GET /verified-authenticator/list-verified-authenticator`.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let found = authenticators(&*app.db, caller.profile)?;
    let records: Vec<Value> = found.iter().map(devices::record).collect();
    Ok(reply::ok(&json!(records)))
}

/// `GET /verified-authenticator/retrieve-strategy`; the members are our choice.
pub(super) async fn strategy(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    let defaults = governance::of(&*app.db, caller.profile)?.defaults;
    Ok(reply::ok(&json!({
        "id": caller.profile,
        "strategy": defaults.strategy.word(),
        "strategyParams": { "percentageRequired": defaults.strategy.percentage() },
        "quorumSize": defaults.quorum,
        "timeLimit": defaults.time_limit,
        "maximumVotingAttempts": defaults.attempts,
    })))
}

/// A number from 1 to `most`, under its first name or its second.
fn number(
    fields: &Fields,
    name: &'static str,
    other: &'static str,
    most: u64,
) -> Result<u64, Refusal> {
    let sent = match fields.number(name)? {
        Some(number) => Some(number),
        None => fields.number(other)?,
    };
    match sent {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(Refusal::parameter(name, format!("between 1 and {most}"))),
        None => Err(Refusal::parameter(name, "this field is missing")),
    }
}

/// `POST /verified-authenticator/set-quorum-size`.
pub(super) async fn set_quorum_size(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let quorum = number(&fields, "size", "quorumSize", COUNT)?;
    set_default(&app, path::SET_QUORUM_SIZE, caller, &fields, move |d| d.quorum = quorum).await
}

/// `POST /verified-authenticator/set-quorum-strategy`. `strategy_params` is a percentage,
/// or an object, in JSON or in brackets, with `percentageRequired`.
pub(super) async fn set_quorum_strategy(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let word = fields.required("strategy")?;
    let percentage = percentage(&fields)?;
    let strategy = Strategy::read(&word, percentage, "strategy")?;
    let change = move |defaults: &mut Defaults| defaults.strategy = strategy;
    set_default(&app, path::SET_QUORUM_STRATEGY, caller, &fields, change).await
}

fn percentage(fields: &Fields) -> Result<Option<u64>, Refusal> {
    for name in ["strategy_params[percentageRequired]", "percentageRequired"] {
        if let Some(percentage) = fields.number(name)? {
            return Ok(Some(percentage));
        }
    }
    let Some(text) = fields.text("strategy_params")?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = || Refusal::parameter("strategy_params", "not a percentage");
    let value: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    match &value {
        Value::Array(none) if none.is_empty() => Ok(None),
        Value::Object(members) if members.is_empty() => Ok(None),
        Value::Object(members) => {
            let percentage = members.get("percentageRequired").and_then(Value::as_u64);
            percentage.map(Some).ok_or_else(wrong)
        }
        other => other.as_u64().map(Some).ok_or_else(wrong),
    }
}

/// `POST /verified-authenticator/set-voting-time-limit`, in seconds.
pub(super) async fn set_time_limit(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let limit = number(&fields, "time_limit", "timeLimit", TIME_LIMIT)?;
    set_default(&app, path::SET_TIME_LIMIT, caller, &fields, move |d| d.time_limit = limit).await
}

/// `POST /verified-authenticator/set-maximum-voting-attempts`.
pub(super) async fn set_attempts(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let attempts = Some(number(&fields, "number_of_attempts", "numberOfAttempts", COUNT)?);
    set_default(&app, path::SET_ATTEMPTS, caller, &fields, move |d| d.attempts = attempts).await
}

/// Changes the defaults. No source says whose `id` these calls take; we read it as the
/// profile's.
async fn set_default(
    app: &Arc<App>,
    op: &'static str,
    caller: Caller,
    fields: &Fields,
    change: impl FnOnce(&mut Defaults) + Send + 'static,
) -> Result<Response, Refusal> {
    let profile = caller.profile;
    if let Some(id) = fields.text("id")?.filter(|id| !id.is_empty())
        && Uuid::parse_str(&id).ok() != Some(profile)
    {
        return Err(Refusal::NotOwner);
    }
    Ok(command::plain(app, op, profile, move |tx| {
        governance::update(tx, profile, |governance| {
            change(&mut governance.defaults);
            Ok(())
        })
    })
    .await)
}

/// What a body says of a voting configuration.
struct Draft {
    name: Option<String>,
    time_limit: Option<u64>,
    strategy: Option<String>,
    percentage: Option<u64>,
    devices: Option<Vec<String>>,
}

impl Draft {
    fn read(body: &Object) -> Result<Self, Refusal> {
        let name = body.text("name")?.map(|_| body.required("name")).transpose()?;
        let time_limit = body.number("timeLimit")?;
        if time_limit.is_some_and(|limit| !(1..=TIME_LIMIT).contains(&limit)) {
            return Err(Refusal::parameter("timeLimit", format!("between 1 and {TIME_LIMIT}")));
        }
        Ok(Self {
            name,
            time_limit,
            strategy: body.text("strategy")?,
            percentage: body.number("percentageRequired")?,
            devices: body.texts("deviceIdentifiers")?,
        })
    }

    /// A new configuration; everything is needed.
    fn make(self, id: Uuid, now: u64) -> Result<Configuration, Refusal> {
        fn sent<T>(value: Option<T>, name: &'static str) -> Result<T, Refusal> {
            value.ok_or_else(|| Refusal::parameter(name, "this field is missing"))
        }
        let strategy = sent(self.strategy, "strategy")?;
        Ok(Configuration {
            id,
            name: sent(self.name, "name")?,
            strategy: Strategy::read(&strategy, self.percentage, "strategy")?,
            time_limit: sent(self.time_limit, "timeLimit")?,
            devices: sent(self.devices, "deviceIdentifiers")?,
            created_at: now,
        })
    }

    /// `old` with what was sent in place of what it had.
    fn change(self, mut old: Configuration) -> Result<Configuration, Refusal> {
        if self.strategy.is_some() || self.percentage.is_some() {
            let word = self.strategy.unwrap_or_else(|| old.strategy.word().to_owned());
            old.strategy = Strategy::read(&word, self.percentage, "strategy")?;
        }
        old.name = self.name.unwrap_or(old.name);
        old.time_limit = self.time_limit.unwrap_or(old.time_limit);
        old.devices = self.devices.unwrap_or(old.devices);
        Ok(old)
    }
}

/// Puts a configuration into a profile's record, with every check.
fn put(
    records: &impl Records,
    profile: Uuid,
    governance: &mut Governance,
    new: Configuration,
) -> Result<(), Refusal> {
    check_authenticators(records, profile, &new.devices, "deviceIdentifiers")?;
    governance.put_configuration(new)
}

async fn store(
    app: &Arc<App>,
    op: &'static str,
    profile: Uuid,
    new: Configuration,
) -> Result<Response, Refusal> {
    // Now, for an answer that names the field; and again when the command runs.
    put(&*app.db, profile, &mut governance::of(&*app.db, profile)?, new.clone())?;
    Ok(command::plain(app, op, profile, move |tx| {
        let mut current = governance::of(tx, profile)?;
        put(tx, profile, &mut current, new)?;
        governance::update(tx, profile, |governance| {
            *governance = current;
            Ok(())
        })
    })
    .await)
}

/// `POST /verified-authenticator/voting-configuration/register`.
pub(super) async fn register_configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Object,
) -> Result<Response, Refusal> {
    let new = Draft::read(&body)?.make(app.new_id(), app.now())?;
    store(&app, path::CONFIGURATION_REGISTER, caller.profile, new).await
}

/// The configuration that a body names, by its id or name.
fn named(body: &Object) -> Result<String, Refusal> {
    for field in ["votingConfigurationId", "configurationId", "id"] {
        if let Some(wanted) = body.text(field)?.filter(|wanted| !wanted.is_empty()) {
            return Ok(wanted);
        }
    }
    body.required("name")
}

/// `POST /verified-authenticator/voting-configuration/update`. Without a
/// `votingConfigurationId`, `name` says which; what is not sent stays.
pub(super) async fn update_configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Object,
) -> Result<Response, Refusal> {
    let governance = governance::of(&*app.db, caller.profile)?;
    let old = governance.configuration(&named(&body)?)?.clone();
    let new = Draft::read(&body)?.change(old)?;
    store(&app, path::CONFIGURATION_UPDATE, caller.profile, new).await
}

/// `GET /verified-authenticator/voting-configuration/list`.
pub(super) async fn list_configurations(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    let governance = governance::of(&*app.db, caller.profile)?;
    let records: Vec<Value> = governance.configurations.iter().map(record).collect();
    Ok(reply::ok(&json!(records)))
}

/// `GET /verified-authenticator/voting-configuration/retrieve/{name or id}`.
pub(super) async fn configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(wanted): Path<String>,
) -> Result<Response, Refusal> {
    let governance = governance::of(&*app.db, caller.profile)?;
    Ok(reply::ok(&record(governance.configuration(&wanted)?)))
}

/// `POST /verified-authenticator/voting-configuration/delete`. One that a policy uses is
/// kept.
pub(super) async fn delete_configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Object,
) -> Result<Response, Refusal> {
    let (profile, wanted) = (caller.profile, named(&body)?);
    governance::of(&*app.db, profile)?.remove_configuration(&wanted)?;
    Ok(command::plain(&app, path::CONFIGURATION_DELETE, profile, move |tx| {
        governance::update(tx, profile, |governance| governance.remove_configuration(&wanted))
    })
    .await)
}

fn record(one: &Configuration) -> Value {
    json!({
        "id": one.id,
        "votingConfigurationId": one.id,
        "name": one.name,
        "strategy": one.strategy.word(),
        "percentageRequired": one.strategy.percentage(),
        "timeLimit": one.time_limit,
        "deviceIdentifiers": one.devices,
        "createdAt": rfc3339(one.created_at),
    })
}
