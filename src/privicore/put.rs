//! Storing a payload: reserve, exchange or stream, configure (protocol E.4).
//!
//! The unit of retry is the whole flow, from a new reservation: an exchange is not
//! idempotent on one temporary token, and what was begun expires with its reservation.
//! Only the last step is reconciled here: once the payload is in, a lost reply of
//! `configure-file-meta` is asked again, and then looked up in the listing by its mark. If
//! even the listing does not answer (the service is down, say), the put fails in doubt, and
//! the next one with the same mark begins with the listing: a payload whose token was made
//! permanent is not stored a second time.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::reply::{Promotion, Reply, Temporary, promotion, temporary_token};
use super::secret::SecretUrl;
use super::transport::{BodyIn, Call};
use super::wire::within;
use crate::protocol::{INLINE_CLIENT_LIMIT, RESERVATION_TTL_MINUTES, path};
use crate::store::{
    FileMeta, ListFilter, Payload, StoreError, StoreErrorKind, StoreResult, Token, TokenRecord,
};

const PUT: &str = "put";
/// Reservation for large payloads, in minutes, where the service takes it (D.1).
const LONG_TTL_MINUTES: u32 = 60;
/// Payloads above this ask for the long reservation: 5 minutes carry them only over
/// links faster than about 200 kbit/s.
const LONG_TTL_ABOVE: u64 = 8 << 20;
/// How long after an upload its meta may not be configurable yet (B.7).
const UPLOAD_SETTLES: Duration = Duration::from_secs(30);
/// The same after an acknowledged exchange, where it should not happen.
const EXCHANGE_SETTLES: Duration = Duration::from_secs(3);
/// Pieces of an in-memory upload: progress is watched piece by piece.
const PIECE: usize = 256 << 10;
/// Added to a reservation's life before its upload is given up here.
const UPLOAD_GRACE: Duration = Duration::from_secs(60);
/// Extension sent where the service refuses an empty one (C.4.5).
const PLACEHOLDER_EXTENSION: &str = "bin";

impl Client {
    pub(super) async fn store(
        &self,
        meta: &FileMeta,
        mark: &str,
        payload: Payload,
    ) -> StoreResult<Token> {
        if let Some(token) = self.resolved(meta, mark).await? {
            return Ok(token);
        }
        let (temporary, ttl) = self.reserve(meta, mark, payload.len()).await?;
        let streamed = self.exchange_or_stream(&temporary, payload, ttl).await?;
        self.promote(meta, mark, &temporary.token, streamed).await
    }

    /// The token of an earlier put with this mark that ended in doubt, if it was made
    /// permanent after all.
    async fn resolved(&self, meta: &FileMeta, mark: &str) -> StoreResult<Option<Token>> {
        let Some(temporary) = self.doubtful.lock().peek(mark).cloned() else { return Ok(None) };
        let listed = self.listed(meta, mark, &temporary).await;
        let token = listed.map_err(StoreError::or_not)?;
        self.doubtful.lock().pop(mark);
        tracing::debug!(stored = token.is_some(), "looked what became of a put in doubt");
        Ok(token)
    }

