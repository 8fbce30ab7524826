//! Starting and stopping an engine.
//!
//! Order of a start: listener, lock, record store (on the committer's thread), secrets,
//! service, background sweeps. A stop goes backwards: no new connections, those there
//! finish within a grace or are cut, commands run to their end, the committer drains, the
//! database closes, and the lock goes last.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::app::{App, Parts};
use super::commit::{Committer, Durability, Writer};
use super::db::{Db, Records, Space, StorageError};
use super::faults::FaultPlan;
use super::listing::Listings;
use super::metrics::Metrics;
use super::net::{Connection, CuttableListener};
use super::payload::{Files, private_dir};
use super::pools::News;
use super::replicas::Replicas;
use super::secrets::{DeviceSecrets, StreamTokens};
use super::shape::Shape;
use super::{EngineConfig, EngineError, api, storage};
use crate::env::Env;
use crate::protocol::public_key;

/// How long open connections and running commands may take to end.
const GRACE: Duration = Duration::from_secs(5);
const SECRET: &[u8] = b"secret";
const SECRET_LEN: usize = 32;
const FORMAT: &[u8] = b"format";
/// 2: devices have records of their own. 3: payloads may be on storage devices only.
const FORMAT_VERSION: u32 = 3;

/// A running engine. Dropped without [`Engine::shutdown`], it stops as after a crash:
/// nothing acknowledged is lost.
pub struct Engine {
    app: Arc<App>,
    addr: SocketAddr,
    cut_all: CancellationToken,
    serving: Option<JoinHandle<()>>,
    committing: Option<thread::JoinHandle<()>>,
    lock: Option<File>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the directory and serves. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError`]: the address is refused or taken, the directory is in use or
    /// unusable, the records cannot be read.
    pub async fn start(config: EngineConfig, env: Env) -> Result<Self, EngineError> {
        if !config.listen.ip().is_loopback() && !config.allow_remote {
            return Err(EngineError::NotLoopback(config.listen));
        }
        let (tcp, addr) = bind(config.listen).await?;
        let lock = lock(&config.dir)?;
        let (store, committing) = open_store(&config.dir, &env).await?;
        let secret = store.secret(&env).await?;
        storage::look_for_devices(&store.db, &store.replicas)?;
        let app = Arc::new(App::new(Parts {
            public_key: public_key::encode(&engine_key(&secret)),
            stream_tokens: StreamTokens::new(&secret),
            device_secrets: DeviceSecrets::new(&secret),
            base: format!("http://{addr}"),
            env,
            config,
            db: store.db,
            files: store.files,
            replicas: store.replicas,
            listings: store.listings,
            committer: store.committer,
        }));
        let cut_all = CancellationToken::new();
        let serving = tokio::spawn(serve(Arc::clone(&app), tcp, cut_all.clone()));
        app.tasks.spawn(sweep_often(Arc::clone(&app)));
        app.tasks.spawn(tell_news(Arc::clone(&app), store.news));
        sweep_files(&app);
        tracing::info!(%addr, "engine started");
        let (serving, committing) = (Some(serving), Some(committing));
        Ok(Self { app, addr, cut_all, serving, committing, lock: Some(lock) })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port` of the calls.
    pub fn api_url(&self) -> String {
        self.app.base.clone()
    }

    /// `ws://host:port/ws` of the channel.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// Base of the upload server.
    pub fn upstream_url(&self) -> String {
        self.app.base.clone()
    }

    /// Base of the download server.
    pub fn downstream_url(&self) -> String {
        self.app.base.clone()
    }

    /// The counters since the start.
    pub fn metrics(&self) -> Metrics {
        self.app.counters.snapshot(self.app.committer.tokens())
    }

