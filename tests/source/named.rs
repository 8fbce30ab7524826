//! Tests, by the names that documents give them: `PROGRAM::MODULE::FUNCTION`, or less of it.

use std::fs;

use crate::house::repository;

/// Panics unless there is such a test, module or program.
#[track_caller]
pub(crate) fn assert_exists(name: &str, what: &str) {
    let mut words = name.split("::");
    let program = words.next().unwrap();
    let file = words.next().unwrap_or("main");
    let source = fs::read_to_string(repository(&format!("tests/{program}/{file}.rs")))
        .unwrap_or_else(|error| panic!("{what}: there is no {name}: {error}"));
    let declared = |function| source.contains(&format!("fn {function}("));
    assert!(words.next().is_none_or(declared), "{what}: there is no {name}");
}

/// The programs: folders of `tests` with a `main.rs`.
pub(crate) fn programs() -> Vec<String> {
    let folders = fs::read_dir(repository("tests")).unwrap().map(|entry| entry.unwrap());
    let programs = folders.filter(|folder| folder.path().join("main.rs").exists());
    programs.map(|folder| folder.file_name().into_string().unwrap()).collect()
}
