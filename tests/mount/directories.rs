//! The profile's directories as folders at the top of the drive: what they show, what can be
//! set, what is refused, and what `mkdir` registers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use privicorefs::crypto::MasterKey;
use privicorefs::env::Env;
use privicorefs::store::{Store, StoreError, StoreErrorKind, StoreResult};
use privicorefs::vfs::{
    Caller, Directories, DirectoryInfo, Durability, ROOT_INO, Shown, Vfs, VfsConfig, VfsError,
};
use rustix::fs::{CWD, RenameFlags, XattrFlags, llistxattr, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::house::MemoryStore;
use crate::house::Profile;
use crate::house::{Machine, Vault, assert_errno, attributes, eventually, names};

const PATIENCE: Duration = Duration::from_secs(60);
const REGISTER: &str = "/directory/register";
const STORE_META: &str = "/directory/store-meta-information";
const OWNED: &str = "/directory/retrieve-owned-directories";
const ASSIGNED: &str = "/directory/retrieve-assigned-directories";

fn name(part: &str) -> String {
    format!("user.privicore.directory.{part}")
}

fn get(folder: &Path, part: &str) -> io::Result<String> {
    Ok(String::from_utf8(attributes::get(folder, &name(part))?).unwrap())
}

fn text(folder: &Path, part: &str) -> String {
    attributes::text(folder, &name(part))
}

fn meta(folder: &Path) -> Value {
    serde_json::from_str(&text(folder, "meta")).unwrap()
}

fn set(folder: &Path, part: &str, value: &str) -> io::Result<()> {
    attributes::set(folder, &name(part), value.as_bytes(), XattrFlags::empty())
}

fn polling(vault: &Vault, name: &str) -> Machine {
    vault.mounted_with(name, &["--poll-interval", "1"])
}

fn faults(vault: &Vault, op: &str, code: u16) {
    vault.engine.faults(&json!({"rules": [{"op": op, "kind": {"status": {"code": code}}}]}));
}

/// An engine that can be told to fail.
fn failing_vault() -> Vault {
    Vault::with_engine(&["--test-controls"])
}

#[track_caller]
fn assert_unreachable<T>(result: io::Result<T>) {
    let error = result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw_os_error);
    assert!(matches!(error, Some(Errno::IO | Errno::TIMEDOUT)), "{error:?}");
}

#[test]
fn owned_and_assigned_directories_are_folders_even_when_empty() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    let boss = Profile::other(&vault.engine, "boss");
    let mine = own.register("mine");
    let theirs = boss.register("theirs");
    boss.set_meta(&theirs, "city", "Graz");
    boss.take_in(&theirs, &own);
    boss.register("not shared");

    let machine = vault.mounted("a");
    assert_eq!(names(&machine.mountpoint()), ["mine", "theirs"]);
    for (folder, id, role, kept) in [
        ("mine", &mine, "owner", json!({})),
        ("theirs", &theirs, "member", json!({"city": "Graz"})),
    ] {
        let path = machine.path(folder);
        assert_eq!(names(&path), [] as [&str; 0]);
        let found = ["id", "name", "role"].map(|part| text(&path, part));
        assert_eq!(found, [id.as_str(), folder, role]);
        assert_eq!(meta(&path), kept);
        // `rsync -X` would try to set them elsewhere
        assert_eq!(llistxattr(&path, &mut [0_u8; 1024][..]).unwrap(), 0);
        for part in ["id", "name", "role", "other"] {
            assert_errno(set(&path, part, "x"), Errno::PERM);
        }
        assert_errno(attributes::remove(&path, &name("id")), Errno::PERM);
        assert_errno(get(&path, "meta.none"), Errno::NODATA);
    }
    assert_eq!(text(&machine.path("theirs"), "meta.city"), "Graz");

    fs::create_dir(machine.path("ordinary")).unwrap();
    assert_errno(get(&machine.path("ordinary"), "id"), Errno::NODATA);
    assert_errno(set(&machine.path("ordinary"), "meta.x", "y"), Errno::PERM);
    assert_eq!(own.owned(), ["mine"], "without the option a folder is no directory");
}

