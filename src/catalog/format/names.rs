//! Names: which there can be, what a conflict makes of one, and numbers that every machine
//! derives alike (docs/format.md, 5, 6.7 and 8.5).

use std::time::{Duration, UNIX_EPOCH};

use ring::digest::{SHA256, digest};

use super::values::{FIRST_NUMBER, MACHINE_MAX, VersionId};
pub use super::values::{NAME_MAX, is_name};
use crate::crypto::Identity;
use crate::protocol::time::format_rfc3339;
use crate::store::Token;

/// Longest extension that a conflict name keeps, with its dot, in bytes.
const EXTENSION_MAX: usize = 64;

/// Bytes left for the number of a conflict name that is taken: ` 9999`.
const NUMBER_ROOM: usize = 5;

/// The last minute of the year 9999, in milliseconds since 1970.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// A name that was lost to another, as it is shown: the `number`th of its kind, from 1.
///
/// `STEM (conflict MACHINE YYYY-MM-DD HHMM).EXT`, then with ` 2` behind the parenthesis, ` 3` …;
/// all of one kind have one stem, whatever their number.
pub fn conflict_name(name: &[u8], machine: &str, millis: u64, number: usize) -> Vec<u8> {
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
    let dot = dot.filter(|&at| name.len() - at <= EXTENSION_MAX).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let (machine, minute) = (shown_machine(machine), minute(millis));
    let mark = [b" (conflict ", &machine[..], minute.as_bytes(), b")"].concat();
    let room = NAME_MAX.saturating_sub(mark.len() + extension.len() + NUMBER_ROOM);
    let mut out = cut(stem, room).to_vec();
    out.extend_from_slice(&mark);
    if number > 1 {
        out.extend_from_slice(format!(" {number}").as_bytes());
    }
    out.extend_from_slice(extension);
    out
}

/// A machine's name as a conflict name has it.
fn shown_machine(machine: &str) -> Vec<u8> {
    let mut shown = cut(machine.as_bytes(), MACHINE_MAX).to_vec();
    for byte in &mut shown {
        if matches!(byte, 0..0x20 | 0x7f | b'/' | b'(' | b')') {
            *byte = b'_';
        }
    }
    if shown.is_empty() { b"another machine".to_vec() } else { shown }
}

/// ` 2026-11-27 1405`, in UTC.
fn minute(millis: u64) -> String {
    let millis = if millis > LAST_MILLIS { 0 } else { millis };
    let text = format_rfc3339(UNIX_EPOCH + Duration::from_millis(millis));
    format!(" {} {}{}", &text[..10], &text[11..13], &text[14..16])
}

/// At most `room` bytes of a name; one that is UTF-8 is cut between two characters.
pub fn cut(name: &[u8], room: usize) -> &[u8] {
    if name.len() <= room {
        return name;
    }
    match std::str::from_utf8(name) {
        Ok(text) => &name[..text.floor_char_boundary(room)],
        Err(_) => &name[..room],
    }
}

/// The conflict names without a number that a shown name may be one of: itself, and, for each
/// parenthesis that a number follows, the rest.
pub fn unnumbered(shown: &[u8]) -> Vec<Vec<u8>> {
    let mut bases = vec![shown.to_vec()];
    for (close, _) in shown.iter().enumerate().filter(|(_, byte)| **byte == b')') {
        let Some(digits) = shown[close + 1..].strip_prefix(b" ") else { continue };
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        if end > 0 {
            bases.push([&shown[..=close], &digits[end..]].concat());
        }
    }
    bases
}

/// The version that a payload of another client is, on every machine (docs/format.md, 6.8).
pub fn version_of_others(token: &Token, identity: &Identity) -> VersionId {
    let token = token.as_str().as_bytes();
    let bytes = [&b"other\0"[..], token, b"\0", &identity.iv, &identity.tag];
    let hash = digest(&SHA256, &bytes.concat());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_ref()[..16]);
    VersionId(id)
}

/// The number that `what` and `bytes` stand for, on every machine: at first, or where that is
/// `taken`, the next.
pub fn derive(what: &str, bytes: &[u8], taken: impl Fn(u64) -> bool) -> u64 {
    let mut hash = digest(&SHA256, &[what.as_bytes(), &[0], bytes].concat());
    loop {
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        let number = u64::from_be_bytes(first) & (u64::MAX >> 1);
        if number >= FIRST_NUMBER && !taken(number) {
            return number;
        }
        hash = digest(&SHA256, hash.as_ref());
    }
}
