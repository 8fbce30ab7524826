//! Vaults that a test has written, with what the drive itself does not write yet, read by the
//! independent reader.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use data_encoding::HEXLOWER;
use privicorefs::catalog::format::cbor::Item;
use privicorefs::catalog::format::part_list::PartList;
use privicorefs::catalog::format::payload::{new_mark, seal};
use privicorefs::catalog::format::record::{
    Moment, Name, ObjectKind, Place, PlaceBase, ROOT, Removal, Version, Wrapped,
};
use privicorefs::catalog::format::segment::{Brought, Covered, Step};
use privicorefs::catalog::format::{
    Body, End, Header, Identity, Manifest, Page, PayloadKind, Record, Reference, Segment, Stamp,
    Subject, VersionId,
};
use privicorefs::crypto::{CatalogKeys, MasterKey, PayloadCipher};
use privicorefs::env::Env;
use privicorefs::store::Token;
use serde_json::{Value, json};

use crate::house::{process::run_ok, python, repository};

/// A vault in the making.
struct Vault {
    env: Env,
    key: [u8; 32],
    catalog: CatalogKeys,
    contents: PayloadCipher,
    tokens: Vec<Value>,
    stored: usize,
    clock: u64,
    writer: u64,
    sequence: u64,
    last: Option<Reference>,
    records: Vec<Vec<u8>>,
}

impl Vault {
    fn new(byte: u8) -> Self {
        let (key, env) = ([byte; 32], Env::system());
        let master = MasterKey::from_bytes(key);
        let (catalog, contents) =
            (CatalogKeys::new(&master), PayloadCipher::new(&master, env.clone()));
        let (tokens, records) = (Vec::new(), Vec::new());
        let writer = 0x77;
        let (stored, clock, sequence, last) = (0, 1 << 20, 0, None);
        Self { env, key, catalog, contents, tokens, stored, clock, writer, sequence, last, records }
    }

    /// Stores a payload, as a drive does.
    fn put(&mut self, context: &str, name: &str, payload: &[u8], is_drives: bool) -> Token {
        self.stored += 1;
        let token = format!("dtk-{}", self.stored);
        let mark = is_drives.then(|| new_mark(&self.catalog, &*self.env.random));
        let payload = base64::engine::general_purpose::STANDARD.encode(payload);
        self.tokens.push(json!({
            "token": token, "context": context, "fileName": name, "path": "/",
            "size": null, "uuid": mark, "payload": payload,
        }));
        Token::new(token)
    }

    fn hidden(&self, what: &str) -> String {
        let id = HEXLOWER.encode(&self.catalog.id());
        format!(".privicorefs/2/{id}/{what}")
    }

    fn content(&mut self, context: &str, name: &str, plain: &[u8]) -> Reference {
        let sealed = self.contents.seal(plain);
        let identity = Identity::of_content(&sealed, self.catalog.id()).unwrap();
        Reference { token: self.put(context, name, &sealed, true), identity }
    }

    fn catalog_payload(
        &mut self,
        header: Header,
        change: Option<&[u8; 16]>,
        plain: &[u8],
    ) -> Reference {
        let sealed = seal(&self.catalog, &*self.env.random, header, change, plain);
        let identity = Identity::of_catalog(&sealed).unwrap();
        let context = match header.kind {
            PayloadKind::Segment => self.hidden("log"),
            PayloadKind::Manifest | PayloadKind::Page => self.hidden("checkpoint"),
            PayloadKind::Change => self.hidden("changes"),
        };
        let name = match header.kind {
            PayloadKind::Manifest => {
                format!("{:016x}-{:016x}.manifest", header.writer, header.sequence)
            }
            _ => format!("{:016x}-{:016x}", header.writer, header.sequence),
        };
        Reference { token: self.put(&context, &name, &sealed, true), identity }
    }

    fn header(&self, kind: PayloadKind, sequence: u64) -> Header {
        let (key, writer) = (self.catalog.id(), self.writer);
        Header { kind, key, writer, sequence, number: 0, count: 0 }
    }

    fn stamp(&mut self) -> Stamp {
        self.clock += 16;
        Stamp { hlc: self.clock, writer: self.writer }
    }

    fn say(&mut self, subject: Subject, body: Body) {
        let stamp = self.stamp();
        self.records.push(Record::new(subject, stamp, body).encode());
    }

    /// Sends what was said.
    fn publish(&mut self, ends: Vec<End>) -> Reference {
        self.sequence += 1;
        let segment = Segment {
            predecessor: self.last.take(),
            day: 1,
            ends,
            records: std::mem::take(&mut self.records),
            millis: 0,
            manifests: Vec::new(),
        };
        let header = self.header(PayloadKind::Segment, self.sequence);
        let reference = self.catalog_payload(header, None, &segment.encode());
        self.last = Some(reference.clone());
        reference
    }

