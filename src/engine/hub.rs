//! Who is joined to which profile's channel, and what waits for them.
//!
//! A message goes to every joined socket of its profile. With none joined it is buffered
//! briefly and delivered to the first that joins; what has been delivered is gone (B.5).
//! A socket that does not read is cut before its queue outgrows a limit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const BUFFER_MS: u64 = 10_000;
const BUFFER_BYTES: usize = 4 << 20;
const SOCKET_BYTES: usize = 32 << 20;

/// The joined sockets and the buffers, by profile.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<HashMap<Uuid, Channel>>);

#[derive(Debug, Default)]
struct Channel {
    sockets: Vec<Socket>,
    buffer: VecDeque<(u64, Utf8Bytes)>,
    buffered: usize,
}

/// The sending side of a connected socket.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    id: Uuid,
    queue: mpsc::UnboundedSender<Utf8Bytes>,
    queued: Arc<AtomicUsize>,
    cut: CancellationToken,
}

/// The receiving side, for the task that owns the socket.
pub(super) struct Outbox {
    queue: mpsc::UnboundedReceiver<Utf8Bytes>,
    queued: Arc<AtomicUsize>,
}

impl Outbox {
    /// Waits for messages and takes all there are; returns how many. Cancel-safe.
    pub(super) async fn take(&mut self, into: &mut Vec<Utf8Bytes>) -> usize {
        const AT_ONCE: usize = 64;
        let taken = self.queue.recv_many(into, AT_ONCE).await;
        let bytes = into.iter().rev().take(taken).map(|message| message.len()).sum();
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        taken
    }
}

impl Socket {
    pub(super) fn new(id: Uuid, cut: CancellationToken) -> (Self, Outbox) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox { queue: receiver, queued: Arc::clone(&queued) };
        (Self { id, queue: sender, queued, cut }, outbox)
    }

    /// `false` if the socket is gone or too far behind.
    pub(super) fn send(&self, message: Utf8Bytes) -> bool {
        let queued = self.queued.fetch_add(message.len(), Ordering::Relaxed);
        if queued > SOCKET_BYTES {
            tracing::warn!("a socket does not read its channel; it is cut");
            self.cut.cancel();
            return false;
        }
        self.queue.send(message).is_ok()
    }
}

impl Hub {
    /// Adds a socket; it gets what was buffered.
    pub(super) fn join(&self, profile: Uuid, socket: &Socket, now: u64) {
        let mut channels = self.0.lock();
        let channel = channels.entry(profile).or_default();
        channel.sockets.retain(|other| other.id != socket.id);
        channel.buffered = 0;
        for (at, message) in channel.buffer.drain(..) {
            if now.saturating_sub(at) <= BUFFER_MS {
                socket.send(message);
            }
        }
        channel.sockets.push(socket.clone());
    }

    /// Removes a socket.
    pub(super) fn leave(&self, profile: Uuid, socket: &Socket) {
        let mut channels = self.0.lock();
        if let Some(channel) = channels.get_mut(&profile) {
            channel.sockets.retain(|other| other.id != socket.id);
            if channel.sockets.is_empty() && channel.buffer.is_empty() {
                channels.remove(&profile);
            }
        }
    }

    /// Sends to every joined socket, or buffers.
    pub(super) fn broadcast(&self, profile: Uuid, message: &Utf8Bytes, now: u64) {
        let mut channels = self.0.lock();
        let channel = channels.entry(profile).or_default();
        channel.sockets.retain(|socket| socket.send(message.clone()));
        if channel.sockets.is_empty() {
            channel.keep(message.clone(), now);
        }
    }

    /// Closes every socket of a profile.
    pub(super) fn cut(&self, profile: Uuid) {
        if let Some(channel) = self.0.lock().get_mut(&profile) {
            channel.sockets.drain(..).for_each(|socket| socket.cut.cancel());
        }
    }

    /// Forgets what has been buffered too long.
    pub(super) fn sweep(&self, now: u64) {
        self.0.lock().retain(|_, channel| {
            channel.drop_old(now);
            !(channel.sockets.is_empty() && channel.buffer.is_empty())
        });
    }
}

impl Channel {
    fn keep(&mut self, message: Utf8Bytes, now: u64) {
        self.buffered += message.len();
        self.buffer.push_back((now, message));
        self.drop_old(now);
    }

    fn drop_old(&mut self, now: u64) {
        while let Some((at, message)) = self.buffer.front() {
            if self.buffered <= BUFFER_BYTES && now.saturating_sub(*at) <= BUFFER_MS {
                break;
            }
            self.buffered -= message.len();
            self.buffer.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (Socket, Outbox) {
        Socket::new(Uuid::from_u128(u128::from(rand_id())), CancellationToken::new())
    }

    fn rand_id() -> u64 {
        crate::env::Env::system().random_u64()
    }

    async fn received(outbox: &mut Outbox) -> Vec<Utf8Bytes> {
        let mut messages = Vec::new();
        outbox.take(&mut messages).await;
        messages
    }

    #[tokio::test]
    async fn every_joined_socket_hears_and_the_first_gets_the_buffer() {
        let (hub, profile) = (Hub::default(), Uuid::nil());
        hub.broadcast(profile, &"old".into(), 0);
        hub.broadcast(profile, &"early".into(), 20_000);
        let ((one, mut first), (two, mut second)) = (socket(), socket());
        hub.join(profile, &one, 20_001);
        hub.join(profile, &two, 20_001);
        hub.broadcast(profile, &"now".into(), 20_002);
        assert_eq!(received(&mut first).await, ["early", "now"]);
        assert_eq!(received(&mut second).await, ["now"]);
        hub.leave(profile, &one);
        hub.leave(profile, &two);
        assert!(hub.0.lock().is_empty());
    }

    #[test]
    fn the_buffer_is_bounded_in_bytes_and_time() {
        let (hub, profile) = (Hub::default(), Uuid::nil());
        let big: Utf8Bytes = "x".repeat(BUFFER_BYTES / 2).into();
        (0..5).for_each(|now| hub.broadcast(profile, &big, now));
        assert!(hub.0.lock()[&profile].buffered <= BUFFER_BYTES);
        hub.sweep(BUFFER_MS + 10);
        assert!(hub.0.lock().is_empty());
    }

    #[test]
    fn a_socket_that_never_reads_is_cut() {
        let (hub, profile) = (Hub::default(), Uuid::nil());
        let (one, _outbox) = socket();
        hub.join(profile, &one, 0);
        let big: Utf8Bytes = "x".repeat(SOCKET_BYTES / 4).into();
        (0..8).for_each(|_| hub.broadcast(profile, &big, 0));
        assert!(one.cut.is_cancelled());
    }
}
