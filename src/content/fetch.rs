//! Reading committed content: memory, then the disk cache, then the vault.
//!
//! Invariants
//! * A payload is fetched at most once at a time, however many readers wait for it; the
//!   fetch goes on when a reader gives up, so the next one finds it done.
//! * No byte is handed out before its payload has been authenticated as a whole. A payload
//!   too large for memory is decrypted into the cache under a name of its own, and becomes
//!   readable only when its tag has been verified.
//! * A payload is what its reference says, byte for byte, or it is not decrypted: one that was
//!   put in its place under the same token is refused, and so is an older one.
//! * What is kept, in memory and on the disk, is kept under token and identity.
//! * Buffers of payloads under way are taken from one budget.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CHUNK;
use super::blob::BLOCK;
use super::cache::Cache;
use crate::crypto::{CryptoError, Identity, IdentityOf, PayloadCipher};
use crate::env::Env;
use crate::env::tasks::{CutOff, blocking};
use crate::store::{Download, Reference, Store, StoreError, StoreErrorKind, Token};

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
    /// The payload is another than the reference means.
    #[error("not the content that was stored there")]
    Replaced,
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

/// A payload that is asked for; without an identity, whichever is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    token: Token,
    identity: Option<Identity>,
}

type Landed = Result<(Fetched, Identity), FetchError>;

type Flight = Shared<BoxFuture<'static, Landed>>;

/// Plaintexts kept in memory, least recently used out first.
struct Memory {
    lru: LruCache<Reference, Bytes>,
    used: u64,
    limit: u64,
}

