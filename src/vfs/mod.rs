//! One method per filesystem operation. (being written; `types` and `error` are final)

pub mod error;
pub mod types;

pub use error::{VfsError, VfsResult};
pub use types::*;
