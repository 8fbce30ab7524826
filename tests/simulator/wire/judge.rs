//! What must hold of a token store, whatever strikes: checked against the vault itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use privicorefs::store::{StoreError, StoreErrorKind, StoreResult, Token, TokenRecord};
use tokio::time::Instant;

use super::super::random::mix;
use super::fault::Hit;
use super::transport::Wire;
use super::vault::Stored;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clause {
    /// A put that succeeded gives its bytes under the token that it returned.
    Kept,
    /// A put that failed left nothing; one in doubt at most a token with its mark.
    Left,
    /// A get gives the exact bytes, or an error.
    Exact,
    /// Nothing waits longer than it is configured to.
    Bounded,
    /// A listing has each acknowledged token exactly once.
    Listed,
    /// A deletion, or a change of meta, that succeeded was carried out.
    Done,
    /// Where nothing strikes, nothing fails.
    Quiet,
    /// Nor does it once everything is over.
    Recovers,
}

/// One thing that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What.
    pub(crate) clause: Clause,
    /// Of which call of the store.
    pub(crate) operation: &'static str,
    /// In which step.
    pub(crate) step: usize,
    /// What struck while it went on.
    pub(crate) hits: BTreeSet<String>,
    /// For a person.
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hits: Vec<_> = self.hits.iter().map(String::as_str).collect();
        let Self { clause, operation, step, what, .. } = self;
        write!(f, "{clause:?} {operation} [{}] step {step}: {what}", hits.join(" "))
    }
}

/// All attempts at one put: one content, one mark.
struct Put {
    mark: String,
    payload: Bytes,
    tokens: BTreeSet<String>,
    in_doubt: bool,
    /// What its last failure said.
    failure: Option<String>,
    /// How much had struck when its first attempt began.
    struck: usize,
    /// Whether it went on after an attempt had ended.
    held: bool,
    hits: BTreeSet<String>,
}

/// When an operation began, and how things stood.
pub(super) struct Began {
    at: Instant,
    hits: usize,
    on_wire: Duration,
    commands: u32,
    /// The tokens that there were.
    tokens: Vec<String>,
    /// Whether nothing else goes on.
    alone: bool,
}

/// See the module's header.
pub(super) struct Judge {
    wire: Wire,
    quiet: bool,
    limits: (Duration, Duration),
    began: Instant,
    puts: BTreeMap<usize, Put>,
    /// Tokens that were acknowledged, in order, and the puts they are of.
    acknowledged: Vec<(String, usize)>,
    /// Tokens that somebody tried to delete, and whether that succeeded.
    deleted: BTreeMap<String, (bool, usize, BTreeSet<String>)>,
    /// Changes of meta that succeeded: of which step and call, what was given to which token.
    changes: Vec<(usize, &'static str, String, String, BTreeSet<String>)>,
    pub(super) findings: Vec<Finding>,
    pub(super) digest: u64,
    pub(super) succeeded: u32,
}

impl Judge {
    /// `quiet`: nothing is going to strike. `limits`: of an acknowledgement, of a connection.
    pub(super) fn new(wire: Wire, quiet: bool, limits: (Duration, Duration)) -> Self {
        Self {
            wire,
            quiet,
            limits,
            began: Instant::now(),
            puts: BTreeMap::new(),
            acknowledged: Vec::new(),
            deleted: BTreeMap::new(),
            changes: Vec::new(),
            findings: Vec::new(),
            digest: 0,
            succeeded: 0,
        }
    }

    pub(super) fn begin(&self, alone: bool) -> Began {
        let state = self.wire.state();
        let (on_wire, commands) = (state.waits.on_wire, state.waits.commands);
        let hits = state.faults.hits().len();
        let tokens = state.vault.tokens();
        Began { at: Instant::now(), hits, on_wire, commands, tokens, alone }
    }

    fn since(&self, began: &Began) -> Vec<Hit> {
        self.wire.state().faults.hits()[began.hits..].to_vec()
    }

    fn find(
        &mut self,
        clause: Clause,
        operation: &'static str,
        step: usize,
        hits: BTreeSet<String>,
        what: impl Into<String>,
    ) {
        let what = what.into();
        self.findings.push(Finding { clause, operation, step, hits, what });
    }

