//! `device`, `authenticator`, `voting`, `policy` and `engine vote`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use common::desk::PATIENCE;
use common::process::{Output, wait_until};
use common::{Desk, process};
use serde_json::{Value, json};

const NOBODY: &str = "0190a5d2-0000-7000-8000-000000000000";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn request(desk: &Desk, name: &str) -> String {
    text(&desk.json(&["device", "request", "--name", name])["device"])
}

/// An approved device that votes.
fn voter(desk: &Desk, name: &str) -> String {
    let device = request(desk, name);
    desk.ok(&["device", "approve", &device]);
    desk.ok(&["authenticator", "register", &device]);
    device
}

fn configuration(desk: &Desk, name: &str, strategy: &str) {
    let limit = ["--strategy", strategy, "--time-limit", "300"];
    desk.ok(&[&["voting", "configuration", "register", name], &limit[..]].concat());
}

/// A policy in force on an event, with the voting configuration `board`.
fn gate(desk: &Desk, template: &str, event: &str) {
    configuration(desk, "board", "unanimous");
    let of = ["--template", template, "--event", event, "--voting", "board"];
    let matches = ["--match", "classification=*"];
    desk.ok(&[&["policy", "register", "gate"], &of[..], &matches[..]].concat());
    desk.ok(&["policy", "activate", "gate"]);
}

/// The pool that is open, once there is one.
fn open_pool(desk: &Desk) -> Value {
    let found = wait_until(PATIENCE, || {
        let mut pools = desk.json(&["voting", "list"]).as_array().unwrap().clone();
        pools.pop()
    });
    found.unwrap()
}

/// Runs a command that is held for a vote, and votes meanwhile; how the command ended.
fn voted(desk: &Desk, held: &[&str], vote: impl FnOnce(&Value)) -> Output {
    thread::scope(|scope| {
        let command = scope.spawn(|| desk.run(held));
        vote(&open_pool(desk));
        command.join().unwrap()
    })
}

/// The member of a configuration file.
fn member(file: &Path, name: &str) -> String {
    let content = fs::read_to_string(file).unwrap();
    let line = content.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    serde_json::from_str(line.unwrap()).unwrap()
}

