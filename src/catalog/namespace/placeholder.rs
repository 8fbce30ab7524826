//! What only a listing shows: files of other clients, and the folders that exist by them
//! (docs/format.md, 9).
//!
//! Such an object is a row like any, but that every machine derives it, and that nothing of it
//! is published before somebody acts on it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::show::OTHERS;
use super::tree::{CatalogResult, Tree, check_name};
use super::txn::{Stale, Txn};
use crate::catalog::conflict::object::{Attributes, Held, Nature, Object, Origin, Others, Times};
use crate::catalog::format::names::derive;
use crate::catalog::format::record::{Name, ObjectKind};
use crate::catalog::format::{Stamp, Subject, VersionId};
use crate::catalog::local::inode::{Ino, Kind, ROOT_INO, Time};
use crate::catalog::local::row::Row;
use crate::catalog::local::schema;
use crate::db::{Space, encode};
use crate::store::{RiskMeta, Token};

/// Who owns what other clients made.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits that it does not get.
    pub umask: u16,
}

/// Permission bits of another client's file: what is in it may be anything.
const FILE_MODE: u16 = 0o600;

/// The number of another client's file.
pub fn number_of(token: &Token) -> Ino {
    derive("other", token.as_str().as_bytes(), |_| false)
}

fn link_of(token: &Token) -> u64 {
    derive("other link", token.as_str().as_bytes(), |_| false)
}

/// Which folder at the top is asked for.
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

impl Txn<'_> {
    /// The folder of these names, made where it does not exist.
    pub fn folder_of(
        &mut self,
        names: &[Vec<u8>],
        owner: Owner,
        created: Time,
    ) -> CatalogResult<Ino> {
        let (mut parent, mut path) = (ROOT_INO, Vec::new());
        for name in names {
            path.push(b'/');
            path.extend_from_slice(name);
            if let Some(entry) = self.lookup(parent, name)?
                && entry.kind == Kind::Dir
            {
                parent = entry.ino;
                continue;
            }
            let number = derive("folder", &path, |_| false);
            self.show_folder_at(number, (parent, name), owner, created)?;
            parent = number;
        }
        Ok(parent)
    }

    /// A folder that exists only by what is in it; not one that somebody has made or moved since.
    fn show_folder_at(
        &mut self,
        number: Ino,
        (parent, name): (Ino, &[u8]),
        owner: Owner,
        created: Time,
    ) -> CatalogResult<()> {
        let before = self.find_row(number)?;
        let (standings, holdings) = match &before {
            Some(row) if row.object.nature.is_some() => return Ok(()),
            Some(row) => (row.standings.clone(), row.holdings.clone()),
            None => Default::default(),
        };
        let mode = 0o755 & !owner.umask;
        let mut row =
            placeholder((Subject::Folder(number), number), (parent, name), (owner, mode), created);
        (row.standings, row.holdings) = (standings, holdings);
        self.put_row(number, row);
        self.show(number)
    }

    /// Shows another client's token; false if it is shown, or was acted on, already.
    pub fn show_token(
        &mut self,
        token: &Token,
        (parent, name): (Ino, &[u8]),
        owner: Owner,
        created: Time,
        size: u64,
    ) -> CatalogResult<bool> {
        let number = number_of(token);
        if self.find_row(number)?.is_some_and(|row| row.object.nature.is_some()) {
            return Ok(false);
        }
        let mode = FILE_MODE & !owner.umask;
        let mut row = placeholder(
            (Subject::File(number), link_of(token)),
            (parent, name),
            (owner, mode),
            created,
        );
        let value = Others { token: token.clone(), reference: None };
        row.object.others = Some(Held { stamp: Stamp::ZERO, origin: Origin::Derived, value });
        row.local.listed_size = size;
        self.put_row(number, row);
        let tag = self.tree.token_tag(token);
        let key = schema::token(&tag, number, VersionId::default());
        self.raw(Space::Meta, key, Some(encode(&())));
        self.show(number)?;
        self.stale.push(Stale::Inode { ino: parent, data: true });
        Ok(true)
    }

    /// Notes the risk meta that a listing gives for what only it shows.
    pub fn set_listed_risk(&mut self, ino: Ino, risk: &RiskMeta) -> CatalogResult<()> {
        let mut row = self.row(ino)?;
        let Some(mut inode) = row.inode(ino) else { return Ok(()) };
        inode.set_risk(risk);
        let (stamp, origin) = (Stamp::ZERO, Origin::Derived);
        let given = inode.xattrs.into_iter();
        row.object.xattrs =
            given.map(|(name, value)| (name, Held { stamp, origin, value: Some(value) })).collect();
        row.local.risk_seen = Some((risk.clone(), risk.clone()));
        self.put_row(ino, row);
        Ok(())
    }

    /// Takes away what only a listing showed.
    pub fn hide(&mut self, ino: Ino) -> CatalogResult<()> {
        let Some(mut row) = self.find_row(ino)?.filter(Row::is_derived) else { return Ok(()) };
        let others = row.object.others.clone();
        row.object = Object::default();
        self.put_row(ino, row);
        self.show_nothing(ino)?;
        self.remove_row(ino);
        if let Some(others) = others {
            let tag = self.tree.token_tag(&others.value.token);
            self.raw(Space::Meta, schema::token(&tag, ino, VersionId::default()), None);
            if let Some(id) = others.value.version() {
                self.raw(Space::Meta, schema::token(&tag, ino, id), None);
            }
        }
        self.stale.push(Stale::Inode { ino, data: true });
        Ok(())
    }
}

