//! Operations on few names, so that they meet, and what each returns.
//!
//! A [`Step`] is chosen once and performed in each [`World`]; its [`Outcome`] must be the
//! same in all of them. Pipes, sockets and devices are made, moved and looked at, and never
//! opened: what is behind a device is the machine's own.

pub(crate) mod acl;
pub(crate) mod attributes;
pub(crate) mod content;
pub(crate) mod names;
pub(crate) mod slots;
pub(crate) mod tree;
pub(crate) mod watch;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::house::acting::{as_nobody, with_umask};
use crate::house::content::Rng;
use attributes::Change;
use content::Action;
use names::NameOp;
use slots::SlotOp;
use tree::Names;
use watch::Moved;

/// Open files that a run keeps at once.
const SLOTS: u64 = 4;
/// Times that are set lie before this (2010); times that a change makes lie after it.
pub(crate) const SET_BEFORE: i64 = 1_262_304_000;

/// One operation, who performs it, and with which umask.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    op: Op,
    who: Who,
    umask: u32,
}

/// Whom the kernel sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Root,
    /// An ordinary user without groups.
    Nobody,
}

/// One operation; paths are relative to the root of its world.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// On names.
    Name(NameOp),
    /// On the content of a file.
    Content { place: Place, action: Action },
    /// Copies a range without reading it.
    Copy { from: Place, start: u64, to: Place, at: u64, length: usize },
    /// On attributes of any kind.
    Attribute { place: Place, change: Change },
    /// On the files that are held open.
    Slot { slot: u64, op: SlotOp },
}

/// Where an operation finds its file.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// By name; a last symbolic link is followed, or not where `links` says so and the
    /// operation has such a form.
    Path { path: PathBuf, links: bool },
    /// Held open, whatever has become of its name.
    Slot(u64),
}

/// What an operation returned: the same in both worlds.
#[derive(PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Bytes(Vec<u8>),
    Text(String),
    /// By number.
    Error(Option<i32>),
    /// There was nothing to do it on: an empty slot, an empty file, a pipe.
    Nothing,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            // Not all: a page of them helps nobody.
            Self::Bytes(bytes) => {
                write!(f, "{} bytes {:02x?}…", bytes.len(), &bytes[..bytes.len().min(16)])
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Error(number) => {
                let error = number.map(io::Error::from_raw_os_error);
                write!(f, "{}", error.map_or("an error".to_owned(), |error| error.to_string()))
            }
            Self::Nothing => write!(f, "nothing to do"),
        }
    }
}

/// What a step returned, and which times it moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    moved: Vec<Moved>,
}

impl Step {
    /// A step, mostly on names that are there.
    pub(crate) fn random(rng: &mut Rng, names: &Names) -> Self {
        let who = if rng.one_in(3) { Who::Nobody } else { Who::Root };
        let umask = *rng.choose(&[0, 0, 0, 0o002, 0o022, 0o022, 0o077]);
        let op = match who {
            Who::Root => Op::random(rng, names),
            Who::Nobody => Op::of_nobody(rng, names),
        };
        Self { op, who, umask }
    }

    /// Who performs it, for counting.
    pub(crate) fn who(&self) -> Who {
        self.who
    }

    /// What kind of operation it is, for counting.
    pub(crate) fn kind(&self) -> String {
        self.op.kind()
    }
}

impl Op {
    fn random(rng: &mut Rng, names: &Names) -> Self {
        match rng.below(100) {
            0..36 => Self::Name(NameOp::random(rng, names)),
            36..60 => Self::Content { place: Place::file(rng, names), action: Action::random(rng) },
            60..65 => Self::Copy {
                from: Place::file(rng, names),
                start: content::random_offset(rng),
                to: Place::file(rng, names),
                at: content::random_offset(rng),
                length: content::random_length(rng),
            },
            65..85 => Self::attribute(rng, names),
            _ => Self::Slot { slot: rng.below(SLOTS), op: SlotOp::random(rng, names) },
        }
    }

