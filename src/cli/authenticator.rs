//! `authenticator`: the devices that vote, and how their votes decide (protocol C.7).

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Exit;
use super::device::{self, OneDevice};
use super::output::Output;
use super::report::{advised, done, or_dash, strategy};
use super::session::{self, Plain};
use crate::config::ConfigError;
use crate::privicore::{Strategy, VotingRules};

#[derive(Debug, Subcommand)]
pub(super) enum AuthenticatorCommand {
    /// Let an approved device vote
    Register(OneDevice),
    /// List the devices that vote
    List(Plain),
    /// Take its vote from a device, which stays registered
    Remove(OneDevice),
    /// How votes decide where a policy names no voting configuration
    #[command(subcommand)]
    Rules(RulesCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Show them
    Show(Plain),
    /// Change them; what is not given stays
    Set {
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Rules {
    /// How votes decide
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<Word>,
    /// How many percent must approve, with the strategy minimum_percentage
    #[arg(long, value_name = "N", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage: Option<u8>,
    /// The fewest approvals that are needed in any case
    #[arg(long, value_name = "N")]
    quorum_size: Option<u64>,
    /// How long a vote is open, in seconds
    #[arg(long, value_name = "SECS")]
    time_limit: Option<u64>,
    /// How often a device may vote in one pool at most
    #[arg(long, value_name = "N")]
    attempts: Option<u64>,
}

/// A strategy by its word on the wire.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Word {
    /// All must approve
    Unanimous,
    /// More than half must approve
    Consensus,
    /// One approval is enough
    Affirmative,
    /// As many percent as --percentage says must approve
    MinimumPercentage,
}

impl Word {
    /// The strategy, with the percentage that goes with one of them only.
    pub(super) fn with(self, percentage: Option<u8>) -> Result<Strategy, ConfigError> {
        let plain = match self {
            Self::MinimumPercentage => {
                let hint = "--percentage, which the strategy minimum_percentage needs";
                let missing = ConfigError::Missing { what: "the percentage", hint };
                return percentage.map(Strategy::MinimumPercentage).ok_or(missing);
            }
            Self::Unanimous => Strategy::Unanimous,
            Self::Consensus => Strategy::Consensus,
            Self::Affirmative => Strategy::Affirmative,
        };
        match percentage {
            None => Ok(plain),
            Some(_) => {
                let why = "goes with --strategy minimum_percentage only".to_owned();
                Err(ConfigError::Invalid { what: "--percentage", why })
            }
        }
    }
}

/// Runs a command of the group.
pub(super) fn run(command: AuthenticatorCommand, output: &Output) -> anyhow::Result<Exit> {
    let result = match command {
        AuthenticatorCommand::Register(one) => change(&one, true, output),
        AuthenticatorCommand::List(plain) => list(&plain, output),
        AuthenticatorCommand::Remove(one) => change(&one, false, output),
        AuthenticatorCommand::Rules(RulesCommand::Show(plain)) => show(&plain, output),
        AuthenticatorCommand::Rules(RulesCommand::Set { rules, plain }) => {
            set(&rules, &plain, output)
        }
    };
    result.map_err(advised)
}

fn change(one: &OneDevice, votes: bool, output: &Output) -> anyhow::Result<Exit> {
    let OneDevice { device, plain } = one;
    session::with(&plain.connect, async |session| {
        let client = &session.client;
        let said = match votes {
            true => client.register_authenticator(device).await.map(|()| "registered"),
            false => client.remove_authenticator(device).await.map(|()| "removed"),
        }?;
        let value = json!({ "device": device, "done": said });
        done(output, plain.json, &value, &format!("{said} {device}"))
    })
}

fn list(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.authenticators().await?;
        device::show(&found, plain, "no authenticator: nobody can vote", output)
    })
}

fn show(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        say(&session.client.voting_rules().await?, plain, output)
    })
}

fn set(rules: &Rules, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let wanted = rules.strategy.map(|word| word.with(rules.percentage)).transpose()?;
    session::with(&plain.connect, async |session| {
        let client = &session.client;
        if let Some(strategy) = wanted {
            client.set_quorum_strategy(strategy).await?;
        }
        if let Some(size) = rules.quorum_size {
            client.set_quorum_size(size).await?;
        }
        if let Some(seconds) = rules.time_limit {
            client.set_voting_time_limit(seconds).await?;
        }
        if let Some(attempts) = rules.attempts {
            client.set_voting_attempts(attempts).await?;
        }
        done(output, plain.json, &json!({ "changed": true }), "changed")
    })
}

fn say(rules: &VotingRules, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    if plain.json {
        output.json(&value(rules))?;
        return Ok(Exit::Done);
    }
    let number = |number: Option<u64>| or_dash(number.map(|number| number.to_string()));
    let seconds = rules.time_limit.map(|seconds| format!("{seconds} s"));
    output.pairs(&[
        ("strategy", strategy(rules.strategy)),
        ("quorum size", number(rules.quorum_size)),
        ("time limit", or_dash(seconds)),
        ("attempts", number(rules.attempts)),
    ])?;
    Ok(Exit::Done)
}

fn value(rules: &VotingRules) -> Value {
    json!({
        "strategy": rules.strategy.map(Strategy::word),
        "percentage": rules.strategy.and_then(Strategy::percentage),
        "quorum_size": rules.quorum_size, "time_limit": rules.time_limit,
        "attempts": rules.attempts,
    })
}
