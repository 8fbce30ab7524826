//! Tolerant readers of HTTP replies: every documented variant of a reply ends up in one
//! shape here, and nowhere else (protocol B.3, B.4, B.6, C.4.2, D.4, D.5).
//!
//! Pure: no I/O, no state. Control flow depends on status codes and fields; texts are for
//! people, except where a rejecting acknowledgement has nothing but a text.

use bytes::Bytes;
use serde_json::Value;
use url::Url;

use super::secret::{Secret, SecretUrl};
use crate::protocol::time::parse_rfc3339;
use crate::store::{StoreError, StoreErrorKind, Token};

/// Longest error text that is passed on, in characters.
const TEXT_LIMIT: usize = 300;

/// A reply, read whole. Payloads never pass through here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// Header `x-dpt-cab-id`.
    pub command_header: Option<String>,
    /// Header `x-dpt-cab-request-id`.
    pub request_header: Option<String>,
    /// Header `retry-after`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Header `date`, in milliseconds since 1970.
    pub date_ms: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The command's id in the order of B.3: header, `{"commandId"}`, `["id"]`, a bare
    /// string or unquoted text, `{"X-DPT-CAB-ID"}`.
    pub(super) fn command_id(&self) -> Option<String> {
        if let Some(id) = &self.command_header {
            return Some(id.clone());
        }
        let Some(json) = self.json() else { return self.bare_text() };
        field(&json, &["commandId"])
            .or_else(|| single(&json))
            .or_else(|| field(&json, &["X-DPT-CAB-ID", "x-dpt-cab-id"]))
    }

    /// The data request's id: the header, else the body's `requestId` (B.3).
    pub(super) fn request_id(&self) -> Option<String> {
        self.request_header.clone().or_else(|| {
            field(&self.json()?, &["requestId", "X-DPT-CAB-REQUEST-ID", "x-dpt-cab-request-id"])
        })
    }

    /// The command's id in the reply of a stream server, whose body is undocumented
    /// (B.7): taken from a body only if it looks like one, so that `OK` is not awaited.
    pub(super) fn upload_command_id(&self) -> Option<String> {
        let looks_like_one = |id: &String| id.len() >= 16 && id.bytes().any(|b| b.is_ascii_digit());
        match &self.command_header {
            Some(id) => Some(id.clone()),
            None => self.command_id().filter(looks_like_one),
        }
    }

    pub(super) fn bare_text(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?.trim();
        let plain = !text.is_empty() && text.len() <= 128;
        (plain && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>{}[]\"".contains(&b)))
            .then(|| text.to_owned())
    }

    /// What the service said, for a person (B.4).
    pub(super) fn error_text(&self) -> String {
        let text = match self.json() {
            Some(json) => text_of(&json).unwrap_or_default(),
            None => String::from_utf8_lossy(&self.body).trim().to_owned(),
        };
        match text.is_empty() {
            true => format!("HTTP status {}", self.status),
            false => format!("HTTP status {}: {}", self.status, presentable(&text)),
        }
    }

    /// The error that a reply outside 2xx means.
    pub(super) fn error(&self, operation: &'static str) -> StoreError {
        let mut error = StoreError::new(kind_of_status(self.status), operation, self.error_text());
        error.retry_after_ms = self.retry_after_ms;
        error
    }
}

/// An error's kind by its HTTP status (B.4, E.3).
pub(super) fn kind_of_status(status: u16) -> StoreErrorKind {
    use StoreErrorKind as K;
    match status {
        401 => K::Unauthenticated,
        403 => K::Denied,
        404 | 410 => K::NotFound,
        405 | 501 => K::Unsupported,
        408 => K::TimedOut,
        413 => K::TooLarge,
        425 | 429 => K::RateLimited,
        400..=499 => K::Invalid,
        500..=599 => K::Unavailable,
        _ => K::Protocol,
    }
}

