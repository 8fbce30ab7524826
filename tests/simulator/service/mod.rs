//! The simulated service: a token store that many machines reach, in virtual time, and that
//! behaves as the script says.
//!
//! * What it was told is kept with the time it came and the time it went, so that a lagging
//!   listing and a vault set back are views of the same history.
//! * Where it is honest, a put that was acknowledged can be got by its token at once, and a
//!   listing lacks at most what came within its lag.
//! * It has the key, to know what a payload is, so that a script can name "the second part
//!   list" and the judge hears what was deleted. It uses it for nothing else.

mod endpoint;
mod lies;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use privicorefs::catalog::format::part_list::PartList;
use privicorefs::crypto::{CatalogKeys, MasterKey, PayloadCipher};
use privicorefs::store::{FileMeta, Token, TokenRecord};
use tokio::time::Instant;

pub use self::endpoint::{Call, Endpoint};
use self::lies::Behaviour;
use super::company::{Event, Machine, Stored};
use super::doubles::seeded_env;
use super::random::Draws;
use super::tasks::EPOCH_MS;

/// Everything that was ever stored.
pub struct Service {
    state: Mutex<State>,
    cipher: PayloadCipher,
    keys: CatalogKeys,
    began: Instant,
}

pub(super) struct State {
    /// By age.
    entries: Vec<Held>,
    by_token: BTreeMap<Token, usize>,
    behaviour: Behaviour,
    /// Out of whose reach it is, by which step.
    away: BTreeMap<Machine, usize>,
    watched: Vec<Watched>,
    /// Tokens that a lie made or took, by which step.
    changed: BTreeMap<Token, usize>,
    events: Vec<Event>,
    met: BTreeSet<usize>,
    draws: Draws,
}

/// A step that counts once its machine uses the service.
struct Watched {
    step: usize,
    machine: Machine,
    /// A content that it gets is enough.
    contents: bool,
}

/// One token with its history.
#[derive(Clone)]
struct Held {
    record: TokenRecord,
    payload: Bytes,
    what: Stored,
    /// Of a part list.
    parts: Vec<Token>,
    /// Milliseconds since the beginning of the run.
    since: u64,
    until: Option<u64>,
}

impl Held {
    fn is_there(&self) -> bool {
        self.until.is_none()
    }

    fn was_there(&self, at: u64) -> bool {
        self.since <= at && self.until.is_none_or(|until| until > at)
    }
}

impl State {
    fn met(&mut self, step: usize) {
        if self.met.insert(step) {
            self.events.push(Event::Met { step });
        }
    }

    fn find(&self, token: &Token) -> Option<&Held> {
        self.by_token.get(token).map(|at| &self.entries[*at])
    }

    /// A machine got a payload, or stored one: what was waiting for that counts now.
    fn used(&mut self, machine: Machine, what: Stored, published: bool) {
        let catalog = matches!(what, Stored::Segment | Stored::Manifest | Stored::Page);
        let counts = |watched: &Watched| {
            watched.machine == machine && (catalog || (watched.contents && !published))
        };
        let (met, left) = std::mem::take(&mut self.watched).into_iter().partition(counts);
        self.watched = left;
        met.into_iter().for_each(|watched: Watched| self.met(watched.step));
    }

    /// The tokens of a kind that are there, by age.
    fn of_kind(&self, what: Stored) -> Vec<Token> {
        let there = self.entries.iter().filter(|held| held.is_there() && held.what == what);
        there.map(|held| held.record.token.clone()).collect()
    }

    fn pick(&self, what: Stored, number: u32) -> Option<Token> {
        let all = self.of_kind(what);
        (!all.is_empty()).then(|| all[number as usize % all.len()].clone())
    }
}

