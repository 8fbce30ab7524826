//! What a tree of files is on the drive: copied in, changed, and found again elsewhere.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with, statvfs};
use rustix::io::Errno;

use crate::house;
use crate::house::attributes as xattr;
use crate::house::content::pattern;
use crate::house::mapping::Mapping;
use crate::house::vault::TRASH_NIGHTS;
use crate::house::{
    Vault, assert_errno, assert_same_trees, assert_same_trees_with, copy_tree, make_odd_tree, names,
};

#[test]
fn odd_tree_is_equal_here_elsewhere_and_without_its_cache() {
    let vault = Vault::new();
    let tree = vault.path("tree");
    make_odd_tree(&tree);

    let mut here = vault.mounted("here");
    copy_tree(&tree, &here.path("tree"));
    assert_same_trees_with(&["--sparse"], &tree, &here.path("tree"));
    here.umount();

    let mut elsewhere = vault.mounted("elsewhere");
    assert_same_trees_with(&["--sparse"], &tree, &elsewhere.path("tree"));
    elsewhere.umount();
    elsewhere.delete_cache();
    elsewhere.mount();
    assert_same_trees(&tree, &elsewhere.path("tree"));

    here.mount();
    assert_same_trees(&tree, &here.path("tree"));
}

#[test]
fn renaming_a_folder_uploads_nothing_of_what_is_in_it() {
    const FILES: usize = 100;
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::create_dir_all(machine.path("old/deep")).unwrap();
    for number in 0..FILES {
        fs::write(machine.path(format!("old/deep/{number}")), pattern(1, 4096)).unwrap();
    }
    machine.sync();
    let before = vault.engine.quiet();

    fs::rename(machine.path("old"), machine.path("new")).unwrap();
    assert_eq!(names(&machine.path("new/deep")).len(), FILES);
    assert_errno(fs::metadata(machine.path("old")), Errno::NOENT);
    machine.sync();
    let used = vault.engine.since(&before);
    assert!(used.puts() <= 4, "a rename is one record, not an upload per file: {used:?}");

    machine.umount();
    let elsewhere = vault.mounted("b");
    assert_eq!(names(&elsewhere.mountpoint()), ["new"]);
    for number in 0..FILES {
        let found = fs::read(elsewhere.path(format!("new/deep/{number}"))).unwrap();
        assert!(found == pattern(1, 4096), "file {number}");
    }
}

#[test]
fn open_files_outlive_their_names() {
    let vault = Vault::with_days();
    let mut machine = vault.mounted("a");
    fs::create_dir(machine.path("folder")).unwrap();
    let path = machine.path("folder/file");
    fs::write(&path, b"still here").unwrap();

    let mut open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let folder = File::open(machine.path("folder")).unwrap();
    fs::remove_file(&path).unwrap();
    fs::remove_dir(machine.path("folder")).unwrap();
    assert!(names(&machine.mountpoint()).is_empty());

    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    open.write_all(b", and growing").unwrap();
    open.rewind().unwrap();
    text.clear();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here, and growing");
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    assert!(folder.metadata().unwrap().is_dir());
    drop(open);
    drop(folder);

    // The name is free for something else, and what was deleted does not stay in the vault.
    fs::write(machine.path("folder"), b"a file now").unwrap();
    machine.sync();
    vault.nights_until(&mut machine, TRASH_NIGHTS, "one token is left", || {
        vault.visible().len() == 1
    });
}

#[test]
fn rename_over_an_open_file_keeps_its_old_content_readable() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("config"), b"old").unwrap();
    machine.sync();
    let mut old = File::open(machine.path("config")).unwrap();
    fs::write(machine.path("config.new"), b"new").unwrap();
    fs::rename(machine.path("config.new"), machine.path("config")).unwrap();

    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    assert_eq!(fs::read(machine.path("config")).unwrap(), b"new");
    assert_eq!(names(&machine.mountpoint()), ["config"]);
}

#[test]
fn appends_go_to_the_end_whoever_appends() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    let path = machine.path("log");
    let mut one = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    for number in 0..50 {
        writeln!(one, "one {number}").unwrap();
        writeln!(other, "other {number}").unwrap();
    }
    drop((one, other));
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 100);
    assert_eq!((lines[0], lines[99]), ("one 0", "other 49"));

    // An upload in between changes nothing.
    machine.sync();
    writeln!(OpenOptions::new().append(true).open(&path).unwrap(), "after").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}after\n"));
}

