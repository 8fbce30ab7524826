//! `mount`.

use std::ffi::OsString;
use std::io;

use super::args::MountArgs;
use super::output::Output;
use super::{Exit, environment};
use crate::config;
use crate::env::Env;
use crate::mount::{self, Announcement, Ended, MountConfig};
use crate::telemetry::{self, LogTo};

/// Mounts: in this process, or in one in the background.
pub(super) fn run(args: MountArgs, output: &Output) -> anyhow::Result<Exit> {
    let MountArgs { mount_point, layer, config, foreground, json, background_child } = args;
    let resolved = config::resolve(&mount_point, layer, config.as_deref(), &environment);
    if background_child {
        return background(resolved?);
    }
    let config = resolved?;
    if foreground {
        telemetry::init(config.log_level, LogTo::Stream);
        let ended = mount::serve(&config, Env::system(), |ready| say(ready, json, output))?;
        return Ok(exit_of(ended));
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.push("--background-child".into());
    let ready = mount::spawn(&config, arguments)?;
    say(&ready, json, output)?;
    Ok(Exit::Done)
}

/// The process in the background: standard output is the pipe to the parent, standard
/// error the log.
fn background(config: MountConfig) -> anyhow::Result<Exit> {
    telemetry::init(config.log_level, LogTo::StateFile);
    let mut pipe = io::stdout();
    let served = mount::become_daemon().and_then(|()| {
        mount::serve(&config, Env::system(), |ready| {
            mount::announce_ready(&mut io::stdout(), ready)
        })
    });
    match served {
        Ok(ended) => Ok(exit_of(ended)),
        Err(error) => {
            tracing::error!("{error}");
            // no parent listens any more once the mount was ready: the log has it
            let _ = mount::announce_failure(&mut pipe, &error.to_string());
            Ok(Exit::Failed)
        }
    }
}

fn exit_of(ended: Ended) -> Exit {
    if ended.left.is_done() { Exit::Done } else { Exit::Incomplete }
}

fn say(ready: &Announcement, json: bool, output: &Output) -> io::Result<()> {
    if json {
        output.json(ready)
    } else {
        output.line(&format!("mounted {} (pid {})", ready.mountpoint, ready.pid))
    }
}
