//! `engine`: the embedded engine by itself.

use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::args::EngineArgs;
use super::output::Output;
use crate::engine::{Engine, EngineConfig};
use crate::env::Env;
use crate::telemetry::{self, LogLevel, LogTo};

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: &EngineArgs, output: &Output) -> anyhow::Result<Exit> {
    telemetry::init(LogLevel::Info, LogTo::Stream);
    let mut config = EngineConfig::new(&args.dir);
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
