//! What the service writes, in the chosen shape. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use privicorefs::privicore::transport::Reply;
use serde_json::{Value, json};

use super::fault::Wrong;
use super::shape::{Ack, Answer, Command, Configured, List, Request, Shape, Status, Temporary};
use super::vault::Stored;

/// Where payloads go to, and come from.
pub(super) const UPSTREAM: &str = "up.sim:8010";
pub(super) const DOWNSTREAM: &str = "down.sim:8011";

/// Where a command stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Pending,
    Done,
    Rejected(&'static str),
}

pub(super) fn plain(status: u16, body: impl Into<Bytes>) -> Reply {
    Reply { status, body: body.into(), ..Reply::default() }
}

pub(super) fn object(status: u16, body: &Value) -> Reply {
    plain(status, body.to_string())
}

pub(super) fn error(status: u16, key: &str) -> Reply {
    object(status, &json!({"message": key.replace(['.', '_'], " "), "error": key}))
}

fn named(status: u16, id: &str, body: impl Into<Bytes>) -> Reply {
    Reply { command_header: Some(id.to_owned()), ..plain(status, body) }
}

/// The 202 of a command (B.3).
pub(super) fn accepted(shape: &Shape, id: &str) -> Reply {
    match shape.command {
        Command::HeaderAndArray => named(202, id, json!([id]).to_string()),
        Command::HeaderOnly => named(202, id, ""),
        Command::Array => object(202, &json!([id])),
        Command::Bare => object(202, &json!(id)),
        Command::Text => plain(202, id.to_owned()),
        Command::Object => object(202, &json!({ "commandId": id })),
        Command::HeaderName => object(202, &json!({ "X-DPT-CAB-ID": id })),
    }
}

/// The 202 of a data request (C.4.9).
pub(super) fn requested(shape: &Shape, command: &str, request: &str) -> Reply {
    match shape.request {
        Request::Headers => {
            Reply { request_header: Some(request.to_owned()), ..named(202, command, "null") }
        }
        Request::Body => object(202, &json!({"commandId": command, "requestId": request})),
    }
}

/// A temporary token, and where its payload may be streamed to.
pub(super) fn temporary(shape: &Shape, token: &str, auth: &str) -> Reply {
    let (host, port) = UPSTREAM.split_once(':').unwrap_or_default();
    let stream = match shape.temporary {
        _ if shape.addresses_lack_slash => format!("{UPSTREAM}?auth={auth}"),
        Temporary::Url => format!("https://{UPSTREAM}/?auth={auth}"),
        Temporary::SchemeLess => format!("{UPSTREAM}/?auth={auth}"),
        Temporary::TokenForBase => auth.to_owned(),
        Temporary::HostAndPort => {
            let told = json!({
                "token": token, "stream": auth,
                "stream_server_id": host, "stream_server_port": port,
            });
            return object(200, &told);
        }
    };
    object(200, &json!({"token": token, "stream": stream}))
}

/// The reply of the last step (D.4); `command` is acknowledged where it is named.
pub(super) fn configured(shape: &Shape, temporary: &str, permanent: &str, command: &str) -> Reply {
    match shape.configured {
        Configured::Object => object(200, &json!({ "token": permanent })),
        Configured::Bare => object(200, &json!(permanent)),
        Configured::Text => plain(200, permanent.to_owned()),
        Configured::Accepted | Configured::AcceptedRenamed => accepted(shape, command),
        Configured::Silent => plain(200, ""),
        Configured::Same => object(200, &json!({ "token": temporary })),
        Configured::CommandText => named(200, command, command.to_owned()),
    }
}

/// The reply of `request-status` (B.6).
pub(super) fn status(shape: &Shape, standing: &Standing, id: &str) -> Reply {
    let (code, word, number, why) = match standing {
        Standing::Pending => (202, "started", 1, ""),
        Standing::Done => (200, "succeeded", 2, ""),
        Standing::Rejected(why) => (404, "rejected", 3, *why),
    };
    match shape.status {
        Status::Word => object(code, &json!([word])),
        Status::BareWord => object(code, &json!(word)),
        Status::Object => {
            object(200, &json!({"commandId": id, "command_status": number, "body": why}))
        }
        Status::Code => plain(code, ""),
    }
}

