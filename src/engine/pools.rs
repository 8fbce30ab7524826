//! Voting pools, as steps of a commit (C.9).
//!
//! ```text
//! open --ballots--> approved or rejected, as soon as no ballot can change it
//!   +--time limit--> timed out      +--owner--> cancelled
//! ```
//!
//! A pool is open only as long as its time runs, whether or not a sweep has noted its end.
//! A settled pool can be looked at for a day, and as long as its approval is good.
//!
//! Invariants: a pool has an entry in `ProfilePools` and one in `PoolTimes`; a pool that
//! gates something is named by its entry in `Gates` until another one takes its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError, View};
use super::governance::{self, Strategy};
use super::records::Device;
use super::refusal::Refusal;
use super::secrets::digest;
use super::templates::Event;
use super::{devices, tokens};

const SECOND_MS: u64 = 1_000;
/// How long a settled pool can be looked at, at least: as long as a command.
const KEPT_MS: u64 = 24 * 3_600 * SECOND_MS;

/// Where a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Open,
    Approved,
    Rejected,
    TimedOut,
    Cancelled,
}

impl Status {
    /// The word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a word.
    pub(super) fn read(word: &str) -> Option<Self> {
        let all = [Self::Open, Self::Approved, Self::Rejected, Self::TimedOut, Self::Cancelled];
        all.into_iter().find(|status| status.word() == word)
    }
}

/// A device's say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Vote {
    Approve,
    Reject,
}

/// A device that is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ballot {
    pub device: String,
    pub name: String,
    pub vote: Option<Vote>,
    /// Ballots cast, the replaced ones too.
    pub cast: u64,
}

/// What a pool decides about; none for one that was created by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subject {
    pub event: Event,
    /// A data token, or a device identifier, by the event.
    pub object: String,
    pub policy: Uuid,
    pub policy_name: String,
}

/// A vote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pool {
    pub id: Uuid,
    pub profile: Uuid,
    /// As of the last step; see [`Pool::status`].
    noted: Status,
    pub title: String,
    pub question: String,
    pub nonce: Option<String>,
    pub subject: Option<Subject>,
    pub strategy: Strategy,
    pub quorum: u64,
    pub attempts: Option<u64>,
    /// Seconds.
    pub time_limit: u64,
    pub created_at: u64,
    pub expires_at: u64,
    pub settled_at: Option<u64>,
    pub ballots: Vec<Ballot>,
}

impl Pool {
    /// Where it stands at `now`, in milliseconds since the epoch.
    pub(super) fn status(&self, now: u64) -> Status {
        if self.noted == Status::Open && self.expires_at <= now {
            Status::TimedOut
        } else {
            self.noted
        }
    }

    /// The data token it decides about.
    pub(super) fn token(&self) -> Option<&str> {
        let subject = self.subject.as_ref();
        let subject = subject.filter(|subject| subject.event != Event::DeviceRegistered);
        subject.map(|subject| subject.object.as_str())
    }

    /// The device it decides about.
    pub(super) fn device(&self) -> Option<&str> {
        let subject = self.subject.as_ref();
        let subject = subject.filter(|subject| subject.event == Event::DeviceRegistered);
        subject.map(|subject| subject.object.as_str())
    }

    /// Whether a step has settled it.
    pub(super) fn is_settled(&self) -> bool {
        self.noted != Status::Open
    }

    /// What follows for the operation it gates.
    pub(super) fn verdict(&self, now: u64) -> Result<(), Refusal> {
        match self.status(now) {
            Status::Approved => Ok(()),
            status => Err(Refusal::Rejected(format!("policy.{}", status.word()))),
        }
    }

    /// Whether its approval is still good: for the time limit after it was given.
    fn grants(&self, now: u64) -> bool {
        let given = self.settled_at.unwrap_or_default();
        self.noted == Status::Approved && now < given + self.time_limit * SECOND_MS
    }

    /// The outcome, once no ballot that is still out can change it.
    fn tally(&self) -> Status {
        let count = |wanted| self.ballots.iter().filter(|ballot| ballot.vote == wanted).count();
        let (approved, out) = (count(Some(Vote::Approve)), count(None));
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        let needed = self.strategy.needed(self.ballots.len()).max(quorum);
        if approved >= needed {
            Status::Approved
        } else if approved + out < needed {
            Status::Rejected
        } else {
            Status::Open
        }
    }

