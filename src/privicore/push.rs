//! Tolerant reader of what the channel pushes (protocol B.5). Pure.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::reply::{absolute_url, field, text_of};
use super::secret::{Secret, SecretUrl};
use crate::protocol;

/// Smallest payload there is: an IV and a tag around nothing (section A, layer 1).
const SMALLEST_PAYLOAD: usize = 28;

/// Standard alphabet, padded or not: services differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// News of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ack {
    /// It was carried out.
    Done,
    /// It was rejected; what the service said may be empty.
    Rejected(String),
    /// It waits for a vote, in this pool if the service names it.
    Held(Option<String>),
}

impl Ack {
    /// Whether something has changed at the service.
    pub(super) fn is_change(&self) -> bool {
        *self == Self::Done
    }
}

/// One message about a data request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The payload itself.
    Inline(Bytes),
    /// Where the payload is.
    Link(SecretUrl),
    /// The credential under which the downstream server has it, or will have it.
    Token(Secret),
    /// It is there; perhaps with its address.
    Ready(Option<SecretUrl>),
    /// A status note: go on waiting.
    Note,
}

/// What one text frame means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// The channel is joined.
    Joined,
    /// The service refused the join, or another action of ours.
    Refused { status: u64, text: String },
    /// A command is settled, or held.
    Acknowledged { id: String, ack: Ack },
    /// News of a data request, under one id or two.
    Answered { id: String, other: Option<String>, answer: Answer },
    /// Nothing for us: pending, keepalive, unknown.
    Nothing,
}

/// The join message; `correlation` goes in both places that sources name (D.11).
pub(super) fn join_message(token: &str, correlation: &str) -> String {
    let data = json!({"authorizationToken": token, "correlationId": correlation});
    json!({"action": "joinChannel", "correlationId": correlation, "data": data}).to_string()
}

/// Reads one text frame. `correlations` are the ids of joins we sent.
pub(super) fn read(frame: &str, correlations: &[String]) -> Push {
    let Ok(Value::Object(mut frame)) = serde_json::from_str::<Value>(frame) else {
        return Push::Nothing;
    };
    let mut data = match frame.remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        protocol::TYPE_COMMAND => command(&data),
        protocol::TYPE_REQUEST => match data.remove("body") {
            body if named(&data).is_some() => answered(&data, request(&data, body)),
            _ => Push::Nothing,
        },
        protocol::TYPE_STREAM_READY => {
            let url = text(&data, "streamUrl").and_then(|url| absolute_url(&url));
            answered(&data, Answer::Ready(url.map(SecretUrl::new)))
        }
        "" => joined(&Value::Object(frame), &data, correlations),
        _ => Push::Nothing,
    }
}

