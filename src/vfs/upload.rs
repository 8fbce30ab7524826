//! One upload: a consistent snapshot of a file goes to the vault, then into the catalog.
//!
//! Invariants
//! * What is committed is the content of one instant: the whole file is read under its
//!   lock (one token), or all parts were read at a moment when no later write had
//!   touched any of them (split). A file that keeps changing is frozen for the last
//!   round, so that this ends.
//! * The payload is acknowledged before the catalog names it. In between, what is recorded of
//!   its token lets housekeeping delete it.
//! * Writes that came after the snapshot stay: the overlay is dropped only where nothing
//!   changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{Stream, StreamExt, stream};

use super::Vfs;
use super::approval::Seal;
use super::base::PartHeader;
use super::body::{Body, Overlay, State, pieces};
use super::commit::{Sent, Snapshot, Uploaded};
use super::error::{VfsError, VfsResult};
use super::put::{Sealed, Stored};
use super::writeback::QUIET;
use crate::catalog::Version;
use crate::catalog::format::part_list::{PartList, part_count, part_len};
use crate::catalog::format::record::PlaceBase;
use crate::content::CHUNK;
use crate::content::blob::BLOCK;
use crate::content::buffers::Buffer;
use crate::content::holes::{self, Hole};
use crate::crypto::{IV_LEN, IdentityOf, TAG_LEN, sealed_len};
use crate::store::{FileMeta, OpenStream, Payload, Reference};

/// Rounds of uploading parts that changed meanwhile before the file is frozen.
const ROUNDS: usize = 3;

/// Largest payload that is sealed in memory; a larger one (splitting is forbidden) is
/// sealed while it is sent.
const WHOLE_MAX: u64 = 80 << 20;

/// Bytes sealed at a time of such a payload.
const STREAM_PIECE: u64 = 1 << 20;

/// Parts of one file under way at once.
pub(super) const PARTS_AT_ONCE: usize = 4;

impl Vfs {
    /// Uploads a file if it is dirty. `to_the_end`: also parts that are being written.
    pub(super) async fn upload(
        self: &Arc<Self>,
        body: &Arc<Body>,
        to_the_end: bool,
    ) -> VfsResult<()> {
        let _one = body.upload.lock().await;
        self.check_no_open_put(body.ino)?;
        if !self.goes_to_the_vault(body.ino) {
            return Ok(());
        }
        {
            let mut state = body.state.write();
            if !state.dirty || state.discarded {
                return Ok(());
            }
            state.uploading = true;
        }
        let result = match self.pin_base(body).await {
            Ok(()) => self.upload_by_size(body, to_the_end).await,
            Err(error) => Err(error),
        };
        if body.state.read().discarded {
            self.discard_sent(body.ino)?;
        }
        let mut state = body.state.write();
        state.uploading = false;
        state.frozen = false;
        match &result {
            Ok(()) | Err(VfsError::AwaitingApproval { .. }) => state.failure = None,
            Err(error) => state.failure = Some(error.clone()),
        }
        drop(state);
        body.changed.notify_waiters();
        result
    }

    /// By parts, streamed or in one piece, as the file's size asks for.
    async fn upload_by_size(self: &Arc<Self>, body: &Arc<Body>, to_the_end: bool) -> VfsResult<()> {
        let split_above = self.config.split_above.unwrap_or(u64::MAX);
        loop {
            let size = body.state.read().size;
            if size > split_above {
                return self.upload_parts(body, to_the_end).await;
            }
            if size > WHOLE_MAX {
                return self.upload_streamed(body).await;
            }
            if self.upload_whole(body, split_above.min(WHOLE_MAX)).await? {
                return Ok(());
            }
        }
    }

