//! What runs beside the operations: uploads, publishing, looking for others' changes,
//! bringing the service's names in line, deleting what is due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::approval::hold_of;
use super::error::{VfsError, VfsResult};
use super::upload::PENDING;
use super::xattrs::EXTENSION;
use super::{Ino, Kind, Vfs};
use crate::catalog::discover::{Discovered, Owner};
use crate::catalog::follow::Followed;
use crate::catalog::txn::Garbage;
use crate::catalog::{Stale, keys};
use crate::content::manifest::Manifest;
use crate::db::{Space, decode, encode};
use crate::store::{FileMeta, ListFilter, StoreErrorKind, Token, list_all};

/// What happens in quick succession goes out in one segment.
const PUBLISH_SETTLE: Duration = Duration::from_millis(700);

/// The publisher rests this many times as long as it looked through the outbox: while very
/// many contents wait for the vault, that is long.
const LOOKING: u32 = 9;

/// After a hint, others may still be busy: look once for all of it.
const LOOK_SETTLE: Duration = Duration::from_millis(500);

/// A whole listing (a vault of a million has ten thousand pages) is made again after this
/// many times what the last one took: half a per cent of the time. In between, only what
/// is new is looked for.
const WHOLE_LISTING: u32 = 200;

/// Renames and new risk meta come in bursts: the service hears of all of one at once.
const ALIGN_SETTLE: Duration = Duration::from_secs(2);

/// How often due deletions and alignments are seen to.
const HOUSEKEEPING: Duration = Duration::from_secs(20);

/// How often open dirty files are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Deletions per round: the rest waits for the next.
const DELETIONS: usize = 20_000;

/// Deletions under way at once.
const DELETIONS_AT_ONCE: usize = 8;

/// How often, and how far apart, a round of deletions looks whether all is published.
const DRAIN_LOOKS: u32 = 40;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// A deletion that was refused is tried again after a day, in milliseconds.
const REFUSED_MS: u64 = 86_400_000;

/// Files brought in line per round.
const ALIGNMENTS: usize = 1_000;

/// What became of the deletion of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Done,
    /// It waits for a vote, and goes on in the vault.
    Held,
    Refused,
}

impl Vfs {
    pub(super) fn start_background(self: &Arc<Self>) {
        let Some(runtime) = self.runtime.get() else { return };
        let _within = runtime.enter();
        let tasks = [
            self.env.spawn(self.clone().run_uploads()),
            self.env.spawn(self.clone().run_publisher()),
            self.env.spawn(self.clone().run_looks()),
            self.env.spawn(self.clone().run_ticks()),
            self.env.spawn(self.clone().run_housekeeping()),
        ];
        self.tasks.lock().extend(tasks);
    }

    /// Something is in the outbox.
    pub(super) fn want_publish(&self) {
        self.publish_wanted.notify_one();
    }

    async fn run_publisher(self: Arc<Self>) {
        let mut delay = PUBLISH_SETTLE;
        loop {
            self.publish_wanted.notified().await;
            tokio::time::sleep(delay).await;
            match self.publish_once().await {
                Ok(looking) => delay = PUBLISH_SETTLE.max(looking * LOOKING),
                Err(error) => {
                    tracing::warn!(
                        error = error.logged(),
                        "the catalog could not be published; trying again"
                    );
                    delay = (delay * 2).min(Duration::from_secs(30));
                    self.want_publish();
                }
            }
        }
    }

    /// Publishes; gives the time that it took to find what is ready.
    async fn publish_once(&self) -> VfsResult<Duration> {
        let _one = self.publishing.lock().await;
        let published = self.remote.publish().await?;
        self.remote.checkpoint_if_due().await?;
        Ok(published.looking)
    }

    /// Publishes all that is ready; concurrent callers share a segment.
    pub(super) async fn publish_now(&self) -> VfsResult<()> {
        if self.config.read_only {
            return Ok(());
        }
        let _one = self.publishing.lock().await;
        self.remote.publish().await?;
        Ok(())
    }

    async fn run_looks(self: Arc<Self>) {
        let mut next_whole: Option<Instant> = None;
        self.hint_changes(); // what happened while the drive was not mounted
        loop {
            let every = self.config.poll_interval;
            if every.is_zero() {
                self.look_wanted.notified().await;
            } else {
                drop(tokio::time::timeout(every, self.look_wanted.notified()).await);
            }
            tokio::time::sleep(LOOK_SETTLE).await;
            let started = Instant::now();
            let whole = next_whole.is_none_or(|at| at <= started)
                || self.remote.is_short().unwrap_or_default();
            let looked = async {
                self.look().await?;
                self.look_for_directories().await;
                self.look_for_files(whole).await
            };
            let looked = looked.await;
            if whole && looked.is_ok() {
                next_whole = Some(Instant::now() + started.elapsed() * WHOLE_LISTING);
            }
            if let Err(error) = looked {
                tracing::warn!(
                    error = error.logged(),
                    "other clients' changes could not be looked for"
                );
            }
        }
    }