#[test]
fn what_is_below_works_and_has_the_name_as_its_context() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    own.register("works");
    let mut machine = vault.mounted("a");
    let folder = machine.path("works");
    fs::write(folder.join("plan.txt"), "one").unwrap();
    fs::create_dir(folder.join("deep")).unwrap();
    fs::write(folder.join("deep/down.txt"), "two").unwrap();
    machine.sync();
    let mut contexts: Vec<_> = vault.visible().iter().map(|item| item["context"].clone()).collect();
    contexts.sort_by_key(Value::to_string);
    assert_eq!(contexts, ["works", "works/deep"]);
    machine.umount();

    let other = vault.mounted("b");
    assert_eq!(names(&other.mountpoint()), ["works"]);
    assert_eq!(fs::read_to_string(other.path("works/deep/down.txt")).unwrap(), "two");
    assert_eq!(text(&other.path("works"), "role"), "owner");
}

#[test]
fn they_can_be_neither_removed_nor_moved() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    own.register("one");
    own.register("two");
    let machine = vault.mounted("a");
    let (one, two, plain) = (machine.path("one"), machine.path("two"), machine.path("plain"));
    fs::create_dir(&plain).unwrap();
    assert_errno(fs::remove_dir(&one), Errno::PERM);
    assert_errno(fs::rename(&one, machine.path("other")), Errno::PERM);
    assert_errno(fs::rename(&one, plain.join("below")), Errno::PERM);
    assert_errno(fs::rename(&plain, &one), Errno::PERM);
    let exchanged = |a: &PathBuf, b: &PathBuf| -> io::Result<()> {
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    };
    assert_errno(exchanged(&one, &two), Errno::PERM);
    assert_errno(exchanged(&plain, &one), Errno::PERM);
    // what is below is free to go
    fs::create_dir(one.join("two")).unwrap();
    fs::rename(one.join("two"), plain.join("one")).unwrap();
    fs::remove_dir(plain.join("one")).unwrap();
    assert_eq!(names(&machine.mountpoint()), ["one", "plain", "two"]);
}

#[test]
fn meta_is_set_by_the_owner_and_seen_at_the_service_and_elsewhere() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    let boss = Profile::other(&vault.engine, "boss");
    let mine = own.register("mine");
    let theirs = boss.register("theirs");
    boss.take_in(&theirs, &own);
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    let folder = a.path("mine");
    let there = |expected: Value| {
        assert_eq!(meta(&folder), expected);
        assert_eq!(own.meta(&mine), expected);
        eventually("the other machine knows", PATIENCE, || meta(&b.path("mine")) == expected);
    };

    set(&folder, "meta.city", "Graz").unwrap();
    set(&folder, "meta.street name", "M\u{fc}hlgasse & Co. = 1%").unwrap();
    there(json!({"city": "Graz", "street name": "M\u{fc}hlgasse & Co. = 1%"}));
    assert_eq!(text(&folder, "meta.city"), "Graz");
    let flagged = |part, flags| attributes::set(&folder, &name(part), b"x", flags);
    assert_errno(flagged("meta.city", XattrFlags::CREATE), Errno::EXIST);
    assert_errno(flagged("meta.none", XattrFlags::REPLACE), Errno::NODATA);
    attributes::remove(&folder, &name("meta.city")).unwrap();
    assert_errno(attributes::remove(&folder, &name("meta.city")), Errno::NODATA);
    assert_errno(get(&folder, "meta.city"), Errno::NODATA);

    set(&folder, "meta", r#"{"head": "Ada", "phone": "12"}"#).unwrap();
    there(json!({"head": "Ada", "phone": "12"}));
    for wrong in ["", "no JSON", r#"{"deep": {}}"#, r#"{"empty": ""}"#, r#"{"a]": "b"}"#] {
        assert_errno(set(&folder, "meta", wrong), Errno::INVAL);
    }
    assert_errno(set(&folder, "meta.head", ""), Errno::INVAL);
    attributes::remove(&folder, &name("meta")).unwrap();
    there(json!({}));

    assert_errno(set(&a.path("theirs"), "meta.city", "Wien"), Errno::ACCESS);
    assert_errno(get(&a.path("theirs"), "meta.city"), Errno::NODATA);
    boss.set_meta(&theirs, "city", "Linz");
    eventually("what the owner sets is shown", PATIENCE, || {
        get(&a.path("theirs"), "meta.city").is_ok_and(|city| city == "Linz")
    });
}

