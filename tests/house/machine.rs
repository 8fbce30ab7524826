//! One machine: a mount point, state and cache folders, and an environment of its own.

use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::days::Days;
use super::process::{self, Output, run, run_ok};

/// How long a command of the program may take: far more than any should.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of a daemon's log a failure shows.
const SHOWN_LINES: usize = 60;

/// A mount, or what is left of one. Dropping it ends the daemon and the mount.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    pid: Option<u32>,
    days: Option<Days>,
}

impl Machine {
    /// A machine in `folder`, which is made: `mnt`, `state` and `cache` are in it.
    pub(crate) fn new(folder: &Path) -> Self {
        for name in ["mnt", "home", "run"] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(folder.join(name)).unwrap();
        }
        let (folder, arguments) = (folder.to_owned(), Vec::new());
        let mut machine = Self { folder, arguments, pid: None, days: None };
        machine.path_arg("--state-dir", &machine.state_dir());
        machine.path_arg("--cache-dir", &machine.cache_dir());
        if let Some(level) = std::env::var_os("PRIVICOREFS_TEST_LOG_LEVEL") {
            machine.args([OsStr::new("--log-level"), &level]);
        }
        machine
    }

    /// Every process of this machine lives by these days.
    pub(crate) fn live_by(&mut self, days: &Days) {
        self.days = Some(days.clone());
    }

    /// Adds options for every mount to come.
    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    }

    pub(crate) fn path_arg(&mut self, option: &str, path: &Path) {
        self.args([OsStr::new(option), path.as_os_str()]);
    }

    /// Gives an option that was given already another value.
    pub(crate) fn replace_arg(&mut self, option: &str, path: &Path) {
        let at = self.arguments.iter().position(|argument| argument == option).unwrap();
        self.arguments[at + 1] = path.as_os_str().to_owned();
    }

    /// A path in the drive.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join("mnt").join(name)
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// The program, in this machine's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_privicorefs"));
        let home = self.folder.join("home");
        for name in ["API_URL", "WS_URL", "USERNAME", "PASSWORD"] {
            command.env_remove(format!("PRIVICORE_{name}"));
        }
        command.env_remove("PRIVICOREFS_KEY_FILE");
        // the keyring of whoever runs the tests is no place for their sessions
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.env("HOME", &home).env("XDG_RUNTIME_DIR", self.folder.join("run"));
        for name in ["CONFIG", "STATE", "CACHE", "DATA"] {
            command.env(format!("XDG_{name}_HOME"), home.join(name.to_lowercase()));
        }
        if let Some(days) = &self.days {
            days.rule(&mut command);
        }
        command
    }

    /// Tries to mount; the output, and the answer to `--json` if it succeeded.
    pub(crate) fn try_mount(&mut self) -> Output {
        let mut command = self.command();
        command.arg("mount").args(&self.arguments).arg("--json").arg(self.mountpoint());
        let output = run(&mut command, PATIENCE);
        if output.success() {
            self.adopt(&output);
        }
        output
    }

    /// Takes over the daemon that a `mount --json` command has just answered for.
    pub(crate) fn adopt(&mut self, output: &Output) {
        let answer: Value = serde_json::from_str(output.stdout.trim()).unwrap();
        let pid = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap();
        process::note_started(pid);
        self.pid = Some(pid);
    }

    /// Starts a mount that stays in the foreground; a thread collects it when it ends.
    pub(crate) fn spawn_foreground(&mut self) {
        self.spawn_foreground_logging(Stdio::null());
    }

    /// The same, with a place for its log.
    pub(crate) fn spawn_foreground_logging(&mut self, log: impl Into<Stdio>) {
        let mut command = self.command();
        command.arg("mount").args(&self.arguments).arg(self.mountpoint());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        process::note_started(child.id());
        self.pid = Some(child.id());
        std::thread::spawn(move || child.wait());
    }

    #[track_caller]
    pub(crate) fn mount(&mut self) {
        let output = self.try_mount();
        assert!(output.success(), "mount: {}{}\n{}", output.stdout, output.stderr, self.log());
    }

    /// Unmounts; everything must reach the vault, and the daemon must be gone.
    #[track_caller]
    pub(crate) fn umount(&mut self) {
        let mut command = self.command();
        let output = run(command.arg("umount").arg(self.mountpoint()), PATIENCE * 2);
        assert!(output.success(), "umount: {}{}\n{}", output.stdout, output.stderr, self.log());
        assert!(!self.is_mounted(), "umount succeeded, and the mount is still there");
        let pid = self.pid.take().unwrap();
        assert!(!process::is_alive(pid), "umount succeeded, and the daemon is still there");
    }

    /// Brings everything into the vault.
    #[track_caller]
    pub(crate) fn sync(&self) {
        self.sync_within(PATIENCE * 2);
    }

    #[track_caller]
    pub(crate) fn sync_within(&self, deadline: Duration) {
        let output = run(self.command().arg("sync").arg(self.mountpoint()), deadline);
        assert!(output.success(), "sync: {}{}\n{}", output.stdout, output.stderr, self.log());
    }

    pub(crate) fn status(&self) -> Value {
        let mut command = self.command();
        let output = run_ok(command.args(["status", "--json"]).arg(self.mountpoint()), PATIENCE);
        serde_json::from_str(output.stdout.trim()).unwrap()
    }

    /// The vault's calendar, as the mount knows it.
    #[track_caller]
    pub(crate) fn day(&self) -> u64 {
        let status = self.status();
        status["day"].as_u64().unwrap_or_else(|| panic!("no day in {status}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.expect("the machine is mounted")
    }

    /// `kill -9` of the daemon; the dead mount is removed too.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        process::kill_now(self.pid());
        self.pid = None;
        self.detach();
        assert!(!self.is_mounted(), "the dead mount cannot be removed");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits until the daemon, which was told to end, has ended and unmounted.
    #[track_caller]
    pub(crate) fn wait_ended(&mut self) {
        let pid = self.pid();
        process::eventually("the daemon has ended", PATIENCE, || !process::is_alive(pid));
        process::eventually("the mount is gone", PATIENCE, || !self.is_mounted());
        self.pid = None;
    }

    pub(crate) fn is_mounted(&self) -> bool {
        let mountpoint = format!(" {} ", self.mountpoint().display());
        std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&mountpoint)
    }

    /// Peak memory of the daemon in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        process::status_kib(self.pid(), "VmHWM:")
    }

    /// Deletes the cache: only clean data may be in it.
    pub(crate) fn delete_cache(&self) {
        assert!(self.pid.is_none(), "the cache of a mounted drive is in use");
        if self.cache_dir().exists() {
            std::fs::remove_dir_all(self.cache_dir()).unwrap();
        }
    }

    /// The end of the daemon's log, for a failure's message.
    pub(crate) fn log(&self) -> String {
        let path = self.state_dir().join("privicorefs.log");
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        format!("--- the daemon's log ends:\n{end}")
    }

    fn detach(&self) {
        if !self.is_mounted() {
            return;
        }
        let mut command = Command::new("fusermount3");
        let _ = run(command.arg("-uz").arg(self.mountpoint()), Duration::from_secs(30));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.pid.is_some() {
            show(&self.log());
        }
        if let Some(pid) = self.pid.take() {
            process::signal(pid, Signal::KILL);
            process::wait_until(Duration::from_secs(30), || {
                (!process::is_alive(pid)).then_some(())
            });
        }
        self.detach();
    }
}

/// Says something to whoever reads the output of a failed test.
#[allow(clippy::print_stderr, reason = "the output of a test is what it prints")]
pub(crate) fn show(text: &str) {
    eprintln!("{text}");
}
