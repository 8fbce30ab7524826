//! Checkpoints: the whole catalog in a few payloads, so that a new machine need not read
//! every segment since the beginning.
//!
//! Invariants
//! * A checkpoint says nothing that a segment may not say yet: names that were never
//!   published are left out, and none is written while a name that others know has
//!   changed and waits for a content (a file replaced by one that is not in the vault).
//! * Pages first, the manifest last: a manifest without all its pages cannot exist.
//! * Segments it covers are deleted later, after a grace period in which a reader that has
//!   just listed them can still fetch them; one that comes later loads the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use super::follow::Followed;
use super::keys;
use super::record::{Inode, Link, ROOT_INO};
use super::remote::{Remote, RemoteError};
use super::segment::{Applied, CheckpointManifest, InodeRecord, Paths, Record, Segment};
use crate::db::{Space, decode};
use crate::store::{ListFilter, Token, TokenRecord, list_all};

/// Records per page: about 2 MiB sealed.
const PAGE_RECORDS: usize = 8_000;

/// Segments after which a checkpoint is worth writing.
const SEGMENTS_PER_CHECKPOINT: u64 = 64;

/// How long covered segments stay, in milliseconds. A program that calls `fsync` all the
/// time makes tens of them a second, and each look of each machine lists them.
const GRACE_MS: u64 = 600_000;

/// How long a removal is remembered, in milliseconds: 90 days. Until then a machine that was
/// away may come back with changes from before it, and all will agree.
pub const FORGET_MS: u64 = 90 * 86_400_000;

/// Records forgotten in one change of the local database.
const FORGET_BATCH: usize = 4_000;

impl Remote {
    /// Loads the newest checkpoint that can be read, if there is one.
    pub(super) async fn load_checkpoint(
        &self,
        followed: &mut Followed,
    ) -> Result<bool, RemoteError> {
        for record in self.list_manifests().await?.into_iter().rev() {
            match self.load_one(&record, followed).await {
                Ok(()) => {
                    self.note_followed()?;
                    return Ok(true);
                }
                Err(RemoteError::Store(error)) if error.is_retryable() => return Err(error.into()),
                Err(error) => followed.damaged.push(format!(
                    "checkpoint {}: {error}",
                    record.file_name.as_deref().unwrap_or("?")
                )),
            }
        }
        self.note_followed()?;
        Ok(false)
    }

    async fn load_one(
        &self,
        record: &TokenRecord,
        followed: &mut Followed,
    ) -> Result<(), RemoteError> {
        let manifest = CheckpointManifest::from_bytes(&self.get(&record.token).await?)?;
        self.fetch_pages(manifest.pages, |page| {
            followed.stale.extend(self.tree.apply_page(&page)?);
            Ok(())
        })
        .await?;
        for (writer, covered) in &manifest.covers {
            self.tree.join_applied(*writer, covered)?;
        }
        Ok(())
    }

    fn note_followed(&self) -> Result<(), RemoteError> {
        let mut batch = self.tree.db().batch();
        batch.store(&keys::meta("followed"), &true);
        Ok(batch.commit()?)
    }

    /// Manifests, oldest first.
    async fn list_manifests(&self) -> Result<Vec<TokenRecord>, RemoteError> {
        let filter =
            ListFilter { context: Some(self.paths.checkpoints()), ..ListFilter::default() };
        let mut records = list_all(&*self.store, &filter).await?;
        let is_manifest =
            |r: &TokenRecord| r.file_name.as_deref().is_some_and(|n| n.ends_with(".checkpoint"));
        records.retain(is_manifest);
        records.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        Ok(records)
    }

    /// Writes a checkpoint if enough segments have gathered and nothing is held back.
    pub async fn checkpoint_if_due(&self) -> Result<bool, RemoteError> {
        let own = self.tree.applied(self.tree.writer())?.through;
        let last = self.tree.db().load::<u64>(&keys::meta("checkpoint"))?.unwrap_or(0);
        if own < last + SEGMENTS_PER_CHECKPOINT || !self.checkpoint().await? {
            return Ok(false);
        }
        let mut batch = self.tree.db().batch();
        batch.store(&keys::meta("checkpoint"), &own);
        batch.commit()?;
        Ok(true)
    }

    /// Writes a checkpoint of what is applied here; false if something is held back.
    pub async fn checkpoint(&self) -> Result<bool, RemoteError> {
        if self.holds_back_known_names()? {
            return Ok(false);
        }
        self.forget_old(self.env.millis().saturating_sub(FORGET_MS))?;
        let covers = self.all_applied()?;
        let stamp = self.tree.begin().stamp();
        let mut pages = Vec::new();
        let mut cursor = Some(keys::inode(ROOT_INO));
        while let Some(from) = cursor {
            let (records, next) = self.page(&from)?;
            cursor = next;
            if records.is_empty() {
                continue;
            }
            let tokens = records.iter().filter_map(content_token).collect();
            let page =
                Segment { writer: self.tree.writer(), seq: pages.len() as u64, records, tokens };
            let name = Paths::page_name(stamp, pages.len());
            pages.push(self.put(self.paths.checkpoints(), name, &page.to_bytes()).await?);
        }
        if self.holds_back_known_names()? {
            // It came up while the pages were read.
            self.discard_payloads(&pages, 0)?;
            return Ok(false);
        }
        let old = self.list_manifests().await?;
        let manifest = CheckpointManifest { covers, pages };
        let name = Paths::checkpoint_name(stamp);
        self.put(self.paths.checkpoints(), name, &manifest.to_bytes()).await?;
        self.discard_covered(&manifest.covers, old).await?;
        Ok(true)
    }

