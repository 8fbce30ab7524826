//! A small company: machines that see some of each other's records, act on what they are shown,
//! and are asked in the end what became of each content.

use std::collections::{BTreeMap, BTreeSet};

use privicorefs::catalog::conflict::file::link_again;
use privicorefs::catalog::conflict::object::Object;
use privicorefs::catalog::conflict::tree::{Entry, Objects, Tree};
use privicorefs::catalog::format::names::derive;
use privicorefs::catalog::format::record::{
    Moment, Name, ObjectKind, Place, ROOT, Removal, Version,
};
use privicorefs::catalog::format::{Body, Record, Stamp, Subject, VersionId};
use proptest::collection::vec;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

/// What a person does; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Act {
    Create {
        folder: usize,
        name: usize,
    },
    Edit {
        file: usize,
    },
    Remove {
        file: usize,
    },
    Rename {
        file: usize,
        folder: usize,
        name: usize,
    },
    MakeFolder {
        folder: usize,
        name: usize,
    },
    MoveFolder {
        which: usize,
        folder: usize,
        name: usize,
    },
    RemoveFolder {
        which: usize,
    },
    /// Hears what another machine has.
    Hear {
        from: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0..9usize;
    prop_oneof![
        3 => (n.clone(), 0..3usize).prop_map(|(folder, name)| Act::Create { folder, name }),
        4 => n.clone().prop_map(|file| Act::Edit { file }),
        2 => n.clone().prop_map(|file| Act::Remove { file }),
        2 => (n.clone(), n.clone(), 0..3usize)
            .prop_map(|(file, folder, name)| Act::Rename { file, folder, name }),
        2 => (n.clone(), 0..3usize).prop_map(|(folder, name)| Act::MakeFolder { folder, name }),
        2 => (n.clone(), n.clone(), 0..3usize)
            .prop_map(|(which, folder, name)| Act::MoveFolder { which, folder, name }),
        1 => n.clone().prop_map(|which| Act::RemoveFolder { which }),
        4 => (0..3usize).prop_map(|from| Act::Hear { from }),
    ]
}

#[derive(Clone, Debug, Default)]
struct Machine {
    records: Vec<Record>,
}

/// What became of a content, as its people know.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// Somebody wrote over it, having it shown.
    written_over: bool,
    /// Somebody removed the file, having it shown.
    removed: bool,
}

#[derive(Default)]
struct Company {
    machines: Vec<Machine>,
    clock: u64,
    numbers: u64,
    contents: BTreeMap<VersionId, Fate>,
    /// The versions that each was made with knowledge of.
    covers: BTreeMap<VersionId, Vec<VersionId>>,
}

const NAMES: [&[u8]; 3] = [b"a.txt", b"b", b".rc"];

impl Company {
    fn new() -> Self {
        Self { machines: vec![Machine::default(); 3], numbers: 1000, ..Self::default() }
    }

    fn tree(&self, who: usize) -> (Objects, Tree) {
        let objects = Objects::of(&self.machines[who].records);
        let tree = objects.tree();
        (objects, tree)
    }

    fn stamp(&mut self, who: usize) -> Stamp {
        self.clock += 16;
        Stamp { hlc: self.clock, writer: who as u64 + 1 }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn say(&mut self, who: usize, subject: Subject, body: Body) {
        let stamp = self.stamp(who);
        self.machines[who].records.push(Record::new(subject, stamp, body));
    }

    /// A name that nobody has in a folder.
    fn free(tree: &Tree, folder: u64, name: usize) -> Option<Vec<u8>> {
        let name = NAMES[name].to_vec();
        (!tree[&folder].contains_key(&name)).then_some(name)
    }

    fn name(&mut self, who: usize, link: u64, folder: u64, name: Vec<u8>) -> Body {
        self.clock += 16;
        let rank = Stamp { hlc: self.clock, writer: who as u64 + 1 };
        Body::Name(Name { link, folder, name, rank, machine: format!("m{who}"), millis: 0 })
    }

    fn object(kind: ObjectKind) -> Body {
        Body::Object { kind, birth: Moment::default(), device: 0, target: Vec::new() }
    }

    fn write(&mut self, who: usize, file: u64, over: Vec<VersionId>) {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number().to_be_bytes());
        let id = VersionId(id);
        let mut covers: BTreeSet<_> = over.iter().copied().collect();
        covers.extend(over.iter().flat_map(|id| self.covers[id].clone()));
        let covers: Vec<_> = covers.into_iter().collect();
        for seen in &over {
            self.contents.get_mut(seen).unwrap().written_over = true;
        }
        self.contents.insert(id, Fate::default());
        self.covers.insert(id, covers.clone());
        let (machine, millis) = (format!("m{who}"), 0);
        let version =
            Version { id, covers, size: 0, holes: Vec::new(), machine, millis, source: None };
        self.say(who, Subject::File(file), Body::Version(version));
        let place = Place { version: id, base: None, changes: Vec::new(), base_size: None };
        self.say(who, Subject::File(file), Body::Place(place));
    }

