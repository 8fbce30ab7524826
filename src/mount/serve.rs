//! Start, wait, drain, stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backend::Vault;
use super::config::MountConfig;
use super::control::{Controls, Phase};
use super::daemon::Announcement;
use super::directories::ClientDirectories;
use super::local::{self, StateLock};
use super::{Ended, MountError, allocator};
use crate::control::{self, Connection, ControlError, Progress};
use crate::crypto::MasterKey;
use crate::env::Env;
use crate::fuse::{self, FuseOptions, Session};
use crate::vfs::{Vfs, VfsConfig};

/// Worker threads of the runtime: what is CPU-bound below (sealing) runs on them too.
const MIN_WORKERS: usize = 2;
const MAX_WORKERS: usize = 4;
/// How often free memory is given back.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// How long the mount may take to answer its first question.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// How long a detached mount may live on in open files before the process ends anyway.
const DETACHED_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a foreign command before looking at what changed: they come in bursts.
const HINT_PAUSE: Duration = Duration::from_millis(300);
/// How long control connections may take to get their last line.
const CONTROL_LIMIT: Duration = Duration::from_secs(2);
/// How long tasks may take to stop once everything is closed.
const RUNTIME_LIMIT: Duration = Duration::from_secs(5);

/// Mounts and serves until the mount ends. `ready` is called once the mount answers; if
/// it fails (whoever started us is gone), the mount is taken away again.
pub fn serve(
    config: &MountConfig,
    env: Env,
    ready: impl FnOnce(&Announcement) -> std::io::Result<()>,
) -> Result<Ended, MountError> {
    allocator::tune();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = Builder::new_multi_thread()
        .worker_threads(cores.clamp(MIN_WORKERS, MAX_WORKERS))
        .thread_name("privicorefs")
        .enable_all()
        .build()
        .map_err(MountError::Runtime)?;
    let ended = runtime.block_on(run(config, env, ready));
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    ended
}

async fn run(
    config: &MountConfig,
    env: Env,
    ready: impl FnOnce(&Announcement) -> std::io::Result<()>,
) -> Result<Ended, MountError> {
    let mut signals = Signals::new().map_err(MountError::Runtime)?;
    local::private_dir(&config.state_dir)?;
    local::private_dir(&config.cache_dir)?;
    let socket = config.control_dir.join(control::socket_name(&config.mount_point));
    if is_served(&socket) {
        return Err(MountError::MountedAlready(config.mount_point.clone()));
    }
    let _lock = StateLock::wait(&config.state_dir).await?;
    let started = tokio::select! {
        started = start(config, env) => started,
        name = signals.next() => Err(MountError::Daemon(format!("{name} while starting"))),
    };
    let (vault, vfs) = started?;
    let ended = serve_vfs(config, &socket, &vault, vfs, signals, ready).await;
    vault.close().await;
    ended
}

/// Whether a mount answers at a socket. One that has been killed may still be connected to
/// while its last threads end; the connection then breaks.
fn is_served(socket: &Path) -> bool {
    let broken = |kind| {
        use std::io::ErrorKind as K;
        matches!(kind, K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe)
    };
    match Connection::open(socket).map(Connection::status) {
        Err(_) => false,
        Ok(Err(ControlError::Silent(error))) => !broken(error.kind()),
        Ok(_) => true,
    }
}

/// The vault and the operations layer over it.
async fn start(config: &MountConfig, env: Env) -> Result<(Vault, Arc<Vfs>), MountError> {
    let (vault, key) = Vault::open(config, &env).await?;
    match open_vfs(config, &vault, key, env).await {
        Ok(vfs) => Ok((vault, vfs)),
        Err(error) => {
            vault.close().await;
            Err(error)
        }
    }
}

