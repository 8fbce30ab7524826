//! What people do on a machine of the reference.

use std::collections::BTreeSet;

use super::super::company::{Act, Content, Event, Failure, Outcome, Stamp, Stored, What};
use super::super::judge::contents;
use super::super::kinds;
use super::super::planted::{self, Planted};
use super::tree::{Change, Id, Kind, Place, ROOT, Tree};
use super::{Reference, token};

type Done = Result<(), &'static str>;

impl Reference {
    pub(super) fn act(&mut self, number: usize, on: usize, act: &Act, outcome: &mut Outcome) {
        if !self.machines.get(on).is_some_and(|machine| machine.mounted) {
            outcome.failure = Some(Failure::NotMounted);
            return;
        }
        let tree = Tree::of(&self.machines[on].knows());
        let show = |at: String| {
            let shown = what(&tree, &at);
            (at, shown)
        };
        outcome.shown = kinds::act_paths(act).into_iter().map(show).collect();
        if let Act::WriteSlot { slot, .. } | Act::Close { slot } | Act::FsyncSlot { slot } = act
            && let Some(object) = self.machines[on].slots.get(slot)
        {
            outcome.shown.push((String::new(), what_object(&tree, *object)));
        }
        if let Some((by, left, power)) = &mut self.machines[on].doom {
            *left = left.saturating_sub(2);
            if *left == 0 {
                let (by, power) = (*by, *power);
                if self.draws.below(2) == 0 {
                    let _refused = self.perform(number, on, act, &tree);
                }
                self.die(on, by, power);
                outcome.failure = Some(Failure::Died);
                return;
            }
        }
        if let Act::Read { at } = act {
            match find(&tree, at).filter(|place| is_file(&tree, place)) {
                Some(place) => {
                    let content = content(&tree, place.version);
                    outcome.read = Some(planted::spoil_read(self.planted, content));
                }
                None => outcome.failure = Some(refused("ENOENT")),
            }
            return;
        }
        self.spoil_tokens(on, &outcome.shown);
        outcome.failure = match self.perform(number, on, act, &tree) {
            Ok(()) => self.commit(on, act),
            Err(errno) => Some(refused(errno)),
        };
    }

    /// What `fsync` and `sync` do: everything that waits here is published.
    fn commit(&mut self, on: usize, act: &Act) -> Option<Failure> {
        match act {
            Act::Fsync { wait: true, .. } | Act::Sync { wait: true } | Act::FsyncSlot { .. } => {
                if self.planted == Some(Planted::FsyncFails) && self.is_reached(on) {
                    return Some(Failure::Broken { why: "EIO".into() });
                }
                if self.planted == Some(Planted::FsyncTimesOut) && self.is_reached(on) {
                    return Some(Failure::TimedOut);
                }
                if self.planted == Some(Planted::NeverRecovers) && self.was_down {
                    return Some(Failure::Broken { why: "EIO".into() });
                }
                if self.planted == Some(Planted::Panics) {
                    self.events.push(Event::Panicked { text: "index out of bounds".into() });
                }
                if self.planted == Some(Planted::NeverAnswers) {
                    return Some(Failure::Broken { why: "it never answers".into() });
                }
                if self.planted == Some(Planted::AcknowledgesTooEarly) && self.is_reached(on) {
                    return None;
                }
                self.publish(on)
            }
            _ => None,
        }
    }

    /// Deletions that no honest machine makes.
    fn spoil_tokens(&mut self, on: usize, shown: &[(String, What)]) {
        let named = match self.planted {
            Some(Planted::DeletesNamed) => true,
            Some(Planted::DeletesAtOnce) => false,
            _ => return,
        };
        if let Some((_, What::File { token: Some(token), .. })) = shown.first() {
            let (on, token, what) = (on as u8, token.clone(), Stored::File);
            self.events.push(Event::Deleted { on, token, what, named });
        }
    }

