//! Reading a password's file: closed to others, or refused.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
