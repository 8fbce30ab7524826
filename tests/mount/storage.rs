//! A drive over an engine with three storage devices: one deleted, one damaged, everything
//! still reads; `storage synchronize` heals; a removed device serves no reads; a killed engine
//! has acknowledged nothing that is not on every device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::house;
use crate::house::content::{assert_pattern, pattern, write_pattern};
use crate::house::{Machine, Vault, eventually, run};

const PATIENCE: Duration = Duration::from_secs(120);
const SMALL: u64 = 20;
const MIDDLE: u64 = 5;
/// Above the inline limit of the wire, and more than one checksummed block.
const MIDDLE_SIZE: usize = 1_300_001;
/// Above the threshold of these mounts: split into parts.
const LARGE_SIZE: u64 = 20 << 20;

/// Options of every mount here.
const OPTIONS: [&str; 6] = ["--split-above", "8MiB", "--part-size", "2MiB", "--deadline", "10"];

/// The program with the login, for commands without the drive.
fn command(vault: &Vault, machine: &Machine, arguments: &[&str]) -> house::process::Output {
    let mut command = machine.command();
    command.env("PRIVICORE_API_URL", &vault.engine.api_url);
    command.env("PRIVICORE_WS_URL", &vault.engine.ws_url);
    command.env("PRIVICORE_USERNAME", &vault.login.username);
    command.env("PRIVICORE_PASSWORD", &vault.login.password);
    run(command.args(arguments), PATIENCE)
}

#[track_caller]
fn storage(vault: &Vault, machine: &Machine, what: &str, device: &str) {
    let output = command(vault, machine, &["storage", what, device]);
    assert!(output.success(), "{what}: {}{}", output.stdout, output.stderr);
}

fn devices(vault: &Vault) -> PathBuf {
    vault.engine.dir().join("devices")
}

