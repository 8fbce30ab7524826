//! A course: what a client is asked, and what strikes, in order.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig};
use privicorefs::store::{
    FileMeta, ListFilter, Payload, RiskMeta, Store, StoreError, StoreErrorKind, StoreResult, Token,
    TokenRecord, collect,
};
use tokio::time::{Instant, sleep, timeout};

use super::super::doubles::seeded_env;
use super::super::random::{Draws, seed_of};
use super::super::tasks::{Process, SimClock, SimTasks};
use super::fault::{At, When, WireFault, Wrong};
use super::judge::{Finding, Judge};
use super::shape::Shape;
use super::transport::Wire;

/// All that happens in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    /// Fixes delays, names and the order of tasks.
    pub(crate) seed: u64,
    /// What the service looks like.
    pub(crate) shape: Shape,
    /// In order.
    pub(crate) steps: Vec<Step>,
}

/// One thing that happens. A token is named by its place among those acknowledged so far
/// (modulo how many there are); without one, nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stores a content of its own; after a failure that may pass, again with the same mark.
    Put {
        size: u32,
        tries: u8,
    },
    Get {
        of: u16,
    },
    Delete {
        of: u16,
    },
    /// Gives a token another file name.
    Meta {
        of: u16,
    },
    Risk {
        of: u16,
    },
    /// Lists all tokens, page by page.
    List,
    /// All of these at once.
    Together(Vec<Step>),
    /// From here on something strikes.
    Fault {
        at: At,
        fault: WireFault,
        when: When,
    },
    /// Nothing strikes any more.
    Calm,
    /// The channel breaks.
    Cut,
    Wait {
        secs: u32,
    },
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was broken.
    pub(crate) findings: Vec<Finding>,
    /// What struck, and how often.
    pub(crate) met: BTreeMap<String, u32>,
    /// Calls of the store that succeeded.
    pub(crate) succeeded: u32,
    /// Equal for equal runs.
    pub(crate) digest: u64,
}

/// Smallest payload there is: an IV and a tag around nothing.
const SMALLEST: u32 = 28;

/// Number of the first step after the last.
const LAST: usize = 1_000_002;

/// How long after the last step everything that was late has landed: longer than a
/// reservation lives.
const REST: Duration = Duration::from_secs(2 * 3_600);

/// Carries out a course, from an empty vault.
pub(crate) fn run(course: &Course) -> Report {
    run_over(course, |config| config, |client| client)
}

/// The same with another configuration than the judge knows, or something between the client
/// and those who ask it: to try the judge itself.
pub(crate) fn run_over(
    course: &Course,
    configured: impl FnOnce(ClientConfig) -> ClientConfig,
    over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread();
    // Without its I/O driver: whoever opened a socket would fail.
    let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let runner = Runner::new(course, configured, over);
        for (number, step) in course.steps.iter().enumerate() {
            runner.step(number, step, true).await;
        }
        runner.finish().await
    })
}

struct Runner {
    wire: Wire,
    /// Itself, to be closed.
    inner: Arc<Client>,
    client: Arc<dyn Store>,
    judge: Mutex<Judge>,
    seed: u64,
    lacks_update: bool,
    process: Arc<Process>,
}

impl Runner {
    fn new(
        course: &Course,
        configured: impl FnOnce(ClientConfig) -> ClientConfig,
        over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let config = Wire::config();
        let wire = Wire::new(course.seed, course.shape, &config);
        let process = Process::new(0, seed_of(&[course.seed, 4]));
        let env = Env {
            clock: SimClock::new(Instant::now()),
            tasks: Arc::new(SimTasks(process.clone())),
            ..seeded_env(seed_of(&[course.seed, 5]))
        };
        let limits = (config.ack_timeout, config.connect_timeout);
        let judge = Judge::new(wire.clone(), course.is_quiet(), limits);
        let inner = Client::over_transport(configured(config), Arc::new(wire.clone()), env);
        let client = over(inner.clone());
        let (seed, lacks_update) = (course.seed, course.shape.lacks_update);
        Self { wire, inner, client, judge: Mutex::new(judge), seed, lacks_update, process }
    }

