//! What the user typed, and what is said back.
//!
//! One file per command or group of commands (`session` says how a group begins); each resolves its arguments, does the thing through `mount`,
//! `control` or `engine`, and returns how it went. Everything printed goes through
//! `output`, which escapes names that could play tricks on a terminal. Results go to
//! standard output, messages and progress to standard error.

mod account;
mod args;
mod authenticator;
mod ballot;
mod completion;
mod device;
mod directory;
mod drain;
mod engine;
mod escape;
mod kept;
mod key;
mod keyring;
mod mount;
mod oauth;
mod output;
mod pending;
mod policy;
mod private;
mod progress;
mod prompt;
mod report;
mod session;
mod status;
mod storage;
mod token;
mod transfer;
mod voting;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, KeyCommand};
use output::Output;
use session::SessionError;

use crate::config::ConfigError;
use crate::control::{ControlError, Failure, FailureKind};

/// How a command ended, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done.
    Done = 0,
    /// Not done.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// There is no such mount.
    NotMounted = 3,
    /// Not everything reached the vault.
    Incomplete = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of an error: by its type where the type says, else 1.
fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<ControlError>() {
        return match error {
            ControlError::NotMounted(_) => Exit::NotMounted,
            ControlError::Failed(Failure { kind: FailureKind::Incomplete, .. }) => Exit::Incomplete,
            ControlError::Failed(_) | ControlError::Silent(_) | ControlError::Confused => {
                Exit::Failed
            }
        };
    }
    if let Some(SessionError::Embedded) = error.downcast_ref() {
        return Exit::Usage;
    }
    match error.downcast_ref::<ConfigError>() {
        Some(
            ConfigError::Missing { .. }
            | ConfigError::Conflict { .. }
            | ConfigError::Invalid { .. }
            | ConfigError::Toml { .. },
        ) => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// Whether the reader of standard output is gone. Failures of the network are of other types.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A variable of the process's environment.
fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help) => {
            // clap prints to the right stream and knows which of its errors are none
            let code = u8::try_from(help.exit_code()).unwrap_or(Exit::Usage as u8);
            let _ = help.print();
            return code.into();
        }
    };
    let output = Output::new();
    let result = match cli.command {
        Command::Mount(args) => mount::run(*args, &output),
        Command::Umount(args) => drain::umount(&args, &output),
        Command::Sync(args) => drain::sync(&args, &output),
        Command::Status(args) => status::run(&args, &output),
        Command::Pending(args) => pending::run(&args, &output),
        Command::Key(KeyCommand::Generate { file }) => key::generate(&file, &output),
        Command::Engine(args) => engine::run(&args, &output),
        Command::Account(command) => account::run(*command, &output),
        Command::Token(command) => token::run(*command, &output),
        Command::Storage(command) => storage::run(*command, &output),
        Command::Device(command) => device::run(*command, &output),
        Command::Authenticator(command) => authenticator::run(*command, &output),
        Command::Voting(command) => voting::run(*command, &output),
        Command::Policy(command) => policy::run(*command, &output),
        Command::Directory(command) => directory::run(*command, &output),
        Command::Oauth(command) => oauth::run(*command, &output),
        Command::Completion { shell } => completion::run(shell, &output),
    };
    match result {
        Ok(exit) => exit.into(),
        // Nobody reads any more: there is nobody to tell.
        Err(error) if is_broken_pipe(&error) => Exit::Failed.into(),
        Err(error) => {
            output.error(&error);
            exit_of(&error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory;

    use super::*;
    use crate::control::Progress;
    use crate::mount::MountError;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn errors_have_the_documented_exit_codes() {
        let incomplete = Failure {
            kind: FailureKind::Incomplete,
            message: String::new(),
            left: Some(Progress::default()),
        };
        let table: [(anyhow::Error, Exit); 4] = [
            (ControlError::NotMounted(PathBuf::new()).into(), Exit::NotMounted),
            (ControlError::Failed(incomplete).into(), Exit::Incomplete),
            (ConfigError::Missing { what: "x", hint: "y" }.into(), Exit::Usage),
            (MountError::Daemon("x".to_owned()).into(), Exit::Failed),
        ];
        for (error, exit) in table {
            assert_eq!(exit_of(&error), exit, "{error}");
        }
    }

    #[test]
    fn no_option_takes_a_secret() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert_ne!(argument.get_long(), Some("password"));
                assert_ne!(argument.get_long(), Some("new-password"));
                assert_ne!(argument.get_long(), Some("key"));
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn connection_options_are_those_of_mount() {
        let cli = Cli::command();
        let mount = cli.find_subcommand("mount").unwrap();
        let list = cli.find_subcommand("storage").and_then(|c| c.find_subcommand("list")).unwrap();
        let vault = |argument: &&clap::Arg| argument.get_help_heading() == Some("Vault");
        for argument in mount.get_arguments().filter(vault) {
            let found = list.get_arguments().find(|found| found.get_id() == argument.get_id());
            let found = found.unwrap_or_else(|| panic!("{} is missing", argument.get_id()));
            assert_eq!(found.get_long(), argument.get_long());
            if argument.get_id() != "embedded" {
                let help = |a: &clap::Arg| a.get_help().map(ToString::to_string);
                assert_eq!(help(found), help(argument));
            }
        }
    }
}
