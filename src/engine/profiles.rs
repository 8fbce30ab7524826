//! Profiles, logins and keys, as steps of a commit.

use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError};
use super::devices;
use super::records::{Approval, Device, Profile, PublicKey, Session};
use super::refusal::Refusal;
use super::secrets::PasswordHash;

/// The profile of an id.
pub(super) fn get(records: &impl Records, profile: Uuid) -> Result<Profile, Refusal> {
    records.load(Space::Profiles, profile.as_bytes())?.ok_or(Refusal::NotFound)
}

/// The profile of a user name.
pub(super) fn by_name(
    records: &impl Records,
    username: &str,
) -> Result<Option<(Uuid, Profile)>, StorageError> {
    let Some(id) = records.load::<Uuid>(Space::Usernames, username.as_bytes())? else {
        return Ok(None);
    };
    Ok(records.load(Space::Profiles, id.as_bytes())?.map(|profile| (id, profile)))
}

/// Makes a profile with one virtual storage device, which is the engine's own disk.
pub(super) fn register(
    tx: &mut Tx<'_>,
    id: Uuid,
    username: String,
    password: PasswordHash,
    device: String,
) -> Result<(), Refusal> {
    if tx.raw(Space::Usernames, username.as_bytes())?.is_some() {
        return Err(Refusal::UsernameTaken);
    }
    let device = Device {
        profile: id,
        identifier: device,
        name: "embedded storage".to_owned(),
        tags: None,
        created_at: tx.now,
        approval: Approval::Approved,
        storage: true,
        embedded: true,
        authenticator: false,
    };
    devices::add(tx, &device)?;
    tx.put(Space::Usernames, username.as_bytes(), &id)?;
    let profile = Profile { username, password, created_at: tx.now, public_key: None };
    put(tx, id, &profile)
}

/// Replaces the password. Sessions stay valid, as the sources say.
pub(super) fn set_password(
    tx: &mut Tx<'_>,
    id: Uuid,
    password: PasswordHash,
) -> Result<(), Refusal> {
    update(tx, id, |profile, _| {
        profile.password = password;
        Ok(())
    })
}

/// Registers or replaces the public key.
pub(super) fn set_key(tx: &mut Tx<'_>, id: Uuid, text: String) -> Result<(), Refusal> {
    update(tx, id, |profile, now| {
        profile.public_key = Some(PublicKey { text, created_at: now });
        Ok(())
    })
}

fn update(
    tx: &mut Tx<'_>,
    id: Uuid,
    change: impl FnOnce(&mut Profile, u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut profile = get(tx, id)?;
    change(&mut profile, tx.now)?;
    put(tx, id, &profile)
}

fn put(tx: &mut Tx<'_>, id: Uuid, profile: &Profile) -> Result<(), Refusal> {
    Ok(tx.put(Space::Profiles, id.as_bytes(), profile)?)
}

/// A session that has not expired.
pub(super) fn session(
    records: &impl Records,
    digest: &[u8; 32],
    now: u64,
) -> Result<Option<Session>, StorageError> {
    let session: Option<Session> = records.load(Space::Sessions, digest)?;
    Ok(session.filter(|session| session.expires_at > now))
}

/// Starts or extends a session.
pub(super) fn put_session(
    tx: &mut Tx<'_>,
    digest: &[u8; 32],
    session: &Session,
) -> Result<(), Refusal> {
    Ok(tx.put(Space::Sessions, digest, session)?)
}
