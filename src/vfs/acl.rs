//! POSIX access control lists.
//!
//! The kernel checks permissions (`default_permissions` with `FUSE_POSIX_ACL`); what is left
//! to a file system is here: the list and the permission bits say the same, and new files
//! and folders start with what their folder hands down. A list is kept as the attribute
//! value that `setfacl` sets: version 2, then (tag, permissions, id) in little-endian
//! (`include/uapi/linux/posix_acl_xattr.h`).
//!
//! Invariant: the permission bits of an inode are those of its list: owner and others as
//! they are, the group bits are the mask's, or the owning group's in a list without one. A
//! list of only owner, group and others is no list: the bits say it all.

/// Attribute of the list that is checked.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute of the list that a folder hands down.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

/// What a new inode starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// Its permission bits.
    pub(super) perm: u16,
    /// Its list, unless the bits say it all.
    pub(super) access: Option<Acl>,
}

impl Acl {
    /// Reads an attribute's value; `None` for what is no list.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_at_checked(HEADER)?;
        if version != VERSION.to_le_bytes() || !entries.len().is_multiple_of(ENTRY) {
            return None;
        }
        let entry = |e: &[u8]| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            perm: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        };
        let acl = Self(entries.chunks_exact(ENTRY).map(entry).collect());
        acl.is_valid().then_some(acl)
    }

    /// As `acl_valid(3)`: one each of owner, group and others, in order, and a mask if any
    /// user or group is named.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|e| e.tag == tag).count();
        let known = self.0.iter().all(|e| {
            matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && e.perm <= 7
        });
        let ordered = self.0.is_sorted_by_key(|e| e.tag);
        let named = count(USER) + count(GROUP) > 0;
        let masks = count(MASK);
        known
            && ordered
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && (masks == 1 || masks == 0 && !named)
    }

    /// The attribute's value.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.perm.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }

    /// Whether permission bits say all that it says.
    pub(super) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// `perm` with the nine bits that this list stands for.
    pub(super) fn perm(&self, perm: u16) -> u16 {
        let of = |tag| self.0.iter().find(|e| e.tag == tag).map(|e| e.perm);
        let group = of(MASK).or(of(GROUP_OBJ)).unwrap_or(0);
        let bits = of(USER_OBJ).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0);
        perm & !0o777 | bits
    }

    /// Follows a `chmod`.
    pub(super) fn chmod(&mut self, perm: u16) {
        let group = self.group_class();
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => entry.perm = perm >> 6 & 7,
                OTHER => entry.perm = perm & 7,
                tag if tag == group => entry.perm = perm >> 3 & 7,
                _ => {}
            }
        }
    }

    /// The entry that the group bits stand for.
    fn group_class(&self) -> u16 {
        if self.0.iter().any(|e| e.tag == MASK) { MASK } else { GROUP_OBJ }
    }

    /// What an inode made with `perm` starts with below a folder with this default list: no
    /// more than both allow. The umask does not count then.
    pub(super) fn hand_down(&self, perm: u16) -> Inherited {
        let mut acl = self.clone();
        let group = acl.group_class();
        for entry in &mut acl.0 {
            match entry.tag {
                USER_OBJ => entry.perm &= perm >> 6 & 7,
                OTHER => entry.perm &= perm & 7,
                tag if tag == group => entry.perm &= perm >> 3 & 7,
                _ => {}
            }
        }
        let perm = acl.perm(perm);
        Inherited { perm, access: (!acl.is_minimal()).then_some(acl) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect())
    }

    fn named() -> Acl {
        acl(&[
            (USER_OBJ, 7, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, u32::MAX),
            (MASK, 6, u32::MAX),
            (OTHER, 4, u32::MAX),
        ])
    }

    #[test]
    fn a_value_survives_and_nonsense_is_refused() {
        let value = named().to_bytes();
        assert_eq!(Acl::parse(&value), Some(named()));
        assert_eq!(Acl::parse(&value[..value.len() - 1]), None);
        assert_eq!(Acl::parse(&[]), None);
        assert_eq!(Acl::parse(&[9, 0, 0, 0]), None);
        let unmasked = acl(&[(USER_OBJ, 7, 0), (USER, 6, 1), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
        assert_eq!(Acl::parse(&unmasked.to_bytes()), None, "a named user needs a mask");
        let twice = acl(&[(USER_OBJ, 7, 0), (USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
        assert_eq!(Acl::parse(&twice.to_bytes()), None);
    }

    #[test]
    fn the_mask_is_what_the_group_bits_show() {
        assert_eq!(named().perm(0o4000), 0o4764);
        let minimal = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]);
        assert!(minimal.is_minimal() && !named().is_minimal());
        assert_eq!(minimal.perm(0), 0o640);
    }

    #[test]
    fn a_chmod_moves_the_mask_and_not_the_group() {
        let mut changed = named();
        changed.chmod(0o710);
        assert_eq!(changed.perm(0), 0o710);
        assert_eq!(changed.0[2].perm, 5, "the owning group's own permissions stay");
        assert_eq!(changed.0[3].perm, 1);
    }

    #[test]
    fn what_is_handed_down_is_no_more_than_was_asked_for() {
        let inherited = named().hand_down(0o640);
        assert_eq!(inherited.perm, 0o640);
        assert_eq!(inherited.access.unwrap().0[1].perm, 6, "named entries stay: the mask rules");
        let minimal = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(minimal.hand_down(0o666), Inherited { perm: 0o640, access: None });
    }
}
