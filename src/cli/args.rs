//! The grammar.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use super::account::AccountCommand;
use super::authenticator::AuthenticatorCommand;
use super::ballot::VoteArgs;
use super::device::DeviceCommand;
use super::directory::DirectoryCommand;
use super::oauth::OauthCommand;
use super::pending::PendingArgs;
use super::policy::PolicyCommand;
use super::storage::StorageCommand;
use super::token::TokenCommand;
use super::voting::VotingCommand;
use crate::config::Layer;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not mounted, \
                          4 not everything reached the vault.";

/// A Privicore vault as a drive
#[derive(Debug, Parser)]
#[command(name = "privicorefs", version, about, after_help = EXIT_CODES, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a vault
    ///
    /// Returns when the mount answers, and serves on in the background. The vault is
    /// either an embedded one (--embedded DIR needs nothing else), or a service given by
    /// flags, by the environment or by a configuration file, in this order.
    Mount(Box<MountArgs>),
    /// Bring everything into the vault, unmount, and wait until the mount has ended
    ///
    /// If not everything reaches the vault, says what is left and stays mounted.
    Umount(UmountArgs),
    /// Bring everything written so far into the vault
    Sync(SyncArgs),
    /// Show the state of a mount, or of all
    Status(StatusArgs),
    /// Show what waits for a vote, for how long and on whom
    Pending(PendingArgs),
    /// Keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Run the embedded engine by itself, in the foreground
    Engine(Box<EngineArgs>),
    /// Profile, login and public key at the service
    #[command(subcommand)]
    Account(Box<AccountCommand>),
    /// Stored payloads, without the drive
    #[command(subcommand)]
    Token(Box<TokenCommand>),
    /// Storage devices
    #[command(subcommand)]
    Storage(Box<StorageCommand>),
    /// Devices of the profile
    #[command(subcommand)]
    Device(Box<DeviceCommand>),
    /// The devices that vote, and how their votes decide
    #[command(subcommand)]
    Authenticator(Box<AuthenticatorCommand>),
    /// Votes: what waits for them, and who casts them
    #[command(subcommand)]
    Voting(Box<VotingCommand>),
    /// Policies: which operations wait for a vote
    #[command(subcommand)]
    Policy(Box<PolicyCommand>),
    /// Directories: organisations with their users
    #[command(subcommand)]
    Directory(Box<DirectoryCommand>),
    /// OAuth applications, and the tokens that they act with
    #[command(subcommand)]
    Oauth(Box<OauthCommand>),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(super) struct MountArgs {
    /// Where to mount: an existing folder
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub(super) mount_point: PathBuf,
    #[command(flatten)]
    pub(super) layer: Layer,
    /// TOML file with options [default: $XDG_CONFIG_HOME/privicorefs/config.toml]
    ///
    /// Its names are those of the flags, with underscores: api_url, key_file, cache_size.
    /// Relative paths in it are relative to its folder.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Stay in the foreground, and log to standard error
    #[arg(long)]
    pub(super) foreground: bool,
    /// Print one JSON object instead of a sentence
    #[arg(long)]
    pub(super) json: bool,
    /// This is the process in the background (set by the program itself).
    #[arg(long, hide = true)]
    pub(super) background_child: bool,
}

#[derive(Args, Debug)]
pub(super) struct UmountArgs {
    /// The mount
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub(super) mount_point: PathBuf,
    /// Give up draining after this many seconds [default: never]
    #[arg(long, value_name = "SECS")]
    pub(super) timeout: Option<u64>,
    /// Unmount even if not everything is in the vault, or files are open
    ///
    /// What is left is kept in the state directory; the next mount uploads it.
    #[arg(long)]
    pub(super) force: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct SyncArgs {
    /// Anything on the drive; the whole drive is synced
    #[arg(value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(super) path: PathBuf,
    /// Give up after this many seconds [default: never]
    #[arg(long, value_name = "SECS")]
    pub(super) timeout: Option<u64>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// The mount; without it, every mount of this user
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub(super) mount_point: Option<PathBuf>,
    /// Print JSON: an object, or a list of objects without MOUNTPOINT
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a new key file: 64 hexadecimal digits, mode 0600
    ///
    /// Whoever has the key and the login reads the vault; without the key nobody does,
    /// you included. Keep a copy in a safe place.
    Generate {
        /// The file to make; an existing one is never overwritten
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct EngineArgs {
    #[command(subcommand)]
    pub(super) command: Option<EngineCommand>,
    /// Folder of everything that the engine keeps; made if missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, required = true)]
    pub(super) dir: Option<PathBuf>,
    /// Address of the one listener; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Delay added to every answer and every message, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) latency_ms: u64,
    /// Offer POST /_engine/faults, for tests
    #[arg(long)]
    pub(super) test_controls: bool,
    /// Allow an address that other machines can reach; there is no TLS
    #[arg(long)]
    pub(super) allow_remote: bool,
    /// Print one JSON object instead of a sentence
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum EngineCommand {
    /// Vote in a pool of a running engine, as an authenticator would
    ///
    /// Real devices vote over a queue of the service; the embedded engine takes their
    /// ballots over HTTP, with the credentials of their configuration.
    Vote(Box<VoteArgs>),
}
