//! `directory`: organisations with their users, not folders (protocol C.10).

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Exit;
use super::output::{List, Output};
use super::prompt::NewPassword;
use super::report::{at, done, or_dash, pair, yes_or_no};
use super::session::{self, Plain};
use crate::privicore::{Directory, DirectoryDevice, DirectoryInvitation, DirectoryUser};

#[derive(Debug, Subcommand)]
pub(super) enum DirectoryCommand {
    /// Register a directory of your own, and print its id
    Register {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        plain: Plain,
    },
    /// List the directories that you own, and those that you are in
    List {
        /// Only those that you own
        #[arg(long, conflicts_with = "assigned")]
        owned: bool,
        /// Only those that you are in without owning them
        #[arg(long)]
        assigned: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Show a directory and its meta information
    Show(OneDirectory),
    /// Meta information of a directory
    #[command(subcommand)]
    Meta(MetaCommand),
    /// List the users of a directory
    Users(OneDirectory),
    /// Users that a directory makes
    #[command(subcommand)]
    User(UserCommand),
    /// Show a user, and what the directory knows of it
    Profile(OneUser),
    /// List what the directory knows of its users
    Info {
        #[command(flatten)]
        of: DirectoryId,
        /// Only of these users, by their profiles' ids
        #[arg(value_name = "PROFILE")]
        profiles: Vec<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Set the password of a user that the directory made
    ///
    /// The new password is asked for twice, or comes from where the options say.
    Password {
        #[command(flatten)]
        user: UserId,
        #[command(flatten)]
        new: NewPassword,
        #[command(flatten)]
        plain: Plain,
    },
    /// Invite a profile into a directory, and print the invitation's id
    Invite(OneUser),
    /// List the invitations to you, or those of a directory of yours
    Invites {
        /// The directory [default: the invitations to you]
        #[arg(value_name = "DIRECTORY")]
        directory: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Accept an invitation to you
    Accept(OneInvitation),
    /// Decline an invitation to you
    Decline(OneInvitation),
    /// List the devices of everybody in a directory
    Devices(OneDirectory),
    /// Devices of the users that a directory made
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Where the users that a directory made store payloads
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Open a voting pool in which everybody's authenticators vote, and print its id
    Vote {
        #[command(flatten)]
        of: DirectoryId,
        /// What the vote is called
        #[arg(long, value_name = "TEXT")]
        title: String,
        /// What is voted on
        #[arg(long, value_name = "TEXT")]
        question: String,
        /// How is voted: one of your voting configurations [default: your defaults]
        #[arg(long, value_name = "CONFIGURATION")]
        configuration: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Args, Debug)]
pub(super) struct DirectoryId {
    /// The directory's id
    #[arg(value_name = "DIRECTORY")]
    directory: String,
}

#[derive(Args, Debug)]
pub(super) struct OneDirectory {
    #[command(flatten)]
    of: DirectoryId,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct UserId {
    #[command(flatten)]
    of: DirectoryId,
    /// The id of the user's profile
    #[arg(value_name = "PROFILE")]
    profile: String,
}

#[derive(Args, Debug)]
pub(super) struct OneUser {
    #[command(flatten)]
    user: UserId,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct OneInvitation {
    /// The invitation's id
    #[arg(value_name = "INVITATION")]
    invitation: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct Members {
    /// What to set; an empty value removes a member, those not named stay
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = member)]
    members: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(super) enum MetaCommand {
    /// Show the meta information, or one member of it
    Get {
        #[command(flatten)]
        of: DirectoryId,
        /// The member
        #[arg(value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Change the meta information
    Set {
        #[command(flatten)]
        of: DirectoryId,
        #[command(flatten)]
        members: Members,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make a profile in a directory, and print its id
    ///
    /// Its password is asked for twice, or comes from where the options say.
    Create {
        #[command(flatten)]
        of: DirectoryId,
        /// The profile's name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        new: NewPassword,
        #[command(flatten)]
        plain: Plain,
    },
    /// Change what the directory knows of a user
    Update {
        #[command(flatten)]
        user: UserId,
        #[command(flatten)]
        members: Members,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// Make a device for a user, and print its identifier
    Create {
        #[command(flatten)]
        user: UserId,
        /// The device's name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Let a user's device store payloads
    Add {
        #[command(flatten)]
        user: UserId,
        /// The device's identifier
        #[arg(value_name = "DEVICE")]
        device: String,
        #[command(flatten)]
        plain: Plain,
    },
}

/// `NAME=VALUE`.
fn member(text: &str) -> Result<(String, String), String> {
    pair(text, "expected NAME=VALUE")
}

impl Members {
    fn map(&self) -> BTreeMap<String, String> {
        self.members.iter().cloned().collect()
    }
}

/// Runs a command of the group.
pub(super) fn run(command: DirectoryCommand, output: &Output) -> anyhow::Result<Exit> {
    use DirectoryCommand as C;
    match command {
        C::Register { name, plain } => register(&name, &plain, output),
        C::List { owned, assigned, plain } => list(!assigned, !owned, &plain, output),
        C::Show(one) => show(&one, output),
        C::Meta(MetaCommand::Get { of, name, plain }) => {
            get_meta(&of, name.as_deref(), &plain, output)
        }
        C::Meta(MetaCommand::Set { of, members, plain }) => set_meta(&of, &members, &plain, output),
        C::Users(one) => users(&one, output),
        C::User(UserCommand::Create { of, name, new, plain }) => {
            create_user(&of, &name, &new, &plain, output)
        }
        C::User(UserCommand::Update { user, members, plain }) => {
            update_user(&user, &members, &plain, output)
        }
        C::Profile(one) => profile(&one, output),
        C::Info { of, profiles, plain } => info(&of, &profiles, &plain, output),
        C::Password { user, new, plain } => password(&user, &new, &plain, output),
        C::Invite(one) => invite(&one, output),
        C::Invites { directory, plain } => invites(directory.as_deref(), &plain, output),
        C::Accept(one) => process(&one, true, output),
        C::Decline(one) => process(&one, false, output),
        C::Devices(one) => devices(&one, output),
        C::Device(DeviceCommand::Create { user, name, plain }) => {
            create_device(&user, &name, &plain, output)
        }
        C::Storage(StorageCommand::Add { user, device, plain }) => {
            add_storage(&user, &device, &plain, output)
        }
        C::Vote { of, title, question, configuration, plain } => {
            let wanted = Wanted { title, question, configuration };
            vote(&of, &wanted, &plain, output)
        }
    }
}

fn register(name: &str, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let id = session.client.register_directory(name).await?;
        done(output, plain.json, &json!({ "directory": id, "name": name }), &id)
    })
}

fn list(owned: bool, assigned: bool, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let columns = &["DIRECTORY", "ROLE", "CREATED", "NAME"];
        let mut list = List::new(output, columns, plain.json);
        if owned {
            list.add(&session.client.owned_directories().await?, value, row)?;
        }
        if assigned {
            list.add(&session.client.assigned_directories().await?, value, row)?;
        }
        list.end("no directory")?;
        Ok(Exit::Done)
    })
}

fn value(directory: &Directory) -> Value {
    json!({
        "directory": directory.id, "name": directory.name, "role": directory.role,
        "created_at": at(directory.created), "meta": directory.meta,
    })
}

fn row(directory: &Directory) -> Vec<String> {
    let Directory { id, name, role, created, .. } = directory.clone();
    vec![id, or_dash(role), or_dash(at(created)), name]
}

fn show(one: &OneDirectory, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let found = session.client.directory(&one.of.directory).await?;
        if one.plain.json {
            output.json(&value(&found))?;
            return Ok(Exit::Done);
        }
        let names: Vec<_> = found.meta.keys().map(|name| format!("meta {name}")).collect();
        let mut pairs = vec![
            ("directory", found.id),
            ("name", found.name),
            ("role", or_dash(found.role)),
            ("created", or_dash(at(found.created))),
        ];
        pairs.extend(names.iter().map(String::as_str).zip(found.meta.into_values()));
        output.pairs(&pairs)?;
        Ok(Exit::Done)
    })
}

fn get_meta(
    of: &DirectoryId,
    name: Option<&str>,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let meta = session.client.directory(&of.directory).await?.meta;
        match name {
            Some(name) => {
                let Some(value) = meta.get(name) else {
                    anyhow::bail!("the directory has no meta information {name}");
                };
                done(output, plain.json, &json!(value), value)
            }
            None if plain.json => {
                output.json(&meta)?;
                Ok(Exit::Done)
            }
            None => {
                let pairs: Vec<_> = meta.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
                output.pairs(&pairs)?;
                if pairs.is_empty() {
                    output.note("no meta information");
                }
                Ok(Exit::Done)
            }
        }
    })
}

fn set_meta(
    of: &DirectoryId,
    members: &Members,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let id = &of.directory;
        session.client.store_directory_meta(id, &members.map()).await?;
        done(
            output,
            plain.json,
            &json!({ "directory": id, "changed": true }),
            &format!("changed {id}"),
        )
    })
}

