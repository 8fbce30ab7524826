//! Deleting in the vault: what nothing names and nobody was told of, and what is due.
//!
//! Invariants
//! * A token that was acknowledged is recorded as garbage before anything else happens to it, and
//!   that record goes in the change that names the token. So a crash leaves nothing behind.
//! * What is recorded as garbage is deleted only if no place and no part list names it, and no
//!   content that waits here is made over it. A state directory that was set back, or copied,
//!   may hold as garbage what has been named since: nothing is deleted before a look.
//! * A part list goes after its parts, and its parts stay where another list names them.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Vfs;
use super::approval::hold_of;
use super::error::{VfsError, VfsResult};
use crate::catalog::local::schema;
use crate::catalog::namespace::{Due, Unneeded};
use crate::catalog::{Content, Version};
use crate::db::{Space, decode};
use crate::store::{ListFilter, Reference, StoreErrorKind, Token, list_all};

/// Deletions per round: the rest waits for the next.
const DELETIONS: usize = 20_000;

/// Deletions under way at once.
const DELETIONS_AT_ONCE: usize = 8;

/// Objects seen to in one round: the rest waits for the next.
const OBJECTS: usize = 20_000;

/// A look is as good as new for this long, in milliseconds.
const LOOK_MS: u64 = 60_000;

/// What became of the deletion of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Done,
    /// It waits for a vote, and goes on in the vault.
    Held,
    Refused,
}

impl Vfs {
    /// Whether anything may be deleted now.
    fn may_delete(&self) -> bool {
        !self.config.read_only && self.counters.looked.load(Ordering::Relaxed)
    }

    /// Deletes tokens that nothing names and nobody was told of.
    pub(super) async fn delete_garbage(&self) -> VfsResult<()> {
        if !self.may_delete() {
            return Ok(());
        }
        let mut garbage = Vec::new();
        self.tree.db().scan(schema::GARBAGE, schema::GARBAGE, |_, value| {
            garbage.push(decode::<Token>(&value)?);
            Ok(garbage.len() < DELETIONS)
        })?;
        garbage.retain(|token| !self.counters.is_live(token) && !self.counters.was_refused(token));
        if garbage.is_empty() {
            return Ok(());
        }
        let used = &self.bases_in_use()?;
        let deletions = stream::iter(garbage)
            .map(|token| async move { self.delete_unnamed(&token, used).await })
            .buffer_unordered(DELETIONS_AT_ONCE);
        deletions.try_collect().await
    }

    /// Tokens that contents which wait here, or are open, are made over.
    fn bases_in_use(&self) -> VfsResult<BTreeSet<Token>> {
        let mut used = BTreeSet::new();
        let mut add = |base: &Content| {
            if let Version::Whole(reference) | Version::Parts(reference) = &base.version {
                used.insert(reference.token.clone());
            }
        };
        let open: Vec<_> = self.bodies.lock().values().cloned().collect();
        open.iter().for_each(|body| add(&body.state.read().base));
        let mut waiting = Vec::new();
        self.tree.db().scan(schema::WAITING, schema::WAITING, |key, _| {
            waiting.push(schema::number(key, 1));
            Ok(true)
        })?;
        for ino in waiting {
            if let Some(inode) = self.tree.find_inode(ino)?
                && let Some(dirty) = &inode.local.dirty
            {
                add(&dirty.base);
            }
        }
        Ok(used)
    }

    /// Deletes a token, and the parts that it alone names, unless something names it by now.
    async fn delete_unnamed(&self, token: &Token, used: &BTreeSet<Token>) -> VfsResult<()> {
        let tag = self.tree.token_tag(token);
        if !self.tree.knows_token(token)? {
            if used.contains(token) {
                return Ok(());
            }
            if let Some(parts) = self.recorded_parts(token)? {
                for part in parts {
                    if self.is_needed_besides(&part, &tag)? {
                        continue;
                    }
                    if self.delete_token(&part).await? != Deletion::Done {
                        return Ok(()); // a later round hears how it ended
                    }
                }
            }
            if self.delete_token(token).await? != Deletion::Done {
                return Ok(());
            }
            self.forget_parts(token)?;
        }
        let mut batch = self.tree.db().batch();
        batch.remove(Space::Meta, &schema::garbage(&tag));
        Ok(batch.commit()?)
    }

    /// Whether a part is named by anything but the list with this tag.
    fn is_needed_besides(&self, part: &Token, list: &[u8; 16]) -> VfsResult<bool> {
        let tag = self.tree.token_tag(part);
        if self.counters.is_live(part) || self.tree.db().any(&schema::tokens(&tag))? {
            return Ok(true);
        }
        let (prefix, own) = (schema::lists_with(&tag), schema::part(&tag, list));
        let mut other = false;
        self.tree.db().scan(&prefix, &prefix, |key, _| {
            other |= key != own;
            Ok(!other)
        })?;
        Ok(other)
    }

