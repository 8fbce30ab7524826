//! A service that does not answer: errors in bounded time, nothing shown as missing, and
//! a recovery that needs no remount.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::house;
use crate::house::content::pattern;
use crate::house::{Vault, eventually, names, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// `cat FILE`: a reader that can be killed, should it never be answered.
fn cat(path: &std::path::Path) -> house::process::Output {
    run(Command::new("cat").arg(path), PATIENCE)
}

#[test]
fn an_outage_is_an_error_and_never_an_absence() {
    let mut vault = Vault::new();
    let mut writer = vault.mounted("a");
    // Folders of their own: what is asked for in vain may still arrive later, with what is
    // beside it.
    for name in ["dead", "deaf"] {
        fs::create_dir(writer.path(name)).unwrap();
        fs::write(writer.path(name).join("file"), pattern(1, 100_000)).unwrap();
    }
    writer.umount();

    let mut reader = vault.machine("b");
    reader.args(["--deadline", "3"]);
    reader.mount();
    // Dead (refused at once), then deaf (connected and never answered).
    for name in ["dead", "deaf"] {
        if name == "deaf" {
            vault.engine.freeze()
        } else {
            vault.engine.kill()
        }
        let file = reader.path(name).join("file");
        assert_eq!(names(&reader.mountpoint()), ["dead", "deaf"]);
        assert_eq!(names(&reader.path(name)), ["file"]);
        assert_eq!(fs::metadata(&file).unwrap().len(), 100_000);
        let output = cat(&file);
        assert!(!output.success(), "there is nobody to read it from");
        assert!(!output.stderr.contains("No such file"), "{}", output.stderr);
        // What is written meanwhile is safe here and can be read back.
        fs::write(reader.path("meanwhile"), b"written meanwhile").unwrap();
        assert_eq!(fs::read(reader.path("meanwhile")).unwrap(), b"written meanwhile");
        fs::remove_file(reader.path("meanwhile")).unwrap();
        if name == "deaf" {
            vault.engine.thaw()
        } else {
            vault.engine.restart()
        }
        eventually("reading works again without a remount", PATIENCE, || {
            fs::read(&file).is_ok_and(|found| found == pattern(1, 100_000))
        });
    }
}

#[test]
fn what_was_written_in_an_outage_arrives_after_it() {
    let mut vault = Vault::new();
    let mut machine = vault.mounted("a");
    vault.engine.kill();
    for number in 0..50 {
        fs::write(machine.path(format!("{number}")), pattern(number, 5_000)).unwrap();
    }
    let status = machine.status();
    assert!(status["dirty_files"].as_u64().unwrap() >= 50, "{status}");
    vault.engine.restart();
    machine.sync();
    let status = machine.status();
    assert_eq!(status["dirty_files"], 0, "{status}");
    assert_eq!(status["connected"], true, "{status}");
    machine.umount();
    let elsewhere = vault.mounted("b");
    for number in 0..50 {
        assert!(fs::read(elsewhere.path(format!("{number}"))).unwrap() == pattern(number, 5_000));
    }
}

#[test]
fn a_sync_that_cannot_succeed_says_so() {
    let mut vault = Vault::new();
    let mut machine = vault.machine("a");
    machine.args(["--deadline", "2"]);
    machine.mount();
    vault.engine.kill();
    fs::write(machine.path("file"), b"content").unwrap();
    // fsync promises the vault, and there is none.
    let file = fs::File::open(machine.path("file")).unwrap();
    assert!(file.sync_all().is_err(), "fsync promised what it could not keep");
    drop(file);
    let mut umount = machine.command();
    let output = run(umount.args(["umount", "--timeout", "2"]).arg(machine.mountpoint()), PATIENCE);
    assert_eq!(output.code(), 4, "{}{}", output.stdout, output.stderr);
    assert!(machine.is_mounted(), "an umount that failed leaves the drive mounted");
    // By force it is unmounted, what is left is kept, and the next mount uploads it.
    let mut umount = machine.command();
    umount.args(["umount", "--timeout", "2", "--force"]).arg(machine.mountpoint());
    let output = run(&mut umount, PATIENCE);
    assert_eq!(output.code(), 4, "{}{}", output.stdout, output.stderr);
    machine.wait_ended();
    vault.engine.restart();
    machine.mount();
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"content");
    machine.umount();
    assert_eq!(vault.visible().len(), 1);
}
