//! What a machine sees listed.

use std::time::{Duration, UNIX_EPOCH};

use privicorefs::store::{ListFilter, ListPage, Token, TokenRecord};

use super::super::company::{Machine, Odd, Stored};
use super::lies::take;
use super::{Held, Service, State};

/// Entries of a page: few, so that a vault of a simulation has several.
const PAGE: usize = 24;

impl Service {
    /// One page (from 1) for a machine.
    pub(super) fn list(&self, machine: Machine, filter: &ListFilter, page: u32) -> ListPage {
        let now = self.now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut records = state.visible(machine, filter, now);
        if let Some(step) = state.behaviour.reorder {
            records.reverse();
            state.met(step);
        }
        if let Some(step) = state.behaviour.duplicate {
            records = records.into_iter().flat_map(|r| [r.clone(), r]).collect();
            state.met(step);
        }
        let mut first = (page.max(1) as usize - 1) * PAGE;
        if page > 1
            && let Some(step) = take(&mut state.behaviour.shift)
        {
            first += PAGE / 3;
            state.met(step);
        }
        if let Some(step) = take(&mut state.behaviour.wrong_page) {
            first = (first + PAGE) % records.len().max(1);
            state.met(step);
        }
        let more = records.len() > first + PAGE;
        let mut records: Vec<_> = records.into_iter().skip(first).take(PAGE).collect();
        if records.len() > 1
            && let Some(step) = take(&mut state.behaviour.short_page)
        {
            records.truncate(records.len() / 2);
            state.met(step);
        }
        ListPage { records, more }
    }
}

impl State {
    fn visible(&mut self, machine: Machine, filter: &ListFilter, now: u64) -> Vec<TokenRecord> {
        let lag = self.behaviour.lag.iter().filter(|(_, on, _)| on.is_none_or(|m| m == machine));
        let lag = lag.max_by_key(|(_, _, ms)| *ms).copied();
        let mut met = Vec::new();
        let mut seen = Vec::new();
        for at in 0..self.entries.len() {
            let held = &self.entries[at];
            if !filter.matches(&held.record) {
                continue;
            }
            met.extend(self.changed.get(&held.record.token));
            let (there, by) = self.is_given(machine, held);
            let listed = match lag {
                Some((_, _, ms)) if by.is_none() => held.was_there(now.saturating_sub(ms)),
                _ => there,
            };
            met.extend(by);
            met.extend(lag.filter(|_| by.is_none() && listed != there).map(|(step, _, _)| step));
            if listed {
                seen.push(held.record.clone());
            }
        }
        if let Some(step) = self.behaviour.no_sizes {
            met.extend((!seen.is_empty()).then_some(step));
            seen.iter_mut().for_each(|record| record.size = None);
        }
        if let Some((step, year)) = self.behaviour.year {
            met.extend((!seen.is_empty()).then_some(step));
            let since = u64::from(year.saturating_sub(1970)) * 31_557_600;
            seen.iter_mut().for_each(|r| r.created = Some(UNIX_EPOCH + Duration::from_secs(since)));
        }
        for (step, odd) in self.behaviour.odd.clone() {
            if let Some(record) = self.odd(odd).filter(|record| filter.matches(record)) {
                seen.push(record);
                met.push(step);
            }
        }
        met.into_iter().for_each(|step| self.met(step));
        seen
    }

    /// Whether a machine is given a token, and which lie makes that other than it is.
    pub(super) fn is_given(&self, machine: Machine, held: &Held) -> (bool, Option<usize>) {
        let for_it = |on: &Option<Machine>| on.is_none_or(|m| m == machine);
        let mut there = held.is_there();
        let mut by = None;
        for (step, on, as_of, since) in &self.behaviour.rolled_back {
            let shown = held.was_there(*as_of) || (held.since > *since && held.is_there());
            if for_it(on) && shown != there {
                (there, by) = (shown, Some(*step));
            }
        }
        for (step, token, on) in &self.behaviour.withheld {
            if for_it(on) && there && *token == held.record.token {
                (there, by) = (false, Some(*step));
            }
        }
        (there, by)
    }

    fn odd(&self, odd: Odd) -> Option<TokenRecord> {
        let segment = self.entries.iter().rev().find(|held| held.what == Stored::Segment);
        let file = self.entries.iter().rev().find(|held| held.what == Stored::File);
        let mut record = match odd {
            Odd::HugeNumber => {
                let mut record = segment?.record.clone();
                let name = record.file_name.take()?;
                record.file_name =
                    Some(format!("{}-{:016x}", name.split('-').next()?, u64::MAX - 7));
                record
            }
            Odd::Nul => TokenRecord { context: "a\0b".into(), ..file?.record.clone() },
            Odd::DotDot => TokenRecord { file_name: Some("..".into()), ..file?.record.clone() },
            Odd::Usurper => {
                let created = Some(UNIX_EPOCH + Duration::from_secs(253_370_764_800));
                TokenRecord { created, ..file?.record.clone() }
            }
        };
        record.token = Token::new(format!("odd-{odd:?}"));
        record.mark = None;
        Some(record)
    }
}
