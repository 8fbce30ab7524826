//! The service as one process reaches it: a [`Store`].
//!
//! It does what the client above the wire does for the drive: a put that ended in doubt is
//! looked for by its mark before it is made again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use privicorefs::store::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreErrorKind,
    StoreResult, Token,
};
use tokio::time::{Instant, sleep};

use super::super::company::Event;
use super::super::tasks::Process;
use super::Service;
use super::lies::take;

/// Where in a call the simulator may end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// About to be sent.
    Ask,
    /// Carried out; nobody has heard of it.
    Answer,
}

/// Asked at each [`Call`]; it may kill the process.
pub type Hook = Arc<dyn Fn(Call) + Send + Sync>;

/// Milliseconds that a call takes each way: at least, and up to so many more.
const DELAY: (u64, u64) = (2, 20);
/// A call that does not get through is noticed after so long.
const UNREACHED: Duration = Duration::from_secs(3);
/// Largest piece of a download.
const PIECE: usize = 16 << 10;

/// See the module's header.
pub struct Endpoint {
    service: Arc<Service>,
    process: Arc<Process>,
    hook: Hook,
    /// Marks of puts of this process that may have been carried out.
    doubtful: Mutex<BTreeSet<String>>,
    dated: Mutex<Option<Dated>>,
}

/// What the latest answer said of the service's clock.
struct Dated {
    /// In milliseconds since 1970, of whole seconds: as the `Date` of HTTP.
    ms: u64,
    at: Instant,
    /// The step by which it is wrong.
    step: Option<usize>,
}

impl Endpoint {
    /// The service as `process` reaches it.
    pub fn new(service: Arc<Service>, process: Arc<Process>, hook: Hook) -> Self {
        Self { service, process, hook, doubtful: Mutex::default(), dated: Mutex::default() }
    }

    /// Half of a call's time passes; a dead process never comes back from it.
    async fn way(&self, call: Call) -> StoreResult<()> {
        if call == Call::Answer {
            (self.hook)(call);
        }
        self.live().await;
        let (delay, unreached, said) = {
            let mut state = self.service.state.lock();
            let slow = state.behaviour.slow;
            slow.inspect(|(step, _)| state.met(*step));
            let now = self.service.now();
            let down = state.behaviour.down.filter(|(_, until)| *until > now).map(|(step, _)| step);
            let unreached = down.or(state.away.get(&self.process.machine).copied());
            down.inspect(|step| state.met(*step));
            let delay =
                DELAY.0 + state.draws.below(DELAY.1) + slow.map_or(0, |(_, ms)| u64::from(ms) / 2);
            let ms = self.service.shows(&state.behaviour) / 1_000 * 1_000;
            let step = state.behaviour.clock.filter(|(_, off)| *off != 0).map(|(step, _)| step);
            (delay, unreached, (ms, step))
        };
        sleep(Duration::from_millis(delay)).await;
        self.live().await;
        if call == Call::Ask {
            if unreached.is_some() {
                sleep(UNREACHED).await;
                return Err(error(
                    StoreErrorKind::Unavailable,
                    "call",
                    "the service is not reached",
                ));
            }
            (self.hook)(call);
            self.live().await;
        } else {
            let (ms, step) = said;
            *self.dated.lock() = Some(Dated { ms, at: Instant::now(), step });
        }
        Ok(())
    }

    async fn live(&self) {
        if !self.process.is_alive() {
            std::future::pending::<()>().await;
        }
    }

    fn put_now(&self, meta: &FileMeta, mark: &str, payload: Bytes) -> StoreResult<Token> {
        let mut guard = self.service.state.lock();
        let state = &mut *guard;
        if let Some(step) = take(&mut state.behaviour.fail_puts) {
            state.met(step);
            return Err(error(StoreErrorKind::Unavailable, "put", "it fails"));
        }
        if let Some((step, n, token)) = state.behaviour.answer.clone() {
            state.behaviour.answer = (n > 1).then(|| (step, n - 1, token.clone()));
            state.met(step);
            return Ok(Token::new(token));
        }
        if let Some((step, n, ms)) = state.behaviour.lands_late {
            state.behaviour.lands_late = (n > 1).then_some((step, n - 1, ms));
            state.met(step);
            drop(guard);
            self.land_late(meta.clone(), mark.to_owned(), payload, ms);
            return Err(error(StoreErrorKind::TimedOut, "put", "no answer").or_not());
        }
        let lost = take(&mut state.behaviour.lost_ack);
        lost.inspect(|step| state.met(*step));
        drop(guard);
        let token = self.service.insert(meta, Some(mark), payload);
        let mut state = self.service.state.lock();
        if let Some(what) = state.find(&token).map(|held| held.what) {
            state.used(self.process.machine, what, true);
        }
        drop(state);
        match lost {
            Some(_) => Err(error(StoreErrorKind::TimedOut, "put", "no answer").or_not()),
            None => Ok(token),
        }
    }

