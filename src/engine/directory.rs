//! Directories (C.10), as steps of a commit: organisations whose owner makes, invites and
//! looks after profiles. Only the calls' titles are known; what they mean is our choice.
//!
//! ```text
//! register -> directory, its owner a member of it
//! create user -> a profile, managed by the directory      invite -> invitation
//! accept -> an invited profile is a member, and stays its own      decline -> gone
//! ```
//!
//! Every member reads; only the owner writes, and only the owner sees invitations and
//! devices. In a pool that the owner opens everybody's authenticators vote; it is the owner's. Passwords and devices are the owner's to set for the profiles that the
//! directory made: by accepting an invitation nobody hands over an account.
//!
//! Invariants: a member has an entry in both directions, and so does an invitation that
//! waits; a profile is never both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError, View};
use super::devices::{self, Role};
use super::pools::{self, Opening};
use super::profiles;
use super::records::{Approval, Device, decode, pair_key, second_id};
use super::refusal::Refusal;
use super::secrets::PasswordHash;

/// Most members of a map: directory meta, or what is known of a user.
const MAP_MEMBERS: usize = 100;

/// A free-form map.
pub(super) type Map = BTreeMap<String, String>;

/// Changes to a map; an empty value removes a member.
pub(super) type Changes = Vec<(String, String)>;

/// A directory; its id is that of the command that registered it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Directory {
    pub name: String,
    pub owner: Uuid,
    pub created_at: u64,
    pub meta: Map,
}

/// A profile's place in a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// Whether the directory made the profile.
    pub managed: bool,
    pub since: u64,
    pub information: Map,
}

/// An invitation that waits; its id is that of the command that made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub directory: Uuid,
    pub profile: Uuid,
    pub created_at: u64,
}

fn get(records: &impl Records, id: Uuid) -> Result<Directory, Refusal> {
    records.load(Space::Directories, id.as_bytes())?.ok_or(Refusal::NoDirectory)
}

/// A directory, for its owner.
pub(super) fn owned(records: &impl Records, caller: Uuid, id: Uuid) -> Result<Directory, Refusal> {
    let found = get(records, id)?;
    if found.owner == caller { Ok(found) } else { Err(Refusal::NotDirectoryOwner) }
}

/// A directory, for anybody in it.
pub(super) fn joined(records: &impl Records, caller: Uuid, id: Uuid) -> Result<Directory, Refusal> {
    let found = get(records, id)?;
    match records.raw(Space::DirectoryMembers, &pair_key(id, caller))? {
        Some(_) => Ok(found),
        None => Err(Refusal::NotMember),
    }
}

/// A profile's place in a directory.
pub(super) fn member(records: &impl Records, id: Uuid, profile: Uuid) -> Result<Member, Refusal> {
    records.load(Space::DirectoryMembers, &pair_key(id, profile))?.ok_or(Refusal::NoProfile)
}

/// Whether the owner may set a profile's password and give it devices.
pub(super) fn managed(
    records: &impl Records,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
) -> Result<(), Refusal> {
    owned(records, caller, id)?;
    let member = member(records, id, profile)?;
    if member.managed || profile == caller { Ok(()) } else { Err(Refusal::NotManaged) }
}

/// The directories that a profile is in, oldest first.
pub(super) fn of_profile(
    view: &View<'_>,
    profile: Uuid,
) -> Result<Vec<(Uuid, Directory)>, Refusal> {
    let ids = seconds(view, Space::DirectoriesOf, profile)?;
    ids.into_iter().map(|id| Ok((id, get(view, id)?))).collect()
}

/// The members of a directory, oldest profile first.
pub(super) fn members(view: &View<'_>, id: Uuid) -> Result<Vec<(Uuid, Member)>, Refusal> {
    let items = view.from(Space::DirectoryMembers, id.as_bytes(), id.as_bytes());
    let read = |item: Result<super::db::Item, StorageError>| {
        let (key, value) = item?;
        Ok((second_id(&key)?, decode(&value)?))
    };
    items.map(read).collect()
}

