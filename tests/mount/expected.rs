//! What today's drive is known to do wrong, by real mounts: each test asserts that the fault is
//! still there, and is turned round by whoever repairs it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::catalog::hlc::Stamp;
use privicorefs::catalog::segment::{HIDDEN, InodeRecord, Paths, Record, Segment};
use privicorefs::catalog::{Attrs, Content, Kind, Link, ROOT_INO, Time};
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig};
use privicorefs::store::{
    FileMeta, ListFilter, Payload, Store, Token, TokenRecord, collect, list_all,
};

use crate::house::attributes as xattr;
use crate::house::vault::write_secret;
use crate::house::{Vault, eventually, names};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever has the login, and no key.
async fn intruder(vault: &Vault) -> Arc<Client> {
    let url = |text: &str| text.parse().unwrap();
    let config = ClientConfig::new(
        url(&vault.engine.api_url),
        url(&vault.engine.ws_url),
        vault.login.username.clone(),
        vault.login.password.clone(),
    );
    Client::connect(config, Env::system()).await.unwrap()
}

async fn hidden(client: &Client) -> Vec<TokenRecord> {
    let all = list_all(client, &ListFilter::default()).await.unwrap();
    all.into_iter().filter(|record| Paths::is_hidden(&record.context)).collect()
}

/// A segment that makes a link out of the drive.
fn harm() -> Vec<u8> {
    let stamp = Stamp { hlc: u64::MAX >> 4, writer: 0x00ba_d000 };
    let time = Time::from(std::time::SystemTime::UNIX_EPOCH);
    let ino = 0x00ba_d000_0000_0001;
    let attrs = Attrs { perm: 0o777, uid: 0, gid: 0, atime: time, mtime: time, ctime: time };
    let inode = InodeRecord {
        ino,
        kind: Kind::Symlink,
        born: time,
        rdev: 0,
        target: b"/etc/passwd".to_vec(),
        attrs_stamp: stamp,
        attrs,
        content: Content::default(),
        xattrs: Default::default(),
    };
    let link = Link {
        id: ino,
        stamp,
        parent: ROOT_INO,
        name: b"harmless".to_vec(),
        ino,
        kind: Kind::Symlink,
        live: true,
        published: true,
    };
    let records = vec![Record::Inode(Box::new(inode)), Record::Link(link)];
    Segment { writer: stamp.writer, seq: 1, records, tokens: Vec::new() }.to_bytes()
}

/// The ciphertext of a file that the user saved, stored again under the catalog's context,
/// is applied as a segment.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_file_stored_again_as_a_segment_is_applied() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("picture"), harm()).unwrap();
    machine.sync();
    let token = Token::new(xattr::text(&machine.path("picture"), "user.privicore.token"));

    let intruder = intruder(&vault).await;
    let ciphertext = collect(intruder.get(&token).await.unwrap(), 1 << 20).await.unwrap();
    let catalog = hidden(&intruder).await;
    let log = catalog.iter().find(|record| record.context.ends_with("/log")).unwrap();
    let meta = FileMeta {
        file_name: Paths::segment_name(0x00ba_d000, 1),
        context: log.context.clone(),
        path: "/".into(),
        size: ciphertext.len() as u64,
        ..FileMeta::default()
    };
    let mark = "00000000-0000-4000-8000-000000000001";
    intruder.put(&meta, mark, Payload::Bytes(ciphertext.into())).await.unwrap();
    intruder.close().await;

    let other = vault.mounted("b");
    let planted = fs::read_link(other.path("harmless"));
    assert_eq!(
        planted.unwrap().to_str(),
        Some("/etc/passwd"),
        "the fault is gone: turn this test round"
    );
}

/// What is deleted of the catalog is missing on every new machine, and nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_catalog_is_not_noticed() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir(machine.path("folder")).unwrap();
    fs::write(machine.path("folder/file"), b"content").unwrap();
    machine.sync();
    let intruder = intruder(&vault).await;
    for record in hidden(&intruder).await {
        intruder.delete(&record.token).await.unwrap();
    }
    intruder.close().await;

    let other = vault.mounted("b");
    assert_eq!(machine.status()["catalog"], "ok", "the fault is gone: turn this test round");
    assert_eq!(other.status()["catalog"], "ok", "the fault is gone: turn this test round");
    assert!(!other.path("folder").is_dir() || names(&other.path("folder")) != ["file"]);
}

/// A wrong key on the same login mounts, and begins a second catalog beside the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_begins_a_second_catalog() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("file"), b"content").unwrap();
    machine.sync();
    write_secret(&vault.path("wrong"), &"5a".repeat(32));
    let mut other = vault.machine("b");
    other.replace_arg("--key-file", &vault.path("wrong"));
    let output = other.try_mount();
    assert!(output.success(), "the fault is gone: turn this test round: {}", output.stderr);
    fs::write(other.path("beside"), b"content").unwrap();
    other.sync();
    let intruder = intruder(&vault).await;
    let catalogs: std::collections::BTreeSet<String> = hidden(&intruder)
        .await
        .iter()
        .filter_map(|r| Some(r.context.strip_prefix(HIDDEN)?.split('/').nth(1)?.to_owned()))
        .collect();
    intruder.close().await;
    assert_eq!(catalogs.len(), 2, "the fault is gone: turn this test round: {catalogs:?}");
}

/// A new machine lists the whole vault, though the catalog has all of it.
#[test]
fn a_mount_lists_the_whole_vault() {
    /// Several pages of a listing.
    const FILES: u64 = 450;
    const PAGE: u64 = 100;
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    for number in 0..FILES {
        fs::write(machine.path(format!("f{number}")), b"x").unwrap();
    }
    machine.umount();
    let before = vault.engine.quiet();
    let other = vault.mounted("b");
    eventually("the tree is there", PATIENCE, || names(&other.mountpoint()).len() as u64 == FILES);
    let listings = vault.engine.since(&before).of("list");
    assert!(listings > FILES / PAGE, "the fault is gone: turn this test round: {listings}");
}
