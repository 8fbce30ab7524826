//! The desktop's keyring: the Secret Service, on the session's D-Bus.
//!
//! Without a D-Bus session nothing is tried. With one, the keyring may ask its user to unlock
//! it, which takes as long as it takes: every call runs on a thread of its own, which is left
//! behind when patience ends. (Its blocking calls would not run in a tokio runtime either.)

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use keyring::{Entry, Error as EntryError};
use zeroize::Zeroizing;

use super::environment;
use crate::privicore::Secret;

/// Under which the program's secrets are found there.
const SERVICE: &str = "privicorefs";
/// How long a keyring may take that there is an alternative to.
pub(super) const SHORT: Duration = Duration::from_secs(5);
/// How long it may take otherwise: its user has to read and type.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// Why the keyring does not help. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyringError {
    /// There is no D-Bus session.
    #[error("there is no D-Bus session (DBUS_SESSION_BUS_ADDRESS is not set)")]
    NoBus,
    /// It did not answer in time.
    #[error("the keyring does not answer")]
    Silent,
    /// It does not have what was kept there.
    #[error("it is not in the keyring any more")]
    Gone,
    /// It refused, or is not there.
    #[error("the keyring: {0}")]
    Failed(String),
}

/// Keeps `secret` under a name, in place of what is there.
pub(super) fn set(name: &str, secret: &Secret, patience: Duration) -> Result<(), KeyringError> {
    let secret = secret.clone();
    call(name, patience, move |entry| entry.set_password(secret.expose()))
}

/// What is kept under a name.
pub(super) fn get(name: &str) -> Result<Secret, KeyringError> {
    call(name, LONG, |entry| entry.get_password().map(Secret::new))
}

/// Forgets what is kept under a name; it may be gone already.
pub(super) fn delete(name: &str) -> Result<(), KeyringError> {
    match call(name, LONG, Entry::delete_credential) {
        Err(KeyringError::Gone) => Ok(()),
        other => other,
    }
}

fn call<T: Send + 'static>(
    name: &str,
    patience: Duration,
    work: impl FnOnce(&Entry) -> Result<T, EntryError> + Send + 'static,
) -> Result<T, KeyringError> {
    if environment("DBUS_SESSION_BUS_ADDRESS").is_none_or(|address| address.is_empty()) {
        return Err(KeyringError::NoBus);
    }
    let (said, answer) = sync_channel(1);
    let name = name.to_owned();
    let asked = move || {
        let _ = said.send(Entry::new(SERVICE, &name).and_then(|entry| work(&entry)));
    };
    let thread = thread::Builder::new().name("keyring".to_owned()).spawn(asked);
    thread.map_err(|error| KeyringError::Failed(error.to_string()))?;
    match answer.recv_timeout(patience) {
        Ok(outcome) => outcome.map_err(plainly),
        Err(RecvTimeoutError::Timeout) => Err(KeyringError::Silent),
        Err(RecvTimeoutError::Disconnected) => {
            Err(KeyringError::Failed("it could not be asked".to_owned()))
        }
    }
}

/// The error in words: those of the library may hold what it read.
fn plainly(error: EntryError) -> KeyringError {
    match error {
        EntryError::NoEntry => KeyringError::Gone,
        EntryError::NoStorageAccess(_) => KeyringError::Failed("it is locked".to_owned()),
        EntryError::PlatformFailure(cause) => KeyringError::Failed(cause.to_string()),
        EntryError::BadEncoding(bytes) => {
            drop(Zeroizing::new(bytes));
            KeyringError::Failed("what it holds is not text".to_owned())
        }
        EntryError::Ambiguous(_) => KeyringError::Failed("it holds several of them".to_owned()),
        _ => KeyringError::Failed("it refuses the name".to_owned()),
    }
}
