//! Policies: which operations wait for a vote (C.8).
//!
//! Where a service does not offer a call, the error's kind is `Unsupported`; where the
//! profile has no such policy, `NotFound`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::client::Client;
use super::forms::{How, Object, texts, truth};
use super::optional::{incomplete, map};
use super::reply::{created, field};
use super::transport::Call;
use super::voting::form;
use crate::protocol::governance::{old_path, path};
use crate::store::{StoreErrorKind, StoreResult};

/// What policies are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTemplate {
    /// What [`NewPolicy::template`] takes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What can wait for a vote.
    pub events: Vec<PolicyEvent>,
    /// The members that a policy's configuration can have.
    pub configuration: Vec<String>,
}

/// Something that can wait for a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEvent {
    /// What [`NewPolicy::events`] takes.
    pub id: String,
    /// Its name, for example `data_token.data_exchanged`.
    pub name: Option<String>,
    /// What it is, in words.
    pub title: Option<String>,
}

/// A policy of the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its id; opaque.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The id of its template.
    pub template: Option<String>,
    /// The ids of its events.
    pub events: Vec<String>,
    /// What it compares.
    pub configuration: BTreeMap<String, String>,
    /// The voting configuration, by id or name; the profile's own rules if there is none.
    pub voting: Option<String>,
    /// Whether it is in force, where the service says.
    pub active: Option<bool>,
    /// When it was registered.
    pub created: Option<SystemTime>,
}

/// What a policy is registered with.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// Its name.
    pub name: String,
    /// The id of a template.
    pub template: String,
    /// Ids of the template's events, at least one.
    pub events: Vec<String>,
    /// What it compares, at least one member of the template's.
    pub configuration: BTreeMap<String, String>,
    /// A voting configuration by name or id; the profile's own rules if `None`.
    pub voting: Option<String>,
}

impl Client {
    /// The templates that policies are made of.
    pub async fn policy_templates(&self) -> StoreResult<Vec<PolicyTemplate>> {
        const OPERATION: &str = "list policy templates";
        let reply = self.ask_forms(&[Call::get(OPERATION, path::POLICY_TEMPLATES)]).await?;
        reply.json().as_ref().and_then(templates).ok_or_else(|| incomplete(OPERATION))
    }

    /// Registers a policy, which is inactive then. Returns it as the service shows it;
    /// `None` if it does not show it soon.
    ///
    /// The field of the voting configuration has two names: both are sent, so that none is
    /// overlooked, and each alone where a service refuses fields that it does not know.
    pub async fn register_policy(&self, new: &NewPolicy) -> StoreResult<Option<Policy>> {
        const OPERATION: &str = "register policy";
        let body = |fields: &[&str]| {
            let mut body = json!({
                "policyTemplateId": new.template, "applyingEventIds": new.events,
                "name": new.name, "configuration": new.configuration,
            });
            if let Some(voting) = &new.voting {
                fields.iter().for_each(|field| body[*field] = voting.as_str().into());
            }
            body
        };
        let send = async |fields: &[&str]| {
            let body = body(fields);
            let calls = [
                Call::json(OPERATION, path::POLICY_REGISTER, &body),
                form(OPERATION, old_path::POLICY_REGISTER, &body),
            ];
            self.order_forms(&calls).await.map(drop)
        };
        let (newer, older) = ("votingConfigurationId", "configurationId");
        let mut outcome = send(&[newer, older]).await;
        if new.voting.is_some() {
            for alone in [newer, older] {
                match outcome {
                    Err(error) if error.kind == StoreErrorKind::Invalid => {
                        outcome = send(&[alone]).await.or(Err(error));
                    }
                    _ => break,
                }
            }
        }
        outcome?;
        let call = Call::get(OPERATION, path::POLICY_RETRIEVE).with_id(&new.name);
        self.shown(&call, policy).await
    }

    /// A policy, by name or, where the service takes that, by id.
    pub async fn policy(&self, wanted: &str) -> StoreResult<Policy> {
        const OPERATION: &str = "retrieve policy";
        let calls = [Call::get(OPERATION, path::POLICY_RETRIEVE).with_id(wanted)];
        let reply = self.about(Object::Policy(wanted), How::Ask, &calls).await?;
        reply.json().as_ref().and_then(policy).ok_or_else(|| incomplete(OPERATION))
    }

    /// The registered policies: those in force, those that are not, or all.
    pub async fn policies(&self, active: Option<bool>) -> StoreResult<Vec<Policy>> {
        let (operation, path) = match active {
            None => ("list policies", path::POLICY_LIST),
            Some(true) => ("list active policies", path::POLICY_ACTIVE),
            Some(false) => ("list inactive policies", path::POLICY_INACTIVE),
        };
        let read = |item: &Value| policy(item).map(|found| (found.id.clone(), found));
        let mut found = self.every(&[Call::get(operation, path)], read).await?;
        found.iter_mut().for_each(|policy| policy.active = policy.active.or(active));
        Ok(found)
    }

    /// Puts a policy in force, by id or name.
    pub async fn activate_policy(&self, wanted: &str) -> StoreResult<()> {
        let paths = [path::POLICY_ACTIVATE, old_path::POLICY_ACTIVATE];
        self.policy_command("activate policy", &paths, wanted).await
    }

    /// Takes a policy out of force, by id or name. What waits for a vote already waits on.
    pub async fn deactivate_policy(&self, wanted: &str) -> StoreResult<()> {
        let paths = [path::POLICY_DEACTIVATE, old_path::POLICY_DEACTIVATE];
        self.policy_command("deactivate policy", &paths, wanted).await
    }

    /// Deletes a policy, by id or name.
    pub async fn delete_policy(&self, wanted: &str) -> StoreResult<()> {
        self.policy_command("delete policy", &[path::POLICY_DELETE], wanted).await
    }

