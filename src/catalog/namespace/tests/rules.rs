//! Single rules.

use super::house::{Draw, Machine, Segment, new_inode};
use super::judge::{check, check_checkpoint, expected, kept, listing};
use crate::catalog::conflict::object::Origin;
use crate::catalog::format::record::ObjectKind;
use crate::catalog::format::{Body, Record, Stamp, Subject, VersionId};
use crate::catalog::local::inode::{Ino, Kind, ROOT_INO};
use crate::catalog::local::row::History;
use crate::catalog::local::schema;
use crate::db::{Space, decode, encode};

fn publish(machine: &mut Machine) -> Segment {
    let Some((_, records)) = machine.send() else { return Segment::new() };
    let segment = machine.published(records);
    machine.apply(&segment);
    segment
}

fn histories(machine: &Machine, ino: Ino) -> Vec<(Vec<u8>, History)> {
    let (mut found, prefix) = (Vec::new(), schema::histories(ino));
    let keep = |key: &[u8], value: Vec<u8>| {
        found.push((key.to_vec(), decode(&value)?));
        Ok(true)
    };
    machine.tree.db().scan(&prefix, &prefix, keep).unwrap();
    found
}

#[test]
fn a_row_stays_small_however_often_its_file_is_saved() {
    let (mut machine, draw) = (Machine::new(1, "m"), Draw::new(1));
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machine);
    for _ in 0..1000 {
        machine.store(&draw, ino);
        all.extend(publish(&mut machine));
    }
    let row = machine.tree.find_row(ino).unwrap().unwrap();
    assert!(encode(&row).len() < 1024, "{} bytes", encode(&row).len());
    let histories = histories(&machine, ino);
    assert_eq!(histories.len(), 1000);
    assert!(histories.iter().all(|(_, h)| h.ended.is_some() && h.version.is_some()));
    check_checkpoint(&machine, &all.iter().map(|(record, _)| record).collect::<Vec<_>>());
}

#[test]
fn what_is_forgotten_stays_covered() {
    let (mut machine, draw) = (Machine::new(2, "m"), Draw::new(2));
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machine);
    for _ in 0..9 {
        machine.store(&draw, ino);
        all.extend(publish(&mut machine));
    }
    // Every second one is forgotten, as by a checkpoint.
    let mut txn = machine.tree.begin();
    for (key, history) in histories(&machine, ino).into_iter().step_by(2) {
        let left = History { ended: history.ended, ..History::default() };
        txn.raw(Space::Meta, key, Some(encode(&left)));
    }
    txn.commit().unwrap();
    let records: Vec<&Record> = all.iter().map(|(record, _)| record).collect();
    check_checkpoint(&machine, &records);
    // Who has the checkpoint, and hears of the old ones after all, shows none of them.
    let fresh = Machine::new(3, "fresh");
    fresh.apply(&kept(&machine.tree));
    fresh.apply(&all);
    check(&fresh.tree);
    assert_eq!(listing(&fresh.tree), expected(records));
}

#[test]
fn what_waits_hides_nothing_from_a_checkpoint() {
    let (mut machine, draw) = (Machine::new(4, "m"), Draw::new(4));
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    machine.store(&draw, ino);
    let all = publish(&mut machine);
    machine.rename((ROOT_INO, "f"), (ROOT_INO, "g"));
    machine.tree.set_attrs(ino, |inode, _| inode.attrs.perm = 0o600).unwrap();
    let records: Vec<&Record> = all.iter().map(|(record, _)| record).collect();
    check_checkpoint(&machine, &records);
    machine.send();
    check_checkpoint(&machine, &records);
}

