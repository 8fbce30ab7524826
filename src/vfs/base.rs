//! Reading committed versions: which payload holds which bytes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::body::{Need, pieces};
use super::error::{VfsError, VfsResult};
use super::{Ino, Vfs};
use crate::catalog::keys;
use crate::catalog::{Content, Version};
use crate::content::fetch::Fetched;
use crate::content::manifest::Manifest;
use crate::db::{Space, decode, encode};
use crate::store::Token;

/// Part tokens per page in the local database: a file of 1 TiB has 256 pages.
const PAGE: u64 = 256;

/// Pages kept decoded: about 16 KiB each.
const PAGES_KEPT: usize = 64;

/// A page: the manifest's tag and the page's number.
type PageKey = ([u8; 16], u32);

/// Recently used pages of part tokens.
pub(super) struct PartTable(Mutex<LruCache<PageKey, Arc<Vec<Token>>>>);

impl Default for PartTable {
    fn default() -> Self {
        let kept = NonZeroUsize::new(PAGES_KEPT).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(kept)))
    }
}

impl Vfs {
    /// Copies committed bytes from `offset` into `out`, or says what must be fetched.
    pub(super) fn read_version(
        &self,
        content: &Content,
        offset: u64,
        out: &mut [u8],
        held: &[(Token, Bytes)],
    ) -> VfsResult<Option<Need>> {
        match &content.version {
            Version::Empty => {
                out.fill(0);
                Ok(None)
            }
            Version::Single { token } => Ok(self.read_payload(token, offset, out, held)),
            Version::Parts { manifest, part_size, .. } => {
                for piece in pieces(offset, out.len() as u64, *part_size) {
                    let Some(token) = self.part(manifest, piece.index)? else {
                        return Ok(Some(Need::Manifest(manifest.clone())));
                    };
                    let part = &mut out[piece.at..piece.at + piece.len];
                    let need = self.read_payload(&token, piece.within, part, held);
                    if need.is_some() {
                        return Ok(need);
                    }
                }
                Ok(None)
            }
        }
    }

    fn read_payload(
        &self,
        token: &Token,
        offset: u64,
        out: &mut [u8],
        held: &[(Token, Bytes)],
    ) -> Option<Need> {
        if let Some((_, plain)) = held.iter().find(|(t, _)| t == token) {
            let start = (offset as usize).min(plain.len());
            let len = out.len().min(plain.len() - start);
            out[..len].copy_from_slice(&plain[start..start + len]);
            out[len..].fill(0);
            return None;
        }
        match self.fetcher.try_read(token, offset, out) {
            true => None,
            false => Some(Need::Content(token.clone())),
        }
    }

    /// The token of a part, if the manifest's list is in the local database.
    pub(super) fn part(&self, manifest: &Token, index: u64) -> VfsResult<Option<Token>> {
        let tag = self.tree.token_tag(manifest);
        let page = u32::try_from(index / PAGE).unwrap_or(u32::MAX);
        let within = (index % PAGE) as usize;
        if let Some(tokens) = self.parts.0.lock().get(&(tag, page)) {
            return Ok(tokens.get(within).cloned());
        }
        let Some(bytes) = self.tree.db().get(Space::Meta, &keys::parts(&tag, page))? else {
            return Ok(None);
        };
        let tokens: Arc<Vec<Token>> = Arc::new(decode(&bytes)?);
        let token = tokens.get(within).cloned();
        self.parts.0.lock().put((tag, page), tokens);
        Ok(token)
    }

    /// Records the part tokens of a manifest.
    pub(super) fn record_parts(&self, manifest: &Token, parts: &[Token]) -> VfsResult<()> {
        let tag = self.tree.token_tag(manifest);
        let mut batch = self.tree.db().batch();
        for (page, tokens) in parts.chunks(PAGE as usize).enumerate() {
            let key = keys::parts(&tag, u32::try_from(page).unwrap_or(u32::MAX));
            batch.put(Space::Meta, &key, &encode(&tokens.to_vec()));
        }
        for token in parts {
            let known = keys::token(&self.tree.token_tag(token));
            batch.put(Space::Meta, &known, &encode(&0u64));
        }
        Ok(batch.commit()?)
    }

