//! What the simulator drives and the judge watches: a company of machines on one vault.
//!
//! A [`Script`] says all that happens, in order; nothing is drawn while it runs. A
//! [`Company`] carries it out step by step and says what each machine answered and had
//! shown. Two companies exist: the drive over a simulated machine and service, and the
//! reference, which holds everything in memory and shares no code with the drive.
//!
//! **Contents** are rows of cells of [`CELL`] bytes. A cell of zeros is a hole; every other
//! one carries the stamp of the step that wrote it and its own index, so a read says who
//! wrote each byte, and bytes that were moved, mixed or forged are told apart.
//! **Versions** are told by size: a step that changes a content leaves it at a size that no
//! other step of the script leaves, so a machine that shows a size has shown a version
//! without reading it. Folders carry the number of the step that made them in an extended
//! attribute, symbolic links in their target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of a cell.
pub const CELL: u64 = 8;

/// A machine of the company, by number; clones get the next free number.
pub type Machine = u8;

/// A path below the root: no leading slash, components joined by `/`.
pub type Path = String;

/// Number of a step in its script plus one: the stamp of what it writes.
pub type Stamp = u32;

/// All that happens in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Fixes the order in which tasks that are ready run, latencies, and every random
    /// choice of the product itself (nonces, names of staged files).
    pub schedule: u64,
    /// One for each machine that is there from the beginning; all begin unmounted with an
    /// empty disk.
    pub settings: Vec<Settings>,
    /// In order.
    pub steps: Vec<Step>,
}

/// What differs from machine to machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Days that deleted and overwritten content stays in the vault.
    pub trash_days: u32,
    /// Contents above so many cells are split into parts of [`Settings::part`] cells.
    pub split_above: u32,
    /// Cells of a part.
    pub part: u32,
    /// Seconds between looks at the vault; zero: only when told to.
    pub poll_secs: u32,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Somebody does something on a mounted machine. On one that is dead, lost or
    /// unmounted it fails with [`Failure::NotMounted`] and nothing happens.
    Do(Machine, Act),
    /// Another client of the vault, without a catalog, does something.
    Other(OtherAct),
    /// Something happens to a machine.
    Fate(Fate),
    /// The service begins (or stops) to behave otherwise.
    Service(Service),
    /// Somebody mounts on a new machine with the key and the login, looks at everything, and
    /// is gone.
    Newcomer,
    /// Time passes for everybody.
    Wait {
        /// Milliseconds.
        ms: u64,
    },
}

/// What a person does. Sizes and positions are in cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Opens with create and truncate, writes `size` cells, closes.
    Write { at: Path, size: u32 },
    /// Opens what is there, overwrites `cells` cells from `from` on (growing the file if
    /// need be), then cuts or extends it to `size`, closes.
    Edit { at: Path, from: u32, cells: u32, size: u32 },
    /// Cuts or extends to `size` (extension is a hole).
    Truncate { at: Path, size: u32 },
    /// Makes a hole of `cells` cells at `from`, then cuts or extends to `size`.
    Punch { at: Path, from: u32, cells: u32, size: u32 },
    /// Truncates `to` (made if absent), copies all of `from` into it by sharing extents,
    /// then cuts or extends it to `size`.
    Clone { from: Path, to: Path, size: u32 },
    /// As editors do: writes `size` cells to a new temporary name beside `at`, closes it,
    /// renames it over `at`.
    Save { at: Path, size: u32 },
    /// Opens what is there for writing and keeps it open as `slot` (closing what `slot` had).
    Open { at: Path, slot: u8 },
    /// Overwrites through an open slot, then cuts or extends to `size`. Not closed: not
    /// acknowledged until `FsyncSlot` or `Close`.
    WriteSlot { slot: u8, from: u32, cells: u32, size: u32 },
    /// Closes the slot.
    Close { slot: u8 },
    /// `fsync` of the slot.
    FsyncSlot { slot: u8 },
    /// `mkdir`, then the attribute that carries the step's number.
    Mkdir { at: Path },
    /// `rmdir`.
    Rmdir { at: Path },
    /// `unlink`.
    Remove { at: Path },
    /// `rename`, over what is there.
    Rename { from: Path, to: Path },
    /// `renameat2` with `RENAME_EXCHANGE`.
    Exchange { a: Path, b: Path },
    /// `link`.
    Link { from: Path, to: Path },
    /// `symlink`; the target is the step's number.
    Symlink { at: Path },
    /// Sets the permission bits.
    Chmod { at: Path, perm: u16 },
    /// Sets the attribute `user.x`.
    Xattr { at: Path, value: u32 },
    /// Opens, `fsync`, closes. Without `wait` the step ends at once, and the outcome comes
    /// as [`Event::Ended`] of a later step, or never if the machine dies.
    Fsync { at: Path, wait: bool },
    /// `privicorefs sync`: everything done so far is in the vault.
    Sync { wait: bool },
    /// Reads the whole content.
    Read { at: Path },
}

