//! Kept sessions: what `account login` leaves for the commands after it.
//!
//! One file per service and profile in `$XDG_STATE_HOME/privicorefs/sessions` (0700), mode
//! 0600, replaced as a whole; one that others can read is refused. The authorization token is
//! in it, or in the desktop's keyring under the file's name.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::keyring::{self, KeyringError};
use super::private;
use crate::config::{Endpoint, SessionStore, session_name};
use crate::privicore::{Authorization, Secret, format_rfc3339, parse_rfc3339};

const VERSION: u32 = 1;

/// Why a kept session cannot be used or kept. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    /// Reading or writing.
    #[error("{}: {source}", path.display())]
    Local { path: PathBuf, source: io::Error },
    /// Others can read it, or its folder.
    #[error("{}: mode {mode:04o}, open to others: run `chmod go-rwx` on it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// Not what this program wrote.
    #[error("{}: not a kept session: delete it, and run `privicorefs account login`", path.display())]
    Malformed { path: PathBuf },
    /// The token is in the keyring, which does not give it.
    #[error("the session is kept in the keyring: {0}; run `privicorefs account login`")]
    Keyring(KeyringError),
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    api_url: String,
    ws_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    downstream_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    username: String,
    /// Not there: it is in the keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    expires_at: Option<String>,
}

/// A kept session. `Debug` shows no token.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Service and profile: `api_url`, `ws_url` and `username` are there, a password is not.
    pub(super) endpoint: Endpoint,
    /// Without its token, if that is in the keyring and was not fetched: see [`Kept::whole`].
    pub(super) authorization: Authorization,
    path: PathBuf,
    keyring: bool,
}

impl Kept {
    /// A session to be kept in `dir`; `None` if the endpoint does not name service and profile.
    pub(super) fn new(dir: &Path, endpoint: &Endpoint, granted: Authorization) -> Option<Self> {
        let name = session_name(endpoint.api_url.as_ref()?, endpoint.username.as_deref()?);
        endpoint.ws_url.as_ref()?;
        let path = dir.join(format!("{name}.json"));
        let endpoint = Endpoint { password: None, ..endpoint.clone() };
        Some(Self { endpoint, authorization: granted, path, keyring: false })
    }

    /// The same, with its token.
    pub(super) fn whole(mut self) -> Result<Self, KeptError> {
        if self.keyring {
            self.authorization.token = keyring::get(&self.name()).map_err(KeptError::Keyring)?;
        }
        Ok(self)
    }

    /// Whether the token is in the keyring.
    pub(super) fn in_keyring(&self) -> bool {
        self.keyring
    }

    /// In the keyring.
    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The kept sessions that agree with what is said of service and profile.
    pub(super) fn matching(dir: &Path, said: &Endpoint) -> Result<Vec<Self>, KeptError> {
        let local = |source| KeptError::Local { path: dir.to_owned(), source };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(local(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(local)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.push(Self::load(path)?);
            }
        }
        let agrees = |kept: &Self| {
            let same_url = said.api_url.is_none() || said.api_url == kept.endpoint.api_url;
            same_url && (said.username.is_none() || said.username == kept.endpoint.username)
        };
        found.retain(agrees);
        Ok(found)
    }

