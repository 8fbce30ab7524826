//! `key generate FILE`.

use std::path::Path;

use super::Exit;
use super::output::Output;
use crate::crypto::MasterKey;
use crate::env::Env;

/// Makes a key file.
pub(super) fn generate(file: &Path, output: &Output) -> anyhow::Result<Exit> {
    let key = MasterKey::generate(file, Env::system().random.as_ref())?;
    output.line(&format!("made {} (key {})", file.display(), key.key_id()))?;
    output.note("keep a copy in a safe place: without it, nobody can read the vault");
    Ok(Exit::Done)
}
