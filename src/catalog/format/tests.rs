//! What is written is read, and what was not written costs nothing but itself.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::cbor::Item;
use super::names::{conflict_name, derive, is_name, unnumbered};
use super::part_list::{NotParts, PartList};
use super::payload::{HEADER_LEN, is_mark, new_mark, open, seal};
use super::record::{Moment, Name, ObjectKind, Place, PlaceBase, Removal, Stamp, Version, Wrapped};
use super::segment::{Brought, Covered, Step};
use super::*;
use crate::crypto::{CatalogKeys, MasterKey};
use crate::env::doubles::SeededRandom;
use crate::store::Token;

fn keys() -> CatalogKeys {
    CatalogKeys::new(&MasterKey::from_bytes([3; 32]))
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (0..1u64 << 62, any::<u64>()).prop_map(|(hlc, writer)| Stamp { hlc, writer })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(256), 256..1u64 << 63]
}

fn id() -> impl Strategy<Value = VersionId> {
    any::<[u8; 16]>().prop_map(VersionId)
}

fn ids() -> impl Strategy<Value = Vec<VersionId>> {
    prop::collection::btree_set(id(), 0..4).prop_map(|ids| ids.into_iter().collect())
}

fn token() -> impl Strategy<Value = Token> {
    "[a-z0-9-]{1,20}".prop_map(Token::new)
}

fn identity() -> impl Strategy<Value = Identity> {
    (0..1u64 << 63, any::<[u8; 12]>(), any::<[u8; 16]>(), any::<[u8; 8]>())
        .prop_map(|(len, iv, tag, key)| Identity { len, iv, tag, key })
}

fn reference() -> impl Strategy<Value = Reference> {
    (token(), identity()).prop_map(|(token, identity)| Reference { token, identity })
}

fn moment() -> impl Strategy<Value = Moment> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Moment { secs, nanos })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..20).prop_filter("a name", |name| is_name(name))
}

fn wrapped() -> impl Strategy<Value = Wrapped> {
    (vec(any::<u8>(), 0..70), any::<[u8; 8]>()).prop_map(|(sealed, by)| Wrapped { sealed, by })
}

fn place() -> impl Strategy<Value = Place> {
    let base = prop_oneof![
        Just(None),
        reference().prop_map(|whole| Some(PlaceBase::Whole(whole))),
        reference().prop_map(|parts| Some(PlaceBase::Parts(parts))),
    ];
    let changes = vec((reference(), any::<[u8; 16]>()), 0..3);
    (id(), base, changes, 0..1u64 << 40).prop_map(|(version, base, changes, size)| {
        let base_size = (!changes.is_empty()).then_some(size);
        Place { version, base, changes, base_size }
    })
}

fn version() -> impl Strategy<Value = Version> {
    let gaps = vec((1..9u64, 1..9u64), 0..4);
    (id(), ids(), gaps, "[a-z]{0,9}", any::<u32>(), prop::option::of(id())).prop_map(
        |(id, covers, gaps, machine, millis, source)| {
            let (mut size, mut holes) = (0, Vec::new());
            for (data, hole) in gaps {
                holes.push((size + data, hole));
                size += data + hole;
            }
            Version { id, covers, size, holes, machine, millis: millis.into(), source }
        },
    )
}