    /// A copy that somebody acts on becomes a file of its own first; what stands where it does by
    /// living again, by a cut or by a conflict name gets a link that says so.
    fn pin(&mut self, who: usize, folder: u64, name: &[u8]) -> Entry {
        let (objects, tree) = self.tree(who);
        let entry = tree[&folder][name].clone();
        match (entry.subject, entry.link, entry.version) {
            (Subject::File(number), None, Some(version)) => {
                let has = |(_, object): &(&u64, &Object)| object.version(version).is_some();
                let (file, _) = objects.files.iter().find(has).unwrap();
                self.say(who, Subject::File(number), Self::object(ObjectKind::File));
                self.say(who, Subject::File(number), Body::Split { version, file: *file });
                let link = derive("copy link", &version.0, |_| false);
                let body = self.name(who, link, folder, name.to_vec());
                self.say(who, Subject::File(number), body);
                Entry { link: Some(link), ..entry }
            }
            (subject, Some(link), _) => {
                let object = match subject {
                    Subject::Folder(number) => &objects.folders[&number],
                    _ => &objects.files[&subject.number().unwrap()],
                };
                let recorded = &object.names[&link].value;
                let same = recorded.folder == folder && recorded.name == name;
                if same && !object.is_removed(link) {
                    return entry;
                }
                let stood = object.names[&link].stamp;
                let removed = object.removed_at(link);
                let link = if removed.is_some() { link_again(link) } else { link };
                let body = self.name(who, link, folder, name.to_vec());
                let stamp =
                    Stamp { hlc: removed.unwrap_or(stood).hlc + 1, ..removed.unwrap_or(stood) };
                let record = Record::new(subject, stamp, body);
                self.machines[who].records.push(record);
                Entry { link: Some(link), ..entry }
            }
            _ => entry,
        }
    }

