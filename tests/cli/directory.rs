//! `directory`: organisations with their users, and the table that a configuration overrides.

use serde_json::{Value, json};

use crate::house;
use crate::house::console::PATIENCE;
use crate::house::engine_process::Login;
use crate::house::vault::{PASSWORD, write_secret};
use crate::house::{Console, process};

const NEW: &str = "another-Horse-battery-Staple-6288";

/// A directory, its id.
fn directory(console: &Console, name: &str) -> String {
    let printed = console.ok(&["directory", "register", name]);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed.trim().to_owned()
}

/// A user that the directory makes: the id of its profile.
fn user(console: &Console, directory: &str, name: &str) -> String {
    write_secret(&console.path("new"), NEW);
    let new = console.text("new");
    let arguments = ["directory", "user", "create", directory, name, "--new-password-file", &new];
    let made = console.json(&arguments);
    assert_eq!(made["username"], name);
    made["profile"].as_str().unwrap().to_owned()
}

/// A profile of its own, logged in; its id.
fn guest(console: &Console, name: &str) -> String {
    let password = console.text("password");
    for command in ["register", "login"] {
        console.ok(&["account", command, "--username", name, "--password-file", &password]);
    }
    let who = console.json(&["account", "whoami", "--username", name]);
    who["profile_id"].as_str().unwrap().to_owned()
}

fn column<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|item| item[name].as_str().unwrap()).collect()
}

#[test]
fn directories_are_registered_listed_and_described() {
    let console = Console::logged_in();
    let said = console.run(&["directory", "list"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "no directory\n"));
    assert_eq!(console.json(&["directory", "list"]), json!([]));
    let works = directory(&console, "works");
    let made = console.json(&["directory", "register", "vault\u{1b}[31m"]);
    let vault = made["directory"].as_str().unwrap();

    let listed = console.json(&["directory", "list", "--owned"]);
    assert_eq!(column(&listed, "directory"), [&*works, vault]);
    assert_eq!(column(&listed, "role"), ["owner", "owner"]);
    assert_eq!(console.json(&["directory", "list", "--assigned"]), json!([]));
    let table = console.ok(&["directory", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0].find("NAME"), lines[1].find("works"), "{table}");
    assert!(lines[2].ends_with("vault\\u{1b}[31m"), "no tricks: {table}");
    assert_eq!(console.run(&["directory", "list", "--owned", "--assigned"]).code(), 2);

    let set =
        |members: &[&str]| console.ok(&[&["directory", "meta", "set", &works], members].concat());
    assert_eq!(set(&["city=Oslo", "a b=1=2", "gone=soon"]), format!("changed {works}\n"));
    set(&["gone="]);
    let meta = json!({ "city": "Oslo", "a b": "1=2" });
    assert_eq!(console.json(&["directory", "meta", "get", &works]), meta);
    assert_eq!(console.ok(&["directory", "meta", "get", &works]), "a b   1=2\ncity  Oslo\n");
    assert_eq!(console.ok(&["directory", "meta", "get", &works, "city"]), "Oslo\n");
    let said = console.fails(1, &["directory", "meta", "get", &works, "gone"]);
    assert!(said.contains("no meta information gone"), "{said}");
    let shown = console.json(&["directory", "show", &works]);
    assert_eq!((&shown["name"], &shown["meta"]), (&json!("works"), &meta));
    let shown = console.ok(&["directory", "show", &works]);
    assert!(shown.lines().any(|line| line == "meta city  Oslo"), "{shown}");
    for wrong in [["directory", "meta", "set", &works], ["directory", "meta", "set", "=x"]] {
        assert_eq!(console.run(&wrong).code(), 2);
    }
}

