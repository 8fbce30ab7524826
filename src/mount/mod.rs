//! Composition root.
mod config;
pub use config::{Backend, MountConfig, Service, Tuning};
