//! The mount's end: accept, check the peer, one request per connection.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failure, FailureKind, HEARTBEAT, Progress, Reply, Request, own_uid};

/// Longest request line; requests are tens of bytes.
const MAX_REQUEST: u64 = 4096;
/// How long a peer may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Receives progress while an operation runs; only the latest matters.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What the server needs of the mount.
pub trait Mounted: Send + Sync + 'static {
    /// The status object.
    fn status(&self) -> serde_json::Value;
    /// What waits for a vote; may ask the service on whom.
    fn pending(&self) -> BoxFuture<'static, Vec<serde_json::Value>>;
    /// Brings everything into the vault.
    fn sync(
        &self,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>>;
    /// Drains and unmounts; completes once the operations layer has shut down. Dropped
    /// if the peer goes away, which before the unmount means: stay mounted.
    fn unmount(
        &self,
        timeout: Option<Duration>,
        force: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>>;
}

/// A listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Listens at `path`, inside a folder from [`super::socket_dir`], and serves `mounted`.
    /// `AddrInUse` if another process listens there. Call within a runtime.
    pub fn start(path: PathBuf, mounted: Arc<dyn Mounted>) -> io::Result<Self> {
        let listener = bind(&path)?;
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        tokio::spawn(accept(listener, mounted, connections.clone(), stop.clone()));
        Ok(Self { path, stop, connections })
    }

    /// Takes no more connections and waits, at most `patience`, for those open to get
    /// their last line.
    pub async fn finish(self, patience: Duration) {
        self.stop.cancel();
        self.connections.close();
        if timeout(patience, self.connections.wait()).await.is_err() {
            tracing::debug!("a control connection did not end in time");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        // best effort: a socket file without a listener is taken for stale
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds, replacing a socket file whose owner is gone.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    mounted: Arc<dyn Mounted>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&mounted)));
            }
            Err(error) => {
                tracing::warn!(%error, "control socket");
                // out of descriptors, most likely: do not spin
                tokio::time::sleep(HEARTBEAT).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, mounted: Arc<dyn Mounted>) {
    let peer = stream.peer_cred().map(|peer| peer.uid());
    if !peer.is_ok_and(|uid| uid == 0 || uid == own_uid()) {
        tracing::warn!("refused a control connection of another user");
        return;
    }
    if let Err(error) = converse(stream, mounted.as_ref()).await {
        tracing::debug!(%error, "a control connection broke");
    }
}

/// Reads the request and answers it.
async fn converse(stream: UnixStream, mounted: &dyn Mounted) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    match serde_json::from_str(&line) {
        Ok(Request::Status) => send(&mut writer, &Reply::Status { status: mounted.status() }).await,
        Ok(Request::Pending) => {
            let pending = mounted.pending().await;
            send(&mut writer, &Reply::Pending { pending }).await
        }
        Ok(Request::Sync { timeout_secs }) => {
            let within = timeout_secs.map(Duration::from_secs);
            stream_progress(&mut writer, |sink| mounted.sync(within, sink)).await
        }
        Ok(Request::Unmount { timeout_secs, force }) => {
            let within = timeout_secs.map(Duration::from_secs);
            stream_progress(&mut writer, |sink| mounted.unmount(within, force, sink)).await
        }
        Err(error) => {
            let kind = FailureKind::BadRequest;
            let failure = Failure { kind, message: error.to_string(), left: None };
            send(&mut writer, &Reply::Failed(failure)).await
        }
    }
}

/// Runs an operation with a line of progress per heartbeat, then the last line. A peer
/// that hung up makes a write fail, which drops the operation.
async fn stream_progress<W: AsyncWrite + Unpin>(
    writer: &mut W,
    start: impl FnOnce(ProgressSink) -> BoxFuture<'static, Result<(), Failure>>,
) -> io::Result<()> {
    let (latest, progress) = watch::channel(Progress::default());
    let mut work = start(Arc::new(move |now| {
        latest.send_replace(now);
    }));
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                let last = match result {
                    Ok(()) => Reply::Done,
                    Err(failure) => Reply::Failed(failure),
                };
                return send(writer, &last).await;
            }
            _ = beat.tick() => {
                let now = *progress.borrow();
                send(writer, &Reply::Progress(now)).await?;
            }
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}
