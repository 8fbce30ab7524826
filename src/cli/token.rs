//! `token`: stored payloads, without the drive (protocol C.4).

use std::collections::HashSet;
use std::num::NonZeroUsize;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Exit;
use super::output::{List, Output};
use super::report::{at, or_dash};
use super::session::{self, Plain, Session};
use super::transfer::{self, GetArgs, PutArgs};
use crate::config::Size;
use crate::privicore::{MetaChange, TransactionCounts};
use crate::store::{
    ListFilter, RiskMeta, Store, StoreError, StoreErrorKind, StoreResult, Token, TokenRecord,
    list_all,
};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// List tokens, the oldest first where the service sorts
    ///
    /// All filters that are given must match exactly. The drive's own tokens are in contexts
    /// that begin with `.privicorefs`.
    List(ListArgs),
    /// Show what the service says of a token
    Show(OneToken),
    /// Fetch a token's content, decrypted with the key
    ///
    /// Nothing is written that was not verified first. A file that the drive has split is
    /// put together again.
    Get(GetArgs),
    /// Encrypt a file with the key, store it, and print its token
    Put(PutArgs),
    /// Delete tokens for good; one that is not there counts as deleted
    Delete {
        /// The tokens
        #[arg(value_name = "TOKEN", required = true)]
        tokens: Vec<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Count what was stored, retrieved and deleted, in all and by day
    Statistics(Plain),
    /// File meta
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Information-security risk meta
    #[command(subcommand)]
    Risk(RiskCommand),
}

#[derive(Args, Debug)]
pub(super) struct OneToken {
    /// The token
    #[arg(value_name = "TOKEN")]
    token: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only tokens of this context (a folder's path, for the drive's files)
    #[arg(long, value_name = "CONTEXT", help_heading = "Filters")]
    context: Option<String>,
    /// Only files of this name
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    name: Option<String>,
    /// Only files with this extension
    #[arg(long, value_name = "EXTENSION", help_heading = "Filters")]
    extension: Option<String>,
    /// Only data of this type
    #[arg(long = "type", value_name = "TYPE", help_heading = "Filters")]
    data_type: Option<String>,
    /// Only this token
    #[arg(long, value_name = "TOKEN", help_heading = "Filters")]
    token: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Subcommand)]
pub(super) enum MetaCommand {
    /// Change a token's file meta; what is not given stays, and the payload is not touched
    Set {
        /// The token
        #[arg(value_name = "TOKEN")]
        token: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// New file name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// New extension, without the dot
    #[arg(long, value_name = "EXTENSION")]
    extension: Option<String>,
    /// New context
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RiskCommand {
    /// Show a token's risk meta
    Show(OneToken),
    /// Set a token's risk meta; what is not given keeps its value
    Set {
        /// The token
        #[arg(value_name = "TOKEN")]
        token: String,
        #[command(flatten)]
        risk: Risk,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Risk {
    /// For example `confidential`
    #[arg(long, value_name = "TEXT")]
    classification: Option<String>,
    /// Free label
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Handling instruction
    #[arg(long, value_name = "TEXT")]
    handling: Option<String>,
}

/// Runs a command of the group.
pub(super) fn run(command: TokenCommand, output: &Output) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::List(args) => list(&args, output),
        TokenCommand::Show(one) => show(&one, output),
        TokenCommand::Get(args) => transfer::get(&args, output),
        TokenCommand::Put(args) => transfer::put(&args, output),
        TokenCommand::Delete { tokens, plain } => delete(&tokens, &plain, output),
        TokenCommand::Statistics(plain) => statistics(&plain, output),
        TokenCommand::Meta(MetaCommand::Set { token, change, plain }) => {
            set_meta(&token, &change, &plain, output)
        }
        TokenCommand::Risk(RiskCommand::Show(one)) => show_risk(&one, output),
        TokenCommand::Risk(RiskCommand::Set { token, risk, plain }) => {
            set_risk(&token, risk, &plain, output)
        }
    }
}

/// Prints page by page, so that the first lines come at once however many there are.
fn list(args: &ListArgs, output: &Output) -> anyhow::Result<Exit> {
    let filter = ListFilter {
        context: args.context.clone(),
        file_name: args.name.clone(),
        extension: args.extension.clone(),
        data_type: args.data_type.clone(),
        token: args.token.as_deref().map(Token::new),
    };
    session::with(&args.plain.connect, async |session| {
        let store = session.store();
        let columns = &["TOKEN", "SIZE", "CREATED", "CONTEXT", "NAME"];
        let mut list = List::new(output, columns, args.plain.json);
        let mut left = args.limit.map_or(usize::MAX, NonZeroUsize::get);
        let mut seen = HashSet::new();
        for page in 1.. {
            let got = store.list(&filter, page).await?;
            let before = seen.len();
            let mut fresh = got.records;
            fresh.retain(|record| seen.insert(record.token.clone()));
            fresh.retain(|record| filter.matches(record));
            fresh.truncate(left);
            left -= fresh.len();
            list.add(&fresh, value, row)?;
            if !got.more || seen.len() == before || left == 0 {
                break;
            }
        }
        list.end("no token")?;
        Ok(Exit::Done)
    })
}

/// What the service says of one token.
async fn record(session: &Session, token: &str) -> StoreResult<TokenRecord> {
    let filter = ListFilter { token: Some(Token::new(token)), ..ListFilter::default() };
    let found = list_all(&session.store(), &filter).await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "show", "no such token").on(token))
}