#[test]
fn versions_in_any_order_are_covered() {
    let (mut machine, draw) = (Machine::new(5, "m"), Draw::new(5));
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machine);
    for _ in 0..3 {
        machine.store(&draw, ino);
        all.extend(publish(&mut machine));
    }
    for seed in 0..60 {
        let (other, draw) = (Machine::new(6, "other"), Draw::new(seed));
        let mut some = all.clone();
        draw.shuffle(&mut some);
        for record in some {
            other.apply(&[record]);
            check(&other.tree);
        }
        assert_eq!(listing(&other.tree), listing(&machine.tree), "seed {seed}");
        check_checkpoint(&other, &all.iter().map(|(record, _)| record).collect::<Vec<_>>());
    }
}

#[test]
fn lists_of_what_is_covered_count_with_their_version() {
    let (mut machine, draw) = (Machine::new(7, "m"), Draw::new(7));
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    machine.store(&draw, ino);
    let mut all = publish(&mut machine);
    // One that covers more than a record lists: 1,500 that nobody knows, and the one there is.
    let mut txn = machine.tree.begin();
    let (id, stamp) = txn.new_version();
    let mut covers: Vec<VersionId> = (0..1500).map(|_| VersionId(draw.bytes())).collect();
    covers.extend(txn.inode(ino).unwrap().content.id);
    covers.sort_unstable();
    let new = crate::catalog::namespace::NewVersion {
        id,
        stamp,
        covers,
        size: 0,
        holes: Vec::new(),
        base: None,
    };
    txn.commit_version(ino, new).unwrap();
    txn.commit().unwrap();
    all.extend(publish(&mut machine));
    assert!(all.iter().any(|(record, _)| matches!(record.body, Body::Covered { .. })));
    let records: Vec<&Record> = all.iter().map(|(record, _)| record).collect();
    check(&machine.tree);
    assert_eq!(listing(&machine.tree), expected(records.iter().copied()));
    check_checkpoint(&machine, &records);
}

#[test]
fn a_file_that_others_know_takes_its_content_along_by_a_name_that_they_do_not() {
    let mut machine = Machine::new(8, "m");
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machine);
    machine.tree.link(ino, ROOT_INO, b"g").unwrap();
    machine.tree.unlink(ROOT_INO, b"f", false).unwrap();
    machine.tree.unlink(ROOT_INO, b"g", false).unwrap();
    all.extend(publish(&mut machine));
    assert!(expected(all.iter().map(|(record, _)| record)).is_empty());
    assert!(listing(&machine.tree).is_empty());
}

#[test]
fn what_nobody_heard_of_leaves_no_trace() {
    let mut machine = Machine::new(9, "m");
    let mut before = publish(&mut machine);
    let ino = machine.tree.create(ROOT_INO, b"l", a_symlink()).unwrap().ino;
    machine.tree.unlink(ROOT_INO, b"l", false).unwrap();
    machine.tree.purge(ino).unwrap();
    before.extend(publish(&mut machine));
    let about = |(record, _): &(Record, Origin)| record.subject == Subject::File(ino);
    assert!(!before.iter().any(about), "{before:?}");
    assert!(machine.tree.find_row(ino).unwrap().is_none());
}

fn a_symlink() -> crate::catalog::namespace::NewInode {
    crate::catalog::namespace::NewInode {
        kind: Kind::Symlink,
        perm: 0o777,
        uid: 1,
        gid: 1,
        rdev: 0,
        target: b"there".to_vec(),
        unwanted: false,
        xattrs: Vec::new(),
    }
}

/// A content that the vault has goes by the records, though nobody has heard of its file: it is
/// in the trash like any.
#[test]
fn a_content_in_the_vault_is_told_though_its_file_is_gone() {
    let (mut machine, draw) = (Machine::new(9, "m"), Draw::new(9));
    publish(&mut machine);
    let ino = machine.make(ROOT_INO, "f", Kind::File).unwrap();
    machine.store(&draw, ino);
    machine.tree.unlink(ROOT_INO, b"f", false).unwrap();
    machine.tree.purge(ino).unwrap();
    let all = publish(&mut machine);
    let is = |kind: fn(&Body) -> bool| all.iter().any(|(record, _)| kind(&record.body));
    assert!(is(|body| matches!(body, Body::Place(_))));
    assert!(is(|body| matches!(body, Body::Removal(_))));
    assert!(expected(all.iter().map(|(record, _)| record)).is_empty());
    assert!(machine.tree.find_row(ino).unwrap().is_some());
}

