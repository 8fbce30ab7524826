//! The tables of what is promised, in `docs/promises.md` and, in short, in `README.md`.

use std::fs;

use crate::house::repository;
use crate::named;

/// Promises that the whole table must have, at least.
const PROMISES: usize = 26;

/// The table under `| promise | shown by |`: a promise, and what shows it.
fn table(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(repository(document)).unwrap();
    let lines = text.lines().skip_while(|line| *line != "| promise | shown by |").skip(2);
    let rows = lines.take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let (promise, shown) = row.trim_matches(['|', ' ']).rsplit_once(" | ").unwrap();
        (promise.to_owned(), shown.to_owned())
    })
    .collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let programs = named::programs();
    for (document, least) in [("docs/promises.md", PROMISES), ("README.md", 5)] {
        let rows = table(document);
        assert!(rows.len() >= least, "{document}: {} promises", rows.len());
        for (promise, shown) in rows {
            let words = shown.split('`').skip(1).step_by(2);
            let other = |word: &str| word.starts_with("scripts/") || word.starts_with("tests/");
            let tests: Vec<_> = words.filter(|word| !other(word)).collect();
            assert!(!tests.is_empty(), "{promise}: no test shows it");
            for test in tests {
                let program = test.split("::").next().unwrap();
                assert!(programs.iter().any(|known| known == program), "{promise}: {test}");
                named::assert_exists(test, &promise);
            }
        }
    }
}
