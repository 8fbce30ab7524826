//! stub
#![allow(missing_docs)]
pub fn shows_names() -> bool {
    false
}