    /// Replaces the fault plan; the default one has no faults.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.app.faults.set(plan);
    }

    /// Replaces the wire variants.
    pub fn set_shape(&self, shape: Shape) {
        *self.app.shape.write() = shape;
    }

    /// Stops in order and waits until the directory is free for another engine.
    pub async fn shutdown(mut self) {
        self.app.stop.cancel();
        if let Some(mut serving) = self.serving.take()
            && tokio::time::timeout(GRACE, &mut serving).await.is_err()
        {
            self.cut_all.cancel();
            if tokio::time::timeout(GRACE, serving).await.is_err() {
                tracing::warn!("connections outlive the engine");
            }
        }
        self.app.tasks.close();
        if tokio::time::timeout(GRACE, self.app.tasks.wait()).await.is_err() {
            tracing::warn!("commands outlive the engine");
        }
        self.app.committer.stop();
        let (committing, lock) = (self.committing.take(), self.lock.take());
        drop(self);
        let ended = tokio::task::spawn_blocking(move || {
            // The writer holds the database last, and closes it on its thread.
            let panicked = committing.is_some_and(|thread| thread.join().is_err());
            drop(lock);
            panicked
        });
        if ended.await.unwrap_or(true) {
            tracing::error!("the committer panicked");
        }
        tracing::info!("engine stopped");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.app.stop.cancel();
        self.cut_all.cancel();
        self.app.committer.stop();
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), EngineError> {
    let failed = |source| EngineError::Listen { address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let addr = tcp.local_addr().map_err(failed)?;
    Ok((tcp, addr))
}

/// Makes the directory private and takes it; the lock goes with the file's last handle.
fn lock(dir: &Path) -> Result<File, EngineError> {
    let failed = |source| EngineError::Directory { dir: dir.to_owned(), source };
    let open = || -> io::Result<File> {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"))
    };
    let file = open().map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The record store and the way to write to it.
struct Store {
    db: Arc<Db>,
    files: Arc<Files>,
    replicas: Arc<Replicas>,
    listings: Arc<Listings>,
    committer: Committer,
    news: UnboundedReceiver<News>,
}

/// Opens the store on the thread that will write to it.
async fn open_store(dir: &Path, env: &Env) -> Result<(Store, thread::JoinHandle<()>), EngineError> {
    let (opened, result) = oneshot::channel();
    let kept = dir.to_owned();
    let (dir, env, runtime) = (kept.clone(), env.clone(), tokio::runtime::Handle::current());
    let spawned = thread::Builder::new().name("engine-commit".to_owned()).spawn(move || {
        private_files();
        let _runtime = runtime.enter();
        match open_parts(&dir, env) {
            Ok((store, writer)) => {
                if opened.send(Ok(store)).is_ok() {
                    writer.run();
                }
            }
            // The caller gave up, if this fails too.
            Err(error) => drop(opened.send(Err(error))),
        }
    });
    let thread = spawned.map_err(StorageError::File)?;
    match result.await.unwrap_or(Err(StorageError::Stopped)) {
        Ok(store) => Ok((store, thread)),
        // An engine that was dropped without a shutdown has not let go yet.
        Err(StorageError::Database(fjall::Error::Locked)) => Err(EngineError::InUse(kept)),
        Err(error) => Err(error.into()),
    }
}

fn open_parts(dir: &Path, env: Env) -> Result<(Store, Writer), StorageError> {
    let records = dir.join("records");
    private_dir(&records)?;
    let db = Arc::new(Db::open(&records)?);
    let files = Arc::new(Files::open(dir.join("payloads"))?);
    let listings = Arc::new(Listings::default());
    let replicas = Arc::new(Replicas::open(dir.join("devices"))?);
    let (tell, news) = unbounded_channel();
    let (committer, writer) = Writer::new(
        Arc::clone(&db),
        Arc::clone(&files),
        Arc::clone(&replicas),
        Arc::clone(&listings),
        env,
        tell,
    )?;
    Ok((Store { db, files, replicas, listings, committer, news }, writer))
}

/// Gives this thread, and the database's threads that it starts, a file mode mask of
/// their own, so that every file of the database is its owner's only. Where the system
/// forbids that, the directory's mode has to do.
#[allow(unsafe_code, reason = "no safe wrapper of unshare and umask among the dependencies")]
fn private_files() {
    // SAFETY: `unshare(CLONE_FS)` gives the calling thread its own copy of mask, root and
    // working directory; after that `umask` concerns no other thread. Neither touches
    // memory.
    unsafe {
        if libc::unshare(libc::CLONE_FS) == 0 {
            libc::umask(0o077);
        } else {
            tracing::debug!("no file mode mask per thread here");
        }
    }
}

impl Store {
    /// Checks the format, and gets the secret behind upload tokens or makes it.
    async fn secret(&self, env: &Env) -> Result<Vec<u8>, StorageError> {
        let format: Option<u32> = self.db.load(Space::Meta, FORMAT)?;
        if let Some(found) = format.filter(|format| *format != FORMAT_VERSION) {
            return Err(StorageError::Format { found, wanted: FORMAT_VERSION });
        }
        if let Some(secret) = self.db.load(Space::Meta, SECRET)? {
            return Ok(secret);
        }
        let mut secret = vec![0; SECRET_LEN];
        env.random.fill(&mut secret);
        let kept = secret.clone();
        self.committer
            .run(Durability::Machine, move |tx| {
                tx.put(Space::Meta, FORMAT, &FORMAT_VERSION)?;
                tx.put(Space::Meta, SECRET, &kept)
            })
            .await?;
        Ok(secret)
    }
}

/// The engine's published key. Nothing is ever sealed to it here, so nobody needs its
/// private half, and any 32 bytes are a valid Curve25519 public key.
fn engine_key(secret: &[u8]) -> [u8; 32] {
    super::secrets::digest(&format!("engine key {}", STANDARD_NO_PAD.encode(secret)))
}

async fn serve(app: Arc<App>, tcp: TcpListener, cut_all: CancellationToken) {
    let stop = app.stop.clone();
    let service = api::router(app).into_make_service_with_connect_info::<Connection>();
    let listener = CuttableListener { tcp, all: cut_all };
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the listener failed");
    }
}

async fn sweep_often(app: Arc<App>) {
    let mut ticks = tokio::time::interval(app.config.sweep_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = app.stop.clone();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = app.sweep().await {
            tracing::warn!(%error, "the sweep failed");
        }
    }
}

/// Passes on what commits have changed about voting pools.
async fn tell_news(app: Arc<App>, mut news: UnboundedReceiver<News>) {
    let stop = app.stop.clone();
    while let Some(Some(news)) = stop.run_until_cancelled(news.recv()).await {
        app.hear(&news);
    }
}

/// Removes payload files and copies without a record, beside everything else.
fn sweep_files(app: &Arc<App>) {
    let app = Arc::clone(app);
    app.tasks.clone().spawn_blocking(move || {
        let removed = match app.files.sweep(&app.db) {
            Ok(removed) => app.sweep_copies().map(|copies| removed + copies),
            Err(error) => Err(error),
        };
        match removed {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "payload files without a record removed"),
            Err(error) => tracing::warn!(%error, "payload files could not be swept"),
        }
    });
}
