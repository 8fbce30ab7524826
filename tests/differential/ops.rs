//! Operations on few names, so that they meet, and what each returns.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with};

use crate::common::attributes;
use crate::common::content::{Rng, pattern};

const COMPONENTS: [&str; 4] = ["a", "b", "c d", "ü"];
const ATTRIBUTES: [&str; 3] = ["user.one", "user.two", "user.three"];
/// Open files that a run keeps at once.
const SLOTS: u64 = 3;
/// Times that are set lie before this (2010); times that a change makes lie after it.
pub(crate) const SET_BEFORE: i64 = 1_262_304_000;

/// One operation; a path is relative to the root of its world.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { path: String, exclusive: bool, mode: u32 },
    Overwrite { path: String, seed: u64, length: usize },
    WriteAt { path: String, offset: u64, seed: u64, length: usize },
    Append { path: String, seed: u64, length: usize },
    Truncate { path: String, length: u64 },
    Read { path: String, offset: u64, length: usize },
    Mkdir { path: String, mode: u32 },
    Rmdir { path: String },
    Unlink { path: String },
    Rename { from: String, to: String, how: RenameFlags },
    Link { from: String, to: String },
    Symlink { target: String, path: String },
    Readlink { path: String },
    Chmod { path: String, mode: u32 },
    SetTime { path: String, seconds: u64, nanoseconds: u32 },
    SetAttribute { path: String, name: &'static str, value: Vec<u8>, flags: XattrFlags },
    GetAttribute { path: String, name: &'static str },
    RemoveAttribute { path: String, name: &'static str },
    Stat { path: String },
    List { path: String },
    Open { slot: u64, path: String, write: bool },
    SlotRead { slot: u64, offset: u64, length: usize },
    SlotWrite { slot: u64, offset: u64, seed: u64, length: usize },
    SlotTruncate { slot: u64, length: u64 },
    SlotStat { slot: u64 },
    SlotSync { slot: u64 },
    Close { slot: u64 },
}

/// What an operation returned: the same in both worlds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Bytes(Vec<u8>),
    Text(String),
    /// By number.
    Error(Option<i32>),
    /// The slot holds no open file.
    Nothing,
}

impl Op {
    /// An operation, mostly on names that are there.
    pub(crate) fn random(rng: &mut Rng, names: &Names) -> Self {
        let path = names.random(rng);
        let slot = rng.below(SLOTS);
        let (seed, length) = (rng.below(1000), random_length(rng));
        let offset = random_length(rng) as u64;
        match rng.below(100) {
            0..6 => Self::Create {
                path,
                exclusive: rng.one_in(2),
                mode: 0o600 + 0o22 * rng.below(3) as u32,
            },
            6..14 => Self::Overwrite { path, seed, length },
            14..20 => Self::WriteAt { path, offset, seed, length },
            20..24 => Self::Append { path, seed, length },
            24..28 => Self::Truncate { path, length: offset },
            28..36 => Self::Read { path, offset, length },
            36..44 => Self::Mkdir { path, mode: 0o755 - 0o55 * rng.below(2) as u32 },
            44..47 => Self::Rmdir { path },
            47..51 => Self::Unlink { path },
            51..59 => Self::Rename { from: path, to: names.random(rng), how: random_rename(rng) },
            59..62 => Self::Link { from: path, to: names.random(rng) },
            62..64 => Self::Symlink { target: (*rng.choose(&COMPONENTS)).to_owned(), path },
            64..65 => Self::Readlink { path },
            65..68 => {
                Self::Chmod { path, mode: *rng.choose(&[0o600, 0o644, 0o755, 0o700, 0o4711]) }
            }
            68..71 => Self::SetTime {
                path,
                seconds: rng.below(SET_BEFORE as u64),
                nanoseconds: rng.below(1_000_000_000) as u32,
            },
            71..75 => Self::SetAttribute {
                path,
                name: random_attribute(rng),
                value: pattern(seed, length % 200),
                flags: *rng.choose(&[
                    XattrFlags::empty(),
                    XattrFlags::empty(),
                    XattrFlags::CREATE,
                    XattrFlags::REPLACE,
                ]),
            },
            75..77 => Self::GetAttribute { path, name: random_attribute(rng) },
            77..79 => Self::RemoveAttribute { path, name: random_attribute(rng) },
            79..82 => Self::Stat { path },
            82..85 => Self::List { path },
            85..89 => Self::Open { slot, path, write: rng.below(3) > 0 },
            89..91 => Self::SlotRead { slot, offset, length },
            91..95 => Self::SlotWrite { slot, offset, seed, length },
            95..96 => Self::SlotTruncate { slot, length: offset },
            96..97 => Self::SlotStat { slot },
            97..98 => Self::SlotSync { slot },
            _ => Self::Close { slot },
        }
    }
}

/// What a world has at a moment, to choose paths from.
#[derive(Debug, Default)]
pub(crate) struct Names {
    all: Vec<String>,
    folders: Vec<String>,
}

impl Names {
    /// Everything below `root`, in an order that is the same in every world.
    pub(crate) fn below(root: &Path) -> Self {
        let mut names = Self::default();
        names.add(root, "");
        names
    }

    fn add(&mut self, root: &Path, folder: &str) {
        self.folders.push(folder.to_owned());
        let mut entries: Vec<_> =
            fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = join(folder, entry.file_name().to_str().unwrap());
            self.all.push(path.clone());
            if entry.file_type().unwrap().is_dir() {
                self.add(root, &path);
            }
        }
    }

    /// Mostly a name that is there, often one that could be, sometimes any.
    fn random(&self, rng: &mut Rng) -> String {
        match rng.below(10) {
            0..6 if !self.all.is_empty() => rng.choose(&self.all).clone(),
            6..9 => {
                let folder = rng.choose::<String>(&self.folders);
                join(folder, rng.choose::<&str>(&COMPONENTS))
            }
            _ => {
                let depth = 1 + rng.below(3);
                let parts: Vec<_> = (0..depth).map(|_| *rng.choose(&COMPONENTS)).collect();
                parts.join("/")
            }
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn random_attribute(rng: &mut Rng) -> &'static str {
    ATTRIBUTES[rng.below(ATTRIBUTES.len() as u64) as usize]
}

/// Mostly small, sometimes across pages, rarely across parts.
fn random_length(rng: &mut Rng) -> usize {
    let limit = *rng.choose(&[10, 100, 5000, 5000, 20_000, 150_000]);
    rng.below(limit) as usize
}

fn random_rename(rng: &mut Rng) -> RenameFlags {
    *rng.choose(&[
        RenameFlags::empty(),
        RenameFlags::empty(),
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
    ])
}

/// A root folder and the files a run holds open in it.
#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    slots: Vec<Option<File>>,
}

impl World {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), slots: (0..SLOTS).map(|_| None).collect() }
    }

    pub(crate) fn perform(&mut self, op: &Op) -> Answer {
        match self.attempt(op) {
            Ok(answer) => answer,
            Err(error) => Answer::Error(error.raw_os_error()),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn slot(&self, slot: u64) -> Option<&File> {
        self.slots[slot as usize].as_ref()
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Answer> {
        match op {
            Op::Create { path, exclusive, mode } => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).create_new(*exclusive).mode(*mode);
                options.open(self.at(path))?;
            }
            Op::Overwrite { path, seed, length } => {
                fs::write(self.at(path), pattern(*seed, *length))?;
            }
            Op::WriteAt { path, offset, seed, length } => {
                let file = OpenOptions::new().write(true).open(self.at(path))?;
                file.write_all_at(&pattern(*seed, *length), *offset)?;
            }
            Op::Append { path, seed, length } => {
                let file = OpenOptions::new().append(true).open(self.at(path))?;
                io::Write::write_all(&mut &file, &pattern(*seed, *length))?;
            }
            Op::Truncate { path, length } => {
                OpenOptions::new().write(true).open(self.at(path))?.set_len(*length)?;
            }
            Op::Read { path, offset, length } => {
                return read(&File::open(self.at(path))?, *offset, *length);
            }
            Op::Mkdir { path, mode } => DirBuilder::new().mode(*mode).create(self.at(path))?,
            Op::Rmdir { path } => fs::remove_dir(self.at(path))?,
            Op::Unlink { path } => fs::remove_file(self.at(path))?,
            Op::Rename { from, to, how } => {
                renameat_with(CWD, self.at(from), CWD, self.at(to), *how)?;
            }
            Op::Link { from, to } => fs::hard_link(self.at(from), self.at(to))?,
            Op::Symlink { target, path } => symlink(target, self.at(path))?,
            Op::Readlink { path } => {
                let target = fs::read_link(self.at(path))?;
                return Ok(Answer::Text(target.to_string_lossy().into_owned()));
            }
            Op::Chmod { path, mode } => {
                fs::set_permissions(self.at(path), Permissions::from_mode(*mode))?;
            }
            Op::SetTime { path, seconds, nanoseconds } => {
                let time = UNIX_EPOCH + Duration::new(*seconds, *nanoseconds);
                let times = FileTimes::new().set_modified(time).set_accessed(time);
                File::open(self.at(path))?.set_times(times)?;
            }
            Op::SetAttribute { path, name, value, flags } => {
                attributes::set(&self.at(path), name, value, *flags)?;
            }
            Op::GetAttribute { path, name } => {
                return attributes::get(&self.at(path), name).map(Answer::Bytes);
            }
            Op::RemoveAttribute { path, name } => attributes::remove(&self.at(path), name)?,
            Op::Stat { path } => {
                return Ok(describe(&fs::symlink_metadata(self.at(path))?));
            }
            Op::List { path } => return list(&self.at(path)),
            Op::Open { slot, path, write } => {
                let file = OpenOptions::new().read(true).write(*write).open(self.at(path))?;
                self.slots[*slot as usize] = Some(file);
            }
            Op::Close { slot } => self.slots[*slot as usize] = None,
            Op::SlotRead { slot, .. }
            | Op::SlotWrite { slot, .. }
            | Op::SlotTruncate { slot, .. }
            | Op::SlotStat { slot }
            | Op::SlotSync { slot } => {
                return self.slot(*slot).map_or(Ok(Answer::Nothing), |file| on_open(file, op));
            }
        }
        Ok(Answer::Done)
    }
}

