//! Opening, locking and closing the files that a run holds open.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};

use super::names::{random_flags, random_mode};
use super::tree::Names;
use super::{Answer, SLOTS, Slot, World};
use crate::house::content::Rng;
use crate::house::locks::{self, Lock};

/// An operation on a slot itself.
#[derive(Clone, Debug)]
pub(crate) enum SlotOp {
    Open {
        path: PathBuf,
        flags: OFlags,
        mode: u32,
    },
    /// Opens the path that another slot was opened by: mostly the same file.
    Again {
        other: u64,
        flags: OFlags,
    },
    /// Whether it is written at its end from now on.
    SetAppend {
        append: bool,
    },
    /// Of the whole file.
    Flock {
        how: Lock,
    },
    LockRange {
        how: Lock,
        start: u32,
        length: u32,
    },
    Close,
}

impl SlotOp {
    pub(super) fn random(rng: &mut Rng, names: &Names) -> Self {
        let flags = random_flags(rng);
        let how = *rng.choose(&[Lock::Shared, Lock::Exclusive, Lock::Exclusive, Lock::Release]);
        match rng.below(16) {
            0..4 => Self::Open { path: names.file(rng), flags, mode: random_mode(rng) },
            4..8 => Self::Again { other: rng.below(SLOTS), flags },
            8..11 => Self::Flock { how },
            11..14 => {
                let (start, length) = (rng.below(4) as u32 * 10, rng.below(4) as u32 * 10);
                Self::LockRange { how, start, length }
            }
            14..15 => Self::SetAppend { append: rng.one_in(2) },
            _ => Self::Close,
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn on_slot(&mut self, slot: u64, op: &SlotOp) -> io::Result<Answer> {
        match op {
            SlotOp::Open { path, flags, mode } => self.hold(slot, path, *flags, *mode),
            SlotOp::Again { other, flags } => match &self.slots[*other as usize] {
                Some(Slot { path, .. }) => self.hold(slot, &path.clone(), *flags, 0o600),
                None => Ok(Answer::Nothing),
            },
            SlotOp::SetAppend { append } => {
                self.slot(slot).map_or(Ok(Answer::Nothing), |file| set_append(file, *append))
            }
            SlotOp::Flock { how } => self.slot(slot).map_or(Ok(Answer::Nothing), |file| {
                flock(file, whole(*how))?;
                Ok(Answer::Done)
            }),
            SlotOp::LockRange { how, start, length } => {
                self.slot(slot).map_or(Ok(Answer::Nothing), |file| {
                    locks::range(file, *how, *start, *length)?;
                    Ok(Answer::Done)
                })
            }
            SlotOp::Close => {
                let held = self.slots[slot as usize].take();
                Ok(held.map_or(Answer::Nothing, |_| Answer::Done))
            }
        }
    }

    fn hold(&mut self, slot: u64, path: &Path, flags: OFlags, mode: u32) -> io::Result<Answer> {
        let Some(file) = self.open(path, flags, mode)? else { return Ok(Answer::Nothing) };
        self.slots[slot as usize] = Some(Slot { file, path: path.to_owned() });
        Ok(Answer::Done)
    }
}

fn set_append(file: &File, append: bool) -> io::Result<Answer> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::APPEND, append);
    fcntl_setfl(file, flags)?;
    Ok(Answer::Done)
}

/// The form that does not wait.
fn whole(how: Lock) -> FlockOperation {
    match how {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Release => FlockOperation::NonBlockingUnlock,
    }
}
