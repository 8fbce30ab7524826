//! What this machine knows of the catalog's payloads in the vault, in the local database.
//!
//! ```text
//! g token        segment that was applied         p identity   it has a successor that was applied
//! e writer id    end of a chain                   c writer     covered by a loaded checkpoint
//! k token        manifest                         r token      replaced by one, and not seen gone
//! h identity     named, and not accounted for     u token      did not open
//! s              sealed, and not in the vault     q token      page that no manifest names
//! ```

use serde::{Deserialize, Serialize};

use super::remote::{Remote, RemoteError};
use crate::catalog::format::{Identity, Manifest, Reference};
use crate::catalog::local::schema;
use crate::catalog::namespace::Txn;
use crate::db::{DbResult, decode};
use crate::store::Token;

/// A segment that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRow {
    pub(super) writer: u64,
    pub(super) sequence: u64,
    pub(super) reference: Reference,
    pub(super) day: u64,
}

/// The end of a chain, as far as this machine has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndRow {
    pub(super) writer: u64,
    pub(super) sequence: u64,
    pub(super) identity: Identity,
    /// Its token, where that is known: a manifest names none.
    pub(super) token: Option<Token>,
    pub(super) day: u64,
    pub(super) closed: bool,
}

/// A manifest that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestRow {
    pub(super) reference: Reference,
    pub(super) writer: u64,
    pub(super) sequence: u64,
    /// Its content.
    pub(super) content: Vec<u8>,
    /// Whether all its pages are applied here.
    pub(super) loaded: bool,
    /// The day on which all of it was read back; what it replaces goes a calendar day later.
    pub(super) read_back: Option<u64>,
    /// Whether a page of it did not open.
    pub(super) broken: bool,
}

impl ManifestRow {
    pub(super) fn manifest(&self) -> Manifest {
        Manifest::decode(&self.content).unwrap_or_default()
    }
}

/// What a payload that is waited for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Awaited {
    Segment { writer: u64, sequence: u64 },
    Manifest,
}

/// A payload that something names and that is not accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AwaitedRow {
    pub(super) what: Awaited,
    pub(super) reference: Reference,
    /// When this machine first heard of it, in milliseconds since 1970 by its own clock.
    pub(super) since: u64,
}

/// A payload of the catalog that did not open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnopenedRow {
    pub(super) token: Token,
    pub(super) why: String,
    /// The calendar's day when it was first met.
    pub(super) day: u64,
    /// When, in milliseconds since 1970.
    pub(super) since: u64,
    /// Whether a newer program wrote it.
    pub(super) newer: bool,
}

/// Segments that are sealed, and not acknowledged; the bytes of each lie in the data space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingRow {
    pub(super) mark: String,
    pub(super) writer: u64,
    pub(super) sequence: u64,
    pub(super) day: u64,
    /// The objects whose records are in it.
    pub(super) objects: Vec<u64>,
    /// When it was sealed, in milliseconds since 1970.
    pub(super) since: u64,
}

/// Key of the segment that waits.
pub(super) fn pending() -> Vec<u8> {
    schema::replication(b's', &[])
}

impl Remote {
    pub(super) fn by_token(&self, table: u8, token: &Token) -> Vec<u8> {
        schema::replication(table, &[&self.tree.token_tag(token)])
    }

    pub(super) fn load<T: serde::de::DeserializeOwned>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, RemoteError> {
        Ok(self.tree.db().load(key)?)
    }

    pub(super) fn all<T: serde::de::DeserializeOwned>(
        &self,
        table: u8,
    ) -> Result<Vec<T>, RemoteError> {
        let mut rows = Vec::new();
        self.each(table, |row| rows.push(row))?;
        Ok(rows)
    }

    pub(super) fn each<T: serde::de::DeserializeOwned>(
        &self,
        table: u8,
        mut each: impl FnMut(T),
    ) -> DbResult<()> {
        let prefix = schema::replication(table, &[]);
        self.tree.db().scan(&prefix, &prefix, |_, value| {
            each(decode(&value)?);
            Ok(true)
        })
    }

    pub(super) fn segment(&self, token: &Token) -> Result<Option<SegmentRow>, RemoteError> {
        self.load(&self.by_token(b'g', token))
    }

    /// Whether a manifest that was loaded says that a token need not be read.
    pub(super) fn is_replaced(&self, token: &Token) -> Result<bool, RemoteError> {
        Ok(self.load::<Reference>(&self.by_token(b'r', token))?.is_some())
    }

    pub(super) fn covered_through(&self, writer: u64) -> Result<u64, RemoteError> {
        let key = schema::replication(b'c', &[&writer.to_be_bytes()]);
        Ok(self.load::<u64>(&key)?.unwrap_or(0))
    }
}

pub(super) fn identity_key(table: u8, identity: &Identity) -> Vec<u8> {
    schema::replication(table, &[&identity.iv, &identity.tag])
}

pub(super) fn end_key(writer: u64, identity: &Identity) -> Vec<u8> {
    schema::replication(b'e', &[&writer.to_be_bytes(), &identity.tag])
}

/// Notes that a segment was applied, and what follows for the chain of its writer.
pub(super) fn note_segment(
    remote: &Remote,
    txn: &mut Txn<'_>,
    row: &SegmentRow,
    predecessor: Option<&Reference>,
    closes: bool,
) -> Result<(), RemoteError> {
    let identity = row.reference.identity;
    txn.store(remote.by_token(b'g', &row.reference.token), Some(row));
    txn.store::<()>(identity_key(b'h', &identity), None);
    txn.store(identity_key(b'i', &identity), Some(&row.reference.token));
    if let Some(before) = predecessor {
        txn.store(identity_key(b'p', &before.identity), Some(&()));
        txn.store::<()>(end_key(row.writer, &before.identity), None);
    }
    if remote.load::<()>(&identity_key(b'p', &identity))?.is_none() {
        let end = EndRow {
            writer: row.writer,
            sequence: row.sequence,
            identity,
            token: Some(row.reference.token.clone()),
            day: row.day,
            closed: closes,
        };
        txn.store(end_key(row.writer, &identity), Some(&end));
    }
    Ok(())
}
