//! In the simulator nothing opens a file, a socket or a thread: one seed is one schedule.

use std::fs;
use std::path::{Path, PathBuf};

use super::reader::{code_only, tokens};

/// Words in a row that reach the machine.
const FORBIDDEN: [&[&str]; 9] = [
    &["std", "::", "fs"],
    &["tokio", "::", "fs"],
    &["std", "::", "net"],
    &["tokio", "::", "net"],
    &["std", "::", "thread"],
    &["thread", "::", "spawn"],
    &["SystemTime", "::", "now"],
    &["Env", "::", "system"],
    &["SystemDisk"],
];

/// The program that a person calls, with its clock and its scripts in files; the short form,
/// which a clock ends; tests of the simulated disk, which hold it against a real one.
const EXCEPTED: [&str; 2] = ["simulate.rs", "tests.rs"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn reaches(text: &str) -> Option<String> {
    let words = tokens(&code_only(text));
    let found = |row: &&&[&str]| words.windows(row.len()).any(|window| window == **row);
    FORBIDDEN.iter().find(found).map(|row| row.concat())
}

#[test]
fn the_simulator_reaches_no_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulator");
    let all = files(&root);
    assert!(all.len() > 20, "{all:?}");
    let named = |path: &Path| EXCEPTED.iter().any(|name| path.ends_with(name));
    let wrong: Vec<_> = all
        .iter()
        .filter(|path| !named(path))
        .filter_map(|path| Some((path, reaches(&fs::read_to_string(path).unwrap())?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_reaches_the_machine_is_recognized() {
    assert_eq!(reaches("use std::fs::File;").as_deref(), Some("std::fs"));
    assert_eq!(reaches("// std::fs\nlet s = \"std::net\";"), None);
}
