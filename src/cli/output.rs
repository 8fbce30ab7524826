//! The one place that prints.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use super::escape::{escaped, escaped_json};

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

    /// Named values, one per line, aligned.
    pub(super) fn pairs(&self, pairs: &[(&str, String)]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        pairs.iter().try_for_each(|(name, value)| self.line(&format!("{name:width$}  {value}")))
    }

    /// Bytes on standard output, as they are: content that was asked for.
    pub(super) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// A question on standard error, without a line break.
    pub(super) fn ask(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{}", escaped(text)).and_then(|()| err.flush());
    }

    /// A result as one line of JSON on standard output.
    pub(super) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        let text = escaped_json(&serde_json::to_string(value)?);
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

/// A list that is printed while it comes: an aligned table with a head, or one JSON array.
pub(super) struct List<'a> {
    output: &'a Output,
    head: Option<&'static [&'static str]>,
    widths: Vec<usize>,
    json: bool,
    begun: bool,
}

impl<'a> List<'a> {
    /// A list with these columns; the last one is not padded.
    pub(super) fn new(output: &'a Output, columns: &'static [&'static str], json: bool) -> Self {
        let widths = columns.iter().map(|name| name.chars().count()).collect();
        Self { output, head: Some(columns), widths, json, begun: false }
    }

    /// Prints the next items, each as JSON or as a row of cells. Columns grow as needed.
    pub(super) fn add<T>(
        &mut self,
        items: &[T],
        value: impl Fn(&T) -> Value,
        row: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        if self.json {
            for item in items {
                let text = escaped_json(&value(item).to_string());
                let before: &[u8] = if self.begun { b",\n" } else { b"[" };
                self.begun = true;
                self.output.bytes(&[before, text.as_bytes()].concat())?;
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> =
            items.iter().map(|item| row(item).iter().map(|cell| escaped(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some(head) = self.head.take_if(|_| !rows.is_empty()) {
            let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
            self.output.line(&self.aligned(&head))?;
        }
        rows.iter().try_for_each(|row| self.output.line(&self.aligned(row)))
    }

    /// Ends the list; `nothing` is said of an empty one.
    pub(super) fn end(self, nothing: &str) -> io::Result<()> {
        match (self.json, self.begun) {
            (true, true) => self.output.bytes(b"]\n"),
            (true, false) => self.output.bytes(b"[]\n"),
            (false, _) if self.head.is_some() => {
                self.output.note(nothing);
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    fn aligned(&self, row: &[String]) -> String {
        let (last, others) = row.split_last().map_or(("", row), |(last, rest)| (last, rest));
        let padded = others.iter().zip(&self.widths);
        let mut line: String = padded.map(|(cell, width)| format!("{cell:width$}  ")).collect();
        line.push_str(last);
        line
    }
}
