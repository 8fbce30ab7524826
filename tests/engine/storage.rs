//! The engine over the wire: payloads on several storage devices (C.6): every exchange goes
//! to every device, any of them serves a read, and one may be lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use privicorefs::protocol::governance::path::DEVICE_REMOVE;
use privicorefs::protocol::{self, path};
use reqwest::StatusCode;
use serde_json::json;

use crate::house::Server;
use crate::house::wire::{Channel, PATIENCE, USER, WireClient, header};

/// More than one checksummed block, and not a multiple of one.
const LARGE: usize = 3 * (512 << 10) + 7;

fn folder(server: &Server, device: &str) -> PathBuf {
    server.dir.path().join("engine/devices").join(device)
}

/// Every copy in a device's folder, by name.
fn copies(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for shard in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        if shard.file_name() == "tmp" {
            continue;
        }
        for file in std::fs::read_dir(shard.path()).unwrap().map(Result::unwrap) {
            found.insert(file.file_name().into_string().unwrap(), file.path());
        }
    }
    found
}

/// Flips a byte in the middle of every copy of a device.
fn damage(folder: &Path) {
    for path in copies(folder).values() {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(path, bytes).unwrap();
    }
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 253) as u8 ^ seed).collect()
}

/// The identifier of the virtual device.
async fn own_disk(client: &WireClient) -> String {
    let devices = client.read(path::STORAGE_LIST).await;
    devices[0]["deviceIdentifier"].as_str().unwrap().to_owned()
}

async fn storage(client: &WireClient, channel: &mut Channel, path: &str, device: &str) {
    client.done(channel, path, &[("deviceIdentifier", device)]).await;
}

async fn refused(client: &WireClient, channel: &mut Channel, path: &str, device: &str) -> String {
    client.rejected(channel, path, &[("deviceIdentifier", device)]).await
}

/// Real storage devices.
async fn disks<const N: usize>(client: &WireClient, channel: &mut Channel) -> [String; N] {
    let mut disks = Vec::new();
    for n in 0..N {
        let disk = client.approved_device(channel, &format!("disk {n}")).await;
        storage(client, channel, path::STORAGE_REGISTER, &disk).await;
        disks.push(disk);
    }
    disks.try_into().unwrap()
}

/// The same, with the engine's own disk out of storage.
async fn only_disks<const N: usize>(client: &WireClient, channel: &mut Channel) -> [String; N] {
    let disks = disks(client, channel).await;
    storage(client, channel, path::STORAGE_REMOVE, &own_disk(client).await).await;
    disks
}

/// What was stored, by its token.
type Stored = Vec<(String, Vec<u8>)>;

/// A small payload, one just past the inline limit of the wire, and a large one.
async fn store_some(client: &WireClient, channel: &mut Channel, seed: u8) -> Stored {
    let mut stored = Vec::new();
    for (n, len) in [0, 1_000, 70_000, LARGE].into_iter().enumerate() {
        let (name, bytes) = (format!("{seed}-{n}.bin"), content(seed, len));
        let token = match len {
            0..=1_000 => client.store(channel, "/", &name, &bytes).await,
            _ => client.upload(channel, "/", &name, bytes.clone()).await,
        };
        stored.push((token, bytes));
    }
    stored
}

async fn reads_equal(client: &WireClient, channel: &mut Channel, stored: &Stored) {
    for (token, bytes) in stored {
        assert!(client.fetch(channel, token).await == *bytes, "{} bytes", bytes.len());
    }
}

/// Why a data request is rejected.
async fn unreadable(client: &WireClient, channel: &mut Channel, token: &str) -> String {
    let reply = client.post(path::REQUEST_DATA, &[("token", token)]).await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let ack = channel.settled(&header(&reply, protocol::COMMAND_ID)).await;
    assert_eq!(ack["command_status"], 3);
    ack["body"].as_str().unwrap().to_owned()
}

/// Waits for what is done after an answer.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn one_device_deleted_and_one_damaged_everything_reads_and_is_healed() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two, three] = only_disks(&client, &mut channel).await;
    let stored = store_some(&client, &mut channel, 1).await;
    for disk in [&one, &two, &three] {
        assert_eq!(
            copies(&folder(&server, disk)).len(),
            stored.len(),
            "acknowledged with its copy"
        );
    }
    std::fs::remove_dir_all(folder(&server, &one)).unwrap();
    damage(&folder(&server, &two));
    reads_equal(&client, &mut channel, &stored).await;
    server.restart().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    reads_equal(&client, &mut channel, &stored).await;

    storage(&client, &mut channel, path::STORAGE_SYNC, &one).await;
    storage(&client, &mut channel, path::STORAGE_SYNC, &two).await;
    // Either of the healed ones has everything by itself now.
    for (lost, other) in [(&one, &two), (&two, &one)] {
        let aside = server.dir.path().join("aside");
        std::fs::remove_dir_all(folder(&server, &three)).ok();
        std::fs::rename(folder(&server, lost), &aside).unwrap();
        assert_eq!(copies(&folder(&server, other)).len(), stored.len());
        reads_equal(&client, &mut channel, &stored).await;
        std::fs::rename(&aside, folder(&server, lost)).unwrap();
    }
    // A device whose folder is gone takes what comes from now on.
    let (token, bytes) = (&stored[3].0, &stored[3].1);
    let more = client.upload(&mut channel, "/", "more.bin", bytes.clone()).await;
    assert_eq!(copies(&folder(&server, &three)).len(), 1);
    assert!(client.fetch(&mut channel, &more).await == client.fetch(&mut channel, token).await);
}

