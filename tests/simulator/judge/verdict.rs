//! The trees at the end, held against the history.

use std::collections::BTreeSet;

use super::super::company::{
    Abilities, Act, Content, Entry, Final, Machine, Observer, Path, Stamp, Step, Stored, View, What,
};
use super::super::kinds;
use super::contents;
use super::finding::{Clause, Finding};
use super::history::{Deed, Did, History, Version};

/// Strips what marks a conflict copy from one component.
pub(super) type Original<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One observer's tree is looked at in full; the others must agree with it.
pub fn judge(
    history: &History,
    ending: &Final,
    abilities: Abilities,
    original: Original<'_>,
) -> Vec<Finding> {
    let mut court = Court::new(history, original);
    for (observer, view) in &ending.views {
        if let Err(why) = view {
            let text = format!("{observer:?}: {why}");
            court.find(Clause::CannotMount, "-", machine_of(*observer), text);
        }
    }
    court.agreement(ending);
    if abilities.horizon {
        court.leaks(ending);
    }
    if abilities.reports {
        for step in &history.unreported {
            let text = format!("{:?}", history.script.steps.get(*step));
            court.find(Clause::Unreported, "-", None, text);
        }
    }
    let views: Vec<(&Observer, &View)> =
        ending.views.iter().filter_map(|(o, view)| Some((o, view.as_ref().ok()?))).collect();
    // The fresh one is last: it has only what the vault has.
    let mut seen = BTreeSet::new();
    for (observer, view) in views.iter().rev() {
        let before = court.findings.len();
        court.look(**observer, view);
        // What all of them show is said once.
        let mut kept = court.findings.split_off(before);
        kept.retain(|finding| seen.insert((finding.clause, finding.text.clone())));
        court.findings.extend(kept);
    }
    court.findings
}

fn machine_of(observer: Observer) -> Option<Machine> {
    match observer {
        Observer::Machine(on) => Some(on),
        Observer::Fresh => None,
    }
}

/// The findings about a tree, as they are gathered.
pub(super) struct Court<'h> {
    pub history: &'h History,
    pub findings: Vec<Finding>,
    original: Original<'h>,
}

impl<'h> Court<'h> {
    pub fn new(history: &'h History, original: Original<'h>) -> Self {
        Self { history, findings: Vec::new(), original }
    }

    pub fn find(&mut self, clause: Clause, act: &'static str, on: Option<Machine>, text: String) {
        let fate = self.history.fate_of(on);
        self.findings.push(Finding { clause, act, fate, text });
    }

    fn agreement(&mut self, ending: &Final) {
        let views = ending.views.iter().filter_map(|(o, view)| Some((*o, view.as_ref().ok()?)));
        let views: Vec<_> = views.collect();
        let Some((first, rest)) = views.split_last() else { return };
        for (observer, view) in rest {
            let differ = |path: &&Path| !same(view.get(*path), first.1.get(*path));
            let paths: BTreeSet<&Path> = view.keys().chain(first.1.keys()).collect();
            if let Some(path) = paths.into_iter().find(differ) {
                let (a, b) = (short(view.get(path)), short(first.1.get(path)));
                let text = format!("{path:?}: {observer:?} shows {a}, {:?} {b}", first.0);
                self.find(Clause::TreesAgree, "-", machine_of(*observer), text);
            }
        }
    }

    /// After the horizon only what somebody names is left.
    fn leaks(&mut self, ending: &Final) {
        let views = ending.views.values().filter_map(|view| view.as_ref().ok());
        let named: BTreeSet<&String> = views
            .flat_map(View::values)
            .filter_map(|entry| match entry {
                Entry::File { token, .. } => token.as_ref(),
                _ => None,
            })
            .collect();
        for (token, what) in &ending.stored {
            if *what != Stored::Part && !named.contains(token) {
                self.find(Clause::Leak, "-", None, format!("{token} ({what:?})"));
            }
        }
    }

    fn look(&mut self, observer: Observer, view: &View) {
        for (path, entry) in view {
            self.entry(observer, path, entry);
        }
        let present = present(self.history, view);
        let partial = self.partial(view);
        let stamps: Vec<Stamp> = self.history.versions.keys().copied().collect();
        for stamp in stamps {
            self.kept(observer, &present, &partial, stamp);
        }
        self.removals(observer, view);
        self.folders(observer, view);
    }

