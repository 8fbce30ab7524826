//! `account` and `storage`, and connections without the drive.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::house;
use crate::house::console::PATIENCE;
use crate::house::vault::{PASSWORD, write_secret};
use crate::house::{Console, eventually, process};

const NEW: &str = "another-Horse-battery-Staple-6288";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_session_is_kept_privately_used_and_ended() {
    let console = Console::without_profile();
    let password = console.text("password");
    assert!(console.fails(1, &["token", "list"]).contains("privicorefs account login"));
    let made = console.json(&["account", "register", "--password-file", &password]);
    assert_eq!((&made["username"], &made["registered"]), (&"tester".into(), &true.into()));
    assert!(console.kept().is_empty());

    let said = console.ok(&["account", "login", "--password-file", &password]);
    assert!(said.contains("tester") && said.contains("until 20"), "{said}");
    let (file, content) = console.session();
    assert_eq!((mode(&file), mode(&console.sessions())), (0o600, 0o700));
    assert_eq!(content["username"], "tester");
    assert!(!fs::read_to_string(&file).unwrap().contains(PASSWORD));

    let who = console.json(&["account", "whoami"]);
    assert_eq!((&who["username"], &who["scope"][0]), (&"tester".into(), &"all".into()));
    assert!(console.ok(&["account", "whoami"]).lines().any(|line| line == "user     tester"));
    assert_eq!(console.engine.metrics().of("authenticate"), 2, "register's, and the one login");

    // The addresses are kept too.
    let mut bare = console.command();
    for name in ["PRIVICORE_API_URL", "PRIVICORE_WS_URL", "PRIVICORE_USERNAME"] {
        bare.env_remove(name);
    }
    let output = console.run_command(bare.args(["account", "whoami"]));
    assert!(output.success(), "{}", output.stderr);

    let (token, other) = (content["token"].as_str().unwrap().to_owned(), console.text("moved"));
    fs::copy(&file, &other).unwrap();
    assert_eq!(console.ok(&["account", "logout"]), "logged out\n");
    assert!(console.kept().is_empty());
    assert!(console.run(&["account", "logout"]).success(), "twice is no failure");
    // It does not count at the service either.
    fs::copy(&other, &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(console.session().1["token"], token);
    let said = console.fails(1, &["account", "whoami"]);
    assert!(said.contains("run `privicorefs account login`"), "{said}");
    assert!(console.run(&["account", "logout"]).success(), "what is refused is logged out");
}

#[test]
fn sessions_that_do_not_count_say_so_in_one_sentence() {
    let console = Console::logged_in();
    let (file, _) = console.session();
    let commands: [&[&str]; 4] = [
        &["token", "list"],
        &["token", "delete", "dtk-x"],
        &["storage", "list"],
        &["account", "token", "extend"],
    ];
    console.change_session("token", "T-invented");
    for command in commands {
        let said = console.fails(1, command);
        assert!(
            said.contains("refuses the kept session: run `privicorefs account login`"),
            "{said}"
        );
    }
    console.change_session("expires_at", "2020-01-01T00:00:00+00:00");
    let asked = console.engine.metrics();
    for command in commands {
        let said = console.fails(1, command);
        assert!(said.contains("has expired: run `privicorefs account login`"), "{said}");
    }
    assert_eq!(console.engine.since(&asked).of("token"), 0, "an expired token is not sent");

    // A password that is given goes before what is kept.
    let mut command = console.command();
    let output =
        console.run_command(command.env("PRIVICORE_PASSWORD", PASSWORD).args(["token", "list"]));
    assert!(output.success(), "{}", output.stderr);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(console.fails(1, &["token", "list"]).contains("0640"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "{\"token\": \"T-invented\", ").unwrap();
    assert!(console.fails(1, &["token", "list"]).contains("not a kept session"));
}

#[test]
fn the_service_is_asked_without_a_login() {
    let mut console = Console::new();
    assert!(console.ok(&["account", "ping"]).contains("answers"));
    assert_eq!(console.json(&["account", "ping"])["answers"], true);
    assert!(console.kept().is_empty());
    console.engine.kill();
    let said = console.fails(1, &["account", "ping"]);
    assert!(said.contains("check health"), "{said}");
}

#[test]
fn logins_that_are_refused_keep_nothing() {
    let console = Console::new();
    write_secret(&console.path("wrong"), NEW);
    let said = console.fails(1, &["account", "login", "--password-file", &console.text("wrong")]);
    assert!(said.contains("invalid credentials") && !said.contains(NEW), "{said}");
    let said =
        console.fails(1, &["account", "register", "--password-file", &console.text("wrong")]);
    assert!(said.contains("tester is taken"), "{said}");
    write_secret(&console.path("weak"), "zq81");
    let weak = console.text("weak");
    let said =
        console.fails(1, &["account", "register", "--username", "new", "--password-file", &weak]);
    assert!(said.contains("password is too weak"), "{said}");
    let said = console.fails(1, &["account", "login"]);
    assert!(said.contains("no terminal"), "{said}");
    let said = console.fails(2, &["account", "login", "--password-command", "exit 3"]);
    assert!(said.contains("--password-command"), "{said}");
    let mut bare = console.command();
    bare.env_remove("PRIVICORE_USERNAME");
    let output = console.run_command(bare.args(["account", "login"]));
    assert_eq!(output.code(), 2, "{}", output.stderr);
    assert!(console.kept().is_empty());
}

#[test]
fn passwords_are_changed_from_files_and_commands() {
    let console = Console::logged_in();
    write_secret(&console.path("new"), NEW);
    write_secret(&console.path("weak"), "weak");
    let (old, new, weak) = (console.text("password"), console.text("new"), console.text("weak"));
    let change = |current: &str, new: &str| {
        console.run(&[
            "account",
            "password",
            "--password-file",
            current,
            "--new-password-file",
            new,
        ])
    };
    let output = change(&old, &weak);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("newPassword"), "{}", output.stderr);
    let output = change(&old, &new);
    assert!(output.success(), "{}", output.stderr);
    assert!(!output.stderr.contains(NEW));
    assert!(console.fails(1, &["account", "login", "--password-file", &old]).contains("invalid"));
    console.ok(&["account", "login", "--password-command", &format!("cat '{new}'")]);
    // The session that was kept before still counts, and needs no login.
    console.ok(&["account", "whoami"]);
}

/// Types each line when it is asked for, with standard input a terminal; what is said.
fn type_in(
    console: &Console,
    arguments: &[&str],
    lines: &[(&str, &str)],
) -> (bool, String, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(name).unwrap();
    let log = console.path("typed.log");
    let mut command = console.command();
    command.args(arguments).stdin(slave.try_clone().unwrap()).stdout(Stdio::null());
    let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
    let mut keyboard = File::from(terminal);
    for (question, line) in lines {
        eventually(question, PATIENCE, || fs::read_to_string(&log).unwrap().contains(question));
        keyboard.write_all(line.as_bytes()).unwrap();
    }
    let status = process::wait_until(PATIENCE, || child.try_wait().unwrap());
    let Some(status) = status else {
        process::reap(&mut child);
        panic!("still waiting: {}", fs::read_to_string(&log).unwrap());
    };
    let echo = rustix::termios::tcgetattr(&slave).unwrap().local_modes;
    assert!(echo.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ISIG));
    // the command holds the terminal too: without it, reading ends
    drop((slave, command));
    let mut shown = vec![0; 65_536];
    let read = rustix::io::read(&keyboard, &mut shown[..]).unwrap_or(0);
    let shown = String::from_utf8_lossy(&shown[..read]).into_owned();
    (status.success(), fs::read_to_string(log).unwrap(), shown)
}

