//! The flows of the client as a store, over the simulated service: seeded courses, and by
//! name what they have found so far.
//!
//! A test whose name begins with `known_` is an expected failure: it asserts that the fault
//! is still there, and fails once it is gone. Whoever repairs it turns the test round and
//! takes its row out of [`KNOWN`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use privicorefs::privicore::ClientConfig;

use super::random::seed_of;
use super::wire::planted::{Plant, Planted};
use super::wire::shape::{Again, Answer, Configured, Mark};
use super::wire::{
    At, Clause, Course, Finding, Report, Shape, Step, When, WireFault, Wrong, run, run_over,
};

/// Seeds that are tried in the ordinary run.
const SEEDS: u64 = 400;

/// A fault of today's client, as seeded courses meet it.
struct Known {
    name: &'static str,
    clauses: &'static [Clause],
    /// Beginnings of what must have struck, one of them; empty: nothing need have.
    struck: &'static [&'static str],
    /// In which shapes of the service.
    shape: fn(&Shape) -> bool,
    /// A part of what is said.
    said: &'static str,
}

/// What is known: each row has an expected failure below, with a course of its own.
const KNOWN: &[Known] = &[
    Known {
        name: "the last step of a put is believed whatever is answered with 200",
        clauses: &[Clause::Kept, Clause::Left, Clause::Listed],
        struck: &["Configure/Reply"],
        shape: |_| true,
        said: "",
    },
    Known {
        name: "one wrong reply teaches that an empty extension is taken",
        clauses: &[Clause::Recovers, Clause::Left],
        struck: &["Configure/Reply"],
        shape: |shape| shape.refuses_empty_extension,
        said: "extension: blank",
    },
    Known {
        name: "a put is not in doubt though no listing could show it",
        clauses: &[Clause::Left],
        struck: &["Configure/"],
        shape: |shape| !shape.keeps_marks() && !shape.keeps_name(),
        said: "never in doubt",
    },
    Known {
        name: "a put that may still land is not in doubt",
        clauses: &[Clause::Left],
        struck: &[
            "Configure/LandsLate",
            "Configure/Status",
            "Configure/ReplyLost",
            "Configure/Slow",
            "Configure/Ack",
            "Configure/Socket",
        ],
        shape: |_| true,
        said: "never in doubt",
    },
    Known {
        name: "a put is not in doubt though its exchange made the token permanent",
        clauses: &[Clause::Left],
        struck: &[],
        shape: |shape| shape.permanent_at_exchange,
        said: "never in doubt",
    },
    Known {
        name: "a listing that fails decides the name of a token",
        clauses: &[Clause::Kept, Clause::Left, Clause::Listed],
        struck: &["List/", "Login/"],
        shape: |shape| shape.configured == Configured::AcceptedRenamed,
        said: "",
    },
    Known {
        name: "a command is believed done whatever is answered with 200",
        clauses: &[Clause::Done],
        struck: &["Delete/Reply", "Meta/Reply", "Risk/Reply"],
        shape: |_| true,
        said: "",
    },
    Known {
        name: "a wrong reply to a poll counts as success",
        clauses: &[Clause::Kept, Clause::Done],
        struck: &["Poll/Reply"],
        shape: |_| true,
        said: "",
    },
    Known {
        name: "a change of meta is taken for an earlier one that is held",
        clauses: &[Clause::Done],
        struck: &[],
        shape: |_| true,
        said: "never carried out",
    },
    Known {
        name: "a payload that was held lies open until somebody calls",
        clauses: &[Clause::Bounded],
        struck: &[],
        shape: |_| true,
        said: "the rest of a download",
    },
];

impl Known {
    fn explains(&self, finding: &Finding, shape: &Shape) -> bool {
        let struck = |hit: &String| self.struck.iter().any(|start| hit.starts_with(start));
        self.clauses.contains(&finding.clause)
            && (self.struck.is_empty() || finding.hits.iter().any(struck))
            && (self.shape)(shape)
            && finding.what.contains(self.said)
    }
}

fn explained(finding: &Finding, shape: &Shape) -> Option<&'static str> {
    KNOWN.iter().find(|known| known.explains(finding, shape)).map(|known| known.name)
}

