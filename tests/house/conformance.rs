//! What every token store must do, whoever keeps the tokens: the contract of
//! `privicorefs::store`, as tests that run on any implementation.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use privicorefs::store::{
    FileMeta, ListFilter, Payload, RiskMeta, Store, StoreErrorKind, Token, TokenRecord, list_all,
};

/// What an implementation may leave out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offers {
    /// `update_meta` works, rather than answering `Unsupported`.
    pub(crate) update_meta: bool,
    /// Listings return the mark of a put.
    pub(crate) marks: bool,
    /// Listings return risk meta, path and size.
    pub(crate) full_listing: bool,
}

impl Offers {
    /// Everything.
    pub(crate) const ALL: Self = Self { update_meta: true, marks: true, full_listing: true };
}

/// Runs the whole suite on an empty store.
pub(crate) async fn suite(store: Arc<dyn Store>, offers: Offers) {
    payloads_come_back_as_they_were_put(&*store).await;
    unknown_tokens_are_told(&*store).await;
    listings_show_what_was_put(&*store, offers).await;
    filters_match_exactly(&*store).await;
    awkward_names_survive(&*store).await;
    deleting_is_idempotent(&*store).await;
    file_meta_can_change(&*store, offers).await;
    risk_meta_can_be_set(&*store, offers).await;
    broken_payloads_fail_and_leave_no_file(&*store).await;
    many_at_once(Arc::clone(&store)).await;
    listings_have_pages(store).await;
}

/// Bytes that follow from `seed` and do not repeat soon.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// File meta for a name in a context.
pub(crate) fn meta(context: &str, name: &str, size: u64) -> FileMeta {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    FileMeta {
        file_name: name.into(),
        extension: extension.into(),
        context: context.into(),
        path: "/".into(),
        size,
    }
}

