//! Checkpoints: the whole catalog in a few payloads, so that a new machine need not read every
//! segment since the beginning.
//!
//! Invariants
//! 1. A checkpoint is of one moment of the local database, right after a look, without doubt;
//!    it holds every record that was in the vault or applied then, and covers just that.
//! 2. Pages first, the manifest last: a manifest without all its pages cannot exist.
//! 3. What it replaces it names, token by token; that goes only after all of it was read back,
//!    a calendar day later.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::paths::Paths;
use super::remote::{Followed, Remote, RemoteError};
use super::state::{EndRow, ManifestRow, SegmentRow, end_key, identity_key};
use crate::catalog::conflict::object::{Brought, Origin};
use crate::catalog::format::payload::{PayloadKind, open, seal};
use crate::catalog::format::segment::{Brought as PageRecord, Covered, Step};
use crate::catalog::format::{Body, Header, Identity, Manifest, Page, Record, Reference, Subject};
use crate::catalog::local::schema;
use crate::catalog::namespace::Tree;
use crate::db::{DbSnapshot, Space};
use crate::store::Token;

/// Bytes of records on one page, about.
const PAGE_BYTES: usize = 4 << 20;

/// Segments after which a checkpoint may be due.
const SEGMENTS: u64 = 64;

/// Bytes of segments that are never worth a checkpoint.
const WORTH: u64 = 16 << 10;

/// Pages under way at once.
const PAGES: usize = 2;

/// Counts of the calendar between two steps, and from a step to the horizon.
const STEP_DAYS: u64 = 10;
const HORIZON_DAYS: u64 = 90;

/// Counts of the calendar after which what was replaced goes, and a page that nobody names.
const REPLACED_DAYS: u64 = 2;
const UNNAMED_DAYS: u64 = 3;

impl Remote {
    /// Writes a checkpoint if the segments since the last weigh half as much as that.
    pub async fn checkpoint_if_due(&self) -> Result<bool, RemoteError> {
        let key = schema::meta("since-checkpoint");
        let (segments, weight) = self.load::<(u64, u64)>(&key)?.unwrap_or_default();
        let last = self.load::<u64>(&schema::meta("checkpoint-weight"))?.unwrap_or(0);
        if segments < SEGMENTS || weight < WORTH.max(last / 2) {
            return Ok(false);
        }
        self.checkpoint().await
    }

    /// Writes a checkpoint of what is applied here; false where there is doubt.
    pub async fn checkpoint(&self) -> Result<bool, RemoteError> {
        let mut followed = Followed::default();
        let looked = self.follow(&mut followed).await;
        self.keep_stale(followed.stale);
        looked?;
        if self.is_in_doubt()? {
            return Ok(false);
        }
        let Some(vault) = self.tree.vault().identity else { return Ok(false) };
        let (writer, sequence) = self.next_manifest()?;
        let since_before = self.load::<(u64, u64)>(&schema::meta("since-checkpoint"))?;
        let snapshot = self.tree.db().snapshot();
        let today = self.tree.today();
        let ends = rows::<EndRow>(&snapshot, b'e')?;
        let covers: Vec<Covered> = ends
            .iter()
            .map(|row| Covered {
                writer: row.writer,
                sequence: row.sequence,
                identity: row.identity,
                day: row.day,
                closed: row.closed,
            })
            .collect();
        let older = rows::<ManifestRow>(&snapshot, b'k')?;
        let replaces = replaced(&snapshot, &older)?;
        let (pages, weight, names) = self.write_pages(&snapshot, (writer, sequence), today).await?;
        let (horizon, steps) = next_horizon(&older, today, &covers);
        let missing = self.tree.vault().given_up.into_iter().collect();
        let manifest = Manifest {
            vault,
            day: today,
            covers,
            replaces,
            pages,
            horizon,
            steps,
            weight,
            missing,
            names,
        };
        let content = manifest.encode();
        let kind = PayloadKind::Manifest;
        let key = self.catalog_keys.id();
        let header = Header { kind, key, writer, sequence, number: 0, count: 0 };
        let sealed = seal(&self.catalog_keys, &*self.env.random, header, None, &content);
        let name = Paths::manifest_name(writer, sequence);
        let mark = self.new_mark();
        let token = self.put(self.paths.checkpoints(), name, &mark, &sealed).await?;
        let Some(identity) = Identity::of_catalog(&sealed) else { return Ok(false) };
        let reference = Reference { token, identity };
        let row = ManifestRow {
            reference,
            writer,
            sequence,
            content,
            loaded: true,
            read_back: None,
            broken: false,
        };
        self.keep_manifest(&row)?;
        self.note_loaded(&row, &manifest)?;
        let (segments, bytes) = since_before.unwrap_or_default();
        self.note_checkpoint(weight, (segments, bytes))?;
        self.read_back(row).await?;
        Ok(true)
    }

