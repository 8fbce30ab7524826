//! Sending the outbox to the vault in segments.
//!
//! One publisher runs at a time (the caller holds a lock). A segment is a snapshot of the
//! current registers of the changed records, so create, write, chmod and rename in quick
//! succession become one record. Order (invariant 6 of the catalog): a record is left
//! for a later segment while the content it needs is not in the vault.
//!
//! At the end of every segment of this writer its directories are as they were here at one
//! moment: directories that moved go together, as they are when the segment gets its
//! number, and a directory is removed only when all that has left it is in the vault too.
//! Otherwise another machine would find a directory below itself, or a removed one that
//! still holds something, and would act on it.
//!
//! Crash: the number is recorded, and the links marked as published, before the segment
//! is sent. If its fate is unknown, the same records go out again in the next segment;
//! applying records twice changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::keys;
use super::outbox::Change;
use super::record::{Ino, Inode, Kind, Link};
use super::remote::{Remote, RemoteError};
use super::segment::{InodeRecord, Paths, Record, Segment};
use super::txn::{OutboxEntry, Txn};
use crate::db::{Space, decode};
use crate::store::Token;

/// Most records in one segment: about 4 MiB sealed.
const SEGMENT_RECORDS: usize = 16_000;

/// Outbox entries read at a time.
const SCAN_RECORDS: usize = 4_000;

/// What one call of [`Remote::publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records acknowledged by the vault.
    pub sent: u64,
    /// Records found to wait for a content.
    pub held: u64,
    /// Time spent looking for what can be sent.
    pub looking: Duration,
}

/// One outbox entry with the record as it is now.
enum Ready {
    Inode(Box<Inode>),
    Link(Link),
}

impl Ready {
    fn link_id(&self) -> Option<u64> {
        match self {
            Self::Inode(_) => None,
            Self::Link(link) => Some(link.id),
        }
    }
}

/// What one pass over the outbox found.
#[derive(Default)]
struct Found {
    ready: Vec<Ready>,
    /// Removed directories: they go last, when nothing else is left to send.
    removed_dirs: Vec<Link>,
    gone: Vec<Change>,
    held: u64,
}

impl Remote {
    /// Number of records in the outbox; at least `limit` if there are more.
    pub fn outbox_len(&self, limit: u64) -> Result<u64, RemoteError> {
        if let Some(count) = self.tree.outbox.lock().len() {
            return Ok(count);
        }
        let mut count = 0;
        self.tree.db().scan(keys::OUTBOX, keys::OUTBOX, |_, _| {
            count += 1;
            Ok(count < limit)
        })?;
        Ok(count)
    }

    /// Publishes all records that are ready; returns when the vault has acknowledged them.
    pub async fn publish(&self) -> Result<Published, RemoteError> {
        let mut total = Published::default();
        loop {
            let started = Instant::now();
            let mut found = self.find_ready()?;
            total.looking += started.elapsed();
            total.held = found.held;
            self.drop_gone(&found.gone)?;
            let mut full = found.ready.len() >= SEGMENT_RECORDS;
            if !full {
                // In the order of their removal: what was inside goes with or before.
                found.removed_dirs.sort_by_key(|link| link.stamp);
                let room = SEGMENT_RECORDS - found.ready.len();
                full = found.removed_dirs.len() > room;
                found.removed_dirs.truncate(room);
                found.ready.extend(found.removed_dirs.drain(..).map(Ready::Link));
            }
            if found.ready.is_empty() {
                return Ok(total);
            }
            let sent = self.send(found.ready).await?;
            total.sent += sent;
            if !full || sent == 0 {
                return Ok(total);
            }
        }
    }