    /// False, and nothing done, if the file has grown beyond `most` before it was read: the
    /// size that decides is the one under the lock that it is read with.
    async fn upload_whole(self: &Arc<Self>, body: &Arc<Body>, most: u64) -> VfsResult<bool> {
        let size = body.state.read().size;
        let _room = self.fetcher.reserve(size.min(most) + 64).await;
        let (snapshot, mut buffer) = self.snapshot(body, 0, most).await?;
        if snapshot.size > most {
            return Ok(false);
        }
        let holes = holes::find(0, &buffer[IV_LEN..]);
        let plain = (snapshot.size <= CHUNK).then(|| Bytes::copy_from_slice(&buffer[IV_LEN..]));
        let (seal, mark) = self.seal((body, None, snapshot.generation), &mut buffer)?;
        let sealed = Sealed { payload: Payload::Bytes(buffer.into_bytes()), seal, mark };
        let Stored { reference, mark } = self.store_visible(body, snapshot, sealed).await?;
        if let Some(plain) = plain {
            self.fetcher.keep(&reference, plain).await;
        }
        let uploaded = Uploaded { base: PlaceBase::Whole(reference), holes, mark };
        self.commit_version(body, snapshot, uploaded, &BTreeMap::new())?;
        Ok(true)
    }

    /// One token for a file too large for memory: sealed while it is sent, in constant
    /// memory. A change meanwhile cuts the stream off; the second try freezes the file.
    async fn upload_streamed(self: &Arc<Self>, body: &Arc<Body>) -> VfsResult<()> {
        let mut frozen = false;
        loop {
            let snapshot = self.round_start(body, frozen)?;
            let generation = snapshot.generation;
            // One IV for the content of this generation: however often the store opens the
            // stream, it gives the same bytes.
            let (seal, mark) = match self.approvals.resume((body, None, generation)) {
                Some((mark, seal)) => (seal, Some(mark)),
                None => (Seal::new(self.remote.cipher.fresh_iv()), None),
            };
            let (this, of, as_before) = (self.clone(), body.clone(), seal.clone());
            let open: OpenStream = Arc::new(move || {
                this.clone().sealed_stream(of.clone(), generation, as_before.clone()).boxed()
            });
            let payload = Payload::Stream { len: sealed_len(snapshot.size), open };
            let sealed = Sealed { payload, seal, mark };
            match self.store_visible(body, snapshot, sealed).await {
                Ok(Stored { reference, mark }) => {
                    let base = PlaceBase::Whole(reference);
                    let dense = Uploaded { base, holes: Vec::new(), mark };
                    return self.commit_version(body, snapshot, dense, &BTreeMap::new());
                }
                Err(error) => {
                    let changed = body.state.read().generation != snapshot.generation;
                    if frozen || !changed {
                        return Err(error);
                    }
                    frozen = true;
                }
            }
        }
    }

    /// The sealed form of a file's content as it is at `generation`.
    fn sealed_stream(
        self: Arc<Self>,
        body: Arc<Body>,
        generation: u64,
        seal: Seal,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        let sealer = self.remote.cipher.stream_sealer_with(seal.iv);
        let start = (self, body, seal, Some(sealer), IdentityOf::default(), 0);
        stream::try_unfold(start, move |(this, body, seal, sealer, mut seen, at)| async move {
            let Some(mut sealer) = sealer else { return Ok(None) };
            let read = this.snapshot(&body, at, STREAM_PIECE).await;
            let (snapshot, buffer) = read.map_err(std::io::Error::other)?;
            if snapshot.generation != generation {
                return Err(std::io::Error::other("the file changed while it was sent"));
            }
            let plain = &buffer[IV_LEN..];
            let mut out = Vec::with_capacity(plain.len() + 64);
            sealer.push(plain, &mut out).map_err(std::io::Error::other)?;
            let next = at + plain.len() as u64;
            let mut rest = Some(sealer);
            if next >= snapshot.size
                && let Some(sealer) = rest.take()
            {
                sealer.finish(&mut out);
            }
            seen.push(&out);
            if rest.is_none()
                && let Some(identity) = seen.finish(this.remote.cipher.key_id())
                && *seal.identity.get_or_init(|| identity) != identity
            {
                return Err(std::io::Error::other("the file is not what was sent before"));
            }
            Ok(Some((Bytes::from(out), (this, body, seal, rest, seen, next))))
        })
    }

