//! C.5: devices, from the request of an identifier to their removal.
//!
//! Every call that names a device answers 404 for an unknown one and 403 for another
//! profile's; what can change until the command runs is checked again then, and the ack
//! tells. Approving or rejecting a device twice ends in a rejecting ack.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::{Caller, Fields};
use super::{command, reply, storage};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::db::{Records, Space};
use crate::engine::devices;
use crate::engine::gate::{Operation, Question};
use crate::engine::records::{Approval, Command, Device};
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::protocol::governance::path;

const UNNAMED: &str = "device";
/// What the credentials of a device are derived for.
pub(super) const CLIENT_SECRET: &str = "client-secret";
const RABBIT_PASS: &str = "rabbit-pass";
/// Where AMQP would be; nothing answers there.
const AMQP_PORT: u16 = 5_672;

/// The device a form names, by any of the names its field has had (C.5).
pub(super) fn identifier(fields: &Fields) -> Result<String, Refusal> {
    let older =
        ["device_unique_identifier", "deviceUniqueIdentifier", "deviceId", "device-identifier"];
    for name in older {
        if let Some(identifier) = fields.text(name)?.filter(|text| !text.is_empty()) {
            return Ok(identifier);
        }
    }
    fields.required("deviceIdentifier")
}

/// As [`identifier`], for a device that the caller has.
pub(super) fn own(app: &App, caller: Caller, fields: &Fields) -> Result<String, Refusal> {
    let identifier = identifier(fields)?;
    devices::own(&*app.db, caller.profile, &identifier)?;
    Ok(identifier)
}

/// `POST /device/request-unique-identifier`: makes a pending device.
pub(super) async fn request(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.text("deviceName")?.filter(|name| !name.is_empty());
    let (profile, identifier) = (caller.profile, app.new_id().to_string());
    let step = move |tx: &mut Tx<'_>| {
        let device = Device {
            profile,
            identifier: identifier.clone(),
            name: name.unwrap_or_else(|| UNNAMED.to_owned()),
            tags: None,
            created_at: tx.now,
            approval: Approval::Pending,
            storage: false,
            embedded: false,
            authenticator: false,
        };
        devices::add(tx, &device)?;
        Ok(Some(identifier))
    };
    Ok(command::making(&app, path::DEVICE_REQUEST, profile, step).await)
}

/// `POST /device/retrieve-unique-identifier` with the command's id.
pub(super) async fn unique_identifier(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    requested(&app, caller, &fields.required("id")?)
}

/// The older `GET /device/retrieve-device-id/{commandId}`.
pub(super) async fn unique_identifier_by_path(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    requested(&app, caller, &id)
}

/// What a settled request has made; 404 before that, and for others.
fn requested(app: &App, caller: Caller, id: &str) -> Result<Response, Refusal> {
    let id = Uuid::parse_str(id).map_err(|_| Refusal::NotFound)?;
    let command: Option<Command> = app.db.load(Space::Commands, id.as_bytes())?;
    let identifier = command
        .filter(|command| command.profile == Some(caller.profile))
        .and_then(|command| command.made)
        .ok_or(Refusal::NotFound)?;
    let device = devices::find(&*app.db, &identifier)?.ok_or(Refusal::NotFound)?;
    Ok(reply::ok(&record(&device)))
}

/// `GET /device/retrieve-profile-devices`; the vendor's own client posts.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let devices = devices::all(&*app.db, caller.profile)?;
    let devices: Vec<Value> = devices.iter().map(record).collect();
    Ok(reply::ok(&json!(devices)))
}

/// A device under every name its members have had in the sources.
pub(super) fn record(device: &Device) -> Value {
    let state = match device.approval {
        Approval::Pending => "pending",
        Approval::Approved => "approved",
        Approval::Rejected => "rejected",
    };
    let kind = match (device.storage, device.authenticator) {
        (true, _) => "storage",
        (_, true) => "authenticator",
        _ => "",
    };
    let roles = [(device.storage, "storage"), (device.authenticator, "authenticator")];
    let roles: Vec<&str> = roles.iter().filter(|(has, _)| *has).map(|(_, role)| *role).collect();
    json!({
        "id": device.identifier,
        "deviceIdentifier": device.identifier,
        "deviceUniqueIdentifier": device.identifier,
        "deviceId": device.identifier,
        "profile": device.profile,
        "name": device.name,
        "tags": device.tags,
        "createdAt": rfc3339(device.created_at),
        "approved": u8::from(device.approval == Approval::Approved),
        "approvalState": state,
        "type": kind,
        "roles": roles,
        "score": 0,
    })
}