    /// What stands there was made, and may stand there.
    pub fn entry(&mut self, observer: Observer, path: &Path, entry: &Entry) {
        let on = machine_of(observer);
        match entry {
            Entry::File { content, .. } => {
                if let Some((clause, kind, text)) = self.history.check_content(content) {
                    self.find(clause, kind, on, format!("{path:?}: {text}"));
                    return;
                }
                if let Some(version) = self.history.of_size(contents::len(content)) {
                    let version = version.clone();
                    self.place(observer, path, &version);
                }
            }
            Entry::Dir { made, .. } => {
                let made = made.and_then(|stamp| self.made_by(stamp));
                let perhaps =
                    self.history.deeds.iter().any(|deed| {
                        matches!(&deed.act, Act::Mkdir { .. }) && deed.did == Did::Perhaps
                    });
                // Another client's folders are the contexts of its tokens.
                let other = self.history.deeds.iter().any(|deed| deed.on.is_none());
                if made.is_none() && !perhaps && !other {
                    self.find(Clause::NobodyMade, "mkdir", on, format!("folder {path:?}"));
                }
            }
            Entry::Symlink { made } => {
                if made.and_then(|stamp| self.made_by(stamp)).is_none() {
                    self.find(Clause::NobodyMade, "symlink", on, format!("link {path:?}"));
                }
            }
            // Whether something is missed is for `kept` to say.
            Entry::Unreadable { why, damaged } => {
                if !(*damaged && self.history.lied) {
                    self.find(Clause::KeptInVault, "unreadable", on, format!("{path:?}: {why}"));
                }
            }
        }
    }

    fn made_by(&self, stamp: Stamp) -> Option<&Deed> {
        self.history.deeds.iter().find(|deed| {
            deed.step + 1 == stamp as usize
                && matches!(deed.act, Act::Mkdir { .. } | Act::Symlink { .. })
        })
    }

    /// A content is under a name that it was given, a conflict name only with a reason.
    fn place(&mut self, observer: Observer, path: &Path, version: &Version) {
        let lineage = self.history.lineage(version.stamp);
        let names: BTreeSet<String> =
            self.names(&lineage).iter().map(|path| last(path).to_owned()).collect();
        let on = machine_of(observer);
        let name = last(path);
        if names.contains(name) {
            return;
        }
        match (self.original)(name) {
            Some(plain) if names.iter().any(|n| alike(n, &plain)) => {
                if !self.may_conflict() {
                    self.find(Clause::ConflictName, version.kind, on, format!("{path:?}"));
                }
            }
            _ => {
                let text = format!("{path:?} holds version {}, made as {names:?}", version.stamp);
                self.find(Clause::OwnName, version.kind, on, text);
            }
        }
    }

    /// Every path that versions of a file were ever given, by whoever.
    fn names(&self, lineage: &BTreeSet<Stamp>) -> BTreeSet<Path> {
        let shown = |deed: &Deed, at: usize| match deed.shown.get(at) {
            Some((_, What::File { size, .. })) => {
                self.history.of_size(*size).is_some_and(|v| lineage.contains(&v.stamp))
            }
            _ => false,
        };
        let mut names = BTreeSet::new();
        for stamp in lineage {
            if let Some(version) = self.history.versions.get(stamp) {
                names.insert(version.path.clone());
                if let Act::Save { at, .. } = &version.act {
                    names.insert(format!("{at}.new{stamp}"));
                }
            }
        }
        for deed in &self.history.deeds {
            match &deed.act {
                Act::Rename { to, .. } | Act::Link { to, .. } if shown(deed, 0) => {
                    names.insert(to.clone());
                }
                Act::Exchange { a, b } if shown(deed, 0) || shown(deed, 1) => {
                    names.extend([a.clone(), b.clone()]);
                }
                _ => {}
            }
        }
        names
    }

    /// Whether any two can have written without having seen each other.
    fn may_conflict(&self) -> bool {
        let script = &self.history.script;
        let others = script.steps.iter().any(|step| matches!(step, Step::Other(_)));
        script.settings.len() > 1 || others || self.history.odd_machines
    }

