//! A sparse local file of sealed 4 KiB blocks: the unit of staging and of the cache.
//!
//! ```text
//! 0        overwrite journal, 256 KiB: a hole unless used
//! 256 KiB  header, 64 bytes: magic, version, 16 random id bytes, 16 bytes of binding
//! then     one record per block at a fixed offset: nonce(12) | ciphertext(4096) | tag(16)
//! ```
//!
//! Each blob has its own key, derived from its id; a record's additional data is the id
//! and the block number. So a record that was altered, moved within the file or taken
//! from another blob does not open ([`BlobError::Corrupt`]). An older record put back in
//! its own place does open: this is a seal, not a rollback guard. [`Blob::bind`] ties
//! the whole file to what it stands for, against swapped files.
//!
//! A record whose nonce is all zero is **absent**: never written, or cleared. No separate
//! table of what is present can disagree with the records after a crash.
//!
//! **Torn records.** A write may be cut short, by a full disk, by SIGKILL (the kernel
//! looks for it between pages) or by the machine.
//!  * A block's *first* write, cut short, leaves zeros on the record's last page. Such a
//!    record fails authentication and reads as absent: nothing acknowledged is lost.
//!  * An *overwrite* goes to the journal first, then to its place. [`Blob::open`] puts
//!    back from the journal what does not open in its place, so the death of the process
//!    leaves each block old or new. (Cut short in the journal, it has not begun in its
//!    place, and all that the journal named before is whole in its place.) Nothing is synced in between: when the machine dies,
//!    a block that was being overwritten since the last [`Blob::sync`] may be torn and
//!    reads as corrupt, until it is written again.
//!
//! Reads and writes may come from many threads. `io` keeps a reader from seeing half of
//! a record being written; sealing and opening happen outside of it.

mod layout;
mod presence;
mod scratch;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use self::layout::{
    BINDING_AT, HEADER, Header, JOURNAL, JOURNAL_HEAD, JOURNAL_RECORDS, MAX_BLOCKS, RECORD, RUN,
    offset,
};
pub use self::presence::Presence;
use self::scratch::Scratch;
use crate::crypto::{IV_LEN, LocalKeys, RecordKey, TAG_LEN};
use crate::env::disk::{Disk, DiskFile};
use crate::env::{Env, Random};

/// Bytes of a block, the unit of reading and writing a blob.
pub const BLOCK: usize = 4096;

/// Why a blob could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The blob's file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A record does not open: altered, moved, or torn by a crash of the machine.
    #[error("{}: block {block} failed authentication", path.display())]
    Corrupt {
        /// The blob's file.
        path: PathBuf,
        /// The block's number.
        block: u64,
    },
    /// The file is not a blob of this version.
    #[error("{}: {why}", path.display())]
    NotABlob {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A buffer that is not a whole number of blocks.
    #[error("{len} bytes are not a whole number of blocks")]
    Misaligned {
        /// The buffer's length in bytes.
        len: usize,
    },
}

/// A file of sealed blocks. See the module's header.
pub struct Blob {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: Mutex<PathBuf>,
    id: [u8; 16],
    key: RecordKey,
    keys: Arc<LocalKeys>,
    random: Arc<dyn Random>,
    /// Held shared while records are read from the file, alone while they are written.
    io: RwLock<Extent>,
    /// Records may have been torn before this process: only then look for it.
    reopened: bool,
    /// The folder may not durably name the file yet (an earlier process may have died
    /// before it synced).
    entry_unsynced: AtomicBool,
}

/// What writers know of the file.
struct Extent {
    /// Its length in bytes.
    end: u64,
    /// The journal's head may name blocks.
    journal_used: bool,
    /// So many blocks from the first on are known to be there.
    whole: u64,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({})", self.path.lock().display())
    }
}

impl Blob {
    /// Makes a new, empty blob, readable by its owner only; fails if `path` exists.
    pub fn create(path: &Path, keys: &Arc<LocalKeys>, env: &Env) -> Result<Self, BlobError> {
        let fail = |source| io_error(path, "create", source);
        let file = env.disk.create_new(path).map_err(fail)?;
        let mut header = Header { id: [0; 16], binding: [0; 16] };
        env.random.fill(&mut header.id);
        if let Err(source) = file.write_all_at(&header.encode(), JOURNAL) {
            let _ = env.disk.remove_file(path);
            return Err(fail(source));
        }
        let extent = Extent { end: offset(0), journal_used: false, whole: 0 };
        Ok(Self::assemble(file, path, header.id, extent, false, keys, env))
    }

