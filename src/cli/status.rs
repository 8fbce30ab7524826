//! `status [MOUNTPOINT]`.

use serde_json::Value;

use super::args::StatusArgs;
use super::drain::settled;
use super::output::Output;
use super::{Exit, environment};
use crate::config::Size;
use crate::control::{self, Connection};

/// Shows one mount, or all of this user's.
pub(super) fn run(args: &StatusArgs, output: &Output) -> anyhow::Result<Exit> {
    if let Some(path) = &args.mount_point {
        let status = Connection::to_mount(&settled(path)?, &environment)?.status()?;
        if args.json {
            output.json(&status)?
        } else {
            show(&status, output)?
        }
        return Ok(Exit::Done);
    }
    let mut all: Vec<Value> =
        control::list(&environment).into_iter().map(|listed| listed.status).collect();
    all.sort_by(|a, b| a["mountpoint"].as_str().cmp(&b["mountpoint"].as_str()));
    if args.json {
        output.json(&all)?;
    } else if all.is_empty() {
        output.note("nothing is mounted");
    } else {
        all.iter().try_for_each(|status| show(status, output))?;
    }
    Ok(Exit::Done)
}

/// One mount, as a few lines.
fn show(status: &Value, output: &Output) -> std::io::Result<()> {
    for line in lines(status) {
        output.line(&line)?;
    }
    Ok(())
}

fn lines(status: &Value) -> Vec<String> {
    let text = |name: &str| status[name].as_str().unwrap_or("?").to_owned();
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    let size = |name: &str| Size(number(name));
    let connected = if status["connected"] == true { "connected" } else { "not connected" };
    let mut lines = vec![
        format!("{}  {} (pid {})", text("mountpoint"), text("state"), number("pid")),
        format!("  service    {connected} to {}", text("api_url")),
        format!(
            "  to go      {} files ({}), {} uploading, {} catalog records",
            number("dirty_files"),
            size("dirty_bytes"),
            number("uploading"),
            number("pending_records"),
        ),
        format!("  vault      {} files, catalog {}", number("files"), text("catalog")),
        format!("  cache      {} of {}", size("cache_bytes"), size("cache_limit")),
        format!("  traffic    {} up, {} down", size("uploaded_bytes"), size("downloaded_bytes")),
    ];
    if let Some(trouble) = status["login"].as_str().filter(|login| *login != "ok") {
        lines.insert(2, format!("  login      {trouble}"));
    }
    for failed in status["failed"].as_array().into_iter().flatten() {
        let (path, reason) = (failed["path"].as_str(), failed["reason"].as_str());
        lines.push(format!("  failed     {}: {}", path.unwrap_or("?"), reason.unwrap_or("?")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_in_lines() {
        let status = serde_json::json!({
            "mountpoint": "/mnt/x", "pid": 7, "state": "serving", "api_url": "http://x/",
            "connected": true, "login": "ok", "dirty_files": 2, "dirty_bytes": 2048, "uploading": 1,
            "pending_records": 3, "failed": [{"path": "a\nb", "reason": "no"}],
            "cache_bytes": 1024, "cache_limit": 1 << 30, "files": 9, "uploaded_bytes": 0,
            "downloaded_bytes": 0, "catalog": "ok",
        });
        let mut refused = status.clone();
        refused["login"] = "refused: do this".into();
        assert_eq!(lines(&refused)[2], "  login      refused: do this");
        let lines = lines(&status);
        assert_eq!(lines[0], "/mnt/x  serving (pid 7)");
        assert!(lines[2].contains("2 files (2KiB), 1 uploading, 3 catalog records"), "{lines:?}");
        assert!(lines.last().unwrap().contains("no"), "{lines:?}");
    }

    #[test]
    fn a_status_of_another_version_is_shown_as_far_as_it_goes() {
        assert!(lines(&serde_json::json!({"mountpoint": "/mnt/x"}))[0].contains("/mnt/x"));
    }
}