/// What another client does; it has the key and no catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtherAct {
    /// Stores a new token with this folder and name (two of one name may exist).
    Store { at: Path, size: u32 },
    /// Stores a new token and deletes the other client's latest one of this name.
    Update { at: Path, size: u32 },
    /// Deletes the other client's latest token of this name.
    Delete { at: Path },
}

/// When a death comes: at once, or at the n-th call (from 1) of a kind from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Before the next step.
    Now,
    /// At a call that changes the disk.
    Disk(u32),
    /// At a commit or sync of the local database.
    Local(u32),
    /// At a call of the store that is about to be sent.
    Ask(u32),
    /// At the answer of such a call: it was carried out, and nobody hears of it.
    Answer(u32),
}

/// What happens to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Mounts (first time, or after a death or an unmount).
    Mount { on: Machine },
    /// A clean unmount; acknowledged like [`Act::Sync`].
    Unmount { on: Machine },
    /// The process dies; what it wrote stays.
    Kill { on: Machine, when: Moment },
    /// The machine loses power. `together`: disk and local database go back to one common
    /// moment; otherwise each keeps a prefix of its own of what was not synced.
    PowerCut { on: Machine, when: Moment, together: bool },
    /// The cache directory is lost; the machine is not mounted, or dies first.
    LoseCache { on: Machine },
    /// A backup of the state directory is made, as `slot`.
    Backup { on: Machine, slot: u8 },
    /// The process dies; the state directory is replaced by the backup (if there is one),
    /// and the machine mounts again.
    Restore { on: Machine, slot: u8 },
    /// As a virtual machine set back to a snapshot: as [`Fate::Restore`], but what runs
    /// afterwards takes itself for the process of then.
    SetBack { on: Machine, slot: u8 },
    /// The state directory as it is now is copied to a new machine, which is mounted.
    Duplicate { on: Machine },
    /// The machine is gone for ever, its disk too.
    Lose { on: Machine },
    /// The service is out of this machine's reach.
    Away { on: Machine },
    /// It is within reach again.
    Back { on: Machine },
    /// The machine's wall clock jumps.
    Clock { on: Machine, ms: i64 },
    /// The machine takes in what others published, now.
    Look { on: Machine },
    /// The machine sees to what is due (deletions, names at the service), now.
    Housekeep { on: Machine },
    /// The machine writes a checkpoint, now.
    Checkpoint { on: Machine },
}

/// How the service behaves. What is chosen counts for the oldest, newest … payload by
/// number (modulo how many there are), so that scripts stay meaningful when shortened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// Everything before is over: withheld tokens show, rolled-back ones return, replaced
    /// payloads are right again. What was lost or invented stays so.
    Honest,
    // honest, if slow, lagging or failing
    /// Every call takes so much longer.
    Slow { ms: u32 },
    /// No call gets through for so long.
    Down { ms: u32 },
    /// Listings show a machine (all: `None`) the vault as it was so long ago, at most an hour.
    Lag { on: Option<Machine>, ms: u32 },
    /// The next `n` puts are carried out, and fail (retryable, in doubt).
    LostAck { n: u32 },
    /// The next `n` puts fail (in doubt) and are carried out so much later.
    LandsLate { n: u32, ms: u32 },
    /// The next `n` puts fail before they had an effect.
    FailPuts { n: u32 },
    /// The next `n` gets fail.
    FailGets { n: u32 },
    /// The server's clock in listings and replies is off by so much.
    Clock { ms: i64 },
    // lies
    /// The payloads of two tokens of one kind change places.
    Swap { what: Stored, a: u32, b: u32 },
    /// A token gives an older payload (of the same file, if there is one, else any).
    Replay { what: Stored, of: u32, older: u32 },
    /// A token gives its payload cut by so many bytes.
    Cut { what: Stored, of: u32, bytes: u32 },
    /// The whole vault is as it was so many milliseconds ago, for one machine or all.
    RollBack { on: Option<Machine>, ms: u64 },
    /// A token is neither listed nor given, to one machine or all.
    Withhold { what: Stored, of: u32, on: Option<Machine> },
    /// The ciphertext of a token is stored once more, in another place and under a name
    /// that means something there.
    CopyAs { what: Stored, of: u32, to: Stored, number: u64 },
    /// Listings show every entry twice.
    Duplicate,
    /// Listings run backwards.
    Reorder,
    /// The next `n` pages of listings are other pages than were asked for.
    WrongPage { n: u32 },
    /// The next `n` pages lack their second half.
    ShortPage { n: u32 },
    /// Entries vanish from the front of a listing between its pages.
    Shift { n: u32 },
    /// Listings carry no sizes.
    NoSizes,
    /// Listed dates are of this year.
    Year { year: u32 },
    /// An entry with a file name or context that means harm is listed.
    Entry { odd: Odd },
    /// The next `n` puts are not carried out, and answered with a token of this text.
    Answer { n: u32, token: String },
    /// A token is deleted by whoever has the login (`token delete`).
    Erase { what: Stored, of: u32 },
}