    /// When something is due: its end, or if it is settled, its removal.
    fn due_at(&self) -> u64 {
        let kept = KEPT_MS.max(self.time_limit * SECOND_MS);
        self.settled_at.map_or(self.expires_at, |settled| settled + kept)
    }

    fn time_key(&self) -> Vec<u8> {
        let at = self.due_at();
        [at.to_be_bytes().as_slice(), self.id.as_bytes()].concat()
    }
}

/// What a commit has changed about pools.
#[derive(Debug)]
pub(super) enum News {
    /// There is a pool to vote in: the devices asked, by their profiles.
    Opened(Box<Pool>, BTreeMap<Uuid, Vec<String>>),
    /// A pool has been settled.
    Settled,
}

/// What a pool is opened with.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub id: Uuid,
    pub profile: Uuid,
    pub title: String,
    pub question: String,
    pub nonce: Option<String>,
    pub subject: Option<Subject>,
    pub strategy: Strategy,
    /// Seconds.
    pub time_limit: u64,
    /// Whose authenticators are asked.
    pub voters: Vec<Uuid>,
    /// Authenticators to ask; all if empty.
    pub devices: Vec<String>,
    /// Authenticators not to ask.
    pub skip: Vec<String>,
}

/// The pool of an id, whoever owns it.
pub(super) fn find(records: &impl Records, id: Uuid) -> Result<Option<Pool>, StorageError> {
    records.load(Space::Pools, id.as_bytes())
}

/// As [`find`], for one profile's own.
pub(super) fn own(records: &impl Records, profile: Uuid, id: Uuid) -> Result<Pool, Refusal> {
    let pool = find(records, id)?.ok_or(Refusal::NotFound)?;
    if pool.profile == profile { Ok(pool) } else { Err(Refusal::NotOwner) }
}

/// A profile's pools, oldest first.
pub(super) fn all(view: &View<'_>, profile: Uuid) -> Result<Vec<Pool>, StorageError> {
    let mut pools = Vec::new();
    for item in view.from(Space::ProfilePools, profile.as_bytes(), profile.as_bytes()) {
        let (key, _) = item?;
        let id = key.last_chunk().map(|bytes| Uuid::from_bytes(*bytes));
        pools.extend(find(view, id.ok_or(StorageError::Record)?)?);
    }
    Ok(pools)
}

/// Opens a pool and asks the authenticators that are there now. One whose quorum cannot be
/// reached is settled at once.
pub(super) fn open(tx: &mut Tx<'_>, opening: Opening) -> Result<Pool, Refusal> {
    let Opening { id, profile, voters, devices, skip, time_limit, .. } = opening;
    let asked = |device: &Device| {
        (devices.is_empty() || devices.contains(&device.identifier))
            && !skip.contains(&device.identifier)
    };
    let (mut ballots, mut news) = (Vec::new(), BTreeMap::<Uuid, Vec<String>>::new());
    for voter in voters {
        for device in devices::authenticators(tx, voter)?.into_iter().filter(asked) {
            news.entry(voter).or_default().push(device.identifier.clone());
            let (device, name) = (device.identifier, device.name);
            ballots.push(Ballot { device, name, vote: None, cast: 0 });
        }
    }
    if ballots.is_empty() {
        return Err(Refusal::NoAuthenticator);
    }
    let defaults = governance::of(tx, profile)?.defaults;
    let mut pool = Pool {
        id,
        profile,
        noted: Status::Open,
        title: opening.title,
        question: opening.question,
        nonce: opening.nonce,
        subject: opening.subject,
        strategy: opening.strategy,
        quorum: defaults.quorum,
        attempts: defaults.attempts,
        time_limit,
        created_at: tx.now,
        expires_at: tx.now + time_limit * SECOND_MS,
        settled_at: None,
        ballots,
    };
    tx.put_raw(Space::ProfilePools, &profile_key(&pool), Vec::new().into());
    tx.put_raw(Space::PoolTimes, &pool.time_key(), Vec::new().into());
    let status = pool.tally();
    settle(tx, &mut pool, status)?;
    if status == Status::Open {
        tx.tell(News::Opened(Box::new(pool.clone()), news));
    }
    Ok(pool)
}

