//! A payload above the limit for memory that is fetched a second time, by the layer that
//! fetches for the drive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use privicorefs::content::CHUNK;
use privicorefs::content::cache::{Cache, CacheConfig};
use privicorefs::content::fetch::{Fetcher, cache_name};
use privicorefs::crypto::{LocalKeys, MasterKey, PayloadCipher};
use privicorefs::env::Env;
use privicorefs::store::{
    Download, FileMeta, ListFilter, ListPage, Payload, Reference, RiskMeta, Store, StoreError,
    StoreErrorKind, StoreResult, Token,
};

/// Gives a payload as it is once, and then forged and cut off.
struct Forger {
    sealed: Bytes,
    gets: AtomicUsize,
}

#[async_trait]
impl Store for Forger {
    async fn put(&self, _: &FileMeta, _: &str, _: Payload) -> StoreResult<Token> {
        Ok(Token::new("t"))
    }

    async fn get(&self, _: &Token) -> StoreResult<Download> {
        let (len, mut bytes) = (Some(self.sealed.len() as u64), self.sealed.to_vec());
        if self.gets.fetch_add(1, Ordering::SeqCst) == 0 {
            return Ok(Download { len, stream: stream::iter([Ok(bytes.into())]).boxed() });
        }
        bytes.iter_mut().skip(100).take(1000).for_each(|byte| *byte ^= 1);
        bytes.truncate(CHUNK as usize + (1 << 20));
        let cut = StoreError::new(StoreErrorKind::Unavailable, "get", "cut off");
        Ok(Download { len, stream: stream::iter([Ok(bytes.into()), Err(cut)]).boxed() })
    }

    async fn delete(&self, _: &Token) -> StoreResult<()> {
        Ok(())
    }

    async fn update_meta(&self, _: &Token, _: &FileMeta) -> StoreResult<()> {
        Ok(())
    }

    async fn set_risk(&self, _: &Token, _: &RiskMeta) -> StoreResult<()> {
        Ok(())
    }

    async fn list(&self, _: &ListFilter, _: u32) -> StoreResult<ListPage> {
        Ok(ListPage::default())
    }
}

/// Forged bytes never lie under the mark that says verified.
#[tokio::test]
async fn what_is_fetched_again_is_not_read_before_it_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (key, env) = (MasterKey::from_bytes([9; 32]), Env::system());
    let keys = Arc::new(LocalKeys::new(&key));
    let cipher = Arc::new(PayloadCipher::new(&key, env.clone()));
    let plain = vec![7; 2 * CHUNK as usize];
    let sealed = Bytes::from(cipher.seal(&plain));
    let identity = cipher.identity(&sealed).unwrap();
    let config = CacheConfig { dir: dir.path().to_owned(), limit: 1 << 30, free_floor: 0 };
    let cache = Arc::new(Cache::open(config, keys, env.clone()).unwrap());
    let store = Arc::new(Forger { sealed, gets: AtomicUsize::new(0) });
    let fetcher = Arc::new(Fetcher::new(store, cipher, cache.clone(), 0, 1 << 20, env));
    let of = Reference { token: Token::new("t"), identity };

    fetcher.fetch(&of).await.unwrap();
    let mut out = vec![0; 4096];
    assert!(fetcher.try_read(&of, 0, &mut out) && out == vec![7; 4096]);
    // The first chunk is evicted, as chunks are, and fetched again.
    cache.remove(&format!("{}\0spool", cache_name(&of)), 0);
    assert!(!fetcher.try_read(&of, 0, &mut out));
    fetcher.fetch(&of).await.unwrap_err();
    assert!(!fetcher.try_read(&of, 0, &mut out), "what was forged is read");
}