/// A mark in UUID form.
pub(crate) fn mark(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// `bytes` as a stream of uneven pieces.
pub(crate) fn streamed(bytes: Bytes) -> Payload {
    let len = bytes.len() as u64;
    let open = move || {
        let mut rest = bytes.clone();
        let mut step = 1;
        let pieces = std::iter::from_fn(move || {
            step = step * 3 % 70_001;
            let piece = rest.split_to(rest.len().min(step));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        stream::iter(pieces).boxed()
    };
    Payload::Stream { len, open: Arc::new(open) }
}

/// Fetches a payload whole.
pub(crate) async fn fetch(store: &dyn Store, token: &Token) -> Bytes {
    let download = store.get(token).await.unwrap();
    let whole: BytesMut =
        download.stream.try_collect::<Vec<_>>().await.unwrap().concat()[..].into();
    if let Some(len) = download.len {
        assert_eq!(len, whole.len() as u64);
    }
    whole.freeze()
}

/// Stores `bytes` under a name.
pub(crate) async fn put(store: &dyn Store, context: &str, name: &str, bytes: &Bytes) -> Token {
    let meta = meta(context, name, bytes.len() as u64 - 28);
    store.put(&meta, &mark(bytes.len() as u64), Payload::Bytes(bytes.clone())).await.unwrap()
}

async fn listed(store: &dyn Store, token: &Token) -> Option<TokenRecord> {
    let filter = ListFilter { token: Some(token.clone()), ..ListFilter::default() };
    list_all(store, &filter).await.unwrap().pop()
}

async fn payloads_come_back_as_they_were_put(store: &dyn Store) {
    // Around the smallest payload, the inline limits of both sides, and stream buffers.
    let sizes = [28, 29, 1_000, 35_999, 36_000, 36_001, 51_200, 51_201, 65_536, 3_000_001];
    for (i, len) in sizes.into_iter().enumerate() {
        let bytes = content(i as u64, len);
        let whole = put(store, "payloads", &format!("whole-{len}.bin"), &bytes).await;
        let meta = meta("payloads", &format!("stream-{len}.bin"), len as u64);
        let stream = store.put(&meta, &mark(7), streamed(bytes.clone())).await.unwrap();
        assert_ne!(whole, stream);
        assert!(fetch(store, &whole).await == bytes, "whole payload of {len} bytes");
        assert!(fetch(store, &stream).await == bytes, "streamed payload of {len} bytes");
        assert!(fetch(store, &stream).await == bytes, "a second time");
    }
}

async fn unknown_tokens_are_told(store: &dyn Store) {
    let unknown = Token::new("dtk-00000000-0000-4000-8000-000000000000");
    let error = store.get(&unknown).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    assert!(!error.is_retryable());
    store.delete(&unknown).await.unwrap();
}

async fn listings_show_what_was_put(store: &dyn Store, offers: Offers) {
    let bytes = content(1, 500);
    let meta = meta("listing/of one", "report.pdf", 472);
    let payload = Payload::Bytes(bytes);
    let token = store.put(&meta, &mark(99), payload).await.unwrap();
    let record = listed(store, &token).await.unwrap();
    assert_eq!(record.token, token);
    assert_eq!(record.context, meta.context);
    assert_eq!(record.file_name.as_ref(), Some(&meta.file_name));
    assert_eq!(record.extension.as_deref(), Some("pdf"));
    assert!(record.created.is_some());
    if offers.marks {
        assert_eq!(record.mark, Some(mark(99)));
    }
    if offers.full_listing {
        assert_eq!(record.size, Some(472));
        assert_eq!(record.path.as_deref(), Some("/"));
    }
}

async fn filters_match_exactly(store: &dyn Store) {
    let bytes = content(2, 64);
    for (context, name) in [("f", "a.txt"), ("f", "b.txt"), ("f/g", "a.txt"), ("F", "A.TXT")] {
        put(store, context, name, &bytes).await;
    }
    let names = async |context: Option<&str>, name: Option<&str>| {
        let filter = ListFilter {
            context: context.map(Into::into),
            file_name: name.map(Into::into),
            ..ListFilter::default()
        };
        let mut found: Vec<_> = list_all(store, &filter)
            .await
            .unwrap()
            .into_iter()
            .map(|r| format!("{}:{}", r.context, r.file_name.unwrap_or_default()))
            .collect();
        found.sort();
        found
    };
    assert_eq!(names(Some("f"), None).await, ["f:a.txt", "f:b.txt"]);
    assert_eq!(names(Some("f"), Some("a.txt")).await, ["f:a.txt"]);
    assert_eq!(names(None, Some("a.txt")).await, ["f/g:a.txt", "f:a.txt"]);
    assert!(names(Some("f"), Some("A.TXT")).await.is_empty());
}

async fn awkward_names_survive(store: &dyn Store) {
    let bytes = content(3, 40);
    let names = ["no-extension", ".hidden", "a b&c=d+e%20?#[x].txt", "Überraschung-日本.txt"];
    for name in names {
        let context = format!("awkward/{name} dir");
        let token = put(store, &context, name, &bytes).await;
        let record = listed(store, &token).await.unwrap();
        assert_eq!((record.context.as_str(), record.file_name.as_deref()), (&*context, Some(name)));
        let filter = ListFilter { file_name: Some(name.into()), ..ListFilter::default() };
        assert_eq!(list_all(store, &filter).await.unwrap().len(), 1, "{name}");
        assert_eq!(fetch(store, &token).await, bytes);
    }
}

async fn deleting_is_idempotent(store: &dyn Store) {
    let token = put(store, "gone", "x.txt", &content(4, 100)).await;
    store.delete(&token).await.unwrap();
    store.delete(&token).await.unwrap();
    assert_eq!(store.get(&token).await.unwrap_err().kind, StoreErrorKind::NotFound);
    assert_eq!(listed(store, &token).await, None);
}

async fn file_meta_can_change(store: &dyn Store, offers: Offers) {
    let bytes = content(5, 100);
    let token = put(store, "before", "old.txt", &bytes).await;
    let outcome = store.update_meta(&token, &meta("after/this", "new.md", 72)).await;
    if !offers.update_meta {
        assert_eq!(outcome.unwrap_err().kind, StoreErrorKind::Unsupported);
        return;
    }
    outcome.unwrap();
    let record = listed(store, &token).await.unwrap();
    assert_eq!(record.context, "after/this");
    assert_eq!(record.file_name.as_deref(), Some("new.md"));
    assert_eq!(record.extension.as_deref(), Some("md"));
    assert_eq!(fetch(store, &token).await, bytes, "the payload is untouched");
    store.delete(&token).await.unwrap();
    let error = store.update_meta(&token, &meta("x", "y", 0)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
}

async fn risk_meta_can_be_set(store: &dyn Store, offers: Offers) {
    let token = put(store, "risk", "plan.txt", &content(6, 100)).await;
    for classification in ["internal", "top-secret"] {
        let risk = RiskMeta {
            classification: classification.into(),
            label: "a label & more".into(),
            handling: "shred".into(),
        };
        store.set_risk(&token, &risk).await.unwrap();
        if offers.full_listing {
            assert_eq!(listed(store, &token).await.unwrap().risk, Some(risk));
        }
    }
}

async fn broken_payloads_fail_and_leave_no_file(store: &dyn Store) {
    let broken = || Err(io::Error::other("the disk went away"));
    let bytes = |len: u64| Ok(Bytes::from(vec![7; usize::try_from(len).unwrap()]));
    for len in [1_000_u64, 200_000] {
        for (what, pieces) in [
            ("breaks", vec![bytes(len / 2), broken()]),
            ("is short", vec![bytes(len / 2)]),
            ("is long", vec![bytes(len), bytes(1)]),
        ] {
            let pieces = Arc::new(Mutex::new(pieces));
            let open = move || stream::iter(std::mem::take(&mut *pieces.lock().unwrap())).boxed();
            let payload = Payload::Stream { len, open: Arc::new(open) };
            let meta = meta("broken", &format!("{what}.bin"), len);
            let error = store.put(&meta, &mark(1), payload).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Local, "{what}: {error}");
        }
    }
    let filter = ListFilter { context: Some("broken".into()), ..ListFilter::default() };
    let named = list_all(store, &filter).await.unwrap();
    assert!(named.iter().all(|record| record.file_name.is_none()), "{named:?}");
}

async fn many_at_once(store: Arc<dyn Store>) {
    let each = (0..64).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let bytes = content(i, 2_000 + 1_000 * i as usize);
            let token = put(&*store, "many", &format!("{i}.bin"), &bytes).await;
            assert!(fetch(&*store, &token).await == bytes);
            if i % 2 == 0 {
                store.delete(&token).await.unwrap();
            }
        })
    });
    for task in each.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let filter = ListFilter { context: Some("many".into()), ..ListFilter::default() };
    assert_eq!(list_all(&*store, &filter).await.unwrap().len(), 32);
}

async fn listings_have_pages(store: Arc<dyn Store>) {
    let bytes = content(9, 30);
    let puts = stream::iter(0..130).map(|i| {
        let (store, bytes) = (Arc::clone(&store), bytes.clone());
        async move { put(&*store, "pages", &format!("{i}"), &bytes).await }
    });
    let mut tokens: Vec<_> = puts.buffer_unordered(16).collect().await;
    let filter = ListFilter { context: Some("pages".into()), ..ListFilter::default() };
    let mut found: Vec<_> =
        list_all(&*store, &filter).await.unwrap().into_iter().map(|r| r.token).collect();
    tokens.sort();
    found.sort();
    assert_eq!(found, tokens);
    let first = store.list(&filter, 1).await.unwrap();
    assert!(first.more && first.records.len() < 130);
}
