//! Single-use download tokens (B.8). They live in memory: a restart ends them, and the
//! client asks again, as it must for any download that breaks.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use uuid::Uuid;

use super::records::Payload;
use crate::env::Env;

/// How long a link waits to be used. The sources say "use immediately".
const LIFETIME_MS: u64 = 300_000;
const TOKEN_LEN: usize = 24;

/// What a download token is good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub profile: Uuid,
    pub payload: Payload,
    expires_at: u64,
}

/// The tokens given and not yet used.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<HashMap<String, Ticket>>);

impl Downloads {
    /// Makes a token for one download of `payload`.
    pub(super) fn issue(&self, env: &Env, profile: Uuid, payload: Payload) -> String {
        let mut bytes = [0; TOKEN_LEN];
        env.random.fill(&mut bytes);
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let ticket = Ticket { profile, payload, expires_at: env.millis() + LIFETIME_MS };
        self.0.lock().insert(token.clone(), ticket);
        token
    }

    /// Uses a token up.
    pub(super) fn redeem(&self, token: &str, now: u64) -> Option<Ticket> {
        self.0.lock().remove(token).filter(|ticket| ticket.expires_at > now)
    }

    /// Forgets tokens nobody used in time.
    pub(super) fn sweep(&self, now: u64) {
        self.0.lock().retain(|_, ticket| ticket.expires_at > now);
    }
}
