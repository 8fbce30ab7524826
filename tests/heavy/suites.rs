//! What file systems are tested with: `pjdfstest` and `fsx`, written by others, on a mount.
//!
//! `scripts/test` installs both and names their folder in `PRIVICOREFS_SUITES`; by hand:
//! `cargo install --root DIR pjdfstest fsx` and `PRIVICOREFS_SUITES=DIR/bin`.
//! `PRIVICOREFS_FSX_OPS` sets how many operations each course of `fsx` makes (default 5,000),
//! and `PRIVICOREFS_FSX_DURABILITY` the mounts' `--durability`: one operation in six is an
//! `msync`, so a million of them with `fsync`, the default, takes hours. With `local` the
//! uploads go on beside the operations. `PRIVICOREFS_FSX_SEED` repeats the courses of a run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use crate::house::machine::show;
use crate::house::{Machine, Vault, from_environment, let_others_reach, random_seed, run};

const PATIENCE: Duration = Duration::from_secs(3600);

/// Tests of `pjdfstest` that it leaves out by itself here, and why that is right.
const LEFT_OUT: [&str; 1] = [
    // It asks pathconf(3) for LINK_MAX, which the C library knows for a few file systems
    // only; FUSE has no way to tell it. The limit itself is held: see `catalog::namespace`.
    "link::link_count_max",
];

fn suite(name: &str) -> Command {
    let folder = std::env::var_os("PRIVICOREFS_SUITES").map(PathBuf::from);
    let program = folder.map(|folder| folder.join(name)).filter(|program| program.exists());
    let Some(program) = program else {
        panic!("{name} is not in $PRIVICOREFS_SUITES: run scripts/test, which installs it");
    };
    Command::new(program)
}

/// Remounts by the system call: `mount(8)` would look for a helper of that name on its own
/// PATH. The kernel calls a mount busy while the release of a removed file is under way.
const MOUNT: &str = r#"#!/bin/sh
for try in $(seq 100); do
  said=$(/usr/bin/mount -i "$@" 2>&1) && exit 0
  case $said in *busy*) sleep 0.1 ;; *) break ;; esac
done
echo "$said" >&2
exit 1
"#;

const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

