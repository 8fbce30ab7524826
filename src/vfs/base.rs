//! Reading committed versions: which payload holds which bytes.
//!
//! Invariant: what the local table says of a part list was read from the very payload that the
//! list's reference means. Another payload under the same token is another list.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::body::{Body, Need, pieces};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::format::part_list::{LIST_MAX, PartList};
use crate::catalog::local::schema;
use crate::catalog::{Content, Stale, Version};
use crate::content::fetch::{FetchError, Fetched};
use crate::crypto::Identity;
use crate::db::{Space, decode, encode};
use crate::store::{Reference, StoreErrorKind, Token};

/// Parts per page in the local database: a file of 1 TiB has 256 pages.
const PAGE: u64 = 256;

/// The page that is the header.
const HEADER: u32 = u32::MAX;

/// Pages kept decoded: about 24 KiB each.
const PAGES_KEPT: usize = 64;

/// Headers kept decoded.
const HEADERS_KEPT: usize = 1024;

/// A page: the list's tag, what the list is, and the page's number.
type PageKey = ([u8; 16], Identity, u32);

/// The parts of a page; `None` for one of zeros that is not stored.
type Page = Arc<Vec<Option<Reference>>>;

/// The figures of a part list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartHeader {
    /// Bytes of the file.
    pub(super) size: u64,
    /// Bytes of every part but the last.
    pub(super) part_size: u64,
    /// How many parts there are.
    pub(super) count: u64,
}

/// Recently used part lists.
pub(super) struct PartTable {
    pages: Mutex<LruCache<PageKey, Page>>,
    headers: Mutex<LruCache<Reference, PartHeader>>,
}

impl Default for PartTable {
    fn default() -> Self {
        let kept = |kept| LruCache::new(NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN));
        let headers = LruCache::new(NonZeroUsize::new(HEADERS_KEPT).unwrap_or(NonZeroUsize::MIN));
        Self { pages: Mutex::new(kept(PAGES_KEPT)), headers: Mutex::new(headers) }
    }
}

impl Vfs {
    /// Copies committed bytes from `offset` into `out`, or says what must be fetched.
    pub(super) fn read_version(
        &self,
        content: &Content,
        offset: u64,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        match &content.version {
            Version::Empty => {
                out.fill(0);
                Ok(None)
            }
            Version::Whole(reference) => Ok(self.read_payload(reference, offset, out, held)),
            Version::Parts(list) => self.read_parts(list, offset, out, held),
            Version::Unread(token) => Ok(Some(Need::Unread(token.clone()))),
            Version::Damaged => {
                let why = "no token has what was stored".into();
                Err(VfsError::Corrupt { what: self.name_of_open(), why })
            }
        }
    }

