//! What a machine shows, compared with the model.

use std::sync::Arc;

use privicorefs::vfs::{DirEntry, Kind, ROOT_INO, Vfs};

use super::READ;
use super::tree::{Model, Node};

/// What a path leads to; it must be there.
pub(super) fn ino(vfs: &Vfs, path: &str) -> u64 {
    let parts = path.split('/').filter(|p| !p.is_empty());
    parts.fold(ROOT_INO, |dir, name| vfs.lookup(dir, name.as_bytes()).unwrap().ino)
}

fn list(vfs: &Vfs, ino: u64) -> Vec<(String, Kind)> {
    let fh = vfs.opendir(ino).unwrap().fh;
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        // A few at a time, so that cookies are put to use.
        let mut got = 0;
        vfs.readdir(fh, offset, true, &mut |entry: &DirEntry| {
            if got == 3 {
                return true;
            }
            got += 1;
            offset = entry.offset;
            if entry.name != b"." && entry.name != b".." {
                names.push((String::from_utf8(entry.name.clone()).unwrap(), entry.kind));
            }
            false
        })
        .unwrap();
        if got == 0 {
            break;
        }
    }
    vfs.releasedir(fh).unwrap();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names
}

async fn read(vfs: &Arc<Vfs>, ino: u64) -> Vec<u8> {
    let fh = vfs.open_file(ino, READ).unwrap().fh;
    let size = vfs.getattr(ino).unwrap().size;
    let mut out = Vec::new();
    while (out.len() as u64) < size {
        let at = out.len() as u64;
        let piece = match vfs.try_read(fh, at, 50_000).unwrap() {
            Some(piece) => piece,
            None => vfs.clone().read(fh, at, 50_000).await.unwrap(),
        };
        assert!(!piece.is_empty(), "a short read at {at} of {size}");
        out.extend(piece);
    }
    vfs.release(fh).unwrap();
    out
}

/// Compares every name, attribute and content with the model.
pub(super) async fn compare(vfs: &Arc<Vfs>, model: &Model) {
    for (path, node) in model.walk() {
        let ino = self::ino(vfs, &path);
        let attr = vfs.getattr(ino).unwrap();
        match &model.nodes[node] {
            Node::Dir { names, perm } => {
                assert_eq!((attr.kind, attr.perm), (Kind::Dir, *perm), "{path}");
                let listed: Vec<_> = list(vfs, ino).into_iter().map(|(n, _)| n).collect();
                let expected: Vec<_> = names.keys().cloned().collect();
                assert_eq!(listed, expected, "in {path:?}");
                let dirs =
                    names.values().filter(|n| matches!(model.nodes[**n], Node::Dir { .. })).count();
                assert_eq!(attr.nlink as usize, 2 + dirs, "nlink of {path:?}");
            }
            Node::File { bytes, perm, xattr } => {
                assert_eq!((attr.kind, attr.perm), (Kind::File, *perm), "{path}");
                assert_eq!(attr.size, bytes.len() as u64, "size of {path:?}");
                assert_eq!(attr.nlink as usize, model.links(node), "nlink of {path:?}");
                let content = read(vfs, ino).await;
                if let Some(at) = (0..bytes.len()).find(|&i| content[i] != bytes[i]) {
                    panic!("{path:?} differs at {at}: {} != {}", content[at], bytes[at]);
                }
                let got = vfs.getxattr(ino, b"user.x").ok();
                assert_eq!(got, xattr.map(|v| vec![v]), "xattr of {path:?}");
            }
            Node::Symlink => {
                assert_eq!(vfs.readlink(ino).unwrap(), b"tar get", "{path}");
            }
        }
    }
}
