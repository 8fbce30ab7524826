//! Waiting for the vault: `fsync`, `sync`, unmount.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::body::Body;
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// A sync without a deadline gives up when files fail and nothing has moved for this many
/// operation deadlines.
const PATIENCE: u32 = 2;

/// What is still to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SyncProgress {
    /// Files.
    pub files_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Catalog records.
    pub records_left: u64,
}

/// How a drain ended.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DrainReport {
    /// Files that did not reach the vault; they are kept in the state directory.
    pub files_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Catalog records that did not.
    pub records_left: u64,
    /// Why, if something is left.
    pub reason: Option<String>,
}

impl Vfs {
    /// Files and bytes whose content waits for the vault, open ones included.
    pub(super) fn left(&self) -> (u64, u64) {
        let (mut files, mut bytes) = self.queue.left();
        for body in self.open_bodies() {
            let Some(state) = body.state.try_read() else { continue };
            let waits = state.dirty && state.writers > 0 && !self.queue.holds(body.ino);
            let size = state.size;
            drop(state);
            if waits && self.goes_to_the_vault(body.ino) {
                files += 1;
                bytes += size;
            }
        }
        (files, bytes)
    }

    /// Whether a file has a name that is wanted in the vault. What was removed here and is still
    /// open stays here: written to the vault, it would be seen to live.
    pub(super) fn goes_to_the_vault(&self, ino: Ino) -> bool {
        let inode = self.tree.find_inode(ino);
        matches!(inode, Ok(Some(inode)) if !inode.local.unwanted && inode.local.nlink > 0)
    }

    /// One file and its record are in the vault.
    pub(super) async fn commit_file(self: &Arc<Self>, body: &Arc<Body>) -> VfsResult<()> {
        let inode = self.tree.inode(body.ino)?;
        if inode.local.unwanted || inode.local.nlink == 0 {
            return Ok(self.tree.sync()?); // never goes to the vault
        }
        let wanted = body.state.read().generation;
        let limit = Instant::now() + self.config.approval_timeout;
        loop {
            let done = self.upload(body, true).await;
            self.await_vote(body.ino, limit, &done).await?;
            match done {
                Err(VfsError::AwaitingApproval { .. }) => continue,
                done => done?,
            }
            let state = body.state.read();
            // Writes that came after the call may go on: what was there then is committed.
            if !state.dirty || state.committed >= wanted {
                break;
            }
        }
        self.counters.clear_failure(body.ino);
        self.publish_patiently().await?;
        if self.tree.is_queued(body.ino)? && !body.state.read().dirty {
            self.publish_patiently().await?;
        }
        Ok(())
    }

    /// Everything is in the vault, or an error says what is not.
    pub async fn sync_all(
        self: Arc<Self>,
        deadline: Option<Duration>,
        progress: Arc<dyn Fn(SyncProgress) + Send + Sync>,
    ) -> VfsResult<()> {
        let _hurry = self.queue.hurry();
        let started = Instant::now();
        let mut pause = PROGRESS / 20;
        let mut moved = Instant::now();
        let mut before = (SyncProgress::default(), 0);
        loop {
            self.queue_everything()?;
            let (files_left, bytes_left) = self.left();
            let mut refused = None;
            if files_left == 0 {
                refused = self.publish_patiently().await.err(); // may be passing: see `stuck`
            }
            let records_left = self.remote.waiting(u64::MAX)?;
            let now = SyncProgress { files_left, bytes_left, records_left };
            progress(now);
            if files_left == 0 && records_left == 0 {
                if let Err(error) = self.clear_intents().await {
                    let error = error.logged();
                    tracing::warn!(error, "remains of interrupted uploads: trying again later");
                }
                return Ok(self.tree.sync()?);
            }
            let sent = self.counters.uploaded.load(Ordering::Relaxed);
            if (now, sent) != before {
                (before, moved) = ((now, sent), Instant::now());
            }
            // An upload under way has deadlines of its own: it ends, or it fails.
            let hopeless = self.queue.running() == 0 || self.counters.has_failures().is_some();
            let patience = (self.config.deadline * PATIENCE).max(self.config.approval_timeout);
            let stuck = hopeless && moved.elapsed() > patience;
            if stuck || deadline.is_some_and(|d| started.elapsed() > d) {
                return Err(self.not_all(now, refused));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROGRESS);
        }
    }

    fn not_all(&self, left: SyncProgress, refused: Option<VfsError>) -> VfsError {
        let awaited = || {
            let (ino, hold) = self.approvals.all().into_iter().next()?;
            Some(VfsError::AwaitingApproval { what: self.name_of(ino), hold })
        };
        let cause = refused.or_else(|| self.counters.has_failures()).or_else(awaited);
        let why = format!(
            "{} files ({} bytes) and {} records have not reached the vault; they are kept on this machine{}",
            left.files_left,
            left.bytes_left,
            left.records_left,
            cause.map(|e| format!(": {e}")).unwrap_or_default()
        );
        VfsError::TimedOut { what: "sync".into(), why }
    }

    /// Queues everything that waits, open files included: `close` returns before the
    /// kernel tells us of the release, so open handles may be closed ones.
    fn queue_everything(&self) -> VfsResult<()> {
        for body in self.open_bodies() {
            let (dirty, size, uploading) = {
                let state = body.state.read();
                (state.dirty && !state.discarded, state.size, state.uploading)
            };
            if !dirty {
                continue;
            }
            self.persist(&body)?;
            let wanted = self.goes_to_the_vault(body.ino);
            if wanted && !uploading && !self.queue.holds(body.ino) {
                self.queue.set(body.ino, size, Duration::ZERO);
            }
        }
        Ok(())
    }

    /// Says in the vault that this mount writes nothing any more.
    async fn close_writer(&self) -> VfsResult<()> {
        let _one = self.publishing.lock().await;
        Ok(self.remote.close_writer().await?)
    }

    /// Drains within `deadline`, stops the background, closes the local database.
    pub async fn shutdown(self: Arc<Self>, deadline: Duration) -> DrainReport {
        self.closing.store(true, Ordering::SeqCst);
        let mut report = DrainReport::default();
        if !self.config.read_only {
            let quiet = Arc::new(|_: SyncProgress| ());
            let drained = tokio::time::timeout(
                deadline + self.config.deadline,
                self.clone().sync_all(Some(deadline), quiet),
            )
            .await;
            report.reason = match drained {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the drain took too long".into()),
            };
        }
        report.records_left = self.remote.waiting(u64::MAX).unwrap_or(0);
        if report.reason.is_none() && !self.config.read_only {
            let closed = tokio::time::timeout(self.config.deadline, self.close_writer()).await;
            if let Ok(Err(error)) = closed {
                tracing::info!(error = error.logged(), "the end of this mount could not be said");
            }
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            let _ended = task.await;
        }
        (report.files_left, report.bytes_left) = self.left();
        if report.files_left == 0 && report.records_left == 0 {
            report.reason = None;
        }
        if let Err(error) = self.tree.db().close() {
            tracing::error!(%error, "the local database could not be closed");
        }
        report
    }
}
