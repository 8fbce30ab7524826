//! How the engine keeps what must not be readable: passwords salted and stretched,
//! authorization tokens only as digests, stream tokens derived and verified by HMAC.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

use crate::env::Env;

/// Iterations of PBKDF2-HMAC-SHA512 that OWASP's password storage page recommends.
pub(super) const PASSWORD_ITERATIONS: u32 = 210_000;
/// Fewest bits that a new password must be worth by [`entropy_bits`]. The documentation
/// has a rule but does not give the amount.
const PASSWORD_BITS: f64 = 40.0;

const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
const TOKEN_LEN: usize = 32;
/// Random part of a data token.
pub(super) const DATA_TOKEN_LEN: usize = 24;

/// A password as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PasswordHash {
    iterations: NonZeroU32,
    salt: [u8; SALT_LEN],
    hash: [u8; HASH_LEN],
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// Stretches `password`; takes about a tenth of a second at the default.
    pub(super) fn new(env: &Env, password: &str, iterations: NonZeroU32) -> Self {
        let mut salt = [0; SALT_LEN];
        env.random.fill(&mut salt);
        let mut hash = [0; HASH_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA512,
            iterations,
            &salt,
            password.as_bytes(),
            &mut hash,
        );
        Self { iterations, salt, hash }
    }

    /// Whether `password` is the one, in constant time.
    pub(super) fn verify(&self, password: &str) -> bool {
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
        pbkdf2::verify(algorithm, self.iterations, &self.salt, password.as_bytes(), &self.hash)
            .is_ok()
    }
}

/// Whether a new password is strong enough: its length times the bits of the character
/// classes it uses.
pub(super) fn is_strong(password: &str) -> bool {
    entropy_bits(password) >= PASSWORD_BITS
}

fn entropy_bits(password: &str) -> f64 {
    let class = |test: fn(&char) -> bool, size: u32| {
        if password.chars().any(|c| test(&c)) { size } else { 0 }
    };
    let alphabet = class(char::is_ascii_lowercase, 26)
        + class(char::is_ascii_uppercase, 26)
        + class(char::is_ascii_digit, 10)
        + class(|c| c.is_ascii() && !c.is_ascii_alphanumeric(), 33)
        + class(|c| !c.is_ascii(), 100);
    let length = u32::try_from(password.chars().count()).unwrap_or(u32::MAX);
    f64::from(length) * f64::from(alphabet.max(1)).log2()
}

/// A new opaque bearer token.
pub(super) fn bearer(env: &Env) -> String {
    let mut bytes = [0; TOKEN_LEN];
    env.random.fill(&mut bytes);
    format!("T-{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A new data token, with the prefix that tells the two kinds apart in samples.
pub(super) fn data_token(env: &Env, prefix: &str) -> String {
    let mut bytes = [0; DATA_TOKEN_LEN];
    env.random.fill(&mut bytes);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What is kept of a bearer token.
pub(super) fn digest(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// First half of the SHA-256 of a text: an index key of fixed length.
pub(super) fn short_digest(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&digest(text)[..16]);
    out
}

/// Makes and reads upload tokens: the temporary token's random part and an HMAC over it,
/// so nothing about them is stored.
#[derive(Debug)]
pub(super) struct StreamTokens(hmac::Key);

impl StreamTokens {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The upload token of a temporary token.
    pub(super) fn issue(&self, temporary: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(temporary.strip_prefix(TEMPORARY)?).ok()?;
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The temporary token that an upload token was issued for.
    pub(super) fn open(&self, auth: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(auth).ok()?;
        let (body, tag) = bytes.split_at_checked(DATA_TOKEN_LEN)?;
        hmac::verify(&self.0, body, tag).ok()?;
        Some(format!("{TEMPORARY}{}", URL_SAFE_NO_PAD.encode(body)))
    }
}

/// Derives the credentials of devices from the engine's secret, so nothing about them is
/// stored and they can be shown again.
#[derive(Debug)]
pub(super) struct DeviceSecrets(hmac::Key);

impl DeviceSecrets {
    pub(super) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, b"credentials of devices");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The secret of a device for one purpose: `client-secret` or `rabbit-pass`.
    pub(super) fn of(&self, purpose: &str, identifier: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &Self::message(purpose, identifier)))
    }

    /// Whether `given` is that secret, in constant time.
    pub(super) fn verify(&self, purpose: &str, identifier: &str, given: &str) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(given) else { return false };
        hmac::verify(&self.0, &Self::message(purpose, identifier), &tag).is_ok()
    }

    fn message(purpose: &str, identifier: &str) -> Vec<u8> {
        format!("{purpose}\n{identifier}").into_bytes()
    }
}

/// Prefix of temporary data tokens.
pub(super) const TEMPORARY: &str = "tmp-";
/// Prefix of permanent data tokens.
pub(super) const PERMANENT: &str = "dtk-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::doubles::seeded_env;

    #[test]
    fn passwords_verify_and_are_salted() {
        let env = seeded_env(1);
        let few = NonZeroU32::new(10).unwrap();
        let one = PasswordHash::new(&env, "correct horse", few);
        let two = PasswordHash::new(&env, "correct horse", few);
        assert!(one.verify("correct horse") && !one.verify("correct hors"));
        assert_ne!(one.hash, two.hash);
        assert!(is_strong("correct horse battery") && !is_strong("secret") && !is_strong(""));
    }

    #[test]
    fn device_secrets_are_of_one_device_and_one_purpose() {
        let secrets = DeviceSecrets::new(b"secret");
        let secret = secrets.of("client-secret", "one");
        assert!(secrets.verify("client-secret", "one", &secret));
        assert!(!secrets.verify("client-secret", "two", &secret));
        assert!(!secrets.verify("rabbit-pass", "one", &secret));
        assert!(!DeviceSecrets::new(b"other").verify("client-secret", "one", &secret));
        assert!(!secrets.verify("client-secret", "one", "") && !secret.contains("one"));
    }

    #[test]
    fn upload_tokens_open_only_under_their_secret() {
        let env = seeded_env(2);
        let tokens = StreamTokens::new(b"secret");
        let temporary = data_token(&env, TEMPORARY);
        let auth = tokens.issue(&temporary).unwrap();
        assert_eq!(tokens.open(&auth), Some(temporary));
        assert_eq!(StreamTokens::new(b"other").open(&auth), None);
        assert_eq!(tokens.open("AAAA"), None);
        assert_eq!(tokens.open(""), None);
    }
}