    /// Takes in what other machines have published.
    pub(super) async fn look(&self) -> VfsResult<()> {
        let mut followed = Followed::default();
        let result = self.remote.follow(&mut followed).await;
        for damage in &followed.damaged {
            tracing::warn!(%damage, "a catalog payload could not be used");
        }
        self.counters.set_catalog(&followed.damaged);
        self.refresh_bodies(&followed.stale)?;
        self.announce(followed.stale);
        result?;
        self.counters.looked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Shows files that other clients stored.
    pub(super) async fn look_for_files(&self, whole: bool) -> VfsResult<()> {
        let owner = Owner { uid: self.config.default_uid, gid: self.config.default_gid };
        let mut found = Discovered::default();
        let result = match whole {
            true => self.remote.discover(owner, &mut found).await,
            false => self.remote.discover_news(owner, &mut found).await,
        };
        if found.added + found.removed > 0 {
            tracing::info!(found.added, found.removed, "files of other clients");
        }
        self.announce(found.stale);
        if found.adopted > 0 {
            self.want_publish();
        }
        Ok(result?)
    }

    /// Open, clean files see a new version at once.
    fn refresh_bodies(&self, stale: &[Stale]) -> VfsResult<()> {
        for item in stale {
            let Stale::Inode { ino, data: true } = item else { continue };
            if let Some(body) = self.find_body(*ino) {
                self.refresh_body(&body)?;
            }
        }
        Ok(())
    }

    /// Announces from the background, never from inside an operation.
    pub(super) fn announce_later(&self, stale: Vec<Stale>) {
        self.pending_stale.lock().extend(stale);
    }

    async fn run_ticks(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            let stale = std::mem::take(&mut *self.pending_stale.lock());
            self.announce(stale);
            self.queue_open_files();
            self.buffers.trim();
        }
    }

    async fn run_housekeeping(self: Arc<Self>) {
        loop {
            self.clone().tidy().await;
            let wanted = self.align_wanted.notified();
            if tokio::time::timeout(HOUSEKEEPING, wanted).await.is_ok() {
                tokio::time::sleep(ALIGN_SETTLE).await;
            }
        }
    }

    /// Sees to due deletions, to what other clients should see, and to remains of crashes;
    /// happens by itself now and then. What cannot be done now is tried again.
    pub async fn tidy(self: Arc<Self>) {
        let _one = self.tidying.lock().await;
        for body in self.approvals.forget_obsolete() {
            self.retire(&body);
        }
        for (what, result) in [
            ("remains of interrupted uploads", self.clear_intents().await),
            ("names at the service", self.align().await),
            ("deletions that are due", self.delete_due().await),
        ] {
            if let Err(error) = result {
                tracing::warn!(error = error.logged(), "{what}: trying again later");
            }
        }
    }

    /// Writes a checkpoint of what this machine has applied, due or not: for the simulator.
    #[cfg(feature = "proof")]
    pub async fn checkpoint_now(&self) -> VfsResult<bool> {
        let _one = self.publishing.lock().await;
        Ok(self.remote.checkpoint().await?)
    }

    /// Takes in what others have published, now: for the simulator.
    #[cfg(feature = "proof")]
    pub async fn look_now(&self) -> VfsResult<()> {
        self.look().await
    }

