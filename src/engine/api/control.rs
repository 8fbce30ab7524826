//! `/_engine/...`: the engine's own calls, outside the protocol. Metrics are always
//! there; what changes behaviour only with `test_controls`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::params::Json;
use super::reply;
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::db::{Space, StorageError};
use crate::engine::faults::FaultPlan;
use crate::engine::refusal::Refusal;
use crate::engine::shape::Shape;

/// The routes that `config` allows.
pub(super) fn routes(app: &App) -> Router<Arc<App>> {
    let routes = Router::new().route("/_engine/metrics", get(metrics));
    if !app.config.test_controls {
        return routes;
    }
    routes
        .route("/_engine/faults", post(set_faults))
        .route("/_engine/sessions", post(set_sessions))
        .route("/_engine/shape", get(shape).post(set_shape))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    reply::ok(&json!(app.counters.snapshot(app.committer.tokens())))
}

async fn set_faults(State(app): State<Arc<App>>, Json(plan): Json<FaultPlan>) -> StatusCode {
    app.faults.set(plan);
    StatusCode::NO_CONTENT
}

/// What to do to the sessions of all profiles.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sessions {
    /// From now on tokens live this long, in milliseconds.
    life_ms: Option<u64>,
    /// Revoke every token there is.
    revoke: bool,
}

async fn set_sessions(
    State(app): State<Arc<App>>,
    Json(sessions): Json<Sessions>,
) -> Result<StatusCode, Refusal> {
    if let Some(ms) = sessions.life_ms {
        app.session_ms.store(ms, Ordering::Relaxed);
    }
    if sessions.revoke {
        let keys: Result<Vec<_>, StorageError> =
            app.db.view().from(Space::Sessions, &[], &[]).map(|item| Ok(item?.0)).collect();
        let keys = keys?;
        let step = move |tx: &mut Tx<'_>| {
            keys.iter().for_each(|key| tx.remove(Space::Sessions, key));
            Ok::<_, StorageError>(())
        };
        app.committer.run(Durability::Machine, step).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn shape(State(app): State<Arc<App>>) -> Response {
    reply::ok(&json!(*app.shape.read()))
}

async fn set_shape(State(app): State<Arc<App>>, Json(shape): Json<Shape>) -> StatusCode {
    *app.shape.write() = shape;
    StatusCode::NO_CONTENT
}
