//! What today's drive is known to break: a script each, made small from the seed that found
//! it, and replayed as it is written.
//!
//! Each asserts that its fate or lie was met and that the promise is still broken. When a
//! fault is repaired its test fails: it is then turned round, to assert that nothing is found.

use super::batch;
use super::kinds;
use super::text;

/// Replays a script; `signature` begins what it shows, `met` is the kind of fate or lie that
/// must have met what it is for.
fn still_shows(script: &str, signature: &str, met: Option<&str>) {
    let script = text::read(script).unwrap();
    let report = batch::run(&script);
    if let Some(kind) = met {
        let was_met =
            |step: &usize| script.steps.get(*step).is_some_and(|s| kinds::kind(s) == kind);
        assert!(report.met.iter().any(was_met), "no {kind} was met: {:?}", report.met);
    }
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        found.iter().any(|found| found.starts_with(signature)),
        "the fault {signature} is gone: turn this test round. Now: {found:#?}"
    );
}

macro_rules! expected {
    ($($(#[$meta:meta])* $name:ident: $file:literal, $signature:literal, $met:expr;)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            still_shows(include_str!(concat!("expected/", $file, ".script")), $signature, $met);
        }
    )*};
}

expected! {
    /// A machine that never read another's segments writes a checkpoint that covers them.
    a_checkpoint_of_a_machine_that_was_away_loses_what_others_made:
        "checkpoint", "KeptInVault", None;
    /// A state directory restored from a backup uses its numbers again.
    a_restored_state_directory_replaces_what_was_made_since: "restored", "KeptInVault", Some("restore");
    /// So does a copied one.
    a_copied_state_directory_makes_what_others_cannot_use: "duplicated", "KeptInVault", Some("duplicate");
    /// A payload is not bound to its token.
    payloads_that_changed_places_are_read: "swap", "NobodyWrote", Some("swap");
    /// One entry of a listing is enough.
    a_huge_number_in_a_name_stops_a_machine: "huge-number", "Panics", Some("entry");
}