fn seconds(view: &View<'_>, space: Space, first: Uuid) -> Result<Vec<Uuid>, StorageError> {
    let items = view.from(space, first.as_bytes(), first.as_bytes());
    items.map(|item| second_id(&item?.0)).collect()
}

/// The invitation of an id.
pub(super) fn invitation(records: &impl Records, id: Uuid) -> Result<Invitation, Refusal> {
    records.load(Space::DirectoryInvites, id.as_bytes())?.ok_or(Refusal::NoInvitation)
}

/// As [`invitation`], for the profile that is invited.
pub(super) fn own_invitation(
    records: &impl Records,
    caller: Uuid,
    id: Uuid,
) -> Result<Invitation, Refusal> {
    let found = invitation(records, id)?;
    if found.profile == caller { Ok(found) } else { Err(Refusal::NotOwner) }
}

/// The invitations of a directory, or those to a profile, with their directories.
pub(super) fn invitations(
    view: &View<'_>,
    of: Uuid,
) -> Result<Vec<(Uuid, Invitation, Directory)>, Refusal> {
    let mut found = Vec::new();
    for item in view.from(Space::DirectoryInvited, of.as_bytes(), of.as_bytes()) {
        let id: Uuid = decode(&item?.1)?;
        let invitation = invitation(view, id)?;
        let directory = get(view, invitation.directory)?;
        found.push((id, invitation, directory));
    }
    found.sort_by_key(|(id, ..)| *id);
    Ok(found)
}

/// Refuses a profile that is in a directory, or invited.
pub(super) fn outside(records: &impl Records, id: Uuid, profile: Uuid) -> Result<(), Refusal> {
    let key = pair_key(id, profile);
    let member = records.raw(Space::DirectoryMembers, &key)?;
    let invited = records.raw(Space::DirectoryInvited, &key)?;
    if member.or(invited).is_some() { Err(Refusal::AlreadyInvited) } else { Ok(()) }
}

/// Makes a directory.
pub(super) fn register(
    tx: &mut Tx<'_>,
    owner: Uuid,
    id: Uuid,
    name: String,
) -> Result<(), Refusal> {
    let directory = Directory { name, owner, created_at: tx.now, meta: Map::new() };
    tx.put(Space::Directories, id.as_bytes(), &directory)?;
    join(tx, id, owner, false)
}

fn join(tx: &mut Tx<'_>, id: Uuid, profile: Uuid, managed: bool) -> Result<(), Refusal> {
    let member = Member { managed, since: tx.now, information: Map::new() };
    tx.put(Space::DirectoryMembers, &pair_key(id, profile), &member)?;
    tx.put_raw(Space::DirectoriesOf, &pair_key(profile, id), Vec::new().into());
    Ok(())
}

/// A profile that is to be made.
#[derive(Debug)]
pub(super) struct NewUser {
    pub id: Uuid,
    pub username: String,
    pub password: PasswordHash,
    /// Identifier of its virtual storage device.
    pub device: String,
}

/// Makes a profile in a directory.
pub(super) fn create_user(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    user: NewUser,
) -> Result<(), Refusal> {
    owned(tx, caller, id)?;
    profiles::register(tx, user.id, user.username, user.password, user.device)?;
    join(tx, id, user.id, true)
}

/// Changes what the directory knows of a user.
pub(super) fn update_user(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
    changes: Changes,
) -> Result<(), Refusal> {
    owned(tx, caller, id)?;
    let mut member = member(tx, id, profile)?;
    merge(&mut member.information, changes, "information")?;
    Ok(tx.put(Space::DirectoryMembers, &pair_key(id, profile), &member)?)
}

/// Changes the meta information of a directory.
pub(super) fn store_meta(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    changes: Changes,
) -> Result<(), Refusal> {
    let mut directory = owned(tx, caller, id)?;
    merge(&mut directory.meta, changes, "meta")?;
    Ok(tx.put(Space::Directories, id.as_bytes(), &directory)?)
}

