//! Reading committed content: memory, then the disk cache, then the vault.
//!
//! Invariants
//! * A payload is fetched at most once at a time, however many readers wait for it; the
//!   fetch goes on when a reader gives up, so the next one finds it done.
//! * No byte is handed out before its payload has been authenticated as a whole. A payload
//!   too large for memory is decrypted into the cache under a name of its own, and becomes
//!   readable only when its tag has been verified.
//! * Buffers of payloads under way are taken from one budget.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CHUNK;
use super::blob::BLOCK;
use super::cache::Cache;
use crate::crypto::{CryptoError, PayloadCipher};
use crate::env::Env;
use crate::env::tasks::{CutOff, blocking};
use crate::store::{Download, Store, StoreError, StoreErrorKind, Token};

/// Unit of the buffer budget's permits.
const PERMIT: u64 = 64 << 10;

/// Why content could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The payload does not open with this key.
    #[error("{0}")]
    Sealed(CryptoError),
}

/// What a fetch gives: the plaintext, unless it was too large for memory and is now in the
/// cache alone; and its length.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Plaintext, if it fits in memory.
    pub plain: Option<Bytes>,
    /// Plaintext bytes.
    pub len: u64,
}

type Flight = Shared<BoxFuture<'static, Result<Fetched, FetchError>>>;

/// Plaintexts kept in memory, least recently used out first.
struct Memory {
    lru: LruCache<Token, Bytes>,
    used: u64,
    limit: u64,
}

impl Memory {
    fn put(&mut self, token: Token, plain: Bytes) {
        if plain.len() as u64 > self.limit {
            return;
        }
        self.used += plain.len() as u64;
        if let Some((_, old)) = self.lru.push(token, plain) {
            self.used -= old.len() as u64;
        }
        while self.used > self.limit {
            match self.lru.pop_lru() {
                Some((_, old)) => self.used -= old.len() as u64,
                None => break,
            }
        }
    }
}

/// Reads committed content.
pub struct Fetcher {
    store: Arc<dyn Store>,
    cipher: Arc<PayloadCipher>,
    cache: Arc<Cache>,
    memory: Mutex<Memory>,
    flights: Mutex<HashMap<Token, Flight>>,
    /// Lengths of payloads that are in the cache only, verified.
    spooled: Mutex<HashMap<Token, u64>>,
    /// Room for payloads on their way in, and on their way out. Two, because who sends a
    /// part may have to fetch the old one first while it holds its room: from one budget,
    /// two such parts could each wait for the other for ever.
    budget: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    budget_bytes: u64,
    downloaded: AtomicU64,
    env: Env,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetcher")
    }
}