/// An engine with storage devices, the engine's own disk not among them.
fn with_devices<const N: usize>(vault: &Vault, machine: &Machine) -> [String; N] {
    let listed = command(vault, machine, &["storage", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let made: Vec<String> = (0..N)
        .map(|n| {
            let device = vault.engine.add_device(&vault.login, &format!("disk {n}"));
            storage(vault, machine, "register", &device);
            device
        })
        .collect();
    storage(vault, machine, "remove", listed[0]["device"].as_str().unwrap());
    made.try_into().unwrap()
}

fn write_all(machine: &Machine) {
    for number in 0..SMALL {
        fs::write(machine.path(format!("small {number}")), pattern(number, 4_000)).unwrap();
    }
    for number in 0..MIDDLE {
        fs::write(machine.path(format!("middle {number}")), pattern(number, MIDDLE_SIZE)).unwrap();
    }
    write_pattern(&File::create(machine.path("large")).unwrap(), 9, 0, LARGE_SIZE).unwrap();
}

/// Reads everything on a machine that knows nothing yet, so that all comes from the engine.
#[track_caller]
fn reads_equal(vault: &Vault, machine: &mut Machine) {
    forget(machine);
    machine.mount();
    let before = vault.engine.metrics();
    for number in 0..SMALL {
        let found = fs::read(machine.path(format!("small {number}"))).unwrap();
        assert!(found == pattern(number, 4_000), "small {number}");
    }
    for number in 0..MIDDLE {
        let found = fs::read(machine.path(format!("middle {number}"))).unwrap();
        assert!(found == pattern(number, MIDDLE_SIZE), "middle {number}");
    }
    let file = File::open(machine.path("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), LARGE_SIZE);
    assert_pattern(&file, 9, 0, LARGE_SIZE);
    assert!(vault.engine.since(&before).bytes_down > LARGE_SIZE, "it came from the engine");
    drop(file);
    machine.umount();
}

/// Removes what a machine keeps: state and cache.
fn forget(machine: &Machine) {
    for dir in [machine.state_dir(), machine.cache_dir()] {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// Flips a byte in the middle of every copy of a device.
fn damage(folder: &Path) {
    let copies = files(folder);
    assert!(copies.len() as u64 > SMALL + MIDDLE + LARGE_SIZE / (2 << 20));
    for path in copies {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn one_device_deleted_and_one_damaged_everything_reads_and_is_healed() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(OPTIONS);
    let [one, two, three] = with_devices(&vault, &machine);
    machine.mount();
    write_all(&machine);
    machine.umount();
    let folder = |device: &str| devices(&vault).join(device);
    let copies = files(&folder(&three)).len();
    assert_eq!([&one, &two].map(|device| files(&folder(device)).len()), [copies; 2]);

    fs::remove_dir_all(folder(&one)).unwrap();
    damage(&folder(&two));
    reads_equal(&vault, &mut machine);
    storage(&vault, &machine, "synchronize", &one);
    storage(&vault, &machine, "synchronize", &two);
    fs::remove_dir_all(folder(&three)).unwrap();
    reads_equal(&vault, &mut machine);
    // Each of the healed ones by itself.
    for (here, away) in [(&one, &two), (&two, &one)] {
        assert!(files(&folder(here)).len() >= copies);
        let aside = vault.path("aside");
        fs::rename(folder(away), &aside).unwrap();
        reads_equal(&vault, &mut machine);
        fs::remove_dir_all(folder(away)).ok();
        fs::rename(&aside, folder(away)).unwrap();
    }

    // The last that has everything cannot be taken away by mistake.
    storage(&vault, &machine, "synchronize", &one);
    storage(&vault, &machine, "remove", &three);
    storage(&vault, &machine, "remove", &two);
    let refused = command(&vault, &machine, &["storage", "remove", &one]);
    assert!(!refused.success() && refused.stderr.contains("storage.last_holder"), "{refused:?}");
    reads_equal(&vault, &mut machine);

    // With the only one that has the role gone, the removed one is not asked.
    forget(&machine);
    machine.mount();
    fs::rename(folder(&one), vault.path("aside")).unwrap();
    assert!(files(&folder(&two)).len() >= copies, "what a removed device has stays there");
    let mut cat = Command::new("cat");
    let output = run(cat.arg(machine.path("middle 0")), PATIENCE);
    assert!(!output.success(), "a removed device served a read");
    assert!(!output.stderr.contains("No such file"), "{}", output.stderr);
    assert_eq!(house::names(&machine.mountpoint()).len() as u64, SMALL + MIDDLE + 1);
    let log = machine.log();
    assert!(log.contains("storage.no_device_has_the_payload"), "{log}");
    // And back again, without a remount.
    fs::rename(vault.path("aside"), folder(&one)).unwrap();
    eventually("reading works again", PATIENCE, || {
        fs::read(machine.path("middle 0")).is_ok_and(|found| found == pattern(0, MIDDLE_SIZE))
    });
    machine.umount();
}

/// The engine is killed in the middle of uploads, again and again: whatever it acknowledged
/// is whole on each device by itself.
#[test]
fn a_killed_engine_has_acknowledged_nothing_that_a_device_lacks() {
    const FILES: u64 = 120;
    let mut vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(OPTIONS);
    let made: [String; 3] = with_devices(&vault, &machine);
    machine.mount();
    for round in 0..4 {
        let before = vault.engine.list(&vault.login).len();
        for number in round * FILES / 4..(round + 1) * FILES / 4 {
            let size = if number % 3 == 0 { 700_000 } else { 3_000 };
            fs::write(machine.path(format!("{number}")), pattern(number, size)).unwrap();
        }
        // Between nothing and everything of this round: 5, 10, 15, 20 of its 30 files.
        eventually("some of it is in the vault", PATIENCE, || {
            vault.engine.list(&vault.login).len() >= before + 5 * (round as usize + 1)
        });
        vault.engine.restart();
    }
    machine.sync();
    machine.umount();
    let tokens = vault.engine.list(&vault.login).len();
    for device in &made {
        eventually("orphans and half-written copies go", PATIENCE, || {
            files(&devices(&vault).join(device)).len() == tokens
        });
    }
    for (turn, device) in made.iter().enumerate() {
        let aside = vault.path("aside");
        fs::create_dir(&aside).unwrap();
        for other in made.iter().filter(|other| *other != device) {
            fs::rename(devices(&vault).join(other), aside.join(other)).unwrap();
        }
        let mut elsewhere = vault.mounted(&format!("b{turn}"));
        for number in 0..FILES {
            let size = if number % 3 == 0 { 700_000 } else { 3_000 };
            let found = fs::read(elsewhere.path(format!("{number}"))).unwrap();
            assert!(found == pattern(number, size), "{number} on device {turn}");
        }
        elsewhere.umount();
        for other in made.iter().filter(|other| *other != device) {
            fs::remove_dir_all(devices(&vault).join(other)).ok();
            fs::rename(aside.join(other), devices(&vault).join(other)).unwrap();
        }
        fs::remove_dir(aside).unwrap();
    }
}