    /// Reads a range, as far as the file reaches, under the lock, with room for the IV in
    /// front; fetches what is missing first.
    async fn snapshot(&self, body: &Body, offset: u64, len: u64) -> VfsResult<(Snapshot, Buffer)> {
        let mut held = Vec::new();
        loop {
            let need = {
                let mut state = body.state.write();
                state.low_water = state.size;
                let state = parking_lot::RwLockWriteGuard::downgrade(state);
                let wanted = len.min(state.size.saturating_sub(offset));
                let mut buffer = self.buffers.take(IV_LEN + wanted as usize, TAG_LEN);
                let out = &mut buffer[IV_LEN..];
                match state.read(self, offset, out, &held).map_err(|e| self.blame(body.ino, e))? {
                    None => {
                        let (generation, size) = (state.generation, state.size);
                        return Ok((Snapshot { generation, size }, buffer));
                    }
                    Some(need) => need,
                }
            };
            self.satisfy_now(body.ino, need, &mut held).await?;
        }
    }

    async fn upload_parts(self: &Arc<Self>, body: &Arc<Body>, to_the_end: bool) -> VfsResult<()> {
        let part_size = self.part_size_of(body).await?;
        let mut sent: BTreeMap<u64, Sent> = self.sent_parts(body.ino)?;
        for round in 0.. {
            let snapshot = self.round_start(body, round >= ROUNDS)?;
            let count = part_count(snapshot.size, part_size);
            let todo = self.parts_to_send(body, &mut sent, part_size, count)?;
            let partial = !to_the_end && self.is_being_written(body);
            self.send_parts(body, part_size, todo, &mut sent, partial).await?;
            if partial {
                return Ok(()); // the rest follows when the writer is done, or pauses
            }
            let still = body.state.read().generation == snapshot.generation;
            if still {
                return self.commit_parts(body, snapshot, part_size, &sent).await;
            }
        }
        Ok(())
    }

    /// Whether somebody writes this file just now: its last part is not finished then.
    fn is_being_written(&self, body: &Body) -> bool {
        let state = body.state.read();
        state.writers > 0 && state.last_change.elapsed() < QUIET
    }

    /// As large as the parts that are there already, where some of them may stay.
    async fn part_size_of(&self, body: &Body) -> VfsResult<u64> {
        let list = used_list(&body.state.read());
        let Some(list) = list else { return Ok(self.config.part_size) };
        match self.need_parts(&list).await {
            Ok(PartHeader { part_size, .. }) => Ok(part_size),
            Err(error) => Err(self.blame_put(body.ino, error)),
        }
    }

    fn round_start(&self, body: &Body, freeze: bool) -> VfsResult<Snapshot> {
        let mut state = body.state.write();
        if state.discarded {
            return Err(VfsError::Closing { what: "deleted file".into() });
        }
        state.frozen = freeze;
        state.low_water = state.size;
        Ok(Snapshot { generation: state.generation, size: state.size })
    }

    /// Parts of the committed version that the overlay does not touch stay; the others, and
    /// those that changed since they were sent, must go. Forgets what was sent in vain: the
    /// file is shorter, or shares the part with another by now.
    fn parts_to_send(
        &self,
        body: &Body,
        sent: &mut BTreeMap<u64, Sent>,
        part_size: u64,
        count: u64,
    ) -> VfsResult<Vec<u64>> {
        let state = body.state.read();
        let mut todo = Vec::new();
        sent.split_off(&count);
        for index in 0..count {
            let touched = self.part_touched(&state, part_size, index)?;
            let len = part_len(state.size, part_size, index);
            // A cut may have turned into zeros what was sent before it.
            let newest = touched.unwrap_or(0).max(state.cut);
            let fresh = sent.get(&index).is_some_and(|s| s.len == len && s.generation >= newest);
            if fresh {
                continue;
            }
            if touched.is_some() || !self.base_has_part(&state, part_size, index, len)? {
                todo.push(index);
            } else {
                sent.remove(&index);
            }
        }
        Ok(todo)
    }

