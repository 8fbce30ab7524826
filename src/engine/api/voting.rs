//! C.9: voting pools. Real devices vote over a queue that no source describes; here they
//! vote over HTTP, with the credentials of their configuration.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::devices::CLIENT_SECRET;
use super::object::Object;
use super::params::{Caller, Fields, scan};
use super::{command, reply};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::devices;
use crate::engine::governance::{self, check_authenticators};
use crate::engine::pools::{self, Opening, Pool, Status, Vote};
use crate::engine::records::Approval;
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::protocol;
use crate::protocol::governance::path;

/// `POST /voting/create`. A command whose `202` names the pool as well, whatever the
/// shape of other commands; the pool is there once the ack has come.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Object,
) -> Result<Response, Refusal> {
    let profile = caller.profile;
    let governance = governance::of(&*app.db, profile)?;
    let wanted = body.required("votingConfigurationId")?;
    let unknown = |_| Refusal::parameter("votingConfigurationId", "no such configuration");
    let configuration = governance.configuration(&wanted).map_err(unknown)?;
    let skip = body.texts("skipAuthenticatorDevices")?.unwrap_or_default();
    check_authenticators(&*app.db, profile, &skip, "skipAuthenticatorDevices")?;
    let pool = app.new_id();
    let opening = Opening {
        id: pool,
        profile,
        title: body.required("title")?,
        question: body.required("question")?,
        nonce: body.text("nonce")?,
        subject: None,
        strategy: configuration.strategy,
        time_limit: configuration.time_limit,
        voters: vec![profile],
        devices: configuration.devices.clone(),
        skip,
    };
    let prepare = std::future::ready(Ok(()));
    let (op, durability) = (path::POOL_CREATE, Durability::Machine);
    let step = move |tx: &mut Tx<'_>, ()| pools::open(tx, opening).map(|_| None);
    let id = app.accept(op, Some(profile), durability, prepare, step).await;
    let body = json!({ "commandId": id, "poolId": pool, "pollId": pool });
    let mut response = reply::body(StatusCode::ACCEPTED, &body);
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(HeaderName::from_static(protocol::COMMAND_ID), id);
    }
    Ok(response)
}

fn id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text).map_err(|_| Refusal::NotFound)
}

/// `GET /voting/check-pool-status/{poolId}`.
pub(super) async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(pool): Path<String>,
) -> Result<Response, Refusal> {
    let pool = pools::own(&*app.db, caller.profile, id(&pool)?)?;
    Ok(reply::ok(&snapshot(&pool, app.now())))
}

/// `GET /voting/list-pools?status=open`: oldest first.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let unknown = || Refusal::parameter("status", "no such status");
    let read = |word: String| Status::read(&word).ok_or_else(unknown);
    let wanted = fields.text("status")?.map(read).transpose()?;
    let now = app.now();
    let found = scan(move || Ok(pools::all(&app.db.view(), caller.profile)?)).await?;
    let is_wanted = |pool: &&Pool| wanted.is_none_or(|wanted| pool.status(now) == wanted);
    let pools: Vec<Value> = found.iter().filter(is_wanted).map(|p| snapshot(p, now)).collect();
    Ok(reply::ok(&json!(pools)))
}

/// `POST /voting/cancel-pool`.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (profile, pool) = (caller.profile, id(&fields.required("poolId")?)?);
    if pools::own(&*app.db, profile, pool)?.status(app.now()) != Status::Open {
        return Err(Refusal::Settled);
    }
    let op = path::POOL_CANCEL;
    Ok(command::plain(&app, op, profile, move |tx| pools::cancel(tx, profile, pool)).await)
}

/// A device that proved to be itself: `Basic base64(client-id:client-secret)`.
#[derive(Debug)]
pub(super) struct DeviceCaller(String);

impl FromRequestParts<Arc<App>> for DeviceCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (identifier, secret) = header.and_then(basic).ok_or(Refusal::DeviceCredentials)?;
        let device = devices::find(&*app.db, &identifier)?;
        let approved = device.is_some_and(|device| device.approval == Approval::Approved);
        if approved && app.device_secrets.verify(CLIENT_SECRET, &identifier, &secret) {
            Ok(Self(identifier))
        } else {
            Err(Refusal::DeviceCredentials)
        }
    }
}

/// The user and the password of a basic authorization.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let bytes = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()))?;
    let text = String::from_utf8(bytes.ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// `POST /voting/cast-ballot`: answered with the pool as it is then.
pub(super) async fn cast(
    State(app): State<Arc<App>>,
    DeviceCaller(device): DeviceCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let pool = id(&fields.required("poolId")?)?;
    let vote = match fields.required("vote")?.as_str() {
        "approve" => Vote::Approve,
        "reject" => Vote::Reject,
        _ => return Err(Refusal::parameter("vote", "approve or reject")),
    };
    let step = move |tx: &mut Tx<'_>| pools::vote(tx, &device, pool, vote);
    let pool = app.committer.run(Durability::Machine, step).await?;
    Ok(reply::ok(&snapshot(&pool, app.now())))
}

/// A pool as the wire shows it. The members are our choice.
fn snapshot(pool: &Pool, now: u64) -> Value {
    let ballots: Vec<Value> = pool
        .ballots
        .iter()
        .map(|ballot| {
            let vote = ballot.vote.map(|vote| match vote {
                Vote::Approve => "approve",
                Vote::Reject => "reject",
            });
            json!({ "deviceIdentifier": ballot.device, "name": ballot.name, "vote": vote })
        })
        .collect();
    let subject = pool.subject.as_ref();
    json!({
        "poolId": pool.id,
        "status": pool.status(now).word(),
        "title": pool.title,
        "question": pool.question,
        "nonce": pool.nonce,
        "event": subject.map(|subject| subject.event.name()),
        "token": pool.token(),
        "deviceIdentifier": pool.device(),
        "policy": subject.map(|subject| &subject.policy_name),
        "policyId": subject.map(|subject| subject.policy),
        "strategy": pool.strategy.word(),
        "percentageRequired": pool.strategy.percentage(),
        "timeLimit": pool.time_limit,
        "createdAt": rfc3339(pool.created_at),
        "expiresAt": rfc3339(pool.expires_at),
        "settledAt": pool.settled_at.map(rfc3339),
        "ballots": ballots,
    })
}
