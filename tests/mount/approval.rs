//! Operations that wait for a vote, seen from the mount: approved, refused, timed out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::Value;

use crate::house;
use crate::house::Voters;
use crate::house::content::pattern;
use crate::house::vault::TRASH_NIGHTS;
use crate::house::{Machine, Vault, assert_errno, attributes, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &[u8] = b"the formula";
const STATE: &str = "user.privicore.state";
const POOL: &str = "user.privicore.pool";

fn classify(path: &Path) {
    let name = "user.privicore.risk.classification";
    attributes::set(path, name, b"secret", XattrFlags::empty()).unwrap();
}

/// A machine on which nothing of the vault's contents is cached, with a classified file
/// and an ordinary one.
fn classified(vault: &Vault, options: &[&str]) -> Machine {
    let mut first = vault.mounted("first");
    let folder = first.path("folder");
    fs::create_dir(&folder).unwrap();
    classify(&folder);
    fs::write(folder.join("secret"), SECRET).unwrap();
    fs::write(first.path("ordinary"), "nothing to see").unwrap();
    first.umount();
    vault.mounted_with("second", options)
}

fn reading(path: &Path) -> JoinHandle<io::Result<Vec<u8>>> {
    let path = path.to_owned();
    thread::spawn(move || fs::read(path))
}

fn pending(machine: &Machine) -> Vec<Value> {
    let mut command = machine.command();
    command.arg("pending").arg("--json").arg(machine.mountpoint());
    let said = house::run_ok(&mut command, PATIENCE).stdout;
    serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
}

/// Waits until exactly this file waits for a vote; the pool.
fn held(file: &Path) -> String {
    eventually("the file's state tells of the vote", PATIENCE, || {
        attributes::text(file, STATE) == "awaiting-approval"
    });
    attributes::text(file, POOL)
}

#[test]
fn a_read_waits_for_all_authenticators_and_pending_says_on_whom() {
    let vault = Vault::new();
    let machine = classified(&vault, &["--approval-timeout", "300"]);
    let voters = Voters::new(&vault.engine, &vault.login, 2, "unanimous", 300);
    voters.gate("data_token.data_requested", "secret");
    let secret = machine.path("folder/secret");
    assert_eq!(attributes::text(&secret, STATE), "committed");
    let reader = reading(&secret);
    let pool = held(&secret);

    let waits_on = |names: &[&str]| {
        let found = pending(&machine);
        assert_eq!(found.len(), 1, "{found:?}");
        let item = &found[0];
        assert_eq!((&item["operation"], &item["pool"]), (&"get".into(), &pool.clone().into()));
        assert_eq!(item["path"], "folder/secret");
        assert_eq!(item["policy"], "data_token.data_requested");
        let names: Vec<Value> = names.iter().map(|&name| name.into()).collect();
        assert_eq!(item["waits_on"], Value::Array(names));
    };
    waits_on(&["phone 0", "phone 1"]);
    voters.vote(0, &pool, "approve");
    waits_on(&["phone 1"]);
    assert!(!reader.is_finished());
    voters.vote(1, &pool, "approve");
    assert_eq!(reader.join().unwrap().unwrap(), SECRET);
    assert_eq!(attributes::text(&secret, STATE), "committed");
    assert!(attributes::get(&secret, POOL).is_err(), "no pool any more");
    assert!(pending(&machine).is_empty());
    assert_eq!(voters.pools("approved").len(), 1, "one vote for one read");
    assert_eq!(fs::read(machine.path("ordinary")).unwrap(), b"nothing to see");
}

#[test]
fn a_share_of_the_authenticators_is_enough_where_that_is_the_strategy() {
    let vault = Vault::new();
    let machine = classified(&vault, &["--approval-timeout", "300"]);
    let voters = Voters::new(&vault.engine, &vault.login, 2, "minimum_percentage", 300);
    voters.gate("data_token.data_requested", "secret");
    let secret = machine.path("folder/secret");
    let reader = reading(&secret);
    let pool = held(&secret);
    voters.vote(1, &pool, "approve");
    assert_eq!(reader.join().unwrap().unwrap(), SECRET);
}

#[test]
fn a_refused_read_says_so_and_may_be_asked_for_again() {
    let vault = Vault::new();
    let machine = classified(&vault, &["--approval-timeout", "300"]);
    let voters = Voters::new(&vault.engine, &vault.login, 2, "unanimous", 300);
    voters.gate("data_token.data_requested", "secret");
    let secret = machine.path("folder/secret");
    let reader = reading(&secret);
    let pool = held(&secret);
    voters.vote(0, &pool, "reject");
    assert_errno(reader.join().unwrap(), Errno::ACCESS);
    let state = attributes::text(&secret, STATE);
    assert!(state.starts_with("failed: ") && state.contains("policy.rejected"), "{state}");
    let log = machine.log();
    assert!(log.contains("policy.rejected"), "{log}");

    // Not in the same moment: that is how the kernel itself reads again what has failed.
    let mut reader = reading(&secret);
    eventually("it waits again", PATIENCE, || {
        if reader.is_finished() {
            let failed = std::mem::replace(&mut reader, reading(&secret));
            assert_errno(failed.join().unwrap(), Errno::ACCESS);
        }
        attributes::text(&secret, STATE) == "awaiting-approval"
    });
    assert_ne!(held(&secret), pool);
    voters.approve_all();
    assert_eq!(reader.join().unwrap().unwrap(), SECRET);
    assert_eq!(attributes::text(&secret, STATE), "committed");
}

#[test]
fn a_vote_that_runs_out_of_time_refuses() {
    let vault = Vault::new();
    let machine = classified(&vault, &["--approval-timeout", "300"]);
    let voters = Voters::new(&vault.engine, &vault.login, 2, "unanimous", 1);
    voters.gate("data_token.data_requested", "secret");
    let secret = machine.path("folder/secret");
    assert_errno(reading(&secret).join().unwrap(), Errno::ACCESS);
    let state = attributes::text(&secret, STATE);
    assert!(state.contains("policy.timed_out"), "{state}");
}

#[test]
fn a_reader_gives_up_after_its_time_and_succeeds_at_once_after_the_approval() {
    let vault = Vault::new();
    let machine = classified(&vault, &["--approval-timeout", "1"]);
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 300);
    voters.gate("data_token.data_requested", "secret");
    let secret = machine.path("folder/secret");
    for _ in 0..2 {
        assert_errno(reading(&secret).join().unwrap(), Errno::ACCESS);
        assert_eq!(attributes::text(&secret, STATE), "awaiting-approval");
        assert_eq!(pending(&machine).len(), 1);
    }
    let pools = voters.pools("open");
    assert_eq!(pools.len(), 1, "trying again opens no second vote: {pools:?}");
    voters.approve_all();
    eventually("the approval arrives", PATIENCE, || pending(&machine).is_empty());
    assert_eq!(fs::read(&secret).unwrap(), SECRET);
}

