//! A seeded plan of failures, so a client can be tested against each on purpose.
//!
//! A rule names an operation, a failure and how often. Operations are path templates
//! (`/data-token/reserve-token-space`, `/request-status/{id}`), `*` for every call, or
//! one of the pseudo operations:
//!  * `ack`: the acknowledgement of any command, or the answer to any data request;
//!  * `ws`: any message pushed to a socket, and the upgrade itself;
//!  * `upstream`, `downstream`: the two stream servers.
//!
//! A command whose ack is lost, late or cut off has been carried out all the same; one
//! that is rejected has not.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::env::SplitMix64;

/// What to break, in the order the rules are tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Seed of the generator behind [`When::Probability`].
    pub seed: u64,
    /// The first rule that fires for an event decides it.
    pub rules: Vec<Rule>,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The operation it strikes.
    pub op: String,
    /// What happens.
    pub kind: Fault,
    /// How often.
    #[serde(default)]
    pub when: When,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum Fault {
    /// The command is carried out, its ack never sent.
    LoseAck,
    /// The ack is sent before the HTTP reply that names the command.
    EarlyAck,
    /// The ack is sent this much later.
    LateAck {
        /// Milliseconds.
        ms: u64,
    },
    /// The ack is sent twice.
    DuplicateAck,
    /// A `command_status` 1 precedes the ack (D.16).
    PendingAck,
    /// The command is not carried out and its ack says so.
    RejectAck {
        /// The ack's `body`.
        reason: String,
    },
    /// The call is answered with this status and not carried out.
    Status {
        /// An HTTP status code.
        code: u16,
        /// Seconds for a `Retry-After` header.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// The call is answered 401 and not carried out.
    Unauthorized401,
    /// The connection closes without an answer.
    DropConnection {
        /// Whether the call is carried out first.
        #[serde(default)]
        after: bool,
    },
    /// Every socket of the profile closes in place of the message.
    CutSocket,
    /// The connection closes after this many bytes of the payload.
    ShortStream {
        /// Payload bytes let through.
        bytes: u64,
    },
    /// Nothing moves for this long: before a call, or in the middle of a stream.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
}

/// How often a rule fires, counted over the events it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Every time.
    #[default]
    Always,
    /// The first `n` times.
    First(u64),
    /// Every `n`th time: the nth, the 2nth and so on.
    Every(u64),
    /// Each time with this probability, 0 to 1.
    Probability(f64),
}

/// At which moment of an event a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// When an HTTP request arrives.
    Request,
    /// When a command's ack or a data request's answer is due.
    Ack,
    /// When a message goes out on a socket.
    Push,
    /// While payload bytes move.
    Stream,
}

impl Fault {
    fn strikes(&self, moment: Moment, op: &str) -> bool {
        let stream_op = op == UPSTREAM || op == DOWNSTREAM;
        match self {
            Self::LoseAck | Self::DuplicateAck => matches!(moment, Moment::Ack | Moment::Push),
            Self::EarlyAck | Self::LateAck { .. } | Self::PendingAck | Self::RejectAck { .. } => {
                moment == Moment::Ack
            }
            Self::Status { .. } | Self::Unauthorized401 | Self::DropConnection { .. } => {
                moment == Moment::Request
            }
            Self::CutSocket => matches!(moment, Moment::Ack | Moment::Push),
            Self::ShortStream { .. } => moment == Moment::Stream,
            Self::Stall { .. } if stream_op => moment == Moment::Stream,
            Self::Stall { .. } => moment == Moment::Request,
        }
    }
}

/// Pseudo operation: any ack or data answer.
pub(super) const ACK: &str = "ack";
/// Pseudo operation: the channel.
pub(super) const WS: &str = "ws";
/// Pseudo operation: the upload server.
pub(super) const UPSTREAM: &str = "upstream";
/// Pseudo operation: the download server.
pub(super) const DOWNSTREAM: &str = "downstream";
const ANY: &str = "*";

/// The plan in force, with its counters.
#[derive(Debug)]
pub(super) struct Faults {
    /// Spares the lock when there is no plan, which is nearly always.
    armed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<(Rule, u64)>,
    random: SplitMix64,
}

impl Default for Faults {
    fn default() -> Self {
        let state = State { rules: Vec::new(), random: SplitMix64::new(0) };
        Self { armed: AtomicBool::new(false), state: Mutex::new(state) }
    }
}

impl Faults {
    /// Replaces the plan; counters start at zero.
    pub(super) fn set(&self, plan: FaultPlan) {
        let mut state = self.state.lock();
        state.random = SplitMix64::new(plan.seed);
        state.rules = plan.rules.into_iter().map(|rule| (rule, 0)).collect();
        self.armed.store(!state.rules.is_empty(), Ordering::Release);
    }

    /// The fault that strikes an event known under any of `ops`, if one does.
    pub(super) fn strike(&self, moment: Moment, ops: &[&str]) -> Option<Fault> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let State { rules, random } = &mut *state;
        rules
            .iter_mut()
            .filter(|(rule, _)| rule.matches(moment, ops))
            .find_map(|(rule, seen)| rule.when.fires(seen, random).then(|| rule.kind.clone()))
    }
}

impl Rule {
    fn matches(&self, moment: Moment, ops: &[&str]) -> bool {
        let named = ops.contains(&self.op.as_str())
            || (self.op == ANY && matches!(moment, Moment::Request | Moment::Ack));
        named && self.kind.strikes(moment, &self.op)
    }
}

impl When {
    fn fires(self, seen: &mut u64, random: &SplitMix64) -> bool {
        *seen += 1;
        match self {
            Self::Always => true,
            Self::First(n) => *seen <= n,
            Self::Every(n) => (*seen).is_multiple_of(n),
            Self::Probability(p) => unit(random) < p,
        }
    }
}

/// A number in [0, 1) from 53 random bits.
fn unit(random: &SplitMix64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let value = (random.next_u64() >> 11) as f64;
    value / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(when: When) -> Faults {
        let faults = Faults::default();
        let rule = Rule { op: "/x".into(), kind: Fault::LoseAck, when };
        faults.set(FaultPlan { seed: 1, rules: vec![rule] });
        faults
    }

    fn fired(faults: &Faults, times: usize) -> Vec<bool> {
        (0..times).map(|_| faults.strike(Moment::Ack, &["/x", ACK]).is_some()).collect()
    }

    #[test]
    fn counts_are_per_rule() {
        assert_eq!(fired(&plan(When::First(2)), 4), [true, true, false, false]);
        assert_eq!(fired(&plan(When::Every(2)), 4), [false, true, false, true]);
        assert!(plan(When::Always).strike(Moment::Request, &["/x"]).is_none());
        assert!(plan(When::Always).strike(Moment::Ack, &["/y"]).is_none());
    }

    #[test]
    fn the_seed_decides_the_dice() {
        let when = When::Probability(0.5);
        assert_eq!(fired(&plan(when), 64), fired(&plan(when), 64));
        assert!(fired(&plan(when), 64).contains(&true));
        assert!(fired(&plan(when), 64).contains(&false));
    }

    #[test]
    fn a_plan_reads_from_json() {
        let text = r#"{"seed":7,"rules":[
            {"op":"ack","kind":"lose_ack","when":{"first":1}},
            {"op":"upstream","kind":{"short_stream":{"bytes":10}}},
            {"op":"*","kind":{"status":{"code":503,"retry_after":1}},"when":{"every":3}}]}"#;
        let plan: FaultPlan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.rules[1].kind, Fault::ShortStream { bytes: 10 });
        assert_eq!(plan.rules[2].when, When::Every(3));
    }
}