    fn object(&mut self, subject: Subject, kind: ObjectKind, target: &[u8]) {
        let birth = Moment { secs: 1_700_000_000, nanos: 0 };
        let target = target.to_vec();
        self.say(subject, Body::Object { kind, birth, device: 0, target });
        let body = Body::Attributes { mode: 0o640, owner: 1000, group: 100, changed: birth };
        self.say(subject, body);
        let modification = Moment { secs: 1_700_000_001, nanos: 5 };
        self.say(subject, Body::Times { access: birth, modification });
    }

    fn name(&mut self, subject: Subject, link: u64, folder: u64, name: &[u8]) {
        let (rank, name) = (self.stamp(), name.to_vec());
        let body =
            Name { link, folder, name, rank, machine: "den".into(), millis: 1_795_788_300_000 };
        self.say(subject, Body::Name(body));
    }

    fn version(&mut self, file: u64, id: u8, covers: &[u8], size: u64, place: Place) {
        let covers = covers.iter().map(|byte| VersionId([*byte; 16])).collect();
        let (id, machine) = (VersionId([id; 16]), "den".into());
        let (holes, millis) = (Vec::new(), 1_795_788_300_000);
        let version = Version { id, covers, size, holes, machine, millis, source: None };
        self.say(Subject::File(file), Body::Version(version));
        self.say(Subject::File(file), Body::Place(Place { version: id, ..place }));
    }

    /// A file with a content of one token.
    fn file(&mut self, number: u64, name: &[u8], id: u8, plain: &[u8]) {
        let subject = Subject::File(number);
        self.object(subject, ObjectKind::File, b"");
        self.name(subject, number, ROOT, name);
        let base = self.content("/", "f", plain);
        self.version(number, id, &[], plain.len() as u64, whole(base));
    }

    /// What the reader makes of it.
    fn read(&self, dir: &Path, command: &[&str]) -> Value {
        let (vault, key) = (dir.join("vault.json"), dir.join("key"));
        fs::write(&vault, serde_json::to_vec(&self.tokens).unwrap()).unwrap();
        let digits = HEXLOWER.encode(&self.key);
        fs::write(&key, format!("{digits}\n")).unwrap();
        let mut reader = python();
        reader.arg(repository("tests/independent/reader.py")).arg("--vault").arg(&vault);
        reader.arg("--key-file").arg(&key).args(command);
        serde_json::from_str(&run_ok(&mut reader, Duration::from_secs(60)).stdout).unwrap()
    }
}

fn whole(base: Reference) -> Place {
    let version = VersionId::default();
    Place { version, base: Some(PlaceBase::Whole(base)), changes: Vec::new(), base_size: None }
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The first segment of a vault.
fn begin(vault: &mut Vault) {
    vault.say(Subject::Vault, Body::Vault { identity: [5; 16], made_by: "a test".into() });
    vault.say(Subject::Vault, Body::Day { count: 1, server_millis: 0, own_millis: 0 });
    let writer = Body::Writer { machine: "den".into(), program: "a test".into() };
    vault.say(Subject::Vault, writer);
}

#[test]
fn files_folders_links_and_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(1);
    begin(&mut vault);
    let folder = Subject::Folder(500);
    vault.object(folder, ObjectKind::Folder, b"");
    vault.name(folder, 500, ROOT, "Fotos für alle".as_bytes());
    vault.file(600, b"a.txt", 1, b"hello");
    vault.name(Subject::File(600), 601, 500, b"another name");
    let value = Some(b"plain".to_vec());
    vault.say(Subject::File(600), Body::Xattr { name: b"user.kind".to_vec(), value });
    vault.object(Subject::File(700), ObjectKind::Symlink, b"a.txt");
    vault.name(Subject::File(700), 700, 500, b"to it");
    vault.publish(Vec::new());
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!(tree["a.txt"]["sha256"], json!(sha256(b"hello")));
    assert_eq!(tree["a.txt"]["nlink"], json!(2));
    assert_eq!(tree["Fotos für alle/another name"]["number"], json!(600));
    assert_eq!(tree["Fotos für alle/to it"]["target"], json!("a.txt"));
    assert_eq!(tree["a.txt"]["xattrs"]["user.kind"], json!("706c61696e"));
    assert_eq!(tree["a.txt"]["mtime"], json!([1_700_000_001, 5]));
    let restored = dir.path().join("restored");
    vault.read(dir.path(), &["restore", restored.to_str().unwrap()]);
    assert_eq!(fs::read(restored.join("a.txt")).unwrap(), b"hello");
    assert_eq!(fs::read(restored.join("Fotos für alle/another name")).unwrap(), b"hello");
    let target = fs::read_link(restored.join("Fotos für alle/to it")).unwrap();
    assert_eq!(target, Path::new("a.txt"));
    let report = vault.read(dir.path(), &["report"]);
    assert_eq!(report["doubt"], json!([]), "{report}");
}