    /// Seals and stores the pages; gives their references, their weight, and how many names there
    /// are.
    async fn write_pages(
        &self,
        snapshot: &DbSnapshot,
        (writer, sequence): (u64, u64),
        today: u64,
    ) -> Result<(Vec<Reference>, u64, u64), RemoteError> {
        let (mut count, mut from) = (0u32, Some(Subject::Vault));
        while let Some(subject) = from {
            let (_, next) = page_from(snapshot, subject, today)?;
            count += 1;
            from = next;
        }
        let (mut pages, mut weight, mut names) = (Vec::new(), 0, 0);
        let (mut number, mut from) = (0u32, Some(Subject::Vault));
        while let Some(subject) = from {
            let (records, next) = page_from(snapshot, subject, today)?;
            names += records.names;
            let content = Page { records: records.all }.encode();
            let (kind, key) = (PayloadKind::Page, self.catalog_keys.id());
            let header = Header { kind, key, writer, sequence, number, count };
            let sealed = seal(&self.catalog_keys, &*self.env.random, header, None, &content);
            weight += sealed.len() as u64;
            let name = Paths::page_name(writer, sequence, number);
            let mark = self.new_mark();
            let token = self.put(self.paths.checkpoints(), name, &mark, &sealed).await?;
            if let Some(identity) = Identity::of_catalog(&sealed) {
                pages.push(Reference { token, identity });
            }
            number += 1;
            from = next;
        }
        Ok((pages, weight, names))
    }

    /// Reads a manifest and its pages back, and notes the day; what it replaces may then go.
    async fn read_back(&self, row: ManifestRow) -> Result<(), RemoteError> {
        let manifest = row.manifest();
        self.fetch_pinned(&row.reference).await?;
        let pages = stream::iter(manifest.pages)
            .map(|page| async move { self.fetch_pinned(&page).await.map(drop) });
        pages.buffer_unordered(PAGES).try_collect::<()>().await?;
        self.keep_manifest(&ManifestRow { read_back: Some(self.tree.today()), ..row })
    }

    /// Loads every manifest that covers something that is not applied here.
    pub(super) async fn load_checkpoints(
        &self,
        followed: &mut Followed,
    ) -> Result<(), RemoteError> {
        loop {
            let rows: Vec<ManifestRow> = self.all(b'k')?;
            let horizon = rows.iter().map(|row| row.manifest().horizon.day).max().unwrap_or(0);
            let mut best: Option<(usize, Identity, ManifestRow)> = None;
            for row in rows {
                let manifest = row.manifest();
                if row.loaded || row.broken || (manifest.day < horizon && horizon > 0) {
                    continue;
                }
                let mut missing = 0;
                for entry in &manifest.covers {
                    missing += usize::from(!self.has_applied(entry)?);
                }
                let better = best.as_ref().is_none_or(|(count, identity, _)| {
                    missing > *count || (missing == *count && row.reference.identity < *identity)
                });
                if missing > 0 && better {
                    best = Some((missing, row.reference.identity, row));
                } else if missing == 0 {
                    // All of it is applied already: it replaces what it says.
                    self.note_loaded(&ManifestRow { loaded: true, ..row }, &manifest)?;
                }
            }
            let Some((_, _, row)) = best else { return Ok(()) };
            self.load_one(row, followed).await?;
        }
    }

