//! What somebody with the login and no key can do to a drive, by real mounts: nothing but harm
//! that is noticed. And what the drive is still known to do wrong: such a test asserts that the
//! fault is there, and is turned round by whoever repairs it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::catalog::Paths;
use privicorefs::catalog::format::record::{Moment, Name, ObjectKind, ROOT};
use privicorefs::catalog::format::{Body, Record, Segment, Stamp, Subject};
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

/// The writer of the segment that is planted.
const WRITER: u64 = 0x00ba_d000;

/// The plaintext of a segment that makes a link out of the drive.
fn harm() -> Vec<u8> {
    let mut stamp = Stamp { hlc: 1 << 60, writer: WRITER };
    let (number, moment) = (0x00ba_d000_0000_0001, Moment::default());
    let target = b"/etc/passwd".to_vec();
    let (rank, machine) = (stamp, String::new());
    let bodies = [
        Body::Object { kind: ObjectKind::Symlink, birth: moment, device: 0, target },
        Body::Attributes { mode: 0o777, owner: 0, group: 0, changed: moment },
        Body::Times { access: moment, modification: moment },
        Body::Name(Name {
            link: number,
            folder: ROOT,
            name: b"harmless".to_vec(),
            rank,
            machine,
            millis: 0,
        }),
    ];
    let record = |body| {
        stamp.hlc += 1;
        Record::new(Subject::File(number), stamp, body).encode()
    };
    let records = bodies.into_iter().map(record).collect();
    let segment = Segment { day: 1, records, ..Segment::default() };
    // As it is: not compressed.
    [&[0][..], &segment.encode()].concat()
}

/// The ciphertext of a file that the user saved, stored again under the catalog's context, is no
/// segment: not as it is, and not behind the header of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_file_stored_again_as_a_segment_is_not_applied() {
    let vault = Vault::new();
    let mut machine = vault.mounted_with("a", &["--poll-interval", "1"]);
    fs::write(machine.path("picture"), harm()).unwrap();
    machine.sync();
    let token = Token::new(xattr::text(&machine.path("picture"), "user.privicore.token"));

    let intruder = intruder(&vault).await;
    let get =
        async |token: &Token| collect(intruder.get(token).await.unwrap(), 1 << 20).await.unwrap();
    let ciphertext = get(&token).await;
    let catalog = hidden(&intruder).await;
    let log = catalog.iter().find(|record| record.context.ends_with("/log")).unwrap();
    let segment = get(&log.token).await;
    let mut header = segment[..48].to_vec();
    header[24..32].copy_from_slice(&WRITER.to_be_bytes());
    header[32..40].copy_from_slice(&1u64.to_be_bytes());
    let headed = [header, ciphertext.clone()].concat();
    for (number, payload) in [(1, ciphertext), (2, headed)] {
        let meta = FileMeta {
            file_name: Paths::segment_name(WRITER, number),
            context: log.context.clone(),
            path: "/".into(),
            size: payload.len() as u64,
            ..FileMeta::default()
        };
        let mark = format!("00000000-0000-4000-8000-00000000000{number}");
        intruder.put(&meta, &mark, Payload::Bytes(payload.into())).await.unwrap();
    }
    intruder.close().await;

    // Whoever comes now has looked at it, and goes on working with who was here before.
    let other = vault.mounted_with("b", &["--poll-interval", "1"]);
    assert_eq!(names(&other.mountpoint()), ["picture"]);
    assert_eq!(fs::read(other.path("picture")).unwrap(), harm());
    fs::write(other.path("from b"), b"b").unwrap();
    other.sync();
    let all = ["from b", "picture"];
    eventually("what is new arrives", PATIENCE, || names(&machine.mountpoint()) == all);
    machine.umount();
    assert_eq!(names(&vault.mounted("c").mountpoint()), all);
}

/// A vault whose catalog was deleted is not taken for a new one: not by who knew it, and not by
/// who comes new.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_catalog_is_noticed() {
    let vault = Vault::new();
    let machine = vault.mounted_with("a", &["--poll-interval", "1"]);
    fs::create_dir(machine.path("folder")).unwrap();
    fs::write(machine.path("folder/file"), b"content").unwrap();
    machine.sync();
    let intruder = intruder(&vault).await;
    for record in hidden(&intruder).await {
        intruder.delete(&record.token).await.unwrap();
    }

    eventually("who knew it says so", PATIENCE, || {
        let status = machine.status();
        status["catalog"].as_str().unwrap().contains("shows nothing of the catalog")
    });
    assert_eq!(fs::read(machine.path("folder/file")).unwrap(), b"content");
    // It is given a minute to come back.
    let mut other = vault.machine("b");
    let output = other.try_mount();
    assert!(!output.success() && output.stderr.contains("shows no catalog"), "{output:?}");
    assert!(hidden(&intruder).await.is_empty(), "somebody began another catalog");
    intruder.close().await;
}

/// A wrong key on the same login is refused, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told_from_a_new_vault() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("file"), b"content").unwrap();
    machine.sync();
    let intruder = intruder(&vault).await;
    let before = hidden(&intruder).await.len();
    write_secret(&vault.path("wrong"), &"5a".repeat(32));
    let mut other = vault.machine("b");
    other.replace_arg("--key-file", &vault.path("wrong"));
    let output = other.try_mount();
    assert!(!output.success() && output.stderr.contains("another key"), "{output:?}");
    assert_eq!(hidden(&intruder).await.len(), before, "something of the wrong key was stored");
    intruder.close().await;
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
