//! The simulator: several machines on one vault, in virtual time, one seed one schedule,
//! judged by what was acknowledged and shown. See `company` for what a run is made of.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod company;
mod disk;
mod drive;
mod local;
mod random;
mod service;
mod tasks;

#[test]
fn smoke() {
    use company::*;
    let settings = Settings { trash_days: 7, split_above: 10_000, part: 4096, poll_secs: 30 };
    let script = Script {
        schedule: 7,
        settings: vec![settings; 2],
        steps: vec![
            Step::Fate(Fate::Mount { on: 0 }),
            Step::Fate(Fate::Mount { on: 1 }),
            Step::Do(0, Act::Mkdir { at: "d".into() }),
            Step::Do(0, Act::Write { at: "d/a".into(), size: 100 }),
            Step::Do(0, Act::Write { at: "d/big".into(), size: 20_000 }),
            Step::Do(0, Act::Fsync { at: "d/a".into(), wait: true }),
            Step::Wait { ms: 60_000 },
            Step::Do(1, Act::Edit { at: "d/big".into(), from: 5000, cells: 10, size: 20_001 }),
            Step::Do(1, Act::Sync { wait: true }),
            Step::Fate(Fate::Kill { on: 0, when: Moment::Now }),
            Step::Fate(Fate::Mount { on: 0 }),
            Step::Do(0, Act::Remove { at: "d/a".into() }),
        ],
    };
    let mut drive = drive::Drive::new(&script);
    for (n, step) in script.steps.iter().enumerate() {
        println!("{n} {step:?}\n   {:?}", drive.step(n, step));
    }
    println!("{:#?}", drive.finish());
}
