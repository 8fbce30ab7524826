//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// A number of bytes: `4096`, `64KiB`, `1.5GiB`, `10GB`. A bare number is bytes; `K`,
/// `KiB` and the like are powers of 1024, `KB` and the like powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a number and a unit, for example 64MiB, 10GB or 4096")]
pub struct SizeError(String);

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let factor = factor(unit.trim()).ok_or_else(wrong)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(wrong);
        }
        let exact: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = exact * factor as f64;
        // past 2^53 a fraction is no longer exact, and nobody means one
        if bytes < (1_u64 << 53) as f64 { Ok(Self(bytes as u64)) } else { Err(wrong()) }
    }
}

fn factor(unit: &str) -> Option<u64> {
    const POWERS: &str = "kmgtp";
    let unit = unit.to_ascii_lowercase();
    let mut letters = unit.chars();
    let Some(first) = letters.next() else { return Some(1) };
    if unit == "b" {
        return Some(1);
    }
    let power = u32::try_from(POWERS.find(first)? + 1).ok()?;
    match letters.as_str() {
        "" | "ib" => 1024_u64.checked_pow(power),
        "b" => 1000_u64.checked_pow(power),
        _ => None,
    }
}

impl fmt::Display for Size {
    /// The largest binary unit, with one decimal unless it is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut unit = "B";
        let mut scale = 1_u64;
        for name in UNITS {
            if self.0 / scale < 1024 {
                break;
            }
            scale *= 1024;
            unit = name;
        }
        if self.0.is_multiple_of(scale) {
            write!(f, "{}{unit}", self.0 / scale)
        } else {
            write!(f, "{:.1}{unit}", self.0 as f64 / scale as f64)
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBytes;
        impl Visitor<'_> for TextOrBytes {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
        }
        deserializer.deserialize_any(TextOrBytes)
    }
}

/// Above which size a file is split: a size, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitAbove(pub Option<u64>);

impl FromStr for SplitAbove {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse::<Size>().map(|size| Self(Some(size.0)))
    }
}

impl<'de> Deserialize<'de> for SplitAbove {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<u64> {
        text.parse::<Size>().ok().map(|size| size.0)
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("64M"), Some(64 << 20));
        assert_eq!(size("1 kb"), Some(1000));
        assert_eq!(size("1.5GiB"), Some(3 << 29));
        assert_eq!(size("0"), Some(0));
        assert_eq!(size("12B"), Some(12));
        assert_eq!(size("2TiB"), Some(2 << 40));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "MiB", "-1", "1x", "1KiBi", "1.2.3", "99999999999999999999", "1e3", "16EiB"]
        {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size("999999PiB"), None, "more than 64 bits");
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        assert_eq!(Size(0).to_string(), "0B");
        assert_eq!(Size(1023).to_string(), "1023B");
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        assert_eq!(Size(1536).to_string(), "1.5KiB");
        assert_eq!(Size(u64::MAX).to_string(), "16384.0PiB");
    }

    #[test]
    fn splitting_can_be_forbidden() {
        assert_eq!("never".parse(), Ok(SplitAbove(None)));
        assert_eq!("1MiB".parse(), Ok(SplitAbove(Some(1 << 20))));
        assert!("always".parse::<SplitAbove>().is_err());
    }
}
