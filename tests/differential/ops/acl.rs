//! Values of access control lists, as `setfacl` sets them.

use crate::house::acting::NOBODY;
use crate::house::content::Rng;

/// Attribute of the list that is checked.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// Attribute of the list that a folder hands down.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The id of an entry that names nobody.
const NONE: u32 = u32::MAX;

/// Entries of a list: whom, what they may, and who that is.
type Entries = &'static [(u16, u16, u32)];

/// Lists that mean different things, the last three of which are none.
pub(super) const LISTS: [Entries; 10] = [
    &[(OWNER, 6, NONE), (OWNING_GROUP, 4, NONE), (OTHERS, 4, NONE)],
    &[(OWNER, 7, NONE), (OWNING_GROUP, 5, NONE), (OTHERS, 1, NONE)],
    &[(OWNER, 6, NONE), (OWNING_GROUP, 4, NONE), (MASK, 6, NONE), (OTHERS, 0, NONE)],
    &[
        (OWNER, 7, NONE),
        (USER, 7, NOBODY),
        (OWNING_GROUP, 5, NONE),
        (MASK, 7, NONE),
        (OTHERS, 0, NONE),
    ],
    &[
        (OWNER, 6, NONE),
        (USER, 6, NOBODY),
        (OWNING_GROUP, 6, NONE),
        (MASK, 4, NONE),
        (OTHERS, 4, NONE),
    ],
    &[
        (OWNER, 7, NONE),
        (OWNING_GROUP, 0, NONE),
        (GROUP, 7, NOBODY),
        (MASK, 7, NONE),
        (OTHERS, 5, NONE),
    ],
    &[
        (OWNER, 7, NONE),
        (USER, 0, NOBODY),
        (USER, 5, 1000),
        (OWNING_GROUP, 7, NONE),
        (GROUP, 1, 1000),
        (MASK, 7, NONE),
        (OTHERS, 7, NONE),
    ],
    &[(OWNER, 7, NONE), (USER, 7, NOBODY), (OWNING_GROUP, 5, NONE), (OTHERS, 0, NONE)],
    &[(OWNER, 7, NONE), (OWNING_GROUP, 5, NONE)],
    &[(OWNER, 9, NONE), (OWNING_GROUP, 5, NONE), (OTHERS, 0, NONE)],
];

/// The number of a list, mostly of one that is valid.
pub(super) fn random(rng: &mut Rng) -> usize {
    let count = LISTS.len() as u64;
    let limit = if rng.one_in(4) { count } else { count - 3 };
    rng.below(limit) as usize
}

/// The value of an attribute.
pub(super) fn value(entries: Entries) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, allowed, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&allowed.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}
