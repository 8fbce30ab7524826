//! Files of other clients: found by listing, shown where their context says.
//!
//! Invariants
//! 1. The listing adds, it never takes: what the catalog has keeps its name, whatever the listing
//!    claims (docs/format.md, 9). A token that the catalog knows, one with a drive's mark and one
//!    under a hidden context are not shown.
//! 2. What only a listing showed goes when a whole listing lacks it.

use std::collections::BTreeSet;

use crate::catalog::format::payload::is_mark;
use crate::catalog::local::inode::{Inode, Time};
use crate::catalog::local::schema;
use crate::catalog::namespace::{Owner, Stale, number_of};
use crate::catalog::replication::{Paths, Remote, RemoteError};
use crate::crypto::OVERHEAD;
use crate::db::Space;
use crate::store::{ListFilter, TokenRecord};

/// Pages of a short listing.
const SHORT: u32 = 2;

/// The last second of the year 2100: later dates are no dates.
const LAST_SECOND: i64 = 4_133_980_799;

/// What a listing brought.
#[derive(Debug, Default)]
pub struct Discovered {
    /// New files shown.
    pub added: u64,
    /// Files whose token is gone.
    pub removed: u64,
    /// Changes of other clients that the catalog took over, and that are to be published.
    pub adopted: u64,
    /// What caches must forget.
    pub stale: Vec<Stale>,
}

impl Remote {
    /// Looks for new tokens only: backwards from where the last listing ended to the first
    /// page that brings nothing new, then forwards to the end. A service lists in the order
    /// of creation where it sorts at all (protocol E.2); what moves otherwise, and what was
    /// deleted, is found by the next whole listing.
    pub async fn discover_news(
        &self,
        owner: Owner,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let ended: u32 = self.tree.db().load(&schema::meta("listed-pages"))?.unwrap_or(0);
        if ended == 0 {
            return self.discover(owner, found).await;
        }
        let (mut page, mut last) = (ended, None);
        loop {
            let got = self.store.list(&ListFilter::default(), page).await?;
            if got.records.is_empty() && page > 1 {
                page = (page / 2).max(1); // much has been deleted
                continue;
            }
            last = last.or(Some((page, got.more)));
            let before = found.added;
            self.show_all(&got.records, owner, found)?;
            if found.added == before || page == 1 {
                break;
            }
            page -= 1;
        }
        let (mut page, mut more) = last.unwrap_or((ended, false));
        while more {
            let got = self.store.list(&ListFilter::default(), page + 1).await?;
            if got.records.is_empty() {
                break;
            }
            page += 1;
            self.show_all(&got.records, owner, found)?;
            more = got.more;
        }
        self.note_listed(page)
    }

    fn show_all(
        &self,
        records: &[TokenRecord],
        owner: Owner,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        for record in records {
            if self.is_of_others(record)? {
                self.show(record, owner, found)?;
            }
        }
        Ok(())
    }

    /// Whether a whole listing costs hardly more than a look for what is new.
    pub fn is_short(&self) -> Result<bool, RemoteError> {
        let pages: Option<u32> = self.tree.db().load(&schema::meta("listed-pages"))?;
        Ok(pages.is_none_or(|pages| pages <= SHORT))
    }

    fn note_listed(&self, pages: u32) -> Result<(), RemoteError> {
        let mut batch = self.tree.db().batch();
        batch.store(&schema::meta("listed-pages"), &pages);
        Ok(batch.commit()?)
    }

    /// Lists every token once, shows those of other clients, and hides those that are gone.
    pub async fn discover(&self, owner: Owner, found: &mut Discovered) -> Result<(), RemoteError> {
        let mut listed = BTreeSet::new();
        for page in 1.. {
            let got = self.store.list(&ListFilter::default(), page).await?;
            let before = listed.len();
            for record in &got.records {
                if !listed.insert(self.tree.token_tag(&record.token)) {
                    continue;
                }
                if self.is_of_others(record)? {
                    self.show(record, owner, found)?;
                }
                self.compare_risk(record, found)?;
            }
            if !got.more || listed.len() == before {
                self.note_listed(page)?;
                break;
            }
        }
        self.hide_gone(&listed, found)
    }

    fn is_of_others(&self, record: &TokenRecord) -> Result<bool, RemoteError> {
        let mark = record.mark.as_deref();
        let own = mark.is_some_and(|mark| is_mark(&self.catalog_keys, mark));
        Ok(!own && !Paths::is_hidden(&record.context) && !self.tree.knows_token(&record.token)?)
    }

    fn show(
        &self,
        record: &TokenRecord,
        owner: Owner,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let created = clamped(Time::from(record.created.unwrap_or(std::time::UNIX_EPOCH)));
        let mut txn = self.tree.begin();
        let folders = components(&record.context, record.path.as_deref());
        let parent = txn.folder_of(&folders, owner, created)?;
        let name = file_name(record);
        let size = record.size.unwrap_or(0);
        if !txn.show_token(&record.token, (parent, &name), owner, created, size)? {
            return Ok(());
        }
        if let Some(risk) = &record.risk {
            txn.set_listed_risk(number_of(&record.token), risk)?;
        }
        found.stale.extend(txn.commit()?);
        found.added += 1;
        Ok(())
    }