/// The first finding of a course that nothing known explains.
fn unknown(course: &Course, report: &Report) -> Option<Finding> {
    let mut findings = report.findings.iter();
    findings.find(|finding| explained(finding, &course.shape).is_none()).cloned()
}

/// Leaves out of a course whatever the finding does without.
fn shrunk(mut course: Course, finding: &Finding) -> Course {
    let same = |course: &Course| {
        let found =
            |other: Finding| other.clause == finding.clause && other.operation == finding.operation;
        unknown(course, &run(course)).is_some_and(found)
    };
    let mut at = 0;
    while at < course.steps.len() {
        let mut smaller = course.clone();
        smaller.steps.remove(at);
        match same(&smaller) {
            true => (course, at) = (smaller, 0),
            false => at += 1,
        }
    }
    course
}

/// For a person who has to repeat it.
fn told(course: &Course, finding: &Finding) -> String {
    let seed = course.seed;
    let small = shrunk(course.clone(), finding);
    format!("seed {seed}: {finding}\nin the course\n{small:?}")
}

#[test]
fn where_nothing_strikes_nothing_fails() {
    let mut succeeded = 0;
    for seed in 0..SEEDS / 4 {
        let course = Course::draw_quiet(seed);
        let report = run(&course);
        assert!(report.met.is_empty() && course.is_quiet());
        if let Some(finding) = report.findings.first() {
            panic!("{}", told(&course, finding));
        }
        succeeded += report.succeeded;
    }
    assert!(succeeded > 20 * SEEDS as u32 / 4, "only {succeeded} calls");
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How often each kind of fault struck, by the call that it struck.
    pub(super) met: BTreeMap<String, u32>,
    /// How many findings each known fault explains.
    pub(super) found: BTreeMap<&'static str, u32>,
    /// Equal for equal runs, in whatever process.
    pub(super) digest: u64,
}

/// Runs a course for each seed. The error is a finding that nothing known explains, with its
/// shrunk course, for a person who has to repeat it.
pub(super) fn try_seeds(seeds: Range<u64>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for seed in seeds {
        let course = Course::draw(seed);
        let report = run(&course);
        if let Some(finding) = unknown(&course, &report) {
            return Err(told(&course, &finding));
        }
        for finding in &report.findings {
            let name = explained(finding, &course.shape).unwrap_or_default();
            *tally.found.entry(name).or_insert(0) += 1;
        }
        tally.digest = seed_of(&[tally.digest, report.digest]);
        for (hit, times) in report.met {
            *tally.met.entry(hit).or_insert(0) += times;
        }
    }
    Ok(tally)
}

#[test]
#[allow(clippy::print_stdout, reason = "says how much was tried, and what each row explained")]
fn seeded_courses_find_what_is_known_and_nothing_else() {
    let tally = try_seeds(0..SEEDS).unwrap_or_else(|told| panic!("{told}"));
    // Each kind of fault has struck somewhere, or the courses try less than they say.
    for kind in WireFault::KINDS {
        let struck = tally.met.iter().filter(|(hit, _)| hit.ends_with(&format!("/{kind}")));
        assert!(struck.map(|(_, times)| times).sum::<u32>() > 0, "{kind} never struck");
    }
    println!("{SEEDS} seeds: {tally:#?}");
}

#[test]
fn one_seed_is_one_course() {
    let digests = |from: u64| (from..from + 30).map(|seed| run(&Course::draw(seed)).digest);
    assert!(digests(0).eq(digests(0)));
    assert!(digests(0).zip(digests(30)).all(|(one, other)| one != other));
}

/// What the judge says of a client that is wrong in one way: of ten courses in which nothing
/// strikes, and nothing is wrong otherwise.
fn judged(plant: Plant) -> Vec<Finding> {
    let mut found = Vec::new();
    for seed in 0..10 {
        let mut course = Course::draw_quiet(seed);
        (course.shape.mark, course.shape.lacks_update) = (Mark::Kept, false);
        let planted = |inner| Arc::new(Planted { inner, plant }) as _;
        found.extend(run_over(&course, |config| config, planted).findings);
    }
    found
}

