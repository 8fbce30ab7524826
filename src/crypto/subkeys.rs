//! Subkeys of the second format: one input, one salt, an info each (docs/format.md, 3).

use ring::hkdf;
use zeroize::Zeroizing;

use super::MasterKey;
use super::key::expand;

/// Salt of all subkeys of the second format.
const SALT: &[u8] = b"privicorefs 2";

pub(super) fn root(master: &MasterKey) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(master.bytes())
}

/// What tells a key from others; derived one-way, not secret.
pub(super) fn key_id(root: &hkdf::Prk) -> [u8; 8] {
    *subkey::<8>(root, &[b"key id"])
}

pub(super) fn subkey<const N: usize>(root: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    expand(root, info, &mut out[..]);
    out
}
