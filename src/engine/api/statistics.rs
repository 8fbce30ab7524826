//! C.4.12: the caller's transactions, counted. Path and fields are our choice.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::params::Caller;
use super::reply;
use crate::engine::app::App;
use crate::engine::commit::Durability;
use crate::engine::refusal::Refusal;
use crate::engine::statistics::{self, Counts};
use crate::engine::time::rfc3339;
use crate::protocol::path;

/// The one call.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route(path::STATISTICS, get(show))
}

/// `GET /data-token/transaction-count-statistics`.
async fn show(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    // On the committer, behind everything that was counted before this call came.
    let found = app
        .committer
        .run(Durability::Process, move |tx| statistics::of(tx, caller.profile))
        .await?;
    let days: Vec<Value> = found
        .recent(app.now())
        .map(|(start, counts)| {
            let mut day = shown(counts);
            day["date"] = json!(rfc3339(start).split('T').next());
            day
        })
        .collect();
    Ok(reply::ok(&json!({ "total": shown(found.total), "days": days })))
}

fn shown(counts: Counts) -> Value {
    json!({
        "stores": counts.stores,
        "retrievals": counts.retrievals,
        "deletions": counts.deletions,
    })
}
