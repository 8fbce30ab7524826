//! Devices of the profile (C.5): requested, decided about, named, configured, removed.
//!
//! Where a service does not offer a call, the error's kind is `Unsupported`; where the
//! profile has no such device, `NotFound`.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::client::Client;
use super::forms::{How, Object, number, texts, truth};
use super::oauth::OauthCredentials;
use super::optional::incomplete;
use super::reply::{Reply, created, field, single};
use super::secret::Secret;
use super::transport::Call;
use crate::protocol::governance::{old_path, path};
use crate::store::{StoreErrorKind, StoreResult};

/// Every name of the member that identifies a device (C.5).
pub(super) const IDENTIFIERS: [&str; 4] =
    ["deviceIdentifier", "deviceUniqueIdentifier", "deviceId", "device-identifier"];
/// The field that names a device, and what it was called before (C.12).
const FIELDS: [&str; 2] = ["deviceIdentifier", "deviceId"];

/// What was decided about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nothing yet.
    Pending,
    /// It belongs to the profile.
    Approved,
    /// It does not.
    Rejected,
}

impl Approval {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// A device of the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Unique identifier; opaque.
    pub identifier: String,
    /// Display name.
    pub name: Option<String>,
    /// What was decided about it, where the service says.
    pub approval: Option<Approval>,
    /// What it does for the profile, in the service's words: `storage`, `authenticator`.
    pub roles: Vec<String>,
    /// When it was requested.
    pub created: Option<SystemTime>,
}

/// What a device is set up with. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfiguration {
    /// The device.
    pub identifier: String,
    /// With what it proves to be itself; `None` if they are not in a file that the service
    /// gave and this client does not understand.
    pub credentials: Option<OauthCredentials>,
    /// The user of its queue.
    pub rabbit_user: Option<String>,
    /// The password of its queue.
    pub rabbit_pass: Option<Secret>,
    /// Where its queue is.
    pub rabbit_host: Option<String>,
    /// The port there.
    pub rabbit_port: Option<u64>,
    /// The file that the service gave, where it gave one.
    file: Option<Secret>,
}

impl Client {
    /// Asks for a new device, and returns the request's id, which
    /// [`Client::requested_device`] takes. The device is pending then.
    pub async fn request_device(&self, name: Option<&str>) -> StoreResult<String> {
        const OPERATION: &str = "request device";
        let fields: Vec<_> = name.map(|name| ("deviceName", name)).into_iter().collect();
        let paths = [path::DEVICE_REQUEST, old_path::DEVICE_REQUEST];
        let reply =
            self.order_forms(&paths.map(|path| Call::form(OPERATION, path, &fields))).await?;
        reply.command_id().ok_or_else(|| incomplete(OPERATION))
    }

    /// The device that a request made.
    pub async fn requested_device(&self, request: &str) -> StoreResult<Device> {
        const OPERATION: &str = "retrieve device identifier";
        let calls = [
            Call::form(OPERATION, path::DEVICE_IDENTIFIER, &[("id", request)]),
            Call::get(OPERATION, old_path::DEVICE_IDENTIFIER).with_id(request),
        ];
        let reply = self.about(Object::Request(request), How::Ask, &calls).await?;
        let json = reply.json().unwrap_or_default();
        let found = device(&json).or_else(|| single(&json).map(bare));
        found.or_else(|| reply.bare_text().map(bare)).ok_or_else(|| incomplete(OPERATION))
    }

    /// The profile's devices, pending ones too.
    pub async fn devices(&self) -> StoreResult<Vec<Device>> {
        const OPERATION: &str = "list devices";
        // The vendor's own client posts.
        let calls =
            [Call::get(OPERATION, path::DEVICE_LIST), Call::post(OPERATION, path::DEVICE_LIST)];
        self.every(&calls, keyed).await
    }

    /// Gives a device another name.
    pub async fn rename_device(&self, identifier: &str, name: &str) -> StoreResult<()> {
        const OPERATION: &str = "configure device meta";
        let newer = [(FIELDS[0], identifier), ("name", name)];
        let older = [(FIELDS[1], identifier), ("displayName", name)];
        let calls = [
            Call::form(OPERATION, path::DEVICE_META, &newer),
            Call::form(OPERATION, old_path::DEVICE_META, &older),
        ];
        self.about(Object::Device(identifier), How::Order, &calls).await.map(drop)
    }

    /// Approves a pending device. A policy may hold this until a vote is over; `TimedOut`
    /// if that takes longer than acknowledgements are waited for.
    pub async fn approve_device(&self, identifier: &str) -> StoreResult<()> {
        self.device_command("approve device", &[path::DEVICE_APPROVE], identifier).await
    }

    /// Rejects a pending device.
    pub async fn reject_device(&self, identifier: &str) -> StoreResult<()> {
        self.device_command("reject device", &[path::DEVICE_REJECT], identifier).await
    }