async fn open_vfs(
    config: &MountConfig,
    vault: &Vault,
    key: MasterKey,
    env: Env,
) -> Result<Arc<Vfs>, MountError> {
    let tuning = config.tuning.clone();
    let settings = VfsConfig {
        state_dir: config.state_dir.clone(),
        cache_dir: config.cache_dir.clone(),
        cache_limit: tuning.cache_limit,
        cache_floor: tuning.cache_floor,
        staging_limit: tuning.staging_limit,
        memory: tuning.memory,
        split_above: tuning.split_above,
        part_size: tuning.part_size,
        durability: tuning.durability,
        trash_days: tuning.trash_days,
        machine_name: tuning.machine_name,
        new_catalog: tuning.new_catalog,
        local_names: tuning.local_names,
        parallel: tuning.parallel,
        deadline: tuning.deadline,
        approval_timeout: tuning.approval_timeout,
        poll_interval: tuning.poll_interval,
        read_only: config.read_only,
        shown: tuning.shown,
        default_uid: control::own_uid(),
        default_gid: rustix::process::getegid().as_raw(),
    };
    let vfs = Vfs::open(settings, Arc::clone(&vault.store), key, env).await?;
    let directories = ClientDirectories(Arc::clone(&vault.client));
    vfs.show_directories(Arc::new(directories), config.register_directories).await;
    Ok(vfs)
}

/// From an open operations layer to its shutdown, whatever happens between.
async fn serve_vfs(
    config: &MountConfig,
    socket: &Path,
    vault: &Vault,
    vfs: Arc<Vfs>,
    mut signals: Signals,
    ready: impl FnOnce(&Announcement) -> std::io::Result<()>,
) -> Result<Ended, MountError> {
    let session = match mount(config, &vfs).await {
        Ok(session) => Arc::new(session),
        Err(error) => {
            vfs.shutdown(Duration::ZERO).await;
            return Err(error);
        }
    };
    let hints = follow_hints(vault, &vfs);
    let trims = tokio::spawn(give_back_memory());
    let controls = Controls::new(config, vault, &vfs, &session);
    let server = open_for_requests(config, socket, vault, &controls, ready);
    let budget = match &server {
        Ok(_) => wait_for_end(config, &controls, &session, &vfs, &mut signals).await,
        Err(_) => Instant::now(),
    };
    hints.abort();
    trims.abort();
    controls.enter(Phase::Draining);
    let left = stop(config, &session, vfs, budget).await;
    controls.close(left);
    let server = server?;
    server.finish(CONTROL_LIMIT).await;
    Ok(Ended { left })
}

/// Keeps the process no larger than what it uses.
async fn give_back_memory() {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        // Some milliseconds under the allocator's lock: not on a worker of the runtime.
        let _ = spawn_blocking(allocator::give_back).await;
    }
}

/// Listens for requests, and tells whoever waits that the mount answers.
fn open_for_requests(
    config: &MountConfig,
    socket: &Path,
    vault: &Vault,
    controls: &Arc<Controls>,
    ready: impl FnOnce(&Announcement) -> std::io::Result<()>,
) -> Result<control::Server, MountError> {
    let server = control::Server::start(socket.to_owned(), Arc::new(Arc::clone(controls)))
        .map_err(MountError::Control)?;
    ready(&Announcement::new(config, vault))
        .map_err(|error| MountError::Daemon(format!("nobody waits for the mount: {error}")))?;
    tracing::info!("mounted");
    Ok(server)
}

