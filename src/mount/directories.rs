//! The client's directory calls, as the operations layer takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::privicore::{Client, Directory};
use crate::store::{StoreErrorKind, StoreResult};
use crate::vfs::{Directories, DirectoryInfo};

/// The calls of a client.
pub(super) struct ClientDirectories(pub(super) Arc<Client>);

#[async_trait]
impl Directories for ClientDirectories {
    /// A service may offer only one of the two lists.
    async fn list(&self) -> StoreResult<Vec<DirectoryInfo>> {
        let absent = |list: &StoreResult<Vec<Directory>>| matches!(list, Err(error) if error.kind == StoreErrorKind::Unsupported);
        let (owned, assigned) =
            tokio::join!(self.0.owned_directories(), self.0.assigned_directories());
        if absent(&owned) && absent(&assigned) {
            owned?;
            return Ok(Vec::new());
        }
        let mut found: Vec<DirectoryInfo> = Vec::new();
        for (list, role) in [(owned, "owner"), (assigned, "member")] {
            if absent(&list) {
                continue;
            }
            for directory in list? {
                if found.iter().all(|known| known.id != directory.id) {
                    found.push(info(directory, role));
                }
            }
        }
        Ok(found)
    }

    async fn register(&self, name: &str) -> StoreResult<String> {
        self.0.register_directory(name).await
    }

    async fn store_meta(&self, id: &str, changes: &BTreeMap<String, String>) -> StoreResult<()> {
        self.0.store_directory_meta(id, changes).await
    }
}

/// A record of a list; `listed` is what the list says of the profile's role.
fn info(directory: Directory, listed: &str) -> DirectoryInfo {
    let Directory { id, name, role, created, meta } = directory;
    let role = Some(role.unwrap_or_else(|| listed.to_owned()));
    DirectoryInfo { id, name, role, created, meta }
}
