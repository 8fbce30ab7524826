//! `device`, `authenticator`, `voting`, `policy` and `engine vote`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::house;
use crate::house::console::PATIENCE;
use crate::house::process::{Output, wait_until};
use crate::house::{Console, process};

const NOBODY: &str = "0190a5d2-0000-7000-8000-000000000000";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn request(console: &Console, name: &str) -> String {
    text(&console.json(&["device", "request", "--name", name])["device"])
}

/// An approved device that votes.
fn voter(console: &Console, name: &str) -> String {
    let device = request(console, name);
    console.ok(&["device", "approve", &device]);
    console.ok(&["authenticator", "register", &device]);
    device
}

fn configuration(console: &Console, name: &str, strategy: &str) {
    let limit = ["--strategy", strategy, "--time-limit", "300"];
    console.ok(&[&["voting", "configuration", "register", name], &limit[..]].concat());
}

/// A policy in force on an event, with the voting configuration `board`.
fn gate(console: &Console, template: &str, event: &str) {
    configuration(console, "board", "unanimous");
    let of = ["--template", template, "--event", event, "--voting", "board"];
    let matches = ["--match", "classification=*"];
    console.ok(&[&["policy", "register", "gate"], &of[..], &matches[..]].concat());
    console.ok(&["policy", "activate", "gate"]);
}

/// The pool that is open, once there is one.
fn open_pool(console: &Console) -> Value {
    let found = wait_until(PATIENCE, || {
        let mut pools = console.json(&["voting", "list"]).as_array().unwrap().clone();
        pools.pop()
    });
    found.unwrap()
}

