//! Names are untrusted: anyone who may write to the vault may put anything into them.

use std::fmt::Write as _;

/// `text` with everything escaped that would move a cursor, change a colour, reverse
/// reading order or hide itself on a terminal.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_risky(c) {
            // writing to a String cannot fail
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same for JSON, whose meaning stays: outside of its strings nothing is risky.
pub(super) fn escaped_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_risky(c) {
            // every risky character is one UTF-16 unit
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_risky(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // marks, embeddings, overrides and isolates of the bidirectional algorithm
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // line and paragraph separators; zero width; byte order mark
            | '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        assert_eq!(escaped("Ünï cøde/文件 (1).txt"), "Ünï cøde/文件 (1).txt");
    }

    #[test]
    fn json_says_the_same_without_tricks() {
        let name = "a\u{9b}b\u{202e}c\u{7f}\n\u{feff}";
        let json = escaped_json(&serde_json::to_string(name).unwrap());
        assert!(json.chars().all(|c| c.is_ascii_graphic()), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }

    #[test]
    fn terminal_tricks_are_shown_instead_of_done() {
        assert_eq!(escaped("a\nb\u{1b}[31m"), "a\\u{a}b\\u{1b}[31m");
        assert_eq!(escaped("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(escaped("a\u{9b}b\u{200b}"), "a\\u{9b}b\\u{200b}");
    }
}
