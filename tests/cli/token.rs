//! `token` and `completion`: content, lists and meta without the drive.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use privicorefs::catalog::format::part_list::PartList;
use privicorefs::catalog::format::{Identity, Reference};
use privicorefs::crypto::{CatalogKeys, MasterKey};
use privicorefs::store::Token;
use serde_json::{Value, json};

use crate::house;
use crate::house::console::PATIENCE;
use crate::house::vault::{PASSWORD, write_secret};
use crate::house::{Console, process, repository};

/// Bytes that are no text and differ everywhere.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 131 + i / 251) % 256).unwrap()).collect()
}

/// The environment that a command sets.
fn set(command: &Command) -> Vec<(OsString, OsString)> {
    command.get_envs().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect()
}

fn put(console: &Console, arguments: &[&str]) -> String {
    let printed = console.ok(&[&["token", "put"], arguments].concat());
    assert!(printed.starts_with("dtk-") && printed.lines().count() == 1, "{printed}");
    printed.trim().to_owned()
}

#[test]
fn content_of_every_size_comes_back() {
    let console = Console::logged_in();
    // inline, streamed, and too large for memory on either way
    for len in [0, 1, 35_972, 35_973, 1 << 20, (8 << 20) + 1, (32 << 20) - 28, 40_000_003] {
        let content = bytes(len);
        let file = console.write("file.bin", &content);
        let token = put(&console, &[&file, "--context", "sizes"]);
        let copy = console.text("copy.bin");
        console.ok(&["token", "get", &token, "-o", &copy]);
        assert!(fs::read(&copy).unwrap() == content, "{len}");
        console.ok(&["token", "get", &token, "--raw", "-o", &copy]);
        let sealed = fs::read(&copy).unwrap();
        assert_eq!(sealed.len(), len + 28);
        assert!(len < 16 || !sealed.windows(16).any(|window| window == &content[..16]), "{len}");
        let shown = console.json(&["token", "show", &token]);
        assert_eq!(shown["size"], len);
    }
    let left: Vec<_> = house::names(console.path("").as_path());
    let expected = ["a", "copy.bin", "engine", "engine.json", "engine.log", "file.bin", "key"];
    assert!(left.iter().all(|name| expected.contains(&&**name) || name == "password"), "{left:?}");
}

#[test]
fn what_takes_long_says_how_far_it_is() {
    let console = Console::logged_in();
    let once = |op: &str, ms: u64| {
        let rule = json!({ "op": op, "kind": { "stall": { "ms": ms } }, "when": { "first": 1 } });
        console.engine.faults(&json!({ "seed": 1, "rules": [rule] }));
    };
    // More than what waits in the buffers of a connection.
    let file = console.write("film", bytes(40 << 20));
    once("upstream", 5_500);
    let output = console.run(&["token", "put", &file]);
    assert!(output.success(), "{}", output.stderr);
    assert!(output.stderr.contains("film: ") && output.stderr.contains(" of 40"), "{output:?}");
    let (token, copy) = (output.stdout.trim(), console.text("copy"));
    once("downstream", 5_500);
    let output = console.run(&["token", "get", token, "-o", &copy]);
    assert!(output.success(), "{}", output.stderr);
    assert!(output.stderr.contains(" of 40") && output.stderr.contains(token), "{output:?}");
    assert!(fs::read(&copy).unwrap() == fs::read(&file).unwrap());

    // Of what only the service does, nothing but the time is known.
    let devices = console.json(&["storage", "list"]);
    let device = devices[0]["device"].as_str().unwrap();
    once("/storage/sync-device", 9_000);
    let output = console.run(&["storage", "synchronize", device]);
    assert!(output.success(), "{}", output.stderr);
    assert!(output.stderr.contains(&format!("synchronizing {device}: ")), "{output:?}");
    assert!(output.stderr.contains(" s so far"), "{output:?}");
}

