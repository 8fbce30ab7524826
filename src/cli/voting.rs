//! `voting`: voting configurations (protocol C.7) and voting pools (C.9).

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Exit;
use super::authenticator::Word;
use super::output::{List, Output};
use super::report::{advised, at, done, or_dash, strategy};
use super::session::{self, Plain};
use crate::privicore::{
    NewVotingConfiguration, NewVotingPool, Strategy, Vote, VotingConfiguration,
    VotingConfigurationChange, VotingPool,
};

const OPEN: &str = "open";

#[derive(Debug, Subcommand)]
pub(super) enum VotingCommand {
    /// List the pools that are open: what waits for votes
    List {
        /// List settled ones too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Show a pool and its ballots
    Show(OnePool),
    /// Open a pool, and print its id
    ///
    /// The devices that it asks are told. Policies open pools by themselves.
    Create {
        /// What the voters are asked
        #[arg(value_name = "QUESTION")]
        question: String,
        /// A voting configuration, by name or id
        #[arg(long, value_name = "NAME")]
        configuration: String,
        /// What the voters see first
        #[arg(long, value_name = "TEXT")]
        title: String,
        /// An authenticator that is not asked; can be given several times
        #[arg(long, value_name = "DEVICE")]
        skip: Vec<String>,
        /// A text that goes with the pool
        #[arg(long, value_name = "TEXT")]
        nonce: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// End an open pool without a decision; what it holds is refused
    Cancel(OnePool),
    /// Who votes, how and for how long
    #[command(subcommand)]
    Configuration(ConfigurationCommand),
}

#[derive(Args, Debug)]
pub(super) struct OnePool {
    /// The pool's id
    #[arg(value_name = "POOL")]
    pool: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigurationCommand {
    /// Register a voting configuration
    Register {
        /// Its name, which no other has
        #[arg(value_name = "NAME")]
        name: String,
        /// How votes decide
        #[arg(long, value_name = "STRATEGY")]
        strategy: Word,
        /// How many percent must approve, with the strategy minimum_percentage
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
        percentage: Option<u8>,
        /// How long a vote is open, in seconds
        #[arg(long, value_name = "SECS")]
        time_limit: u64,
        /// An authenticator that is asked; can be given several times [default: all]
        #[arg(long = "device", value_name = "DEVICE")]
        devices: Vec<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Change a voting configuration; what is not given stays
    Update {
        /// Its name or id
        #[arg(value_name = "NAME")]
        wanted: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        plain: Plain,
    },
    /// List the voting configurations
    List(Plain),
    /// Show a voting configuration
    Show(OneConfiguration),
    /// Delete a voting configuration that no policy uses
    Delete(OneConfiguration),
}

#[derive(Args, Debug)]
pub(super) struct OneConfiguration {
    /// Its name or id
    #[arg(value_name = "NAME")]
    wanted: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// Another name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How votes decide
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<Word>,
    /// How many percent must approve, with the strategy minimum_percentage
    #[arg(long, value_name = "N", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage: Option<u8>,
    /// How long a vote is open, in seconds
    #[arg(long, value_name = "SECS")]
    time_limit: Option<u64>,
    /// An authenticator that is asked; can be given several times
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Ask all authenticators
    #[arg(long, conflicts_with = "devices")]
    all_devices: bool,
}

/// Runs a command of the group.
pub(super) fn run(command: VotingCommand, output: &Output) -> anyhow::Result<Exit> {
    let result = match command {
        VotingCommand::List { all, plain } => list(all, &plain, output),
        VotingCommand::Show(one) => show(&one, output),
        VotingCommand::Create { question, configuration, title, skip, nonce, plain } => {
            create(&NewVotingPool { configuration, title, question, skip, nonce }, &plain, output)
        }
        VotingCommand::Cancel(one) => cancel(&one, output),
        VotingCommand::Configuration(command) => configuration(command, output),
    };
    result.map_err(advised)
}

fn list(all: bool, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let status = (!all).then_some(OPEN);
        let pools = session.client.voting_pools(status).await?;
        let columns = &["POOL", "STATUS", "VOTES", "EXPIRES", "QUESTION"];
        let mut list = List::new(output, columns, plain.json);
        list.add(&pools, pool_value, pool_row)?;
        list.end(if all { "no pool" } else { "no open pool: nothing waits for votes" })?;
        Ok(Exit::Done)
    })
}

fn show(one: &OnePool, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let pool = session.client.voting_pool(&one.pool).await?;
        say_pool(&pool, one.plain.json, output)
    })
}

/// Everything that is known of a pool.
pub(super) fn say_pool(pool: &VotingPool, json: bool, output: &Output) -> anyhow::Result<Exit> {
    if json {
        output.json(&pool_value(pool))?;
        return Ok(Exit::Done);
    }
    output.pairs(&[
        ("pool", pool.id.clone()),
        ("status", or_dash(pool.status.clone())),
        ("title", or_dash(pool.title.clone())),
        ("question", or_dash(pool.question.clone())),
        ("policy", or_dash(pool.policy.clone())),
        ("event", or_dash(pool.event.clone())),
        ("token", or_dash(pool.token.clone())),
        ("device", or_dash(pool.device.clone())),
        ("strategy", strategy(pool.strategy)),
        ("created", or_dash(at(pool.created))),
        ("expires", or_dash(at(pool.expires))),
    ])?;
    for ballot in &pool.ballots {
        let vote = or_dash(ballot.vote.map(Vote::word));
        let name = ballot.name.as_deref().unwrap_or_default();
        output.line(format!("ballot    {vote:7}  {}  {name}", ballot.device).trim_end())?;
    }
    Ok(Exit::Done)
}