#[test]
fn pjdfstest_passes() {
    let vault = Vault::new();
    let mut machine = vault.mounted_with("a", &["--allow-other"]);
    let_others_reach(&machine.mountpoint());
    fs::set_permissions(machine.mountpoint(), fs::Permissions::from_mode(0o755)).unwrap();
    let (config, bin, other) =
        (vault.path("pjdfstest.toml"), vault.path("bin"), vault.path("other"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(bin.join("mount"), MOUNT).unwrap();
    fs::set_permissions(bin.join("mount"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let pjdfstest = |remount: bool, patterns: &[&str]| {
        fs::write(
            &config,
            format!("{PJDFSTEST}\n[settings]\nnaptime = 0.01\nallow_remount = {remount}\n"),
        )
        .unwrap();
        let mut command = suite("pjdfstest");
        command.arg("-c").arg(&config).arg("-p").arg(machine.mountpoint()).arg("-s").arg(&other);
        let output = run(command.args(patterns).env("PATH", &path).env("NO_COLOR", "1"), PATIENCE);
        let marked = |word: &str| -> Vec<String> {
            let end = format!(" {word}");
            let of = output.stdout.lines().filter(|line| line.ends_with(&end));
            of.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
        };
        assert!(output.success(), "failed: {:?}\n{}", marked("FAILED"), output.stdout);
        (marked("ok"), marked("skipped"))
    };
    // Those that remount run by themselves: the others leave a file open for writing (on
    // any file system), which keeps a mount from becoming read-only.
    let (passed, mut skipped) = pjdfstest(false, &[]);
    let (remounted, none) = pjdfstest(true, &["erofs"]);
    assert_eq!(none, Vec::<String>::new());
    skipped.retain(|name| !remounted.contains(name));
    assert_eq!(skipped, LEFT_OUT);
    assert!(passed.len() > 370 && remounted.len() > 10, "{} and {}", passed.len(), remounted.len());
    machine.umount();
}

/// Everything that `fsx` can do on Linux.
const ALL: &str = "
flen = 600000
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 2
punch_hole = 4
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

fn operations() -> u64 {
    from_environment("PRIVICOREFS_FSX_OPS").unwrap_or(5_000)
}

/// Of all mounts here. Nothing is kept in the trash; but what a course overwrites stays on the
/// engine's disk, since no day passes in which the vault may forget it.
fn options() -> Vec<String> {
    let durability = std::env::var("PRIVICOREFS_FSX_DURABILITY").unwrap_or("fsync".to_owned());
    ["--trash-days", "0", "--durability", &durability].map(str::to_owned).to_vec()
}

fn mounted(vault: &Vault, more: &[&str]) -> Machine {
    let options = options();
    let options = options.iter().map(String::as_str).chain(more.iter().copied());
    vault.mounted_with("a", &options.collect::<Vec<_>>())
}

/// A vault for a long course: a machine that is busy makes forty operations a second.
fn vault_for_fsx() -> Vault {
    Vault::with_deadline(&[], Duration::from_secs(600 + operations() / 40))
}

/// Operations under one seed: `fsx` begins anew with the next.
const LEG: u64 = 100_000;

/// A course of `fsx` on a file of its own.
#[track_caller]
fn course(vault: &Vault, machine: &Machine, name: &str, operations: u64) {
    let mut left = operations;
    while left > 0 {
        let leg = left.min(LEG);
        let seed = seed(vault, name, leg);
        let status = fsx(vault, &machine.path(name), name, seed, leg).wait().unwrap();
        let log = fs::read_to_string(vault.path(&format!("{name}.log"))).unwrap();
        let tail: Vec<_> = log.lines().rev().take(60).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        assert!(status.success(), "fsx on {name}, seed {seed}: {status}\n{}", tail.join("\n"));
        left -= leg;
    }
}

fn fsx(vault: &Vault, file: &Path, name: &str, seed: u64, to: u64) -> Child {
    let config = vault.path(&format!("{name}.toml"));
    fs::write(&config, ALL).unwrap();
    let artifacts = vault.path(&format!("{name}.artifacts"));
    fs::create_dir_all(&artifacts).unwrap();
    let log = fs::File::create(vault.path(&format!("{name}.log"))).unwrap();
    suite("fsx")
        .arg("-q")
        .arg("-f")
        .arg(&config)
        .arg("-P")
        .arg(&artifacts)
        .args(["-S", &seed.to_string(), "-N", &to.to_string()])
        .arg(file)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A seed with which `fsx` comes to its end in a local folder. Once in two million
/// operations it allocates a range of no bytes, which every file system refuses.
fn seed(vault: &Vault, name: &str, operations: u64) -> u64 {
    let local = format!("local.{name}");
    let file = vault.path(&local);
    for seed in first_seed(name).. {
        let done = fsx(vault, &file, &local, seed, operations).wait().unwrap().success();
        fs::remove_file(&file).unwrap();
        if done {
            show(&format!("fsx on {name}: {operations} operations of seed {seed}"));
            return seed;
        }
        show(&format!("fsx: seed {seed} fails in a local folder too"));
    }
    panic!("no seed is left");
}

/// The seed that the next leg on `name` tries first. Where `PRIVICOREFS_FSX_SEED` is set, each
/// leg of each name has one of its own, the same in every run.
fn first_seed(name: &str) -> u64 {
    static LEGS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    let Some(run) = from_environment("PRIVICOREFS_FSX_SEED") else { return random_seed() };
    let mut legs = LEGS.lock().unwrap();
    let leg = legs.entry(name.to_owned()).or_insert(0);
    *leg += 1;
    let of_name = name.bytes().fold(0, |sum: u64, byte| (sum * 31 + u64::from(byte)) % 10_007);
    (run * 10_007 + of_name) * 1_000 + *leg
}

/// What `fsx` leaves is what it compares with: its file is equal on another machine too.
#[track_caller]
fn equal_elsewhere(vault: &Vault, mut machine: Machine, names: &[&str]) {
    let here: Vec<_> = names.iter().map(|name| fs::read(machine.path(name)).unwrap()).collect();
    machine.umount();
    let other = vault.mounted("other");
    for (name, expected) in names.iter().zip(here) {
        assert!(fs::read(other.path(name)).unwrap() == expected, "{name} differs elsewhere");
    }
}

#[test]
fn fsx_on_one_file() {
    let vault = vault_for_fsx();
    let machine = mounted(&vault, &[]);
    course(&vault, &machine, "one", operations());
    equal_elsewhere(&vault, machine, &["one"]);
}

#[test]
fn fsx_on_four_files_at_once() {
    let vault = vault_for_fsx();
    let machine = mounted(&vault, &[]);
    let names = ["one", "two", "three", "four"];
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| course(&vault, &machine, name, operations() / 4));
        }
    });
    equal_elsewhere(&vault, machine, &names);
}

/// The threshold and the parts so small that operations cross parts all the time.
#[test]
fn fsx_across_parts() {
    let vault = vault_for_fsx();
    let machine = mounted(&vault, &["--split-above", "32KiB", "--part-size", "16KiB"]);
    course(&vault, &machine, "split", operations());
    equal_elsewhere(&vault, machine, &["split"]);
}

/// Between the rounds, of 10,000 operations at most, the drive is unmounted and its cache
/// deleted.
#[test]
fn fsx_with_remounts_without_a_cache() {
    let vault = vault_for_fsx();
    let mut machine = mounted(&vault, &[]);
    let each = (operations() / 4).clamp(1, 10_000);
    for round in 0..operations() / each {
        course(&vault, &machine, "file", each);
        let expected = fs::read(machine.path("file")).unwrap();
        machine.umount();
        fs::remove_dir_all(machine.cache_dir()).unwrap();
        machine.mount();
        assert!(fs::read(machine.path("file")).unwrap() == expected, "differs in round {round}");
    }
    machine.umount();
}
