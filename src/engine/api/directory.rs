//! C.10: directories. Methods, paths and names of fields come from the table in `protocol`:
//! they are our choice, in the style of the documented calls. What a command makes
//! (directory, user, invitation, device, pool) is known by the command's id.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::{Caller, Fields, scan};
use super::{account, command, pages, reply};
use crate::engine::app::App;
use crate::engine::commit::{Durability, Tx};
use crate::engine::db::View;
use crate::engine::directory::{self, Changes, Directory, Member, NewUser};
use crate::engine::governance;
use crate::engine::pools::Opening;
use crate::engine::profiles;
use crate::engine::records::Device;
use crate::engine::refusal::Refusal;
use crate::engine::time::rfc3339;
use crate::protocol::directory::{
    CallMethod, DirectoryCall, DirectoryCalls, DirectoryFields, DirectoryValues,
};

static CALLS: DirectoryCalls = DirectoryCalls::ENGINE;
static FIELDS: DirectoryFields = DirectoryFields::ENGINE;
static VALUES: DirectoryValues = DirectoryValues::ENGINE;

type Routes = Router<Arc<App>>;

/// The calls offered.
pub(super) fn routes() -> Routes {
    let routes = Router::new();
    let routes = add(routes, &CALLS.register, register);
    let routes = add(routes, &CALLS.list_owned, list_owned);
    let routes = add(routes, &CALLS.list_assigned, list_assigned);
    let routes = add(routes, &CALLS.retrieve, retrieve);
    let routes = add(routes, &CALLS.create_user, create_user);
    let routes = add(routes, &CALLS.update_user, update_user);
    let routes = add(routes, &CALLS.invite, invite);
    let routes = add(routes, &CALLS.set_password, set_password);
    let routes = add(routes, &CALLS.list_invites, list_invites);
    let routes = add(routes, &CALLS.process_invitation, process_invitation);
    let routes = add(routes, &CALLS.retrieve_profile, retrieve_profile);
    let routes = add(routes, &CALLS.list_users, list_users);
    let routes = add(routes, &CALLS.profiles_info, profiles_info);
    let routes = add(routes, &CALLS.create_device, create_device);
    let routes = add(routes, &CALLS.add_storage_device, add_storage_device);
    let routes = add(routes, &CALLS.list_devices, list_devices);
    let routes = add(routes, &CALLS.create_voting_pool, create_voting_pool);
    add(routes, &CALLS.store_meta, store_meta)
}

fn add<T: 'static>(
    routes: Routes,
    call: &'static DirectoryCall,
    handler: impl Handler<T, Arc<App>>,
) -> Routes {
    let method = match call.method {
        CallMethod::Get => MethodFilter::GET,
        CallMethod::Post => MethodFilter::POST,
        CallMethod::Put => MethodFilter::PUT,
        CallMethod::Patch => MethodFilter::PATCH,
        CallMethod::Delete => MethodFilter::DELETE,
    };
    routes.route(&call.path, on(method, handler))
}

fn id(fields: &Fields, name: &'static str, missing: Refusal) -> Result<Uuid, Refusal> {
    Uuid::parse_str(&fields.required(name)?).map_err(|_| missing)
}

fn directory_id(fields: &Fields) -> Result<Uuid, Refusal> {
    id(fields, &FIELDS.directory_id, Refusal::NoDirectory)
}

fn profile_id(fields: &Fields) -> Result<Uuid, Refusal> {
    id(fields, &FIELDS.profile_id, Refusal::NoProfile)
}

/// The members of a map, of which at least one must be sent.
fn changes(fields: &Fields, name: &'static str) -> Result<Changes, Refusal> {
    let changes = fields.map(name)?;
    if changes.is_empty() || changes.iter().any(|(key, _)| key.is_empty()) {
        return Err(Refusal::parameter(name, "expected as name[member]=value"));
    }
    Ok(changes)
}

/// Accepts a command whose checks have passed; `step` makes them again.
async fn accept(
    app: &Arc<App>,
    call: &'static DirectoryCall,
    id: Uuid,
    caller: Caller,
    step: impl FnOnce(&mut Tx<'_>) -> Result<(), Refusal> + Send + 'static,
) -> Response {
    command::under(app, id, &call.path, caller.profile, step).await
}

/// Reads one view off the async threads, and answers a page of what was found.
async fn listed(
    app: &Arc<App>,
    fields: &Fields,
    read: impl FnOnce(&View<'_>) -> Result<Vec<Value>, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let db = Arc::clone(&app.db);
    let items = scan(move || read(&db.view())).await?;
    pages::page(app, fields, &items)
}

/// "Register Directory": `name`.
async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let name = fields.required(&FIELDS.name)?;
    let id = app.new_id();
    let step = move |tx: &mut Tx<'_>| directory::register(tx, caller.profile, id, name);
    Ok(accept(&app, &CALLS.register, id, caller, step).await)
}

fn role(directory: &Directory, profile: Uuid) -> &'static str {
    if directory.owner == profile { "owner" } else { "member" }
}

