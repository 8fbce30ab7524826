//! Two implementations of the tree of a set of records, which share no code, come to the same.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use privicorefs::catalog::conflict::tree::{Entry, Objects};
use privicorefs::catalog::format::{Record, Subject};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::company::histories;
use crate::house::{process::run_ok, python, repository};

/// Histories that are compared; of each, all of its records and two parts of them.
const HISTORIES: usize = 150;

/// The tree as `reader.py` prints it.
fn shown(records: &[Record]) -> Value {
    let entry = |entry: &Entry| {
        let (kind, number) = match entry.subject {
            Subject::Vault => (0, 0),
            Subject::File(number) => (1, number),
            Subject::Folder(number) => (2, number),
        };
        let version = entry.version.map(|version| HEXLOWER.encode(&version.0));
        json!({"type": kind, "number": number, "version": version, "link": entry.link})
    };
    let tree = Objects::of(records).tree();
    let folders = tree.iter().map(|(folder, entries)| {
        let entries: BTreeMap<String, Value> =
            entries.iter().map(|(name, found)| (HEXLOWER.encode(name), entry(found))).collect();
        (folder.to_string(), json!(entries))
    });
    folders.collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn an_independent_reader_comes_to_the_same_tree() {
    let mut runner = TestRunner::deterministic();
    let mut sets: Vec<Vec<Record>> = Vec::new();
    for round in 0..HISTORIES {
        let records = histories().new_tree(&mut runner).unwrap().current();
        // What arrives in part must be shown alike too.
        let part = |keep: fn(usize) -> bool| {
            let numbered = records.iter().enumerate();
            numbered.filter(|(at, _)| keep(at + round)).map(|(_, record)| record.clone()).collect()
        };
        sets.extend([part(|at| !at.is_multiple_of(7)), part(|at| !at.is_multiple_of(3))]);
        sets.push(records);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("records.json");
    let bytes: Vec<Vec<String>> = sets
        .iter()
        .map(|records| records.iter().map(|r| HEXLOWER.encode(&r.encode())).collect())
        .collect();
    std::fs::write(&file, serde_json::to_vec(&bytes).unwrap()).unwrap();
    let mut reader = python();
    reader.arg(repository("tests/independent/reader.py")).arg("--records").arg(&file).arg("names");
    let output = run_ok(&mut reader, Duration::from_secs(120));
    let theirs: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(theirs.len(), sets.len());
    let mut names = 0;
    for (at, (records, theirs)) in sets.iter().zip(theirs).enumerate() {
        let ours = shown(records);
        names +=
            ours.as_object().unwrap().values().map(|e| e.as_object().unwrap().len()).sum::<usize>();
        assert_eq!(ours, theirs, "set {at}: {records:#?}");
    }
    assert!(names > HISTORIES, "only {names} names were compared");
}
