//! A machine whose disk is full: writers are told, and nothing that was accepted is lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::house::content::{assert_pattern, fill_at, write_pattern};
use crate::house::{Vault, run, run_ok};

const PATIENCE: Duration = Duration::from_secs(30);

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        run_ok(command.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"]).arg(at), PATIENCE);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = run(Command::new("umount").arg("-l").arg(&self.0), PATIENCE);
    }
}

/// While the service stands still, everything written must stay on this machine.
#[test]
fn a_full_disk_is_an_error_for_the_writer_and_loses_nothing() {
    let vault = Vault::new();
    let mut machine = vault.machine("a");
    let _disk = SmallDisk::mount(&machine.state_dir());
    machine.mount();
    vault.engine.freeze();
    let mut large = File::create(machine.path("large")).unwrap();
    let mut piece = vec![0; 1 << 20];
    let mut written = 0u64;
    let refused = loop {
        fill_at(1, written, &mut piece);
        match large.write_all(&piece) {
            Ok(()) => written += piece.len() as u64,
            Err(error) => break error,
        }
        assert!(written < 64 << 20, "more than the disk holds");
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    drop(large);
    let mut small = 0;
    while write_pattern(&File::create(machine.path(format!("{small}"))).unwrap(), 2, 0, 40_000)
        .is_ok()
    {
        small += 1;
        assert!(small < 2000, "more than the disk holds");
    }
    assert_pattern(&File::open(machine.path("large")).unwrap(), 1, 0, written);
    vault.engine.thaw();
    machine.sync();
    // there is room again
    write_pattern(&File::create(machine.path("after")).unwrap(), 3, 0, 10 << 20).unwrap();
    machine.umount();
    let other = vault.mounted("b");
    assert_pattern(&File::open(other.path("large")).unwrap(), 1, 0, written);
    assert_pattern(&File::open(other.path("after")).unwrap(), 3, 0, 10 << 20);
    for number in 0..small {
        assert_pattern(&File::open(other.path(format!("{number}"))).unwrap(), 2, 0, 40_000);
    }
}
