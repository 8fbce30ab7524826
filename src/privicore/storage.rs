//! Storage devices (protocol C.6).

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::account::is_unknown_route;
use super::client::Client;
use super::devices::IDENTIFIERS;
use super::reply::{created, field, list_of};
use super::transport::Call;
use crate::protocol::{old_path, path};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

const LIST: &str = "list-storage";
/// How long a change of a storage device may take: all that the profile has stored is read.
const CHANGED_WITHIN: Duration = Duration::from_secs(6 * 3_600);

/// A device that stores payloads. Of its fields the sources document none for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageDevice {
    /// Unique identifier; opaque.
    pub identifier: String,
    /// Display name.
    pub name: Option<String>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// Whether it is approved, where the service says.
    pub approved: Option<bool>,
}

impl Client {
    /// The profile's storage devices.
    pub async fn list_storage(&self) -> StoreResult<Vec<StorageDevice>> {
        let reply = self.accepted(&Call::get(LIST, path::STORAGE_LIST)).await?;
        let json = reply.json().unwrap_or_default();
        let list = list_of(&json).ok_or_else(|| {
            StoreError::new(StoreErrorKind::Protocol, LIST, "a reply without a list")
        })?;
        Ok(list.iter().filter_map(device).collect())
    }

    /// Gives an approved device the storage role.
    pub async fn register_storage(&self, identifier: &str) -> StoreResult<()> {
        let paths = [path::STORAGE_REGISTER, old_path::STORAGE_REGISTER];
        self.storage_command("register-storage", &paths, identifier).await
    }

    /// Sends a device what it has missed; it must be online.
    pub async fn synchronize_storage(&self, identifier: &str) -> StoreResult<()> {
        self.storage_command("synchronize-storage", &[path::STORAGE_SYNC], identifier).await
    }

    /// Takes the storage role from a device: what it has is no longer used.
    pub async fn remove_storage(&self, identifier: &str) -> StoreResult<()> {
        let paths = [path::STORAGE_REMOVE, old_path::STORAGE_REMOVE];
        self.storage_command("remove-storage", &paths, identifier).await
    }

    /// Tries the paths in order, until the service knows one.
    async fn storage_command(
        &self,
        operation: &'static str,
        paths: &[&'static str],
        identifier: &str,
    ) -> StoreResult<()> {
        let mut unknown = None;
        for path in paths {
            let call = Call::form(operation, *path, &[("deviceIdentifier", identifier)]);
            let reply =
                self.command_within(&call, CHANGED_WITHIN).await.map_err(|e| e.on(identifier))?;
            if reply.is_success() {
                return Ok(());
            }
            let error = self.error(&reply, operation).on(identifier);
            if !is_unknown_route(&reply) {
                return Err(error);
            }
            unknown.get_or_insert(error);
        }
        let kind = StoreErrorKind::Unsupported;
        Err(unknown.unwrap_or_else(|| StoreError::new(kind, operation, "no such call")))
    }
}

fn device(json: &Value) -> Option<StorageDevice> {
    let identifier = field(json, &IDENTIFIERS).or_else(|| json.as_str().map(str::to_owned))?;
    let approved = match json.get("approved") {
        Some(Value::Bool(approved)) => Some(*approved),
        Some(Value::Number(number)) => Some(number.as_i64() != Some(0)),
        _ => None,
    };
    Some(StorageDevice {
        identifier,
        name: field(json, &["name"]),
        created: created(json),
        approved,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn identifiers_are_found_under_every_name() {
        let named = |json: Value| device(&json).map(|device| device.identifier);
        for name in IDENTIFIERS {
            assert_eq!(named(json!({ name: "d", "name": "x" })).as_deref(), Some("d"), "{name}");
        }
        assert_eq!(named(json!("d")).as_deref(), Some("d"));
        assert_eq!(named(json!({ "name": "x" })), None);
        let approved = |json: Value| device(&json).unwrap().approved;
        assert_eq!(approved(json!({ "deviceId": "d", "approved": 1 })), Some(true));
        assert_eq!(approved(json!({ "deviceId": "d", "approved": false })), Some(false));
        assert_eq!(approved(json!("d")), None);
    }
}