impl Tree {
    /// The folder of a name at the top, made if it is missing; `None` if something else has
    /// that name. A folder that somebody made goes before one that only stands here by
    /// itself, and of those an empty one is dropped: it would be shown as a conflict.
    pub fn top_folder(&self, wanted: TopFolder<'_>) -> CatalogResult<Option<(Ino, Vec<Stale>)>> {
        let TopFolder { name, before, except, owner, created } = wanted;
        check_name(name)?;
        let mut txn = self.begin();
        let claims = txn.entry(ROOT_INO, name)?.claims;
        if let Some(first) = claims.first() {
            if first.kind != Kind::Dir {
                return Ok(None);
            }
            let mut found = Vec::new();
            for (rank, claim) in claims.iter().enumerate().filter(|(_, c)| c.kind == Kind::Dir) {
                let made = !txn.inode(claim.ino)?.local.foreign;
                found.push(((made, before == Some(claim.ino), Reverse(rank)), claim.ino));
            }
            found.retain(|(_, ino)| !except.contains(ino));
            let Some((_, chosen)) = found.iter().max().copied() else { return Ok(None) };
            let mut dropped = false;
            for ((made, ..), ino) in found {
                if ino != chosen && !made && txn.row(ino)?.holdings.entries == 0 {
                    txn.hide(ino)?;
                    dropped = true;
                }
            }
            let stale = if dropped { txn.commit()? } else { Vec::new() };
            return Ok(Some((chosen, stale)));
        }
        if txn.lookup(ROOT_INO, name)?.is_some() {
            return Ok(None); // what is shown so because it lost its own name
        }
        let path = [b"/", name].concat();
        for domain in ["folder", "top folder"] {
            let number = derive(domain, &path, |_| false);
            // One that was moved away is somebody's folder by now.
            if txn.find_inode(number)?.is_none_or(|inode| inode.local.nlink == 0) {
                let mode = 0o755 & !owner.umask;
                let of = (Subject::Folder(number), number);
                let mut row = placeholder(of, (ROOT_INO, name), (owner, mode), created);
                if let Some(now) = txn.find_row(number)? {
                    (row.standings, row.holdings) = (now.standings, now.holdings);
                    if now.object.nature.is_some() {
                        continue; // it was removed, which is remembered
                    }
                }
                txn.put_row(number, row);
                txn.show(number)?;
                let mut stale = txn.commit()?;
                stale.push(Stale::Inode { ino: ROOT_INO, data: true });
                return Ok(Some((number, stale)));
            }
        }
        Ok(None)
    }
}

fn placeholder(
    (subject, link): (Subject, u64),
    (folder, name): (Ino, &[u8]),
    (owner, mode): (Owner, u16),
    created: Time,
) -> Row {
    let (stamp, origin) = (Stamp::ZERO, Origin::Derived);
    let number = subject.number().unwrap_or_default();
    let (kind, link) = match subject {
        Subject::Folder(_) => (ObjectKind::Folder, number),
        // docs/format.md, 6.8
        _ => (ObjectKind::File, link),
    };
    let nature = Nature { kind, birth: created, device: 0, target: Vec::new() };
    let attributes = Attributes { mode, owner: owner.uid, group: owner.gid, changed: created };
    let times = Times { access: created, modification: created };
    let name = Name {
        link,
        folder,
        name: name.to_vec(),
        rank: stamp,
        machine: OTHERS.to_owned(),
        millis: 0,
    };
    let object = Object {
        nature: Some(Held { stamp, origin, value: nature }),
        attributes: Some(Held { stamp, origin, value: attributes }),
        times: Some(Held { stamp, origin, value: times }),
        names: BTreeMap::from([(link, Held { stamp, origin, value: name })]),
        ..Object::default()
    };
    Row { object, ..Row::of(subject) }
}
