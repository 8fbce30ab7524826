//! Programs that people use, doing a day's work on the drive; afterwards every file is the
//! same on another machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::process::Output;
use common::{Lab, Machine, run};

const PATIENCE: Duration = Duration::from_secs(600);

fn shell(lab: &Lab, folder: &Path, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -eu\n{script}")]).current_dir(folder);
    command.env("LAB", lab.path("")).env("HOME", lab.path("")).env("LC_ALL", "C.UTF-8");
    command.env("GIT_AUTHOR_NAME", "a").env("GIT_AUTHOR_EMAIL", "a@example.org");
    command.env("GIT_COMMITTER_NAME", "a").env("GIT_COMMITTER_EMAIL", "a@example.org");
    let output = run(&mut command, PATIENCE);
    assert!(output.success(), "{script}\n{}{}", output.stdout, output.stderr);
    output
}

fn sums(lab: &Lab, machine: &Machine) -> String {
    let all = "find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -printf '%p %y %m %l\\n' | sort";
    shell(lab, &machine.mountpoint(), all).stdout
}

/// Runs `work` in the drive, then `check` here and on another machine, where every file
/// must be the same.
fn day(work: &str, check: &str) {
    let lab = Lab::new();
    let mut machine = lab.mounted("a");
    shell(&lab, &machine.mountpoint(), work);
    shell(&lab, &machine.mountpoint(), check);
    let expected = sums(&lab, &machine);
    assert!(!expected.is_empty());
    machine.umount();
    let other = lab.mounted("b");
    let found = sums(&lab, &other);
    let differs = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
    assert!(expected == found, "{differs:?}");
    shell(&lab, &other.mountpoint(), check);
}

#[test]
fn git() {
    day(
        "git init -q repo; cd repo
         for i in $(seq 120); do echo $i >> f$((i % 17)); git add -A; git commit -qm $i; done
         git branch side HEAD~20; git checkout -q side; echo side > side; git add -A
         git commit -qm side; git checkout -q -; git merge -q -m merged side
         git gc -q; cd ..; git clone -q repo clone; git -C clone log --oneline > log",
        "for r in repo clone; do git -C $r fsck --full --strict; test -z \"$(git -C $r status --porcelain)\"; done
         test $(git -C repo rev-list --count HEAD) = 122",
    );
}

/// Two processes write; each journal mode has locks and files of its own.
#[test]
fn sqlite() {
    day(
        "for mode in DELETE WAL; do
           sqlite3 $mode.db \"PRAGMA journal_mode=$mode; CREATE TABLE t(a INTEGER PRIMARY KEY, b);\"
           writer() { for i in $(seq 40); do
             sqlite3 -cmd '.timeout 60000' $mode.db \"INSERT INTO t(b) VALUES(hex(randomblob($1)));\"; done; }
           writer 200 & one=$!; writer 5000 & two=$!; wait $one; wait $two
           sqlite3 $mode.db 'DELETE FROM t WHERE a % 3 = 0; VACUUM;'
         done",
        "for mode in DELETE WAL; do
           test \"$(sqlite3 $mode.db 'PRAGMA integrity_check')\" = ok
           test \"$(sqlite3 $mode.db 'SELECT count(*) FROM t')\" = 54
           sqlite3 $mode.db 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
         done; rm -f *.db-wal *.db-shm",
    );
}

#[test]
fn tar_rsync_and_sparse_copies() {
    day(
        "mkdir -p tree/below; echo a > tree/a; ln tree/a tree/below/b; ln -s a tree/link
         setfattr -n user.note -v one tree/a; setfacl -m u:65534:r tree/a; touch -d 2001-02-03 tree/below
         truncate -s 40M tree/sparse; printf x | dd of=tree/sparse bs=1 seek=30000000 conv=notrunc status=none
         sync tree/sparse
         tar --xattrs --acls --sparse -cf tree.tar tree; mkdir out; tar --xattrs --acls --sparse -xf tree.tar -C out
         cp -a --sparse=always tree copied
         rsync -aHAXS --delete tree/ synced/; rsync -aHAXS --delete tree/ \"$LAB/back/\"",
        "for copy in out/tree copied synced; do
           diff -r --no-dereference tree $copy
           test \"$(getfattr --only-values -n user.note $copy/a)\" = one
           getfacl -c $copy/a | grep -q user:nobody:r--
           test $(stat -c %h $copy/a) = 2
           test $(du -k $copy/sparse | cut -f1) -lt 20000
         done
         test -z \"$(rsync -aHAXS --delete -in tree/ synced/)\"
         test -z \"$(rsync -aHAXS --delete -in tree/ \"$LAB/back/\")\"",
    );
}

const SOURCE: &str =
    "mkdir source; for i in $(seq 60); do head -c $((i * 997)) /dev/urandom > source/$i; done;";

#[test]
fn restic() {
    day(
        &format!(
            "{SOURCE} export RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$LAB/restic
             restic init -q -r repo; restic backup -q -r repo source; echo more >> source/1
             restic backup -q -r repo source; restic forget -q -r repo --keep-last 1 --prune"
        ),
        "export RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$LAB/restic
         restic check -q -r repo --read-data; rm -rf \"$LAB/restored\"
         restic restore -q -r repo latest --target \"$LAB/restored\"
         diff -r source \"$(find \"$LAB/restored\" -name source -type d)\"; restic unlock -q -r repo",
    );
}

#[test]
fn borg() {
    const BORG: &str =
        "export BORG_PASSPHRASE=x BORG_BASE_DIR=$LAB/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes;";
    day(
        &format!(
            "{SOURCE} {BORG} borg init -e repokey repo; borg create repo::one source
             echo more >> source/1; borg create repo::two source; borg prune --keep-last 1 repo
             borg compact repo"
        ),
        &format!(
            "{BORG} borg check --verify-data repo; rm -rf \"$LAB/extracted\"; mkdir \"$LAB/extracted\"
             here=$PWD; cd \"$LAB/extracted\"; borg extract \"$here/repo::two\"; cd \"$here\"
             diff -r source \"$LAB/extracted/source\""
        ),
    );
}

#[test]
fn editors_and_checked_writes() {
    day(
        "printf 'a\\nb\\n' > text; vim.tiny -es -c '%s/a/z/' -c wq text; sed -i s/b/y/ text
         fio --name=v --directory=. --rw=randwrite --bs=4k-64k --size=6m --numjobs=4 \\
             --verify=crc32c --do_verify=1 --ioengine=psync --minimal >/dev/null",
        "test \"$(cat text)\" = \"$(printf 'z\\ny')\"",
    );
}
