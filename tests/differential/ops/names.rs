//! Operations on names: making, moving, removing and listing them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, makedev, mkdirat, mknodat};
use rustix::fs::{renameat_with, rmdir, unlink};

use super::tree::{Names, random_target};
use super::{Answer, World, describe, letter};
use crate::house::content::Rng;

/// An operation on one name or two.
#[derive(Clone, Debug)]
pub(crate) enum NameOp {
    /// `open` and `close`: makes a file, cuts it, or only finds out whether it may.
    Open {
        path: PathBuf,
        flags: OFlags,
        mode: u32,
    },
    Mkdir {
        path: PathBuf,
        mode: u32,
    },
    /// A pipe, a socket, a device, or a file.
    Mknod {
        path: PathBuf,
        kind: FileType,
        mode: u32,
        device: (u32, u32),
    },
    Rmdir {
        path: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        how: RenameFlags,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Symlink {
        target: PathBuf,
        path: PathBuf,
    },
    Readlink {
        path: PathBuf,
    },
    Stat {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
}

/// Kinds that `mknod` makes, and numbers for those that are devices: nobody opens them, so
/// anything will do that is neither small nor large only.
const NODES: [(FileType, (u32, u32)); 6] = [
    (FileType::Fifo, (0, 0)),
    (FileType::Fifo, (0, 0)),
    (FileType::Socket, (0, 0)),
    (FileType::CharacterDevice, (1, 3)),
    (FileType::BlockDevice, (4000, 1_000_000)),
    (FileType::RegularFile, (0, 0)),
];

impl NameOp {
    pub(super) fn random(rng: &mut Rng, names: &Names) -> Self {
        let (path, new) = (names.any(rng), names.new_name(rng));
        match rng.below(36) {
            0..7 => {
                let flags = random_flags(rng);
                let path = if flags.contains(OFlags::CREATE) { new } else { names.file(rng) };
                Self::Open { path, flags, mode: random_mode(rng) }
            }
            7..13 => Self::Mkdir { path: new, mode: random_mode(rng) },
            13..16 => {
                let (kind, device) = *rng.choose(&NODES);
                Self::Mknod { path: new, kind, mode: random_mode(rng), device }
            }
            16..18 => Self::Rmdir { path: names.folder(rng) },
            18..21 => Self::Unlink { path },
            21..25 => {
                let how = random_rename(rng);
                let to = if how == RenameFlags::EXCHANGE { names.any(rng) } else { new };
                Self::Rename { from: path, to, how }
            }
            25..28 => Self::Link { from: path, to: new },
            28..31 => Self::Symlink { target: random_target(rng), path: new },
            31..32 => Self::Readlink { path: names.link(rng) },
            32..34 => Self::Stat { path },
            _ => Self::List { path: names.folder(rng) },
        }
    }

    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Rename { from, to, .. } | Self::Link { from, to } => vec![from, to],
            Self::Open { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Mknod { path, .. }
            | Self::Rmdir { path }
            | Self::Unlink { path }
            | Self::Symlink { path, .. }
            | Self::Readlink { path }
            | Self::Stat { path }
            | Self::List { path } => vec![path],
        }
    }
}

/// A mode to make something with: mostly one that lets everybody in, sometimes any.
pub(super) fn random_mode(rng: &mut Rng) -> u32 {
    match rng.below(8) {
        0 => rng.below(0o10000) as u32,
        1..4 => *rng.choose(&[0o755, 0o644, 0o2775, 0o1777, 0o4755, 0o600]),
        _ => *rng.choose(&[0o777, 0o777, 0o666, 0o2777, 0o6777]),
    }
}

/// Flags to open with. Cutting what is opened for reading only is nobody's promise.
pub(super) fn random_flags(rng: &mut Rng) -> OFlags {
    let access = *rng.choose(&[OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR, OFlags::RDWR]);
    let mut flags = access;
    flags.set(OFlags::CREATE, rng.one_in(2));
    flags.set(OFlags::EXCL, flags.contains(OFlags::CREATE) && rng.one_in(3));
    flags.set(OFlags::TRUNC, access != OFlags::RDONLY && rng.one_in(4));
    flags.set(OFlags::APPEND, rng.one_in(4));
    flags.set(OFlags::NOFOLLOW, rng.one_in(6));
    flags.set(OFlags::DIRECTORY, !flags.contains(OFlags::CREATE) && rng.one_in(8));
    flags.set(OFlags::DSYNC, rng.one_in(30));
    flags | OFlags::CLOEXEC
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

impl World {
    pub(super) fn on_name(&self, op: &NameOp) -> io::Result<Answer> {
        match op {
            NameOp::Open { path, flags, mode } => {
                return Ok(self
                    .open(path, *flags, *mode)?
                    .map_or(Answer::Nothing, |_| Answer::Done));
            }
            NameOp::Mkdir { path, mode } => {
                mkdirat(CWD, self.at(path), Mode::from_raw_mode(*mode))?
            }
            NameOp::Mknod { path, kind, mode, device } => {
                let device = makedev(device.0, device.1);
                mknodat(CWD, self.at(path), *kind, Mode::from_raw_mode(*mode), device)?;
            }
            NameOp::Rmdir { path } => rmdir(self.at(path))?,
            NameOp::Unlink { path } => unlink(self.at(path))?,
            NameOp::Rename { from, to, how } => {
                renameat_with(CWD, self.at(from), CWD, self.at(to), *how)?;
            }
            NameOp::Link { from, to } => fs::hard_link(self.at(from), self.at(to))?,
            NameOp::Symlink { target, path } => symlink(target, self.at(path))?,
            NameOp::Readlink { path } => {
                let target = fs::read_link(self.at(path))?;
                return Ok(Answer::Bytes(target.as_os_str().as_bytes().to_owned()));
            }
            NameOp::Stat { path } => return Ok(describe(&fs::symlink_metadata(self.at(path))?)),
            NameOp::List { path } => return list(&self.at(path)),
        }
        Ok(Answer::Done)
    }

    /// Opens a file or a folder; `None` for anything else.
    pub(super) fn open(
        &self,
        path: &Path,
        flags: OFlags,
        mode: u32,
    ) -> io::Result<Option<fs::File>> {
        if self.is_special(path) {
            return Ok(None);
        }
        let mode = Mode::from_raw_mode(mode);
        Ok(Some(rustix::fs::open(self.at(path), flags, mode)?.into()))
    }
}

fn list(path: &Path) -> io::Result<Answer> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        found.push(format!("{} {:?}", letter(entry.file_type()?), entry.file_name()));
    }
    found.sort();
    Ok(Answer::Text(found.join("\n")))
}