    /// Removes a device for good, with its roles and its credentials.
    pub async fn remove_device(&self, identifier: &str) -> StoreResult<()> {
        let paths = [path::DEVICE_REMOVE, old_path::DEVICE_REMOVE];
        self.device_command("remove device", &paths, identifier).await
    }

    /// A command whose only field is a device, under its older name for older paths and
    /// for a service that refuses the newer one.
    pub(super) async fn device_command(
        &self,
        operation: &'static str,
        paths: &[&'static str],
        identifier: &str,
    ) -> StoreResult<()> {
        let object = Object::Device(identifier);
        let form = |path: &'static str, field| Call::form(operation, path, &[(field, identifier)]);
        let newest = |at: usize| FIELDS[at.min(1)];
        let calls: Vec<_> =
            paths.iter().enumerate().map(|(at, path)| form(path, newest(at))).collect();
        let outcome = self.about(object, How::Order, &calls).await.map(drop);
        if !matches!(&outcome, Err(error) if error.kind == StoreErrorKind::Invalid) {
            return outcome;
        }
        let older: Vec<_> = paths.iter().map(|path| form(path, FIELDS[1])).collect();
        self.about(object, How::Order, &older).await.map(drop).or(outcome)
    }

    /// What an approved device is set up with. Whoever has it can act as the device.
    pub async fn device_configuration(&self, identifier: &str) -> StoreResult<DeviceConfiguration> {
        const OPERATION: &str = "retrieve device configuration";
        let calls = [
            Call::get(OPERATION, path::DEVICE_CONFIGURATION).with_id(identifier),
            Call::form(OPERATION, path::DEVICE_DOWNLOAD, &[(FIELDS[0], identifier)]),
            Call::get(OPERATION, path::DEVICE_FILE).with_id(identifier),
        ];
        let reply = self.about(Object::Device(identifier), How::Ask, &calls).await?;
        configuration(&reply, identifier).ok_or_else(|| incomplete(OPERATION))
    }
}

impl DeviceConfiguration {
    /// Reads a configuration file: YAML of plain members, or a JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        let json = serde_json::from_str(text).unwrap_or_else(|_| members(text));
        let identifier = field(&json, &IDENTIFIERS)?;
        Some(Self::read(&json, &identifier))
    }

    /// The configuration as a file: the service's own, or YAML with the members of C.5.
    pub fn to_file(&self) -> Secret {
        if let Some(file) = &self.file {
            return file.clone();
        }
        let credentials = self.credentials.as_ref();
        let port = self.rabbit_port.map(|port| port.to_string());
        let members = [
            ("device-identifier", Some(self.identifier.as_str())),
            ("client-id", credentials.map(|found| found.client_id.as_str())),
            ("client-secret", credentials.map(|found| found.client_secret.expose())),
            ("rabbit-user", self.rabbit_user.as_deref()),
            ("rabbit-pass", self.rabbit_pass.as_ref().map(Secret::expose)),
            ("rabbit-host", self.rabbit_host.as_deref()),
            ("rabbit-port", port.as_deref()),
        ];
        let mut text = String::new();
        for (name, value) in members {
            // A JSON text is a YAML text.
            let value = value.map(|value| Value::from(value).to_string());
            text.extend(value.map(|value| format!("{name}: {value}\n")));
        }
        Secret::new(text)
    }

    fn read(json: &Value, identifier: &str) -> Self {
        let text = |hyphened: &str, camel: &str| {
            field(json, &[hyphened, camel, &hyphened.replace('-', "_")])
        };
        let secret = |hyphened, camel| text(hyphened, camel).map(Secret::new);
        let client_secret = secret("client-secret", "clientSecret");
        Self {
            identifier: identifier.to_owned(),
            credentials: text("client-id", "clientId")
                .zip(client_secret)
                .map(|(client_id, client_secret)| OauthCredentials { client_id, client_secret }),
            rabbit_user: text("rabbit-user", "rabbitUser"),
            rabbit_pass: secret("rabbit-pass", "rabbitPass"),
            rabbit_host: text("rabbit-host", "rabbitHost"),
            rabbit_port: number(json, &["rabbit-port", "rabbitPort", "rabbit_port"]),
            file: None,
        }
    }
}

/// The reply in any of its forms (D.15): members, `{name, file}` with a file in base64, or
/// the file itself.
fn configuration(reply: &Reply, asked: &str) -> Option<DeviceConfiguration> {
    let Some(json) = reply.json() else {
        let text = String::from_utf8(reply.body.to_vec()).ok()?;
        let found = DeviceConfiguration::parse(&text)?;
        return Some(DeviceConfiguration { file: Some(Secret::new(text)), ..found });
    };
    if let Some(encoded) = field(&json, &["file"]) {
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let found = DeviceConfiguration::read(&members(&text), asked);
        return Some(DeviceConfiguration { file: Some(Secret::new(text)), ..found });
    }
    let found = DeviceConfiguration::read(&json, asked);
    found.credentials.is_some().then_some(found)
}

