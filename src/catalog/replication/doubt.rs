//! What this machine knows of the catalog and the vault does not give (docs/format.md, 4.6).

use std::sync::atomic::Ordering;

use super::position::EMPTIED;
use super::remote::{Remote, RemoteError};
use super::state::{Awaited, AwaitedRow, ManifestRow, UnopenedRow};

/// What a service does not give is reported after this time, in milliseconds.
const REPORTED_AFTER: u64 = 60_000;

/// For so many counts of the calendar what nobody names and does not open is doubt.
const UNNAMED_DAYS: u64 = 3;

/// Something that is doubted.
pub(super) struct Doubt {
    /// Since when, in milliseconds since 1970.
    pub(super) since: u64,
    /// For a person.
    pub(super) text: String,
}

impl Remote {
    /// Everything that is doubted; a machine in doubt writes no checkpoint and deletes nothing.
    pub(super) fn doubts(&self) -> Result<Vec<Doubt>, RemoteError> {
        let mut doubts = Vec::new();
        for AwaitedRow { what, reference, since } in self.all::<AwaitedRow>(b'h')? {
            if self.is_accounted_for(what, &reference)? {
                continue;
            }
            let token = reference.token;
            let text = match what {
                Awaited::Segment { writer, sequence } => format!(
                    "segment {writer:016x}-{sequence}: named by another, and the vault does not give it ({token})"
                ),
                Awaited::Manifest => {
                    format!("checkpoint {token}: named by another, and the vault does not give it")
                }
            };
            doubts.push(Doubt { since, text });
        }
        let (vault, today) = (self.tree.vault(), self.tree.today());
        for row in self.all::<UnopenedRow>(b'u')? {
            if vault.given_up_tokens.contains(&row.token) || today >= row.day + UNNAMED_DAYS {
                continue;
            }
            let text = format!("catalog payload {}: {}", row.token, row.why);
            doubts.push(Doubt { since: row.since, text });
        }
        for row in self.all::<ManifestRow>(b'k')? {
            let reference = &row.reference;
            let given_up = vault.given_up.contains(&reference.identity)
                || vault.given_up_tokens.contains(&reference.token);
            if row.broken && !given_up && !self.is_replaced(&reference.token)? {
                let text = format!("checkpoint {}: a page of it does not open", reference.token);
                doubts.push(Doubt { since: 0, text });
            }
        }
        if vault.is_newer {
            let text = "the vault has records of a newer version of the program".to_owned();
            doubts.push(Doubt { since: 0, text });
        }
        Ok(doubts)
    }

    /// Whether this machine is in doubt.
    pub fn is_in_doubt(&self) -> Result<bool, RemoteError> {
        Ok(self.is_emptied() || !self.doubts()?.is_empty())
    }

    /// What has been doubted for so long that it is to be said.
    pub(super) fn reported_doubts(&self) -> Result<Vec<String>, RemoteError> {
        let now = self.env.millis();
        let old = |doubt: &Doubt| now.saturating_sub(doubt.since) >= REPORTED_AFTER;
        let mut texts: Vec<String> =
            self.doubts()?.into_iter().filter(old).map(|doubt| doubt.text).collect();
        if self.is_emptied() {
            texts.insert(0, EMPTIED.to_owned());
        }
        Ok(texts)
    }

    pub(super) fn is_emptied(&self) -> bool {
        self.emptied.load(Ordering::SeqCst)
    }

    pub(super) fn set_emptied(&self, emptied: bool) {
        self.emptied.store(emptied, Ordering::SeqCst);
    }
}
