//! Commands that need no preparation: accepted, run as one step of a commit, acknowledged.

use std::future::ready;
use std::sync::Arc;

use axum::response::Response;
use uuid::Uuid;

use super::reply;
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::refusal::Refusal;

/// Accepts a command of `profile`; the step's result is kept for [`Command::made`].
///
/// [`Command::made`]: crate::engine::records::Command::made
pub(super) async fn making(
    app: &Arc<App>,
    op: &'static str,
    profile: Uuid,
    step: impl FnOnce(&mut Tx<'_>) -> Result<Option<String>, Refusal> + Send + 'static,
) -> Response {
    let prepare = ready(Ok(()));
    let step = move |tx: &mut Tx<'_>, ()| step(tx);
    let id = app.accept(op, Some(profile), Durability::Machine, prepare, step).await;
    reply::accepted(app, id)
}

/// As [`making`], for a command that makes nothing to ask for.
pub(super) async fn plain(
    app: &Arc<App>,
    op: &'static str,
    profile: Uuid,
    step: impl FnOnce(&mut Tx<'_>) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    making(app, op, profile, move |tx| step(tx).map(|()| None)).await
}