#[test]
fn a_circle_of_removed_folders_does_not_keep_itself() {
    // Two folders, each moved into the other, then removed by who saw one move only; a file that
    // was made in one of them, and removed.
    let mut machines = [Machine::new(10, "m0"), Machine::new(11, "m1")];
    let a = machines[0].make(ROOT_INO, "a", Kind::Dir).unwrap();
    let b = machines[0].make(ROOT_INO, "b", Kind::Dir).unwrap();
    let mut all = publish(&mut machines[0]);
    machines[1].apply(&all);
    machines[0].rename((ROOT_INO, "a"), (b, "a"));
    machines[1].rename((ROOT_INO, "b"), (a, "b"));
    let file = machines[1].make(a, "f", Kind::File).unwrap();
    let mut sent = [publish(&mut machines[0]), publish(&mut machines[1])];
    for machine in &machines {
        machine.tick(1);
    }
    machines[0].tree.unlink(b, b"a", true).unwrap();
    machines[0].tree.unlink(ROOT_INO, b"b", true).unwrap();
    sent[0].extend(publish(&mut machines[0]));
    machines[1].apply(&sent[0]);
    machines[0].apply(&sent[1]);
    all.extend(sent.into_iter().flatten());
    for machine in &machines {
        check(&machine.tree);
        assert_eq!(listing(&machine.tree), expected(all.iter().map(|(record, _)| record)));
        assert_eq!(listing(&machine.tree).len(), 3);
    }
    // The file goes by the hand of one who does not see the circle.
    let takes = machines[0].tree.inode(file).unwrap().content.id.into_iter().collect();
    let link = machines[0].tree.links_of(file).unwrap()[0].id;
    let removal = crate::catalog::format::record::Removal {
        link,
        last: true,
        takes,
        machine: "m2".into(),
        millis: 0,
    };
    let stamp = Stamp { hlc: 1 << 61, writer: 9 };
    let record = Record::new(Subject::File(file), stamp, Body::Removal(removal));
    let last = machines[0].published(vec![record]);
    all.extend(last.clone());
    for machine in &machines {
        machine.apply(&last);
        check(&machine.tree);
        assert_eq!(listing(&machine.tree), expected(all.iter().map(|(record, _)| record)));
        assert_eq!(listing(&machine.tree).len(), 0);
    }
}

#[test]
fn a_deep_tree_lives_again_by_one_file() {
    let mut machine = Machine::new(12, "m");
    let other = Machine::new(13, "other");
    let (mut folder, mut names) = (ROOT_INO, Vec::new());
    for _ in 0..1500 {
        names.push(folder);
        folder = machine.make(folder, "d", Kind::Dir).unwrap();
    }
    let mut all = publish(&mut machine);
    other.apply(&all);
    other.tree.create(folder, b"f", new_inode(Kind::File)).unwrap();
    for folder in names.into_iter().rev() {
        machine.tree.unlink(folder, b"d", true).unwrap();
    }
    let removed = publish(&mut machine);
    assert!(listing(&machine.tree).is_empty());
    let mut other = other;
    let made = publish(&mut other);
    machine.apply(&made);
    other.apply(&removed);
    all.extend(removed.into_iter().chain(made));
    for machine in [&machine, &other] {
        assert_eq!(listing(&machine.tree).len(), 1501);
        assert_eq!(listing(&machine.tree), expected(all.iter().map(|(record, _)| record)));
    }
}