    /// A content that was acknowledged is there, or what grew from it, or something that had
    /// seen it took it.
    fn kept(
        &mut self,
        observer: Observer,
        present: &BTreeSet<Stamp>,
        partial: &BTreeSet<String>,
        stamp: Stamp,
    ) {
        let version = &self.history.versions[&stamp];
        if version.did < Did::Here || version.on.is_none() {
            return; // another client's files are that client's
        }
        if self.is_there(present, partial, stamp) {
            return;
        }
        let (kind, on) = (version.kind, version.on);
        let text = format!(
            "version {stamp} of {:?} ({} cells, machine {:?}) is nowhere",
            version.path,
            contents::len(&version.content),
            version.on,
        );
        let clause =
            if version.did == Did::InVault { Clause::KeptInVault } else { Clause::KeptHere };
        let on = on.or(machine_of(observer));
        self.find(clause, kind, on, text);
    }

    /// Whether a version is there, or something in its place.
    pub fn is_there(
        &self,
        present: &BTreeSet<Stamp>,
        partial: &BTreeSet<String>,
        stamp: Stamp,
    ) -> bool {
        let includes = |newer: Stamp| self.history.includes(newer, stamp);
        present.iter().any(|there| includes(*there))
            || self.is_taken(stamp)
            || (!partial.is_empty() && self.is_being_replaced(stamp, partial))
    }

    /// Names of files that a step left half done, as far as their contents can tell.
    pub fn partial(&self, view: &View) -> BTreeSet<String> {
        let partial = view.iter().filter(|(_, entry)| match entry {
            Entry::File { content, .. } => self.history.of_size(contents::len(content)).is_none(),
            _ => false,
        });
        let plain = |name: &str| (self.original)(name).unwrap_or_else(|| name.to_owned());
        partial.map(|(path, _)| plain(last(path))).collect()
    }

    /// Whether a step of several calls that was cut short left a file in place of a version.
    fn is_being_replaced(&self, stamp: Stamp, partial: &BTreeSet<String>) -> bool {
        let cut_short = self.history.versions.values().any(|version| {
            let several = !matches!(version.act, Act::Truncate { .. } | Act::Save { .. });
            let grew = version.from.is_some_and(|from| self.history.includes(from, stamp));
            version.did == Did::Perhaps && several && grew
        });
        let names = self.names(&self.history.lineage(stamp));
        cut_short && names.iter().any(|path| partial.contains(last(path)))
    }

    /// Whether something that had been shown a version, or what grew from it, may have taken it.
    fn is_taken(&self, stamp: Stamp) -> bool {
        self.history.deeds.iter().any(|deed| {
            let at = match &deed.act {
                Act::Remove { .. } | Act::Save { .. } => 0,
                Act::Rename { .. } => 1,
                _ => return false,
            };
            match deed.shown.get(at) {
                Some((_, What::File { size, .. })) if deed.did > Did::Not => {
                    let shown = self.history.of_size(*size);
                    shown.is_some_and(|shown| {
                        self.history.includes(shown.stamp, stamp)
                            || self.is_nameless(deed, shown.stamp, stamp)
                    })
                }
                _ => false,
            }
        })
    }

    /// Whether a version was written into a file that had lost its name on that machine.
    fn is_nameless(&self, taken: &Deed, shown: Stamp, written: Stamp) -> bool {
        let written = &self.history.versions[&written];
        matches!(written.act, Act::WriteSlot { .. })
            && written.on == taken.on
            && (written.stamp as usize) > taken.step
            && self.history.includes(written.stamp, shown)
    }

    /// A name that was removed, or given up by a rename, is not back with what was there.
    fn removals(&mut self, observer: Observer, view: &View) {
        for deed in &self.history.deeds {
            let (Act::Remove { at } | Act::Rename { from: at, .. }) = &deed.act else { continue };
            if deed.did < Did::InVault || deed.on.is_none() {
                continue;
            }
            let Some((_, What::File { size, .. })) = deed.shown.first() else { continue };
            let Some(shown) = self.history.of_size(*size) else { continue };
            let Some(Entry::File { content, .. }) = view.get(at) else { continue };
            let Some(there) = self.history.of_size(contents::len(content)) else { continue };
            if !self.history.includes(shown.stamp, there.stamp) || self.is_given_again(deed, at) {
                continue;
            }
            let (kind, on) = (kinds::act_kind(&deed.act), machine_of(observer));
            let text =
                format!("{at:?} is there again with version {} (step {})", there.stamp, deed.step);
            self.find(Clause::RemovalTakes, kind, on.or(deed.on), text);
        }
    }

