//! stub
#![allow(missing_docs, unused_variables)]
use crate::env::Env;
use std::net::SocketAddr;
use std::time::Duration;
#[derive(Debug, thiserror::Error)]
#[error("engine")]
pub struct EngineError;
#[derive(Debug)]
pub struct EngineConfig {
    pub listen: SocketAddr,
    pub latency: Duration,
    pub test_controls: bool,
    pub allow_remote: bool,
}
impl EngineConfig {
    pub fn new(dir: impl Into<std::path::PathBuf>) -> Self {
        unimplemented!()
    }
}
#[derive(Debug)]
pub struct Engine;
impl Engine {
    pub async fn start(c: EngineConfig, env: Env) -> Result<Self, EngineError> {
        Err(EngineError)
    }
    pub fn api_url(&self) -> String {
        String::new()
    }
    pub fn ws_url(&self) -> String {
        String::new()
    }
    pub fn upstream_url(&self) -> String {
        String::new()
    }
    pub fn downstream_url(&self) -> String {
        String::new()
    }
    pub async fn shutdown(self) {}
}
