//! Progress: a bar on a terminal, a line now and then otherwise.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::escape::escaped;
use super::output::Output;
use crate::config::Size;
use crate::control::Progress;

/// Between two lines, where no bar can be drawn.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Between two pictures of a bar that moves by itself.
const TICK: Duration = Duration::from_millis(200);

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows how much of one payload has moved.
#[derive(Clone)]
pub(super) struct Meter {
    what: Arc<str>,
    /// Counts, also where it is not drawn.
    bar: ProgressBar,
    /// When a line is due, where the bar is not drawn and lines are wanted.
    next: Option<Arc<Mutex<Instant>>>,
}

impl Meter {
    /// For `what`, which is made of `whole` bytes where that is known. The first line comes
    /// only after a while.
    pub(super) fn new(output: &Output, what: &str, whole: Option<u64>) -> Self {
        let mut meter = Self::hidden();
        meter.what = what.into();
        if output.is_interactive() {
            meter.bar = bar("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
            meter.bar.set_message(escaped(what));
        } else {
            meter.next = Some(Arc::new(Mutex::new(Instant::now() + BETWEEN_LINES)));
        }
        meter.set_whole(whole.unwrap_or(0));
        meter
    }

    /// Shows nothing.
    pub(super) fn hidden() -> Self {
        Self { what: "".into(), bar: ProgressBar::hidden(), next: None }
    }

    pub(super) fn set_whole(&self, whole: u64) {
        self.bar.set_length(whole);
    }

    /// It begins anew.
    pub(super) fn restart(&self) {
        self.bar.set_position(0);
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
        if let Some(line) = self.due(Instant::now()) {
            Output::new().note(&line);
        }
    }

    /// The next line, if it is time.
    fn due(&self, now: Instant) -> Option<String> {
        let mut next = self.next.as_ref()?.lock();
        if now < *next {
            return None;
        }
        *next = now + BETWEEN_LINES;
        let (what, moved) = (&self.what, Size(self.bar.position()));
        Some(match self.bar.length().unwrap_or(0) {
            0 => format!("{what}: {moved}"),
            whole => format!("{what}: {moved} of {}", Size(whole)),
        })
    }
}

/// Awaits `work`, of which only the time that it takes can be shown.
pub(super) async fn waiting<T>(output: &Output, what: &str, work: impl Future<Output = T>) -> T {
    let bar = output.is_interactive().then(|| bar("{spinner} {msg} {elapsed}"));
    if let Some(bar) = &bar {
        bar.set_message(escaped(what));
        bar.enable_steady_tick(TICK);
    }
    let since = Instant::now();
    let mut work = pin!(work);
    let done = loop {
        match timeout(BETWEEN_LINES, &mut work).await {
            Ok(done) => break done,
            Err(_) if bar.is_some() => {}
            Err(_) => output.note(&format!("{what}: {} s so far", since.elapsed().as_secs())),
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

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
        let template = "{msg} {wide_bar} {bytes}/{total_bytes}";
        let bar = output.is_interactive().then(|| bar(template));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_says_now_and_then_how_far_it_is() {
        let begun = Instant::now();
        let meter = Meter {
            next: Some(Arc::new(Mutex::new(begun + BETWEEN_LINES))),
            what: "film".into(),
            ..Meter::hidden()
        };
        meter.bar.inc(1 << 20);
        assert_eq!(meter.due(begun), None);
        let later = begun + BETWEEN_LINES;
        assert_eq!(meter.due(later).as_deref(), Some("film: 1MiB"));
        assert_eq!(meter.due(later), None);
        meter.set_whole(4 << 20);
        meter.restart();
        meter.clone().bar.inc(2 << 20);
        assert_eq!(meter.due(later + BETWEEN_LINES).as_deref(), Some("film: 2MiB of 4MiB"));
    }
}
