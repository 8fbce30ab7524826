//! Files that hold a secret: mode 0600 from the first byte, whole or not at all, and on disk
//! once they are written.
//!
//! Each is opened before its content is asked for, so that a secret which is given once only
//! is not lost to a path that cannot be written.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is to be made. Until it is written it is empty; dropped, it is gone.
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl NewFile {
    /// Makes the file; `AlreadyExists` if there is one, which stays as it is.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, written: false })
    }

    /// Writes the content.
    pub(super) fn write(mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)?;
        self.file.sync_all()?;
        self.written = true;
        sync_folder(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that is to take another one's place.
pub(super) struct Replacement {
    path: PathBuf,
    beside: PathBuf,
    file: NewFile,
}

impl Replacement {
    /// Prepares it beside its place.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(path.file_name().unwrap_or_default());
        name.push(format!(".new-{}", std::process::id()));
        let beside = path.with_file_name(name);
        // left by a process that was killed
        let _ = fs::remove_file(&beside);
        let file = NewFile::create(&beside)?;
        Ok(Self { path: path.to_owned(), beside, file })
    }

    /// Writes the content, and puts it in its place.
    pub(super) fn write(self, content: &[u8]) -> io::Result<()> {
        self.file.write(content)?;
        fs::rename(&self.beside, &self.path).inspect_err(|_| {
            let _ = fs::remove_file(&self.beside);
        })?;
        sync_folder(&self.path)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_once_and_only_with_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists(), "nothing was written");
        NewFile::create(&path).unwrap().write(b"one").unwrap();
        let again = NewFile::create(&path).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(Replacement::of(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        Replacement::of(&path).unwrap().write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
