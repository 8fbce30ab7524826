//! The process in the background.
//!
//! A process that has threads must not fork, so the command starts itself anew: the same
//! arguments and one hidden flag, standard output a pipe to the parent, standard error the
//! log. The child leaves the terminal's session, mounts, and writes one line of JSON to
//! the pipe: ready, or why not. The parent waits for that line (the child's own deadlines
//! bound it), or for the pipe's end, which a child that died leaves behind. A parent that
//! is gone by then makes the child's line fail, and the child unmounts again.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::MountError;
use super::backend::Vault;
use super::config::MountConfig;
use super::local::open_log;

/// Longest line that a parent takes.
const MAX_LINE: u64 = 64 << 10;

/// What `mount` prints once the mount answers. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Where; canonical.
    pub mountpoint: String,
    /// The serving process.
    pub pid: u32,
    /// The API in use.
    pub api_url: String,
    /// The WebSocket in use.
    pub ws_url: String,
    /// Journal, staging, log.
    pub state_dir: String,
    /// Cache.
    pub cache_dir: String,
}

impl Announcement {
    pub(super) fn new(config: &MountConfig, vault: &Vault) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            mountpoint: text(&config.mount_point),
            pid: std::process::id(),
            api_url: vault.api_url.to_string(),
            ws_url: vault.ws_url.to_string(),
            state_dir: text(&config.state_dir),
            cache_dir: text(&config.cache_dir),
        }
    }
}

/// The line from child to parent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ready(Announcement),
    Failed(String),
}

/// Starts this program again in the background with `arguments`, and waits until its
/// mount answers.
pub fn spawn(
    config: &MountConfig,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Announcement, MountError> {
    let failed = |error: io::Error| MountError::Daemon(format!("cannot start: {error}"));
    let (log, log_path) = open_log(&config.state_dir)?;
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let said = child.stdout.take().map(read_word);
    match said {
        Some(Ok(Some(Word::Ready(announcement)))) => Ok(announcement),
        Some(Ok(Some(Word::Failed(message)))) => {
            // it says so last, and ends: leave no zombie, and nothing behind
            let _ = child.wait();
            Err(MountError::Daemon(message))
        }
        Some(Ok(None) | Err(_)) | None => {
            let _ = child.kill();
            let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
            let log = log_path.display();
            let message = format!("the mount's process ended without a word ({status}); see {log}");
            Err(MountError::Daemon(message))
        }
    }
}

fn read_word(pipe: impl Read) -> io::Result<Option<Word>> {
    let mut line = String::new();
    BufReader::new(pipe.take(MAX_LINE)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line).ok())
}

/// The child's first act: leaves the terminal, and any folder that it would keep busy.
pub fn become_daemon() -> Result<(), MountError> {
    // a process group leader already has left; nobody else fails here
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "setsid");
    }
    std::env::set_current_dir("/").map_err(MountError::Runtime)
}

/// Tells the parent that the mount answers.
pub fn announce_ready(pipe: &mut dyn Write, announcement: &Announcement) -> io::Result<()> {
    say(pipe, &Word::Ready(announcement.clone()))
}

/// Tells the parent why there is no mount.
pub fn announce_failure(pipe: &mut dyn Write, message: &str) -> io::Result<()> {
    say(pipe, &Word::Failed(message.to_owned()))
}

fn say(pipe: &mut dyn Write, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    pipe.write_all(&line)?;
    pipe.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            mountpoint: "/mnt/with\nnewline".to_owned(),
            pid: 7,
            api_url: "http://127.0.0.1:1/".to_owned(),
            ws_url: "ws://127.0.0.1:1/".to_owned(),
            state_dir: "/s".to_owned(),
            cache_dir: "/c".to_owned(),
        }
    }

    #[test]
    fn a_parent_reads_what_its_child_says() {
        let mut pipe = Vec::new();
        announce_ready(&mut pipe, &announcement()).unwrap();
        match read_word(&pipe[..]).unwrap() {
            Some(Word::Ready(read)) => assert_eq!(read, announcement()),
            _ => panic!("not ready"),
        }
        let mut pipe = Vec::new();
        announce_failure(&mut pipe, "no\nsuch luck").unwrap();
        match read_word(&pipe[..]).unwrap() {
            Some(Word::Failed(message)) => assert_eq!(message, "no\nsuch luck"),
            _ => panic!("no failure"),
        }
    }

    #[test]
    fn a_child_that_died_says_nothing() {
        assert!(read_word(&b""[..]).unwrap().is_none());
        assert!(read_word(&b"{\"rea"[..]).unwrap().is_none());
    }
}
