//! Devices, as steps of a commit (C.5 to C.7).
//!
//! ```text
//! request -> pending --approve--> approved --register--> storage, authenticator or both
//!               |                     |
//!               +--reject--> rejected +--remove--> gone
//! ```
//!
//! A decision is final: a device that was approved or rejected is removed, not reviewed
//! again. No source has a call by which the engine could see a device's own public key, so
//! approval does not ask for one. The profile's first device is virtual and stands for the
//! engine's own disk.

use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError};
use super::records::{Approval, Device};
use super::refusal::Refusal;

/// What a device can do for its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Holds ciphertext (C.6).
    Storage,
    /// Votes (C.7).
    Authenticator,
}

/// The device of an identifier, whoever owns it.
pub(super) fn find(
    records: &impl Records,
    identifier: &str,
) -> Result<Option<Device>, StorageError> {
    records.load(Space::Devices, identifier.as_bytes())
}

/// As [`find`], for one profile's own.
pub(super) fn own(
    records: &impl Records,
    profile: Uuid,
    identifier: &str,
) -> Result<Device, Refusal> {
    let device = find(records, identifier)?.ok_or(Refusal::NoDevice)?;
    if device.profile == profile { Ok(device) } else { Err(Refusal::NotOwner) }
}

/// A profile's devices, oldest first.
pub(super) fn all(records: &impl Records, profile: Uuid) -> Result<Vec<Device>, StorageError> {
    let identifiers = identifiers(records, profile)?;
    let device = |identifier: String| find(records, &identifier).transpose();
    identifiers.into_iter().filter_map(device).collect()
}

/// The devices of a profile that may vote.
pub(super) fn authenticators(
    records: &impl Records,
    profile: Uuid,
) -> Result<Vec<Device>, StorageError> {
    Ok(all(records, profile)?.into_iter().filter(|device| device.authenticator).collect())
}

fn identifiers(records: &impl Records, profile: Uuid) -> Result<Vec<String>, StorageError> {
    Ok(records.load(Space::ProfileDevices, profile.as_bytes())?.unwrap_or_default())
}

/// Adds a device that is not there yet.
pub(super) fn add(tx: &mut Tx<'_>, device: &Device) -> Result<(), StorageError> {
    let mut known = identifiers(tx, device.profile)?;
    known.push(device.identifier.clone());
    tx.put(Space::ProfileDevices, device.profile.as_bytes(), &known)?;
    put(tx, device)
}

/// Approves or rejects a pending device.
pub(super) fn review(
    tx: &mut Tx<'_>,
    profile: Uuid,
    identifier: &str,
    decision: Approval,
) -> Result<(), Refusal> {
    let mut device = own(tx, profile, identifier)?;
    if device.approval != Approval::Pending {
        return Err(Refusal::Reviewed);
    }
    device.approval = decision;
    Ok(put(tx, &device)?)
}

/// Changes the name and the tags that are given.
pub(super) fn describe(
    tx: &mut Tx<'_>,
    profile: Uuid,
    identifier: &str,
    name: Option<String>,
    tags: Option<String>,
) -> Result<(), Refusal> {
    let mut device = own(tx, profile, identifier)?;
    device.name = name.unwrap_or(device.name);
    device.tags = tags.or(device.tags);
    Ok(put(tx, &device)?)
}

/// Gives an approved device a role, or takes one away.
pub(super) fn set_role(
    tx: &mut Tx<'_>,
    profile: Uuid,
    identifier: &str,
    role: Role,
    has: bool,
) -> Result<(), Refusal> {
    let mut device = own(tx, profile, identifier)?;
    if has && device.approval != Approval::Approved {
        return Err(Refusal::NotApproved);
    }
    match role {
        Role::Storage => {
            tx.use_devices();
            device.storage = has;
        }
        Role::Authenticator => device.authenticator = has,
    }
    Ok(put(tx, &device)?)
}

/// Removes a device with its roles and credentials.
pub(super) fn remove(tx: &mut Tx<'_>, profile: Uuid, identifier: &str) -> Result<(), Refusal> {
    own(tx, profile, identifier)?;
    tx.use_devices();
    let mut known = identifiers(tx, profile)?;
    known.retain(|other| other != identifier);
    tx.put(Space::ProfileDevices, profile.as_bytes(), &known)?;
    tx.remove(Space::Devices, identifier.as_bytes());
    Ok(())
}

fn put(tx: &mut Tx<'_>, device: &Device) -> Result<(), StorageError> {
    tx.put(Space::Devices, device.identifier.as_bytes(), device)
}
