//! What an upload leaves behind, here and in the vault.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Attr, Caller, Durability, OpenMode, Opened, ROOT_INO, Shown, Vfs, VfsConfig, VfsError,
};
use crate::catalog::Version;
use crate::catalog::local::schema;
use crate::crypto::MasterKey;
use crate::env::doubles::seeded_env;
use crate::store::{MemoryStore, Token};

const PART: u64 = 64 << 10;

async fn open(dir: &Path, store: &Arc<MemoryStore>) -> Arc<Vfs> {
    let config = VfsConfig {
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
        cache_limit: 1 << 30,
        cache_floor: 0,
        staging_limit: 1 << 30,
        memory: 16 << 20,
        split_above: Some(2 * PART),
        part_size: PART,
        durability: Durability::Fsync,
        trash_days: None,
        local_names: Vec::new(),
        parallel: 2,
        deadline: Duration::from_secs(5),
        approval_timeout: Duration::from_secs(5),
        poll_interval: Duration::ZERO,
        read_only: false,
        shown: Shown::default(),
        default_uid: 0,
        default_gid: 0,
        machine_name: Some("den".into()),
        new_catalog: false,
    };
    let key = MasterKey::from_bytes([7; 32]);
    Vfs::open(config, store.clone(), key, seeded_env(1)).await.unwrap()
}

fn make(vfs: &Vfs, name: &str) -> (Attr, Opened) {
    let mode = OpenMode { read: true, write: true, ..OpenMode::default() };
    vfs.create(&Caller::default(), ROOT_INO, name.as_bytes(), 0o644, mode).unwrap()
}

async fn save(vfs: &Arc<Vfs>, fh: u64, offset: u64, data: &[u8]) {
    vfs.clone().write(fh, offset, data.to_vec()).await.unwrap();
    vfs.clone().fsync(fh, false).await.unwrap();
}

fn version(vfs: &Vfs, ino: u64) -> Version {
    vfs.tree.inode(ino).unwrap().content.version.clone()
}

fn vfs_disk() -> Arc<dyn crate::env::disk::Disk> {
    crate::env::Env::system().disk
}

/// The tokens of contents: whole ones, part lists and parts.
fn tokens(store: &MemoryStore) -> Vec<Token> {
    let is_catalog = |context: &str| context.ends_with("/log") || context.ends_with("/checkpoint");
    let contents = store.records().into_iter().filter(|record| !is_catalog(&record.context));
    contents.map(|record| record.token).collect()
}

fn garbage(vfs: &Vfs) -> usize {
    let mut rows = 0;
    let counted = vfs.tree.db().scan(schema::GARBAGE, schema::GARBAGE, |_, _| {
        rows += 1;
        Ok(true)
    });
    counted.unwrap();
    rows
}

/// What a save took the place of is kept, with its parts; a part that both have is stored once.
#[tokio::test]
async fn an_old_version_is_kept_and_a_part_of_both_is_stored_once() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let vfs = open(dir.path(), &store).await;
    let (small, opened) = make(&vfs, "small");
    save(&vfs, opened.fh, 0, b"one").await;
    let first = version(&vfs, small.ino);
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (1, 0));
    save(&vfs, opened.fh, 0, b"two").await;
    vfs.clone().tidy().await;
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (2, 0));
    assert_ne!(version(&vfs, small.ino), first);

    let (large, opened) = make(&vfs, "large");
    let mut data = vec![1; 4 * PART as usize];
    data[PART as usize..2 * PART as usize].fill(0);
    save(&vfs, opened.fh, 0, &data).await;
    // three parts, for the one of zeros is not stored, and their list
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (2 + 4, 0));
    save(&vfs, opened.fh, 0, b"other").await;
    vfs.clone().tidy().await;
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (2 + 6, 0));
    data[..5].copy_from_slice(b"other");
    let Version::Parts(list) = version(&vfs, large.ino) else { panic!("not split") };
    assert_eq!(vfs.part_header(&list).unwrap().unwrap().count, 4);
    assert_eq!(vfs.part(&list, 1).unwrap(), Some(None));
    vfs.release(opened.fh).unwrap();
    drop(vfs);

    vfs_disk().remove_dir_all(&dir.path().join("cache")).unwrap();
    let vfs = open(dir.path(), &store).await;
    let read = OpenMode { read: true, ..OpenMode::default() };
    let opened = vfs.open_file(large.ino, read).unwrap();
    let got = vfs.clone().read(opened.fh, 0, 4 * PART as u32).await.unwrap();
    assert!(got == data);
}