/// What a token holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stored {
    /// A file's content as one token.
    File,
    /// A part of a large file.
    Part,
    /// The list of parts of a large file.
    PartList,
    /// A segment of the catalog.
    Segment,
    /// A checkpoint's manifest.
    Manifest,
    /// A checkpoint's page.
    Page,
}

/// An entry of a listing that no honest client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Odd {
    /// A segment's name of some known writer with a huge number.
    HugeNumber,
    /// A context with a NUL.
    Nul,
    /// A name of `..`.
    DotDot,
    /// A name of a user's file, dated in the future.
    Usurper,
}

/// What stands at a path, as a machine shows it without reading contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// No such name.
    Absent,
    /// A file of so many cells (rounded up), with the token that holds it, if it has one.
    File { size: u32, token: Option<String> },
    /// A folder with the number of the step that made it.
    Dir { made: Option<Stamp> },
    /// A symbolic link with the number of the step that made it.
    Symlink { made: Option<Stamp> },
    /// Something else, or an error.
    Odd { why: String },
}

/// Why a step did nothing, or not all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The machine is not mounted.
    NotMounted,
    /// It died during the step.
    Died,
    /// ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EBADF: the step does not fit what
    /// is there.
    Refused { errno: String },
    /// ETIMEDOUT.
    TimedOut,
    /// EIO and whatever else says that something is wrong.
    Broken { why: String },
}

/// Where so many cells of a content come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cells {
    /// A hole.
    Zero(u32),
    /// Written by this step, at their own index; a clone keeps the stamps of the original.
    Of(Stamp, u32),
    /// Neither: forged, moved, or torn.
    Alien(u32),
}

/// A content, as a row of runs; equal neighbours are joined.
pub type Content = Vec<Cells>;

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual time at its end, in milliseconds since the beginning of the run.
    pub at: u64,
    /// What the machine showed of each path of the act right before it, in the act's order;
    /// for an act on a slot, what the open file was, under an empty path.
    pub shown: Vec<(Path, What)>,
    /// How it ended.
    pub failure: Option<Failure>,
    /// What `Read` gave.
    pub read: Option<Content>,
    /// What a newcomer saw, or why it could not mount.
    pub newcomer: Option<Result<View, String>>,
    /// What happened since the last outcome, this step included.
    pub events: Vec<Event>,
}

/// Something that happened beside a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step that was not waited for has ended.
    Ended { step: usize, failure: Option<Failure> },
    /// A machine died at the moment that a fate (by its step) had set.
    Died { on: Machine, by: usize },
    /// A machine reports to its user that the vault lacks, or gives otherwise, what this
    /// machine knows, or that something of it does not open.
    Reported { on: Machine, text: String },
    /// A task of the product, or the step itself, panicked.
    Panicked { text: String },
    /// A machine deleted a token of the vault; `named`: its own tree named it at that moment.
    Deleted { on: Machine, token: String, what: Stored, named: bool },
    /// The fate or the service's behaviour of this step met what it is for: unsent work, or
    /// a machine that used the answer.
    Met { step: usize },
}

/// One name of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file: its content, permission bits, attribute `user.x`, and the number of its names.
    File { content: Content, perm: u16, xattr: Option<u32>, links: u32, token: Option<String> },
    /// A folder.
    Dir { made: Option<Stamp>, perm: u16, xattr: Option<u32> },
    /// A symbolic link.
    Symlink { made: Option<Stamp> },
    /// What cannot be read; `damaged`: the drive says so of the file (state attribute) rather
    /// than only failing.
    Unreadable { why: String, damaged: bool },
}

/// A whole tree, by path.
pub type View = BTreeMap<Path, Entry>;

/// Who looks at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observer {
    /// A machine of the script.
    Machine(Machine),
    /// A new one with the key and the login.
    Fresh,
}

/// How everything stands after all have heard everything.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// What each machine that lives shows, and a fresh one. A machine that could not be
    /// mounted or never came to rest is an error.
    pub views: BTreeMap<Observer, Result<View, String>>,
    /// Tokens of the vault that hold contents (`File`, `Part`, `PartList`), with what they hold.
    pub stored: Vec<(String, Stored)>,
    /// What happened since the last outcome.
    pub events: Vec<Event>,
}

/// What a company can do at all, so that a judge does not ask for what is not built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Tokens that nothing names are gone after the horizon.
    pub horizon: bool,
    /// Lies are reported and fresh machines show a whole earlier state.
    pub reports: bool,
}

/// Machines on one vault, driven step by step.
pub trait Company {
    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Carries out step `number` of the script (from 0; its stamp is `number + 1`).
    fn step(&mut self, number: usize, step: &Step) -> Outcome;

    /// The service is honest and in reach, every living machine is mounted, and time passes
    /// until all have heard everything and nothing waits; then everybody is looked at.
    fn finish(&mut self) -> Final;

    /// The name without what marks it as a conflict copy; `None` for an ordinary name.
    fn original_name(&self, name: &str) -> Option<String>;
}