    /// What every operation has to hold; what struck it.
    pub(super) fn ended(
        &mut self,
        step: usize,
        operation: &'static str,
        began: &Began,
        failure: Option<&StoreError>,
    ) -> BTreeSet<String> {
        let hits = self.since(began);
        let names: BTreeSet<_> = hits.iter().map(|hit| hit.name()).collect();
        let said = failure.map_or("ok".to_owned(), |error| format!("{:?}", error.kind));
        self.note(&format!("{step} {operation} {said} {names:?}"));
        self.succeeded += u32::from(failure.is_none());
        let gone = |error: &&StoreError| {
            let missing = error.kind == StoreErrorKind::NotFound;
            missing
                && error.target.as_ref().is_some_and(|token| self.may_be_gone(&Token::new(token)))
        };
        if let Some(error) = failure.filter(|error| self.quiet && !gone(error)) {
            self.find(Clause::Quiet, operation, step, names.clone(), error.to_string());
        }
        let (long, idle, commands) = {
            let mut state = self.wire.state();
            let long = std::mem::take(&mut state.waits.long);
            let on_wire = state.waits.on_wire.saturating_sub(began.on_wire);
            (
                long,
                began.at.elapsed().saturating_sub(on_wire),
                state.waits.commands - began.commands,
            )
        };
        for (what, waited) in long {
            let what = format!("{what} was waited for {waited:?}");
            self.find(Clause::Bounded, operation, step, names.clone(), what);
        }
        let renewals = hits.iter().filter(|hit| hit.name().contains("Unauthorized")).count();
        let limit = self.idle_limit(commands, renewals);
        if began.alone && idle > limit {
            let what = format!("{idle:?} beside its calls, more than {limit:?}");
            self.find(Clause::Bounded, operation, step, names.clone(), what);
        }
        names
    }

    /// The longest that an operation may wait beside its calls: for each command, to the
    /// channel's connection, its acknowledgement, and the announcement of a payload; for what
    /// an exchange or an upload takes to show; for a renewal under way after each 401. A
    /// payload is asked for three times, also where nobody heard of it.
    fn idle_limit(&self, commands: u32, renewals: usize) -> Duration {
        let commands = commands.max(3);
        let (ack, connect) = self.limits;
        let shows = Duration::from_secs(40);
        let renewal = Duration::from_secs(3) * u32::try_from(renewals).unwrap_or(u32::MAX);
        shows + connect + (ack + connect + Duration::from_secs(12)) * commands + renewal
    }

    pub(super) fn note(&mut self, what: &str) {
        let at = self.began.elapsed().as_millis();
        let text = format!("{at} {what}");
        self.digest = text.bytes().fold(self.digest, |digest, byte| mix(digest ^ u64::from(byte)));
    }

    /// One attempt at the put of `step` has ended.
    pub(super) fn put(
        &mut self,
        step: usize,
        mark: &str,
        payload: &Bytes,
        began: &Began,
        result: &StoreResult<Token>,
    ) {
        self.ended(step, "put", began, result.as_ref().err());
        let put = self.puts.entry(step).or_insert_with(|| Put {
            mark: mark.to_owned(),
            payload: payload.clone(),
            tokens: BTreeSet::new(),
            in_doubt: false,
            failure: None,
            struck: began.hits,
            held: false,
            hits: BTreeSet::new(),
        });
        put.hits = self.wire.hits()[put.struck..].iter().map(|hit| hit.name()).collect();
        match result {
            Ok(token) => {
                put.tokens.insert(token.as_str().to_owned());
                self.acknowledged.push((token.as_str().to_owned(), step));
                self.is_kept(step, token.as_str(), "right after it");
            }
            Err(error) => {
                put.failure = Some(error.to_string());
                put.in_doubt |= error.in_doubt;
                put.held |= error.hold.is_some();
            }
        }
    }

    fn is_kept(&mut self, step: usize, token: &str, when: &str) -> bool {
        let Put { payload, hits, .. } = &self.puts[&step];
        let there = self.wire.state().vault.payload(token);
        let what = match &there {
            Some(there) if there == payload => return true,
            Some(there) => format!("{token} gives {} other bytes, {when}", there.len()),
            None => format!("the vault has no {token}, {when}"),
        };
        let hits = hits.clone();
        self.find(Clause::Kept, "put", step, hits, what);
        false
    }

    /// The tokens that are acknowledged and that nobody tried to delete; without those that
    /// were found lost, which would be found again and again.
    pub(super) fn live(&self) -> Vec<(String, usize)> {
        let lost = |step: usize| {
            let mut kept = self.findings.iter().filter(|one| one.clause == Clause::Kept);
            kept.any(|one| one.step == step)
        };
        let live = self.acknowledged.iter();
        let live = live.filter(|(token, step)| !self.deleted.contains_key(token) && !lost(*step));
        live.cloned().collect()
    }

    /// Whether somebody tried to delete a token.
    fn may_be_gone(&self, token: &Token) -> bool {
        self.deleted.contains_key(token.as_str())
    }

    /// Somebody is about to delete a token.
    pub(super) fn deleting(&mut self, step: usize, token: &str) {
        self.deleted.entry(token.to_owned()).or_insert((false, step, BTreeSet::new()));
    }