    /// Deletes tokens whose time has come, once no unpublished record may still need them:
    /// none needs what the catalog itself has done with.
    pub(super) async fn delete_due(&self) -> VfsResult<()> {
        // Others may have given a name again to what became due while this machine was away.
        if self.config.read_only || !self.counters.looked.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What is due now waits for nothing that is recorded later.
        let drained = self.outbox_drains().await?;
        let now = self.env.millis();
        let mut due = Vec::new();
        self.tree.db().scan(keys::GARBAGE, keys::GARBAGE, |key, value| {
            if keys::number(key, 1) > now || due.len() >= DELETIONS {
                return Ok(false);
            }
            let garbage = decode::<Garbage>(&value)?;
            if drained || garbage.catalog {
                due.push((key.to_vec(), garbage));
            }
            Ok(true)
        })?;
        let (shared, alone): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(_, garbage)| garbage.family.is_some());
        let deletions = stream::iter(alone).map(|(key, garbage)| async move {
            let unshared = BTreeSet::new();
            self.delete(&key, &garbage, &unshared).await
        });
        let mut deletions = deletions.buffer_unordered(DELETIONS_AT_ONCE);
        while let Some(()) = deletions.try_next().await? {}
        // Only what a living file uses can be shared anew, and that is not due.
        let (mut looked_at, mut used) = (None, BTreeSet::new());
        for (key, garbage) in shared {
            if let Some(family) = garbage.family
                && looked_at != Some(family)
            {
                used = self.parts_in_use(family).await?;
                looked_at = Some(family);
            }
            self.delete(&key, &garbage, &used).await?;
        }
        Ok(())
    }

    /// Waits a little for a moment when all is published.
    async fn outbox_drains(&self) -> VfsResult<bool> {
        for _ in 0..DRAIN_LOOKS {
            if self.remote.outbox_len(1)? == 0 {
                return Ok(true);
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        Ok(false)
    }

    async fn delete(&self, key: &[u8], garbage: &Garbage, used: &BTreeSet<Token>) -> VfsResult<()> {
        let token = &garbage.token;
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, key);
        // Another machine may have given the file a name again meanwhile.
        if self.tree.is_content(token)? || used.contains(token) {
            return Ok(batch.commit()?);
        }
        if garbage.manifest && !self.delete_parts(garbage, used).await? {
            return Ok(()); // some wait for a vote
        }
        match self.delete_token(token).await? {
            Deletion::Done => {}
            Deletion::Held => return Ok(()), // a later round hears how it ended
            Deletion::Refused => {
                let later = keys::garbage(self.env.millis() + REFUSED_MS, keys::number(key, 9));
                batch.put(Space::Meta, &later, &encode(garbage));
                return Ok(batch.commit()?);
            }
        }
        self.fetcher.forget(token);
        batch.remove(Space::Meta, &keys::token(&self.tree.token_tag(token)));
        Ok(batch.commit()?)
    }

    /// Deletes a token in the vault, unless a policy is against it.
    async fn delete_token(&self, token: &Token) -> VfsResult<Deletion> {
        match self.remote.store.delete(token).await {
            Ok(()) => Ok(Deletion::Done),
            Err(error) if hold_of(&error).is_some() => Ok(Deletion::Held),
            Err(error) if error.kind == StoreErrorKind::Denied => {
                tracing::warn!(error = error.message, "the vault refuses a deletion");
                Ok(Deletion::Refused)
            }
            Err(error) => Err(VfsError::from_store(token.as_str(), &error)),
        }
    }

    /// The parts that living files of a family name.
    async fn parts_in_use(&self, family: Ino) -> VfsResult<BTreeSet<Token>> {
        let mut members = vec![family];
        let prefix = keys::members(family);
        self.tree.db().scan(&prefix, &prefix, |key, _| {
            members.push(keys::number(key, 9));
            Ok(true)
        })?;
        let mut used = BTreeSet::new();
        for ino in members {
            let Some(inode) = self.tree.find_inode(ino)? else { continue };
            if inode.local.nlink == 0 {
                continue;
            }
            let begun_on = inode.local.dirty.iter().map(|dirty| &dirty.base.version);
            for version in begun_on.chain([&inode.content.version]) {
                used.extend(self.parts_of(version).await?);
            }
        }
        Ok(used)
    }

    /// False if some could not be deleted yet.
    async fn delete_parts(&self, garbage: &Garbage, used: &BTreeSet<Token>) -> VfsResult<bool> {
        let parts = match self.fetcher.fetch(&garbage.token).await {
            Ok(fetched) => Manifest::from_bytes(&fetched.plain.unwrap_or_default())
                .map(|m| m.parts)
                .unwrap_or_default(),
            Err(crate::content::fetch::FetchError::Store(e))
                if e.kind == StoreErrorKind::NotFound =>
            {
                Vec::new()
            }
            Err(crate::content::fetch::FetchError::Store(e)) if hold_of(&e).is_some() => {
                return Ok(false);
            }
            Err(error) => return Err(VfsError::from_fetch(garbage.token.as_str(), error)),
        };
        // A part of zeros may be there many times.
        let once: BTreeSet<_> = parts.iter().filter(|part| !used.contains(*part)).collect();
        for part in once {
            if self.delete_token(part).await? == Deletion::Held {
                return Ok(false);
            }
            self.fetcher.forget(part);
        }
        self.forget_parts(&garbage.token, parts.len() as u64)?;
        Ok(true)
    }

    /// Uploads that were cut off by a crash, or whose outcome nobody told, may have left
    /// tokens: finds them by their mark and deletes them. Nothing else knows of them.
    pub(super) async fn clear_intents(&self) -> VfsResult<()> {
        if self.config.read_only {
            return Ok(());
        }
        let mut intents = Vec::new();
        self.tree.db().scan(keys::INTENTS, keys::INTENTS, |key, value| {
            let mark = String::from_utf8_lossy(&key[1..]).into_owned();
            intents.push((mark, decode::<(String, String)>(&value)?));
            Ok(true)
        })?;
        let live = self.counters.live_marks();
        intents.retain(|(mark, _)| !live.contains(mark));
        let cleared = stream::iter(intents)
            .map(|(mark, names)| async move { self.clear_intent(&mark, names).await });
        let mut cleared = cleared.buffer_unordered(DELETIONS_AT_ONCE);
        while let Some(()) = cleared.try_next().await? {}
        Ok(())
    }

    async fn clear_intent(&self, mark: &str, names: (String, String)) -> VfsResult<()> {
        let (context, file_name) = names;
        let filter = ListFilter {
            context: Some(context),
            file_name: Some(file_name),
            ..ListFilter::default()
        };
        let failed = |e| VfsError::from_store("interrupted upload", &e);
        let listed = list_all(&*self.remote.store, &filter).await.map_err(failed)?;
        let mut batch = self.tree.db().batch();
        for record in listed.iter().filter(|r| r.mark.as_deref() == Some(mark)) {
            // Named by the catalog after all: the crash came between the two records.
            if !self.named(&record.token)? {
                if self.delete_token(&record.token).await? == Deletion::Held {
                    return Ok(());
                }
                batch.remove(Space::Meta, &keys::token(&self.tree.token_tag(&record.token)));
            }
        }
        batch.remove(Space::Meta, &keys::intent(mark));
        Ok(batch.commit()?)
    }

    /// Whether the catalog (or a part list) names a token of ours.
    fn named(&self, token: &Token) -> VfsResult<bool> {
        let known: Option<u64> = self.tree.db().load(&keys::token(&self.tree.token_tag(token)))?;
        Ok(known.is_some_and(|ino| ino != PENDING))
    }

    /// The service's file meta of this inode is no longer what it should be.
    pub(super) fn want_alignment(&self, ino: Ino) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &keys::align(ino), &encode(&()));
        batch.commit()?;
        self.align_wanted.notify_one();
        Ok(())
    }

    /// Brings names and risk meta at the service in line with the tree.
    async fn align(&self) -> VfsResult<()> {
        let mut wanted = Vec::new();
        self.tree.db().scan(keys::ALIGN, keys::ALIGN, |key, _| {
            wanted.push(keys::number(key, 1));
            Ok(wanted.len() < ALIGNMENTS)
        })?;
        if self.config.read_only {
            return Ok(());
        }
        for ino in wanted {
            match self.align_one(ino).await {
                Ok(()) => {}
                Err(VfsError::AwaitingApproval { hold, .. }) => {
                    self.approvals.note(ino, &hold);
                    continue;
                }
                // Asking again would only open another vote.
                Err(error @ VfsError::Denied { .. }) => {
                    tracing::warn!(error = error.logged(), "the vault refuses new meta");
                }
                Err(error) => return Err(error),
            }
            let mut batch = self.tree.db().batch();
            batch.remove(Space::Meta, &keys::align(ino));
            batch.commit()?;
        }
        Ok(())
    }

    async fn align_one(&self, ino: Ino) -> VfsResult<()> {
        let Some(inode) = self.tree.find_inode(ino)? else { return Ok(()) };
        if inode.kind == Kind::Dir {
            let mut below = Vec::new();
            self.tree.list(ino, 0, |_, _, link| {
                below.push(link.ino);
                true
            })?;
            for child in below {
                self.want_alignment(child)?;
            }
            return Ok(());
        }
        let Some(token) = inode.content.version.token() else { return Ok(()) };
        let what = |e| VfsError::from_store(self.name_of(ino), &e);
        let risk = inode.risk();
        let seen = inode.local.risk_seen.as_ref().map(|(there, _)| there.clone());
        if risk != seen.unwrap_or_default() {
            self.remote.store.set_risk(token, &risk).await.map_err(what)?;
        }
        let (file_name, context) = self.meta_names(&inode);
        let mut names = (file_name.clone(), context.clone());
        if inode.local.known_as.as_ref() == Some(&names) && inode.xattr(EXTENSION).is_none() {
            return self.note_known_as(ino, names, risk);
        }
        let extension = match inode.xattr(EXTENSION) {
            Some(set) => String::from_utf8_lossy(set).into_owned(),
            None => super::upload::extension_of(&file_name),
        };
        let size = inode.content.size;
        let meta = FileMeta { file_name, extension, context, path: "/".into(), size };
        match self.remote.store.update_meta(token, &meta).await {
            Ok(()) => {}
            Err(e) if e.kind == StoreErrorKind::NotFound => return Ok(()),
            // They stay as they are there; asking again would not help.
            Err(e) if e.kind == StoreErrorKind::Unsupported => {
                names = inode.local.known_as.clone().unwrap_or(names);
            }
            Err(e) => return Err(what(e)),
        }
        self.note_known_as(ino, names, risk)
    }
}