/// A body, and what it is about.
fn about() -> impl Strategy<Value = (Subject, Body)> {
    let of_vault = prop_oneof![
        any::<[u8; 16]>().prop_map(|identity| Body::Vault { identity, made_by: "me".into() }),
        (0..36_501u64).prop_map(|days| Body::Setting {
            name: "trash-days".into(),
            value: Item::Unsigned(days)
        }),
        (0..99u64).prop_map(|count| Body::Day { count, server_millis: 5, own_millis: 6 }),
        Just(Body::Writer { machine: "den".into(), program: "1".into() }),
        Just(Body::WriterEnd),
        (vec(identity(), 0..3), vec(token(), 0..3)).prop_map(|(identities, tokens)| {
            Body::GivenUp { identities, tokens, reason: None }
        }),
        (any::<[u8; 8]>(), prop::option::of(wrapped()), any::<bool>())
            .prop_map(|(id, wrapped, ended)| Body::Key { id, wrapped, ended }),
        wrapped().prop_map(|wrapped| Body::NamesKey { wrapped }),
        vec((token(), any::<[u8; 8]>()), 0..3).prop_map(|tokens| Body::NeverNamed { tokens }),
        prop::option::of(ids()).prop_map(|versions| Body::Emptied { versions }),
        any::<bool>().prop_map(|lives| Body::Snapshot { name: "before".into(), lives }),
    ]
    .prop_map(|body| (Subject::Vault, body));
    let of_both = prop_oneof![
        (0..0o10000u16, any::<u32>(), moment()).prop_map(|(mode, owner, changed)| {
            Body::Attributes { mode, owner, group: 0, changed }
        }),
        (moment(), moment())
            .prop_map(|(access, modification)| Body::Times { access, modification }),
        (vec(1..255u8, 1..9), prop::option::of(vec(any::<u8>(), 0..9)))
            .prop_map(|(name, value)| Body::Xattr { name, value }),
        (number(), number(), name(), stamp()).prop_map(|(link, folder, name, rank)| {
            Body::Name(Name { link, folder, name, rank, machine: "m".into(), millis: 1 })
        }),
        number().prop_map(|link| {
            let (machine, millis) = ("m".into(), 1);
            Body::Removal(Removal { link, last: true, takes: Vec::new(), machine, millis })
        }),
    ];
    let of_file = prop_oneof![
        moment().prop_map(|birth| Body::Object {
            kind: ObjectKind::File,
            birth,
            device: 0,
            target: Vec::new()
        }),
        version().prop_map(Body::Version),
        (prop::option::of(id()), ids())
            .prop_map(|(version, covers)| Body::Covered { version, covers }),
        place().prop_map(Body::Place),
        place().prop_map(Body::Accepted),
        (id(), number()).prop_map(|(version, file)| Body::Split { version, file }),
        (token(), prop::option::of(reference()))
            .prop_map(|(token, reference)| Body::Others { token, reference }),
    ];
    prop_oneof![
        of_vault,
        (number(), of_both).prop_map(|(number, body)| (Subject::File(number), body)),
        (number(), of_file).prop_map(|(number, body)| (Subject::File(number), body)),
        (number(), 32..99u64)
            .prop_map(|(number, kind)| (Subject::Folder(number), Body::Unknown { kind })),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let more = prop::collection::btree_map(40..60u64, vec(any::<u8>(), 0..5), 0..3);
    (about(), stamp(), more).prop_map(|((subject, body), stamp, more)| {
        let more = more.into_iter().map(|(key, bytes)| (key, Item::Bytes(bytes))).collect();
        Record { subject, stamp, body, more }
    })
}

fn segment() -> impl Strategy<Value = Segment> {
    let end = (1..u64::MAX, 0..99u64, reference());
    let end = end.prop_map(|(writer, sequence, reference)| End { writer, sequence, reference });
    let records = vec(record().prop_map(|record| record.encode()), 0..4);
    (prop::option::of(reference()), 0..99u64, vec(end, 0..3), records).prop_map(
        |(predecessor, day, ends, records)| {
            let manifests = predecessor.iter().cloned().collect();
            Segment { predecessor, day, ends, records, millis: 9, manifests }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    (0..99u64, vec((1..u64::MAX, 1..99u64, identity()), 0..3))
        .prop_map(|(day, ends)| Step { day, ends })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let covered = (1..u64::MAX, 1..99u64, identity(), any::<bool>());
    let covered = covered.prop_map(|(writer, sequence, identity, closed)| Covered {
        writer,
        sequence,
        identity,
        day: 3,
        closed,
    });
    let lists = (vec(covered, 0..3), vec(reference(), 0..3), vec(reference(), 0..3));
    (lists, step(), vec(step(), 0..3), vec(identity(), 0..2)).prop_map(
        |((covers, replaces, pages), horizon, steps, missing)| Manifest {
            vault: [7; 16],
            day: 4,
            covers,
            replaces,
            pages,
            horizon,
            steps,
            weight: 100,
            missing,
            names: 5,
        },
    )
}

fn page() -> impl Strategy<Value = Page> {
    let brought = (1..u64::MAX, 1..99u64, record());
    let brought = brought.prop_map(|(writer, sequence, record)| Brought {
        writer,
        sequence,
        day: 8,
        record: record.encode(),
    });
    vec(brought, 0..4).prop_map(|records| Page { records })
}

/// IV and tag of a stored part; one that is not stored has none.
type Pin = Option<([u8; 12], [u8; 16])>;

fn part_list() -> impl Strategy<Value = PartList> {
    (1..5000u64, vec(any::<Pin>(), 1..6)).prop_map(|(last, pins)| {
        let part_size = 5000;
        let size = (pins.len() as u64 - 1) * part_size + last;
        let part = |(at, pin): (usize, Pin)| {
            pin.map(|(iv, tag)| {
                let plain = if at + 1 == pins.len() { last } else { part_size };
                let len = crate::crypto::sealed_len(plain);
                let identity = Identity { len, iv, tag, key: [1; 8] };
                Reference { token: Token::new(format!("t{at}")), identity }
            })
        };
        PartList { size, part_size, parts: pins.iter().copied().enumerate().map(part).collect() }
    })
}

/// One byte of `bytes` changed.
fn with_one_changed(bytes: &[u8], at: prop::sample::Index, by: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= by.max(1);
    bytes
}

proptest! {
    #[test]
    fn a_record_is_what_was_written(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        let known = !matches!(record.body, Body::Unknown { .. }) && record.more.is_empty();
        prop_assert_eq!(record.is_newer(), !known);
        prop_assert!(!record.beats(&record));
    }

    /// Whatever the bytes are, they are one value, or none.
    #[test]
    fn a_changed_record_is_malformed_or_another(
        record in record(),
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
    ) {
        let changed = with_one_changed(&record.encode(), at, by);
        if let Ok(read) = Record::decode(&changed) {
            prop_assert_eq!(read.encode(), changed);
        }
    }

    #[test]
    fn segments_manifests_and_pages_are_what_was_written(
        segment in segment(),
        manifest in manifest(),
        page in page(),
    ) {
        prop_assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        prop_assert_eq!(Page::decode(&page.encode()), Ok(page));
    }

    #[test]
    fn changed_segments_manifests_and_pages_do_not_count_or_are_others(
        (segment, manifest, page) in (segment(), manifest(), page()),
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
    ) {
        if let Ok(read) = Segment::decode(&with_one_changed(&segment.encode(), at, by)) {
            prop_assert_eq!(Segment::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = Manifest::decode(&with_one_changed(&manifest.encode(), at, by)) {
            prop_assert_eq!(Manifest::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = Page::decode(&with_one_changed(&page.encode(), at, by)) {
            prop_assert_eq!(Page::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn arbitrary_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
        let _ = Segment::decode(&bytes);
        let _ = Manifest::decode(&bytes);
        let _ = Page::decode(&bytes);
        let _ = Header::claimed(&bytes);
        let _ = open(&keys(), &bytes, None);
        prop_assert!(PartList::from_json(&bytes, &keys()).is_err());
    }

    #[test]
    fn a_part_list_is_what_was_written_or_none(
        list in part_list(),
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
    ) {
        let json = list.to_json(&keys());
        prop_assert_eq!(PartList::from_json(&json, &keys()), Ok(list.clone()));
        let other = CatalogKeys::new(&MasterKey::from_bytes([4; 32]));
        prop_assert_eq!(PartList::from_json(&json, &other), Err(NotParts::Mac));
        // A changed byte of JSON may be none of what counts (a member's name in other case).
        if let Ok(read) = PartList::from_json(&with_one_changed(&json, at, by), &keys()) {
            prop_assert_eq!(read, list);
        }
    }

    #[test]
    fn a_sealed_payload_opens_as_what_it_is_and_changed_as_nothing(
        kind in 0..4usize,
        writer in 1..u64::MAX,
        content in vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
    ) {
        let kind = PayloadKind::ALL[kind];
        let (number, count) = if kind == PayloadKind::Page { (2, 3) } else { (0, 0) };
        let header = Header { kind, key: keys().id(), writer, sequence: 1, number, count };
        let identity = (kind == PayloadKind::Change).then_some([9; 16]);
        let sealed = seal(&keys(), &SeededRandom::new(5), header, identity.as_ref(), &content);
        prop_assert_eq!(open(&keys(), &sealed, identity.as_ref()), Ok((header, content)));
        prop_assert!(open(&keys(), &with_one_changed(&sealed, at, by), identity.as_ref()).is_err());
        let found = Identity::of_catalog(&sealed).unwrap();
        prop_assert_eq!(found.len, sealed.len() as u64);
        prop_assert_eq!(&sealed[HEADER_LEN..HEADER_LEN + 12], &found.iv);
    }

    #[test]
    fn conflict_names_fit_and_are_told_apart(
        name in name(),
        long in 0..255usize,
        machine in "[ -~ü]{0,80}",
        millis in any::<u64>(),
    ) {
        let mut name = name;
        name.extend(std::iter::repeat_n(b'x', long));
        name.truncate(255);
        let names: Vec<_> = (1..12).map(|n| conflict_name(&name, &machine, millis, n)).collect();
        for (number, shown) in names.iter().enumerate() {
            prop_assert!(is_name(shown), "{:?}", shown);
            prop_assert!(!names[..number].contains(shown));
            prop_assert!(unnumbered(shown).contains(&names[0]), "{:?}", shown);
        }
    }

    #[test]
    fn marks_are_recognised_by_their_key_only(seed in any::<u64>()) {
        let mark = new_mark(&keys(), &SeededRandom::new(seed));
        prop_assert!(is_mark(&keys(), &mark) && mark.as_bytes()[14] == b'8');
        let other = CatalogKeys::new(&MasterKey::from_bytes([4; 32]));
        prop_assert!(!is_mark(&other, &mark));
        prop_assert!(!is_mark(&keys(), &uuid::Uuid::from_u128(seed.into()).to_string()));
    }
}

#[test]
fn conflict_names_are_those_of_the_document() {
    let named = |name: &str, machine: &str, millis, number| {
        String::from_utf8(conflict_name(name.as_bytes(), machine, millis, number)).unwrap()
    };
    let millis = 1_795_788_300_000; // 2026-11-27 14:05 UTC
    assert_eq!(named("a.txt", "den", millis, 1), "a (conflict den 2026-11-27 1405).txt");
    assert_eq!(named("a.txt", "den", millis, 2), "a (conflict den 2026-11-27 1405) 2.txt");
    assert_eq!(named(".rc", "den", millis, 1), ".rc (conflict den 2026-11-27 1405)");
    assert_eq!(named("a", "d(e)n/\n", millis, 1), "a (conflict d_e_n__ 2026-11-27 1405)");
    assert_eq!(named("a", "", u64::MAX, 1), "a (conflict another machine 1970-01-01 0000)");
    assert_eq!(named("a", "m", 951_825_599_999, 1), "a (conflict m 2000-02-29 1159)");
    assert_eq!(named("a", "m", 253_402_300_799_999, 1), "a (conflict m 9999-12-31 2359)");
    let no_extension = format!("a.{}", "x".repeat(64));
    assert!(named(&no_extension, "m", 0, 1).ends_with("(conflict m 1970-01-01 0000)"));
    let long = conflict_name("ü".repeat(127).as_bytes(), "den", millis, 1);
    assert!(long.len() <= 250 && std::str::from_utf8(&long).is_ok());
}

#[test]
fn derived_numbers_go_on_where_one_is_taken() {
    let first = derive("copy", &[1; 16], |_| false);
    let second = derive("copy", &[1; 16], |number| number == first);
    assert!(first != second && first >> 63 == 0 && second >= 256);
    assert_ne!(first, derive("copy link", &[1; 16], |_| false));
}

/// Each rule of the tables that one record can break by itself.
#[test]
fn what_breaks_a_rule_is_malformed() {
    let (stamp, file) = (Stamp { hlc: 5, writer: 6 }, Subject::File(300));
    let refused = |subject, body| {
        let bytes = Record::new(subject, stamp, body).encode();
        Record::decode(&bytes).unwrap_err().why
    };
    let name = |folder, name: &[u8], link| {
        let (name, machine) = (name.to_vec(), "m".into());
        Body::Name(Name { link, folder, name, rank: stamp, machine, millis: 0 })
    };
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        assert_eq!(refused(file, name(1, bad, 300)), "no name of a file", "{bad:?}");
    }
    assert_eq!(refused(file, name(1, b"a", 255)), "no such number");
    assert_eq!(refused(file, name(2, b"a", 300)), "no such number");
    assert_eq!(refused(Subject::Folder(300), name(300, b"a", 300)), "a folder in itself");
    let about = "about something that it cannot be about";
    assert_eq!(refused(Subject::Folder(1), name(1, b"a", 300)), about);
    assert_eq!(refused(Subject::Vault, name(1, b"a", 300)), about);
    assert_eq!(refused(file, Body::WriterEnd), about);
    assert_eq!(refused(Subject::File(1), Body::WriterEnd), "no such subject");
    let version = |size, holes, covers| {
        let (id, machine) = (VersionId([1; 16]), String::new());
        Body::Version(Version { id, covers, size, holes, machine, millis: 0, source: None })
    };
    for holes in [vec![(0, 0)], vec![(3, 2)], vec![(2, 1), (1, 1)], vec![(0, 1), (1, 1)]] {
        let why = refused(file, version(4, holes.clone(), Vec::new()));
        assert_eq!(why, "holes out of order, or beyond the end", "{holes:?}");
    }
    let of = |bytes: [u8; 2]| bytes.map(|byte| VersionId([byte; 16])).to_vec();
    assert_eq!(refused(file, version(0, Vec::new(), of([3, 2]))), "identities out of order");
    assert_eq!(refused(file, version(0, Vec::new(), of([3, 3]))), "identities out of order");
    assert_eq!(refused(file, version(0, Vec::new(), of([1, 2]))), "a version that covers itself");
    let object = |kind, target: &[u8]| Body::Object {
        kind,
        birth: Moment::default(),
        device: 0,
        target: target.to_vec(),
    };
    assert_eq!(refused(file, object(ObjectKind::Folder, b"")), "a folder that is none");
    for (kind, target) in [(ObjectKind::Symlink, &b""[..]), (ObjectKind::File, b"x")] {
        assert_eq!(refused(file, object(kind, target)), "a target that none can be");
    }
    let setting = |name: &str, value| Body::Setting { name: name.into(), value };
    for (name, value) in [
        ("trash-days", Item::Unsigned(36_501)),
        ("trash-days", Item::text("7")),
        ("names", Item::Bool(true)),
    ] {
        let why = refused(Subject::Vault, setting(name, value));
        assert_eq!(why, "a setting's value that it cannot have");
    }
    let kept = Record::new(Subject::Vault, stamp, setting("of tomorrow", Item::Bool(true)));
    assert!(Record::decode(&kept.encode()).is_ok_and(|read| !read.is_newer()));
    // A stamp beyond what there can be, and none at all.
    let late = Record::new(file, Stamp { hlc: 1 << 62, writer: 1 }, name(1, b"a", 300));
    assert_eq!(Record::decode(&late.encode()).unwrap_err().why, "no stamp");
    let row = |members: BTreeMap<u64, Item>| {
        let subject = Item::Array(vec![Item::Unsigned(1), Item::Unsigned(300)]);
        Item::Array(vec![Item::Unsigned(40), subject, Item::Map(members)]).encode()
    };
    assert_eq!(Record::decode(&row(BTreeMap::new())).unwrap_err().why, "a member is missing");
}

#[test]
fn what_a_newer_program_wrote_is_told_from_what_nobody_wrote() {
    let header = |at: usize, byte: u8| {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[..13].copy_from_slice(b"PRIVICOREFS\x02\x01");
        bytes[31] = 1; // a writer
        bytes[39] = 1; // a number
        bytes[at] = byte;
        Header::claimed(&bytes)
    };
    assert!(header(0, b'P').is_ok());
    assert!(matches!(header(11, 3), Err(Unopened::Newer(_))));
    assert!(matches!(header(12, 5), Err(Unopened::Newer(_))));
    for (at, byte) in [(0, b'p'), (12, 0), (13, 1), (31, 0), (39, 0), (43, 1), (47, 1)] {
        assert_eq!(header(at, byte), Err(Unopened::NotCatalog), "byte {at}");
    }
    // A page has a number below its count, a change has no number of its own.
    let of_kind = |kind, sequence, number, count| {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[..12].copy_from_slice(b"PRIVICOREFS\x02");
        (bytes[12], bytes[31], bytes[39], bytes[43], bytes[47]) =
            (kind, 1, sequence, number, count);
        Header::claimed(&bytes).is_ok()
    };
    assert!(of_kind(3, 1, 0, 1) && !of_kind(3, 1, 1, 1) && !of_kind(3, 1, 0, 0));
    assert!(of_kind(4, 1, 0, 0) && !of_kind(4, 2, 0, 0));
}
