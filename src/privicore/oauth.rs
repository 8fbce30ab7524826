//! OAuth applications (C.11): registered by a profile, allowed by a profile, and acting
//! with access tokens of their own.
//!
//! The order is [`Client::register_oauth_application`], [`Client::oauth_configuration`],
//! [`Client::request_authorization_code`], [`Client::authorization_code`],
//! [`Client::access_token`], and from then on [`Client::refresh_access_token`].
//! Where a service does not offer a call, the error's kind is `Unsupported`.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::client::Client;
use super::optional::{asking, incomplete};
use super::reply::{Reply, created, field, time};
use super::secret::Secret;
use super::transport::Call;
use crate::protocol::oauth as path;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// A registered application, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthApplication {
    /// Its id, which [`Client::oauth_configuration`] takes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its public half of the credentials.
    pub client_id: Option<String>,
    /// Where it receives its users.
    pub redirect_uri: Option<String>,
    /// What its tokens may have at most; empty where the service does not say.
    pub scopes: Vec<String>,
    /// When it was registered.
    pub created: Option<SystemTime>,
}

/// The credentials of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthCredentials {
    /// The public half.
    pub client_id: String,
    /// The secret half.
    pub client_secret: Secret,
}

/// A code that is good for one pair of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// The code.
    pub code: Secret,
    /// Until when it is good.
    pub expires: Option<SystemTime>,
}

/// An access token and its refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Goes where a login's authorization token goes.
    pub token: Secret,
    /// Good for the next pair, once.
    pub refresh_token: Secret,
    /// What it covers; empty where the service does not say.
    pub scopes: Vec<String>,
    /// Until when the access token is good.
    pub expires: Option<SystemTime>,
    /// Until when the refresh token is good.
    pub refresh_expires: Option<SystemTime>,
}

impl Client {
    /// Registers an application and returns its id. `scopes` is what its tokens may have
    /// at most; none means all. A service that knows the older names of the fields only
    /// knows no scopes here, and is not asked if there are any.
    pub async fn register_oauth_application(
        &self,
        name: &str,
        redirect_uri: &str,
        scopes: &[&str],
    ) -> StoreResult<String> {
        const OPERATION: &str = "register OAuth application";
        let listed = scopes.join(",");
        let mut fields = vec![("name", name), ("redirectUri", redirect_uri)];
        if !scopes.is_empty() {
            fields.push(("scopes", &listed));
        }
        let outcome = self.make(&Call::form(OPERATION, path::REGISTER, &fields)).await;
        if !is_invalid(&outcome) || !scopes.is_empty() {
            return outcome;
        }
        let older = [("title", name), ("redirect_uri", redirect_uri)];
        self.make(&Call::form(OPERATION, path::REGISTER, &older)).await.or(outcome)
    }

    /// The credentials of an application, which the service gives once only.
    pub async fn oauth_configuration(&self, application: &str) -> StoreResult<OauthCredentials> {
        const OPERATION: &str = "retrieve OAuth configuration";
        let asked = |name| Call::form(OPERATION, path::CONFIGURATION, &[(name, application)]);
        let mut outcome = self.ask(&asked("applicationId")).await;
        if is_invalid(&outcome) {
            outcome = self.ask(&asked("id")).await.or(outcome);
        }
        read(&outcome?, OPERATION, |json| {
            Some(OauthCredentials {
                client_id: field(json, &["clientId", "client_id"])?,
                client_secret: secret(json, &["clientSecret", "client_secret"])?,
            })
        })
    }

    /// The profile's own applications.
    pub async fn oauth_applications(&self) -> StoreResult<Vec<OauthApplication>> {
        let call = |page: &[(&str, &str)]| asking("list OAuth applications", path::LIST, page);
        self.all(call, |item| application(item).map(|found| (found.id.clone(), found))).await
    }

    /// Lets an application act for this profile. Returns the id under which it fetches
    /// its code, together with `nonce`, which only it should know. No scopes means those
    /// that the application registered.
    pub async fn request_authorization_code(
        &self,
        client_id: &str,
        nonce: &str,
        scopes: &[&str],
    ) -> StoreResult<String> {
        let mut fields = vec![("client_id", client_id), ("nonce", nonce)];
        fields.extend(scopes.iter().map(|scope| ("scope[]", *scope)));
        self.make(&asking("request authorization code", path::REQUEST_CODE, &fields)).await
    }

    /// The application fetches the code of request `id`, once.
    pub async fn authorization_code(
        &self,
        application: &OauthCredentials,
        id: &str,
        nonce: &str,
    ) -> StoreResult<AuthorizationCode> {
        const OPERATION: &str = "retrieve authorization code";
        let fields = [("id", id), ("nonce", nonce)];
        let call = Call::form(OPERATION, path::RETRIEVE_CODE, &fields);
        let reply = self.ask_as(call, &application.basic()).await?;
        read(&reply, OPERATION, |json| {
            let code = secret(json, &["authorizationCode", "authorization_code"])?;
            Some(AuthorizationCode { code, expires: time(json, &["expiresAt", "expires_at"]) })
        })
    }

    /// The application changes its code for a pair of tokens. Of the two documented
    /// credentials the application's own is tried first, then the code itself.
    pub async fn access_token(
        &self,
        application: &OauthCredentials,
        code: &AuthorizationCode,
    ) -> StoreResult<AccessToken> {
        const OPERATION: &str = "obtain access token";
        let fields = [("authorization_code", code.code.expose())];
        let call = Call::form(OPERATION, path::OBTAIN_TOKEN, &fields);
        let mut outcome = self.ask_as(call.clone(), &application.basic()).await;
        if matches!(&outcome, Err(error) if error.kind == StoreErrorKind::Unauthenticated) {
            outcome = self.ask_as(call, &code.code).await.or(outcome);
        }
        read(&outcome?, OPERATION, access_token)
    }

