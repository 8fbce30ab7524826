//! Under which contexts and names the catalog's payloads are stored (docs/format.md, 1). They
//! are hints: what a payload is, it says itself.

use data_encoding::HEXLOWER;

use crate::catalog::format::KeyId;

/// First component of every hidden context.
pub const HIDDEN: &str = ".privicorefs";

/// Where a key's payloads are.
#[derive(Clone, Debug)]
pub struct Paths {
    root: String,
}

impl Paths {
    /// Those of the key with this id.
    pub fn new(key: &KeyId) -> Self {
        Self { root: format!("{HIDDEN}/2/{}", HEXLOWER.encode(key)) }
    }

    /// Context of segments.
    pub fn log(&self) -> String {
        format!("{}/log", self.root)
    }

    /// Context of checkpoints.
    pub fn checkpoints(&self) -> String {
        format!("{}/checkpoint", self.root)
    }

    /// Context of parts of large files.
    pub fn parts(&self) -> String {
        format!("{}/parts", self.root)
    }

    /// Whether a context is one of this key's.
    pub fn is_own(&self, context: &str) -> bool {
        context.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether a context is hidden from the tree, whoever's key it belongs to.
    pub fn is_hidden(context: &str) -> bool {
        context == HIDDEN || context.strip_prefix(HIDDEN).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether a context is of the first format: `.privicorefs/` and eight hex digits.
    pub fn is_of_format_1(context: &str) -> bool {
        let rest = context.strip_prefix(HIDDEN).and_then(|rest| rest.strip_prefix('/'));
        let first = rest.map(|rest| rest.split('/').next().unwrap_or(rest));
        first.is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// File name of a segment.
    pub fn segment_name(writer: u64, sequence: u64) -> String {
        format!("{writer:016x}-{sequence:016x}")
    }

    /// Writer and number, as a segment's file name has them.
    pub fn parse_segment(name: &str) -> Option<(u64, u64)> {
        let (writer, sequence) = name.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
        Some((hex(writer)?, hex(sequence)?))
    }

    /// File name of a checkpoint's manifest.
    pub fn manifest_name(writer: u64, sequence: u64) -> String {
        format!("{}.manifest", Self::segment_name(writer, sequence))
    }

    /// File name of a checkpoint's page.
    pub fn page_name(writer: u64, sequence: u64, number: u32) -> String {
        format!("{}.{number:08x}.page", Self::segment_name(writer, sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_contexts_are_whole_components() {
        assert!(Paths::is_hidden(".privicorefs/ab/log") && Paths::is_hidden(".privicorefs"));
        assert!(!Paths::is_hidden(".privicorefsx") && !Paths::is_hidden("a/.privicorefs"));
        assert!(Paths::is_of_format_1(".privicorefs/0a1b2c3d/log"));
        let paths = Paths::new(&[1; 8]);
        assert!(!Paths::is_of_format_1(&paths.log()) && paths.is_own(&paths.parts()));
        let name = Paths::segment_name(7, 9);
        assert_eq!(Paths::parse_segment(&name), Some((7, 9)));
    }
}
