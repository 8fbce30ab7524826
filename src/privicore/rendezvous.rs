//! The two-sided meeting place of pushed messages and those who wait for them.
//!
//! The channel pushes a message under an id; a caller learns the same id from an HTTP
//! reply. Either may come first, and messages are not sent again (protocol B.5), so:
//! * whoever comes first makes the entry: `Waiting` (a caller) or `Stray` (a message);
//! * strays expire after [`STRAY_LIFE`]; a dropped [`Wait`] takes its entry with it, so
//!   the map is bounded by what is in flight plus a minute of strays;
//! * ids that were waited for are remembered for a while (hashes in a ring), so that a
//!   repeated message for one is dropped, and not taken for somebody else's;
//! * a command's message that nobody has claimed for [`FOREIGN_AFTER`] belongs to another
//!   client of the profile: a hint that something changed.
//!
//! One mutex, held for map operations only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an unclaimed message is kept: longer than an HTTP reply can take.
const STRAY_LIFE: Duration = Duration::from_secs(60);
/// After how long an unclaimed acknowledgement counts as another client's.
const FOREIGN_AFTER: Duration = Duration::from_secs(2);
/// Unclaimed messages kept at most; beyond that the oldest goes.
const STRAYS_LIMIT: usize = 16_384;
/// Ids remembered after their wait ended.
const DONE_LIMIT: usize = 8_192;

/// The meeting place of messages of type `T`.
#[derive(Debug)]
pub(super) struct Rendezvous<T>(Arc<Mutex<Table<T>>>);

#[derive(Debug)]
struct Table<T> {
    slots: BTreeMap<Box<str>, Slot<T>>,
    /// Strays by age, oldest first; an id that was claimed since is skipped.
    strays: VecDeque<(Instant, Box<str>)>,
    done: BTreeSet<u64>,
    done_order: VecDeque<u64>,
    /// Without a random key, so that runs do not differ. A service that makes ids collide
    /// suppresses messages, which it could as well not send.
    hasher: BuildHasherDefault<DefaultHasher>,
}

#[derive(Debug)]
enum Slot<T> {
    Waiting { inbox: VecDeque<T>, waker: Option<Waker> },
    Stray { inbox: VecDeque<T>, since: Instant, hinted: bool },
}

impl<T> Clone for Rendezvous<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Rendezvous<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Table {
            slots: BTreeMap::new(),
            strays: VecDeque::new(),
            done: BTreeSet::new(),
            done_order: VecDeque::new(),
            hasher: BuildHasherDefault::default(),
        })))
    }
}

impl<T> Rendezvous<T> {
    /// Waits under `id`; messages that came before are there at once.
    pub(super) fn wait(&self, id: &str) -> Wait<T> {
        let mut table = self.0.lock();
        let inbox = match table.slots.remove(id) {
            Some(Slot::Stray { inbox, .. } | Slot::Waiting { inbox, .. }) => inbox,
            None => VecDeque::new(),
        };
        let id: Box<str> = id.into();
        table.slots.insert(id.clone(), Slot::Waiting { inbox, waker: None });
        Wait { table: Arc::clone(&self.0), id }
    }

