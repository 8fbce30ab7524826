//! The catalog between this machine and the vault: segments out and in, checkpoints, doubt
//! (docs/format.md, 4).

mod calendar;
mod checkpoint;
mod doubt;
mod follow;
mod founding;
mod heal;
pub mod paths;
mod position;
mod publish;
pub mod remote;
mod segments;
mod state;

#[cfg(test)]
mod tests;

pub use paths::Paths;
pub use remote::{Followed, Published, Remote, RemoteError};
