//! The HTTP surface: routes, and what surrounds every call (counting, faults, latency).

mod account;
mod authenticators;
mod command;
mod control;
mod data_token;
mod devices;
mod directory;
mod governance;
mod listing;
mod oauth;
mod object;
mod pages;
mod params;
mod policies;
mod reply;
mod statistics;
mod storage;
mod streams;
mod utility;
mod voting;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::app::App;
use super::faults::{DOWNSTREAM, Fault, Moment, UPSTREAM, WS};
use super::net::Connection;
use super::refusal::Refusal;
use crate::protocol::{old_path, path};

/// Largest form or JSON body; the two streams are not limited by it.
const BODY_BYTES: usize = 1 << 20;
const CONTROL: &str = "/_engine/";

/// Every route of the engine.
pub(super) fn router(app: Arc<App>) -> Router {
    let routes = utility_routes()
        .merge(account_routes())
        .merge(data_token_routes())
        .merge(storage_routes())
        .merge(control::routes(&app))
        .merge(governance::routes())
        .merge(oauth::routes())
        .merge(directory::routes())
        .merge(statistics::routes());
    routes
        .route("/", get(streams::get).post(streams::upload))
        .route("/ws", get(streams::channel))
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || reply::method_not_allowed())
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

type Routes = Router<Arc<App>>;

fn with_id(path: &str) -> String {
    format!("{path}{{id}}")
}

fn utility_routes() -> Routes {
    Router::new()
        .route(path::HEALTH, get(utility::health))
        .route(old_path::HEALTH, get(utility::health))
        .route(
            &with_id(path::REQUEST_STATUS),
            get(utility::status_by_get).post(utility::status_by_post),
        )
        .route(&with_id(old_path::REQUEST_STATUS), get(utility::status_object))
}

fn account_routes() -> Routes {
    Router::new()
        .route(path::REGISTER_PROFILE, post(account::register))
        .route(path::AUTHENTICATE, post(account::authenticate))
        .route(path::PROFILE_ID, get(account::profile_id))
        .route(path::CHANGE_PASSWORD, post(account::change_password))
        .route(path::QR_TOKEN, post(account::qr_token))
        .route(old_path::QR_TOKEN, post(account::qr_token))
        .route(path::REAUTHORIZE, post(account::reauthorize))
        .route(path::REVOKE, post(account::revoke))
        .route(path::EXPIRY, post(account::expiry))
        .route(old_path::EXPIRY, get(account::expiry))
        .route(path::SCOPE, get(account::scope))
        .route(path::REGISTER_KEY, post(account::register_key))
        .route(path::OWN_KEY, get(account::own_key).post(account::own_key))
        .route(path::ENGINE_KEY, get(account::engine_key))
        .route(old_path::ENGINE_KEY, get(account::engine_key))
}

fn data_token_routes() -> Routes {
    Router::new()
        .route(path::RESERVE, post(data_token::reserve))
        .route(&with_id(path::TEMPORARY_TOKEN), get(data_token::temporary))
        .route(path::EXCHANGE, post(data_token::exchange))
        .route(path::CONFIGURE_FILE, post(data_token::configure_file))
        .route(path::CONFIGURE_RISK, post(data_token::configure_risk))
        .route(path::LIST, get(listing::list))
        .route(path::UPDATE_META, post(data_token::update_meta))
        .route(path::UPDATE_DATA, post(data_token::update_data))
        .route(path::REQUEST_DATA, post(data_token::request_data))
        .route(path::DELETE, post(data_token::delete))
}

fn storage_routes() -> Routes {
    Router::new()
        .route(path::STORAGE_REGISTER, post(storage::register))
        .route(old_path::STORAGE_REGISTER, post(storage::register))
        .route(path::STORAGE_LIST, get(storage::list))
        .route(path::STORAGE_SYNC, post(storage::synchronize))
        .route(path::STORAGE_REMOVE, post(storage::remove))
        .route(old_path::STORAGE_REMOVE, post(storage::remove))
}

/// A request's names: its template for counters and faults, and its pseudo operation.
fn names(request: &Request) -> (String, &'static str) {
    let path = request.uri().path();
    let upgrade = request.headers().contains_key(header::UPGRADE);
    match path {
        "/ws" => return ("/ws".to_owned(), WS),
        "/" if request.method() == Method::POST => return ("/".to_owned(), UPSTREAM),
        "/" if !upgrade => return ("/".to_owned(), DOWNSTREAM),
        "/" if streams::has_auth(request.uri()) => return ("/".to_owned(), DOWNSTREAM),
        "/" => return ("/ws".to_owned(), WS),
        _ => {}
    }
    let matched = request.extensions().get::<MatchedPath>();
    (matched.map_or("(unknown)", MatchedPath::as_str).to_owned(), "")
}

async fn around(
    State(app): State<Arc<App>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path().starts_with(CONTROL) {
        return next.run(request).await;
    }
    let (template, pseudo) = names(&request);
    app.counters.request(&format!("{} {template}", request.method()));
    let fault = app.faults.strike(Moment::Request, &[&template, pseudo]);
    if let Some(fault) = &fault {
        tracing::debug!(template, ?fault, "fault");
    }
    let response = match fault {
        Some(Fault::Status { code, retry_after }) => reply::faulty(code, retry_after),
        Some(Fault::Unauthorized401) => Refusal::Unauthorized.into_response(),
        Some(Fault::DropConnection { after }) => {
            if after {
                next.run(request).await;
            }
            connection.cut();
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Some(Fault::Stall { ms }) => {
            app.pause(Duration::from_millis(ms)).await;
            next.run(request).await
        }
        _ => next.run(request).await,
    };
    app.lag().await;
    dated(response, app.now())
}

/// With the time of the engine's own clock, by which it dates what it keeps; the server
/// beneath would take the machine's.
fn dated(mut response: Response, now: u64) -> Response {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now));
    if let Ok(date) = HeaderValue::try_from(date) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}
