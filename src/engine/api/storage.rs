//! C.6: storage devices. The engine's own disk is one virtual device that every profile
//! starts with; without any storage device, exchanges are rejected. Which device it is, is
//! business validation: an unknown one, another profile's or one that is not approved ends
//! in a rejecting ack.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::params::{Caller, Fields};
use super::{command, devices, reply};
use crate::engine::app::App;
use crate::engine::devices::{Role, all, own, set_role};
use crate::engine::refusal::Refusal;
use crate::protocol::path;

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

/// Sets the role, or leaves it as it is and finds out whether there is such a device.
async fn set(
    app: &Arc<App>,
    op: &'static str,
    caller: Caller,
    fields: &Fields,
    storage: Option<bool>,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, devices::identifier(fields)?);
    Ok(command::plain(app, op, profile, move |tx| match storage {
        Some(storage) => set_role(tx, profile, &identifier, Role::Storage, storage),
        None => own(tx, profile, &identifier).map(drop),
    })
    .await)
}

/// `GET /storage/list-storage-devices`.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let found = all(&*app.db, caller.profile)?;
    let storage: Vec<Value> =
        found.iter().filter(|device| device.storage).map(devices::record).collect();
    Ok(reply::ok(&json!(storage)))
}
