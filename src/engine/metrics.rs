//! Counters for tests and operators: what was asked and how many bytes moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A snapshot of the counters since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Requests by `METHOD /path/template`. An upload is `POST /`, a download `GET /`,
    /// a channel `GET /ws`.
    pub requests: BTreeMap<String, u64>,
    /// All of them; the engine's own `/_engine` calls are not counted.
    pub requests_total: u64,
    /// Payload bytes received, as sealed by the client.
    pub bytes_up: u64,
    /// Payload bytes sent.
    pub bytes_down: u64,
    /// Command acknowledgements sent to at least one socket or its buffer.
    pub acks: u64,
    /// Permanent data tokens now in the store.
    pub tokens: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: Mutex<BTreeMap<String, u64>>,
    up: AtomicU64,
    down: AtomicU64,
    acks: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self, template: &str) {
        let mut requests = self.requests.lock();
        if let Some(count) = requests.get_mut(template) {
            *count += 1;
        } else {
            requests.insert(template.to_owned(), 1);
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn ack(&self) {
        self.acks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, tokens: u64) -> Metrics {
        let requests = self.requests.lock().clone();
        Metrics {
            requests_total: requests.values().sum(),
            requests,
            bytes_up: self.up.load(Ordering::Relaxed),
            bytes_down: self.down.load(Ordering::Relaxed),
            acks: self.acks.load(Ordering::Relaxed),
            tokens,
        }
    }
}
