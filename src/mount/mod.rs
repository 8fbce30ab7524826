//! The composition root: configuration to a served mount, and back to nothing.
//!
//! ```text
//! config    what a mount needs to know              error      why there is none
//! local     state lock, log                         embedded   the embedded vault's folder
//! backend   engine, client, store decorators        serve      start, wait, drain, stop
//! control   what the control socket asks            daemon     the process in the background
//! allocator what glibc is told about memory        directories  the client's calls about them
//! ```
//!
//! Life of a mount: `Starting -> Serving -> Draining -> Closed`.
//!
//! * Starting: state lock, vault, operations layer, kernel mount, control socket, in that
//!   order; what fails undoes what came before it, so nothing is left behind.
//! * Draining begins with a signal, an unmount by anyone, or a request on the control
//!   socket; only the latter can go back to Serving. What does not reach the vault in
//!   time stays in the state directory, and is counted and said.
//! * However it ends, the order is: kernel mount, operations layer, client, engine.

mod allocator;
mod backend;
mod config;
mod control;
mod daemon;
mod directories;
mod embedded;
mod error;
mod local;
mod pending;
mod serve;

pub use backend::EmbeddedVault;
pub use config::{Backend, MountConfig, Service, Tuning};
pub use daemon::{Announcement, announce_failure, announce_ready, become_daemon, spawn};
pub use error::{Ended, MountError};
pub use serve::serve;
