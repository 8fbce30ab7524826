//! The drive over every variant of the wire that the sources document (protocol B.3, B.5,
//! B.6, B.7, C.4.2, C.4.5, C.4.7, C.4.8 and D): the client's own suite over the same is
//! `client_shapes`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::XattrFlags;
use serde_json::{Value, json};

use crate::house;
use crate::house::Voters;
use crate::house::content::pattern;
use crate::house::{Vault, assert_same_trees, attributes, copy_tree, eventually, make_odd_tree};

const PATIENCE: Duration = Duration::from_secs(60);

/// Names of files, and how long they are: empty, inline, streamed, and in several parts.
const FILES: [(&str, usize); 4] =
    [("empty", 0), ("folder/small", 900), ("folder/streamed", 200_000), ("parts", 700_000)];

/// One member of the shape, or several at once.
fn variants() -> Vec<Value> {
    let mut all = Vec::new();
    for (member, values) in [
        ("command_body", &["string", "text", "object", "header_object", "empty"][..]),
        ("download", &["token", "web_socket"]),
        ("stream", &["token_and_server", "token"]),
        ("list", &["array"]),
        ("configure", &["string", "accepted"]),
        ("status", &["get", "post"]),
        ("reauthorize", &["replace"]),
        ("inline", &["off", "after_note"]),
        ("temporary", &["pair", "bare", "vendor"]),
        ("items", &["flat", "nested"]),
        ("update", &["form", "json", "neither"]),
    ] {
        all.extend(values.iter().map(|value| json!({ member: value })));
    }
    all
}

/// A day of the drive on a service of this shape: written, changed, moved and removed on one
/// machine, equal on another.
fn day(shape: &Value, fill: impl Fn(&Path)) {
    let vault = Vault::with_engine(&["--test-controls"]);
    vault.engine.shape(shape);
    // Where the service names no stream, what goes inline is all there is.
    let inline_only = matches!(shape["temporary"].as_str(), Some("bare" | "vendor"));
    let part = if inline_only { "32KiB" } else { "256KiB" };
    let api = vault.engine.api_url.clone();
    let options = [
        "--split-above",
        part,
        "--part-size",
        part,
        "--upstream-url",
        &api,
        "--downstream-url",
        &api,
        "--trash-days",
        "0",
    ];
    let mut first = vault.mounted_with("first", &options);
    let local = vault.path("local");
    fill(&local);
    copy_tree(&local, &first.path("tree"));
    first.sync();
    assert_same_trees(&local, &first.path("tree"));

    let tree = first.path("tree");
    fs::write(tree.join("changed"), pattern(7, 5_000)).unwrap();
    fs::write(tree.join("gone"), "x").unwrap();
    first.sync();
    fs::write(tree.join("changed"), pattern(8, 4_000)).unwrap();
    fs::create_dir(tree.join("new")).unwrap();
    fs::rename(tree.join("changed"), tree.join("new/moved")).unwrap();
    fs::remove_file(tree.join("gone")).unwrap();
    let risk = "user.privicore.risk.classification";
    attributes::set(&tree.join("new/moved"), risk, b"secret", XattrFlags::empty()).unwrap();
    first.sync();
    let after = vault.path("after");
    copy_tree(&tree, &after);
    first.umount();

    let second = vault.mounted_with("second", &options);
    assert_same_trees(&after, &second.path("tree"));
    assert_eq!(attributes::get(&second.path("tree/new/moved"), risk).unwrap(), b"secret");
}

fn plain_files(folder: &Path) {
    fs::create_dir_all(folder.join("folder")).unwrap();
    for (n, (name, len)) in FILES.into_iter().enumerate() {
        fs::write(folder.join(name), pattern(n as u64, len)).unwrap();
    }
}

#[test]
fn each_variant_by_itself() {
    for shape in variants() {
        house::machine::show(&format!("{shape}"));
        day(&shape, plain_files);
    }
}

#[test]
fn every_other_variant_at_once_with_an_odd_tree() {
    let shape = json!({
        "command_body": "header_object", "download": "token", "stream": "token", "list": "array",
        "configure": "accepted", "status": "post", "reauthorize": "replace", "inline": "off",
        "temporary": "pair", "items": "nested", "update": "neither", "held": "silent",
    });
    day(&shape, make_odd_tree);
}

/// The real service says nothing of a vote: its acknowledgement is late, and that is all.
#[test]
fn a_vote_that_nobody_tells_of() {
    let vault = Vault::with_engine(&["--test-controls"]);
    let mut first = vault.mounted("first");
    fs::write(first.path("file"), "content").unwrap();
    first.umount();
    vault.engine.shape(&json!({ "held": "silent" }));
    let machine = vault.mounted_with("second", &["--approval-timeout", "1", "--deadline", "120"]);
    let voters = Voters::new(&vault.engine, &vault.login, 1, "unanimous", 600);
    voters.gate("data_token.data_requested", "*");
    let file = machine.path("file");
    assert!(fs::read(&file).is_err(), "nobody has voted");
    assert_eq!(attributes::text(&file, "user.privicore.state"), "awaiting-approval");
    assert_eq!(voters.pools("open").len(), 1);
    voters.approve_all();
    eventually("it is read", PATIENCE, || fs::read(&file).is_ok_and(|read| read == b"content"));
}
