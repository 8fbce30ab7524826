//! Answers: JSON, errors in the shape of B.4, and the `202` of B.3.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::app::App;
use crate::engine::refusal::Refusal;
use crate::engine::shape::CommandBody;
use crate::protocol;

const JSON: &str = "application/json";

/// A JSON answer.
pub(super) fn body(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], value.to_string()).into_response()
}

/// `200` with a JSON body.
pub(super) fn ok(value: &Value) -> Response {
    body(StatusCode::OK, value)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if let Self::Storage(error) = &self {
            tracing::error!(%error, "a call failed");
        }
        let mut value = json!({ "message": self.to_string(), "error": self.key() });
        if self.status() == StatusCode::UNPROCESSABLE_ENTITY {
            let reason = match &self {
                Self::Parameter(_, reason) => reason.clone(),
                other => other.to_string(),
            };
            value["errors"] = json!({ self.field(): [reason] });
        }
        body(self.status(), &value)
    }
}

/// `405`, as JSON like every other error.
pub(super) fn method_not_allowed() -> Response {
    let value = json!({ "message": "method not allowed", "error": "route.method_not_allowed" });
    body(StatusCode::METHOD_NOT_ALLOWED, &value)
}

/// The answer of a fault plan.
pub(super) fn faulty(code: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = json!({ "message": "injected fault", "error": "engine.fault" });
    let mut response = body(status, &value);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The `202` of a command, in the shape in force.
pub(super) fn accepted(app: &App, id: Uuid) -> Response {
    let shape = app.shape.read().command_body;
    let id = id.to_string();
    let mut response = match shape {
        CommandBody::String => body(StatusCode::ACCEPTED, &json!(id)),
        CommandBody::Text => (StatusCode::ACCEPTED, id.clone()).into_response(),
        CommandBody::Array => body(StatusCode::ACCEPTED, &json!([id])),
        CommandBody::Object => body(StatusCode::ACCEPTED, &json!({ "commandId": id })),
        CommandBody::HeaderObject => {
            body(StatusCode::ACCEPTED, &json!({ protocol::TYPE_COMMAND: id }))
        }
        CommandBody::Empty => StatusCode::ACCEPTED.into_response(),
    };
    put_id(&mut response, protocol::COMMAND_ID, &id);
    response
}

/// The `202` of a data request: both ids in headers; the body, where there is one, is
/// the object of the guides.
pub(super) fn requested(app: &App, command: Uuid, request: Uuid) -> Response {
    let (command, request) = (command.to_string(), request.to_string());
    let value = match app.shape.read().command_body {
        CommandBody::Empty => Value::Null,
        _ => json!({ "commandId": command, "requestId": request }),
    };
    let mut response = body(StatusCode::ACCEPTED, &value);
    put_id(&mut response, protocol::COMMAND_ID, &command);
    put_id(&mut response, protocol::REQUEST_ID, &request);
    response
}

fn put_id(response: &mut Response, name: &'static str, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
