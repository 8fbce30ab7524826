//! Answers to data requests (C.4.9, B.5): the payload itself when it is small, else a
//! single-use address.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::app::App;
use super::commit::Durability;
use super::faults::{ACK, Fault, Moment};
use super::gate::{Operation, Question, Ticket};
use super::records::Payload;
use super::refusal::Refusal;
use super::shape::{Download, Inline};
use super::statistics::{self, Transaction};
use crate::protocol::{self, INLINE_ENGINE_LIMIT, path};

const MESSAGE: u8 = 0;
const FILE: u8 = 1;

/// An accepted data request.
pub(super) struct Asked {
    pub command: Uuid,
    pub request: Uuid,
    pub profile: Uuid,
    /// The token as the caller names it.
    pub token: String,
    /// Where the client reaches the engine.
    pub base: String,
}

/// Answers in a task of its own; returns at once, unless the answer must come first.
pub(super) async fn start(app: &Arc<App>, asked: Asked) {
    let fault = app.faults.strike(Moment::Ack, &[path::REQUEST_DATA, ACK]);
    let early = fault == Some(Fault::EarlyAck);
    let answered = CancellationToken::new();
    let ticket = Ticket { command: asked.command, answered: answered.clone() };
    app.begin(asked.command);
    let task = {
        let app = Arc::clone(app);
        async move {
            let _done = ticket.answered.clone().drop_guard();
            if let Err(error) = answer(&app, asked, ticket, fault).await {
                tracing::error!(%error, "a data request was not answered");
            }
        }
    };
    app.tasks.spawn(task);
    if early {
        answered.cancelled().await;
    }
}

/// Waits for the votes that the request needs, and then looks the token up.
async fn permitted(app: &App, asked: &Asked, ticket: &Ticket) -> Result<Found, Refusal> {
    let question = Question {
        profile: asked.profile,
        operation: Operation::Request,
        object: asked.token.clone(),
    };
    app.pass(&question, ticket).await?;
    let token = app.own_token(asked.profile, &asked.token)?.token;
    let payload = token.payload.ok_or(Refusal::NoToken)?;
    app.need_copy(asked.profile, payload).await?;
    Ok(Found { context: token.context, payload })
}

/// What there is to answer with.
struct Found {
    context: String,
    payload: Payload,
}

async fn answer(
    app: &App,
    asked: Asked,
    ticket: Ticket,
    fault: Option<Fault>,
) -> Result<(), Refusal> {
    let Asked { command, profile, .. } = asked;
    let (permitted, fault) = match fault {
        Some(Fault::RejectAck { reason }) => (Err(Refusal::Rejected(reason)), None),
        fault => (permitted(app, &asked, &ticket).await, fault),
    };
    let rejected = permitted.as_ref().err().map(|refusal| refusal.key().to_owned());
    app.remember_read(command, rejected);
    app.finish(command);
    let found = match permitted {
        Ok(found) => found,
        Err(refusal) => {
            app.ack(profile, command, Some(refusal), fault).await;
            return Ok(());
        }
    };
    // Before the answer, so that whoever has it sees it counted; without a sync of its own.
    let now = app.now();
    app.committer.post(Durability::Process, move |tx| {
        statistics::count_at(tx, profile, Transaction::Retrieval, now)
    });
    // One delay for both: they leave together.
    app.ack(profile, command, None, None).await;
    let inline = app.shape.read().inline;
    if inline == Inline::AfterNote {
        app.push(profile, &message(&asked, &found, MESSAGE, json!("Data retrieval started")));
    }
    if inline != Inline::Off && found.payload.len <= INLINE_ENGINE_LIMIT as u64 {
        let bytes = app.payload_bytes(profile, found.payload).await?;
        let answer = message(&asked, &found, MESSAGE, json!(STANDARD.encode(&bytes)));
        if app.deliver(profile, &answer, fault).await {
            app.counters.sent(bytes.len());
        }
        return Ok(());
    }
    let auth = app.downloads.issue(&app.env, profile, found.payload);
    let form = app.shape.read().download;
    let url = format!("{}/?auth={auth}", asked.base);
    let body = if form == Download::Url { json!(url) } else { json!(auth) };
    if !app.deliver(profile, &message(&asked, &found, FILE, body), fault).await {
        return Ok(());
    }
    let mut ready = json!({ "type": protocol::TYPE_STREAM_READY, "id": asked.request });
    match form {
        Download::Url => ready["streamUrl"] = json!(url),
        Download::WebSocket => {
            ready["streamUrl"] = json!(url.replacen("http", "ws", 1));
        }
        Download::Token => {}
    }
    ready["requestId"] = json!(asked.request);
    app.push(profile, &json!({ "data": ready }));
    Ok(())
}

fn message(asked: &Asked, found: &Found, output_type: u8, body: Value) -> Value {
    json!({ "data": {
        "type": protocol::TYPE_REQUEST,
        "id": asked.request,
        "data_context": found.context,
        "output_type": output_type,
        "body": body,
    }})
}
