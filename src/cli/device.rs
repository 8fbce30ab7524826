//! `device`: the devices of the profile (protocol C.5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use serde_json::{Value, json};

use super::Exit;
use super::output::{List, Output};
use super::private::Replacement;
use super::report::{advised, at, done, or_dash};
use super::session::{self, Plain};
use crate::privicore::{Approval, Device};

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// Request a new device, and print its identifier
    ///
    /// It is pending until it is approved or rejected.
    Request {
        /// Its name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Print the identifier of the device that a request made
    Identifier {
        /// The request, as `device request --json` shows it
        #[arg(value_name = "REQUEST")]
        request: String,
        #[command(flatten)]
        plain: Plain,
    },
    /// List the devices, pending ones too
    List(Plain),
    /// Give a device another name
    Rename {
        /// The device's identifier
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Its new name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        plain: Plain,
    },
    /// Approve a pending device
    ///
    /// Where a policy says so, this waits for a vote; `voting list` shows it meanwhile.
    Approve(OneDevice),
    /// Reject a pending device
    Reject(OneDevice),
    /// Show what an approved device is set up with, or write it to a private file
    ///
    /// The file holds the device's secrets too, which are never printed: whoever has it can
    /// act as the device.
    Configuration {
        #[command(flatten)]
        one: OneDevice,
        /// The file to write, mode 0600; an existing one is replaced
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Remove a device for good, with its roles and credentials
    Remove(OneDevice),
}

#[derive(Args, Debug)]
pub(super) struct OneDevice {
    /// The device's identifier
    #[arg(value_name = "DEVICE")]
    pub(super) device: String,
    #[command(flatten)]
    pub(super) plain: Plain,
}

/// Runs a command of the group.
pub(super) fn run(command: DeviceCommand, output: &Output) -> anyhow::Result<Exit> {
    let result = match command {
        DeviceCommand::Request { name, plain } => request(name.as_deref(), &plain, output),
        DeviceCommand::Identifier { request, plain } => identifier(&request, &plain, output),
        DeviceCommand::List(plain) => list(&plain, output),
        DeviceCommand::Rename { device, name, plain } => rename(&device, &name, &plain, output),
        DeviceCommand::Approve(one) => decide(&one, Some(Approval::Approved), output),
        DeviceCommand::Reject(one) => decide(&one, Some(Approval::Rejected), output),
        DeviceCommand::Configuration { one, output: file } => {
            configuration(&one, file.as_deref(), output)
        }
        DeviceCommand::Remove(one) => decide(&one, None, output),
    };
    result.map_err(advised)
}

fn request(name: Option<&str>, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let request = session.client.request_device(name).await?;
        let made = session.client.requested_device(&request).await.map_err(|error| {
            let hint = format!("later, `privicorefs device identifier {request}` tells it");
            anyhow::anyhow!(
                "the device is requested, but not its identifier known: {error}; {hint}"
            )
        })?;
        let value = json!({ "device": made.identifier, "request": request });
        done(output, plain.json, &value, &made.identifier)
    })
}

fn identifier(request: &str, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let made = session.client.requested_device(request).await?;
        let value = json!({ "device": made.identifier, "request": request });
        done(output, plain.json, &value, &made.identifier)
    })
}

fn list(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        show(&session.client.devices().await?, plain, "no device", output)
    })
}

/// A table of devices.
pub(super) fn show(
    devices: &[Device],
    plain: &Plain,
    nothing: &str,
    output: &Output,
) -> anyhow::Result<Exit> {
    let columns = &["DEVICE", "APPROVAL", "ROLES", "CREATED", "NAME"];
    let mut list = List::new(output, columns, plain.json);
    list.add(devices, value, row)?;
    list.end(nothing)?;
    Ok(Exit::Done)
}

fn value(device: &Device) -> Value {
    json!({
        "device": device.identifier, "name": device.name,
        "approval": device.approval.map(Approval::word), "roles": device.roles,
        "created_at": at(device.created),
    })
}

fn row(device: &Device) -> Vec<String> {
    let roles = (!device.roles.is_empty()).then(|| device.roles.join(","));
    vec![
        device.identifier.clone(),
        or_dash(device.approval.map(Approval::word)),
        or_dash(roles),
        or_dash(at(device.created)),
        or_dash(device.name.clone()),
    ]
}

fn rename(device: &str, name: &str, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        session.client.rename_device(device, name).await?;
        let value = json!({ "device": device, "name": name, "done": "renamed" });
        done(output, plain.json, &value, &format!("renamed {device}"))
    })
}

/// Approves, rejects, or with no decision removes.
fn decide(one: &OneDevice, decision: Option<Approval>, output: &Output) -> anyhow::Result<Exit> {
    let OneDevice { device, plain } = one;
    session::with(&plain.connect, async |session| {
        let client = &session.client;
        let said = match decision {
            Some(Approval::Approved) => client.approve_device(device).await.map(|()| "approved"),
            Some(_) => client.reject_device(device).await.map(|()| "rejected"),
            None => client.remove_device(device).await.map(|()| "removed"),
        }?;
        let value = json!({ "device": device, "done": said });
        done(output, plain.json, &value, &format!("{said} {device}"))
    })
}

fn configuration(one: &OneDevice, file: Option<&Path>, output: &Output) -> anyhow::Result<Exit> {
    let OneDevice { device, plain } = one;
    session::with(&plain.connect, async |session| {
        let found = session.client.device_configuration(device).await?;
        if let Some(path) = file {
            let text = found.to_file();
            write_private(path, text.expose().as_bytes())
                .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        }
        let client_id = found.credentials.as_ref().map(|known| known.client_id.clone());
        let port = found.rabbit_port;
        let path = file.map(|path| path.display().to_string());
        if plain.json {
            output.json(&json!({
                "device": device, "client_id": client_id, "rabbit_user": found.rabbit_user,
                "rabbit_host": found.rabbit_host, "rabbit_port": port, "file": path,
            }))?;
            return Ok(Exit::Done);
        }
        output.pairs(&[
            ("device", device.clone()),
            ("client id", or_dash(client_id)),
            ("queue user", or_dash(found.rabbit_user)),
            ("queue host", or_dash(found.rabbit_host)),
            ("queue port", or_dash(port.map(|port| port.to_string()))),
            ("written to", or_dash(path)),
        ])?;
        if file.is_none() {
            output.note("the secrets are not printed: --output FILE writes them to a private file");
        }
        Ok(Exit::Done)
    })
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    // a terminal, for example
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("not a regular file"));
    }
    Replacement::of(path)?.write(content)
}