/// The text of an error body: a string, an array of them, or the first telling field.
pub(super) fn text_of(json: &Value) -> Option<String> {
    match json {
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().filter_map(text_of).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(map) => {
            let told = ["message", "error", "detail", "title", "reason"];
            let named = told.iter().find_map(|key| map.get(*key).and_then(text_of));
            let errors = map.get("errors").and_then(|errors| match errors {
                Value::Object(fields) => {
                    let each = fields.iter().filter_map(|(name, what)| {
                        text_of(what).map(|what| format!("{name}: {what}"))
                    });
                    Some(each.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
                }
                other => text_of(other),
            });
            match (named, errors) {
                (Some(named), Some(errors)) => Some(format!("{named} ({errors})")),
                (named, errors) => named.or(errors),
            }
        }
        _ => None,
    }
}

/// Cut to a readable length, control characters and stream credentials removed.
pub(super) fn presentable(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("auth=") {
        shown.push_str(&rest[..at + 5]);
        shown.push_str("(redacted)");
        let value = &rest[at + 5..];
        let end = value.find(|c: char| c == '&' || c == '"' || c == '\'' || c.is_whitespace());
        rest = &value[end.unwrap_or(value.len())..];
    }
    shown.push_str(rest);
    shown.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_LIMIT).collect()
}

/// The error that a rejecting acknowledgement means, by its text: a refusal (policy,
/// vote, owner) unless the text says otherwise (E.3, C.4.11).
pub(super) fn rejection(operation: &'static str, text: &str) -> StoreError {
    use StoreErrorKind as K;
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let kind = if says(&["not_found", "not found", "notfound", "unknown token", "no such"]) {
        K::NotFound
    } else if says(&["no_storage", "no storage", "no_device", "storage_device", "storage device"]) {
        K::NoStorage
    } else if says(&["too_large", "too large"]) {
        K::TooLarge
    } else if says(&["expired", "time limit", "timeout", "timed out"]) {
        K::TimedOut
    } else {
        K::Denied
    };
    let said = if text.is_empty() { "rejected without a reason".into() } else { presentable(text) };
    StoreError::new(kind, operation, format!("the service rejected it: {said}"))
}

/// The first of `names` that holds a non-empty string, or a number.
pub(super) fn field(json: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| scalar(json.get(name)?))
}

fn scalar(json: &Value) -> Option<String> {
    match json {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A bare scalar, or the first of an array.
pub(super) fn single(json: &Value) -> Option<String> {
    scalar(json.as_array().and_then(|items| items.first()).unwrap_or(json))
}

/// An authorization token, from a login or a renewal. `Debug` does not show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The token itself.
    pub token: Secret,
    /// When it expires, where the service says.
    pub expires: Option<std::time::SystemTime>,
}

/// Reads the reply of `authenticate`, and of `reauthorize` in its synchronous shape.
pub(super) fn authorization(reply: &Reply) -> Option<Authorization> {
    let json = reply.json()?;
    let token = Secret::new(field(&json, &["authorizationToken"])?);
    Some(Authorization { token, expires: expiry(reply) })
}

/// Reads a time under the first of `names` that is there.
pub(super) fn time(json: &Value, names: &[&str]) -> Option<std::time::SystemTime> {
    parse_rfc3339(&field(json, names)?)
}

/// Reads `createdAt`.
pub(super) fn created(json: &Value) -> Option<std::time::SystemTime> {
    time(json, &["createdAt", "created_at"])
}

/// Reads `expiresAt`.
pub(super) fn expiry(reply: &Reply) -> Option<std::time::SystemTime> {
    time(&reply.json()?, &["expiresAt", "expires_at"])
}

/// Where a command stands (B.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandStatus {
    Pending,
    Succeeded,
    Rejected(String),
    /// The service does not know the id, or knows no such call.
    Unknown,
}

/// Interprets a reply of `request-status`, first match: `command_status`, a word, then
/// the HTTP status.
pub(super) fn command_status(reply: &Reply) -> CommandStatus {
    let json = reply.json().unwrap_or(Value::Null);
    let said = json.get("body").and_then(text_of).or_else(|| text_of(&json)).unwrap_or_default();
    match field(&json, &["command_status", "commandStatus"]).as_deref() {
        Some("1") => return CommandStatus::Pending,
        Some("2") => return CommandStatus::Succeeded,
        Some("3") => return CommandStatus::Rejected(said),
        _ => {}
    }
    let word = single(&json).or_else(|| field(&json, &["status"])).or_else(|| reply.bare_text());
    match word.unwrap_or_default().to_ascii_lowercase().as_str() {
        "started" | "pending" | "submitted" | "processing" => return CommandStatus::Pending,
        "succeeded" | "success" | "completed" | "finished" | "ok" => {
            return CommandStatus::Succeeded;
        }
        "rejected" | "failed" | "error" | "denied" => return CommandStatus::Rejected(said),
        _ => {}
    }
    match reply.status {
        202 => CommandStatus::Pending,
        200..=299 => CommandStatus::Succeeded,
        _ => CommandStatus::Unknown,
    }
}