#[test]
fn what_cannot_be_verified_is_not_written() {
    let console = Console::logged_in();
    write_secret(&console.path("other"), &"ab".repeat(32));
    for len in [100, 33 << 20] {
        let file = console.write("file", bytes(len));
        let token = put(&console, &[&file]);
        let (other, copy) = (console.text("other"), console.write("copy", "as before"));
        let said = console.fails(1, &["token", "get", &token, "--key-file", &other, "-o", &copy]);
        assert!(said.contains("authentication failed"), "{said}");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "as before");
        console.fails(1, &["token", "get", &token, "--key-file", &other]);
    }
    assert!(console.fails(1, &["token", "get", "dtk-nobody"]).contains("dtk-nobody"));
    let folder = console.text("engine");
    assert!(console.fails(1, &["token", "put", &folder]).contains("not a regular file"));
    let mut command = console.command();
    let file = console.write("file", "x");
    let output = console
        .run_command(command.env_remove("PRIVICOREFS_KEY_FILE").args(["token", "put", &file]));
    assert_eq!(output.code(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("--key-file"), "{}", output.stderr);
    assert_eq!(house::names(&console.sessions()).len(), 1);
    assert!(!house::names(console.path("").as_path()).iter().any(|name| name.ends_with(".new")));
}

/// A payload that is stored already, as a part list names it.
fn pinned(console: &Console, token: String) -> Reference {
    let file = console.text("sealed");
    console.ok(&["token", "get", &token, "--raw", "-o", &file]);
    let identity = Identity::of_content(&fs::read(file).unwrap(), keys(console).id()).unwrap();
    Reference { token: Token::new(token), identity }
}

fn keys(console: &Console) -> CatalogKeys {
    CatalogKeys::new(&MasterKey::load(&console.path("key")).unwrap())
}