#[test]
fn passwords_are_asked_for_without_echo() {
    let console = Console::new();
    let (done, said, shown) =
        type_in(&console, &["account", "login"], &[("password: ", &format!("{PASSWORD}\n"))]);
    assert!(done, "{said}");
    assert!(!said.contains(PASSWORD) && !shown.contains(PASSWORD), "{said}{shown}");
    console.ok(&["account", "whoami"]);

    let typed = [
        ("current password: ", format!("{PASSWORD}\n")),
        ("new password: ", format!("{NEW}\n")),
        ("new password again: ", "something else 7\n".to_owned()),
    ];
    let typed: Vec<_> = typed.iter().map(|(question, line)| (*question, line.as_str())).collect();
    let (done, said, shown) = type_in(&console, &["account", "password"], &typed);
    assert!(!done && said.contains("differ"), "{said}");
    assert!(!shown.contains(NEW) && !said.contains(NEW));
    console.ok(&["account", "login", "--password-file", &console.text("password")]);

    let (done, said, _) = type_in(&console, &["account", "login"], &[("password: ", "half\u{3}")]);
    assert!(!done && said.contains("cancelled"), "{said}");
    let (done, said, _) = type_in(&console, &["account", "login"], &[("password: ", "\n")]);
    assert!(!done && said.contains("empty"), "{said}");
}