#[test]
fn truncation_cuts_and_extends_with_zeros() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let path = machine.path("file");
    let content = pattern(3, 300_000);
    fs::write(&path, &content).unwrap();
    machine.sync();

    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100_001).unwrap();
    file.set_len(250_000).unwrap();
    drop(file);
    let mut expected = content[..100_001].to_vec();
    expected.resize(250_000, 0);
    assert!(fs::read(&path).unwrap() == expected);

    File::create(machine.path("emptied")).unwrap().write_all(b"something").unwrap();
    File::create(machine.path("emptied")).unwrap();
    assert_eq!(fs::metadata(machine.path("emptied")).unwrap().len(), 0);
    let exclusive = OpenOptions::new().write(true).create_new(true).open(&path);
    assert_errno(exclusive, Errno::EXIST);

    machine.umount();
    let elsewhere = vault.mounted("b");
    assert!(fs::read(elsewhere.path("file")).unwrap() == expected);
    assert_eq!(fs::read(elsewhere.path("emptied")).unwrap(), b"");
}

#[test]
fn random_writes_land_where_they_were_aimed() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let mut expected = pattern(4, 500_000);
    fs::write(machine.path("file"), &expected).unwrap();
    machine.sync();
    let file = OpenOptions::new().write(true).open(machine.path("file")).unwrap();
    let mut rng = house::content::Rng::new(5);
    for round in 0..200 {
        let offset = usize::try_from(rng.below(490_000)).unwrap();
        let length = usize::try_from(rng.below(9_999)).unwrap() + 1;
        let patch = pattern(round, length);
        file.write_all_at(&patch, offset as u64).unwrap();
        expected[offset..offset + length].copy_from_slice(&patch);
    }
    drop(file);
    assert!(fs::read(machine.path("file")).unwrap() == expected);
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert!(fs::read(elsewhere.path("file")).unwrap() == expected);
}

#[test]
fn holes_are_found_by_seek_and_cost_nothing() {
    const SIZE: u64 = 8 << 20;
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let file = File::create(machine.path("sparse")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", SIZE - 3).unwrap();
    drop(file);
    machine.umount();

    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        let path = machine.path("sparse");
        let mut file = File::open(&path).unwrap();
        let status = file.metadata().unwrap();
        assert_eq!(status.len(), SIZE);
        assert!(status.blocks() * 512 < SIZE / 2, "{} blocks are allocated", status.blocks());
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert!((5..SIZE / 2).contains(&hole), "the hole begins at {hole}");
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
        assert!((SIZE / 2..=SIZE - 3).contains(&data), "data begin again at {data}");
        let beyond = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(SIZE));
        assert_eq!(beyond, Err(Errno::NXIO));
        file.seek(SeekFrom::Start(hole)).unwrap();
        let mut middle = vec![1; 70_000];
        file.read_exact(&mut middle).unwrap();
        assert!(middle.iter().all(|byte| *byte == 0), "a hole reads as zeros");
        drop(machine);
    }
}

#[test]
fn statfs_tells_names_sizes_and_space() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::write(machine.path("file"), pattern(6, 3 << 20)).unwrap();
    let status = statvfs(machine.mountpoint()).unwrap();
    assert_eq!(status.f_namemax, 255);
    assert!(status.f_bsize >= 512 && status.f_frsize >= 512);
    assert!(status.f_blocks > 0 && status.f_bfree <= status.f_blocks);
    assert!(status.f_bavail <= status.f_bfree && status.f_bavail > 0);
    let used = (status.f_blocks - status.f_bfree) * status.f_frsize;
    assert!(used >= 3 << 20, "3 MiB were written, {used} are in use");
    assert!(status.f_files > status.f_ffree, "files are counted");
}

