//! C.4: reserve, exchange, describe, update, request and delete data tokens.

use std::future::ready;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::{Fields, Json, KeyedCaller};
use super::reply;
use crate::engine::app::App;
use crate::engine::commit::{Durability, Received, Tx};
use crate::engine::db::{Records, Space};
use crate::engine::gate::{Operation, Question};
use crate::engine::records::{Command, FileMeta, RiskMeta};
use crate::engine::refusal::Refusal;
use crate::engine::shape::{ConfigureReply, StreamField, TemporaryReply, UpdateCalls};
use crate::engine::time::rfc3339;
use crate::engine::tokens::{self, MetaChange, Reservation};
use crate::engine::{answers, secrets};
use crate::protocol::{INLINE_ENGINE_LIMIT, RESERVATION_TTL_MINUTES, path};

/// Longest reservation, in minutes (protocol reference, D.1).
const TTL_MINUTES: u64 = 60;

/// Accepts a command on a token, which a policy may hold.
async fn command(
    app: &Arc<App>,
    op: &'static str,
    question: Question,
    step: impl FnOnce(&mut Tx<'_>, Uuid) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    let profile = question.profile;
    let step = move |tx: &mut Tx<'_>| step(tx, profile).map(|()| None);
    let id = app.accept_voted(op, question, Durability::Machine, step).await;
    reply::accepted(app, id)
}

fn question(caller: KeyedCaller, operation: Operation, name: &str) -> Question {
    Question { profile: caller.0.profile, operation, object: name.to_owned() }
}

/// `POST /data-token/reserve-token-space`.
pub(super) async fn reserve(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let default = u64::from(RESERVATION_TTL_MINUTES);
    let ttl = fields.number("ttl")?.unwrap_or(default);
    if !(1..=TTL_MINUTES).contains(&ttl) {
        return Err(Refusal::parameter("ttl", "between 1 and 60 minutes"));
    }
    let wanted = Reservation {
        profile: caller.0.profile,
        uuid: fields.text("uuid")?.unwrap_or_else(|| app.new_id().to_string()),
        context: fields.required("context")?,
        note: fields.text("meta")?,
        ttl: u32::try_from(ttl).unwrap_or(RESERVATION_TTL_MINUTES),
    };
    let name = secrets::data_token(&app.env, secrets::TEMPORARY);
    let step = move |tx: &mut Tx<'_>, ()| {
        tokens::reserve(tx, &name, wanted)?;
        Ok(Some(name))
    };
    let (op, profile, durability) = (path::RESERVE, caller.0.profile, Durability::Process);
    let id = app.accept(op, Some(profile), durability, ready(Ok(())), step).await;
    Ok(reply::accepted(&app, id))
}

/// `GET /data-token/retrieve-temporary-data-token/{commandId}`.
pub(super) async fn temporary(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let id = Uuid::parse_str(&id).map_err(|_| Refusal::NotFound)?;
    let command: Option<Command> = app.db.load(Space::Commands, id.as_bytes())?;
    let name = command
        .filter(|command| command.profile == Some(caller.0.profile))
        .and_then(|command| command.made)
        .ok_or(Refusal::NotFound)?;
    let token = app.own_token(caller.0.profile, &name)?.token;
    let auth = app.stream_tokens.issue(&name).ok_or(Refusal::NotFound)?;
    let base = app.base(&headers);
    let form = app.shape.read().stream;
    let stream = if form == StreamField::Url { format!("{base}/?auth={auth}") } else { auth };
    let mut body = json!({
        "token": name,
        "stream": stream,
        "uuid": token.uuid,
        "createdAt": rfc3339(token.created_at),
        "context": token.context,
        "ttl": token.ttl,
    });
    if form != StreamField::Token
        && let Some((server, port)) = base.rsplit_once(':')
    {
        body["stream_server_id"] = json!(server);
        body["stream_server_port"] = json!(port);
    }
    let temporary = app.shape.read().temporary;
    let only = |names: &[&str]| {
        let kept = names.iter().map(|&name| (name.to_owned(), body[name].clone()));
        Value::Object(kept.collect())
    };
    Ok(reply::ok(&match temporary {
        TemporaryReply::Union => body,
        TemporaryReply::Pair => only(&["token", "stream"]),
        TemporaryReply::Bare => body["token"].clone(),
        TemporaryReply::Vendor => only(&["uuid", "createdAt", "token", "context", "ttl"]),
    }))
}

/// The sealed bytes behind a base64 text, within the inline limit.
fn inline_payload(app: &App, text: &str) -> Result<Vec<u8>, Refusal> {
    let broken = |_| Refusal::parameter("data", "not base64");
    let bytes = STANDARD.decode(text).map_err(broken)?;
    if bytes.len() > INLINE_ENGINE_LIMIT {
        return Err(Refusal::parameter("data", "too large to exchange inline: use the stream"));
    }
    app.counters.received(bytes.len());
    Ok(bytes)
}

/// `POST /data-token/exchange-data-for-token`.
pub(super) async fn exchange(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required("temporaryTokenSpace")?;
    let text = fields.get("data").ok_or_else(|| Refusal::parameter("data", "missing"))?;
    let bytes = inline_payload(&app, text)?;
    let id = app.new_id();
    let arrival = app.arrive(caller.0.profile, id, Received::Bytes(bytes)).await?;
    let question = question(caller, Operation::Exchange, &name);
    let step = move |tx: &mut Tx<'_>, profile| tokens::fill(tx, profile, &name, id, arrival);
    Ok(command(&app, path::EXCHANGE, question, step).await)
}

