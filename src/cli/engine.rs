//! `engine`: the embedded engine by itself, and `engine vote`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::args::{EngineArgs, EngineCommand};
use super::ballot;
use super::output::Output;
use crate::config::ConfigError;
use crate::engine::{Engine, EngineConfig};
use crate::env::Env;
use crate::telemetry::{self, LogLevel, LogTo};

/// Runs the command.
pub(super) fn run(args: &EngineArgs, output: &Output) -> anyhow::Result<Exit> {
    match (&args.command, &args.dir) {
        (Some(EngineCommand::Vote(vote)), _) => ballot::run(vote, output),
        (None, Some(dir)) => serve(dir, args, output),
        (None, None) => Err(ConfigError::Missing { what: "the folder", hint: "--dir" }.into()),
    }
}

/// Serves until SIGINT or SIGTERM.
fn serve(dir: &Path, args: &EngineArgs, output: &Output) -> anyhow::Result<Exit> {
    telemetry::init(LogLevel::Info, LogTo::Stream);
    let mut config = EngineConfig::new(dir);
    config.listen = args.listen;
    config.latency = Duration::from_millis(args.latency_ms);
    config.test_controls = args.test_controls;
    config.allow_remote = args.allow_remote;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let engine = Engine::start(config, Env::system()).await?;
        let said = say(&engine, args.json, output);
        if said.is_ok() {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        engine.shutdown().await;
        said?;
        Ok(Exit::Done)
    })
}

fn say(engine: &Engine, json: bool, output: &Output) -> std::io::Result<()> {
    if json {
        output.json(&json!({
            "api_url": engine.api_url(),
            "ws_url": engine.ws_url(),
            "upstream_url": engine.upstream_url(),
            "downstream_url": engine.downstream_url(),
            "pid": std::process::id(),
        }))
    } else {
        output.line(&format!("engine listening on {}", engine.api_url()))
    }
}
