//! C.1 and B.6: health, and polling a command.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::reply;
use crate::engine::app::{App, Progress};
use crate::engine::refusal::Refusal;
use crate::engine::shape::StatusMethod;
use crate::protocol;

/// `GET /health`.
pub(super) async fn health() -> Response {
    reply::ok(&json!({ "status": "ok" }))
}

/// `GET /request-status/{id}`.
pub(super) async fn status_by_get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let offered = app.shape.read().status != StatusMethod::Post;
    if offered { status(&app, &id) } else { Ok(reply::method_not_allowed()) }
}

/// `POST /request-status/{id}`; its body says nothing.
pub(super) async fn status_by_post(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let offered = app.shape.read().status != StatusMethod::Get;
    if offered { status(&app, &id) } else { Ok(reply::method_not_allowed()) }
}

fn status(app: &App, id: &str) -> Result<Response, Refusal> {
    let (code, word) = match progress(app, id)? {
        Progress::Running => (StatusCode::ACCEPTED, "started"),
        Progress::Succeeded => (StatusCode::OK, "succeeded"),
        Progress::Rejected(_) => (StatusCode::NOT_FOUND, "rejected"),
    };
    Ok(reply::body(code, &json!([word])))
}

/// The older form, an object with the code of the channel.
pub(super) async fn status_object(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (code, body) = match progress(&app, &id)? {
        Progress::Running => (protocol::STATUS_PENDING, Value::Null),
        Progress::Succeeded => (protocol::STATUS_SUCCEEDED, Value::Null),
        Progress::Rejected(reason) => (protocol::STATUS_REJECTED, json!(reason)),
    };
    Ok(reply::ok(&json!({ "commandId": id, "command_status": code, "body": body })))
}

fn progress(app: &App, id: &str) -> Result<Progress, Refusal> {
    let id = Uuid::parse_str(id).map_err(|_| Refusal::NotFound)?;
    let progress = app.progress(id)?.ok_or(Refusal::NotFound)?;
    if progress == Progress::Running {
        // To one that waits for a vote, why.
        app.remind(id);
    }
    Ok(progress)
}
