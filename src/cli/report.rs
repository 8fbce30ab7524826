//! What the groups of commands say, and read, in common.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use super::Exit;
use super::output::Output;
use crate::privicore::{Strategy, format_rfc3339};
use crate::store::{StoreError, StoreErrorKind};

/// A cell of a table, or a value.
pub(super) fn or_dash(text: Option<impl Into<String>>) -> String {
    text.map_or_else(|| "-".to_owned(), Into::into)
}

/// A time.
pub(super) fn at(time: Option<SystemTime>) -> Option<String> {
    time.map(format_rfc3339)
}

/// A strategy in words.
pub(super) fn strategy(strategy: Option<Strategy>) -> String {
    match strategy {
        Some(Strategy::MinimumPercentage(percentage)) => format!("minimum {percentage} %"),
        other => or_dash(other.map(Strategy::word)),
    }
}

/// Yes or no, where it is known.
pub(super) fn yes_or_no(known: Option<bool>) -> &'static str {
    match known {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
}

/// Names the file in an error about it.
pub(super) fn on_file(path: &Path) -> impl Fn(io::Error) -> anyhow::Error {
    move |error| anyhow::anyhow!("{}: {error}", path.display())
}

/// Reads `NAME=VALUE`; of anything else it says `otherwise`.
pub(super) fn pair(text: &str, otherwise: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(otherwise.to_owned()),
    }
}

/// Says what was done: the value with `--json`, else a line.
pub(super) fn done(output: &Output, json: bool, value: &Value, line: &str) -> anyhow::Result<Exit> {
    if json {
        output.json(value)?;
    } else {
        output.line(line)?;
    }
    Ok(Exit::Done)
}

/// The same error, with what to do about it where that is known.
pub(super) fn advised(error: anyhow::Error) -> anyhow::Error {
    let Some(found) = error.downcast_ref::<StoreError>() else { return error };
    match advice(found) {
        Some(advice) => anyhow::anyhow!("{found}; {advice}"),
        None => error,
    }
}

fn advice(error: &StoreError) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| error.message.contains(word));
    if says(&["device.not_approved", "device is not approved"]) {
        return Some("approve it first: `privicorefs device approve`");
    }
    if says(&["device.already_reviewed", "approved or rejected already"]) {
        return Some("a decision is final: remove the device, and request another");
    }
    if says(&["policy.no_authenticator", "no authenticator to vote"]) {
        return Some("register one: `privicorefs authenticator register`");
    }
    if says(&["voting_configuration.in_use", "used by a policy"]) {
        return Some("delete that policy first: `privicorefs policy list` shows it");
    }
    if says(&["policy.rejected"]) {
        return Some("the authenticators have voted against it");
    }
    if says(&["policy.timed_out"]) {
        return Some("the authenticators have not voted in time");
    }
    match error.kind {
        StoreErrorKind::NotFound if says(&["no such request"]) => {
            Some("`privicorefs device list` shows the devices that were made")
        }
        StoreErrorKind::NotFound if says(&["no such device"]) => {
            Some("`privicorefs device list` shows those that are there")
        }
        StoreErrorKind::NotFound if says(&["no such voting configuration"]) => {
            Some("`privicorefs voting configuration list` shows those that are there")
        }
        StoreErrorKind::NotFound if says(&["no such policy"]) => {
            Some("`privicorefs policy list` shows those that are there")
        }
        StoreErrorKind::NotFound if says(&["no such voting pool"]) => {
            Some("`privicorefs voting list --all` shows those that are there")
        }
        StoreErrorKind::TimedOut if error.operation == "approve device" => {
            Some("a policy may hold it for a vote: `privicorefs voting list` shows that")
        }
        StoreErrorKind::AwaitingApproval => {
            Some("it is carried out once it is approved: `privicorefs voting list` shows the vote")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_added_to_what_was_said_and_other_errors_stay() {
        let kind = StoreErrorKind::NotFound;
        let error = StoreError::new(kind, "reject device", "the profile has no such device");
        let said = advised(error.on("d").into()).to_string();
        assert!(said.starts_with("reject device d: the profile has no such device; `"), "{said}");
        let other = StoreError::new(StoreErrorKind::Unavailable, "x", "no reply");
        assert!(advised(other.into()).downcast_ref::<StoreError>().is_some());
        assert_eq!(advised(anyhow::anyhow!("odd")).to_string(), "odd");
    }
}
