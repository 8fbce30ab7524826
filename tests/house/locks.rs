//! Locks on ranges that belong to an open file, as `flock` does, and not to a process.

#![allow(unsafe_code, reason = "no safe wrapper offers F_OFD_SETLK")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What to do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
    Release,
}

/// Locks, or releases, a range of an open file; `WouldBlock` where another has it.
pub(crate) fn range(file: &File, how: Lock, start: u32, length: u32) -> io::Result<()> {
    let kind = match how {
        Lock::Shared => libc::F_RDLCK,
        Lock::Exclusive => libc::F_WRLCK,
        Lock::Release => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start.into(),
        l_len: length.into(),
        // F_OFD_SETLK demands this.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and the structure outlives the call, which reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