#[test]
fn the_judge_names_what_is_planted() {
    for (plant, clause, operation, said) in [
        (Plant::OtherToken, Clause::Kept, "put", "the vault has no nothing's"),
        (Plant::OtherBytes, Clause::Kept, "put", "other bytes"),
        (Plant::Denies, Clause::Left, "put", "never in doubt"),
        (Plant::OtherMark, Clause::Left, "put", "without its mark"),
        (Plant::Flips, Clause::Exact, "get", "bytes of"),
        (Plant::Shortens, Clause::Exact, "get", "bytes of"),
        (Plant::Sleeps, Clause::Bounded, "put", "beside its calls"),
        (Plant::Forgets, Clause::Listed, "list", "listed 0 times"),
        (Plant::Doubles, Clause::Listed, "list", "listed 2 times"),
        (Plant::KeepsDeleted, Clause::Done, "delete", "still there"),
        (Plant::KeepsName, Clause::Done, "update-meta", "never carried out"),
        (Plant::KeepsRisk, Clause::Done, "set-risk", "never carried out"),
        (Plant::Fails, Clause::Quiet, "list", "planted"),
        (Plant::Fails, Clause::Recovers, "list", "planted"),
    ] {
        let found = judged(plant);
        let here = |one: &&Finding| (one.clause, one.operation) == (clause, operation);
        let named = found.iter().filter(here).any(|one| one.what.contains(said));
        assert!(named, "{plant:?} is not {clause:?} {operation} {said}: {found:?}");
    }
}

/// The clock of the way itself: a client that is more patient than it is configured to be.
#[test]
fn the_judge_sees_each_single_wait() {
    use WireFault as F;
    for (at, lost, said) in [
        (At::List, F::CallLost { silent: true }, "List was waited for"),
        (At::Connect, F::CallLost { silent: true }, "Connect was waited for"),
        (At::Upload, F::StalledUpload, "Upload was waited for"),
        (At::Download, F::StalledDownload, "the rest of a download was waited for"),
    ] {
        let shape = Shape { answer: Answer::Link, ..Shape::default() };
        let put = Step::Put { size: 50_000, tries: 1 };
        let mut steps = vec![put.clone(), fault(at, lost, 1), put, Step::Get { of: 0 }, Step::List];
        if at == At::Connect {
            steps.insert(2, Step::Cut);
        }
        let course = Course { seed: 1, shape, steps };
        assert!(run(&course).findings.is_empty(), "{said}, as configured");
        let patient = |mut config: ClientConfig| {
            config.reply_timeout *= 3;
            config.connect_timeout *= 3;
            config.idle_timeout *= 3;
            config
        };
        let found = run_over(&course, patient, |client| client).findings;
        let named =
            found.iter().any(|one| one.clause == Clause::Bounded && one.what.contains(said));
        assert!(named, "{said}: {found:?}");
    }
}

fn fault(at: At, fault: WireFault, times: u32) -> Step {
    Step::Fault { at, fault, when: When::Next(times) }
}

fn proxy(at: At, wrong: Wrong) -> Step {
    fault(at, WireFault::Reply { wrong, carried_out: false }, 1)
}

fn small() -> Step {
    Step::Put { size: 500, tries: 1 }
}

/// Runs a course of these steps; it must meet `hit` and find something against `clause` in
/// which `said` is said.
fn finds(shape: Shape, steps: &[Step], hit: &str, clause: Clause, operation: &str, said: &str) {
    let course = Course { seed: 1, shape, steps: steps.to_vec() };
    let report = run(&course);
    assert!(hit.is_empty() || report.met.contains_key(hit), "{hit} was not met: {:?}", report.met);
    let here = |finding: &&Finding| {
        finding.clause == clause && finding.operation == operation && finding.what.contains(said)
    };
    let found = report.findings.iter().find(here);
    assert!(
        found.is_some(),
        "the fault is gone: turn this test round. {hit} {clause:?} {operation} {said}: {:?}",
        report.findings
    );
}