/// `POST /device/configure-meta`, with `name` or the older `displayName` and `tags`.
pub(super) async fn configure_meta(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let identifier = own(&app, caller, &fields)?;
    let name = match fields.text("name")? {
        Some(name) => Some(name),
        None => fields.text("displayName")?,
    };
    if name.as_deref() == Some("") {
        return Err(Refusal::parameter("name", "this value should not be blank"));
    }
    let (profile, tags) = (caller.profile, fields.text("tags")?);
    let op = path::DEVICE_META;
    Ok(command::plain(&app, op, profile, move |tx| {
        devices::describe(tx, profile, &identifier, name, tags)
    })
    .await)
}

/// `POST /device/approve-device`. This is where a device joins a profile, so it is the
/// command of the event `device.registered`, and a policy may hold it.
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let identifier = own(&app, caller, &fields)?;
    let profile = caller.profile;
    let question = Question { profile, operation: Operation::Approve, object: identifier.clone() };
    let op = path::DEVICE_APPROVE;
    let id = app
        .accept_voted(op, question, Durability::Machine, move |tx| {
            devices::review(tx, profile, &identifier, Approval::Approved).map(|()| None)
        })
        .await;
    Ok(reply::accepted(&app, id))
}

/// `POST /device/reject-device`.
pub(super) async fn reject(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let identifier = own(&app, caller, &fields)?;
    let (op, profile) = (path::DEVICE_REJECT, caller.profile);
    Ok(command::plain(&app, op, profile, move |tx| {
        devices::review(tx, profile, &identifier, Approval::Rejected)
    })
    .await)
}

/// `POST /device/remove`; as with `/storage/remove`, a storage device stays while it is the
/// last holder of something.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let identifier = own(&app, caller, &fields)?;
    let (op, profile) = (path::DEVICE_REMOVE, caller.profile);
    Ok(storage::leave(&app, op, profile, identifier, devices::remove).await)
}

/// `GET /device/retrieve-device-configuration/{deviceIdentifier}`.
pub(super) async fn configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(identifier): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (_, members) = configured(&app, caller, &identifier, &headers)?;
    let members = members.into_iter().map(|(key, value)| (key.to_owned(), json!(value)));
    Ok(reply::ok(&Value::Object(members.collect())))
}

/// `POST /device/download-device-configuration`.
pub(super) async fn download(
    state: State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Refusal> {
    let identifier = identifier(&fields)?;
    configuration(state, caller, Path(identifier), headers).await
}

/// `GET /device/download-device-configuration/{id}`: the same as a YAML file, in base64.
pub(super) async fn file(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(identifier): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (device, members) = configured(&app, caller, &identifier, &headers)?;
    // Values are of letters, digits and marks that YAML reads as a plain text in quotes.
    let yaml: String = members.iter().map(|(key, value)| format!("{key}: '{value}'\n")).collect();
    let name = format!("{}.yaml", device.identifier);
    Ok(reply::ok(&json!({ "name": name, "file": STANDARD.encode(yaml) })))
}

/// The members of a configuration, in the order of the sources.
type Members = [(&'static str, String); 7];

/// What a device is set up with. The identifier is its client id too. There is no queue
/// server here: those members are well-formed, and a device votes over HTTP instead.
fn configured(
    app: &App,
    caller: Caller,
    identifier: &str,
    headers: &HeaderMap,
) -> Result<(Device, Members), Refusal> {
    let device = devices::own(&*app.db, caller.profile, identifier)?;
    if device.approval != Approval::Approved {
        return Err(Refusal::NotApproved);
    }
    let base = app.base(headers);
    let host = base.trim_start_matches("http://").rsplit_once(':').map_or("", |(host, _)| host);
    let host: String = host.chars().filter(|c| *c != '\'').collect();
    let secret = |purpose| app.device_secrets.of(purpose, identifier);
    let members = [
        ("device-identifier", identifier.to_owned()),
        ("client-id", identifier.to_owned()),
        (CLIENT_SECRET, secret(CLIENT_SECRET)),
        ("rabbit-user", identifier.to_owned()),
        (RABBIT_PASS, secret(RABBIT_PASS)),
        ("rabbit-host", host),
        ("rabbit-port", AMQP_PORT.to_string()),
    ];
    Ok((device, members))
}
