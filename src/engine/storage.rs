//! What storage devices do for payloads: taking copies, serving reads, synchronizing, and
//! leaving. The invariants are in `replicas.rs`.
//!
//! `synchronize` verifies every copy that the device has, byte by byte, writes those that
//! are missing or damaged anew from whoever has them, and removes copies of payloads that
//! are gone. It reads all that the profile has stored once, so its ack may come late. Where
//! a payload is on no device any more, everything else is healed all the same and the
//! command is rejected at the end, so that nobody takes the device for complete.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::app::App;
use super::commit::{Arrival, Durability, Received, Tx};
use super::db::{Db, Records, Space, StorageError};
use super::devices;
use super::payload::{Source, read_stream, sync_dir};
use super::records::{Device, Entry, Payload, Place, decode};
use super::refusal::Refusal;
use super::replicas::{Copies, Holders, Replicas, is_known};
use super::tokens;

/// Tokens looked at before the view of the database is let go.
const BATCH: usize = 512;

/// A payload's bytes in order.
pub(super) type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// What was found out before a device leaves; see [`App::may_leave`].
#[derive(Debug)]
pub(super) struct Leave {
    holders: Holders,
    missed: u64,
}

impl Leave {
    /// Whether it still holds, as a step of a commit.
    pub(super) fn check(&self, tx: &Tx<'_>, profile: Uuid) -> Result<(), Refusal> {
        let same = Holders::of(tx, profile)? == self.holders && tx.missed() == self.missed;
        if same { Ok(()) } else { Err(Refusal::HoldersChanged) }
    }
}

/// The devices of all profiles.
fn all_devices(db: &Db) -> impl Iterator<Item = Result<Device, StorageError>> {
    db.view().from(Space::Devices, &[], &[]).map(|item| decode(&item?.1))
}

/// Finds out whether some profile has other storage devices than the virtual one.
pub(super) fn look_for_devices(db: &Db, replicas: &Replicas) -> Result<(), StorageError> {
    for device in all_devices(db) {
        let device = device?;
        if device.storage != device.embedded {
            replicas.use_devices();
            break;
        }
    }
    Ok(())
}

impl App {
    /// Whether the engine's own disk keeps what a profile uploads.
    pub(super) fn keeps_uploads(&self, profile: Uuid) -> Result<bool, Refusal> {
        if !self.replicas.in_use() {
            return Ok(true);
        }
        let holders = Holders::of(&*self.db, profile)?;
        Ok(holders.engine || holders.devices.is_empty())
    }

    /// Gives a payload that has arrived to the profile's storage devices, where it has real
    /// ones. A device that does not take it is left out.
    pub(super) async fn arrive(
        &self,
        profile: Uuid,
        id: Uuid,
        received: Received,
    ) -> Result<Arrival, Refusal> {
        let mut copies = Vec::new();
        if !self.replicas.in_use() {
            return Ok(Arrival { received, copies });
        }
        let holders = Holders::of(&*self.db, profile)?;
        if holders.devices.is_empty() {
            return Ok(Arrival { received, copies });
        }
        let len = received.len();
        let source: Arc<dyn Source> = match &received {
            Received::Bytes(bytes) => Arc::new(Bytes::copy_from_slice(bytes)),
            Received::File(pending) => Arc::new(pending.open().map_err(StorageError::File)?),
        };
        let write = |device: String| {
            let (replicas, source) = (Arc::clone(&self.replicas), Arc::clone(&source));
            tokio::task::spawn_blocking(move || {
                let copy = replicas.write(&device, id, &*source, len);
                copy.inspect_err(|error| replicas.suspect(&device, error)).ok()
            })
        };
        let writing: Vec<_> = holders.devices.into_iter().map(write).collect();
        for copy in writing {
            copies.extend(copy.await.map_err(|_| StorageError::Stopped)?);
        }
        Ok(Arrival { received, copies })
    }

    /// A payload as the storage devices have it now.
    fn copies(&self, payload: Payload, holders: Holders) -> Copies {
        Copies::new(&self.db, &self.files, &self.replicas, payload, holders)
    }

