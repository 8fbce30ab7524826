//! Write-back: which files wait for the vault, and when each goes.
//!
//! A file goes a moment after its last writer closed it ([`SETTLE`]), so that what a tool
//! does in quick succession is one upload under the final name; a file that stays open
//! goes when it has been quiet for [`QUIET`] or dirty for [`DIRTY_MAX`]; a large one that
//! is still being written sends its finished parts early. `sync` makes everything due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::approval::AFTER_REFUSAL;
use super::body::{Body, State};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};

/// After a close: rsync renames and sets times within this.
const SETTLE: Duration = Duration::from_millis(400);

/// An open file that has not been written for this long is worth an upload.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// A file that is written all the time is uploaded this often.
const DIRTY_MAX: Duration = Duration::from_secs(30);

/// Parts that are finished within this go together.
const EARLY: Duration = Duration::from_millis(200);

/// First and longest wait before a failed upload is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A file that waits for a vote is looked at after this time at the latest.
const FOLLOWED: Duration = Duration::from_secs(600);

/// One waiting file.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Instant,
    bytes: u64,
    attempts: u32,
}

#[derive(Default, Debug)]
struct Table {
    files: BTreeMap<Ino, Waiting>,
    /// Bytes of `files`.
    bytes: u64,
    order: BTreeSet<(Instant, Ino)>,
    running: BTreeMap<Ino, u64>,
}

/// The files that wait for the vault.
#[derive(Default, Debug)]
pub(super) struct Queue {
    table: Mutex<Table>,
    /// How many wait for everything.
    hurries: AtomicUsize,
    /// Woken when the earliest due time may have changed, or a file is done.
    pub(super) changed: Notify,
}

/// While it lives, nothing in the queue waits to settle.
pub(super) struct Hurry<'a>(&'a Queue);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Table {
    fn set(&mut self, ino: Ino, waiting: Waiting) {
        self.take(ino);
        self.files.insert(ino, waiting);
        self.bytes += waiting.bytes;
        self.order.insert((waiting.due, ino));
    }

    fn take(&mut self, ino: Ino) -> Option<Waiting> {
        let waiting = self.files.remove(&ino)?;
        self.bytes -= waiting.bytes;
        self.order.remove(&(waiting.due, ino));
        Some(waiting)
    }
}

impl Queue {
    /// Queues a file, due now.
    pub(super) fn add(&self, ino: Ino, bytes: u64) {
        self.set(ino, bytes, Duration::ZERO);
    }

    /// Queues a file (or moves it in the queue), due after `delay`.
    pub(super) fn set(&self, ino: Ino, bytes: u64, delay: Duration) {
        let mut table = self.table.lock();
        let attempts = table.files.get(&ino).map_or(0, |w| w.attempts);
        let hurried = self.hurries.load(Ordering::SeqCst) > 0;
        let delay = if hurried { Duration::ZERO } else { delay };
        table.set(ino, Waiting { due: Instant::now() + delay, bytes, attempts });
        drop(table);
        self.changed.notify_one();
    }

    /// Queues a file, due after `delay` or when it was due already.
    fn set_by(&self, ino: Ino, bytes: u64, delay: Duration) {
        let latest = Instant::now() + delay;
        let due = self.table.lock().files.get(&ino).map(|waiting| waiting.due);
        if due.is_none_or(|due| due > latest) {
            self.set(ino, bytes, delay);
        }
    }

    /// Takes a file out for good.
    pub(super) fn remove(&self, ino: Ino) {
        self.table.lock().take(ino);
        self.changed.notify_waiters();
    }

    /// Makes everything due, and whatever is queued while the answer is held.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.hurries.fetch_add(1, Ordering::SeqCst);
        let mut table = self.table.lock();
        let now = Instant::now();
        let files: Vec<_> = table.files.iter().map(|(ino, w)| (*ino, *w)).collect();
        for (ino, waiting) in files {
            table.set(ino, Waiting { due: waiting.due.min(now), ..waiting });
        }
        drop(table);
        self.changed.notify_one();
        Hurry(self)
    }

    /// The next due file, which then counts as running; or when to ask again.
    fn next(&self) -> Result<(Ino, Waiting), Option<Instant>> {
        let mut table = self.table.lock();
        let now = Instant::now();
        let first = table.order.iter().find(|(_, ino)| !table.running.contains_key(ino)).copied();
        match first {
            Some((due, ino)) if due <= now => {
                let waiting = table.take(ino).ok_or(None)?;
                table.running.insert(ino, waiting.bytes);
                Ok((ino, waiting))
            }
            Some((due, _)) => Err(Some(due)),
            None => Err(None),
        }
    }

    fn done(&self, ino: Ino) {
        self.table.lock().running.remove(&ino);
        self.changed.notify_one();
        self.changed.notify_waiters();
    }

    /// Files and bytes that wait or are under way.
    pub(super) fn left(&self) -> (u64, u64) {
        let table = self.table.lock();
        let (mut files, mut bytes) = (table.files.len() as u64, table.bytes);
        for (ino, running) in &table.running {
            // what waits again while it is under way counts once
            let again = table.files.get(ino);
            files += u64::from(again.is_none());
            bytes = bytes + running - again.map_or(0, |w| w.bytes);
        }
        (files, bytes)
    }

    /// Whether a file waits or is under way.
    pub(super) fn holds(&self, ino: Ino) -> bool {
        let table = self.table.lock();
        table.files.contains_key(&ino) || table.running.contains_key(&ino)
    }

    /// Files under way.
    pub(super) fn running(&self) -> u64 {
        self.table.lock().running.len() as u64
    }
}