    fn act(&mut self, who: usize, act: &Act) {
        let (_, tree) = self.tree(who);
        let folders: Vec<u64> = tree.keys().copied().collect();
        let folder = |at: usize| folders[at % folders.len()];
        let entries = |wanted: fn(&Subject) -> bool| -> Vec<(u64, Vec<u8>)> {
            let all = tree.iter().flat_map(|(folder, entries)| {
                entries.iter().map(move |(name, entry)| (*folder, name.clone(), entry.subject))
            });
            all.filter(|(_, _, s)| wanted(s)).map(|(folder, name, _)| (folder, name)).collect()
        };
        let files = entries(|subject| matches!(subject, Subject::File(_)));
        let subfolders = entries(|subject| matches!(subject, Subject::Folder(_)));
        let chosen =
            |of: &[(u64, Vec<u8>)], at: usize| (!of.is_empty()).then(|| of[at % of.len()].clone());
        match act {
            Act::Hear { from } => {
                let heard = self.machines[*from].records.clone();
                let known = &mut self.machines[who].records;
                known.extend(heard.into_iter().filter(|r| !known.contains(r)).collect::<Vec<_>>());
            }
            Act::Create { folder: at, name } => {
                let Some(name) = Self::free(&tree, folder(*at), *name) else { return };
                let number = self.number();
                self.pin_above(who, folder(*at));
                self.say(who, Subject::File(number), Self::object(ObjectKind::File));
                let body = self.name(who, number, folder(*at), name);
                self.say(who, Subject::File(number), body);
                self.write(who, number, Vec::new());
            }
            Act::Edit { file } => {
                let Some((folder, name)) = chosen(&files, *file) else { return };
                self.pin_above(who, folder);
                let entry = self.pin(who, folder, &name);
                let over = entry.version.into_iter().collect();
                self.write(who, entry.subject.number().unwrap(), over);
            }
            Act::Remove { file } => {
                let Some((folder, name)) = chosen(&files, *file) else { return };
                self.pin_above(who, folder);
                self.remove(who, folder, &name);
            }
            Act::Rename { file, folder: to, name: new } => {
                let Some((from, name)) = chosen(&files, *file) else { return };
                let Some(new) = Self::free(&tree, folder(*to), *new) else { return };
                self.pin_above(who, from);
                self.pin_above(who, folder(*to));
                let entry = self.pin(who, from, &name);
                let body = self.name(who, entry.link.unwrap(), folder(*to), new);
                self.say(who, entry.subject, body);
            }
            Act::MakeFolder { folder: at, name } => {
                let Some(name) = Self::free(&tree, folder(*at), *name) else { return };
                let number = self.number();
                self.pin_above(who, folder(*at));
                self.say(who, Subject::Folder(number), Self::object(ObjectKind::Folder));
                let body = self.name(who, number, folder(*at), name);
                self.say(who, Subject::Folder(number), body);
            }
            Act::MoveFolder { which, folder: to, name: new } => {
                let Some((from, name)) = chosen(&subfolders, *which) else { return };
                let Some(new) = Self::free(&tree, folder(*to), *new) else { return };
                let moved = tree[&from][&name].subject.number().unwrap();
                if is_below(&tree, folder(*to), moved) {
                    return;
                }
                self.pin_above(who, from);
                self.pin_above(who, folder(*to));
                let entry = self.pin(who, from, &name);
                let body = self.name(who, entry.link.unwrap(), folder(*to), new);
                self.say(who, entry.subject, body);
            }
            Act::RemoveFolder { which } => {
                let Some((from, name)) = chosen(&subfolders, *which) else { return };
                self.pin_above(who, from);
                self.remove_all(who, from, &name);
            }
        }
    }

    /// The folder that something is done in stands where it is shown.
    fn pin_above(&mut self, who: usize, folder: u64) {
        let (_, tree) = self.tree(who);
        if let Some((above, name)) = parent(&tree, folder) {
            self.pin(who, above, &name);
        }
    }

    fn remove(&mut self, who: usize, folder: u64, name: &[u8]) {
        // The copies beside it are other files to whoever removes this one.
        let (objects, tree) = self.tree(who);
        let entry = &tree[&folder][name];
        if let (Subject::File(number), Some(_)) = (entry.subject, entry.link) {
            let copies = objects.files[&number].shown().copies;
            let beside: Vec<_> = tree
                .iter()
                .flat_map(|(folder, entries)| {
                    entries.iter().map(move |(n, e)| (*folder, n.clone(), e.clone()))
                })
                .filter(|(_, _, e)| {
                    e.link.is_none() && copies.iter().any(|c| e.version == Some(*c))
                })
                .collect();
            for (folder, name, _) in beside {
                self.pin(who, folder, &name);
            }
        }
        let entry = self.pin(who, folder, name);
        let number = entry.subject.number().unwrap();
        let mut takes: BTreeSet<VersionId> = entry.version.into_iter().collect();
        takes.extend(entry.version.iter().flat_map(|id| self.covers[id].clone()));
        for seen in &takes {
            self.contents.get_mut(seen).unwrap().removed = true;
        }
        let takes = takes.into_iter().collect();
        let (objects, _) = self.tree(who);
        if let Some(live) = objects.files[&number].shown().links.first() {
            let (link, machine, millis) = (live.link, format!("m{who}"), 0);
            let removal = Removal { link, last: true, takes, machine, millis };
            self.say(who, Subject::File(number), Body::Removal(removal));
        }
    }

