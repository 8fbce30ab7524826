//! C.8: policies, from the templates they are made of to their removal. A policy belongs
//! to its profile's record, so another profile's is as unknown as none.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::object::Object;
use super::params::{Caller, Fields};
use super::{command, reply};
use crate::engine::app::App;
use crate::engine::governance::{self, Governance, MEMBERS, Policy};
use crate::engine::refusal::Refusal;
use crate::engine::templates;
use crate::engine::time::rfc3339;
use crate::protocol::governance::path;

/// `GET /policy/list-policy-templates`: an object keyed by id.
pub(super) async fn templates(_caller: Caller) -> Response {
    reply::ok(&templates::list())
}

/// `POST /policy/register`: made inactive.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Object,
) -> Result<Response, Refusal> {
    let profile = caller.profile;
    let mut current = governance::of(&*app.db, profile)?;
    let new = read(&body, &current, app.new_id(), app.now())?;
    // Now, for an answer that names the field; and again when the command runs.
    current.add_policy(new.clone())?;
    Ok(command::plain(&app, path::POLICY_REGISTER, profile, move |tx| {
        governance::update(tx, profile, |governance| governance.add_policy(new))
    })
    .await)
}

fn read(body: &Object, current: &Governance, id: Uuid, now: u64) -> Result<Policy, Refusal> {
    let template = templates::find(&body.required("policyTemplateId")?)
        .ok_or_else(|| Refusal::parameter("policyTemplateId", "no such template"))?;
    let name = body.text("name")?.filter(|name| !name.is_empty());
    Ok(Policy {
        id,
        name: name.unwrap_or_else(|| id.to_string()),
        template: template.id.to_owned(),
        events: events(body, template)?,
        matches: matches(body)?,
        voting: voting(body, current)?,
        active: false,
        created_at: now,
    })
}

/// `applyingEventIds`: ids of the template's events, or their names.
fn events(body: &Object, template: &templates::Template) -> Result<Vec<templates::Event>, Refusal> {
    const FIELD: &str = "applyingEventIds";
    let wanted = body.texts(FIELD)?.unwrap_or_default();
    if wanted.is_empty() {
        return Err(Refusal::parameter(FIELD, "this field is missing"));
    }
    let unknown = || Refusal::parameter(FIELD, "not an event of this template");
    let mut events = Vec::new();
    for wanted in wanted {
        let event = template.event(&wanted).ok_or_else(unknown)?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    Ok(events)
}

/// `configuration`: members of the template's, at least one.
fn matches(body: &Object) -> Result<Vec<(String, String)>, Refusal> {
    const FIELD: &str = "configuration";
    let matches = body.members(FIELD)?.unwrap_or_default();
    if matches.is_empty() {
        return Err(Refusal::parameter(FIELD, "this value should not be empty"));
    }
    if matches.iter().any(|(member, _)| !MEMBERS.contains(&member.as_str())) {
        return Err(Refusal::parameter(FIELD, "an unknown member"));
    }
    Ok(matches)
}

/// The voting configuration, under either name of the field, by name or id. Without one
/// the profile's defaults count, and all its authenticators.
fn voting(body: &Object, current: &Governance) -> Result<Option<Uuid>, Refusal> {
    for field in ["votingConfigurationId", "configurationId"] {
        if let Some(wanted) = body.text(field)?.filter(|wanted| !wanted.is_empty()) {
            let unknown = |_| Refusal::parameter(field, "no such configuration");
            return Ok(Some(current.configuration(&wanted).map_err(unknown)?.id));
        }
    }
    Ok(None)
}

/// `GET /policy/retrieve-policy/{name or id}`.
pub(super) async fn retrieve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(wanted): Path<String>,
) -> Result<Response, Refusal> {
    let governance = governance::of(&*app.db, caller.profile)?;
    Ok(reply::ok(&record(governance.policy(&wanted)?)))
}

/// `policyId`, or the older `name`, of a policy that is there.
fn named(app: &App, caller: Caller, fields: &Fields) -> Result<String, Refusal> {
    let wanted = match fields.text("policyId")?.filter(|id| !id.is_empty()) {
        Some(id) => id,
        None => match fields.text("name")?.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => fields.required("policyId")?,
        },
    };
    governance::of(&*app.db, caller.profile)?.policy(&wanted)?;
    Ok(wanted)
}

/// `POST /policy/activate`.
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set_active(&app, path::POLICY_ACTIVATE, caller, &fields, true).await
}

/// `POST /policy/deactivate`. What is held already stays held.
pub(super) async fn deactivate(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set_active(&app, path::POLICY_DEACTIVATE, caller, &fields, false).await
}

async fn set_active(
    app: &Arc<App>,
    op: &'static str,
    caller: Caller,
    fields: &Fields,
    active: bool,
) -> Result<Response, Refusal> {
    let (profile, wanted) = (caller.profile, named(app, caller, fields)?);
    Ok(command::plain(app, op, profile, move |tx| {
        governance::update(tx, profile, |governance| governance.set_active(&wanted, active))
    })
    .await)
}

/// `POST /policy/delete`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (profile, wanted) = (caller.profile, named(&app, caller, &fields)?);
    Ok(command::plain(&app, path::POLICY_DELETE, profile, move |tx| {
        governance::update(tx, profile, |governance| governance.remove_policy(&wanted))
    })
    .await)
}

/// `GET /policy/list-policies`: the registered ones, active or not.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    listed(&app, caller, |_| true)
}

/// `GET /policy/list-active-policies`.
pub(super) async fn list_active(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    listed(&app, caller, |policy| policy.active)
}

/// `GET /policy/list-inactive-policies`.
pub(super) async fn list_inactive(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    listed(&app, caller, |policy| !policy.active)
}

fn listed(app: &App, caller: Caller, wanted: fn(&&Policy) -> bool) -> Result<Response, Refusal> {
    let governance = governance::of(&*app.db, caller.profile)?;
    let records: Vec<Value> = governance.policies.iter().filter(wanted).map(record).collect();
    Ok(reply::ok(&json!(records)))
}

fn record(policy: &Policy) -> Value {
    let configuration: Map<String, Value> =
        policy.matches.iter().map(|(member, value)| (member.clone(), json!(value))).collect();
    let events: Vec<&str> = policy.events.iter().map(|event| event.id()).collect();
    json!({
        "id": policy.id,
        "policyId": policy.id,
        "name": policy.name,
        "policyTemplateId": policy.template,
        "applyingEventIds": events,
        "configuration": configuration,
        "votingConfigurationId": policy.voting,
        "configurationId": policy.voting,
        "active": policy.active,
        "createdAt": rfc3339(policy.created_at),
    })
}
