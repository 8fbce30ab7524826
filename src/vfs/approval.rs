//! Files whose operation waits for a vote.
//!
//! Invariants
//! * Waiting occupies nothing but the caller: no permit, no buffer, no place among the
//!   uploads. The store fails a held call at once, and what waits, waits here.
//! * One vote per content. A put that is held is made again under the same mark, with the very
//!   same bytes, and the store gives its outcome; until then the file is not read or sealed again. Its content
//!   is known by the very [`Body`] and its generation: the body is kept in memory as long.
//! * The mark of a held put stays alive until its vote is over, so that housekeeping does
//!   not take it for settled; what it stored for a content that has changed meanwhile is
//!   then deleted by its mark, like any remains.
//! * Once a read has been held, nothing is fetched ahead of its reader any more: nobody is
//!   asked to vote about what nobody reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{Body, Need};
use super::error::{VfsError, VfsResult};
use super::status::LiveMark;
use super::{Ino, Vfs};
use crate::crypto::{IV_LEN, Identity};
use crate::store::{Hold, Reference, StoreError};

/// How long a call that a vote has refused is not made again by itself.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_secs(3600);

/// The kernel reads a page again that it could not read ahead: for this long, that is not
/// taken for somebody who tries again, who would wait again or open another vote.
const REPEATED: Duration = Duration::from_secs(1);

/// Which payload of a file: a part, or the one that stands for all of it.
pub(super) type Slot = Option<u64>;

/// How a payload was sealed: what it takes to make the very same bytes again. It is kept for one
/// content, never for two.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    pub(super) iv: [u8; IV_LEN],
    /// What was made, once all of it has been.
    pub(super) identity: Arc<OnceLock<Identity>>,
}

impl Seal {
    /// One that begins with this IV.
    pub(super) fn new(iv: [u8; IV_LEN]) -> Self {
        Self { iv, identity: Arc::default() }
    }

    /// That of a payload which has this identity.
    pub(super) fn of(identity: Identity) -> Self {
        let seal = Self::new(identity.iv);
        seal.identity.get_or_init(|| identity);
        seal
    }
}

/// A put that is held.
struct HeldPut {
    hold: Arc<Hold>,
    mark: LiveMark,
    seal: Seal,
    body: Arc<Body>,
    generation: u64,
}

impl HeldPut {
    /// Whether its content is still wanted in the vault.
    fn is_current(&self) -> bool {
        let state = self.body.state.read();
        state.dirty && !state.discarded && state.generation == self.generation
    }
}

/// What waits for votes.
#[derive(Default)]
pub(super) struct Approvals {
    files: Mutex<BTreeMap<Ino, Arc<Hold>>>,
    puts: Mutex<BTreeMap<Ino, BTreeMap<Slot, HeldPut>>>,
    failed: Mutex<BTreeMap<Ino, (Instant, VfsError)>>,
    reads_are_held: AtomicBool,
}

impl Approvals {
    /// Notes that an operation on a file is held.
    pub(super) fn note(&self, ino: Ino, hold: &Arc<Hold>) {
        if hold.operation() == "get" {
            self.reads_are_held.store(true, Ordering::Relaxed);
        }
        let mut files = self.files.lock();
        files.retain(|_, hold| !hold.is_settled());
        files.insert(ino, Arc::clone(hold));
    }

    /// What a file waits for.
    pub(super) fn of(&self, ino: Ino) -> Option<Arc<Hold>> {
        let mut files = self.files.lock();
        let hold = files.get(&ino)?.clone();
        if hold.is_settled() {
            files.remove(&ino);
            return None;
        }
        Some(hold)
    }

    /// Notes that a read failed for want of an approval.
    fn note_failed(&self, ino: Ino, error: &VfsError) {
        let mut failed = self.failed.lock();
        failed.retain(|_, (at, _)| at.elapsed() < REPEATED);
        failed.insert(ino, (Instant::now(), error.clone()));
    }

    /// The failure that a read would only repeat.
    fn just_failed(&self, ino: Ino) -> Option<VfsError> {
        let (at, error) = self.failed.lock().get(&ino)?.clone();
        let over = matches!(&error, VfsError::AwaitingApproval { hold, .. } if hold.is_settled());
        (!over && at.elapsed() < REPEATED).then_some(error)
    }

    /// All files that wait.
    pub(super) fn all(&self) -> Vec<(Ino, Arc<Hold>)> {
        let files = self.files.lock();
        let waiting = files.iter().filter(|(_, hold)| !hold.is_settled());
        waiting.map(|(ino, hold)| (*ino, Arc::clone(hold))).collect()
    }

    /// Whether reads may be held, so that reading ahead would ask for votes.
    pub(super) fn reads_are_held(&self) -> bool {
        self.reads_are_held.load(Ordering::Relaxed)
    }

    /// The mark under which this very content was put and held, if it was, and how it was sealed.
    pub(super) fn resume(
        &self,
        (body, slot, generation): (&Arc<Body>, Slot, u64),
    ) -> Option<(LiveMark, Seal)> {
        let mut puts = self.puts.lock();
        let of_file = puts.get_mut(&body.ino)?;
        let held = of_file.get(&slot)?;
        if !Arc::ptr_eq(&held.body, body) || held.generation != generation {
            return None;
        }
        let held = of_file.remove(&slot)?;
        if of_file.is_empty() {
            puts.remove(&body.ino);
        }
        Some((held.mark, held.seal))
    }

