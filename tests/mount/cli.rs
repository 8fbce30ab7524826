//! The commands around the drive: mounting, unmounting, status, keys, configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::house;
use crate::house::vault::{PASSWORD, write_secret};
use crate::house::{Machine, Vault, run, run_ok};

const PATIENCE: Duration = Duration::from_secs(120);

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_embedded_vault_needs_nothing_else() {
    let dir = tempfile::Builder::new().prefix("p").tempdir().unwrap();
    let embedded = dir.path().join("vault");
    let mut machine = Machine::new(&dir.path().join("a"));
    machine.path_arg("--embedded", &embedded);
    machine.mount();
    fs::write(machine.path("file"), b"content").unwrap();
    assert_eq!(mode(&embedded.join("key")), 0o600);
    assert_eq!(mode(&embedded.join("login.json")), 0o600);
    assert!(!embedded.join("engine/key").exists(), "the key is outside the engine's part");
    let status = machine.status();
    assert_eq!(status["pid"], machine.pid(), "{status}");
    assert_eq!(status["connected"], true, "{status}");
    machine.umount();
    machine.mount();
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"content");
    machine.kill();

    // New state and cache, same vault: the same tree.
    let mut other = Machine::new(&dir.path().join("b"));
    other.path_arg("--embedded", &embedded);
    other.mount();
    assert_eq!(fs::read(other.path("file")).unwrap(), b"content");

    // One vault is served once at a time.
    let mut third = Machine::new(&dir.path().join("c"));
    third.path_arg("--embedded", &embedded);
    let refused = third.try_mount();
    assert!(!refused.success());
    assert!(!refused.stderr.is_empty(), "a refusal says why");
    assert!(!third.is_mounted());
}

#[test]
fn signals_and_fusermount_unmount_cleanly() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    let ways: [(&str, Option<Signal>); 3] = [
        ("terminated", Some(Signal::TERM)),
        ("interrupted", Some(Signal::INT)),
        ("unmounted", None),
    ];
    for (name, signal) in ways {
        machine.mount();
        fs::write(machine.path(name), name).unwrap();
        match signal {
            Some(signal) => machine.signal(signal),
            None => {
                run_ok(Command::new("fusermount3").arg("-u").arg(machine.mountpoint()), PATIENCE);
            }
        }
        machine.wait_ended();
    }
    assert_eq!(vault.visible().len(), 3, "each end drained what was written");
    machine.mount();
    assert_eq!(house::names(&machine.mountpoint()), ["interrupted", "terminated", "unmounted"]);
}

#[test]
fn what_is_not_mounted_has_no_status() {
    let vault = Vault::new();
    let machine = vault.machine("a");
    for command in ["status", "umount", "sync"] {
        let output = run(machine.command().arg(command).arg(machine.mountpoint()), PATIENCE);
        assert_eq!(output.code(), 3, "{command}: {}{}", output.stdout, output.stderr);
    }
    let output = run(machine.command().arg("status"), PATIENCE);
    assert!(output.success(), "no mount at all is no failure: {}", output.stderr);
    let output = run(machine.command().arg("no-such-command"), PATIENCE);
    assert_eq!(output.code(), 2);
}

#[test]
fn status_lists_every_mount_and_counts_files() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir(machine.path("folder")).unwrap();
    for number in 0..3 {
        fs::write(machine.path(format!("folder/{number}")), vec![7; 1000]).unwrap();
    }
    machine.sync();
    let status = machine.status();
    assert_eq!(status["mountpoint"], machine.mountpoint().to_str().unwrap(), "{status}");
    assert_eq!(status["dirty_files"], 0, "{status}");
    assert_eq!(status["failed"], serde_json::json!([]), "{status}");
    assert_eq!(status["catalog"], "ok", "{status}");
    assert!(status["files"].as_u64().unwrap() >= 3, "{status}");
    assert!(status["uploaded_bytes"].as_u64().unwrap() >= 3000, "{status}");
    let all = run_ok(machine.command().arg("status"), PATIENCE);
    assert!(all.stdout.contains(machine.mountpoint().to_str().unwrap()), "{}", all.stdout);
    assert!(!all.stdout.contains(PASSWORD));
}

