//! C.11: OAuth applications. Both sets of field names are read, and both are answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::params::{Caller, Fields, scan};
use super::{command, pages, reply};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::oauth::{self, Access, Application, Pair, Request};
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::engine::{scopes, secrets};
use crate::protocol::oauth as path;

const SECRET: &str = "S-";
const CODE: &str = "C-";
const REFRESH: &str = "R-";

/// The eight calls.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(path::REGISTER, post(register))
        .route(path::CONFIGURATION, post(configuration))
        .route(path::REQUEST_CODE, get(request_code))
        .route(path::LIST, get(list))
        .route(path::RETRIEVE_CODE, post(retrieve_code))
        .route(path::OBTAIN_TOKEN, post(obtain_token))
        .route(path::SCOPE, get(scope))
        .route(path::REFRESH_TOKEN, post(refresh_token))
}

/// The value of a field under its current or its older name.
fn either(fields: &Fields, name: &'static str, older: &'static str) -> Result<String, Refusal> {
    if fields.get(older).is_some() { fields.required(older) } else { fields.required(name) }
}

/// Scopes that are in the vocabulary; `all`, if there are none.
fn known(field: &'static str, scopes: Vec<String>) -> Result<Vec<String>, Refusal> {
    match scopes.iter().find(|scope| !scopes::is_scope(scope)) {
        Some(scope) => Err(Refusal::parameter(field, format!("{scope:?} is not a scope"))),
        None if scopes.is_empty() => Ok(vec![path::SCOPE_ALL.to_owned()]),
        None => Ok(scopes),
    }
}

fn parse_id(text: &str, missing: Refusal) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text).map_err(|_| missing)
}

/// `POST /profile/oauth-application-register`; the command's id is the application's.
async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = either(&fields, "name", "title")?;
    let redirect_uri = either(&fields, "redirectUri", "redirect_uri")?;
    if !Url::parse(&redirect_uri).is_ok_and(|url| url.fragment().is_none()) {
        return Err(Refusal::parameter("redirectUri", "not an absolute URI without a fragment"));
    }
    let listed = fields.text("scopes")?.unwrap_or_default();
    let listed = listed.split(',').map(str::trim).filter(|scope| !scope.is_empty());
    let id = app.new_id();
    let application = Application {
        owner: caller.profile,
        name,
        redirect_uri,
        scopes: known("scopes", listed.map(str::to_owned).collect())?,
        client_id: app.new_id().to_string(),
        secret: None,
        created_at: app.now(),
    };
    let step = move |tx: &mut Tx<'_>| oauth::register(tx, id, &application);
    Ok(command::under(&app, id, path::REGISTER, caller.profile, step).await)
}

/// `POST /profile/retrieve-oauth-application-configuration`: once.
async fn configuration(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let id = parse_id(&either(&fields, "applicationId", "id")?, Refusal::NoApplication)?;
    let secret = secrets::data_token(&app.env, SECRET);
    let digest = secrets::digest(&secret);
    let application = app
        .committer
        .run(Durability::Machine, move |tx| oauth::configure(tx, caller.profile, id, digest))
        .await?;
    let mut body = record(id, &application);
    body["clientSecret"] = json!(secret);
    body["client_secret"] = json!(secret);
    body["profile_id"] = json!(application.owner);
    Ok(reply::ok(&body))
}

/// The union of the two documented shapes of an application.
fn record(id: Uuid, application: &Application) -> Value {
    json!({
        "applicationId": id,
        "id": id,
        "name": application.name,
        "title": application.name,
        "clientId": application.client_id,
        "client_id": application.client_id,
        "redirectUri": application.redirect_uri,
        "redirect_uri": application.redirect_uri,
        "scopes": application.scopes,
        "createdAt": rfc3339(application.created_at),
        "created_at": rfc3339(application.created_at),
    })
}

/// `GET /profile/retrieve-oauth-application-list`.
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let db = Arc::clone(&app.db);
    let owned = scan(move || oauth::owned(&db, caller.profile)).await?;
    let items: Vec<Value> = owned.iter().map(|(id, found)| record(*id, found)).collect();
    pages::page(&app, &fields, &items)
}

/// `GET /profile/oauth-application-request-authorization-code`: the caller, who need not
/// be the application's owner, lets it act for it. No more is granted than the application
/// registered, nor than the caller itself may do.
async fn request_code(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let client_id = fields.required("client_id")?;
    let nonce = fields.required("nonce")?;
    let asked = fields.list("scope")?;
    let found = oauth::by_client(&*app.db, &client_id)?;
    let (application, registered) = found.ok_or(Refusal::NoApplication)?;
    let scopes = if asked.is_empty() { registered.scopes.clone() } else { known("scope", asked)? };
    if let Some(scope) = scopes.iter().find(|scope| !scopes::cover(&registered.scopes, scope)) {
        let why = format!("the application did not register {scope:?}");
        return Err(Refusal::parameter("scope", why));
    }
    let own = own_scopes(&app, &caller)?;
    if scopes.iter().any(|scope| !scopes::cover(&own, scope)) {
        return Err(Refusal::Scope);
    }
    let (id, profile) = (app.new_id(), caller.profile);
    let request = Request { application, profile, nonce, scopes, expires_at: 0, retrieved: false };
    let step = move |tx: &mut Tx<'_>| oauth::request(tx, id, request);
    Ok(command::under(&app, id, path::REQUEST_CODE, profile, step).await)
}

