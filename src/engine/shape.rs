//! Which of the wire's documented variants the engine speaks (protocol reference, D).
//!
//! The defaults are the shapes the vendor documents. The others exist so that a client
//! can be tested against every reading of the sources.

use serde::{Deserialize, Serialize};

/// One choice per disputed part of the wire. In JSON, absent members keep the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Body of a `202` (B.3).
    pub command_body: CommandBody,
    /// How a payload that is not inline reaches the client (B.5, D.6).
    pub download: Download,
    /// How the upload address is given (B.7, D.5).
    pub stream: StreamField,
    /// Outer form of a listing (C.4.7, D.2).
    pub list: ListForm,
    /// Answer of configure-file-meta (C.4.5, D.4).
    pub configure: ConfigureReply,
    /// Which method polls a command (B.6, D.10).
    pub status: StatusMethod,
    /// Whether reauthorize extends the token or makes a new one (D.9).
    pub reauthorize: Reauthorize,
    /// Whether payloads up to the inline limit come inside the channel message.
    pub inline: Inline,
    /// Answer of retrieve-temporary-data-token (C.4.2).
    pub temporary: TemporaryReply,
    /// Members of a listing's items (C.4.7).
    pub items: ListItems,
    /// Which of the two update calls there are (C.4.8, D.3).
    pub update: UpdateCalls,
    /// Whether a command that a vote holds says so (section A).
    pub held: HeldSign,
}

/// What retrieve-temporary-data-token answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemporaryReply {
    /// Everything that any source names.
    #[default]
    Union,
    /// `{"token", "stream"}`.
    Pair,
    /// The token as a bare string; no upload stream.
    Bare,
    /// `{"uuid", "createdAt", "token", "context", "ttl"}`; no upload stream.
    Vendor,
}

/// The members of a listing's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListItems {
    /// Nested `meta`, and flat members beside it.
    #[default]
    Union,
    /// `token`, `context`, `fileName`, `extension`, `size`, `createdAt`.
    Flat,
    /// `uuid`, `createdAt`, `profile`, `context`, `token`, `meta`.
    Nested,
}

/// The calls that change a stored token; the others answer 404.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateCalls {
    /// Both.
    #[default]
    Both,
    /// The form that changes metadata.
    Form,
    /// The JSON call that replaces the payload.
    Json,
    /// None.
    Neither,
}

/// What tells that a command waits for a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldSign {
    /// A message with status 1 that names the pool.
    #[default]
    Told,
    /// Nothing: its acknowledgement is late.
    Silent,
}

/// The body variants of B.3, numbered there from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandBody {
    /// 1: `"id"`.
    String,
    /// 1, unquoted: the id as plain text.
    Text,
    /// 2: `["id"]`.
    #[default]
    Array,
    /// 3: `{"commandId":"id"}`.
    Object,
    /// 4: `{"X-DPT-CAB-ID":"id"}`.
    HeaderObject,
    /// 5: no body; the header alone names the command.
    Empty,
}

/// What `output_type` 1 carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Download {
    /// The complete download address in `body`, and a `STREAM-READY` that repeats it.
    #[default]
    Url,
    /// A bare downstream token in `body`, then `STREAM-READY` without an address.
    Token,
    /// A bare token, then `STREAM-READY` whose address is a WebSocket of binary frames.
    WebSocket,
}

/// The `stream` member of retrieve-temporary-data-token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamField {
    /// An absolute address that ends in `?auth=`.
    #[default]
    Url,
    /// A bare token beside `stream_server_id` and `stream_server_port`.
    TokenAndServer,
    /// A bare token alone: the client needs its configured upstream base.
    Token,
}

/// The outer form of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListForm {
    /// `{"items":[..],"meta":{..}}`.
    #[default]
    Items,
    /// `[..]`.
    Array,
}

/// The answer to configure-file-meta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigureReply {
    /// `200 {"token":"new"}`.
    #[default]
    Object,
    /// `200 "new"`.
    String,
    /// `202` and an ack; the temporary token itself becomes permanent.
    Accepted,
}

/// Which method `/request-status/{id}` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusMethod {
    /// Either.
    #[default]
    Both,
    /// GET only; POST is answered 405.
    Get,
    /// POST only; GET is answered 405.
    Post,
}

/// What reauthorize does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reauthorize {
    /// `202`: the caller's token lives longer.
    #[default]
    Extend,
    /// `200` with a new token; the old one ends.
    Replace,
}

/// Whether small payloads travel as `output_type` 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inline {
    /// Base64 in the message, up to the inline limit.
    #[default]
    On,
    /// Every payload is streamed.
    Off,
    /// As `On`, and a text note with `output_type` 0 comes first (D.14).
    AfterNote,
}
