//! The whole store suite, over every variant of the wire that the engine speaks.

use std::sync::Arc;

use privicorefs::engine::{
    CommandBody, ConfigureReply, Download, HeldSign, Inline, ListForm, ListItems, Reauthorize,
    Shape, StatusMethod, StreamField, TemporaryReply, UpdateCalls,
};

use crate::house::Connected;
use crate::house::conformance::{Offers, suite};

async fn runs(shape: Shape) {
    let offers = Offers {
        update_meta: matches!(shape.update, UpdateCalls::Both | UpdateCalls::Form),
        marks: shape.items != ListItems::Flat,
        full_listing: shape.items != ListItems::Flat,
    };
    let connected = Connected::with(shape).await;
    suite(Arc::clone(&connected.client) as Arc<_>, offers).await;
    connected.end().await;
}

macro_rules! shapes {
    ($($name:ident: $field:ident = $value:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            runs(Shape { $field: $value, ..Shape::default() }).await;
        })*
    };
}

shapes! {
    command_body_string: command_body = CommandBody::String;
    command_body_text: command_body = CommandBody::Text;
    command_body_array: command_body = CommandBody::Array;
    command_body_object: command_body = CommandBody::Object;
    command_body_header_object: command_body = CommandBody::HeaderObject;
    command_body_empty: command_body = CommandBody::Empty;
    download_url: download = Download::Url;
    download_token: download = Download::Token;
    download_web_socket: download = Download::WebSocket;
    stream_url: stream = StreamField::Url;
    stream_token_and_server: stream = StreamField::TokenAndServer;
    stream_token: stream = StreamField::Token;
    list_items: list = ListForm::Items;
    list_array: list = ListForm::Array;
    configure_object: configure = ConfigureReply::Object;
    configure_string: configure = ConfigureReply::String;
    configure_accepted: configure = ConfigureReply::Accepted;
    status_get: status = StatusMethod::Get;
    status_post: status = StatusMethod::Post;
    reauthorize_replace: reauthorize = Reauthorize::Replace;
    inline_off: inline = Inline::Off;
    inline_after_note: inline = Inline::AfterNote;
    temporary_pair: temporary = TemporaryReply::Pair;
    items_flat: items = ListItems::Flat;
    items_nested: items = ListItems::Nested;
    update_json: update = UpdateCalls::Json;
    update_form: update = UpdateCalls::Form;
}

/// The least that any source documents, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn every_other_variant_at_once() {
    runs(Shape {
        command_body: CommandBody::HeaderObject,
        download: Download::Token,
        stream: StreamField::Token,
        list: ListForm::Array,
        configure: ConfigureReply::Accepted,
        status: StatusMethod::Post,
        reauthorize: Reauthorize::Replace,
        inline: Inline::Off,
        temporary: TemporaryReply::Pair,
        items: ListItems::Nested,
        update: UpdateCalls::Form,
        held: HeldSign::Silent,
    })
    .await;
}
