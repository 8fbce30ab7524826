//! The vault as the catalog uses it: sealed payloads under hidden contexts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::Ino;
use super::segment::Paths;
use super::tree::{CatalogError, Tree};
use crate::crypto::{CryptoError, LocalKeys, PayloadCipher};
use crate::db::DbError;
use crate::env::Env;
use crate::store::{FileMeta, Hold, Payload, Store, StoreError, StoreErrorKind, Token, collect};

/// Largest catalog payload taken from the vault, in bytes: pages are cut at a fraction of it.
const PAYLOAD_LIMIT: u64 = 64 << 20;

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
    /// A payload did not open with this key.
    #[error("catalog payload {token}: {source}")]
    Sealed {
        /// Which.
        token: Token,
        /// Why.
        source: CryptoError,
    },
}

impl From<DbError> for RemoteError {
    fn from(error: DbError) -> Self {
        Self::Catalog(error.into())
    }
}

/// The catalog's two sides, and what it seals with.
#[derive(Clone)]
pub struct Remote {
    /// Local side.
    pub tree: Arc<Tree>,
    /// Vault side.
    pub store: Arc<dyn Store>,
    /// Seals what goes to the vault.
    pub cipher: Arc<PayloadCipher>,
    /// Keyed tags and marks.
    pub keys: Arc<LocalKeys>,
    /// Clock and randomness.
    pub env: Env,
    /// Hidden contexts of this key.
    pub paths: Paths,
    votes: Arc<Mutex<Votes>>,
}

/// What votes say about the catalog's own payloads.
#[derive(Default)]
struct Votes {
    /// A put that waits.
    held: Option<Arc<Hold>>,
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
        env: Env,
        paths: Paths,
    ) -> Self {
        Self { tree, store, cipher, keys, env, paths, votes: Arc::default() }
    }

    /// The put of a catalog payload that waits for a vote, if one does.
    pub fn held(&self) -> Option<Arc<Hold>> {
        self.votes.lock().held.clone().filter(|hold| !hold.is_settled())
    }

    /// Seals and stores a catalog payload. Waits for a vote as long as it takes; after a
    /// refusal, fails for a while without asking again.
    pub async fn put(
        &self,
        context: String,
        file_name: String,
        plain: &[u8],
    ) -> Result<Token, RemoteError> {
        let meta = FileMeta {
            file_name,
            extension: String::new(),
            context,
            path: "/".into(),
            size: plain.len() as u64,
        };
        let mark = self.keys.mark(&*self.env.random);
        if let Some((since, error)) = &self.votes.lock().refused
            && since.elapsed() < AFTER_REFUSAL
        {
            return Err(error.clone().into());
        }
        let payload = Payload::Bytes(self.cipher.seal(plain).into());
        loop {
            let error = match self.store.put(&meta, &mark, payload.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let Some(hold) = error.hold.clone() else {
                if error.kind == StoreErrorKind::Denied {
                    self.votes.lock().refused = Some((Instant::now(), error.clone()));
                }
                return Err(error.into());
            };
            self.votes.lock().held = Some(hold.clone());
            hold.settled().await;
        }
    }

    /// Fetches and opens a catalog payload.
    pub async fn get(&self, token: &Token) -> Result<Vec<u8>, RemoteError> {
        let sealed = collect(self.store.get(token).await?, PAYLOAD_LIMIT).await?;
        self.cipher
            .open(&sealed)
            .map_err(|source| RemoteError::Sealed { token: token.clone(), source })
    }

    /// Whether an inode's content waits for the vault.
    pub(super) fn content_waits(&self, ino: Ino) -> Result<bool, RemoteError> {
        Ok(self.tree.find_inode(ino)?.is_some_and(|i| i.local.dirty.is_some()))
    }
}
