//! Asking for a secret on the terminal, without showing what is typed.
//!
//! Signals are off while it is typed, so that the terminal cannot be left without echo:
//! Ctrl-C ends the line instead (as an additional end of line), and is seen here.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcsetattr,
};
use zeroize::Zeroizing;

use super::output::Output;
use crate::config;
use crate::privicore::Secret;

/// Longest line taken.
const LONGEST: usize = 4_096;
const CTRL_C: u8 = 3;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    /// Standard input is not a terminal.
    #[error(
        "no terminal to ask for the {0} on: give a file or a command (see --help), or PRIVICORE_PASSWORD"
    )]
    NoTerminal(&'static str),
    /// Ctrl-C.
    #[error("cancelled")]
    Cancelled,
    /// Nothing was typed.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// The two lines differ.
    #[error("the two passwords differ; nothing was changed")]
    Mismatch,
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Io(#[from] io::Error),
}

/// Asks for an existing password.
pub(super) fn secret(what: &'static str, output: &Output) -> Result<Secret, PromptError> {
    if !isatty(stdin()) {
        return Err(PromptError::NoTerminal(what));
    }
    let quiet = Quiet::new()?;
    output.ask(&format!("{what}: "));
    let line = line();
    drop(quiet);
    output.note("");
    let line = line?;
    let text = std::str::from_utf8(&line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8"))?;
    if text.is_empty() { Err(PromptError::Empty(what)) } else { Ok(Secret::new(text)) }
}

/// Asks for a new password, twice.
pub(super) fn new_secret(output: &Output) -> Result<Secret, PromptError> {
    let first = secret("new password", output)?;
    let second = secret("new password again", output)?;
    if first == second { Ok(first) } else { Err(PromptError::Mismatch) }
}

/// Where a new password comes from, if not from the terminal.
#[derive(Args, Debug)]
pub(super) struct NewPassword {
    /// File with the new password, mode 0600
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    new_password_file: Option<PathBuf>,
    /// Command whose first line of output is the new password, run by `sh -c`
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    new_password_command: Option<String>,
}

impl NewPassword {
    /// The password of the file or the command.
    pub(super) fn given(&self) -> Result<Option<Secret>, config::ConfigError> {
        config::secret(self.new_password_file.as_deref(), self.new_password_command.as_deref())
    }

    /// The same, or what is typed.
    pub(super) fn get(&self, output: &Output) -> anyhow::Result<Secret> {
        match self.given()? {
            Some(password) => Ok(password),
            None => Ok(new_secret(output)?),
        }
    }
}

/// One line, byte by byte into memory that is wiped; no buffer of the library sees it.
fn line() -> Result<Zeroizing<Vec<u8>>, PromptError> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    loop {
        let mut byte = Zeroizing::new([0_u8; 1]);
        match rustix::io::read(stdin(), &mut byte[..]) {
            Ok(0) => return Ok(line),
            Ok(_) => match byte[0] {
                CTRL_C => return Err(PromptError::Cancelled),
                b'\n' => return Ok(line),
                _ if line.len() == LONGEST => {
                    return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
                }
                other => line.push(other),
            },
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// The terminal without echo, until it is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> Result<Self, PromptError> {
        let before = tcgetattr(stdin()).map_err(io::Error::from)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.local_modes.insert(LocalModes::ICANON);
        quiet.input_modes.insert(InputModes::ICRNL);
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        // what was typed before the question is not its answer
        tcsetattr(stdin(), OptionalActions::Flush, &quiet).map_err(io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}
