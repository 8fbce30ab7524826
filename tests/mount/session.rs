//! The life of a login under a drive: tokens that expire or are revoked while a large copy
//! goes on, and a password that is changed elsewhere. The drive logs in again or asks, and
//! nothing is lost or stored twice.
//!
//! `PRIVICOREFS_LARGE_MIB` sets the size of the copy (default 320; the recorded run used 2048).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::house;
use crate::house::content::{assert_pattern, pattern, write_pattern};
use crate::house::machine::show;
use crate::house::vault::write_secret;
use crate::house::{Machine, Vault, eventually, run, run_ok};

const MIB: u64 = 1 << 20;
/// The program's default, which this test relies on (`--part-size`).
const PART: u64 = 16 * MIB;
const PATIENCE: Duration = Duration::from_secs(120);
/// Small files that are written beside the large one: at least, and at most.
const SMALL: u64 = 60;
const MOST: u64 = 20_000;
const LOGIN: &str = "POST /profile/authenticate";
const RENEWAL: &str = "POST /profile/reauthorize-authorization-token";

fn size() -> u64 {
    house::from_environment("PRIVICOREFS_LARGE_MIB").unwrap_or(320) * MIB
}

/// Every token of the vault by the name that others see, each once; the parts of large files
/// by their own names.
#[track_caller]
fn stored_once(vault: &Vault) -> (BTreeSet<String>, usize) {
    let (mut files, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for item in vault.engine.list(&vault.login) {
        let context = item["context"].as_str().unwrap_or_default();
        let file = &item["meta"]["file"];
        let name = file["fileName"].as_str().or_else(|| item["fileName"].as_str()).unwrap();
        let name = format!("{context}/{name}");
        if !context.starts_with(".privicorefs") {
            assert!(files.insert(name.clone()), "{name} is in the vault twice");
        } else if file["size"].as_u64().or_else(|| item["size"].as_u64()) == Some(PART) {
            assert!(parts.insert(name.clone()), "{name} is in the vault twice");
        }
    }
    (files, parts.len())
}

/// A large file by somebody else's tool, and small ones beside it, while `trouble` is made
/// again and again until it was `enough`; then everything is in the vault once, and equal on
/// another machine.
fn copy_under(
    vault: &Vault,
    machine: &mut Machine,
    size: u64,
    trouble: impl Fn() + Sync,
    enough: impl Fn() -> bool,
) {
    let mut small = 0;
    let source = vault.path("source");
    write_pattern(&File::create(&source).unwrap(), 1, 0, size).unwrap();
    let done = AtomicBool::new(false);
    let started = house::process::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                trouble();
                std::thread::sleep(Duration::from_millis(700));
            }
        });
        let target = machine.path("large");
        let copying = scope.spawn(move || {
            run_ok(Command::new("cp").arg(&source).arg(target), Duration::from_secs(1200));
        });
        while small < SMALL || !enough() {
            assert!(small < MOST, "there was never enough trouble");
            let file = File::create(machine.path(format!("{small}"))).unwrap();
            write_pattern(&file, small, 0, 3_000).unwrap();
            if small >= SMALL {
                file.sync_all().unwrap();
            }
            small += 1;
        }
        copying.join().unwrap();
        machine.sync_within(Duration::from_secs(1200));
        done.store(true, Ordering::Relaxed);
    });
    show(&format!("{} MiB and {small} files in {:?}", size / MIB, started.elapsed()));
    let status = machine.status();
    assert_eq!((&status["dirty_files"], &status["login"]), (&json!(0), &json!("ok")), "{status}");
    assert_eq!(status["failed"], json!([]));
    let wanted = usize::try_from(size / PART).unwrap();
    eventually("interrupted parts are cleared away", PATIENCE, || stored_once(vault).1 == wanted);
    assert_eq!(stored_once(vault).0.len() as u64, small + 1);
    machine.umount();

    let elsewhere = vault.mounted("elsewhere");
    let file = File::open(elsewhere.path("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    assert_pattern(&file, 1, 0, size);
    for number in 0..small {
        let found = fs::read(elsewhere.path(format!("{number}"))).unwrap();
        assert!(found == pattern(number, 3_000), "file {number}");
    }
}

/// Tokens live for two seconds, and those that could be extended are refused that every other
/// time; between, all that there are are revoked without a word.
#[test]
fn a_large_copy_goes_on_over_expired_and_revoked_tokens() {
    let vault = Vault::with_deadline(&["--test-controls"], Duration::from_secs(2_800));
    let mut machine = vault.mounted("a");
    vault.engine.session_life(Duration::from_secs(2));
    vault.engine.revoke_all();
    let refused = json!({ "op": "/profile/reauthorize-authorization-token",
        "kind": { "status": { "code": 500 } }, "when": { "every": 2 } });
    vault.engine.faults(&json!({ "seed": 1, "rules": [refused] }));
    let before = vault.engine.metrics();
    let rounds = AtomicU64::new(0);
    let trouble = || {
        if rounds.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            vault.engine.revoke_all();
        }
    };
    copy_under(&vault, &mut machine, size(), trouble, || {
        vault.engine.since(&before).of(LOGIN) > 4 && rounds.load(Ordering::Relaxed) > 6
    });
    let since = vault.engine.since(&before);
    let (logins, renewals) = (since.of(LOGIN), since.of(RENEWAL));
    show(&format!("{logins} logins, {renewals} renewals, {rounds:?} rounds"));
}

