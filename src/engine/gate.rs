//! The gate: operations that wait for a vote (section A, "Policy / voting gate").
//!
//! Every active policy that covers the event of an operation wants a vote of its own, one
//! after the other. While a vote about the same policy, event and object is open, others
//! join it; an approval is good for the pool's time limit. The held operation lives in its
//! task: it does not survive the engine, but its pool does, and so does an approval.
//!
//! An operation that would be refused anyway is let through to its refusal, so that nobody
//! is asked for nothing. Reservations, logins and keys are never held.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::app::{App, ack_message};
use super::commit::{Durability, Tx};
use super::db::StorageError;
use super::governance::{self, Governance, Policy};
use super::pools::{self, News, Opening, Pool, Status, Subject};
use super::records::{Approval, RiskMeta, Token};
use super::refusal::Refusal;
use super::shape::HeldSign;
use super::templates::Event;
use super::time::rfc3339;
use super::{devices, tokens};
use crate::protocol;
use crate::protocol::governance::TYPE_BALLOT;

/// What a policy can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A reserved token gets its data, inline or by upload.
    Exchange,
    /// A permanent token gets other data.
    Replace,
    Request,
    Delete,
    /// File meta is set or changed.
    FileMeta,
    RiskMeta,
    /// A device is approved.
    Approve,
}

impl Operation {
    fn event(self) -> Event {
        match self {
            Self::Exchange | Self::Replace => Event::DataExchanged,
            Self::Request => Event::DataRequested,
            Self::Delete => Event::DataDeleted,
            Self::FileMeta => Event::FileMeta,
            Self::RiskMeta => Event::RiskMeta,
            Self::Approve => Event::DeviceRegistered,
        }
    }

    /// Whether the operation makes sense for a token as it is.
    fn suits(self, token: &Token) -> bool {
        match self {
            Self::Exchange => token.payload.is_none(),
            Self::Replace | Self::Delete => token.expires_at.is_none(),
            Self::Request | Self::FileMeta | Self::RiskMeta => token.payload.is_some(),
            Self::Approve => false,
        }
    }
}

/// An operation that may have to wait.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub profile: Uuid,
    pub operation: Operation,
    /// The token as the caller names it, or a device identifier.
    pub object: String,
}

/// The command that asks, and who waits for its first sign of life.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub command: Uuid,
    /// Cancelled when the command is held or acknowledged.
    pub answered: CancellationToken,
}

/// What is held now, and the news that a pool has changed.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Command id -> profile and pool.
    held: Mutex<HashMap<Uuid, (Uuid, Uuid)>>,
    changed: Notify,
}

/// A command's entry among the held ones, for as long as it waits.
struct Hold<'a> {
    gate: &'a Gate,
    command: Uuid,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.gate.held.lock().remove(&self.command);
    }
}

