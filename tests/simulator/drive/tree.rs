//! Paths and trees, as a machine shows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use privicorefs::vfs::{Attr, Caller, DirEntry, Ino, Kind, ROOT_INO, Vfs, VfsError, VfsResult};

use super::super::company::{Entry, Stamp, View, What};
use super::{World, acts, cells, cells_of};

/// Root, and nobody's process.
pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0, umask: 0 };

/// Folders within folders, at most: a tree that is deeper goes round in a circle.
const DEEPEST: usize = 40;

const TOKEN: &[u8] = b"user.privicore.token";
const STATE: &[u8] = b"user.privicore.state";

/// A name in a folder, as the kernel looks it up.
pub fn child(vfs: &Vfs, dir: Ino, name: &[u8]) -> VfsResult<Attr> {
    vfs.lookup(dir, name)
}

/// What a path leads to.
pub fn resolve(vfs: &Vfs, path: &str) -> VfsResult<Attr> {
    let mut at = vfs.getattr(ROOT_INO)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if at.kind != Kind::Dir {
            return Err(VfsError::NotDir { what: path.to_owned() });
        }
        at = child(vfs, at.ino, name.as_bytes())?;
    }
    Ok(at)
}

/// The folder that a path's last component is in, and that component.
pub fn parent<'p>(vfs: &Vfs, path: &'p str) -> VfsResult<(Ino, &'p [u8])> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let found = resolve(vfs, folder)?;
    match found.kind {
        Kind::Dir => Ok((found.ino, name.as_bytes())),
        _ => Err(VfsError::NotDir { what: folder.to_owned() }),
    }
}

/// What stands at a path.
pub fn what(vfs: &Vfs, path: &str) -> What {
    let attr = match resolve(vfs, path) {
        Ok(attr) => attr,
        Err(VfsError::NotFound { .. } | VfsError::NotDir { .. }) => return What::Absent,
        Err(error) => return What::Odd { why: error.to_string() },
    };
    what_attr(vfs, &attr)
}

/// What an open file is.
pub fn what_ino(vfs: &Vfs, ino: Ino) -> What {
    match vfs.getattr(ino) {
        Ok(attr) => what_attr(vfs, &attr),
        Err(error) => What::Odd { why: error.to_string() },
    }
}

fn what_attr(vfs: &Vfs, attr: &Attr) -> What {
    match attr.kind {
        Kind::File => What::File { size: cells_of(attr.size), token: token(vfs, attr.ino) },
        Kind::Dir => What::Dir { made: number(vfs, attr.ino, acts::MADE) },
        Kind::Symlink => What::Symlink { made: target(vfs, attr.ino) },
        other => What::Odd { why: format!("{other:?}") },
    }
}

fn token(vfs: &Vfs, ino: Ino) -> Option<String> {
    vfs.getxattr(ino, TOKEN).ok().and_then(|token| String::from_utf8(token).ok())
}

fn number(vfs: &Vfs, ino: Ino, name: &[u8]) -> Option<Stamp> {
    let value = vfs.getxattr(ino, name).ok()?;
    Some(Stamp::from_le_bytes(value.try_into().ok()?))
}

fn target(vfs: &Vfs, ino: Ino) -> Option<Stamp> {
    String::from_utf8(vfs.readlink(ino).ok()?).ok()?.parse().ok()
}

/// The names in a folder, sorted.
fn list(vfs: &Vfs, dir: Ino) -> VfsResult<Vec<(Vec<u8>, Ino, Kind)>> {
    let fh = vfs.opendir(dir)?.fh;
    let mut found = Vec::new();
    let mut offset = 0;
    loop {
        let before = found.len();
        vfs.readdir(fh, offset, false, &mut |entry: &DirEntry| {
            offset = entry.offset;
            found.push((entry.name.clone(), entry.ino, entry.kind));
            false
        })?;
        if found.len() == before {
            break;
        }
    }
    vfs.releasedir(fh)?;
    found.retain(|(name, _, _)| name != b"." && name != b"..");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Everything that a tree shows, contents read.
pub async fn view(vfs: &Arc<Vfs>) -> Result<View, String> {
    let mut view = View::new();
    let mut folders = vec![(ROOT_INO, String::new(), 0)];
    while let Some((dir, path, depth)) = folders.pop() {
        if depth > DEEPEST {
            return Err(format!("{path:?}: folders without an end"));
        }
        let names = list(vfs, dir).map_err(|error| format!("{path:?}: {error}"))?;
        let mut seen = BTreeSet::new();
        for (name, ino, kind) in names {
            let name = String::from_utf8_lossy(&name).into_owned();
            if !seen.insert(name.clone()) {
                return Err(format!("{path:?}: two names are {name:?}"));
            }
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if kind == Kind::Dir {
                folders.push((ino, path.clone(), depth + 1));
            }
            let entry = entry(vfs, ino).await;
            view.insert(path, entry);
        }
    }
    Ok(view)
}

async fn entry(vfs: &Arc<Vfs>, ino: Ino) -> Entry {
    let attr = match vfs.getattr(ino) {
        Ok(attr) => attr,
        Err(error) => return Entry::Unreadable { why: error.to_string(), damaged: false },
    };
    let (perm, xattr) = (attr.perm, number(vfs, ino, b"user.x"));
    match attr.kind {
        Kind::Dir => Entry::Dir { made: number(vfs, ino, acts::MADE), perm, xattr },
        Kind::Symlink => Entry::Symlink { made: target(vfs, ino) },
        _ => match acts::read(vfs, ino).await {
            Ok(bytes) if bytes.len() as u64 == attr.size => Entry::File {
                content: cells::content(&bytes),
                perm,
                xattr,
                links: attr.nlink,
                token: token(vfs, ino),
            },
            Ok(bytes) => {
                let why = format!("{} bytes of {}", bytes.len(), attr.size);
                Entry::Unreadable { why, damaged: false }
            }
            Err(error) => {
                let state = vfs.getxattr(ino, STATE).unwrap_or_default();
                let damaged = state.starts_with(b"damaged");
                Entry::Unreadable { why: error.to_string(), damaged }
            }
        },
    }
}

impl World {
    /// Whether a machine's tree names a token, or a part list that names it.
    pub(super) fn names(&self, at: usize, token: &str) -> bool {
        let running = self.machines.get(at).and_then(|machine| machine.running.as_ref());
        let Some(running) = running else { return false };
        let vfs = &running.vfs;
        let mut folders = vec![(ROOT_INO, 0)];
        while let Some((dir, depth)) = folders.pop() {
            for (_, ino, kind) in list(vfs, dir).unwrap_or_default() {
                match kind {
                    Kind::Dir if depth < DEEPEST => folders.push((ino, depth + 1)),
                    Kind::File => {
                        if let Some(found) = self::token(vfs, ino)
                            && (found == token
                                || self.service.parts_of(&found).iter().any(|part| part == token))
                        {
                            return true;
                        }
                    }
                    _ => {}
                }
            }
        }
        false
    }
}

/// The name without ` (conflict MACHINE YYYY-MM-DD HHMM)` and the number that may follow, once
/// or several times.
pub fn original_name(name: &str) -> Option<String> {
    let mut rest = name.to_owned();
    while let Some(at) = rest.find(" (conflict ") {
        let end = at + rest[at..].find(')')? + 1;
        let behind = rest[end..].strip_prefix(' ').unwrap_or_default();
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let number = if digits > 0 { 1 + digits } else { 0 };
        rest.replace_range(at..end + number, "");
    }
    (rest != name).then_some(rest)
}