fn users(one: &OneDirectory, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let found = session.client.directory_users(&one.of.directory).await?;
        let mut list = List::new(output, &["PROFILE", "ROLE", "SINCE", "NAME"], one.plain.json);
        let row = |user: &DirectoryUser| {
            let DirectoryUser { profile, username, role, since, .. } = user.clone();
            vec![profile, or_dash(role), or_dash(at(since)), or_dash(username)]
        };
        list.add(&found, |user| user_value(user, false), row)?;
        list.end("no user")?;
        Ok(Exit::Done)
    })
}

/// `informed`: whether the reply was one that says what is known of the user.
fn user_value(user: &DirectoryUser, informed: bool) -> Value {
    let mut value = json!({
        "profile": user.profile, "username": user.username, "role": user.role,
        "since": at(user.since),
    });
    if informed {
        value["information"] = json!(user.information);
    }
    value
}

fn create_user(
    of: &DirectoryId,
    name: &str,
    new: &NewPassword,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    let password = new.get(output)?;
    session::with(&plain.connect, async |session| {
        let id = session.client.create_directory_user(&of.directory, name, &password).await?;
        let value = json!({ "directory": of.directory, "profile": id, "username": name });
        done(output, plain.json, &value, &id)
    })
}

fn update_user(
    user: &UserId,
    members: &Members,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let (directory, profile) = (&user.of.directory, &user.profile);
        session.client.update_directory_user(directory, profile, &members.map()).await?;
        let value = json!({ "directory": directory, "profile": profile, "changed": true });
        done(output, plain.json, &value, &format!("changed {profile}"))
    })
}