/// `POST /data-token/configure-file-meta`: promotes, at once or by a command. It is always
/// a command when a policy wants a vote first; the temporary token is then the permanent
/// one, as in [`ConfigureReply::Accepted`].
pub(super) async fn configure_file(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required("token")?;
    let context = fields.required("context")?;
    let missing = || Refusal::parameter("size", "this field is missing");
    let file = FileMeta {
        file_name: fields.required("fileName")?,
        extension: fields.sent("extension")?,
        size: fields.number("size")?.ok_or_else(missing)?,
        path: fields.required("path")?,
    };
    let form = app.shape.read().configure;
    let profile = caller.0.profile;
    let question = question(caller, Operation::FileMeta, &name);
    if form == ConfigureReply::Accepted || app.must_vote(&question)? {
        let step = move |tx: &mut Tx<'_>, profile| {
            tokens::configure(tx, profile, &name, file, context, None).map(drop)
        };
        return Ok(command(&app, path::CONFIGURE_FILE, question, step).await);
    }
    let permanent = Some(secrets::data_token(&app.env, secrets::PERMANENT));
    let token = app
        .committer
        .run(Durability::Machine, move |tx| {
            tokens::configure(tx, profile, &name, file, context, permanent)
        })
        .await?;
    let body = if form == ConfigureReply::String { json!(token) } else { json!({"token": token}) };
    Ok(reply::ok(&body))
}

/// `POST /data-token/configure-information-security-risk-meta`.
pub(super) async fn configure_risk(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required("token")?;
    let risk = RiskMeta {
        classification: fields.sent("classification")?,
        label: fields.sent("label")?,
        handling: fields.sent("handling")?,
    };
    let change = MetaChange { risk: Some(risk), ..MetaChange::default() };
    let question = question(caller, Operation::RiskMeta, &name);
    Ok(change_meta(&app, path::CONFIGURE_RISK, question, name, change).await)
}

/// `POST /data-token/update-data-token`: metadata only.
pub(super) async fn update_meta(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    if matches!(app.shape.read().update, UpdateCalls::Json | UpdateCalls::Neither) {
        return Err(Refusal::NotFound);
    }
    let name = fields.required("token")?;
    let change = MetaChange {
        file_name: fields.text("fileName")?,
        extension: fields.text("extension")?,
        context: fields.text("context")?,
        ..MetaChange::default()
    };
    let question = question(caller, Operation::FileMeta, &name);
    Ok(change_meta(&app, path::UPDATE_META, question, name, change).await)
}

async fn change_meta(
    app: &Arc<App>,
    op: &'static str,
    question: Question,
    name: String,
    change: MetaChange,
) -> Response {
    let step = move |tx: &mut Tx<'_>, profile| tokens::change(tx, profile, &name, change);
    command(app, op, question, step).await
}

/// The JSON body of `POST /data-token/update-data`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Update {
    data_token: String,
    data: String,
    #[serde(default)]
    meta: Value,
}

impl Update {
    /// The members of `meta` that were sent; others stay as they are.
    fn change(&self) -> MetaChange {
        let text = |group: &str, member: &str| self.meta[group][member].as_str().map(str::to_owned);
        let group = "information_security_risk";
        let risk = || {
            let classification = text(group, "classification")?;
            let member = |name| text(group, name).unwrap_or_default();
            Some(RiskMeta { classification, label: member("label"), handling: member("handling") })
        };
        MetaChange {
            file_name: text("file", "fileName"),
            extension: text("file", "extension"),
            size: self.meta["file"]["size"].as_u64(),
            path: text("file", "path"),
            context: None,
            data_type: text("data", "type"),
            risk: risk(),
        }
    }
}

/// `POST /data-token/update-data`: new payload under the same token.
pub(super) async fn update_data(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    Json(update): Json<Update>,
) -> Result<Response, Refusal> {
    if matches!(app.shape.read().update, UpdateCalls::Form | UpdateCalls::Neither) {
        return Err(Refusal::NotFound);
    }
    let bytes = inline_payload(&app, &update.data)?;
    let change = update.change();
    let (id, name) = (app.new_id(), update.data_token);
    let arrival = app.arrive(caller.0.profile, id, Received::Bytes(bytes)).await?;
    let question = question(caller, Operation::Replace, &name);
    let step =
        move |tx: &mut Tx<'_>, profile| tokens::replace(tx, profile, &name, id, arrival, change);
    Ok(command(&app, path::UPDATE_DATA, question, step).await)
}

/// `POST /data-token/request-data`: the answer comes on the channel.
pub(super) async fn request_data(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required("token")?;
    let token = app.own_token(caller.0.profile, &name)?.token;
    token.payload.ok_or(Refusal::NoToken)?;
    let asked = answers::Asked {
        command: app.new_id(),
        request: app.new_id(),
        profile: caller.0.profile,
        token: name,
        base: app.base(&headers),
    };
    let (command, request) = (asked.command, asked.request);
    answers::start(&app, asked).await;
    Ok(reply::requested(&app, command, request))
}

/// `POST /data-token/delete-data`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: KeyedCaller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required("token")?;
    let question = question(caller, Operation::Delete, &name);
    let step = move |tx: &mut Tx<'_>, profile| tokens::delete(tx, profile, &name);
    Ok(command(&app, path::DELETE, question, step).await)
}