    fn find_ready(&self) -> Result<Found, RemoteError> {
        let mut found = Found::default();
        let all = self.tree.outbox.lock().start_over();
        let mut last = None;
        loop {
            if found.ready.len() >= SEGMENT_RECORDS {
                if all {
                    self.tree.outbox.lock().miss();
                }
                return Ok(found);
            }
            let changes = match all {
                true => self.stored_behind(last)?,
                false => self.tree.outbox.lock().look_behind(last, SCAN_RECORDS),
            };
            let Some(&behind) = changes.last() else { return Ok(found) };
            last = Some(behind);
            for change in changes {
                match self.look_at(change)? {
                    State::Ready(Ready::Link(link)) if link.kind == Kind::Dir && !link.live => {
                        found.removed_dirs.push(link);
                    }
                    State::Ready(ready) => found.ready.push(ready),
                    State::Held(ino) => {
                        self.tree.outbox.lock().park(change, ino);
                        if !self.content_waits(ino)? {
                            self.tree.outbox.lock().wake(ino);
                        }
                        found.held += 1;
                    }
                    State::Gone => found.gone.push(change),
                }
            }
        }
    }

    /// The next records from the database, of which there were more than memory keeps.
    fn stored_behind(&self, last: Option<Change>) -> Result<Vec<Change>, RemoteError> {
        let mut from = last.map_or_else(|| keys::OUTBOX.to_vec(), Change::key);
        from.extend(last.map(|_| 0)); // the next key
        let mut changes = Vec::new();
        self.tree.db().scan(keys::OUTBOX, &from, |key, _| {
            changes.extend(Change::of_key(key));
            Ok(changes.len() < SCAN_RECORDS)
        })?;
        let mut outbox = self.tree.outbox.lock();
        changes.iter().for_each(|change| outbox.add(*change));
        Ok(changes)
    }

    fn look_at(&self, change: Change) -> Result<State, RemoteError> {
        let Some(entry) = self.tree.db().load::<OutboxEntry>(&change.key())? else {
            return Ok(State::Gone);
        };
        match change {
            Change::Inode(ino) => self.inode_ready(ino),
            Change::Link(id) => self.link_ready(id, entry),
        }
    }

    fn inode_ready(&self, ino: Ino) -> Result<State, RemoteError> {
        let Some(inode) = self.tree.find_inode(ino)? else { return Ok(State::Gone) };
        if inode.local.unwanted || (inode.local.nlink == 0 && !inode.is_dir()) {
            return Ok(State::Gone);
        }
        Ok(match inode.local.dirty {
            Some(_) => State::Held(ino),
            None => State::Ready(Ready::Inode(Box::new((*inode).clone()))),
        })
    }

    fn link_ready(&self, id: u64, entry: OutboxEntry) -> Result<State, RemoteError> {
        let Some(link) = self.tree.db().load::<Link>(&keys::link(id))? else {
            return Ok(State::Gone);
        };
        if let Some(ino) = entry.after
            && self.content_waits(ino)?
        {
            return Ok(State::Held(ino));
        }
        if link.live && link.kind == Kind::File && self.content_waits(link.ino)? {
            return Ok(State::Held(link.ino));
        }
        Ok(State::Ready(Ready::Link(link)))
    }

