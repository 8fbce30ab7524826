//! Following the other writers: what the vault has of the catalog, and this machine has not.
//!
//! Invariants
//! 1. What a listing says of a payload decides nothing but whether it is fetched.
//! 2. Every payload that something names is applied, or known to be covered, or awaited: and
//!    what is awaited is doubt (docs/format.md, 4.6).
//! 3. A checkpoint is loaded as a whole, or counts for nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::position::LogListing;
use super::remote::{Followed, Remote, RemoteError};
use super::segments::Opened;
use super::state::{Awaited, AwaitedRow, ManifestRow, SegmentRow, UnopenedRow, identity_key};
use crate::catalog::format::{Reference, Unopened};
use crate::store::{ListFilter, StoreErrorKind, Token, TokenRecord, list_all};

/// Payloads fetched at once.
const FETCHES: usize = 8;

/// How often what was gone when it was fetched is listed again in one look.
const AGAIN: usize = 3;

/// How long a listing of the whole log is good for, where only what is new is listed.
const COMPLETE_EVERY: Duration = Duration::from_secs(86_400);

/// What became of a payload that was to be fetched.
enum Fetched {
    Payload(Vec<u8>),
    Gone,
}

impl Remote {
    /// Takes in everything that is new here. `followed` holds what was applied also when an
    /// error ends it early.
    pub async fn follow(&self, followed: &mut Followed) -> Result<(), RemoteError> {
        let done = self.follow_now(followed).await;
        if done.is_ok() {
            self.note_looked();
        }
        followed.doubts = self.reported_doubts()?;
        done
    }

    async fn follow_now(&self, followed: &mut Followed) -> Result<(), RemoteError> {
        for _ in 0..AGAIN {
            let manifests = self.list(self.paths.checkpoints()).await?;
            let (log, complete) = self.list_log().await?;
            self.check_emptied(&manifests, &log).await?;
            let mut gone = self.take_manifests(&manifests, followed).await?;
            self.load_checkpoints(followed).await?;
            gone |= self.take_segments(&log, followed).await?;
            gone |= self.fetch_awaited(followed).await?;
            if complete {
                self.forget_gone(&manifests, &log)?;
                if !self.is_emptied() {
                    self.heal(&log).await?;
                }
            }
            if !gone {
                break;
            }
        }
        self.note_followed()?;
        Ok(())
    }

    async fn list(&self, context: String) -> Result<Vec<TokenRecord>, RemoteError> {
        let filter = ListFilter { context: Some(context), ..ListFilter::default() };
        Ok(list_all(&*self.store, &filter).await?)
    }

    /// The log, and whether that is all of it. Programs that call `fsync` all the time make
    /// thousands of segments an hour, so once all has been listed, only what is new is: from the
    /// last page back to the first that brings nothing new, then on to the end. Where the service
    /// does not sort, and once a day, all is listed.
    async fn list_log(&self) -> Result<(Vec<TokenRecord>, bool), RemoteError> {
        let filter = ListFilter { context: Some(self.paths.log()), ..ListFilter::default() };
        let before = self.log.lock().filter(|log| log.complete.elapsed() < COMPLETE_EVERY);
        if let Some(before) = before
            && let Some((news, pages)) = self.list_news(&filter, before.pages).await?
        {
            *self.log.lock() = Some(LogListing { pages, ..before });
            return Ok((news, false));
        }
        let (mut records, mut seen, mut pages) = (Vec::new(), BTreeSet::new(), 1);
        let (mut last, mut sorted) = (None, true);
        loop {
            let got = self.store.list(&filter, pages).await?;
            let known = seen.len();
            for record in got.records.into_iter().filter(|record| filter.matches(record)) {
                sorted &= record.created.is_some() && record.created >= last;
                last = record.created;
                if seen.insert(record.token.clone()) {
                    records.push(record);
                }
            }
            if !got.more || seen.len() == known {
                break;
            }
            pages += 1;
        }
        let listing = LogListing { pages, complete: Instant::now() };
        *self.log.lock() = Some(listing).filter(|_| sorted && pages > 1);
        Ok((records, true))
    }

