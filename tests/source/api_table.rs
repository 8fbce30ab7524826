//! The table of the API in `docs/api.md` against the engine, the command line and the tests.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::house::{Console, http, repository, run};
use crate::named;

/// Entries of the API's menu that the table must have, at least.
const ENTRIES: usize = 93;

struct Row {
    entry: String,
    call: String,
    command: String,
    tests: Vec<String>,
}

fn table() -> Vec<Row> {
    let document = fs::read_to_string(repository("docs/api.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        let mut next = || cells.next().filter(|cell| !cell.is_empty()).unwrap();
        let plain = |cell: String| cell.trim_matches('`').to_owned();
        let (entry, call, command) = (next(), plain(next()), plain(next()));
        let tests = next().split(", ").map(|test| test.trim_matches('`').to_owned()).collect();
        Row { entry, call, command, tests }
    })
    .collect()
}

#[test]
fn the_table_is_complete_and_names_tests_that_exist() {
    let rows = table();
    assert!(rows.len() >= ENTRIES, "{} entries", rows.len());
    for row in &rows {
        assert!(row.tests.len() >= 2, "{}", row.entry);
        let raw = row.tests.first().is_some_and(|test| test.starts_with("engine::"));
        let on_the_wire = ["GET ", "POST "].iter().any(|method| row.call.starts_with(method));
        assert!(raw || !on_the_wire, "{}: no test over the raw wire", row.entry);
        for test in &row.tests {
            assert!(test.matches("::").count() == 2, "{}: {test} is no test", row.entry);
            named::assert_exists(test, &row.entry);
        }
    }
    let mut entries: Vec<_> = rows.iter().map(|row| &row.entry).collect();
    entries.sort();
    entries.dedup();
    assert_eq!(entries.len(), rows.len(), "an entry is there twice");
}

/// Without a login, a call that exists is refused as such, and not as unknown.
#[test]
fn the_engine_answers_every_call() {
    let console = Console::new();
    for row in table() {
        let Some((method, path)) = row.call.split_once(' ') else { continue };
        if !matches!(method, "GET" | "POST") || path.starts_with('{') {
            continue; // made here, or a stream's address
        }
        // A request's id would be unknown, which is also a 404: an id of nothing at all.
        let path = path.split('{').next().unwrap();
        let asks_for_one = row.call.contains('{');
        let path = if asks_for_one { format!("{path}x") } else { path.to_owned() };
        let reply = http::request(method, &console.engine.api_url, &path, &[], &[]).unwrap();
        let known = [200, 401, 403, 422].contains(&reply.status)
            || (path.starts_with("/request-status/") && reply.status == 404);
        assert!(known, "{}: {} {path}: {}", row.entry, method, reply.status);
        let wrong = if method == "GET" { "DELETE" } else { "PUT" };
        let reply = http::request(wrong, &console.engine.api_url, &path, &[], &[]).unwrap();
        assert_eq!(reply.status, 405, "{}: {wrong} {path}", row.entry);
    }
}

#[test]
fn every_command_exists_and_has_json() {
    for row in table() {
        let words = row.command.split(' ').filter(|word| !word.starts_with("--"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_privicorefs"));
        let said = run(command.args(words).arg("--help"), Duration::from_secs(60));
        assert!(said.success(), "{}: {}", row.command, said.stderr);
        assert!(said.stdout.contains("--json"), "{} has no --json", row.command);
        for option in row.command.split(' ').filter(|word| word.starts_with("--")) {
            assert!(said.stdout.contains(option), "{}", row.command);
        }
    }
}