    fn step<'a>(
        &'a self,
        number: usize,
        step: &'a Step,
        alone: bool,
    ) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            match step {
                Step::Put { size, tries } => {
                    // The judge has heard of it.
                    let _ = self.put(number, *size, *tries, alone).await;
                }
                Step::Get { of } => self.get(number, *of, alone).await,
                Step::Delete { of } => self.delete(number, *of, alone).await,
                Step::Meta { of } => self.meta(number, *of, alone).await,
                Step::Risk { of } => self.risk(number, *of, alone).await,
                Step::List => self.list(number, alone).await,
                Step::Together(steps) => {
                    let numbers = steps.iter().enumerate();
                    let all =
                        numbers.map(|(n, one)| self.step(number * 100 + n + 10_000, one, false));
                    join_all(all).await;
                }
                Step::Fault { at, fault, when } => self.wire.fault(*at, *fault, *when),
                Step::Calm => self.wire.calm(),
                Step::Cut => self.wire.cut(),
                Step::Wait { secs } => sleep(Duration::from_secs((*secs).into())).await,
            }
        })
    }

    async fn put(&self, number: usize, size: u32, tries: u8, alone: bool) -> StoreResult<Token> {
        let bytes = content(self.seed, number, size.max(SMALLEST));
        let mark = format!("00000000-0000-4000-8000-{number:012x}");
        let meta = FileMeta {
            file_name: format!("file-{number}"),
            extension: if number.is_multiple_of(3) { String::new() } else { "bin".into() },
            context: format!("folder-{}", number % 4),
            path: "/".into(),
            size: u64::from(size.max(SMALLEST) - SMALLEST),
        };
        let mut tried = 1;
        loop {
            let began = self.judge.lock().begin(alone);
            let payload = payload(&bytes, number.is_multiple_of(2));
            let result = self.client.put(&meta, &mark, payload).await;
            self.judge.lock().put(number, &mark, &bytes, &began, &result);
            let Err(error) = &result else { return result };
            if tried >= tries || !self.passed(error).await {
                return result;
            }
            tried += 1;
        }
    }

    /// Waits until an operation that failed so may be tried again, if it may.
    async fn passed(&self, error: &StoreError) -> bool {
        match &error.hold {
            // What the service does not carry out it may hold for a vote.
            Some(hold) => timeout(Duration::from_secs(900), hold.settled()).await.is_ok(),
            None => {
                sleep(Duration::from_secs(1)).await;
                error.is_retryable()
            }
        }
    }

    fn choose(&self, of: u16) -> Option<(Token, usize)> {
        let live = self.judge.lock().live();
        let (token, put) = live.get(usize::from(of) % live.len().max(1))?;
        Some((Token::new(token), *put))
    }

    async fn get(&self, number: usize, of: u16, alone: bool) {
        let Some((token, put)) = self.choose(of) else { return };
        let began = self.judge.lock().begin(alone);
        let result = self.fetch(&token).await;
        self.judge.lock().got(number, put, &began, &result);
    }

    async fn fetch(&self, token: &Token) -> StoreResult<Vec<u8>> {
        collect(self.client.get(token).await?, 1 << 30).await
    }

    async fn delete(&self, number: usize, of: u16, alone: bool) {
        let Some((token, _)) = self.choose(of) else { return };
        self.judge.lock().deleting(number, token.as_str());
        let began = self.judge.lock().begin(alone);
        let result = self.client.delete(&token).await;
        self.judge.lock().deletion(number, token.as_str(), &began, &result);
    }

    async fn meta(&self, number: usize, of: u16, alone: bool) {
        let Some((token, _)) = self.choose(of) else { return };
        let name = format!("renamed-{number}");
        let meta = FileMeta { file_name: name.clone(), ..FileMeta::default() };
        let began = self.judge.lock().begin(alone);
        let result = self.client.update_meta(&token, &meta).await;
        let mut judge = self.judge.lock();
        let refused = matches!(&result, Err(error) if error.kind == StoreErrorKind::Unsupported);
        match refused && self.lacks_update {
            true => drop(judge.ended(number, "update-meta", &began, None)),
            false => judge.changed(number, "update-meta", (&token, name), &began, &result),
        }
    }

    async fn risk(&self, number: usize, of: u16, alone: bool) {
        let Some((token, _)) = self.choose(of) else { return };
        let label = format!("label-{number}");
        let (classification, handling) = ("internal".into(), "none".into());
        let risk = RiskMeta { classification, label: label.clone(), handling };
        let began = self.judge.lock().begin(alone);
        let result = self.client.set_risk(&token, &risk).await;
        self.judge.lock().changed(number, "set-risk", (&token, label), &began, &result);
    }

    async fn list(&self, number: usize, alone: bool) {
        let began = self.judge.lock().begin(alone);
        let result = self.pages().await;
        self.judge.lock().listed(number, &began, &result);
    }

    /// All records of all pages that bring something new.
    async fn pages(&self) -> StoreResult<Vec<TokenRecord>> {
        let mut all: Vec<TokenRecord> = Vec::new();
        for page in 1.. {
            let got = self.client.list(&ListFilter::default(), page).await?;
            let new = |record: &TokenRecord| all.iter().all(|known| known.token != record.token);
            if !got.records.iter().any(new) {
                break;
            }
            all.extend(got.records);
            if !got.more {
                break;
            }
        }
        Ok(all)
    }

    async fn finish(self) -> Report {
        self.wire.calm();
        sleep(REST).await;
        let live = self.judge.lock().live();
        for (token, put) in live {
            // Whether the vault has it is judged below; this is whether it can be got.
            let began = self.judge.lock().begin(true);
            if self.wire.state().vault.payload(token.as_str()).is_some() {
                let result = self.fetch(&Token::new(&token)).await;
                let mut judge = self.judge.lock();
                judge.got(put, put, &began, &result);
                if let Err(error) = result {
                    judge.cannot_be_got(put, &token, &error);
                }
            }
        }
        self.once_more().await;
        self.inner.close().await;
        self.process.kill();
        let mut judge = self.judge.into_inner();
        judge.at_the_end();
        let mut met = BTreeMap::new();
        for hit in self.wire.hits() {
            *met.entry(hit.name()).or_default() += 1;
        }
        let Judge { findings, digest, succeeded, .. } = judge;
        Report { findings, met, succeeded, digest }
    }
}

