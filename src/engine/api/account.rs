//! C.2 and C.3: profiles, logins, public keys.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use uuid::Uuid;

use super::params::{Caller, Fields};
use super::{command, oauth, reply};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::db::Space;
use crate::engine::profiles;
use crate::engine::records::Session;
use crate::engine::refusal::Refusal;
use crate::engine::secrets::{self, PasswordHash};
use crate::engine::shape::Reauthorize;
use crate::engine::time::rfc3339;
use crate::protocol::{AUTHORIZATION_TTLS, path, public_key};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A password good enough to be set.
pub(super) fn new_password(fields: &Fields, name: &'static str) -> Result<String, Refusal> {
    let password = fields.required(name)?;
    if secrets::is_strong(&password) {
        Ok(password)
    } else {
        Err(Refusal::parameter(name, "the password is too weak"))
    }
}

/// Stretches a password, which takes a while.
pub(super) async fn hash(app: Arc<App>, password: String) -> Result<PasswordHash, Refusal> {
    let (env, iterations) = (app.env.clone(), app.config.password_iterations);
    app.stretch(move || PasswordHash::new(&env, &password, iterations)).await
}

/// `POST /profile/register-profile`. Nobody listens yet: the outcome is polled.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let username = fields.required("username")?;
    let password = new_password(&fields, "password")?;
    if profiles::by_name(&*app.db, &username)?.is_some() {
        return Err(Refusal::UsernameTaken);
    }
    let (id, device) = (app.new_id(), app.new_id().to_string());
    let prepare = hash(Arc::clone(&app), password);
    let command = app
        .accept(path::REGISTER_PROFILE, None, Durability::Machine, prepare, move |tx, hash| {
            profiles::register(tx, id, username, hash, device)?;
            Ok(None)
        })
        .await;
    Ok(reply::accepted(&app, command))
}

/// `POST /profile/authenticate`.
pub(super) async fn authenticate(
    State(app): State<Arc<App>>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (username, password) = (fields.required("username")?, fields.required("password")?);
    let found = profiles::by_name(&*app.db, &username)?;
    let Some((id, profile)) = found else {
        // As long as for a wrong password, so that names cannot be told by time.
        hash(app, password).await?;
        return Err(Refusal::Credentials);
    };
    if !app.stretch(move || profile.password.verify(&password)).await? {
        return Err(Refusal::Credentials);
    }
    let (token, expires_at) = start_session(&app, id, app.session_ttl()).await?;
    let body = json!({ "authorizationToken": token, "expiresAt": rfc3339(expires_at) });
    Ok(reply::ok(&body))
}

async fn start_session(app: &App, profile: Uuid, ttl: Duration) -> Result<(String, u64), Refusal> {
    let token = secrets::bearer(&app.env);
    let expires_at = app.now().saturating_add(millis(ttl));
    let digest = secrets::digest(&token);
    let session = Session { profile, expires_at };
    app.committer
        .run(Durability::Machine, move |tx| profiles::put_session(tx, &digest, &session))
        .await?;
    Ok((token, expires_at))
}

/// `GET /profile/retrieve-profile-id`.
pub(super) async fn profile_id(caller: Caller) -> Response {
    reply::ok(&json!({ "profileId": caller.profile }))
}

/// `POST /profile/change-password`, with the current field names or the older two.
pub(super) async fn change_password(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let older = fields.get("currentPassword").is_some();
    let old = fields.required(if older { "currentPassword" } else { "oldPassword" })?;
    let new = new_password(&fields, "newPassword")?;
    if !older && fields.required("newPasswordRepeat")? != new {
        return Err(Refusal::parameter("newPasswordRepeat", "the passwords differ"));
    }
    let prepare = {
        let app = Arc::clone(&app);
        async move {
            let profile = profiles::get(&*app.db, caller.profile)?;
            if app.stretch(move || profile.password.verify(&old)).await? {
                hash(app, new).await
            } else {
                Err(Refusal::WrongPassword)
            }
        }
    };
    let profile = caller.profile;
    let op = path::CHANGE_PASSWORD;
    let id = app
        .accept(op, Some(profile), Durability::Machine, prepare, move |tx, hash| {
            profiles::set_password(tx, profile, hash)?;
            Ok(None)
        })
        .await;
    Ok(reply::accepted(&app, id))
}

