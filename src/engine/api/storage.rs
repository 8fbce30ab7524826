//! C.6: storage devices. The engine's own disk is one virtual device that every profile
//! starts with; real ones are folders (see `replicas.rs`). Without any storage device,
//! exchanges are rejected. Which device it is, is business validation: an unknown one,
//! another profile's or one that is not approved ends in a rejecting ack, and so does the
//! removal of one that others do not stand in for.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::{Caller, Fields};
use super::{command, devices, reply};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::devices::{Role, all, set_role};
use crate::engine::refusal::Refusal;
use crate::engine::storage::Leave;
use crate::protocol::path;

/// `POST /storage/register`.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, devices::identifier(&fields)?);
    let step = move |tx: &mut Tx<'_>| set_role(tx, profile, &identifier, Role::Storage, true);
    Ok(command::plain(&app, path::STORAGE_REGISTER, profile, step).await)
}

/// `POST /storage/remove`: rejected with `storage.last_holder` if a payload would be on no
/// storage device any more.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, devices::identifier(&fields)?);
    let step = |tx: &mut Tx<'_>, profile, identifier: &str| {
        set_role(tx, profile, identifier, Role::Storage, false)
    };
    Ok(leave(&app, path::STORAGE_REMOVE, profile, identifier, step).await)
}

/// `POST /storage/sync-device`: verifies what the device has, and heals it. Rejected with
/// `storage.no_device_has_the_payload` if some payload is nowhere any more.
pub(super) async fn synchronize(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (profile, identifier) = (caller.profile, devices::identifier(&fields)?);
    let work = Arc::clone(&app).synchronize(profile, identifier);
    let (op, durability) = (path::STORAGE_SYNC, Durability::Process);
    let id = app.accept(op, Some(profile), durability, work, |_, ()| Ok(None)).await;
    Ok(reply::accepted(&app, id))
}

/// A command after which a device does not store any more, if the others have all it has.
pub(super) async fn leave(
    app: &Arc<App>,
    op: &'static str,
    profile: Uuid,
    identifier: String,
    step: impl FnOnce(&mut Tx<'_>, Uuid, &str) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    let may = Arc::clone(app).may_leave(profile, identifier.clone());
    let step = move |tx: &mut Tx<'_>, leave: Leave| {
        leave.check(tx, profile)?;
        step(tx, profile, &identifier).map(|()| None)
    };
    let id = app.accept(op, Some(profile), Durability::Machine, may, step).await;
    reply::accepted(app, id)
}

/// `GET /storage/list-storage-devices`.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let found = all(&*app.db, caller.profile)?;
    let storage: Vec<Value> =
        found.iter().filter(|device| device.storage).map(devices::record).collect();
    Ok(reply::ok(&json!(storage)))
}
