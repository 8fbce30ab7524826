//! (temporary stub)
#![allow(missing_docs, unused_variables)]
use std::path::Path;
#[derive(Clone, Debug)]
pub struct MasterKey;
#[derive(Debug, thiserror::Error)]
#[error("key")]
pub struct KeyError;
impl MasterKey {
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Ok(Self)
    }
    pub fn generate(path: &Path, random: &dyn crate::env::Random) -> Result<Self, KeyError> {
        Ok(Self)
    }
    pub fn key_id(&self) -> String {
        String::new()
    }
}