    /// What is new in a sorted listing that had so many pages; nothing where the service has
    /// fewer now.
    async fn list_news(
        &self,
        filter: &ListFilter,
        pages: u32,
    ) -> Result<Option<(Vec<TokenRecord>, u32)>, RemoteError> {
        let (mut news, mut page) = (Vec::new(), pages);
        let last = self.store.list(filter, page).await?;
        if last.records.is_empty() {
            return Ok(None);
        }
        let (mut end, mut more) = (page, last.more);
        let mut got = last.records;
        loop {
            let mut new = false;
            for record in got.into_iter().filter(|record| filter.matches(record)) {
                new |=
                    self.segment(&record.token)?.is_none() && !self.is_replaced(&record.token)?;
                news.push(record);
            }
            if !new || page == 1 {
                break;
            }
            page -= 1;
            got = self.store.list(filter, page).await?.records;
        }
        while more {
            let next = self.store.list(filter, end + 1).await?;
            if next.records.is_empty() {
                break;
            }
            (end, more) = (end + 1, next.more);
            news.extend(next.records.into_iter().filter(|record| filter.matches(record)));
        }
        Ok(Some((news, end)))
    }

    /// Opens the manifests that are new here; says whether one is gone by now.
    async fn take_manifests(
        &self,
        listed: &[TokenRecord],
        followed: &mut Followed,
    ) -> Result<bool, RemoteError> {
        let mut wanted = Vec::new();
        for record in listed {
            let name = record.file_name.as_deref().unwrap_or_default();
            // A hint: pages are known by the manifest that names them.
            if name.ends_with(".page") || self.is_replaced(&record.token)? {
                continue;
            }
            if self.load::<ManifestRow>(&self.by_token(b'k', &record.token))?.is_none() {
                wanted.push(record.token.clone());
            }
        }
        self.take_all(wanted, followed).await
    }

    /// Applies the segments that are new here; says whether one is gone by now.
    async fn take_segments(
        &self,
        listed: &[TokenRecord],
        followed: &mut Followed,
    ) -> Result<bool, RemoteError> {
        let mut wanted = Vec::new();
        for record in listed {
            if self.segment(&record.token)?.is_none() && !self.is_replaced(&record.token)? {
                wanted.push((record.file_name.clone(), record.token.clone()));
            }
        }
        // In the order of their names: a hint that spares detours.
        wanted.sort();
        self.take_all(wanted.into_iter().map(|(_, token)| token).collect(), followed).await
    }

    /// Fetches, opens and takes in payloads of the catalog, whatever each turns out to be.
    async fn take_all(
        &self,
        tokens: Vec<Token>,
        followed: &mut Followed,
    ) -> Result<bool, RemoteError> {
        let mut fetched = stream::iter(tokens)
            .map(|token| async move {
                let payload = self.fetch_if_there(&token).await;
                (token, payload)
            })
            .buffered(FETCHES);
        let mut gone = false;
        while let Some((token, payload)) = fetched.next().await {
            match payload? {
                Fetched::Gone => gone = true,
                Fetched::Payload(payload) => self.take(&token, &payload, followed)?,
            }
        }
        Ok(gone)
    }