#[tokio::test]
async fn two_copies_damaged_in_different_places_make_a_whole_one() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = only_disks(&client, &mut channel).await;
    let bytes = content(1, LARGE);
    let token = client.upload(&mut channel, "/", "large.bin", bytes.clone()).await;
    for (disk, at) in [(&one, 5), (&two, LARGE - 5)] {
        for path in copies(&folder(&server, disk)).values() {
            let mut copy = std::fs::read(path).unwrap();
            copy[at] ^= 1;
            std::fs::write(path, copy).unwrap();
        }
    }
    assert!(client.fetch(&mut channel, &token).await == bytes);
    for disk in [&one, &two] {
        storage(&client, &mut channel, path::STORAGE_SYNC, disk).await;
        std::fs::rename(folder(&server, disk), server.dir.path().join("aside")).unwrap();
        std::fs::rename(server.dir.path().join("aside"), folder(&server, disk)).unwrap();
    }
    damage(&folder(&server, &one));
    assert!(client.fetch(&mut channel, &token).await == bytes);
}

#[tokio::test]
async fn what_was_stored_before_reaches_a_device_by_synchronize() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let mut stored = store_some(&client, &mut channel, 1).await;
    assert!(!server.dir.path().join("engine/devices").exists(), "no device, no folder");
    let virtual_disk = own_disk(&client).await;
    let [disk] = disks(&client, &mut channel).await;
    stored.extend(store_some(&client, &mut channel, 2).await);
    assert_eq!(copies(&folder(&server, &disk)).len(), stored.len() / 2, "only what came after");
    for path in [path::STORAGE_REMOVE, DEVICE_REMOVE] {
        let why = refused(&client, &mut channel, path, &virtual_disk).await;
        assert_eq!(why, "storage.last_holder");
    }
    storage(&client, &mut channel, path::STORAGE_SYNC, &disk).await;
    assert_eq!(copies(&folder(&server, &disk)).len(), stored.len());
    storage(&client, &mut channel, path::STORAGE_REMOVE, &virtual_disk).await;
    reads_equal(&client, &mut channel, &stored).await;
    assert_eq!(
        refused(&client, &mut channel, path::STORAGE_SYNC, &virtual_disk).await,
        "storage.not_registered"
    );
    assert_eq!(
        refused(&client, &mut channel, path::STORAGE_REMOVE, &disk).await,
        "storage.last_holder"
    );

    // And back again: what came meanwhile, and what the engine's own disk lost.
    stored.extend(store_some(&client, &mut channel, 3).await);
    storage(&client, &mut channel, path::STORAGE_REGISTER, &virtual_disk).await;
    for shard in std::fs::read_dir(server.dir.path().join("engine/payloads")).unwrap() {
        for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    reads_equal(&client, &mut channel, &stored).await;
    assert_eq!(
        refused(&client, &mut channel, path::STORAGE_REMOVE, &disk).await,
        "storage.last_holder"
    );
    storage(&client, &mut channel, path::STORAGE_SYNC, &virtual_disk).await;
    storage(&client, &mut channel, path::STORAGE_REMOVE, &disk).await;
    std::fs::remove_dir_all(folder(&server, &disk)).unwrap();
    reads_equal(&client, &mut channel, &stored).await;
    server.restart().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    reads_equal(&client, &mut channel, &stored).await;
}

#[tokio::test]
async fn a_removed_device_serves_no_reads_and_keeps_what_it_has() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = only_disks(&client, &mut channel).await;
    let stored = store_some(&client, &mut channel, 1).await;
    storage(&client, &mut channel, path::STORAGE_REMOVE, &one).await;
    assert_eq!(copies(&folder(&server, &one)).len(), stored.len());
    reads_equal(&client, &mut channel, &stored).await;
    let answer = client.request_data(&mut channel, &stored[3].0).await;
    std::fs::remove_dir_all(folder(&server, &two)).unwrap();
    for (token, _) in &stored {
        let why = unreadable(&client, &mut channel, token).await;
        assert_eq!(why, "storage.no_device_has_the_payload");
    }
    let late = client.http.get(answer["body"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        refused(&client, &mut channel, path::STORAGE_SYNC, &two).await,
        "storage.no_device_has_the_payload"
    );
    server.restart().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    unreadable(&client, &mut channel, &stored[1].0).await;

    // It may be registered again, and then heals the other one.
    storage(&client, &mut channel, path::STORAGE_REGISTER, &one).await;
    reads_equal(&client, &mut channel, &stored).await;
    storage(&client, &mut channel, path::STORAGE_SYNC, &two).await;
    storage(&client, &mut channel, DEVICE_REMOVE, &one).await;
    reads_equal(&client, &mut channel, &stored).await;
}