    pub(super) fn deletion(
        &mut self,
        step: usize,
        token: &str,
        began: &Began,
        result: &StoreResult<()>,
    ) {
        let hits = self.ended(step, "delete", began, result.as_ref().err());
        if let Some(deleted) = self.deleted.get_mut(token) {
            deleted.0 |= result.is_ok();
            deleted.2.extend(hits);
        }
    }

    pub(super) fn got(
        &mut self,
        step: usize,
        of: usize,
        began: &Began,
        result: &StoreResult<Vec<u8>>,
    ) {
        let hits = self.ended(step, "get", began, result.as_ref().err());
        if let Ok(bytes) = result
            && **bytes != *self.puts[&of].payload
        {
            let what = format!("{} bytes of {}", bytes.len(), self.puts[&of].payload.len());
            self.find(Clause::Exact, "get", step, hits, what);
        }
    }

    /// A change of meta has ended: a name or a label was given to a token.
    pub(super) fn changed(
        &mut self,
        step: usize,
        operation: &'static str,
        (token, given): (&Token, String),
        began: &Began,
        result: &StoreResult<()>,
    ) {
        let hits = self.ended(step, operation, began, result.as_ref().err());
        if result.is_ok() {
            self.changes.push((step, operation, token.as_str().to_owned(), given, hits));
        }
    }

    /// A listing has ended: all records of the pages that a caller looks at.
    pub(super) fn listed(
        &mut self,
        step: usize,
        began: &Began,
        result: &StoreResult<Vec<TokenRecord>>,
    ) {
        let hits = self.ended(step, "list", began, result.as_ref().err());
        // What comes or goes between two pages may be on both or on none.
        let still = began.tokens == self.wire.state().vault.tokens();
        let (Ok(records), true) = (result, began.alone && still && hits.is_empty()) else {
            return;
        };
        for (token, put) in self.live() {
            let named = |record: &&TokenRecord| record.token.as_str() == token;
            let times = records.iter().filter(named).count();
            if times != 1 {
                let what = format!("{token} of step {put} is listed {times} times");
                let hits = self.puts[&put].hits.clone();
                self.find(Clause::Listed, "list", step, hits, what);
            }
        }
    }

    /// A token that the vault has is not given, though nothing strikes.
    pub(super) fn cannot_be_got(&mut self, step: usize, token: &str, error: &StoreError) {
        let hits = self.puts[&step].hits.clone();
        self.find(Clause::Kept, "put", step, hits, format!("{token} cannot be got: {error}"));
    }

    /// What was asked once everything was over has failed, if it has.
    pub(super) fn recovered(
        &mut self,
        step: usize,
        operation: &'static str,
        failure: Option<&StoreError>,
    ) {
        let Some(error) = failure else { return };
        let hits = self.wire.hits().into_iter().map(Hit::name).collect();
        self.find(Clause::Recovers, operation, step, hits, error.to_string());
    }

    /// Everything is over, and what was late has landed.
    pub(super) fn at_the_end(&mut self) {
        for put in self.puts.values_mut().filter(|put| put.held) {
            put.hits = self.wire.hits()[put.struck..].iter().map(|hit| hit.name()).collect();
        }
        for (token, step) in self.live() {
            self.is_kept(step, &token, "at the end");
        }
        let stored: Vec<_> = self.wire.state().vault.stored().cloned().collect();
        for stored in &stored {
            self.is_explained(stored);
        }
        for (step, operation, token, given, hits) in std::mem::take(&mut self.changes) {
            let live = self.live().iter().any(|(live, _)| *live == token);
            if live && !self.wire.state().vault.was_done(&token, &given) {
                self.find(Clause::Done, operation, step, hits, "it was never carried out");
            }
        }
        let deleted: Vec<_> = self.deleted.clone().into_iter().filter(|(_, how)| how.0).collect();
        for (token, (_, step, hits)) in deleted {
            if stored.iter().any(|stored| stored.token == token) {
                self.find(Clause::Done, "delete", step, hits, format!("{token} is still there"));
            }
        }
    }

    fn is_explained(&mut self, stored: &Stored) {
        let of = self.puts.iter().find(|(_, put)| put.payload == stored.payload);
        let Some((&step, put)) = of else {
            let what = format!("{} is of no put", stored.token);
            return self.find(Clause::Left, "put", 0, BTreeSet::new(), what);
        };
        if put.tokens.contains(&stored.token) {
            return;
        }
        let keeps_marks = self.wire.state().vault.shape.keeps_marks();
        let what = if !put.in_doubt {
            "a put that was never in doubt left"
        } else if keeps_marks && stored.mark != put.mark {
            "a put in doubt left, without its mark,"
        } else {
            return;
        };
        let hits = put.hits.clone();
        let ended = put.failure.as_deref().unwrap_or("never failed");
        let what = format!("{what} {}: {ended}", stored.token);
        self.find(Clause::Left, "put", step, hits, what);
    }
}