    /// A command about a policy: by its id, once by its name. Services may take nothing
    /// but the one or the other, so both are looked up.
    async fn policy_command(
        &self,
        operation: &'static str,
        paths: &[&'static str],
        wanted: &str,
    ) -> StoreResult<()> {
        let (id, name) = match self.policy(wanted).await {
            Ok(found) => (found.id, found.name.unwrap_or_else(|| wanted.to_owned())),
            // A service that retrieves by name only, or not at all: what was said is sent.
            Err(error) if error.kind == StoreErrorKind::Unsupported => {
                (wanted.to_owned(), wanted.to_owned())
            }
            Err(error) => return Err(error),
        };
        let call = |(at, path): (usize, &&'static str)| match at {
            0 => Call::form(operation, *path, &[("policyId", &id)]),
            _ => Call::form(operation, *path, &[("name", &name)]),
        };
        let calls: Vec<_> = paths.iter().enumerate().map(call).collect();
        self.about(Object::Policy(wanted), How::Order, &calls).await.map(drop)
    }
}

/// An object keyed by id, or an array of objects that have one.
fn templates(json: &Value) -> Option<Vec<PolicyTemplate>> {
    match json.get("items").unwrap_or(json) {
        Value::Object(members) => {
            let found = members.iter().filter(|(_, value)| value.is_object());
            let found: Vec<_> = found.map(|(id, value)| template(id, value)).collect();
            (!found.is_empty() || members.is_empty()).then_some(found)
        }
        Value::Array(items) => {
            let named = |item: &Value| {
                let id = field(item, &["id", "policyTemplateId", "templateId"])?;
                Some(template(&id, item))
            };
            Some(items.iter().filter_map(named).collect())
        }
        _ => None,
    }
}

fn template(id: &str, json: &Value) -> PolicyTemplate {
    PolicyTemplate {
        id: id.to_owned(),
        name: field(json, &["name"]).unwrap_or_default(),
        description: field(json, &["description"]),
        events: json.get("events").map(events).unwrap_or_default(),
        configuration: texts(json, &["configuration"]),
    }
}

/// `{id: {name: title}}`, `{id: name}`, or an array of ids or of objects.
fn events(json: &Value) -> Vec<PolicyEvent> {
    let bare = |id: &str| PolicyEvent { id: id.to_owned(), name: None, title: None };
    let keyed = |(id, value): (&String, &Value)| match value {
        Value::Object(members) => {
            let first = members.iter().next();
            PolicyEvent {
                name: first.map(|(name, _)| name.clone()),
                title: first.and_then(|(_, title)| title.as_str().map(str::to_owned)),
                ..bare(id)
            }
        }
        other => PolicyEvent { name: other.as_str().map(str::to_owned), ..bare(id) },
    };
    let listed = |item: &Value| match item {
        Value::String(id) => Some(bare(id)),
        other => {
            let name = field(other, &["name"]);
            let id = field(other, &["id", "eventId"]).or_else(|| name.clone())?;
            Some(PolicyEvent { name, title: field(other, &["title", "description"]), id })
        }
    };
    match json {
        Value::Object(members) => members.iter().map(keyed).collect(),
        Value::Array(items) => items.iter().filter_map(listed).collect(),
        _ => Vec::new(),
    }
}

fn policy(json: &Value) -> Option<Policy> {
    let name = field(json, &["name"]);
    let voting = ["votingConfigurationId", "configurationId", "votingConfiguration"];
    Some(Policy {
        id: field(json, &["policyId", "id", "uuid"]).or_else(|| name.clone())?,
        name,
        template: field(json, &["policyTemplateId", "templateId", "template"]),
        events: texts(json, &["applyingEventIds", "events"]),
        configuration: map(json.get("configuration")),
        voting: field(json, &voting),
        active: truth(json.get("active").or_else(|| json.get("isActive"))),
        created: created(json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_in_every_form() {
        let event = |id: &str, name: Option<&str>, title: Option<&str>| PolicyEvent {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            title: title.map(str::to_owned),
        };
        let documented = templates(&json!({"t": {
            "name": "n", "description": "d", "events": {"e": {"a.b": "Do b"}},
            "configuration": ["label"], "votingAttributes": ["x"],
        }}));
        let documented = documented.unwrap();
        assert_eq!((documented[0].id.as_str(), documented[0].name.as_str()), ("t", "n"));
        assert_eq!(documented[0].events, [event("e", Some("a.b"), Some("Do b"))]);
        assert_eq!(documented[0].configuration, ["label"]);
        let array = templates(&json!([{"id": "t", "name": "n", "events": ["e"]}, {"name": "n"}]));
        let array = array.unwrap();
        assert_eq!((array.len(), &array[0].events), (1, &vec![event("e", None, None)]));
        assert_eq!(templates(&json!([])), Some(Vec::new()));
        assert_eq!(templates(&json!({})), Some(Vec::new()));
        assert_eq!(templates(&json!({"message": "no"})), None);
    }

    #[test]
    fn policies_are_read_by_what_they_have() {
        let found = policy(&json!({
            "id": "1", "applyingEventIds": {"e": {"a.b": "Do b"}}, "configurationId": "board",
            "configuration": [], "isActive": "1",
        }));
        let found = found.unwrap();
        assert_eq!((found.id.as_str(), found.events), ("1", vec!["e".to_owned()]));
        assert_eq!((found.voting.as_deref(), found.active), (Some("board"), Some(true)));
        assert!(found.configuration.is_empty());
        assert_eq!(policy(&json!({"name": "n"})).unwrap().id, "n");
        assert!(policy(&json!({"message": "no"})).is_none());
    }
}