#[tokio::test]
async fn deleted_payloads_leave_every_device_and_orphans_are_swept() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = only_disks(&client, &mut channel).await;
    let gone = store_some(&client, &mut channel, 1).await;
    let kept = client.store(&mut channel, "/", "kept", b"old").await;
    storage(&client, &mut channel, path::STORAGE_REMOVE, &two).await;
    for (token, _) in &gone {
        assert_eq!(client.delete(&mut channel, token).await["command_status"], 2);
    }
    let update = json!({ "dataToken": kept, "data": STANDARD.encode(b"new") });
    client.json_done(&mut channel, path::UPDATE_DATA, &update).await;
    eventually("the copies go", || copies(&folder(&server, &one)).len() == 1).await;
    // The device without the role has the old ones still; with the role it is set right.
    assert_eq!(copies(&folder(&server, &two)).len(), gone.len() + 1);
    storage(&client, &mut channel, path::STORAGE_REGISTER, &two).await;
    storage(&client, &mut channel, path::STORAGE_SYNC, &two).await;
    let names = |disk: &str| copies(&folder(&server, disk)).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&two));
    // Orphans of a crash, with and without the role.
    let stray = "00000000-0000-7000-8000-000000000000";
    storage(&client, &mut channel, path::STORAGE_REMOVE, &two).await;
    server.stop().await;
    for disk in [&one, &two] {
        let shard = folder(&server, disk).join("00");
        std::fs::create_dir_all(&shard).unwrap();
        std::fs::write(shard.join(stray), b"stray").unwrap();
        std::fs::write(folder(&server, disk).join("tmp/half"), b"written").unwrap();
    }
    server.start().await;
    let has = |disk: &str| copies(&folder(&server, disk)).contains_key(stray);
    eventually("orphans go", || !has(&one)).await;
    assert!(has(&two) && !folder(&server, &one).join("tmp/half").exists());
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    assert_eq!(client.fetch(&mut channel, &kept).await, b"new");
}

#[tokio::test]
async fn a_device_that_cannot_write_misses_and_catches_up() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = only_disks(&client, &mut channel).await;
    let mut stored = store_some(&client, &mut channel, 1).await;
    // A file where the folder should be: nothing can be written there.
    std::fs::remove_dir_all(folder(&server, &one)).unwrap();
    std::fs::write(folder(&server, &one), b"").unwrap();
    stored.extend(store_some(&client, &mut channel, 2).await);
    reads_equal(&client, &mut channel, &stored).await;
    assert_eq!(
        refused(&client, &mut channel, path::STORAGE_REMOVE, &two).await,
        "storage.last_holder"
    );
    // No device at all takes it: nothing is promised.
    let aside = server.dir.path().join("aside");
    std::fs::rename(folder(&server, &two), &aside).unwrap();
    std::fs::write(folder(&server, &two), b"").unwrap();
    let reserved = client.reserve(&mut channel, "/").await;
    let temporary = reserved["token"].as_str().unwrap();
    assert_eq!(client.exchange(&mut channel, temporary, b"x").await, 3);
    std::fs::remove_file(folder(&server, &two)).unwrap();
    std::fs::rename(&aside, folder(&server, &two)).unwrap();
    assert_eq!(client.exchange(&mut channel, temporary, b"x").await, 2, "it can be tried again");

    std::fs::remove_file(folder(&server, &one)).unwrap();
    storage(&client, &mut channel, path::STORAGE_SYNC, &one).await;
    storage(&client, &mut channel, path::STORAGE_REMOVE, &two).await;
    reads_equal(&client, &mut channel, &stored).await;
}

#[tokio::test]
async fn profiles_do_not_share_devices() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let bob = server.register("bob").await;
    let mut bobs = bob.join().await;
    let [disk] = only_disks(&client, &mut channel).await;
    bob.store(&mut bobs, "/", "bobs", b"bobs").await;
    assert!(copies(&folder(&server, &disk)).is_empty());
    for path in [path::STORAGE_SYNC, path::STORAGE_REMOVE, path::STORAGE_REGISTER] {
        assert_eq!(refused(&bob, &mut bobs, path, &disk).await, "profile.not_an_owner");
    }
    client.store(&mut channel, "/", "alices", b"alices").await;
    storage(&client, &mut channel, path::STORAGE_SYNC, &disk).await;
    assert_eq!(copies(&folder(&server, &disk)).len(), 1);
}
