//! Two machines at once on one vault.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::house::{
    Machine, Vault, assert_same_trees, copy_tree, eventually, make_odd_tree, names,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn polling(vault: &Vault, name: &str) -> Machine {
    vault.mounted_with(name, &["--poll-interval", "1"])
}

fn reads(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == content)
}

#[test]
fn a_change_on_one_appears_on_the_other_without_remount() {
    let vault = Vault::new();
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    fs::create_dir(a.path("folder")).unwrap();
    fs::write(a.path("folder/file"), b"one").unwrap();
    a.sync();
    eventually("a new file appears", PATIENCE, || reads(&b.path("folder/file"), b"one"));

    fs::write(b.path("folder/file"), b"two, longer").unwrap();
    b.sync();
    eventually("a change goes back", PATIENCE, || reads(&a.path("folder/file"), b"two, longer"));

    fs::rename(a.path("folder"), a.path("renamed")).unwrap();
    a.sync();
    eventually("a rename arrives", PATIENCE, || names(&b.mountpoint()) == ["renamed"]);
    assert!(reads(&b.path("renamed/file"), b"two, longer"));

    fs::remove_file(b.path("renamed/file")).unwrap();
    fs::remove_dir(b.path("renamed")).unwrap();
    b.sync();
    eventually("a deletion arrives", PATIENCE, || names(&a.mountpoint()).is_empty());
}

#[test]
fn a_whole_tree_appears_with_its_attributes() {
    let vault = Vault::new();
    let tree = vault.path("tree");
    make_odd_tree(&tree);
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    copy_tree(&tree, &a.path("tree"));
    a.sync();
    // Folders get their times last: when the top one has its own, all is there.
    let done = fs::metadata(&tree).unwrap().modified().unwrap();
    eventually("the tree appears", PATIENCE, || {
        fs::metadata(b.path("tree")).is_ok_and(|status| status.modified().unwrap() == done)
    });
    assert_same_trees(&tree, &b.path("tree"));
}

/// Two machines write one name before either has heard of the other: nobody's content is
/// lost, and both machines agree on which got the name.
#[test]
fn a_conflict_keeps_both_contents_on_both_machines() {
    let mut vault = Vault::new();
    let (mut a, mut b) = (vault.machine("a"), vault.machine("b"));
    for machine in [&mut a, &mut b] {
        machine.args(["--poll-interval", "1"]);
        machine.mount();
    }
    vault.engine.kill();
    fs::write(a.path("plan.txt"), b"written on a").unwrap();
    fs::write(b.path("plan.txt"), b"written on b").unwrap();
    vault.engine.restart();
    a.sync();
    b.sync();

    let contents = |machine: &Machine| -> Vec<(String, Vec<u8>)> {
        names(&machine.mountpoint())
            .into_iter()
            .map(|name| (name.clone(), fs::read(machine.path(&name)).unwrap_or_default()))
            .collect()
    };
    eventually("both contents are on both machines", PATIENCE, || {
        let (on_a, on_b) = (contents(&a), contents(&b));
        let has = |text: &[u8]| on_a.iter().any(|(_, content)| content == text);
        on_a == on_b && on_a.len() == 2 && has(b"written on a") && has(b"written on b")
    });
    let [copy, plan] = &names(&a.mountpoint())[..] else { panic!("{:?}", names(&a.mountpoint())) };
    assert_eq!(plan, "plan.txt");
    // MACHINE YYYY-MM-DD HHMM
    let mark = copy.strip_prefix("plan (conflict ").and_then(|rest| rest.strip_suffix(").txt"));
    let minute = mark.and_then(|mark| mark.rsplit(' ').nth(1).zip(mark.rsplit(' ').next()));
    let (day, time) = minute.unwrap_or_else(|| panic!("{copy}"));
    assert!(day.len() == 10 && time.parse::<u16>().is_ok_and(|time| time < 2400), "{copy}");

    // A third machine, and the two after a remount, see the same.
    let expected = contents(&a);
    a.umount();
    a.mount();
    assert_eq!(contents(&a), expected);
    assert_eq!(contents(&vault.mounted("c")), expected);
}

#[test]
fn moves_that_would_make_a_cycle_leave_a_tree_on_both() {
    let mut vault = Vault::new();
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    fs::create_dir(a.path("x")).unwrap();
    fs::create_dir(a.path("y")).unwrap();
    fs::write(a.path("x/in-x"), b"x").unwrap();
    fs::write(a.path("y/in-y"), b"y").unwrap();
    a.sync();
    eventually("both folders are there", PATIENCE, || {
        reads(&b.path("x/in-x"), b"x") && reads(&b.path("y/in-y"), b"y")
    });
    vault.engine.kill();
    fs::rename(a.path("x"), a.path("y/x")).unwrap();
    fs::rename(b.path("y"), b.path("x/y")).unwrap();
    vault.engine.restart();
    a.sync();
    b.sync();
    let tree = |machine: &Machine| {
        let (nested_y, nested_x) = (machine.path("x/y/in-y"), machine.path("y/x/in-x"));
        (nested_x.exists(), nested_y.exists(), names(&machine.mountpoint()))
    };
    eventually("one of the moves has won on both", PATIENCE, || {
        let (on_a, on_b) = (tree(&a), tree(&b));
        on_a == on_b && on_a.0 != on_a.1 && on_a.2.len() == 1
    });
}

/// What was inside is now outside: on the way there, one record at a time, each of the two
/// folders is inside the other. That is no cycle to be broken.
#[test]
fn folders_that_change_places_do_so_on_the_other_machine_too() {
    let vault = Vault::new();
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    fs::create_dir_all(a.path("outer/inner")).unwrap();
    fs::write(a.path("outer/in-outer"), b"outer").unwrap();
    fs::write(a.path("outer/inner/in-inner"), b"inner").unwrap();
    a.sync();
    eventually("the folders are there", PATIENCE, || {
        reads(&b.path("outer/inner/in-inner"), b"inner")
    });
    fs::rename(a.path("outer/inner"), a.path("inner")).unwrap();
    fs::rename(a.path("outer"), a.path("inner/outer")).unwrap();
    a.sync();
    eventually("they have changed places", PATIENCE, || {
        reads(&b.path("inner/outer/in-outer"), b"outer") && names(&b.mountpoint()) == ["inner"]
    });
    assert!(reads(&b.path("inner/in-inner"), b"inner"));
    b.sync();
    a.sync();
    assert_eq!(names(&a.mountpoint()), ["inner"]);
    assert_eq!(names(&vault.mounted("c").mountpoint()), ["inner"]);
}