    /// One page of records from a key on, and where to go on. Inodes, then links.
    fn page(&self, from: &[u8]) -> Result<(Vec<Record>, Option<Vec<u8>>), RemoteError> {
        let mut records = Vec::new();
        let mut next = None;
        let inodes = from.first() == Some(&b'I');
        self.tree.db().scan(&from[..1], from, |key, value| {
            if records.len() == PAGE_RECORDS {
                next = Some(key.to_vec());
                return Ok(false);
            }
            if inodes {
                let inode: Inode = decode(&value)?;
                if !inode.local.foreign && !inode.local.unwanted {
                    records.push(Record::Inode(Box::new(InodeRecord::from(&inode))));
                }
            } else {
                let link: Link = decode(&value)?;
                if link.published {
                    records.push(Record::Link(link));
                }
            }
            Ok(true)
        })?;
        if next.is_none() && inodes {
            next = Some(keys::link(0));
        }
        Ok((records, next))
    }

    fn all_applied(&self) -> Result<BTreeMap<u32, Applied>, RemoteError> {
        let mut all = BTreeMap::new();
        self.tree.db().scan(keys::APPLIED, keys::APPLIED, |key, value| {
            let mut writer = [0; 4];
            writer.copy_from_slice(&key[1..5]);
            all.insert(u32::from_be_bytes(writer), decode(&value)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Forgets names that were removed before `horizon` (milliseconds since 1970), and inodes
    /// that have no name and no remembered one; gives how many records went.
    pub fn forget_old(&self, horizon: u64) -> Result<u64, RemoteError> {
        let old = |link: &Link| !link.live && link.stamp.hlc >> 16 < horizon;
        let (mut links, mut remembered) = (Vec::new(), BTreeSet::new());
        let (first_link, first_inode) = (keys::link(0), keys::inode(0));
        self.tree.db().scan(&first_link[..1], &first_link, |_, value| {
            let link: Link = decode(&value)?;
            if old(&link) {
                links.push(link.id);
            } else if !link.live {
                remembered.insert(link.ino);
            }
            Ok(true)
        })?;
        let mut inodes = Vec::new();
        self.tree.db().scan(&first_inode[..1], &first_inode, |_, value| {
            let inode: Inode = decode(&value)?;
            let local = &inode.local;
            let nameless = local.nlink == 0 && local.dirty.is_none();
            if nameless && inode.newest().hlc >> 16 < horizon && !remembered.contains(&inode.ino) {
                inodes.push(inode.ino);
            }
            Ok(true)
        })?;
        for some in links.chunks(FORGET_BATCH) {
            let mut txn = self.tree.begin();
            for id in some {
                if txn.find_link(*id)?.is_some_and(|link| old(&link)) {
                    txn.remove_link(*id);
                }
            }
            txn.commit()?;
        }
        for some in inodes.chunks(FORGET_BATCH) {
            let mut txn = self.tree.begin();
            for ino in some {
                let open = self.tree.db().contains(Space::Meta, &keys::orphan(*ino))?;
                if !open && txn.find_inode(*ino)?.is_some_and(|i| i.local.nlink == 0) {
                    txn.remove_inode(*ino);
                }
            }
            txn.commit()?;
        }
        Ok((links.len() + inodes.len()) as u64)
    }

    async fn discard_covered(
        &self,
        covers: &BTreeMap<u32, Applied>,
        old: Vec<TokenRecord>,
    ) -> Result<(), RemoteError> {
        let log = ListFilter { context: Some(self.paths.log()), ..ListFilter::default() };
        let segments = list_all(&*self.store, &log).await?;
        let covered = segments.into_iter().filter(|r| {
            let name = r.file_name.as_deref().and_then(Paths::parse_segment);
            name.is_some_and(|(writer, seq)| covers.get(&writer).is_some_and(|a| a.has(seq)))
        });
        let mut done: Vec<Token> = covered.map(|r| r.token).collect();
        for record in old {
            // A manifest that cannot be read any more cannot name its pages either.
            if let Ok(bytes) = self.get(&record.token).await
                && let Ok(manifest) = CheckpointManifest::from_bytes(&bytes)
            {
                done.extend(manifest.pages);
            }
            done.push(record.token);
        }
        self.discard_payloads(&done, GRACE_MS)
    }

    fn discard_payloads(&self, tokens: &[Token], delay_ms: u64) -> Result<(), RemoteError> {
        let mut txn = self.tree.begin();
        for token in tokens {
            txn.discard_catalog(token, delay_ms);
        }
        txn.commit()?;
        Ok(())
    }
}

fn content_token(record: &Record) -> Option<Token> {
    match record {
        Record::Inode(inode) => inode.content.version.token().cloned(),
        Record::Link(_) => None,
    }
}