    /// Opens a blob and repairs overwrites that the death of a process cut short.
    pub fn open(path: &Path, keys: &Arc<LocalKeys>, env: &Env) -> Result<Self, BlobError> {
        let fail = |source| io_error(path, "open", source);
        let file = env.disk.open(path).map_err(fail)?;
        let mut header = [0; HEADER];
        let got = read_full(&*file, &mut header, JOURNAL).map_err(fail)?;
        let decoded = if got < HEADER { Err("too short") } else { Header::decode(&header) };
        let header = decoded.map_err(|why| BlobError::NotABlob { path: path.to_owned(), why })?;
        let end = file.stat().map_err(fail)?.len;
        let extent = Extent { end, journal_used: false, whole: 0 };
        let blob = Self::assemble(file, path, header.id, extent, true, keys, env);
        blob.replay_journal().map_err(|source| io_error(path, "repair", source))?;
        Ok(blob)
    }

    fn assemble(
        file: Arc<dyn DiskFile>,
        path: &Path,
        id: [u8; 16],
        extent: Extent,
        reopened: bool,
        keys: &Arc<LocalKeys>,
        env: &Env,
    ) -> Self {
        Self {
            disk: env.disk.clone(),
            file,
            path: Mutex::new(path.to_owned()),
            id,
            key: keys.record_key(&id),
            keys: keys.clone(),
            random: env.random.clone(),
            io: RwLock::new(extent),
            reopened,
            entry_unsynced: AtomicBool::new(true),
        }
    }

    /// Writes whole blocks from `first_block` on. After an error each of them is old,
    /// new or absent, save that a block whose overwrite failed may read as corrupt until
    /// the blob is opened again.
    pub fn write(&self, first_block: u64, data: &[u8]) -> Result<(), BlobError> {
        check_aligned(data.len())?;
        if first_block.saturating_add((data.len() / BLOCK) as u64) > MAX_BLOCKS {
            return Err(self.io_error("write", io::ErrorKind::FileTooLarge.into()));
        }
        let mut first = first_block;
        for run in data.chunks(RUN * BLOCK) {
            let blocks = run.len() / BLOCK;
            let mut scratch = Scratch::take();
            self.seal_run(first, run, scratch.records(blocks));
            self.store_run(first, scratch.headed_records(blocks))
                .map_err(|source| self.io_error("write", source))?;
            first += blocks as u64;
        }
        Ok(())
    }

    /// Reads whole blocks from `first_block` on. Absent ones are zeros in `out`; every
    /// other byte has been verified. After an error `out` holds nothing to be used.
    pub fn read(&self, first_block: u64, out: &mut [u8]) -> Result<Presence, BlobError> {
        check_aligned(out.len())?;
        let mut presence = Presence::absent(out.len() / BLOCK);
        let mut scratch = Scratch::take();
        for (index, run) in out.chunks_mut(RUN * BLOCK).enumerate() {
            let done = index * RUN;
            let sealed = scratch.records(run.len() / BLOCK);
            let first = first_block.saturating_add(done as u64);
            let got = self.load_run(first, sealed);
            let got = got.map_err(|source| self.io_error("read", source))?;
            for (index, text) in run.chunks_exact_mut(BLOCK).enumerate() {
                let record = &sealed[index * RECORD..(index + 1) * RECORD];
                let whole = (index + 1) * RECORD <= got;
                if whole && self.open_record(first + index as u64, record, text)? {
                    presence.set(done + index);
                } else {
                    text.fill(0);
                }
            }
        }
        Ok(presence)
    }

    /// Which of `blocks` are there, from their nonces alone: says nothing about whether
    /// they would open.
    pub fn present(&self, blocks: Range<u64>) -> Result<Presence, BlobError> {
        let count = usize::try_from(blocks.end.saturating_sub(blocks.start)).unwrap_or(0);
        let mut presence = Presence::absent(count);
        let extent = self.io.read();
        let mut block = blocks.start;
        while block < blocks.end && offset(block) < extent.end {
            if self.is_present(&extent, block)? {
                presence.set(usize::try_from(block - blocks.start).unwrap_or(usize::MAX));
                block += 1;
            } else {
                block = self.behind_hole(block + 1);
            }
        }
        Ok(presence)
    }

