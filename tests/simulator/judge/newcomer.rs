//! What a new machine sees while others are at work, and while the service hides something.
//!
//! It may see an earlier state of the vault, and one in which some machine's latest is
//! missing: nobody who is new can know better. But what a machine did comes with all that the
//! machine had sent or been shown before it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::company::{Abilities, Act, Entry, Machine, Observer, Stamp, View, What};
use super::super::kinds;
use super::finding::{Clause, Finding};
use super::history::{Did, History};
use super::verdict::{Court, Original, made, present};

/// Judges what a newcomer saw.
pub fn judge(
    history: &History,
    seen: &Result<View, String>,
    abilities: Abilities,
    original: Original<'_>,
) -> Vec<Finding> {
    let mut court = Court::new(history, original);
    match seen {
        Ok(view) => {
            each(&mut court, view);
            if abilities.reports {
                whole(&mut court, view);
            }
        }
        Err(_) if history.failing || history.lied => {}
        Err(why) => court.find(Clause::CannotMount, "newcomer", None, why.clone()),
    }
    court.findings
}

/// What is shown was made, and is whole.
fn each(court: &mut Court<'_>, view: &View) {
    for (path, entry) in view {
        // What cannot be read now is asked for at the end.
        if !matches!(entry, Entry::Unreadable { .. }) {
            court.entry(Observer::Fresh, path, entry);
        }
    }
}

/// Nothing is missing that what is shown came after.
fn whole(court: &mut Court<'_>, view: &View) {
    let history = court.history;
    let (present, partial, made) = (present(history, view), court.partial(view), made(view));
    let last = last_shown(history, present.iter().chain(&made));
    let hidden: BTreeSet<&str> = view
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Unreadable { .. }))
        .map(|(path, _)| path.as_str())
        .collect();
    let mut missing = Vec::new();
    for (on, step) in &last {
        for (stamp, version) in &history.versions {
            let sent = version.on == Some(*on) && version.vault_at.is_some_and(|at| at < *step);
            let asked = sent || was_shown(history, *on, *step, *stamp);
            // Another client's files are found by a listing, and that client's to take.
            let asked = asked && version.on.is_some();
            if asked
                && !hidden.contains(version.path.as_str())
                && !court.is_there(&present, &partial, *stamp)
            {
                let what = format!("version {stamp} of {:?}", version.path);
                missing.push((version.kind, *on, *step, what));
            }
        }
        for deed in &history.deeds {
            let stamp = deed.step as Stamp + 1;
            let is_folder = matches!(deed.act, Act::Mkdir { .. } | Act::Symlink { .. });
            let sent = deed.on == Some(*on) && deed.vault_at.is_some_and(|at| at < *step);
            if is_folder && sent && !made.contains(&stamp) && !court.is_folder_taken(stamp) {
                let what = format!("what step {} made", deed.step);
                missing.push((kinds::act_kind(&deed.act), *on, *step, what));
            }
        }
    }
    for (kind, on, step, what) in missing {
        let text = format!("a newcomer sees step {step} of machine {on}, and not {what}");
        court.find(Clause::HalfState, kind, None, text);
    }
}

/// The last step of each machine of which something is shown.
fn last_shown<'a>(
    history: &History,
    stamps: impl Iterator<Item = &'a Stamp>,
) -> BTreeMap<Machine, usize> {
    let mut last = BTreeMap::new();
    for stamp in stamps {
        let step = *stamp as usize - 1;
        let deed = history.deeds.iter().find(|deed| deed.step == step);
        if let Some(on) = deed.and_then(|deed| deed.on) {
            let at = last.entry(on).or_insert(step);
            *at = step.max(*at);
        }
    }
    last
}

/// Whether a machine had been shown another's version before a step that it carried out.
fn was_shown(history: &History, on: Machine, step: usize, stamp: Stamp) -> bool {
    let size = history.size_of(stamp);
    history.deeds.iter().any(|deed| {
        deed.on == Some(on)
            && deed.step < step
            && deed.did > Did::Not
            && history.versions[&stamp].on != Some(on)
            && deed.shown.iter().any(|(_, what)| match what {
                What::File { size: shown, .. } => Some(*shown) == size,
                _ => false,
            })
    })
}