#[test]
fn what_the_service_does_not_take_is_not_shown() {
    let mut vault = failing_vault();
    let mine = Profile::new(&vault.engine, &vault.login).register("mine");
    let mut machine = vault.mounted_with("a", &["--deadline", "3", "--register-directories"]);
    let folder = machine.path("mine");
    set(&folder, "meta.city", "Graz").unwrap();
    faults(&vault, STORE_META, 403);
    assert_errno(set(&folder, "meta.city", "Wien"), Errno::ACCESS);
    faults(&vault, STORE_META, 500);
    assert_errno(set(&folder, "meta.city", "Wien"), Errno::IO);
    faults(&vault, REGISTER, 403);
    assert_errno(fs::create_dir(machine.path("new")), Errno::ACCESS);
    vault.engine.freeze();
    assert_unreachable(set(&folder, "meta.city", "Wien"));
    vault.engine.thaw();
    vault.engine.kill();
    assert_unreachable(attributes::remove(&folder, &name("meta.city")));
    assert_unreachable(fs::create_dir(machine.path("new")));
    assert_eq!(names(&machine.mountpoint()), ["mine"]);
    assert_eq!(text(&folder, "meta.city"), "Graz");

    // without the service, a new mount shows what is known
    machine.kill();
    machine.mount();
    assert_eq!((text(&folder, "id"), text(&folder, "meta.city")), (mine, "Graz".to_owned()));
    assert_errno(fs::remove_dir(&folder), Errno::PERM);
    vault.engine.restart();
    eventually("the service is back", PATIENCE, || fs::create_dir(machine.path("new")).is_ok());
}

#[test]
fn mkdir_registers_a_directory_if_that_is_wanted() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    let (mut a, b) = (vault.mounted_with("a", &["--register-directories"]), polling(&vault, "b"));
    let folder = a.path("works & more");
    fs::create_dir(&folder).unwrap();
    assert_eq!(own.owned(), ["works & more"]);
    assert_eq!(text(&folder, "name"), "works & more");
    assert_eq!(text(&folder, "role"), "owner");
    set(&folder, "meta.city", "Graz").unwrap();
    assert_eq!(own.meta(&text(&folder, "id")), json!({"city": "Graz"}));
    assert_errno(fs::create_dir(&folder), Errno::EXIST);
    assert_errno(fs::remove_dir(&folder), Errno::PERM);
    fs::create_dir(folder.join("below")).unwrap();
    fs::write(a.path("file"), "x").unwrap();
    assert_errno(fs::create_dir(a.path("file")), Errno::EXIST);
    fs::create_dir(b.path("plain")).unwrap();
    assert_eq!(own.owned(), ["works & more"]);
    a.sync();
    eventually("another machine shows it", PATIENCE, || b.path("works & more/below").is_dir());
    assert_eq!(text(&b.path("works & more"), "meta.city"), "Graz");
    b.sync();
    a.umount();
    a.mount();
    let all = ["file", "plain", "works & more"];
    assert_eq!(names(&a.mountpoint()), all);
    eventually("no folder twice", PATIENCE, || names(&b.mountpoint()) == all);
}

