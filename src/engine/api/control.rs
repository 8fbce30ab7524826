//! `/_engine/...`: the engine's own calls, outside the protocol. Metrics are always
//! there; what changes behaviour only with `test_controls`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::params::Json;
use super::reply;
use crate::engine::app::App;
use crate::engine::faults::FaultPlan;
use crate::engine::shape::Shape;

/// The routes that `config` allows.
pub(super) fn routes(app: &App) -> Router<Arc<App>> {
    let routes = Router::new().route("/_engine/metrics", get(metrics));
    if !app.config.test_controls {
        return routes;
    }
    routes
        .route("/_engine/faults", post(set_faults))
        .route("/_engine/shape", get(shape).post(set_shape))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    reply::ok(&json!(app.counters.snapshot(app.committer.tokens())))
}

async fn set_faults(State(app): State<Arc<App>>, Json(plan): Json<FaultPlan>) -> StatusCode {
    app.faults.set(plan);
    StatusCode::NO_CONTENT
}

async fn shape(State(app): State<Arc<App>>) -> Response {
    reply::ok(&json!(*app.shape.read()))
}

async fn set_shape(State(app): State<Arc<App>>, Json(shape): Json<Shape>) -> StatusCode {
    *app.shape.write() = shape;
    StatusCode::NO_CONTENT
}