fn directory_record(id: Uuid, directory: &Directory, caller: Uuid) -> Value {
    json!({
        "directoryId": id,
        "id": id,
        "name": directory.name,
        "role": role(directory, caller),
        "createdAt": rfc3339(directory.created_at),
        "meta": directory.meta,
    })
}

/// "Retrieve owned Directories".
async fn list_owned(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    list(&app, caller, query, true).await
}

/// "Retrieve assigned directories": those the caller is in without owning them.
async fn list_assigned(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    list(&app, caller, query, false).await
}

async fn list(
    app: &Arc<App>,
    caller: Caller,
    query: Option<String>,
    owned: bool,
) -> Result<Response, Refusal> {
    let profile = caller.profile;
    listed(app, &Fields::of_query(query.as_deref()), move |view| {
        let all = directory::of_profile(view, profile)?;
        let wanted = all.iter().filter(|(_, found)| (found.owner == profile) == owned);
        Ok(wanted.map(|(id, found)| directory_record(*id, found, profile)).collect())
    })
    .await
}

/// "Retrieve Directory": `directoryId`.
async fn retrieve(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let id = directory_id(&Fields::of_query(query.as_deref()))?;
    let found = directory::joined(&*app.db, caller.profile, id)?;
    Ok(reply::ok(&directory_record(id, &found, caller.profile)))
}

/// "Create Directory User": `directoryId`, `username`, `password`.
async fn create_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let directory = directory_id(&fields)?;
    let username = fields.required(&FIELDS.username)?;
    let password = account::new_password(&fields, &FIELDS.password)?;
    directory::owned(&*app.db, caller.profile, directory)?;
    if profiles::by_name(&*app.db, &username)?.is_some() {
        return Err(Refusal::UsernameTaken);
    }
    let (id, device) = (app.new_id(), app.new_id().to_string());
    let prepare = account::hash(Arc::clone(&app), password);
    let profile = caller.profile;
    let op = &*CALLS.create_user.path;
    app.accept_as(id, op, Some(profile), Durability::Machine, prepare, move |tx, password| {
        let user = NewUser { id, username, password, device };
        directory::create_user(tx, profile, directory, user)?;
        Ok(None)
    })
    .await;
    Ok(reply::accepted(&app, id))
}

/// "Update user information": `directoryId`, `profileId`, `information[…]`; an empty
/// value removes a member, others stay.
async fn update_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (directory, profile) = (directory_id(&fields)?, profile_id(&fields)?);
    let changes = changes(&fields, &FIELDS.information)?;
    directory::owned(&*app.db, caller.profile, directory)?;
    directory::member(&*app.db, directory, profile)?;
    let step = move |tx: &mut Tx<'_>| {
        directory::update_user(tx, caller.profile, directory, profile, changes)
    };
    Ok(accept(&app, &CALLS.update_user, app.new_id(), caller, step).await)
}

/// "Invite Profile": `directoryId`, and `profileId` or `username`.
async fn invite(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let directory = directory_id(&fields)?;
    directory::owned(&*app.db, caller.profile, directory)?;
    let profile = match fields.get(&FIELDS.username) {
        Some(name) => profiles::by_name(&*app.db, name)?.ok_or(Refusal::NoProfile)?.0,
        None => profile_id(&fields)?,
    };
    profiles::get(&*app.db, profile).map_err(|refusal| match refusal {
        Refusal::NotFound => Refusal::NoProfile,
        other => other,
    })?;
    directory::outside(&*app.db, directory, profile)?;
    let id = app.new_id();
    let step = move |tx: &mut Tx<'_>| directory::invite(tx, caller.profile, directory, profile, id);
    Ok(accept(&app, &CALLS.invite, id, caller, step).await)
}