fn profile(one: &OneUser, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let UserId { of, profile } = &one.user;
        let found = session.client.directory_profile(&of.directory, profile).await?;
        if one.plain.json {
            output.json(&user_value(&found, true))?;
            return Ok(Exit::Done);
        }
        let mut pairs = vec![
            ("profile", found.profile),
            ("user", or_dash(found.username)),
            ("role", or_dash(found.role)),
            ("since", or_dash(at(found.since))),
        ];
        pairs.extend(found.information.iter().map(|(k, v)| (k.as_str(), v.clone())));
        output.pairs(&pairs)?;
        Ok(Exit::Done)
    })
}

fn info(
    of: &DirectoryId,
    profiles: &[String],
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let profiles: Vec<_> = profiles.iter().map(String::as_str).collect();
        let found = session.client.directory_profiles(&of.directory, &profiles).await?;
        let mut list = List::new(output, &["PROFILE", "NAME", "INFORMATION"], plain.json);
        let row = |user: &DirectoryUser| {
            let known: Vec<_> = user.information.iter().map(|(k, v)| format!("{k}={v}")).collect();
            vec![user.profile.clone(), or_dash(user.username.clone()), known.join(", ")]
        };
        list.add(&found, |user| user_value(user, true), row)?;
        list.end("no user")?;
        Ok(Exit::Done)
    })
}