#[test]
fn a_directory_appears_while_mounted_and_is_one_folder_everywhere() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    let (a, b) = (polling(&vault, "a"), polling(&vault, "b"));
    for machine in [&a, &b] {
        assert!(!machine.path("late").exists(), "and the kernel remembers that");
    }
    own.register("late");
    for machine in [&a, &b] {
        eventually("it appears", PATIENCE, || machine.path("late").is_dir());
    }
    fs::write(a.path("late/of a"), "a").unwrap();
    fs::write(b.path("late/of b"), "b").unwrap();
    a.sync();
    b.sync();
    for machine in [&a, &b] {
        eventually("both files are there", PATIENCE, || {
            ["late/of a", "late/of b"].iter().all(|file| machine.path(file).is_file())
        });
        assert_eq!(names(&machine.mountpoint()), ["late"]);
    }
}

#[test]
fn names_that_cannot_be_folders_get_others() {
    let vault = Vault::new();
    let own = Profile::new(&vault.engine, &vault.login);
    let boss = Profile::other(&vault.engine, "boss");
    let mut machine = vault.mounted("a");
    fs::write(machine.path("file"), "content").unwrap();
    fs::create_dir(machine.path("folder")).unwrap();
    machine.umount();
    let [file, _, twin, slash, hidden] =
        ["file", "folder", "folder", "a/b", ".privicorefs"].map(|name| own.register(name));
    let namesake = boss.register("a/b");
    boss.take_in(&namesake, &own);
    machine.mount();
    let mut expected = vec![
        "_.privicorefs".to_owned(),
        "a_b".to_owned(),
        format!("a_b (directory {namesake})"),
        "file".to_owned(),
        format!("file (directory {file})"),
        "folder".to_owned(),
        format!("folder (directory {twin})"),
    ];
    expected.sort();
    assert_eq!(names(&machine.mountpoint()), expected);
    assert_eq!(text(&machine.path("a_b"), "id"), slash);
    assert_eq!(text(&machine.path("a_b"), "name"), "a/b");
    assert_eq!(text(&machine.path("_.privicorefs"), "id"), hidden);
    assert_eq!(fs::read_to_string(machine.path("file")).unwrap(), "content");

    // they stay theirs, whatever becomes free
    fs::remove_file(machine.path("file")).unwrap();
    machine.umount();
    machine.mount();
    expected.retain(|name| name != "file");
    assert_eq!(names(&machine.mountpoint()), expected);
}

#[test]
fn a_service_without_directories_has_ordinary_folders() {
    let vault = failing_vault();
    Profile::new(&vault.engine, &vault.login).register("unseen");
    let absent = |op: &str| json!({"op": op, "kind": {"status": {"code": 404}}});
    vault.engine.faults(&json!({"rules": [absent(OWNED), absent(ASSIGNED), absent(REGISTER)]}));
    let machine = vault.mounted_with("a", &["--poll-interval", "1"]);
    let before = vault.engine.metrics();
    fs::create_dir(machine.path("plain")).unwrap();
    fs::rename(machine.path("plain"), machine.path("moved")).unwrap();
    fs::remove_dir(machine.path("moved")).unwrap();
    machine.sync();
    let mut registering = vault.machine("b");
    registering.args(["--register-directories"]);
    registering.mount();
    assert_errno(fs::create_dir(registering.path("new")), Errno::OPNOTSUPP);
    assert_eq!(names(&registering.mountpoint()), [] as [&str; 0]);
    eventually("some looks have been made", PATIENCE, || {
        vault.engine.since(&before).of("list-data-tokens") >= 3
    });
    let log = fs::read_to_string(machine.state_dir().join("privicorefs.log")).unwrap();
    assert_eq!(log.matches("the service has no directories").count(), 1, "{log}");
}

/// A service whose list a test decides.
struct Told(Mutex<StoreResult<Vec<DirectoryInfo>>>);

#[async_trait]
impl Directories for Told {
    async fn list(&self) -> StoreResult<Vec<DirectoryInfo>> {
        self.0.lock().unwrap().clone()
    }

    async fn register(&self, name: &str) -> StoreResult<String> {
        Ok(name.to_owned())
    }

    async fn store_meta(&self, _: &str, _: &BTreeMap<String, String>) -> StoreResult<()> {
        Ok(())
    }
}

