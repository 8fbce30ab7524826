//! Payloads in and out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use privicorefs::privicore::transport::{BodyIn, Connection, Reply, StreamReply};
use privicorefs::store::StoreResult;
use tokio::time::sleep;
use url::Url;

use super::channel::{Pieces, PiecesEnd};
use super::fault::{At, Phase, WireFault};
use super::replies::{DOWNSTREAM, UPSTREAM, error, object, plain};
use super::shape::Uploaded;
use super::transport::{Struck, Waiting, Wire, lost, reset};

/// Largest piece of a payload on its way down.
const PIECE: usize = 16 << 10;

/// The single-use credential of a stream's address, if it is one of `host`.
fn credential(url: &Url, host: &str) -> Option<String> {
    let (name, port) = host.split_once(':')?;
    let here = url.host_str() == Some(name) && url.port() == port.parse().ok();
    let mut pairs = url.query_pairs();
    let auth = pairs.find(|(name, _)| name == "auth")?.1.into_owned();
    here.then_some(auth)
}

/// A reply whose body is there.
fn whole(reply: Reply) -> StreamReply {
    let body = reply.body.clone();
    let len = Some(body.len() as u64);
    let head = Reply { body: Bytes::new(), ..reply };
    StreamReply { head, len, body: stream::once(async { Ok(body) }).boxed() }
}

fn pieces(payload: &Bytes) -> Vec<Bytes> {
    let ends = (0..payload.len()).step_by(PIECE);
    ends.map(|at| payload.slice(at..(at + PIECE).min(payload.len()))).collect()
}

impl Wire {
    pub(super) async fn take_in(
        &self,
        operation: &'static str,
        url: &Url,
        len: u64,
        body: BodyIn,
    ) -> StoreResult<StreamReply> {
        let mut waiting = self.wait("Upload", self.limits().idle);
        self.latency().await;
        let fault = self.strike(At::Upload, Phase::Call);
        if fault == Some(WireFault::Refused) {
            return lost(operation, false).await;
        }
        let stalls = self.strike(At::Upload, Phase::Body).is_some();
        let Some(payload) = self.read(operation, len, body, stalls, &mut waiting).await? else {
            return std::future::pending().await;
        };
        self.latency().await;
        let auth = credential(url, UPSTREAM);
        let Some(fault) = fault else {
            return Ok(whole(self.arrive(auth.as_deref(), payload)));
        };
        let reply = match fault.struck() {
            Struck::Carried(heard) => {
                let reply = self.arrive(auth.as_deref(), payload);
                heard.reply(operation, Some(&reply)).await
            }
            Struck::Not(heard) => heard.reply(operation, None).await,
            Struck::Later(after) => {
                let wire = self.clone();
                tokio::spawn(async move {
                    sleep(after).await;
                    wire.arrive(auth.as_deref(), payload);
                });
                lost(operation, false).await
            }
        };
        reply.map(whole)
    }

    /// Reads an upload; `None` if it is not read to its end.
    async fn read(
        &self,
        operation: &'static str,
        len: u64,
        mut body: BodyIn,
        stalls: bool,
        waiting: &mut Waiting,
    ) -> StoreResult<Option<Bytes>> {
        let mut payload = BytesMut::new();
        while let Some(piece) = body.next().await {
            payload.extend_from_slice(&piece.map_err(|_| reset(operation))?);
            waiting.moved();
            sleep(Duration::from_millis(1)).await;
            if stalls && payload.len() as u64 * 2 > len {
                return Ok(None);
            }
        }
        match payload.len() as u64 == len {
            true => Ok(Some(payload.freeze())),
            false => Err(reset(operation)),
        }
    }

    /// A payload is there, whole.
    fn arrive(&self, auth: Option<&str>, payload: Bytes) -> Reply {
        let (shape, started) = {
            let mut state = self.state();
            let temporary = auth.and_then(|auth| state.vault.take_upload(auth));
            let shape = state.vault.shape;
            (shape, temporary.map(|temporary| state.vault.uploaded(temporary, payload)))
        };
        let Some((id, work)) = started else { return error(401, "stream.unknown") };
        self.begin(At::Upload, id.clone(), work);
        match shape.uploaded {
            Uploaded::Empty => plain(201, ""),
            Uploaded::Text => plain(200, "stored"),
            Uploaded::Command => Reply { command_header: Some(id), ..plain(202, "") },
            Uploaded::CommandBody => object(200, &serde_json::json!({ "commandId": id })),
        }
    }

    /// The payload behind an address; its body may be struck.
    fn leave(&self, url: &Url) -> Option<(Bytes, PiecesEnd)> {
        let mut state = self.state();
        let payload = state.vault.take_download(&credential(url, DOWNSTREAM)?)?;
        Some(match state.faults.strike(At::Download, Phase::Body) {
            Some(WireFault::ShortDownload) => {
                (payload.slice(..payload.len() / 2), PiecesEnd::Broken)
            }
            Some(_) => (payload.slice(..payload.len() / 2), PiecesEnd::Stalled),
            None => (payload, PiecesEnd::Closed),
        })
    }

    pub(super) async fn give(
        &self,
        operation: &'static str,
        url: &Url,
    ) -> StoreResult<StreamReply> {
        let _waiting = self.wait("Download", self.limits().reply);
        self.latency().await;
        if let Some(fault) = self.strike(At::Download, Phase::Call) {
            let heard = match fault.struck() {
                Struck::Carried(heard) => {
                    self.leave(url);
                    heard
                }
                Struck::Not(heard) => heard,
                Struck::Later(_) => return lost(operation, false).await,
            };
            return heard.reply(operation, None).await.map(whole);
        }
        let said =
            self.state().vault.download_len(&credential(url, DOWNSTREAM).unwrap_or_default());
        let Some((payload, end)) = self.leave(url) else {
            return Ok(whole(error(404, "stream.unknown")));
        };
        let waiting = self.wait("the rest of a download", self.limits().idle);
        let rest = pieces(&payload).into_iter();
        let body = stream::unfold(Some((rest, waiting)), move |state| async move {
            let (mut rest, mut waiting) = state?;
            sleep(Duration::from_millis(1)).await;
            match (rest.next(), end) {
                (Some(piece), _) => {
                    waiting.moved();
                    Some((Ok(piece), Some((rest, waiting))))
                }
                (None, PiecesEnd::Closed) => None,
                (None, PiecesEnd::Broken) => Some((Err(reset(operation)), None)),
                (None, PiecesEnd::Stalled) => std::future::pending().await,
            }
        });
        Ok(StreamReply { head: plain(200, ""), len: said, body: body.boxed() })
    }

    /// A payload in binary messages.
    pub(super) fn messages(&self, url: &Url) -> Result<Box<dyn Connection>, String> {
        let (payload, end) = self.leave(url).ok_or("HTTP error: 404 Not Found")?;
        Ok(Box::new(Pieces { pieces: pieces(&payload).into_iter(), end }))
    }
}