fn merge(map: &mut Map, changes: Changes, field: &'static str) -> Result<(), Refusal> {
    for (name, value) in changes {
        if value.is_empty() {
            map.remove(&name);
        } else {
            map.insert(name, value);
        }
    }
    let fits = map.len() <= MAP_MEMBERS;
    if fits { Ok(()) } else { Err(Refusal::parameter(field, "more than 100 members")) }
}

/// Invites a profile.
pub(super) fn invite(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
    invitation: Uuid,
) -> Result<(), Refusal> {
    owned(tx, caller, id)?;
    outside(tx, id, profile)?;
    let record = Invitation { directory: id, profile, created_at: tx.now };
    tx.put(Space::DirectoryInvites, invitation.as_bytes(), &record)?;
    tx.put(Space::DirectoryInvited, &pair_key(id, profile), &invitation)?;
    tx.put(Space::DirectoryInvited, &pair_key(profile, id), &invitation)?;
    Ok(())
}

/// Accepts or declines an invitation.
pub(super) fn process_invitation(
    tx: &mut Tx<'_>,
    caller: Uuid,
    invitation: Uuid,
    accept: bool,
) -> Result<(), Refusal> {
    let Invitation { directory, profile, .. } = own_invitation(tx, caller, invitation)?;
    tx.remove(Space::DirectoryInvites, invitation.as_bytes());
    tx.remove(Space::DirectoryInvited, &pair_key(directory, profile));
    tx.remove(Space::DirectoryInvited, &pair_key(profile, directory));
    if accept { join(tx, directory, profile, false) } else { Ok(()) }
}

/// Sets the password of a profile.
pub(super) fn set_password(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
    password: PasswordHash,
) -> Result<(), Refusal> {
    managed(tx, caller, id, profile)?;
    profiles::set_password(tx, profile, password)
}

/// Gives a profile a device without a role.
pub(super) fn create_device(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
    identifier: String,
    name: String,
) -> Result<(), Refusal> {
    managed(tx, caller, id, profile)?;
    let device = Device {
        identifier,
        profile,
        name,
        tags: None,
        created_at: tx.now,
        approval: Approval::Approved,
        storage: false,
        embedded: false,
        authenticator: false,
    };
    Ok(devices::add(tx, &device)?)
}

/// A profile's device that may become a storage device.
pub(super) fn device(
    records: &impl Records,
    profile: Uuid,
    identifier: &str,
) -> Result<Device, Refusal> {
    devices::own(records, profile, identifier)
}

/// Gives a profile's device the storage role.
pub(super) fn add_storage(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    profile: Uuid,
    identifier: &str,
) -> Result<(), Refusal> {
    managed(tx, caller, id, profile)?;
    devices::set_role(tx, profile, identifier, Role::Storage, true)
}

/// Opens a pool of the owner's in which members vote: those of `opening` that still are some.
pub(super) fn open_pool(
    tx: &mut Tx<'_>,
    caller: Uuid,
    id: Uuid,
    mut opening: Opening,
) -> Result<(), Refusal> {
    owned(tx, caller, id)?;
    let mut voters = Vec::new();
    for voter in opening.voters {
        if tx.raw(Space::DirectoryMembers, &pair_key(id, voter))?.is_some() {
            voters.push(voter);
        }
    }
    opening.voters = voters;
    pools::open(tx, opening).map(drop)
}

/// The devices of every member, with whose they are.
pub(super) fn devices(view: &View<'_>, id: Uuid) -> Result<Vec<(Uuid, String, Device)>, Refusal> {
    let mut found = Vec::new();
    for (profile, _) in members(view, id)? {
        let owner = profiles::get(view, profile)?;
        let named = |device| (profile, owner.username.clone(), device);
        found.extend(devices::all(view, profile)?.into_iter().map(named));
    }
    Ok(found)
}
