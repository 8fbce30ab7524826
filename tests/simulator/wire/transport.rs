//! The transport that the client is given.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use privicorefs::privicore::ClientConfig;
use privicorefs::privicore::Secret;
use privicorefs::privicore::transport::{BodyIn, Call, Connection, Reply, StreamReply, Transport};
use privicorefs::store::{StoreError, StoreErrorKind, StoreResult};
use tokio::time::{Instant, sleep};
use url::Url;

use super::super::random::{Draws, seed_of};
use super::channel::{Hub, Joinable};
use super::fault::{At, Faults, Hit, Phase, When, WireFault};
use super::replies::{self, DOWNSTREAM, UPSTREAM, error, plain};
use super::shape::Shape;
use super::vault::{LOGIN, Served, Vault, Work};

/// The simulated service, and the way to it.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    limits: Limits,
}

pub(super) struct State {
    pub(super) vault: Vault,
    pub(super) hub: Hub,
    pub(super) faults: Faults,
    pub(super) draws: Draws,
    pub(super) waits: Waits,
}

/// What the client is configured to wait at most, for one thing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) reply: Duration,
    pub(super) connect: Duration,
    pub(super) idle: Duration,
}

/// What was waited for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Waits beyond their limit: what for, and how long.
    pub(super) long: Vec<(String, Duration)>,
    /// Time spent in calls and streams.
    pub(super) on_wire: Duration,
    /// Commands accepted.
    pub(super) commands: u32,
    /// Calls and streams begun.
    pub(super) calls: u32,
}

/// Timers are coarse: a wait may end a moment after its limit.
const COARSE: Duration = Duration::from_millis(5);

/// A wait of the client, which ends when its future does.
pub(super) struct Waiting {
    wire: Wire,
    what: String,
    limit: Duration,
    began: Instant,
    since: Instant,
}

impl Waiting {
    /// Something has moved.
    pub(super) fn moved(&mut self) {
        self.check();
        self.since = Instant::now();
    }