    /// The newest generation that touched a part's range; `None` if the overlay has no
    /// block in it.
    fn part_touched(&self, state: &State, part_size: u64, index: u64) -> VfsResult<Option<u64>> {
        let Overlay::Chunks(chunks) = &state.overlay else { return Ok(Some(state.generation)) };
        let len = part_len(state.size, part_size, index);
        let mut newest = state.cleared.newest_within(index * part_size, index * part_size + len);
        for piece in pieces(index * part_size, len, CHUNK) {
            let Some(chunk) = chunks.get(&piece.index32()) else { continue };
            let whole = piece.within == 0
                && (piece.len as u64 == CHUNK || piece.offset + piece.len as u64 == state.size);
            if whole {
                newest = newest.max(Some(chunk.generation)); // the part is the chunk
                continue;
            }
            let block = BLOCK as u64;
            let first = piece.within / block;
            let last = (piece.within + piece.len as u64).div_ceil(block);
            let present = chunk.blob.present(first..last);
            if !present.map_err(|e| VfsError::from_blob(self.name_of(0), e))?.is_none() {
                newest = newest.max(Some(chunk.generation));
            }
        }
        Ok(newest)
    }

    /// Whether the committed version has this very part: same place, same length, all of it
    /// still shown.
    fn base_has_part(
        &self,
        state: &State,
        part_size: u64,
        index: u64,
        len: u64,
    ) -> VfsResult<bool> {
        let Version::Parts(list) = &state.base.version else { return Ok(false) };
        let Some(header) = self.part_header(list)? else { return Ok(false) };
        Ok(header.part_size == part_size
            && part_len(header.size, part_size, index) == len
            && state.base_len >= index * part_size + len)
    }

    async fn send_parts(
        self: &Arc<Self>,
        body: &Arc<Body>,
        part_size: u64,
        todo: Vec<u64>,
        sent: &mut BTreeMap<u64, Sent>,
        partial: bool,
    ) -> VfsResult<()> {
        // A part that has changed again since it was sent early may well go on changing.
        let size = body.state.read().size;
        let finished = |index: &u64| (index + 1) * part_size < size && !sent.contains_key(index);
        let todo: Vec<_> = todo.into_iter().filter(|index| !partial || finished(index)).collect();
        let mut going = stream::iter(todo)
            .map(|index| self.send_part(body, part_size, index))
            .buffer_unordered(PARTS_AT_ONCE);
        // Parts that wait for a vote do not keep the others from asking for theirs.
        let mut held = None;
        while let Some(done) = going.next().await {
            let (index, part) = match done {
                Err(error @ VfsError::AwaitingApproval { .. }) => {
                    held = Some(error);
                    continue;
                }
                done => done?,
            };
            if let Some(Sent { reference: Some(old), .. }) = sent.insert(index, part) {
                self.discard_now(&old.token)?;
            }
        }
        held.map_or(Ok(()), Err)
    }

    /// The part as it is recorded if it is a hole of which nothing has to be read.
    fn hole_part(&self, body: &Body, part_size: u64, index: u64) -> VfsResult<Option<Sent>> {
        let mut state = body.state.write();
        let (from, len) = (index * part_size, part_len(state.size, part_size, index));
        if len == 0 || !state.is_hole(self, from..from + len)? {
            return Ok(None);
        }
        state.low_water = state.size;
        Ok(Some(zeros(state.generation, from, len)))
    }

    async fn send_part(
        self: &Arc<Self>,
        body: &Arc<Body>,
        part_size: u64,
        index: u64,
    ) -> VfsResult<(u64, Sent)> {
        if let Some(part) = self.hole_part(body, part_size, index)? {
            self.record_sent(body.ino, index, &part)?;
            return Ok((index, part));
        }
        // What is fetched to make the part has room of its own.
        let _room = self.fetcher.reserve(part_size).await;
        let (snapshot, mut buffer) = self.snapshot(body, index * part_size, part_size).await?;
        let len = (buffer.len() - IV_LEN) as u64;
        let generation = snapshot.generation;
        if holes::is_zero(&buffer[IV_LEN..]) {
            let part = zeros(generation, index * part_size, len);
            self.record_sent(body.ino, index, &part)?;
            return Ok((index, part));
        }
        let holes = holes::find(index * part_size, &buffer[IV_LEN..]);
        let of = (body, Some(index), generation);
        let (seal, mark) = self.seal(of, &mut buffer)?;
        let meta = FileMeta {
            file_name: self.part_name(),
            extension: String::new(),
            context: self.remote.paths.parts(),
            path: "/".into(),
            size: len,
        };
        let sealed = Sealed { payload: Payload::Bytes(buffer.into_bytes()), seal, mark };
        let stored = self.store_marked(of, &meta, sealed).await;
        let Stored { reference, mark } = stored.map_err(|e| self.blame_put(body.ino, e))?;
        let part = Sent { reference: Some(reference), generation, len, holes };
        self.record_sent(body.ino, index, &part)?;
        drop(mark);
        Ok((index, part))
    }