impl Vfs {
    /// Queues a file whose last writer closed it.
    pub(super) fn queue_upload(&self, body: &Arc<Body>) {
        let (dirty, size, writers) = {
            let state = body.state.read();
            (state.dirty && !state.discarded, state.size, state.writers)
        };
        if dirty && self.goes_to_the_vault(body.ino) {
            self.queue.set(body.ino, size, if writers == 0 { SETTLE } else { QUIET });
        }
    }

    /// A name that was local only is not any more.
    pub(super) fn queue_if_dirty(&self, parent: Ino, name: &[u8]) {
        if let Ok(inode) = self.tree.lookup(parent, name)
            && inode.local.dirty.is_some()
        {
            self.queue.set(inode.ino, inode.size(), SETTLE);
        }
    }

    /// Whether a write has just finished a part of a file that will be split.
    pub(super) fn wants_early_upload(&self, state: &State, offset: u64, len: usize) -> bool {
        let Some(limit) = self.config.split_above else { return false };
        let part = self.config.part_size.max(1);
        state.size > limit && (offset + len as u64) / part > offset / part
    }

    /// Sends the finished parts of a file that is still being written.
    pub(super) fn queue_early(&self, ino: Ino) {
        if let Some(body) = self.find_body(ino) {
            let size = body.state.read().size;
            self.queue.set_by(ino, size, EARLY);
        }
    }

    /// Sees to files that are dirty and open and were not queued by a close.
    pub(super) fn queue_open_files(&self) {
        let now = Instant::now();
        for body in self.open_bodies() {
            let Some(state) = body.state.try_read() else { continue };
            let stale = now.duration_since(state.last_change) > QUIET
                || now.duration_since(state.dirty_since) > DIRTY_MAX;
            if state.dirty && state.writers > 0 && !state.uploading && stale {
                let size = state.size;
                drop(state);
                if let Err(error) = self.persist(&body) {
                    tracing::warn!(
                        ino = body.ino,
                        error = error.logged(),
                        "an open file could not be recorded"
                    );
                    continue;
                }
                if self.goes_to_the_vault(body.ino) {
                    self.queue.set(body.ino, size, Duration::ZERO);
                }
            }
        }
    }

    /// Takes due files from the queue and uploads them, several at once, until told to stop.
    pub(super) async fn run_uploads(self: Arc<Self>) {
        loop {
            let woken = self.queue.changed.notified();
            let Ok(permit) = self.uploads.clone().acquire_owned().await else { return };
            match self.queue.next() {
                Ok((ino, waiting)) => {
                    let this = self.clone();
                    drop(self.env.spawn(async move {
                        this.upload_one(ino, waiting).await;
                        drop(permit);
                    }));
                }
                Err(due) => {
                    drop(permit);
                    let far = Instant::now() + Duration::from_secs(3600);
                    // Either way the queue is looked at anew: the order decides nothing.
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = tokio::time::sleep_until(due.unwrap_or(far)) => {}
                    }
                }
            }
        }
    }

    async fn upload_one(self: &Arc<Self>, ino: Ino, waiting: Waiting) {
        let result = self.upload_ino(ino).await;
        let mut failed = None;
        if let Err(VfsError::AwaitingApproval { hold, .. }) = result {
            // Not before its vote is over; `upload_when_settled` sees to that.
            let due = Instant::now() + FOLLOWED;
            let mut table = self.queue.table.lock();
            table.set(ino, Waiting { due, bytes: waiting.bytes, attempts: 0 });
            drop(table);
            self.upload_when_settled(ino, waiting.bytes, hold);
        } else if let Err(error) = result {
            let refused = matches!(error, VfsError::Denied { .. });
            let delay = if refused { AFTER_REFUSAL } else { retry_delay(waiting.attempts) };
            tracing::warn!(ino, error = error.logged(), retry_in = ?delay, "an upload failed");
            self.note_upload_failure(ino, &error);
            failed = Some((delay, waiting.attempts + 1));
        } else {
            self.counters.clear_failure(ino);
        }
        if let Some((delay, attempts)) = failed {
            let mut table = self.queue.table.lock();
            let due = Instant::now() + delay;
            table.set(ino, Waiting { due, bytes: waiting.bytes, attempts });
        }
        self.queue.done(ino);
    }

    async fn upload_ino(self: &Arc<Self>, ino: Ino) -> VfsResult<()> {
        let Some(inode) = self.tree.find_inode(ino)? else { return Ok(()) };
        if inode.local.dirty.is_none() && self.find_body(ino).is_none() {
            return Ok(());
        }
        let body = self.body(ino)?;
        let result = self.upload(&body, false).await;
        self.retire(&body);
        result
    }
}

fn retry_delay(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempts.min(6)).min(RETRY_MAX)
}
