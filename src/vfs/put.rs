//! One put: sealed, stored under a recorded mark, and known by its identity.
//!
//! Invariants
//! * No IV is used for two contents: what is sealed a second time, for an attempt that goes on,
//!   is the same to the last byte, or it is sealed anew.
//! * A token that was acknowledged is recorded before anything else happens to it, so that a
//!   crash leaves nothing behind that nobody knows of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use futures_util::StreamExt;

use super::approval::{Seal, Slot, hold_of};
use super::body::Body;
use super::commit::Snapshot;
use super::error::{VfsError, VfsResult};
use super::status::LiveMark;
use super::xattrs::EXTENSION;
use super::{Ino, Vfs};
use crate::catalog::Inode;
use crate::catalog::format::names::cut;
use crate::catalog::local::schema;
use crate::db::{Space, encode};
use crate::store::{FileMeta, Payload, Reference, RiskMeta};

/// Longest context and file name sent (protocol E.2), in bytes.
const META_LIMIT: usize = 255;

/// Which payload of which content: the file, the part of it, and its generation.
pub(super) type Of<'a> = (&'a Arc<Body>, Slot, u64);

/// A payload that is ready to go.
pub(super) struct Sealed {
    pub(super) payload: Payload,
    pub(super) seal: Seal,
    /// Of one that was held for a vote: the mark that it has.
    pub(super) mark: Option<LiveMark>,
}

/// A payload that the vault has and nothing names yet. It is recorded as garbage until the
/// change that names it, so a crash in between leaves no orphan.
pub(super) struct Stored {
    pub(super) reference: Reference,
    pub(super) mark: LiveMark,
}

impl Vfs {
    /// Seals a content: with the bytes of the put that was held, if it is the same content.
    pub(super) fn seal(
        &self,
        of: Of<'_>,
        buffer: &mut Vec<u8>,
    ) -> VfsResult<(Seal, Option<LiveMark>)> {
        let cipher = &self.remote.cipher;
        if let Some((mark, seal)) = self.approvals.resume(of)
            && let Some(identity) = seal.identity.get()
            && cipher.seal_again(identity, buffer)
        {
            return Ok((seal, Some(mark)));
        }
        cipher.seal_in_place(buffer);
        let identity = cipher.identity(buffer);
        Ok((Seal::of(identity.ok_or_else(|| self.unidentified(of.0.ino))?), None))
    }

    fn unidentified(&self, ino: Ino) -> VfsError {
        let why = "what was sent cannot be identified".into();
        VfsError::Local { what: self.name_of(ino), why }
    }

    /// Seals and stores under the file's own name; remembers the attempt, so that its
    /// remains can be found.
    pub(super) async fn store_visible(
        &self,
        body: &Arc<Body>,
        snapshot: Snapshot,
        sealed: Sealed,
    ) -> VfsResult<Stored> {
        let (ino, size) = (body.ino, snapshot.size);
        let inode = self.tree.inode(ino)?;
        let (file_name, context) = self.meta_names(&inode);
        let extension = match inode.xattr(EXTENSION) {
            Some(set) => String::from_utf8_lossy(set).into_owned(),
            None => extension_of(&file_name),
        };
        let meta = FileMeta { file_name, extension, context, path: "/".into(), size };
        let content = (body, None, snapshot.generation);
        let stored = self.store_marked(content, &meta, sealed).await;
        let stored = stored.map_err(|e| self.blame_put(ino, e))?;
        let risk = inode.risk();
        if risk != RiskMeta::default()
            && let Err(error) = self.remote.store.set_risk(&stored.reference.token, &risk).await
        {
            tracing::warn!(%error, "risk meta could not be set with the upload; trying again later");
            self.want_alignment(ino)?;
        }
        self.note_known_as(ino, (meta.file_name, meta.context), risk)?;
        Ok(stored)
    }

    pub(super) fn blame_put(&self, ino: Ino, error: VfsError) -> VfsError {
        match error {
            VfsError::Stale { .. } => VfsError::Stale { what: self.name_of(ino) },
            VfsError::AwaitingApproval { hold, .. } => {
                VfsError::AwaitingApproval { what: self.name_of(ino), hold }
            }
            other => other,
        }
    }

