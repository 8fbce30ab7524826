//! What lies on disks: no content and no name where they do not belong, and no secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::XattrFlags;

use crate::house;
use crate::house::vault::{KEY, PASSWORD};
use crate::house::{Vault, run};

/// In every content of the tree, in every size of file.
const CONTENT: &str = "marker-of-content-8f3a61d0";
/// In every name of the tree.
const NAME: &str = "marker-of-name-77c2e94b";
/// In the value of an attribute.
const VALUE: &str = "marker-of-attribute-51b0aa93";

fn write_tree(root: &Path) {
    let folder = root.join(format!("folder-{NAME}"));
    fs::create_dir(&folder).unwrap();
    for size in [CONTENT.len(), 4_000, 60_000, 3_000_000] {
        let content: Vec<u8> = CONTENT.bytes().cycle().take(size).collect();
        fs::write(folder.join(format!("{NAME}-{size}.txt")), content).unwrap();
    }
    std::os::unix::fs::symlink(format!("target-{NAME}"), folder.join("link")).unwrap();
    let file = folder.join(format!("{NAME}-4000.txt"));
    house::attributes::set(&file, "user.note", VALUE.as_bytes(), XattrFlags::empty()).unwrap();
    let attribute = format!("user.{NAME}");
    house::attributes::set(&file, &attribute, b"x", XattrFlags::empty()).unwrap();
}

/// Asserts that no file below `folder` contains, or is named after, any of the texts.
fn assert_free_of(folder: &Path, texts: &[&str]) {
    let files = files_below(folder);
    assert!(!files.is_empty(), "{folder:?} holds nothing: this test looks at the wrong place");
    for file in &files {
        let path = file.to_string_lossy();
        assert!(!texts.iter().any(|text| path.contains(text)), "{path} tells a name");
    }
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "--devices=skip"]);
    for text in texts {
        grep.args(["-e", text]);
    }
    let found = run(grep.arg(folder), Duration::from_secs(120));
    // 1: nothing found; 0: something; 2: it could not look.
    assert_eq!(found.code(), 1, "{texts:?} in:\n{}{}", found.stdout, found.stderr);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// Texts after which a log may not go on with a secret's characters.
const BEFORE_SECRETS: [&str; 3] = ["auth=", "authorizationToken", "x-dpt-authorization"];

/// Asserts that a log shows no secret, nor anything that looks like a token of the service.
fn assert_discreet(log: &Path) {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    assert!(!text.contains(KEY) && !text.contains(PASSWORD), "{log:?} shows a secret");
    for before in BEFORE_SECRETS {
        for (at, _) in text.to_lowercase().match_indices(&before.to_lowercase()) {
            let rest = text[at + before.len()..].trim_start_matches(['"', '\\', ':', '=', ' ']);
            let shown = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).count();
            assert!(shown < 12, "{log:?} shows what follows {before:?}");
        }
    }
}

#[test]
fn nothing_readable_lies_on_any_disk() {
    let mut vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--split-above", "1MiB", "--part-size", "256KiB"]);
    machine.mount();
    write_tree(&machine.mountpoint());
    machine.sync();
    let everything = [CONTENT, NAME, VALUE, KEY, PASSWORD];
    assert_free_of(&machine.state_dir(), &everything);
    machine.umount();

    // Another machine reads everything, which fills its cache.
    let mut elsewhere = vault.mounted("b");
    let folder = elsewhere.path(format!("folder-{NAME}"));
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_symlink() {
            fs::read(path).unwrap();
        }
    }
    elsewhere.umount();
    for machine in [&machine, &elsewhere] {
        assert_free_of(&machine.state_dir(), &everything);
        assert_free_of(&machine.cache_dir(), &everything);
    }
    // The engine knows names (other clients need them), but no content and no key.
    vault.engine.kill();
    assert_free_of(vault.engine.dir(), &[CONTENT, VALUE, KEY, PASSWORD]);
    assert_discreet(&vault.engine.dir().with_extension("log"));
}

/// The same for what is staged and not uploaded, because there is no engine.
#[test]
fn nothing_readable_lies_in_staging() {
    let mut vault = Vault::new();
    let mut machine = vault.mounted("a");
    vault.engine.kill();
    write_tree(&machine.mountpoint());
    let everything = [CONTENT, NAME, VALUE, KEY, PASSWORD];
    assert_free_of(&machine.state_dir(), &everything);
    let staged: u64 =
        files_below(&machine.state_dir()).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert!(staged >= 3_000_000, "{staged} bytes are staged: is the content elsewhere?");
    machine.kill();
    assert_free_of(&machine.state_dir(), &everything);
}

#[test]
fn secrets_are_written_nowhere_even_with_every_log_line() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--log-level", "trace"]);
    machine.mount();
    fs::write(machine.path("inline"), b"content").unwrap();
    fs::write(machine.path("streamed"), vec![7; 200_000]).unwrap();
    machine.umount();
    assert_discreet(&machine.state_dir().join("privicorefs.log"));
    let digits: Vec<char> = KEY.chars().collect();
    let raw: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect();
    for folder in [machine.state_dir(), machine.cache_dir(), vault.engine.dir().to_owned()] {
        for file in files_below(&folder) {
            let content = fs::read(&file).unwrap();
            assert!(!content.windows(32).any(|window| window == raw), "{file:?} holds the key");
        }
    }
}

#[test]
fn only_the_owner_may_look_and_no_secret_is_an_argument() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("file"), b"content").unwrap();
    for folder in [machine.state_dir(), machine.cache_dir()] {
        let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{folder:?} has mode {mode:o}");
    }
    let log = machine.state_dir().join("privicorefs.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    for pid in [machine.pid(), vault.engine.pid()] {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        assert!(!arguments.contains(PASSWORD) && !arguments.contains(KEY), "{arguments}");
    }
}
