//! What stands by living again, by a cut circle or by a conflict, and is acted upon.

use super::house::{Draw, Machine, Segment};
use super::judge::{check, expected, listing};
use crate::catalog::conflict::names::Claimant;
use crate::catalog::format::Record;
use crate::catalog::local::inode::{Ino, Kind, ROOT_INO};

struct Company<const N: usize> {
    machines: [Machine; N],
    log: Segment,
}

impl<const N: usize> Company<N> {
    fn new(seed: u64) -> Self {
        let machine = |at: usize| Machine::new(seed * 10 + at as u64, &format!("m{at}"));
        Self { machines: std::array::from_fn(machine), log: Segment::new() }
    }

    /// Sends what one has, which the others do not hear yet.
    fn send(&mut self, who: usize) {
        if let Some((_, records)) = self.machines[who].send() {
            let segment = self.machines[who].published(records);
            self.machines[who].apply(&segment);
            self.log.extend(segment);
        }
        for machine in &self.machines {
            machine.tick(1);
        }
    }

    fn all_hear(&self) {
        for machine in &self.machines {
            machine.apply(&self.log);
            check(&machine.tree);
            assert_eq!(listing(&machine.tree), self.expected());
        }
    }

    fn expected(&self) -> super::judge::Listing {
        expected(self.log.iter().map(|(record, _)| record).collect::<Vec<&Record>>())
    }

    fn send_and_hear(&mut self) {
        (0..N).for_each(|who| self.send(who));
        self.all_hear();
    }
}

fn lives_again(machine: &Machine, ino: Ino) -> bool {
    let row = machine.tree.find_row(ino).unwrap().unwrap();
    assert!(!row.standings.is_empty(), "{ino} does not stand");
    let again = |claimant: Claimant| matches!(claimant, Claimant::Link { again: true, .. });
    row.standings.iter().any(|standing| again(standing.claimant))
}

/// X in the root by a cut, with Z in it, with Y in that; and X is recorded to be in Y.
fn circle(company: &mut Company<3>, removes: bool) -> [Ino; 3] {
    let make = |name: &str| company.machines[0].make(ROOT_INO, name, Kind::Dir).unwrap();
    let [x, y, z] = ["x", "y", "z"].map(make);
    company.send(0);
    company.all_hear();
    company.machines[0].rename((ROOT_INO, "y"), (z, "y"));
    company.machines[0].rename((ROOT_INO, "z"), (x, "z"));
    company.send(0);
    company.machines[1].rename((ROOT_INO, "x"), (y, "x"));
    company.send(1);
    if removes {
        company.machines[2].tree.unlink(ROOT_INO, b"y", true).unwrap();
        company.send(2);
    }
    company.all_hear();
    let row = company.machines[0].tree.find_row(x).unwrap().unwrap();
    assert!(row.is_cut);
    [x, y, z]
}

#[test]
fn a_removed_folder_lives_by_what_a_circle_has_cut_out_of_it() {
    let mut company = Company::new(1);
    let [_, y, _] = circle(&mut company, true);
    assert!(lives_again(&company.machines[0], y));
}

#[test]
fn a_folder_that_a_circle_was_cut_at_can_be_removed() {
    let mut company = Company::new(2);
    let [x, _, z] = circle(&mut company, false);
    company.machines[1].tree.unlink(z, b"y", true).unwrap();
    assert!(company.machines[1].tree.lookup(z, b"y").is_err());
    company.send_and_hear();
    assert_eq!(company.expected().len(), 2);
    assert_eq!(company.machines[2].tree.lookup(ROOT_INO, b"x").unwrap().ino, x);
}

#[test]
fn folders_above_what_is_acted_upon_stay_too() {
    let mut company = Company::<2>::new(3);
    let a = company.machines[0].make(ROOT_INO, "a", Kind::Dir).unwrap();
    let b = company.machines[0].make(a, "b", Kind::Dir).unwrap();
    company.send_and_hear();
    company.machines[0].tree.unlink(a, b"b", true).unwrap();
    company.machines[0].tree.unlink(ROOT_INO, b"a", true).unwrap();
    company.machines[1].make(b, "f", Kind::File).unwrap();
    company.send_and_hear();
    assert!(lives_again(&company.machines[0], a) && lives_again(&company.machines[0], b));
    company.machines[0].make(b, "g", Kind::File).unwrap();
    assert!(!lives_again(&company.machines[0], a) && !lives_again(&company.machines[0], b));
    company.machines[0].tree.unlink(b, b"f", false).unwrap();
    company.machines[0].tree.unlink(b, b"g", false).unwrap();
    company.send_and_hear();
    assert_eq!(company.expected().len(), 2);
}

#[test]
fn a_name_that_stood_again_and_was_removed_stands_by_the_next() {
    let (mut company, draw) = (Company::<4>::new(4), Draw::new(4));
    let f = company.machines[0].make(ROOT_INO, "f", Kind::File).unwrap();
    company.send_and_hear();
    // Three edit it, or remove it, not having seen what the others do.
    company.machines[1].store(&draw, f);
    company.send(1);
    company.machines[3].store(&draw, f);
    let edit = company.log.clone();
    company.machines[0].tree.unlink(ROOT_INO, b"f", false).unwrap();
    company.send(0);
    company.machines[0].apply(&edit);
    assert!(lives_again(&company.machines[0], f));
    company.machines[0].tree.set_attrs(f, |inode, _| inode.attrs.perm = 0o600).unwrap();
    assert!(!lives_again(&company.machines[0], f));
    company.send(0);
    company.machines[0].tree.unlink(ROOT_INO, b"f", false).unwrap();
    company.send(0);
    company.machines[2].tree.unlink(ROOT_INO, b"f", false).unwrap();
    company.send_and_hear();
    assert!(lives_again(&company.machines[2], f));
    company.machines[2].tree.set_attrs(f, |inode, _| inode.attrs.perm = 0o640).unwrap();
    assert!(!lives_again(&company.machines[2], f));
    company.send_and_hear();
    assert_eq!(company.expected().len(), 1);
}

#[test]
fn a_copy_that_was_written_over_stays_so() {
    let (mut company, draw) = (Company::<2>::new(5), Draw::new(5));
    let f = company.machines[0].make(ROOT_INO, "f", Kind::File).unwrap();
    company.send_and_hear();
    (0..2).for_each(|who| company.machines[who].store(&draw, f));
    company.send_and_hear();
    let shown = listing(&company.machines[0].tree);
    let copy = shown.values().find(|what| what.ino != f).unwrap().ino;
    for _ in 0..3 {
        company.machines[0].store(&draw, copy);
        company.send_and_hear();
        assert_eq!(company.expected().len(), 2);
    }
    for _ in 0..2 {
        company.machines[1].store(&draw, f);
        company.send_and_hear();
        assert_eq!(company.expected().len(), 2);
    }
}
