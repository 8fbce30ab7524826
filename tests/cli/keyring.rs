//! Sessions in the desktop's keyring: a real Secret Service (gnome-keyring) on a D-Bus session
//! that ends with each command, as after a restart of the desktop.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::house::Console;
use crate::house::console::PATIENCE;
use crate::house::process::{self, Output, now};
use crate::house::vault::PASSWORD;

/// Runs the rest of its arguments on a bus with an unlocked keyring.
const IN_SESSION: &str =
    "printf keyring | gnome-keyring-daemon --unlock --components=secrets >&2 && exec \"$@\"";

/// Runs the program in a desktop session. Its standard error is the desktop's too.
fn in_session(console: &Console, arguments: &[&str]) -> Output {
    let plain = console.command();
    let mut command = Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", IN_SESSION, "sh"]).arg(plain.get_program()).args(arguments);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = process::run(&mut command, PATIENCE);
    assert!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD));
    output
}

fn ok(console: &Console, arguments: &[&str]) -> Value {
    let output = in_session(console, &[arguments, &["--json"]].concat());
    assert!(output.success(), "{arguments:?}: {}{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn a_session_is_kept_in_the_keyring_and_forgotten_there() {
    let console = Console::new();
    let password = console.text("password");
    let login = ["account", "login", "--password-file", &password];
    assert_eq!(ok(&console, &login)["kept"], "keyring", "a keyring that answers is preferred");
    let (file, content) = console.session();
    assert_eq!(content.get("token"), None);
    assert_eq!(content["username"], "tester");
    assert_eq!(ok(&console, &["account", "whoami"])["username"], "tester");
    let shown = ok(&console, &["account", "token", "show", "--reveal"]);
    let token = shown["token"].as_str().unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains(token));

    // Another token takes its place there too.
    console.engine.shape(&serde_json::json!({ "reauthorize": "replace" }));
    ok(&console, &["account", "token", "extend"]);
    assert_ne!(ok(&console, &["account", "token", "show", "--reveal"])["token"], token);
    assert_eq!(console.session().1.get("token"), None);

    // Without the desktop the session is not to be had, and is not lost.
    let said = console.fails(1, &["account", "whoami"]);
    assert!(said.contains("kept in the keyring: there is no D-Bus session"), "{said}");
    ok(&console, &["account", "whoami"]);
    assert_eq!(ok(&console, &["account", "logout"])["logged_out"], true);
    assert!(console.kept().is_empty());

    // It is gone from the keyring: its file alone leads nowhere, and is forgotten.
    fs::write(&file, content.to_string()).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = in_session(&console, &["account", "whoami"]);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("not in the keyring any more"), "{}", output.stderr);
    ok(&console, &["account", "logout"]);
    assert!(console.kept().is_empty());
}

#[test]
fn the_configuration_chooses_the_place() {
    let console = Console::new();
    let config = console.write("file.toml", "session_store = \"file\"\n");
    let login = ["account", "login", "--password-file", &console.text("password")];
    let in_file = [&login[..], &["--config", &config]].concat();
    assert_eq!(ok(&console, &in_file)["kept"], "file");
    assert!(console.session().1["token"].is_string());
    assert_eq!(ok(&console, &[&in_file[..], &["--keyring"]].concat())["kept"], "keyring");
    assert_eq!(ok(&console, &in_file)["kept"], "file");
    console.ok(&["account", "whoami"]);
    let config = console.write("odd.toml", "session_store = \"pocket\"\n");
    let said = console.fails(2, &["account", "whoami", "--config", &config]);
    assert!(said.contains("pocket") && said.contains("keyring"), "{said}");
}

#[test]
fn without_a_keyring_there_is_the_file() {
    let console = Console::new();
    let password = console.text("password");
    let login = ["account", "login", "--password-file", &password];
    let said = console.ok(&login);
    assert!(said.ends_with("(kept in the file)\n"), "{said}");
    let forced = [&login[..], &["--keyring"]].concat();
    assert!(console.fails(1, &forced).contains("no D-Bus session"));
    let config = console.write("keyring.toml", "session_store = \"keyring\"\n");
    let said = console.fails(1, &[&login[..], &["--config", &config]].concat());
    assert!(said.contains("no D-Bus session"), "{said}");

    // An address where nobody is, and one where nobody answers.
    let silent = console.path("silent");
    let listener = UnixListener::bind(&silent).unwrap();
    for place in [console.path("nobody"), silent] {
        let mut command = console.command();
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", place.display()));
        let begun = now();
        let output = console.run_command(command.args(login));
        assert!(output.stdout.ends_with("(kept in the file)\n"), "{}", output.stderr);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
    drop(listener);
    console.ok(&["account", "whoami"]);
}
