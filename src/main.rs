//! The `privicorefs` command: everything is in the library's `cli` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    privicorefs::cli::run()
}
