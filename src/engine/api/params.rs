//! Who calls and with what: the bearer, and the fields of a form, multipart form or query.

use std::sync::Arc;

use axum::extract::multipart::Multipart;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use url::form_urlencoded;
use uuid::Uuid;

use crate::engine::app::App;
use crate::engine::db::StorageError;
use crate::engine::records::Session;
use crate::engine::refusal::Refusal;
use crate::engine::{oauth, profiles, scopes, secrets};
use crate::protocol;

/// Longest name, context or path (protocol reference, E.2).
pub(super) const TEXT_BYTES: usize = 1_024;

/// The profile behind a valid `X-DPT-AUTHORIZATION`: a login's token, or an access token
/// whose scopes cover the call (C.11).
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub profile: Uuid,
    pub digest: [u8; 32],
    pub expires_at: u64,
    /// The OAuth application that acts for the profile, if one does.
    pub application: Option<Uuid>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let header = parts.headers.get(protocol::AUTHORIZATION);
        let token = header.and_then(|value| value.to_str().ok()).ok_or(Refusal::Unauthorized)?;
        let digest = secrets::digest(token);
        if let Some(Session { profile, expires_at }) =
            profiles::session(&*app.db, &digest, app.now())?
        {
            return Ok(Self { profile, digest, expires_at, application: None });
        }
        let access = oauth::access(&*app.db, &digest, app.now())?.ok_or(Refusal::Unauthorized)?;
        let template = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if !scopes::allow(&access.scopes, template) {
            return Err(Refusal::Scope);
        }
        let (profile, expires_at) = (access.profile, access.expires_at);
        Ok(Self { profile, digest, expires_at, application: Some(access.application) })
    }
}

/// A caller whose public key is registered, as every data token command needs (D.7).
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyedCaller(pub Caller);

impl FromRequestParts<Arc<App>> for KeyedCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let profile = profiles::get(&*app.db, caller.profile)?;
        if profile.public_key.is_some() { Ok(Self(caller)) } else { Err(Refusal::NoKey) }
    }
}

/// Named values, in order.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The fields of a query string.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        Self::of_form(query.unwrap_or_default().as_bytes())
    }

    fn of_form(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    async fn of_multipart(mut form: Multipart) -> Result<Self, Refusal> {
        let broken = |_| Refusal::parameter("body", "not a multipart form");
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.map_err(broken)? {
            let name = field.name().unwrap_or_default().to_owned();
            fields.push((name, field.text().await.map_err(broken)?));
        }
        Ok(Self(fields))
    }

    /// Names and values, as they were sent.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a field, if it was sent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As [`Fields::get`], for a bounded text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        match self.get(name) {
            Some(value) if value.len() > TEXT_BYTES => Err(Refusal::parameter(name, "too long")),
            value => Ok(value.map(str::to_owned)),
        }
    }

    /// A field that must be sent, empty or not.
    pub(super) fn sent(&self, name: &'static str) -> Result<String, Refusal> {
        self.text(name)?.ok_or_else(|| Refusal::parameter(name, "this field is missing"))
    }

    /// A field that must be sent and say something.
    pub(super) fn required(&self, name: &'static str) -> Result<String, Refusal> {
        let value = self.sent(name)?;
        if value.is_empty() {
            return Err(Refusal::parameter(name, "this value should not be blank"));
        }
        Ok(value)
    }

    /// A whole number, if it was sent.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refusal::parameter(name, "this value should be an integer"))
        };
        self.get(name).map(parse).transpose()
    }

    /// The values of a PHP list, `name[]=…` (B.2), in order.
    pub(super) fn list(&self, name: &'static str) -> Result<Vec<String>, Refusal> {
        Ok(self.map(name)?.into_iter().map(|(_, value)| value).collect())
    }

    /// The members of a PHP map, `name[key]=…` (B.2), in order.
    pub(super) fn map(&self, name: &'static str) -> Result<Vec<(String, String)>, Refusal> {
        let inside = |key: &str| {
            let key = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some(key.to_owned())
        };
        let members = self.0.iter().filter_map(|(key, value)| Some((inside(key)?, value.clone())));
        let members: Vec<_> = members.collect();
        match members.iter().any(|(key, value)| key.len().max(value.len()) > TEXT_BYTES) {
            true => Err(Refusal::parameter(name, "too long")),
            false => Ok(members),
        }
    }
}

impl FromRequest<Arc<App>> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let header = request.headers().get(CONTENT_TYPE);
        let kind = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.starts_with("multipart/form-data") {
            let form = Multipart::from_request(request, app).await;
            let form = form.map_err(|_| Refusal::parameter("body", "not a multipart form"))?;
            return Self::of_multipart(form).await;
        }
        let is_form = kind.starts_with("application/x-www-form-urlencoded");
        let bytes = body(request, app).await?;
        Ok(if is_form { Self::of_form(&bytes) } else { Self::default() })
    }
}

/// The whole body of a small request.
async fn body(request: Request, app: &Arc<App>) -> Result<Bytes, Refusal> {
    Bytes::from_request(request, app).await.map_err(|_| Refusal::TooLarge)
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<T: serde::de::DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let bytes = body(request, app).await?;
        let broken = |error: serde_json::Error| Refusal::parameter("body", error.to_string());
        serde_json::from_slice(&bytes).map(Self).map_err(broken)
    }
}

/// Runs a read that may take long off the async threads.
pub(super) async fn scan<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|_| Refusal::Storage(StorageError::Stopped))?
}
