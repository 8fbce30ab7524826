//! Commands without the drive: an engine process, a profile, and a place for sessions. Every
//! output is searched for the secrets that are known.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::engine_process::{EngineProcess, Login};
use super::machine::Machine;
use super::process::{Output, run};
use super::vault::{KEY, PASSWORD, write_secret};

/// How long a command may take: far more than any should.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The fields are dropped in this order: the engine before its folder.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) engine: EngineProcess,
    pub(crate) login: Login,
    machine: Machine,
    dir: TempDir,
}

impl Console {
    /// An engine with a profile; nobody is logged in.
    pub(crate) fn new() -> Self {
        let console = Self::without_profile();
        console.engine.register(&console.login);
        console
    }

    /// An engine without a profile.
    pub(crate) fn without_profile() -> Self {
        let dir = tempfile::Builder::new().prefix("p").tempdir().unwrap();
        let engine = EngineProcess::start(&dir.path().join("engine"), &["--test-controls"]);
        let login = Login { username: "tester".to_owned(), password: PASSWORD.to_owned() };
        let machine = Machine::new(&dir.path().join("a"));
        write_secret(&dir.path().join("password"), PASSWORD);
        write_secret(&dir.path().join("key"), KEY);
        Self { engine, login, machine, dir }
    }

    /// The same, logged in.
    pub(crate) fn logged_in() -> Self {
        let console = Self::new();
        console.ok(&["account", "login", "--password-file", &console.text("password")]);
        console
    }

    /// A path in the temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and names it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.text(name)
    }

    /// The program with the service's address and the key, and no password.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.machine.command();
        command.env("PRIVICORE_API_URL", &self.engine.api_url);
        command.env("PRIVICORE_WS_URL", &self.engine.ws_url);
        command.env("PRIVICORE_USERNAME", &self.login.username);
        command.env("PRIVICOREFS_KEY_FILE", self.path("key"));
        command.env("TMPDIR", self.dir.path());
        command
    }

    /// The folder of kept sessions.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.path("a/home/state/privicorefs/sessions")
    }

    /// The files of kept sessions.
    pub(crate) fn kept(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.sessions()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The one kept session.
    pub(crate) fn session(&self) -> (PathBuf, Value) {
        let kept = self.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        let path = kept[0].clone();
        let content = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, content)
    }

    /// Changes the one kept session.
    pub(crate) fn change_session(&self, name: &str, value: &str) {
        let (path, mut content) = self.session();
        content[name] = value.into();
        std::fs::write(path, content.to_string()).unwrap();
    }

    /// Runs a command, which may show no secret.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_command(self.command().args(arguments))
    }

    #[track_caller]
    pub(crate) fn run_command(&self, command: &mut Command) -> Output {
        let mut secrets = vec![PASSWORD.to_owned(), KEY.to_owned()];
        let mut note = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let content = serde_json::from_str::<Value>(&text).unwrap_or_default();
            secrets.extend(content["token"].as_str().map(str::to_owned));
        };
        self.kept().iter().for_each(|path| note(path));
        let output = run(command, PATIENCE);
        self.kept().iter().for_each(|path| note(path));
        for secret in secrets {
            let shown = output.stdout.contains(&secret) || output.stderr.contains(&secret);
            assert!(!shown, "{command:?} shows a secret");
        }
        output
    }

    /// Runs a command that must succeed; what it prints on standard output.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.success(), "{arguments:?}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// The same with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a command that must fail with this code; what it says.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code(), code, "{arguments:?}: {}{}", output.stdout, output.stderr);
        assert!(output.stdout.is_empty(), "{}", output.stdout);
        assert_eq!(output.stderr.lines().count(), 1, "one sentence: {}", output.stderr);
        output.stderr
    }
}
