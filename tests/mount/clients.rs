//! Other clients of the same vault: a program that shares no code with this crate
//! (`tests/independent/client.py`) stores what the drive shows, and fetches what it wrote.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::house::attributes as xattr;
use crate::house::content::pattern;
use crate::house::vault::{TRASH_NIGHTS, write_secret};
use crate::house::{Machine, Vault, assert_errno, eventually, names, python, repository, run_ok};

const PATIENCE: Duration = Duration::from_secs(60);

/// The independent client, with this vault's login.
fn client(vault: &Vault, arguments: &[&str]) -> Value {
    let mut command = python();
    command.arg(repository("tests/independent/client.py"));
    command.args(["--api-url", &vault.engine.api_url, "--ws-url", &vault.engine.ws_url]);
    command.args(["--username", &vault.login.username, "--password-file"]);
    command.arg(vault.path("password")).args(arguments);
    let output = run_ok(&mut command, PATIENCE);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Stores content with a key of the vault; the token.
fn store(
    vault: &Vault,
    key: &str,
    context: &str,
    name: &str,
    content: &[u8],
    stream: bool,
) -> String {
    let file = vault.path("to-store");
    fs::write(&file, content).unwrap();
    let key = vault.path(key);
    let mut arguments = vec!["store", "--key-file", key.to_str().unwrap()];
    arguments.extend(["--context", context, "--name", name]);
    if stream {
        arguments.push("--stream");
    }
    arguments.push(file.to_str().unwrap());
    client(vault, &arguments)["token"].as_str().unwrap().to_owned()
}

/// Fetches a token by `fetch` or `fetch-parts`.
fn fetch(vault: &Vault, how: &str, token: &str) -> Vec<u8> {
    let (key, out) = (vault.path("key"), vault.path("fetched"));
    let key = key.to_str().unwrap();
    client(vault, &[how, "--key-file", key, token, out.to_str().unwrap()]);
    fs::read(out).unwrap()
}

/// The one visible token with this context and name.
fn listed(vault: &Vault, context: &str, name: &str) -> Value {
    let all = client(vault, &["list"]);
    let mut found = all.as_array().unwrap().clone();
    found.retain(|item| item["context"] == context && item["fileName"] == name);
    assert_eq!(found.len(), 1, "{context} {name} in {all}");
    found.remove(0)
}

fn machine_that_polls(vault: &Vault, name: &str) -> Machine {
    let mut machine = vault.machine(name);
    machine.args(["--poll-interval", "1"]);
    machine.mount();
    machine
}

fn appears(path: &Path) {
    eventually(&format!("{} appears", path.display()), PATIENCE, || path.exists());
}

#[test]
fn what_another_client_stores_appears_and_reads_back() {
    let vault = Vault::new();
    let inline = store(&vault, "key", "reports/2026", "inline.txt", b"from elsewhere", false);
    let machine = machine_that_polls(&vault, "a");
    let path = machine.path("reports/2026/inline.txt");
    appears(&path);
    assert_eq!(fs::read(&path).unwrap(), b"from elsewhere");
    assert_eq!(xattr::text(&path, "user.privicore.token"), inline);
    assert_eq!(xattr::text(&path, "user.privicore.state"), "committed");
    let status = fs::metadata(&path).unwrap();
    assert_eq!((status.len(), status.mode() & 0o7777), (14, 0o600));

    // While mounted; by the stream server; in the root; empty.
    let content = pattern(1, 300_000);
    store(&vault, "key", "reports", "streamed.bin", &content, true);
    store(&vault, "key", "/", "in-root", b"root", false);
    store(&vault, "key", "reports", "empty", b"", false);
    appears(&machine.path("reports/streamed.bin"));
    assert!(fs::read(machine.path("reports/streamed.bin")).unwrap() == content);
    appears(&machine.path("in-root"));
    assert_eq!(fs::read(machine.path("in-root")).unwrap(), b"root");
    appears(&machine.path("reports/empty"));
    assert_eq!(fs::read(machine.path("reports/empty")).unwrap(), b"");
}

#[test]
fn a_file_of_another_client_is_the_same_file_on_every_machine() {
    let vault = Vault::new();
    store(&vault, "key", "shared", "note.txt", b"one", false);
    let mut one = machine_that_polls(&vault, "a");
    let other = machine_that_polls(&vault, "b");
    appears(&one.path("shared/note.txt"));
    appears(&other.path("shared/note.txt"));
    // Each machine discovered it by itself; what one does to it, the other must follow.
    fs::rename(one.path("shared/note.txt"), one.path("shared/moved.txt")).unwrap();
    one.sync();
    appears(&other.path("shared/moved.txt"));
    assert_eq!(names(&other.path("shared")), ["moved.txt"]);
    assert_eq!(fs::read(other.path("shared/moved.txt")).unwrap(), b"one");
    fs::write(one.path("shared/moved.txt"), b"two").unwrap();
    one.umount();
    eventually("the new content arrives", PATIENCE, || {
        fs::read(other.path("shared/moved.txt")).unwrap() == b"two"
    });
}

#[test]
fn what_the_drive_writes_is_fetched_from_the_api_alone() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir_all(machine.path("folder/Größe x")).unwrap();
    let files = [
        ("empty", "/", "empty", 0),
        ("small.txt", "/", "small.txt", 10),
        ("folder/inline.tar.gz", "folder", "inline.tar.gz", 30_000),
        ("folder/Größe x/streamed ü", "folder/Größe x", "streamed ü", 200_000),
    ];
    for (number, (path, _, _, size)) in files.iter().enumerate() {
        fs::write(machine.path(path), pattern(number as u64, *size)).unwrap();
    }
    machine.sync();
    assert_eq!(vault.visible().len(), files.len(), "one token per file");
    for (number, (path, context, name, size)) in files.iter().enumerate() {
        let item = listed(&vault, context, name);
        let token = item["token"].as_str().unwrap();
        assert_eq!(xattr::text(&machine.path(path), "user.privicore.token"), token);
        assert_eq!(item["size"].as_u64(), Some(*size as u64), "{item}");
        assert_eq!(item["meta"]["file"]["path"], "/", "{item}");
        let extension = Path::new(name).extension().map_or("", |e| e.to_str().unwrap());
        assert_eq!(item["extension"], extension, "{item}");
        assert!(fetch(&vault, "fetch", token) == pattern(number as u64, *size), "{path}");
    }
}