    async fn fetch_if_there(&self, token: &Token) -> Result<Fetched, RemoteError> {
        let limit = crate::catalog::format::payload::PayloadKind::Manifest.limit();
        match self.fetch(token, limit).await {
            Ok(payload) => Ok(Fetched::Payload(payload)),
            Err(RemoteError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                Ok(Fetched::Gone)
            }
            Err(RemoteError::Store(error)) if error.kind == StoreErrorKind::TooLarge => {
                self.note_unopened(token, &Unopened::TooLong)?;
                Ok(Fetched::Payload(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes one payload in.
    fn take(
        &self,
        token: &Token,
        payload: &[u8],
        followed: &mut Followed,
    ) -> Result<(), RemoteError> {
        let (identity, opened) = match self.open_payload(payload) {
            Ok(opened) => opened,
            Err(why) => return self.note_unopened(token, &why),
        };
        match opened {
            Opened::Segment(header, segment) => {
                self.notice_own(header.writer, &identity)?;
                self.apply_segment(token, identity, (header, segment), followed)
            }
            Opened::Manifest(header, content) => {
                let reference = Reference { token: token.clone(), identity };
                let row = ManifestRow {
                    reference,
                    writer: header.writer,
                    sequence: header.sequence,
                    content,
                    loaded: false,
                    read_back: None,
                    broken: false,
                };
                self.keep_manifest(&row)
            }
            Opened::Page => Ok(()),
        }
    }

    pub(super) fn keep_manifest(&self, row: &ManifestRow) -> Result<(), RemoteError> {
        let token = &row.reference.token;
        let mut batch = self.tree.db().batch();
        batch.store(&self.by_token(b'k', token), row);
        batch.remove(crate::db::Space::Meta, &identity_key(b'h', &row.reference.identity));
        batch.remove(crate::db::Space::Meta, &self.by_token(b'u', token));
        Ok(batch.commit()?)
    }

    /// Fetches what is named and was not listed; says whether anything came.
    async fn fetch_awaited(&self, followed: &mut Followed) -> Result<bool, RemoteError> {
        let mut came = false;
        let mut tried = BTreeSet::new();
        loop {
            let awaited: Vec<AwaitedRow> = self.all(b'h')?;
            let new = awaited.into_iter().find(|row| tried.insert(row.reference.clone()));
            let Some(row) = new else { return Ok(came) };
            let key = identity_key(b'h', &row.reference.identity);
            if self.is_accounted_for(row.what, &row.reference)? {
                let mut batch = self.tree.db().batch();
                batch.remove(crate::db::Space::Meta, &key);
                batch.commit()?;
                continue;
            }
            match self.fetch_pinned(&row.reference).await {
                Ok(payload) => {
                    let before = followed.segments;
                    self.take(&row.reference.token, &payload, followed)?;
                    came |= followed.segments > before || row.what == Awaited::Manifest;
                }
                Err(RemoteError::Store(error)) if error.is_retryable() => {
                    return Err(error.into());
                }
                // It is doubt, as long as nothing accounts for it.
                Err(RemoteError::Store(_) | RemoteError::Replaced { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets what was replaced and is not listed any more.
    fn forget_gone(
        &self,
        manifests: &[TokenRecord],
        log: &[TokenRecord],
    ) -> Result<(), RemoteError> {
        let listed: BTreeSet<&Token> =
            manifests.iter().chain(log).map(|record| &record.token).collect();
        let replaced: Vec<Reference> = self.all(b'r')?;
        let mut batch = self.tree.db().batch();
        let meta = crate::db::Space::Meta;
        for reference in replaced.iter().filter(|of| !listed.contains(&of.token)) {
            batch.remove(meta, &self.by_token(b'r', &reference.token));
            batch.remove(meta, &self.by_token(b'g', &reference.token));
            batch.remove(crate::db::Space::Data, &self.bytes_key(&reference.token));
            batch.remove(meta, &self.by_token(b'k', &reference.token));
            batch.remove(meta, &identity_key(b'i', &reference.identity));
            batch.remove(meta, &identity_key(b'p', &reference.identity));
        }
        for row in self.all::<UnopenedRow>(b'u')? {
            // What nobody names and is gone is no concern.
            if !listed.contains(&row.token) {
                batch.remove(meta, &self.by_token(b'u', &row.token));
            }
        }
        Ok(batch.commit()?)
    }

    /// Whether a vault that this machine knows shows nothing of its catalog any more.
    async fn check_emptied(
        &self,
        manifests: &[TokenRecord],
        log: &[TokenRecord],
    ) -> Result<(), RemoteError> {
        let mut known: Option<Reference> = None;
        let mut shown = false;
        let listed: BTreeSet<&Token> =
            manifests.iter().chain(log).map(|record| &record.token).collect();
        self.each(b'g', |row: SegmentRow| {
            shown |= listed.contains(&row.reference.token);
            known = Some(row.reference);
        })?;
        self.each(b'k', |row: ManifestRow| {
            shown |= listed.contains(&row.reference.token);
            known = known.take().or(Some(row.reference));
        })?;
        let emptied = match known.filter(|_| !shown) {
            None => false,
            // A listing may be behind: what is there all the same says so.
            Some(known) => match self.fetch_pinned(&known).await {
                Ok(_) => false,
                Err(RemoteError::Store(error)) if error.kind != StoreErrorKind::NotFound => {
                    return Err(error.into());
                }
                Err(_) => true,
            },
        };
        self.set_emptied(emptied);
        Ok(())
    }
}
