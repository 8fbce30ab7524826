//! Operations on modes, owners, times, extended attributes and access control lists.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};
use rustix::fs::{fgetxattr, fremovexattr, fsetxattr, futimens, getxattr, lgetxattr};
use rustix::fs::{lremovexattr, lsetxattr, removexattr, setxattr, utimensat};

use super::acl::{self, LISTS};
use super::{Answer, Place, SET_BEFORE, World};
use crate::house::acting::NOBODY;
use crate::house::attributes::list;
use crate::house::content::{Rng, pattern};

/// An operation on the attributes of one file.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Mode {
        mode: u32,
    },
    Owner {
        user: Option<u32>,
        group: Option<u32>,
    },
    /// Makes it the ordinary user's, with set-id bits and a group that the user is not in.
    Lend {
        mode: u32,
    },
    Times {
        accessed: When,
        modified: When,
    },
    Set {
        name: &'static str,
        seed: u64,
        length: usize,
        flags: XattrFlags,
    },
    Capability,
    Get {
        name: &'static str,
    },
    Remove {
        name: &'static str,
    },
    SetList {
        name: &'static str,
        number: usize,
    },
    GetList {
        name: &'static str,
    },
    RemoveList {
        name: &'static str,
    },
}

/// The attributes of a file that changes are made to.
pub(super) fn present(path: &Path) -> Vec<&'static str> {
    let listed = list(path).unwrap_or_default();
    let known = NAMES[1..].iter().chain([&CAPABILITY, &acl::ACCESS, &acl::DEFAULT]);
    known.copied().filter(|name| listed.iter().any(|listed| listed == name)).collect()
}

/// What becomes of one of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Omit,
    Now,
    At { seconds: i64, nanoseconds: u32 },
}

const NAMES: [&str; 5] = ["user.one", "user.one", "user.two", "trusted.three", "security.four"];
/// Names that no attribute has: a filesystem refuses them.
const ODD_NAMES: [&str; 3] = ["user.", "other.one", "system.one"];
/// Makes a program privileged; writing to the program removes it.
const CAPABILITY: &str = "security.capability";
/// Longest value of the first name and of each other one: together they are less than a
/// block, which is what ext4 keeps of one file.
const LONGEST: (u64, u64) = (2600, 150);

impl Change {
    /// A change, mostly of an attribute that is `there` where it must be; `held` of a file
    /// that is open.
    pub(super) fn random(rng: &mut Rng, there: &[&'static str], held: bool) -> Self {
        if !there.is_empty() && rng.one_in(2) {
            let name = *rng.choose(there);
            return Self::of_present(rng, name);
        }
        let odd = rng.one_in(10);
        // Nobody looks what is there for an open file: few names, so that they meet.
        let usual = if held && !rng.one_in(4) { &NAMES[..1] } else { &NAMES };
        let name = *rng.choose(if odd { &ODD_NAMES } else { usual });
        let list = *rng.choose(&[acl::ACCESS, acl::ACCESS, acl::DEFAULT]);
        let any_name = if rng.one_in(4) { CAPABILITY } else { name };
        match rng.below(40) {
            0..7 => Self::Mode { mode: random_mode(rng) },
            7..11 => random_owner(rng),
            11..13 => Self::Lend { mode: *rng.choose(&[0o2777, 0o6777, 0o2775, 0o2666]) },
            13..19 => Self::Times { accessed: When::random(rng), modified: When::random(rng) },
            19..25 => {
                let longest = if name == NAMES[0] { LONGEST.0 } else { LONGEST.1 };
                let (flags, length) = (random_set(rng), rng.below(longest) as usize);
                // Empty only where it was absent: what changes nothing need move no time.
                let least = usize::from(flags != XattrFlags::CREATE);
                Self::Set { name, seed: rng.next(), length: length.max(8 * least), flags }
            }
            25..26 => Self::Capability,
            26..28 => Self::Get { name: any_name },
            28..30 => Self::Remove { name: any_name },
            30..36 => Self::SetList { name: list, number: acl::random(rng) },
            36..38 => Self::GetList { name: list },
            _ => Self::RemoveList { name: list },
        }
    }
}

impl Change {
    /// Something that only works on an attribute that is there.
    fn of_present(rng: &mut Rng, name: &'static str) -> Self {
        let (list, get) = (name.starts_with("system."), rng.one_in(2));
        match (list, get) {
            (true, true) => Self::GetList { name },
            (true, false) => Self::RemoveList { name },
            (false, true) => Self::Get { name },
            (false, false) => Self::Remove { name },
        }
    }

    /// Whether it may set what is set already: some filesystems move no time then.
    pub(super) fn is_repeated(&self) -> bool {
        matches!(self, Self::SetList { .. } | Self::RemoveList { .. } | Self::Capability)
    }
}

/// Mostly modes that let somebody in; all twelve bits.
fn random_mode(rng: &mut Rng) -> u32 {
    match rng.below(8) {
        0 => rng.below(0o10000) as u32,
        1..4 => *rng.choose(&[0o600, 0o644, 0o755, 0o4711, 0o2745, 0o1755]),
        _ => *rng.choose(&[0o777, 0o777, 0o6777, 0o4777, 0o2777, 0o1777]),
    }
}

/// Never neither of the two: POSIX leaves it open whether that moves a time.
fn random_owner(rng: &mut Rng) -> Change {
    let id = *rng.choose(&[0, 1000, NOBODY, NOBODY]);
    match rng.below(4) {
        0 => Change::Owner { user: Some(id), group: None },
        1 => Change::Owner { user: None, group: Some(id) },
        2 => Change::Owner { user: Some(NOBODY), group: Some(1000) },
        _ => Change::Owner { user: Some(id), group: Some(*rng.choose(&[id, NOBODY, 0])) },
    }
}

fn random_set(rng: &mut Rng) -> XattrFlags {
    *rng.choose(&[
        XattrFlags::empty(),
        XattrFlags::empty(),
        XattrFlags::CREATE,
        XattrFlags::REPLACE,
    ])
}

impl When {
    fn random(rng: &mut Rng) -> Self {
        let nanoseconds = rng.below(1_000_000_000) as u32;
        match rng.below(6) {
            0 => Self::Omit,
            1 => Self::Now,
            2 => Self::At { seconds: -(rng.below(1_000_000_000) as i64), nanoseconds },
            _ => Self::At { seconds: rng.below(SET_BEFORE as u64) as i64, nanoseconds },
        }
    }