    fn read_parts(
        &self,
        list: &Reference,
        offset: u64,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> VfsResult<Option<Need>> {
        let missing = || Ok(Some(Need::Manifest(list.clone())));
        let Some(header) = self.part_header(list)? else { return missing() };
        for piece in pieces(offset, out.len() as u64, header.part_size) {
            let bytes = &mut out[piece.at..piece.at + piece.len];
            if piece.index >= header.count {
                let why = format!("its list has {} parts only", header.count);
                return Err(VfsError::Corrupt { what: self.name_of_open(), why });
            }
            let need = match self.part(list, piece.index)? {
                None => return missing(),
                Some(None) => {
                    bytes.fill(0);
                    None
                }
                Some(Some(part)) => self.read_payload(&part, piece.within, bytes, held),
            };
            if need.is_some() {
                return Ok(need);
            }
        }
        Ok(None)
    }

    fn read_payload(
        &self,
        reference: &Reference,
        offset: u64,
        out: &mut [u8],
        held: &[(Reference, Bytes)],
    ) -> Option<Need> {
        if let Some((_, plain)) = held.iter().find(|(of, _)| of == reference) {
            let start = (offset as usize).min(plain.len());
            let len = out.len().min(plain.len() - start);
            out[..len].copy_from_slice(&plain[start..start + len]);
            out[len..].fill(0);
            return None;
        }
        match self.fetcher.try_read(reference, offset, out) {
            true => None,
            false => Some(Need::Content(reference.clone())),
        }
    }

    /// The figures of a part list, if it is in the local database.
    pub(super) fn part_header(&self, list: &Reference) -> VfsResult<Option<PartHeader>> {
        if let Some(header) = self.parts.headers.lock().get(list) {
            return Ok(Some(*header));
        }
        let key = schema::parts(&self.tree.token_tag(&list.token), HEADER);
        let stored: Option<(u64, u64, u64, Identity)> = self.tree.db().load(&key)?;
        let Some((size, part_size, count, identity)) = stored else { return Ok(None) };
        if identity != list.identity {
            return Ok(None);
        }
        let header = PartHeader { size, part_size, count };
        self.parts.headers.lock().put(list.clone(), header);
        Ok(Some(header))
    }

    /// A part of a list that is in the local database; `None` within for one of zeros that is
    /// not stored.
    pub(super) fn part(
        &self,
        list: &Reference,
        index: u64,
    ) -> VfsResult<Option<Option<Reference>>> {
        let tag = self.tree.token_tag(&list.token);
        let page = u32::try_from(index / PAGE).unwrap_or(u32::MAX);
        let within = (index % PAGE) as usize;
        let key = (tag, list.identity, page);
        if let Some(parts) = self.parts.pages.lock().get(&key) {
            return Ok(parts.get(within).cloned());
        }
        if self.part_header(list)?.is_none() {
            return Ok(None);
        }
        let stored: Option<Vec<Option<Reference>>> =
            self.tree.db().load(&schema::parts(&tag, page))?;
        let Some(parts) = stored.map(Arc::new) else { return Ok(None) };
        let part = parts.get(within).cloned();
        self.parts.pages.lock().put(key, parts);
        Ok(part)
    }

    /// Records what a part list names.
    pub(super) fn record_parts(&self, of: &Reference, list: &PartList) -> VfsResult<()> {
        let tag = self.tree.token_tag(&of.token);
        self.forget_decoded(of);
        let mut batch = self.tree.db().batch();
        for (page, parts) in list.parts.chunks(PAGE as usize).enumerate() {
            let page = u32::try_from(page).unwrap_or(HEADER - 1);
            batch.put(Space::Meta, &schema::parts(&tag, page), &encode(&parts.to_vec()));
        }
        for part in list.parts.iter().flatten() {
            let key = schema::part(&self.tree.token_tag(&part.token), &tag);
            batch.put(Space::Meta, &key, &encode(&()));
        }
        let header = (list.size, list.part_size, list.parts.len() as u64, of.identity);
        batch.store(&schema::parts(&tag, HEADER), &header);
        batch.remove(Space::Meta, &schema::unindexed(&tag));
        Ok(batch.commit()?)
    }

    /// Forgets what is recorded of a part list that is deleted.
    pub(super) fn forget_parts(&self, list: &Token) -> VfsResult<()> {
        let tag = self.tree.token_tag(list);
        let prefix = schema::parts_of(&tag);
        let mut batch = self.tree.db().batch();
        let mut identity = None;
        self.tree.db().scan(&prefix, &prefix, |key, value| {
            batch.remove(Space::Meta, key);
            if key.ends_with(&HEADER.to_be_bytes()) {
                identity = Some(decode::<(u64, u64, u64, Identity)>(&value)?.3);
                return Ok(true);
            }
            for part in decode::<Vec<Option<Reference>>>(&value)?.into_iter().flatten() {
                batch.remove(Space::Meta, &schema::part(&self.tree.token_tag(&part.token), &tag));
            }
            Ok(true)
        })?;
        batch.remove(Space::Meta, &schema::unindexed(&tag));
        batch.commit()?;
        if let Some(identity) = identity {
            self.forget_decoded(&Reference { token: list.clone(), identity });
        }
        Ok(())
    }

    fn forget_decoded(&self, list: &Reference) {
        let tag = self.tree.token_tag(&list.token);
        self.parts.headers.lock().pop(list);
        let mut pages = self.parts.pages.lock();
        let of_list: Vec<PageKey> =
            pages.iter().map(|(key, _)| *key).filter(|key| key.0 == tag).collect();
        for key in of_list {
            pages.pop(&key);
        }
    }

    /// The parts that are recorded of a list, those that are stored, each once; `None` if nothing
    /// is recorded of it.
    pub(super) fn recorded_parts(&self, list: &Token) -> VfsResult<Option<Vec<Token>>> {
        let tag = self.tree.token_tag(list);
        let prefix = schema::parts_of(&tag);
        let (mut found, mut known) = (std::collections::BTreeSet::new(), false);
        self.tree.db().scan(&prefix, &prefix, |key, value| {
            match key.ends_with(&HEADER.to_be_bytes()) {
                true => known = true,
                false => {
                    let parts = decode::<Vec<Option<Reference>>>(&value)?;
                    found.extend(parts.into_iter().flatten().map(|part| part.token));
                }
            }
            Ok(true)
        })?;
        Ok(known.then(|| found.into_iter().collect()))
    }

    /// What a part list in the vault says.
    async fn fetch_list(&self, of: &Reference) -> VfsResult<PartList> {
        let fetched = self.fetcher.fetch(of).await;
        let fetched = fetched.map_err(|e| VfsError::from_fetch("part list", e))?;
        let Some(plain) = self.fetcher.whole(of, &fetched, LIST_MAX as u64) else {
            let why = "its list of parts could not be kept: is the cache directory full?".into();
            return Err(VfsError::Local { what: "part list".into(), why });
        };
        PartList::from_json(&plain, &self.remote.catalog_keys)
            .map_err(|e| VfsError::Corrupt { what: "part list".into(), why: e.to_string() })
    }

    /// The figures of a part list, from the local database or the vault; its parts are in the
    /// local database then.
    pub(super) async fn need_parts(&self, list: &Reference) -> VfsResult<PartHeader> {
        if let Some(header) = self.part_header(list)? {
            return Ok(header);
        }
        let parts = self.fetch_list(list).await?;
        self.record_parts(list, &parts)?;
        let PartList { size, part_size, parts } = parts;
        Ok(PartHeader { size, part_size, count: parts.len() as u64 })
    }

    /// The same as [`Vfs::satisfy_now`], for an operation that may wait for a vote.
    pub(super) async fn satisfy(
        &self,
        ino: Ino,
        need: Need,
        held: &mut Vec<(Reference, Bytes)>,
    ) -> VfsResult<()> {
        match need {
            Need::Thaw => self.satisfy_now(ino, need, held).await,
            Need::Content(_) | Need::Unread(_) | Need::Manifest(_) => {
                self.satisfy_approved(ino, need, held).await
            }
        }
    }

    /// Fetches what an operation needs, within the deadline; plaintext that fits in memory
    /// is added to `held`, so that the operation can go on even if the cache cannot keep it.
    pub(super) async fn satisfy_now(
        &self,
        ino: Ino,
        need: Need,
        held: &mut Vec<(Reference, Bytes)>,
    ) -> VfsResult<()> {
        let deadline = self.config.deadline;
        let timed_out = |_| VfsError::TimedOut {
            what: self.name_of(ino),
            why: format!("no answer within {} s", deadline.as_secs()),
        };
        let failed = |e| self.note_failure(ino, VfsError::from_fetch(self.name_of(ino), e));
        match need {
            Need::Thaw => {
                let Some(body) = self.find_body(ino) else { return Ok(()) };
                let thawed = async {
                    loop {
                        let woken = body.changed.notified();
                        if !body.state.read().frozen {
                            return;
                        }
                        woken.await;
                    }
                };
                tokio::time::timeout(deadline, thawed).await.map_err(timed_out)
            }
            Need::Content(reference) => {
                let fetched = tokio::time::timeout(deadline, self.fetcher.fetch(&reference));
                let fetched = fetched.await.map_err(timed_out)?.map_err(failed)?;
                self.check_size_of(ino, &reference, &fetched)?;
                hold(held, reference, fetched);
                Ok(())
            }
            Need::Unread(token) => {
                if self.take_pinned(ino, &token)? {
                    return Ok(());
                }
                let fetched = tokio::time::timeout(deadline, self.fetcher.fetch_unread(&token));
                let (fetched, identity) = fetched.await.map_err(timed_out)?.map_err(failed)?;
                let reference = Reference { token, identity };
                self.pin(ino, &reference, &fetched)?;
                hold(held, reference, fetched);
                Ok(())
            }
            Need::Manifest(list) => {
                let parts = tokio::time::timeout(deadline, self.fetch_list(&list));
                let parts = parts.await.map_err(timed_out)??;
                self.record_parts(&list, &parts)
            }
        }
    }

    /// The payload that was pinned must be as long as its version says.
    fn check_size_of(&self, ino: Ino, of: &Reference, fetched: &Fetched) -> VfsResult<()> {
        let content = &self.tree.inode(ino)?.content;
        if content.version != Version::Whole(of.clone()) || content.size == fetched.len {
            return Ok(());
        }
        let why =
            format!("the vault returned {} bytes where {} were stored", fetched.len, content.size);
        Err(VfsError::Corrupt { what: self.name_of(ino), why })
    }

    /// Pins what the first read of another client's token has shown, its true size with it: the
    /// one that the service lists is only informative (protocol C.4.5).
    fn pin(&self, ino: Ino, of: &Reference, fetched: &Fetched) -> VfsResult<()> {
        let mut first = [0];
        let is_json = match &fetched.plain {
            Some(_) => true,
            None => self.fetcher.try_read(of, 0, &mut first) && b"{ \t\r\n".contains(&first[0]),
        };
        let plain = is_json.then(|| self.fetcher.whole(of, fetched, LIST_MAX as u64)).flatten();
        let list = plain.and_then(|p| PartList::from_json(&p, &self.remote.catalog_keys).ok());
        if let Some(list) = &list {
            self.record_parts(of, list)?;
        }
        let size = list.as_ref().map_or(fetched.len, |list| list.size);
        let mut txn = self.tree.begin();
        txn.pin_others(ino, of, size, list.is_some())?;
        let tag = self.tree.token_tag(&of.token);
        txn.raw(Space::Meta, schema::unindexed(&tag), None);
        let mut stale = txn.commit()?;
        self.want_publish();
        self.take_pinned(ino, &of.token)?;
        stale.push(Stale::Inode { ino, data: true });
        self.announce_later(stale);
        Ok(())
    }

    /// Puts what is pinned of another client's token under what is open of it; says whether it is
    /// pinned.
    fn take_pinned(&self, ino: Ino, token: &Token) -> VfsResult<bool> {
        let content = self.tree.inode(ino)?.content.clone();
        if content.version.token() != Some(token) || matches!(content.version, Version::Unread(_)) {
            return Ok(false);
        }
        if let Some(body) = self.find_body(ino) {
            self.refresh_body(&body)?;
            let mut state = body.state.write();
            if matches!(&state.base.version, Version::Unread(unread) if unread == token) {
                // What has been written over it did not look at it.
                state.base = content;
            }
        }
        Ok(true)
    }

    /// Before a version is written over another client's token that nobody has read: what is in
    /// it is pinned, so that the new version can say that it takes its place.
    pub(super) async fn pin_base(&self, body: &Body) -> VfsResult<()> {
        let Version::Unread(token) = body.state.read().base.version.clone() else { return Ok(()) };
        if self.take_pinned(body.ino, &token)? {
            return Ok(());
        }
        match self.fetcher.fetch_unread(&token).await {
            Ok((fetched, identity)) => self.pin(body.ino, &Reference { token, identity }, &fetched),
            // Gone, or nothing that this key opens: nobody will ever know what was in it.
            Err(FetchError::Sealed(_) | FetchError::Replaced) => Ok(()),
            Err(FetchError::Store(error)) if error.kind == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(VfsError::from_fetch(self.name_of(body.ino), error)),
        }
    }
}

/// Keeps a plaintext for the operation that needs it.
fn hold(held: &mut Vec<(Reference, Bytes)>, reference: Reference, fetched: Fetched) {
    let Some(plain) = fetched.plain else { return };
    if held.len() >= 2 {
        held.remove(0);
    }
    held.push((reference, plain));
}
