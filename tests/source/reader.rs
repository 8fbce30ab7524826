//! Reads the sources of the crate as text: comments and literals are blanked first, so only
//! code counts.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file with its text, by path.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    found
}

/// The folder of the sources.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// `text` with comments and literals replaced by spaces; line breaks stay.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at..] {
            ['/', '/', ..] => line_end(&chars, at),
            ['/', '*', ..] => block_comment_end(&chars, at),
            ['r', '"' | '#', ..] if !follows_word(&chars, at) => raw_string_end(&chars, at),
            ['"', ..] => string_end(&chars, at),
            ['\'', ..] => char_end(&chars, at),
            _ => at,
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0
        && is_word(chars[at - 1])
        && !(chars[at - 1] == 'b' && (at < 2 || !is_word(chars[at - 2])))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

/// Block comments nest.
fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match chars[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// `r"…"`, `r#"…"#`; anything else that begins so (`r#type`) is code.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let mut i = at + 2 + hashes;
    while i < chars.len() {
        let closing = chars[i] == '"' && chars[i + 1..].iter().take(hashes).all(|c| *c == '#');
        if closing {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// `'x'` and `'\…'`; a lifetime is code.
fn char_end(chars: &[char], at: usize) -> usize {
    match chars[at + 1..] {
        ['\\', _, ..] => {
            let close = chars[at + 3..].iter().position(|c| *c == '\'');
            close.map_or(chars.len(), |n| at + 3 + n + 1)
        }
        [_, '\'', ..] => at + 3,
        _ => at,
    }
}

/// Words and the punctuation that paths are made of.
pub(crate) fn tokens(code: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if is_word(c) {
            let mut word = c.to_string();
            while let Some(next) = chars.next_if(|next| is_word(*next)) {
                word.push(next);
            }
            found.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            found.push("::".to_owned());
        } else if !c.is_whitespace() {
            found.push(c.to_string());
        }
    }
    found
}

/// What stands before the test module inside a file.
pub(crate) fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}
