//! `completion SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Exit;
use super::args::Cli;
use super::output::Output;

/// Prints the script.
pub(super) fn run(shell: Shell, output: &Output) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "privicorefs", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Done)
}
