//! How the service behaves: slow, failing, lagging, or lying.

use std::collections::BTreeMap;

use bytes::Bytes;
use privicorefs::store::{FileMeta, Token};

use super::super::company::{Machine, Odd, Service as Order, Stored};
use super::{Service, State};

/// A step, and how often what it orders still happens.
pub(super) type Times = Option<(usize, u32)>;

/// What is in force; each with the step that ordered it.
#[derive(Default)]
pub(super) struct Behaviour {
    pub(super) slow: Option<(usize, u32)>,
    /// Until when (milliseconds of the run).
    pub(super) down: Option<(usize, u64)>,
    pub(super) lag: Vec<(usize, Option<Machine>, u64)>,
    pub(super) lost_ack: Times,
    pub(super) lands_late: Option<(usize, u32, u32)>,
    pub(super) fail_puts: Times,
    pub(super) fail_gets: Times,
    pub(super) clock: Option<(usize, i64)>,
    /// What a token gives in place of its payload.
    pub(super) instead: BTreeMap<Token, (usize, Bytes)>,
    /// As of when, and since when.
    pub(super) rolled_back: Vec<(usize, Option<Machine>, u64, u64)>,
    pub(super) withheld: Vec<(usize, Token, Option<Machine>)>,
    pub(super) duplicate: Option<usize>,
    pub(super) reorder: Option<usize>,
    pub(super) wrong_page: Times,
    pub(super) short_page: Times,
    pub(super) shift: Times,
    pub(super) no_sizes: Option<usize>,
    pub(super) year: Option<(usize, u32)>,
    pub(super) odd: Vec<(usize, Odd)>,
    pub(super) answer: Option<(usize, u32, String)>,
}

impl Behaviour {
    pub(super) fn clock_ms(&self) -> i64 {
        self.clock.map_or(0, |(_, ms)| ms)
    }
}

/// Uses one of the times that something still happens; gives the step that ordered it.
pub(super) fn take(times: &mut Times) -> Option<usize> {
    let (step, left) = times.as_mut()?;
    let step = *step;
    *left = left.saturating_sub(1);
    if *left == 0 {
        *times = None;
    }
    Some(step)
}

fn times(step: usize, n: u32) -> Times {
    (n > 0).then_some((step, n))
}

impl Service {
    /// Behaves otherwise from now on, as step `step` says.
    pub fn obey(&self, step: usize, order: &Order) {
        let now = self.now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let be = &mut state.behaviour;
        match order {
            Order::Honest => state.behaviour = Behaviour::default(),
            Order::Slow { ms } => be.slow = Some((step, *ms)),
            Order::Down { ms } => be.down = Some((step, now + u64::from(*ms))),
            Order::Lag { on, ms } => be.lag.push((step, *on, u64::from(*ms))),
            Order::LostAck { n } => be.lost_ack = times(step, *n),
            Order::LandsLate { n, ms } => be.lands_late = Some((step, *n, *ms)),
            Order::FailPuts { n } => be.fail_puts = times(step, *n),
            Order::FailGets { n } => be.fail_gets = times(step, *n),
            Order::Clock { ms } => be.clock = Some((step, *ms)),
            Order::RollBack { on, ms } => {
                be.rolled_back.push((step, *on, now.saturating_sub(*ms), now));
            }
            Order::Duplicate => be.duplicate = Some(step),
            Order::Reorder => be.reorder = Some(step),
            Order::WrongPage { n } => be.wrong_page = times(step, *n),
            Order::ShortPage { n } => be.short_page = times(step, *n),
            Order::Shift { n } => be.shift = times(step, *n),
            Order::NoSizes => be.no_sizes = Some(step),
            Order::Year { year } => be.year = Some((step, *year)),
            Order::Entry { odd } => be.odd.push((step, *odd)),
            Order::Answer { n, token } => be.answer = Some((step, *n, token.clone())),
            Order::Swap { what, a, b } => state.swap(step, *what, *a, *b),
            Order::Replay { what, of, older } => state.replay(step, *what, *of, *older),
            Order::Cut { what, of, bytes } => state.cut(step, *what, *of, *bytes),
            Order::Withhold { what, of, on } => {
                if let Some(token) = state.pick(*what, *of) {
                    state.behaviour.withheld.push((step, token, *on));
                }
            }
            Order::CopyAs { what, of, to, number } => {
                let source = state.pick(*what, *of);
                let copy = source.and_then(|token| state.copy_as(&token, *to, *number));
                drop(guard);
                if let Some((meta, payload)) = copy {
                    let token = self.insert(&meta, None, payload);
                    self.state.lock().changed.insert(token, step);
                }
            }
            Order::Erase { what, of } => {
                let token = state.pick(*what, *of);
                drop(guard);
                if let Some(token) = token {
                    self.remove(&token);
                    self.state.lock().changed.insert(token, step);
                }
            }
        }
    }
}