    /// Keeps the mark of a put that is held, and how it was sealed.
    pub(super) fn keep(
        &self,
        (body, slot, generation): (&Arc<Body>, Slot, u64),
        (mark, seal): (LiveMark, Seal),
        hold: Arc<Hold>,
    ) {
        let held = HeldPut { hold, mark, seal, body: Arc::clone(body), generation };
        self.puts.lock().entry(body.ino).or_default().insert(slot, held);
    }

    /// Forgets puts whose vote is over and whose content is not wanted any more: their
    /// remains may be looked for. Gives the contents that need not be kept for them.
    pub(super) fn forget_obsolete(&self) -> Vec<Arc<Body>> {
        let mut let_go = Vec::new();
        self.puts.lock().retain(|_, of_file| {
            of_file.retain(|_, held| {
                let keep = !held.hold.is_settled() || held.is_current();
                if !keep {
                    let_go.push(Arc::clone(&held.body));
                }
                keep
            });
            !of_file.is_empty()
        });
        let_go
    }

    /// A put of this file whose vote is not over.
    fn open_put(&self, ino: Ino) -> Option<Arc<Hold>> {
        let puts = self.puts.lock();
        let open = puts.get(&ino)?.values().find(|held| !held.hold.is_settled());
        open.map(|held| Arc::clone(&held.hold))
    }
}

/// The hold of an error, if a vote is what it is about.
pub(super) fn hold_of(error: &StoreError) -> Option<&Arc<Hold>> {
    error.hold.as_ref().filter(|_| error.kind == crate::store::StoreErrorKind::AwaitingApproval)
}

impl Vfs {
    /// If `done` says that a vote holds an operation on this file, waits for the vote until
    /// `limit`, and then fails with [`VfsError::AwaitingApproval`]: it may be tried again.
    pub(super) async fn await_vote<T>(
        &self,
        ino: Ino,
        limit: Instant,
        done: &VfsResult<T>,
    ) -> VfsResult<()> {
        let (what, hold) = match done {
            Err(VfsError::AwaitingApproval { what, hold }) => (what, hold),
            _ => return Ok(()),
        };
        self.approvals.note(ino, hold);
        timeout_at(limit, hold.settled()).await.map_err(|_| {
            let (what, hold) = (what.clone(), Arc::clone(hold));
            VfsError::AwaitingApproval { what, hold }
        })
    }

    /// The files that wait for votes, by their paths.
    pub fn waiting(&self) -> Vec<(String, Arc<Hold>)> {
        let waiting = self.approvals.all().into_iter();
        waiting.map(|(ino, hold)| (self.name_of(ino), hold)).collect()
    }

    /// Fetches what a reader needs, and waits for a vote about it for the configured time.
    pub(super) async fn satisfy_approved(
        &self,
        ino: Ino,
        need: Need,
        held: &mut Vec<(Reference, Bytes)>,
    ) -> VfsResult<()> {
        if let Some(error) = self.approvals.just_failed(ino) {
            return Err(error);
        }
        let limit = Instant::now() + self.config.approval_timeout;
        loop {
            let done = self.satisfy_now(ino, need.clone(), held).await;
            let waited = self.await_vote(ino, limit, &done).await;
            match (waited, done) {
                (Ok(()), Err(VfsError::AwaitingApproval { .. })) => {}
                (Err(error), _) | (_, Err(error @ VfsError::Denied { .. })) => {
                    self.approvals.note_failed(ino, &error);
                    return Err(error);
                }
                (_, done) => {
                    if matches!(self.counters.failure(ino), Some(VfsError::Denied { .. })) {
                        self.counters.clear_failure(ino);
                    }
                    return done;
                }
            }
        }
    }

    /// Fails while a put of this file waits for a vote: another content would need another.
    pub(super) fn check_no_open_put(&self, ino: Ino) -> VfsResult<()> {
        match self.approvals.open_put(ino) {
            None => Ok(()),
            Some(hold) => Err(VfsError::AwaitingApproval { what: self.name_of(ino), hold }),
        }
    }

    /// Uploads a file again once its vote is over.
    pub(super) fn upload_when_settled(self: &Arc<Self>, ino: Ino, bytes: u64, hold: Arc<Hold>) {
        let this = Arc::downgrade(self);
        self.spawn(async move {
            hold.settled().await;
            if let Some(this) = this.upgrade()
                && this.queue.holds(ino)
            {
                this.queue.set(ino, bytes, Duration::ZERO);
            }
        });
    }

    /// Publishes, but waits for a vote about the catalog no longer than the configured time.
    pub(super) async fn publish_patiently(self: &Arc<Self>) -> VfsResult<()> {
        let limit = Instant::now() + self.config.approval_timeout;
        let held = |hold| VfsError::AwaitingApproval { what: "catalog".into(), hold };
        if let Some(hold) = self.remote.pending_approval()
            && timeout_at(limit, hold.settled()).await.is_err()
        {
            return Err(held(hold));
        }
        // Goes on by itself: a segment that is on its way is not cut off.
        let this = self.clone();
        let mut publishing = self.env.spawn(async move { this.publish_now().await });
        loop {
            if let Ok(done) = timeout(LOOK_AT_HOLD, &mut publishing).await {
                return done.unwrap_or_else(|_| Err(VfsError::Closing { what: "catalog".into() }));
            }
            if let Some(hold) = self.remote.pending_approval()
                && Instant::now() >= limit
            {
                return Err(held(hold));
            }
        }
    }
}

/// How often a publication that takes long is looked at.
const LOOK_AT_HOLD: Duration = Duration::from_secs(1);