    fn remove_all(&mut self, who: usize, folder: u64, name: &[u8]) {
        // What is emptied would go by itself, if it lived only by what is in it.
        self.pin(who, folder, name);
        let (_, tree) = self.tree(who);
        let number = tree[&folder][name].subject.number().unwrap();
        loop {
            let (_, tree) = self.tree(who);
            let Some((inside, entry)) = tree[&number].first_key_value() else { break };
            match entry.subject {
                Subject::Folder(_) => self.remove_all(who, number, &inside.clone()),
                _ => self.remove(who, number, &inside.clone()),
            }
        }
        self.pin(who, folder, name);
        let (objects, _) = self.tree(who);
        let links: Vec<_> = objects.folders[&number].names.keys().copied().collect();
        for link in links {
            let (machine, millis) = (format!("m{who}"), 0);
            let removal = Removal { link, last: true, takes: Vec::new(), machine, millis };
            self.say(who, Subject::Folder(number), Body::Removal(removal));
        }
    }
}

fn parent(tree: &Tree, folder: u64) -> Option<(u64, Vec<u8>)> {
    tree.iter().find_map(|(above, entries)| {
        let of = |entry: &Entry| entry.subject == Subject::Folder(folder);
        let (name, _) = entries.iter().find(|(_, entry)| of(entry))?;
        Some((*above, name.clone()))
    })
}

fn is_below(tree: &Tree, folder: u64, ancestor: u64) -> bool {
    let mut at = folder;
    loop {
        if at == ancestor {
            return true;
        }
        match parent(tree, at) {
            Some((above, _)) => at = above,
            None => return false,
        }
    }
}

/// All that is reached from the root, by content.
fn reached(tree: &Tree) -> BTreeMap<VersionId, Vec<(u64, Vec<u8>)>> {
    let (mut open, mut found) = (vec![ROOT], BTreeMap::<_, Vec<_>>::new());
    while let Some(folder) = open.pop() {
        for (name, entry) in &tree[&folder] {
            if let Subject::Folder(number) = entry.subject {
                open.push(number);
            }
            if let Some(version) = entry.version {
                found.entry(version).or_default().push((folder, name.clone()));
            }
        }
    }
    found
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    vec((0..3usize, act()), 1..40)
}

/// What all machines of a company have said, after some acts.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Record>> {
    acts().prop_map(|acts| everything(&acts).1)
}

fn everything(acts: &[(usize, Act)]) -> (Company, Vec<Record>) {
    let mut company = Company::new();
    for (who, act) in acts {
        company.act(*who, act);
    }
    for from in 0..3 {
        company.act(0, &Act::Hear { from });
    }
    let records = company.machines[0].records.clone();
    (company, records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No edit is lost to a removal or another edit that had not seen it; what was seen and
    /// removed, or written over, is gone.
    #[test]
    fn every_content_is_where_its_people_left_it(acts in acts()) {
        let (company, records) = everything(&acts);
        let shown = reached(&Objects::of(&records).tree());
        for (id, fate) in &company.contents {
            let names = shown.get(id).cloned().unwrap_or_default();
            if fate.written_over {
                prop_assert!(names.is_empty(), "{id:?} was written over, and is at {names:?}");
            } else if fate.removed {
                prop_assert!(names.is_empty(), "{id:?} was removed, and is at {names:?}");
            } else {
                prop_assert!(names.len() == 1, "{id:?} is at {names:?}");
            }
        }
    }

    /// The order of arrival, and what arrives twice, change nothing.
    #[test]
    fn the_tree_is_a_function_of_the_set(
        acts in acts(),
        order in Just(()).prop_perturb(|(), mut rng| rng.random::<u64>()),
    ) {
        let (company, records) = everything(&acts);
        let mut shuffled: Vec<_> = records.iter().chain(&records).collect();
        shuffled.sort_by_key(|record| {
            let bytes = [record.encode(), order.to_be_bytes().to_vec()].concat();
            digest(&SHA256, &bytes).as_ref().to_vec()
        });
        let other = Objects::of(shuffled);
        prop_assert_eq!(other.tree(), company.tree(0).1);
    }
}