#[test]
fn users_are_made_described_and_given_passwords_and_devices() {
    let console = Console::logged_in();
    let works = directory(&console, "works");
    let worker = user(&console, &works, "worker");
    let update = ["directory", "user", "update", &works, &worker, "title=clerk", "floor=2"];
    assert_eq!(console.ok(&update), format!("changed {worker}\n"));
    assert_eq!(console.json(&[&update[..5], &["floor="]].concat())["changed"], true);

    let users = console.json(&["directory", "users", &works]);
    assert_eq!(column(&users, "username"), ["tester", "worker"]);
    assert!(console.ok(&["directory", "users", &works]).contains("member"));
    let profile = console.json(&["directory", "profile", &works, &worker]);
    assert_eq!(profile["information"], json!({ "title": "clerk" }));
    let profile = console.ok(&["directory", "profile", &works, &worker]);
    assert!(profile.lines().any(|line| line == "title    clerk"), "{profile}");
    assert_eq!(console.json(&["directory", "info", &works]).as_array().unwrap().len(), 2);
    let info = console.json(&["directory", "info", &works, &worker]);
    assert_eq!(info[0]["information"], json!({ "title": "clerk" }));
    let table = console.ok(&["directory", "info", &works, &worker]);
    assert!(table.lines().nth(1).unwrap().ends_with("title=clerk"), "{table}");

    // The password that was set first, and the one after it.
    let login = |password: &str| {
        let file = console.text(password);
        console.run(&["account", "login", "--username", "worker", "--password-file", &file])
    };
    assert!(login("new").success() && !login("password").success());
    let password = console.text("password");
    let set = ["directory", "password", &works, &worker, "--new-password-command"];
    let said = console.ok(&[&set[..], &[&format!("cat '{password}'")]].concat());
    assert!(said.contains(&worker) && !said.contains(PASSWORD), "{said}");
    assert!(login("password").success() && !login("new").success());
    assert_eq!(console.json(&["directory", "list", "--username", "worker"])[0]["role"], "member");

    let device = console.ok(&["directory", "device", "create", &works, &worker, "vault"]);
    let device = device.trim();
    let said = console.ok(&["directory", "storage", "add", &works, &worker, device]);
    assert_eq!(said, format!("registered {device}\n"));
    let devices = console.json(&["directory", "devices", &works]);
    let made = devices.as_array().unwrap().iter().find(|found| found["device"] == device).unwrap();
    assert_eq!((&made["storage"], &made["username"]), (&json!(true), &json!("worker")));
    assert!(console.ok(&["directory", "devices", &works]).contains("yes"));

    write_secret(&console.path("weak"), "zq81");
    let weak = console.text("weak");
    let create = ["directory", "user", "create", &works, "other", "--new-password-file", &weak];
    let said = console.fails(1, &create);
    assert!(said.contains("password is too weak") && !said.contains("zq81"), "{said}");
    let taken = ["directory", "user", "create", &works, "worker", "--new-password-file", &password];
    assert!(console.fails(1, &taken).contains("taken"));
    let said = console.fails(1, &["directory", "user", "create", &works, "other"]);
    assert!(said.contains("no terminal"), "{said}");
}

#[test]
fn invitations_are_answered_by_who_is_invited() {
    let console = Console::logged_in();
    let works = directory(&console, "works");
    let id = guest(&console, "guest");
    let as_guest =
        |arguments: &[&str]| console.json(&[arguments, &["--username", "guest"]].concat());
    let invite = || console.ok(&["directory", "invite", &works, &id]).trim().to_owned();
    let first = invite();
    let waiting = console.json(&["directory", "invites", &works]);
    assert_eq!(as_guest(&["directory", "invites"]), waiting);
    assert_eq!((&waiting[0]["invitation"], &waiting[0]["name"]), (&json!(first), &json!("works")));
    let table = console.ok(&["directory", "invites", &works]);
    assert!(table.contains("guest") && table.contains(&first), "{table}");
    let said = console.fails(1, &["directory", "accept", &first]);
    assert!(said.contains("another profile"), "{said}");

    assert_eq!(as_guest(&["directory", "decline", &first])["done"], "declined");
    assert_eq!(as_guest(&["directory", "list"]), json!([]));
    let said = console.fails(1, &["directory", "show", &works, "--username", "guest"]);
    assert!(said.contains("not in the directory"), "{said}");
    assert_eq!(as_guest(&["directory", "accept", &invite()])["done"], "accepted");
    assert_eq!(as_guest(&["directory", "list", "--assigned"])[0]["directory"], works);
    assert_eq!(console.run(&["directory", "invites"]).stderr, "no invitation\n");
    assert!(console.fails(1, &["directory", "invite", &works, &id]).contains("already"));
}

#[test]
fn everybody_in_a_directory_is_asked_to_vote() {
    let console = Console::logged_in();
    let works = directory(&console, "works");
    user(&console, &works, "worker");
    let vote = ["directory", "vote", &works, "--title", "Lunch", "--question", "Now?"];
    assert!(console.fails(1, &vote).contains("no_authenticator"));
    let worker = Login { username: "worker".to_owned(), password: NEW.to_owned() };
    let device = console.engine.authenticator(&worker, "phone");
    let opened = console.json(&vote);
    assert_eq!((&opened["title"], &opened["directory"]), (&json!("Lunch"), &json!(works)));
    let pool = console.ok(&vote);
    let session = console.session().1["token"].as_str().unwrap().to_owned();
    let path = format!("/voting/check-pool-status/{}", pool.trim());
    let headers = [("X-DPT-AUTHORIZATION", session.as_str())];
    let reply = house::http::request("GET", &console.engine.api_url, &path, &headers, &[]).unwrap();
    let ballots = reply.json()["ballots"].clone();
    assert_eq!(ballots[0]["deviceIdentifier"], device);
    assert_eq!(ballots.as_array().unwrap().len(), 1);
    let said = console.fails(1, &[&vote[..], &["--configuration", "none"]].concat());
    assert!(said.contains("votingConfigurationId"), "{said}");
    assert_eq!(console.run(&["directory", "vote", &works]).code(), 2, "what is asked is missing");
}