/// More readers wait than there are transfers at once, and everything else goes on.
#[test]
fn what_waits_slows_nothing_down() {
    const WAITING: usize = 70;
    let vault = Vault::new();
    let mut first = vault.mounted("first");
    let gated = first.path("gated");
    fs::create_dir(&gated).unwrap();
    classify(&gated);
    fs::create_dir(first.path("free")).unwrap();
    let free: Vec<PathBuf> = (0..WAITING).map(|n| format!("free/{n}").into()).collect();
    for (n, name) in free.iter().enumerate() {
        fs::write(gated.join(n.to_string()), SECRET).unwrap();
        fs::write(first.path(name), pattern(n as u64, 3_000)).unwrap();
    }
    first.umount();
    let machine = vault.mounted_with("second", &["--approval-timeout", "300"]);
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 300);
    voters.gate("data_token.data_requested", "secret");
    let readers: Vec<_> =
        (0..WAITING).map(|n| reading(&machine.path(format!("gated/{n}")))).collect();
    eventually("all wait", PATIENCE, || pending(&machine).len() == WAITING);

    let mut find = std::process::Command::new("find");
    find.arg(machine.mountpoint()).args(["-type", "f", "-size", "+0"]);
    let found = house::run_ok(&mut find, PATIENCE);
    assert_eq!(found.stdout.lines().count(), 2 * WAITING);
    for (n, name) in free.iter().enumerate() {
        assert_eq!(fs::read(machine.path(name)).unwrap(), pattern(n as u64, 3_000));
    }
    fs::write(machine.path("new"), "written meanwhile").unwrap();
    machine.sync();
    assert_eq!(pending(&machine).len(), WAITING, "nobody gave up meanwhile");

    voters.approve_all();
    for reader in readers {
        assert_eq!(reader.join().unwrap().unwrap(), SECRET);
    }
}