    fn perform(&mut self, number: usize, on: usize, act: &Act, tree: &Tree) -> Done {
        let stamp = number as Stamp + 1;
        match act {
            Act::Write { at, .. } => self.write(on, tree, at, act, stamp),
            Act::Edit { at, .. } | Act::Truncate { at, .. } | Act::Punch { at, .. } => {
                let place = find(tree, at).filter(|p| is_file(tree, p)).ok_or("ENOENT")?;
                let object = self.own(on, tree, at, place)?;
                self.put(on, tree, object, place.version, act, stamp, None);
                Ok(())
            }
            Act::Clone { from, to, .. } => {
                let source = find(tree, from).filter(|p| is_file(tree, p)).ok_or("ENOENT")?;
                if find(tree, to).is_some_and(|target| target.object == source.object) {
                    return Err("EINVAL");
                }
                let (object, base) = self.target(on, tree, to)?;
                let source = content(tree, source.version);
                self.put(on, tree, object, base, act, stamp, Some(source));
                Ok(())
            }
            Act::Save { at, .. } => {
                let (parent, name) = parent(tree, at)?;
                if find(tree, at).is_some_and(|place| !is_file(tree, &place)) {
                    return Err("EISDIR");
                }
                self.take(on, tree, at);
                let object = self.record(on, Change::Object(Kind::File));
                self.put(on, tree, object, None, act, stamp, None);
                self.record(on, Change::Entry { object, parent, name });
                Ok(())
            }
            Act::Open { at, slot } => {
                let place = find(tree, at).filter(|p| is_file(tree, p)).ok_or("ENOENT")?;
                let object = self.own(on, tree, at, place)?;
                self.machines[on].slots.insert(*slot, object);
                Ok(())
            }
            Act::WriteSlot { slot, .. } => {
                let object = *self.machines[on].slots.get(slot).ok_or("EBADF")?;
                if self.is_unlinked_here(on, tree, object) {
                    return Err("ENOENT");
                }
                let base = tree.newest.get(&object).copied();
                self.put(on, tree, object, base, act, stamp, None);
                Ok(())
            }
            Act::Close { slot } => self.machines[on].slots.remove(slot).map(drop).ok_or("EBADF"),
            Act::FsyncSlot { slot } => match self.machines[on].slots.contains_key(slot) {
                true => Ok(()),
                false => Err("EBADF"),
            },
            Act::Fsync { at, .. } => {
                find(tree, at).filter(|p| is_file(tree, p)).map(drop).ok_or("ENOENT")
            }
            Act::Sync { .. } | Act::Read { .. } => Ok(()),
            names => self.names(on, tree, names, stamp),
        }
    }

    /// Whether a file lost its last name by what was done on this machine: then what is
    /// written to it is nobody's, as on any file system, and the reference refuses it.
    fn is_unlinked_here(&self, on: usize, tree: &Tree, object: Id) -> bool {
        !tree.links.contains_key(&object)
            && self.machines[on].knows().values().any(|record| match &record.change {
                Change::Remove { entry, .. } => {
                    record.on == on && tree.entry_objects.get(entry) == Some(&object)
                }
                _ => false,
            })
    }

    fn write(&mut self, on: usize, tree: &Tree, at: &str, act: &Act, stamp: Stamp) -> Done {
        let (object, base) = self.target(on, tree, at)?;
        self.put(on, tree, object, base, act, stamp, None);
        Ok(())
    }

