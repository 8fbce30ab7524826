//! C.6: storage devices. The engine's own disk is one virtual device that every profile
//! starts with; without any storage device, exchanges are rejected.

use std::future::ready;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::params::{Caller, Fields};
use super::reply;
use crate::engine::app::App;
use crate::engine::commit::Durability;
use crate::engine::profiles;
use crate::engine::records::Device;
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::protocol::path;

/// The identifier, under its current or its older name.
fn identifier(fields: &Fields) -> Result<String, Refusal> {
    match fields.text("device_unique_identifier")? {
        Some(older) => Ok(older),
        None => fields.required("deviceIdentifier"),
    }
}

/// `POST /storage/register`.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set(&app, path::STORAGE_REGISTER, caller, &fields, Some(true)).await
}

/// `POST /storage/remove`.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set(&app, path::STORAGE_REMOVE, caller, &fields, Some(false)).await
}

/// `POST /storage/sync-device`; the virtual device never lags behind.
pub(super) async fn synchronize(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    set(&app, path::STORAGE_SYNC, caller, &fields, None).await
}

async fn set(
    app: &Arc<App>,
    op: &'static str,
    caller: Caller,
    fields: &Fields,
    storage: Option<bool>,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, identifier(fields)?);
    let prepare = ready(Ok(()));
    let id = app
        .accept(op, Some(profile), Durability::Machine, prepare, move |tx, ()| {
            let current = profiles::get(tx, profile)?;
            let device = current.devices.iter().find(|device| device.identifier == identifier);
            let now = device.ok_or(Refusal::NoDevice)?.storage;
            profiles::set_storage(tx, profile, &identifier, storage.unwrap_or(now))?;
            Ok(None)
        })
        .await;
    Ok(reply::accepted(app, id))
}

/// `GET /storage/list-storage-devices`.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let profile = profiles::get(&*app.db, caller.profile)?;
    let devices: Vec<Value> =
        profile.devices.iter().filter(|device| device.storage).map(record).collect();
    Ok(reply::ok(&json!(devices)))
}

fn record(device: &Device) -> Value {
    json!({
        "deviceIdentifier": device.identifier,
        "deviceUniqueIdentifier": device.identifier,
        "name": device.name,
        "createdAt": rfc3339(device.created_at),
        "approved": 1,
    })
}