    /// Forgets the recorded parts of a manifest.
    pub(super) fn forget_parts(&self, manifest: &Token, count: u64) -> VfsResult<()> {
        let tag = self.tree.token_tag(manifest);
        let mut batch = self.tree.db().batch();
        for page in 0..count.div_ceil(PAGE) {
            let page = u32::try_from(page).unwrap_or(u32::MAX);
            self.parts.0.lock().pop(&(tag, page));
            batch.remove(Space::Meta, &keys::parts(&tag, page));
        }
        Ok(batch.commit()?)
    }

    /// All part tokens of a manifest, fetched if need be.
    pub(super) async fn all_parts(&self, manifest: &Token) -> VfsResult<Vec<Token>> {
        let fetched = self.fetcher.fetch(manifest).await;
        let fetched = fetched.map_err(|e| VfsError::from_fetch("manifest", e))?;
        let plain = fetched.plain.unwrap_or_default();
        let manifest = Manifest::from_bytes(&plain)
            .map_err(|e| VfsError::Corrupt { what: "manifest".into(), why: e.to_string() })?;
        Ok(manifest.parts)
    }

    /// The part tokens of a split version, from the local database or the vault.
    pub(super) async fn parts_of(&self, version: &Version) -> VfsResult<Vec<Token>> {
        let Version::Parts { manifest, count, .. } = version else { return Ok(Vec::new()) };
        let mut parts = Vec::with_capacity(*count as usize);
        for index in 0..u64::from(*count) {
            let Some(token) = self.part(manifest, index)? else {
                let parts = self.all_parts(manifest).await?;
                self.record_parts(manifest, &parts)?;
                return Ok(parts);
            };
            parts.push(token);
        }
        Ok(parts)
    }

    /// The same as [`Vfs::satisfy_now`], for an operation that may wait for a vote.
    pub(super) async fn satisfy(
        &self,
        ino: Ino,
        need: Need,
        held: &mut Vec<(Token, Bytes)>,
    ) -> VfsResult<()> {
        match need {
            Need::Thaw => self.satisfy_now(ino, need, held).await,
            Need::Content(_) | Need::Manifest(_) => self.satisfy_approved(ino, need, held).await,
        }
    }

    /// Fetches what an operation needs, within the deadline; plaintext that fits in memory
    /// is added to `held`, so that the operation can go on even if the cache cannot keep it.
    pub(super) async fn satisfy_now(
        &self,
        ino: Ino,
        need: Need,
        held: &mut Vec<(Token, Bytes)>,
    ) -> VfsResult<()> {
        let deadline = self.config.deadline;
        let timed_out = |_| VfsError::TimedOut {
            what: self.name_of(ino),
            why: format!("no answer within {} s", deadline.as_secs()),
        };
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
            Need::Content(token) => {
                let fetched = tokio::time::timeout(deadline, self.fetcher.fetch(&token))
                    .await
                    .map_err(timed_out)?
                    .map_err(|e| {
                        self.note_failure(ino, VfsError::from_fetch(self.name_of(ino), e))
                    })?;
                self.learn_size(ino, &token, &fetched)?;
                if let Some(plain) = fetched.plain {
                    if held.len() >= 2 {
                        held.remove(0);
                    }
                    held.push((token, plain));
                }
                Ok(())
            }
            Need::Manifest(token) => {
                let parts = tokio::time::timeout(deadline, self.all_parts(&token))
                    .await
                    .map_err(timed_out)??;
                self.record_parts(&token, &parts)
            }
        }
    }

    /// A discovered file's declared size is only informative (protocol C.4.5): the first
    /// fetch tells the true one.
    fn learn_size(&self, ino: Ino, token: &Token, fetched: &Fetched) -> VfsResult<()> {
        let inode = self.tree.inode(ino)?;
        let Version::Single { token: own } = &inode.content.version else { return Ok(()) };
        if own != token || inode.content.size == fetched.len {
            return Ok(());
        }
        if inode.content.stamp.writer != 0 {
            let why = format!(
                "the vault returned {} bytes where {} were stored",
                fetched.len, inode.content.size
            );
            return Err(VfsError::Corrupt { what: self.name_of(ino), why });
        }
        let mut txn = self.tree.begin();
        let mut inode = txn.inode(ino)?;
        inode.content.size = fetched.len;
        txn.put_inode(inode.clone());
        let mut stale = txn.commit()?;
        if let Some(body) = self.find_body(ino) {
            self.refresh_body(&body)?;
        }
        stale.push(crate::catalog::Stale::Inode { ino, data: true });
        self.announce_later(stale);
        Ok(())
    }
}
