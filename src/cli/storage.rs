//! `storage`: the devices that keep the payloads (protocol C.6).

use clap::{Args, Subcommand};
use serde_json::json;

use super::Exit;
use super::output::{List, Output};
use super::progress;
use super::report::{at, done, or_dash, yes_or_no};
use super::session::{self, Connect};
use crate::privicore::StorageDevice;

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// List the storage devices
    List {
        #[command(flatten)]
        connect: Connect,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Let an approved device store payloads
    Register(OneDevice),
    /// Send a device what it has missed; it must be online
    Synchronize(OneDevice),
    /// Take a device out of storing
    ///
    /// It stays registered and keeps what it has, which is no longer used.
    Remove(OneDevice),
}

#[derive(Args, Debug)]
pub(super) struct OneDevice {
    /// The device's identifier
    #[arg(value_name = "DEVICE")]
    device: String,
    #[command(flatten)]
    connect: Connect,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of the group.
pub(super) fn run(command: StorageCommand, output: &Output) -> anyhow::Result<Exit> {
    match command {
        StorageCommand::List { connect, json } => list(&connect, json, output),
        StorageCommand::Register(one) => change(&one, Change::Register, output),
        StorageCommand::Synchronize(one) => change(&one, Change::Synchronize, output),
        StorageCommand::Remove(one) => change(&one, Change::Remove, output),
    }
}

fn list(connect: &Connect, json: bool, output: &Output) -> anyhow::Result<Exit> {
    session::with(connect, async |session| {
        let devices = session.client.list_storage().await?;
        let mut list = List::new(output, &["DEVICE", "APPROVED", "CREATED", "NAME"], json);
        list.add(&devices, value, row)?;
        list.end("no storage device: nothing can be stored")?;
        Ok(Exit::Done)
    })
}

fn value(device: &StorageDevice) -> serde_json::Value {
    json!({
        "device": device.identifier, "name": device.name, "approved": device.approved,
        "created_at": at(device.created),
    })
}

fn row(device: &StorageDevice) -> Vec<String> {
    let StorageDevice { identifier, name, created, approved } = device.clone();
    vec![identifier, yes_or_no(approved).to_owned(), or_dash(at(created)), or_dash(name)]
}

#[derive(Clone, Copy)]
enum Change {
    Register,
    Synchronize,
    Remove,
}

fn change(one: &OneDevice, change: Change, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.connect, async |session| {
        let (client, device) = (&session.client, one.device.as_str());
        // The service may read all that the profile has stored before it answers.
        let work = async {
            match change {
                Change::Register => client.register_storage(device).await.map(|()| "registered"),
                Change::Synchronize => {
                    client.synchronize_storage(device).await.map(|()| "synchronized")
                }
                Change::Remove => client.remove_storage(device).await.map(|()| "removed"),
            }
        };
        let what = match change {
            Change::Register => "registering",
            Change::Synchronize => "synchronizing",
            Change::Remove => "removing",
        };
        let what = progress::waiting(output, &format!("{what} {device}"), work).await?;
        let value = json!({ "device": device, "done": what });
        done(output, one.json, &value, &format!("{what} {device}"))
    })
}