    fn check(&self) {
        let waited = self.since.elapsed();
        if waited > self.limit + COARSE {
            self.wire.state().waits.long.push((self.what.clone(), waited));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.check();
        self.wire.state().waits.on_wire += self.began.elapsed();
    }
}

impl Wire {
    /// A service in `shape`; `seed` fixes every delay and name.
    pub(crate) fn new(seed: u64, shape: Shape, config: &ClientConfig) -> Self {
        let state = State {
            vault: Vault::new(seed_of(&[seed, 1]), shape),
            hub: Hub::default(),
            faults: Faults::new(seed_of(&[seed, 2])),
            draws: Draws::new(seed_of(&[seed, 3])),
            waits: Waits::default(),
        };
        let limits = Limits {
            reply: config.reply_timeout,
            connect: config.connect_timeout,
            idle: config.idle_timeout,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), limits }))
    }

    /// The configuration of a client of it.
    pub(crate) fn config() -> ClientConfig {
        let url = |text: &str| Url::parse(text).unwrap();
        let (api, channel) = (url("https://api.sim:9009"), url("wss://api.sim:8083"));
        let mut config = ClientConfig::new(api, channel, LOGIN.0, LOGIN.1);
        config.upstream_url = Some(url(&format!("https://{UPSTREAM}")));
        config.downstream_url = Some(url(&format!("https://{DOWNSTREAM}")));
        config
    }

    /// Switches a fault on.
    pub(crate) fn fault(&self, at: At, fault: WireFault, when: When) {
        self.state().faults.switch_on(at, fault, when);
    }

    /// Switches all faults off.
    pub(crate) fn calm(&self) {
        self.state().faults.calm();
    }

    /// Breaks the channel.
    pub(crate) fn cut(&self) {
        self.state().hub.cut();
    }

    /// All faults that struck so far.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.state().faults.hits().to_vec()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(super) fn wait(&self, what: impl Into<String>, limit: Duration) -> Waiting {
        self.state().waits.calls += 1;
        let (began, since) = (Instant::now(), Instant::now());
        Waiting { wire: self.clone(), what: what.into(), limit, began, since }
    }

    pub(super) fn strike(&self, at: At, phase: Phase) -> Option<WireFault> {
        self.state().faults.strike(at, phase)
    }

    /// One way over the network.
    pub(super) async fn latency(&self) {
        let ms = 1 + self.state().draws.below(20);
        sleep(Duration::from_millis(ms)).await;
    }

    /// Does as the service does with an API call, up to its reply. The command that it made,
    /// if it made one, is carried out a moment later.
    fn serve(&self, at: At, call: &Call, token: Option<&str>) -> (Reply, bool) {
        let served = self.state().vault.serve(at, call, token);
        match served {
            Served::Now(reply) => (reply, false),
            Served::Command(reply, id, work) => {
                let early = self.begin(at, id, work);
                (reply, early)
            }
        }
    }

    /// Carries out a command a moment from now. Whether its acknowledgement is sent before.
    pub(super) fn begin(&self, at: At, id: String, work: Work) -> bool {
        let (fault, moment) = {
            let mut state = self.state();
            state.waits.commands += 1;
            (state.faults.strike(at, Phase::Ack), 2 + state.draws.below(60))
        };
        if fault == Some(WireFault::AckEarly) {
            self.carry_out(&id, work, |state, told| {
                told.iter().for_each(|text| state.hub.tell(text))
            });
            return true;
        }
        let wire = self.clone();
        tokio::spawn(async move {
            let slow = match fault {
                Some(WireFault::Slow { secs }) => Duration::from_secs(secs.into()),
                _ => Duration::ZERO,
            };
            sleep(Duration::from_millis(moment) + slow).await;
            wire.acknowledge(&id, work, fault).await;
        });
        false
    }

    fn carry_out(&self, id: &str, work: Work, tell: impl FnOnce(&mut State, &[String])) {
        let mut state = self.state();
        let told = state.vault.carry_out(id, work);
        tell(&mut state, &told);
    }

    async fn acknowledge(&self, id: &str, work: Work, fault: Option<WireFault>) {
        let mut late = Vec::new();
        self.carry_out(id, work, |state, told| {
            let times = match fault {
                Some(WireFault::AckLost) => 0,
                Some(WireFault::AckTwice) => 2,
                Some(WireFault::AckLate { .. }) => {
                    late = told.to_vec();
                    0
                }
                Some(WireFault::AckForAnother) => {
                    let other = state.vault.another(id);
                    let shape = state.vault.shape;
                    let standing = replies::Standing::Done;
                    for text in replies::acknowledgement(&shape, &other, &standing) {
                        state.hub.tell(&text);
                    }
                    0
                }
                Some(WireFault::SocketCut) => {
                    state.hub.cut();
                    0
                }
                Some(WireFault::SocketMute) => {
                    state.hub.mute();
                    0
                }
                _ => 1,
            };
            for _ in 0..times {
                told.iter().for_each(|text| state.hub.tell(text));
            }
        });
        if let Some(WireFault::AckLate { secs }) = fault {
            sleep(Duration::from_secs(secs.into())).await;
            let state = self.state();
            late.iter().for_each(|text| state.hub.tell(text));
        }
    }
}

/// What the client is told of a connection that broke.
pub(super) fn reset(operation: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, operation, "connection reset by peer")
}

/// A call of which nothing more is heard.
pub(super) async fn lost<T>(operation: &'static str, silent: bool) -> StoreResult<T> {
    match silent {
        true => std::future::pending().await,
        false => Err(reset(operation)),
    }
}

/// A fault that strikes a call, as far as API calls and streams have it in common: what is
/// heard of it, and whether the call arrives.
pub(super) enum Struck {
    /// The call arrives, and this is heard instead of its reply.
    Carried(Heard),
    /// It never arrives.
    Not(Heard),
    /// It arrives later.
    Later(Duration),
}