/// Runs a command that is held for a vote, and votes meanwhile; how the command ended.
fn voted(console: &Console, held: &[&str], vote: impl FnOnce(&Value)) -> Output {
    thread::scope(|scope| {
        let command = scope.spawn(|| console.run(held));
        vote(&open_pool(console));
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
    let console = Console::logged_in();
    let made = console.json(&["device", "request", "--name", "phone"]);
    let (device, asked) = (text(&made["device"]), text(&made["request"]));
    assert_eq!(console.ok(&["device", "identifier", &asked]), format!("{device}\n"));
    let printed = console.ok(&["device", "request"]);
    let other = printed.trim();
    assert_eq!(
        console.ok(&["device", "rename", &device, "my phone"]),
        format!("renamed {device}\n")
    );
    assert_eq!(console.ok(&["device", "approve", &device]), format!("approved {device}\n"));
    let done = console.json(&["device", "reject", other]);
    assert_eq!(done, json!({"device": other, "done": "rejected"}));

    let listed = console.json(&["device", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[0]["roles"], json!(["storage"]), "the virtual one");
    assert_eq!((&listed[1]["device"], &listed[1]["name"]), (&json!(device), &json!("my phone")));
    assert_eq!(
        (&listed[1]["approval"], &listed[2]["approval"]),
        (&json!("approved"), &json!("rejected"))
    );
    let table = console.ok(&["device", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert_eq!(lines[0].find("NAME"), lines[2].find("my phone"), "{table}");

    let said = console.fails(1, &["device", "approve", other]);
    assert!(said.contains("already_reviewed") && said.contains("request another"), "{said}");
    assert_eq!(console.ok(&["device", "remove", other]), format!("removed {other}\n"));
    assert_eq!(console.json(&["device", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_devices_secrets_go_to_a_private_file_and_nowhere_else() {
    let console = Console::logged_in();
    let device = request(&console, "phone");
    let (file, path) = (console.text("phone.yaml"), console.path("phone.yaml"));
    let said = console.fails(1, &["device", "configuration", &device, "--output", &file]);
    assert!(said.contains("privicorefs device approve"), "{said}");
    assert!(!path.exists());
    console.ok(&["device", "approve", &device]);

    // An older file that others could read is replaced by one that they cannot.
    console.write("phone.yaml", "old");
    let shown = console.ok(&["device", "configuration", &device, "--output", &file]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        (member(&path, "device-identifier"), member(&path, "client-id")),
        (device.clone(), device.clone())
    );
    let secrets = [member(&path, "client-secret"), member(&path, "rabbit-pass")];
    let plain = console.run(&["device", "configuration", &device]);
    assert!(plain.success() && plain.stderr.contains("--output FILE"), "{}", plain.stderr);
    let value = console.json(&["device", "configuration", &device]);
    assert_eq!((&value["client_id"], &value["file"]), (&json!(device), &Value::Null));
    let again = console.text("again.yaml");
    let saved = console.json(&["device", "configuration", &device, "-o", &again]);
    assert_eq!(saved["file"], json!(again));
    for output in [shown, plain.stdout, plain.stderr, value.to_string(), saved.to_string()] {
        for secret in &secrets {
            assert!(!output.contains(secret.as_str()), "{output}");
        }
    }
    let said = console.fails(1, &["device", "configuration", &device, "-o", "/dev/null"]);
    assert!(said.contains("not a regular file"), "{said}");
    assert!(!house::names(console.path("").as_path()).iter().any(|name| name.ends_with(".new")));
}

#[test]
fn authenticators_are_registered_listed_and_ruled() {
    let console = Console::logged_in();
    let empty = console.run(&["authenticator", "list"]);
    assert!(empty.success() && empty.stderr.contains("nobody can vote"), "{}", empty.stderr);
    assert_eq!(console.json(&["authenticator", "list"]), json!([]));
    let pending = request(&console, "phone");
    let said = console.fails(1, &["authenticator", "register", &pending]);
    assert!(said.contains("privicorefs device approve"), "{said}");
    console.ok(&["device", "approve", &pending]);
    assert_eq!(
        console.ok(&["authenticator", "register", &pending]),
        format!("registered {pending}\n")
    );
    let listed = console.json(&["authenticator", "list"]);
    assert_eq!(
        (&listed[0]["device"], &listed[0]["roles"]),
        (&json!(pending), &json!(["authenticator"]))
    );
    assert!(console.ok(&["authenticator", "list"]).contains(&pending));

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
    assert_eq!(console.ok(&[&set[..], &options].concat()), "changed\n");
    let expected = json!({
        "strategy": "minimum_percentage", "percentage": 75, "quorum_size": 2, "time_limit": 90,
        "attempts": 3,
    });
    assert_eq!(console.json(&["authenticator", "rules", "show"]), expected);
    let shown = console.ok(&["authenticator", "rules", "show"]);
    assert!(shown.contains("strategy     minimum 75 %\n"), "{shown}");
    for wrong in [
        &["--strategy", "minimum_percentage"][..],
        &["--strategy", "unanimous", "--percentage", "10"],
        &[],
        &["--percentage", "10"],
        &["--strategy", "loud"],
    ] {
        assert_eq!(console.run(&[&set[..], wrong].concat()).code(), 2, "{wrong:?}");
    }
    let said = console.fails(1, &["authenticator", "rules", "set", "--quorum-size", "0"]);
    assert!(said.contains("size"), "{said}");

    console.ok(&["authenticator", "remove", &pending]);
    assert_eq!(console.json(&["authenticator", "list"]), json!([]));
}

#[test]
fn voting_configurations_are_registered_changed_listed_and_deleted() {
    let console = Console::logged_in();
    let device = voter(&console, "phone");
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
    let made = console.json(&[&group[..], &options].concat());
    assert_eq!((&made["name"], &made["done"]), (&json!("board"), &json!("registered")));
    let id = text(&made["configuration"]);
    let shown = console.json(&[&group[..], &["show", "board"]].concat());
    assert_eq!((&shown["configuration"], &shown["percentage"]), (&json!(id), &json!(60)));
    assert_eq!((&shown["time_limit"], &shown["devices"]), (&json!(120), &json!([device])));
    let pairs = console.ok(&[&group[..], &["show", &id]].concat());
    assert!(pairs.contains("minimum 60 %") && pairs.contains(&device), "{pairs}");

    let change = ["update", "board", "--strategy", "consensus", "--all-devices"];
    assert_eq!(console.ok(&[&group[..], &change].concat()), "changed board\n");
    let listed = console.json(&[&group[..], &["list"]].concat());
    assert_eq!((&listed[0]["strategy"], &listed[0]["devices"]), (&json!("consensus"), &json!([])));
    assert_eq!(listed[0]["time_limit"], 120, "what is not given stays");
    assert!(console.ok(&[&group[..], &["list"]].concat()).contains("consensus"));
    assert_eq!(console.run(&[&group[..], &["update", "board"]].concat()).code(), 2);

    let again = ["register", "board", "--strategy", "unanimous", "--time-limit", "60"];
    let said = console.fails(1, &[&group[..], &again].concat());
    assert!(said.contains("taken"), "{said}");
    assert_eq!(console.ok(&[&group[..], &["delete", "board"]].concat()), "deleted board\n");
    assert_eq!(console.json(&[&group[..], &["list"]].concat()), json!([]));
}

#[test]
fn policies_are_made_of_templates_and_put_in_force() {
    let console = Console::logged_in();
    let templates = console.json(&["policy", "templates"]);
    let named = |template: &&Value| template["template"] == "tpl-data-token";
    let template = templates.as_array().unwrap().iter().find(named).unwrap().clone();
    assert_eq!(template["events"].as_array().unwrap().len(), 5);
    assert_eq!(template["matches"], json!(["classification", "label", "handling"]));
    assert!(console.ok(&["policy", "templates"]).contains("tpl-device-registration"));

    let register = ["policy", "register", "gate", "--template"];
    let matches = ["--match", "classification=secret", "--match", "label=*"];
    let said = console.fails(1, &[&register[..], &["tpl-odd"], &matches].concat());
    assert!(said.contains("tpl-odd") && said.contains("policy templates"), "{said}");
    let usage = console.run(&[&register[..], &["tpl-data-token"], &["--match", "odd"]].concat());
    assert_eq!(usage.code(), 2, "{}", usage.stderr);
    let wrong = ["tpl-data-token", "--event", "odd"];
    let said = console.fails(1, &[&register[..], &wrong, &matches].concat());
    assert!(said.contains("applyingEventIds"), "{said}");
    let made = console.json(&[&register[..], &["tpl-data-token"], &matches].concat());
    let id = text(&made["policy"]);
    let shown = console.json(&["policy", "show", "gate"]);
    assert_eq!(shown["events"].as_array().unwrap().len(), 5, "all, because none was named");
    assert_eq!(shown["matches"], json!({"classification": "secret", "label": "*"}));
    assert_eq!((&shown["active"], &shown["voting"]), (&json!(false), &Value::Null));
    let pairs = console.ok(&["policy", "show", &id]);
    assert!(pairs.contains("classification=secret label=*"), "{pairs}");

    let count = |options: &[&str]| {
        console.json(&[&["policy", "list"], options].concat()).as_array().unwrap().len()
    };
    let counts = || [count(&[]), count(&["--active"]), count(&["--inactive"])];
    assert_eq!(counts(), [1, 0, 1]);
    assert_eq!(console.ok(&["policy", "activate", "gate"]), "activated gate\n");
    assert_eq!(counts(), [1, 1, 0]);
    assert!(console.ok(&["policy", "list"]).lines().nth(1).unwrap().starts_with("gate  yes"));
    assert_eq!(console.ok(&["policy", "deactivate", &id]), format!("deactivated {id}\n"));
    assert_eq!(counts(), [1, 0, 1]);
    assert_eq!(console.run(&["policy", "list", "--active", "--inactive"]).code(), 2);

    configuration(&console, "board", "unanimous");
    let voting = ["--template", "tpl-data-token", "--voting", "board", "--match", "label=*"];
    console.ok(&[&["policy", "register", "second"], &voting[..]].concat());
    let said = console.fails(1, &["voting", "configuration", "delete", "board"]);
    assert!(said.contains("used by a policy") && said.contains("policy list"), "{said}");
    for policy in ["gate", "second"] {
        assert_eq!(console.ok(&["policy", "delete", policy]), format!("deleted {policy}\n"));
    }
    assert_eq!(counts(), [0, 0, 0]);
    assert!(console.run(&["policy", "list"]).stderr.contains("nothing waits for a vote"));
}

#[test]
fn pools_are_opened_shown_voted_in_and_cancelled() {
    let console = Console::logged_in();
    let (first, second) = (voter(&console, "one"), voter(&console, "two"));
    configuration(&console, "board", "affirmative");
    let create = ["voting", "create", "Shall we?", "--configuration", "board", "--title", "party"];
    let pool = text(&console.json(&[&create[..], &["--skip", &second]].concat())["pool"]);
    let shown = console.json(&["voting", "show", &pool]);
    assert_eq!((&shown["status"], &shown["question"]), (&json!("open"), &json!("Shall we?")));
    assert_eq!(shown["ballots"], json!([{"device": first, "name": "one", "vote": null}]));
    assert_eq!(console.json(&["voting", "list"]), json!([shown]));
    let table = console.ok(&["voting", "list"]);
    assert!(table.contains("0/1") && table.ends_with("Shall we?\n"), "{table}");

    let said = console.fails(1, &["engine", "vote", &pool, "yes", "--device", &second]);
    assert!(said.contains("not asked"), "{said}");
    let after = console.ok(&["engine", "vote", &pool, "yes", "--device", &first]);
    assert!(after.contains("status    approved\n"), "{after}");
    assert!(after.contains(&format!("ballot    approve  {first}  one\n")), "{after}");
    let said = console.fails(1, &["engine", "vote", &pool, "no", "--device", &first]);
    assert!(said.contains("settled"), "{said}");
    assert!(console.run(&["voting", "list"]).stderr.contains("no open pool"));

    let pool = console.ok(&create);
    let pool = pool.trim();
    assert_eq!(console.ok(&["voting", "cancel", pool]), format!("cancelled {pool}\n"));
    assert!(console.fails(1, &["voting", "cancel", pool]).contains("settled"));
    let all = console.json(&["voting", "list", "--all"]);
    let statuses: Vec<_> = all.as_array().unwrap().iter().map(|pool| &pool["status"]).collect();
    assert_eq!(statuses, ["approved", "cancelled"]);
    let wrong = ["voting", "create", "q", "--configuration", "odd", "--title", "t"];
    assert!(console.fails(1, &wrong).contains("votingConfigurationId"));
}

#[test]
fn a_held_approval_of_a_device_is_voted_on() {
    let console = Console::logged_in();
    let voter = voter(&console, "phone");
    gate(&console, "tpl-device-registration", "evt-device-registered");
    let device = request(&console, "new");
    let approve = ["device", "approve", &device];
    let refused = voted(&console, &approve, |pool| {
        assert_eq!((&pool["policy"], &pool["device"]), (&json!("gate"), &json!(device)));
        let pool = text(&pool["pool"]);
        let after = console.json(&["engine", "vote", &pool, "no", "--device", &voter]);
        assert_eq!(after["status"], "rejected");
    });
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("have voted against it"), "{}", refused.stderr);
    assert_eq!(console.json(&["device", "list"])[2]["approval"], "pending");

    let approved = voted(&console, &approve, |pool| {
        let pool = text(&pool["pool"]);
        console.ok(&["engine", "vote", &pool, "yes", "--device", &voter]);
    });
    assert!(approved.success(), "{}", approved.stderr);
    assert_eq!(console.json(&["device", "list"])[2]["approval"], "approved");
}

/// The one who votes has the device's configuration, and no login.
#[test]
fn held_data_is_voted_on_by_a_device_of_its_own() {
    let console = Console::logged_in();
    let voter = voter(&console, "phone");
    let credentials = console.text("phone.yaml");
    console.ok(&["device", "configuration", &voter, "--output", &credentials]);
    let secret = member(&console.path("phone.yaml"), "client-secret");
    gate(&console, "tpl-data-exchange", "evt-data-exchanged");
    let vote = |pool: &Value, vote: &str, file: &str| {
        let mut stranger = console.command();
        for name in ["PRIVICORE_WS_URL", "PRIVICORE_USERNAME", "PRIVICOREFS_KEY_FILE"] {
            stranger.env_remove(name);
        }
        stranger.env("XDG_STATE_HOME", console.path("nowhere"));
        let pool = text(&pool["pool"]);
        let arguments = ["engine", "vote", &pool, vote, "--configuration", file, "--json"];
        let output = console.run_command(stranger.args(arguments));
        assert!(!output.stdout.contains(&secret) && !output.stderr.contains(&secret));
        output
    };
    let file = console.write("file.txt", "content");
    let put = ["token", "put", &file];
    let approved = voted(&console, &put, |pool| {
        assert_eq!(pool["event"], "data_token.data_exchanged");
        let odd = console.write("odd.yaml", "device-identifier: d\n");
        let said = vote(pool, "yes", &odd);
        assert_eq!(said.code(), 1);
        assert!(said.stderr.contains("0644") || said.stderr.contains("open to others"));
        house::vault::write_secret(&console.path("odd.yaml"), "device-identifier: d");
        assert!(vote(pool, "yes", &odd).stderr.contains("client-secret"));
        let content = fs::read_to_string(console.path("phone.yaml")).unwrap();
        house::vault::write_secret(
            &console.path("odd.yaml"),
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
    assert_eq!(console.ok(&["token", "get", token]), "content");

    let refused = voted(&console, &put, |pool| {
        assert!(vote(pool, "no", &credentials).success());
    });
    assert_eq!(refused.code(), 1, "{}", refused.stdout);
    assert!(refused.stderr.contains("policy.rejected"), "{}", refused.stderr);
    assert_eq!(console.json(&["token", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_not_there_is_named_with_where_to_look() {
    let console = Console::logged_in();
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
        let said = console.fails(1, command);
        assert!(said.contains(NOBODY) && said.contains(hint), "{command:?}: {said}");
    }
    let voter = voter(&console, "phone");
    let said = console.fails(1, &["engine", "vote", NOBODY, "yes", "--device", &voter]);
    assert!(said.contains(NOBODY) && said.contains(pool), "{said}");
    assert_eq!(console.run(&["engine", "vote", NOBODY, "yes"]).code(), 2, "which device?");
    assert_eq!(console.run(&["engine", "vote", NOBODY, "maybe", "--device", &voter]).code(), 2);
    assert_eq!(console.run(&["engine"]).code(), 2, "which folder?");
    let both = ["engine", "--dir", "x", "vote", NOBODY, "yes", "--device", &voter];
    assert_eq!(console.run(&both).code(), 2);

    // A service that has none of it.
    let mut bare = console.command();
    let fault = json!({"rules": [
        {"op": "*", "kind": {"status": {"code": 404}}},
    ]});
    console.engine.faults(&fault);
    let output = process::run(bare.args(["device", "list"]), PATIENCE);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("does not offer this call"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1);
}
