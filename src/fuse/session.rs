//! Mount, serve, push invalidations, unmount.
//!
//! Threads: `fuser`'s event loops; one that waits for them and says that the session has
//! ended, whoever ended it; one that pushes invalidations. Pushing never happens in a
//! callback: dropping pages waits for a read in flight on the same inode, and that read
//! may be the very callback's.
//!
//! `fuser` unmounts once and forgets the mount even when the kernel says EBUSY, so
//! unmounting is done here ([`unmount`]) and can be tried again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use fuser::{Config, INodeNo, MountOption, Notifier, SessionACL};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::adapter::Adapter;
use crate::vfs::{Invalidation, Vfs};

/// Event loop threads. Four at least, so that a callback that waits for the local disk
/// does not hold up the others on a small machine.
const MIN_THREADS: usize = 4;
/// More would only contend for the device.
const MAX_THREADS: usize = 8;
/// Read-ahead of the mount in KiB, where we may set it: the largest read request.
const READ_AHEAD_KB: u32 = 1024;

/// How to mount.
#[derive(Clone, Debug)]
pub struct FuseOptions {
    /// Where; absolute.
    pub mount_point: PathBuf,
    /// Whether other users may enter.
    pub allow_other: bool,
    /// Whether the kernel refuses writes.
    pub read_only: bool,
}

/// A mounted, served filesystem. Dropping it does not unmount.
#[derive(Debug)]
pub struct Session {
    mount_point: PathBuf,
    invalidations: mpsc::Sender<Vec<Invalidation>>,
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Mounts and starts to serve. Operations that wait go to `runtime`. Fails where the
    /// kernel or `fusermount3` refuse the mount.
    pub fn mount(vfs: Arc<Vfs>, runtime: Handle, options: &FuseOptions) -> io::Result<Self> {
        let adapter = Adapter::new(vfs, runtime);
        let session = fuser::Session::new(adapter, &options.mount_point, &config(options))?;
        let notifier = session.notifier();
        let (done, ended) = watch::channel(false);
        std::thread::Builder::new().name("fuse-session".to_owned()).spawn(move || {
            if let Err(error) = session.run() {
                tracing::error!(%error, "the FUSE session ended with an error");
            }
            done.send_replace(true);
        })?;
        let (invalidations, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("fuse-notify".to_owned())
            .spawn(move || push(&notifier, &queue))?;
        Ok(Self { mount_point: options.mount_point.clone(), invalidations, ended })
    }

    /// Queues what the kernel must forget; never blocks.
    pub fn invalidator(&self) -> Box<dyn Fn(Vec<Invalidation>) + Send + Sync> {
        let queue = self.invalidations.clone();
        Box::new(move |stale| {
            // no receiver: the session ended, and the kernel's caches with it
            let _ = queue.send(stale);
        })
    }

    /// Waits until the session has ended: unmounted by us or by anyone, or aborted.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // an error means that the waiting thread is gone, so the session is too
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Takes the mount away; `lazy` detaches it even while files are open. The session
    /// ends when the last of them is closed.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        if self.has_ended() { Ok(()) } else { unmount(&self.mount_point, lazy) }
    }

    /// Asks the mount for its root's attributes, as any program would, and lets the
    /// kernel read ahead further where we may. Blocks.
    pub fn probe(mount_point: &Path) -> io::Result<()> {
        let device = std::fs::metadata(mount_point)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let knob = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        if let Err(error) = std::fs::write(&knob, READ_AHEAD_KB.to_string()) {
            tracing::debug!(%error, "read-ahead stays at the kernel's default");
        }
        Ok(())
    }
}

fn config(options: &FuseOptions) -> Config {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("privicorefs".to_owned()),
        MountOption::Subtype("privicorefs".to_owned()),
        // the kernel checks modes and owners, as for a local filesystem
        MountOption::DefaultPermissions,
        if options.read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(cores.clamp(MIN_THREADS, MAX_THREADS));
    config.clone_fd = true;
    config
}

/// The pushing thread's loop; ends when the last sender is gone.
fn push(notifier: &Notifier, queue: &mpsc::Receiver<Vec<Invalidation>>) {
    let told = |result: io::Result<()>| {
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel did not take an invalidation");
        }
    };
    for stale in queue {
        let mut folders = BTreeSet::new();
        for item in &stale {
            told(match item {
                Invalidation::Entry { parent, name } => {
                    folders.insert(*parent);
                    notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
                }
                // from offset 0 with length 0: every page; a negative offset: attributes only
                Invalidation::Inode { ino, data: true } => {
                    notifier.inval_inode(INodeNo(*ino), 0, 0)
                }
                Invalidation::Inode { ino, data: false } => {
                    notifier.inval_inode(INodeNo(*ino), -1, 0)
                }
            });
        }
        // A name that the kernel has not looked up leaves its listing as it is.
        for folder in folders {
            told(notifier.inval_inode(INodeNo(folder), 0, 0));
        }
    }
}

/// Unmounts `mount_point`: by the system call, or through `fusermount3` for users who may
/// not call it. No mount there is a success. `ResourceBusy` while files are open, unless
/// `lazy`.
pub fn unmount(mount_point: &Path, lazy: bool) -> io::Result<()> {
    match system_unmount(mount_point, lazy) {
        Ok(()) => Ok(()),
        // not a mount (any more)
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fusermount(mount_point, lazy)
        }
        Err(error) => Err(error),
    }
}

fn system_unmount(mount_point: &Path, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    Ok(rustix::mount::unmount(mount_point, flags)?)
}

fn fusermount(mount_point: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mount_point);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // fusermount3 has no exit code of its own for a busy mount
    let busy = said.contains("busy");
    let kind = if busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, said))
}