#[test]
fn user_attributes_are_kept_with_their_rules() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::write(machine.path("file"), b"x").unwrap();
    fs::create_dir(machine.path("folder")).unwrap();
    for name in ["file", "folder"] {
        let path = machine.path(name);
        xattr::set(&path, "user.one", b"1", XattrFlags::CREATE).unwrap();
        assert_errno(xattr::set(&path, "user.one", b"2", XattrFlags::CREATE), Errno::EXIST);
        xattr::set(&path, "user.one", b"two", XattrFlags::REPLACE).unwrap();
        assert_errno(xattr::set(&path, "user.none", b"", XattrFlags::REPLACE), Errno::NODATA);
        xattr::set(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
        xattr::set(&path, "user.gone", b"bye", XattrFlags::empty()).unwrap();
        xattr::remove(&path, "user.gone").unwrap();
        assert_errno(xattr::remove(&path, "user.gone"), Errno::NODATA);
        assert_errno(xattr::get(&path, "user.gone"), Errno::NODATA);
        let short = rustix::fs::lgetxattr(&path, "user.one", &mut [0; 2][..]);
        assert_eq!(short, Err(Errno::RANGE));
    }
    machine.umount();
    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        for name in ["file", "folder"] {
            let path = machine.path(name);
            assert_eq!(xattr::list(&path).unwrap(), ["user.empty", "user.one"]);
            assert_eq!(xattr::get(&path, "user.one").unwrap(), b"two");
            assert_eq!(xattr::get(&path, "user.empty").unwrap(), b"");
        }
    }
}

#[test]
fn the_drive_tells_about_a_file_in_its_own_attributes() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir_all(machine.path("folder/below")).unwrap();
    let path = machine.path("folder/below/report.txt");
    fs::write(&path, pattern(7, 1234)).unwrap();
    machine.sync();

    let attribute = |name: &str| xattr::text(&path, &format!("user.privicore.{name}"));
    assert_eq!(attribute("state"), "committed");
    assert_eq!(attribute("context"), "folder/below");
    assert_eq!(attribute("file_name"), "report.txt");
    assert_eq!(attribute("extension"), "txt");
    assert_eq!(attribute("size"), "1234");
    assert!(!attribute("created").is_empty());
    let visible = vault.visible();
    assert_eq!(visible.len(), 1, "{visible:?}");
    assert_eq!(visible[0]["token"], attribute("token"));

    let token = attribute("token");
    let forged = xattr::set(&path, "user.privicore.token", b"mine", XattrFlags::empty());
    assert!(forged.is_err(), "the token is the drive's to say");
    assert!(xattr::remove(&path, "user.privicore.state").is_err());
    assert_eq!(attribute("token"), token);
}

#[test]
fn hard_links_are_one_file_before_and_after_a_remount() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::create_dir(machine.path("folder")).unwrap();
    fs::write(machine.path("one"), b"first").unwrap();
    fs::hard_link(machine.path("one"), machine.path("folder/two")).unwrap();
    fs::hard_link(machine.path("one"), machine.path("three")).unwrap();
    assert_errno(fs::hard_link(machine.path("folder"), machine.path("x")), Errno::PERM);
    fs::write(machine.path("folder/two"), b"second").unwrap();
    fs::remove_file(machine.path("three")).unwrap();
    machine.umount();

    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        let one = fs::metadata(machine.path("one")).unwrap();
        let two = fs::metadata(machine.path("folder/two")).unwrap();
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        assert_eq!(fs::read(machine.path("one")).unwrap(), b"second");
        fs::write(machine.path("one"), b"second").unwrap();
        drop(machine);
    }
}

#[test]
fn times_keep_their_nanoseconds() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let accessed = UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    let modified = UNIX_EPOCH + Duration::new(1_500_000_000, 987_654_321);
    fs::write(machine.path("file"), b"x").unwrap();
    fs::create_dir(machine.path("folder")).unwrap();
    for name in ["file", "folder"] {
        let times = FileTimes::new().set_accessed(accessed).set_modified(modified);
        File::open(machine.path(name)).unwrap().set_times(times).unwrap();
    }
    machine.umount();
    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        for name in ["file", "folder"] {
            let status = fs::metadata(machine.path(name)).unwrap();
            assert_eq!(status.modified().unwrap(), modified, "{name}");
        }
    }
}

