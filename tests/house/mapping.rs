//! A shared, writable memory mapping: the one thing a test needs `unsafe` for.

#![allow(unsafe_code, reason = "mmap hands out raw memory; the slice lives as long as the map")]

use std::fs::File;
use std::ptr::null_mut;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// The first bytes of a file, mapped; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut std::ffi::c_void,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes of a file that is at least as long.
    pub(crate) fn new(file: &File, length: usize) -> std::io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses aliases nothing of ours.
        let address = unsafe {
            mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)?
        };
        Ok(Self { address, length })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `length` bytes, readable and writable, until drop; the
        // tests change the file by other means only while they hold no such slice.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.length) }
    }

    /// Writes changes back to the file.
    pub(crate) fn flush(&self) -> std::io::Result<()> {
        // SAFETY: the range is exactly the mapping.
        unsafe { Ok(msync(self.address, self.length, MsyncFlags::SYNC)?) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping, and no slice of it outlives `self`.
        let _unmapped = unsafe { munmap(self.address, self.length) };
    }
}