impl Service {
    /// An empty one; `began` is the beginning of the run, `seed` fixes its delays.
    pub fn new(key: &MasterKey, seed: u64, began: Instant) -> Arc<Self> {
        let state = State {
            entries: Vec::new(),
            by_token: BTreeMap::new(),
            behaviour: Behaviour::default(),
            away: BTreeMap::new(),
            watched: Vec::new(),
            changed: BTreeMap::new(),
            events: Vec::new(),
            met: BTreeSet::new(),
            draws: Draws::new(seed),
        };
        let cipher = PayloadCipher::new(key, seeded_env(seed));
        let keys = CatalogKeys::new(key);
        Arc::new(Self { state: Mutex::new(state), cipher, keys, began })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What its clock shows, in milliseconds since 1970.
    fn shows(&self, behaviour: &Behaviour) -> u64 {
        (EPOCH_MS + self.now()).saturating_add_signed(behaviour.clock_ms())
    }

    /// Stores a payload under a new token.
    fn insert(&self, meta: &FileMeta, mark: Option<&str>, payload: Bytes) -> Token {
        let now = self.now();
        let (what, parts) = self.classify(&meta.context, &meta.file_name, &payload);
        let mut state = self.state.lock();
        let number = state.entries.len();
        let token = Token::new(format!("dtk-{number:06}"));
        let created = self.shows(&state.behaviour);
        let record = TokenRecord {
            token: token.clone(),
            context: meta.context.clone(),
            file_name: Some(meta.file_name.clone()),
            extension: Some(meta.extension.clone()),
            path: Some(meta.path.clone()),
            size: Some(meta.size),
            created: Some(UNIX_EPOCH + Duration::from_millis(created)),
            mark: mark.map(str::to_owned),
            data_type: None,
            risk: None,
        };
        if let Some((step, ms)) = state.behaviour.clock
            && ms != 0
        {
            state.changed.insert(token.clone(), step);
        }
        state.entries.push(Held { record, payload, what, parts, since: now, until: None });
        state.by_token.insert(token.clone(), number);
        token
    }

    /// What a payload is, by where it lies and what it opens to.
    fn classify(&self, context: &str, name: &str, payload: &[u8]) -> (Stored, Vec<Token>) {
        let what = match context.rsplit('/').next() {
            _ if !context.starts_with(".privicorefs/2/") => None,
            Some("log") => Some(Stored::Segment),
            Some("parts") => Some(Stored::Part),
            _ if name.ends_with(".manifest") => Some(Stored::Manifest),
            _ => Some(Stored::Page),
        };
        if let Some(what) = what {
            return (what, Vec::new());
        }
        let plain = self.cipher.open(payload).unwrap_or_default();
        match PartList::from_json(&plain, &self.keys) {
            Ok(list) => {
                let stored = list.parts.into_iter().flatten();
                (Stored::PartList, stored.map(|part| part.token).collect())
            }
            Err(_) => (Stored::File, Vec::new()),
        }
    }

    /// Deletes a token, if it is there; gives what it was.
    fn remove(&self, token: &Token) -> Option<Stored> {
        let now = self.now();
        let mut state = self.state.lock();
        let at = *state.by_token.get(token)?;
        let held = &mut state.entries[at];
        let was = held.is_there();
        held.until.get_or_insert(now);
        was.then_some(held.what)
    }

    /// What another client does: stores a payload of this key in a place.
    pub fn store_plain(&self, context: &str, name: &str, plain: &[u8]) -> Token {
        let meta = FileMeta {
            file_name: name.to_owned(),
            extension: name.rsplit_once('.').map(|(_, e)| e.to_owned()).unwrap_or_default(),
            context: context.to_owned(),
            path: "/".into(),
            size: plain.len() as u64,
        };
        self.insert(&meta, None, self.cipher.seal(plain).into())
    }

    /// What another client does: deletes a token.
    pub fn erase(&self, token: &Token) {
        self.remove(token);
    }

    /// A machine can reach it, or (by a step) not. An absence counts by what comes after it.
    pub fn set_away(&self, machine: Machine, by: Option<usize>) {
        let mut state = self.state.lock();
        match by {
            Some(step) => drop(state.away.insert(machine, step)),
            None => {
                if let Some(step) = state.away.remove(&machine) {
                    state.watched.push(Watched { step, machine, contents: false });
                }
            }
        }
    }

    /// What a step has done to a machine counts when the machine next takes in or publishes
    /// something of the catalog; with `contents`, also when it asks for a content.
    pub fn watch(&self, step: usize, machine: Machine, contents: bool) {
        self.state.lock().watched.push(Watched { step, machine, contents });
    }

    /// What happened since this was asked last.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.lock().events)
    }

    /// The content tokens that are there.
    pub fn contents(&self) -> Vec<(String, Stored)> {
        let content = [Stored::File, Stored::Part, Stored::PartList];
        let state = self.state.lock();
        let there = state.entries.iter().filter(|h| h.is_there() && content.contains(&h.what));
        there.map(|held| (held.record.token.to_string(), held.what)).collect()
    }

    /// The tokens that a part list names; none for what is none.
    pub fn parts_of(&self, token: &str) -> Vec<String> {
        let state = self.state.lock();
        let found = state.find(&Token::new(token));
        found.map(|held| held.parts.iter().map(Token::to_string).collect()).unwrap_or_default()
    }
}