/// A file that the drive split is a list of parts, and the parts.
#[test]
fn a_split_file_is_put_together() {
    const PART: usize = 5_000;
    let console = Console::logged_in();
    let content = [bytes(2 * PART), vec![0; PART], bytes(2_500)].concat();
    let part = |piece: &[u8]| {
        let zeros = piece.iter().all(|byte| *byte == 0);
        let put = || put(&console, &[&console.write("part", piece), "--context", "parts"]);
        (!zeros).then(|| pinned(&console, put()))
    };
    let parts: Vec<_> = content.chunks(PART).map(part).collect();
    assert_eq!(parts.iter().flatten().count(), 3, "zeros are left out");
    let list = |parts: Vec<Option<Reference>>| {
        let (size, part_size) = (content.len() as u64, PART as u64);
        PartList { size, part_size, parts }.to_json(&keys(&console))
    };
    let store = |text: &[u8]| put(&console, &[&console.write("list", text)]);
    let whole = list(parts.clone());
    let token = store(&whole);
    console.ok(&["token", "get", &token, "-o", &console.text("copy")]);
    assert!(fs::read(console.path("copy")).unwrap() == content);

    // Another payload of the same length in the place of one that is named.
    let mut replaced = parts;
    let other = replaced[1].as_ref().unwrap().token.clone();
    replaced[0].as_mut().unwrap().token = other;
    let copy = console.write("copy", "as before");
    let said = console.fails(1, &["token", "get", &store(&list(replaced)), "-o", &copy]);
    assert!(said.contains("not the part that was stored there"), "{said}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "as before");

    // What nobody with the key has made is a file like any other, whatever it looks like.
    let mut forged: Value = serde_json::from_slice(&whole).unwrap();
    forged["mac"] = "00".repeat(32).into();
    let forged = forged.to_string();
    console.ok(&["token", "get", &store(forged.as_bytes()), "-o", &copy]);
    assert_eq!(fs::read_to_string(&copy).unwrap(), forged);
}

#[test]
fn every_filter_finds_what_it_should() {
    let console = Console::logged_in();
    let file = console.write("note.txt", "content");
    let (a, b) =
        (put(&console, &[&file, "--context", "a"]), put(&console, &[&file, "--name", "x.md"]));
    let typed = put(&console, &[&file, "--extension", "odd", "--type", "memo", "--context", "a"]);
    let tokens = |filters: &[&str]| -> Vec<String> {
        let listed = console.json(&[&["token", "list"], filters].concat());
        let text = |item: &Value| item["token"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(text).collect()
    };
    assert_eq!(tokens(&[]), [&*a, &b, &typed]);
    assert_eq!(tokens(&["--context", "a"]), [&*a, &typed]);
    assert_eq!(tokens(&["--name", "x.md"]), [&*b]);
    assert_eq!(tokens(&["--extension", "txt"]), [&*a]);
    assert_eq!(tokens(&["--type", "memo"]), [&*typed]);
    assert_eq!(tokens(&["--token", &b]), [&*b]);
    assert_eq!(tokens(&["--context", "a", "--extension", "md"]), [] as [&str; 0]);
    assert_eq!(tokens(&["--limit", "2"]), [&*a, &b]);
    assert_eq!(console.ok(&["token", "get", &typed]), "content", "a type leaves the content");
    assert_eq!(console.run(&["token", "list", "--limit", "0"]).code(), 2);

    let large = console.write("large", bytes(36_001));
    let said = console.fails(1, &["token", "put", &large, "--type", "memo"]);
    assert!(said.contains("--type"), "{said}");
    assert_eq!(tokens(&[]).len(), 3, "nothing is stored");
}

#[test]
fn meta_and_risk_change_one_at_a_time() {
    let console = Console::logged_in();
    let token = put(&console, &[&console.write("note.txt", "content"), "--context", "a"]);
    console.ok(&["token", "meta", "set", &token, "--name", "b.md"]);
    console.ok(&["token", "meta", "set", &token, "--extension", "md", "--context", "b"]);
    let shown = console.json(&["token", "show", &token]);
    let found = [&shown["file_name"], &shown["extension"], &shown["context"]];
    assert_eq!(found, ["b.md", "md", "b"]);
    assert_eq!(shown["risk"], Value::Null);
    assert_eq!(console.run(&["token", "meta", "set", &token]).code(), 2);

    console.ok(&["token", "risk", "set", &token, "--classification", "internal", "--label", "l"]);
    console.ok(&["token", "risk", "set", &token, "--handling", "h"]);
    let risk = json!({ "classification": "internal", "label": "l", "handling": "h" });
    assert_eq!(console.json(&["token", "risk", "show", &token]), risk);
    assert_eq!(console.json(&["token", "show", &token])["risk"], risk);
    assert_eq!(console.ok(&["token", "get", &token]), "content");
    for command in [["meta", "set"], ["risk", "set"]] {
        let option = if command[0] == "meta" { "--name" } else { "--label" };
        let said = console.fails(1, &["token", command[0], command[1], "dtk-nobody", option, "x"]);
        assert!(said.contains("dtk-nobody"), "{said}");
    }
}

#[test]
fn transactions_are_counted() {
    let console = Console::logged_in();
    let file = console.write("file", "counted");
    let token = console.ok(&["token", "put", &file, "--context", "docs"]);
    let token = token.trim();
    console.ok(&["token", "get", token, "-o", &console.text("back")]);
    console.ok(&["token", "delete", token]);
    let counts = console.json(&["token", "statistics"]);
    let total = &counts["total"];
    let found = [&total["stores"], &total["retrievals"], &total["deletions"]];
    assert_eq!(found, [1, 1, 1], "{counts}");
    assert_eq!(counts["days"][0]["counts"], *total);
    let shown = console.ok(&["token", "statistics"]);
    assert!(shown.contains("RETRIEVED") && shown.contains("in all"), "{shown}");
}

#[test]
fn tokens_are_deleted_one_after_the_other() {
    let console = Console::logged_in();
    let file = console.write("file", "content");
    let (a, b) = (put(&console, &[&file]), put(&console, &[&file]));
    let said = console.ok(&["token", "delete", &a, "dtk-nobody", &b]);
    assert_eq!(said, format!("deleted {a}\ndeleted dtk-nobody\ndeleted {b}\n"));
    assert_eq!(console.json(&["token", "list"]), json!([]));
    assert!(console.fails(1, &["token", "show", &a]).contains(&a));
    let c = put(&console, &[&file]);
    assert_eq!(console.json(&["token", "delete", &c]), json!({ "deleted": [c], "failed": [] }));
}

#[test]
fn names_cannot_play_tricks_on_a_terminal() {
    let console = Console::logged_in();
    let name = "evil\u{1b}[2J\u{202e}gpj\n\u{9b}31m";
    let token =
        put(&console, &[&console.write("file", "x"), "--name", name, "--context", "c\u{7}"]);
    let is_safe = |text: &str| text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' ');
    let table = console.ok(&["token", "list"]);
    assert!(is_safe(&table) && table.lines().count() == 2, "{table:?}");
    assert!(table.contains("evil\\u{1b}"), "{table}");
    assert!(is_safe(&console.ok(&["token", "show", &token])));
    let text = console.ok(&["token", "list", "--json"]);
    assert!(is_safe(&text), "{text:?}");
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&listed[0]["file_name"], &listed[0]["context"]), (&json!(name), &json!("c\u{7}")));
}