    fn load(path: PathBuf) -> Result<Self, KeptError> {
        let local = |source| KeptError::Local { path: path.clone(), source };
        let file = File::open(&path).map_err(local)?;
        let mode = file.metadata().map_err(local)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeptError::Exposed { path, mode });
        }
        let text = Zeroizing::new(io::read_to_string(file).map_err(local)?);
        let content = serde_json::from_str::<Content>(&text).ok();
        let content = content.filter(|content| content.version == VERSION);
        let read = |content: Content| {
            // taken over before anything can fail, so that it is wiped
            let keyring = content.token.is_none();
            let token = Secret::new(content.token.unwrap_or_default());
            let url = |text: &str| Url::parse(text).ok();
            let optional = |text: Option<String>| match text {
                Some(text) => url(&text).map(Some),
                None => Some(None),
            };
            let endpoint = Endpoint {
                api_url: Some(url(&content.api_url)?),
                ws_url: Some(url(&content.ws_url)?),
                upstream_url: optional(content.upstream_url)?,
                downstream_url: optional(content.downstream_url)?,
                username: Some(content.username),
                ca_file: content.ca_file,
                ..Endpoint::default()
            };
            let expires = content.expires_at.as_deref().and_then(parse_rfc3339);
            Some((endpoint, Authorization { token, expires }, keyring))
        };
        match content.and_then(read) {
            Some((endpoint, authorization, keyring)) => {
                Ok(Self { endpoint, authorization, path, keyring })
            }
            None => Err(KeptError::Malformed { path }),
        }
    }

    /// The same session with another authorization.
    pub(super) fn with(&self, authorization: &Authorization) -> Self {
        Self { authorization: authorization.clone(), ..self.clone() }
    }

    /// Keeps a new session where it should be, in place of one before.
    pub(super) fn save_in(mut self, store: SessionStore) -> Result<Self, KeptError> {
        let patience = match store {
            SessionStore::Auto => Some(keyring::SHORT),
            SessionStore::Keyring => Some(keyring::LONG),
            SessionStore::File => None,
        };
        // Before the file: what it says is there has to be there.
        match patience
            .map(|patience| keyring::set(&self.name(), &self.authorization.token, patience))
        {
            Some(Ok(())) => self.keyring = true,
            Some(Err(error)) if store == SessionStore::Keyring => {
                return Err(KeptError::Keyring(error));
            }
            Some(Err(error)) => tracing::info!(%error, "the session is kept in a file"),
            None => {}
        }
        let before = Self::load(self.path.clone()).is_ok_and(|before| before.keyring);
        self.write()?;
        if before && !self.keyring {
            // does not count any more; what is left there does no harm
            let _ = keyring::delete(&self.name());
        }
        Ok(self)
    }

    /// Keeps it where it was kept before.
    pub(super) fn save(&self) -> Result<(), KeptError> {
        if self.keyring {
            let token = &self.authorization.token;
            keyring::set(&self.name(), token, keyring::LONG).map_err(KeptError::Keyring)?;
        }
        self.write()
    }

    /// Writes the file: whole or not at all, and on disk when this returns.
    fn write(&self) -> Result<(), KeptError> {
        let local = |source| KeptError::Local { path: self.path.clone(), source };
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        private_dir(dir)?;
        let Endpoint { api_url, ws_url, upstream_url, downstream_url, username, ca_file, .. } =
            &self.endpoint;
        let text = |url: &Option<Url>| url.as_ref().map(Url::to_string);
        let content = Content {
            version: VERSION,
            api_url: text(api_url).unwrap_or_default(),
            ws_url: text(ws_url).unwrap_or_default(),
            upstream_url: text(upstream_url),
            downstream_url: text(downstream_url),
            ca_file: ca_file.clone(),
            username: username.clone().unwrap_or_default(),
            token: (!self.keyring).then(|| self.authorization.token.expose().to_owned()),
            expires_at: self.authorization.expires.map(format_rfc3339),
        };
        let written = serde_json::to_vec_pretty(&content).map(Zeroizing::new);
        // wiped, as the serialized form is
        drop(content.token.map(Secret::new));
        let mut written = written.map_err(|error| local(error.into()))?;
        written.push(b'\n');
        let replaced = private::Replacement::of(&self.path).and_then(|file| file.write(&written));
        replaced.map_err(local)
    }

    /// Deletes the file, and what is in the keyring; both may be gone already.
    pub(super) fn forget(&self) -> Result<(), KeptError> {
        let deleted = if self.keyring { keyring::delete(&self.name()) } else { Ok(()) };
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeptError::Local { path: self.path.clone(), source })
            }
            _ => deleted.map_err(KeptError::Keyring),
        }
    }
}

/// Makes the folder, 0700, or checks that nobody else may enter it.
fn private_dir(dir: &Path) -> Result<(), KeptError> {
    let local = |source| KeptError::Local { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(local)?;
    let mode = fs::metadata(dir).map_err(local)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeptError::Exposed { path: dir.to_owned(), mode });
    }
    Ok(())
}
