//! `engine vote`: a ballot as an authenticator would cast it (protocol C.9).
//!
//! The engine takes ballots over HTTP, from devices that prove to be themselves with the
//! credentials of their configuration. Those come from the file that `device configuration`
//! wrote, without any login; or from the service, for whoever is logged in as the profile.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};

use super::Exit;
use super::output::Output;
use super::report::advised;
use super::session::{self, Connect};
use super::voting::say_pool;
use crate::config::ConfigError;
use crate::privicore::{Client, DeviceConfiguration, OauthCredentials, Secret, Vote, VotingPool};

#[derive(Args, Debug)]
pub(super) struct VoteArgs {
    /// The pool's id, as `voting list` shows it
    #[arg(value_name = "POOL")]
    pool: String,
    /// The vote
    #[arg(value_name = "VOTE")]
    vote: Word,
    /// The device that votes; its credentials are taken from the service, with a login
    #[arg(long, value_name = "DEVICE", required_unless_present = "configuration")]
    device: Option<String>,
    /// The device's configuration file instead: no login is needed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "device")]
    configuration: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// Approve
    #[value(alias = "approve")]
    Yes,
    /// Reject
    #[value(alias = "reject")]
    No,
}

/// Casts the ballot, and shows the pool as it is then.
pub(super) fn run(args: &VoteArgs, output: &Output) -> anyhow::Result<Exit> {
    let vote = match args.vote {
        Word::Yes => Vote::Approve,
        Word::No => Vote::Reject,
    };
    let result = match (&args.configuration, &args.device) {
        (Some(file), _) => alone(args, file, vote, output),
        (None, Some(device)) => session::with(&args.connect, async |session| {
            let client = &session.client;
            let found = client.device_configuration(device).await?;
            let credentials = found.credentials.ok_or_else(|| unusable(device))?;
            say(&client.cast_ballot(&credentials, &args.pool, vote).await?, args, output)
        }),
        (None, None) => {
            let hint = "--device or --configuration";
            Err(ConfigError::Missing { what: "the device that votes", hint }.into())
        }
    };
    result.map_err(advised)
}

fn unusable(what: &str) -> anyhow::Error {
    anyhow::anyhow!("{what}: the configuration holds no client-id and client-secret")
}

fn alone(args: &VoteArgs, file: &Path, vote: Vote, output: &Output) -> anyhow::Result<Exit> {
    let config = session::without_login(&args.connect, "the engine's address")?;
    let device = credentials(file)?;
    let pool = session::block_on(async {
        Ok(Client::cast_ballot_alone(&config, &device, &args.pool, vote).await?)
    })?;
    say(&pool, args, output)
}

fn say(pool: &VotingPool, args: &VoteArgs, output: &Output) -> anyhow::Result<Exit> {
    say_pool(pool, args.json, output)
}

/// Reads a device's configuration, which only its owner may be able to read.
fn credentials(path: &Path) -> anyhow::Result<OauthCredentials> {
    let said = |error: io::Error| anyhow::anyhow!("{}: {error}", path.display());
    let file = File::open(path).map_err(said)?;
    let mode = file.metadata().map_err(said)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode }.into());
    }
    let text = Secret::new(io::read_to_string(file).map_err(said)?);
    let found = DeviceConfiguration::parse(text.expose());
    let found = found.and_then(|found| found.credentials);
    found.ok_or_else(|| unusable(&path.display().to_string()))
}