/// A temporary token and where its payload may be streamed to (C.4.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Temporary {
    pub(super) token: Token,
    /// `None` where the reply has no `stream`.
    pub(super) upstream: Option<SecretUrl>,
}

/// Reads the reply of `retrieve-temporary-data-token`; `base` is the configured upstream.
pub(super) fn temporary_token(reply: &Reply, base: Option<&Url>) -> Option<Temporary> {
    let Some(json) = reply.json() else {
        return reply.bare_text().map(|t| Temporary { token: Token::new(t), upstream: None });
    };
    let token = Token::new(field(&json, &["token"]).or_else(|| single(&json))?);
    let host = field(&json, &["stream_server_id", "streamServerId"]);
    let port = field(&json, &["stream_server_port", "streamServerPort"]);
    let upstream = field(&json, &["stream"])
        .and_then(|stream| stream_url(&stream, host.as_deref(), port.as_deref(), base));
    Some(Temporary { token, upstream })
}

/// Builds a stream's URL (B.7): `text` is one, or a token for `host:port`, or for `base`.
pub(super) fn stream_url(
    text: &str,
    host: Option<&str>,
    port: Option<&str>,
    base: Option<&Url>,
) -> Option<SecretUrl> {
    if let Some(url) = absolute_url(text) {
        return Some(SecretUrl::new(url));
    }
    let mut url = match host {
        Some(host) => {
            let place =
                if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
            let mut url = Url::parse(&place).ok()?;
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                url.set_port(Some(port)).ok()?;
            }
            url
        }
        None => base?.clone(),
    };
    // Some services give `host:port/?auth=…` without a scheme: https is assumed.
    if let Some((place, _)) = text.split_once("/?auth=")
        && place.contains([':', '.'])
    {
        return Url::parse(&format!("https://{text}")).ok().map(SecretUrl::new);
    }
    url.query_pairs_mut().clear().append_pair("auth", text);
    Some(SecretUrl::new(url))
}

/// `text` if it is an absolute URL that a stream can have.
pub(super) fn absolute_url(text: &str) -> Option<Url> {
    let known = ["http://", "https://", "ws://", "wss://"];
    known.iter().any(|scheme| text.starts_with(scheme)).then(|| Url::parse(text).ok())?
}

/// What `configure-file-meta` answered (D.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Promotion {
    /// The permanent token.
    Permanent(Token),
    /// A command to await; the temporary token then is the permanent one.
    Command(String),
    /// Nothing: the temporary token is the permanent one.
    Same,
}

/// Reads the reply of `configure-file-meta`.
pub(super) fn promotion(reply: &Reply) -> Promotion {
    let command = || reply.command_id().map_or(Promotion::Same, Promotion::Command);
    if reply.status == 202 {
        // A 202 may still name the token in an object.
        let named = reply.json().and_then(|json| field(&json, &["token"]));
        return named.map_or_else(command, |token| Promotion::Permanent(Token::new(token)));
    }
    let json = reply.json();
    if let Some(token) = json.as_ref().and_then(|json| field(json, &["token", "dataToken"])) {
        return Promotion::Permanent(Token::new(token));
    }
    let bare = match &json {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        None => reply.bare_text(),
        _ => None,
    };
    match bare {
        Some(text) if reply.command_header.as_ref() != Some(&text) => {
            Promotion::Permanent(Token::new(text))
        }
        _ => command(),
    }
}

/// How many storage devices a reply of `list-storage-devices` shows; `None` if it is
/// not a list.
pub(super) fn storage_count(reply: &Reply) -> Option<usize> {
    list_of(&reply.json()?).map(<[Value]>::len)
}

/// A list: bare, or in one of the members that services put it in.
pub(super) fn list_of(json: &Value) -> Option<&[Value]> {
    let list = json
        .as_array()
        .or_else(|| ["items", "data", "devices"].iter().find_map(|key| json.get(key)?.as_array()));
    list.map(Vec::as_slice)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
