//! A store in memory that does as it is told: for tests of everything above the store. The
//! unit tests inside `src/store` and `src/catalog` include this file too.
//!
//! Faults are set per operation: fail before anything happens, fail after it happened
//! (a lost acknowledgement), take time, stand still until released.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use privicorefs::store::{
    Download, FileMeta, ListFilter, ListPage, OpenStream, Payload, RiskMeta, Store, StoreError,
    StoreErrorKind, StoreResult, Token, TokenRecord,
};
use tokio::sync::watch;
use tokio::time::sleep;

/// Largest piece of a download: several per payload of ordinary size, so that readers
/// have to put pieces together.
const PIECE: usize = 64 << 10;

/// A call of [`Store`], as faults and counts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// `put`.
    Put,
    /// `get`.
    Get,
    /// `delete`.
    Delete,
    /// `update_meta`.
    UpdateMeta,
    /// `set_risk`.
    SetRisk,
    /// `list`.
    List,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::UpdateMeta => "update-meta",
            Self::SetRisk => "set-risk",
            Self::List => "list",
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    state: Mutex<State>,
    held: watch::Sender<Vec<Op>>,
    page_size: usize,
}

#[derive(Debug, Default)]
struct State {
    /// By age.
    entries: BTreeMap<u64, Entry>,
    by_token: HashMap<Token, u64>,
    next: u64,
    clock: Option<u64>,
    ops: HashMap<Op, OpState>,
}

#[derive(Debug)]
struct Entry {
    record: TokenRecord,
    payload: Bytes,
}

#[derive(Debug, Default, Clone)]
struct OpState {
    calls: u64,
    now: usize,
    most: usize,
    delay: Duration,
    before: Option<(u32, StoreErrorKind)>,
    after: Option<(u32, StoreErrorKind)>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub(crate) fn new() -> Self {
        Self::with_page_size(100)
    }

    /// An empty store whose listings have pages of `size` records.
    pub(crate) fn with_page_size(size: usize) -> Self {
        let page_size = size.max(1);
        Self { state: Mutex::default(), held: watch::Sender::new(Vec::new()), page_size }
    }

    /// The next `n` calls of `op` fail, without any effect.
    pub(crate) fn fail_next(&self, op: Op, n: u32, kind: StoreErrorKind) {
        self.state.lock().ops.entry(op).or_default().before = Some((n, kind));
    }

    /// The next `n` calls of `op` have their effect, and fail: a lost reply.
    pub(crate) fn fail_next_after_effect(&self, op: Op, n: u32, kind: StoreErrorKind) {
        self.state.lock().ops.entry(op).or_default().after = Some((n, kind));
    }

    /// Every call of `op` takes this much longer from now on.
    pub(crate) fn delay(&self, op: Op, by: Duration) {
        self.state.lock().ops.entry(op).or_default().delay = by;
    }

    /// Calls of `op` stand still, before their effect, until [`MemoryStore::release`].
    pub(crate) fn hold(&self, op: Op) {
        self.held.send_modify(|held| held.push(op));
    }

    /// Lets calls of `op` go on.
    pub(crate) fn release(&self, op: Op) {
        self.held.send_modify(|held| held.retain(|other| *other != op));
    }

    /// The service's clock shows `ms` from now on, and stands still.
    pub(crate) fn set_clock(&self, ms: u64) {
        self.state.lock().clock = Some(ms);
    }

    /// How often `op` was called.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.state.lock().ops.get(&op).map_or(0, |op| op.calls)
    }

    /// How many calls of `op` were under way at once, at most.
    pub(crate) fn most_at_once(&self, op: Op) -> usize {
        self.state.lock().ops.get(&op).map_or(0, |op| op.most)
    }

    /// What is stored, oldest first.
    pub(crate) fn records(&self) -> Vec<TokenRecord> {
        self.state.lock().entries.values().map(|entry| entry.record.clone()).collect()
    }

    /// The payload of `token`, if it is there.
    pub(crate) fn payload(&self, token: &Token) -> Option<Bytes> {
        let state = self.state.lock();
        state.entries.get(state.by_token.get(token)?).map(|entry| entry.payload.clone())
    }

    /// Replaces the payload of `token`, as a broken or hostile service could; says
    /// whether there is one.
    pub(crate) fn tamper(&self, token: &Token, payload: Bytes) -> bool {
        self.state.lock().entry(token).map(|entry| entry.payload = payload).is_some()
    }

    /// Counts a call, waits where it was told to, and fails where it was told to.
    async fn enter(&self, op: Op) -> StoreResult<Running<'_>> {
        let (delay, failure) = {
            let mut state = self.state.lock();
            let op = state.ops.entry(op).or_default();
            op.calls += 1;
            op.now += 1;
            op.most = op.most.max(op.now);
            (op.delay, take(&mut op.before))
        };
        let running = Running { store: self, op };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let mut held = self.held.subscribe();
        // The sender lives as long as `self`: this ends by a release only.
        let _ = held.wait_for(|held| !held.contains(&op)).await;
        match failure {
            Some(kind) => Err(told(op, kind)),
            None => Ok(running),
        }
    }
}