impl Runner {
    /// Every call once more, now that nothing strikes.
    async fn once_more(&self) {
        for (n, size) in [500, 500, 50_000].into_iter().enumerate() {
            let number = LAST + n;
            let stored = self.put(number, size, 1, true).await;
            self.judge.lock().recovered(number, "put", stored.as_ref().err());
            let Ok(token) = stored else { continue };
            let got = self.fetch(&token).await;
            self.judge.lock().recovered(number, "get", got.err().as_ref());
            let deleted = self.client.delete(&token).await;
            self.judge.lock().deleting(number, token.as_str());
            self.judge.lock().recovered(number, "delete", deleted.err().as_ref());
        }
        let listed = self.pages().await;
        self.judge.lock().recovered(LAST, "list", listed.err().as_ref());
    }
}

/// Bytes that no other step of a run makes.
fn content(seed: u64, number: usize, size: u32) -> Bytes {
    let mut draws = Draws::new(seed_of(&[seed, number as u64, 6]));
    let words = (0..size.div_ceil(8)).flat_map(|_| draws.next().to_le_bytes());
    words.take(size as usize).collect::<Vec<_>>().into()
}

fn payload(bytes: &Bytes, streamed: bool) -> Payload {
    if !streamed {
        return Payload::Bytes(bytes.clone());
    }
    let whole = bytes.clone();
    let open = Arc::new(move || {
        let pieces: Vec<_> = whole.chunks(10_000).map(Bytes::copy_from_slice).map(Ok).collect();
        stream::iter(pieces).boxed()
    });
    Payload::Stream { len: bytes.len() as u64, open }
}

impl Course {
    /// Whether nothing strikes.
    pub(crate) fn is_quiet(&self) -> bool {
        fn strikes(step: &Step) -> bool {
            match step {
                Step::Fault { .. } | Step::Cut => true,
                Step::Together(steps) => steps.iter().any(strikes),
                _ => false,
            }
        }
        !self.steps.iter().any(strikes)
    }