impl Fetcher {
    /// A fetcher that keeps up to `keep` bytes of plaintext in memory, and takes buffers
    /// from a budget of `budget` bytes in each direction.
    pub fn new(
        store: Arc<dyn Store>,
        cipher: Arc<PayloadCipher>,
        cache: Arc<Cache>,
        keep: u64,
        budget: u64,
        env: Env,
    ) -> Self {
        // Small files: bounded by number too, since each entry costs more than its bytes.
        let entries = NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN);
        let permits = usize::try_from(budget / PERMIT).unwrap_or(1).max(1);
        Self {
            store,
            cipher,
            cache,
            memory: Mutex::new(Memory { lru: LruCache::new(entries), used: 0, limit: keep }),
            flights: Mutex::new(HashMap::new()),
            spooled: Mutex::new(HashMap::new()),
            budget: Arc::new(Semaphore::new(permits)),
            sending: Arc::new(Semaphore::new(permits)),
            budget_bytes: permits as u64 * PERMIT,
            downloaded: AtomicU64::new(0),
            env,
        }
    }

    /// Bytes fetched from the vault since the start.
    pub fn downloaded(&self) -> u64 {
        self.downloaded.load(Ordering::Relaxed)
    }

    /// Takes room for a payload of `bytes` that is to be sent; waits until there is some.
    /// One larger than the whole budget takes all of it.
    pub async fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.take(&self.sending, bytes).await
    }

    /// The same for one that is fetched. Whoever holds it waits for the network only.
    async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.take(&self.budget, bytes).await
    }

    async fn take(&self, budget: &Arc<Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = bytes.div_ceil(PERMIT).min(self.budget_bytes / PERMIT);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX).max(1);
        budget.clone().acquire_many_owned(permits).await.ok()
    }

    /// Copies plaintext from `offset` of a payload into `out`, if it is on this machine.
    /// `out` must not reach beyond the payload's end.
    pub fn try_read(&self, token: &Token, offset: u64, out: &mut [u8]) -> bool {
        if let Some(plain) = self.memory.lock().lru.get(token) {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            return match plain.get(start..start.saturating_add(out.len())) {
                Some(bytes) => {
                    out.copy_from_slice(bytes);
                    true
                }
                None => false,
            };
        }
        if self.spooled.lock().contains_key(token) {
            return self.read_cached(&spool_name(token), offset, out);
        }
        self.read_cached(token.as_str(), offset, out)
            || (self.recall_spooled(token) && self.read_cached(&spool_name(token), offset, out))
    }

    /// Whether an earlier mount decrypted this payload into the cache and verified it.
    fn recall_spooled(&self, token: &Token) -> bool {
        let mut block = [0; BLOCK];
        let found = self.cache.read(&verified_name(token), 0, 0, &mut block);
        if found {
            let mut len = [0; 8];
            len.copy_from_slice(&block[..8]);
            self.spooled.lock().insert(token.clone(), u64::from_le_bytes(len));
        }
        found
    }

    fn read_cached(&self, name: &str, offset: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (chunk, within) = (at / CHUNK, at % CHUNK);
            let len = (out.len() - done).min(usize::try_from(CHUNK - within).unwrap_or(0));
            if !self.read_chunk(name, chunk, within, &mut out[done..done + len]) {
                return false;
            }
            done += len;
        }
        true
    }

    fn read_chunk(&self, name: &str, chunk: u64, within: u64, out: &mut [u8]) -> bool {
        let block = BLOCK as u64;
        let first = within / block;
        let skip = usize::try_from(within % block).unwrap_or(0);
        if skip == 0 && out.len().is_multiple_of(BLOCK) {
            return self.cache.read(name, chunk, first, out);
        }
        let mut whole = vec![0; (skip + out.len()).next_multiple_of(BLOCK)];
        let found = self.cache.read(name, chunk, first, &mut whole);
        if found {
            out.copy_from_slice(&whole[skip..skip + out.len()]);
        }
        found
    }

    /// Whether a payload's first bytes are on this machine.
    pub fn has(&self, token: &Token) -> bool {
        self.memory.lock().lru.contains(token)
            || self.spooled.lock().contains_key(token)
            || self.cache.contains(token.as_str(), 0)
    }

    /// Fetches a payload as a whole, authenticates it and puts it into the cache.
    pub async fn fetch(self: &Arc<Self>, token: &Token) -> Result<Fetched, FetchError> {
        let flight = {
            let mut flights = self.flights.lock();
            match flights.get(token) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(token.clone());
                    flights.insert(token.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn start(self: &Arc<Self>, token: Token) -> Flight {
        let this = self.clone();
        let task = self.env.spawn(async move {
            let result = this.fetch_now(&token).await;
            this.flights.lock().remove(&token);
            result
        });
        async move {
            task.await.unwrap_or_else(|_| {
                let stopped = "the fetch was cut off by the unmount";
                Err(StoreError::new(StoreErrorKind::Unavailable, "get", stopped).into())
            })
        }
        .boxed()
        .shared()
    }

    async fn fetch_now(&self, token: &Token) -> Result<Fetched, FetchError> {
        let download = self.store.get(token).await?;
        let expected = download.len.unwrap_or(CHUNK);
        if expected > self.budget_bytes / 2 {
            return self.spool(token, download).await;
        }
        let _room = self.room(expected).await;
        let mut bytes = crate::store::collect(download, 2 * self.budget_bytes).await?;
        self.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let cipher = self.cipher.clone();
        let opened = move || {
            let range = match cipher.open_in_place(&mut bytes) {
                Ok(plain) => plain.len(),
                Err(error) => return Err(error),
            };
            let plain = Bytes::from(bytes);
            Ok(plain.slice(crate::crypto::IV_LEN..crate::crypto::IV_LEN + range))
        };
        let plain = self.off_thread(expected, opened).await.map_err(FetchError::Sealed)?;
        self.keep(token, plain.clone()).await;
        Ok(Fetched { len: plain.len() as u64, plain: Some(plain) })
    }

    /// Puts a verified plaintext into memory and the disk cache.
    pub async fn keep(&self, token: &Token, plain: Bytes) {
        let (cache, name, copy) = (self.cache.clone(), token.as_str().to_owned(), plain.clone());
        let store = move || {
            for (index, chunk) in (0u64..).zip(copy.chunks(CHUNK as usize)) {
                cache.put(&name, index, chunk);
            }
            if copy.is_empty() {
                cache.put(&name, 0, &[]);
            }
        };
        let len = plain.len() as u64;
        self.memory.lock().put(token.clone(), plain);
        self.off_thread(len, store).await;
    }

    /// Runs work on `bytes` of data: in place if it is small, on a blocking thread if it would
    /// hold up the runtime's worker.
    async fn off_thread<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < 256 << 10 {
            return work();
        }
        match blocking(&*self.env.tasks, work).await {
            Ok(done) => done,
            // It panicked: so does whoever waits for it.
            Err(CutOff) => std::panic::resume_unwind(Box::new("work on a content panicked")),
        }
    }

    /// Decrypts a payload that is too large for memory into the cache.
    async fn spool(&self, token: &Token, download: Download) -> Result<Fetched, FetchError> {
        let name = spool_name(token);
        let _room = self.room(CHUNK + (4 << 20)).await;
        let mut opener = self.cipher.stream_opener();
        let mut stream = download.stream;
        let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK as usize + (1 << 20));
        let (mut index, mut len) = (0, 0);
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            self.downloaded.fetch_add(piece.len() as u64, Ordering::Relaxed);
            opener.push(&piece, &mut buffer).map_err(FetchError::Sealed)?;
            while buffer.len() >= CHUNK as usize {
                self.cache.put(&name, index, &buffer[..CHUNK as usize]);
                buffer.drain(..CHUNK as usize);
                index += 1;
                len += CHUNK;
            }
        }
        len += buffer.len() as u64;
        if !buffer.is_empty() {
            self.cache.put(&name, index, &buffer);
        }
        if let Err(error) = opener.finish() {
            self.cache.remove_token(&name);
            return Err(FetchError::Sealed(error));
        }
        self.cache.put(&verified_name(token), 0, &len.to_le_bytes());
        self.spooled.lock().insert(token.clone(), len);
        Ok(Fetched { plain: None, len })
    }

    /// Forgets a payload that is deleted or superseded.
    pub fn forget(&self, token: &Token) {
        let mut memory = self.memory.lock();
        if let Some(plain) = memory.lru.pop(token) {
            memory.used -= plain.len() as u64;
        }
        drop(memory);
        self.spooled.lock().remove(token);
        self.cache.remove_token(token.as_str());
        self.cache.remove_token(&verified_name(token));
        self.cache.remove_token(&spool_name(token));
    }
}

/// The cache name of the record that a decrypted payload has been verified.
fn verified_name(token: &Token) -> String {
    format!("{}\u{0}verified", token.as_str())
}

/// The cache name of a payload that is decrypted before it can be verified: distinct from
/// the token, so that nobody reads it by that before.
fn spool_name(token: &Token) -> String {
    format!("{}\u{0}spool", token.as_str())
}