#[test]
fn a_long_list_comes_page_by_page_and_may_be_cut_off() {
    let console = Console::logged_in();
    let first = put(&console, &[&console.write("file", "content")]);
    // The same records again and again would be left out: the pages have to differ.
    let file = console.text("file");
    let line =
        "for i in $(seq 120); do echo $i; done | xargs -P 4 -I % \"$0\" token put \"$1\" --name %";
    let mut many = console.command();
    let program = many.get_program().to_owned();
    let environment = set(&many);
    many = Command::new("sh");
    many.arg("-c").arg(line).arg(program).arg(&file).envs(environment);
    process::run_ok(&mut many, PATIENCE * 3);
    assert_eq!(console.json(&["token", "list"]).as_array().unwrap().len(), 121);
    assert_eq!(console.json(&["token", "list", "--limit", "101"]).as_array().unwrap().len(), 101);
    let table = console.ok(&["token", "list"]);
    assert_eq!(table.lines().count(), 122);
    assert!(table.lines().nth(1).unwrap().starts_with(&first));

    for arguments in [&["token", "list"][..], &["token", "list", "--json"], &["completion", "bash"]]
    {
        let mut command = console.command();
        // Nobody reads from the beginning: the first write fails, whoever is faster.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1));
    }
    let mut head = console.command();
    let (program, environment) = (head.get_program().to_owned(), set(&head));
    head = Command::new("bash");
    head.args(["-c", "\"$0\" token list | head -1"]).arg(program).envs(environment);
    let output = console.run_command(&mut head);
    assert!(output.stdout.starts_with("TOKEN") && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let console = Console::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = console.ok(&["completion", shell]);
        assert!(script.contains("privicorefs") && script.contains("whoami"), "{shell}");
    }
    let script = console.write("completion.bash", console.ok(&["completion", "bash"]));
    process::run_ok(Command::new("bash").arg("-n").arg(script), PATIENCE);
    assert_eq!(console.run(&["completion", "csh"]).code(), 2);
}

/// The section "Without the drive", run as it stands.
#[test]
fn the_readme_runs_as_written() {
    let console = Console::without_profile();
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let section = readme.split("## Without the drive\n").nth(1).unwrap();
    let script = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(script.lines().count() > 10, "{script}");
    let home = console.path("a/home");
    write_secret(&home.join("vault.password"), PASSWORD);
    let command = console.command();
    let program = Path::new(command.get_program()).parent().unwrap().to_owned();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let environment = set(&command);
    let mut bash = Command::new("bash");
    bash.args(["-euc", script]).envs(environment).env("PATH", path);
    let output = console.run_command(bash.current_dir(repository("")));
    assert!(output.success(), "{}{}", output.stdout, output.stderr);
    let copied = fs::read(home.join("copy.md")).unwrap();
    assert!(copied == readme.as_bytes(), "the copy is what was put");
    assert!(console.kept().is_empty());
}
