//! What a person does, as the kernel passes it on.

use std::sync::Arc;

use privicorefs::vfs::{
    Ino, Kind, OpenMode, RenameMode, SetAttr, Vfs, VfsError, VfsResult, XattrMode,
};

use super::super::company::{Act, CELL, Content, Event, Failure, Machine, Outcome, Stamp};
use super::super::kinds;
use super::tree::{CALLER, child, parent, resolve, what, what_ino};
use super::{NEVER, World, cells, failure};

const READ: OpenMode = OpenMode { read: true, write: false, truncate: false, sync: false };
const WRITE: OpenMode = OpenMode { read: true, write: true, ..READ };

/// Bytes of one write request.
const REQUEST: usize = 128 << 10;

/// The attribute that carries the number of the step that made a folder.
pub const MADE: &[u8] = b"user.made";

/// What an act leaves behind besides its result.
#[derive(Default)]
struct Done {
    read: Option<Content>,
    /// A handle that stays open as a slot.
    opened: Option<(u8, (u64, u64))>,
    closed: Option<u8>,
}

impl World {
    /// Does it, and says what was shown before, and how it ended.
    pub(super) async fn act(&mut self, step: usize, on: Machine, act: &Act, outcome: &mut Outcome) {
        let running = self.machines.get(usize::from(on)).and_then(|m| m.running.as_ref());
        let Some(running) = running else {
            outcome.failure = Some(Failure::NotMounted);
            return;
        };
        let (vfs, process) = (running.vfs.clone(), running.process.clone());
        let slots = running.slots.clone();
        let show = |at: String| {
            let shown = what(&vfs, &at);
            (at, shown)
        };
        outcome.shown = kinds::act_paths(act).into_iter().map(show).collect();
        if let Act::WriteSlot { slot, .. } | Act::Close { slot } | Act::FsyncSlot { slot } = act
            && let Some((ino, _)) = slots.get(slot)
        {
            outcome.shown.push((String::new(), what_ino(&vfs, *ino)));
        }
        let doing = {
            let (vfs, act) = (vfs.clone(), act.clone());
            async move {
                let mut done = Done::default();
                let stamp = step as Stamp + 1;
                let result = perform(&vfs, &act, stamp, &slots, &mut done).await;
                (result, done)
            }
        };
        if let Act::Fsync { wait: false, .. } | Act::Sync { wait: false } = act {
            let (ended, alive) = (self.ended.clone(), process.clone());
            drop(tokio::spawn(async move {
                tokio::select! {
                    biased;
                    (result, _) = doing => {
                        let failure = result.err().map(|error| failure(&error));
                        ended.lock().push(Event::Ended { step, failure });
                    }
                    () = alive.death() => {}
                }
            }));
            return;
        }
        let ended = tokio::select! {
            biased;
            ended = tokio::time::timeout(NEVER, doing) => ended,
            () = process.death() => {
                outcome.failure = Some(Failure::Died);
                return;
            }
        };
        let Ok((result, done)) = ended else {
            outcome.failure = Some(Failure::Broken { why: "it never answers".into() });
            return;
        };
        outcome.failure = result.err().map(|error| failure(&error));
        if !process.is_alive() {
            // It died within the last call, whatever that call made of it.
            outcome.failure = Some(Failure::Died);
        }
        outcome.read = done.read;
        if let Some(running) = &mut self.machines[usize::from(on)].running {
            if let Some(slot) = done.closed {
                running.slots.remove(&slot);
            }
            running.slots.extend(done.opened);
        }
    }
}

type Slots = std::collections::BTreeMap<u8, (u64, u64)>;