    /// Whether a name may have been given (again) by something else than what the deed took:
    /// after it, or by somebody who had not seen it.
    fn is_given_again(&self, taken: &Deed, path: &Path) -> bool {
        self.history.deeds.iter().any(|deed| {
            let gives = match &deed.act {
                Act::Rename { from, to } => to == path || covers(to, path) || covers(from, path),
                Act::Link { to, .. } => to == path,
                Act::Exchange { a, b } => [a, b].iter().any(|at| *at == path || covers(at, path)),
                _ => false,
            };
            gives && deed.did > Did::Not && (deed.on != taken.on || deed.step > taken.step)
        }) || (matches!(taken.act, Act::Rename { ref from, ref to } if from == to || self.same_file(taken)))
    }

    /// A rename between two names of one file does nothing.
    fn same_file(&self, deed: &Deed) -> bool {
        match (deed.shown.first(), deed.shown.get(1)) {
            (Some((_, What::File { size: a, .. })), Some((_, What::File { size: b, .. }))) => {
                a == b
            }
            _ => false,
        }
    }

    /// Whether something that had been shown a folder or link may have taken it.
    pub fn is_folder_taken(&self, stamp: Stamp) -> bool {
        self.history.deeds.iter().any(|other| {
            let at = match &other.act {
                Act::Rmdir { .. } | Act::Remove { .. } | Act::Save { .. } => 0,
                Act::Rename { .. } => 1,
                _ => return false,
            };
            let shown = other.shown.get(at).map(|(_, what)| what);
            other.did > Did::Not
                && matches!(shown, Some(What::Dir { made } | What::Symlink { made })
                    if *made == Some(stamp))
        })
    }

    /// A folder or link that was made and acknowledged is there, if nothing can have taken it.
    fn folders(&mut self, observer: Observer, view: &View) {
        let there = made(view);
        for deed in &self.history.deeds {
            let stamp = deed.step as Stamp + 1;
            if deed.did < Did::Here || there.contains(&stamp) || self.is_folder_taken(stamp) {
                continue;
            }
            let (kind, at) = match &deed.act {
                Act::Mkdir { at } => ("mkdir", at),
                Act::Symlink { at } => ("symlink", at),
                _ => continue,
            };
            let on = machine_of(observer).or(deed.on);
            self.find(Clause::FoldersKept, kind, on, format!("{at:?} of step {}", deed.step));
        }
    }
}

/// The folders and links that a tree shows.
pub(super) fn made(view: &View) -> BTreeSet<Stamp> {
    let made = |entry: &Entry| match entry {
        Entry::Dir { made, .. } | Entry::Symlink { made } => *made,
        _ => None,
    };
    view.values().filter_map(made).collect()
}

/// The versions that a tree shows.
pub(super) fn present(history: &History, view: &View) -> BTreeSet<Stamp> {
    let content = |entry: &Entry| match entry {
        Entry::File { content, .. } => history.of_size(contents::len(content)).map(|v| v.stamp),
        _ => None,
    };
    view.values().filter_map(content).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path is a folder above another.
fn covers(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Long names are cut when they are marked.
fn alike(name: &str, plain: &str) -> bool {
    name == plain || (name.len() > 200 && plain.len() > 150 && name.starts_with(&plain[..100]))
}

fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    let without_token = |entry: &Entry| match entry.clone() {
        Entry::File { content, perm, xattr, links, .. } => {
            Entry::File { content, perm, xattr, links, token: None }
        }
        Entry::Unreadable { damaged, .. } => Entry::Unreadable { why: String::new(), damaged },
        other => other,
    };
    a.map(without_token) == b.map(without_token)
}

fn short(entry: Option<&Entry>) -> String {
    let content = |content: &Content| {
        let size = contents::len(content);
        format!("a file of {size} cells")
    };
    match entry {
        None => "nothing".into(),
        Some(Entry::File { content: of, perm, xattr, links, .. }) => {
            format!("{} ({perm:o}, {xattr:?}, {links} names)", content(of))
        }
        Some(other) => format!("{other:?}"),
    }
}