fn open(
    runtime: &Runtime,
    dir: &Path,
    store: &Arc<MemoryStore>,
    told: &Arc<Told>,
    register: bool,
) -> Arc<Vfs> {
    let config = VfsConfig {
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
        cache_limit: 1 << 20,
        cache_floor: 0,
        staging_limit: 1 << 30,
        memory: 32 << 20,
        split_above: None,
        part_size: 1 << 20,
        durability: Durability::Fsync,
        machine_name: None,
        new_catalog: false,
        trash_days: Some(0),
        local_names: Vec::new(),
        parallel: 4,
        deadline: PATIENCE,
        approval_timeout: PATIENCE,
        poll_interval: Duration::from_secs(1),
        read_only: false,
        shown: Shown::default(),
        default_uid: 0,
        default_gid: 0,
    };
    let store: Arc<dyn Store> = store.clone();
    let (key, env) = (MasterKey::from_bytes([7; 32]), Env::system());
    let vfs = runtime.block_on(Vfs::open(config, store, key, env)).unwrap();
    runtime.block_on(vfs.show_directories(told.clone(), register));
    vfs
}

/// The directory that a folder at the top is.
fn id(vfs: &Vfs, folder: &str) -> Option<String> {
    let ino = vfs.lookup(ROOT_INO, folder.as_bytes()).unwrap().ino;
    let value = vfs.getxattr(ino, name("id").as_bytes()).ok()?;
    Some(String::from_utf8(value).unwrap())
}

#[test]
fn a_directory_that_the_profile_has_left_is_an_ordinary_folder() {
    let info = |id: &str| DirectoryInfo {
        id: id.to_owned(),
        name: id.to_owned(),
        role: Some("member".to_owned()),
        created: None,
        meta: BTreeMap::new(),
    };
    let told = Arc::new(Told(Mutex::new(Ok(vec![info("left"), info("kept")]))));
    let (runtime, dir) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let (store, caller) = (Arc::new(MemoryStore::new()), Caller::default());
    let vfs = open(&runtime, &dir.path().join("a"), &store, &told, true);
    vfs.start(runtime.handle().clone(), Box::new(|_| ()));
    assert_eq!(id(&vfs, "left").as_deref(), Some("left"));
    let left = vfs.lookup(ROOT_INO, b"left").unwrap().ino;
    vfs.mkdir(&caller, left, b"below", 0o755).unwrap();

    // Two machines have the folder of a directory that one of them makes, once each.
    let other = open(&runtime, &dir.path().join("b"), &store, &told, false);
    other.start(runtime.handle().clone(), Box::new(|_| ()));
    let made = vfs.clone().make_directory(caller, ROOT_INO, b"made".to_vec(), 0o700);
    let made = runtime.block_on(made).unwrap();
    *told.0.lock().unwrap() = Ok(vec![info("kept"), info("made")]);
    eventually("it is left", PATIENCE, || id(&vfs, "left").is_none());
    eventually("it is one", PATIENCE, || id(&vfs, "made").as_deref() == Some("made"));
    eventually("the other machine has it", PATIENCE, || {
        other
            .lookup(ROOT_INO, b"made")
            .is_ok_and(|found| (found.ino, found.perm) == (made.ino, 0o700))
    });
    assert!(vfs.lookup(left, b"below").is_ok(), "what is in it stays");
    vfs.rmdir(left, b"below").unwrap();
    vfs.rmdir(ROOT_INO, b"left").unwrap();
    assert!(matches!(vfs.rmdir(ROOT_INO, b"kept"), Err(VfsError::NotPermitted { .. })));

    let absent = StoreError::new(StoreErrorKind::Unsupported, "list", "no such call");
    *told.0.lock().unwrap() = Err(absent);
    eventually("they are all ordinary ones", PATIENCE, || id(&vfs, "kept").is_none());
    vfs.rmdir(ROOT_INO, b"kept").unwrap();
    for vfs in [vfs, other] {
        runtime.block_on(vfs.shutdown(PATIENCE));
    }
}
