//! Calls that the sources know in several forms (C.12), and what they name.
//!
//! The newest form is tried first, the others after a 404, 405 or 501, each once; the form
//! that the service knows is remembered for the session (B.4). A 404 may also mean that
//! what the call names is not there: the profile's own list decides, where there is one.

use std::collections::{BTreeMap, HashSet};

use parking_lot::Mutex;
use serde_json::Value;

use super::client::Client;
use super::optional::{incomplete, is_about_a_record, not_offered};
use super::reply::{Reply, field, list_of};
use super::transport::{Call, encode};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Pages after which a listing that does not end is given up.
const PAGES: usize = 10_000;

/// Which form of each call the service knows.
#[derive(Debug, Default)]
pub(super) struct Forms(Mutex<BTreeMap<&'static str, usize>>);

impl Forms {
    fn known(&self, operation: &'static str) -> Option<usize> {
        self.0.lock().get(operation).copied()
    }

    fn learn(&self, operation: &'static str, form: usize) {
        self.0.lock().insert(operation, form);
    }
}

/// Whether a call is answered at once or by an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ask,
    Order,
}

/// What a call names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Object<'a> {
    /// The request of a device, by its command's id.
    Request(&'a str),
    Device(&'a str),
    Configuration(&'a str),
    Policy(&'a str),
    Pool(&'a str),
}

impl<'a> Object<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::Request(id)
            | Self::Device(id)
            | Self::Configuration(id)
            | Self::Policy(id)
            | Self::Pool(id) => id,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Request(_) => "request of a device",
            Self::Device(_) => "device",
            Self::Configuration(_) => "voting configuration",
            Self::Policy(_) => "policy",
            Self::Pool(_) => "voting pool",
        }
    }
}

/// What came of all forms of a call.
enum Answer {
    /// The service knows the call, whatever it says.
    Given(Reply),
    /// No form is known. `unclear` if one was answered 404, which may be about a record.
    Absent { unclear: bool },
}

impl Client {
    /// Sends a call that names nothing. A reply outside 2xx is an error, `Unsupported`
    /// where the service knows no form of the call.
    pub(super) async fn ask_forms(&self, calls: &[Call]) -> StoreResult<Reply> {
        self.plain(How::Ask, calls).await
    }

    /// The same for a command; returns when it is acknowledged.
    pub(super) async fn order_forms(&self, calls: &[Call]) -> StoreResult<Reply> {
        self.plain(How::Order, calls).await
    }

    async fn plain(&self, how: How, calls: &[Call]) -> StoreResult<Reply> {
        let operation = operation(calls);
        match self.try_forms(how, calls).await? {
            Answer::Given(reply) if reply.is_success() => Ok(reply),
            Answer::Given(reply) => Err(self.error(&reply, operation)),
            Answer::Absent { .. } => Err(not_offered(operation)),
        }
    }

    /// Sends a call about `object`: `NotFound` if it is not there, `Unsupported` where the
    /// service knows no form of the call.
    pub(super) async fn about(
        &self,
        object: Object<'_>,
        how: How,
        calls: &[Call],
    ) -> StoreResult<Reply> {
        let operation = operation(calls);
        let outcome = self.try_forms(how, calls).await.map_err(|error| error.on(object.id()))?;
        let unclear = match outcome {
            Answer::Given(reply) if reply.is_success() => return Ok(reply),
            Answer::Given(reply) if reply.status == 404 => return Err(none(object, operation)),
            Answer::Given(reply) => return Err(self.error(&reply, operation).on(object.id())),
            Answer::Absent { unclear } => unclear,
        };
        if !unclear {
            return Err(not_offered(operation));
        }
        match self.has(object).await {
            Some(false) => Err(none(object, operation)),
            Some(true) => Err(not_offered(operation)),
            None => {
                let (what, id) = (object.word(), object.id());
                let said = "the service does not offer this call";
                let message = format!("{said} ({operation}), or has no {what} {id}");
                Err(StoreError::new(StoreErrorKind::Unsupported, operation, message))
            }
        }
    }

    /// Whether the profile has it; `None` where the service does not list such things.
    async fn has(&self, object: Object<'_>) -> Option<bool> {
        match object {
            Object::Request(_) => self.devices().await.ok().map(|_| false),
            Object::Device(id) => {
                let found = self.devices().await.ok()?;
                Some(found.iter().any(|device| device.identifier == id))
            }
            Object::Configuration(id) => {
                let found = self.voting_configurations().await.ok()?;
                Some(found.iter().any(|one| one.name == id || one.id.as_deref() == Some(id)))
            }
            Object::Policy(id) => {
                let found = self.policies(None).await.ok()?;
                Some(found.iter().any(|one| one.id == id || one.name.as_deref() == Some(id)))
            }
            Object::Pool(id) => {
                let found = self.voting_pools(None).await.ok()?;
                Some(found.iter().any(|pool| pool.id == id))
            }
        }
    }

    async fn try_forms(&self, how: How, calls: &[Call]) -> StoreResult<Answer> {
        let operation = operation(calls);
        let known = self.learned.forms.known(operation);
        let mut unclear = false;
        for (form, call) in calls.iter().enumerate() {
            if known.is_some_and(|known| known != form) {
                continue;
            }
            let outcome = match how {
                How::Ask => self.call(call).await,
                How::Order => self.command_reply(call).await,
            };
            let reply = match outcome {
                // a 501, which is an error by itself
                Err(error) if error.kind == StoreErrorKind::Unsupported => continue,
                other => other?,
            };
            match reply.status {
                405 => {}
                404 if known.is_none() && !is_about_a_record(&reply) => unclear = true,
                _ => {
                    self.learned.forms.learn(operation, form);
                    return Ok(Answer::Given(reply));
                }
            }
        }
        Ok(Answer::Absent { unclear })
    }

    /// Every item of a list, each once. `read` reads an item and its id.
    pub(super) async fn every<T>(
        &self,
        calls: &[Call],
        read: impl Fn(&Value) -> Option<(String, T)>,
    ) -> StoreResult<Vec<T>> {
        let operation = operation(calls);
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        let mut asked = calls.to_vec();
        for page in 2..PAGES {
            let reply = self.ask_forms(&asked).await?;
            let json = reply.json().ok_or_else(|| incomplete(operation))?;
            let (items, size) = list(&json).ok_or_else(|| incomplete(operation))?;
            let before = seen.len();
            for (id, item) in items.iter().filter_map(|item| read(item)) {
                if seen.insert(id) {
                    found.push(item);
                }
            }
            // None of the sources pages these lists: there are more only if the reply has a
            // page's size and fills it.
            let full = size.filter(|size| *size > 0 && items.len() >= *size);
            let Some(size) = full.filter(|_| seen.len() > before) else { break };
            let (page, size) = (page.to_string(), size.to_string());
            let more = encode(&[("page", &page), ("perPage", &size)]);
            asked = calls.iter().map(|call| next(call, &more)).collect();
        }
        Ok(found)
    }
}

fn operation(calls: &[Call]) -> &'static str {
    calls.first().map_or("", |call| call.operation)
}