/// `POST /profile/generate-token-qr`. No source says what redeems one, so it opens
/// nothing here and nothing of it is kept.
pub(super) async fn qr_token(State(app): State<Arc<App>>, _caller: Caller) -> Response {
    const LIFETIME_MS: u64 = 300_000;
    let expires_at = rfc3339(app.now() + LIFETIME_MS);
    reply::ok(&json!({ "qrToken": secrets::bearer(&app.env), "expiresAt": expires_at }))
}

/// `POST /profile/reauthorize-authorization-token`.
pub(super) async fn reauthorize(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let ttl = match fields.number("ttl")? {
        Some(ttl) if AUTHORIZATION_TTLS.contains(&ttl) => Duration::from_secs(ttl),
        Some(_) => return Err(Refusal::parameter("ttl", "not one of the lifetimes offered")),
        None => app.session_ttl(),
    };
    if caller.application.is_some() {
        // It has a refresh token for that; here it would become a login with every right.
        return Err(Refusal::Scope);
    }
    let (profile, digest) = (caller.profile, caller.digest);
    if app.shape.read().reauthorize == Reauthorize::Replace {
        return replace_session(&app, caller, ttl).await;
    }
    let step = move |tx: &mut Tx<'_>| {
        let expires_at = tx.now.saturating_add(millis(ttl));
        profiles::put_session(tx, &digest, &Session { profile, expires_at })
    };
    Ok(command::plain(&app, path::REAUTHORIZE, profile, step).await)
}

async fn replace_session(app: &App, caller: Caller, ttl: Duration) -> Result<Response, Refusal> {
    let (token, expires_at) = start_session(app, caller.profile, ttl).await?;
    end_session(app, caller).await?;
    let body = json!({ "authorizationToken": token, "expiresAt": rfc3339(expires_at) });
    Ok(reply::ok(&body))
}

async fn end_session(app: &App, caller: Caller) -> Result<(), Refusal> {
    app.committer
        .run(Durability::Machine, move |tx| {
            // An access token takes its refresh token with it.
            let space = caller.application.map_or(Space::Sessions, |_| Space::OauthAccess);
            tx.remove(space, &caller.digest);
            Ok(())
        })
        .await
}

/// `POST /profile/revoke-authorization-token`.
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    end_session(&app, caller).await?;
    Ok(reply::ok(&json!({ "revoked": true })))
}

/// `POST /profile/authorization-token/expiry`, once a GET.
pub(super) async fn expiry(caller: Caller) -> Response {
    reply::ok(&json!({ "expiresAt": rfc3339(caller.expires_at) }))
}

/// `GET /profile/retrieve-scope`.
pub(super) async fn scope(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    Ok(reply::ok(&json!(oauth::own_scopes(&app, &caller)?)))
}

/// `POST /public-key/register-public-key`.
pub(super) async fn register_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let older = fields.text("public_key")?;
    let text = older.map_or_else(|| fields.required("publicKey"), Ok)?;
    public_key::parse(&text).map_err(|e| Refusal::parameter("publicKey", e.to_string()))?;
    let profile = caller.profile;
    let step = move |tx: &mut Tx<'_>| profiles::set_key(tx, profile, text);
    Ok(command::plain(&app, path::REGISTER_KEY, profile, step).await)
}

/// `GET /public-key/retrieve-public-key`.
pub(super) async fn own_key(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Response, Refusal> {
    let profile = profiles::get(&*app.db, caller.profile)?;
    let key = profile.public_key.ok_or(Refusal::NotFound)?;
    let created = rfc3339(key.created_at);
    Ok(reply::ok(&json!({ "publicKey": key.text, "createdAt": created, "status": 1 })))
}

/// `GET /dptcab/public-key`.
pub(super) async fn engine_key(State(app): State<Arc<App>>, _caller: Caller) -> Response {
    reply::ok(&json!({ "publicKey": app.public_key }))
}