/// First found by seed 789, and by 300 findings in 20,000 seeds: the file is called committed
/// under the token `OK`, and whoever stored it drops the staged copy.
#[test]
fn known_a_put_whose_last_step_is_answered_ok_is_called_committed_under_the_token_ok() {
    for size in [500, 50_000] {
        let steps = [proxy(At::Configure, Wrong::Ok), Step::Put { size, tries: 3 }];
        let said = "the vault has no OK";
        finds(Shape::default(), &steps, "Configure/Reply:Ok", Clause::Kept, "put", said);
    }
}

/// Seed 93; 1,090 in 20,000 seeds. A proxy's page, or nothing at all, with status 200: the
/// temporary token, which dies with its reservation, is called permanent.
#[test]
fn known_a_put_whose_last_step_is_answered_by_a_proxy_is_called_committed() {
    use Wrong as W;
    for wrong in [W::Html, W::Nothing, W::Null, W::Array, W::Object, W::Torn, W::Unnamed] {
        let steps = [proxy(At::Configure, wrong), Step::Put { size: 500, tries: 3 }];
        let hit = format!("Configure/Reply:{wrong:?}");
        finds(Shape::default(), &steps, &hit, Clause::Kept, "put", "the vault has no tmp-");
    }
}

/// Seed 701; 47 in 20,000 seeds. A reply of a proxy to the last step of a put counts as "an
/// empty extension is taken", for the whole session; files without one fail from then on.
#[test]
fn known_one_wrong_reply_teaches_that_an_empty_extension_is_taken() {
    let shape = Shape { refuses_empty_extension: true, ..Shape::default() };
    // A put in a step whose number is divisible by three has no extension.
    let wait = Step::Wait { secs: 1 };
    let steps = [proxy(At::Configure, Wrong::Html), wait.clone(), wait, small()];
    finds(shape, &steps, "Configure/Reply:Html", Clause::Recovers, "put", "extension: blank");
}

/// Seed 2; 582 in 20,000 seeds. Both attempts at the last step are lost on the way, the
/// listing does not show the token yet, and that is believed: the put fails without doubt, and
/// lands afterwards.
#[test]
fn known_a_put_that_lands_after_it_failed_was_not_in_doubt() {
    let late = fault(At::Configure, WireFault::LandsLate { secs: 45 }, 2);
    let said = "never in doubt";
    let steps = [late, small()];
    finds(Shape::default(), &steps, "Configure/LandsLate", Clause::Left, "put", said);
}

/// Seed 161; 1,059 in 20,000 seeds. Where the exchange makes the token permanent (the official
/// form), whatever fails from there on leaves a token, and the put is not in doubt.
#[test]
fn known_a_put_is_not_in_doubt_though_its_exchange_made_the_token_permanent() {
    let (permanent_at_exchange, configured) = (true, Configured::Same);
    let shape = Shape { permanent_at_exchange, configured, ..Shape::default() };
    for (at, size) in [(At::Exchange, 500), (At::Upload, 50_000)] {
        let lost = fault(at, WireFault::ReplyLost { silent: false }, 1);
        let steps = [lost, Step::Put { size, tries: 1 }];
        let hit = format!("{at:?}/ReplyLost");
        finds(shape, &steps, &hit, Clause::Left, "put", "never in doubt");
    }
}

/// Seed 664; 69 in 20,000 seeds. A token with a new name and without the caller's mark cannot
/// be found in the listing; that it was not found is believed.
#[test]
fn known_a_put_is_not_in_doubt_though_no_listing_could_show_it() {
    let shape = Shape { mark: Mark::Ignored, again: Again::Gone, ..Shape::default() };
    let lost = fault(At::Configure, WireFault::ReplyLost { silent: false }, 1);
    let steps = [lost, small()];
    finds(shape, &steps, "Configure/ReplyLost", Clause::Left, "put", "never in doubt");
}

/// Seed 51; 372 in 20,000 seeds. Whether a token keeps its name is looked up once; where that
/// look fails, it is taken to keep it.
#[test]
fn known_a_listing_that_fails_decides_the_name_of_a_token() {
    let shape = Shape { configured: Configured::AcceptedRenamed, ..Shape::default() };
    let down = fault(At::List, WireFault::Status { status: 503, carried_out: false }, 1);
    let steps = [down, small()];
    finds(shape, &steps, "List/Status", Clause::Kept, "put", "the vault has no tmp-");
}

