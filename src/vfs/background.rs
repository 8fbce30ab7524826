//! What runs beside the operations: uploads, publishing, looking for others' changes,
//! bringing the service's names in line.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{VfsError, VfsResult};
use super::xattrs::EXTENSION;
use super::{Ino, Kind, Vfs};
use crate::catalog::local::schema;
use crate::catalog::{Discovered, Followed, Owner, Stale};
use crate::db::{Space, encode};
use crate::store::{FileMeta, StoreErrorKind};

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

/// Files brought in line per round.
const ALIGNMENTS: usize = 1_000;

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
        let published = self.remote.publish().await;
        let checkpoint = match &published {
            Ok(_) => self.remote.checkpoint_if_due().await.map(drop),
            Err(_) => Ok(()),
        };
        self.take_looked()?;
        checkpoint?;
        Ok(published?.looking)
    }

    /// What a look in passing has changed is announced, as after any look.
    fn take_looked(&self) -> VfsResult<()> {
        let stale = self.remote.take_stale();
        self.refresh_bodies(&stale)?;
        self.announce_later(stale);
        Ok(())
    }

    /// Who owns what other clients made.
    pub(super) fn owner_of_others(&self) -> Owner {
        Owner { uid: self.config.default_uid, gid: self.config.default_gid, umask: 0 }
    }

    /// Publishes all that is ready; concurrent callers share a segment.
    pub(super) async fn publish_now(&self) -> VfsResult<()> {
        if self.config.read_only {
            return Ok(());
        }
        let _one = self.publishing.lock().await;
        let published = self.remote.publish().await;
        self.take_looked()?;
        published?;
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
        if let Some(millis) = self.remote.store.clock() {
            self.tree.note_service_clock(millis);
        }
        for doubt in &followed.doubts {
            tracing::warn!(%doubt, "the catalog in the vault is not all there");
        }
        self.counters.set_catalog(&followed.doubts);
        self.refresh_bodies(&followed.stale)?;
        self.announce(followed.stale);
        result?;
        self.counters.looked.store(followed.doubts.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Shows files that other clients stored.
    pub(super) async fn look_for_files(&self, whole: bool) -> VfsResult<()> {
        let owner = self.owner_of_others();
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
            ("tokens that nothing names", self.delete_garbage().await),
            ("deletions that are due", self.see_to_days().await),
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

    /// The service's file meta of this inode is no longer what it should be.
    pub(super) fn want_alignment(&self, ino: Ino) -> VfsResult<()> {
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &schema::align(ino), &encode(&()));
        batch.commit()?;
        self.align_wanted.notify_one();
        Ok(())
    }

    /// Brings names and risk meta at the service in line with the tree.
    async fn align(&self) -> VfsResult<()> {
        let mut wanted = Vec::new();
        self.tree.db().scan(schema::ALIGN, schema::ALIGN, |key, _| {
            wanted.push(schema::number(key, 1));
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
            batch.remove(Space::Meta, &schema::align(ino));
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
            None => super::put::extension_of(&file_name),
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
