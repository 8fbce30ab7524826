//! `VfsError` to errno and log level: one table, exhaustive on purpose.
//!
//! A failed operation is logged here, once, where it is answered. The victim's name is
//! left out unless [`telemetry::shows_names`] says that the log may hold names: the log
//! of a mount in the background lies in the state directory, which holds none.

use fuser::Errno;
use tracing::Level;

use crate::telemetry;
use crate::vfs::{Ino, VfsError};

/// What is answered and at which level it is logged, and the victim.
struct Row<'a> {
    errno: Errno,
    level: Level,
    what: &'a str,
}

const fn row(errno: Errno, level: Level, what: &str) -> Row<'_> {
    Row { errno, level, what }
}

/// The table. DEBUG: a program asked for something that is not so, which is ordinary.
/// WARN: the service or a limit stands in the way. ERROR: something is broken.
fn table(error: &VfsError) -> Row<'_> {
    use VfsError as E;
    match error {
        E::NotFound { what } => row(Errno::ENOENT, Level::DEBUG, what),
        E::Exists { what } => row(Errno::EEXIST, Level::DEBUG, what),
        E::NotDir { what } => row(Errno::ENOTDIR, Level::DEBUG, what),
        E::IsDir { what } => row(Errno::EISDIR, Level::DEBUG, what),
        E::NotEmpty { what } => row(Errno::ENOTEMPTY, Level::DEBUG, what),
        E::Invalid { what, why: _ } => row(Errno::EINVAL, Level::DEBUG, what),
        E::NameTooLong { what } => row(Errno::ENAMETOOLONG, Level::DEBUG, what),
        E::BadHandle { fh: _ } => row(Errno::EBADF, Level::WARN, ""),
        E::ReadOnly { what } => row(Errno::EROFS, Level::DEBUG, what),
        E::NotPermitted { what } => row(Errno::EPERM, Level::DEBUG, what),
        E::Denied { what, why: _ } => row(Errno::EACCES, Level::WARN, what),
        E::Unauthenticated { what, why: _ } => row(Errno::EACCES, Level::WARN, what),
        E::Stale { what } => row(Errno::ESTALE, Level::WARN, what),
        E::TooLarge { what } => row(Errno::EFBIG, Level::WARN, what),
        E::StagingFull { what, why: _ } => row(Errno::ENOSPC, Level::WARN, what),
        E::TooManyLinks { what } => row(Errno::EMLINK, Level::DEBUG, what),
        E::NoAttr { what } => row(Errno::ENODATA, Level::DEBUG, what),
        E::NoData { fh: _ } => row(Errno::ENXIO, Level::DEBUG, ""),
        E::Range { what } => row(Errno::ERANGE, Level::DEBUG, what),
        // not ENOSYS: the kernel would never ask again, for any file
        E::Unsupported { what } => row(Errno::EOPNOTSUPP, Level::DEBUG, what),
        E::TimedOut { what, why: _ } => row(Errno::ETIMEDOUT, Level::WARN, what),
        // not EAGAIN: programs take it for a non-blocking descriptor and spin
        E::Unavailable { what, why: _ } => row(Errno::EIO, Level::WARN, what),
        E::Corrupt { what, why: _ } => row(Errno::EIO, Level::ERROR, what),
        E::Local { what, why: _ } => row(Errno::EIO, Level::ERROR, what),
        E::Closing { what } => row(Errno::EIO, Level::DEBUG, what),
    }
}

/// The errno to answer, after logging the failure once. `ino` is the inode that the
/// request named (the directory, for operations on a name).
pub(super) fn report(operation: &'static str, ino: Ino, error: &VfsError) -> Errno {
    let Row { errno, level, what } = table(error);
    let code = errno.code();
    match level {
        Level::ERROR => tracing::error!(operation, ino, code, "{}", shown(error, what)),
        Level::WARN => tracing::warn!(operation, ino, code, "{}", shown(error, what)),
        _ => tracing::debug!(operation, ino, code, "{}", shown(error, what)),
    }
    errno
}

/// The error's text, without the victim's name where the log may not hold one.
fn shown(error: &VfsError, what: &str) -> String {
    let text = error.to_string();
    if telemetry::shows_names() || what.is_empty() {
        return text;
    }
    match text.strip_prefix(what).and_then(|rest| rest.strip_prefix(": ")) {
        Some(rest) => rest.to_owned(),
        None => "(withheld)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what() -> String {
        "secret-name".to_owned()
    }

    /// The table as the README prints it; a changed row must be changed in both.
    fn mirror() -> Vec<(VfsError, i32)> {
        use VfsError as E;
        let why = || "the reason".to_owned();
        vec![
            (E::NotFound { what: what() }, libc::ENOENT),
            (E::Exists { what: what() }, libc::EEXIST),
            (E::NotDir { what: what() }, libc::ENOTDIR),
            (E::IsDir { what: what() }, libc::EISDIR),
            (E::NotEmpty { what: what() }, libc::ENOTEMPTY),
            (E::Invalid { what: what(), why: "odd" }, libc::EINVAL),
            (E::NameTooLong { what: what() }, libc::ENAMETOOLONG),
            (E::BadHandle { fh: 3 }, libc::EBADF),
            (E::ReadOnly { what: what() }, libc::EROFS),
            (E::NotPermitted { what: what() }, libc::EPERM),
            (E::Denied { what: what(), why: why() }, libc::EACCES),
            (E::Unauthenticated { what: what(), why: why() }, libc::EACCES),
            (E::Stale { what: what() }, libc::ESTALE),
            (E::TooLarge { what: what() }, libc::EFBIG),
            (E::StagingFull { what: what(), why: why() }, libc::ENOSPC),
            (E::TooManyLinks { what: what() }, libc::EMLINK),
            (E::NoAttr { what: what() }, libc::ENODATA),
            (E::NoData { fh: 1 }, libc::ENXIO),
            (E::Range { what: what() }, libc::ERANGE),
            (E::Unsupported { what: what() }, libc::EOPNOTSUPP),
            (E::TimedOut { what: what(), why: why() }, libc::ETIMEDOUT),
            (E::Unavailable { what: what(), why: why() }, libc::EIO),
            (E::Corrupt { what: what(), why: why() }, libc::EIO),
            (E::Local { what: what(), why: why() }, libc::EIO),
            (E::Closing { what: what() }, libc::EIO),
        ]
    }

    #[test]
    fn every_error_has_the_errno_of_the_documented_table() {
        for (error, errno) in mirror() {
            assert_eq!(table(&error).errno.code(), errno, "{error}");
        }
    }

    #[test]
    fn a_log_that_may_not_hold_names_holds_none() {
        for (error, _) in mirror() {
            let text = shown(&error, table(&error).what);
            assert!(!text.contains("secret-name"), "{text}");
            assert!(!text.is_empty());
        }
    }
}