/// The plain members of a YAML text, wherever they are nested.
fn members(text: &str) -> Value {
    let mut found = Map::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let unquoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        let value = match unquoted {
            Some(value) => Value::from(value.replace("''", "'")),
            None if value.starts_with('"') => serde_json::from_str(value).unwrap_or_default(),
            None => Value::from(value),
        };
        found.insert(name.trim().to_owned(), value);
    }
    Value::Object(found)
}

/// A device with nothing but its identifier.
fn bare(identifier: String) -> Device {
    Device { identifier, name: None, approval: None, roles: Vec::new(), created: None }
}

/// A device and its identifier.
pub(super) fn keyed(json: &Value) -> Option<(String, Device)> {
    let found = device(json).or_else(|| json.as_str().map(str::to_owned).map(bare))?;
    Some((found.identifier.clone(), found))
}

fn device(json: &Value) -> Option<Device> {
    let identifier = field(json, &IDENTIFIERS).or_else(|| field(json, &["id"]))?;
    let mut roles = texts(json, &["roles"]);
    if roles.is_empty() {
        roles.extend(field(json, &["type"]));
    }
    Some(Device {
        identifier,
        name: field(json, &["name", "deviceName", "displayName"]),
        approval: approval(json),
        roles,
        created: created(json),
    })
}

/// A word, or whether it is approved, which does not tell rejected from pending.
fn approval(json: &Value) -> Option<Approval> {
    let word = field(json, &["approvalState", "approval_state", "approvalStatus", "state"]);
    match word.unwrap_or_default().to_ascii_lowercase().as_str() {
        "pending" | "requested" => return Some(Approval::Pending),
        "approved" => return Some(Approval::Approved),
        "rejected" => return Some(Approval::Rejected),
        _ => {}
    }
    let approved = truth(json.get("approved").or_else(|| json.get("isApproved")))?;
    Some(if approved { Approval::Approved } else { Approval::Pending })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_are_read_under_every_name() {
        for name in IDENTIFIERS.into_iter().chain(["id"]) {
            assert_eq!(device(&json!({ name: "d" })), Some(bare("d".to_owned())), "{name}");
        }
        assert_eq!(keyed(&json!("d")).unwrap().1, bare("d".to_owned()));
        assert_eq!(device(&json!({"name": "x"})), None);
        let found = device(&json!({
            "createdAt": "1970-01-01T00:00:01Z", "deviceUniqueIdentifier": "d", "name": "n",
            "type": "storage", "approved": 0,
        }));
        let found = found.unwrap();
        assert_eq!(
            (found.approval, found.roles),
            (Some(Approval::Pending), vec!["storage".into()])
        );
        assert!(found.created.is_some());
        for (form, expected) in [
            (json!({"approvalState": "rejected", "approved": 0}), Some(Approval::Rejected)),
            (json!({"approved": true}), Some(Approval::Approved)),
            (json!({"state": "odd"}), None),
        ] {
            assert_eq!(approval(&form), expected, "{form}");
        }
    }

    #[test]
    fn configurations_are_read_in_every_form_and_written_back() {
        let members = json!({
            "device-identifier": "d", "client-id": "c", "client-secret": "it's \"s\"",
            "rabbit-user": "u", "rabbit-pass": "p", "rabbit-host": "h", "rabbit-port": "5672",
        });
        let reply = |body: String| Reply { status: 200, body: body.into(), ..Reply::default() };
        let plain = configuration(&reply(members.to_string()), "d").unwrap();
        assert_eq!(plain.credentials.as_ref().unwrap().client_secret.expose(), "it's \"s\"");
        assert_eq!(plain.rabbit_port, Some(5672));
        let text = plain.to_file();
        assert_eq!(DeviceConfiguration::parse(text.expose()), Some(plain.clone()));
        assert_eq!(DeviceConfiguration::parse(&members.to_string()), Some(plain.clone()));

        let yaml = "device:\n  client-id: c\n  client-secret: 'it''s \"s\"'\n";
        let file = json!({"name": "d.yaml", "file": STANDARD.encode(yaml)});
        let file = configuration(&reply(file.to_string()), "d").unwrap();
        assert_eq!(file.credentials, plain.credentials);
        assert_eq!(file.to_file().expose(), yaml);
        let raw = configuration(&reply(text.expose().to_owned()), "d").unwrap();
        assert_eq!(raw.credentials, plain.credentials);

        for nothing in [json!({}), json!({"client-id": "c"}), json!({"file": "???"})] {
            assert!(configuration(&reply(nothing.to_string()), "d").is_none(), "{nothing}");
        }
        assert!(!format!("{plain:?} {file:?}").contains("it's"));
    }
}