async fn perform(
    vfs: &Arc<Vfs>,
    act: &Act,
    stamp: Stamp,
    slots: &Slots,
    done: &mut Done,
) -> VfsResult<()> {
    let slot = |slot: &u8| slots.get(slot).copied().ok_or(VfsError::BadHandle { fh: 0 });
    match act {
        Act::Write { at, size } => write_whole(vfs, at, stamp, *size).await,
        Act::Edit { at, from, cells, size } => {
            let (ino, fh) = open(vfs, at, WRITE)?;
            let edited = edit(vfs, (ino, fh), stamp, (*from, *cells), *size).await;
            close(vfs, fh, edited).await
        }
        Act::Truncate { at, size } => set_size(vfs, file(vfs, at)?, None, *size).await,
        Act::Punch { at, from, cells, size } => {
            let (ino, fh) = open(vfs, at, WRITE)?;
            let punched = async {
                let (from, len) = (u64::from(*from) * CELL, u64::from((*cells).max(1)) * CELL);
                vfs.clone().fallocate(fh, from, len, true, true).await?;
                set_size(vfs, ino, Some(fh), *size).await
            };
            let punched = punched.await;
            close(vfs, fh, punched).await
        }
        Act::Clone { from, to, size } => clone(vfs, from, to, *size).await,
        Act::Save { at, size } => {
            let beside = format!("{at}.new{stamp}");
            write_whole(vfs, &beside, stamp, *size).await?;
            rename(vfs, &beside, at, RenameMode::Replace)
        }
        Act::Open { at, slot } => {
            let opened = open(vfs, at, WRITE)?;
            if let Some((_, fh)) = slots.get(slot) {
                let _ = close(vfs, *fh, Ok(())).await;
            }
            done.opened = Some((*slot, opened));
            Ok(())
        }
        Act::WriteSlot { slot: number, from, cells, size } => {
            edit(vfs, slot(number)?, stamp, (*from, *cells), *size).await
        }
        Act::Close { slot: number } => {
            let (_, fh) = slot(number)?;
            done.closed = Some(*number);
            close(vfs, fh, Ok(())).await
        }
        Act::FsyncSlot { slot: number } => vfs.clone().fsync(slot(number)?.1, false).await,
        Act::Fsync { at, .. } => {
            let (_, fh) = open(vfs, at, WRITE)?;
            let synced = vfs.clone().fsync(fh, false).await;
            close(vfs, fh, synced).await
        }
        Act::Sync { .. } => vfs.clone().sync_all(None, Arc::new(|_| ())).await,
        Act::Read { at } => {
            done.read = Some(cells::content(&read(vfs, resolve(vfs, at)?.ino).await?));
            Ok(())
        }
        names => change_names(vfs, names, stamp).await,
    }
}

async fn change_names(vfs: &Arc<Vfs>, act: &Act, stamp: Stamp) -> VfsResult<()> {
    match act {
        Act::Mkdir { at } => {
            let (dir, name) = parent(vfs, at)?;
            let made = vfs.mkdir(&CALLER, dir, name, 0o755)?;
            vfs.setxattr(&CALLER, made.ino, MADE, &stamp.to_le_bytes(), XattrMode::Either)
        }
        Act::Rmdir { at } => {
            let (dir, name) = parent(vfs, at)?;
            vfs.rmdir(dir, name)
        }
        Act::Remove { at } => {
            let (dir, name) = parent(vfs, at)?;
            vfs.unlink(dir, name)
        }
        Act::Rename { from, to } => rename(vfs, from, to, RenameMode::Replace),
        Act::Exchange { a, b } => rename(vfs, a, b, RenameMode::Exchange),
        Act::Link { from, to } => {
            let found = resolve(vfs, from)?;
            if found.kind == Kind::Dir {
                return Err(VfsError::IsDir { what: from.clone() });
            }
            let (dir, name) = parent(vfs, to)?;
            vfs.link(found.ino, dir, name).map(drop)
        }
        Act::Symlink { at } => {
            let (dir, name) = parent(vfs, at)?;
            vfs.symlink(&CALLER, dir, name, stamp.to_string().as_bytes()).map(drop)
        }
        Act::Chmod { at, perm } => {
            let set = SetAttr { perm: Some(*perm), ..SetAttr::default() };
            vfs.clone().setattr(CALLER, resolve(vfs, at)?.ino, None, set).await.map(drop)
        }
        Act::Xattr { at, value } => {
            let (ino, value) = (resolve(vfs, at)?.ino, value.to_le_bytes());
            vfs.setxattr(&CALLER, ino, b"user.x", &value, XattrMode::Either)
        }
        _ => Ok(()),
    }
}

fn rename(vfs: &Arc<Vfs>, from: &str, to: &str, mode: RenameMode) -> VfsResult<()> {
    let ((from_dir, old), (to_dir, new)) = (parent(vfs, from)?, parent(vfs, to)?);
    vfs.rename(from_dir, old, to_dir, new, mode).map(drop)
}

fn open(vfs: &Arc<Vfs>, at: &str, mode: OpenMode) -> VfsResult<(Ino, u64)> {
    let ino = file(vfs, at)?;
    Ok((ino, vfs.open_file(ino, mode)?.fh))
}

/// The file at a path; symbolic links are not followed.
fn file(vfs: &Vfs, at: &str) -> VfsResult<Ino> {
    let found = resolve(vfs, at)?;
    match found.kind {
        Kind::File => Ok(found.ino),
        Kind::Dir => Err(VfsError::IsDir { what: at.to_owned() }),
        _ => Err(VfsError::Invalid { what: at.to_owned(), why: "not a file" }),
    }
}

