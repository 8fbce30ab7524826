//! Doing something as another user, or with another umask, in one thread of a test.

#![allow(unsafe_code, reason = "a thread leaves the umask and folder that its process shares")]

use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{getgroups, umask};
use rustix::thread::{
    UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

/// A user and a group that own nothing by themselves.
pub(crate) const NOBODY: u32 = 65_534;

/// Gives the calling thread a umask of its own: other tests of the process keep theirs.
pub(crate) fn own_umask() {
    // SAFETY: only the umask and the working folder are unshared, no file descriptors.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
}

/// Does something with a umask, in a thread that has one of its own.
pub(crate) fn with_umask<T>(mask: u32, work: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_raw_mode(mask));
    let result = work();
    umask(before);
    result
}

/// Does something as a user without privileges and without other groups. Only the calling
/// thread becomes that user, and only for the time; it must be root's.
pub(crate) fn as_nobody<T>(work: impl FnOnce() -> T) -> T {
    let _restored = Restored(getgroups().unwrap());
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(None, Gid::from_raw(NOBODY), None).unwrap();
    // Last: it takes the privileges away; the saved user gives them back.
    set_thread_res_uid(None, Uid::from_raw(NOBODY), None).unwrap();
    work()
}

/// Makes the thread root's again, also by panic, with the groups that it had.
struct Restored(Vec<Gid>);

impl Drop for Restored {
    fn drop(&mut self) {
        set_thread_res_uid(None, Uid::ROOT, None).unwrap();
        set_thread_res_gid(None, Gid::ROOT, None).unwrap();
        set_thread_groups(&self.0).unwrap();
    }
}
