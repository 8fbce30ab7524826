//! A vault for machines to mount: an engine process with a profile, its login and a key, in a
//! temporary folder.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::days::Days;
use super::engine_process::{EngineProcess, Login};
use super::machine::Machine;
use super::process;

/// A test that takes longer is stuck: its daemons are ended, so that it can fail.
const WATCHDOG: Duration = Duration::from_secs(420);

/// How long a mount may take to set the calendar, and to do what comes due by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nights from the removal of a content to its deletion: seven days in the trash, which is the
/// vault's setting as long as nobody sets it, and two counts in which others hear of it.
pub(crate) const TRASH_NIGHTS: u32 = 7 + 2;

/// 64 hexadecimal digits: the key that all machines of a test share.
pub(crate) const KEY: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";

/// A password that would be found if it were ever written down.
pub(crate) const PASSWORD: &str = "correct-Horse-battery-Staple-5177";

/// The fields are dropped in this order: the engine before its folder.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) engine: EngineProcess,
    pub(crate) login: Login,
    _watchdog: Sender<()>,
    days: Option<Days>,
    dir: TempDir,
}

impl Vault {
    /// An engine with a profile.
    pub(crate) fn new() -> Self {
        Self::with_engine(&[])
    }

    /// The same, with more options for the engine.
    pub(crate) fn with_engine(options: &[&str]) -> Self {
        Self::with_deadline(options, WATCHDOG)
    }

    /// The same, for a test that may take longer than most.
    pub(crate) fn with_deadline(options: &[&str], deadline: Duration) -> Self {
        Self::start(options, deadline, false)
    }

    /// An engine and machines for which days [pass](Self::pass).
    pub(crate) fn with_days() -> Self {
        Self::start(&[], WATCHDOG, true)
    }

    fn start(options: &[&str], deadline: Duration, with_days: bool) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "tests of the drive need /dev/fuse");
        // Short, because the path of a socket may not exceed 108 bytes.
        let keep = std::env::var_os("PRIVICOREFS_TEST_KEEP").is_some();
        let dir = tempfile::Builder::new().prefix("p").disable_cleanup(keep).tempdir().unwrap();
        let watchdog = watchdog(deadline);
        let days = with_days.then(|| Days::new(dir.path()));
        let engine = EngineProcess::start_in(&dir.path().join("engine"), options, days.clone());
        let login = Login { username: "tester".to_owned(), password: PASSWORD.to_owned() };
        engine.register(&login);
        let vault = Self { engine, login, _watchdog: watchdog, days, dir };
        write_secret(&vault.path("password"), PASSWORD);
        write_secret(&vault.path("key"), KEY);
        vault
    }

    /// A path in the temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A machine that has the login and the key, not mounted yet.
    pub(crate) fn machine(&self, name: &str) -> Machine {
        let mut machine = Machine::new(&self.path(name));
        if let Some(days) = &self.days {
            machine.live_by(days);
        }
        machine.args([
            "--api-url",
            &self.engine.api_url,
            "--ws-url",
            &self.engine.ws_url,
            "--username",
            &self.login.username,
        ]);
        machine.path_arg("--password-file", &self.path("password"));
        machine.path_arg("--key-file", &self.path("key"));
        machine
    }

    /// A machine, mounted.
    pub(crate) fn mounted(&self, name: &str) -> Machine {
        self.mounted_with(name, &[])
    }

    /// A machine, mounted with options.
    pub(crate) fn mounted_with(&self, name: &str, options: &[&str]) -> Machine {
        let mut machine = self.machine(name);
        machine.args(options);
        machine.mount();
        machine
    }

    /// Lets days pass on the engine and on every machine, mounted or not.
    pub(crate) fn pass(&self, days: u32) {
        self.days.as_ref().expect("a vault with days").pass(days);
    }

    /// So many nights, through which the machine is not mounted: on each of the days that follow
    /// it adds a day to the vault's calendar, for which something must be waiting.
    #[track_caller]
    pub(crate) fn nights(&self, machine: &mut Machine, nights: u32) {
        for _ in 0..nights {
            let day = self.night(machine);
            process::eventually("the calendar has another day", PATIENCE, || machine.day() > day);
        }
    }

    /// Nights until `holds`, of which there may be so many: what waits for the calendar is done by
    /// the mount that sets it, or by the next.
    #[track_caller]
    pub(crate) fn nights_until(
        &self,
        machine: &mut Machine,
        nights: u32,
        what: &str,
        mut holds: impl FnMut() -> bool,
    ) {
        for night in 1..=nights {
            let day = self.night(machine);
            let mut held = false;
            process::eventually(what, PATIENCE, || {
                held = holds();
                held || (night < nights && machine.day() > day)
            });
            if held {
                return;
            }
        }
    }

    /// One night; the calendar as it was before.
    #[track_caller]
    fn night(&self, machine: &mut Machine) -> u64 {
        let day = machine.day();
        machine.umount();
        self.pass(1);
        machine.mount();
        day
    }

    /// The files that another client would show: every token but the drive's own.
    pub(crate) fn visible(&self) -> Vec<Value> {
        self.engine.visible(&self.login)
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Ends this program's daemons after `deadline`, unless the sender is dropped before.
fn watchdog(deadline: Duration) -> Sender<()> {
    let (alive, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
            process::kill_all_daemons();
        }
    });
    alive
}