    /// A course that follows from `seed`, in which something strikes.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut draws = Draws::new(seed_of(&[seed, 7]));
        let mut kinds: Vec<_> = (0..1 + draws.below(4)).map(|_| draw_fault(&mut draws)).collect();
        // Whether a status is asked for at all depends on what became of its acknowledgement.
        if kinds.iter().any(|(_, fault)| fault.delays_acks()) && draws.below(2) == 0 {
            let wrong = Wrong::ALL[draws.below(8) as usize];
            kinds.push((At::Poll, WireFault::Reply { wrong, carried_out: true }));
        }
        Self::of(seed, &mut draws, kinds)
    }

    /// A course that follows from `seed`, in which nothing strikes.
    pub(crate) fn draw_quiet(seed: u64) -> Self {
        Self::of(seed, &mut Draws::new(seed_of(&[seed, 8])), Vec::new())
    }

    fn of(seed: u64, draws: &mut Draws, kinds: Vec<(At, WireFault)>) -> Self {
        let shape = Shape::draw(draws);
        let mut steps = Vec::new();
        for _ in 0..12 + draws.below(28) {
            if !kinds.is_empty() && draws.below(3) == 0 {
                let (at, fault) = kinds[draws.below(kinds.len() as u64) as usize];
                let when = match draws.below(3) {
                    0 => When::PerMille(50 + 50 * draws.below(8) as u16),
                    _ => When::Next(1 + draws.below(3) as u32),
                };
                steps.push(Step::Fault { at, fault, when });
            }
            steps.push(match draws.below(24) {
                0 if !kinds.is_empty() => Step::Cut,
                1..=2 => Step::Calm,
                3 => Step::Wait { secs: [1, 30, 400][draws.below(3) as usize] },
                4..=5 => {
                    let many = 2 + draws.below(4);
                    Step::Together((0..many).map(|_| draw_operation(draws)).collect())
                }
                _ => draw_operation(draws),
            });
        }
        Self { seed, shape, steps }
    }
}

fn draw_operation(draws: &mut Draws) -> Step {
    let of = draws.below(64) as u16;
    match draws.below(12) {
        0..=4 => {
            let size = match draws.below(4) {
                0 => 40_000 + draws.below(200_000) as u32,
                1 => 35_999 + draws.below(3) as u32,
                _ => SMALLEST + draws.below(3_000) as u32,
            };
            Step::Put { size, tries: 1 + draws.below(3) as u8 }
        }
        5..=7 => Step::Get { of },
        8 => Step::Delete { of },
        9 => Step::Meta { of },
        10 => Step::Risk { of },
        _ => Step::List,
    }
}

fn draw_fault(draws: &mut Draws) -> (At, WireFault) {
    use At as A;
    let places = [
        A::Login,
        A::Renew,
        A::Reserve,
        A::Temporary,
        A::Exchange,
        A::Upload,
        A::Configure,
        A::Configure,
        A::Poll,
        A::List,
        A::Request,
        A::Download,
        A::Delete,
        A::Meta,
        A::Risk,
        A::Storage,
        A::Connect,
        A::Any,
    ];
    loop {
        let at = places[draws.below(places.len() as u64) as usize];
        let silent = draws.below(2) == 0;
        let carried_out = draws.below(2) == 0;
        let secs = [1, 12, 45, 200][draws.below(4) as usize];
        let fault = match draws.below(18) {
            0 => WireFault::Refused,
            1 => WireFault::CallLost { silent },
            2 => WireFault::ReplyLost { silent },
            3 => WireFault::LandsLate { secs },
            4 => {
                let status = [500, 502, 503, 504, 429][draws.below(5) as usize];
                WireFault::Status { status, carried_out }
            }
            5 => WireFault::Unauthorized,
            6 | 7 => {
                let wrong = Wrong::ALL[draws.below(8) as usize];
                WireFault::Reply { wrong, carried_out }
            }
            8 => WireFault::Slow { secs },
            9 => WireFault::AckLost,
            10 => WireFault::AckLate { secs },
            11 => WireFault::AckEarly,
            12 => WireFault::AckTwice,
            13 => WireFault::AckForAnother,
            14 => WireFault::SocketCut,
            15 => WireFault::SocketMute,
            16 => WireFault::StalledUpload,
            _ if silent => WireFault::ShortDownload,
            _ => WireFault::StalledDownload,
        };
        // A page in place of a payload, or an empty listing in place of a full one, is a lie
        // that no client can tell from the truth: named tests show what comes of them.
        let lie = matches!(
            (at, fault),
            (A::Any | A::Download, WireFault::Reply { .. })
                | (A::List, WireFault::Reply { wrong: Wrong::Array, .. })
        );
        if fault.fits(at) && !lie {
            return (at, fault);
        }
    }
}
