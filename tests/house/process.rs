//! Processes with deadlines: none outlives its test, none is waited for without limit.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at again.
const TICK: Duration = Duration::from_millis(10);

/// The daemons of this test program, for the watchdog.
static DAEMONS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; -1 for a death by signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// Wall time for deadlines: the program under test lives in another process.
#[allow(clippy::disallowed_methods, reason = "deadlines of real processes are wall time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Runs a command to its end. Panics, and kills it, when it outlives the deadline.
///
/// Output goes to unnamed files, not pipes: a daemon that it leaves behind cannot keep
/// the reader waiting.
#[track_caller]
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Output {
    let stdout = tempfile::tempfile().unwrap();
    let stderr = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let ended = wait_until(deadline, || child.try_wait().unwrap());
    let Some(status) = ended else {
        let _gone = child.kill();
        panic!(
            "{command:?} has not ended after {deadline:?}; so far:\n{}{}",
            contents(stdout),
            contents(stderr)
        );
    };
    Output { status, stdout: contents(stdout), stderr: contents(stderr) }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run_ok(command: &mut Command, deadline: Duration) -> Output {
    let output = run(command, deadline);
    assert!(
        output.success(),
        "{command:?}: {:?} signal {:?}\n{}{}",
        output.status.code(),
        output.status.signal(),
        output.stdout,
        output.stderr
    );
    output
}

fn contents(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks `probe` again and again until it gives a value or the time is over.
pub(crate) fn wait_until<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + deadline;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if now() >= end {
            return None;
        }
        sleep(TICK);
    }
}

/// Panics unless `holds` becomes true within the deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let found = wait_until(deadline, || holds().then_some(()));
    assert!(found.is_some(), "not within {deadline:?}: {what}");
}

/// Notes a process for `scripts/test`, which ends what was forgotten.
pub(crate) fn note_started(pid: u32) {
    DAEMONS.lock().unwrap().push(pid);
    let Some(path) = std::env::var_os("PRIVICOREFS_TEST_REGISTRY") else { return };
    if let Some(start) = start_time(pid) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(format!("pid {pid} {start}\n").as_bytes()).unwrap();
    }
}

/// Kills every daemon this test program started: frees whoever waits for one.
pub(crate) fn kill_all_daemons() {
    let daemons = DAEMONS.lock().map(|list| list.clone()).unwrap_or_default();
    for pid in daemons {
        signal(pid, Signal::KILL);
    }
}

/// Fields of `/proc/PID/stat` after the command name: the state comes first.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = line.rsplit_once(") ")?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// When the process started, in ticks since boot; with its number, its identity.
fn start_time(pid: u32) -> Option<String> {
    stat_fields(pid)?.get(19).cloned()
}

/// True unless the process is gone, or dead and only not yet collected by its parent. One
/// whose first thread has ended is alive while others have not: it holds its files.
pub(crate) fn is_alive(pid: u32) -> bool {
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat_fields(pid).is_some_and(|fields| (fields[0] != "Z" && fields[0] != "X") || threads() > 1)
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// Stops a process; when this returns, none of its threads runs. The signal itself reaches a
/// thread on another processor only when that next enters the kernel.
#[track_caller]
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    eventually("every thread is stopped", Duration::from_secs(10), || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.all(|task| task.is_ok_and(is_stopped))
    });
}

/// Kills a process at once and waits until it is gone.
#[track_caller]
pub(crate) fn kill_now(pid: u32) {
    signal(pid, Signal::KILL);
    eventually("a killed process is gone", Duration::from_secs(30), || !is_alive(pid));
}

/// Ends a child of this process and collects it.
pub(crate) fn reap(child: &mut Child) {
    let _gone = child.kill();
    let _status = child.wait();
}

/// A field of `/proc/PID/status` in KiB, for example `VmHWM`.
pub(crate) fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
