//! `policy`: which operations wait for a vote (protocol C.8).

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Exit;
use super::output::{List, Output};
use super::report::{advised, at, done, or_dash, pair, yes_or_no};
use super::session::{self, Plain, Session};
use crate::privicore::{NewPolicy, Policy, PolicyTemplate};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// List the templates that policies are made of
    Templates(Plain),
    /// Register a policy; it is inactive until `policy activate`
    Register(RegisterArgs),
    /// List the policies
    List {
        /// Only those in force
        #[arg(long)]
        active: bool,
        /// Only those not in force
        #[arg(long, conflicts_with = "active")]
        inactive: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Show a policy
    Show(OnePolicy),
    /// Put a policy in force
    Activate(OnePolicy),
    /// Take a policy out of force; what waits for a vote already waits on
    Deactivate(OnePolicy),
    /// Delete a policy
    Delete(OnePolicy),
}

#[derive(Args, Debug)]
pub(super) struct RegisterArgs {
    /// Its name, which no other has
    #[arg(value_name = "NAME")]
    name: String,
    /// The template's id
    #[arg(long, value_name = "ID")]
    template: String,
    /// An event of the template; can be given several times [default: all of them]
    #[arg(long = "event", value_name = "ID")]
    events: Vec<String>,
    /// What the risk meta must say: `classification=secret`; can be given several times
    ///
    /// The template says which members there are. `*` stands for anything.
    #[arg(long = "match", value_name = "MEMBER=TEXT", required = true, value_parser = member)]
    matches: Vec<(String, String)>,
    /// A voting configuration, by name or id [default: the rules of `authenticator rules`]
    #[arg(long, value_name = "NAME")]
    voting: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct OnePolicy {
    /// Its name or id
    #[arg(value_name = "POLICY")]
    policy: String,
    #[command(flatten)]
    plain: Plain,
}

fn member(text: &str) -> Result<(String, String), String> {
    pair(text, "not of the form MEMBER=TEXT")
}

/// Runs a command of the group.
pub(super) fn run(command: PolicyCommand, output: &Output) -> anyhow::Result<Exit> {
    let result = match command {
        PolicyCommand::Templates(plain) => templates(&plain, output),
        PolicyCommand::Register(args) => register(args, output),
        PolicyCommand::List { active, inactive, plain } => {
            let wanted = match (active, inactive) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            };
            list(wanted, &plain, output)
        }
        PolicyCommand::Show(one) => show(&one, output),
        PolicyCommand::Activate(one) => change(&one, Change::Activate, output),
        PolicyCommand::Deactivate(one) => change(&one, Change::Deactivate, output),
        PolicyCommand::Delete(one) => change(&one, Change::Delete, output),
    };
    result.map_err(advised)
}

fn templates(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.policy_templates().await?;
        let columns = &["TEMPLATE", "EVENTS", "MATCHES", "DESCRIPTION"];
        let mut list = List::new(output, columns, plain.json);
        list.add(&found, template_value, |template| {
            let events: Vec<_> = template.events.iter().map(|event| event.id.as_str()).collect();
            let said = template.description.clone().unwrap_or_else(|| template.name.clone());
            vec![template.id.clone(), events.join(","), template.configuration.join(","), said]
        })?;
        list.end("no template")?;
        Ok(Exit::Done)
    })
}

fn template_value(template: &PolicyTemplate) -> Value {
    let events = template
        .events
        .iter()
        .map(|event| json!({ "event": event.id, "name": event.name, "title": event.title }));
    json!({
        "template": template.id, "name": template.name, "description": template.description,
        "events": events.collect::<Vec<_>>(), "matches": template.configuration,
    })
}

fn register(args: RegisterArgs, output: &Output) -> anyhow::Result<Exit> {
    let RegisterArgs { name, template, events, matches, voting, plain } = args;
    session::with(&plain.connect, async |session| {
        let events = match events.is_empty() {
            true => events_of(session, &template).await?,
            false => events,
        };
        let configuration: BTreeMap<_, _> = matches.into_iter().collect();
        let new = NewPolicy { name, template, events, configuration, voting };
        let made = session.client.register_policy(&new).await?;
        let id = made.map(|made| made.id);
        let value = json!({ "policy": id, "name": new.name, "done": "registered" });
        done(output, plain.json, &value, &format!("registered {}", new.name))
    })
}

/// Every event of a template.
async fn events_of(session: &Session, template: &str) -> anyhow::Result<Vec<String>> {
    let found = session.client.policy_templates().await?;
    let Some(found) = found.into_iter().find(|found| found.id == template) else {
        anyhow::bail!("no such template: {template}; `privicorefs policy templates` lists them");
    };
    Ok(found.events.into_iter().map(|event| event.id).collect())
}

fn list(active: Option<bool>, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.policies(active).await?;
        let columns = &["NAME", "ACTIVE", "TEMPLATE", "EVENTS", "ID"];
        let mut list = List::new(output, columns, plain.json);
        list.add(&found, value, |policy| {
            vec![
                or_dash(policy.name.clone()),
                yes_or_no(policy.active).to_owned(),
                or_dash(policy.template.clone()),
                policy.events.join(","),
                policy.id.clone(),
            ]
        })?;
        list.end(match active {
            None => "no policy: nothing waits for a vote",
            Some(true) => "no policy is in force: nothing waits for a vote",
            Some(false) => "no policy that is not in force",
        })?;
        Ok(Exit::Done)
    })
}

fn value(policy: &Policy) -> Value {
    json!({
        "policy": policy.id, "name": policy.name, "template": policy.template,
        "events": policy.events, "matches": policy.configuration, "voting": policy.voting,
        "active": policy.active, "created_at": at(policy.created),
    })
}

fn show(one: &OnePolicy, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let found = session.client.policy(&one.policy).await?;
        if one.plain.json {
            output.json(&value(&found))?;
            return Ok(Exit::Done);
        }
        let matches: Vec<_> =
            found.configuration.iter().map(|(name, text)| format!("{name}={text}")).collect();
        let voting = found.voting.unwrap_or_else(|| "the rules of `authenticator rules`".into());
        output.pairs(&[
            ("name", or_dash(found.name)),
            ("id", found.id),
            ("active", yes_or_no(found.active).to_owned()),
            ("template", or_dash(found.template)),
            ("events", found.events.join(" ")),
            ("matches", matches.join(" ")),
            ("voting", voting),
            ("created", or_dash(at(found.created))),
        ])?;
        Ok(Exit::Done)
    })
}

#[derive(Clone, Copy)]
enum Change {
    Activate,
    Deactivate,
    Delete,
}

fn change(one: &OnePolicy, change: Change, output: &Output) -> anyhow::Result<Exit> {
    let OnePolicy { policy, plain } = one;
    session::with(&plain.connect, async |session| {
        let client = &session.client;
        let said = match change {
            Change::Activate => client.activate_policy(policy).await.map(|()| "activated"),
            Change::Deactivate => client.deactivate_policy(policy).await.map(|()| "deactivated"),
            Change::Delete => client.delete_policy(policy).await.map(|()| "deleted"),
        }?;
        let value = json!({ "policy": policy, "done": said });
        done(output, plain.json, &value, &format!("{said} {policy}"))
    })
}
