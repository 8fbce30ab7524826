//! The vault as the catalog uses it: sealed payloads under hidden contexts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::paths::Paths;
use super::position::{Chain, LogListing};
use crate::catalog::format::payload::new_mark;
use crate::catalog::format::{Reference, Unopened};
use crate::catalog::namespace::{CatalogError, Stale, Tree};
use crate::crypto::{CatalogKeys, Identity, LocalKeys, PayloadCipher};
use crate::db::DbError;
use crate::env::Env;
use crate::store::{FileMeta, Hold, Payload, Store, StoreError, StoreErrorKind, Token, collect};

/// How long nothing is put after a refusal: nobody is asked again and again.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// Why the catalog could not be exchanged with the vault.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The local side failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The vault failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A payload did not open as what it was asked for as.
    #[error("catalog payload {token}: {source}")]
    Unopened {
        /// Which.
        token: Token,
        /// Why.
        source: Unopened,
    },
    /// A payload is not the one that is known.
    #[error("catalog payload {token}: not the one that was stored there")]
    Replaced {
        /// Which.
        token: Token,
    },
    /// The vault is not what this machine may write to; the text says what to do.
    #[error("{0}")]
    Refused(String),
}

impl From<DbError> for RemoteError {
    fn from(error: DbError) -> Self {
        Self::Catalog(error.into())
    }
}

/// What one call of [`Remote::publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records acknowledged by the vault.
    pub sent: u64,
    /// Records found to wait for a content.
    pub held: u64,
    /// Time spent looking for what can be sent.
    pub looking: Duration,
}

/// What a look at the vault brought.
#[derive(Debug, Default)]
pub struct Followed {
    /// Segments applied.
    pub segments: u64,
    /// Whether a checkpoint was loaded.
    pub checkpoint: bool,
    /// What this machine knows of the catalog and the vault does not give, with the reason;
    /// empty where there is no doubt.
    pub doubts: Vec<String>,
    /// What caches must forget.
    pub stale: Vec<Stale>,
}

/// The catalog's two sides, and what it seals with.
#[derive(Clone)]
pub struct Remote {
    /// Local side.
    pub tree: Arc<Tree>,
    /// Vault side.
    pub store: Arc<dyn Store>,
    /// Seals contents.
    pub cipher: Arc<PayloadCipher>,
    /// Keyed tags for local records.
    pub keys: Arc<LocalKeys>,
    /// Seals the catalog; marks.
    pub catalog_keys: Arc<CatalogKeys>,
    /// Clock and randomness.
    pub env: Env,
    /// Hidden contexts of this key.
    pub paths: Paths,
    /// What this mount has written.
    pub(super) chain: Arc<Mutex<Chain>>,
    /// The vault shows nothing of the catalog that this machine knows.
    pub(super) emptied: Arc<AtomicBool>,
    /// How the log was listed.
    pub(super) log: Arc<Mutex<Option<LogListing>>>,
    /// When this mount last added a day to the calendar.
    pub(super) advanced: Arc<Mutex<Option<Instant>>>,
    /// When the last look ended.
    looked: Arc<Mutex<Option<Instant>>>,
    /// What looks in passing have changed, for who tells the kernel.
    stale: Arc<Mutex<Vec<Stale>>>,
    votes: Arc<Mutex<Votes>>,
}

/// What votes say about the catalog's own payloads.
#[derive(Default)]
struct Votes {
    /// A put that waits.
    pending: Option<Arc<Hold>>,
    /// The last one that was refused, and when.
    refused: Option<(Instant, StoreError)>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// A catalog between `tree` and `store`.
    pub fn new(
        tree: Arc<Tree>,
        store: Arc<dyn Store>,
        cipher: Arc<PayloadCipher>,
        keys: Arc<LocalKeys>,
        catalog_keys: Arc<CatalogKeys>,
        env: Env,
    ) -> Self {
        let paths = Paths::new(&catalog_keys.id());
        Self {
            tree,
            store,
            cipher,
            keys,
            catalog_keys,
            env,
            paths,
            chain: Arc::default(),
            emptied: Arc::default(),
            log: Arc::default(),
            advanced: Arc::default(),
            looked: Arc::default(),
            stale: Arc::default(),
            votes: Arc::default(),
        }
    }

    pub(super) fn note_looked(&self) {
        *self.looked.lock() = Some(Instant::now());
    }

    /// Whether a look ended not longer than so many milliseconds ago.
    pub fn looked_within(&self, millis: u64) -> bool {
        self.looked.lock().is_some_and(|at| at.elapsed() <= Duration::from_millis(millis))
    }

    pub(super) fn keep_stale(&self, stale: Vec<Stale>) {
        self.stale.lock().extend(stale);
    }

    /// What looks in passing have changed: caches must forget it.
    pub fn take_stale(&self) -> Vec<Stale> {
        std::mem::take(&mut *self.stale.lock())
    }

    /// The put of a catalog payload that waits for a vote, if one does.
    pub fn pending_approval(&self) -> Option<Arc<Hold>> {
        self.votes.lock().pending.clone().filter(|hold| !hold.is_settled())
    }

    /// A new mark for a put.
    pub fn new_mark(&self) -> String {
        new_mark(&self.catalog_keys, &*self.env.random)
    }

    /// Stores a sealed payload of the catalog. Waits for a vote as long as it takes; after a
    /// refusal, fails for a while without asking again.
    pub(super) async fn put(
        &self,
        context: String,
        file_name: String,
        mark: &str,
        sealed: &[u8],
    ) -> Result<Token, RemoteError> {
        let size = sealed.len() as u64;
        let (extension, path) = (String::new(), "/".into());
        let meta = FileMeta { file_name, extension, context, path, size };
        if let Some((since, error)) = &self.votes.lock().refused
            && since.elapsed() < AFTER_REFUSAL
        {
            return Err(error.clone().into());
        }
        let payload = Payload::Bytes(sealed.to_vec().into());
        loop {
            let error = match self.store.put(&meta, mark, payload.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let Some(hold) = error.hold.clone() else {
                if error.kind == StoreErrorKind::Denied {
                    self.votes.lock().refused = Some((Instant::now(), error.clone()));
                }
                return Err(error.into());
            };
            self.votes.lock().pending = Some(hold.clone());
            hold.settled().await;
        }
    }

    /// Fetches a payload of at most `limit` bytes.
    pub(super) async fn fetch(&self, token: &Token, limit: u64) -> Result<Vec<u8>, RemoteError> {
        Ok(collect(self.store.get(token).await?, limit).await?)
    }

    /// Fetches the payload that a reference means, and none else.
    pub(super) async fn fetch_pinned(&self, of: &Reference) -> Result<Vec<u8>, RemoteError> {
        let bytes = self.fetch(&of.token, of.identity.len).await?;
        match Identity::of_catalog(&bytes) == Some(of.identity) {
            true => Ok(bytes),
            false => Err(RemoteError::Replaced { token: of.token.clone() }),
        }
    }
}