    /// Brings a message for `id`.
    pub(super) fn deliver(&self, id: &str, message: T) {
        let waker = {
            let mut table = self.0.lock();
            match table.slots.get_mut(id) {
                Some(Slot::Waiting { inbox, waker }) => {
                    inbox.push_back(message);
                    waker.take()
                }
                Some(Slot::Stray { inbox, .. }) => {
                    inbox.push_back(message);
                    None
                }
                None => {
                    table.stray(id, message);
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether [`Rendezvous::sweep`] has something to look at.
    pub(super) fn has_strays(&self) -> bool {
        !self.0.lock().strays.is_empty()
    }

    /// Forgets strays that are too old. Says whether a message for which `is_hint` holds
    /// has become old enough to be another client's since the last sweep.
    pub(super) fn sweep(&self, is_hint: impl Fn(&T) -> bool) -> bool {
        let now = Instant::now();
        let mut table = self.0.lock();
        let Table { slots, strays, .. } = &mut *table;
        let mut foreign = false;
        strays.retain(|(since, id)| match slots.get_mut(id) {
            Some(Slot::Stray { inbox, since: at, hinted }) if at == since => {
                let age = now.saturating_duration_since(*since);
                if age >= FOREIGN_AFTER && !*hinted {
                    *hinted = true;
                    foreign |= inbox.iter().any(&is_hint);
                }
                let keep = age < STRAY_LIFE;
                if !keep {
                    slots.remove(id);
                }
                keep
            }
            _ => false,
        });
        foreign
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().slots.len()
    }
}

impl<T> Table<T> {
    fn stray(&mut self, id: &str, message: T) {
        if self.done.contains(&self.hasher.hash_one(id)) {
            return;
        }
        if self.strays.len() >= STRAYS_LIMIT
            && let Some((_, oldest)) = self.strays.pop_front()
            && matches!(self.slots.get(&oldest), Some(Slot::Stray { .. }))
        {
            self.slots.remove(&oldest);
        }
        let since = Instant::now();
        let slot = Slot::Stray { inbox: VecDeque::from([message]), since, hinted: false };
        self.slots.insert(id.into(), slot);
        self.strays.push_back((since, id.into()));
    }

    fn finish(&mut self, id: &str) {
        self.slots.remove(id);
        let hash = self.hasher.hash_one(id);
        if self.done.insert(hash) {
            self.done_order.push_back(hash);
        }
        if self.done_order.len() > DONE_LIMIT
            && let Some(oldest) = self.done_order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }
}

/// A caller's side of an entry. Dropping it removes the entry.
#[derive(Debug)]
pub(super) struct Wait<T> {
    table: Arc<Mutex<Table<T>>>,
    id: Box<str>,
}

impl<T> Wait<T> {
    /// The next message. Safe to cancel: a message is taken only when it is returned.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let mut table = self.table.lock();
        if let Some(Slot::Waiting { inbox, waker }) = table.slots.get_mut(&self.id) {
            if let Some(message) = inbox.pop_front() {
                return Poll::Ready(message);
            }
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        self.table.lock().finish(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn either_side_may_come_first() {
        let meeting = Rendezvous::default();
        meeting.deliver("early", 1);
        meeting.deliver("early", 2);
        let mut early = meeting.wait("early");
        assert_eq!((early.next().await, early.next().await), (1, 2));

        let mut late = meeting.wait("late");
        let other = meeting.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.deliver("late", 3);
        });
        assert_eq!(late.next().await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_loses_no_message() {
        let meeting = Rendezvous::default();
        let mut wait = meeting.wait("id");
        let none = tokio::time::timeout(Duration::from_secs(1), wait.next()).await;
        assert!(none.is_err());
        meeting.deliver("id", 7);
        assert_eq!(wait.next().await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_takes_its_entry_and_later_messages_with_it() {
        let meeting = Rendezvous::default();
        drop(meeting.wait("id"));
        meeting.deliver("id", 1);
        assert_eq!(meeting.len(), 0);
        assert!(!meeting.has_strays());
    }

    #[tokio::test(start_paused = true)]
    async fn strays_become_hints_once_and_then_expire() {
        let meeting = Rendezvous::default();
        meeting.deliver("stray", 1);
        assert!(!meeting.sweep(|_| true), "the reply that names it may still come");
        tokio::time::advance(FOREIGN_AFTER).await;
        assert!(!meeting.sweep(|message| *message == 2));
        meeting.deliver("other", 2);
        tokio::time::advance(FOREIGN_AFTER).await;
        assert!(meeting.sweep(|_| true));
        assert!(!meeting.sweep(|_| true), "told once");
        tokio::time::advance(STRAY_LIFE).await;
        meeting.sweep(|_| true);
        assert_eq!(meeting.len(), 0);
        assert!(!meeting.has_strays());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claimed_stray_is_no_hint_and_does_not_expire() {
        let meeting = Rendezvous::default();
        meeting.deliver("id", 1);
        let mut wait = meeting.wait("id");
        tokio::time::advance(STRAY_LIFE * 2).await;
        assert!(!meeting.sweep(|_| true));
        assert_eq!(wait.next().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_map_is_bounded() {
        let meeting = Rendezvous::default();
        for i in 0..STRAYS_LIMIT + 10 {
            meeting.deliver(&i.to_string(), i);
        }
        assert_eq!(meeting.len(), STRAYS_LIMIT);
        for i in 0..DONE_LIMIT + 10 {
            drop(meeting.wait(&format!("w{i}")));
        }
        assert_eq!(meeting.0.lock().done.len(), DONE_LIMIT);
    }
}