/// The scopes of the token that a caller came with.
pub(super) fn own_scopes(app: &App, caller: &Caller) -> Result<Vec<String>, Refusal> {
    if caller.application.is_none() {
        return Ok(vec![path::SCOPE_ALL.to_owned()]);
    }
    let access = oauth::access(&*app.db, &caller.digest, app.now())?;
    Ok(access.ok_or(Refusal::Unauthorized)?.scopes)
}

/// What follows `Basic` in the `Authorization` header.
fn basic(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| value.trim())
}

/// The application whose `client_id:client_secret` this is, in base64.
fn client(app: &App, basic: &str) -> Result<Option<(Uuid, Application)>, Refusal> {
    let text = STANDARD.decode(basic).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.unwrap_or_default();
    let Some((client_id, secret)) = text.split_once(':') else { return Ok(None) };
    Ok(oauth::authenticate(&*app.db, client_id, secret)?)
}

/// `POST /oauth-application/retrieve-authorization-code`: once.
async fn retrieve_code(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Refusal> {
    let basic = basic(&headers).ok_or(Refusal::Credentials)?;
    let (application, known) = client(&app, basic)?.ok_or(Refusal::Credentials)?;
    let (id, nonce) = (fields.required("id")?, fields.required("nonce")?);
    let id = parse_id(&id, Refusal::NoCode)?;
    let code = secrets::data_token(&app.env, CODE);
    let (digest, kept) = (secrets::digest(&code), nonce.clone());
    let expires_at = app
        .committer
        .run(Durability::Machine, move |tx| {
            oauth::retrieve_code(tx, application, id, &kept, digest)
        })
        .await?;
    Ok(reply::ok(&json!({
        "clientId": known.client_id,
        "nonce": nonce,
        "authorizationCode": code,
        "expiresAt": rfc3339(expires_at),
    })))
}

/// `POST /oauth-application/obtain-access-token`: the caller is an application that knows
/// its secret, or whoever has the code, if the code is what follows `Basic`.
async fn obtain_token(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Refusal> {
    let basic = basic(&headers).ok_or(Refusal::Credentials)?;
    let known = client(&app, basic)?;
    if known.is_none() && fields.get("authorization_code") != Some(basic) {
        return Err(Refusal::Credentials);
    }
    let code = secrets::digest(&fields.required("authorization_code")?);
    let application = known.map(|(id, _)| id);
    let new = NewPair::new(&app);
    let pair = new.digests();
    let access = app
        .committer
        .run(Durability::Machine, move |tx| oauth::obtain(tx, application, code, pair))
        .await?;
    new.shown(&app, &access)
}

/// A pair of tokens that nobody has seen yet.
struct NewPair {
    access: String,
    refresh: String,
}

impl NewPair {
    fn new(app: &App) -> Self {
        let refresh = secrets::data_token(&app.env, REFRESH);
        Self { access: secrets::bearer(&app.env), refresh }
    }

    fn digests(&self) -> Pair {
        Pair { access: secrets::digest(&self.access), refresh: secrets::digest(&self.refresh) }
    }

    fn shown(self, app: &App, access: &Access) -> Result<Response, Refusal> {
        let application = oauth::application(&*app.db, access.application)?;
        Ok(reply::ok(&json!({
            "clientId": application.client_id,
            "token": self.access,
            "refreshToken": self.refresh,
            "type": "bearer",
            "scope": access.scopes.join(" "),
            "expiresAt": rfc3339(access.expires_at),
            "refreshTokenExpiresAt": rfc3339(access.refresh_expires_at),
        })))
    }
}

/// `GET /oauth-application/retrieve-oauth-application-scope`.
async fn scope(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let token = basic(&headers).ok_or(Refusal::Unauthorized)?;
    let access = oauth::access(&*app.db, &secrets::digest(token), app.now())?;
    Ok(reply::ok(&json!(access.ok_or(Refusal::Unauthorized)?.scopes)))
}

/// `POST /oauth-application/refresh-access-token`.
async fn refresh_token(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Refusal> {
    let token = basic(&headers).ok_or(Refusal::Unauthorized)?;
    let access = secrets::digest(token);
    let sent = fields.text("refresh_token")?.unwrap_or_default();
    let refresh = secrets::digest(&sent);
    let new = NewPair::new(&app);
    let pair = new.digests();
    let access = app
        .committer
        .run(Durability::Machine, move |tx| oauth::refresh(tx, access, refresh, pair))
        .await?;
    new.shown(&app, &access)
}