    async fn load_one(&self, row: ManifestRow, followed: &mut Followed) -> Result<(), RemoteError> {
        let manifest = row.manifest();
        let count = u32::try_from(manifest.pages.len()).unwrap_or(u32::MAX);
        let mut pages = stream::iter((0u32..).zip(manifest.pages.clone()))
            .map(|(number, page)| async move { (number, self.fetch_pinned(&page).await) })
            .buffered(PAGES);
        while let Some((number, payload)) = pages.next().await {
            let page = match payload {
                Ok(payload) => self.open_page(&row, (number, count), &payload),
                Err(RemoteError::Store(error)) if error.is_retryable() => {
                    return Err(error.into());
                }
                Err(RemoteError::Store(_) | RemoteError::Replaced { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(page) = page else {
                return self.keep_manifest(&ManifestRow { broken: true, ..row });
            };
            let mut records = Vec::with_capacity(page.records.len());
            for PageRecord { writer, sequence, day, record } in page.records {
                let Ok(record) = Record::decode(&record) else { continue };
                self.tree.count_day(&record);
                let origin = Origin::Published(Brought { writer, sequence, day });
                records.push((record, origin));
            }
            followed.stale.extend(self.tree.apply(&records, |_| ())?);
        }
        followed.checkpoint = true;
        let row = ManifestRow { loaded: true, read_back: Some(self.tree.today()), ..row };
        self.note_loaded(&row, &manifest)?;
        self.note_checkpoint(manifest.weight, (u64::MAX, u64::MAX))
    }

    fn open_page(
        &self,
        of: &ManifestRow,
        (number, count): (u32, u32),
        payload: &[u8],
    ) -> Option<Page> {
        let (header, content) = open(&self.catalog_keys, payload, None).ok()?;
        let is_this = header.kind == PayloadKind::Page
            && (header.writer, header.sequence) == (of.writer, of.sequence)
            && (header.number, header.count) == (number, count);
        is_this.then(|| Page::decode(&content).ok()).flatten()
    }

    /// Whether the end of a chain, and all before it, is applied here.
    fn has_applied(&self, entry: &Covered) -> Result<bool, RemoteError> {
        Ok(self.load::<Token>(&identity_key(b'i', &entry.identity))?.is_some()
            || self.load::<()>(&identity_key(b'p', &entry.identity))?.is_some()
            || self.load::<EndRow>(&end_key(entry.writer, &entry.identity))?.is_some()
            || entry.sequence <= self.covered_through(entry.writer)?)
    }

    /// Notes what follows from a checkpoint whose records are all here.
    fn note_loaded(&self, row: &ManifestRow, manifest: &Manifest) -> Result<(), RemoteError> {
        let mut batch = self.tree.db().batch();
        batch.store(&self.by_token(b'k', &row.reference.token), row);
        let mut through: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in &manifest.covers {
            let most = through.entry(entry.writer).or_default();
            *most = entry.sequence.max(*most);
            let known = self.load::<()>(&identity_key(b'p', &entry.identity))?.is_some();
            let key = end_key(entry.writer, &entry.identity);
            if !known && self.load::<EndRow>(&key)?.is_none() {
                let token = manifest.replaces.iter().find(|of| of.identity == entry.identity);
                let end = EndRow {
                    writer: entry.writer,
                    sequence: entry.sequence,
                    identity: entry.identity,
                    token: token.map(|of| of.token.clone()),
                    day: entry.day,
                    closed: entry.closed,
                };
                batch.store(&key, &end);
            }
        }
        for (writer, sequence) in through {
            let most = sequence.max(self.covered_through(writer)?);
            batch.store(&schema::replication(b'c', &[&writer.to_be_bytes()]), &most);
        }
        for reference in &manifest.replaces {
            batch.store(&self.by_token(b'r', &reference.token), reference);
        }
        Ok(batch.commit()?)
    }

    fn note_checkpoint(&self, weight: u64, covered: (u64, u64)) -> Result<(), RemoteError> {
        let key = schema::meta("since-checkpoint");
        let (segments, bytes) = self.load::<(u64, u64)>(&key)?.unwrap_or_default();
        let left = (segments.saturating_sub(covered.0), bytes.saturating_sub(covered.1));
        let mut batch = self.tree.db().batch();
        batch.store(&key, &left);
        batch.store(&schema::meta("checkpoint-weight"), &weight);
        Ok(batch.commit()?)
    }

    /// Whether a writer's segment of this number is before the horizon of any checkpoint.
    pub(super) fn is_before_horizon(
        &self,
        writer: u64,
        sequence: u64,
    ) -> Result<bool, RemoteError> {
        let rows: Vec<ManifestRow> = self.all(b'k')?;
        let latest = rows.into_iter().map(|row| row.manifest().horizon).max_by_key(|h| h.day);
        let ends = latest.map(|horizon| horizon.ends).unwrap_or_default();
        Ok(ends.iter().any(|(of, number, _)| *of == writer && sequence <= *number))
    }

    /// The payloads of the catalog that may go now: what a checkpoint that was read back a
    /// calendar day ago replaces, manifests before their pages.
    pub fn replaced_and_due(&self) -> Result<Vec<Token>, RemoteError> {
        let today = self.tree.today();
        let rows: Vec<ManifestRow> = self.all(b'k')?;
        let ripe = |row: &&ManifestRow| {
            row.read_back.is_some_and(|day| today >= day + REPLACED_DAYS) && !row.broken
        };
        let mut due: BTreeSet<Token> = BTreeSet::new();
        for row in rows.iter().filter(ripe) {
            due.extend(row.manifest().replaces.into_iter().map(|of| of.token));
        }
        // Only those that are still there are worth a call.
        let mut listed = Vec::new();
        for token in due {
            if self.is_replaced(&token)? {
                listed.push(token);
            }
        }
        Ok(listed)
    }

    /// Pages that no manifest names any more, once they have been seen so for long enough.
    pub async fn unnamed_pages(&self) -> Result<Vec<Token>, RemoteError> {
        let filter = crate::store::ListFilter {
            context: Some(self.paths.checkpoints()),
            ..crate::store::ListFilter::default()
        };
        let listed = crate::store::list_all(&*self.store, &filter).await?;
        let rows: Vec<ManifestRow> = self.all(b'k')?;
        let mut named: BTreeSet<Token> = BTreeSet::new();
        for row in &rows {
            named.insert(row.reference.token.clone());
            if !self.is_replaced(&row.reference.token)? {
                named.extend(row.manifest().pages.into_iter().map(|page| page.token));
            }
        }
        let (today, mut due) = (self.tree.today(), Vec::new());
        let mut batch = self.tree.db().batch();
        for record in listed {
            let key = self.by_token(b'q', &record.token);
            let is_page = record.file_name.as_deref().is_some_and(|name| name.ends_with(".page"));
            if !is_page || named.contains(&record.token) {
                batch.remove(Space::Meta, &key);
                continue;
            }
            match self.load::<u64>(&key)? {
                None => batch.store(&key, &today),
                Some(day) if today >= day + UNNAMED_DAYS => {
                    batch.remove(Space::Meta, &key);
                    due.push(record.token);
                }
                Some(_) => {}
            }
        }
        batch.commit()?;
        Ok(due)
    }
}

/// What one page holds.
#[derive(Default)]
struct PageRecords {
    all: Vec<PageRecord>,
    names: u64,
}

/// The records of the page that begins with a subject, and the subject that the next begins with.
fn page_from(
    snapshot: &DbSnapshot,
    from: Subject,
    today: u64,
) -> Result<(PageRecords, Option<Subject>), RemoteError> {
    let (mut page, mut bytes, mut next) = (PageRecords::default(), 0, None);
    Tree::each_record(snapshot, from, |subject, records| {
        if bytes >= PAGE_BYTES {
            next = Some(subject);
            return false;
        }
        let mut of_subject: Vec<PageRecord> = records
            .into_iter()
            .filter(|(record, _)| !matches!(record.body, Body::Day { count, .. } if count < today))
            .map(|(record, brought)| {
                page.names += u64::from(matches!(record.body, Body::Name(_)));
                let Brought { writer, sequence, day } = brought;
                PageRecord { writer, sequence, day, record: record.encode() }
            })
            .collect();
        of_subject.sort_by(|a, b| a.record.cmp(&b.record));
        bytes += of_subject.iter().map(|record| record.record.len() + 24).sum::<usize>();
        page.all.extend(of_subject);
        true
    })?;
    Ok((page, next))
}

fn rows<T: serde::de::DeserializeOwned>(
    snapshot: &DbSnapshot,
    table: u8,
) -> Result<Vec<T>, RemoteError> {
    let prefix = schema::replication(table, &[]);
    let mut rows = Vec::new();
    snapshot.scan(&prefix, &prefix, |_, value| {
        rows.push(crate::db::decode(&value)?);
        Ok(true)
    })?;
    Ok(rows)
}

/// Everything that who reads the checkpoint need not read.
fn replaced(snapshot: &DbSnapshot, older: &[ManifestRow]) -> Result<Vec<Reference>, RemoteError> {
    let mut all: BTreeSet<Reference> = BTreeSet::new();
    let segments = rows::<SegmentRow>(snapshot, b'g')?;
    all.extend(segments.into_iter().map(|row| row.reference));
    all.extend(older.iter().map(|row| row.reference.clone()));
    all.extend(rows::<Reference>(snapshot, b'r')?);
    Ok(all.into_iter().collect())
}

/// The horizon that a new checkpoint has, and the later moments that it carries on.
fn next_horizon(older: &[ManifestRow], today: u64, covers: &[Covered]) -> (Step, Vec<Step>) {
    let latest = older.iter().map(ManifestRow::manifest).max_by_key(|m| (m.horizon.day, m.day));
    let (mut horizon, mut steps) =
        latest.map(|manifest| (manifest.horizon, manifest.steps)).unwrap_or_default();
    if steps.last().is_none_or(|last| today >= last.day + STEP_DAYS) {
        let ends = covers.iter().map(|end| (end.writer, end.sequence, end.identity)).collect();
        steps.push(Step { day: today, ends });
    }
    let old = steps.iter().rposition(|step| step.day + HORIZON_DAYS <= today);
    if let Some(at) = old {
        horizon = steps[at].clone();
        steps.drain(..=at);
    }
    (horizon, steps)
}