#[test]
fn keys_are_generated_once_and_read_only_from_private_files() {
    let vault = Vault::new();
    let machine = vault.machine("unused");
    let key = vault.path("generated");
    run_ok(machine.command().args(["key", "generate"]).arg(&key), PATIENCE);
    let text = fs::read_to_string(&key).unwrap();
    assert_eq!((text.len(), mode(&key)), (65, 0o600));
    assert!(text.trim_end().chars().all(|c| c.is_ascii_hexdigit()), "64 hexadecimal digits");
    let again = run(machine.command().args(["key", "generate"]).arg(&key), PATIENCE);
    assert!(!again.success(), "a key is never overwritten");
    assert_eq!(fs::read_to_string(&key).unwrap(), text);

    // A key that others may read is refused, before anything is mounted.
    fs::set_permissions(vault.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut machine = vault.machine("a");
    let refused = machine.try_mount();
    assert!(!refused.success() && !machine.is_mounted());
    assert!(
        refused.stderr.contains("0600") || refused.stderr.contains("mode"),
        "{}",
        refused.stderr
    );
}

#[test]
fn thirty_two_raw_bytes_are_a_key_too() {
    let vault = Vault::new();
    let mut writer = vault.mounted("a");
    fs::write(writer.path("file"), b"content").unwrap();
    writer.umount();
    let raw: Vec<u8> = (0xa0..=0xbf).collect();
    fs::write(vault.path("key"), raw).unwrap();
    let reader = vault.mounted("b");
    assert_eq!(fs::read(reader.path("file")).unwrap(), b"content");
}

#[test]
fn a_configuration_file_and_the_environment_name_the_service() {
    let vault = Vault::new();
    let machine = Machine::new(&vault.path("a"));
    let config = vault.path("config.toml");
    let settings = format!(
        "api_url = {:?}\nws_url = {:?}\nusername = \"tester\"\nkey_file = {:?}\n",
        vault.engine.api_url,
        vault.engine.ws_url,
        vault.path("key")
    );
    fs::write(&config, &settings).unwrap();
    let mut machine_with_config = machine;
    machine_with_config.path_arg("--config", &config);
    // The password comes from the environment: nothing else tells it here.
    let mut command = machine_with_config.command();
    command.env("PRIVICORE_PASSWORD", PASSWORD).args(["mount", "--json", "--config"]);
    command.arg(&config).arg("--state-dir").arg(machine_with_config.state_dir());
    command.arg("--cache-dir").arg(machine_with_config.cache_dir());
    let output = run_ok(command.arg(machine_with_config.mountpoint()), PATIENCE);
    machine_with_config.adopt(&output);
    fs::write(machine_with_config.path("file"), b"content").unwrap();
    machine_with_config.umount();

    // A password file in the same file; then a name that does not exist.
    fs::write(&config, format!("{settings}password_file = {:?}\n", vault.path("password")))
        .unwrap();
    machine_with_config.mount();
    assert_eq!(fs::read(machine_with_config.path("file")).unwrap(), b"content");
    machine_with_config.umount();
    fs::write(&config, format!("{settings}passwrod_file = \"x\"\n")).unwrap();
    let refused = machine_with_config.try_mount();
    assert!(!refused.success());
    assert!(refused.stderr.contains("passwrod_file"), "{}", refused.stderr);
}

#[test]
fn a_mount_that_fails_leaves_nothing_behind() {
    let mut vault = Vault::new();
    write_secret(&vault.path("password"), "wrong");
    let mut machine = vault.machine("a");
    let refused = machine.try_mount();
    assert!(!refused.success(), "a wrong password mounts nothing");
    assert!(
        !refused.stderr.is_empty() && !refused.stderr.contains("wrong\n"),
        "{}",
        refused.stderr
    );
    assert!(!machine.is_mounted());

    write_secret(&vault.path("password"), PASSWORD);
    vault.engine.kill();
    let mut machine = vault.machine("b");
    let refused = machine.try_mount();
    assert!(!refused.success(), "a new machine needs the service");
    assert!(!machine.is_mounted());
    vault.engine.restart();
    machine.mount();
}

/// What was mounted before is there without the service: names at once, content if cached.
#[test]
fn a_known_machine_mounts_without_the_service() {
    let mut vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::write(machine.path("file"), b"content").unwrap();
    machine.umount();
    vault.engine.kill();
    machine.mount();
    assert_eq!(house::names(&machine.mountpoint()), ["file"]);
    assert_eq!(fs::metadata(machine.path("file")).unwrap().len(), 7);
    fs::write(machine.path("later"), b"later").unwrap();
    vault.engine.restart();
    machine.sync();
    assert_eq!(vault.visible().len(), 2);
}

#[test]
fn foreground_stays_until_it_is_told_to_go() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--foreground"]);
    machine.spawn_foreground();
    house::eventually("it mounts", PATIENCE, || machine.is_mounted());
    fs::write(machine.path("file"), b"content").unwrap();
    machine.signal(Signal::INT);
    machine.wait_ended();
    assert_eq!(vault.visible().len(), 1);
}

