//! Text that must never be shown: passwords, authorization tokens, URLs that carry one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use crate::env::tasks::{Tasks, blocking};

/// A secret text: `Debug` and `Display` say nothing of it, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself; its caller must not print it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a header of HTTP can carry it: visible ASCII, spaces and tabs.
    pub(super) fn fits_a_header(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    }

    /// `text` without this secret, should somebody have repeated it.
    pub(super) fn redacted_from(&self, text: String) -> String {
        if self.0.is_empty() { text } else { text.replace(self.0.as_str(), "(redacted)") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// Where a password comes from, to be read again once the service refuses the one in use:
/// whoever changes it there need not start anything anew.
#[derive(Clone)]
pub struct PasswordSource {
    read: Arc<dyn Fn() -> Option<Secret> + Send + Sync>,
    every: Duration,
    place: String,
}

impl PasswordSource {
    /// A source that `read` reads, which may block and says `None` where it cannot; at most
    /// once `every` so long. `place` names it for a person.
    pub fn new(
        place: impl Into<String>,
        every: Duration,
        read: impl Fn() -> Option<Secret> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), every, place: place.into() }
    }

    /// Its name, for a person.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The shortest time between two looks.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// What it says now; `None` also if that takes longer than `limit`.
    pub(super) async fn look(&self, tasks: &dyn Tasks, limit: Duration) -> Option<Secret> {
        let read = Arc::clone(&self.read);
        let looking = blocking(tasks, move || read());
        tokio::time::timeout(limit, looking).await.ok()?.ok()?
    }
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordSource({})", self.place)
    }
}

/// A stream's URL: its `auth` parameter is a single-use credential (protocol B.7, B.8),
/// so only scheme, host and port are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SecretUrl(Url);

impl SecretUrl {
    pub(super) fn new(url: Url) -> Self {
        Self(url)
    }

    pub(super) fn expose(&self) -> &Url {
        &self.0
    }

    /// Whether a WebSocket carries it rather than HTTP.
    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.0.scheme(), "ws" | "wss")
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place(&self.0))
    }
}

/// Scheme, host and port of a URL: all of it that an error may name.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?} {secret}").contains("hunter2"));
        assert!(Secret::new("Basic a=\tb~").fits_a_header());
        for unfit in ["a\nb", "a\u{7f}", "\u{e9}"] {
            assert!(!Secret::new(unfit).fits_a_header(), "{unfit:?}");
        }
        let url = Url::parse("https://user:pw@up.example.com:8010/x?auth=hunter2").unwrap();
        let shown = format!("{0:?} {0}", SecretUrl::new(url));
        assert_eq!(shown, "https://up.example.com:8010 https://up.example.com:8010");
    }
}
