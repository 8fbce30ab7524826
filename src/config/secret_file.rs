//! Reading a password: from a file that is closed to others, or from a command.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::ConfigError;
use crate::privicore::Secret;

/// Longest password that is read; a larger file is a mistake.
const LONGEST: u64 = 64 << 10;

/// The file's text without its line ending.
pub(super) fn read(path: &Path) -> Result<Secret, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        let why = format!("{} is empty", path.display());
        return Err(ConfigError::Invalid { what: "the password file", why });
    }
    Ok(Secret::new(password))
}

/// The first line of what a command prints. Its standard input and error are this
/// process's, so that it can ask.
pub(super) fn said_by(command: &str) -> Result<Secret, ConfigError> {
    let wrong = |why: String| ConfigError::Invalid { what: "--password-command", why };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::inherit()).stderr(Stdio::inherit());
    let output = shell.output().map_err(|error| wrong(format!("cannot run sh: {error}")))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(wrong(format!("ended with {}", output.status)));
    }
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(wrong("printed no password".to_owned())),
        Ok(password) => Ok(Secret::new(password)),
        Err(_) => Err(wrong("printed a password that is not UTF-8".to_owned())),
    }
}
