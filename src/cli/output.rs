//! The one place that prints.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::escape::escaped;

/// Standard output and error.
pub(super) struct Output {
    interactive: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { interactive: io::stderr().is_terminal() }
    }

    /// Whether standard error is a terminal, so that a bar can be drawn there.
    pub(super) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// A result: one line on standard output. Line breaks in it are escaped too.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", escaped(text))?;
        out.flush()
    }

    /// A result as one line of JSON on standard output.
    pub(super) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// A message on standard error. Nothing can be done if that is closed.
    pub(super) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", escaped(text));
    }

    /// An error on standard error, with its causes.
    pub(super) fn error(&self, error: &anyhow::Error) {
        self.note(&format!("privicorefs: {error:#}"));
    }
}