    /// A user is mostly denied, and that is soon seen: this looks for what it may do.
    fn of_nobody(rng: &mut Rng, names: &Names) -> Self {
        if rng.one_in(5) {
            let place = Place::Path { path: names.nobodys(rng), links: rng.one_in(2) };
            let change = place.change(rng, names);
            return Self::Attribute { place, change };
        }
        let tries = if rng.one_in(4) { 0 } else { 8 };
        let allowed = |op: &Self| as_nobody(|| op.met().0.iter().all(|path| names.is_open(path)));
        let found = (0..tries).map(|_| Self::random(rng, names)).find(allowed);
        found.unwrap_or_else(|| Self::random(rng, names))
    }

    /// On attributes: often of a file that has some.
    fn attribute(rng: &mut Rng, names: &Names) -> Self {
        let place = match rng.one_in(3) {
            true => {
                let has = |place: &Place| !place.attributes(names).is_empty();
                let mut places = (0..10).map(|_| Place::any(rng, names));
                places.find(has).unwrap_or(Place::Slot(0))
            }
            false => Place::any(rng, names),
        };
        let change = place.change(rng, names);
        Self::Attribute { place, change }
    }

    fn kind(&self) -> String {
        match self {
            Self::Name(op) => word(op),
            Self::Content { place, action } => format!("{} of a {}", word(action), word(place)),
            Self::Copy { from, to, .. } => format!("Copy from a {} to a {}", word(from), word(to)),
            Self::Attribute { place, change } => format!("{} of a {}", word(change), word(place)),
            Self::Slot { op, .. } => word(op),
        }
    }

    /// The paths and the open files that it meets.
    fn met(&self) -> (Vec<&Path>, Vec<u64>) {
        let of = |places: &[&'_ Place]| -> Vec<u64> {
            places.iter().filter_map(|place| place.slot()).collect()
        };
        match self {
            Self::Name(op) => (op.paths(), Vec::new()),
            Self::Content { place, .. } | Self::Attribute { place, .. } => {
                (place.path().into_iter().collect(), of(&[place]))
            }
            Self::Copy { from, to, .. } => {
                ([from, to].into_iter().filter_map(|place| place.path()).collect(), of(&[from, to]))
            }
            Self::Slot { slot, op } => (op.path().into_iter().collect(), vec![*slot]),
        }
    }
}

/// The name of an enum's variant, as its debug text begins.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl Place {
    fn any(rng: &mut Rng, names: &Names) -> Self {
        match rng.below(8) {
            0..3 => Self::Slot(rng.below(SLOTS)),
            3 => Self::Path { path: names.file(rng), links: rng.one_in(2) },
            _ => Self::Path { path: names.any(rng), links: rng.one_in(2) },
        }
    }

    /// Mostly a regular file.
    fn file(rng: &mut Rng, names: &Names) -> Self {
        match rng.below(3) {
            0 => Self::Slot(rng.below(SLOTS)),
            _ => Self::Path { path: names.file(rng), links: true },
        }
    }

    /// A change that may work here.
    fn change(&self, rng: &mut Rng, names: &Names) -> Change {
        Change::random(rng, &self.attributes(names), self.slot().is_some())
    }

    /// The attributes that are there to be changed, where the names were taken from.
    fn attributes(&self, names: &Names) -> Vec<&'static str> {
        self.path().map(|path| attributes::present(&names.full(path))).unwrap_or_default()
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Path { path, .. } => Some(path),
            Self::Slot(_) => None,
        }
    }

    fn slot(&self) -> Option<u64> {
        match self {
            Self::Path { .. } => None,
            Self::Slot(slot) => Some(*slot),
        }
    }
}

/// A file that is held open, and the path that it was opened by.
#[derive(Debug)]
struct Slot {
    file: File,
    path: PathBuf,
}

/// A root folder and the files a run holds open in it.
#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    slots: Vec<Option<Slot>>,
    /// Whether it looks at which times moved.
    watches: bool,
}

