//! An engine process of the test's own, on a free port of loopback.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use super::days::Days;
use super::http::{self, Reply};
use super::process;

/// A well-formed public key (protocol section A): nothing reads it, every profile needs one.
const PUBLIC_KEY: &str = concat!(
    "31420500",
    "3d5c56dd7e9da356bc43229082c8fd9ce458db45e01499556851b9c55a103334",
    "1107cbf8fa47246913771e725c12c5278d867f0b961bf9a0dbd27b0711831542",
    "8ede38978b1b4e00faedbd14bc666fedf8f8e7dbd9f93f28baa90a1b776d8499"
);

/// How long starting, a command, or becoming quiet may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the engine counted (`GET /_engine/metrics`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) requests: BTreeMap<String, u64>,
    pub(crate) requests_total: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) acks: u64,
    pub(crate) tokens: u64,
}

impl Metrics {
    /// Requests whose method and path contain `part`.
    pub(crate) fn of(&self, part: &str) -> u64 {
        self.requests.iter().filter(|(name, _)| name.contains(part)).map(|(_, n)| n).sum()
    }

    /// Uploads begun.
    pub(crate) fn puts(&self) -> u64 {
        self.of("reserve-token-space")
    }

    /// Payloads asked for.
    pub(crate) fn gets(&self) -> u64 {
        self.of("request-data")
    }
}

/// The login of the profile that all machines of a test share.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// A running (or killed) engine.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    child: Child,
    dir: PathBuf,
    options: Vec<String>,
    days: Option<Days>,
    pub(crate) api_url: String,
    pub(crate) ws_url: String,
}