#[test]
fn a_change_moves_the_times_it_should() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    fs::create_dir(machine.path("folder")).unwrap();
    fs::write(machine.path("folder/file"), b"x").unwrap();
    let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let age = |name: &str| {
        let times = FileTimes::new().set_modified(old);
        File::open(machine.path(name)).unwrap().set_times(times).unwrap();
    };
    let modified = |name: &str| fs::metadata(machine.path(name)).unwrap().modified().unwrap();
    let changed = |name: &str| {
        let status = fs::metadata(machine.path(name)).unwrap();
        (status.ctime(), status.ctime_nsec())
    };
    age("folder/file");
    fs::write(machine.path("folder/file"), b"yy").unwrap();
    assert!(modified("folder/file") > old, "writing moves the file's mtime");
    for step in ["create", "rename", "unlink"] {
        age("folder");
        match step {
            "create" => drop(File::create(machine.path("folder/new")).unwrap()),
            "rename" => fs::rename(machine.path("folder/new"), machine.path("folder/n2")).unwrap(),
            _ => fs::remove_file(machine.path("folder/n2")).unwrap(),
        }
        assert!(modified("folder") > old, "{step} moves the folder's mtime");
    }
    let before = changed("folder/file");
    age("folder/file");
    fs::set_permissions(machine.path("folder/file"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(modified("folder/file"), old, "chmod leaves mtime alone");
    assert!(changed("folder/file") > before, "chmod moves ctime");
}

#[test]
fn a_folder_of_five_thousand_is_listed_once_each() {
    const ENTRIES: usize = 5000;
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::create_dir(machine.path("many")).unwrap();
    for number in 0..ENTRIES {
        File::create(machine.path(format!("many/entry-{number:05}"))).unwrap();
    }
    let expected: Vec<_> = (0..ENTRIES).map(|number| format!("entry-{number:05}")).collect();
    assert_eq!(names(&machine.path("many")), expected);
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert_eq!(names(&elsewhere.path("many")), expected);

    // Removing what was just listed, while listing, skips nothing.
    for entry in fs::read_dir(elsewhere.path("many")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(names(&elsewhere.path("many")).is_empty());
    fs::remove_dir(elsewhere.path("many")).unwrap();
}

#[test]
fn names_may_have_255_bytes_and_not_256() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    for name in ["n".repeat(255), format!("{}x", "ü".repeat(127)), "a\nb".to_owned()] {
        fs::write(machine.path(&name), name.as_bytes()).unwrap();
        assert_eq!(fs::read(machine.path(&name)).unwrap(), name.as_bytes());
        fs::remove_file(machine.path(&name)).unwrap();
    }
    let long = machine.path("n".repeat(256));
    assert_errno(File::create(&long), Errno::NAMETOOLONG);
    assert_errno(fs::create_dir(&long), Errno::NAMETOOLONG);
    assert_errno(symlink("x", &long), Errno::NAMETOOLONG);
    assert_errno(fs::metadata(&long), Errno::NAMETOOLONG);
    fs::write(machine.path("short"), b"").unwrap();
    assert_errno(fs::rename(machine.path("short"), &long), Errno::NAMETOOLONG);
}

#[test]
fn errors_are_those_of_a_local_filesystem() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    let path = |name: &str| machine.path(name);
    fs::create_dir_all(path("full/inner")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("file"), b"x").unwrap();
    symlink("file", path("link")).unwrap();
    symlink("loop", path("loop")).unwrap();

    assert_errno(fs::remove_dir(path("full")), Errno::NOTEMPTY);
    assert_errno(fs::remove_dir(path("file")), Errno::NOTDIR);
    assert_errno(fs::remove_dir(path("none")), Errno::NOENT);
    assert_errno(fs::remove_file(path("empty")), Errno::ISDIR);
    assert_errno(fs::remove_file(path("none")), Errno::NOENT);
    assert_errno(fs::create_dir(path("empty")), Errno::EXIST);
    assert_errno(fs::create_dir(path("file")), Errno::EXIST);
    assert_errno(fs::create_dir(path("none/below")), Errno::NOENT);
    assert_errno(fs::create_dir(path("file/below")), Errno::NOTDIR);
    assert_errno(File::open(path("none")), Errno::NOENT);
    assert_errno(File::open(path("file/below")), Errno::NOTDIR);
    assert_errno(File::open(path("loop")), Errno::LOOP);
    assert_errno(OpenOptions::new().write(true).open(path("empty")), Errno::ISDIR);
    assert_errno(symlink("x", path("file")), Errno::EXIST);
    assert_errno(fs::hard_link(path("file"), path("link")), Errno::EXIST);
    assert_errno(fs::hard_link(path("none"), path("x")), Errno::NOENT);
    assert_errno(fs::read_link(path("file")), Errno::INVAL);
    assert_errno(fs::read_dir(path("file")), Errno::NOTDIR);
    assert_errno(fs::rename(path("empty"), path("full")), Errno::NOTEMPTY);
    assert_errno(fs::rename(path("empty"), path("file")), Errno::NOTDIR);
    assert_errno(fs::rename(path("file"), path("empty")), Errno::ISDIR);
    assert_errno(fs::rename(path("none"), path("file")), Errno::NOENT);
    assert_errno(fs::rename(path("full"), path("full/inner/x")), Errno::INVAL);
    // What failed changed nothing.
    assert_eq!(names(&machine.mountpoint()), ["empty", "file", "full", "link", "loop"]);
    assert_eq!(fs::read(path("link")).unwrap(), b"x");
}

