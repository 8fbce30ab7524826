//! Many small files over a slow service: copying does not wait for it, and it is kept busy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::house::content::pattern;
use crate::house::{Vault, assert_same_trees, copy_tree};

const FILES: usize = 500;

fn make_files(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for number in 0..FILES {
        let content = pattern(number as u64, 500 + number * 7);
        fs::write(folder.join(format!("file-{number}.txt")), content).unwrap();
    }
}

/// 50 ms on every request and every ack: 500 files one after the other would take minutes.
/// The deadline of 30 s for all of them is a requirement, and not a measurement.
#[test]
fn five_hundred_small_files_are_in_the_vault_within_thirty_seconds() {
    let vault = Vault::with_engine(&["--latency-ms", "50"]);
    let tree = vault.path("tree");
    make_files(&tree);
    let mut machine = vault.machine("a");
    machine.args(["--poll-interval", "0"]);
    machine.mount();
    let before = vault.engine.quiet();
    copy_tree(&tree, &machine.path("tree"));
    machine.sync_within(Duration::from_secs(30));
    let used = vault.engine.since(&before);
    assert!(used.puts() >= FILES as u64, "{used:?}");
    assert!(used.puts() <= FILES as u64 + 60, "one upload per file and few segments: {used:?}");
    assert_eq!(used.gets(), 0, "nothing is fetched to upload: {used:?}");
    machine.umount();
    assert_same_trees(&tree, &vault.mounted("b").path("tree"));
}

/// The engine is stopped in its tracks: whatever waited for it would wait for ever.
#[test]
fn copying_in_does_not_wait_for_the_service() {
    let vault = Vault::new();
    let tree = vault.path("tree");
    make_files(&tree);
    let mut machine = vault.mounted("a");
    vault.engine.freeze();
    copy_tree(&tree, &machine.path("tree"));
    assert_same_trees(&tree, &machine.path("tree"));
    vault.engine.thaw();
    machine.sync();
    machine.umount();
    assert_same_trees(&tree, &vault.mounted("b").path("tree"));
}