fn profile_key(pool: &Pool) -> Vec<u8> {
    [pool.profile.as_bytes().as_slice(), pool.id.as_bytes()].concat()
}

/// `profile | digest of policy, event and object`.
fn gate_key(profile: Uuid, subject: &Subject) -> Vec<u8> {
    let text = format!("{}\n{}\n{}", subject.policy, subject.event.name(), subject.object);
    [profile.as_bytes().as_slice(), &digest(&text)].concat()
}

/// The last pool about a subject.
fn gate(
    records: &impl Records,
    profile: Uuid,
    subject: &Subject,
) -> Result<Option<Pool>, StorageError> {
    let last: Option<Uuid> = records.load(Space::Gates, &gate_key(profile, subject))?;
    last.map_or(Ok(None), |id| find(records, id))
}

/// Whether the last vote about a subject was an approval that is still good.
pub(super) fn is_granted(
    records: &impl Records,
    profile: Uuid,
    subject: &Subject,
    now: u64,
) -> Result<bool, StorageError> {
    Ok(gate(records, profile, subject)?.is_some_and(|pool| pool.grants(now)))
}

/// The pool that an operation on `named` has to wait for: the one that is open, the one
/// whose approval is still good, or a new one. A reservation that waits does not expire
/// before its pool.
pub(super) fn enter(
    tx: &mut Tx<'_>,
    opening: Opening,
    subject: &Subject,
    named: &str,
) -> Result<Pool, Refusal> {
    let last = gate(tx, opening.profile, subject)?;
    let usable = |pool: &Pool| pool.status(tx.now) == Status::Open || pool.grants(tx.now);
    let pool = match last.filter(usable) {
        Some(pool) => pool,
        None => {
            let key = gate_key(opening.profile, subject);
            let pool = open(tx, opening)?;
            tx.put(Space::Gates, &key, &pool.id)?;
            pool
        }
    };
    if subject.event != Event::DeviceRegistered {
        tokens::prolong(tx, named, pool.expires_at)?;
    }
    Ok(pool)
}

/// Takes the ballot of a device, in place of one it cast before.
pub(super) fn vote(tx: &mut Tx<'_>, device: &str, id: Uuid, vote: Vote) -> Result<Pool, Refusal> {
    // A device that has lost its role, or is gone, has no say in open pools either.
    let device = devices::find(tx, device)?.filter(|device| device.authenticator);
    let mut pool = find(tx, id)?.ok_or(Refusal::NotFound)?;
    let asked = device.and_then(|device| {
        let mut ballots = pool.ballots.iter_mut();
        ballots.find(|ballot| ballot.device == device.identifier)
    });
    let ballot = asked.ok_or(Refusal::NotAsked)?;
    if pool.noted != Status::Open || pool.expires_at <= tx.now {
        return Err(Refusal::Settled);
    }
    if pool.attempts.is_some_and(|most| ballot.cast >= most) {
        return Err(Refusal::Attempts);
    }
    ballot.vote = Some(vote);
    ballot.cast += 1;
    let status = pool.tally();
    settle(tx, &mut pool, status)?;
    Ok(pool)
}

/// Ends an open pool without an outcome.
pub(super) fn cancel(tx: &mut Tx<'_>, profile: Uuid, id: Uuid) -> Result<(), Refusal> {
    let mut pool = own(tx, profile, id)?;
    if pool.status(tx.now) != Status::Open {
        return Err(Refusal::Settled);
    }
    Ok(settle(tx, &mut pool, Status::Cancelled)?)
}