#[test]
fn a_split_file_is_put_together_from_its_parts_by_another_client() {
    const SIZE: usize = (3 << 20) + 123;
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--split-above", "1MiB", "--part-size", "256KiB"]);
    machine.mount();
    let content = pattern(9, SIZE);
    fs::write(machine.path("large.bin"), &content).unwrap();
    fs::write(machine.path("below.bin"), &content[..1 << 20]).unwrap();
    machine.sync();

    let item = listed(&vault, "/", "large.bin");
    let token = item["token"].as_str().unwrap();
    assert_eq!(item["size"].as_u64(), Some(SIZE as u64), "other clients see the file's own size");
    let list: Value = serde_json::from_slice(&fetch(&vault, "fetch", token)).unwrap();
    assert_eq!(list["privicorefs"], "parts");
    assert_eq!(list["version"], 2);
    assert_eq!(list["size"], SIZE);
    assert_eq!(list["part_size"], 256 << 10);
    assert_eq!(list["parts"].as_array().unwrap().len(), 13);
    let pins = list["pins"].as_array().unwrap();
    assert_eq!((pins.len(), &pins[0][0], &pins[12][0]), (13, &json!(262_172), &json!(151)));
    assert_eq!(list["mac"].as_str().unwrap().len(), 64);
    assert!(fetch(&vault, "fetch-parts", token) == content);
    assert_eq!(vault.visible().len(), 2, "parts are hidden");

    // At the threshold a file is still one token.
    let item = listed(&vault, "/", "below.bin");
    assert!(fetch(&vault, "fetch", item["token"].as_str().unwrap()) == content[..1 << 20]);

    // On a machine with other settings it is the same file.
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert!(fs::read(elsewhere.path("large.bin")).unwrap() == content);
}