    /// It is on its way, whatever becomes of who sent it.
    fn land_late(&self, meta: FileMeta, mark: String, payload: Bytes, ms: u32) {
        let service = self.service.clone();
        drop(tokio::spawn(async move {
            sleep(Duration::from_millis(u64::from(ms))).await;
            service.insert(&meta, Some(&mark), payload);
        }));
    }

    /// The token that an earlier attempt of this put has left, where a listing shows it.
    fn left_by(&self, meta: &FileMeta, mark: &str) -> Option<Token> {
        let filter = ListFilter {
            context: Some(meta.context.clone()),
            file_name: Some(meta.file_name.clone()),
            ..ListFilter::default()
        };
        for page in 1.. {
            let listed = self.service.list(self.process.machine, &filter, page);
            let found = listed.records.into_iter().find(|r| r.mark.as_deref() == Some(mark));
            if found.is_some() || !listed.more {
                return found.map(|record| record.token);
            }
        }
        None
    }
}

fn error(kind: StoreErrorKind, operation: &'static str, message: &str) -> StoreError {
    StoreError::new(kind, operation, message)
}

async fn whole(payload: Payload) -> StoreResult<Bytes> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        Payload::Stream { open, .. } => {
            let gathered: Result<BytesMut, _> = open()
                .try_fold(BytesMut::new(), |mut all, piece| async move {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await;
            let unreadable =
                |e: std::io::Error| error(StoreErrorKind::Local, "put", &e.to_string());
            Ok(gathered.map_err(unreadable)?.freeze())
        }
    }
}

#[async_trait]
impl Store for Endpoint {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        let payload = whole(payload).await?;
        self.way(Call::Ask).await?;
        let doubted = self.doubtful.lock().contains(mark);
        if doubted && let Some(token) = self.left_by(meta, mark) {
            self.doubtful.lock().remove(mark);
            return Ok(token);
        }
        let done = self.put_now(meta, mark, payload);
        if done.as_ref().is_err_and(|e| e.in_doubt) {
            self.doubtful.lock().insert(mark.to_owned());
        }
        self.way(Call::Answer).await?;
        done
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        self.way(Call::Ask).await?;
        let payload = {
            let mut guard = self.service.state.lock();
            let state = &mut *guard;
            if let Some(step) = take(&mut state.behaviour.fail_gets) {
                state.met(step);
                return Err(error(StoreErrorKind::Unavailable, "get", "it fails").on(token));
            }
            let found = state.find(token).cloned();
            state.changed.get(token).copied().inspect(|step| state.met(*step));
            let given = found.as_ref().map(|held| state.is_given(self.process.machine, held));
            given.and_then(|(_, by)| by).inspect(|step| state.met(*step));
            let instead = state.behaviour.instead.get(token).cloned();
            match (found, given, instead) {
                (Some(_), Some((true, _)), Some((step, payload))) => {
                    state.met(step);
                    payload
                }
                (Some(held), Some((true, _)), None) => {
                    state.used(self.process.machine, held.what, false);
                    held.payload
                }
                _ => return Err(error(StoreErrorKind::NotFound, "get", "no such token").on(token)),
            }
        };
        self.way(Call::Answer).await?;
        let len = Some(payload.len() as u64);
        let pieces: Vec<_> = payload.chunks(PIECE).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        Ok(Download { len, stream: stream::iter(pieces).boxed() })
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        self.way(Call::Ask).await?;
        if let Some(what) = self.service.remove(token) {
            let (on, token) = (self.process.machine, token.to_string());
            let deleted = Event::Deleted { on, token, what, named: false };
            self.service.state.lock().events.push(deleted);
        }
        self.way(Call::Answer).await
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        self.way(Call::Ask).await?;
        {
            let mut state = self.service.state.lock();
            let at = state.by_token.get(token).copied().filter(|at| state.entries[*at].is_there());
            let missing =
                || error(StoreErrorKind::NotFound, "update-meta", "no such token").on(token);
            let record = &mut state.entries[at.ok_or_else(missing)?].record;
            record.context.clone_from(&meta.context);
            record.file_name = Some(meta.file_name.clone());
            record.extension = Some(meta.extension.clone());
            record.path = Some(meta.path.clone());
        }
        self.way(Call::Answer).await
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        self.way(Call::Ask).await?;
        {
            let mut state = self.service.state.lock();
            if let Some(at) = state.by_token.get(token).copied() {
                state.entries[at].record.risk = Some(risk.clone());
            }
        }
        self.way(Call::Answer).await
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        self.way(Call::Ask).await?;
        let listed = self.service.list(self.process.machine, filter, page);
        self.way(Call::Answer).await?;
        Ok(listed)
    }

    fn clock(&self) -> Option<u64> {
        let dated = self.dated.lock();
        let Dated { ms, at, step } = dated.as_ref()?;
        step.inspect(|step| self.service.state.lock().met(*step));
        Some(ms + u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