    /// Whom to ask for a payload; `None` if that is the engine's own disk alone.
    fn holders(&self, profile: Uuid, payload: Payload) -> Result<Option<Holders>, Refusal> {
        if !self.replicas.in_use() {
            return Ok(None);
        }
        let holders = Holders::of(&*self.db, profile)?;
        let engines = holders.is_engine_alone() && payload.place != Place::Devices;
        Ok((!engines).then_some(holders))
    }

    /// Fails with [`Refusal::NoCopy`] where no storage device can begin to serve a payload.
    pub(super) async fn need_copy(&self, profile: Uuid, payload: Payload) -> Result<(), Refusal> {
        let Some(holders) = self.holders(profile, payload)? else { return Ok(()) };
        let copies = self.copies(payload, holders);
        let there = tokio::task::spawn_blocking(move || copies.is_there()).await;
        if there.map_err(|_| StorageError::Stopped)? { Ok(()) } else { Err(Refusal::NoCopy) }
    }

    /// A payload's bytes.
    pub(super) fn pieces(&self, profile: Uuid, payload: Payload) -> Result<Pieces, Refusal> {
        if let Some(holders) = self.holders(profile, payload)? {
            return Ok(read_stream(self.copies(payload, holders), payload.len).boxed());
        }
        match payload.place {
            Place::Record => {
                let bytes = self.db.raw(Space::Payloads, payload.id.as_bytes())?;
                let bytes = bytes.ok_or(Refusal::NotFound)?;
                Ok(stream::iter([Ok(Bytes::copy_from_slice(&bytes))]).boxed())
            }
            Place::File | Place::Devices => {
                let file = self.files.read(payload.id).map_err(|_| Refusal::NotFound)?;
                Ok(read_stream(file, payload.len).boxed())
            }
        }
    }

