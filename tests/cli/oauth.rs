//! `oauth`: applications, and the chain to their tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::house::console::PATIENCE;
use crate::house::vault::write_secret;
use crate::house::{Console, process};

const HOOK: &str = "https://app.example.com/hook";

/// The object in a file, which only its owner may read.
fn secret(console: &Console, name: &str) -> Value {
    let path = console.path(name);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn registered(console: &Console, arguments: &[&str]) -> String {
    console.ok(&[&["oauth", "register", "reader", HOOK], arguments].concat()).trim().to_owned()
}

/// The program as the application runs it: it knows the service, and no profile.
fn as_application(console: &Console, arguments: &[&str]) -> process::Output {
    let mut command = console.command();
    command.env_remove("PRIVICORE_USERNAME").env("XDG_STATE_HOME", console.path("elsewhere"));
    console.run_command(command.args(arguments))
}

/// The same; it succeeds, and shows nothing that is in these files.
fn application_ok(console: &Console, arguments: &[&str], files: &[&str]) -> String {
    let output = as_application(console, arguments);
    assert!(output.success(), "{arguments:?}: {}", output.stderr);
    for name in files {
        let hidden = secret(console, name);
        for member in ["client_secret", "code", "token", "refresh_token"] {
            let Some(text) = hidden[member].as_str() else { continue };
            assert!(!output.stdout.contains(text) && !output.stderr.contains(text), "{member}");
        }
    }
    output.stdout
}

#[test]
fn the_chain_leads_from_an_application_to_its_tokens() {
    let console = Console::logged_in();
    let scopes = ["--scope", "data_token.all", "--scope", "profile.all"];
    let id = registered(&console, &scopes);
    let listed = console.json(&["oauth", "list"]);
    assert_eq!((&listed[0]["application"], &listed[0]["name"]), (&json!(id), &json!("reader")));
    assert_eq!(listed[0]["scopes"], json!(["data_token.all", "profile.all"]));
    assert_eq!(listed[0]["redirect_uri"], HOOK);
    let table = console.ok(&["oauth", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0].find("NAME"), lines[1].find("reader"), "{table}");

    let (credentials, code, pair) =
        (console.text("app"), console.text("code"), console.text("pair"));
    let said = console.ok(&["oauth", "configuration", &id, "-o", &credentials]);
    assert_eq!(said, format!("made {credentials}\n"));
    let hidden = secret(&console, "app");
    assert!(!said.contains(hidden["client_secret"].as_str().unwrap()));
    let client = hidden["client_id"].as_str().unwrap();
    assert_eq!(listed[0]["client_id"], client);
    // Once only, and nothing is left of the second try.
    let said = console.fails(1, &["oauth", "configuration", &id, "-o", &console.text("again")]);
    assert!(said.contains("once only") && !console.path("again").exists(), "{said}");

    let asked = console.json(&["oauth", "request-code", client, "--scope", "profile.all"]);
    let (request, nonce) = (asked["request"].as_str().unwrap(), asked["nonce"].as_str().unwrap());
    assert_eq!(nonce.len(), 32);
    let application = ["--application", credentials.as_str()];
    let retrieve = ["oauth", "retrieve-code", request, "--nonce", nonce, "-o", &code];
    application_ok(&console, &[&retrieve[..], &application].concat(), &["app", "code"]);
    let obtain = ["oauth", "obtain-token", "--code", &code, "-o", &pair, "--json"];
    let said =
        application_ok(&console, &[&obtain[..], &application].concat(), &["app", "code", "pair"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["scopes"], &said["file"]), (&json!(["profile.all"]), &json!(pair)));
    assert!(said["expires_at"].as_str() < said["refresh_expires_at"].as_str());

    let scope = ["oauth", "scope", "--token", &pair];
    assert_eq!(application_ok(&console, &scope, &["pair"]), "profile.all\n");
    let before = secret(&console, "pair");
    fs::copy(console.path("pair"), console.path("old")).unwrap();
    let said = application_ok(&console, &["oauth", "refresh", "--token", &pair], &["pair", "old"]);
    assert_eq!(said, format!("replaced {pair}\n"));
    assert_ne!(secret(&console, "pair")["token"], before["token"]);
    application_ok(&console, &scope, &["pair"]);
    // The old pair is dead; its file stays as it is.
    let old = console.text("old");
    for command in ["scope", "refresh"] {
        let output = as_application(&console, &["oauth", command, "--token", &old]);
        assert_eq!(output.code(), 1, "{command}");
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
    assert_eq!(secret(&console, "old"), before);
    let metrics = console.engine.metrics();
    assert_eq!(metrics.of("/profile/authenticate"), 2, "the application never logs in");
}

#[test]
fn secrets_are_printed_on_request_only() {
    let console = Console::logged_in();
    let id = registered(&console, &[]);
    let output = console.run(&["oauth", "configuration", &id]);
    assert_eq!(output.code(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("--show-secret"), "{}", output.stderr);
    let shown = console.json(&["oauth", "configuration", &id, "--show-secret"]);
    let client = shown["client_id"].as_str().unwrap();
    write_secret(&console.path("app"), &shown.to_string());
    let application = ["--application", &console.text("app")];

    let asked = console.ok(&["oauth", "request-code", client, "--nonce", "n-1"]);
    assert!(asked.lines().any(|line| line == "nonce    n-1"), "{asked}");
    let request = asked.lines().next().unwrap().trim_start_matches("request").trim().to_owned();
    let retrieve =
        ["oauth", "retrieve-code", &request, "--nonce", "n-1", "--show-secret", "--json"];
    let code = application_ok(&console, &[&retrieve[..], &application].concat(), &[]);
    write_secret(&console.path("code"), &code);
    let obtain = ["oauth", "obtain-token", "--code", &console.text("code"), "--show-secret"];
    let printed = application_ok(&console, &[&obtain[..], &application].concat(), &[]);
    let names: Vec<_> = printed.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(names, ["token", "refresh token"]);

    let other = registered(&console, &[]);
    let shown = console.ok(&["oauth", "configuration", &other, "--show-secret"]);
    assert!(shown.lines().any(|line| line.starts_with("client secret  ")), "{shown}");
}

#[test]
fn files_are_neither_overwritten_nor_open_to_others() {
    let console = Console::logged_in();
    let id = registered(&console, &[]);
    let before = console.write("app", "mine");
    let said = console.fails(1, &["oauth", "configuration", &id, "-o", &before]);
    assert!(said.contains("exists"), "{said}");
    assert_eq!(fs::read_to_string(&before).unwrap(), "mine");
    let nowhere = console.text("nowhere/app");
    assert!(console.fails(1, &["oauth", "configuration", &id, "-o", &nowhere]).contains("nowhere"));
    // It was not asked for in vain: it still can be.
    console.ok(&["oauth", "configuration", &id, "-o", &console.text("credentials")]);

    let pair = json!({ "token": "T-x", "refresh_token": "R-x" }).to_string();
    let open = console.write("open", &pair);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let output = as_application(&console, &["oauth", "scope", "--token", &open]);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("0644") && !output.stderr.contains("T-x"), "{}", output.stderr);
    write_secret(&console.path("odd"), "{\"token\": \"T-secret\", oops");
    let output = as_application(&console, &["oauth", "refresh", "--token", &console.text("odd")]);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("expected {\"token\""), "{}", output.stderr);
    assert!(!output.stderr.contains("T-secret"), "{}", output.stderr);
    let absent = as_application(&console, &["oauth", "scope", "--token", &console.text("absent")]);
    assert_eq!(absent.code(), 1);
}

#[test]
fn what_is_refused_says_so_in_one_sentence() {
    let console = Console::logged_in();
    let said = console.fails(1, &["oauth", "register", "reader", "nowhere"]);
    assert!(said.contains("redirectUri"), "{said}");
    let said = console.fails(1, &["oauth", "register", "reader", HOOK, "--scope", "nonsense"]);
    assert!(said.contains("scopes"), "{said}");
    assert_eq!(console.run(&["oauth", "list"]).stderr, "no application\n");
    assert_eq!(console.json(&["oauth", "list"]), json!([]));
    let said = console.fails(1, &["oauth", "configuration", "none", "-o", &console.text("app")]);
    assert!(said.contains("not found") && !console.path("app").exists(), "{said}");

    let id = registered(&console, &[]);
    let credentials = console.text("credentials");
    console.ok(&["oauth", "configuration", &id, "-o", &credentials]);
    let client = secret(&console, "credentials")["client_id"].as_str().unwrap().to_owned();
    let asked = console.json(&["oauth", "request-code", &client]);
    let request = asked["request"].as_str().unwrap();
    let wrong = json!({ "client_id": client, "client_secret": "S-wrong" }).to_string();
    write_secret(&console.path("wrong"), &wrong);
    let code = console.text("code");
    for (nonce, file) in [("n", "credentials"), (asked["nonce"].as_str().unwrap(), "wrong")] {
        let file = console.text(file);
        let retrieve = ["oauth", "retrieve-code", request, "--nonce", nonce, "-o", &code];
        let output = as_application(&console, &[&retrieve[..], &["--application", &file]].concat());
        assert_eq!(output.code(), 1, "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(!output.stderr.contains("S-wrong") && !console.path("code").exists());
    }
    // Nobody is logged in, and no service is named.
    let mut bare = console.command();
    for name in ["PRIVICORE_API_URL", "PRIVICORE_WS_URL", "PRIVICORE_USERNAME"] {
        bare.env_remove(name);
    }
    bare.env("XDG_STATE_HOME", console.path("elsewhere"));
    write_secret(&console.path("pair"), r#"{"token":"T-x","refresh_token":"R-x"}"#);
    let output =
        console.run_command(bare.args(["oauth", "scope", "--token", &console.text("pair")]));
    assert_eq!(output.code(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("--api-url"), "{}", output.stderr);
    console.ok(&["account", "logout"]);
    assert!(console.fails(1, &["oauth", "list"]).contains("not logged in"));
}

#[test]
fn a_service_without_the_calls_says_so_in_one_line() {
    let console = Console::logged_in();
    for code in [404, 405, 501] {
        let op = "/profile/retrieve-oauth-application-list";
        let rule = json!({ "op": op, "kind": { "status": { "code": code } }, "when": "always" });
        console.engine.faults(&json!({ "seed": 1, "rules": [rule] }));
        let said = console.fails(1, &["oauth", "list"]);
        assert!(said.contains("the service does not offer this call"), "{code}: {said}");
    }
}

#[test]
fn every_command_has_help() {
    let console = Console::without_profile();
    let help = process::run_ok(console.command().args(["oauth", "--help"]), PATIENCE).stdout;
    for command in [
        "register",
        "list",
        "configuration",
        "request-code",
        "retrieve-code",
        "obtain-token",
        "refresh",
        "scope",
    ] {
        let word = format!("  {command} ");
        assert!(help.lines().any(|line| line.starts_with(&word)), "{command}: {help}");
    }
}