fn text(data: &Map<String, Value>, name: &str) -> Option<String> {
    match data.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn named(data: &Map<String, Value>) -> Option<(String, Option<String>)> {
    let request = text(data, "requestId");
    match text(data, "id") {
        Some(id) => {
            let other = request.filter(|request| *request != id);
            Some((id, other))
        }
        None => request.map(|id| (id, None)),
    }
}

fn answered(data: &Map<String, Value>, answer: Answer) -> Push {
    match named(data) {
        Some((id, other)) => Push::Answered { id, other, answer },
        None => Push::Nothing,
    }
}

fn command(data: &Map<String, Value>) -> Push {
    let Some(id) = text(data, "id").or_else(|| text(data, "commandId")) else {
        return Push::Nothing;
    };
    let body = data.get("body");
    let said = body.and_then(text_of).unwrap_or_default();
    let ack = match text(data, "command_status").as_deref() {
        Some("2") => Ack::Done,
        Some("3") => Ack::Rejected(said),
        // 1 may repeat (D.16); only 2 and 3 settle. What it may tell is that a vote is on:
        // by the pool's name, or in words.
        Some("1") => {
            let pool = body.and_then(|body| field(body, &["poolId", "pool_id", "pool"]));
            if pool.is_none() && !said.to_ascii_lowercase().contains("approval") {
                return Push::Nothing;
            }
            Ack::Held(pool)
        }
        _ => return Push::Nothing,
    };
    Push::Acknowledged { id, ack }
}

/// The download decision (B.5), as far as one message allows it.
fn request(data: &Map<String, Value>, body: Option<Value>) -> Answer {
    let Some(Value::String(body)) = body else { return Answer::Note };
    let output = text(data, "output_type");
    if output.as_deref() != Some("0") {
        if let Some(url) = absolute_url(&body) {
            return Answer::Link(SecretUrl::new(url));
        }
        if output.is_some() && !body.is_empty() {
            return Answer::Token(Secret::new(body));
        }
    }
    // Whether it verifies is for those who hold the key; a note is no base64 of that length.
    match BASE64.decode(body.trim_ascii()) {
        Ok(bytes) if bytes.len() >= SMALLEST_PAYLOAD => Answer::Inline(bytes.into()),
        _ => Answer::Note,
    }
}

fn joined(frame: &Value, data: &Map<String, Value>, correlations: &[String]) -> Push {
    let Some(status) = frame.get("status").and_then(|status| match status {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }) else {
        return Push::Nothing;
    };
    let correlation = field(frame, &["correlationId"]).or_else(|| text(data, "correlationId"));
    if correlation.is_some_and(|id| !correlations.contains(&id)) {
        return Push::Nothing;
    }
    if status == 200 {
        // A reply without a channel is to another action (leaving, for example).
        return if data.contains_key("channelId") { Push::Joined } else { Push::Nothing };
    }
    let told = text_of(&Value::Object(data.clone())).or_else(|| text_of(frame));
    Push::Refused { status, text: told.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn read_one(frame: Value) -> Push {
        read(&frame.to_string(), &["corr".into()])
    }

    fn link(url: &str) -> SecretUrl {
        SecretUrl::new(Url::parse(url).unwrap())
    }

    #[test]
    fn only_two_and_three_settle_a_command() {
        let ack = |status: Value, body: Value| {
            read_one(
                json!({"data": {"type": "X-DPT-CAB-ID", "id": "c", "command_status": status, "body": body}}),
            )
        };
        let told = |ack: Ack| Push::Acknowledged { id: "c".into(), ack };
        let rejected = |text: &str| told(Ack::Rejected(text.into()));
        assert_eq!(ack(json!(1), json!(null)), Push::Nothing);
        assert_eq!(ack(json!(1), json!("in flight")), Push::Nothing);
        assert_eq!(ack(json!(2), json!("done")), told(Ack::Done));
        assert_eq!(ack(json!("2"), json!(null)), told(Ack::Done));
        assert_eq!(ack(json!(3), json!("profile.not_an_owner")), rejected("profile.not_an_owner"));
        assert_eq!(ack(json!(3), json!({"message": "no"})), rejected("no"));
        assert_eq!(ack(json!(4), json!(null)), Push::Nothing);
        let named = json!({"message": "awaiting approval", "poolId": "p"});
        assert_eq!(ack(json!(1), named), told(Ack::Held(Some("p".into()))));
        assert_eq!(ack(json!("1"), json!("Awaiting approval")), told(Ack::Held(None)));
    }

    #[test]
    fn every_variant_of_an_answer_is_told_apart() {
        let answer = |data: Value| match read_one(json!({"data": data})) {
            Push::Answered { id, answer, .. } if id == "r" => answer,
            other => panic!("{other:?}"),
        };
        let of = |output: Value, body: Value| {
            answer(json!({"type": "X-DPT-CAB-REQUEST-ID", "id": "r", "data_context": "c",
                          "output_type": output, "body": body}))
        };
        let wire = BASE64.encode([7; 28]);
        assert_eq!(of(json!(0), json!(wire)), Answer::Inline(Bytes::from_static(&[7; 28])));
        assert_eq!(of(json!("0"), json!(wire)), Answer::Inline(Bytes::from_static(&[7; 28])));
        assert_eq!(
            of(json!(0), json!(wire.trim_end_matches('='))),
            Answer::Inline(Bytes::from_static(&[7; 28]))
        );
        assert_eq!(of(json!(0), json!(BASE64.encode([7; 27]))), Answer::Note);
        assert_eq!(of(json!(0), json!("Your data is being prepared")), Answer::Note);
        assert_eq!(of(json!(0), json!(null)), Answer::Note);
        let url = "https://down.example.com:8011/?auth=x";
        assert_eq!(of(json!(1), json!(url)), Answer::Link(link(url)));
        assert_eq!(of(json!(1), json!("bare-token")), Answer::Token(Secret::new("bare-token")));
        assert_eq!(of(json!(null), json!(url)), Answer::Link(link(url)));
        assert_eq!(of(json!(null), json!(wire)), Answer::Inline(Bytes::from_static(&[7; 28])));
        assert_eq!(answer(json!({"type": "STREAM-READY", "id": "r"})), Answer::Ready(None));
        assert_eq!(
            answer(json!({"type": "STREAM-READY", "requestId": "r", "streamUrl": "ws://d/x"})),
            Answer::Ready(Some(link("ws://d/x")))
        );
    }

    #[test]
    fn a_ready_message_may_carry_two_ids() {
        let push = read_one(json!({"data": {"type": "STREAM-READY", "id": "a", "requestId": "b"}}));
        let expected =
            Push::Answered { id: "a".into(), other: Some("b".into()), answer: Answer::Ready(None) };
        assert_eq!(push, expected);
    }

    #[test]
    fn joins_are_read_with_and_without_correlation() {
        let table = [
            (json!({"correlationId": "corr", "status": 200, "data": {"channelId": "c"}}), "joined"),
            (json!({"status": 200, "data": {"channelId": "c"}}), "joined"),
            (
                json!({"correlationId": "else", "status": 200, "data": {"channelId": "c"}}),
                "nothing",
            ),
            (json!({"correlationId": "corr", "status": 200, "data": []}), "nothing"),
            (json!({"correlationId": "corr", "status": 401, "data": {"message": "no"}}), "refused"),
            (json!({"status": "403"}), "refused"),
            (json!({"correlationId": "else", "status": 500}), "nothing"),
            (json!({"ping": 1}), "nothing"),
            (json!({"data": {"type": "SOMETHING-NEW", "id": "x"}}), "nothing"),
            (json!([1, 2]), "nothing"),
        ];
        for (frame, expected) in table {
            let got = match read_one(frame.clone()) {
                Push::Joined => "joined",
                Push::Refused { .. } => "refused",
                Push::Nothing => "nothing",
                other => panic!("{other:?}"),
            };
            assert_eq!(got, expected, "{frame}");
        }
        assert_eq!(read("not json", &[]), Push::Nothing);
    }

    #[test]
    fn the_join_carries_its_correlation_twice() {
        let message: Value = serde_json::from_str(&join_message("T", "corr")).unwrap();
        assert_eq!(message["action"], "joinChannel");
        assert_eq!(message["correlationId"], "corr");
        assert_eq!(message["data"], json!({"authorizationToken": "T", "correlationId": "corr"}));
    }
}