    /// The scopes of an access token.
    pub async fn access_token_scopes(&self, token: &Secret) -> StoreResult<Vec<String>> {
        const OPERATION: &str = "retrieve OAuth scope";
        let reply = self.ask_as(Call::get(OPERATION, path::SCOPE), token).await?;
        read(&reply, OPERATION, scopes)
    }

    /// Changes a pair of tokens for a new one; the old one is dead then.
    pub async fn refresh_access_token(&self, pair: &AccessToken) -> StoreResult<AccessToken> {
        const OPERATION: &str = "refresh access token";
        let fields = [("refresh_token", pair.refresh_token.expose())];
        let call = Call::form(OPERATION, path::REFRESH_TOKEN, &fields);
        let reply = self.ask_as(call, &pair.token).await?;
        read(&reply, OPERATION, access_token)
    }

    /// Sends a call with `Authorization: Basic` and without this profile's token.
    async fn ask_as(&self, call: Call, credential: &Secret) -> StoreResult<Reply> {
        let operation = call.operation;
        let call = call.with_basic(credential).ok_or_else(|| {
            let what = "the credential is not fit for a header";
            StoreError::new(StoreErrorKind::Invalid, operation, what)
        })?;
        let reply = self.wire.send(&call, None).await?;
        if reply.is_success() {
            return Ok(reply);
        }
        // The service may have repeated it.
        let mut error = self.refusal(&reply, operation);
        error.message = error.message.replace(credential.expose(), "(redacted)");
        Err(error)
    }
}

impl OauthCredentials {
    /// `base64(client_id:client_secret)`.
    pub(super) fn basic(&self) -> Secret {
        let both = Secret::new(format!("{}:{}", self.client_id, self.client_secret.expose()));
        Secret::new(STANDARD.encode(both.expose()))
    }
}

fn is_invalid<T>(outcome: &StoreResult<T>) -> bool {
    matches!(outcome, Err(error) if error.kind == StoreErrorKind::Invalid)
}

fn read<T>(
    reply: &Reply,
    operation: &'static str,
    reader: impl Fn(&Value) -> Option<T>,
) -> StoreResult<T> {
    reply.json().as_ref().and_then(reader).ok_or_else(|| incomplete(operation))
}

fn secret(json: &Value, names: &[&str]) -> Option<Secret> {
    field(json, names).map(Secret::new)
}

fn application(item: &Value) -> Option<OauthApplication> {
    Some(OauthApplication {
        id: field(item, &["applicationId", "id"])?,
        name: field(item, &["name", "title"]).unwrap_or_default(),
        client_id: field(item, &["clientId", "client_id"]),
        redirect_uri: field(item, &["redirectUri", "redirect_uri"]),
        scopes: item.get("scopes").and_then(scopes).unwrap_or_default(),
        created: created(item),
    })
}

fn access_token(json: &Value) -> Option<AccessToken> {
    let refresh_expires = ["refreshTokenExpiresAt", "refresh_token_expires_at"];
    Some(AccessToken {
        token: secret(json, &["token", "accessToken", "access_token"])?,
        refresh_token: secret(json, &["refreshToken", "refresh_token"])?,
        scopes: json.get("scope").and_then(scopes).unwrap_or_default(),
        expires: time(json, &["expiresAt", "expires_at"]),
        refresh_expires: time(json, &refresh_expires),
    })
}

/// A list of scopes, as an array, as one text with blanks or commas, or in an object.
fn scopes(json: &Value) -> Option<Vec<String>> {
    match json {
        Value::Array(items) => {
            Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Value::String(text) => {
            let parts = text.split([' ', ',']).filter(|part| !part.is_empty());
            Some(parts.map(str::to_owned).collect())
        }
        Value::Object(map) => map.get("scopes").or_else(|| map.get("scope")).and_then(scopes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_documented_forms_of_an_application_read_the_same() {
        let newer = json!({
            "applicationId": "1", "name": "n", "clientId": "c", "redirectUri": "https://a.b/",
            "createdAt": "1970-01-01T00:00:01Z",
        });
        let older = json!({
            "id": 1, "title": "n", "client_id": "c", "redirect_uri": "https://a.b/",
            "created_at": "1970-01-01T01:00:01+01:00",
        });
        assert_eq!(application(&newer), application(&older));
        assert!(application(&newer).unwrap().created.is_some());
        assert_eq!(application(&json!({"name": "n"})), None);
    }

    #[test]
    fn scopes_are_read_in_every_form() {
        let expected = Some(vec!["a.all".to_owned(), "b.c".to_owned()]);
        for form in [
            json!(["a.all", "b.c"]),
            json!("a.all b.c"),
            json!("a.all, b.c"),
            json!({"scopes": ["a.all", "b.c"]}),
            json!({"scope": "a.all,b.c"}),
        ] {
            assert_eq!(scopes(&form), expected, "{form}");
        }
        assert_eq!(scopes(&json!(1)), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let pair = access_token(&json!({"token": "hunter2", "refreshToken": "hunter3"})).unwrap();
        assert!(!format!("{pair:?}").contains("hunter"));
        assert!(access_token(&json!({"token": "hunter2"})).is_none());
    }
}