    /// Drops the entries of records that are gone, unless they have come back meanwhile.
    fn drop_gone(&self, gone: &[Change]) -> Result<(), RemoteError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut txn = self.tree.begin();
        for change in gone {
            if matches!(self.look_at(*change)?, State::Gone) {
                txn.raw(Space::Meta, change.key(), None);
            }
        }
        Ok(txn.commit().map(drop)?)
    }

    /// Sends a segment; gives the number of records in it.
    async fn send(&self, ready: Vec<Ready>) -> Result<u64, RemoteError> {
        let Some((seq, ready)) = self.prepare(ready)? else { return Ok(0) };
        let mut records = Vec::with_capacity(ready.len());
        let mut tokens: Vec<Token> = Vec::new();
        let (inodes, links): (Vec<_>, Vec<_>) =
            ready.iter().partition(|r| matches!(r, Ready::Inode(_)));
        for item in inodes.into_iter().chain(links) {
            match item {
                Ready::Inode(inode) => {
                    tokens.extend(inode.content.version.token().cloned());
                    records.push(Record::Inode(Box::new(InodeRecord::from(&**inode))));
                }
                Ready::Link(link) => records.push(Record::Link(link.clone())),
            }
        }
        let writer = self.tree.writer();
        let segment = Segment { writer, seq, records, tokens };
        let name = Paths::segment_name(writer, seq);
        let token = self.put(self.paths.log(), name, &segment.to_bytes()).await?;
        self.acknowledge(&ready, &token)?;
        Ok(ready.len() as u64)
    }

    /// Takes the next number, and marks the links as known to others, so that a removal
    /// from now on leaves a tombstone. What has changed since it was found ready (a link
    /// that was removed without a trace, above all) is left for the next segment.
    fn prepare(&self, ready: Vec<Ready>) -> Result<Option<(u64, Vec<Ready>)>, RemoteError> {
        let writer = self.tree.writer(); // not under the transaction's lock
        let mut txn = self.tree.begin();
        let mut still = Vec::with_capacity(ready.len());
        for item in ready {
            let same = match &item {
                Ready::Inode(found) => txn
                    .find_inode(found.ino)?
                    .is_some_and(|now| now.newest() == found.newest() && now.local.dirty.is_none()),
                Ready::Link(found) => {
                    txn.find_link(found.id)?.is_some_and(|now| now.stamp == found.stamp)
                }
            };
            if same {
                still.push(item);
            }
        }
        let mut ready = self.directories_together(&txn, still)?;
        if ready.is_empty() {
            return Ok(None);
        }
        let seq = self.tree.db().load::<u64>(&keys::meta("seq"))?.unwrap_or(0) + 1;
        txn.raw(Space::Meta, keys::meta("seq"), Some(crate::db::encode(&seq)));
        // What a segment of this writer says is in its own tree already. A number that never
        // reaches the vault leaves no gap here, and no later look applies what is being sent.
        let mut applied = self.tree.applied(writer)?;
        applied.add(seq);
        txn.raw(Space::Meta, keys::applied(writer), Some(crate::db::encode(&applied)));
        for item in &mut ready {
            let Ready::Link(link) = item else { continue };
            if let Some(mut waiting) = txn.outbox_entry(link.id)?
                && link.live
                && !waiting.left.contains(&link.parent)
            {
                // Until this is acknowledged, it may be known at either place.
                waiting.left.push(link.parent);
                txn.put_outbox_entry(link.id, &waiting);
            }
            if !link.published {
                link.published = true;
                txn.put_link(link.clone());
            }
        }
        txn.commit()?;
        Ok(Some((seq, ready)))
    }

    /// Adds the other directories that have moved, and leaves out removed ones that other
    /// machines would still see something in.
    fn directories_together(
        &self,
        txn: &Txn<'_>,
        mut ready: Vec<Ready>,
    ) -> Result<Vec<Ready>, RemoteError> {
        let of_dir = |item: &Ready| match item {
            Ready::Link(link) => link.kind == Kind::Dir && link.published,
            Ready::Inode(_) => false,
        };
        if !ready.iter().any(of_dir) {
            return Ok(ready);
        }
        let mut sent: BTreeSet<u64> = ready.iter().filter_map(Ready::link_id).collect();
        let mut staying: Vec<(u64, Vec<Ino>)> = Vec::new();
        self.tree.db().scan(keys::OUTBOX_LINKS, keys::OUTBOX_LINKS, |key, value| {
            let id = keys::number(key, 2);
            if !sent.contains(&id) {
                staying.push((id, decode::<OutboxEntry>(&value)?.left));
            }
            Ok(true)
        })?;
        let mut seen_in = BTreeSet::new();
        for (id, left) in staying {
            match txn.find_link(id)? {
                Some(link) if link.kind == Kind::Dir && link.published && link.live => {
                    sent.insert(id);
                    ready.push(Ready::Link(link));
                }
                _ => seen_in.extend(left),
            }
        }
        // What they moved into goes too, if it is new: nothing is out of reach meanwhile.
        let mut at = 0;
        while at < ready.len() {
            if let Ready::Link(link) = &ready[at]
                && link.kind == Kind::Dir
                && link.live
                && !sent.contains(&link.parent)
                && txn.outbox_entry(link.parent)?.is_some()
                && let Some(above) = txn.find_link(link.parent)?
            {
                sent.insert(above.id);
                ready.push(Ready::Link(above));
            }
            at += 1;
        }
        // A removed directory that stays out is itself still seen in the one above.
        loop {
            let before = ready.len();
            let mut kept = Vec::with_capacity(before);
            for item in ready {
                match &item {
                    Ready::Link(link)
                        if link.kind == Kind::Dir && !link.live && seen_in.contains(&link.ino) =>
                    {
                        seen_in.extend(txn.outbox_entry(link.id)?.unwrap_or_default().left);
                    }
                    _ => kept.push(item),
                }
            }
            ready = kept;
            if ready.len() == before {
                return Ok(ready);
            }
        }
    }

    fn acknowledge(&self, ready: &[Ready], token: &Token) -> Result<(), RemoteError> {
        let mut txn = self.tree.begin();
        for item in ready {
            match item {
                Ready::Inode(sent) => {
                    if let Some(now) = txn.find_inode(sent.ino)?
                        && now.newest() == sent.newest()
                        && now.local.dirty.is_none()
                    {
                        txn.raw(Space::Meta, keys::outbox_inode(sent.ino), None);
                    }
                }
                Ready::Link(sent) => {
                    let same = txn.find_link(sent.id)?.is_some_and(|now| now.stamp == sent.stamp);
                    match txn.outbox_entry(sent.id)? {
                        Some(_) if same => {
                            txn.raw(Space::Meta, keys::outbox_link(sent.id), None);
                        }
                        Some(mut waiting) => {
                            waiting.left = sent.live.then_some(sent.parent).into_iter().collect();
                            txn.put_outbox_entry(sent.id, &waiting);
                        }
                        None => {}
                    }
                }
            }
        }
        txn.know_token(token, 0);
        txn.commit()?;
        Ok(())
    }

    /// Whether others know a name whose change waits here for a content to be in the vault:
    /// what the tree says of it must not be told yet.
    pub(super) fn holds_back_known_names(&self) -> Result<bool, RemoteError> {
        let Some(links) = self.tree.outbox.lock().links() else { return Ok(true) };
        for change in links {
            let Change::Link(id) = change else { continue };
            let link = self.tree.db().load::<Link>(&keys::link(id))?;
            let known = link.is_some_and(|link| link.published);
            if known && matches!(self.look_at(change)?, State::Held(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

enum State {
    Ready(Ready),
    /// It waits for this inode's content.
    Held(Ino),
    Gone,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::cleared::Cleared;
    use crate::catalog::outbox::Outbox;
    use crate::catalog::{Dirty, DirtyKind, NewInode, ROOT_INO, Tree};
    use crate::crypto::{LocalKeys, MasterKey, PayloadCipher};
    use crate::db::Db;
    use crate::env::doubles::seeded_env;
    use crate::store::{MemoryStore, Op, StoreErrorKind};

    fn remote(dir: &std::path::Path) -> Remote {
        remote_on(dir, Arc::new(MemoryStore::default()))
    }

    fn remote_on(dir: &std::path::Path, store: Arc<MemoryStore>) -> Remote {
        let (key, env) = (MasterKey::from_bytes([5; 32]), seeded_env(3));
        let keys = Arc::new(LocalKeys::new(&key));
        let db = Arc::new(Db::open(dir, keys.clone(), env.clone()).unwrap());
        let tree = Arc::new(Tree::open(db, keys.clone(), env.clone(), 0, 0).unwrap());
        let cipher = Arc::new(PayloadCipher::new(&key, env.clone()));
        let paths = Paths::new(&key.key_id());
        Remote::new(tree, store, cipher, keys, env, paths)
    }

    fn make(remote: &Remote, name: &str) -> Ino {
        let new = NewInode {
            kind: Kind::File,
            perm: 0o600,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
            unwanted: false,
            xattrs: Vec::new(),
        };
        remote.tree.create(ROOT_INO, name.as_bytes(), new).unwrap().ino
    }

    fn set_dirty(remote: &Remote, ino: Ino, dirty: bool) {
        let mut txn = remote.tree.begin();
        let mut inode = txn.inode(ino).unwrap();
        let base = inode.content.clone();
        let waits = Dirty {
            kind: DirtyKind::Small,
            size: 1,
            base_len: 0,
            base,
            cleared: Cleared::default(),
            allocated: 1,
        };
        inode.local.dirty = dirty.then_some(waits);
        txn.put_inode(inode);
        txn.publish_inode(ino);
        txn.commit().unwrap();
    }

    /// With all of the outbox in memory, and with two records of it.
    #[tokio::test]
    async fn what_waits_for_a_content_goes_once_that_is_in_the_vault() {
        for kept in [usize::MAX, 2] {
            let dir = tempfile::tempdir().unwrap();
            let remote = remote(dir.path());
            *remote.tree.outbox.lock() = Outbox::keeping(kept);
            let files: Vec<_> = (0..6).map(|n| make(&remote, &format!("file {n}"))).collect();
            files[..4].iter().for_each(|ino| set_dirty(&remote, *ino, true));
            // two files with their names, and the root that holds them
            let published = remote.publish().await.unwrap();
            assert_eq!((published.sent, remote.outbox_len(99).unwrap()), (5, 8));
            assert_eq!(remote.publish().await.unwrap().sent, 0);
            for done in 1..=4 {
                set_dirty(&remote, files[done - 1], false);
                assert_eq!(remote.publish().await.unwrap().sent, 2, "file {done} of {kept}");
                assert_eq!(remote.outbox_len(99).unwrap(), 8 - 2 * done as u64);
            }
        }
    }

    #[tokio::test]
    async fn a_settled_file_is_found_without_a_look_at_those_that_wait() {
        let dir = tempfile::tempdir().unwrap();
        let remote = remote(dir.path());
        let files: Vec<_> = (0..50).map(|n| make(&remote, &format!("file {n}"))).collect();
        files.iter().for_each(|ino| set_dirty(&remote, *ino, true));
        assert_eq!(remote.publish().await.unwrap().held, 100);
        set_dirty(&remote, files[7], false);
        let published = remote.publish().await.unwrap();
        assert_eq!((published.sent, published.held), (2, 0));
    }

    #[tokio::test]
    async fn a_number_that_did_not_reach_the_vault_leaves_no_gap() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::default()));
        let remote = remote_on(dir.path(), store.clone());
        for (number, after) in [(1, false), (2, true), (3, false)] {
            make(&remote, &format!("file {number}"));
            match after {
                true => store.fail_next_after_effect(Op::Put, 1, StoreErrorKind::TimedOut),
                false => store.fail_next(Op::Put, 1, StoreErrorKind::Unavailable),
            }
            remote.publish().await.unwrap_err();
            assert!(remote.publish().await.unwrap().sent > 0);
            let applied = remote.tree.applied(remote.tree.writer()).unwrap();
            assert_eq!((applied.through, applied.beyond.len()), (2 * number, 0));
        }
    }

    /// Content that waits does not keep checkpoints from being written, unless others would
    /// see a name without its content.
    #[tokio::test]
    async fn a_checkpoint_waits_only_for_known_names_that_wait() {
        let dir = tempfile::tempdir().unwrap();
        let remote = remote(dir.path());
        make(&remote, "known");
        remote.publish().await.unwrap();
        let new = make(&remote, "new");
        set_dirty(&remote, new, true);
        remote.publish().await.unwrap();
        assert!(remote.checkpoint().await.unwrap(), "nobody knows of the new file");
        remote.tree.rename((ROOT_INO, b"new"), (ROOT_INO, b"known"), true, false).unwrap();
        remote.publish().await.unwrap();
        assert!(!remote.checkpoint().await.unwrap(), "the known name would lose its content");
        set_dirty(&remote, new, false);
        remote.publish().await.unwrap();
        assert!(remote.checkpoint().await.unwrap());
    }
}