fn create(new: &NewVotingPool, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let pool = session.client.create_voting_pool(new).await?;
        done(output, plain.json, &json!({ "pool": pool }), &pool)
    })
}

fn cancel(one: &OnePool, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        session.client.cancel_voting_pool(&one.pool).await?;
        let value = json!({ "pool": one.pool, "done": "cancelled" });
        done(output, one.plain.json, &value, &format!("cancelled {}", one.pool))
    })
}

fn pool_value(pool: &VotingPool) -> Value {
    let ballots = pool.ballots.iter().map(|ballot| {
        let vote = ballot.vote.map(Vote::word);
        json!({ "device": ballot.device, "name": ballot.name, "vote": vote })
    });
    json!({
        "pool": pool.id, "status": pool.status, "title": pool.title,
        "question": pool.question, "policy": pool.policy, "event": pool.event,
        "token": pool.token, "device": pool.device,
        "strategy": pool.strategy.map(Strategy::word),
        "percentage": pool.strategy.and_then(Strategy::percentage),
        "created_at": at(pool.created), "expires_at": at(pool.expires),
        "ballots": ballots.collect::<Vec<_>>(),
    })
}

fn pool_row(pool: &VotingPool) -> Vec<String> {
    let cast = pool.ballots.iter().filter(|ballot| ballot.vote.is_some()).count();
    vec![
        pool.id.clone(),
        or_dash(pool.status.clone()),
        format!("{cast}/{}", pool.ballots.len()),
        or_dash(at(pool.expires)),
        or_dash(pool.question.clone()),
    ]
}

fn configuration(command: ConfigurationCommand, output: &Output) -> anyhow::Result<Exit> {
    match command {
        ConfigurationCommand::Register {
            name,
            strategy,
            percentage,
            time_limit,
            devices,
            plain,
        } => {
            let strategy = strategy.with(percentage)?;
            let new = NewVotingConfiguration { name, strategy, time_limit, devices };
            register(&new, &plain, output)
        }
        ConfigurationCommand::Update { wanted, change, plain } => {
            update(&wanted, change, &plain, output)
        }
        ConfigurationCommand::List(plain) => list_configurations(&plain, output),
        ConfigurationCommand::Show(one) => show_configuration(&one, output),
        ConfigurationCommand::Delete(one) => delete(&one, output),
    }
}

fn register(new: &NewVotingConfiguration, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let made = session.client.register_voting_configuration(new).await?;
        let id = made.and_then(|made| made.id);
        let value = json!({ "name": new.name, "configuration": id, "done": "registered" });
        done(output, plain.json, &value, &format!("registered {}", new.name))
    })
}

fn update(wanted: &str, change: Change, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let named = (change.all_devices || !change.devices.is_empty()).then_some(change.devices);
    let change = VotingConfigurationChange {
        strategy: change.strategy.map(|word| word.with(change.percentage)).transpose()?,
        name: change.name,
        time_limit: change.time_limit,
        devices: named,
    };
    session::with(&plain.connect, async |session| {
        session.client.update_voting_configuration(wanted, &change).await?;
        let value = json!({ "configuration": wanted, "done": "changed" });
        done(output, plain.json, &value, &format!("changed {wanted}"))
    })
}

fn list_configurations(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.voting_configurations().await?;
        let columns = &["NAME", "STRATEGY", "SECONDS", "DEVICES", "ID"];
        let mut list = List::new(output, columns, plain.json);
        list.add(&found, configuration_value, |one| {
            vec![
                one.name.clone(),
                strategy(one.strategy),
                or_dash(one.time_limit.map(|seconds| seconds.to_string())),
                asked(one),
                or_dash(one.id.clone()),
            ]
        })?;
        list.end("no voting configuration")?;
        Ok(Exit::Done)
    })
}

fn asked(one: &VotingConfiguration) -> String {
    match one.devices.len() {
        0 => "all".to_owned(),
        count => count.to_string(),
    }
}

fn show_configuration(one: &OneConfiguration, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let found = session.client.voting_configuration(&one.wanted).await?;
        if one.plain.json {
            output.json(&configuration_value(&found))?;
            return Ok(Exit::Done);
        }
        let devices = match found.devices.is_empty() {
            true => "all authenticators".to_owned(),
            false => found.devices.join(" "),
        };
        output.pairs(&[
            ("name", found.name),
            ("id", or_dash(found.id)),
            ("strategy", strategy(found.strategy)),
            ("time limit", or_dash(found.time_limit.map(|seconds| format!("{seconds} s")))),
            ("devices", devices),
            ("created", or_dash(at(found.created))),
        ])?;
        Ok(Exit::Done)
    })
}

fn configuration_value(one: &VotingConfiguration) -> Value {
    json!({
        "configuration": one.id, "name": one.name,
        "strategy": one.strategy.map(Strategy::word),
        "percentage": one.strategy.and_then(Strategy::percentage),
        "time_limit": one.time_limit, "devices": one.devices, "created_at": at(one.created),
    })
}

fn delete(one: &OneConfiguration, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        session.client.delete_voting_configuration(&one.wanted).await?;
        let value = json!({ "configuration": one.wanted, "done": "deleted" });
        done(output, one.plain.json, &value, &format!("deleted {}", one.wanted))
    })
}
