//! Opening segments and taking their records in.

use super::remote::{Followed, Remote, RemoteError};
use super::state::{Awaited, AwaitedRow, SegmentRow, UnopenedRow, identity_key, note_segment};
use crate::catalog::conflict::object::{Brought, Origin};
use crate::catalog::format::payload::{PayloadKind, open};
use crate::catalog::format::{
    Body, Header, Identity, Manifest, Record, Reference, Segment, Unopened,
};
use crate::store::Token;

/// A payload of the catalog that opened.
pub(super) enum Opened {
    Segment(Header, Segment),
    Manifest(Header, Vec<u8>),
    Page,
}

impl Remote {
    /// Opens a payload of the log or of the checkpoints, by what it says of itself.
    pub(super) fn open_payload(&self, payload: &[u8]) -> Result<(Identity, Opened), Unopened> {
        let (header, content) = open(&self.catalog_keys, payload, None)?;
        let identity = Identity::of_catalog(payload).ok_or(Unopened::NotCatalog)?;
        let opened = match header.kind {
            PayloadKind::Segment => {
                let segment = Segment::decode(&content).map_err(|_| Unopened::Altered)?;
                Opened::Segment(header, segment)
            }
            PayloadKind::Manifest => {
                Manifest::decode(&content).map_err(|_| Unopened::Altered)?;
                Opened::Manifest(header, content)
            }
            PayloadKind::Page => Opened::Page,
            PayloadKind::Change => return Err(Unopened::NotCatalog),
        };
        Ok((identity, opened))
    }

    /// Takes a segment in, and notes what it names and this machine does not know.
    pub(super) fn apply_segment(
        &self,
        token: &Token,
        identity: Identity,
        (header, segment): (Header, Segment),
        followed: &mut Followed,
    ) -> Result<(), RemoteError> {
        let mut records = Vec::with_capacity(segment.records.len());
        let (mut closes, mut begun) = (false, 0);
        for bytes in &segment.records {
            match Record::decode(bytes) {
                Ok(record) => {
                    closes |= matches!(record.body, Body::WriterEnd);
                    if let Body::Day { count, .. } = record.body {
                        begun = begun.max(count);
                    }
                    records.push(record);
                }
                Err(error) => tracing::warn!(%error, %token, "a record of the catalog is dropped"),
            }
        }
        let (writer, sequence) = (header.writer, header.sequence);
        let day = segment.day.min(self.tree.today().max(begun));
        let origin = Origin::Published(Brought { writer, sequence, day });
        let records: Vec<_> = records.into_iter().map(|record| (record, origin)).collect();
        let reference = Reference { token: token.clone(), identity };
        let row = SegmentRow { writer, sequence, reference, day };
        let named = self.unknown_of(&header, &segment)?;
        let mut failed = Ok(());
        let stale = self.tree.apply(&records, |txn| {
            failed = note_segment(self, txn, &row, segment.predecessor.as_ref(), closes);
            txn.store::<UnopenedRow>(self.by_token(b'u', token), None);
            for awaited in &named {
                let key = identity_key(b'h', &awaited.reference.identity);
                txn.store(key, Some(awaited));
            }
        })?;
        failed?;
        self.note_weight(identity.len)?;
        followed.stale.extend(stale);
        followed.segments += 1;
        Ok(())
    }

    /// What a segment names and is not accounted for yet.
    fn unknown_of(
        &self,
        header: &Header,
        segment: &Segment,
    ) -> Result<Vec<AwaitedRow>, RemoteError> {
        let since = self.env.millis();
        let mut awaited = Vec::new();
        let mut add = |what, reference: &Reference| -> Result<(), RemoteError> {
            if !self.is_accounted_for(what, reference)? {
                awaited.push(AwaitedRow { what, reference: reference.clone(), since });
            }
            Ok(())
        };
        if let Some(before) = &segment.predecessor {
            let (writer, sequence) = (header.writer, header.sequence - 1);
            add(Awaited::Segment { writer, sequence }, before)?;
        }
        for end in &segment.ends {
            let what = Awaited::Segment { writer: end.writer, sequence: end.sequence };
            add(what, &end.reference)?;
        }
        for manifest in &segment.manifests {
            add(Awaited::Manifest, manifest)?;
        }
        let new = |row: &AwaitedRow| {
            let key = identity_key(b'h', &row.reference.identity);
            Ok::<_, RemoteError>(self.load::<AwaitedRow>(&key)?.is_none())
        };
        let mut kept = Vec::new();
        for row in awaited {
            if new(&row)? {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// Whether a payload that something names is applied here, covered, given up, or forgotten
    /// (docs/format.md, 4.6).
    pub(super) fn is_accounted_for(
        &self,
        what: Awaited,
        of: &Reference,
    ) -> Result<bool, RemoteError> {
        let identity = &of.identity;
        if self.load::<Token>(&identity_key(b'i', identity))?.is_some()
            || self.is_replaced(&of.token)?
        {
            return Ok(true);
        }
        let vault = self.tree.vault();
        if vault.given_up.contains(identity) || vault.given_up_tokens.contains(&of.token) {
            return Ok(true);
        }
        match what {
            Awaited::Manifest => {
                let known =
                    self.load::<super::state::ManifestRow>(&self.by_token(b'k', &of.token))?;
                Ok(known.is_some_and(|row| row.reference.identity == *identity && !row.broken))
            }
            Awaited::Segment { writer, sequence } => {
                let end = super::state::end_key(writer, identity);
                Ok(self.load::<super::state::EndRow>(&end)?.is_some()
                    || sequence <= self.covered_through(writer)?
                    || self.is_before_horizon(writer, sequence)?)
            }
        }
    }

    /// Notes a payload of the catalog that did not open.
    pub(super) fn note_unopened(&self, token: &Token, why: &Unopened) -> Result<(), RemoteError> {
        let key = self.by_token(b'u', token);
        if self.load::<UnopenedRow>(&key)?.is_some() {
            return Ok(());
        }
        let row = UnopenedRow {
            token: token.clone(),
            why: why.to_string(),
            day: self.tree.today(),
            since: self.env.millis(),
            newer: matches!(why, Unopened::Newer(_)),
        };
        let mut batch = self.tree.db().batch();
        batch.store(&key, &row);
        Ok(batch.commit()?)
    }
}
