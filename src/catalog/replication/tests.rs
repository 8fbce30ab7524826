//! Machines that share a store.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::catalog::format::payload::{PayloadKind, open};
use crate::catalog::local::inode::{Kind, ROOT_INO};
use crate::catalog::namespace::{NewInode, Tree};
use crate::crypto::{CatalogKeys, LocalKeys, MasterKey, PayloadCipher};
use crate::db::Db;
use crate::env::Env;
use crate::env::doubles::{FixedClock, SeededRandom};
use crate::store::{MemoryStore, Op, Store, StoreErrorKind, Token};

struct Machine {
    remote: Remote,
    _dir: tempfile::TempDir,
}

struct House {
    store: Arc<MemoryStore>,
    clock: Arc<FixedClock>,
    seeds: u64,
}

impl House {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new()), clock: Arc::default(), seeds: 1 }
    }

    fn machine(&mut self) -> Machine {
        self.machine_with([5; 32])
    }

    fn machine_with(&mut self, key: [u8; 32]) -> Machine {
        self.seeds += 1;
        let random = Arc::new(SeededRandom::new(self.seeds));
        let env = Env { clock: self.clock.clone(), random, ..Env::system() };
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::from_bytes(key);
        let keys = Arc::new(LocalKeys::new(&key));
        let db = Arc::new(Db::open(dir.path(), keys.clone(), env.clone()).unwrap());
        Machine { remote: self.mount(&key, db, env), _dir: dir }
    }

    fn mount(&self, key: &MasterKey, db: Arc<Db>, env: Env) -> Remote {
        let keys = Arc::new(LocalKeys::new(key));
        let tree = Tree::open(db, keys.clone(), env.clone(), "den".into(), (0, 0)).unwrap();
        let cipher = Arc::new(PayloadCipher::new(key, env.clone()));
        let catalog_keys = Arc::new(CatalogKeys::new(key));
        let store: Arc<dyn Store> = self.store.clone();
        Remote::new(Arc::new(tree), store, cipher, keys, catalog_keys, env)
    }

    /// The same machine, mounted anew.
    fn again(&self, machine: &Machine) -> Remote {
        let Remote { tree, env, .. } = &machine.remote;
        self.mount(&MasterKey::from_bytes([5; 32]), tree.db().clone(), env.clone())
    }

    fn pass(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// The tokens of the catalog, by what their payloads say they are.
    fn tokens(&self, kind: PayloadKind) -> Vec<Token> {
        let keys = CatalogKeys::new(&MasterKey::from_bytes([5; 32]));
        let records = self.store.records().into_iter();
        let is = |token: &Token| {
            let payload = self.store.payload(token).unwrap();
            open(&keys, &payload, None).is_ok_and(|(header, _)| header.kind == kind)
        };
        records.map(|record| record.token).filter(is).collect()
    }
}

impl Machine {
    fn make(&self, parent: u64, name: &str, kind: Kind) -> u64 {
        make(&self.remote, parent, name, kind)
    }

    async fn look(&self) -> Followed {
        let mut followed = Followed::default();
        self.remote.follow(&mut followed).await.unwrap();
        followed
    }

    fn names(&self) -> Vec<String> {
        names(&self.remote)
    }
}

fn make(remote: &Remote, parent: u64, name: &str, kind: Kind) -> u64 {
    let new = NewInode {
        kind,
        perm: 0o700,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: if kind == Kind::Symlink { b"there".to_vec() } else { Vec::new() },
        unwanted: false,
        xattrs: vec![(b"user.x".to_vec(), b"y".to_vec())],
    };
    remote.tree.create(parent, name.as_bytes(), new).unwrap().ino
}

