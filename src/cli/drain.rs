//! `sync` and `umount`: wait until everything is in the vault.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::args::{SyncArgs, UmountArgs};
use super::output::Output;
use super::progress::Drain;
use super::{Exit, environment};
use crate::control::{Connection, ControlError, Failure, Progress, Request};
use crate::fuse;

/// How long a process may take to end once its mount is gone and it has said so.
const END_LIMIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// `sync [PATH]`.
pub(super) fn sync(args: &SyncArgs, output: &Output) -> anyhow::Result<Exit> {
    let path = std::path::absolute(&args.path)?;
    let found = path.canonicalize().map_err(|_| ControlError::NotMounted(path.clone()))?;
    // the mount that `path` is in is the nearest ancestor that answers
    let connection = found
        .ancestors()
        .find_map(|folder| Connection::to_mount(folder, &environment).ok())
        .ok_or(ControlError::NotMounted(path))?;
    let mut drain = Drain::new(output);
    let request = Request::Sync { timeout_secs: args.timeout };
    let result = connection.follow(request, |now| drain.show(now));
    let latest = drain.latest();
    drop(drain);
    finish(result, latest, args.json, "everything is in the vault", output)
}

/// `umount MOUNTPOINT`.
pub(super) fn umount(args: &UmountArgs, output: &Output) -> anyhow::Result<Exit> {
    let mount_point = settled(&args.mount_point)?;
    let connection = match Connection::to_mount(&mount_point, &environment) {
        Ok(connection) => connection,
        Err(_) if is_dead(&mount_point) => return bury(&mount_point, output),
        Err(error) => return Err(error.into()),
    };
    let pid = Connection::to_mount(&mount_point, &environment)?.status()?["pid"].as_u64();
    // held from now on: a number may be given to another process once its own has ended
    let process = pid.and_then(open_process);
    let mut drain = Drain::new(output);
    let request = Request::Unmount { timeout_secs: args.timeout, force: args.force };
    let result = connection.follow(request, |now| drain.show(now));
    let latest = drain.latest();
    drop(drain);
    let gone = result.is_ok() || args.force;
    if let Some(process) = process.filter(|_| gone) {
        wait_for_end(&process)?;
    }
    finish(result, latest, args.json, &format!("unmounted {}", mount_point.display()), output)
}

/// Says how it went; a failure becomes the error that carries its exit code.
fn finish(
    result: Result<(), ControlError>,
    latest: Progress,
    json: bool,
    done: &str,
    output: &Output,
) -> anyhow::Result<Exit> {
    match result {
        Ok(()) if json => output.json(&json!({"done": true}))?,
        Ok(()) => output.line(done)?,
        Err(ControlError::Failed(failure)) if json => {
            let Failure { kind, message, left } = &failure;
            let left = left.unwrap_or(latest);
            output.json(&json!({"done": false, "kind": kind, "reason": message, "left": left}))?;
            return Err(ControlError::Failed(failure).into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Done)
}

/// The mount point without asking the mount itself, which may hang: only what is above
/// it is resolved.
pub(super) fn settled(path: &Path) -> Result<PathBuf, ControlError> {
    let gone = |_| ControlError::NotMounted(path.to_owned());
    let absolute = std::path::absolute(path).map_err(gone)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            let candidate = parent.canonicalize().map_err(gone)?.join(name);
            if Connection::to_mount(&candidate, &environment).is_ok() || is_dead(&candidate) {
                return Ok(candidate);
            }
            // a symlink to it, or a path that ends in `..`
            absolute.canonicalize().map_err(gone)
        }
        _ => Ok(absolute),
    }
}

/// Whether a mount is there whose process is gone. Asks by opening: attributes of a dead
/// mount may still be cached.
fn is_dead(path: &Path) -> bool {
    std::fs::read_dir(path).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
}

/// Takes away a mount whose process died. What it had not uploaded is not lost, but
/// nobody can say that it is in the vault.
fn bury(mount_point: &Path, output: &Output) -> anyhow::Result<Exit> {
    fuse::unmount(mount_point, true)?;
    output.note(&format!(
        "{}: the mount's process had died; what it had not uploaded is in its state directory, \
         and the next mount uploads it",
        mount_point.display()
    ));
    Ok(Exit::Incomplete)
}

/// The process of that number, if there still is one.
fn open_process(pid: u64) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits until the process has ended, with all of its threads: a pidfd is readable from
/// then on (pidfd_open(2)), and not yet when only the first thread has ended.
fn wait_for_end(process: &OwnedFd) -> anyhow::Result<()> {
    let mut waited = [PollFd::new(process, PollFlags::IN)];
    loop {
        match poll(&mut waited, Some(&END_LIMIT)) {
            Ok(0) => anyhow::bail!("unmounted, but the mount's process has not ended"),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