#[test]
fn the_token_is_shown_only_on_demand_and_lives_longer() {
    let console = Console::logged_in();
    let before = console.session().1;
    let shown = console.json(&["account", "token", "show"]);
    assert_eq!((&shown["expires_at"], &shown["kept"]), (&before["expires_at"], &true.into()));
    assert!(shown.get("token").is_none());
    let mut command = console.command();
    let output = process::run_ok(command.args(["account", "token", "show", "--reveal"]), PATIENCE);
    assert!(output.stdout.contains(before["token"].as_str().unwrap()));

    let extended = console.json(&["account", "token", "extend", "--ttl", "360d"]);
    let after = console.session().1;
    assert_eq!(extended["expires_at"], after["expires_at"]);
    assert!(after["expires_at"].as_str() > before["expires_at"].as_str());
    let wrong = console.run(&["account", "token", "extend", "--ttl", "2d"]);
    assert_eq!(wrong.code(), 2);
    assert!(wrong.stderr.contains("360d"), "{}", wrong.stderr);

    // A service that gives another token in its place: that is the one that is kept.
    console.engine.shape(&serde_json::json!({ "reauthorize": "replace" }));
    console.ok(&["account", "token", "extend", "--ttl", "3600"]);
    assert_ne!(console.session().1["token"], after["token"]);
    assert_eq!(mode(&console.session().0), 0o600);
    console.ok(&["account", "whoami"]);

    assert!(console.json(&["account", "qr"]).get("expires_at").is_some());
    assert!(console.ok(&["account", "qr"]).starts_with("T-"));
    console.ok(&["account", "token", "revoke"]);
    assert!(console.kept().is_empty());
}

#[test]
fn a_logout_that_the_service_does_not_hear_says_so() {
    let mut console = Console::logged_in();
    console.engine.kill();
    let said = console.fails(1, &["account", "logout"]);
    assert!(said.contains("forgotten here, but still counts"), "{said}");
    assert!(console.kept().is_empty());
}

#[test]
fn public_keys_and_storage_devices_are_shown_and_changed() {
    let console = Console::logged_in();
    let own = console.ok(&["account", "key", "show"]);
    assert_eq!((own.len(), &own[..8]), (201, "31420500"));
    let engine = console.json(&["account", "key", "engine"])["public_key"].clone();
    console.ok(&["account", "key", "register", engine.as_str().unwrap()]);
    assert_eq!(console.json(&["account", "key", "show"])["public_key"], engine);
    let altered = own.trim().replacen("31420500", "31420501", 1);
    assert!(console.fails(1, &["account", "key", "register", &altered]).contains("version"));

    let devices = console.json(&["storage", "list"]);
    let device = devices[0]["device"].as_str().unwrap();
    let table = console.ok(&["storage", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(lines[0].find("NAME"), lines[1].find("embedded storage"), "{table}");
    console.ok(&["storage", "synchronize", device]);
    assert_eq!(console.ok(&["storage", "remove", device]), format!("removed {device}\n"));
    assert_eq!(console.json(&["storage", "list"]), serde_json::json!([]));
    let said = console.fails(1, &["storage", "remove", "nobody"]);
    assert!(said.contains("nobody"), "{said}");
    console.ok(&["storage", "register", device]);
    assert_eq!(console.json(&["storage", "list"]), devices);
}

#[test]
fn several_sessions_are_told_apart() {
    let console = Console::logged_in();
    let password = console.text("password");
    for command in ["register", "login"] {
        console.ok(&["account", command, "--username", "other", "--password-file", &password]);
    }
    assert_eq!(console.kept().len(), 2);
    assert_eq!(console.json(&["account", "whoami"])["username"], "tester");
    assert_eq!(console.json(&["account", "whoami", "--username", "other"])["username"], "other");
    let mut bare = console.command();
    bare.env_remove("PRIVICORE_USERNAME");
    let output = console.run_command(bare.args(["account", "whoami"]));
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("choose one"), "{}", output.stderr);
    console.ok(&["account", "logout", "--username", "other"]);
    assert_eq!(console.session().1["username"], "tester");
}

#[test]
fn an_embedded_vault_needs_no_login_and_is_used_once_at_a_time() {
    let console = Console::new();
    let vault = console.text("vault");
    let who = console.json(&["account", "whoami", "--embedded", &vault]);
    assert_eq!(who["username"], "drive");
    let file = console.write("file.txt", "content");
    let token = console.ok(&["token", "put", &file, "--embedded", &vault]);
    assert_eq!(console.ok(&["token", "get", token.trim(), "--embedded", &vault]), "content");
    for command in ["login", "logout", "register"] {
        let said = console.fails(2, &["account", command, "--embedded", &vault]);
        assert!(said.contains("logs in by itself"), "{said}");
    }
    let engine = house::EngineProcess::start(&console.path("vault/engine"), &[]);
    let said = console.fails(1, &["token", "list", "--embedded", &vault]);
    assert!(said.contains("in use"), "{said}");
    drop(engine);
}