/// What the channel says of a command (B.5).
pub(super) fn acknowledgement(shape: &Shape, id: &str, standing: &Standing) -> Vec<String> {
    let (number, why) = match standing {
        Standing::Rejected(why) => (3, *why),
        _ => (2, "Command completed successfully"),
    };
    let message = |status: Value, body: Value| {
        let data =
            json!({"type": "X-DPT-CAB-ID", "id": id, "command_status": status, "body": body});
        json!({ "data": data }).to_string()
    };
    match shape.ack {
        Ack::Plain => vec![message(json!(number), json!(why))],
        Ack::PendingFirst => {
            vec![message(json!(1), Value::Null), message(json!(number), json!(why))]
        }
        Ack::TextStatus => vec![message(json!(number.to_string()), json!({ "message": why }))],
    }
}

/// What the channel says of a data request: in order, each a message (B.5).
pub(super) fn answers(shape: &Shape, request: &str, auth: &str, payload: &[u8]) -> Vec<String> {
    let of = |output: u8, body: String| {
        let data = json!({
            "type": "X-DPT-CAB-REQUEST-ID", "id": request, "data_context": "",
            "output_type": output, "body": body,
        });
        json!({ "data": data }).to_string()
    };
    let ready = |url: Option<String>| {
        let data = match url {
            Some(url) => json!({"type": "STREAM-READY", "requestId": request, "streamUrl": url}),
            None => json!({"type": "STREAM-READY", "id": request}),
        };
        json!({ "data": data }).to_string()
    };
    let inline = || of(0, STANDARD.encode(payload));
    let link = || of(1, format!("https://{DOWNSTREAM}/get?auth={auth}"));
    let token = || of(1, auth.to_owned());
    match shape.answer {
        Answer::Mixed if payload.len() <= 36_000 => vec![inline()],
        Answer::Inline => vec![inline()],
        Answer::Mixed | Answer::Link => vec![link()],
        Answer::NoteAndLink => vec![of(0, "Your data is being prepared".into()), link()],
        Answer::TokenThenReady => vec![token(), ready(None)],
        Answer::ReadyThenToken => vec![ready(None), token()],
        Answer::ReadyWithUrl => {
            vec![token(), ready(Some(format!("https://{DOWNSTREAM}/?auth={auth}")))]
        }
        Answer::TokenOnly => vec![token()],
        Answer::Messages => vec![ready(Some(format!("ws://{DOWNSTREAM}/?auth={auth}")))],
    }
}

/// A page of a listing (C.4.7); `size` is that of a full one.
pub(super) fn page(shape: &Shape, found: &[&Stored], page: usize, size: usize) -> Reply {
    let flat = shape.list == List::Flat;
    let items: Vec<_> = found.iter().map(|stored| record(stored, flat)).collect();
    let meta = json!({"count": items.len(), "page": page, "perPage": size});
    object(
        200,
        &match shape.list {
            List::Items | List::Flat => json!({"items": items, "meta": meta}),
            List::Array => json!(items),
            List::Data => json!({"data": items, "meta": meta}),
        },
    )
}

fn record(stored: &Stored, flat: bool) -> Value {
    let Stored { token, context, mark, file, risk, .. } = stored;
    let mut item = json!({
        "uuid": mark, "token": token, "context": context, "createdAt": "2026-02-21T15:33:44+00:00",
    });
    if flat {
        if let Some(file) = file {
            item["fileName"] = json!(file.name);
            item["extension"] = json!(file.extension);
            item["size"] = json!(file.size);
        }
        return item;
    }
    item["meta"] = match (file, risk) {
        (None, None) => json!([]),
        _ => {
            let file = file.as_ref().map(|file| {
                json!({"fileName": file.name, "extension": file.extension, "size": file.size})
            });
            json!({"file": file.unwrap_or(json!([])), "information_security_risk": risk})
        }
    };
    item
}

/// What comes in place of `honest`.
pub(super) fn wrong(wrong: Wrong, honest: Option<&Reply>) -> Reply {
    match wrong {
        Wrong::Ok => plain(200, "OK"),
        Wrong::Html => plain(200, "<html><body><h1>It works!</h1></body></html>"),
        Wrong::Nothing => plain(200, ""),
        Wrong::Null => plain(200, "null"),
        Wrong::Array => plain(200, "[]"),
        Wrong::Object => plain(200, r#"{"status":"fine"}"#),
        Wrong::Torn => {
            let whole = honest.map_or(&b"{\"items\": [{\"token\": \"dtk"[..], |reply| &reply.body);
            plain(200, whole[..whole.len() / 2].to_vec())
        }
        Wrong::Unnamed => plain(202, "null"),
    }
}