    /// The file at a path, made if need be, with the version that it shows.
    fn target(
        &mut self,
        on: usize,
        tree: &Tree,
        at: &str,
    ) -> Result<(Id, Option<Id>), &'static str> {
        match find(tree, at) {
            Some(place) if is_file(tree, &place) => {
                Ok((self.own(on, tree, at, place)?, place.version))
            }
            Some(_) => Err("EISDIR"),
            None => {
                let (parent, name) = parent(tree, at)?;
                let object = self.record(on, Change::Object(Kind::File));
                self.record(on, Change::Entry { object, parent, name });
                Ok((object, None))
            }
        }
    }

    /// A version beside its file becomes a file of its own before something is done to it.
    fn own(&mut self, on: usize, tree: &Tree, at: &str, place: Place) -> Result<Id, &'static str> {
        let (None, Some(version)) = (place.entry, place.version) else { return Ok(place.object) };
        let (parent, name) = parent(tree, at)?;
        let object = self.record(on, Change::Object(Kind::File));
        self.record(on, Change::Split { version, object });
        self.record(on, Change::Entry { object, parent, name });
        Ok(object)
    }

    #[allow(clippy::too_many_arguments, reason = "one call for every act that writes")]
    fn put(
        &mut self,
        on: usize,
        tree: &Tree,
        object: Id,
        from: Option<Id>,
        act: &Act,
        stamp: Stamp,
        source: Option<Content>,
    ) {
        let base = content(tree, from);
        let source = source.unwrap_or_default();
        let Some(mut content) = contents::apply(act, stamp, &base, &source) else { return };
        planted::spoil_write(self.planted, &mut content, &base);
        if self.planted == Some(Planted::LosesWrites) && self.draws.below(20) == 0 {
            return;
        }
        self.record(on, Change::Version { object, from, content });
    }

    /// Removes what stands at a path, with what this machine has seen of it.
    fn take(&mut self, on: usize, tree: &Tree, at: &str) {
        let Some(place) = find(tree, at) else { return };
        let entry = match self.own(on, tree, at, place) {
            Ok(object) if object != place.object => Some(object + 2),
            _ => place.entry,
        };
        let Some(entry) = entry else { return };
        let mut seen: BTreeSet<Id> = BTreeSet::new();
        let mut version = place.version;
        while let Some(id) = version {
            seen.insert(id);
            version = tree.versions.get(&id).and_then(|(from, _)| *from);
        }
        if self.planted == Some(Planted::RemovesUnseen) {
            seen.extend(0..u64::from(u32::MAX).min(self.next + 2_000));
        }
        if self.planted == Some(Planted::RemovalForgotten) && self.draws.below(4) == 0 {
            return;
        }
        self.record(on, Change::Remove { entry, seen });
    }

    fn names(&mut self, on: usize, tree: &Tree, act: &Act, stamp: Stamp) -> Done {
        match act {
            Act::Mkdir { at } | Act::Symlink { at } => {
                let (parent, name) = parent(tree, at)?;
                if find(tree, at).is_some() {
                    return Err("EEXIST");
                }
                let kind = match act {
                    Act::Mkdir { .. } => Kind::Dir(stamp),
                    _ => Kind::Symlink(stamp),
                };
                if self.planted == Some(Planted::FolderLost) {
                    return Ok(());
                }
                let object = self.record(on, Change::Object(kind));
                self.record(on, Change::Entry { object, parent, name });
                Ok(())
            }
            Act::Rmdir { at } => {
                let place = find(tree, at).ok_or("ENOENT")?;
                if !is_dir(tree, &place) {
                    return Err("ENOTDIR");
                }
                if tree.names.get(&place.object).is_some_and(|names| !names.is_empty()) {
                    return Err("ENOTEMPTY");
                }
                self.take(on, tree, at);
                Ok(())
            }
            Act::Remove { at } => {
                let place = find(tree, at).ok_or("ENOENT")?;
                if is_dir(tree, &place) {
                    return Err("EISDIR");
                }
                self.take(on, tree, at);
                Ok(())
            }
            Act::Rename { from, to } => self.rename(on, tree, from, to),
            Act::Exchange { a, b } => self.exchange(on, tree, a, b),
            Act::Link { from, to } => {
                let place = find(tree, from).ok_or("ENOENT")?;
                if is_dir(tree, &place) {
                    return Err("EISDIR");
                }
                if find(tree, to).is_some() {
                    return Err("EEXIST");
                }
                let (parent, name) = parent(tree, to)?;
                let object = self.own(on, tree, from, place)?;
                self.record(on, Change::Entry { object, parent, name });
                Ok(())
            }
            Act::Chmod { at, perm } => {
                let place = find(tree, at).ok_or("ENOENT")?;
                let object = self.own(on, tree, at, place)?;
                self.record(on, Change::Perm { object, perm: *perm });
                Ok(())
            }
            Act::Xattr { at, value } => {
                let place = find(tree, at).ok_or("ENOENT")?;
                let object = self.own(on, tree, at, place)?;
                self.record(on, Change::Xattr { object, value: *value });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn entry(&mut self, on: usize, tree: &Tree, at: &str) -> Result<Id, &'static str> {
        let place = find(tree, at).ok_or("ENOENT")?;
        match place.entry {
            Some(entry) => Ok(entry),
            // `own` makes the object, the split and the entry, in this order.
            None => Ok(self.own(on, tree, at, place)? + 2),
        }
    }

    fn rename(&mut self, on: usize, tree: &Tree, from: &str, to: &str) -> Done {
        let source = find(tree, from).ok_or("ENOENT")?;
        let (parent, name) = parent(tree, to)?;
        if is_dir(tree, &source) && is_below(tree, parent, source.object) {
            return Err("EINVAL");
        }
        if let Some(target) = find(tree, to) {
            if from == to || (target.object == source.object && target.entry.is_some()) {
                return Ok(());
            }
            match (is_dir(tree, &source), is_dir(tree, &target)) {
                (true, false) => return Err("ENOTDIR"),
                (false, true) => return Err("EISDIR"),
                (true, true)
                    if tree.names.get(&target.object).is_some_and(|names| !names.is_empty()) =>
                {
                    return Err("ENOTEMPTY");
                }
                _ => self.take(on, tree, to),
            }
        }
        let entry = self.entry(on, tree, from)?;
        let name = planted::spoil_name(self.planted, name);
        self.record(on, Change::Move { entry, parent, name });
        Ok(())
    }

    fn exchange(&mut self, on: usize, tree: &Tree, a: &str, b: &str) -> Done {
        let (first, second) = (find(tree, a).ok_or("ENOENT")?, find(tree, b).ok_or("ENOENT")?);
        let ((a_dir, a_name), (b_dir, b_name)) = (parent(tree, a)?, parent(tree, b)?);
        if (is_dir(tree, &first) && is_below(tree, b_dir, first.object))
            || (is_dir(tree, &second) && is_below(tree, a_dir, second.object))
        {
            return Err("EINVAL");
        }
        if a == b {
            return Ok(());
        }
        let (a, b) = (self.entry(on, tree, a)?, self.entry(on, tree, b)?);
        self.record(on, Change::Move { entry: a, parent: b_dir, name: b_name });
        self.record(on, Change::Move { entry: b, parent: a_dir, name: a_name });
        Ok(())
    }
}

fn refused(errno: &str) -> Failure {
    Failure::Refused { errno: errno.to_owned() }
}

fn find(tree: &Tree, path: &str) -> Option<Place> {
    let mut at = Place { object: ROOT, entry: None, version: None };
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = *tree.names.get(&at.object)?.get(name)?;
    }
    Some(at)
}