    /// Stores with a recorded mark: until the catalog names the token, a crash leaves a
    /// trace by which the next start deletes it. What was held for a vote goes on under the
    /// mark that it has.
    pub(super) async fn store_marked(
        &self,
        of: Of<'_>,
        meta: &FileMeta,
        sealed: Sealed,
    ) -> VfsResult<Stored> {
        let Sealed { payload, seal, mark } = sealed;
        let ino = of.0.ino;
        let mut live =
            mark.unwrap_or_else(|| LiveMark::new(&self.remote.new_mark(), &self.counters));
        let intent = schema::intent(live.as_str());
        let mut batch = self.tree.db().batch();
        batch.store(&intent, &(meta.context.clone(), meta.file_name.clone()));
        batch.commit()?;
        let bytes = payload.len();
        let what = || format!("{}/{}", meta.context, meta.file_name);
        let token = match self.remote.store.put(meta, live.as_str(), payload.clone()).await {
            Ok(token) => token,
            Err(error) => {
                if !error.in_doubt {
                    let mut batch = self.tree.db().batch();
                    batch.remove(Space::Meta, &intent);
                    batch.commit()?;
                }
                if let Some(hold) = hold_of(&error) {
                    self.approvals.note(ino, hold);
                    self.approvals.keep(of, (live, seal), Arc::clone(hold));
                }
                return Err(VfsError::from_store(what(), &error));
            }
        };
        self.counters.uploaded.fetch_add(bytes, Ordering::Relaxed);
        live.keep(&token);
        let mut batch = self.tree.db().batch();
        batch.put(Space::Meta, &schema::garbage(&self.tree.token_tag(&token)), &encode(&token));
        batch.remove(Space::Meta, &intent);
        batch.commit()?;
        if seal.identity.get().is_none() {
            // Sent by an attempt of which nobody has seen the end.
            read_through(payload).await.map_err(|_| self.unidentified(ino))?;
        }
        let identity = *seal.identity.get().ok_or_else(|| self.unidentified(ino))?;
        Ok(Stored { reference: Reference { token, identity }, mark: live })
    }

    /// The file name and context that the service is given: the last component, and the
    /// folder path (`/` for the root), each cut to what every server takes.
    pub(super) fn meta_names(&self, inode: &Inode) -> (String, String) {
        let path = match self.tree.path_of(inode.ino) {
            Ok(Some(path)) => path,
            _ => format!("{:016x}", inode.ino).into_bytes(),
        };
        let (context, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"/"[..], &path[..]),
        };
        (lossy(name), self.short_context(context))
    }

    fn short_context(&self, context: &[u8]) -> String {
        if context.len() <= META_LIMIT {
            return lossy(context);
        }
        let tag = self.remote.keys.tag("long-context", context);
        let mark = HEXLOWER.encode(&tag[..8]);
        format!("{}~{mark}", lossy(cut(context, META_LIMIT - 17)))
    }

    /// Notes under which names, and with which risk meta, the service has a file now.
    pub(super) fn note_known_as(
        &self,
        ino: Ino,
        names: (String, String),
        risk: RiskMeta,
    ) -> VfsResult<()> {
        let mut txn = self.tree.begin();
        if let Some(mut inode) = txn.find_inode(ino)? {
            inode.local.known_as = Some(names);
            inode.local.risk_seen = Some((risk.clone(), risk));
            txn.put_inode(inode)?;
            txn.commit()?;
        }
        Ok(())
    }
}

/// Opens a payload that is made while it is read, and reads it to its end.
async fn read_through(payload: Payload) -> std::io::Result<()> {
    if let Payload::Stream { open, .. } = payload {
        let mut bytes = open();
        while let Some(piece) = bytes.next().await {
            piece?;
        }
    }
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The extension of a file name, without the dot; empty for none and for dot files.
pub(super) fn extension_of(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension.to_owned(),
        _ => String::new(),
    }
}