    /// A whole payload; only for small ones.
    pub(super) async fn payload_bytes(
        &self,
        profile: Uuid,
        payload: Payload,
    ) -> Result<Bytes, Refusal> {
        let pieces: Vec<Bytes> = self
            .pieces(profile, payload)?
            .try_collect()
            .await
            .map_err(|error: io::Error| Refusal::Storage(error.into()))?;
        Ok(match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => whole,
            Err(pieces) => Bytes::from(pieces.concat()),
        })
    }

    /// Removes copies of payloads that are gone, on every device that has the storage role.
    /// Blocks.
    pub(super) fn sweep_copies(&self) -> Result<usize, StorageError> {
        let mut removed = 0;
        if !self.replicas.in_use() {
            return Ok(removed);
        }
        let devices: Result<Vec<Device>, StorageError> = all_devices(&self.db).collect();
        for device in devices?.iter().filter(|device| device.storage && !device.embedded) {
            removed += self.replicas.sweep(&device.identifier, &self.db, &self.files)?;
        }
        Ok(removed)
    }

    /// Calls `each` with every payload of a profile and its token; ends early when the
    /// engine stops. Payloads that come or go meanwhile may be missed or be gone. Blocks.
    fn each_payload(
        &self,
        profile: Uuid,
        mut each: impl FnMut(String, Payload) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut from = Vec::new();
        loop {
            let batch: Vec<_> =
                self.db.view().from(Space::Tokens, &[], &from).take(BATCH).collect();
            let last = batch.len() < BATCH;
            for item in batch {
                let (key, value) = item?;
                from = [key.as_slice(), &[0]].concat();
                let Entry::Token(token) = decode(&value)? else { continue };
                let Some(payload) = token.payload.filter(|_| token.profile == profile) else {
                    continue;
                };
                if self.stop.is_cancelled() {
                    return Err(Refusal::Storage(StorageError::Stopped));
                }
                let name = String::from_utf8(key).map_err(|_| StorageError::Record)?;
                each(name, payload)?;
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Finds out whether a device may lose the storage role: whether the others have whole
    /// whatever it has whole. Reads all that the profile has stored, unless the engine's own
    /// disk is among the others.
    ///
    /// # Errors
    /// [`Refusal::LastHolder`], or that there is no such device.
    pub(super) async fn may_leave(
        self: Arc<Self>,
        profile: Uuid,
        identifier: String,
    ) -> Result<Leave, Refusal> {
        let check = move || {
            let missed = self.replicas.missed();
            let holders = Holders::of(&*self.db, profile)?;
            let device = devices::own(&*self.db, profile, &identifier)?;
            let (others, alone) = holders.split(device.embedded, &identifier);
            if !alone.is_empty() {
                self.each_payload(profile, |_, payload| {
                    let held = others.engine && self.engine_has(payload)?
                        || self.copies(payload, others.clone()).is_whole()
                        || !self.copies(payload, alone.clone()).is_whole()
                        || !is_known(&self.db, &self.files, payload.id)?;
                    if held { Ok(()) } else { Err(Refusal::LastHolder) }
                })?;
            }
            Ok(Leave { holders, missed })
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| StorageError::Stopped)?
    }

    fn engine_has(&self, payload: Payload) -> Result<bool, StorageError> {
        match payload.place {
            Place::Record => Ok(self.db.raw(Space::Payloads, payload.id.as_bytes())?.is_some()),
            Place::File => {
                let file = self.files.read(payload.id).and_then(|file| file.metadata());
                Ok(file.is_ok_and(|file| file.len() == payload.len))
            }
            Place::Devices => Ok(false),
        }
    }

    /// Brings a storage device to have everything that its profile has stored.
    ///
    /// # Errors
    /// [`Refusal::NoCopy`] if that cannot be, after everything else; or that there is no
    /// such device.
    pub(super) async fn synchronize(
        self: Arc<Self>,
        profile: Uuid,
        identifier: String,
    ) -> Result<(), Refusal> {
        let _turn = Arc::clone(&self.replicas.work).lock_owned().await;
        let device = devices::own(&*self.db, profile, &identifier)?;
        if !device.storage {
            return Err(Refusal::NotStorage);
        }
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let holders = Holders::of(&*self.db, profile)?;
            if device.embedded && holders.is_engine_alone() {
                return Ok(());
            }
            let (others, alone) = holders.split(device.embedded, &identifier);
            let (mut healed, mut lost) = (0_u64, 0_u64);
            self.each_payload(profile, |name, payload| {
                let complete = match device.embedded {
                    true => self.engine_has(payload)?,
                    false => self.copies(payload, alone.clone()).is_whole(),
                };
                // A real device's own good blocks count too.
                let sources = if device.embedded { &others } else { &holders };
                let source = self.copies(payload, sources.clone());
                if complete || !is_known(&self.db, &self.files, payload.id)? {
                    return Ok(());
                }
                if !source.is_whole() {
                    lost += 1;
                    return Ok(());
                }
                healed += 1;
                match device.embedded {
                    true => runtime.block_on(self.heal_engine(name, payload, source)),
                    false => Ok(self.heal(&identifier, payload, &source)?),
                }
            })?;
            let removed = match device.embedded {
                true => 0,
                false => self.replicas.sweep(&identifier, &self.db, &self.files)?,
            };
            tracing::info!(device = identifier, healed, lost, removed, "device synchronized");
            if lost > 0 {
                return Err(Refusal::NoCopy);
            }
            self.replicas.trust(&identifier);
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| StorageError::Stopped)?
    }

    /// Writes one copy anew.
    fn heal(&self, device: &str, payload: Payload, source: &Copies) -> Result<(), StorageError> {
        let Payload { id, len, .. } = payload;
        let copy = self.replicas.write(device, id, source, len)?;
        sync_dir(&self.replicas.place(id, copy)?)?;
        // Deleted meanwhile, after whoever deletes has looked for a copy here: then it is
        // this one's to remove. Deleted later, it will be found.
        if !is_known(&self.db, &self.files, id)? {
            self.replicas.unlink_one(device, id)?;
        }
        Ok(())
    }

    /// Takes one payload back into the engine's own store.
    async fn heal_engine(
        &self,
        name: String,
        payload: Payload,
        source: Copies,
    ) -> Result<(), Refusal> {
        let inline = self.config.inline_store_limit;
        let received = self.files.take(payload.id, inline, &source, payload.len);
        let received = received.map_err(StorageError::File)?;
        let step = move |tx: &mut Tx<'_>| tokens::take_back(tx, &name, payload, received);
        Ok(self.committer.run(Durability::Machine, step).await?)
    }
}
