//! A file's bytes: what is in memory, what is on the platter, and the changes between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use privicorefs::env::Random;

use super::below;

pub(super) const PAGE: u64 = 4096;
/// The smallest unit that a disk writes as a whole.
const SECTOR: u64 = 512;

type Page = [u8; PAGE as usize];

/// Sparse bytes. Pages are shared between copies until one of them is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// One change of a file.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Of at least one byte.
    Write {
        at: u64,
        data: Vec<u8>,
    },
    SetLen(u64),
    Punch(Range<u64>),
}

/// The pieces of `range` by page: the page's number, and where in it the piece lies.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let pages = match range.is_empty() {
        true => 0..0,
        false => range.start / PAGE..range.end.div_ceil(PAGE),
    };
    pages.map(move |page| {
        let start = range.start.max(page * PAGE) - page * PAGE;
        let end = range.end.min((page + 1) * PAGE) - page * PAGE;
        (page, start as usize..end as usize)
    })
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, data } => self.write(*at, data),
            Change::SetLen(len) => self.set_len(*len),
            Change::Punch(range) => self.punch(range.start..range.end.min(self.len)),
        }
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        let mut rest = data;
        for (page, place) in pieces(at..end) {
            let (piece, behind) = rest.split_at(place.len());
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[place].copy_from_slice(piece);
            rest = behind;
        }
        self.len = self.len.max(end);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len..self.len.next_multiple_of(PAGE));
        }
        self.len = len;
    }

    /// Drops the pages that lie within `range`, and zeros what is left of it.
    fn punch(&mut self, range: Range<u64>) {
        let last = self.len.div_ceil(PAGE);
        for (page, place) in pieces(range.start..range.end.min(last * PAGE)) {
            // of the last page, only what lies before the file's end counts
            let end = self.len.min((page + 1) * PAGE);
            if place.start == 0 && page * PAGE + place.end as u64 >= end {
                self.pages.remove(&page);
            } else if let Some(page) = self.pages.get_mut(&page) {
                Arc::make_mut(page)[place].fill(0);
            }
        }
    }

    pub(super) fn read(&self, out: &mut [u8], at: u64) -> usize {
        let end = self.len.min(at.saturating_add(out.len() as u64));
        let mut done = 0;
        for (page, place) in pieces(at..end.max(at)) {
            let piece = &mut out[done..done + place.len()];
            done += place.len();
            match self.pages.get(&page) {
                Some(page) => piece.copy_from_slice(&page[place]),
                None => piece.fill(0),
            }
        }
        done
    }

    pub(super) fn next_data(&self, from: u64) -> Option<u64> {
        let (page, _) = self.pages.range(from / PAGE..).next()?;
        Some(from.max(page * PAGE)).filter(|at| *at < self.len)
    }

    /// How many of `len` bytes at `at` can be written if at most `pages` may be added.
    pub(super) fn fitting(&self, at: u64, len: usize, pages: u64) -> usize {
        let end = at + len as u64;
        let mut new = (at / PAGE..end.div_ceil(PAGE)).filter(|page| !self.pages.contains_key(page));
        let first_without = new.nth(usize::try_from(pages).unwrap_or(usize::MAX));
        first_without.map_or(len, |page| (page * PAGE).saturating_sub(at) as usize)
    }
}

/// A file. Invariant: `synced`, with `unsynced` applied to it, is `now`.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) now: Content,
    synced: Content,
    unsynced: Vec<Change>,
    pub(super) modified: SystemTime,
}

impl FileNode {
    /// A file whose content is durable.
    pub(super) fn new(content: Content, modified: SystemTime) -> Self {
        Self { synced: content.clone(), now: content, unsynced: Vec::new(), modified }
    }

    pub(super) fn change(&mut self, change: Change, at: SystemTime) {
        self.now.apply(&change);
        self.unsynced.push(change);
        self.modified = at;
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            self.synced.apply(&change);
        }
    }

    /// Keeps a random prefix of what was not synced, or nothing of it; returns how many
    /// changes are lost.
    pub(super) fn power_cut(&mut self, random: &dyn Random, whole: bool) -> usize {
        let all = self.unsynced.len();
        if all == 0 {
            return 0;
        }
        let kept = if whole { 0 } else { below(random, all + 1) };
        self.unsynced.truncate(kept);
        let torn = match self.unsynced.last_mut() {
            Some(Change::Write { at, data }) if below(random, 2) == 1 => tear(*at, data, random),
            _ => false,
        };
        self.sync();
        self.now = self.synced.clone();
        all - kept + usize::from(torn)
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut expected = self.synced.clone();
        self.unsynced.iter().for_each(|change| expected.apply(change));
        assert_eq!(expected, self.now);
    }
}

/// Cuts a write off at a sector inside it; false if it lies in a single one.
fn tear(at: u64, data: &mut Vec<u8>, random: &dyn Random) -> bool {
    let first = at / SECTOR + 1;
    let ends = (at + data.len() as u64).div_ceil(SECTOR).saturating_sub(first);
    if ends == 0 {
        return false;
    }
    let end = (first + below(random, ends as usize) as u64) * SECTOR;
    data.truncate((end - at) as usize);
    true
}
