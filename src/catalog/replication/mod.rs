//! The catalog between this machine and the vault.

pub mod paths;
pub mod remote;

pub use paths::Paths;
pub use remote::{Followed, Published, Remote, RemoteError};
