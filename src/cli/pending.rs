//! `pending`: what waits for a vote.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::Value;

use super::output::{List, Output};
use super::report::or_dash;
use super::{Exit, drain, environment};
use crate::control::{Connection, list};

#[derive(Args, Debug)]
pub(super) struct PendingArgs {
    /// The mount; without it, every mount of this user
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    mount_point: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// `pending [MOUNTPOINT]`.
pub(super) fn run(args: &PendingArgs, output: &Output) -> anyhow::Result<Exit> {
    let connections = match &args.mount_point {
        Some(path) => vec![Connection::to_mount(&drain::settled(path)?, &environment)?],
        None => {
            let mounts = list(&environment).into_iter();
            mounts.filter_map(|found| Connection::open(&found.socket).ok()).collect()
        }
    };
    let columns = &["FOR", "OPERATION", "POOL", "WAITS ON", "WHAT"];
    let mut list = List::new(output, columns, args.json);
    for connection in connections {
        list.add(&connection.pending()?, Value::clone, row)?;
    }
    list.end("nothing waits for a vote")?;
    Ok(Exit::Done)
}

fn row(item: &Value) -> Vec<String> {
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    let voters: Vec<&str> =
        item["waits_on"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let voters = Some(voters.join(", ")).filter(|voters| !voters.is_empty());
    let what = text("path").or_else(|| text("target"));
    vec![
        lasted(item["seconds"].as_u64().unwrap_or_default()),
        or_dash(text("operation")),
        or_dash(text("pool")),
        or_dash(voters),
        or_dash(what),
    ]
}

/// Seconds for a person: `42s`, `3m20s`, `2h05m`.
fn lasted(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}
