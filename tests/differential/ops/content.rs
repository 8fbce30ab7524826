//! Operations on the content of a file, by path or held open.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

use super::{Answer, Place, World, describe};
use crate::house::content::{Rng, pattern};
use crate::house::mapping::Mapping;

/// An operation on the content of one file.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Read {
        offset: u64,
        length: usize,
    },
    Write {
        offset: u64,
        seed: u64,
        length: usize,
    },
    /// Where the last one of the same open file ended, or at the end of a file that is
    /// opened for appending.
    Append {
        seed: u64,
        length: usize,
    },
    /// Cuts or extends.
    Truncate {
        length: u64,
    },
    /// `fallocate` in one of its forms.
    Allocate {
        how: FallocateFlags,
        offset: u64,
        length: u64,
    },
    /// Goes through all data and holes.
    Holes,
    /// Changes a shared mapping, then reads the file.
    WriteMapped {
        offset: u64,
        seed: u64,
        length: usize,
        flush: bool,
    },
    /// Writes the file, then looks at a shared mapping.
    ReadMapped {
        offset: u64,
        seed: u64,
        length: usize,
    },
    Sync {
        data_only: bool,
    },
    Stat,
}

/// Forms of `fallocate` that the drive offers.
fn random_allocation(rng: &mut Rng) -> FallocateFlags {
    *rng.choose(&[
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
    ])
}

/// Mostly small, sometimes across pages, rarely across parts.
pub(super) fn random_length(rng: &mut Rng) -> usize {
    let limit = *rng.choose(&[10, 100, 5000, 5000, 20_000, 150_000]);
    rng.below(limit) as usize
}

pub(super) fn random_offset(rng: &mut Rng) -> u64 {
    let offset = random_length(rng) as u64;
    // Sometimes where pages begin.
    if rng.one_in(4) { offset.next_multiple_of(4096) } else { offset }
}

impl Action {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let (offset, seed, length) = (random_offset(rng), rng.below(1000), random_length(rng));
        match rng.below(30) {
            0..6 => Self::Read { offset, length },
            6..12 => Self::Write { offset, seed, length },
            12..15 => Self::Append { seed, length },
            15..18 => Self::Truncate { length: offset },
            18..22 => Self::Allocate { how: random_allocation(rng), offset, length: length as u64 },
            22..24 => Self::Holes,
            24..26 => Self::WriteMapped { offset, seed, length, flush: rng.one_in(2) },
            26..27 => Self::ReadMapped { offset, seed, length },
            27..28 => Self::Sync { data_only: rng.one_in(2) },
            _ => Self::Stat,
        }
    }

    /// How a file is opened for it.
    fn flags(&self) -> OFlags {
        match self {
            Self::Write { .. } | Self::Truncate { .. } | Self::Allocate { .. } => OFlags::WRONLY,
            Self::Append { .. } => OFlags::WRONLY | OFlags::APPEND,
            Self::WriteMapped { .. } | Self::ReadMapped { .. } => OFlags::RDWR,
            Self::Read { .. } | Self::Holes | Self::Sync { .. } | Self::Stat => OFlags::RDONLY,
        }
    }
}

/// Something that is open: held, or only for the time.
enum Open<'a> {
    Held(&'a File),
    Now(File),
}

impl std::ops::Deref for Open<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Held(file) => file,
            Self::Now(file) => file,
        }
    }
}

impl World {
    /// The file at a place; `None` if there is nothing that may be opened.
    fn opened(&self, place: &Place, flags: OFlags) -> io::Result<Option<Open<'_>>> {
        Ok(match place {
            Place::Slot(slot) => self.slot(*slot).map(Open::Held),
            Place::Path { path, .. } => self.open(path, flags | OFlags::CLOEXEC, 0)?.map(Open::Now),
        })
    }

    pub(super) fn on_content(&self, place: &Place, action: &Action) -> io::Result<Answer> {
        match self.opened(place, action.flags())? {
            Some(file) => perform(&file, action, matches!(place, Place::Slot(_))),
            None => Ok(Answer::Nothing),
        }
    }

    /// Copies until all is copied or there is no more: a copy may be short.
    pub(super) fn copy(
        &self,
        from: (&Place, u64),
        to: (&Place, u64),
        length: usize,
    ) -> io::Result<Answer> {
        let Some(source) = self.opened(from.0, OFlags::RDONLY)? else {
            return Ok(Answer::Nothing);
        };
        let Some(target) = self.opened(to.0, OFlags::WRONLY)? else {
            return Ok(Answer::Nothing);
        };
        let (mut start, mut at, mut left) = (from.1, to.1, length);
        loop {
            match copy_file_range(&*source, Some(&mut start), &*target, Some(&mut at), left)? {
                0 => break,
                n => left -= n,
            }
        }
        Ok(Answer::Text(format!("copied {}", length - left)))
    }
}