    /// The first block from `block` on that may be there: what lies in a hole of the file is
    /// absent, and need not be read to know it.
    fn behind_hole(&self, block: u64) -> u64 {
        match self.file.next_data(offset(block)) {
            Ok(Some(data)) => block.max(layout::block_at(data)),
            Ok(None) => u64::MAX,
            Err(_) => block,
        }
    }

    /// Whether the first `blocks` blocks are all there.
    pub fn is_complete(&self, blocks: u64) -> Result<bool, BlobError> {
        let extent = self.io.read();
        if extent.end < offset(blocks) {
            return Ok(false);
        }
        for block in extent.whole..blocks {
            if !self.is_present(&extent, block)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes `blocks` absent again and gives their space back.
    pub fn clear(&self, blocks: Range<u64>) -> Result<(), BlobError> {
        let mut extent = self.io.write();
        extent.whole = extent.whole.min(blocks.start);
        self.forget_journal(&mut extent)
            .and_then(|()| self.erase(&extent, offset(blocks.start)..offset(blocks.end)))
            .map_err(|source| self.io_error("clear", source))
    }

    /// Makes everything from block `blocks` on absent.
    pub fn truncate(&self, blocks: u64) -> Result<(), BlobError> {
        let mut extent = self.io.write();
        let end = offset(blocks);
        if end >= extent.end {
            return Ok(());
        }
        extent.whole = extent.whole.min(blocks);
        self.forget_journal(&mut extent)
            .and_then(|()| self.file.set_len(end))
            .map_err(|source| self.io_error("truncate", source))?;
        extent.end = end;
        Ok(())
    }

    /// One more than the highest block that may be there.
    pub fn end_block(&self) -> u64 {
        layout::blocks_within(self.io.read().end)
    }

    /// Returns when content, and the folder's entry for the file, survive a crash of
    /// the machine.
    pub fn sync(&self) -> Result<(), BlobError> {
        self.file.sync_data().map_err(|source| self.io_error("sync", source))?;
        // Taken first: a rename that comes while the folder is synced sets it again.
        if self.entry_unsynced.swap(false, Ordering::AcqRel) {
            let path = self.path();
            let synced = path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir));
            if let Err(source) = synced {
                self.entry_unsynced.store(true, Ordering::Release);
                return Err(self.io_error("sync the folder of", source));
            }
        }
        Ok(())
    }

    /// Lets the kernel drop what it keeps of the file in memory: nobody is expected to read
    /// it soon. What is not on the disk yet stays.
    pub fn let_go(&self) {
        if let Err(error) = self.file.drop_cached() {
            tracing::debug!(%error, "pages of a staged file stay in memory");
        }
    }