/// Notes that the time of an open pool is over.
pub(super) fn time_out(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StorageError> {
    match find(tx, id)? {
        Some(mut pool) if !pool.is_settled() && pool.expires_at <= tx.now => {
            settle(tx, &mut pool, Status::TimedOut)
        }
        _ => Ok(()),
    }
}

/// What is due when the time of an entry in `PoolTimes` has come: an open pool's end, or
/// a settled one's removal.
pub(super) fn due(tx: &mut Tx<'_>, key: &[u8]) -> Result<(), StorageError> {
    let id = key.last_chunk().map(|bytes| Uuid::from_bytes(*bytes));
    let id = id.ok_or(StorageError::Record)?;
    tx.remove(Space::PoolTimes, key);
    let Some(mut pool) = find(tx, id)? else { return Ok(()) };
    if !pool.is_settled() {
        settle(tx, &mut pool, Status::TimedOut)?;
        if pool.due_at() > tx.now {
            return Ok(());
        }
        tx.remove(Space::PoolTimes, &pool.time_key());
    }
    tx.remove(Space::Pools, id.as_bytes());
    tx.remove(Space::ProfilePools, &profile_key(&pool));
    if let Some(subject) = &pool.subject {
        let key = gate_key(pool.profile, subject);
        if tx.load::<Uuid>(Space::Gates, &key)? == Some(id) {
            tx.remove(Space::Gates, &key);
        }
    }
    Ok(())
}

/// Writes a pool with its new status.
fn settle(tx: &mut Tx<'_>, pool: &mut Pool, status: Status) -> Result<(), StorageError> {
    if status != Status::Open {
        tx.remove(Space::PoolTimes, &pool.time_key());
        pool.noted = status;
        let timed_out = status == Status::TimedOut;
        pool.settled_at = Some(if timed_out { pool.expires_at } else { tx.now });
        tx.put_raw(Space::PoolTimes, &pool.time_key(), Vec::new().into());
        tx.tell(News::Settled);
    }
    tx.put(Space::Pools, pool.id.as_bytes(), pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(strategy: Strategy, quorum: u64, votes: &[Option<Vote>]) -> Pool {
        let ballot = |vote: &Option<Vote>| Ballot {
            device: String::new(),
            name: String::new(),
            vote: *vote,
            cast: 0,
        };
        Pool {
            id: Uuid::nil(),
            profile: Uuid::nil(),
            noted: Status::Open,
            title: String::new(),
            question: String::new(),
            nonce: None,
            subject: None,
            strategy,
            quorum,
            attempts: None,
            time_limit: 1,
            created_at: 0,
            expires_at: 1_000,
            settled_at: None,
            ballots: votes.iter().map(ballot).collect(),
        }
    }

    #[test]
    fn a_pool_settles_as_soon_as_nothing_can_change() {
        let (yes, no, out) = (Some(Vote::Approve), Some(Vote::Reject), None);
        let tally = |strategy, votes: &[Option<Vote>]| pool(strategy, 1, votes).tally();
        assert_eq!(tally(Strategy::Unanimous, &[yes, yes, out]), Status::Open);
        assert_eq!(tally(Strategy::Unanimous, &[yes, no, out]), Status::Rejected);
        assert_eq!(tally(Strategy::Consensus, &[yes, yes, out]), Status::Approved);
        assert_eq!(tally(Strategy::Consensus, &[yes, no, out, out]), Status::Open);
        assert_eq!(tally(Strategy::Consensus, &[yes, no, no, out]), Status::Rejected);
        assert_eq!(tally(Strategy::Affirmative, &[no, no, out]), Status::Open);
        assert_eq!(tally(Strategy::Affirmative, &[no, yes, out]), Status::Approved);
        let half = Strategy::MinimumPercentage(50);
        assert_eq!(tally(half, &[yes, yes, out, out]), Status::Approved);
        assert_eq!(tally(half, &[no, no, no, out]), Status::Rejected);
        assert_eq!(pool(Strategy::Affirmative, 2, &[yes, out]).tally(), Status::Open);
        assert_eq!(pool(Strategy::Affirmative, 3, &[yes, out]).tally(), Status::Rejected);
    }

    #[test]
    fn an_approval_is_good_for_the_time_limit() {
        let mut pool = pool(Strategy::Affirmative, 1, &[]);
        assert_eq!(pool.status(999), Status::Open);
        assert_eq!(pool.status(1_000), Status::TimedOut);
        (pool.noted, pool.settled_at) = (Status::Approved, Some(500));
        assert!(pool.grants(1_499) && !pool.grants(1_500));
        assert!(pool.verdict(9_000).is_ok());
    }
}