/// Until the catalog names it, a token is garbage that an upload under way still holds.
#[tokio::test]
async fn a_token_that_is_about_to_be_named_is_not_deleted() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let vfs = open(dir.path(), &store).await;
    let (_, opened) = make(&vfs, "file");
    save(&vfs, opened.fh, 0, b"content").await;
    let token = tokens(&store).remove(0);
    let mut mark = super::status::LiveMark::new("mark", &vfs.counters);
    let stray = Token::new("stray");
    mark.keep(&stray);
    for token in [&token, &stray] {
        vfs.discard_now(token).unwrap();
    }
    vfs.clone().tidy().await;
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (1, 1), "the named one stays");
    drop(mark);
    vfs.counters.looked.store(false, Ordering::Relaxed);
    vfs.clone().tidy().await;
    assert_eq!(garbage(&vfs), 1, "not before a look");
    vfs.counters.looked.store(true, Ordering::Relaxed);
    vfs.clone().tidy().await;
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (1, 0));
}

/// Another payload under the token is refused, though it opens with the key.
#[tokio::test]
async fn only_what_was_stored_is_read() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let vfs = open(dir.path(), &store).await;
    let (attr, opened) = make(&vfs, "file");
    save(&vfs, opened.fh, 0, b"content").await;
    let Version::Whole(reference) = version(&vfs, attr.ino) else { panic!("not whole") };
    vfs.fetcher.forget(&reference);
    let genuine = store.payload(&reference.token).unwrap();
    let other = Bytes::from(vfs.remote.cipher.seal(b"CONTENT"));
    assert!(store.tamper(&reference.token, other));
    let refused = vfs.clone().read(opened.fh, 0, 7).await.unwrap_err();
    assert!(matches!(&refused, VfsError::Corrupt { .. }), "{refused}");
    assert!(store.tamper(&reference.token, genuine));
    assert_eq!(vfs.clone().read(opened.fh, 0, 7).await.unwrap(), b"content");
}

/// What was recorded before the upload is what it becomes, and what it covers.
#[tokio::test]
async fn a_content_becomes_the_version_that_was_recorded() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let vfs = open(dir.path(), &store).await;
    let (attr, opened) = make(&vfs, "file");
    for content in [b"one", b"two"] {
        vfs.clone().write(opened.fh, 0, content.to_vec()).await.unwrap();
        vfs.clone().flush(opened.fh).await.unwrap();
        vfs.clone().flush(opened.fh).await.unwrap();
    }
    let recorded = vfs.tree.inode(attr.ino).unwrap().local.dirty.clone().unwrap();
    assert_eq!(recorded.recorded.len(), 2);
    vfs.release(opened.fh).unwrap();
    drop(vfs);
    let vfs = open(dir.path(), &store).await;
    let opened = vfs.open_file(attr.ino, OpenMode { write: true, ..OpenMode::default() }).unwrap();
    vfs.clone().fsync(opened.fh, false).await.unwrap();
    let inode = vfs.tree.inode(attr.ino).unwrap();
    assert_eq!(inode.content.id, recorded.recorded.last().copied());
    assert_eq!((inode.content.stamp, &inode.local.dirty), (recorded.stamp, &None));
    let row = vfs.tree.find_row(attr.ino).unwrap().unwrap();
    let held = row.object.version(recorded.recorded[1]).unwrap().value.clone();
    assert!(held.covers.contains(&recorded.recorded[0]) && held.machine == "den");
    assert!(!held.covers.contains(&held.id));
}

/// What was removed here and is still open is not seen to live because somebody writes to it.
#[tokio::test]
async fn what_was_removed_does_not_come_back_by_an_upload() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let vfs = open(dir.path(), &store).await;
    let (attr, opened) = make(&vfs, "file");
    save(&vfs, opened.fh, 0, b"content").await;
    vfs.unlink(ROOT_INO, b"file").unwrap();
    save(&vfs, opened.fh, 0, b"CONTENT").await;
    assert_eq!(tokens(&store).len(), 1);
    assert_eq!(vfs.left(), (0, 0));
    assert_eq!(vfs.clone().read(opened.fh, 0, 7).await.unwrap(), b"CONTENT");
    vfs.release(opened.fh).unwrap();
    vfs.clone().tidy().await;
    // in the trash
    assert_eq!((tokens(&store).len(), garbage(&vfs)), (1, 0));
    assert_eq!(vfs.tree.inode(attr.ino).unwrap().local.nlink, 0);
}
