//! The harness of all test programs: what a test sets up, and how each is called.
//!
//! | name | what it is |
//! |---|---|
//! | [`EngineProcess`] | an engine in a process of its own: the real binary, `privicorefs engine` |
//! | [`Vault`] | an engine process with a profile, its login and a key, for machines to mount |
//! | [`Machine`] | one machine with a mount of the real binary, its state and its cache |
//! | [`Days`] | days that pass when told, for the processes of a vault |
//! | [`Console`] | commands of the real binary without a drive, on an engine process of their own |
//! | [`Voters`], [`Profile`] | who votes, who has directories: spoken to an engine process raw |
//! | [`Server`] | an engine in the test's own process, with a clock that moves when told |
//! | [`wire::WireClient`] | a raw client of the wire, without any code of the crate's client |
//! | [`Connected`] | an engine in the test's own process, and the crate's client connected to it |
//! | [`doubles`] | a clock that moves when told, a random source that a seed fixes |
//! | [`memory_store::MemoryStore`] | a store in the test's own process, with faults |
//! | [`conformance`] | what every store must do |
//!
//! What drives the real binary keeps these rules:
//!
//! * Everything is below one temporary folder per test; the engine listens on port 0.
//! * Every wait has a deadline. A watchdog ends the daemons of a test that outlives its
//!   own, which frees threads that the kernel would otherwise keep waiting for ever.
//! * Whatever a test starts ends with it, also by panic; what it starts is noted in the
//!   file `PRIVICOREFS_TEST_REGISTRY`, so that `scripts/test` can tell what was left.
//!
//! To look into a failure: `PRIVICOREFS_TEST_LOG_LEVEL=debug` for the mounts' logs, which a
//! failure shows the end of, and `PRIVICOREFS_TEST_KEEP=1` to keep the temporary folder.

#![allow(dead_code, unused_imports, reason = "each test program uses a part of the harness")]

pub(crate) mod acting;
pub(crate) mod attributes;
pub(crate) mod conformance;
pub(crate) mod connected;
pub(crate) mod console;
pub(crate) mod content;
pub(crate) mod days;
pub(crate) mod doubles;
pub(crate) mod engine_process;
pub(crate) mod http;
pub(crate) mod locks;
pub(crate) mod machine;
pub(crate) mod mapping;
pub(crate) mod memory_store;
pub(crate) mod process;
pub(crate) mod profile;
pub(crate) mod server;
pub(crate) mod vault;
pub(crate) mod voters;
pub(crate) mod wire;

pub(crate) use connected::Connected;
pub(crate) use console::Console;
pub(crate) use days::Days;
pub(crate) use engine_process::{EngineProcess, Metrics};
pub(crate) use machine::Machine;
pub(crate) use memory_store::MemoryStore;
pub(crate) use process::{eventually, run, run_ok};
pub(crate) use profile::Profile;
pub(crate) use server::Server;
pub(crate) use vault::Vault;
pub(crate) use voters::Voters;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;

/// Asserts that `result` failed with exactly `errno`.
#[track_caller]
pub(crate) fn assert_errno<T: Debug>(result: io::Result<T>, errno: Errno) {
    match result {
        Ok(value) => panic!("{value:?}, where {errno:?} was expected"),
        Err(error) => {
            let found = error.raw_os_error().map(Errno::from_raw_os_error);
            assert_eq!(found, Some(errno), "{error}");
        }
    }
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A Python that can import what the independent client needs: Debian's own first.
pub(crate) fn python() -> Command {
    let chosen = std::env::var_os("PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        let debian = PathBuf::from("/usr/bin/python3");
        if debian.exists() { debian } else { PathBuf::from("python3") }
    });
    Command::new(chosen)
}

/// Makes the odd tree of `scripts/odd_tree.py` at `folder`.
pub(crate) fn make_odd_tree(folder: &Path) {
    let mut command = python();
    run_ok(command.arg(repository("scripts/odd_tree.py")).arg(folder), Duration::from_secs(60));
}

/// Asserts that two trees are equal, attribute by attribute.
#[track_caller]
pub(crate) fn assert_same_trees(expected: &Path, actual: &Path) {
    assert_same_trees_with(&[], expected, actual);
}

/// The same with options of `scripts/compare_trees.py`.
#[track_caller]
pub(crate) fn assert_same_trees_with(options: &[&str], expected: &Path, actual: &Path) {
    let mut command = python();
    command.arg(repository("scripts/compare_trees.py")).args(options).arg(expected).arg(actual);
    let output = run(&mut command, Duration::from_secs(240));
    assert!(output.success(), "the trees differ:\n{}{}", output.stdout, output.stderr);
}

/// Copies a tree with somebody else's tool: `cp -a FROM TO`.
#[track_caller]
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to), Duration::from_secs(240));
}

/// A number from the environment.
pub(crate) fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A seed that no run had before.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}

/// Lets other users get as far as a mount point: the folders of tests are private.
pub(crate) fn let_others_reach(mount_point: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let private = |dir: &&Path| dir.starts_with(std::env::temp_dir()) && *dir != mount_point;
    for dir in mount_point.ancestors().filter(private) {
        let mode = std::fs::metadata(dir).unwrap().permissions().mode();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode | 0o011)).unwrap();
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}
