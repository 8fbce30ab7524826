//! The master key and its file.
//!
//! The file holds 64 hexadecimal digits (a newline may follow), the form that
//! Privicore's own guide suggests, or 32 raw bytes. It must be closed to group and
//! others: a key that others can read protects nothing, so it is refused, not warned
//! about. Errors name the file and never quote what is in it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::hkdf;
use zeroize::Zeroizing;

use crate::env::Random;

/// Bytes of the key.
const LEN: usize = 32;
/// Hexadecimal digits and the longest line ending; one more byte shows an overlong file.
const READ_LIMIT: u64 = 2 * LEN as u64 + 2 + 1;

/// Why a key file could not be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading, writing or syncing failed.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Group or others may read or write it.
    #[error(
        "key file {} has mode {mode:04o}, open to others: run `chmod 600` on it",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Neither of the two forms.
    #[error(
        "key file {}: a key is 64 hexadecimal digits or 32 raw bytes",
        path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// `generate` never overwrites.
    #[error("key file {} exists already; a key is never overwritten", path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
}

/// Fills `out` with the subkey of `root` that `info` names.
#[allow(clippy::expect_used, reason = "HKDF fails only for more than 8160 bytes")]
pub(super) fn expand(root: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    root.expand(info, Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("an HKDF output of ordinary length");
}

/// The vault's 256-bit key. Wiped when dropped; `Debug` shows nothing of it.
pub struct MasterKey(Zeroizing<[u8; LEN]>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(redacted)")
    }
}

impl MasterKey {
    /// Takes the key's bytes.
    pub fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key file (see the module's header for its forms).
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        // Room for everything that is read: a growing buffer would leave copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(READ_LIMIT as usize + 1));
        file.take(READ_LIMIT).read_to_end(&mut content).map_err(io)?;
        Self::parse(&content).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    /// Makes a new key and its file: mode 0600, never over an existing one, and on disk
    /// (file and folder entry) when this returns.
    pub fn generate(path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
                |source| match source.kind() {
                    io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
                    _ => io(source),
                },
            )?;
        let mut key = Self(Zeroizing::new([0; LEN]));
        random.fill(&mut key.0[..]);
        let written = file
            .write_all(&key.to_line())
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_parent(path));
        if let Err(source) = written {
            // A key that may not be whole must not be found by a later run.
            let _ = std::fs::remove_file(path);
            return Err(io(source));
        }
        Ok(key)
    }

    /// Eight hexadecimal digits that tell keys apart; derived one-way, safe to show.
    pub fn key_id(&self) -> String {
        let mut id = [0; 4];
        self.derive("key id", &mut id);
        HEXLOWER.encode(&id)
    }

    /// Fills `out` with the HKDF-SHA256 subkey called `label`.
    pub(super) fn derive(&self, label: &str, out: &mut [u8]) {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"privicorefs v1");
        expand(&salt.extract(&self.0[..]), &[label.as_bytes()], out);
    }

    /// The key itself, for the payload cipher only.
    pub(super) fn bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut key = Self(Zeroizing::new([0; LEN]));
        if content.len() == LEN {
            key.0.copy_from_slice(content);
            return Some(key);
        }
        let digits = content.strip_suffix(b"\n").unwrap_or(content);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        if digits.len() != 2 * LEN {
            return None;
        }
        for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(key)
    }

    fn to_line(&self) -> Zeroizing<Vec<u8>> {
        let mut line = Zeroizing::new(Vec::with_capacity(2 * LEN + 1));
        for byte in self.0.iter() {
            line.extend([byte >> 4, byte & 15].map(|n| b"0123456789abcdef"[usize::from(n)]));
        }
        line.push(b'\n');
        line
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// Makes a new folder entry durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::env::doubles::SeededRandom;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_generated_key_is_private_hexadecimal_and_loads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = MasterKey::generate(&path, &SeededRandom::new(1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 65);
        assert!(text.ends_with('\n') && text[..64].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(MasterKey::load(&path).unwrap().bytes(), made.bytes());
        let again = MasterKey::generate(&path, &SeededRandom::new(2)).unwrap_err();
        assert!(matches!(again, KeyError::Exists { .. }), "{again}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn every_documented_form_is_read() {
        let hex = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
        for ending in ["", "\n", "\r\n"] {
            let (_dir, path) = file(format!("{hex}{ending}").as_bytes(), 0o600);
            let key = MasterKey::load(&path).unwrap();
            assert_eq!(key.bytes()[..4], [0x00, 0x11, 0x22, 0x33]);
            assert_eq!(key.bytes()[31], 0);
        }
        let (_dir, path) = file(&[7; 32], 0o400);
        assert_eq!(MasterKey::load(&path).unwrap().bytes(), &[7; 32]);
    }

    #[test]
    fn anything_else_is_refused_without_quoting_it() {
        let cases: [&[u8]; 6] =
            [b"", &[b'a'; 63], &[b'a'; 65], &[b'g'; 64], &[1; 33], b"secretsecret\n"];
        for content in cases {
            let (_dir, path) = file(content, 0o600);
            let error = MasterKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
        let missing = MasterKey::load(Path::new("no/such/key")).unwrap_err();
        assert!(matches!(missing, KeyError::Io { .. }));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o660, 0o601] {
            let (_dir, path) = file(&[b'a'; 64], mode);
            let error = MasterKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { .. }));
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn key_id_is_stable_distinct_and_not_the_key() {
        let a = MasterKey::from_bytes([0xab; 32]);
        assert_eq!(a.key_id(), MasterKey::from_bytes([0xab; 32]).key_id());
        assert_eq!(a.key_id().len(), 8);
        assert_ne!(a.key_id(), "abababab");
        assert_ne!(a.key_id(), MasterKey::from_bytes([0xac; 32]).key_id());
        assert_eq!(format!("{a:?}"), "MasterKey(redacted)");
    }
}