#[test]
fn what_is_refused_says_so_in_one_sentence() {
    let console = Console::logged_in();
    let works = directory(&console, "works");
    let id = guest(&console, "guest");
    let commands: [&[&str]; 8] = [
        &["directory", "users", "none"],
        &["directory", "show", "none"],
        &["directory", "profile", &works, "none"],
        &["directory", "invite", &works, "none"],
        &["directory", "invites", "none"],
        &["directory", "accept", "none"],
        &["directory", "devices", "none"],
        &["directory", "device", "create", &works, "none", "vault"],
    ];
    for command in commands {
        assert!(console.fails(1, command).contains("not found"), "{command:?}");
    }
    let invitation = console.ok(&["directory", "invite", &works, &id]);
    console.ok(&["directory", "accept", invitation.trim(), "--username", "guest"]);
    for command in [
        &["directory", "devices", &works][..],
        &["directory", "meta", "set", &works, "a=b"],
        &["directory", "vote", &works, "--title", "t", "--question", "q?"],
    ] {
        let said = console.fails(1, &[command, &["--username", "guest"]].concat());
        assert!(said.contains("only the directory's owner"), "{said}");
    }
    console.ok(&["account", "logout", "--username", "guest"]);
    console.ok(&["account", "logout"]);
    assert!(console.fails(1, &["directory", "list"]).contains("not logged in"));
    let vault = console.text("vault");
    assert_eq!(console.json(&["directory", "list", "--embedded", &vault]), json!([]));
}

#[test]
fn a_service_without_the_calls_says_so_in_one_line() {
    let console = Console::logged_in();
    let works = directory(&console, "works");
    for code in [404, 405, 501] {
        for (op, command) in [
            ("/directory/retrieve-directory", &["directory", "show", &works][..]),
            ("/directory/retrieve-owned-directories", &["directory", "list"]),
            ("/directory/register", &["directory", "register", "more"]),
        ] {
            let rule =
                json!({ "op": op, "kind": { "status": { "code": code } }, "when": "always" });
            console.engine.faults(&json!({ "seed": 1, "rules": [rule] }));
            let said = console.fails(1, command);
            assert!(said.contains("the service does not offer this call"), "{code} {op}: {said}");
        }
    }
}

#[test]
fn the_configuration_overrides_the_table() {
    let console = Console::logged_in();
    // The engine lists users under this path too: the table is what says which is which.
    let table = console.write(
        "table.toml",
        "[directory.calls]\n\
         register = \"PUT /v2/{name}\"\n\
         list_assigned = \"GET /directory/retrieve-owned-directories\"\n\
         [directory.fields]\n\
         invitation_id = \"other\"\n",
    );
    let works = directory(&console, "works");
    let before = console.engine.metrics();
    let said = console.fails(1, &["directory", "register", "more", "--config", &table]);
    assert!(said.contains("does not offer this call"), "{said}");
    assert_eq!(console.engine.since(&before).of("PUT (unknown)"), 1);
    let listed = console.json(&["directory", "list", "--assigned", "--config", &table]);
    assert_eq!(column(&listed, "directory"), [&*works]);
    let said = console.fails(1, &["directory", "accept", "none", "--config", &table]);
    assert!(said.contains("invitationId"), "the engine misses it: {said}");

    for (text, key) in [
        ("[directory.calls]\nregister = \"/v2\"\n", "line 2: directory.calls.register: a call is"),
        ("[directory.calls]\nregistr = \"GET /\"\n", "directory.calls.registr: there is only"),
        ("[directory.fields]\n\nmeta = \"a b\"\n", "line 3: directory.fields.meta: a name is one"),
        (
            "[directory.calls]\ninvite = \"GET /{x}\"\n",
            "directory.calls.invite: no field is called {x}",
        ),
        ("[directory.words]\naccept = \"y\"\n", "unknown field `words`"),
    ] {
        let wrong = console.write("wrong.toml", text);
        let said = console.fails(2, &["directory", "list", "--config", &wrong]);
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn every_command_has_help() {
    let console = Console::without_profile();
    let help = process::run_ok(console.command().args(["directory", "--help"]), PATIENCE).stdout;
    for command in [
        "register", "list", "show", "meta", "users", "user", "profile", "info", "password",
        "invite", "invites", "accept", "decline", "devices", "device", "storage", "vote",
    ] {
        let word = format!("  {command} ");
        assert!(help.lines().any(|line| line.starts_with(&word)), "{command}: {help}");
    }
}
