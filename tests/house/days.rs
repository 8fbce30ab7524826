//! Days that pass when a test says so, for processes of the real binary.
//!
//! The clocks of the processes are `libfaketime`'s (Debian package `libfaketime`): as far ahead
//! of the machine's as one file says, which they read each time they look at the clock. Those
//! that only measure how long something takes are left alone, so that deadlines stay.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The library as it is safe in programs with threads, and as it is otherwise.
const LIBRARIES: [&str; 2] = ["faketime/libfaketimeMT.so.1", "faketime/libfaketime.so.1"];

/// How far ahead the clocks are of all processes that share it.
#[derive(Clone, Debug)]
pub(crate) struct Days {
    library: PathBuf,
    file: PathBuf,
    passed: Arc<AtomicU32>,
}

impl Days {
    /// No day has passed yet; what says so lies in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let days = Self { library: library(), file: folder.join("days"), passed: Arc::default() };
        days.pass(0);
        days
    }

    /// Lets days pass, for all at once.
    pub(crate) fn pass(&self, days: u32) {
        let passed = self.passed.fetch_add(days, Ordering::SeqCst) + days;
        // In one go: a process that looks in between would see no days, or none of them.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("+{passed}d\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// What a command starts lives by these days.
    pub(crate) fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        for name in ["FAKETIME_NO_CACHE", "DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"] {
            command.env(name, "1");
        }
    }
}

fn library() -> PathBuf {
    let folders: Vec<_> =
        std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut libraries =
        LIBRARIES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = libraries.find(|library| library.exists());
    found.expect("tests in which days pass need Debian's libfaketime: scripts/test installs it")
}
