//! OAuth applications (C.11), as steps of a commit.
//!
//! ```text
//! register -> application --configuration, once--> application with a secret
//! request by a profile --retrieved, once--> code --obtained, once--> pair --refreshed--> pair
//! ```
//!
//! Secrets, codes and tokens are made when they are shown, and kept as digests only: what
//! is lost on its way to its owner cannot be had again. Lifetimes are our choice.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commit::Tx;
use super::db::{Db, Records, Space, StorageError};
use super::records::{pair_key, second_id};
use super::refusal::Refusal;
use super::secrets;

const MINUTE_MS: u64 = 60_000;
/// Life of a request for a code, and of the code, from the request on.
const CODE_MS: u64 = 10 * MINUTE_MS;
const ACCESS_MS: u64 = 60 * MINUTE_MS;
const REFRESH_MS: u64 = 30 * 24 * 60 * MINUTE_MS;

type Digest = [u8; 32];

/// A registered application; its id is that of the command that registered it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Application {
    pub owner: Uuid,
    pub name: String,
    pub redirect_uri: String,
    /// What its tokens may have at most.
    pub scopes: Vec<String>,
    pub client_id: String,
    /// Of the client secret; none until the configuration is retrieved.
    pub secret: Option<Digest>,
    pub created_at: u64,
}

/// A profile's consent: what an application may have, for the one who knows the nonce.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub application: Uuid,
    pub profile: Uuid,
    pub nonce: String,
    pub scopes: Vec<String>,
    pub expires_at: u64,
    pub retrieved: bool,
}

/// What an authorization code opens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Code {
    pub application: Uuid,
    pub profile: Uuid,
    pub scopes: Vec<String>,
    pub expires_at: u64,
}

/// A pair of tokens, found by its access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Access {
    pub application: Uuid,
    pub profile: Uuid,
    pub scopes: Vec<String>,
    pub expires_at: u64,
    pub refresh: Digest,
    pub refresh_expires_at: u64,
}

/// The digests of a new pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub access: Digest,
    pub refresh: Digest,
}

/// The application of an id.
pub(super) fn application(records: &impl Records, id: Uuid) -> Result<Application, Refusal> {
    records.load(Space::OauthApplications, id.as_bytes())?.ok_or(Refusal::NoApplication)
}

/// The application of a client id.
pub(super) fn by_client(
    records: &impl Records,
    client_id: &str,
) -> Result<Option<(Uuid, Application)>, StorageError> {
    let Some(id) = records.load::<Uuid>(Space::OauthClients, client_id.as_bytes())? else {
        return Ok(None);
    };
    let found = records.load(Space::OauthApplications, id.as_bytes())?;
    Ok(found.map(|application| (id, application)))
}

/// The application that knows its secret.
pub(super) fn authenticate(
    records: &impl Records,
    client_id: &str,
    secret: &str,
) -> Result<Option<(Uuid, Application)>, StorageError> {
    let known = secrets::digest(secret);
    Ok(by_client(records, client_id)?.filter(|(_, found)| found.secret == Some(known)))
}

/// A profile's applications, oldest first.
pub(super) fn owned(db: &Db, owner: Uuid) -> Result<Vec<(Uuid, Application)>, Refusal> {
    let view = db.view();
    let mut found = Vec::new();
    for item in view.from(Space::OauthOwned, owner.as_bytes(), owner.as_bytes()) {
        let (key, _) = item?;
        let id = second_id(&key)?;
        found.push((id, application(&view, id)?));
    }
    Ok(found)
}

/// Registers an application.
pub(super) fn register(
    tx: &mut Tx<'_>,
    id: Uuid,
    application: &Application,
) -> Result<(), Refusal> {
    tx.put(Space::OauthApplications, id.as_bytes(), application)?;
    tx.put(Space::OauthClients, application.client_id.as_bytes(), &id)?;
    tx.put_raw(Space::OauthOwned, &pair_key(application.owner, id), Vec::new().into());
    Ok(())
}

