//! A simulated disk as a process sees it: the two traits of `env::disk`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::MutexGuard;
use privicorefs::env::disk::{Disk, DiskFile, DiskSpace, FileStat};

use super::SimDisk;
use super::content::{Change, FileNode};
use super::names::Id;
use super::state::{State, dead};

/// A process's rights to a disk; they end with its death.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) disk: SimDisk,
    pub(super) generation: u64,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk of process {}", self.generation)
    }
}

impl Process {
    /// The disk, if the process still lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.generation == self.generation { Ok(state) } else { Err(dead()) }
    }

    /// The disk, to be changed or synced: asks the hook first, without the lock.
    fn state_for(&self, operation: &'static str) -> io::Result<MutexGuard<'_, State>> {
        let hook = self.state()?.hook.clone();
        if let Some(hook) = hook {
            hook(operation)?;
        }
        self.state()
    }

    fn handle(&self, state: &mut State, id: Id, lock: bool) -> io::Result<Arc<dyn DiskFile>> {
        state.open(id)?;
        Ok(Arc::new(Handle { process: self.clone(), id, lock }))
    }

    fn is_folder(&self, path: &Path) -> io::Result<bool> {
        let state = self.state()?;
        Ok(state.folder(state.resolve(path)?).is_ok())
    }
}

fn stat_of(file: &FileNode) -> FileStat {
    FileStat {
        len: file.now.len(),
        allocated: file.now.allocated(),
        modified: Some(file.modified),
        // mounted `noatime`
        accessed: None,
    }
}

impl Disk for Process {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state()?;
        let id = state.resolve(path)?;
        self.handle(&mut state, id, false)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state_for("create")?;
        let id = state.create(path, self.disk.clock.now())?;
        self.handle(&mut state, id, false)
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let found = self.state()?.resolve(path);
        if found.is_err() {
            drop(self.create_new(path)?);
        }
        let mut state = self.state()?;
        let id = state.resolve(path)?;
        state.file(id)?;
        state.lock(id)?;
        self.handle(&mut state, id, true)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state()?;
        let content = &state.file(state.resolve(path)?)?.now;
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or(usize::MAX)];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state_for("rename")?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state_for("unlink")?.unlink(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.is_folder(path) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(above) = path.parent() {
            self.create_dir_all(above)?;
        }
        self.state_for("mkdir")?.mkdir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for name in self.read_dir(path)? {
            let below = path.join(name);
            match self.is_folder(&below)? {
                true => self.remove_dir_all(&below)?,
                false => self.remove_file(&below)?,
            }
        }
        self.state_for("rmdir")?.rmdir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state()?;
        let folder = state.folder(state.resolve(path)?)?;
        Ok(folder.now.keys().cloned().collect())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let state = self.state()?;
        let id = state.resolve(path)?;
        let folder = FileStat { len: 0, allocated: 0, modified: None, accessed: None };
        Ok(state.file(id).map_or(folder, stat_of))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state_for("sync_dir")?;
        let id = state.resolve(path)?;
        state.sync_dir(id)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let state = self.state()?;
        state.resolve(path)?;
        Ok(state.space())
    }
}

/// An open file.
struct Handle {
    process: Process,
    id: Id,
    lock: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} of {:?}", self.id, self.process)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut state) = self.process.state() {
            state.close(self.id, self.lock);
        }
    }
}

impl Handle {
    fn change(&self, operation: &'static str, change: Change) -> io::Result<()> {
        let now = self.process.disk.clock.now();
        self.process.state_for(operation)?.change(self.id, change, now)
    }
}

impl DiskFile for Handle {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.process.state()?;
        Ok(state.file(self.id)?.now.read(out, at))
    }

    fn write_all_at(&self, data: &[u8], at: u64) -> io::Result<()> {
        let now = self.process.disk.clock.now();
        self.process.state_for("write")?.write(self.id, at, data, now)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("set_len", Change::SetLen(len))
    }

    fn stat(&self) -> io::Result<FileStat> {
        let state = self.process.state()?;
        Ok(stat_of(state.file(self.id)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.process.state_for("sync")?.sync(self.id)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change("punch", Change::Punch(range))
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let state = self.process.state()?;
        Ok(state.file(self.id)?.now.next_data(from))
    }

    fn drop_cached(&self) -> io::Result<()> {
        self.process.state().map(drop)
    }
}