/// The call for another page.
fn next(call: &Call, more: &str) -> Call {
    let query = match &call.query {
        Some(query) => format!("{query}&{more}"),
        None => more.to_owned(),
    };
    Call { query: Some(query), ..call.clone() }
}

/// The items of a list, and the size of a page where the reply says it. Besides the usual
/// forms, an object of objects: PHP makes one of an array that was filtered.
fn list(json: &Value) -> Option<(Vec<&Value>, Option<usize>)> {
    let size = json.get("meta").and_then(|meta| field(meta, &["perPage", "per_page"]));
    let size = size.and_then(|size| size.parse().ok());
    if let Some(items) = list_of(json) {
        return Some((items.iter().collect(), size));
    }
    let items = json.get("items").unwrap_or(json).as_object()?;
    items.values().all(Value::is_object).then(|| (items.values().collect(), size))
}

fn none(object: Object<'_>, operation: &'static str) -> StoreError {
    let what = format!("the profile has no such {}", object.word());
    StoreError::new(StoreErrorKind::NotFound, operation, what).on(object.id())
}

/// A truth, as a boolean, a number or a word.
pub(super) fn truth(json: Option<&Value>) -> Option<bool> {
    match json? {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => Some(number.as_i64() != Some(0)),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A number, which may come as a text.
pub(super) fn number(json: &Value, names: &[&str]) -> Option<u64> {
    field(json, names)?.parse().ok()
}

/// Texts under the first of `names` that is there: an array of texts, of objects with an
/// id, or an object whose keys they are.
pub(super) fn texts(json: &Value, names: &[&str]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        other => field(other, &["id", "deviceIdentifier", "deviceUniqueIdentifier", "name"]),
    };
    match names.iter().find_map(|name| json.get(name).filter(|value| !value.is_null())) {
        Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
        Some(Value::Object(members)) => members.keys().cloned().collect(),
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_read_in_every_form() {
        let (a, b) = (json!({"id": "a"}), json!({"id": "b"}));
        for (form, size) in [
            (json!([a, b]), None),
            (json!({"items": [a, b], "meta": {"perPage": 2}}), Some(2)),
            (json!({"data": [a, b], "meta": {"per_page": "9"}}), Some(9)),
            (json!({"devices": [a, b]}), None),
            (json!({"0": a, "2": b}), None),
            (json!({"items": {"0": a, "2": b}}), None),
        ] {
            assert_eq!(list(&form), Some((vec![&a, &b], size)), "{form}");
        }
        assert!(list(&json!({"message": "no"})).is_none());
        assert!(list(&json!("no")).is_none());
        assert!(list(&json!([])).is_some_and(|(items, _)| items.is_empty()));
    }

    #[test]
    fn small_values_are_read_in_every_form() {
        for yes in [json!(true), json!(1), json!("true"), json!("1")] {
            assert_eq!(truth(Some(&yes)), Some(true), "{yes}");
        }
        for no in [json!(false), json!(0), json!("No")] {
            assert_eq!(truth(Some(&no)), Some(false), "{no}");
        }
        assert_eq!((truth(Some(&json!("maybe"))), truth(None)), (None, None));
        assert_eq!(number(&json!({"n": "7"}), &["m", "n"]), Some(7));
        for form in
            [json!(["a", "b"]), json!([{"id": "a"}, {"name": "b"}]), json!({"a": 1, "b": 2})]
        {
            assert_eq!(texts(&json!({ "list": form }), &["list"]), ["a", "b"], "{form}");
        }
        assert!(texts(&json!({"list": []}), &["list"]).is_empty());
    }
}