/// "List Directory Invites": those of `directoryId`, for its owner; without it, those to
/// the caller.
async fn list_invites(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let of = match fields.get(&FIELDS.directory_id) {
        Some(_) => {
            let id = directory_id(&fields)?;
            directory::owned(&*app.db, caller.profile, id)?;
            id
        }
        None => caller.profile,
    };
    listed(&app, &fields, move |view| {
        let found = directory::invitations(view, of)?;
        let record = |(id, invitation, directory): &(Uuid, directory::Invitation, Directory)| {
            Ok(json!({
                "invitationId": id,
                "id": id,
                "directoryId": invitation.directory,
                "directoryName": directory.name,
                "profileId": invitation.profile,
                "username": profiles::get(view, invitation.profile)?.username,
                "createdAt": rfc3339(invitation.created_at),
            }))
        };
        found.iter().map(record).collect()
    })
    .await
}

/// "Process Invitation": `invitationId`, `decision` (`accept` or `decline`).
async fn process_invitation(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let invitation = id(&fields, &FIELDS.invitation_id, Refusal::NoInvitation)?;
    let decision = fields.required(&FIELDS.decision)?;
    let accepted = decision == *VALUES.accept;
    if !accepted && decision != *VALUES.decline {
        return Err(Refusal::parameter(&FIELDS.decision, "accept or decline"));
    }
    directory::own_invitation(&*app.db, caller.profile, invitation)?;
    let step = move |tx: &mut Tx<'_>| {
        directory::process_invitation(tx, caller.profile, invitation, accepted)
    };
    Ok(accept(&app, &CALLS.process_invitation, app.new_id(), caller, step).await)
}

fn user_record(
    view: &View<'_>,
    directory: &Directory,
    profile: Uuid,
    member: &Member,
) -> Result<Value, Refusal> {
    Ok(json!({
        "profileId": profile,
        "username": profiles::get(view, profile)?.username,
        "role": role(directory, profile),
        "createdAt": rfc3339(member.since),
    }))
}

/// As [`user_record`], with what the directory knows of the user.
fn profile_record(
    view: &View<'_>,
    directory: &Directory,
    profile: Uuid,
    member: &Member,
) -> Result<Value, Refusal> {
    let mut record = user_record(view, directory, profile, member)?;
    record["managed"] = json!(member.managed);
    record["information"] = json!(member.information);
    Ok(record)
}

/// "Retrieve directory profile": `directoryId`, `profileId`.
async fn retrieve_profile(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let (directory, profile) = (directory_id(&fields)?, profile_id(&fields)?);
    let view = app.db.view();
    let found = directory::joined(&view, caller.profile, directory)?;
    let member = directory::member(&view, directory, profile)?;
    Ok(reply::ok(&profile_record(&view, &found, profile, &member)?))
}

/// "List directory users": `directoryId`.
async fn list_users(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let id = directory_id(&fields)?;
    listed(&app, &fields, move |view| {
        let found = directory::joined(view, caller.profile, id)?;
        let members = directory::members(view, id)?;
        members.iter().map(|(id, member)| user_record(view, &found, *id, member)).collect()
    })
    .await
}

/// "Directory profiles info": `directoryId`; of the users in `profileIds[]`, or of all.
async fn profiles_info(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let id = directory_id(&fields)?;
    let parse = |text: &String| Uuid::parse_str(text).map_err(|_| Refusal::NoProfile);
    let wanted: Vec<Uuid> =
        fields.list(&FIELDS.profile_ids)?.iter().map(parse).collect::<Result<_, _>>()?;
    listed(&app, &fields, move |view| {
        let found = directory::joined(view, caller.profile, id)?;
        let members = match wanted.is_empty() {
            true => directory::members(view, id)?,
            false => wanted
                .into_iter()
                .map(|profile| Ok((profile, directory::member(view, id, profile)?)))
                .collect::<Result<_, Refusal>>()?,
        };
        members.iter().map(|(id, member)| profile_record(view, &found, *id, member)).collect()
    })
    .await
}

/// "Set profile password": `directoryId`, `profileId`, `newPassword`, and again as
/// `newPasswordRepeat` if that is sent.
async fn set_password(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (directory, profile) = (directory_id(&fields)?, profile_id(&fields)?);
    let password = account::new_password(&fields, &FIELDS.new_password)?;
    if fields.get("newPasswordRepeat").is_some_and(|repeat| repeat != password) {
        return Err(Refusal::parameter("newPasswordRepeat", "the passwords differ"));
    }
    directory::managed(&*app.db, caller.profile, directory, profile)?;
    let prepare = account::hash(Arc::clone(&app), password);
    let owner = caller.profile;
    let op = &*CALLS.set_password.path;
    let id = app
        .accept(op, Some(owner), Durability::Machine, prepare, move |tx, password| {
            directory::set_password(tx, owner, directory, profile, password)?;
            Ok(None)
        })
        .await;
    Ok(reply::accepted(&app, id))
}

