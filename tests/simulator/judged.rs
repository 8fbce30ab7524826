//! The judge judged: with no fault it says nothing, and every planted one it finds by name.

use super::draw::{Profile, draw};
use super::judge::{self, Clause};
use super::planted::Planted;
use super::reference::Reference;

/// Seeds without a fault, over all profiles.
const SEEDS: u64 = 2_000;
const PROFILES: [&str; 5] = ["quiet", "machines", "fates", "lies", "all"];

/// Seeds within which a planted fault must show.
const WITHIN: u64 = 60;

#[test]
fn without_a_fault_nothing_is_found() {
    for name in PROFILES {
        let profile = Profile::named(name).unwrap();
        for seed in 0..SEEDS / PROFILES.len() as u64 {
            let script = draw(seed, &profile);
            let report = judge::run(&mut Reference::new(&script, None), &script);
            assert!(report.findings.is_empty(), "{name} {seed}: {:#?}", report.findings);
        }
    }
}

/// What is planted, with whom and which fates it shows, and the promise that it breaks.
const PLANTED: [(Planted, &str, Clause); 35] = [
    (Planted::LosesWrites, "quiet", Clause::KeptHere),
    (Planted::AcknowledgesTooEarly, "fates", Clause::KeptInVault),
    (Planted::RemovesUnseen, "machines", Clause::KeptInVault),
    (Planted::RemovalForgotten, "quiet", Clause::RemovalTakes),
    (Planted::OtherName, "quiet", Clause::OwnName),
    (Planted::Mixture, "quiet", Clause::WholeVersion),
    (Planted::Forgery, "quiet", Clause::NobodyWrote),
    (Planted::Invention, "quiet", Clause::NobodyWrote),
    (Planted::NeedlessConflict, "quiet", Clause::ConflictName),
    (Planted::TreesDiffer, "machines", Clause::TreesAgree),
    (Planted::AttributesDiffer, "machines", Clause::TreesAgree),
    (Planted::Leak, "quiet", Clause::Leak),
    (Planted::MountRefused, "quiet", Clause::CannotMount),
    (Planted::FsyncFails, "quiet", Clause::FsyncFails),
    (Planted::NeverAnswers, "quiet", Clause::NeverAnswers),
    (Planted::CutTakesOld, "fates", Clause::KeptHere),
    (Planted::FolderLost, "quiet", Clause::FoldersKept),
    (Planted::DeletesNamed, "quiet", Clause::DeletedNamed),
    (Planted::DeletesAtOnce, "quiet", Clause::DeletedFromTrash),
    (Planted::FalseAlarm, "quiet", Clause::FalseAlarm),
    (Planted::Silence, "lies", Clause::Unreported),
    (Planted::UnmountForgets, "quiet", Clause::KeptInVault),
    (Planted::DropsConflict, "machines", Clause::KeptInVault),
    (Planted::OtherFile, "quiet", Clause::NobodyWrote),
    (Planted::InventsFolder, "quiet", Clause::NobodyMade),
    (Planted::InventsLink, "quiet", Clause::NobodyMade),
    (Planted::Unreadable, "quiet", Clause::KeptInVault),
    (Planted::DamagedForNothing, "quiet", Clause::KeptInVault),
    (Planted::HalfState, "lies", Clause::HalfState),
    (Planted::NotBack, "lies", Clause::KeptInVault),
    (Planted::LieHarms, "lies", Clause::KeptInVault),
    (Planted::CriesWhenSlow, "quiet", Clause::FalseAlarm),
    (Planted::FsyncTimesOut, "quiet", Clause::FsyncFails),
    (Planted::NeverRecovers, "quiet", Clause::FsyncFails),
    (Planted::Panics, "quiet", Clause::Panics),
];

#[test]
fn every_planted_fault_is_found_by_name() {
    for (planted, name, clause) in PLANTED {
        let mut profile = Profile::named(name).unwrap();
        if name == "fates" {
            // Where a disk is lost, what only it had shows; who is away has more of that.
            let kinds = ["lose", "restore", "power-cut", "away"];
            profile.only = kinds.map(str::to_owned).to_vec();
        }
        let mut seen = Vec::new();
        let found = (0..WITHIN).any(|seed| {
            let script = draw(seed, &profile);
            let report = judge::run(&mut Reference::new(&script, Some(planted)), &script);
            let found = report.findings.iter().any(|finding| finding.clause == clause);
            seen.extend(report.findings.into_iter().map(|finding| finding.clause));
            found
        });
        seen.sort_unstable();
        seen.dedup();
        assert!(found, "{planted:?} is not found as {clause:?}, only {seen:?}");
    }
}