    /// Takes over risk meta that another client has set at the service, where the listing
    /// tells. What has changed here meanwhile, or is still to be sent, is newer. It must be
    /// seen in two listings: the first may be older than what this machine has sent, and
    /// before the second other machines of this key have told what they have set.
    fn compare_risk(
        &self,
        record: &TokenRecord,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let Some(there) = &record.risk else { return Ok(()) };
        let tag = self.tree.token_tag(&record.token);
        let Some(ino) = self.tree.file_with(&record.token)? else { return Ok(()) };
        let is_stale = |inode: &Inode| {
            let seen = inode.local.risk_seen.as_ref();
            inode.content.version.token() == Some(&record.token)
                && seen.is_none_or(|(before, _)| before != there)
        };
        let stale = self.tree.find_inode(ino)?.is_some_and(|inode| is_stale(&inode));
        let before = match stale {
            true => self.tree.risk_seen.lock().insert(tag, there.clone()),
            false => self.tree.risk_seen.lock().remove(&tag),
        };
        if !stale || before.as_ref() != Some(there) {
            return Ok(());
        }
        self.tree.risk_seen.lock().remove(&tag);
        let unsent = self.tree.db().contains(Space::Meta, &schema::align(ino))?;
        let mut txn = self.tree.begin();
        let Some(mut inode) = txn.find_inode(ino)?.filter(is_stale) else { return Ok(()) };
        let here = inode.risk();
        let untouched = inode.local.risk_seen.as_ref().is_some_and(|(_, then)| *then == here);
        if untouched && !unsent && inode.local.nlink > 0 {
            if inode.local.foreign {
                txn.set_listed_risk(ino, there)?;
                txn.commit()?;
                return Ok(());
            }
            inode.attrs.ctime = txn.now();
            inode.set_risk(there);
            found.adopted += 1;
        }
        inode.local.risk_seen = Some((there.clone(), inode.risk()));
        txn.put_inode(inode)?;
        txn.commit()?;
        Ok(())
    }

    /// Discovered files whose token is no longer listed go away; those that somebody acted on
    /// stay.
    fn hide_gone(
        &self,
        listed: &BTreeSet<[u8; 16]>,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let mut gone = Vec::new();
        self.tree.each_inode(|inode| {
            let token = inode.content.version.token();
            if inode.local.foreign
                && let Some(token) = token
                && inode.content.is_of_others()
                && !listed.contains(&self.tree.token_tag(token))
            {
                gone.push(inode.ino);
            }
            true
        })?;
        for ino in gone {
            let mut txn = self.tree.begin();
            txn.hide(ino)?;
            found.stale.extend(txn.commit()?);
            found.removed += 1;
        }
        Ok(())
    }
}

/// The plaintext length that a sealed payload of `sealed` bytes has.
pub fn plain_len(sealed: u64) -> u64 {
    sealed.saturating_sub(OVERHEAD as u64)
}

/// A date as it is shown: one that cannot be is 1970 (docs/format.md, 9).
fn clamped(time: Time) -> Time {
    if (0..=LAST_SECOND).contains(&time.secs) { time } else { Time::default() }
}

/// The folders of a context and a path; empty components are left out.
fn components(context: &str, path: Option<&str>) -> Vec<Vec<u8>> {
    let parts = context.split('/').chain(path.unwrap_or("/").split('/'));
    parts.filter(|part| !part.is_empty()).map(file_component).collect()
}

/// A component as a name that a folder can hold: what it cannot is percent-encoded, and so is
/// the percent sign.
fn file_component(text: &str) -> Vec<u8> {
    let all = matches!(text, "." | "..");
    let mut name = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0 | b'/' | b'%' => name.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            b'.' if all => name.extend_from_slice(b"%2e"),
            other => name.push(other),
        }
    }
    cut(&name).to_vec()
}

fn cut(name: &[u8]) -> &[u8] {
    let max = crate::catalog::format::names::NAME_MAX;
    match std::str::from_utf8(name) {
        Ok(text) => &name[..text.floor_char_boundary(max)],
        Err(_) => &name[..name.len().min(max)],
    }
}

fn file_name(record: &TokenRecord) -> Vec<u8> {
    let given = record.file_name.as_deref().filter(|name| !name.is_empty());
    file_component(given.unwrap_or(record.token.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_one_that_a_folder_can_hold() {
        for (text, name) in [("a", "a"), ("..", "%2e%2e"), ("a/b%", "a%2fb%25"), (".x", ".x")] {
            assert_eq!(file_component(text), name.as_bytes());
        }
        assert!(file_component(&"\u{e9}".repeat(300)).len() <= 255);
        assert_eq!(components("/", Some("/a//b")), [b"a".to_vec(), b"b".to_vec()]);
    }
}