#[test]
fn names_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(8);
    begin(&mut vault);
    vault.file(800, b"\xff\xfe", 3, b"bytes");
    vault.publish(Vec::new());
    let restored = dir.path().join("restored");
    vault.read(dir.path(), &["restore", restored.to_str().unwrap()]);
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    assert_eq!(fs::read(restored.join(name)).unwrap(), b"bytes");
}

#[test]
fn parts_and_changes_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(2);
    begin(&mut vault);
    // Three parts, of which the middle one is zeros and was not stored.
    let plain = [vec![1; 4096], vec![0; 4096], vec![2; 100]].concat();
    let parts_context = vault.hidden("parts");
    let first = vault.content(&parts_context, "p0", &plain[..4096]);
    let last = vault.content(&parts_context, "p2", &plain[8192..]);
    let parts = vec![Some(first), None, Some(last)];
    let list = PartList { size: plain.len() as u64, part_size: 4096, parts };
    let json = list.to_json(&vault.catalog);
    let list = vault.content("/", "large", &json);
    let subject = Subject::File(600);
    vault.object(subject, ObjectKind::File, b"");
    vault.name(subject, 600, ROOT, b"large");
    let base = Some(PlaceBase::Parts(list));
    let (version, size) = (VersionId::default(), plain.len() as u64);
    let place = Place { version, base, changes: Vec::new(), base_size: None };
    vault.version(600, 1, &[], size, place);
    // A database: a base and two changes over it, the second of which makes it longer.
    let base = vault.content("/", "db", b"0123456789");
    let change = |size: u64, parts: &[(u64, &[u8])]| {
        let part = |(offset, bytes): &(u64, &[u8])| {
            Item::Array(vec![Item::Unsigned(*offset), Item::Bytes(bytes.to_vec())])
        };
        let parts = Item::Array(parts.iter().map(part).collect());
        Item::Map([(1, Item::Unsigned(size)), (2, parts)].into()).encode()
    };
    let header = vault.header(PayloadKind::Change, 1);
    let mut changes = Vec::new();
    for (id, bytes) in
        [([7; 16], change(10, &[(1, b"ab"), (5, b"c")])), ([8; 16], change(14, &[(12, b"zz")]))]
    {
        changes.push((vault.catalog_payload(header, Some(&id), &bytes), id));
    }
    let subject = Subject::File(700);
    vault.object(subject, ObjectKind::File, b"");
    vault.name(subject, 700, ROOT, b"db");
    let base = Some(PlaceBase::Whole(base));
    let place = Place { version: VersionId::default(), base, changes, base_size: Some(10) };
    vault.version(700, 2, &[], 14, place);
    vault.publish(Vec::new());
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!(tree["large"]["sha256"], json!(sha256(&plain)), "{}", tree["large"]);
    assert_eq!(tree["db"]["sha256"], json!(sha256(b"0ab34c6789\0\0zz")), "{}", tree["db"]);
}

#[test]
fn what_is_not_what_was_stored_is_damage_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(3);
    begin(&mut vault);
    vault.file(600, b"one", 1, b"the first");
    vault.file(700, b"two", 2, b"of length");
    vault.publish(Vec::new());
    // In place of one payload there is another of its length, which opens under the key too.
    let places: Vec<usize> =
        (0..vault.tokens.len()).filter(|at| vault.tokens[*at]["context"] == json!("/")).collect();
    let (first, second) = (places[0], places[1]);
    vault.tokens[first]["payload"] = vault.tokens[second]["payload"].clone();
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!((&tree["one"]["sha256"], &tree["one"]["size"]), (&json!(null), &json!(9)));
    assert_ne!(tree["one"]["damaged"], json!(null));
    assert_eq!(tree["two"]["sha256"], json!(sha256(b"of length")));
    // A user's content under the catalog's context is no catalog.
    let forged = vault.tokens[first]["payload"].clone();
    let context = vault.hidden("log");
    vault.put(&context, "0000000000000077-0000000000000009", b"", true);
    vault.tokens.last_mut().unwrap()["payload"] = forged;
    let report = vault.read(dir.path(), &["report"]);
    assert_ne!(report["doubt"], json!([]), "what lies in the log and does not open is doubt");
}

