//! The allocator's settings: the unsafe calls of the mount.

/// Arenas of the allocator. Each thread would get one of its own otherwise, and each
/// keeps what it once held: tens of MiB per arena under load.
const ARENAS: libc::c_int = 2;
/// Allocations from this size on are mapped and given back at once. Parts and large
/// requests are above it; the 1 MiB buffers of single requests are below, because
/// mapping, faulting and unmapping each would cost more than copying it.
const MAP_FROM: libc::c_int = 4 << 20;
/// Free memory at the heap's end beyond which it is given back.
const TRIM_FROM: libc::c_int = 16 << 20;

/// Tells glibc to keep less memory than it likes to. Call before threads are made.
#[allow(unsafe_code, reason = "std has no mallopt(3)")]
pub(super) fn tune() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, MAP_FROM),
        (libc::M_TRIM_THRESHOLD, TRIM_FROM),
    ] {
        // SAFETY: sets a parameter of the allocator; takes no pointer, and is called while
        // this is the only thread. A refusal leaves the default, which is correct too.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back memory that is free between what is in use. The trim that glibc makes by itself
/// ends at the first block in use, and after a burst of small records one is always near the
/// heap's end.
#[allow(unsafe_code, reason = "std has no malloc_trim(3)")]
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and moves nothing that is in use; any thread may call it.
    unsafe {
        libc::malloc_trim(0);
    }
}
