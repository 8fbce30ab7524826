//! Calls that a service may not offer, and their listings.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::client::Client;
use super::listing;
use super::reply::{Reply, field};
use super::transport::{Call, encode};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Items asked for at once.
const PAGE: u32 = 100;
/// Pages after which a listing that does not end is given up.
const PAGES: u32 = 10_000;

impl Client {
    /// Sends a call that is answered at once. A reply outside 2xx is an error.
    pub(super) async fn ask(&self, call: &Call) -> StoreResult<Reply> {
        let reply = self.call(call).await.map_err(plainly)?;
        if reply.is_success() { Ok(reply) } else { Err(self.refusal(&reply, call.operation)) }
    }

    /// Sends a command, awaits its acknowledgement, and returns its id: whatever the
    /// command made is known by it.
    pub(super) async fn make(&self, call: &Call) -> StoreResult<String> {
        let reply = self.command_reply(call).await.map_err(plainly)?;
        if !reply.is_success() {
            return Err(self.refusal(&reply, call.operation));
        }
        reply.command_id().ok_or_else(|| incomplete(call.operation))
    }

    /// As [`Client::make`], for a command whose id says nothing.
    pub(super) async fn order(&self, call: &Call) -> StoreResult<()> {
        let reply = self.command_reply(call).await.map_err(plainly)?;
        if reply.is_success() { Ok(()) } else { Err(self.refusal(&reply, call.operation)) }
    }

    /// The error of a reply outside 2xx: `Unsupported` where the call is not there.
    pub(super) fn refusal(&self, reply: &Reply, operation: &'static str) -> StoreError {
        let absent = match reply.status {
            405 | 501 => true,
            404 => !is_about_a_record(reply),
            _ => false,
        };
        if absent { not_offered(operation) } else { self.error(reply, operation) }
    }

    /// Every item of a listing, page after page, each once. `call` makes the call with
    /// the fields given and those of a page; `read` reads an item and its id.
    pub(super) async fn all<T>(
        &self,
        call: impl Fn(&[(&str, &str)]) -> Call,
        read: impl Fn(&Value) -> Option<(String, T)>,
    ) -> StoreResult<Vec<T>> {
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        for page in 1..=PAGES {
            let (page, per_page) = (page.to_string(), PAGE.to_string());
            let call = call(&[("page", &page), ("perPage", &per_page)]);
            let reply = self.ask(&call).await?;
            let json = reply.json().ok_or_else(|| incomplete(call.operation))?;
            let (items, more) = listing::items(&json).ok_or_else(|| incomplete(call.operation))?;
            let before = seen.len();
            for (id, item) in items.iter().filter_map(&read) {
                if seen.insert(id) {
                    found.push(item);
                }
            }
            // A service that knows no pages gives the same one again.
            if !more || seen.len() == before {
                break;
            }
        }
        Ok(found)
    }
}

/// A `GET` whose fields are in the query.
pub(super) fn asking(operation: &'static str, path: &'static str, fields: &[(&str, &str)]) -> Call {
    let mut call = Call::get(operation, path);
    call.query = (!fields.is_empty()).then(|| encode(fields));
    call
}

/// A missing route and a missing record are both 404 (B.4): only a key such as
/// `directory.not_found` tells that the call is there and what it names is not.
pub(super) fn is_about_a_record(reply: &Reply) -> bool {
    let key = reply.json().and_then(|json| field(&json, &["error"])).unwrap_or_default();
    match key.split_once('.') {
        Some((what, how)) => how.ends_with("not_found") && !["record", "route"].contains(&what),
        None => false,
    }
}

/// A 501, which is an error by itself, in the same words.
fn plainly(error: StoreError) -> StoreError {
    match error.kind {
        StoreErrorKind::Unsupported => not_offered(error.operation),
        _ => error,
    }
}

/// The error of a call that the service does not know.
pub(super) fn not_offered(operation: &'static str) -> StoreError {
    let what = format!("the service does not offer this call ({operation})");
    StoreError::new(StoreErrorKind::Unsupported, operation, what)
}

/// The error of a 2xx that lacks what it is for.
pub(super) fn incomplete(operation: &'static str) -> StoreError {
    let what = "the reply lacks what was asked for";
    StoreError::new(StoreErrorKind::Protocol, operation, what)
}

/// A map of texts; an empty one may come as an array.
pub(super) fn map(json: Option<&Value>) -> BTreeMap<String, String> {
    let members = json.and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    members.map(|(name, value)| (name.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(body: &Value) -> Reply {
        Reply { status: 404, body: body.to_string().into(), ..Reply::default() }
    }

    #[test]
    fn only_a_key_tells_a_missing_record_from_a_missing_route() {
        for (body, record) in [
            (json!({"error": "directory.not_found"}), true),
            (json!({"error": "oauth.application_not_found", "message": "no"}), true),
            (json!({"error": "record.not_found"}), false),
            (json!({"error": "route.not_found"}), false),
            (json!({"message": "Not Found"}), false),
            (json!("directory.not_found"), false),
            (json!([]), false),
        ] {
            assert_eq!(is_about_a_record(&reply(&body)), record, "{body}");
        }
    }

    #[test]
    fn maps_are_read_in_every_form() {
        let read = map(Some(&json!({"a": "x", "n": 3})));
        assert_eq!((read["a"].as_str(), read["n"].as_str()), ("x", "3"));
        for empty in [json!([]), json!({}), json!(null)] {
            assert!(map(Some(&empty)).is_empty());
        }
        assert!(map(None).is_empty());
    }
}