    /// Reserves token space and fetches the temporary token; returns it with its life.
    /// Optional parameters that the service refuses are left out from then on.
    async fn reserve(
        &self,
        meta: &FileMeta,
        mark: &str,
        len: u64,
    ) -> StoreResult<(Temporary, u32)> {
        let learned = &self.learned;
        let mut refused = None;
        // A 422 may be about the mark, the ttl, or the context: the optional two are left
        // out one by one, and what then turns out to be the reason is remembered.
        for marked in learned.mark.choices(!mark.is_empty()) {
            for &long in learned.long_ttl.choices(len > LONG_TTL_ABOVE) {
                let ttl = if long { LONG_TTL_MINUTES } else { RESERVATION_TTL_MINUTES };
                match self.try_reserve(meta, marked.then_some(mark), ttl).await {
                    Ok(temporary) => {
                        if !mark.is_empty() {
                            learned.mark.set(*marked);
                        }
                        if len > LONG_TTL_ABOVE {
                            learned.long_ttl.set(long);
                        }
                        return Ok((temporary, ttl));
                    }
                    Err(error) if error.kind == StoreErrorKind::Invalid => refused = Some(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(refused.unwrap_or_else(|| protocol_error("no way to reserve token space is left")))
    }

    async fn try_reserve(
        &self,
        meta: &FileMeta,
        mark: Option<&str>,
        ttl: u32,
    ) -> StoreResult<Temporary> {
        let ttl = ttl.to_string();
        let mut fields = vec![("context", meta.context.as_str()), ("ttl", ttl.as_str())];
        fields.extend(mark.map(|mark| ("uuid", mark)));
        let reply = self.command(&Call::form(PUT, path::RESERVE, &fields)).await?;
        let id = reply.command_id().ok_or_else(|| {
            protocol_error("the service reserved token space without naming the reservation")
        })?;
        self.temporary(&id).await
    }

    /// Fetches the temporary token of a reservation; a 404 right after its
    /// acknowledgement is given a moment.
    async fn temporary(&self, id: &str) -> StoreResult<Temporary> {
        let call = Call::get(PUT, path::TEMPORARY_TOKEN).with_id(id);
        let mut backoff = Backoff::new(EXCHANGE_SETTLES);
        loop {
            let reply = self.call(&call).await?;
            if reply.is_success() {
                return temporary_token(&reply, self.config.upstream_url.as_ref())
                    .ok_or_else(|| protocol_error("a reservation without a token"));
            }
            if reply.status != 404 || !backoff.pause().await {
                let mut error = self.error(&reply, PUT);
                if error.kind == StoreErrorKind::NotFound {
                    // The caller's victim is not what is missing.
                    error.kind = StoreErrorKind::Protocol;
                }
                return Err(error);
            }
        }
    }

    /// Sends the payload, and says whether it was streamed.
    async fn exchange_or_stream(
        &self,
        temporary: &Temporary,
        payload: Payload,
        ttl: u32,
    ) -> StoreResult<bool> {
        if payload.len() > INLINE_CLIENT_LIMIT as u64 {
            return self.upload(temporary, payload, ttl).await.map(|()| true);
        }
        let wire = whole(payload).await?;
        match self.exchange(&temporary.token, &wire).await {
            Err(error)
                if matches!(error.kind, StoreErrorKind::TooLarge | StoreErrorKind::Invalid)
                    && temporary.upstream.is_some() =>
            {
                tracing::debug!(%error, "inline exchange refused; streaming instead");
                self.upload(temporary, Payload::Bytes(wire), ttl).await.map(|()| true)
            }
            other => other.map(|()| false),
        }
    }

    async fn exchange(&self, temporary: &Token, wire: &Bytes) -> StoreResult<()> {
        let data = STANDARD.encode(wire);
        let fields = [("temporaryTokenSpace", temporary.as_str()), ("data", data.as_str())];
        match self.command(&Call::form(PUT, path::EXCHANGE, &fields)).await {
            Ok(_) => Ok(()),
            // Without storage devices an exchange never completes (C.4.3): say so.
            Err(error) if error.kind == StoreErrorKind::TimedOut => {
                Err(self.explained(error).await)
            }
            // Not the caller's victim: the reservation is gone, a new one may do.
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                Err(StoreError { kind: StoreErrorKind::Unavailable, ..error })
            }
            Err(error) => Err(error),
        }
    }

    async fn explained(&self, error: StoreError) -> StoreError {
        match self.storage_devices().await {
            Some(0) => {
                let what = "the profile has no storage device, so nothing can be stored";
                StoreError::new(StoreErrorKind::NoStorage, PUT, what)
            }
            _ => error,
        }
    }

    /// Streams the payload upstream, and awaits its acknowledgement if there is one.
    async fn upload(&self, temporary: &Temporary, payload: Payload, ttl: u32) -> StoreResult<()> {
        let Some(url) = &temporary.upstream else {
            let what = "the service named no upstream server, and none is configured";
            return Err(StoreError::new(StoreErrorKind::Unsupported, PUT, what));
        };
        let life = Duration::from_secs(u64::from(ttl) * 60) + UPLOAD_GRACE;
        let sent = self.send_upload(url, &payload);
        let reply = within(life, PUT, "the upload did not finish", sent).await?;
        drop(payload); // what waits for a vote holds no content
        if !reply.is_success() {
            return Err(refused_upload(reply.error(PUT), url));
        }
        match reply.upload_command_id() {
            Some(id) => match self.settled(&id, PUT).await {
                Err(error) if error.kind == StoreErrorKind::TimedOut => {
                    Err(self.explained(error).await)
                }
                other => other,
            },
            None => Ok(()),
        }
    }

    /// One POST of the whole payload. Fails when neither side made progress for the idle
    /// timeout, however long the upload takes as a whole.
    async fn send_upload(&self, url: &SecretUrl, payload: &Payload) -> StoreResult<Reply> {
        let left = payload.len();
        let watch = Arc::new(Mutex::new(Progress { at: Instant::now(), left, failed: None }));
        let body = watched(pieces(payload), Arc::clone(&watch));
        let idle = self.wire.idle_timeout();
        let mut sending = Box::pin(self.wire.upload(PUT, url.expose(), left, body));
        let reply = loop {
            let stalled_at = watch.lock().at + idle;
            tokio::select! {
                biased;
                // A reply that is there counts, however late it came.
                reply = &mut sending => break reply,
                () = sleep_until(stalled_at) => {
                    if watch.lock().at + idle <= Instant::now() {
                        let what = format!("the upload to {url} stood still for {} s", idle.as_secs_f32());
                        return Err(StoreError::new(StoreErrorKind::TimedOut, PUT, what));
                    }
                }
            }
        };
        match reply {
            Ok(reply) => self.wire.short_reply(PUT, reply).await,
            Err(error) => match watch.lock().failed.take() {
                Some(why) => Err(unreadable(&why)),
                None => Err(error),
            },
        }
    }

    /// Configures file meta, which makes the token permanent (D.4).
    async fn promote(
        &self,
        meta: &FileMeta,
        mark: &str,
        temporary: &Token,
        streamed: bool,
    ) -> StoreResult<Token> {
        let mut backoff = Backoff::new(if streamed { UPLOAD_SETTLES } else { EXCHANGE_SETTLES });
        let mut lost = 0;
        loop {
            let error = match self.configure(meta, temporary).await {
                Ok(reply) => match self.promoted(&reply, meta, mark, temporary).await {
                    Ok(token) => return Ok(token),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let again = match error.kind {
                // Not visible yet, or "not yet exchanged" (B.7).
                StoreErrorKind::NotFound => true,
                StoreErrorKind::Invalid => streamed || error.message.contains("409"),
                kind if outcome_unknown(kind) => {
                    lost += 1;
                    lost < 2
                }
                _ => false,
            };
            if again && backoff.pause().await {
                continue;
            }
            let error = match error.kind {
                // What is missing is our own reservation: a new one may do.
                StoreErrorKind::NotFound => {
                    StoreError { kind: StoreErrorKind::Unavailable, ..error }
                }
                _ => error,
            };
            if lost == 0 {
                return Err(error);
            }
            return match self.listed(meta, mark, temporary).await {
                Ok(Some(token)) => Ok(token),
                Ok(None) => Err(error),
                Err(_) => {
                    if !mark.is_empty() {
                        self.doubtful.lock().put(mark.to_owned(), temporary.clone());
                    }
                    Err(error.or_not())
                }
            };
        }
    }

    /// One `configure-file-meta`, with a placeholder where an empty extension is refused.
    async fn configure(&self, meta: &FileMeta, temporary: &Token) -> StoreResult<Reply> {
        let learned = &self.learned.empty_extension;
        let empty = meta.extension.is_empty();
        let extension = if empty && learned.no() { PLACEHOLDER_EXTENSION } else { &meta.extension };
        let reply = self.call(&configure_call(meta, temporary, extension)).await?;
        if reply.status == 422 && extension.is_empty() && !learned.yes() {
            let call = configure_call(meta, temporary, PLACEHOLDER_EXTENSION);
            let second = self.call(&call).await?;
            if second.is_success() {
                learned.set(false);
                return Ok(second);
            }
        }
        if !reply.is_success() {
            return Err(self.error(&reply, PUT));
        }
        if extension.is_empty() {
            learned.set(true);
        }
        Ok(reply)
    }

    async fn promoted(
        &self,
        reply: &Reply,
        meta: &FileMeta,
        mark: &str,
        temporary: &Token,
    ) -> StoreResult<Token> {
        match promotion(reply) {
            Promotion::Permanent(token) => return Ok(token),
            Promotion::Command(id) => self.settled(&id, PUT).await?,
            Promotion::Same => {}
        }
        // Nobody said that the name stays: look once per session (D.4).
        if self.learned.keeps_token.yes() {
            return Ok(temporary.clone());
        }
        match self.listed(meta, mark, temporary).await {
            Ok(Some(token)) if token != *temporary => {
                self.learned.keeps_token.set(false);
                Ok(token)
            }
            Ok(Some(_)) => {
                self.learned.keeps_token.set(true);
                Ok(temporary.clone())
            }
            Ok(None) | Err(_) => Ok(temporary.clone()),
        }
    }

    /// The permanent token of this put, if the listing shows one: it has our mark, or the
    /// temporary token's own name, under our file name.
    async fn listed(
        &self,
        meta: &FileMeta,
        mark: &str,
        temporary: &Token,
    ) -> StoreResult<Option<Token>> {
        let filter = ListFilter {
            context: Some(meta.context.clone()),
            file_name: Some(meta.file_name.clone()),
            ..ListFilter::default()
        };
        let records = crate::store::list_all(self, &filter).await?;
        let ours = |record: &TokenRecord| {
            record.token == *temporary || (!mark.is_empty() && record.mark.as_deref() == Some(mark))
        };
        Ok(records.into_iter().find(ours).map(|record| record.token))
    }
}

fn configure_call(meta: &FileMeta, token: &Token, extension: &str) -> Call {
    let size = meta.size.to_string();
    let fields = [
        ("token", token.as_str()),
        ("fileName", &meta.file_name),
        ("extension", extension),
        ("context", &meta.context),
        ("size", &size),
        ("path", &meta.path),
    ];
    Call::form(PUT, path::CONFIGURE_FILE, &fields)
}

fn outcome_unknown(kind: StoreErrorKind) -> bool {
    use StoreErrorKind as K;
    matches!(kind, K::Unavailable | K::TimedOut | K::RateLimited | K::Protocol)
}

fn protocol_error(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, PUT, what)
}

fn unreadable(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Local, PUT, format!("cannot read the payload: {why}"))
}

/// A stream credential is single use and short-lived: refused means "reserve again", not
/// that the login is bad or the caller's token is gone.
fn refused_upload(error: StoreError, url: &SecretUrl) -> StoreError {
    use StoreErrorKind as K;
    let kind = match error.kind {
        K::Unauthenticated | K::Denied | K::NotFound | K::Unsupported => K::Unavailable,
        kind => kind,
    };
    let message = format!("upload to {url} refused: {}", error.message);
    StoreError { kind, message, ..error }
}

/// The payload in memory; only for those below the inline limit.
async fn whole(payload: Payload) -> StoreResult<Bytes> {
    let Payload::Stream { len, open } = payload else {
        let Payload::Bytes(bytes) = payload else { return Ok(Bytes::new()) };
        return Ok(bytes);
    };
    let mut wire = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut stream = open();
    while let Some(chunk) = stream.try_next().await.map_err(|e| unreadable(&e.to_string()))? {
        wire.extend_from_slice(&chunk);
        if wire.len() as u64 > len {
            break;
        }
    }
    if wire.len() as u64 != len {
        return Err(unreadable("its length is not what was said"));
    }
    Ok(wire.freeze())
}

/// The payload as a stream of small pieces.
fn pieces(payload: &Payload) -> BodyIn {
    match payload {
        Payload::Stream { open, .. } => open(),
        Payload::Bytes(bytes) => {
            let mut rest = bytes.clone();
            let next = move || {
                let piece = rest.split_to(rest.len().min(PIECE));
                (!piece.is_empty()).then_some(Ok(piece))
            };
            stream::iter(std::iter::from_fn(next)).boxed()
        }
    }
}

struct Progress {
    /// When a piece was last taken.
    at: Instant,
    /// Bytes still to come.
    left: u64,
    /// Why the source failed.
    failed: Option<String>,
}

/// Follows the source piece by piece, and holds it to its length: what a source does
/// wrong must not look like the service's fault, nor be cut off silently. The last piece
/// is given only once the source has ended.
fn watched(source: BodyIn, watch: Arc<Mutex<Progress>>) -> BodyIn {
    let next = |(mut source, watch): (BodyIn, Arc<Mutex<Progress>>)| async move {
        let taken = source.next().await;
        let left = watch.lock().left;
        let piece = match taken {
            None if left == 0 => return None,
            None => Err(std::io::Error::other("it is shorter than was said")),
            Some(Err(error)) => Err(error),
            Some(Ok(piece)) => match left.checked_sub(Bytes::len(&piece) as u64) {
                Some(0) => ended(&mut source).await.map(|()| {
                    watch.lock().left = 0;
                    piece
                }),
                Some(left) => {
                    watch.lock().left = left;
                    Ok(piece)
                }
                None => Err(too_long()),
            },
        };
        let mut progress = watch.lock();
        progress.at = Instant::now();
        progress.failed = piece.as_ref().err().map(std::io::Error::to_string);
        drop(progress);
        Some((piece, (source, watch)))
    };
    stream::unfold((source, watch), next).boxed()
}

/// Fails if the source goes on.
async fn ended(source: &mut BodyIn) -> std::io::Result<()> {
    while let Some(piece) = source.try_next().await? {
        if !piece.is_empty() {
            return Err(too_long());
        }
    }
    Ok(())
}

fn too_long() -> std::io::Error {
    std::io::Error::other("it is longer than was said")
}

/// Pauses between attempts: 50 ms, doubling up to 2 s, for a given time in all.
struct Backoff {
    until: Instant,
    next: Duration,
}

impl Backoff {
    fn new(total: Duration) -> Self {
        Self { until: Instant::now() + total, next: Duration::from_millis(50) }
    }

    /// Pauses and says `true`, or `false` at once when the time is up.
    async fn pause(&mut self) -> bool {
        if Instant::now() + self.next > self.until {
            return false;
        }
        sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(2));
        true
    }
}
