//! The embedded engine's folder: `DIR/engine` is the engine's own, `DIR/login.json` holds
//! the profile's login and `DIR/key` the vault's key, both 0600 and outside the engine's
//! part, which never sees a key.
//!
//! First use makes the key, then the login, then the profile, in that order, and each
//! step may be repeated after a crash: a login whose profile is missing is registered by
//! whoever finds the engine refusing it ([`super::backend`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MountError;
use super::local::{at, private_dir};
use crate::crypto::MasterKey;
use crate::env::Env;
use crate::privicore::Secret;

/// The profile that first use makes.
const USERNAME: &str = "drive";

/// What `login.json` holds.
#[derive(Serialize, Deserialize)]
struct LoginFile {
    username: String,
    password: String,
}

/// The folder, its login and its key.
#[derive(Debug)]
pub(super) struct Vault {
    /// The engine's part.
    pub(super) engine_dir: PathBuf,
    /// Profile.
    pub(super) username: String,
    /// Its password.
    pub(super) password: Secret,
    /// The vault's key.
    pub(super) key: MasterKey,
}

/// Opens the folder, making what first use has to make.
pub(super) fn open(dir: &Path, env: &Env) -> Result<Vault, MountError> {
    private_dir(dir)?;
    let (login_path, key_path) = (dir.join("login.json"), dir.join("key"));
    let key = if key_path.exists() {
        MasterKey::load(&key_path)?
    } else if login_path.exists() {
        return Err(MountError::KeyLost { key: key_path, login: login_path });
    } else {
        MasterKey::generate(&key_path, env.random.as_ref())?
    };
    let login = match fs::read_to_string(&login_path).map(Zeroizing::new) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| MountError::BadLogin {
            path: login_path.clone(),
            // where, not what: the text holds the password
            why: format!("line {}, column {}", error.line(), error.column()),
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_login(&login_path, env)?,
        Err(error) => return Err(at(&login_path)(error)),
    };
    let LoginFile { username, password } = login;
    let password = Secret::new(password);
    Ok(Vault { engine_dir: dir.join("engine"), username, password, key })
}

fn new_login(path: &Path, env: &Env) -> Result<LoginFile, MountError> {
    let mut random = Zeroizing::new([0; 32]);
    env.random.fill(&mut random[..]);
    let password = HEXLOWER.encode(&random[..]);
    let login = LoginFile { username: USERNAME.to_owned(), password };
    write_private(path, &login).map_err(at(path))?;
    Ok(login)
}

/// Whole or not at all: a file beside it, synced, takes its name.
fn write_private(path: &Path, login: &LoginFile) -> io::Result<()> {
    let mut text = Zeroizing::new(serde_json::to_vec_pretty(login)?);
    text.push(b'\n');
    let beside = path.with_extension("json.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::env::doubles::seeded_env;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn first_use_makes_key_and_login_and_later_use_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let vault = dir.path().join("vault");
        let first = open(&vault, &seeded_env(1)).unwrap();
        assert_eq!(mode(&vault.join("key")), 0o600);
        assert_eq!(mode(&vault.join("login.json")), 0o600);
        assert_eq!(mode(&vault), 0o700);
        let again = open(&vault, &seeded_env(2)).unwrap();
        assert_eq!(first.password, again.password);
        assert_eq!(first.key.key_id(), again.key.key_id());
        assert!(!first.engine_dir.exists(), "the engine makes its own part");
    }

    #[test]
    fn a_lost_key_is_not_replaced_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &seeded_env(1)).unwrap();
        fs::remove_file(dir.path().join("key")).unwrap();
        let error = open(dir.path(), &seeded_env(1)).unwrap_err();
        assert!(matches!(error, MountError::KeyLost { .. }), "{error}");
        assert!(!dir.path().join("key").exists());
    }

    #[test]
    fn a_damaged_login_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &seeded_env(1)).unwrap();
        let path = dir.path().join("login.json");
        fs::write(&path, "{\"username\": \"x\", \"password\": hunter2}").unwrap();
        let error = open(dir.path(), &seeded_env(1)).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