impl World {
    pub(crate) fn new(root: &Path, watches: bool) -> Self {
        Self { root: root.to_owned(), slots: (0..SLOTS).map(|_| None).collect(), watches }
    }

    /// Performs a step as the user who is to perform it.
    pub(crate) fn perform(&mut self, step: &Step) -> Outcome {
        let before = self.times(&step.op);
        let result = with_umask(step.umask, || match step.who {
            Who::Root => self.attempt(&step.op),
            Who::Nobody if self.keeps_set_group_id(&step.op) => Ok(Answer::Nothing),
            Who::Nobody => as_nobody(|| self.attempt(&step.op)),
        });
        let answer = result.unwrap_or_else(|error| Answer::Error(error.raw_os_error()));
        Outcome { answer, moved: watch::moved(&before, &self.times(&step.op)) }
    }

    /// The times that an operation may move.
    fn times(&self, op: &Op) -> Vec<Option<watch::Times>> {
        if !self.watches || matches!(op, Op::Attribute { change, .. } if change.is_repeated()) {
            return Vec::new();
        }
        let (paths, slots) = self.met(op);
        let mut found = Vec::new();
        for path in paths {
            found.push(fs::symlink_metadata(self.at(path)).ok());
            let parent = path.parent().unwrap_or(Path::new(""));
            found.push(fs::symlink_metadata(self.at(parent)).ok());
        }
        for slot in slots {
            found.push(self.slot(slot).and_then(|file| file.metadata().ok()));
        }
        found.into_iter().map(|status| status.as_ref().map(watch::Times::of)).collect()
    }

    /// Whether the set-group-id bit of a file would stay that the step takes it from
    /// elsewhere. It is the kernel that leaves it, on a FUSE file system, when somebody
    /// outside the group changes a file which the group may not execute.
    fn keeps_set_group_id(&self, op: &Op) -> bool {
        let (paths, slots) = self.met(op);
        let of_paths = paths.into_iter().map(|path| fs::metadata(self.at(path)).ok());
        let of_slots = slots.into_iter().map(|slot| self.slot(slot)?.metadata().ok());
        of_paths.chain(of_slots).flatten().any(|status| {
            let has = status.mode() & 0o2000 != 0;
            let inert = !status.is_dir() && status.mode() & 0o010 == 0;
            has && inert
        })
    }

    /// What an operation meets, also by the path of an open file.
    fn met<'a>(&'a self, op: &'a Op) -> (Vec<&'a Path>, Vec<u64>) {
        let (mut paths, slots) = op.met();
        if let Op::Slot { op: SlotOp::Again { other, .. }, .. } = op {
            paths.extend(self.slots[*other as usize].as_ref().map(|slot| slot.path.as_path()));
        }
        (paths, slots)
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn slot(&self, slot: u64) -> Option<&File> {
        self.slots[slot as usize].as_ref().map(|slot| &slot.file)
    }

    /// Whether opening a path would open something other than a file or a folder.
    fn is_special(&self, path: &Path) -> bool {
        fs::metadata(self.at(path)).is_ok_and(|status| !status.is_file() && !status.is_dir())
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Answer> {
        match op {
            Op::Name(op) => self.on_name(op),
            Op::Content { place, action } => self.on_content(place, action),
            Op::Copy { from, start, to, at, length } => {
                self.copy((from, *start), (to, *at), *length)
            }
            Op::Attribute { place, change } => self.on_attribute(place, change),
            Op::Slot { slot, op } => self.on_slot(*slot, op),
        }
    }
}

/// A letter for each kind of file.
fn letter(kind: fs::FileType) -> char {
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    }
}

/// What `stat` says that must agree: sizes and link counts of folders, and blocks, are a
/// filesystem's own.
fn describe(status: &fs::Metadata) -> Answer {
    let (links, size) = if status.is_dir() { (0, 0) } else { (status.nlink(), status.len()) };
    let (mode, device) = (status.mode(), status.rdev());
    let owner = (status.uid(), status.gid());
    Answer::Text(format!("{mode:o} of {owner:?} links {links} size {size} device {device:x}"))
}
