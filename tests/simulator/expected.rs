//! What today's drive is known to break: a script each, made small from the seed that found
//! it, and replayed as it is written.
//!
//! Each asserts that its fate or lie was met and that the promise is still broken. When a
//! fault is repaired its test fails: it is then turned round, to assert that nothing is found.

use super::batch;
use super::kinds;
use super::text;

/// Replays a script and gives what is found; `met` is the kind of fate or lie that must have been
/// met.
fn replay(script: &str, met: Option<&str>) -> Vec<String> {
    let script = text::read(script).unwrap();
    let report = batch::run(&script);
    if let Some(kind) = met {
        let was_met =
            |step: &usize| script.steps.get(*step).is_some_and(|s| kinds::kind(s) == kind);
        assert!(report.met.iter().any(was_met), "no {kind} was met: {:?}", report.met);
    }
    report.findings.iter().map(ToString::to_string).collect()
}

/// Replays a script; `signature` begins what it shows, `met` is the kind of fate or lie that
/// must have met what it is for.
fn still_shows(script: &str, signature: &str, met: Option<&str>) {
    let found = replay(script, met);
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
    /// The ciphertext of one thing, stored again in another place, is taken for the other.
    a_ciphertext_stored_again_elsewhere_is_taken_for_what_lies_there:
        "copied", "KeptInVault", Some("copy-as");
    /// A NUL in a context makes a folder that nobody can remove.
    a_nul_in_a_context_makes_a_folder:
        "nul", "TreesAgree", Some("entry");
    /// What whoever has the login deletes is missing for new machines, and nobody notices.
    a_deleted_token_is_not_noticed:
        "erased", "TreesAgree", Some("erase");
}

/// Faults that seeds found and that are repaired: nothing is found any more.
fn no_longer_shows(script: &str) {
    shows_nothing(script, None);
}

/// Nothing is found, and `met` is the kind of fate or lie that was met all the same.
fn shows_nothing(script: &str, met: Option<&str>) {
    let found = replay(script, met);
    assert!(found.is_empty(), "{found:#?}");
}

macro_rules! repaired {
    ($($(#[$meta:meta])* $name:ident: $file:literal, $met:expr;)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            shows_nothing(include_str!(concat!("expected/", $file, ".script")), $met);
        }
    )*};
}

// What the first format did with each is said; the second does not. Where no fate is named, the
// drive does not come any more to where the lie is.
repaired! {
    /// A machine that never read another's segments writes a checkpoint that covers them.
    a_checkpoint_of_a_machine_that_read_nothing_loses_what_others_made: "checkpoint", None;
    /// A state directory restored from a backup uses its numbers again.
    a_restored_state_directory_replaces_what_was_made_since: "restored", Some("restore");
    /// A virtual machine that is set back does the same.
    a_machine_that_is_set_back_replaces_what_was_made_since: "set-back", Some("set-back");
    /// So does a copied one.
    a_copied_state_directory_makes_what_others_cannot_use: "duplicated", Some("duplicate");
    /// A payload is not bound to its token.
    payloads_that_changed_places_are_read: "swap", Some("swap");
    /// Nor to its version.
    an_older_payload_is_read: "replay", Some("replay");
    /// An older list of parts is taken for the file's.
    an_older_part_list_is_read: "part-list", Some("replay");
    /// A shorter payload is filled with zeros.
    a_shorter_payload_is_filled_with_zeros: "shorter", Some("replay");
    /// A segment that is left out of a listing is not missed.
    a_segment_that_is_withheld_is_not_missed: "withheld", Some("withhold");
    /// A wrong page of a checkpoint loses what was on it.
    a_wrong_page_of_a_checkpoint_loses_what_was_on_it: "page", None;
    /// One entry of a listing is enough.
    a_huge_number_in_a_name_stops_a_machine: "huge-number", Some("entry");
    /// What a vault that was set back lacks is taken for lost, and changes go astray.
    a_vault_that_was_set_back_loses_what_was_written_meanwhile: "rolled-back", Some("roll-back");
    /// A listing without sizes makes files empty.
    a_listing_without_sizes_empties_files: "no-sizes", None;
    /// Listed dates decide who has a name.
    a_listed_date_takes_a_name_away: "year", Some("year");
    /// An edit is lost to a removal that had not seen it.
    an_edit_is_lost_to_a_removal_elsewhere: "removal", None;
    /// And to a save by rename.
    an_edit_is_lost_to_a_save_elsewhere: "save", None;
    /// An edit over a content that another machine has replaced, and deleted, is never sent.
    an_edit_over_what_was_deleted_elsewhere_is_never_sent: "edit-of-deleted", None;
    /// Its `fsync` says that the file has changed, and to open it again.
    an_edit_over_what_was_deleted_elsewhere_says_to_open_it_again: "stale", None;
    /// The answer `OK` to the last step of a put becomes the file's token.
    an_ok_in_place_of_a_token_is_believed: "answer", None;
}

/// A truncation that returned was lost where somebody had the file open (quiet, seed 57).
#[test]
fn a_truncation_survives_a_kill_while_the_file_is_open() {
    no_longer_shows(
        r#"
        schedule: 57
        machine: (trash_days:7,split_above:10000,part:4096,poll_secs:0)
        Fate(Mount(on:0))
        Do(0,Write(at:"a",size:32))
        Do(0,Open(at:"a",slot:1))
        Do(0,Fsync(at:"a",wait:true))
        Do(0,Truncate(at:"a",size:21))
        Fate(Kill(on:0,when:Now))
        Fate(Mount(on:0))
        "#,
    );
}

/// What was staged was given up before that was recorded: a kill between the two left zeros
/// (quiet, seed 260).
#[test]
fn a_kill_within_a_truncation_leaves_no_zeros() {
    for moment in ["Disk(1)", "Disk(2)", "Disk(3)", "Local(1)", "Local(2)", "Local(3)"] {
        let script = r#"
        schedule: 260
        machine: (trash_days:7,split_above:10000,part:4096,poll_secs:0)
        Fate(Mount(on:0))
        Do(0,Write(at:"a",size:9920))
        Fate(Kill(on:0,when:MOMENT))
        Do(0,Truncate(at:"a",size:0))
        Do(0,Punch(at:"a",from:600,cells:900,size:3196))
        Fate(Kill(on:0,when:Now))
        Fate(Mount(on:0))
        Do(0,Read(at:"a"))
        "#;
        no_longer_shows(&script.replace("MOMENT", moment));
    }
}

/// An upload under way took the place of what was cloned over its file (quiet, seed 1640).
#[test]
fn a_clone_over_a_file_that_is_being_uploaded_keeps_its_content() {
    no_longer_shows(include_str!("expected/clone-under-upload.script"));
}
