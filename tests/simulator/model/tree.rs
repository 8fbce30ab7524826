//! The model: a tree in memory, as simple as can be.

use std::collections::BTreeMap;

/// What a file is, in the model; directories hold numbers of nodes.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File { bytes: Vec<u8>, perm: u16, xattr: Option<u8> },
    Dir { names: BTreeMap<String, usize>, perm: u16 },
    Symlink,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) nodes: Vec<Node>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::Dir { names: BTreeMap::new(), perm: 0o755 }] }
    }

    pub(super) fn names(&self, dir: usize) -> &BTreeMap<String, usize> {
        match &self.nodes[dir] {
            Node::Dir { names, .. } => names,
            _ => panic!("not a directory"),
        }
    }

    pub(super) fn names_mut(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.nodes[dir] {
            Node::Dir { names, .. } => names,
            _ => panic!("not a directory"),
        }
    }

    /// Every reachable (path, node), the root first.
    pub(super) fn walk(&self) -> Vec<(String, usize)> {
        let mut all = vec![(String::new(), 0)];
        let mut at = 0;
        while at < all.len() {
            let (path, node) = all[at].clone();
            if let Node::Dir { names, .. } = &self.nodes[node] {
                all.extend(names.iter().map(|(n, i)| (format!("{path}/{n}"), *i)));
            }
            at += 1;
        }
        all
    }

    pub(super) fn pick(
        &self,
        index: usize,
        want: impl Fn(&Node) -> bool,
    ) -> Option<(String, usize)> {
        let mut all = self.walk();
        all.retain(|(_, node)| want(&self.nodes[*node]));
        (!all.is_empty()).then(|| all[index % all.len()].clone())
    }

    pub(super) fn dir(&self, index: usize) -> (String, usize) {
        self.pick(index, |n| matches!(n, Node::Dir { .. })).unwrap()
    }

    pub(super) fn file(&self, index: usize) -> Option<(String, usize)> {
        self.pick(index, |n| matches!(n, Node::File { .. }))
    }

    pub(super) fn links(&self, node: usize) -> usize {
        self.walk().iter().filter(|(_, n)| *n == node).count()
    }
}
