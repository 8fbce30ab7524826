//! Files that other clients stored: tokens that no segment mentions.
//!
//! Every machine derives the same inode number from the token, and for a folder from its
//! path, so a discovered file that one machine adopts is the same file everywhere. A
//! token that a drive of this key made carries a self-authenticating mark in its
//! reservation's `uuid`; such a token is an upload under way or its remains, not a
//! discovery.

use std::collections::BTreeSet;

use super::hlc::Stamp;
use super::keys;
use super::merge::derived_number;
use super::record::{
    Attrs, Content, Ino, Inode, Kind, Link, Local, ROOT_INO, Time, Version, truncate_utf8,
};
use super::remote::{Remote, RemoteError};
use super::segment::Paths;
use super::tree::{CatalogResult, Tree};
use super::txn::{Stale, Txn};
use crate::crypto::OVERHEAD;
use crate::db::Space;
use crate::store::{ListFilter, Token, TokenRecord};

/// Pages of a short listing.
const SHORT: u32 = 2;

/// Who owns what other clients made.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The inode number of a discovered file.
pub(super) fn file_number(tree: &Tree, token: &Token) -> Ino {
    derived_number(tree, "discovered-file", token.as_str().as_bytes())
}

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
        let ended: u32 = self.tree.db().load(&keys::meta("listed-pages"))?.unwrap_or(0);
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
            if self.is_foreign(record)? {
                self.show(record, owner, found)?;
            }
        }
        Ok(())
    }

    /// Whether a whole listing costs hardly more than a look for what is new.
    pub fn is_short(&self) -> Result<bool, RemoteError> {
        let pages: Option<u32> = self.tree.db().load(&keys::meta("listed-pages"))?;
        Ok(pages.is_none_or(|pages| pages <= SHORT))
    }

    fn note_listed(&self, pages: u32) -> Result<(), RemoteError> {
        let mut batch = self.tree.db().batch();
        batch.store(&keys::meta("listed-pages"), &pages);
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
                if self.is_foreign(record)? {
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

    fn is_foreign(&self, record: &TokenRecord) -> Result<bool, RemoteError> {
        let own = record.mark.as_deref().is_some_and(|mark| self.keys.is_mark(mark));
        Ok(!own && !Paths::is_hidden(&record.context) && !self.tree.knows_token(&record.token)?)
    }

    fn show(
        &self,
        record: &TokenRecord,
        owner: Owner,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let number = file_number(&self.tree, &record.token);
        if self.tree.find_inode(number)?.is_some() {
            return Ok(());
        }
        let created = Time::from(record.created.unwrap_or(std::time::UNIX_EPOCH));
        let millis = u64::try_from(created.secs).unwrap_or(0) * 1000;
        let stamp = Stamp { hlc: millis << 16, writer: 0 };
        let mut txn = self.tree.begin();
        let parent = place(&mut txn, &record.context, record.path.as_deref(), owner, created)?;
        let mut inode = shadow(number, Kind::File, stamp, created, owner);
        inode.content = Content {
            stamp,
            size: declared_size(record),
            version: Version::Single { token: record.token.clone() },
            holes: Vec::new(),
            seen: Vec::new(),
        };
        if let Some(risk) = &record.risk {
            inode.set_risk(risk);
            inode.local.risk_seen = Some((risk.clone(), risk.clone()));
        }
        txn.put_inode(inode);
        let name = file_name(record);
        attach_shadow(&mut txn, number, Kind::File, parent, name, stamp)?;
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
        let known = self.tree.db().load::<Ino>(&keys::token(&tag))?;
        let ino = known.unwrap_or_else(|| file_number(&self.tree, &record.token));
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
        let mut txn = self.tree.begin();
        let Some(mut inode) = txn.find_inode(ino)?.filter(is_stale) else { return Ok(()) };
        let here = inode.risk();
        let untouched = inode.local.risk_seen.as_ref().is_some_and(|(_, then)| *then == here);
        let unsent = self.tree.db().contains(Space::Meta, &keys::align(ino))?;
        if untouched && !unsent && inode.local.nlink > 0 {
            if inode.local.foreign {
                inode.set_risk(there);
            } else {
                txn.touch_inode(&mut inode)?;
                inode.set_risk(there);
                found.adopted += 1;
            }
        }
        inode.local.risk_seen = Some((there.clone(), inode.risk()));
        txn.put_inode(inode);
        txn.commit()?;
        Ok(())
    }

    /// Discovered files whose token is no longer listed go away; adopted ones stay.
    fn hide_gone(
        &self,
        listed: &BTreeSet<[u8; 16]>,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let mut gone = Vec::new();
        let first = keys::inode(1 << 63);
        self.tree.db().scan(b"I", &first, |_, value| {
            let inode: Inode = crate::db::decode(&value)?;
            let token = inode.content.version.token();
            if inode.local.foreign
                && let Some(token) = token
                && !listed.contains(&self.tree.token_tag(token))
            {
                gone.push(inode.ino);
            }
            Ok(true)
        })?;
        for ino in gone {
            let mut txn = self.tree.begin();
            if let Some(link) = txn.find_link(ino)? {
                txn.detach(&link)?;
                txn.remove_link(ino);
            }
            txn.remove_inode(ino);
            found.stale.extend(txn.commit()?);
            found.removed += 1;
        }
        Ok(())
    }
}

/// The declared size is informative: some clients declare the sealed length. The true one
/// is learnt when the content is first opened.
fn declared_size(record: &TokenRecord) -> u64 {
    record.size.unwrap_or(0)
}

/// The plaintext length that a sealed payload of `sealed` bytes has.
pub fn plain_len(sealed: u64) -> u64 {
    sealed.saturating_sub(OVERHEAD as u64)
}

fn file_name(record: &TokenRecord) -> Vec<u8> {
    let given = record.file_name.as_deref().filter(|n| !n.is_empty());
    let name = given.unwrap_or(record.token.as_str());
    let name = match name {
        "." | ".." => format!("_{name}"),
        _ => name.replace(['/', '\0'], "_"),
    };
    truncate_utf8(name.as_bytes(), 255).to_vec()
}

/// The folder of a context and path, made where it does not exist.
fn place(
    txn: &mut Txn<'_>,
    context: &str,
    path: Option<&str>,
    owner: Owner,
    created: Time,
) -> CatalogResult<Ino> {
    let mut parent = ROOT_INO;
    let mut walked = String::new();
    for part in context.split('/').chain(path.unwrap_or("/").split('/')) {
        if part.is_empty() || part == "." || part == ".." {
            continue;
        }
        let name = truncate_utf8(part.as_bytes(), 255);
        walked.push('/');
        walked.push_str(part);
        if let Some(entry) = txn.lookup(parent, name)?
            && entry.kind == Kind::Dir
        {
            parent = entry.ino;
            continue;
        }
        let number = derived_number(txn.tree, "discovered-folder", walked.as_bytes());
        if txn.find_inode(number)?.is_none_or(|i| i.local.nlink == 0) {
            let stamp = Stamp { hlc: 1, writer: 0 };
            txn.put_inode(shadow(number, Kind::Dir, stamp, created, owner));
            attach_shadow(txn, number, Kind::Dir, parent, name.to_vec(), stamp)?;
        }
        parent = number;
    }
    Ok(parent)
}

pub(super) fn shadow(ino: Ino, kind: Kind, stamp: Stamp, created: Time, owner: Owner) -> Inode {
    let dir = kind == Kind::Dir;
    let perm = if dir { 0o755 } else { 0o644 };
    let (atime, mtime, ctime) = (created, created, created);
    Inode {
        ino,
        kind,
        born: created,
        rdev: 0,
        target: Vec::new(),
        attrs_stamp: stamp,
        attrs: Attrs { perm, uid: owner.uid, gid: owner.gid, atime, mtime, ctime },
        content: Content::default(),
        xattrs: std::collections::BTreeMap::new(),
        local: Local { nlink: if dir { 2 } else { 0 }, foreign: true, ..Local::default() },
    }
}

pub(super) fn attach_shadow(
    txn: &mut Txn<'_>,
    number: u64,
    kind: Kind,
    parent: Ino,
    name: Vec<u8>,
    stamp: Stamp,
) -> CatalogResult<()> {
    let link =
        Link { id: number, stamp, parent, name, ino: number, kind, live: true, published: false };
    txn.attach(&link)?;
    txn.put_link(link);
    Ok(())
}