/// Every path, in order.
fn names(remote: &Remote) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![(ROOT_INO, String::new())]);
    while let Some((dir, path)) = open.pop() {
        let list = remote.tree.list(dir, 0, |_, name, link| {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            found.push(path.clone());
            if link.kind == Kind::Dir {
                open.push((link.ino, path));
            }
            true
        });
        list.unwrap();
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_one_publishes_another_takes_in() {
    let mut house = House::new();
    let (a, b) = (house.machine(), house.machine());
    let dir = a.make(ROOT_INO, "dir", Kind::Dir);
    a.make(dir, "link", Kind::Symlink);
    assert!(a.remote.publish().await.unwrap().sent > 0);
    assert_eq!(a.remote.tree.outbox_len(9).unwrap(), 0);
    assert_eq!(b.look().await.segments, 1);
    assert_eq!(b.names(), ["/dir", "/dir/link"]);
    assert_eq!(b.look().await.segments, 0, "nothing is taken in twice");
    b.remote.tree.rename((dir, b"link"), (ROOT_INO, b"moved"), true, false).unwrap();
    b.remote.publish().await.unwrap();
    assert_eq!(a.look().await.segments, 1);
    assert_eq!(a.names(), ["/dir", "/moved"]);
    let vaults = [&a, &b].map(|machine| machine.remote.tree.vault().identity);
    assert!(vaults[0].is_some() && vaults[0] == vaults[1]);
    assert_eq!(a.remote.tree.today(), 1);
    let moved = a.remote.tree.lookup(ROOT_INO, b"moved").unwrap();
    assert_eq!((moved.attrs.uid, moved.xattr(b"user.x")), (1, Some(&b"y".to_vec())));
}

#[tokio::test]
async fn a_segment_is_sealed_once_whoever_sends_it() {
    for after in [false, true] {
        let mut house = House::new();
        let (a, b) = (house.machine(), house.machine());
        a.make(ROOT_INO, "dir", Kind::Dir);
        match after {
            true => house.store.fail_next_after_effect(Op::Put, 1, StoreErrorKind::TimedOut),
            false => house.store.fail_next(Op::Put, 1, StoreErrorKind::Unavailable),
        }
        a.remote.publish().await.unwrap_err();
        // what came later goes in the next
        a.make(ROOT_INO, "later", Kind::Dir);
        let next = house.again(&a);
        next.publish().await.unwrap();
        assert_eq!(names(&next), ["/dir", "/later"]);
        let tokens = house.tokens(PayloadKind::Segment);
        let payloads: std::collections::BTreeSet<_> =
            tokens.iter().map(|token| house.store.payload(token).unwrap()).collect();
        assert_eq!((tokens.len(), payloads.len()), (2 + usize::from(after), 2));
        b.look().await;
        assert_eq!(b.names(), ["/dir", "/later"]);
        assert!(!b.remote.is_in_doubt().unwrap());
    }
}

#[tokio::test]
async fn a_new_machine_reads_the_checkpoint_and_what_came_after() {
    let mut house = House::new();
    let a = house.machine();
    for number in 0..20 {
        a.make(ROOT_INO, &format!("dir {number}"), Kind::Dir);
        a.remote.publish().await.unwrap();
    }
    a.remote.tree.unlink(ROOT_INO, b"dir 3", true).unwrap();
    a.remote.publish().await.unwrap();
    assert!(a.remote.checkpoint().await.unwrap());
    a.make(ROOT_INO, "after", Kind::Dir);
    a.remote.publish().await.unwrap();
    let b = house.machine();
    let before = house.store.count(Op::Get);
    let followed = b.look().await;
    assert!(followed.checkpoint && followed.segments == 1);
    let gets = house.store.count(Op::Get) - before;
    assert!(gets <= 3, "a manifest, a page and a segment: {gets}");
    assert_eq!(b.names(), a.names());
    assert!(!b.names().contains(&"/dir 3".to_owned()) && !b.remote.is_in_doubt().unwrap());
    assert_eq!(b.remote.tree.today(), a.remote.tree.today());
    // what the checkpoint replaces may go, once two days are counted
    assert!(b.remote.replaced_and_due().unwrap().is_empty());
    for _ in 0..2 {
        house.pass(21 * 3600);
        let again = house.again(&a);
        assert!(again.advance_calendar().unwrap());
        assert!(!again.advance_calendar().unwrap(), "once a mount");
        again.publish().await.unwrap();
    }
    b.look().await;
    let due = b.remote.replaced_and_due().unwrap();
    assert_eq!((b.remote.tree.today(), due.len()), (3, 21));
    for token in due {
        house.store.delete(&token).await.unwrap();
    }
    let c = house.machine();
    c.look().await;
    b.look().await;
    for machine in [&a, &b, &c] {
        assert_eq!(machine.names(), a.names());
        assert!(!machine.remote.is_in_doubt().unwrap());
    }
    assert!(b.remote.replaced_and_due().unwrap().is_empty(), "they are gone");
    // from the first day on each machine may write the next
    assert!(c.remote.checkpoint().await.unwrap());
    let d = house.machine();
    assert!(d.look().await.checkpoint);
    assert_eq!(d.names(), a.names());
}

#[tokio::test]
async fn a_segment_that_another_names_and_the_vault_hides_is_doubt() {
    let mut house = House::new();
    let (a, b) = (house.machine(), house.machine());
    a.make(ROOT_INO, "first", Kind::Dir);
    a.remote.publish().await.unwrap();
    a.make(ROOT_INO, "second", Kind::Dir);
    a.remote.publish().await.unwrap();
    let hidden = house.tokens(PayloadKind::Segment).pop().unwrap();
    b.look().await;
    b.make(ROOT_INO, "third", Kind::Dir);
    b.remote.publish().await.unwrap();
    let payload = house.store.payload(&hidden).unwrap();
    house.store.tamper(&hidden, payload.slice(..payload.len() - 1));
    let c = house.machine();
    let followed = c.look().await;
    assert_eq!(c.names(), ["/first", "/third"], "the rest is shown");
    assert!(followed.doubts.is_empty() && c.remote.is_in_doubt().unwrap());
    assert!(!c.remote.checkpoint().await.unwrap(), "none is written in doubt");
    house.pass(61);
    assert!(!c.look().await.doubts.is_empty(), "it is said after a minute");
    // reading and publishing go on
    c.make(ROOT_INO, "fourth", Kind::Dir);
    c.remote.publish().await.unwrap();
    house.store.tamper(&hidden, payload);
    assert!(c.look().await.doubts.is_empty());
    assert!(!c.remote.is_in_doubt().unwrap());
    assert_eq!(c.names(), ["/first", "/fourth", "/second", "/third"]);
}

#[tokio::test]
async fn a_vault_that_shows_nothing_is_not_written_to() {
    let mut house = House::new();
    let a = house.machine();
    a.make(ROOT_INO, "dir", Kind::Dir);
    a.remote.publish().await.unwrap();
    let kept: Vec<_> = house.tokens(PayloadKind::Segment);
    for token in &kept {
        house.store.delete(token).await.unwrap();
    }
    a.make(ROOT_INO, "more", Kind::Dir);
    assert!(!a.look().await.doubts.is_empty());
    let refused = a.remote.publish().await.unwrap_err();
    assert!(matches!(refused, RemoteError::Refused(_)), "{refused}");
    assert_eq!(a.names(), ["/dir", "/more"]);
}

#[tokio::test]
async fn a_wrong_key_begins_no_catalog() {
    let mut house = House::new();
    let a = house.machine();
    a.make(ROOT_INO, "dir", Kind::Dir);
    a.remote.publish().await.unwrap();
    let other = house.machine_with([6; 32]);
    other.look().await;
    assert!(!other.remote.has_followed().unwrap());
    let refused = other.remote.check_may_begin(false).await.unwrap_err().to_string();
    for remote in [&a.remote, &other.remote] {
        let id = data_encoding::HEXLOWER.encode(&remote.catalog_keys.id());
        assert!(refused.contains(&id), "{refused}");
    }
    let b = house.machine();
    b.look().await;
    assert!(b.remote.has_followed().unwrap());
    b.remote.check_may_begin(false).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_was_set_back_goes_on_as_another_writer() {
    let mut house = House::new();
    let a = house.machine();
    a.make(ROOT_INO, "dir", Kind::Dir);
    a.remote.publish().await.unwrap();
    let writer = a.remote.tree.begin().writer();
    // the same process, as it was before it published this
    let before = a.remote.chain.lock().clone();
    a.make(ROOT_INO, "second", Kind::Dir);
    a.remote.publish().await.unwrap();
    let token = house.tokens(PayloadKind::Segment).pop().unwrap();
    let mut batch = a.remote.tree.db().batch();
    batch.remove(crate::db::Space::Meta, &a.remote.by_token(b'g', &token));
    batch.commit().unwrap();
    *a.remote.chain.lock() = before;
    a.look().await;
    assert_ne!(a.remote.tree.begin().writer(), writer);
    a.make(ROOT_INO, "third", Kind::Dir);
    a.remote.publish().await.unwrap();
    let b = house.machine();
    b.look().await;
    assert_eq!(b.names(), ["/dir", "/second", "/third"]);
}

#[tokio::test]
async fn a_writer_closes_itself_and_only_with_nothing_unpublished() {
    let mut house = House::new();
    let a = house.machine();
    a.remote.close_writer().await.unwrap();
    assert!(house.tokens(PayloadKind::Segment).is_empty(), "who changed nothing has no writer");
    a.make(ROOT_INO, "dir", Kind::Dir);
    a.remote.publish().await.unwrap();
    a.make(ROOT_INO, "more", Kind::Dir);
    a.remote.close_writer().await.unwrap();
    assert_eq!(house.tokens(PayloadKind::Segment).len(), 1, "something waits");
    a.remote.publish().await.unwrap();
    a.remote.close_writer().await.unwrap();
    let b = house.machine();
    b.look().await;
    assert_eq!(b.remote.tree.vault().ended.len(), 1);
}

#[tokio::test]
async fn a_long_log_is_listed_once_and_then_only_what_is_new() {
    let mut house = House::new();
    house.store = Arc::new(MemoryStore::with_page_size(4));
    let (a, b) = (house.machine(), house.machine());
    for number in 0..30 {
        house.pass(1);
        a.make(ROOT_INO, &format!("dir {number}"), Kind::Dir);
        a.remote.publish().await.unwrap();
    }
    b.look().await;
    for number in 30..40 {
        house.pass(1);
        a.make(ROOT_INO, &format!("dir {number}"), Kind::Dir);
        a.remote.publish().await.unwrap();
        let before = house.store.count(Op::List);
        assert_eq!(b.look().await.segments, 1);
        let lists = house.store.count(Op::List) - before;
        assert!(lists <= 4, "{lists} pages for one segment");
    }
    assert_eq!(b.names(), a.names());
}

#[tokio::test]
async fn what_the_vault_lost_of_the_log_is_put_again() {
    let mut house = House::new();
    let a = house.machine();
    for name in ["first", "second", "third"] {
        a.make(ROOT_INO, name, Kind::Dir);
        a.remote.publish().await.unwrap();
    }
    let lost = house.tokens(PayloadKind::Segment);
    let (before, last) = (house.store.payload(&lost[1]).unwrap(), lost.len());
    house.store.delete(&lost[1]).await.unwrap();
    a.look().await;
    assert_eq!(house.tokens(PayloadKind::Segment).len(), last - 1, "not at once");
    house.pass(61);
    a.look().await;
    let now = house.tokens(PayloadKind::Segment);
    assert_eq!(now.len(), last);
    assert!(now.iter().any(|token| house.store.payload(token).unwrap() == before));
    let b = house.machine();
    b.look().await;
    assert_eq!(b.names(), a.names());
    assert!(!b.remote.is_in_doubt().unwrap() && !a.remote.is_in_doubt().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_is_gone_is_begun_anew_only_if_a_person_says_so() {
    let mut house = House::new();
    let a = house.machine();
    a.make(ROOT_INO, "dir", Kind::Dir);
    a.remote.publish().await.unwrap();
    for token in house.tokens(PayloadKind::Segment) {
        house.store.tamper(&token, bytes::Bytes::from_static(b"nothing that opens as catalog"));
    }
    let b = house.machine();
    b.look().await;
    let refused = b.remote.found(false).await.unwrap_err().to_string();
    assert!(refused.contains("--new-catalog"), "{refused}");
    assert!(b.remote.tree.vault().identity.is_none());
    b.remote.found(true).await.unwrap();
    assert!(b.remote.tree.vault().identity.is_some());
}
