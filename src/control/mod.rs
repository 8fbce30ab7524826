//! The control socket: what `status`, `sync` and `umount` say to a running mount.
//!
//! One Unix socket per mount, in a folder that only its user may enter; its name is a
//! hash of the mount point. A connection carries one request line and then reply lines
//! until the last one, each line one JSON object. While something is being waited for, a
//! `progress` line comes at least every [`HEARTBEAT`], so a client that hears nothing for
//! much longer knows that the mount hangs.
//!
//! The socket's folder is 0700, and the server also checks the peer's user: only the
//! mount's owner and root are served. Nothing secret crosses it.

mod client;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{Connection, ControlError, Listed, list};
pub use server::{Mounted, ProgressSink, Server};
pub use socket::{own_uid, socket_dir, socket_dirs, socket_name};

/// Longest pause between two reply lines.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The state of the mount, once.
    Status,
    /// What waits for a vote, once.
    Pending,
    /// Wait until everything written so far is in the vault.
    Sync {
        /// Give up after this many seconds; `None`: wait as long as it takes.
        timeout_secs: Option<u64>,
    },
    /// Drain, unmount, and end the mount's process.
    Unmount {
        /// Give up draining after this many seconds, and stay mounted.
        timeout_secs: Option<u64>,
        /// Unmount even though something is not in the vault (it stays in the state
        /// directory) or files are open.
        force: bool,
    },
}

/// What a mount answers, line by line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The whole answer to [`Request::Status`]: the object that the command prints.
    Status {
        /// Fields as the command line documents them.
        status: serde_json::Value,
    },
    /// The whole answer to [`Request::Pending`].
    Pending {
        /// One object each, with fields as the command line documents them.
        pending: Vec<serde_json::Value>,
    },
    /// Still waiting.
    Progress(Progress),
    /// Last line: done.
    Done,
    /// Last line: not done.
    Failed(Failure),
}

/// What is left to bring into the vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Files with content to upload.
    pub files_left: u64,
    /// Bytes of them.
    pub bytes_left: u64,
    /// Catalog records to publish.
    pub records_left: u64,
}

impl Progress {
    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.files_left == 0 && self.records_left == 0
    }
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// By meaning.
    pub kind: FailureKind,
    /// For a person; names no file.
    pub message: String,
    /// What is left, where that is the point.
    pub left: Option<Progress>,
}

/// Kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Not everything reached the vault (in time).
    Incomplete,
    /// Files on the mount are open.
    Busy,
    /// The request made no sense to this version.
    BadRequest,
    /// Anything else.
    Failed,
}