fn parent(tree: &Tree, path: &str) -> Result<(Id, String), &'static str> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let place = find(tree, folder).ok_or("ENOENT")?;
    match is_dir(tree, &place) {
        true => Ok((place.object, name.to_owned())),
        false => Err("ENOTDIR"),
    }
}

fn is_file(tree: &Tree, place: &Place) -> bool {
    tree.objects.get(&place.object).is_some_and(|object| object.kind == Kind::File)
}

fn is_dir(tree: &Tree, place: &Place) -> bool {
    matches!(tree.objects.get(&place.object).map(|o| o.kind), Some(Kind::Dir(_)))
}

/// Whether a folder is another or below it.
fn is_below(tree: &Tree, folder: Id, above: Id) -> bool {
    if folder == above {
        return true;
    }
    let names = tree.names.get(&above).into_iter().flatten();
    let mut folders = names.filter(|(_, place)| is_dir(tree, place));
    folders.any(|(_, place)| is_below(tree, folder, place.object))
}

fn content(tree: &Tree, version: Option<Id>) -> Content {
    version.and_then(|id| tree.versions.get(&id)).map(|(_, c)| c.clone()).unwrap_or_default()
}

fn what(tree: &Tree, path: &str) -> What {
    match find(tree, path) {
        Some(place) => what_place(tree, place),
        None => What::Absent,
    }
}

fn what_place(tree: &Tree, place: Place) -> What {
    match tree.objects.get(&place.object).map(|object| object.kind) {
        Some(Kind::Dir(made)) => What::Dir { made: Some(made) },
        Some(Kind::Symlink(made)) => What::Symlink { made: Some(made) },
        Some(Kind::File) => What::File {
            size: contents::len(&content(tree, place.version)),
            token: place.version.map(token),
        },
        None => What::Absent,
    }
}

fn what_object(tree: &Tree, object: Id) -> What {
    let version = tree.newest.get(&object).copied();
    what_place(tree, Place { object, entry: None, version })
}