/// Flushes and releases, as `close(2)` does; the first error counts.
async fn close(vfs: &Arc<Vfs>, fh: u64, before: VfsResult<()>) -> VfsResult<()> {
    let flushed = vfs.clone().flush(fh).await;
    let released = vfs.release(fh);
    before.and(flushed).and(released)
}

/// Opens with create and truncate.
async fn create(vfs: &Arc<Vfs>, at: &str) -> VfsResult<(Ino, u64)> {
    let (dir, name) = parent(vfs, at)?;
    match child(vfs, dir, name) {
        Ok(_) => {
            let opened = open(vfs, at, WRITE)?;
            set_size(vfs, opened.0, Some(opened.1), 0).await?;
            Ok(opened)
        }
        Err(_) => {
            let (attr, opened) = vfs.create(&CALLER, dir, name, 0o644, WRITE)?;
            Ok((attr.ino, opened.fh))
        }
    }
}

async fn write_whole(vfs: &Arc<Vfs>, at: &str, stamp: Stamp, size: u32) -> VfsResult<()> {
    let (_, fh) = create(vfs, at).await?;
    let written = write(vfs, fh, stamp, 0, u64::from(size)).await;
    close(vfs, fh, written).await
}

async fn edit(
    vfs: &Arc<Vfs>,
    (ino, fh): (Ino, u64),
    stamp: Stamp,
    (from, cells): (u32, u32),
    size: u32,
) -> VfsResult<()> {
    write(vfs, fh, stamp, u64::from(from), u64::from(cells)).await?;
    set_size(vfs, ino, Some(fh), size).await
}

async fn write(vfs: &Arc<Vfs>, fh: u64, stamp: Stamp, from: u64, cells: u64) -> VfsResult<()> {
    let mut at = from * CELL;
    for request in cells::bytes(stamp, from, cells).chunks(REQUEST) {
        if vfs.try_write(fh, at, request)?.is_none() {
            vfs.clone().write(fh, at, request.to_vec()).await?;
        }
        at += request.len() as u64;
    }
    Ok(())
}

async fn set_size(vfs: &Arc<Vfs>, ino: Ino, fh: Option<u64>, size: u32) -> VfsResult<()> {
    let set = SetAttr { size: Some(u64::from(size) * CELL), ..SetAttr::default() };
    vfs.clone().setattr(CALLER, ino, fh, set).await.map(drop)
}

/// As the kernel does it: what cannot be shared is read and written.
async fn clone(vfs: &Arc<Vfs>, from: &str, to: &str, size: u32) -> VfsResult<()> {
    let (source_ino, source) = open(vfs, from, READ)?;
    if resolve(vfs, to).is_ok_and(|there| there.ino == source_ino) {
        vfs.release(source)?;
        return Err(VfsError::Invalid { what: to.to_owned(), why: "the same file" });
    }
    let copied = async {
        let (ino, target) = create(vfs, to).await?;
        let sized = match copy(vfs, source_ino, source, target).await {
            Ok(()) => set_size(vfs, ino, Some(target), size).await,
            failed => failed,
        };
        close(vfs, target, sized).await
    };
    let copied = copied.await;
    let _ = vfs.clone().flush(source).await;
    copied.and(vfs.release(source))
}

async fn copy(vfs: &Arc<Vfs>, ino: Ino, source: u64, target: u64) -> VfsResult<()> {
    let len = vfs.getattr(ino)?.size;
    let mut done = 0;
    while done < len {
        match vfs.share((source, done), (target, done), len - done) {
            Ok(count) => done += u64::from(count),
            Err(VfsError::Unsupported { .. }) => {
                let piece = (len - done).min(REQUEST as u64) as u32;
                let piece = vfs.clone().read(source, done, piece).await?;
                if piece.is_empty() {
                    break;
                }
                let count = piece.len() as u64;
                vfs.clone().write(target, done, piece).await?;
                done += count;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file's whole content.
pub async fn read(vfs: &Arc<Vfs>, ino: Ino) -> VfsResult<Vec<u8>> {
    let fh = vfs.open_file(ino, READ)?.fh;
    let all = async {
        let mut out: Vec<u8> = Vec::new();
        loop {
            let at = out.len() as u64;
            let piece = match vfs.try_read(fh, at, REQUEST as u32)? {
                Some(piece) => piece,
                None => vfs.clone().read(fh, at, REQUEST as u32).await?,
            };
            if piece.is_empty() {
                return Ok(out);
            }
            out.extend(piece);
        }
    };
    let all = all.await;
    vfs.release(fh)?;
    all
}