/// "Create profile device": `directoryId`, `profileId`, `deviceName`.
async fn create_device(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (directory, profile) = (directory_id(&fields)?, profile_id(&fields)?);
    let name = fields.required(&FIELDS.device_name)?;
    directory::managed(&*app.db, caller.profile, directory, profile)?;
    let id = app.new_id();
    let step = move |tx: &mut Tx<'_>| {
        let identifier = id.to_string();
        directory::create_device(tx, caller.profile, directory, profile, identifier, name)
    };
    Ok(accept(&app, &CALLS.create_device, id, caller, step).await)
}

/// "Add storage device to profile": `directoryId`, `profileId`, `deviceIdentifier`.
async fn add_storage_device(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (directory, profile) = (directory_id(&fields)?, profile_id(&fields)?);
    let identifier = fields.required(&FIELDS.device_identifier)?;
    directory::managed(&*app.db, caller.profile, directory, profile)?;
    directory::device(&*app.db, profile, &identifier)?;
    let step = move |tx: &mut Tx<'_>| {
        directory::add_storage(tx, caller.profile, directory, profile, &identifier)
    };
    Ok(accept(&app, &CALLS.add_storage_device, app.new_id(), caller, step).await)
}

/// "List directory devices": `directoryId`; of all its members, for its owner.
async fn list_devices(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let fields = Fields::of_query(query.as_deref());
    let id = directory_id(&fields)?;
    listed(&app, &fields, move |view| {
        directory::owned(view, caller.profile, id)?;
        let found = directory::devices(view, id)?;
        let record = |(profile, username, device): &(Uuid, String, Device)| {
            json!({
                "deviceIdentifier": device.identifier,
                "deviceUniqueIdentifier": device.identifier,
                "name": device.name,
                "createdAt": rfc3339(device.created_at),
                "storage": device.storage,
                "profileId": profile,
                "username": username,
            })
        };
        Ok(found.iter().map(record).collect())
    })
    .await
}

/// "Create directory voting pool": `directoryId`, `title`, `question`, and of the owner's
/// voting configurations `votingConfigurationId`; without it, the owner's defaults count.
async fn create_voting_pool(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let directory = directory_id(&fields)?;
    let title = fields.required(&FIELDS.title)?;
    let question = fields.required(&FIELDS.question)?;
    directory::owned(&*app.db, caller.profile, directory)?;
    let governance = governance::of(&*app.db, caller.profile)?;
    let wanted = fields.text(&FIELDS.voting_configuration_id)?.filter(|text| !text.is_empty());
    let (strategy, time_limit, devices) = match wanted {
        Some(wanted) => {
            let field = &FIELDS.voting_configuration_id;
            let unknown = |_| Refusal::parameter(field, "no such configuration");
            let found = governance.configuration(&wanted).map_err(unknown)?;
            (found.strategy, found.time_limit, found.devices.clone())
        }
        None => (governance.defaults.strategy, governance.defaults.time_limit, Vec::new()),
    };
    let db = Arc::clone(&app.db);
    let members = scan(move || directory::members(&db.view(), directory)).await?;
    let id = app.new_id();
    let opening = Opening {
        id,
        profile: caller.profile,
        title,
        question,
        nonce: None,
        subject: None,
        strategy,
        time_limit,
        voters: members.into_iter().map(|(profile, _)| profile).collect(),
        devices,
        skip: Vec::new(),
    };
    let step = move |tx: &mut Tx<'_>| directory::open_pool(tx, caller.profile, directory, opening);
    Ok(accept(&app, &CALLS.create_voting_pool, id, caller, step).await)
}

/// "Store directory meta information": `directoryId`, `meta[…]`; an empty value removes
/// a member, others stay.
async fn store_meta(
    State(app): State<Arc<App>>,
    caller: Caller,
    fields: Fields,
) -> Result<Response, Refusal> {
    let directory = directory_id(&fields)?;
    let changes = changes(&fields, &FIELDS.meta)?;
    directory::owned(&*app.db, caller.profile, directory)?;
    let step = move |tx: &mut Tx<'_>| directory::store_meta(tx, caller.profile, directory, changes);
    Ok(accept(&app, &CALLS.store_meta, app.new_id(), caller, step).await)
}