impl EngineProcess {
    /// Starts one on a new folder.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        Self::start_in(dir, options, None)
    }

    /// The same, on which days pass when told.
    pub(crate) fn start_in(dir: &Path, options: &[&str], days: Option<Days>) -> Self {
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        std::fs::create_dir_all(dir).unwrap();
        let (child, urls) = spawn(dir, "127.0.0.1:0", &options, days.as_ref());
        let url = |name: &str| urls[name].as_str().unwrap().to_owned();
        let (api_url, ws_url) = (url("api_url"), url("ws_url"));
        Self { child, dir: dir.to_owned(), options, days, api_url, ws_url }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        process::reap(&mut self.child);
    }

    /// Starts it again on the same folder and the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let address =
            self.api_url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let (child, _) = spawn(&self.dir, &address, &self.options, self.days.as_ref());
        self.child = child;
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub(crate) fn freeze(&self) {
        process::stop(self.pid());
    }

    pub(crate) fn thaw(&self) {
        process::signal(self.pid(), Signal::CONT);
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let reply = http::request("GET", &self.api_url, "/_engine/metrics", &[], &[]).unwrap();
        serde_json::from_value(reply.json()).unwrap()
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Metrics) -> Metrics {
        let mut metrics = self.metrics();
        for (name, n) in &mut metrics.requests {
            *n -= earlier.requests.get(name).copied().unwrap_or(0);
        }
        metrics.requests_total -= earlier.requests_total;
        metrics.bytes_up -= earlier.bytes_up;
        metrics.bytes_down -= earlier.bytes_down;
        metrics.acks -= earlier.acks;
        metrics
    }

    /// Waits until nobody has asked it anything for a second; then its counts.
    #[track_caller]
    pub(crate) fn quiet(&self) -> Metrics {
        let mut last = self.metrics();
        let mut since = process::now();
        process::eventually("the engine is left in peace", PATIENCE, || {
            let metrics = self.metrics();
            if metrics != last {
                (last, since) = (metrics, process::now());
            }
            since.elapsed() >= Duration::from_secs(1)
        });
        last
    }

    /// Sets the fault plan (needs `--test-controls`).
    pub(crate) fn faults(&self, plan: &Value) {
        self.control("/_engine/faults", plan);
    }

    /// How long tokens live from now on (needs `--test-controls`).
    pub(crate) fn session_life(&self, life: Duration) {
        self.sessions(&serde_json::json!({ "life_ms": life.as_millis() as u64 }));
    }

    /// Revokes every authorization token that there is (needs `--test-controls`).
    pub(crate) fn revoke_all(&self) {
        self.sessions(&serde_json::json!({ "revoke": true }));
    }

    fn sessions(&self, order: &Value) {
        self.control("/_engine/sessions", order);
    }

    fn control(&self, path: &str, order: &Value) {
        let body = order.to_string();
        let headers = [("Content-Type", "application/json")];
        let reply = http::request("POST", &self.api_url, path, &headers, body.as_bytes());
        let reply = reply.unwrap();
        assert!(reply.status < 300, "{path}: {reply:?}");
    }

    /// Gives the profile an approved device without a role; its identifier.
    pub(crate) fn add_device(&self, login: &Login, name: &str) -> String {
        let token = self.authenticate(login);
        let fields = [("deviceName", name)];
        let id = self.command("/device/request-unique-identifier", Some(&token), &fields);
        let path = "/device/retrieve-unique-identifier";
        let reply = self.post(path, Some(&token), &[("id", &id)]);
        let device = reply.json()["deviceIdentifier"].as_str().unwrap().to_owned();
        let fields = [("deviceIdentifier", device.as_str())];
        self.command("/device/approve-device", Some(&token), &fields);
        device
    }

    /// Changes the profile's password, as another machine would.
    pub(crate) fn change_password(&self, login: &Login, new: &str) {
        let token = self.authenticate(login);
        let fields = [
            ("oldPassword", login.password.as_str()),
            ("newPassword", new),
            ("newPasswordRepeat", new),
        ];
        self.command("/profile/change-password", Some(&token), &fields);
    }

    /// Sets the wire variants (needs `--test-controls`).
    pub(crate) fn shape(&self, shape: &Value) {
        self.control("/_engine/shape", shape);
    }

    /// Makes a profile with a public key.
    pub(crate) fn register(&self, login: &Login) {
        let fields = [("username", login.username.as_str()), ("password", login.password.as_str())];
        self.command("/profile/register-profile", None, &fields);
        let token = self.authenticate(login);
        self.command("/public-key/register-public-key", Some(&token), &[("publicKey", PUBLIC_KEY)]);
    }

    /// Sets the risk meta of a token, as another client would.
    pub(crate) fn set_risk(&self, login: &Login, token: &str, risk: [&str; 3]) {
        let session = self.authenticate(login);
        let [classification, label, handling] = risk;
        let fields = [
            ("token", token),
            ("classification", classification),
            ("label", label),
            ("handling", handling),
        ];
        let path = "/data-token/configure-information-security-risk-meta";
        self.command(path, Some(&session), &fields);
    }

    /// Gives a profile a device that votes, as another client would; its identifier.
    pub(crate) fn authenticator(&self, login: &Login, name: &str) -> String {
        let identifier = self.add_device(login, name);
        let session = self.authenticate(login);
        let device = [("deviceIdentifier", identifier.as_str())];
        self.command("/verified-authenticator/register", Some(&session), &device);
        identifier
    }

    /// What a `GET` of the profile shows.
    pub(super) fn get(&self, path: &str, session: &str) -> Value {
        let headers = [("X-DPT-AUTHORIZATION", session)];
        let reply = http::request("GET", &self.api_url, path, &headers, &[]).unwrap();
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    pub(super) fn authenticate(&self, login: &Login) -> String {
        let fields = [("username", login.username.as_str()), ("password", login.password.as_str())];
        let reply = self.post("/profile/authenticate", None, &fields);
        reply.json()["authorizationToken"].as_str().unwrap().to_owned()
    }

    /// Every token of a profile, as the service lists it.
    pub(crate) fn list(&self, login: &Login) -> Vec<Value> {
        let token = self.authenticate(login);
        let mut found: Vec<Value> = Vec::new();
        for page in 1.. {
            let path = format!("/data-token/list-data-tokens?page={page}&perPage=100");
            let items = self.get(&path, &token)["items"].as_array().unwrap().clone();
            if items.is_empty() {
                break;
            }
            found.extend(items);
        }
        found
    }

    /// The files that another client would show: every token but the drive's own.
    pub(crate) fn visible(&self, login: &Login) -> Vec<Value> {
        let mut found = self.list(login);
        found.retain(|item| {
            let context = item["context"].as_str().unwrap_or_default();
            context != ".privicorefs" && !context.starts_with(".privicorefs/")
        });
        found
    }

    pub(super) fn post(&self, path: &str, token: Option<&str>, fields: &[(&str, &str)]) -> Reply {
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        headers.extend(token.map(|token| ("X-DPT-AUTHORIZATION", token)));
        let body = http::form(fields);
        let reply = http::request("POST", &self.api_url, path, &headers, body.as_bytes()).unwrap();
        assert!(reply.status < 300, "{path}: {reply:?}");
        reply
    }

    /// A command, polled until it has succeeded; its id.
    pub(super) fn command(
        &self,
        path: &str,
        token: Option<&str>,
        fields: &[(&str, &str)],
    ) -> String {
        let reply = self.post(path, token, fields);
        self.succeeded(path, &reply)
    }

    /// Polls the command of a reply until it has succeeded; its id.
    pub(super) fn succeeded(&self, path: &str, reply: &Reply) -> String {
        let id = reply.header("x-dpt-cab-id").unwrap().to_owned();
        process::eventually(path, PATIENCE, || {
            let path = format!("/request-status/{id}");
            let reply = http::request("GET", &self.api_url, &path, &[], &[]).unwrap();
            assert!(reply.status < 300, "{path}: {reply:?}");
            reply.status == 200
        });
        id
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.thaw();
        self.kill();
    }
}

fn spawn(dir: &Path, listen: &str, options: &[String], days: Option<&Days>) -> (Child, Value) {
    let (stdout_path, stderr_path) = (dir.with_extension("json"), dir.with_extension("log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_privicorefs"));
    command.arg("engine").arg("--dir").arg(dir).args(["--listen", listen, "--json"]);
    command.args(options).stdin(Stdio::null());
    command.stdout(File::create(&stdout_path).unwrap());
    command.stderr(File::options().append(true).create(true).open(&stderr_path).unwrap());
    if let Some(days) = days {
        days.rule(&mut command);
    }
    let mut child = command.spawn().unwrap();
    process::note_started(child.id());
    let urls = process::wait_until(PATIENCE, || {
        if let Some(status) = child.try_wait().unwrap() {
            let log = std::fs::read_to_string(&stderr_path).unwrap_or_default();
            panic!("the engine ended ({status}): {log}");
        }
        let text = std::fs::read_to_string(&stdout_path).unwrap();
        text.ends_with('\n').then(|| serde_json::from_str(text.lines().next()?).ok()).flatten()
    });
    match urls {
        Some(urls) => (child, urls),
        None => {
            process::reap(&mut child);
            panic!("the engine says nothing");
        }
    }
}
