//! The first mount of a machine: which vault it is, and whether there is a catalog to begin.
//!
//! Invariant: a catalog is begun only where the vault shows none, of any key or format, and
//! nothing that a drive of this key has stored.

use std::collections::BTreeSet;
use std::time::Duration;

use super::paths::{HIDDEN, Paths};
use super::remote::{Remote, RemoteError};
use crate::catalog::format::payload::is_mark;
use crate::catalog::local::schema;
use crate::store::{ListFilter, TokenRecord, list_all};

/// How long a vault that hides its catalog is given to show it.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How often it is looked at meanwhile.
const LOOKS: u32 = 6;

/// What a vault shows besides a catalog that this key opens.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing: a catalog may begin here.
    Nothing,
    /// The first format's.
    Format1,
    /// Catalogs of other keys.
    OtherKeys(BTreeSet<String>),
    /// What a drive of this key has stored, without the catalog.
    Remains,
}

impl Remote {
    /// Whether this machine has taken in a catalog of this vault, or begun one.
    pub fn has_followed(&self) -> Result<bool, RemoteError> {
        Ok(self.load::<bool>(&schema::meta("followed"))?.unwrap_or(false))
    }

    pub(super) fn note_followed(&self) -> Result<(), RemoteError> {
        if self.has_followed()? || self.tree.vault().identity.is_none() {
            return Ok(());
        }
        let mut batch = self.tree.db().batch();
        batch.store(&schema::meta("followed"), &true);
        Ok(batch.commit()?)
    }

    /// Refuses a vault in which no catalog may begin, though none was found that this key opens.
    /// To be asked once, after a first look that found none.
    pub async fn check_may_begin(&self, anyway: bool) -> Result<(), RemoteError> {
        if self.tree.vault().identity.is_some() {
            return Ok(());
        }
        let mut looked = 0;
        loop {
            let listed = list_all(&*self.store, &ListFilter::default()).await?;
            match self.what_is_there(&listed) {
                Found::Nothing => return Ok(()),
                Found::Format1 => return Err(RemoteError::Refused(FORMAT_1.to_owned())),
                Found::OtherKeys(others) => return Err(self.wrong_key(&others)),
                Found::Remains if anyway => return Ok(()),
                Found::Remains if looked == LOOKS => {
                    return Err(RemoteError::Refused(REMAINS.to_owned()));
                }
                Found::Remains => {
                    tokio::time::sleep(AGAIN_AFTER / LOOKS).await;
                    let mut followed = super::remote::Followed::default();
                    self.follow(&mut followed).await?;
                    self.keep_stale(followed.stale);
                    if self.tree.vault().identity.is_some() {
                        return Ok(());
                    }
                }
            }
            looked += 1;
        }
    }

    /// Begins the catalog of a vault that has none, where that may be: its identity is in the
    /// vault before any content is.
    /// `anyway` says that a person wants one beside what a drive of this key has stored.
    pub async fn found(&self, anyway: bool) -> Result<(), RemoteError> {
        self.check_may_begin(anyway).await?;
        if self.tree.vault().identity.is_none() {
            self.begin_chain()?;
            self.publish().await?;
            self.note_followed()?;
        }
        Ok(())
    }

    fn what_is_there(&self, listed: &[TokenRecord]) -> Found {
        let (mut format_1, mut others, mut remains) = (false, BTreeSet::new(), false);
        for record in listed {
            if Paths::is_of_format_1(&record.context) {
                format_1 = true;
            } else if self.paths.is_own(&record.context) {
                remains = true;
            } else if let Some(rest) = record.context.strip_prefix(&format!("{HIDDEN}/2/")) {
                others.insert(rest.split('/').next().unwrap_or(rest).to_owned());
            } else {
                let mark = record.mark.as_deref();
                remains |= mark.is_some_and(|mark| is_mark(&self.catalog_keys, mark));
            }
        }
        match (format_1, others.is_empty(), remains) {
            (_, _, true) => Found::Remains,
            (true, ..) => Found::Format1,
            (_, false, _) => Found::OtherKeys(others),
            _ => Found::Nothing,
        }
    }

    fn wrong_key(&self, others: &BTreeSet<String>) -> RemoteError {
        let own = data_encoding::HEXLOWER.encode(&self.catalog_keys.id());
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        RemoteError::Refused(format!(
            "this vault's catalog was made with another key: the vault has {}, the key file is {own}; use the key of the vault, or another profile",
            others.join(", ")
        ))
    }
}

/// What is said of a vault of the first format.
const FORMAT_1: &str = "this vault was written by an unreleased version (format 1), which this version does not read; nothing was changed: mount it with the version of the tag `format-1` and copy the files out";

/// What is said of a vault that hides its catalog.
const REMAINS: &str = "this vault holds what a drive of this key has stored, but shows no catalog that this key opens; nothing was changed: if it stays so, a new catalog can be begun with --new-catalog";
