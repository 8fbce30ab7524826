//! What today's catalog is known to do wrong: a history each, made small. When a fault is
//! repaired its test fails, and is turned round.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::tasks::runtime;
use super::{Op, run};

/// Carries out a history that still ends with this complaint.
fn still_shows(history: &[(usize, Op)], complaint: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime().block_on(run(history, 0))));
    let panic = outcome.expect_err("the fault is gone: turn this test round");
    let message = panic.downcast_ref::<String>().expect("an assertion with a text");
    assert!(message.starts_with(complaint), "another complaint: {message}");
}

/// The content of a conflict copy has a name, and [`is_content`] says that it has none: should a
/// machine have it among its garbage, housekeeping deletes it. One history of some thousands
/// meets it.
///
/// [`is_content`]: privicorefs::catalog::Tree::is_content
#[test]
fn the_content_of_a_conflict_copy_is_taken_for_nobodys() {
    still_shows(
        &[
            (0, Op::Make { dir: 0, name: 0, folder: false }),
            (0, Op::Make { dir: 0, name: 1, folder: false }),
            (0, Op::Rename { entry: 0, dir: 0, name: 3 }),
            (0, Op::Remove { entry: 2 }),
            (0, Op::Make { dir: 0, name: 0, folder: false }),
            (2, Op::Make { dir: 0, name: 0, folder: false }),
            (0, Op::Rename { entry: 2, dir: 0, name: 2 }),
            (0, Op::Write { file: 0 }),
            (0, Op::Publish),
            (0, Op::Make { dir: 0, name: 2, folder: false }),
            (1, Op::Follow),
            (2, Op::Follow),
            (1, Op::Write { file: 8 }),
            (0, Op::Remove { entry: 1 }),
            (1, Op::Publish),
            (0, Op::Make { dir: 0, name: 0, folder: false }),
            (2, Op::Make { dir: 0, name: 1, folder: false }),
            (2, Op::Begin { file: 10 }),
            (1, Op::Make { dir: 0, name: 0, folder: false }),
            (0, Op::Rename { entry: 7, dir: 0, name: 0 }),
            (0, Op::Follow),
            (0, Op::Make { dir: 0, name: 0, folder: false }),
        ],
        "content of /",
    );
}