fn perform(file: &File, action: &Action, held: bool) -> io::Result<Answer> {
    match action {
        Action::Read { offset, length } => return read(file, *offset, *length),
        Action::Write { offset, seed, length } => {
            file.write_all_at(&pattern(*seed, *length), *offset)?;
        }
        Action::Append { seed, length } => {
            let mut file = file;
            file.write_all(&pattern(*seed, *length))?;
        }
        Action::Truncate { length } => file.set_len(*length)?,
        Action::Allocate { how, offset, length } => {
            return allocate(file, *how, *offset, *length);
        }
        Action::Holes => return holes(file),
        Action::WriteMapped { offset, seed, length, flush } => {
            // A held file's pages are written back some time later, and its times move
            // then, whatever was set in between. So it is always flushed.
            return write_mapped(file, *offset, &pattern(*seed, *length), *flush || held);
        }
        Action::ReadMapped { offset, seed, length } => {
            return read_mapped(file, *offset, &pattern(*seed, *length));
        }
        Action::Sync { data_only: false } => file.sync_all()?,
        Action::Sync { data_only: true } => file.sync_data()?,
        Action::Stat => return Ok(describe(&file.metadata()?)),
    }
    Ok(Answer::Done)
}

fn allocate(file: &File, how: FallocateFlags, offset: u64, length: u64) -> io::Result<Answer> {
    fallocate(file, how, offset, length)?;
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

/// The part of a file that a mapping changes: within the file, because what is mapped
/// beyond its end cannot be touched. Nothing in an empty file.
fn within(file: &File, offset: u64, length: usize) -> io::Result<Option<(usize, usize, usize)>> {
    let status = file.metadata()?;
    if !status.is_file() || status.len() == 0 {
        return Ok(None);
    }
    let start = offset % status.len();
    let length = (status.len() - start).min(length as u64);
    Ok(Some((status.len() as usize, start as usize, length as usize)))
}

fn write_mapped(file: &File, offset: u64, bytes: &[u8], flush: bool) -> io::Result<Answer> {
    let Some((size, start, length)) = within(file, offset, bytes.len())? else {
        return Ok(Answer::Nothing);
    };
    let mut mapping = Mapping::new(file, size)?;
    mapping.bytes()[start..start + length].copy_from_slice(&bytes[..length]);
    if flush {
        mapping.flush()?;
    }
    read(file, start as u64, length)
}

fn read_mapped(file: &File, offset: u64, bytes: &[u8]) -> io::Result<Answer> {
    let Some((size, start, length)) = within(file, offset, bytes.len())? else {
        return Ok(Answer::Nothing);
    };
    let mut mapping = Mapping::new(file, size)?;
    // The page is there already when it changes.
    let before = mapping.bytes()[start];
    file.write_all_at(&bytes[..length], start as u64)?;
    let mut found = vec![before];
    found.extend_from_slice(&mapping.bytes()[start..start + length]);
    Ok(Answer::Bytes(found))
}

/// Where holes lie is a filesystem's own; that they read as zeros and end is everybody's.
fn holes(file: &File) -> io::Result<Answer> {
    if !file.metadata()?.is_file() {
        return Ok(Answer::Nothing);
    }
    let result = wrong_hole(file);
    // Where the file is read or written next must not depend on its holes.
    seek(file, SeekFrom::Start(0))?;
    Ok(result?.map_or(Answer::Done, Answer::Text))
}

/// What is wrong with the holes of a file.
fn wrong_hole(file: &File) -> io::Result<Option<String>> {
    let size = file.metadata()?.len();
    let wrong = |what: &str, at: u64| Ok(Some(format!("{what} at {at} of {size}")));
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => size,
            found => found?,
        };
        if data < at || data > size {
            return wrong("data elsewhere", data);
        }
        if !is_zero(file, at, data)? {
            return wrong("bytes in a hole", at);
        }
        if data == size {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(data))?;
        if hole <= data || hole > size {
            return wrong("a hole elsewhere", hole);
        }
        at = hole;
    }
    for end in [size, size + 1] {
        for beyond in [SeekFrom::Data(end), SeekFrom::Hole(end)] {
            if seek(file, beyond) != Err(Errno::NXIO) {
                return wrong("something beyond the end", end);
            }
        }
    }
    Ok(None)
}

/// Whether a range reads as zeros, if it can be read at all.
fn is_zero(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut bytes = vec![1; (to - from) as usize];
    match file.read_exact_at(&mut bytes, from) {
        // Open for writing only.
        Err(error) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => Ok(true),
        result => result.map(|()| bytes.iter().all(|byte| *byte == 0)),
    }
}