impl App {
    /// Whether the operation would have to wait, or be refused for want of a vote.
    pub(super) fn must_vote(&self, question: &Question) -> Result<bool, Refusal> {
        for (subject, _) in self.demands(question)? {
            if !pools::is_granted(&*self.db, question.profile, &subject, self.now())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until every policy that covers the operation has let it through.
    pub(super) async fn pass(&self, question: &Question, ticket: &Ticket) -> Result<(), Refusal> {
        for (subject, opening) in self.demands(question)? {
            if pools::is_granted(&*self.db, question.profile, &subject, self.now())? {
                continue;
            }
            let named = question.object.clone();
            let enter = move |tx: &mut Tx<'_>| pools::enter(tx, opening, &subject, &named);
            let mut pool = self.committer.run(Durability::Machine, enter).await?;
            if pool.status(self.now()) == Status::Open {
                pool = self.hold(&pool, ticket).await?;
            }
            pool.verdict(self.now())?;
        }
        Ok(())
    }

    /// The votes that an operation needs, with what to open a pool with.
    fn demands(&self, question: &Question) -> Result<Vec<(Subject, Opening)>, Refusal> {
        let governance = governance::of(&*self.db, question.profile)?;
        if !governance.policies.iter().any(|policy| policy.active) {
            return Ok(Vec::new());
        }
        let Some((object, risk)) = self.subject_of(question)? else { return Ok(Vec::new()) };
        let event = question.operation.event();
        let covering = governance.policies.iter().filter(|p| p.covers(event, risk.as_ref()));
        covering
            .map(|policy| {
                let subject = Subject {
                    event,
                    object: object.clone(),
                    policy: policy.id,
                    policy_name: policy.name.clone(),
                };
                let opening = self.opening(question.profile, &governance, policy, &subject)?;
                Ok((subject, opening))
            })
            .collect()
    }

    /// The lasting name and the risk meta of what is asked about; `None` if the operation
    /// is refused anyway.
    fn subject_of(
        &self,
        question: &Question,
    ) -> Result<Option<(String, Option<RiskMeta>)>, StorageError> {
        let Question { profile, operation, object } = question;
        if *operation == Operation::Approve {
            let device = devices::find(&*self.db, object)?;
            let suits = device.filter(|device| {
                device.profile == *profile && device.approval == Approval::Pending
            });
            return Ok(suits.map(|device| (device.identifier, None)));
        }
        let found = tokens::find(&*self.db, object, self.now())?;
        let suits =
            found.filter(|found| found.token.profile == *profile && operation.suits(&found.token));
        Ok(suits.map(|found| (found.name, found.token.risk)))
    }

    fn opening(
        &self,
        profile: Uuid,
        governance: &Governance,
        policy: &Policy,
        subject: &Subject,
    ) -> Result<Opening, Refusal> {
        let (strategy, time_limit, devices) = match policy.voting {
            None => {
                let defaults = &governance.defaults;
                (defaults.strategy, defaults.time_limit, Vec::new())
            }
            Some(id) => {
                let found = governance.configuration(&id.to_string())?;
                (found.strategy, found.time_limit, found.devices.clone())
            }
        };
        Ok(Opening {
            id: self.new_id(),
            profile,
            title: policy.name.clone(),
            question: format!("{}: {}", subject.event.title(), subject.object),
            nonce: None,
            subject: Some(subject.clone()),
            strategy,
            time_limit,
            voters: vec![profile],
            devices,
            skip: Vec::new(),
        })
    }

    /// Follows what has been committed about a pool.
    pub(super) fn hear(&self, news: &News) {
        match news {
            News::Opened(pool, asked) => self.ask(pool, asked),
            News::Settled => self.gate.changed.notify_waiters(),
        }
    }

    /// Asks the authenticators of a new pool, on the channels of their profiles.
    fn ask(&self, pool: &Pool, asked: &BTreeMap<Uuid, Vec<String>>) {
        for (profile, devices) in asked {
            self.push(*profile, &ballot(pool, devices));
        }
    }

    /// Says that a command waits, and waits until its pool is settled.
    async fn hold(&self, pool: &Pool, ticket: &Ticket) -> Result<Pool, Refusal> {
        let command = ticket.command;
        self.gate.held.lock().insert(command, (pool.profile, pool.id));
        let _hold = Hold { gate: &self.gate, command };
        tracing::debug!(%command, pool = %pool.id, "held for a vote");
        self.lag().await;
        self.remind(command);
        ticket.answered.cancel();
        self.settled(pool.id).await
    }

    /// Says again that a command waits for a vote, if it does.
    pub(super) fn remind(&self, command: Uuid) {
        let held = self.gate.held.lock().get(&command).copied();
        if let Some((profile, pool)) = held
            && self.shape.read().held == HeldSign::Told
        {
            let body = json!({ "message": "awaiting approval", "poolId": pool });
            self.push(profile, &ack_message(command, protocol::STATUS_PENDING, &body));
        }
    }

    /// The pool, once it is settled.
    async fn settled(&self, id: Uuid) -> Result<Pool, Refusal> {
        loop {
            let mut changed = pin!(self.gate.changed.notified());
            // Before the look, so that no change can slip between it and the wait.
            changed.as_mut().enable();
            let pool = pools::find(&*self.db, id)?.ok_or(Refusal::NotFound)?;
            if pool.is_settled() {
                return Ok(pool);
            }
            let left = pool.expires_at.saturating_sub(self.now());
            if left == 0 {
                let end = move |tx: &mut Tx<'_>| pools::time_out(tx, id);
                self.committer.run(Durability::Machine, end).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    return Err(Refusal::Storage(StorageError::Stopped));
                }
                () = changed => {}
                () = tokio::time::sleep(Duration::from_millis(left)) => {}
            }
        }
    }

    /// Accepts a command that a policy may hold; see [`App::accept`].
    pub(super) async fn accept_voted(
        self: &Arc<Self>,
        op: &'static str,
        question: Question,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<Option<String>, Refusal> + Send + 'static,
    ) -> Uuid {
        let (app, profile) = (Arc::clone(self), Some(question.profile));
        let prepare = |ticket: Ticket| async move { app.pass(&question, &ticket).await };
        self.accept_with(self.new_id(), op, profile, durability, prepare, move |tx, ()| step(tx))
            .await
    }
}

/// The message that asks devices to vote.
fn ballot(pool: &Pool, devices: &[String]) -> Value {
    json!({ "data": {
        "type": TYPE_BALLOT,
        "id": pool.id,
        "poolId": pool.id,
        "title": pool.title,
        "question": pool.question,
        "token": pool.token(),
        "event": pool.subject.as_ref().map(|subject| subject.event.name()),
        "deviceIdentifiers": devices,
        "expiresAt": rfc3339(pool.expires_at),
    }})
}
