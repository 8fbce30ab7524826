//! Security-risk meta: set with `setfattr`, inherited from folders, sent to the service, and
//! kept in step with what other clients set there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::house::{Machine, Vault, assert_errno, attributes, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn name(part: &str) -> String {
    format!("user.privicore.risk.{part}")
}

fn set(path: &Path, part: &str, value: &str) {
    attributes::set(path, &name(part), value.as_bytes(), XattrFlags::empty()).unwrap();
}

/// Classification, label and handling; what is not there is empty.
fn risk(path: &Path) -> [String; 3] {
    ["classification", "label", "handling"].map(|part| {
        let value = attributes::get(path, &name(part)).unwrap_or_default();
        String::from_utf8(value).unwrap()
    })
}

/// What the service has for the version that a file has now.
fn at_the_service(vault: &Vault, file: &Path) -> Value {
    let token = attributes::text(file, "user.privicore.token");
    let visible = vault.visible();
    let found = visible.iter().find(|item| item["token"] == token.as_str()).unwrap();
    found["meta"]["information_security_risk"].clone()
}

fn meta(risk: [&str; 3]) -> Value {
    json!({"classification": risk[0], "label": risk[1], "handling": risk[2]})
}

fn polling(vault: &Vault, name: &str) -> Machine {
    vault.mounted_with(name, &["--poll-interval", "1"])
}

#[test]
fn defaults_of_a_folder_are_inherited_changed_one_at_a_time_and_restored() {
    let vault = Vault::new();
    let mut machine = polling(&vault, "a");
    let folder = machine.path("folder");
    fs::create_dir(&folder).unwrap();
    set(&folder, "classification", "internal");
    set(&folder, "handling", "encrypt");
    let file = folder.join("file");
    fs::write(&file, "one").unwrap();
    fs::create_dir(folder.join("below")).unwrap();
    fs::write(folder.join("below/deeper"), "two").unwrap();
    machine.sync();
    let default = ["internal", "", "encrypt"];
    for path in [&file, &folder.join("below"), &folder.join("below/deeper")] {
        assert_eq!(risk(path), default, "{path:?}");
    }
    for path in [&file, &folder.join("below/deeper")] {
        assert_eq!(at_the_service(&vault, path), meta(default));
    }

    set(&file, "label", "draft");
    set(&file, "classification", "secret");
    let changed = ["secret", "draft", "encrypt"];
    assert_eq!(risk(&file), changed);
    eventually("the service knows", PATIENCE, || at_the_service(&vault, &file) == meta(changed));
    // a new version has it too
    fs::write(&file, "another").unwrap();
    machine.sync();
    assert_eq!(at_the_service(&vault, &file), meta(changed));

    attributes::remove(&file, &name("classification")).unwrap();
    attributes::remove(&file, &name("label")).unwrap();
    assert_errno(attributes::remove(&file, &name("label")), Errno::NODATA);
    assert_eq!(risk(&file), default);
    eventually("the service knows", PATIENCE, || at_the_service(&vault, &file) == meta(default));
    machine.umount();
    assert_eq!(risk(&vault.mounted("b").path("folder/file")), default);
}

#[test]
fn what_another_client_sets_is_shown_and_what_is_set_here_afterwards_wins() {
    let vault = Vault::new();
    let (one, other) = (polling(&vault, "a"), polling(&vault, "b"));
    let file = one.path("file");
    fs::write(&file, "content").unwrap();
    one.sync();
    let token = attributes::text(&file, "user.privicore.token");
    for (round, foreign) in [["secret", "a", "b"], ["public", "", "c"]].into_iter().enumerate() {
        vault.engine.set_risk(&vault.login, &token, foreign);
        for machine in [&one, &other] {
            let path = machine.path("file");
            eventually("what another client set is shown", PATIENCE, || risk(&path) == foreign);
        }
        let label = format!("mine {round}");
        set(&file, "label", &label);
        let own = [foreign[0], &label, foreign[2]];
        eventually("the service knows", PATIENCE, || at_the_service(&vault, &file) == meta(own));
        let path = other.path("file");
        eventually("the other machine knows", PATIENCE, || risk(&path) == own);
    }
}
