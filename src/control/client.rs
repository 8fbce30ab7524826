//! The command line's end: blocking, one request per connection.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, Progress, Reply, Request, socket_dirs, socket_name};

/// Longest silence of a mount: heartbeats come every half second, but a machine under
/// load may hold them back.
const SILENCE: Duration = Duration::from_secs(60);

/// Why nothing came of a request.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No mount of this program and user is there.
    #[error("{}: not a privicorefs mount of this user", .0.display())]
    NotMounted(PathBuf),
    /// The mount said no.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The socket broke, or nothing came for a long time.
    #[error("the mount does not answer: {0}")]
    Silent(io::Error),
    /// The mount answered something else: another version, most likely.
    #[error("the mount answered what this version does not know")]
    Confused,
}

/// A mount found by its socket.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The socket.
    pub socket: PathBuf,
    /// Its status.
    pub status: serde_json::Value,
}

/// Every mount of this user that answers. Sockets of mounts that are gone are skipped.
pub fn list(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<Listed> {
    let mut found = Vec::new();
    for dir in socket_dirs(env) {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for socket in entries.flatten().map(|entry| entry.path()) {
            if socket.extension().is_none_or(|extension| extension != "sock") {
                continue;
            }
            let answer = Connection::open(&socket).and_then(Connection::status);
            found.extend(answer.ok().map(|status| Listed { socket, status }));
        }
    }
    found
}

/// A connection to one mount.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the mount at `mount_point`, which must be canonical.
    pub fn to_mount(
        mount_point: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ControlError> {
        let name = socket_name(mount_point);
        let mut sockets = socket_dirs(env).into_iter().map(|dir| dir.join(&name));
        sockets
            .find_map(|socket| Self::open(&socket).ok())
            .ok_or_else(|| ControlError::NotMounted(mount_point.to_owned()))
    }

    /// Connects to a socket.
    pub fn open(socket: &Path) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(socket).map_err(ControlError::Silent)?;
        stream.set_read_timeout(Some(SILENCE)).map_err(ControlError::Silent)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Asks for the status.
    pub fn status(mut self) -> Result<serde_json::Value, ControlError> {
        self.send(Request::Status)?;
        match self.receive()? {
            Reply::Status { status } => Ok(status),
            Reply::Failed(failure) => Err(ControlError::Failed(failure)),
            _ => Err(ControlError::Confused),
        }
    }

    /// Asks what waits for a vote.
    pub fn pending(mut self) -> Result<Vec<serde_json::Value>, ControlError> {
        self.send(Request::Pending)?;
        match self.receive()? {
            Reply::Pending { pending } => Ok(pending),
            Reply::Failed(failure) => Err(ControlError::Failed(failure)),
            _ => Err(ControlError::Confused),
        }
    }

    /// Sends `request` and follows its progress to the end.
    pub fn follow(
        mut self,
        request: Request,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), ControlError> {
        self.send(request)?;
        loop {
            match self.receive()? {
                Reply::Progress(now) => progress(now),
                Reply::Done => return Ok(()),
                Reply::Failed(failure) => return Err(ControlError::Failed(failure)),
                Reply::Status { .. } | Reply::Pending { .. } => {
                    return Err(ControlError::Confused);
                }
            }
        }
    }

    fn send(&mut self, request: Request) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(&request).map_err(|_| ControlError::Confused)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).map_err(ControlError::Silent)
    }

    fn receive(&mut self) -> Result<Reply, ControlError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(ControlError::Silent(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line).map_err(|_| ControlError::Confused),
            Err(error) => Err(ControlError::Silent(error)),
        }
    }
}
