//! An ordinary user mounts through `fusermount3`, and others stay out.
//!
//! As root the test becomes somebody else for it, and gives `/dev/fuse` its usual mode.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::house::{let_others_reach, process, run, run_ok};

const PATIENCE: Duration = Duration::from_secs(120);
const USER: u32 = 65534;
const OTHER: u32 = 65533;

/// A folder with the program and everything of one user; gone, with its mount, on drop.
struct Account {
    dir: tempfile::TempDir,
    pid: Option<u32>,
}

impl Account {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("p").tempdir().unwrap();
        let account = Self { dir, pid: None };
        // Where cargo put it, that user may not get.
        fs::copy(env!("CARGO_BIN_EXE_privicorefs"), account.path("privicorefs")).unwrap();
        for name in ["mnt", "home", "run"] {
            fs::create_dir(account.path(name)).unwrap();
            chown(account.path(name), Some(USER), Some(USER)).unwrap();
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(account.path(name), private).unwrap();
        }
        fs::set_permissions(account.path("mnt"), fs::Permissions::from_mode(0o755)).unwrap();
        let_others_reach(&account.path("mnt"));
        account
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = self.becoming(USER, &self.path("privicorefs"));
        command.args(arguments);
        command
    }

    fn becoming(&self, user: u32, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.arg("--clear-groups").arg(program);
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        for name in ["CONFIG", "STATE", "CACHE", "DATA"] {
            command.env_remove(format!("XDG_{name}_HOME"));
        }
        command.current_dir("/");
        command
    }

    /// What a shell of that user prints.
    fn shell(&self, user: u32, script: &str) -> process::Output {
        let mut command = self.becoming(user, Path::new("/bin/sh"));
        run(command.args(["-c", script]).env("MNT", self.path("mnt")), PATIENCE)
    }

    fn mount(&mut self, options: &[&str]) -> process::Output {
        let (vault, mnt) = (self.path("home/vault"), self.path("mnt"));
        let mut command = self.program(&["mount", "--json", "--embedded"]);
        let output = run(command.arg(vault).args(options).arg(mnt), PATIENCE);
        if output.success() {
            let answer: serde_json::Value = serde_json::from_str(output.stdout.trim()).unwrap();
            let pid = u32::try_from(answer["pid"].as_u64().unwrap()).unwrap();
            process::note_started(pid);
            self.pid = Some(pid);
        }
        output
    }

    fn is_mounted(&self) -> bool {
        let place = format!(" {} ", self.path("mnt").display());
        fs::read_to_string("/proc/self/mounts").unwrap().contains(&place)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take().filter(|pid| process::is_alive(*pid)) {
            process::signal(pid, rustix::process::Signal::KILL);
            process::wait_until(PATIENCE, || (!process::is_alive(pid)).then_some(()));
        }
        if self.is_mounted() {
            let mut command = Command::new("fusermount3");
            let _ = run(command.arg("-uz").arg(self.path("mnt")), PATIENCE);
        }
    }
}

#[test]
fn an_ordinary_user_mounts_uses_and_unmounts() {
    assert!(rustix::process::geteuid().is_root(), "only root can become two other users");
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
    let mut account = Account::new();
    let mounted = account.mount(&[]);
    assert!(mounted.success(), "{}{}", mounted.stdout, mounted.stderr);

    let used = account.shell(
        USER,
        "set -e; cd \"$MNT\"; echo content >file; mkdir folder; ln -s file link
         chmod 640 file; touch -d 2001-02-03 folder; mv file folder/moved; cat folder/moved
         setfattr -n user.note -v one folder/moved; rm link
         stat -c '%u %g %a' folder/moved; ! chown 0 folder/moved 2>/dev/null",
    );
    assert!(used.success(), "{}{}", used.stdout, used.stderr);
    assert_eq!(used.stdout, format!("content\n{USER} {USER} 640\n"));

    // Another user is refused, root included: the mount is its owner's alone.
    for user in [OTHER, 0] {
        let refused = account.shell(user, "ls \"$MNT\"");
        assert!(!refused.success(), "user {user} sees {}", refused.stdout);
        assert!(refused.stderr.contains("ermission denied"), "{}", refused.stderr);
    }
    // The secrets of the vault are its owner's.
    for secret in ["key", "login.json"] {
        let mode = fs::metadata(account.path("home/vault").join(secret)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{secret}");
    }

    let mnt = account.path("mnt");
    let status = run_ok(account.program(&["status", "--json"]).arg(&mnt), PATIENCE);
    assert!(status.stdout.contains("\"connected\":true"), "{}", status.stdout);
    run_ok(account.program(&["umount"]).arg(&mnt), PATIENCE);
    assert!(!account.is_mounted());

    // Again, and by the system's own command.
    assert!(account.mount(&[]).success());
    let found = account.shell(USER, "cat \"$MNT/folder/moved\"");
    assert_eq!(found.stdout, "content\n", "{}", found.stderr);
    let unmounted = account.shell(USER, "fusermount3 -u \"$MNT\"");
    assert!(unmounted.success(), "{}", unmounted.stderr);
    let pid = account.pid.unwrap();
    process::eventually("the daemon has ended", PATIENCE, || !process::is_alive(pid));
}

/// `fusermount3` lets ordinary users share a mount only where the machine's owner says so.
#[test]
fn sharing_needs_the_machines_owner() {
    assert!(rustix::process::geteuid().is_root(), "only root can become another user");
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
    let allowed = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = allowed.lines().any(|line| line.trim() == "user_allow_other");
    let mut account = Account::new();
    let tried = account.mount(&["--allow-other"]);
    assert_eq!(tried.success(), allowed, "{}{}", tried.stdout, tried.stderr);
    if allowed {
        let read = account.shell(OTHER, "ls \"$MNT\"");
        assert!(read.success(), "{}", read.stderr);
    } else {
        assert!(tried.stderr.contains("user_allow_other"), "says what to do: {}", tried.stderr);
        assert!(!account.is_mounted());
    }
}