fn show(one: &OneToken, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let record = record(session, &one.token).await?;
        if one.plain.json {
            output.json(&value(&record))?;
            return Ok(Exit::Done);
        }
        let mut pairs = vec![
            ("token", record.token.to_string()),
            ("name", or_dash(record.file_name)),
            ("extension", or_dash(record.extension)),
            ("context", record.context),
            ("path", or_dash(record.path)),
            ("size", or_dash(record.size.map(|size| size.to_string()))),
            ("type", or_dash(record.data_type)),
            ("created", or_dash(at(record.created))),
            ("uuid", or_dash(record.mark)),
        ];
        pairs.extend(record.risk.map(risk_pairs).into_iter().flatten());
        output.pairs(&pairs)?;
        Ok(Exit::Done)
    })
}

fn risk_pairs(risk: RiskMeta) -> [(&'static str, String); 3] {
    [("classification", risk.classification), ("label", risk.label), ("handling", risk.handling)]
}

/// Goes on after a token that could not be deleted, and fails in the end.
fn delete(tokens: &[String], plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let store = session.store();
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for token in tokens {
            match store.delete(&Token::new(token)).await {
                // true of every other one too
                Err(error) if error.kind == StoreErrorKind::Unauthenticated => {
                    return Err(error.into());
                }
                Err(error) => {
                    output.note(&format!("privicorefs: {error}"));
                    failed.push(token);
                }
                Ok(()) if plain.json => deleted.push(token),
                Ok(()) => output.line(&format!("deleted {token}"))?,
            }
        }
        if plain.json {
            output.json(&json!({ "deleted": deleted, "failed": failed }))?;
        }
        Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
    })
}

fn set_meta(token: &str, change: &Change, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let change = MetaChange {
        file_name: change.name.clone(),
        extension: change.extension.clone(),
        context: change.context.clone(),
    };
    session::with(&plain.connect, async |session| {
        session.client.change_meta(&Token::new(token), &change).await.map_err(|e| e.on(token))?;
        changed(token, plain, output)
    })
}

fn changed(token: &str, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    if plain.json {
        output.json(&json!({ "token": token, "changed": true }))?;
    } else {
        output.line(&format!("changed {token}"))?;
    }
    Ok(Exit::Done)
}

fn show_risk(one: &OneToken, output: &Output) -> anyhow::Result<Exit> {
    session::with(&one.plain.connect, async |session| {
        let risk = record(session, &one.token).await?.risk;
        match risk {
            _ if one.plain.json => output.json(&risk_value(risk.as_ref()))?,
            Some(risk) => output.pairs(&risk_pairs(risk))?,
            None => output.note("no risk meta is set, or the service does not list it"),
        }
        Ok(Exit::Done)
    })
}

/// The call takes all three (C.4.6): those not given are read first.
fn set_risk(token: &str, risk: Risk, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async move |session| {
        let complete =
            matches!(&risk, Risk { classification: Some(_), label: Some(_), handling: Some(_) });
        let before = match complete {
            true => RiskMeta::default(),
            false => record(session, token).await?.risk.unwrap_or_default(),
        };
        let risk = RiskMeta {
            classification: risk.classification.unwrap_or(before.classification),
            label: risk.label.unwrap_or(before.label),
            handling: risk.handling.unwrap_or(before.handling),
        };
        session.store().set_risk(&Token::new(token), &risk).await?;
        changed(token, plain, output)
    })
}

/// A record as JSON.
fn value(record: &TokenRecord) -> Value {
    json!({
        "token": record.token.as_str(),
        "context": record.context,
        "file_name": record.file_name,
        "extension": record.extension,
        "path": record.path,
        "size": record.size,
        "type": record.data_type,
        "created_at": at(record.created),
        "uuid": record.mark,
        "risk": risk_value(record.risk.as_ref()),
    })
}

fn risk_value(risk: Option<&RiskMeta>) -> Value {
    risk.map_or(Value::Null, |risk| {
        json!({
            "classification": risk.classification, "label": risk.label, "handling": risk.handling,
        })
    })
}

fn row(record: &TokenRecord) -> Vec<String> {
    vec![
        record.token.to_string(),
        or_dash(record.size.map(|size| Size(size).to_string())),
        or_dash(at(record.created)),
        record.context.clone(),
        or_dash(record.file_name.clone()),
    ]
}

fn statistics(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.transaction_statistics().await?;
        let counts = |counts: &TransactionCounts| {
            json!({
                "stores": counts.stores, "retrievals": counts.retrievals,
                "deletions": counts.deletions,
            })
        };
        if plain.json {
            let day = |(date, of_day): &(String, TransactionCounts)| json!({ "date": date, "counts": counts(of_day) });
            let days: Vec<Value> = found.days.iter().map(day).collect();
            output.json(&json!({ "total": counts(&found.total), "days": days }))?;
            return Ok(Exit::Done);
        }
        let rows: Vec<_> =
            found.days.into_iter().chain([("in all".to_owned(), found.total)]).collect();
        let mut list = List::new(output, &["DAY", "STORED", "RETRIEVED", "DELETED"], false);
        let cells = |(day, counts): &(String, TransactionCounts)| {
            let numbers = [counts.stores, counts.retrievals, counts.deletions];
            std::iter::once(day.clone()).chain(numbers.map(|n| n.to_string())).collect()
        };
        list.add(&rows, |_| Value::Null, cells)?;
        list.end("")?;
        Ok(Exit::Done)
    })
}
