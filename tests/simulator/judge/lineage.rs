//! Which contents a file may have: those of its versions, and what came between.

use std::collections::BTreeSet;

use super::super::company::{Act, Cells, Content, Stamp};
use super::contents;
use super::finding::Clause;
use super::history::{Did, History, Version};

impl History {
    /// What is wrong with a content, if something is.
    pub fn check_content(&self, content: &Content) -> Option<(Clause, &'static str, String)> {
        let size = contents::len(content);
        let short = |content: &Content| {
            let text = format!("{content:?}");
            if text.len() > 300 { format!("{}…", &text[..300]) } else { text }
        };
        let version = self.of_size(size);
        let kind = version.map_or("-", |version| version.kind);
        if content.iter().any(|run| matches!(run, Cells::Alien(_))) {
            return Some((Clause::NobodyWrote, kind, format!("forged: {}", short(content))));
        }
        let Some(version) = version else {
            // A step that was cut short, or nothing at all.
            let known = |run: &Cells| match run {
                Cells::Of(stamp, _) => self.versions.contains_key(stamp),
                _ => true,
            };
            let halfway = self.versions.values().any(|v| v.did == Did::Perhaps) || size == 0;
            return (!content.iter().all(known) || !halfway)
                .then(|| (Clause::NobodyWrote, "-", format!("of no version: {}", short(content))));
        };
        if self.could_be(version, content) {
            return None;
        }
        let lineage = self.lineage(version.stamp);
        let strange = content.iter().any(|run| match run {
            Cells::Of(stamp, _) => !lineage.contains(stamp),
            _ => false,
        });
        let text = || {
            let expected = short(&version.content);
            format!("version {} is {}, not {expected}", version.stamp, short(content))
        };
        match (strange, version.did) {
            (true, _) => Some((Clause::NobodyWrote, kind, text())),
            (false, _) if self.is_perhaps(version.stamp) => None,
            (false, _) => Some((Clause::WholeVersion, kind, text())),
        }
    }

    /// Whether a version, or one that it grew from, may be there in part only.
    fn is_perhaps(&self, of: Stamp) -> bool {
        let mut at = vec![of];
        while let Some(version) = at.pop().and_then(|stamp| self.versions.get(&stamp)) {
            if version.did == Did::Perhaps {
                return true;
            }
            at.extend(version.from.into_iter().chain(version.source));
        }
        false
    }

    /// A machine may have heard of a newer version between showing the old one and writing:
    /// then the act was done to that.
    fn could_be(&self, version: &Version, content: &Content) -> bool {
        if version.content == *content {
            return true;
        }
        let bases = self.lineage(version.stamp);
        let contents = bases.iter().filter_map(|stamp| self.versions.get(stamp));
        let contents: Vec<&Content> = contents.map(|v| &v.content).collect();
        let none = Content::new();
        let is_clone = matches!(version.act, Act::Clone { .. });
        contents.iter().any(|base| {
            let (base, source) = if is_clone { (&none, *base) } else { (*base, &none) };
            contents::apply(&version.act, version.stamp, base, source).as_ref() == Some(content)
        })
    }

    /// All versions that have to do with one file, through clones and names too.
    pub fn lineage(&self, of: Stamp) -> BTreeSet<Stamp> {
        let mut found = BTreeSet::from([of]);
        loop {
            let before = found.len();
            for version in self.versions.values() {
                let near = [Some(version.stamp), version.from, version.source];
                if near.iter().flatten().any(|stamp| found.contains(stamp)) {
                    found.extend(near.into_iter().flatten());
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }
}
