//! The embedded engine: a small, durable Privicore server.
//!
//! It speaks the wire of the project's protocol reference, sections B.2 to B.8 and C.1 to
//! C.11: HTTP calls, the WebSocket channel, upload and download streams, all on
//! one listener. It never sees a key: payloads are opaque, and this module depends on
//! `protocol` and `env` only.
//!
//! ```text
//! api       routes, parameters, answers       channel, hub   sockets and who is joined
//! app       shared state; a command's way to its ack          answers, downloads   data requests
//! tokens, profiles   what calls mean, as steps of a commit    sweep    what runs out
//! oauth, directory, statistics   the same                     scopes   what a token may do
//! devices, governance, templates, pools   the same, of devices, policies and votes
//! gate      operations that wait for a vote
//! commit    one writer, group commit          listing   the order of tokens, in memory
//! storage, replicas   copies on storage devices
//! db, records   fjall keyspaces and keys      payload   files for large payloads
//! faults, shape, metrics   for tests          net   connections that can be cut
//! ```
//!
//! **A command** is validated, given an id, answered `202`, and runs in its own task. Its
//! effect and its outcome are committed together with everything else that waits, under
//! one sync; then the ack goes out on the channel. There is no synchronous shortcut.
//!
//! **Crash consistency.** What has been acknowledged is on disk: records and small
//! payloads in the database's journal, large payloads in files that were synced and
//! renamed before the record that names them was committed. What a crash leaves half done
//! is removed at the next start. A reservation survives the death of the process, but may
//! be lost with the machine: it would have expired within minutes.
//!
//! **Votes.** An operation that an active policy covers is held in its task until the
//! policy's voting pool is settled; see `gate`. A token without risk meta is covered only
//! by what a policy lets match anything, and each policy wants a vote of its own.
//!
//! **What may leak.** File names, contexts, sizes and risk meta are readable in the
//! engine's directory, as they are to the real service. Passwords are stretched, bearer
//! tokens are kept as digests, credentials of devices not at all, payloads are as the client sealed them. Everything is
//! readable by its owner only.

mod answers;
mod api;
mod app;
mod channel;
mod commit;
mod db;
mod devices;
mod directory;
mod downloads;
mod faults;
mod gate;
mod governance;
mod hub;
mod listing;
mod metrics;
mod net;
mod oauth;
mod payload;
mod pools;
mod profiles;
mod records;
mod refusal;
mod replicas;
mod scopes;
mod secrets;
mod shape;
mod start;
mod statistics;
mod storage;
mod sweep;
mod templates;
mod time;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use self::db::StorageError;
pub use self::faults::{Fault, FaultPlan, Rule, When};
pub use self::metrics::Metrics;
pub use self::shape::{
    CommandBody, ConfigureReply, Download, HeldSign, Inline, ListForm, ListItems, Reauthorize,
    Shape, StatusMethod, StreamField, TemporaryReply, UpdateCalls,
};
pub use self::start::Engine;

/// How an engine runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Everything the engine keeps; made if missing. One engine at a time.
    pub dir: PathBuf,
    /// Address of the one listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Added to every HTTP answer and to every message of the channel that settles
    /// something, to feel like a distant service.
    pub latency: Duration,
    /// Offer `POST /_engine/faults`, `/_engine/shape` and `/_engine/sessions`.
    pub test_controls: bool,
    /// Allow a `listen` address that other machines can reach. There is no TLS.
    pub allow_remote: bool,
    /// Which variants of the wire to speak at first.
    pub shape: Shape,
    /// Life of an authorization token from a login.
    pub session_ttl: Duration,
    /// PBKDF2 iterations for new passwords.
    pub password_iterations: NonZeroU32,
    /// Payloads up to this many bytes are kept in the database, larger ones in files.
    pub inline_store_limit: usize,
    /// Largest upload, in bytes.
    pub max_payload: u64,
    /// How often expired reservations and the like are removed.
    pub sweep_every: Duration,
}

impl EngineConfig {
    /// An engine in `dir`, on loopback at a free port, without latency or test controls.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            latency: Duration::ZERO,
            test_controls: false,
            allow_remote: false,
            shape: Shape::default(),
            session_ttl: Duration::from_secs(24 * 3_600),
            password_iterations: NonZeroU32::new(secrets::PASSWORD_ITERATIONS)
                .unwrap_or(NonZeroU32::MIN),
            inline_store_limit: 64 << 10,
            // As much as one AES-GCM message can hold.
            max_payload: 1 << 36,
            sweep_every: Duration::from_secs(10),
        }
    }
}

/// Why an engine does not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// `listen` is reachable from outside and `allow_remote` is not set.
    #[error("{0} is not a loopback address; the engine has no TLS and refuses it")]
    NotLoopback(SocketAddr),
    /// Another engine has the directory.
    #[error("another engine is running in {}", .0.display())]
    InUse(PathBuf),
    /// The directory cannot be used.
    #[error("cannot use the engine's directory {}: {source}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The record store cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