#[test]
fn a_store_waits_and_asks_once() {
    let vault = Vault::new();
    let mut machine = vault.mounted_with("first", &["--approval-timeout", "300"]);
    machine.sync();
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 300);
    voters.gate("data_token.data_exchanged", "*");
    let file = machine.path("file");
    fs::write(&file, SECRET).unwrap();
    held(&file);
    assert_eq!(fs::read(&file).unwrap(), SECRET, "it is here all the same");
    voters.approve_all();
    // The file first, then the catalog's segment that names it.
    eventually("the catalog asks too", PATIENCE, || {
        voters.pools("open").len() == 1 && attributes::text(&file, STATE) == "committed"
    });
    voters.approve_all();
    machine.sync();
    let pools = voters.pools("approved");
    assert_eq!(pools.len(), 2, "one vote for each payload: {pools:?}");
    machine.umount();
    let other = vault.mounted("second");
    assert_eq!(fs::read(other.path("file")).unwrap(), SECRET);
    assert_eq!(vault.visible().len(), 1, "and it is there once");
}

#[test]
fn a_refused_store_stays_here_and_is_tried_again_when_asked_for() {
    let vault = Vault::new();
    let machine = vault.mounted_with("first", &["--approval-timeout", "1"]);
    machine.sync();
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 300);
    voters.gate("data_token.data_exchanged", "*");
    let file = machine.path("file");
    fs::write(&file, SECRET).unwrap();
    let pool = held(&file);
    voters.vote(0, &pool, "reject");
    eventually("the refusal is told", PATIENCE, || {
        attributes::text(&file, STATE).contains("policy.rejected")
    });
    assert!(voters.pools("open").is_empty(), "nobody is asked again by itself");
    assert_eq!(fs::read(&file).unwrap(), SECRET);
}

#[test]
fn a_removal_waits_and_nothing_else_does() {
    let vault = Vault::with_days();
    let mut machine = vault.mounted("first");
    fs::write(machine.path("doomed"), SECRET).unwrap();
    machine.sync();
    fs::remove_file(machine.path("doomed")).unwrap();
    machine.sync();
    vault.nights(&mut machine, TRASH_NIGHTS - 1);
    machine.umount();
    vault.pass(1);
    // Only now: the session of who votes would not last a day.
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 300);
    voters.gate("data_token.data_deleted", "*");
    machine.mount();
    eventually("the deletion asks", PATIENCE, || voters.pools("open").len() == 1);
    assert_eq!(pending(&machine)[0]["operation"], "delete");
    fs::write(machine.path("next"), "goes on").unwrap();
    machine.sync();
    voters.approve_all();
    eventually("it is deleted", PATIENCE, || vault.visible().len() == 1);
    eventually("nothing waits", PATIENCE, || pending(&machine).is_empty());
    assert_eq!(voters.pools("approved").len(), 1, "one vote for one deletion");
}
