//! What the control socket asks of this mount.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::backend::Vault;
use super::config::MountConfig;
use super::pending;
use crate::control::{Failure, FailureKind, Mounted, Progress, ProgressSink};
use crate::fuse::Session;
use crate::privicore::Client;
use crate::vfs::{SyncProgress, Vfs, VfsResult};

/// Tries to unmount before files count as open: what closed them may still be ending.
const UNMOUNT_TRIES: u32 = 10;
/// Pause between them.
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// Where a mount is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Mounted, answering.
    Serving,
    /// Bringing what is left into the vault.
    Draining,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// How far an unmount by request has come.
#[derive(Clone, Copy, Debug, Default)]
struct Unmounted {
    /// The kernel's mount is gone.
    done: bool,
    /// By force: nothing more is waited for.
    force: bool,
}

/// The mount as the control socket sees it.
pub(super) struct Controls {
    mount_point: PathBuf,
    state_dir: PathBuf,
    cache_dir: PathBuf,
    api_url: String,
    client: Arc<Client>,
    vfs: Arc<Vfs>,
    session: Arc<Session>,
    phase: watch::Sender<Phase>,
    unmounted: watch::Sender<Unmounted>,
    /// What was left when the operations layer had shut down; `None` until then.
    closed: watch::Sender<Option<Progress>>,
}

impl Controls {
    pub(super) fn new(
        config: &MountConfig,
        vault: &Vault,
        vfs: &Arc<Vfs>,
        session: &Arc<Session>,
    ) -> Arc<Self> {
        Arc::new(Self {
            mount_point: config.mount_point.clone(),
            state_dir: config.state_dir.clone(),
            cache_dir: config.cache_dir.clone(),
            api_url: vault.api_url.to_string(),
            client: Arc::clone(&vault.client),
            vfs: Arc::clone(vfs),
            session: Arc::clone(session),
            phase: watch::Sender::new(Phase::Serving),
            unmounted: watch::Sender::default(),
            closed: watch::Sender::default(),
        })
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until a request has taken the mount away.
    pub(super) async fn unmounted(&self) {
        // the sender is in `self`, so this cannot fail
        let _ = self.unmounted.subscribe().wait_for(|unmounted| unmounted.done).await;
    }

    /// Whether a request ended the mount by force.
    pub(super) fn force_used(&self) -> bool {
        self.unmounted.borrow().force
    }

    /// Everything is shut down; `left` did not reach the vault.
    pub(super) fn close(&self, left: Progress) {
        self.closed.send_replace(Some(left));
    }

    fn incomplete(&self, left: Progress, why: &str) -> Failure {
        let kept = self.state_dir.display();
        let Progress { files_left, bytes_left, records_left } = left;
        let message = format!(
            "{why}: {files_left} files ({bytes_left} bytes) and {records_left} catalog records \
             are not in the vault; they are kept in {kept}"
        );
        Failure { kind: FailureKind::Incomplete, message, left: Some(left) }
    }
}

/// Phase `Draining` that goes back to `Serving` unless it is kept.
struct Drain {
    phase: watch::Sender<Phase>,
    kept: bool,
}

impl Drop for Drain {
    fn drop(&mut self) {
        if !self.kept {
            self.phase.send_replace(Phase::Serving);
        }
    }
}

/// Keeps the latest progress, for the failure's message, and passes it on.
fn watched(
    sink: ProgressSink,
) -> (watch::Receiver<Progress>, Arc<dyn Fn(SyncProgress) + Send + Sync>) {
    let (latest, seen) = watch::channel(Progress::default());
    let pass = move |now: SyncProgress| {
        let now = Progress {
            files_left: now.files_left,
            bytes_left: now.bytes_left,
            records_left: now.records_left,
        };
        latest.send_replace(now);
        sink(now);
    };
    (seen, Arc::new(pass))
}

impl Mounted for Arc<Controls> {
    fn status(&self) -> Value {
        let mut status = json!({
            "mountpoint": self.mount_point.to_string_lossy(),
            "pid": std::process::id(),
            "state": self.phase.borrow().as_str(),
            "api_url": self.api_url,
            "connected": self.client.health().connected,
            "login": self.client.login_trouble().unwrap_or_else(|| "ok".to_owned()),
            "state_dir": self.state_dir.to_string_lossy(),
            "cache_dir": self.cache_dir.to_string_lossy(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let below = serde_json::to_value(self.vfs.status());
        if let (Some(all), Ok(Value::Object(below))) = (status.as_object_mut(), below) {
            all.extend(below);
        }
        status
    }

    fn pending(&self) -> BoxFuture<'static, Vec<Value>> {
        Box::pin(pending::list(Arc::clone(&self.client), self.vfs.waiting()))
    }

    fn sync(
        &self,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let this = Arc::clone(self);
        Box::pin(async move { this.drain(timeout, progress).await })
    }

    fn unmount(
        &self,
        timeout: Option<Duration>,
        force: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let mut drain = Drain { phase: this.phase.clone(), kept: false };
            this.enter(Phase::Draining);
            match this.drain(timeout, progress).await {
                Err(failure) if !force => return Err(failure),
                Err(_) => tracing::warn!("unmounting by force"),
                Ok(()) => {}
            }
            // first: the mount's end may be noticed before this goes on
            this.unmounted.send_modify(|unmounted| unmounted.force = force);
            if let Err(failure) = this.take_away(force).await {
                this.unmounted.send_modify(|unmounted| unmounted.force = false);
                return Err(failure);
            }
            drain.kept = true;
            this.unmounted.send_modify(|unmounted| unmounted.done = true);
            this.outcome().await
        })
    }
}

impl Controls {
    /// Brings everything into the vault, or says what is left.
    async fn drain(
        &self,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> Result<(), Failure> {
        let (left, sink) = watched(progress);
        let result: VfsResult<()> = Arc::clone(&self.vfs).sync_all(timeout, sink).await;
        result.map_err(|error| {
            tracing::warn!("sync: not everything reached the vault");
            self.incomplete(*left.borrow(), &error.to_string())
        })
    }

    /// Takes the kernel's mount away; by force even with open files.
    async fn take_away(&self, force: bool) -> Result<(), Failure> {
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..UNMOUNT_TRIES {
            let session = Arc::clone(&self.session);
            let tried = spawn_blocking(move || session.unmount(false)).await;
            match tried.map_err(io::Error::other).and_then(|result| result) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            if force {
                break;
            }
            sleep(UNMOUNT_PAUSE).await;
        }
        if force {
            let session = Arc::clone(&self.session);
            let tried = spawn_blocking(move || session.unmount(true)).await;
            match tried.map_err(io::Error::other).and_then(|result| result) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        let busy = last.kind() == io::ErrorKind::ResourceBusy;
        let message = if busy {
            "everything is in the vault, but files on the mount are in use: close them, or leave \
             the folder, and try again (or --force)"
                .to_owned()
        } else {
            format!("cannot unmount: {last}")
        };
        let kind = if busy { FailureKind::Busy } else { FailureKind::Failed };
        Err(Failure { kind, message, left: None })
    }

    /// Waits for the shutdown; what was written while the mount went away counts too.
    async fn outcome(&self) -> Result<(), Failure> {
        let mut closed = self.closed.subscribe();
        let left = match closed.wait_for(Option::is_some).await {
            Ok(left) => left.unwrap_or_default(),
            Err(_) => Progress::default(),
        };
        if left.is_done() { Ok(()) } else { Err(self.incomplete(left, "unmounted")) }
    }
}