#[test]
fn a_conflict_name_has_the_minute_of_its_record() {
    let mut machines = [Machine::new(14, "m0"), Machine::new(15, "m1")];
    machines[0].make(ROOT_INO, "a", Kind::Dir).unwrap();
    machines[1].tick(1);
    machines[1].make(ROOT_INO, "a", Kind::Dir).unwrap();
    let mut all = [publish(&mut machines[0]), publish(&mut machines[1])].concat();
    machines[0].apply(&all);
    // It is moved away and back by who does not know the other.
    machines[1].tick(1);
    machines[1].rename((ROOT_INO, "a"), (ROOT_INO, "b"));
    machines[1].tick(1);
    machines[1].rename((ROOT_INO, "b"), (ROOT_INO, "a"));
    all.extend(publish(&mut machines[1]));
    for machine in &machines {
        machine.apply(&all);
        check(&machine.tree);
        assert_eq!(listing(&machine.tree), expected(all.iter().map(|(record, _)| record)));
    }
}

#[test]
fn two_links_that_are_one_stay_one_when_they_are_acted_upon() {
    let mut machines = [Machine::new(16, "m0"), Machine::new(17, "m1")];
    let file = machines[0].make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machines[0]);
    machines[1].apply(&all);
    for machine in &machines {
        machine.tick(1);
        machine.tree.link(file, ROOT_INO, b"g").unwrap();
    }
    // A third has taken the name before.
    let mut third = Machine::new(18, "m2");
    third.make(ROOT_INO, "g", Kind::Symlink).unwrap();
    all.extend(publish(&mut third));
    all.extend(publish(&mut machines[0]));
    all.extend(publish(&mut machines[1]));
    machines[0].apply(&all);
    machines[1].apply(&all);
    assert_eq!(machines[0].tree.links_of(file).unwrap().len(), 2);
    let (at, _) = listing(&machines[0].tree)
        .into_iter()
        .find(|((_, name), _)| name.contains("(conflict"))
        .unwrap();
    machines[0].tree.set_attrs(file, |inode, _| inode.attrs.perm = 0o600).unwrap();
    assert_eq!(machines[0].tree.links_of(file).unwrap().len(), 2);
    machines[0].tree.unlink(ROOT_INO, at.1.as_bytes(), false).unwrap();
    assert_eq!(machines[0].tree.links_of(file).unwrap().len(), 1);
    all.extend(publish(&mut machines[0]));
    machines[1].apply(&all);
    for machine in &machines {
        check(&machine.tree);
        assert_eq!(listing(&machine.tree), expected(all.iter().map(|(record, _)| record)));
    }
}

#[test]
fn what_is_told_of_a_copy_before_its_split_is_kept() {
    let mut machines = [Machine::new(19, "m0"), Machine::new(20, "m1")];
    let draw = Draw::new(3);
    let file = machines[0].make(ROOT_INO, "f", Kind::File).unwrap();
    let mut all = publish(&mut machines[0]);
    machines[1].apply(&all);
    for machine in &machines {
        machine.store(&draw, file);
    }
    let sent = [publish(&mut machines[0]), publish(&mut machines[1])].concat();
    all.extend(sent.clone());
    machines[0].apply(&sent);
    machines[1].apply(&sent);
    let copy = listing(&machines[0].tree).into_values().find(|what| what.ino != file).unwrap();
    machines[0].tree.set_attrs(copy.ino, |inode, _| inode.attrs.perm = 0o600).unwrap();
    let split = publish(&mut machines[0]);
    machines[0].tree.set_attrs(copy.ino, |inode, _| inode.attrs.perm = 0o640).unwrap();
    let later = publish(&mut machines[0]);
    assert!(later.iter().all(|(record, _)| !matches!(record.body, Body::Object { .. })));
    for segment in [later, split] {
        machines[1].apply(&segment);
        check(&machines[1].tree);
        all.extend(segment);
        let copy = machines[1].tree.inode(copy.ino).unwrap();
        assert_eq!((copy.attrs.perm, copy.content.id.is_some()), (0o640, true));
        assert_eq!(ObjectKind::from(copy.kind), ObjectKind::File);
    }
    assert_eq!(listing(&machines[1].tree), listing(&machines[0].tree));
    assert_eq!(listing(&machines[1].tree), expected(all.iter().map(|(record, _)| record)));
}