/// Mounts, starts the background tasks, and asks the mount for its root.
async fn mount(config: &MountConfig, vfs: &Arc<Vfs>) -> Result<Session, MountError> {
    let options = FuseOptions {
        mount_point: config.mount_point.clone(),
        allow_other: config.allow_other,
        read_only: config.read_only,
    };
    let (layer, runtime) = (Arc::clone(vfs), Handle::current());
    let mounted = spawn_blocking(move || Session::mount(layer, runtime, &options)).await;
    let failed = |source| MountError::Mount { path: config.mount_point.clone(), source };
    let session =
        mounted.map_err(std::io::Error::other).and_then(|session| session).map_err(failed)?;
    vfs.start(Handle::current(), session.invalidator());
    let path = config.mount_point.clone();
    let probe = timeout(PROBE_LIMIT, spawn_blocking(move || Session::probe(&path))).await;
    let answered = match probe {
        Ok(joined) => joined.map_err(std::io::Error::other).and_then(|answered| answered),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    if let Err(source) = answered {
        detach(&config.mount_point).await;
        return Err(MountError::Probe { path: config.mount_point.clone(), source });
    }
    Ok(session)
}

/// Passes on what other clients do, a burst at a time.
fn follow_hints(vault: &Vault, vfs: &Arc<Vfs>) -> JoinHandle<()> {
    let (mut foreign, vfs) = (vault.client.subscribe_foreign(), Arc::clone(vfs));
    tokio::spawn(async move {
        while foreign.changed().await.is_ok() {
            sleep(HINT_PAUSE).await;
            foreign.mark_unchanged();
            vfs.hint_changes();
        }
    })
}

/// Waits for the reason to end. Returns until when what is left may still be drained.
async fn wait_for_end(
    config: &MountConfig,
    controls: &Controls,
    session: &Session,
    vfs: &Arc<Vfs>,
    signals: &mut Signals,
) -> Instant {
    tokio::select! {
        () = session.ended() => {
            tracing::info!("unmounted; draining");
        }
        () = controls.unmounted() => {}
        name = signals.next() => {
            tracing::info!("{name}: draining, then unmounting; once more ends at once");
            controls.enter(Phase::Draining);
            let until = Instant::now() + config.drain_timeout;
            let drain = Arc::clone(vfs).sync_all(Some(config.drain_timeout), Arc::new(|_| ()));
            tokio::select! {
                result = timeout_at(until, drain) => {
                    if !matches!(result, Ok(Ok(()))) {
                        tracing::warn!("not everything reached the vault in time");
                    }
                    return until;
                }
                name = signals.next() => {
                    tracing::warn!("{name}: not waiting any longer");
                    return Instant::now();
                }
            }
        }
    }
    match controls.force_used() {
        true => Instant::now(),
        false => Instant::now() + config.drain_timeout,
    }
}

/// Takes the mount away, drains what came in until then, closes the operations layer.
async fn stop(
    config: &MountConfig,
    session: &Arc<Session>,
    vfs: Arc<Vfs>,
    budget: Instant,
) -> Progress {
    if !session.has_ended() {
        detach(&config.mount_point).await;
        if timeout(DETACHED_LIMIT, session.ended()).await.is_err() {
            tracing::warn!("files are still open on the mount; they fail from now on");
        }
    }
    let report = vfs.shutdown(budget.saturating_duration_since(Instant::now())).await;
    let left = Progress {
        files_left: report.files_left,
        bytes_left: report.bytes_left,
        records_left: report.records_left,
    };
    if left.is_done() {
        tracing::info!("unmounted; everything is in the vault");
    } else {
        let Progress { files_left, bytes_left, records_left } = left;
        let kept = config.state_dir.display();
        tracing::warn!(
            files_left,
            bytes_left,
            records_left,
            "unmounted; not everything is in the vault. It is kept in {kept}: the next mount uploads it"
        );
    }
    left
}

/// Unmounts; lazily if files are open, since the process is about to end.
async fn detach(mount_point: &Path) {
    let path = mount_point.to_owned();
    let unmounted =
        spawn_blocking(move || fuse::unmount(&path, false).or_else(|_| fuse::unmount(&path, true)));
    if let Ok(Err(error)) = unmounted.await {
        tracing::warn!(%error, "cannot unmount");
    }
}

/// The signals that end a mount. SIGHUP is one for a mount in the foreground whose
/// terminal went away.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next one. Safe to drop and call again.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