    /// Deletes a token in the vault, unless a policy is against it.
    async fn delete_token(&self, token: &Token) -> VfsResult<Deletion> {
        if self.counters.was_refused(token) {
            return Ok(Deletion::Refused); // asking again would only open another vote
        }
        match self.remote.store.delete(token).await {
            Ok(()) => Ok(Deletion::Done),
            Err(error) if hold_of(&error).is_some() => Ok(Deletion::Held),
            Err(error) if error.kind == StoreErrorKind::Denied => {
                tracing::warn!(error = error.message, "the vault refuses a deletion");
                self.counters.note_refused(token);
                Ok(Deletion::Refused)
            }
            Err(error) => Err(VfsError::from_store(token.as_str(), &error)),
        }
    }

    /// Uploads that were cut off by a crash, or whose outcome nobody told, may have left
    /// tokens: finds them by their mark and deletes them. Nothing else knows of them.
    pub(super) async fn clear_intents(&self) -> VfsResult<()> {
        if !self.may_delete() {
            return Ok(());
        }
        let mut intents = Vec::new();
        self.tree.db().scan(schema::INTENTS, schema::INTENTS, |key, value| {
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
            if !self.tree.knows_token(&record.token)?
                && self.delete_token(&record.token).await? == Deletion::Held
            {
                return Ok(());
            }
        }
        batch.remove(Space::Meta, &schema::intent(mark));
        Ok(batch.commit()?)
    }
}

impl Vfs {
    /// A day may have passed: the calendar goes on, if anything waits for it, and what that makes
    /// due goes.
    pub(super) async fn see_to_days(&self) -> VfsResult<()> {
        if self.config.read_only || !self.counters.looked.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.remote.advance_calendar()? {
            self.publish_now().await?;
        }
        self.delete_due().await
    }

    /// Deletes what nobody needs any more, right after a look without doubt that shows so.
    async fn delete_due(&self) -> VfsResult<()> {
        let unneeded = self.tree.unneeded(OBJECTS)?;
        let replaced = self.remote.replaced_and_due()?;
        if unneeded.is_empty() && replaced.is_empty() {
            return Ok(());
        }
        if !self.remote.looked_within(LOOK_MS) {
            self.look().await?;
        }
        if self.remote.is_in_doubt()? {
            return Ok(());
        }
        // What others have said meanwhile counts.
        let unneeded = self.tree.unneeded(OBJECTS)?;
        let lists = |of: &Unneeded| of.due.iter().any(|due| due.list().is_some());
        if unneeded.iter().any(lists) {
            self.index_part_lists().await?;
        }
        let seen_to = stream::iter(unneeded).map(|of| async move { self.see_to(of).await });
        let mut seen_to = seen_to.buffer_unordered(DELETIONS_AT_ONCE);
        while let Some(()) = seen_to.try_next().await? {}
        drop(seen_to);
        let pages = self.remote.unnamed_pages().await?;
        let catalog = stream::iter(self.remote.replaced_and_due()?.into_iter().chain(pages));
        let deleted = catalog.map(|token| async move { self.delete_token(&token).await.map(drop) });
        deleted.buffer_unordered(DELETIONS_AT_ONCE).try_collect().await
    }

    /// Deletes what is due of one object.
    async fn see_to(&self, of: Unneeded) -> VfsResult<()> {
        let mut waits = of.waits;
        for due in &of.due {
            if self.tree.is_shared(due)? {
                // Another needs it: here it is only no longer named.
            } else if !self.delete_content(due).await? {
                waits = true;
                continue;
            }
            let mut txn = self.tree.begin();
            txn.note_deleted(due)?;
            txn.commit()?;
        }
        self.tree.forget_deleted(of.ino)?;
        if !waits {
            let mut txn = self.tree.begin();
            txn.done_with(&of);
            txn.commit()?;
        }
        Ok(())
    }

    /// Deletes a content's tokens, parts before their list; false if a vote holds one, or a
    /// policy is against it.
    async fn delete_content(&self, due: &Due) -> VfsResult<bool> {
        if let Some(list) = due.list() {
            let own = self.tree.token_tag(&list.token);
            for part in self.recorded_parts(&list.token)?.unwrap_or_default() {
                if self.is_needed_besides(&part, &own)? {
                    continue;
                }
                if self.delete_token(&part).await? != Deletion::Done {
                    return Ok(false);
                }
            }
        }
        if self.delete_token(&due.token).await? != Deletion::Done {
            return Ok(false);
        }
        if let Some(base) = &due.base {
            self.fetcher.forget(base.reference());
        }
        if due.list().is_some() {
            self.forget_parts(&due.token)?;
        }
        Ok(true)
    }

    /// Reads every part list that the catalog names and this machine has not read: a part may be
    /// in any of them.
    async fn index_part_lists(&self) -> VfsResult<()> {
        let mut lists: Vec<Reference> = Vec::new();
        self.tree.db().scan(schema::UNINDEXED, schema::UNINDEXED, |_, value| {
            lists.push(decode(&value)?);
            Ok(true)
        })?;
        for list in lists {
            if self.tree.knows_token(&list.token)? {
                self.need_parts(&list).await?;
            } else {
                self.forget_parts(&list.token)?;
            }
        }
        Ok(())
    }
}