    /// Where the file is now.
    pub fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    /// Moves the file, over an existing one if need be, within its file system. Readers
    /// and writers are not disturbed.
    pub fn rename_to(&self, to: &Path) -> Result<(), BlobError> {
        let mut path = self.path.lock();
        self.disk.rename(&path, to).map_err(|source| io_error(&path, "rename", source))?;
        to.clone_into(&mut path);
        self.entry_unsynced.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes the file's name; the blob stays usable until dropped. No error if it is
    /// gone already.
    pub fn unlink(&self) -> Result<(), BlobError> {
        let path = self.path();
        match self.disk.remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(io_error(&path, "remove", source))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that the file occupies on disk, as its file system counts them.
    pub fn allocated_bytes(&self) -> Result<u64, BlobError> {
        let stat = self.file.stat().map_err(|source| self.io_error("stat", source))?;
        Ok(stat.allocated)
    }

    /// What a complete blob of `blocks` blocks costs on disk, with its folder entry.
    pub fn disk_bytes(blocks: u64) -> u64 {
        let records = blocks.saturating_mul(RECORD as u64).saturating_add(HEADER as u64);
        records.next_multiple_of(BLOCK as u64).saturating_add(BLOCK as u64)
    }

    /// Ties the file to `label`: what it stands for, in any form. Replaces an earlier
    /// binding.
    pub fn bind(&self, label: &[u8]) -> Result<(), BlobError> {
        let binding = self.binding(label);
        let _alone = self.io.write();
        self.file.write_all_at(&binding, BINDING_AT).map_err(|source| self.io_error("bind", source))
    }

    /// Whether the file was last bound to `label`, with this key.
    pub fn is_bound_to(&self, label: &[u8]) -> Result<bool, BlobError> {
        let mut found = [0; 16];
        let _shared = self.io.read();
        let got = read_full(&*self.file, &mut found, BINDING_AT);
        let got = got.map_err(|source| self.io_error("read the binding of", source))?;
        Ok(got == found.len() && found == self.binding(label))
    }

    /// Gives back the space of the overwrite journal, for a blob that will not be
    /// written again.
    pub fn discard_journal(&self) -> Result<(), BlobError> {
        let mut extent = self.io.write();
        if !extent.journal_used {
            return Ok(());
        }
        self.forget_journal(&mut extent)
            .and_then(|()| self.file.punch(0..JOURNAL))
            .map_err(|source| self.io_error("punch", source))
    }

    fn binding(&self, label: &[u8]) -> [u8; 16] {
        self.keys.tag("blob binding", &[&self.id, label].concat())
    }

    fn seal_run(&self, first: u64, plain: &[u8], sealed: &mut [u8]) {
        let mut nonces = [[0; IV_LEN]; RUN];
        let nonces = &mut nonces[..plain.len() / BLOCK];
        self.keys.fill_nonces(&*self.random, nonces);
        let records = sealed.chunks_exact_mut(RECORD).zip(plain.chunks_exact(BLOCK));
        for (index, ((record, plain), nonce)) in records.zip(nonces).enumerate() {
            let (text, tag) = record[IV_LEN..].split_at_mut(BLOCK);
            text.copy_from_slice(plain);
            let aad = layout::aad(&self.id, first + index as u64);
            tag.copy_from_slice(&self.key.seal(*nonce, &aad, text));
            record[..IV_LEN].copy_from_slice(nonce);
        }
    }

    /// Writes sealed records: first writes in place, overwrites through the journal.
    /// `headed` are the records behind room for a journal's head.
    fn store_run(&self, first: u64, headed: &mut [u8]) -> io::Result<()> {
        let mut extent = self.io.write();
        let blocks = ((headed.len() - JOURNAL_HEAD) / RECORD) as u64;
        let mut at = 0;
        while at < blocks {
            let (overwrites, count) = self.alike(&extent, first + at, blocks - at)?;
            let most = if overwrites { count.min(JOURNAL_RECORDS as u64) } else { count };
            let part = at as usize * RECORD..JOURNAL_HEAD + (at + most) as usize * RECORD;
            let part = &mut headed[part];
            if overwrites {
                // The head takes the place of records that are stored already.
                part[..JOURNAL_HEAD].copy_from_slice(&layout::journal_head(first + at, most));
                extent.journal_used = true;
                self.file.write_all_at(part, 0)?;
            }
            let part = &part[JOURNAL_HEAD..];
            let place = offset(first + at);
            let written = self.file.write_all_at(part, place);
            let end = place + part.len() as u64;
            if written.is_err() {
                extent.whole = extent.whole.min(first + at);
                if !overwrites {
                    // Part of it may be there: take it away, so that it reads as absent.
                    let _ = self.erase(&extent, place..end);
                }
            }
            written?;
            extent.end = extent.end.max(end);
            if first + at <= extent.whole {
                extent.whole = extent.whole.max(first + at + most);
            }
            at += most;
        }
        Ok(())
    }

    /// Whether `first` is there, and how many blocks from it on, at most `most`, agree.
    fn alike(&self, extent: &Extent, first: u64, most: u64) -> io::Result<(bool, u64)> {
        let there = |block| -> io::Result<bool> {
            Ok(offset(block) < extent.end && self.nonce_of(block)? != [0; IV_LEN])
        };
        let overwrites = there(first)?;
        let mut count = 1;
        while count < most {
            if offset(first + count) >= extent.end {
                // Nothing is there from here on: no need to look at each.
                count = if overwrites { count } else { most };
                break;
            }
            if there(first + count)? != overwrites {
                break;
            }
            count += 1;
        }
        Ok((overwrites, count))
    }

    /// Before blocks become absent: a journal that still names them could bring them back.
    fn forget_journal(&self, extent: &mut Extent) -> io::Result<()> {
        if extent.journal_used {
            self.file.write_all_at(&[0; 8], 0)?;
            extent.journal_used = false;
        }
        Ok(())
    }

    /// Puts back what an interrupted overwrite left broken in its place.
    fn replay_journal(&self) -> io::Result<()> {
        let mut extent = self.io.write();
        let mut head = [0; JOURNAL_HEAD];
        if read_full(&*self.file, &mut head, 0)? < JOURNAL_HEAD {
            return Ok(());
        }
        let blocks = layout::journal_blocks(&head);
        let (mut record, mut text) = ([0; RECORD], [0; BLOCK]);
        for (index, block) in blocks.iter().enumerate() {
            let place = offset(*block);
            let got = read_full(&*self.file, &mut record, place)?;
            let absent = layout::is_zero(&record[..IV_LEN.min(got)]);
            if absent || got == RECORD && self.opens(*block, &record, &mut text) {
                continue;
            }
            let kept = (JOURNAL_HEAD + index * RECORD) as u64;
            let got = read_full(&*self.file, &mut record, kept)?;
            if got == RECORD && self.opens(*block, &record, &mut text) {
                self.file.write_all_at(&record, place)?;
                extent.end = extent.end.max(place + RECORD as u64);
            }
        }
        extent.journal_used = !blocks.is_empty();
        self.forget_journal(&mut extent)
    }

    fn load_run(&self, first: u64, sealed: &mut [u8]) -> io::Result<usize> {
        let extent = self.io.read();
        let place = offset(first);
        let there = extent.end.saturating_sub(place);
        let len = usize::try_from(there).unwrap_or(usize::MAX).min(sealed.len());
        read_full(&*self.file, &mut sealed[..len], place)
    }

    /// Opens a record into `text`; false if it is absent.
    fn open_record(&self, block: u64, record: &[u8], text: &mut [u8]) -> Result<bool, BlobError> {
        if layout::nonce(record) == [0; IV_LEN] {
            return Ok(false);
        }
        if self.opens(block, record, text) {
            return Ok(true);
        }
        if self.reopened && layout::is_torn_first_write(block, record) {
            return Ok(false);
        }
        Err(BlobError::Corrupt { path: self.path(), block })
    }

    fn opens(&self, block: u64, record: &[u8], text: &mut [u8]) -> bool {
        text.copy_from_slice(&record[IV_LEN..RECORD - TAG_LEN]);
        let aad = layout::aad(&self.id, block);
        self.key.open(layout::nonce(record), &aad, text, layout::tag(record)).is_ok()
    }

    fn nonce_of(&self, block: u64) -> io::Result<[u8; IV_LEN]> {
        let mut nonce = [0; IV_LEN];
        read_full(&*self.file, &mut nonce, offset(block))?;
        Ok(nonce)
    }

    fn is_present(&self, extent: &Extent, block: u64) -> Result<bool, BlobError> {
        let fail = |source| self.io_error("read", source);
        if offset(block + 1) > extent.end || self.nonce_of(block).map_err(fail)? == [0; IV_LEN] {
            return Ok(false);
        }
        if !self.reopened {
            return Ok(true);
        }
        let from = layout::last_page(block);
        let mut tail = [0; RECORD];
        let tail = &mut tail[from..];
        read_full(&*self.file, tail, offset(block) + from as u64).map_err(fail)?;
        if !layout::is_zero(tail) {
            return Ok(true);
        }
        // Zeros may be ciphertext, seldom: only opening it can tell.
        let (mut record, mut text) = ([0; RECORD], [0; BLOCK]);
        read_full(&*self.file, &mut record, offset(block)).map_err(fail)?;
        Ok(self.opens(block, &record, &mut text))
    }

    /// Zeros `bytes` of the file, with or without a hole; what lies past the end is cut.
    fn erase(&self, extent: &Extent, bytes: Range<u64>) -> io::Result<()> {
        if bytes.end >= extent.end {
            // Cut to the end of what stays, then restore the length that `extent` names.
            self.file.set_len(bytes.start.min(extent.end))?;
            return self.file.set_len(extent.end);
        }
        self.file.punch(bytes)
    }

    fn io_error(&self, operation: &'static str, source: io::Error) -> BlobError {
        io_error(&self.path.lock(), operation, source)
    }
}

fn io_error(path: &Path, operation: &'static str, source: io::Error) -> BlobError {
    BlobError::Io { path: path.to_owned(), operation, source }
}

fn check_aligned(len: usize) -> Result<(), BlobError> {
    if len.is_multiple_of(BLOCK) { Ok(()) } else { Err(BlobError::Misaligned { len }) }
}

/// Reads until `out` is full or the file ends; returns how much was read.
fn read_full(file: &dyn DiskFile, out: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < out.len() {
        match file.read_at(&mut out[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests;