/// A part of zeros is not stored: whoever joins the parts knows that from the list.
#[test]
fn parts_of_zeros_are_left_out_and_read_as_zeros_elsewhere() {
    const PART: usize = 256 << 10;
    let vault = Vault::new();
    let machine = vault.mounted_with("a", &["--split-above", "1MiB", "--part-size", "256KiB"]);
    let file = File::create(machine.path("sparse.bin")).unwrap();
    let (first, last) = (pattern(10, 1000), pattern(11, 500));
    file.write_all_at(&first, 0).unwrap();
    file.write_all_at(&last, 6 * PART as u64).unwrap();
    drop(file);
    machine.sync();

    let item = listed(&vault, "/", "sparse.bin");
    let token = item["token"].as_str().unwrap();
    let list: Value = serde_json::from_slice(&fetch(&vault, "fetch", token)).unwrap();
    let left_out =
        |part: usize| list["parts"][part] == "" && list["pins"][part] == json!([0, "", "", ""]);
    assert_eq!(list["parts"].as_array().unwrap().len(), 7);
    assert!((1..6).all(left_out) && !left_out(0) && !left_out(6), "{list}");
    let whole = [first, vec![0; 6 * PART - 1000], last].concat();
    assert!(fetch(&vault, "fetch-parts", token) == whole);
}

#[test]
fn a_token_of_another_key_is_shown_and_says_why_it_cannot_be_read() {
    let vault = Vault::new();
    write_secret(&vault.path("other-key"), &"5c".repeat(32));
    store(&vault, "other-key", "theirs", "secret.txt", b"not for this key", false);
    let machine = machine_that_polls(&vault, "a");
    let path = machine.path("theirs/secret.txt");
    appears(&path);
    assert_errno(fs::read(&path), Errno::IO);
    let state = xattr::text(&path, "user.privicore.state");
    assert!(state.starts_with("failed: ") && state.contains("key"), "{state}");
    // The rest of the drive is none the worse.
    fs::write(machine.path("ours.txt"), b"ours").unwrap();
    machine.sync();
}

#[test]
fn a_deleted_token_is_gone_and_a_foreign_file_can_be_deleted() {
    let vault = Vault::with_days();
    let token = store(&vault, "key", "folder", "theirs.txt", b"theirs", false);
    let mut machine = machine_that_polls(&vault, "a");
    appears(&machine.path("folder/theirs.txt"));
    fs::write(machine.path("folder/ours.txt"), b"ours").unwrap();
    machine.sync();
    assert_eq!(vault.visible().len(), 2);

    fs::remove_file(machine.path("folder/theirs.txt")).unwrap();
    fs::remove_file(machine.path("folder/ours.txt")).unwrap();
    machine.sync();
    vault.nights(&mut machine, TRASH_NIGHTS - 1);
    assert_eq!(vault.visible().len(), 2, "they are in the trash, and may be needed elsewhere");
    vault.nights_until(&mut machine, 1, "the tokens are deleted", || vault.visible().is_empty());

    // What another client deletes disappears here.
    let path: PathBuf = machine.path("folder/later.txt");
    let later = store(&vault, "key", "folder", "later.txt", b"later", false);
    assert_ne!(token, later);
    appears(&path);
    client(&vault, &["delete", &later]);
    eventually("a token deleted elsewhere disappears", PATIENCE, || !path.exists());
}

#[test]
fn a_renamed_file_is_renamed_for_other_clients_too() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir(machine.path("before")).unwrap();
    fs::write(machine.path("before/name.txt"), b"content").unwrap();
    machine.sync();
    let token = listed(&vault, "before", "name.txt")["token"].clone();
    fs::rename(machine.path("before/name.txt"), machine.path("before/other.txt")).unwrap();
    fs::rename(machine.path("before"), machine.path("after")).unwrap();
    machine.sync();
    eventually("the service lists the new name", PATIENCE, || {
        vault.visible().iter().any(|item| {
            item["context"] == "after" && item["fileName"] == "other.txt" && item["token"] == token
        })
    });
}