/// Seeds 182, 257 and 476; 324 in 20,000 seeds. A deletion, a new name, new risk meta: done,
/// whatever has status 200.
#[test]
fn known_a_command_is_believed_done_whatever_is_answered() {
    use Wrong as W;
    for wrong in [W::Ok, W::Html, W::Nothing, W::Null, W::Array, W::Object, W::Torn] {
        for (at, operation, step) in [
            (At::Delete, "delete", Step::Delete { of: 0 }),
            (At::Meta, "update-meta", Step::Meta { of: 0 }),
            (At::Risk, "set-risk", Step::Risk { of: 0 }),
        ] {
            let steps = [small(), proxy(at, wrong), step];
            let hit = format!("{at:?}/Reply:{wrong:?}");
            finds(Shape::default(), &steps, &hit, Clause::Done, operation, "");
        }
    }
}

/// Seed 297; 17 in 20,000 seeds. A page in place of a command's status, with status 200, is
/// success; here the put returns 200 seconds before its token is there.
#[test]
fn known_a_wrong_reply_to_a_poll_counts_as_success() {
    let shape = Shape { configured: Configured::Accepted, ..Shape::default() };
    for wrong in [Wrong::Html, Wrong::Nothing, Wrong::Array, Wrong::Ok] {
        let slow = fault(At::Configure, WireFault::Slow { secs: 200 }, 1);
        let steps = [slow, proxy(At::Poll, wrong), small()];
        let hit = format!("Poll/Reply:{wrong:?}");
        finds(shape, &steps, &hit, Clause::Kept, "put", "right after it");
    }
}

/// Seed 3444; 8 in 20,000 seeds. A change of meta that is slow counts as held for a vote, by
/// its token alone. A second change of the same token is answered with the outcome of the
/// first.
#[test]
fn known_a_change_of_meta_is_taken_for_an_earlier_one_that_is_held() {
    for (at, operation, step) in [
        (At::Meta, "update-meta", Step::Meta { of: 0 }),
        (At::Risk, "set-risk", Step::Risk { of: 0 }),
    ] {
        let slow = fault(at, WireFault::Slow { secs: 45 }, 1);
        let steps = [small(), slow, step.clone(), Step::Wait { secs: 60 }, step];
        let hit = format!("{at:?}/Slow");
        finds(Shape::default(), &steps, &hit, Clause::Done, operation, "never carried out");
    }
}

/// Seed 578; 97 in 20,000 seeds. The payload of a get that was slow is opened though nobody
/// waits for it any more, and its connection stays open, unread, until somebody calls: the
/// five minutes after which it is dropped are looked at by calls alone.
#[test]
fn known_a_payload_that_was_held_lies_open_until_somebody_calls() {
    let shape = Shape { answer: Answer::Link, ..Shape::default() };
    let slow = fault(At::Request, WireFault::Slow { secs: 45 }, 1);
    let steps = [small(), slow, Step::Get { of: 0 }, Step::Wait { secs: 4_000 }];
    let said = "the rest of a download";
    finds(shape, &steps, "Request/Slow", Clause::Bounded, "get", said);
}

/// Not drawn, because no client of this layer can tell: what has the key can.
#[test]
fn known_a_page_in_place_of_a_payload_is_given_as_the_payload() {
    let shape = Shape { answer: Answer::Link, ..Shape::default() };
    let steps = [small(), proxy(At::Download, Wrong::Html), Step::Get { of: 0 }];
    finds(shape, &steps, "Download/Reply:Html", Clause::Exact, "get", "");
}

/// Not drawn, because it would fail every upload: an address of the form `host:port?auth=…`
/// (protocol F) is taken for a token of the configured server.
#[test]
fn known_an_upload_address_without_a_slash_is_not_understood() {
    let shape = Shape { addresses_lack_slash: true, ..Shape::default() };
    let steps = [Step::Put { size: 50_000, tries: 1 }];
    finds(shape, &steps, "", Clause::Quiet, "put", "refused");
}
