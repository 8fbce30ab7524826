//! Logging: one `tracing` subscriber on standard error, set up once by the command line.
//!
//! What may leak. The log of a mount in the background is a file in the state directory,
//! and nothing there may name the drive's files. So, unless the log goes to a terminal or
//! a stream that the user chose ([`LogTo::Stream`]):
//! * the fields `name`, `path` and `what` are dropped, whoever logs them;
//! * [`shows_names`] is false, and code that puts a name into a message asks it first.
//!
//! Secrets are kept out by type (`Debug` of every type that holds one redacts), not here.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{self, Writer};

static SHOWS_NAMES: AtomicBool = AtomicBool::new(false);

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error as the user sees it: may hold names.
    Stream,
    /// Standard error that is a file in the state directory: holds none.
    StateFile,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Broken things only.
    Error,
    /// And what the service or a limit refused.
    Warn,
    /// And what the mount does.
    #[default]
    Info,
    /// And every failed operation.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts logging to standard error; later calls change nothing but the names' rule.
/// Dependencies are held at `warn`: their chatter at lower levels names hosts and bytes.
pub fn init(level: LogLevel, to: LogTo) {
    SHOWS_NAMES.store(to == LogTo::Stream, Ordering::Relaxed);
    let filter = EnvFilter::new(format!("warn,privicorefs={}", level.as_str()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(to == LogTo::Stream && io::stderr().is_terminal())
        .with_target(level == LogLevel::Debug || level == LogLevel::Trace)
        .fmt_fields(format::debug_fn(field).delimited(" "))
        // It would say on standard error, which is the log, that the log cannot be written
        // (a full disk), panic because that fails, and once more in the panic's hook.
        .log_internal_errors(false)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
}

/// Whether log messages may hold names of the drive's files.
pub fn shows_names() -> bool {
    SHOWS_NAMES.load(Ordering::Relaxed)
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        "name" | "path" | "what" if !shows_names() => writer.write_str("…"),
        name => write!(writer, "{name}={value:?}"),
    }
}
