//! Sudden deaths: of the mount, of the engine, at bad moments.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use crate::house::content::pattern;
use crate::house::vault::TRASH_NIGHTS;
use crate::house::{Vault, eventually, names};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_was_closed_survives_the_death_of_the_mount() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::write(machine.path("closed"), pattern(1, 100_000)).unwrap();
    machine.kill();

    machine.mount();
    assert!(fs::read(machine.path("closed")).unwrap() == pattern(1, 100_000));
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert!(fs::read(elsewhere.path("closed")).unwrap() == pattern(1, 100_000));
    assert_eq!(vault.visible().len(), 1);
}

/// Small files, folders, renames, deletions and attributes, the mount killed again and
/// again in between, each time right after the last call returned.
#[test]
fn every_change_that_returned_survives_repeated_deaths() {
    const ROUNDS: usize = 5;
    let vault = Vault::with_days();
    let mut machine = vault.machine("a");
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        machine.mount();
        let folder = format!("round-{round}");
        fs::create_dir(machine.path(&folder)).unwrap();
        for number in 0..40 {
            let name = format!("{folder}/{number}");
            let content = pattern((round * 1000 + number) as u64, 1 + number * 977);
            fs::write(machine.path(&name), content).unwrap();
            match number % 4 {
                0 => fs::remove_file(machine.path(&name)).unwrap(),
                1 => {
                    let moved = format!("{folder}/{number}-moved");
                    fs::rename(machine.path(&name), machine.path(&moved)).unwrap();
                    expected.insert((moved, round, number));
                }
                _ => {
                    expected.insert((name, round, number));
                }
            }
        }
        machine.kill();
    }
    machine.mount();
    machine.umount();
    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        let mut found = BTreeSet::new();
        for folder in names(&machine.mountpoint()) {
            found.extend(
                names(&machine.path(&folder)).iter().map(|name| format!("{folder}/{name}")),
            );
        }
        let wanted: BTreeSet<_> = expected.iter().map(|(name, _, _)| name.clone()).collect();
        assert_eq!(found, wanted);
        for (name, round, number) in &expected {
            let content = pattern((round * 1000 + number) as u64, 1 + number * 977);
            assert!(fs::read(machine.path(name)).unwrap() == content, "{name}");
        }
    }
    machine.mount();
    vault.nights_until(&mut machine, TRASH_NIGHTS, "a token per file is left", || {
        vault.visible().len() == expected.len()
    });
}

#[test]
fn a_file_open_for_writing_keeps_what_was_flushed_before_a_death() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let path = machine.path("journal");
    let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    file.write_all(b"committed\n").unwrap();
    file.sync_all().unwrap();
    file.write_all(b"maybe\n").unwrap();
    machine.kill();
    drop(file);
    machine.mount();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text == "committed\n" || text == "committed\nmaybe\n", "{text:?}");
}

/// The engine dies twice in the middle of uploads and comes back on the same port.
#[test]
fn the_death_of_the_engine_loses_nothing_and_doubles_nothing() {
    const FILES: usize = 240;
    // Slow enough that the uploads are not over before the engine is.
    let mut vault = Vault::with_engine(&["--latency-ms", "30"]);
    let mut machine = vault.mounted("a");
    fs::create_dir(machine.path("files")).unwrap();
    let mut written = 0;
    for deaths in 1..=2 {
        let before = vault.engine.metrics();
        for number in written..FILES / 2 * deaths {
            let size = if number % 3 == 0 { 90_000 } else { 3_000 };
            let path = machine.path(format!("files/{number}"));
            fs::write(path, pattern(number as u64, size)).unwrap();
        }
        written = FILES / 2 * deaths;
        eventually("uploads are under way", PATIENCE, || {
            vault.engine.since(&before).of("configure-file-meta") >= 20
        });
        vault.engine.kill();
        // Names and what is cached are there meanwhile, and writing goes on.
        assert_eq!(names(&machine.path("files")).len(), written + deaths - 1);
        fs::write(machine.path(format!("files/late-{deaths}")), b"late").unwrap();
        if deaths == 1 {
            // Long enough that uploads are given up, to be begun anew.
            eventually("an upload is given up", PATIENCE, || {
                !machine.status()["failed"].as_array().unwrap().is_empty()
            });
        }
        vault.engine.restart();
    }
    machine.sync();
    machine.umount();

    let elsewhere = vault.mounted("b");
    assert_eq!(names(&elsewhere.path("files")).len(), FILES + 2);
    for number in 0..FILES {
        let size = if number % 3 == 0 { 90_000 } else { 3_000 };
        let found = fs::read(elsewhere.path(format!("files/{number}"))).unwrap();
        assert!(found == pattern(number as u64, size), "file {number}");
    }
    let mut seen = BTreeSet::new();
    for item in vault.visible() {
        let name = (item["context"].to_string(), item["fileName"].to_string());
        assert!(seen.insert(name.clone()), "{name:?} is in the vault twice");
    }
    assert_eq!(seen.len(), FILES + 2);
}

#[test]
fn a_mount_killed_in_the_middle_of_uploads_goes_on_where_it_was() {
    const FILES: usize = 150;
    let vault = Vault::with_engine(&["--latency-ms", "10"]);
    let mut machine = vault.mounted("a");
    let start = vault.engine.metrics();
    for number in 0..FILES {
        fs::write(machine.path(format!("{number}")), pattern(number as u64, 60_000)).unwrap();
    }
    eventually("uploads are under way", PATIENCE, || {
        vault.engine.since(&start).of("configure-file-meta") >= 20
    });
    machine.kill();
    machine.mount();
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert_eq!(names(&elsewhere.mountpoint()).len(), FILES);
    for number in 0..FILES {
        let found = fs::read(elsewhere.path(format!("{number}"))).unwrap();
        assert!(found == pattern(number as u64, 60_000), "file {number}");
    }
}