/// What is heard in place of a reply.
pub(super) enum Heard {
    /// Nothing, for ever or until the connection breaks.
    Lost {
        silent: bool,
    },
    Reply(super::fault::Wrong),
    Status(u16),
}

impl WireFault {
    /// What this fault makes of a call.
    pub(super) fn struck(self) -> Struck {
        let carried = |carried_out: bool, heard| match carried_out {
            true => Struck::Carried(heard),
            false => Struck::Not(heard),
        };
        match self {
            Self::CallLost { silent } => Struck::Not(Heard::Lost { silent }),
            Self::ReplyLost { silent } => Struck::Carried(Heard::Lost { silent }),
            Self::LandsLate { secs } => Struck::Later(Duration::from_secs(secs.into())),
            Self::Status { status, carried_out } => carried(carried_out, Heard::Status(status)),
            Self::Reply { wrong, carried_out } => carried(carried_out, Heard::Reply(wrong)),
            Self::Unauthorized => Struck::Not(Heard::Status(401)),
            _ => Struck::Not(Heard::Lost { silent: false }),
        }
    }
}

impl Heard {
    /// The reply that the client gets, if it gets one.
    pub(super) async fn reply(
        self,
        operation: &'static str,
        honest: Option<&Reply>,
    ) -> StoreResult<Reply> {
        match self {
            Self::Lost { silent } => lost(operation, silent).await,
            Self::Reply(wrong) => Ok(replies::wrong(wrong, honest)),
            Self::Status(401) => Ok(error(401, "profile.invalid_token")),
            Self::Status(status) => {
                Ok(plain(status, format!("<html><h1>{status}</h1><p>proxy</p></html>")))
            }
        }
    }
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, call: &Call, token: Option<&Secret>) -> StoreResult<Reply> {
        let token = token.map(|token| token.expose().to_owned());
        let Some(at) = At::of(call) else { return Ok(error(404, "route.not_found")) };
        let _waiting = self.wait(format!("{at:?}"), self.limits().reply);
        self.latency().await;
        let Some(fault) = self.strike(at, Phase::Call) else {
            let (reply, early) = self.serve(at, call, token.as_deref());
            if early {
                // The acknowledgement is on its way before the reply that names it.
                self.latency().await;
            }
            self.latency().await;
            return Ok(reply);
        };
        if fault == WireFault::Unauthorized {
            self.state().vault.end_sessions();
        }
        match fault.struck() {
            Struck::Carried(heard) => {
                let (reply, _) = self.serve(at, call, token.as_deref());
                heard.reply(call.operation, Some(&reply)).await
            }
            Struck::Not(heard) => heard.reply(call.operation, None).await,
            Struck::Later(after) => {
                let (wire, late) = (self.clone(), call.clone());
                tokio::spawn(async move {
                    sleep(after).await;
                    wire.serve(at, &late, token.as_deref());
                });
                lost(call.operation, false).await
            }
        }
    }

    async fn upload(
        &self,
        operation: &'static str,
        url: &Url,
        len: u64,
        body: BodyIn,
    ) -> StoreResult<StreamReply> {
        self.take_in(operation, url, len, body).await
    }

    async fn download(&self, operation: &'static str, url: &Url) -> StoreResult<StreamReply> {
        self.give(operation, url).await
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, String> {
        let _waiting = self.wait("Connect", self.limits().connect);
        self.latency().await;
        if url.scheme() == "ws" {
            return self.messages(url);
        }
        match self.strike(At::Connect, Phase::Call) {
            Some(WireFault::CallLost { silent: true }) => std::future::pending().await,
            Some(_) => Err("connection refused".into()),
            None => {
                let (id, inbox) = self.state().hub.open();
                Ok(Box::new(Joinable { wire: self.clone(), id, inbox }))
            }
        }
    }
}
