//! Access control lists: what `setfacl` and `getfacl` say on the drive is what they say on a
//! local file system, and the kernel lets in whom they let in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::house::{Vault, assert_errno, attributes, let_others_reach, run, run_ok};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a person does with lists, in a folder.
const SCRIPT: &str = r#"
set -e
umask 027
touch plain; mkdir folder; chmod 751 folder
setfacl -m u:65534:rw-,g:65533:r-x plain
setfacl -m u:65534:rwx folder
setfacl -d -m u:65534:r-x,g::rwx,o::--- folder
touch folder/made; mkdir folder/below; touch folder/below/made; ln -s made folder/link; mkfifo folder/pipe
install -m 711 /dev/null folder/installed
cp plain folder/copied; cp -p plain folder/kept
chmod 600 folder/made; chmod g+w plain; chmod 2775 folder
touch emptied; setfacl -m u:65534:r emptied; setfacl -b emptied
touch minimal; setfacl -m u::rwx,g::r-x,o::--x minimal
mkdir forgotten; setfacl -d -m u:65534:rwx forgotten; setfacl -k forgotten; touch forgotten/made
touch masked; setfacl -m u:65534:rwx,m::r-- masked
touch removed; setfacl -m u:65534:rwx removed; setfacl -x u:65534 removed
! setfacl -d -m u:65534:rwx plain 2>/dev/null
"#;

fn perform(folder: &Path) -> String {
    fs::create_dir(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    run_ok(Command::new("bash").args(["-c", SCRIPT]).current_dir(folder), PATIENCE);
    listed(folder)
}

/// Lists and modes of everything in a folder.
fn listed(folder: &Path) -> String {
    const LIST: &str = "find . | LC_ALL=C sort | while read -r f; do
        stat -c '%n %A' \"$f\"; [ -L \"$f\" ] || getfacl -n -- \"$f\"; done";
    run_ok(Command::new("bash").args(["-c", LIST]).current_dir(folder), PATIENCE).stdout
}

#[test]
fn lists_are_what_they_are_on_a_local_file_system() {
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    let expected = perform(&vault.path("local"));
    let found = perform(&machine.path("drive"));
    assert!(expected.contains("default:user:65534:r-x"), "{expected}");
    pretty_assert(&expected, &found);

    // Somebody else's tools carry them in and out.
    let (local, back) = (vault.path("local"), vault.path("back"));
    run_ok(Command::new("rsync").args(["-aAX"]).arg(&local).arg(machine.path("")), PATIENCE);
    pretty_assert(&expected, &listed(&machine.path("local")));
    run_ok(Command::new("cp").arg("-a").arg(machine.path("local")).arg(&back), PATIENCE);
    pretty_assert(&expected, &listed(&back));
    machine.umount();

    let other = vault.mounted("b");
    pretty_assert(&expected, &listed(&other.path("drive")));
}

fn pretty_assert(expected: &str, found: &str) {
    let differs = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
    assert!(expected == found, "{differs:?}\nexpected:\n{expected}\nfound:\n{found}");
}

#[test]
fn a_named_user_is_let_in_and_another_is_not() {
    let vault = Vault::new();
    let machine = vault.mounted_with("a", &["--allow-other"]);
    let root = machine.mountpoint();
    let_others_reach(&root);
    fs::write(root.join("secret"), b"for one").unwrap();
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let read_as = |user: &str| {
        let id = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()];
        let mut command = Command::new("setpriv");
        run(command.args(id).arg("cat").arg(root.join("secret")), PATIENCE)
    };
    assert!(!read_as("65534").success(), "the bits let nobody in");
    run_ok(Command::new("setfacl").args(["-m", "u:65534:r"]).arg(root.join("secret")), PATIENCE);
    let read = read_as("65534");
    assert!(read.success(), "{}", read.stderr);
    assert_eq!(read.stdout, "for one");
    assert!(!read_as("65533").success(), "another user is not named");
    run_ok(Command::new("setfacl").args(["-m", "m::-"]).arg(root.join("secret")), PATIENCE);
    assert!(!read_as("65534").success(), "the mask takes it away");
}

/// As long as the list of names can be asked for, attributes can be added.
#[test]
fn attributes_have_an_end() {
    let vault = Vault::new();
    let machine = vault.mounted("a");
    let file = machine.path("file");
    fs::write(&file, "x").unwrap();
    let set = |name: &str| attributes::set(&file, name, b"v", XattrFlags::empty());
    let name = |n: usize| format!("user.{n:0>200}");
    let fit = 65_536 / (name(0).len() + 1);
    (0..fit).for_each(|n| set(&name(n)).unwrap());
    assert_errno(set(&name(fit)), Errno::NOSPC);
    assert_eq!(attributes::list(&file).unwrap().len(), fit);
    set(&name(0)).unwrap();
    attributes::remove(&file, &name(1)).unwrap();
    set(&name(fit)).unwrap();
}