fn password(
    user: &UserId,
    new: &NewPassword,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    let new = new.get(output)?;
    session::with(&plain.connect, async |session| {
        let (directory, profile) = (&user.of.directory, &user.profile);
        session.client.set_profile_password(directory, profile, &new).await?;
        let value = json!({ "directory": directory, "profile": profile, "changed": true });
        done(output, plain.json, &value, &format!("the password of {profile} is set"))
    })
}

fn invite(one: &OneUser, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let (directory, profile) = (&one.user.of.directory, &one.user.profile);
        let id = session.client.invite_profile(directory, profile).await?;
        let value = json!({ "invitation": id, "directory": directory, "profile": profile });
        done(output, one.plain.json, &value, &id)
    })
}

fn invites(directory: Option<&str>, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.directory_invitations(directory).await?;
        let columns = &["INVITATION", "CREATED", "USER", "DIRECTORY", "NAME"];
        let mut list = List::new(output, columns, plain.json);
        let value = |invitation: &DirectoryInvitation| {
            json!({
                "invitation": invitation.id, "directory": invitation.directory,
                "name": invitation.directory_name, "profile": invitation.profile,
                "username": invitation.username,
                "created_at": at(invitation.created),
            })
        };
        let row = |invitation: &DirectoryInvitation| {
            let DirectoryInvitation { id, directory, directory_name, profile, username, created } =
                invitation.clone();
            let created = or_dash(at(created));
            let user = or_dash(username.or(profile));
            vec![id, created, user, or_dash(directory), or_dash(directory_name)]
        };
        list.add(&found, value, row)?;
        list.end("no invitation")?;
        Ok(Exit::Done)
    })
}

fn process(one: &OneInvitation, accept: bool, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let id = &one.invitation;
        session.client.process_directory_invitation(id, accept).await?;
        let said = if accept { "accepted" } else { "declined" };
        let value = json!({ "invitation": id, "done": said });
        done(output, one.plain.json, &value, &format!("{said} {id}"))
    })
}

fn devices(one: &OneDirectory, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let found = session.client.directory_devices(&one.of.directory).await?;
        let mut list = List::new(output, &["DEVICE", "STORAGE", "USER", "NAME"], one.plain.json);
        let value = |device: &DirectoryDevice| {
            json!({
                "device": device.identifier, "name": device.name, "storage": device.storage,
                "profile": device.profile, "username": device.username,
            })
        };
        let row = |device: &DirectoryDevice| {
            let DirectoryDevice { identifier, name, profile, username, storage } = device.clone();
            let storage = yes_or_no(storage).to_owned();
            vec![identifier, storage, or_dash(username.or(profile)), or_dash(name)]
        };
        list.add(&found, value, row)?;
        list.end("no device")?;
        Ok(Exit::Done)
    })
}

fn create_device(
    user: &UserId,
    name: &str,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let (directory, profile) = (&user.of.directory, &user.profile);
        let id = session.client.create_profile_device(directory, profile, name).await?;
        done(output, plain.json, &json!({ "device": id, "profile": profile, "name": name }), &id)
    })
}

fn add_storage(
    user: &UserId,
    device: &str,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let (directory, profile) = (&user.of.directory, &user.profile);
        session.client.add_profile_storage(directory, profile, device).await?;
        let value = json!({ "device": device, "profile": profile, "done": "registered" });
        done(output, plain.json, &value, &format!("registered {device}"))
    })
}

/// A vote that is to be opened.
struct Wanted {
    title: String,
    question: String,
    configuration: Option<String>,
}

fn vote(of: &DirectoryId, wanted: &Wanted, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let (directory, Wanted { title, question, configuration }) = (&of.directory, wanted);
        let client = &session.client;
        let id = client
            .create_directory_voting_pool(directory, title, question, configuration.as_deref())
            .await?;
        done(
            output,
            plain.json,
            &json!({ "pool": id, "directory": directory, "title": title }),
            &id,
        )
    })
}
