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
    a_checkpoint_of_a_machine_that_read_nothing_loses_what_others_made:
        "checkpoint", "KeptInVault", None;
    /// A state directory restored from a backup uses its numbers again.
    a_restored_state_directory_replaces_what_was_made_since:
        "restored", "KeptInVault", Some("restore");
    /// So does a copied one.
    a_copied_state_directory_makes_what_others_cannot_use:
        "duplicated", "KeptInVault", Some("duplicate");
    /// The ciphertext of one thing, stored again in another place, is taken for the other.
    a_ciphertext_stored_again_elsewhere_is_taken_for_what_lies_there:
        "copied", "KeptInVault", Some("copy-as");
    /// A payload is not bound to its token.
    payloads_that_changed_places_are_read: "swap", "NobodyWrote", Some("swap");
    /// Nor to its version.
    an_older_payload_is_read: "replay", "NobodyWrote", Some("replay");
    /// One entry of a listing is enough.
    a_huge_number_in_a_name_stops_a_machine: "huge-number", "Panics", Some("entry");
    /// What a vault that was set back lacks is taken for lost, and changes go astray.
    a_vault_that_was_set_back_loses_what_was_written_meanwhile:
        "rolled-back", "KeptHere", Some("roll-back");
    /// A listing without sizes makes files empty.
    a_listing_without_sizes_empties_files: "no-sizes", "TreesAgree", Some("no-sizes");
    /// Listed dates decide who has a name.
    a_listed_date_takes_a_name_away: "year", "TreesAgree", Some("year");
    /// An edit is lost to a removal that had not seen it.
    an_edit_is_lost_to_a_removal_elsewhere: "removal", "KeptInVault", None;
    /// And to a save by rename.
    an_edit_is_lost_to_a_save_elsewhere: "save", "KeptInVault", None;
    /// The answer `OK` to the last step of a put becomes the file's token.
    an_ok_in_place_of_a_token_is_believed: "answer", "KeptInVault", Some("answer");
    /// What whoever has the login deletes is missing for new machines, and nobody notices.
    a_deleted_token_is_not_noticed: "erased", "TreesAgree", Some("erase");
}