/// The same where every reply to a renewal is a new token, so that the old one dies at once.
#[test]
fn a_copy_goes_on_where_a_renewal_replaces_the_token() {
    let vault = Vault::with_deadline(&["--test-controls"], Duration::from_secs(900));
    let mut machine = vault.mounted("a");
    vault.engine.shape(&json!({ "reauthorize": "replace" }));
    vault.engine.session_life(Duration::from_secs(2));
    vault.engine.revoke_all();
    let before = vault.engine.metrics();
    copy_under(
        &vault,
        &mut machine,
        8 * PART,
        || {},
        || vault.engine.since(&before).of(RENEWAL) > 2,
    );
}

/// What `privicorefs status` says to a person.
fn said(machine: &Machine) -> String {
    let mut command = machine.command();
    run_ok(command.arg("status").arg(machine.mountpoint()), PATIENCE).stdout
}

fn write_some(machine: &Machine, first: u64, count: u64) {
    for number in first..first + count {
        fs::write(machine.path(format!("{number}")), pattern(number, 20_000)).unwrap();
    }
}

/// Another machine changes the password and all tokens end: the drive says so and what to do,
/// takes what is written, and goes on once the password's file has the new one.
#[test]
fn a_password_changed_elsewhere_is_asked_for_and_nothing_is_lost() {
    const NEW: &str = "another-Horse-battery-Staple-6288";
    const EACH: u64 = 10;
    let mut vault = Vault::with_engine(&["--test-controls"]);
    let mut machine = vault.machine("a");
    machine.args(["--deadline", "5"]);
    machine.mount();
    assert!(!said(&machine).contains("login"), "no word about a login that is in order");
    write_some(&machine, 0, EACH);
    machine.sync();
    vault.engine.change_password(&vault.login, NEW);
    // The token still counts, as the sources say; then it ends.
    write_some(&machine, EACH, EACH);
    machine.sync();
    vault.engine.revoke_all();

    write_some(&machine, 2 * EACH, EACH);
    eventually("the drive says what is wrong", PATIENCE, || {
        machine.status()["login"] != json!("ok")
    });
    let text = said(&machine);
    let file = vault.path("password").display().to_string();
    for part in ["refuses the login of tester", "Put the right password into", file.as_str()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(house::vault::PASSWORD), "{text}");
    // What was written is here, and more can be; only the vault cannot be promised.
    write_some(&machine, 3 * EACH, EACH);
    assert_eq!(fs::read(machine.path(format!("{}", 2 * EACH))).unwrap(), pattern(2 * EACH, 20_000));
    let fresh = File::open(machine.path(format!("{}", 3 * EACH))).unwrap();
    assert!(fresh.sync_all().is_err(), "fsync promised what it could not keep");
    drop(fresh);
    let dirty = machine.status()["dirty_files"].as_u64().unwrap();
    assert_eq!(dirty, 2 * EACH);
    let wrong_tries = vault.engine.metrics().of(LOGIN);

    // A wrong one again, then the right one where others could read it, then as it must be.
    write_secret(&vault.path("password"), "not-the-password-either-7399");
    eventually("the new one was tried", PATIENCE, || {
        vault.engine.metrics().of(LOGIN) > wrong_tries
    });
    assert_ne!(machine.status()["login"], "ok");
    write_secret(&vault.path("exposed"), NEW);
    fs::set_permissions(vault.path("exposed"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(vault.path("exposed"), vault.path("password")).unwrap();
    eventually("the file is refused", PATIENCE, || machine.log().contains("open to others"));
    assert_ne!(machine.status()["login"], "ok");
    write_secret(&vault.path("password"), NEW);
    eventually("everything goes up by itself", PATIENCE, || {
        let status = machine.status();
        status["dirty_files"] == 0 && status["pending_records"] == 0
    });
    assert_eq!(machine.status()["login"], "ok");
    assert!(!said(&machine).contains("login"), "{}", said(&machine));
    machine.umount();
    vault.login.password = NEW.to_owned();
    assert_eq!(vault.visible().len() as u64, 4 * EACH);
    let elsewhere = vault.mounted("b");
    for number in 0..4 * EACH {
        let found = fs::read(elsewhere.path(format!("{number}"))).unwrap();
        assert!(found == pattern(number, 20_000), "file {number}");
    }
}

/// A drive that is killed while its login is refused has lost nothing: the next mount, with
/// the new password, brings it up.
#[test]
fn a_death_while_the_login_is_refused_loses_nothing() {
    const NEW: &str = "another-Horse-battery-Staple-6288";
    let mut vault = Vault::with_engine(&["--test-controls"]);
    let mut machine = vault.mounted("a");
    write_some(&machine, 0, 1);
    machine.sync();
    vault.engine.change_password(&vault.login, NEW);
    vault.engine.revoke_all();
    write_some(&machine, 1, 20);
    eventually("the login is refused", PATIENCE, || machine.status()["login"] != json!("ok"));
    machine.kill();
    let output = machine.try_mount();
    assert!(!output.success(), "a refused login is an error at the mount");
    let error = format!("{}{}", output.stdout, output.stderr);
    assert!(error.contains("refuses the login"), "{error}");
    write_secret(&vault.path("password"), NEW);
    vault.login.password = NEW.to_owned();
    machine.mount();
    machine.umount();
    assert_eq!(vault.visible().len(), 21);
    assert!(exists_nowhere(&machine.state_dir(), NEW), "a password is in the state folder");
}

/// Whether no file below `dir` holds `text`.
fn exists_nowhere(dir: &Path, text: &str) -> bool {
    let mut grep = Command::new("grep");
    !run(grep.args(["-rqF", "--", text]).arg(dir), PATIENCE).success()
}