    fn spec(self) -> Timespec {
        match self {
            Self::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Self::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Self::At { seconds, nanoseconds } => {
                Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
            }
        }
    }

    /// What the time became: whether it stayed, whether it is now, or which it is.
    fn seen(self, before: (i64, i64), after: (i64, i64)) -> String {
        match self {
            Self::Omit => format!("stayed: {}", before == after),
            Self::Now => format!("now: {}", after.0 >= SET_BEFORE),
            Self::At { .. } => format!("{after:?}"),
        }
    }
}

/// A file whose attributes change: by name, with or without following a last symbolic
/// link, or open.
enum Subject<'a> {
    Followed(&'a Path),
    Itself(&'a Path),
    Open(&'a File),
}

impl World {
    pub(super) fn on_attribute(&self, place: &Place, change: &Change) -> io::Result<Answer> {
        match place {
            Place::Path { path, links: true } => Subject::Itself(&self.at(path)).change(change),
            Place::Path { path, .. } => Subject::Followed(&self.at(path)).change(change),
            Place::Slot(slot) => match self.slot(*slot) {
                Some(file) => Subject::Open(file).change(change),
                None => Ok(Answer::Nothing),
            },
        }
    }
}

impl Subject<'_> {
    fn change(&self, change: &Change) -> io::Result<Answer> {
        match change {
            Change::Mode { mode } => self.set_mode(*mode)?,
            Change::Owner { user, group } => self.set_owner(*user, *group)?,
            Change::Lend { mode } => {
                self.set_owner(Some(NOBODY), Some(1000))?;
                self.set_mode(*mode)?;
            }
            Change::Times { accessed, modified } => return self.set_times(*accessed, *modified),
            Change::Set { name, seed, length, flags } => {
                self.set(name, &pattern(*seed, *length), *flags)?;
            }
            Change::Capability => self.set(CAPABILITY, &capability(), XattrFlags::empty())?,
            Change::SetList { name, number } => {
                self.set(name, &acl::value(LISTS[*number]), XattrFlags::empty())?;
            }
            Change::Get { name } | Change::GetList { name } => {
                return self.get(name).map(Answer::Bytes);
            }
            Change::Remove { name } | Change::RemoveList { name } => self.remove(name)?,
        }
        Ok(Answer::Done)
    }

    fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        match self {
            Self::Followed(path) => chown(path, user, group),
            Self::Itself(path) => lchown(path, user, group),
            Self::Open(file) => fchown(file, user, group),
        }
    }

    /// There is no mode of a symbolic link itself.
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Permissions::from_mode(mode);
        match self {
            Self::Followed(path) | Self::Itself(path) => fs::set_permissions(path, mode),
            Self::Open(file) => file.set_permissions(mode),
        }
    }

    fn status(&self) -> io::Result<Metadata> {
        match self {
            Self::Followed(path) => fs::metadata(path),
            Self::Itself(path) => fs::symlink_metadata(path),
            Self::Open(file) => file.metadata(),
        }
    }

    fn set_times(&self, accessed: When, modified: When) -> io::Result<Answer> {
        let times = Timestamps { last_access: accessed.spec(), last_modification: modified.spec() };
        let before = self.status()?;
        match self {
            Self::Followed(path) => utimensat(CWD, *path, &times, AtFlags::empty())?,
            Self::Itself(path) => utimensat(CWD, *path, &times, AtFlags::SYMLINK_NOFOLLOW)?,
            Self::Open(file) => futimens(file, &times)?,
        }
        let after = self.status()?;
        let access = |status: &Metadata| (status.atime(), status.atime_nsec());
        let change = |status: &Metadata| (status.mtime(), status.mtime_nsec());
        Ok(Answer::Text(format!(
            "accessed {}, modified {}",
            accessed.seen(access(&before), access(&after)),
            modified.seen(change(&before), change(&after))
        )))
    }

    fn set(&self, name: &str, value: &[u8], flags: XattrFlags) -> io::Result<()> {
        match self {
            Self::Followed(path) => setxattr(*path, name, value, flags)?,
            Self::Itself(path) => lsetxattr(*path, name, value, flags)?,
            Self::Open(file) => fsetxattr(file, name, value, flags)?,
        }
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut value = vec![0; 4096];
        let length = match self {
            Self::Followed(path) => getxattr(*path, name, &mut value[..])?,
            Self::Itself(path) => lgetxattr(*path, name, &mut value[..])?,
            Self::Open(file) => fgetxattr(file, name, &mut value[..])?,
        };
        value.truncate(length);
        Ok(value)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Self::Followed(path) => removexattr(*path, name)?,
            Self::Itself(path) => lremovexattr(*path, name)?,
            Self::Open(file) => fremovexattr(file, name)?,
        }
        Ok(())
    }
}

/// A valid value of [`CAPABILITY`]: revision 2, effective, one capability (to bind to low
/// ports) that is permitted, none inheritable.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}
