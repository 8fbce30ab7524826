//! Scripts keep the rules of the company.

use std::collections::BTreeMap;

use super::*;

fn sizes(script: &Script) -> Vec<u32> {
    let size = |step: &Step| match step {
        Step::Do(
            _,
            Act::Write { size, .. }
            | Act::Edit { size, .. }
            | Act::Truncate { size, .. }
            | Act::Punch { size, .. }
            | Act::Clone { size, .. }
            | Act::Save { size, .. }
            | Act::WriteSlot { size, .. },
        ) => Some(*size),
        Step::Other(OtherAct::Store { size, .. } | OtherAct::Update { size, .. }) => Some(*size),
        _ => None,
    };
    script.steps.iter().filter_map(size).collect()
}

#[test]
fn scripts_keep_the_rules_of_the_company() {
    for name in ["quiet", "machines", "fates", "lies", "all"] {
        let profile = Profile::named(name).unwrap();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for seed in 0..400 {
            let script = draw(seed, &profile);
            assert_eq!(script, draw(seed, &profile), "one seed, one script");
            let sizes = sizes(&script);
            let unique: BTreeSet<_> = sizes.iter().collect();
            assert_eq!(unique.len(), sizes.len(), "a size is used twice");
            let operations =
                script.steps.iter().filter(|s| matches!(s, Step::Do(..) | Step::Other(_)));
            assert!(operations.count() >= 180);
            let fates = script.steps.iter().filter(|step| kinds::is_counted(step)).count();
            assert!(fates >= 6, "{name} {seed}: {fates}");
            script.steps.iter().for_each(|s| *seen.entry(kinds::kind(s)).or_default() += 1);
        }
        for kind in profile.kinds {
            assert!(seen.get(kind).is_some_and(|n| *n > 40), "{name}: {kind} {seen:?}");
        }
    }
}

#[test]
fn only_and_without_choose() {
    let profile = Profile {
        only: vec!["kill".into(), "slow".into()],
        without: vec!["slow".into()],
        ..Profile::named("all").unwrap()
    };
    for seed in 0..50 {
        let steps = draw(seed, &profile).steps;
        assert!(steps.iter().all(|s| !matches!(s, Step::Service(_))));
    }
}