/// Gives an application its secret, which can be done once.
pub(super) fn configure(
    tx: &mut Tx<'_>,
    owner: Uuid,
    id: Uuid,
    secret: Digest,
) -> Result<Application, Refusal> {
    let mut found = application(tx, id)?;
    if found.owner != owner {
        return Err(Refusal::NotOwner);
    }
    if found.secret.is_some() {
        return Err(Refusal::AlreadyRetrieved("applicationId"));
    }
    found.secret = Some(secret);
    tx.put(Space::OauthApplications, id.as_bytes(), &found)?;
    Ok(found)
}

/// Notes a profile's consent under the id of its command.
pub(super) fn request(tx: &mut Tx<'_>, id: Uuid, mut request: Request) -> Result<(), Refusal> {
    request.expires_at = tx.now + CODE_MS;
    Ok(tx.put(Space::OauthRequests, id.as_bytes(), &request)?)
}

/// Makes the code of a request, which can be done once; returns when it expires.
pub(super) fn retrieve_code(
    tx: &mut Tx<'_>,
    application: Uuid,
    id: Uuid,
    nonce: &str,
    code: Digest,
) -> Result<u64, Refusal> {
    let found: Option<Request> = tx.load(Space::OauthRequests, id.as_bytes())?;
    let found = found.filter(|request| request.expires_at > tx.now);
    let mut request = found.ok_or(Refusal::NoCode)?;
    if request.application != application {
        return Err(Refusal::NotOwner);
    }
    if request.nonce != nonce {
        return Err(Refusal::parameter("nonce", "not the one of the request"));
    }
    if request.retrieved {
        return Err(Refusal::AlreadyRetrieved("id"));
    }
    request.retrieved = true;
    tx.put(Space::OauthRequests, id.as_bytes(), &request)?;
    let Request { profile, scopes, expires_at, .. } = request;
    let opens = Code { application, profile, scopes, expires_at };
    tx.put(Space::OauthCodes, &code, &opens)?;
    Ok(expires_at)
}

/// Uses a code up for a pair of tokens. `application` is who asks, where that was proved.
pub(super) fn obtain(
    tx: &mut Tx<'_>,
    application: Option<Uuid>,
    code: Digest,
    pair: Pair,
) -> Result<Access, Refusal> {
    let found: Option<Code> = tx.load(Space::OauthCodes, &code)?;
    let found = found.filter(|code| code.expires_at > tx.now).ok_or(Refusal::NoCode)?;
    if application.is_some_and(|asking| asking != found.application) {
        return Err(Refusal::NotOwner);
    }
    tx.remove(Space::OauthCodes, &code);
    issue(tx, found, pair)
}

/// Changes a pair of tokens for a new one; the old one ends. The access token may have
/// expired, the refresh token must not.
pub(super) fn refresh(
    tx: &mut Tx<'_>,
    access: Digest,
    refresh: Digest,
    pair: Pair,
) -> Result<Access, Refusal> {
    let found: Option<Access> = tx.load(Space::OauthAccess, &access)?;
    let found = found.filter(|found| found.refresh_expires_at > tx.now);
    let found = found.ok_or(Refusal::Unauthorized)?;
    if found.refresh != refresh {
        return Err(Refusal::parameter("refresh_token", "it does not belong to the access token"));
    }
    tx.remove(Space::OauthAccess, &access);
    let Access { application, profile, scopes, .. } = found;
    issue(tx, Code { application, profile, scopes, expires_at: 0 }, pair)
}

fn issue(tx: &mut Tx<'_>, code: Code, pair: Pair) -> Result<Access, Refusal> {
    let access = Access {
        application: code.application,
        profile: code.profile,
        scopes: code.scopes,
        expires_at: tx.now + ACCESS_MS,
        refresh: pair.refresh,
        refresh_expires_at: tx.now + REFRESH_MS,
    };
    tx.put(Space::OauthAccess, &pair.access, &access)?;
    Ok(access)
}

/// The pair of an access token that has not expired.
pub(super) fn access(
    records: &impl Records,
    digest: &Digest,
    now: u64,
) -> Result<Option<Access>, StorageError> {
    let found: Option<Access> = records.load(Space::OauthAccess, digest)?;
    Ok(found.filter(|access| access.expires_at > now))
}
