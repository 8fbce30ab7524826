//! (temporary stub)
#![allow(missing_docs)]
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);
impl From<Secret> for String {
    fn from(s: Secret) -> Self {
        s.0
    }
}
impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
use crate::env::Env;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub upstream_url: Option<Url>,
    pub downstream_url: Option<Url>,
    pub ca_file: Option<std::path::PathBuf>,
    pub connect_timeout: Duration,
}
impl ClientConfig {
    pub fn new(_: Url, _: Url, _: impl Into<String>, _: impl Into<Secret>) -> Self {
        unimplemented!()
    }
}
#[derive(Debug)]
pub struct Client;
#[derive(Debug)]
pub struct ChannelState {
    pub connected: bool,
}
#[allow(unused_variables)]
impl Client {
    pub async fn connect(config: ClientConfig, env: Env) -> StoreResult<Arc<Self>> {
        unimplemented!()
    }
    pub fn new_offline(config: ClientConfig, env: Env) -> Arc<Self> {
        unimplemented!()
    }
    pub async fn register(config: ClientConfig, env: Env) -> StoreResult<()> {
        unimplemented!()
    }
    pub fn health(&self) -> ChannelState {
        unimplemented!()
    }
    pub fn subscribe_foreign(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
    pub async fn close(&self) {}
}
pub struct Limit;
impl Limit {
    pub fn new(_: Arc<Client>, _: usize, _: usize) -> Self {
        Self
    }
}
pub struct Retry;
pub type RetryConfig = u8;
impl Retry {
    pub fn new(_: Arc<Limit>, _: RetryConfig, _: Env) -> Self {
        Self
    }
}
use crate::store::*;
#[async_trait::async_trait]
impl Store for Retry {
    async fn put(&self, _: &FileMeta, _: &str, _: Payload) -> StoreResult<Token> {
        unimplemented!()
    }
    async fn get(&self, _: &Token) -> StoreResult<Download> {
        unimplemented!()
    }
    async fn delete(&self, _: &Token) -> StoreResult<()> {
        unimplemented!()
    }
    async fn update_meta(&self, _: &Token, _: &FileMeta) -> StoreResult<()> {
        unimplemented!()
    }
    async fn set_risk(&self, _: &Token, _: &RiskMeta) -> StoreResult<()> {
        unimplemented!()
    }
    async fn list(&self, _: &ListFilter, _: u32) -> StoreResult<ListPage> {
        unimplemented!()
    }
}
