//! `VfsError` to errno and log level: one table, exhaustive on purpose.
//!
//! A failed operation is logged here, once, where it is answered; [`VfsError::logged`]
//! leaves the victim's name out where the log may not hold names.

use fuser::Errno;
use tracing::Level;

use crate::vfs::{Ino, VfsError};

/// The table. DEBUG: a program asked for something that is not so, which is ordinary.
/// WARN: the service or a limit stands in the way. ERROR: something is broken.
fn table(error: &VfsError) -> (Errno, Level) {
    use VfsError as E;
    match error {
        E::NotFound { .. } => (Errno::ENOENT, Level::DEBUG),
        E::Exists { .. } => (Errno::EEXIST, Level::DEBUG),
        E::NotDir { .. } => (Errno::ENOTDIR, Level::DEBUG),
        E::IsDir { .. } => (Errno::EISDIR, Level::DEBUG),
        E::NotEmpty { .. } => (Errno::ENOTEMPTY, Level::DEBUG),
        E::Invalid { .. } => (Errno::EINVAL, Level::DEBUG),
        E::NameTooLong { .. } => (Errno::ENAMETOOLONG, Level::DEBUG),
        E::BadHandle { .. } => (Errno::EBADF, Level::WARN),
        E::ReadOnly { .. } => (Errno::EROFS, Level::DEBUG),
        E::NotPermitted { .. } => (Errno::EPERM, Level::DEBUG),
        E::Denied { .. } | E::AwaitingApproval { .. } => (Errno::EACCES, Level::WARN),
        E::Unauthenticated { .. } => (Errno::EACCES, Level::WARN),
        E::Stale { .. } => (Errno::ESTALE, Level::WARN),
        E::TooLarge { .. } => (Errno::EFBIG, Level::WARN),
        E::StagingFull { .. } => (Errno::ENOSPC, Level::WARN),
        E::AttributesFull { .. } => (Errno::ENOSPC, Level::DEBUG),
        E::TooManyLinks { .. } => (Errno::EMLINK, Level::DEBUG),
        E::NoAttr { .. } => (Errno::ENODATA, Level::DEBUG),
        E::Range { .. } => (Errno::ERANGE, Level::DEBUG),
        // not ENOSYS: the kernel would never ask again, for any file
        E::Unsupported { .. } => (Errno::EOPNOTSUPP, Level::DEBUG),
        E::TimedOut { .. } => (Errno::ETIMEDOUT, Level::WARN),
        // not EAGAIN: programs take it for a non-blocking descriptor and spin
        E::Unavailable { .. } => (Errno::EIO, Level::WARN),
        E::Corrupt { .. } => (Errno::EIO, Level::ERROR),
        E::Local { .. } => (Errno::EIO, Level::ERROR),
        // what lseek answers past the end
        E::NoData { .. } => (Errno::ENXIO, Level::DEBUG),
        E::Closing { .. } => (Errno::EIO, Level::DEBUG),
    }
}

/// The errno to answer, after logging the failure once. `ino` is the inode that the
/// request named (the directory, for operations on a name).
pub(super) fn report(operation: &'static str, ino: Ino, error: &VfsError) -> Errno {
    let (errno, level) = table(error);
    let code = errno.code();
    match level {
        Level::ERROR => tracing::error!(operation, ino, code, "{}", error.logged()),
        Level::WARN => tracing::warn!(operation, ino, code, "{}", error.logged()),
        _ => tracing::debug!(operation, ino, code, "{}", error.logged()),
    }
    errno
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
            (E::Range { what: what() }, libc::ERANGE),
            (E::Unsupported { what: what() }, libc::EOPNOTSUPP),
            (E::TimedOut { what: what(), why: why() }, libc::ETIMEDOUT),
            (E::Unavailable { what: what(), why: why() }, libc::EIO),
            (E::Corrupt { what: what(), why: why() }, libc::EIO),
            (E::Local { what: what(), why: why() }, libc::EIO),
            (E::NoData { fh: 3 }, libc::ENXIO),
            (E::Closing { what: what() }, libc::EIO),
        ]
    }

    #[test]
    fn every_error_has_the_errno_of_the_documented_table() {
        for (error, errno) in mirror() {
            assert_eq!(table(&error).0.code(), errno, "{error}");
        }
    }

    #[test]
    fn a_log_that_may_not_hold_names_holds_none() {
        for (error, _) in mirror() {
            let text = error.logged();
            assert!(!text.contains("secret-name"), "{text}");
            assert!(!text.is_empty());
        }
    }
}
