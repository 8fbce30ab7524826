//! One machine, and several that send each other what they do, in any order.

use std::collections::BTreeSet;

use super::house::{Draw, Machine, Segment};
use super::judge::{Moment, check, check_checkpoint, check_links, expected, is_calm, listing};
use crate::catalog::format::Record;

/// Machines with one log.
struct Company {
    machines: Vec<Machine>,
    log: Vec<Segment>,
    /// By machine, the segments that it has applied.
    applied: Vec<BTreeSet<usize>>,
    draw: Draw,
}

impl Company {
    fn new(seed: u64, count: usize) -> Self {
        let machine = |at: usize| Machine::new(seed * 10 + at as u64, &format!("m{at}"));
        let machines: Vec<Machine> = (0..count).map(machine).collect();
        let applied = vec![BTreeSet::new(); count];
        Self { machines, log: Vec::new(), applied, draw: Draw::new(seed) }
    }

    /// Sends what waits, unless that fails on the way.
    fn send(&mut self, who: usize) {
        let fails = self.draw.one_in(6);
        let machine = &mut self.machines[who];
        let Some((inos, records)) = machine.send() else { return };
        if fails {
            let mut txn = machine.tree.begin();
            txn.unsend(&inos).unwrap();
            txn.commit().unwrap();
            return;
        }
        let segment = machine.published(records);
        self.log.push(segment);
        // Its own are taken in as any others; often at once.
        if !self.draw.one_in(3) {
            self.hear(who, self.log.len() - 1);
        }
    }

    fn hear(&mut self, who: usize, which: usize) {
        let machine = &self.machines[who];
        let before = Moment::of(&machine.tree);
        let stale = machine.apply(&self.log[which]);
        before.check(&Moment::of(&machine.tree), &stale);
        self.applied[who].insert(which);
    }

    /// All at once, in any order.
    fn hear_all(&mut self, who: usize) {
        let mut page: Segment = self.log.iter().flatten().cloned().collect();
        self.draw.shuffle(&mut page);
        self.machines[who].apply(&page);
        self.applied[who] = (0..self.log.len()).collect();
    }

    fn heard(&self, who: usize) -> Vec<&Record> {
        let segments = self.applied[who].iter().flat_map(|which| &self.log[*which]);
        segments.map(|(record, _)| record).collect()
    }

    fn step(&mut self) {
        let who = self.draw.below(self.machines.len());
        match self.draw.below(12) {
            0..7 => self.machines[who].act(&self.draw),
            7 | 8 => self.send(who),
            9 => {
                // perhaps a second time
                if !self.log.is_empty() {
                    self.hear(who, self.draw.below(self.log.len()));
                }
            }
            10 => {
                let new = |which: &usize| !self.applied[who].contains(which);
                let new: Vec<usize> = (0..self.log.len()).filter(new).collect();
                let some = self.draw.below(new.len() + 1);
                new.into_iter().take(some).for_each(|which| self.hear(who, which));
            }
            _ if self.draw.one_in(4) => self.hear_all(who),
            _ => {}
        }
        self.check(who);
    }

    fn check(&self, who: usize) {
        let machine = &self.machines[who];
        check(&machine.tree);
        if self.machines.len() == 1 {
            let shown = listing(&machine.tree);
            assert!(!shown.keys().any(|(_, name)| name.contains("(conflict m0")), "{shown:?}");
        }
        let heard = self.heard(who);
        if is_calm(&machine.tree) {
            assert_eq!(listing(&machine.tree), expected(heard.iter().copied()), "m{who}");
        }
        if self.draw.one_in(10) {
            check_checkpoint(machine, &heard);
        }
    }

    fn end(&mut self) {
        for who in 0..self.machines.len() {
            self.machines[who].store_all(&self.draw);
            while let Some((_, records)) = self.machines[who].send() {
                let segment = self.machines[who].published(records);
                self.log.push(segment);
            }
        }
        for who in 0..self.machines.len() {
            match self.draw.one_in(2) {
                true => self.hear_all(who),
                false => {
                    let mut new: Vec<usize> = (0..self.log.len()).collect();
                    new.retain(|which| !self.applied[who].contains(which));
                    self.draw.shuffle(&mut new);
                    new.into_iter().for_each(|which| self.hear(who, which));
                }
            }
        }
        let all: Vec<Record> =
            self.log.iter().flatten().map(|(record, _)| record.clone()).collect();
        let wanted = expected(&all);
        for (who, machine) in self.machines.iter().enumerate() {
            check(&machine.tree);
            assert!(is_calm(&machine.tree), "m{who}");
            assert_eq!(machine.tree.outbox_len(9).unwrap(), 0, "m{who}");
            assert_eq!(listing(&machine.tree), wanted, "m{who}");
            check_links(&machine.tree);
            check_checkpoint(machine, &all.iter().collect::<Vec<_>>());
            let before = Moment::of(&machine.tree);
            let segment: Segment = self.log.iter().flatten().cloned().collect();
            assert!(machine.apply(&segment).is_empty(), "m{who} announces what was there");
            before.check(&Moment::of(&machine.tree), &[]);
        }
    }
}

fn histories(count: usize, machines: usize) {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: Option<usize> = read("NAMESPACE_SEED");
    let count = read("NAMESPACE_HISTORIES").unwrap_or(count);
    let seeds = first.map_or(1..count + 1, |seed| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut company = Company::new(seed as u64, machines);
            (0..60).for_each(|_| company.step());
            company.end();
        });
        // The first panic says what is wrong, this one how to come to it again.
        assert!(run.is_ok(), "NAMESPACE_SEED={seed} with {machines} machines");
    }
}

#[test]
fn one_machine_shows_what_its_records_say() {
    histories(100, 1);
}

#[test]
fn two_machines_come_to_one_tree() {
    histories(100, 2);
}

#[test]
fn three_machines_come_to_one_tree() {
    histories(100, 3);
}