/// An operation on a file that is open, whatever has become of its name.
fn on_open(file: &File, op: &Op) -> io::Result<Answer> {
    match op {
        Op::SlotRead { offset, length, .. } => return read(file, *offset, *length),
        Op::SlotWrite { offset, seed, length, .. } => {
            file.write_all_at(&pattern(*seed, *length), *offset)?;
        }
        Op::SlotTruncate { length, .. } => file.set_len(*length)?,
        Op::SlotStat { .. } => return Ok(describe(&file.metadata()?)),
        _ => file.sync_all()?,
    }
    Ok(Answer::Done)
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Answer> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    Ok(Answer::Bytes(bytes))
}

fn list(path: &Path) -> io::Result<Answer> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let letter = match () {
            () if kind.is_dir() => 'd',
            () if kind.is_symlink() => 'l',
            () if kind.is_fifo() => 'p',
            () => '-',
        };
        found.push(format!("{letter} {}", entry.file_name().to_string_lossy()));
    }
    found.sort();
    Ok(Answer::Text(found.join("\n")))
}

/// What `stat` says that must agree: sizes and link counts of folders are a filesystem's own.
fn describe(status: &fs::Metadata) -> Answer {
    let (links, size) = if status.is_dir() { (0, 0) } else { (status.nlink(), status.len()) };
    Answer::Text(format!("{:o} links {links} size {size}", status.mode()))
}
