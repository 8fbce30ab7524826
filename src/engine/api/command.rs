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
    run(app, app.new_id(), op, profile, step).await
}

/// As [`making`], for a command that makes nothing to ask for.
pub(super) async fn plain(
    app: &Arc<App>,
    op: &'static str,
    profile: Uuid,
    step: impl FnOnce(&mut Tx<'_>) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    under(app, app.new_id(), op, profile, step).await
}

/// As [`plain`], under an id from [`App::new_id`]: what the command makes is known by it.
pub(super) async fn under(
    app: &Arc<App>,
    id: Uuid,
    op: &'static str,
    profile: Uuid,
    step: impl FnOnce(&mut Tx<'_>) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    run(app, id, op, profile, move |tx| step(tx).map(|()| None)).await
}

async fn run(
    app: &Arc<App>,
    id: Uuid,
    op: &'static str,
    profile: Uuid,
    step: impl FnOnce(&mut Tx<'_>) -> Result<Option<String>, Refusal> + Send + 'static,
) -> Response {
    let prepare = ready(Ok(()));
    let step = move |tx: &mut Tx<'_>, ()| step(tx);
    app.accept_as(id, op, Some(profile), Durability::Machine, prepare, step).await;
    reply::accepted(app, id)
}
