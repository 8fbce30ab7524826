//! Progress of a drain: a bar on a terminal, a line now and then otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::output::Output;
use crate::config::Size;
use crate::control::Progress;

/// Between two lines, where no bar can be drawn.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Shows how much is left.
pub(super) struct Drain<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    /// The most bytes that were ever left: the bar's whole length.
    most: u64,
    last: Option<(Instant, Progress)>,
    latest: Progress,
}

impl<'a> Drain<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let bar = output.is_interactive().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { output, bar, most: 0, last: None, latest: Progress::default() }
    }

    /// What was last seen.
    pub(super) fn latest(&self) -> Progress {
        self.latest
    }

    pub(super) fn show(&mut self, now: Progress) {
        self.latest = now;
        self.most = self.most.max(now.bytes_left);
        if let Some(bar) = &self.bar {
            bar.set_length(self.most);
            bar.set_position(self.most - now.bytes_left);
            bar.set_message(format!("{} files left", now.files_left + now.records_left.min(1)));
            return;
        }
        let due =
            self.last.is_none_or(|(at, before)| at.elapsed() >= BETWEEN_LINES && before != now);
        if due && !now.is_done() {
            self.last = Some((Instant::now(), now));
            self.output.note(&left(now));
        }
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is left, as a sentence.
pub(super) fn left(progress: Progress) -> String {
    let Progress { files_left, bytes_left, records_left } = progress;
    let bytes = Size(bytes_left);
    format!("{files_left} files ({bytes}) and {records_left} catalog records to go")
}