/// A disk that is full takes no log either: the mount goes on without.
#[test]
fn a_log_that_cannot_be_written_does_not_end_the_mount() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--foreground"]);
    machine.spawn_foreground_logging(fs::File::options().write(true).open("/dev/full").unwrap());
    house::eventually("it mounts", PATIENCE, || machine.is_mounted());
    fs::write(machine.path("file"), b"content").unwrap();
    machine.umount();
    assert_eq!(vault.visible().len(), 1);
}

#[test]
fn the_engine_listens_on_loopback_only_and_once_per_folder() {
    let vault = Vault::new();
    let machine = vault.machine("a");
    let mut second = machine.command();
    second.args(["engine", "--dir"]).arg(vault.engine.dir());
    let refused = run(second.args(["--listen", "127.0.0.1:0"]), PATIENCE);
    assert!(!refused.success(), "two engines on one folder");
    let mut remote = machine.command();
    remote.args(["engine", "--dir"]).arg(vault.path("other"));
    let refused = run(remote.args(["--listen", "0.0.0.0:0"]), PATIENCE);
    assert!(!refused.success(), "an address that others can reach needs --allow-remote");
}

#[test]
fn one_owner_for_all_is_shown_and_not_kept() {
    use std::os::unix::fs::MetadataExt;
    let vault = Vault::new();
    let mut plain = vault.mounted("a");
    fs::create_dir(plain.path("folder")).unwrap();
    fs::write(plain.path("folder/file"), b"content").unwrap();
    fs::set_permissions(plain.path("folder/file"), fs::Permissions::from_mode(0o751)).unwrap();
    let kept = fs::metadata(plain.path("folder/file")).unwrap();
    plain.umount();

    let mut owned = vault.mounted_with(
        "b",
        &["--uid", "1234", "--gid", "4321", "--umask", "027", "--dir-mode", "0775"],
    );
    let shown = |name: &str| {
        let status = fs::symlink_metadata(owned.path(name)).unwrap();
        (status.uid(), status.gid(), status.mode() & 0o7777)
    };
    assert_eq!(shown("folder"), (1234, 4321, 0o750));
    assert_eq!(shown("folder/file"), (1234, 4321, 0o750));
    fs::write(owned.path("folder/new"), b"new").unwrap();
    assert_eq!(shown("folder/new").0, 1234);
    owned.umount();
    let mut mistaken = vault.machine("c");
    mistaken.args(["--umask", "9"]);
    let wrong = mistaken.try_mount();
    assert!(wrong.stderr.contains("octal"), "{}", wrong.stderr);

    plain.mount();
    let after = fs::metadata(plain.path("folder/file")).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (kept.uid(), kept.gid(), kept.mode()));
    assert_eq!(fs::metadata(plain.path("folder/new")).unwrap().uid(), kept.uid());
}
