//! Folders at the top that stand for something at the service.
//!
//! Like the folder of a discovered file, such a folder has a number that every machine
//! derives from its name, and is no record of the catalog before somebody puts something
//! into it: several machines that make it at the same time make the same one.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::discover::{Owner, attach_shadow, shadow};
use super::hlc::Stamp;
use super::merge::derived_number;
use super::record::{Ino, Kind, ROOT_INO, Time};
use super::tree::{CatalogResult, Tree, check_name};
use super::txn::Stale;

/// Which folder is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TopFolder<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Of several with this name, the one that it was so far.
    pub before: Option<Ino>,
    /// Folders that stand for something else.
    pub except: &'a BTreeSet<Ino>,
    /// Who owns it, if it is made.
    pub owner: Owner,
    /// Since when it is there, if it is made.
    pub created: Time,
}

impl Tree {
    /// The folder of a name at the top, made if it is missing; `None` if something else has
    /// that name. A folder that somebody made goes before one that only stands here by
    /// itself, and of those an empty one is dropped: it would be shown as a conflict.
    pub fn top_folder(&self, wanted: TopFolder<'_>) -> CatalogResult<Option<(Ino, Vec<Stale>)>> {
        let TopFolder { name, before, except, owner, created } = wanted;
        check_name(name)?;
        let mut txn = self.begin();
        let links = txn.entry(ROOT_INO, name)?.links;
        if let Some(first) = links.first() {
            if first.kind != Kind::Dir {
                return Ok(None);
            }
            let mut found = Vec::new();
            for (rank, link) in links.iter().enumerate().filter(|(_, l)| l.kind == Kind::Dir) {
                let made = !txn.inode(link.ino)?.local.foreign;
                found.push(((made, before == Some(link.ino), Reverse(rank)), link.ino));
            }
            found.retain(|(_, ino)| !except.contains(ino));
            let Some((_, chosen)) = found.iter().max().copied() else { return Ok(None) };
            let mut stale = Vec::new();
            for ((made, ..), ino) in found {
                if ino != chosen && !made && !self.has_entries(ino)? {
                    if let Some(link) = txn.find_link(ino)? {
                        txn.detach(&link)?;
                        txn.remove_link(ino);
                    }
                    txn.remove_inode(ino);
                    stale.push(Stale::Inode { ino, data: false });
                }
            }
            if !stale.is_empty() {
                stale.extend(txn.commit()?);
            }
            return Ok(Some((chosen, stale)));
        }
        if txn.lookup(ROOT_INO, name)?.is_some() {
            return Ok(None); // what is shown so because it lost its own name
        }
        let path = [b"/", name].concat();
        for domain in ["discovered-folder", "top-folder"] {
            let number = derived_number(self, domain, &path);
            // One that was moved away is somebody's folder by now.
            if txn.find_inode(number)?.is_none_or(|inode| inode.local.nlink == 0) {
                let stamp = Stamp { hlc: 1, writer: 0 };
                txn.put_inode(shadow(number, Kind::Dir, stamp, created, owner));
                attach_shadow(&mut txn, number, Kind::Dir, ROOT_INO, name.to_vec(), stamp)?;
                let mut stale = txn.commit()?;
                stale.push(Stale::Inode { ino: ROOT_INO, data: true });
                return Ok(Some((number, stale)));
            }
        }
        Ok(None)
    }
}