impl State {
    fn payload(&self, token: &Token) -> Bytes {
        self.find(token).map(|held| held.payload.clone()).unwrap_or_default()
    }

    fn swap(&mut self, step: usize, what: Stored, a: u32, b: u32) {
        let (Some(a), Some(b)) = (self.pick(what, a), self.pick(what, b)) else { return };
        if a != b {
            let (of_a, of_b) = (self.payload(&a), self.payload(&b));
            self.behaviour.instead.insert(a, (step, of_b));
            self.behaviour.instead.insert(b, (step, of_a));
        }
    }

    fn replay(&mut self, step: usize, what: Stored, of: u32, older: u32) {
        let Some(token) = self.pick(what, of) else { return };
        let Some(held) = self.find(&token) else { return };
        let place = (held.record.context.clone(), held.record.file_name.clone());
        let earlier: Vec<&super::Held> =
            self.entries.iter().filter(|e| e.what == what && e.record.token < token).collect();
        let same: Vec<_> = earlier
            .iter()
            .filter(|e| (&e.record.context, &e.record.file_name) == (&place.0, &place.1))
            .copied()
            .collect();
        let from = if same.is_empty() { earlier } else { same };
        if let Some(payload) =
            (!from.is_empty()).then(|| from[older as usize % from.len()].payload.clone())
        {
            self.behaviour.instead.insert(token, (step, payload));
        }
    }

    fn cut(&mut self, step: usize, what: Stored, of: u32, bytes: u32) {
        let Some(token) = self.pick(what, of) else { return };
        let payload = self.payload(&token);
        let left = payload.len().saturating_sub(bytes.max(1) as usize);
        self.behaviour.instead.insert(token, (step, payload.slice(..left)));
    }

    /// Where the ciphertext of a token would mean something else.
    fn copy_as(&self, token: &Token, to: Stored, number: u64) -> Option<(FileMeta, Bytes)> {
        let payload = self.payload(token);
        // A place of that kind that somebody uses, so that it is looked at.
        let model = self.entries.iter().rev().find(|held| held.what == to)?;
        let name = model.record.file_name.clone().unwrap_or_default();
        let file_name = match to {
            Stored::Segment => {
                let writer = name.split('-').next().unwrap_or("0000000000000001");
                let newest = self.newest_number(writer);
                format!("{writer}-{:016x}", newest.saturating_add(1 + number % 3))
            }
            Stored::Manifest => format!("ffffffffffffff{:02x}-{:016x}.manifest", number % 256, 1),
            _ => name,
        };
        let meta = FileMeta {
            file_name,
            extension: String::new(),
            context: model.record.context.clone(),
            path: "/".into(),
            size: payload.len() as u64,
        };
        Some((meta, payload))
    }

    pub(super) fn newest_number(&self, writer: &str) -> u64 {
        let names = self.entries.iter().filter(|held| held.what == Stored::Segment);
        let numbers = names.filter_map(|held| {
            let (of, number) = held.record.file_name.as_deref()?.split_once('-')?;
            (of == writer).then(|| u64::from_str_radix(number, 16).ok())?
        });
        numbers.max().unwrap_or(0)
    }
}
