//! The stream servers (B.7, B.8) and the channel's upgrade, all at `/`.
//!
//! The `auth` parameter is the only credential and is good once. Bodies pass through in
//! pieces; neither direction holds a payload in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;

use super::params::Fields;
use super::reply;
use crate::engine::app::App;
use crate::engine::channel;
use crate::engine::commit::{Durability, Received, Tx};
use crate::engine::downloads::Ticket;
use crate::engine::faults::{DOWNSTREAM, Fault, Moment, UPSTREAM};
use crate::engine::gate::{Operation, Question};
use crate::engine::governance::TIME_LIMIT;
use crate::engine::net::Connection;
use crate::engine::refusal::Refusal;
use crate::engine::storage::Pieces;
use crate::engine::tokens;

const AUTH: &str = "auth";
/// Longest time that a reservation can wait for a vote, and then its time to live.
const VOTE_MS: u64 = 2 * TIME_LIMIT * 1_000;
const BINARY: &str = "application/octet-stream";

/// Whether a request carries a stream token.
pub(super) fn has_auth(uri: &Uri) -> bool {
    Fields::of_query(uri.query()).get(AUTH).is_some()
}

/// The stream token; a client that appended a whole address means the token in it (D.6).
fn auth(uri: &Uri) -> Option<String> {
    let token = Fields::of_query(uri.query()).get(AUTH)?.to_owned();
    match token.parse::<Uri>().ok().filter(|inner| inner.query().is_some()) {
        Some(inner) => Fields::of_query(inner.query()).get(AUTH).map(str::to_owned),
        None => Some(token),
    }
}

/// `GET /ws`.
pub(super) async fn channel(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    channel::upgrade(app, upgrade)
}

/// `GET /`: a download, a download over a WebSocket, or the channel.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    if let Ok(upgrade) = upgrade {
        return match auth(&uri) {
            None => Ok(channel::upgrade(app, upgrade)),
            Some(_) => {
                let pieces = download(&app, &uri).await?.1;
                let tracker = app.tasks.clone();
                let stop = app.stop.child_token();
                Ok(upgrade.on_upgrade(move |socket| {
                    tracker.track_future(async move {
                        stop.run_until_cancelled(send_frames(socket, pieces)).await;
                    })
                }))
            }
        };
    }
    let (ticket, pieces) = download(&app, &uri).await?;
    let headers = [
        (header::CONTENT_TYPE, BINARY.to_owned()),
        (header::CONTENT_LENGTH, ticket.payload.len.to_string()),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Redeems the token and opens the payload, with the fault that is due.
async fn download(app: &Arc<App>, uri: &Uri) -> Result<(Ticket, Pieces), Refusal> {
    let token = auth(uri).ok_or(Refusal::Unauthorized)?;
    let ticket = app.downloads.redeem(&token, app.now()).ok_or(Refusal::Unauthorized)?;
    app.need_copy(ticket.profile, ticket.payload).await?;
    let pieces = app.pieces(ticket.profile, ticket.payload)?;
    let counter = Arc::clone(app);
    let pieces = pieces.inspect(move |piece| {
        if let Ok(piece) = piece {
            counter.counters.sent(piece.len());
        }
    });
    let pieces = match app.faults.strike(Moment::Stream, &[DOWNSTREAM]) {
        Some(Fault::ShortStream { bytes }) => cut_after(pieces, bytes).boxed(),
        Some(Fault::Stall { ms }) => {
            let pause = tokio::time::sleep(Duration::from_millis(ms));
            stream::once(pause).filter_map(async |()| None).chain(pieces).boxed()
        }
        _ => pieces.boxed(),
    };
    Ok((ticket, pieces))
}

/// Ends with an error, which closes the connection, once `bytes` have passed.
fn cut_after(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send,
    bytes: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    pieces.scan(bytes, |left, piece| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        let broken = matches!(&piece, Ok(piece) if piece.is_empty());
        std::future::ready(Some(if broken {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            piece
        }))
    })
}

async fn send_frames(mut socket: WebSocket, mut pieces: Pieces) {
    while let Some(Ok(piece)) = pieces.next().await {
        if socket.send(Message::Binary(piece)).await.is_err() {
            return;
        }
    }
    // The client may be gone already.
    let _ = socket.send(Message::Close(None)).await;
}

/// `POST /`: an upload. One that a policy holds has been received, and is answered as a
/// command.
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Result<Response, Refusal> {
    let auth = auth(request.uri()).ok_or(Refusal::Unauthorized)?;
    let name = app.stream_tokens.open(&auth).ok_or(Refusal::Unauthorized)?;
    let profile = claim(&app, &name, auth.clone())?;
    let id = app.new_id();
    let fault = app.faults.strike(Moment::Stream, &[UPSTREAM]);
    let keep = app.keeps_uploads(profile)?;
    let received = receive(&app, id, request.into_body(), keep, fault, &connection).await?;
    let arrival = app.arrive(profile, id, received).await?;
    let question = Question { profile, operation: Operation::Exchange, object: name.clone() };
    let step = move |tx: &mut Tx<'_>| tokens::fill(tx, profile, &name, id, arrival);
    if app.must_vote(&question)? {
        // The reservation lives longer while it is held, and so does what its upload token
        // has been used for.
        app.used_uploads.lock().insert(auth, app.now() + VOTE_MS);
        let step = move |tx: &mut Tx<'_>| step(tx).map(|()| None);
        let id = app.accept_voted(UPSTREAM, question, Durability::Machine, step).await;
        return Ok(reply::accepted(&app, id));
    }
    app.committer.run(Durability::Machine, step).await?;
    Ok(reply::ok(&json!({ "status": "received" })))
}

/// Uses an upload token up; only the first call gets through.
fn claim(app: &App, name: &str, auth: String) -> Result<uuid::Uuid, Refusal> {
    let found = tokens::find(&*app.db, name, app.now())?.ok_or(Refusal::Unauthorized)?;
    let expires_at = found.token.expires_at.ok_or(Refusal::Unauthorized)?;
    let fresh = app.used_uploads.lock().insert(auth, expires_at).is_none();
    if fresh && found.token.payload.is_none() {
        Ok(found.token.profile)
    } else {
        Err(Refusal::Unauthorized)
    }
}

async fn receive(
    app: &App,
    id: uuid::Uuid,
    body: Body,
    keep: bool,
    fault: Option<Fault>,
    connection: &Connection,
) -> Result<Received, Refusal> {
    let broken = |_| Refusal::parameter("body", "the upload ended early");
    let failed = |error: io::Error| Refusal::Storage(error.into());
    let mut incoming = app.files.incoming(id, app.config.inline_store_limit);
    let mut pieces = body.into_data_stream();
    if let Some(Fault::Stall { ms }) = fault {
        app.pause(Duration::from_millis(ms)).await;
    }
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(broken)?;
        app.counters.received(piece.len());
        incoming.push(piece).await.map_err(failed)?;
        if incoming.len() > app.config.max_payload {
            return Err(Refusal::TooLarge);
        }
        if matches!(fault, Some(Fault::ShortStream { bytes }) if incoming.len() >= bytes) {
            connection.cut();
            return Err(Refusal::parameter("body", "cut by the fault plan"));
        }
    }
    incoming.finish(keep).await.map_err(failed)
}
