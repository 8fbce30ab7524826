//! What is written elsewhere at this time: replication's calls and discovery, which do nothing
//! here. To be replaced.

use std::collections::BTreeSet;

use super::namespace::{CatalogResult, Stale, Tree};
use super::replication::{Followed, Published, Remote, RemoteError};
use super::{Ino, Time};

/// Who owns what other clients made.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
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

/// Which folder is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TopFolder<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Of several with this name, the one that it was so far.
    pub before: Option<Ino>,
    /// Folders that stand for something else.
    pub except: &'a BTreeSet<Ino>,
    /// Who owns it, if it is made.
    pub owner: Owner,
    /// Since when it is there, if it is made.
    pub created: Time,
}

impl Tree {
    /// The folder of a name at the top, made if it is missing.
    pub fn top_folder(&self, wanted: TopFolder<'_>) -> CatalogResult<Option<(Ino, Vec<Stale>)>> {
        let _ = wanted;
        Ok(None)
    }
}

#[allow(clippy::unused_async, reason = "as what takes their place")]
impl Remote {
    /// Publishes what is ready.
    pub async fn publish(&self) -> Result<Published, RemoteError> {
        Ok(Published::default())
    }

    /// Writes a checkpoint if one is due.
    pub async fn checkpoint_if_due(&self) -> Result<bool, RemoteError> {
        Ok(false)
    }

    /// Writes a checkpoint.
    pub async fn checkpoint(&self) -> Result<bool, RemoteError> {
        Ok(false)
    }

    /// Takes in what others have published.
    pub async fn follow(&self, followed: &mut Followed) -> Result<(), RemoteError> {
        let _ = followed;
        Ok(())
    }

    /// Whether this machine has ever taken in what the vault has.
    pub fn has_followed(&self) -> Result<bool, RemoteError> {
        Ok(false)
    }

    /// Lists every token once, shows those of other clients, and hides those that are gone.
    pub async fn discover(&self, owner: Owner, found: &mut Discovered) -> Result<(), RemoteError> {
        let _ = (owner, found);
        Ok(())
    }

    /// Looks for new tokens only.
    pub async fn discover_news(
        &self,
        owner: Owner,
        found: &mut Discovered,
    ) -> Result<(), RemoteError> {
        let _ = (owner, found);
        Ok(())
    }

    /// Whether a whole listing costs hardly more than a look for what is new.
    pub fn is_short(&self) -> Result<bool, RemoteError> {
        Ok(true)
    }
}