    fn part_name(&self) -> String {
        let mut random = [0; 16];
        self.env.random.fill(&mut random);
        HEXLOWER.encode(&random)
    }

    async fn commit_parts(
        self: &Arc<Self>,
        body: &Arc<Body>,
        snapshot: Snapshot,
        part_size: u64,
        sent: &BTreeMap<u64, Sent>,
    ) -> VfsResult<()> {
        let (list, base_holes) = {
            let state = body.state.read();
            (used_list(&state), state.base.holes.clone())
        };
        let mut parts = Vec::new();
        let mut holes = Vec::new();
        for index in 0..part_count(snapshot.size, part_size) {
            let len = part_len(snapshot.size, part_size, index);
            if let Some(sent) = sent.get(&index).filter(|sent| sent.len == len) {
                parts.push(sent.reference.clone());
                sent.holes.iter().for_each(|hole| holes::add(&mut holes, *hole));
                continue;
            }
            let old = match &list {
                Some(list) => self.base_part(list, index).await?,
                None => None,
            };
            let Some(old) = old else {
                let why = format!("part {index} is neither staged nor in the vault");
                return Err(VfsError::Corrupt { what: self.name_of(body.ino), why });
            };
            parts.push(old);
            let (from, to) = (index * part_size, (index + 1) * part_size);
            holes::within(&base_holes, from, to).for_each(|h| holes::add(&mut holes, h));
        }
        let parts = PartList { size: snapshot.size, part_size, parts };
        if !parts.is_sound() {
            let why = "its parts are not as long as they should be".into();
            return Err(VfsError::Corrupt { what: self.name_of(body.ino), why });
        }
        let json = parts.to_json(&self.remote.catalog_keys);
        let mut buffer = Vec::with_capacity(IV_LEN + json.len() + TAG_LEN);
        buffer.resize(IV_LEN, 0);
        buffer.extend_from_slice(&json);
        let (seal, mark) = self.seal((body, None, snapshot.generation), &mut buffer)?;
        let sealed = Sealed { payload: Payload::Bytes(buffer.into()), seal, mark };
        let Stored { reference, mark } = self.store_visible(body, snapshot, sealed).await?;
        self.record_parts(&reference, &parts)?;
        // A staged chunk that is exactly one part becomes the cache's by a rename.
        let own = sent.iter().filter(|_| part_size == CHUNK);
        let own = own.filter_map(|(i, s)| Some((u32::try_from(*i).ok()?, s.clone()))).collect();
        let uploaded = Uploaded { base: PlaceBase::Parts(reference), holes, mark };
        self.commit_version(body, snapshot, uploaded, &own)?;
        self.forget_sent(body.ino)
    }

    /// A part of the committed version; `None` within for one of zeros.
    async fn base_part(
        &self,
        list: &Reference,
        index: u64,
    ) -> VfsResult<Option<Option<Reference>>> {
        match self.part(list, index)? {
            Some(part) => Ok(Some(part)),
            None => {
                self.need_parts(list).await?;
                self.part(list, index)
            }
        }
    }
}

/// A part of zeros only, which is not stored.
fn zeros(generation: u64, from: u64, len: u64) -> Sent {
    let holes: Vec<Hole> = holes::whole(from, len).into_iter().collect();
    Sent { reference: None, generation, len, holes }
}

/// The part list of the committed version, if any of its bytes still show.
fn used_list(state: &State) -> Option<Reference> {
    match &state.base.version {
        Version::Parts(list) if state.base_len > 0 => Some(list.clone()),
        _ => None,
    }
}
