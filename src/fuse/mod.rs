//! The FUSE adapter: the only code that names `fuser`.
//!
//! * `adapter` — the callbacks. Each is: call the operation, reply or error. No rule of
//!   the filesystem lives here, so every rule has a test that needs no kernel.
//! * `bridge` — how a callback runs an operation that may reach the network without
//!   parking the event loop's thread.
//! * `errno` — `VfsError` to errno and log level, one exhaustive table; the one place
//!   where a failed operation is logged.
//! * `convert` — `fuser`'s words to and from `vfs`' words.
//! * `session` — mount, serve, push invalidations, unmount.
//!
//! What the kernel is asked for, and why:
//! * Long entry and attribute lifetimes: every change that the kernel did not make itself
//!   is pushed through [`Session::invalidator`], so nothing needs to be asked twice.
//! * No writeback cache: with it the kernel owns size and modification time.
//! * No `FUSE_POSIX_LOCKS`/`FUSE_FLOCK_LOCKS`: the kernel keeps locks itself, which is
//!   right for one machine.
//! * `FUSE_POSIX_ACL`: the kernel checks access control lists, and remembers that a file has
//!   none (`ls -l` asks for each). `FUSE_DONT_MASK`: the umask is left to the operations
//!   layer, because a folder's default list takes its place.
//! * No `FUSE_ATOMIC_O_TRUNC`: with it a program that is running is cut to nothing by an
//!   `open` with `O_RDONLY|O_TRUNC` that the kernel then refuses with ETXTBSY.
//! * `copy_file_range` answers ENOSYS: the kernel then copies by itself, in the page
//!   cache, and remembers.
//! * `FUSE_SYNCFS` is sent only to virtiofs, never to a `/dev/fuse` mount (and fuser 0.18
//!   does not know it): `syncfs(2)` and `sync(1)` on the mount cannot wait for the vault.
//!   `privicorefs sync` can.
//! * `FUSE_INTERRUPT` is answered ENOSYS by fuser, so an operation cannot be interrupted;
//!   every wait below this layer has a deadline instead.

mod adapter;
mod bridge;
mod convert;
mod errno;
mod session;

pub use session::{FuseOptions, Session, unmount};