#[test]
fn a_removal_and_an_older_version_are_in_the_trash_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(4);
    begin(&mut vault);
    vault.file(600, b"kept.txt", 1, b"before");
    let after = vault.content("/", "f", b"after");
    vault.version(600, 2, &[1], 5, whole(after));
    vault.file(700, b"gone.txt", 3, b"removed");
    let takes = vec![VersionId([3; 16])];
    let removal = Removal { link: 700, last: true, takes, machine: "den".into(), millis: 0 };
    vault.say(Subject::File(700), Body::Removal(removal));
    vault.publish(Vec::new());
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!(tree["kept.txt"]["sha256"], json!(sha256(b"after")));
    assert_eq!(tree["gone.txt"], json!(null));
    let report = vault.read(dir.path(), &["report"]).to_string();
    assert!(report.contains("gone.txt") && report.contains("kept.txt"), "{report}");
}

#[test]
fn a_checkpoint_stands_for_the_segments_that_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(5);
    begin(&mut vault);
    vault.file(600, b"old.txt", 1, b"from the checkpoint");
    let records = vault.records.clone();
    let covered = vault.publish(Vec::new());
    let brought = |record| Brought { writer: 0x77, sequence: 1, day: 1, record };
    let page = Page { records: records.into_iter().map(brought).collect() };
    let header = Header { count: 1, ..vault.header(PayloadKind::Page, 1) };
    let page = vault.catalog_payload(header, None, &page.encode());
    let covers = vec![Covered {
        writer: 0x77,
        sequence: 1,
        identity: covered.identity,
        day: 1,
        closed: false,
    }];
    let manifest = Manifest {
        vault: [5; 16],
        day: 1,
        covers,
        replaces: vec![covered.clone()],
        pages: vec![page],
        horizon: Step::default(),
        ..Manifest::default()
    };
    let header = vault.header(PayloadKind::Manifest, 1);
    vault.catalog_payload(header, None, &manifest.encode());
    // The segment is gone; the next names it.
    vault.tokens.retain(|token| token["token"] != json!(covered.token.as_str()));
    vault.file(700, b"new.txt", 2, b"after it");
    vault.publish(Vec::new());
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!(tree["old.txt"]["sha256"], json!(sha256(b"from the checkpoint")));
    assert_eq!(tree["new.txt"]["sha256"], json!(sha256(b"after it")));
    let report = vault.read(dir.path(), &["report"]);
    assert_eq!(report["doubt"], json!([]), "{report}");
}

#[test]
fn what_is_not_known_is_told_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(6);
    begin(&mut vault);
    vault.file(600, b"a.txt", 1, b"hello");
    vault.say(Subject::File(600), Body::Unknown { kind: 77 });
    let stamp = vault.stamp();
    vault.records.push(b"no record".to_vec());
    let name = Name {
        link: 900,
        folder: ROOT,
        name: b"a/b".to_vec(),
        rank: stamp,
        machine: String::new(),
        millis: 0,
    };
    vault.say(Subject::File(900), Body::Name(name));
    let wrapped = Some(Wrapped { sealed: vec![0; 60], by: vault.catalog.id() });
    vault.say(Subject::Vault, Body::Key { id: [9; 8], wrapped, ended: false });
    vault.publish(Vec::new());
    let tree = vault.read(dir.path(), &["tree"]);
    assert_eq!(tree["a.txt"]["sha256"], json!(sha256(b"hello")));
    let report = vault.read(dir.path(), &["report"]);
    assert_eq!(report["malformed"].as_array().unwrap().len(), 2, "{report}");
    assert!(!report["newer"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn a_segment_that_is_named_and_not_there_is_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = Vault::new(7);
    begin(&mut vault);
    vault.publish(Vec::new());
    vault.file(600, b"a.txt", 1, b"hello");
    vault.publish(Vec::new());
    vault.file(700, b"b.txt", 2, b"world");
    vault.publish(Vec::new());
    assert_eq!(vault.read(dir.path(), &["report"])["doubt"], json!([]));
    // The second of three is withheld.
    let second = vault
        .tokens
        .iter()
        .position(|token| token["fileName"] == json!("0000000000000077-0000000000000002"));
    vault.tokens.remove(second.unwrap());
    let report = vault.read(dir.path(), &["report"]);
    assert_ne!(report["doubt"], json!([]));
    assert_eq!(vault.read(dir.path(), &["tree"])["b.txt"]["sha256"], json!(sha256(b"world")));
}