impl Memory {
    fn put(&mut self, of: Reference, plain: Bytes) {
        if plain.len() as u64 > self.limit {
            return;
        }
        self.used += plain.len() as u64;
        if let Some((_, old)) = self.lru.push(of, plain) {
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
    flights: Mutex<HashMap<Wanted, Flight>>,
    /// Lengths of payloads that are in the cache only, verified.
    spooled: Mutex<HashMap<Reference, u64>>,
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
    pub fn try_read(&self, of: &Reference, offset: u64, out: &mut [u8]) -> bool {
        if let Some(plain) = self.memory.lock().lru.get(of) {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            return match plain.get(start..start.saturating_add(out.len())) {
                Some(bytes) => {
                    out.copy_from_slice(bytes);
                    true
                }
                None => false,
            };
        }
        let name = cache_name(of);
        if self.spooled.lock().contains_key(of) {
            return self.read_cached(&spool_name(&name), offset, out);
        }
        self.read_cached(&name, offset, out)
            || (self.recall_spooled(of, &name) && self.read_cached(&spool_name(&name), offset, out))
    }

    /// Whether an earlier mount decrypted this payload into the cache and verified it.
    fn recall_spooled(&self, of: &Reference, name: &str) -> bool {
        let mut block = [0; BLOCK];
        let found = self.cache.read(&verified_name(name), 0, 0, &mut block);
        if found {
            let mut len = [0; 8];
            len.copy_from_slice(&block[..8]);
            self.spooled.lock().insert(of.clone(), u64::from_le_bytes(len));
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
    pub fn has(&self, of: &Reference) -> bool {
        self.memory.lock().lru.contains(of)
            || self.spooled.lock().contains_key(of)
            || self.cache.contains(&cache_name(of), 0)
    }

    /// Fetches a payload as a whole, authenticates it and puts it into the cache.
    pub async fn fetch(self: &Arc<Self>, of: &Reference) -> Result<Fetched, FetchError> {
        let wanted = Wanted { token: of.token.clone(), identity: Some(of.identity) };
        Ok(self.join(wanted).await?.0)
    }

    /// The same of a payload that nobody has read yet, and its identity: it must be pinned, so
    /// that what is read later is the same.
    pub async fn fetch_unread(
        self: &Arc<Self>,
        token: &Token,
    ) -> Result<(Fetched, Identity), FetchError> {
        self.join(Wanted { token: token.clone(), identity: None }).await
    }

    /// The plaintext of a payload that was just fetched, of at most `limit` bytes, also where it
    /// is in the cache alone; `None` if it could not be kept there.
    pub fn whole(&self, of: &Reference, fetched: &Fetched, limit: u64) -> Option<Bytes> {
        if fetched.len > limit {
            return None;
        }
        if let Some(plain) = &fetched.plain {
            return Some(plain.clone());
        }
        let mut out = vec![0; usize::try_from(fetched.len).ok()?];
        self.try_read(of, 0, &mut out).then(|| Bytes::from(out))
    }

    /// Waits for a fetch, which is under way already or begins now.
    async fn join(self: &Arc<Self>, wanted: Wanted) -> Landed {
        let flight = {
            let mut flights = self.flights.lock();
            match flights.get(&wanted) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(wanted.clone());
                    flights.insert(wanted, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn start(self: &Arc<Self>, wanted: Wanted) -> Flight {
        let this = self.clone();
        let task = self.env.spawn(async move {
            let result = this.fetch_now(&wanted).await;
            this.flights.lock().remove(&wanted);
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

    async fn fetch_now(&self, wanted: &Wanted) -> Landed {
        let download = self.store.get(&wanted.token).await?;
        let known = wanted.identity.map(|identity| identity.len);
        let expected = known.or(download.len).unwrap_or(CHUNK);
        if expected > self.budget_bytes / 2 {
            return self.spool(wanted, download).await;
        }
        let _room = self.room(expected).await;
        let limit = known.unwrap_or(2 * self.budget_bytes);
        let collected = crate::store::collect(download, limit).await;
        let mut bytes = collected.map_err(|error| match (error.kind, known) {
            (StoreErrorKind::TooLarge, Some(_)) => FetchError::Replaced,
            _ => FetchError::Store(error),
        })?;
        self.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let found = self.cipher.identity(&bytes);
        let identity = wanted.check(found)?;
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
        self.keep(&wanted.found(identity), plain.clone()).await;
        Ok((Fetched { len: plain.len() as u64, plain: Some(plain) }, identity))
    }

    /// Puts a verified plaintext into memory and the disk cache.
    pub async fn keep(&self, of: &Reference, plain: Bytes) {
        let (cache, name, copy) = (self.cache.clone(), cache_name(of), plain.clone());
        let store = move || {
            for (index, chunk) in (0u64..).zip(copy.chunks(CHUNK as usize)) {
                cache.put(&name, index, chunk);
            }
            if copy.is_empty() {
                cache.put(&name, 0, &[]);
            }
        };
        let len = plain.len() as u64;
        self.memory.lock().put(of.clone(), plain);
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
    async fn spool(&self, wanted: &Wanted, download: Download) -> Landed {
        let mut seen = IdentityOf::default();
        // What nobody has read yet has no name before its end: it gets one that nobody reads.
        let draft = match wanted.identity {
            Some(identity) => spool_name(&cache_name(&wanted.found(identity))),
            None => format!("{}\u{0}{:016x}", wanted.token.as_str(), self.env.random_u64()),
        };
        if let Some(identity) = wanted.identity {
            // What was verified before is written over: none of it is read until all is again.
            let of = wanted.found(identity);
            self.spooled.lock().remove(&of);
            self.cache.remove_token(&verified_name(&cache_name(&of)));
        }
        let _room = self.room(CHUNK + (4 << 20)).await;
        let done = self.spool_as(wanted, &draft, download, &mut seen).await;
        let identity = done.and_then(|len| Ok((len, wanted.check(seen.finish(self.key_id()))?)));
        let (len, identity) = match identity {
            Ok(done) => done,
            Err(error) => {
                self.cache.remove_token(&draft);
                return Err(error);
            }
        };
        let of = wanted.found(identity);
        let name = cache_name(&of);
        if wanted.identity.is_none() {
            // Read again under its own name, now that it has one.
            self.cache.remove_token(&draft);
            let download = self.store.get(&of.token).await?;
            let wanted = Wanted { identity: Some(identity), ..wanted.clone() };
            let mut seen = IdentityOf::default();
            let spooled = spool_name(&name);
            let done = self.spool_as(&wanted, &spooled, download, &mut seen).await;
            let same = done.and_then(|_| wanted.check(seen.finish(self.key_id())));
            if let Err(error) = same {
                self.cache.remove_token(&spooled);
                return Err(error);
            }
        }
        self.cache.put(&verified_name(&name), 0, &len.to_le_bytes());
        self.spooled.lock().insert(of, len);
        Ok((Fetched { plain: None, len }, identity))
    }

    /// Decrypts a download into the cache under a name of its own, and verifies its tag; the IV
    /// must be the wanted one before anything is decrypted. Gives the plaintext's length.
    async fn spool_as(
        &self,
        wanted: &Wanted,
        name: &str,
        download: Download,
        seen: &mut IdentityOf,
    ) -> Result<u64, FetchError> {
        let mut opener = self.cipher.stream_opener();
        let mut stream = download.stream;
        let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK as usize + (1 << 20));
        let (mut index, mut len) = (0, 0);
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            self.downloaded.fetch_add(piece.len() as u64, Ordering::Relaxed);
            seen.push(&piece);
            if let (Some(found), Some(identity)) = (seen.iv(), wanted.identity)
                && (found != identity.iv || identity.key != self.key_id())
            {
                return Err(FetchError::Replaced);
            }
            opener.push(&piece, &mut buffer).map_err(FetchError::Sealed)?;
            while buffer.len() >= CHUNK as usize {
                self.cache.put(name, index, &buffer[..CHUNK as usize]);
                buffer.drain(..CHUNK as usize);
                index += 1;
                len += CHUNK;
            }
        }
        len += buffer.len() as u64;
        if !buffer.is_empty() {
            self.cache.put(name, index, &buffer);
        }
        opener.finish().map_err(FetchError::Sealed)?;
        Ok(len)
    }

    fn key_id(&self) -> [u8; 8] {
        self.cipher.key_id()
    }

    /// Forgets a payload that is deleted or superseded.
    pub fn forget(&self, of: &Reference) {
        let mut memory = self.memory.lock();
        if let Some(plain) = memory.lru.pop(of) {
            memory.used -= plain.len() as u64;
        }
        drop(memory);
        self.spooled.lock().remove(of);
        let name = cache_name(of);
        self.cache.remove_token(&name);
        self.cache.remove_token(&verified_name(&name));
        self.cache.remove_token(&spool_name(&name));
    }
}

impl Wanted {
    /// The identity of what has come, if that is what is wanted.
    fn check(&self, found: Option<Identity>) -> Result<Identity, FetchError> {
        match (found, self.identity) {
            (Some(found), None) => Ok(found),
            (Some(found), Some(identity)) if found == identity => Ok(found),
            (None, None) => Err(FetchError::Sealed(CryptoError::TooShort)),
            (_, Some(_)) => Err(FetchError::Replaced),
        }
    }

    fn found(&self, identity: Identity) -> Reference {
        Reference { token: self.token.clone(), identity }
    }
}

/// The name of a payload in the cache: another payload under its token has another one.
pub fn cache_name(of: &Reference) -> String {
    let Identity { iv, tag, .. } = &of.identity;
    format!("{}\u{0}{}{}", of.token.as_str(), HEXLOWER.encode(iv), HEXLOWER.encode(tag))
}

/// The cache name of the record that a decrypted payload has been verified.
fn verified_name(name: &str) -> String {
    format!("{name}\u{0}verified")
}

/// The cache name of a payload that is decrypted before it can be verified: distinct from
/// its own, so that nobody reads it by that before.
fn spool_name(name: &str) -> String {
    format!("{name}\u{0}spool")
}