#[test]
fn rename_can_refuse_to_replace_and_can_exchange() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let rename = |machine: &house::Machine, from: &str, to: &str, flags| {
        renameat_with(CWD, machine.path(from), CWD, machine.path(to), flags)
    };
    fs::write(machine.path("file"), b"content").unwrap();
    fs::create_dir(machine.path("folder")).unwrap();
    fs::write(machine.path("folder/inner"), b"inner").unwrap();

    let refused = rename(&machine, "file", "folder", RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(Errno::EXIST));
    rename(&machine, "file", "moved", RenameFlags::NOREPLACE).unwrap();
    rename(&machine, "moved", "folder", RenameFlags::EXCHANGE).unwrap();
    let missing = rename(&machine, "moved", "none", RenameFlags::EXCHANGE);
    assert_eq!(missing, Err(Errno::NOENT));
    machine.umount();

    for name in ["a", "b"] {
        let machine = vault.mounted(name);
        assert_eq!(names(&machine.mountpoint()), ["folder", "moved"]);
        assert_eq!(fs::read(machine.path("folder")).unwrap(), b"content");
        assert_eq!(fs::read(machine.path("moved/inner")).unwrap(), b"inner");
    }
}

#[test]
fn shared_mappings_and_reads_see_the_same_bytes() {
    const SIZE: usize = 200_000;
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let path = machine.path("mapped");
    let mut expected = pattern(8, SIZE);
    fs::write(&path, &expected).unwrap();

    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut mapping = Mapping::new(&file, SIZE).unwrap();
    assert!(mapping.bytes() == expected, "the mapping shows what was written");
    for offset in [0, 4095, 100_000, SIZE - 7] {
        mapping.bytes()[offset..offset + 7].copy_from_slice(b"mapping");
        expected[offset..offset + 7].copy_from_slice(b"mapping");
    }
    mapping.flush().unwrap();
    drop(mapping);
    drop(file);
    assert!(fs::read(&path).unwrap() == expected, "reading shows what was mapped");
    machine.umount();
    let elsewhere = vault.mounted("b");
    assert!(fs::read(elsewhere.path("mapped")).unwrap() == expected);
}

#[test]
fn names_that_no_vault_wants_stay_here() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    fs::write(machine.path(".DS_Store"), b"finder").unwrap();
    fs::write(machine.path(".file.swp"), b"editor").unwrap();
    fs::write(machine.path("wanted"), b"wanted").unwrap();
    assert_eq!(fs::read(machine.path(".DS_Store")).unwrap(), b"finder");
    machine.umount();
    let visible = vault.visible();
    assert_eq!(visible.len(), 1, "{visible:?}");
    assert_eq!(names(&vault.mounted("b").mountpoint()), ["wanted"]);
    machine.mount();
    assert_eq!(names(&machine.mountpoint()), [".DS_Store", ".file.swp", "wanted"]);
}

#[test]
fn a_read_only_mount_refuses_to_write() {
    let vault = Vault::new();
    let mut writer = vault.mounted("a");
    fs::write(writer.path("file"), b"content").unwrap();
    writer.umount();
    let mut reader = vault.machine("b");
    reader.args(["--read-only"]);
    reader.mount();
    assert_eq!(fs::read(reader.path("file")).unwrap(), b"content");
    assert_errno(File::create(reader.path("new")), Errno::ROFS);
    assert_errno(fs::remove_file(reader.path("file")), Errno::ROFS);
    assert_errno(fs::create_dir(reader.path("new")), Errno::ROFS);
    assert_errno(OpenOptions::new().write(true).open(reader.path("file")), Errno::ROFS);
}