#[test]
fn devices_are_requested_listed_named_decided_about_and_removed() {
    let desk = Desk::logged_in();
    let made = desk.json(&["device", "request", "--name", "phone"]);
    let (device, asked) = (text(&made["device"]), text(&made["request"]));
    assert_eq!(desk.ok(&["device", "identifier", &asked]), format!("{device}\n"));
    let printed = desk.ok(&["device", "request"]);
    let other = printed.trim();
    assert_eq!(desk.ok(&["device", "rename", &device, "my phone"]), format!("renamed {device}\n"));
    assert_eq!(desk.ok(&["device", "approve", &device]), format!("approved {device}\n"));
    let done = desk.json(&["device", "reject", other]);
    assert_eq!(done, json!({"device": other, "done": "rejected"}));

    let listed = desk.json(&["device", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[0]["roles"], json!(["storage"]), "the virtual one");
    assert_eq!((&listed[1]["device"], &listed[1]["name"]), (&json!(device), &json!("my phone")));
    assert_eq!(
        (&listed[1]["approval"], &listed[2]["approval"]),
        (&json!("approved"), &json!("rejected"))
    );
    let table = desk.ok(&["device", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert_eq!(lines[0].find("NAME"), lines[2].find("my phone"), "{table}");

    let said = desk.fails(1, &["device", "approve", other]);
    assert!(said.contains("already_reviewed") && said.contains("request another"), "{said}");
    assert_eq!(desk.ok(&["device", "remove", other]), format!("removed {other}\n"));
    assert_eq!(desk.json(&["device", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_devices_secrets_go_to_a_private_file_and_nowhere_else() {
    let desk = Desk::logged_in();
    let device = request(&desk, "phone");
    let (file, path) = (desk.text("phone.yaml"), desk.path("phone.yaml"));
    let said = desk.fails(1, &["device", "configuration", &device, "--output", &file]);
    assert!(said.contains("privicorefs device approve"), "{said}");
    assert!(!path.exists());
    desk.ok(&["device", "approve", &device]);

    // An older file that others could read is replaced by one that they cannot.
    desk.write("phone.yaml", "old");
    let shown = desk.ok(&["device", "configuration", &device, "--output", &file]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        (member(&path, "device-identifier"), member(&path, "client-id")),
        (device.clone(), device.clone())
    );
    let secrets = [member(&path, "client-secret"), member(&path, "rabbit-pass")];
    let plain = desk.run(&["device", "configuration", &device]);
    assert!(plain.success() && plain.stderr.contains("--output FILE"), "{}", plain.stderr);
    let value = desk.json(&["device", "configuration", &device]);
    assert_eq!((&value["client_id"], &value["file"]), (&json!(device), &Value::Null));
    let again = desk.text("again.yaml");
    let saved = desk.json(&["device", "configuration", &device, "-o", &again]);
    assert_eq!(saved["file"], json!(again));
    for output in [shown, plain.stdout, plain.stderr, value.to_string(), saved.to_string()] {
        for secret in &secrets {
            assert!(!output.contains(secret.as_str()), "{output}");
        }
    }
    let said = desk.fails(1, &["device", "configuration", &device, "-o", "/dev/null"]);
    assert!(said.contains("not a regular file"), "{said}");
    assert!(!common::names(desk.path("").as_path()).iter().any(|name| name.ends_with(".new")));
}

#[test]
fn authenticators_are_registered_listed_and_ruled() {
    let desk = Desk::logged_in();
    let empty = desk.run(&["authenticator", "list"]);
    assert!(empty.success() && empty.stderr.contains("nobody can vote"), "{}", empty.stderr);
    assert_eq!(desk.json(&["authenticator", "list"]), json!([]));
    let pending = request(&desk, "phone");
    let said = desk.fails(1, &["authenticator", "register", &pending]);
    assert!(said.contains("privicorefs device approve"), "{said}");
    desk.ok(&["device", "approve", &pending]);
    assert_eq!(
        desk.ok(&["authenticator", "register", &pending]),
        format!("registered {pending}\n")
    );
    let listed = desk.json(&["authenticator", "list"]);
    assert_eq!(
        (&listed[0]["device"], &listed[0]["roles"]),
        (&json!(pending), &json!(["authenticator"]))
    );
    assert!(desk.ok(&["authenticator", "list"]).contains(&pending));

    let set = ["authenticator", "rules", "set"];
    let options = [
        "--strategy",
        "minimum_percentage",
        "--percentage",
        "75",
        "--quorum-size",
        "2",
        "--time-limit",
        "90",
        "--attempts",
        "3",
    ];
    assert_eq!(desk.ok(&[&set[..], &options].concat()), "changed\n");
    let expected = json!({
        "strategy": "minimum_percentage", "percentage": 75, "quorum_size": 2, "time_limit": 90,
        "attempts": 3,
    });
    assert_eq!(desk.json(&["authenticator", "rules", "show"]), expected);
    let shown = desk.ok(&["authenticator", "rules", "show"]);
    assert!(shown.contains("strategy     minimum 75 %\n"), "{shown}");
    for wrong in [
        &["--strategy", "minimum_percentage"][..],
        &["--strategy", "unanimous", "--percentage", "10"],
        &[],
        &["--percentage", "10"],
        &["--strategy", "loud"],
    ] {
        assert_eq!(desk.run(&[&set[..], wrong].concat()).code(), 2, "{wrong:?}");
    }
    let said = desk.fails(1, &["authenticator", "rules", "set", "--quorum-size", "0"]);
    assert!(said.contains("size"), "{said}");

    desk.ok(&["authenticator", "remove", &pending]);
    assert_eq!(desk.json(&["authenticator", "list"]), json!([]));
}

#[test]
fn voting_configurations_are_registered_changed_listed_and_deleted() {
    let desk = Desk::logged_in();
    let device = voter(&desk, "phone");
    let group = ["voting", "configuration"];
    let options = [
        "register",
        "board",
        "--strategy",
        "minimum_percentage",
        "--percentage",
        "60",
        "--time-limit",
        "120",
        "--device",
        &device,
    ];
    let made = desk.json(&[&group[..], &options].concat());
    assert_eq!((&made["name"], &made["done"]), (&json!("board"), &json!("registered")));
    let id = text(&made["configuration"]);
    let shown = desk.json(&[&group[..], &["show", "board"]].concat());
    assert_eq!((&shown["configuration"], &shown["percentage"]), (&json!(id), &json!(60)));
    assert_eq!((&shown["time_limit"], &shown["devices"]), (&json!(120), &json!([device])));
    let pairs = desk.ok(&[&group[..], &["show", &id]].concat());
    assert!(pairs.contains("minimum 60 %") && pairs.contains(&device), "{pairs}");

    let change = ["update", "board", "--strategy", "consensus", "--all-devices"];
    assert_eq!(desk.ok(&[&group[..], &change].concat()), "changed board\n");
    let listed = desk.json(&[&group[..], &["list"]].concat());
    assert_eq!((&listed[0]["strategy"], &listed[0]["devices"]), (&json!("consensus"), &json!([])));
    assert_eq!(listed[0]["time_limit"], 120, "what is not given stays");
    assert!(desk.ok(&[&group[..], &["list"]].concat()).contains("consensus"));
    assert_eq!(desk.run(&[&group[..], &["update", "board"]].concat()).code(), 2);

    let again = ["register", "board", "--strategy", "unanimous", "--time-limit", "60"];
    let said = desk.fails(1, &[&group[..], &again].concat());
    assert!(said.contains("taken"), "{said}");
    assert_eq!(desk.ok(&[&group[..], &["delete", "board"]].concat()), "deleted board\n");
    assert_eq!(desk.json(&[&group[..], &["list"]].concat()), json!([]));
}

#[test]
fn policies_are_made_of_templates_and_put_in_force() {
    let desk = Desk::logged_in();
    let templates = desk.json(&["policy", "templates"]);
    let named = |template: &&Value| template["template"] == "tpl-data-token";
    let template = templates.as_array().unwrap().iter().find(named).unwrap().clone();
    assert_eq!(template["events"].as_array().unwrap().len(), 5);
    assert_eq!(template["matches"], json!(["classification", "label", "handling"]));
    assert!(desk.ok(&["policy", "templates"]).contains("tpl-device-registration"));

    let register = ["policy", "register", "gate", "--template"];
    let matches = ["--match", "classification=secret", "--match", "label=*"];
    let said = desk.fails(1, &[&register[..], &["tpl-odd"], &matches].concat());
    assert!(said.contains("tpl-odd") && said.contains("policy templates"), "{said}");
    let usage = desk.run(&[&register[..], &["tpl-data-token"], &["--match", "odd"]].concat());
    assert_eq!(usage.code(), 2, "{}", usage.stderr);
    let wrong = ["tpl-data-token", "--event", "odd"];
    let said = desk.fails(1, &[&register[..], &wrong, &matches].concat());
    assert!(said.contains("applyingEventIds"), "{said}");
    let made = desk.json(&[&register[..], &["tpl-data-token"], &matches].concat());
    let id = text(&made["policy"]);
    let shown = desk.json(&["policy", "show", "gate"]);
    assert_eq!(shown["events"].as_array().unwrap().len(), 5, "all, because none was named");
    assert_eq!(shown["matches"], json!({"classification": "secret", "label": "*"}));
    assert_eq!((&shown["active"], &shown["voting"]), (&json!(false), &Value::Null));
    let pairs = desk.ok(&["policy", "show", &id]);
    assert!(pairs.contains("classification=secret label=*"), "{pairs}");

    let count = |options: &[&str]| {
        desk.json(&[&["policy", "list"], options].concat()).as_array().unwrap().len()
    };
    let counts = || [count(&[]), count(&["--active"]), count(&["--inactive"])];
    assert_eq!(counts(), [1, 0, 1]);
    assert_eq!(desk.ok(&["policy", "activate", "gate"]), "activated gate\n");
    assert_eq!(counts(), [1, 1, 0]);
    assert!(desk.ok(&["policy", "list"]).lines().nth(1).unwrap().starts_with("gate  yes"));
    assert_eq!(desk.ok(&["policy", "deactivate", &id]), format!("deactivated {id}\n"));
    assert_eq!(counts(), [1, 0, 1]);
    assert_eq!(desk.run(&["policy", "list", "--active", "--inactive"]).code(), 2);

    configuration(&desk, "board", "unanimous");
    let voting = ["--template", "tpl-data-token", "--voting", "board", "--match", "label=*"];
    desk.ok(&[&["policy", "register", "second"], &voting[..]].concat());
    let said = desk.fails(1, &["voting", "configuration", "delete", "board"]);
    assert!(said.contains("used by a policy") && said.contains("policy list"), "{said}");
    for policy in ["gate", "second"] {
        assert_eq!(desk.ok(&["policy", "delete", policy]), format!("deleted {policy}\n"));
    }
    assert_eq!(counts(), [0, 0, 0]);
    assert!(desk.run(&["policy", "list"]).stderr.contains("nothing waits for a vote"));
}

#[test]
fn pools_are_opened_shown_voted_in_and_cancelled() {
    let desk = Desk::logged_in();
    let (first, second) = (voter(&desk, "one"), voter(&desk, "two"));
    configuration(&desk, "board", "affirmative");
    let create = ["voting", "create", "Shall we?", "--configuration", "board", "--title", "party"];
    let pool = text(&desk.json(&[&create[..], &["--skip", &second]].concat())["pool"]);
    let shown = desk.json(&["voting", "show", &pool]);
    assert_eq!((&shown["status"], &shown["question"]), (&json!("open"), &json!("Shall we?")));
    assert_eq!(shown["ballots"], json!([{"device": first, "name": "one", "vote": null}]));
    assert_eq!(desk.json(&["voting", "list"]), json!([shown]));
    let table = desk.ok(&["voting", "list"]);
    assert!(table.contains("0/1") && table.ends_with("Shall we?\n"), "{table}");

    let said = desk.fails(1, &["engine", "vote", &pool, "yes", "--device", &second]);
    assert!(said.contains("not asked"), "{said}");
    let after = desk.ok(&["engine", "vote", &pool, "yes", "--device", &first]);
    assert!(after.contains("status    approved\n"), "{after}");
    assert!(after.contains(&format!("ballot    approve  {first}  one\n")), "{after}");
    let said = desk.fails(1, &["engine", "vote", &pool, "no", "--device", &first]);
    assert!(said.contains("settled"), "{said}");
    assert!(desk.run(&["voting", "list"]).stderr.contains("no open pool"));

    let pool = desk.ok(&create);
    let pool = pool.trim();
    assert_eq!(desk.ok(&["voting", "cancel", pool]), format!("cancelled {pool}\n"));
    assert!(desk.fails(1, &["voting", "cancel", pool]).contains("settled"));
    let all = desk.json(&["voting", "list", "--all"]);
    let statuses: Vec<_> = all.as_array().unwrap().iter().map(|pool| &pool["status"]).collect();
    assert_eq!(statuses, ["approved", "cancelled"]);
    let wrong = ["voting", "create", "q", "--configuration", "odd", "--title", "t"];
    assert!(desk.fails(1, &wrong).contains("votingConfigurationId"));
}

#[test]
fn a_held_approval_of_a_device_is_voted_on() {
    let desk = Desk::logged_in();
    let voter = voter(&desk, "phone");
    gate(&desk, "tpl-device-registration", "evt-device-registered");
    let device = request(&desk, "new");
    let approve = ["device", "approve", &device];
    let refused = voted(&desk, &approve, |pool| {
        assert_eq!((&pool["policy"], &pool["device"]), (&json!("gate"), &json!(device)));
        let pool = text(&pool["pool"]);
        let after = desk.json(&["engine", "vote", &pool, "no", "--device", &voter]);
        assert_eq!(after["status"], "rejected");
    });
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("have voted against it"), "{}", refused.stderr);
    assert_eq!(desk.json(&["device", "list"])[2]["approval"], "pending");

    let approved = voted(&desk, &approve, |pool| {
        let pool = text(&pool["pool"]);
        desk.ok(&["engine", "vote", &pool, "yes", "--device", &voter]);
    });
    assert!(approved.success(), "{}", approved.stderr);
    assert_eq!(desk.json(&["device", "list"])[2]["approval"], "approved");
}

/// The one who votes has the device's configuration, and no login.
#[test]
fn held_data_is_voted_on_by_a_device_of_its_own() {
    let desk = Desk::logged_in();
    let voter = voter(&desk, "phone");
    let credentials = desk.text("phone.yaml");
    desk.ok(&["device", "configuration", &voter, "--output", &credentials]);
    let secret = member(&desk.path("phone.yaml"), "client-secret");
    gate(&desk, "tpl-data-exchange", "evt-data-exchanged");
    let vote = |pool: &Value, vote: &str, file: &str| {
        let mut stranger = desk.command();
        for name in ["PRIVICORE_WS_URL", "PRIVICORE_USERNAME", "PRIVICOREFS_KEY_FILE"] {
            stranger.env_remove(name);
        }
        stranger.env("XDG_STATE_HOME", desk.path("nowhere"));
        let pool = text(&pool["pool"]);
        let arguments = ["engine", "vote", &pool, vote, "--configuration", file, "--json"];
        let output = desk.run_command(stranger.args(arguments));
        assert!(!output.stdout.contains(&secret) && !output.stderr.contains(&secret));
        output
    };
    let file = desk.write("file.txt", "content");
    let put = ["token", "put", &file];
    let approved = voted(&desk, &put, |pool| {
        assert_eq!(pool["event"], "data_token.data_exchanged");
        let odd = desk.write("odd.yaml", "device-identifier: d\n");
        let said = vote(pool, "yes", &odd);
        assert_eq!(said.code(), 1);
        assert!(said.stderr.contains("0644") || said.stderr.contains("open to others"));
        common::lab::write_secret(&desk.path("odd.yaml"), "device-identifier: d");
        assert!(vote(pool, "yes", &odd).stderr.contains("client-secret"));
        let content = fs::read_to_string(desk.path("phone.yaml")).unwrap();
        common::lab::write_secret(
            &desk.path("odd.yaml"),
            content.replace(&secret, "S-wrong").trim(),
        );
        let said = vote(pool, "yes", &odd);
        assert_eq!(said.code(), 1);
        assert!(said.stderr.contains("credentials are refused"), "{}", said.stderr);
        let said = vote(pool, "yes", &credentials);
        assert!(said.success(), "{}", said.stderr);
        assert_eq!(serde_json::from_str::<Value>(&said.stdout).unwrap()["status"], "approved");
    });
    assert!(approved.success(), "{}", approved.stderr);
    let token = approved.stdout.trim();
    assert_eq!(desk.ok(&["token", "get", token]), "content");

    let refused = voted(&desk, &put, |pool| {
        assert!(vote(pool, "no", &credentials).success());
    });
    assert_eq!(refused.code(), 1, "{}", refused.stdout);
    assert!(refused.stderr.contains("policy.rejected"), "{}", refused.stderr);
    assert_eq!(desk.json(&["token", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_not_there_is_named_with_where_to_look() {
    let desk = Desk::logged_in();
    let device = "privicorefs device list";
    let (configuration, policy, pool) = (
        "privicorefs voting configuration list",
        "privicorefs policy list",
        "privicorefs voting list",
    );
    let commands: [(&[&str], &str); 16] = [
        (&["device", "identifier", NOBODY], device),
        (&["device", "rename", NOBODY, "n"], device),
        (&["device", "approve", NOBODY], device),
        (&["device", "reject", NOBODY], device),
        (&["device", "configuration", NOBODY], device),
        (&["device", "remove", NOBODY], device),
        (&["authenticator", "register", NOBODY], device),
        (&["authenticator", "remove", NOBODY], device),
        (&["voting", "configuration", "show", NOBODY], configuration),
        (&["voting", "configuration", "update", NOBODY, "--name", "n"], configuration),
        (&["voting", "configuration", "delete", NOBODY], configuration),
        (&["policy", "show", NOBODY], policy),
        (&["policy", "activate", NOBODY], policy),
        (&["policy", "delete", NOBODY], policy),
        (&["voting", "show", NOBODY], pool),
        (&["voting", "cancel", NOBODY], pool),
    ];
    for (command, hint) in commands {
        let said = desk.fails(1, command);
        assert!(said.contains(NOBODY) && said.contains(hint), "{command:?}: {said}");
    }
    let voter = voter(&desk, "phone");
    let said = desk.fails(1, &["engine", "vote", NOBODY, "yes", "--device", &voter]);
    assert!(said.contains(NOBODY) && said.contains(pool), "{said}");
    assert_eq!(desk.run(&["engine", "vote", NOBODY, "yes"]).code(), 2, "which device?");
    assert_eq!(desk.run(&["engine", "vote", NOBODY, "maybe", "--device", &voter]).code(), 2);
    assert_eq!(desk.run(&["engine"]).code(), 2, "which folder?");
    let both = ["engine", "--dir", "x", "vote", NOBODY, "yes", "--device", &voter];
    assert_eq!(desk.run(&both).code(), 2);

    // A service that has none of it.
    let mut bare = desk.command();
    let fault = json!({"rules": [
        {"op": "*", "kind": {"status": {"code": 404}}},
    ]});
    desk.engine.faults(&fault);
    let output = process::run(bare.args(["device", "list"]), PATIENCE);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("does not offer this call"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1);
}
