//! A disk in memory whose power can be cut.
//!
//! A [`SimDisk`] is the hardware of one machine; [`SimDisk::process`] is what a process that
//! runs there sees of it. It does what `env::disk` allows a disk to do, in its worst form:
//!
//! * each file is its last synced image and the changes since, in order; each folder its
//!   last synced names and the changes since (`content`, `names`);
//! * a power cut ([`SimDisk::power_cut`]) keeps a random prefix of the changes of each file
//!   and of each folder, each drawn by itself, and may tear the last write that it keeps at
//!   a sector. A rename is one change of two folders: a prefix has both halves or neither;
//! * the death of a process ([`SimDisk::kill`]) loses nothing, but every handle that it had
//!   answers with an error from then on, and its locks are free.
//!
//! Everything follows from the calls and from the numbers drawn: nothing here has a time, a
//! thread or an order of its own.

mod content;
mod names;
mod process;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use privicorefs::env::disk::Disk;
use privicorefs::env::{Clock, Random};

use self::content::Content;
use self::process::Process;
use self::state::State;

/// Called before each operation that changes the disk or syncs, with its name: `create`,
/// `write`, `set_len`, `punch`, `sync`, `rename`, `unlink`, `mkdir`, `rmdir` or `sync_dir`.
/// An error is the operation's answer, and then it has done nothing. The hook may call the
/// disk: if it kills the process, the operation that called it is the first to fail.
pub(crate) type Hook = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

/// The disk of one machine. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Changes of files: writes, lengths, punched ranges; a torn write is one.
    pub(crate) changes: usize,
    /// Changes of folders: names given, changed or taken away.
    pub(crate) names: usize,
}

/// What lay below a path at some moment, as a backup program would read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(Tree);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    File(Content, SystemTime),
    Folder(BTreeMap<OsString, Tree>),
}

impl SimDisk {
    /// An empty disk of a terabyte; files get their times from `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::new(Mutex::new(State::new())), clock }
    }

    /// The disk as a process that starts now sees it: with the rights to use it until the
    /// process is killed or the power is cut. Several may live at once, and lock each other
    /// out.
    pub(crate) fn process(&self) -> Arc<dyn Disk> {
        let generation = self.state.lock().generation;
        Arc::new(Process { disk: self.clone(), generation })
    }

    /// All processes die. What they wrote stays.
    pub(crate) fn kill(&self) {
        self.state.lock().kill();
    }

    /// The next write stores what lies before the end of its `pages`th page only, and then
    /// all processes die: the kernel looks for a signal between the pages of a write.
    pub(crate) fn kill_in_next_write(&self, pages: u64) {
        self.state.lock().kill_in_write = Some(pages);
    }

    /// The machine dies. What was not synced is there in part, as the module's header says;
    /// with `whole`, none of it is.
    pub(crate) fn power_cut(&self, random: &dyn Random, whole: bool) -> Lost {
        self.state.lock().power_cut(random, whole)
    }

    /// The kernel has written everything back, as it does within half a minute: all of what
    /// is there now is durable.
    pub(crate) fn write_back(&self) {
        self.state.lock().write_back();
    }

    /// A copy of what lies at `path` and below (the whole disk: `/`), as processes see it now.
    pub(crate) fn snapshot(&self, path: &Path) -> io::Result<Snapshot> {
        let state = self.state.lock();
        Ok(Snapshot(state.copy_out(state.resolve(path)?)))
    }

    /// Puts a copy in the place of what lies at `path`, durably. Its folder must exist.
    /// Processes that have one of the former files open keep it, without a name.
    pub(crate) fn restore(&self, path: &Path, snapshot: &Snapshot) -> io::Result<()> {
        self.state.lock().restore(path, &snapshot.0)
    }

    /// Others fill the disk up, or make room, until `bytes` are free.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.state.lock().set_free(bytes);
    }

    /// Calls `hook` before each change from now on, in place of a former one.
    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        let former = std::mem::replace(&mut self.state.lock().hook, hook);
        // Not under the lock: it may own handles, which take the lock when they are closed.
        drop(former);
    }
}

/// A number below `bound`.
fn below(random: &dyn Random, bound: usize) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    let drawn = u64::from_le_bytes(bytes) % bound.max(1) as u64;
    usize::try_from(drawn).unwrap_or_default()
}
