//! The names that a world has, to choose paths from.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, accessat};
use rustix::io::Errno;

use crate::house::acting::NOBODY;
use crate::house::content::Rng;

/// Names that operations meet on; the last is no UTF-8.
const COMPONENTS: [&[u8]; 8] =
    [b"a", b"b", b"c d", "ü".as_bytes(), b"line\nbreak", b"e", b"f.txt", b"\xff\xfe"];
/// One byte longer than a name may be.
const TOO_LONG: &[u8] = &[b'n'; 256];
/// Paths grow no longer than this: far from what a path may be in any world.
const LONGEST: usize = 1000;
/// New names are mostly in folders that are no deeper.
const DEEP: usize = 3;

/// What a world has at a moment.
#[derive(Debug, Default)]
pub(crate) struct Names {
    root: PathBuf,
    all: Vec<PathBuf>,
    files: Vec<PathBuf>,
    links: Vec<PathBuf>,
    nobodys: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Names {
    /// Everything below `root`, in an order that is the same in every world.
    pub(crate) fn below(root: &Path) -> Self {
        let mut names = Self { root: root.to_owned(), ..Self::default() };
        names.add(root, Path::new(""));
        names
    }

    fn add(&mut self, root: &Path, folder: &Path) {
        self.folders.push(folder.to_owned());
        for (name, kind) in entries(&root.join(folder)) {
            let path = folder.join(name);
            self.all.push(path.clone());
            if fs::symlink_metadata(root.join(&path)).is_ok_and(|found| found.uid() == NOBODY) {
                self.nobodys.push(path.clone());
            }
            match kind {
                FileType::Directory => self.add(root, &path),
                FileType::RegularFile => self.files.push(path),
                FileType::Symlink => self.links.push(path),
                _ => {}
            }
        }
    }

    /// Mostly a name that is there, sometimes any.
    pub(super) fn any(&self, rng: &mut Rng) -> PathBuf {
        match rng.below(10) {
            0..7 if !self.all.is_empty() => rng.choose(&self.all).clone(),
            _ => self.new_name(rng),
        }
    }

    /// Mostly a regular file, sometimes any name.
    pub(super) fn file(&self, rng: &mut Rng) -> PathBuf {
        match rng.below(10) {
            0..7 if !self.files.is_empty() => rng.choose(&self.files).clone(),
            _ => self.any(rng),
        }
    }

    /// Something of the ordinary user's, if there is any.
    pub(super) fn nobodys(&self, rng: &mut Rng) -> PathBuf {
        match self.nobodys.is_empty() {
            true => self.any(rng),
            false => rng.choose(&self.nobodys).clone(),
        }
    }

    /// A symbolic link, if there is any.
    pub(super) fn link(&self, rng: &mut Rng) -> PathBuf {
        match self.links.is_empty() {
            true => self.any(rng),
            false => rng.choose(&self.links).clone(),
        }
    }

    /// Whether who asks may make and remove names beside this one, and write it if it is there.
    pub(super) fn is_open(&self, path: &Path) -> bool {
        let may = |path: &Path, what: Access| {
            accessat(CWD, self.full(path), what, AtFlags::EACCESS) != Err(Errno::ACCESS)
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        may(folder, Access::WRITE_OK | Access::EXEC_OK) && may(path, Access::WRITE_OK)
    }

    /// Where a name is.
    pub(super) fn full(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Mostly a folder, and not the root.
    pub(super) fn folder(&self, rng: &mut Rng) -> PathBuf {
        match rng.choose(&self.folders) {
            root if root.as_os_str().is_empty() => self.any(rng),
            folder => folder.clone(),
        }
    }

    /// Mostly a name that could be there, sometimes any.
    pub(super) fn new_name(&self, rng: &mut Rng) -> PathBuf {
        let path = match rng.below(10) {
            0 if !self.all.is_empty() => rng.choose(&self.all).clone(),
            1 => (0..=rng.below(3)).map(|_| random_name(rng)).collect(),
            _ => {
                let mut free = (0..6).map(|_| self.beside(rng));
                free.find(|path| !self.all.contains(path)).unwrap_or_else(|| self.beside(rng))
            }
        };
        match path.as_os_str().len() {
            LONGEST.. => PathBuf::from("a"),
            // With a slash at the end it must be a folder.
            _ if rng.one_in(40) => path.join(""),
            _ => path,
        }
    }

    /// A name in a folder, mostly in one that is not deep.
    fn beside(&self, rng: &mut Rng) -> PathBuf {
        let (folder, name) = (rng.choose(&self.folders), random_name(rng));
        let deep = folder.components().count() > DEEP && !rng.one_in(8);
        if deep { PathBuf::from(name) } else { folder.join(name) }
    }
}

fn random_name(rng: &mut Rng) -> &'static OsStr {
    OsStr::from_bytes(match rng.below(40) {
        0 => &TOO_LONG[1..],
        1 => TOO_LONG,
        _ => COMPONENTS[rng.below(COMPONENTS.len() as u64) as usize],
    })
}

/// A symbolic link's target: never out of the tree.
pub(super) fn random_target(rng: &mut Rng) -> PathBuf {
    match rng.below(4) {
        0 => (0..=rng.below(2)).map(|_| random_name(rng)).collect(),
        1 => Path::new(".").join(random_name(rng)),
        _ => PathBuf::from(random_name(rng)),
    }
}

/// The names in a folder, sorted, and what each is; the folder's access time stays.
pub(crate) fn entries(folder: &Path) -> Vec<(PathBuf, FileType)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
    let open = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
    let mut found: Vec<_> = Dir::new(open)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()))
        .map(|entry| {
            let name = PathBuf::from(OsStr::from_bytes(entry.file_name().to_bytes()));
            (name, entry.file_type())
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}