fn take(fault: &mut Option<(u32, StoreErrorKind)>) -> Option<StoreErrorKind> {
    let (left, kind) = fault.as_mut()?;
    *left = left.checked_sub(1)?;
    Some(*kind)
}

fn told(op: Op, kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, op.name(), "a fault that was asked for")
}

fn missing(op: Op, token: &Token) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, op.name(), "no such token").on(token)
}

/// A call under way.
struct Running<'a> {
    store: &'a MemoryStore,
    op: Op,
}

impl Running<'_> {
    /// The call had its effect: its outcome, unless it was told to fail.
    fn finish<T>(self, value: T) -> StoreResult<T> {
        let failure =
            self.store.state.lock().ops.get_mut(&self.op).and_then(|op| take(&mut op.after));
        failure.map_or(Ok(value), |kind| Err(told(self.op, kind).or_not()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(op) = self.store.state.lock().ops.get_mut(&self.op) {
            op.now -= 1;
        }
    }
}

impl State {
    fn entry(&mut self, token: &Token) -> Option<&mut Entry> {
        let age = self.by_token.get(token)?;
        self.entries.get_mut(age)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        let running = self.enter(Op::Put).await?;
        let payload = read(payload).await?;
        let token = {
            let mut state = self.state.lock();
            let age = state.next;
            state.next += 1;
            let token = Token::new(format!("memory-{age}"));
            let record = TokenRecord {
                token: token.clone(),
                context: meta.context.clone(),
                file_name: Some(meta.file_name.clone()),
                extension: Some(meta.extension.clone()),
                path: Some(meta.path.clone()),
                size: Some(meta.size),
                created: Some(created(age)),
                mark: (!mark.is_empty()).then(|| mark.to_owned()),
                data_type: None,
                risk: None,
            };
            state.entries.insert(age, Entry { record, payload });
            state.by_token.insert(token.clone(), age);
            token
        };
        running.finish(token)
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        let running = self.enter(Op::Get).await?;
        let payload = self.payload(token).ok_or_else(|| missing(Op::Get, token))?;
        let len = Some(payload.len() as u64);
        let mut rest = payload;
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        running.finish(Download { len, stream: stream::iter(pieces).boxed() })
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        let running = self.enter(Op::Delete).await?;
        {
            let mut state = self.state.lock();
            if let Some(age) = state.by_token.remove(token) {
                state.entries.remove(&age);
            }
        }
        running.finish(())
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        let running = self.enter(Op::UpdateMeta).await?;
        {
            let mut state = self.state.lock();
            let entry = state.entry(token).ok_or_else(|| missing(Op::UpdateMeta, token))?;
            entry.record.context = meta.context.clone();
            entry.record.file_name = Some(meta.file_name.clone());
            entry.record.extension = Some(meta.extension.clone());
        }
        running.finish(())
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        let running = self.enter(Op::SetRisk).await?;
        {
            let mut state = self.state.lock();
            let entry = state.entry(token).ok_or_else(|| missing(Op::SetRisk, token))?;
            entry.record.risk = Some(risk.clone());
        }
        running.finish(())
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        let running = self.enter(Op::List).await?;
        let skip = (page.max(1) as usize - 1).saturating_mul(self.page_size);
        let listed = {
            let state = self.state.lock();
            let all = state.entries.values().map(|entry| &entry.record);
            let mut matching = all.filter(|record| filter.matches(record)).skip(skip);
            let records = matching.by_ref().take(self.page_size).cloned().collect();
            ListPage { records, more: matching.next().is_some() }
        };
        running.finish(listed)
    }

    fn clock(&self) -> Option<u64> {
        self.state.lock().clock
    }
}

/// One second apart, from a fixed day, whatever the clock was set to.
fn created(age: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + age)
}

async fn read(payload: Payload) -> StoreResult<Bytes> {
    let unreadable = |why: String| StoreError::new(StoreErrorKind::Local, "put", why);
    let (len, open): (u64, OpenStream) = match payload {
        Payload::Bytes(bytes) => return Ok(bytes),
        Payload::Stream { len, open } => (len, Arc::clone(&open)),
    };
    let mut whole = BytesMut::new();
    let mut stream = open();
    while let Some(chunk) = stream.try_next().await.map_err(|e| unreadable(e.to_string()))? {
        whole.extend_from_slice(&chunk);
    }
    if whole.len() as u64 != len {
        return Err(unreadable(format!("{} bytes instead of {len}", whole.len())));
    }
    Ok(whole.freeze())
}
