//! Permission bits as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};

/// Permission bits in octal: `022`, `0640`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u16);

/// Why a text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode: write permission bits in octal, for example 022 or 0640")]
pub struct ModeError(String);

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u16::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o777 && !digits.starts_with('+') => Ok(Self(bits)),
            _ => Err(ModeError(text.to_owned())),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// In a file it is a string: TOML's `022` would be no number, and its `640` a decimal one.
impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Mode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("permission bits in octal, as a string, for example \"022\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_bounded() {
        assert_eq!("022".parse(), Ok(Mode(0o22)));
        assert_eq!("0640".parse(), Ok(Mode(0o640)));
        assert_eq!("0o755".parse(), Ok(Mode(0o755)));
        for wrong in ["", "8", "1777", "rwx", "-1", "+7"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
        assert_eq!(Mode(0o22).to_string(), "0022");
    }
}
