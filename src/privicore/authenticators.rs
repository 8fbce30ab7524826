//! Verified authenticators: the devices that vote, and how their votes decide where a
//! policy names no voting configuration (C.7).

use serde_json::{Value, json};

use super::client::Client;
use super::devices::{Device, keyed};
use super::forms::number;
use super::optional::incomplete;
use super::reply::field;
use super::transport::Call;
use crate::protocol::governance::{old_path, path};
use crate::store::StoreResult;

const PERCENTAGES: [&str; 3] = ["percentageRequired", "percentage_required", "percentage"];

/// How votes decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All must approve.
    Unanimous,
    /// More than half must approve.
    Consensus,
    /// One approval is enough.
    Affirmative,
    /// At least this many percent must approve.
    MinimumPercentage(u8),
}

impl Strategy {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unanimous => "unanimous",
            Self::Consensus => "consensus",
            Self::Affirmative => "affirmative",
            Self::MinimumPercentage(_) => "minimum_percentage",
        }
    }

    /// How many percent must approve, where that is what decides.
    pub fn percentage(self) -> Option<u8> {
        match self {
            Self::MinimumPercentage(percentage) => Some(percentage),
            _ => None,
        }
    }

    /// Reads the member `strategy` and the percentage beside it, or in its parameters.
    pub(super) fn read(json: &Value) -> Option<Self> {
        Some(match field(json, &["strategy", "quorumStrategy"])?.to_ascii_lowercase().as_str() {
            "unanimous" => Self::Unanimous,
            "consensus" => Self::Consensus,
            "affirmative" => Self::Affirmative,
            "minimum_percentage" => {
                let params = json.get("strategyParams").or_else(|| json.get("strategy_params"));
                let beside = number(json, &PERCENTAGES);
                let found = beside.or_else(|| params.and_then(|json| number(json, &PERCENTAGES)));
                Self::MinimumPercentage(u8::try_from(found?).ok()?)
            }
            _ => return None,
        })
    }
}

/// How votes decide where no voting configuration says otherwise. What the service does
/// not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotingRules {
    /// How votes decide.
    pub strategy: Option<Strategy>,
    /// The fewest approvals that are needed in any case.
    pub quorum_size: Option<u64>,
    /// How long a vote is open, in seconds.
    pub time_limit: Option<u64>,
    /// How often a device may vote in one pool at most; none if there is no limit.
    pub attempts: Option<u64>,
}

impl Client {
    /// Lets an approved device vote.
    pub async fn register_authenticator(&self, identifier: &str) -> StoreResult<()> {
        let paths = [path::AUTHENTICATOR_REGISTER, old_path::AUTHENTICATOR_REGISTER];
        self.device_command("register authenticator", &paths, identifier).await
    }

    /// The devices that vote.
    pub async fn authenticators(&self) -> StoreResult<Vec<Device>> {
        let calls = [Call::get("list authenticators", path::AUTHENTICATOR_LIST)];
        self.every(&calls, keyed).await
    }

    /// Takes its vote from a device, which stays registered.
    pub async fn remove_authenticator(&self, identifier: &str) -> StoreResult<()> {
        let paths = [path::AUTHENTICATOR_REMOVE];
        self.device_command("remove authenticator", &paths, identifier).await
    }

    /// How votes decide where no voting configuration says otherwise.
    pub async fn voting_rules(&self) -> StoreResult<VotingRules> {
        const OPERATION: &str = "retrieve strategy";
        let reply = self.ask_forms(&[Call::get(OPERATION, path::STRATEGY)]).await?;
        reply.json().as_ref().and_then(rules).ok_or_else(|| incomplete(OPERATION))
    }

    /// Sets the fewest approvals that are needed in any case.
    pub async fn set_quorum_size(&self, size: u64) -> StoreResult<()> {
        let size = size.to_string();
        self.set_rule("set quorum size", path::SET_QUORUM_SIZE, &[("size", &size)]).await
    }

    /// Sets how votes decide.
    pub async fn set_quorum_strategy(&self, strategy: Strategy) -> StoreResult<()> {
        let percentage = strategy.percentage().map(|percentage| percentage.to_string());
        let mut fields = vec![("strategy", strategy.word())];
        let percentage = percentage.as_deref();
        fields.extend(percentage.map(|text| ("strategy_params[percentageRequired]", text)));
        self.set_rule("set quorum strategy", path::SET_QUORUM_STRATEGY, &fields).await
    }

    /// Sets how long a vote is open, in seconds.
    pub async fn set_voting_time_limit(&self, seconds: u64) -> StoreResult<()> {
        let seconds = seconds.to_string();
        let fields = [("time_limit", seconds.as_str())];
        self.set_rule("set voting time limit", path::SET_TIME_LIMIT, &fields).await
    }

    /// Sets how often a device may vote in one pool at most.
    pub async fn set_voting_attempts(&self, attempts: u64) -> StoreResult<()> {
        let attempts = attempts.to_string();
        let fields = [("number_of_attempts", attempts.as_str())];
        self.set_rule("set maximum voting attempts", path::SET_ATTEMPTS, &fields).await
    }

    /// No source says whose `id` these calls take; it is optional, and not sent.
    async fn set_rule(
        &self,
        operation: &'static str,
        path: &'static str,
        fields: &[(&str, &str)],
    ) -> StoreResult<()> {
        self.order_forms(&[Call::form(operation, path, fields)]).await.map(drop)
    }
}

/// The members are the embedded engine's, in either spelling: no source tells the
/// service's. A bare word is a strategy.
fn rules(json: &Value) -> Option<VotingRules> {
    if let Some(word) = json.as_str() {
        return rules(&json!({ "strategy": word }));
    }
    let found = VotingRules {
        strategy: Strategy::read(json),
        quorum_size: number(json, &["quorumSize", "quorum_size", "size"]),
        time_limit: number(json, &["timeLimit", "time_limit", "votingTimeLimit"]),
        attempts: number(
            json,
            &["maximumVotingAttempts", "numberOfAttempts", "number_of_attempts", "attempts"],
        ),
    };
    let some = found.strategy.is_some() || found.quorum_size.is_some();
    (some || found.time_limit.is_some() || found.attempts.is_some()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_every_form() {
        let newer = rules(&json!({
            "strategy": "minimum_percentage", "strategyParams": {"percentageRequired": 40},
            "quorumSize": 2, "timeLimit": "60", "maximumVotingAttempts": null,
        }));
        let older = rules(&json!({
            "strategy": "MINIMUM_PERCENTAGE", "strategy_params": {"percentage": "40"},
            "quorum_size": "2", "time_limit": 60,
        }));
        assert_eq!(newer, older);
        assert_eq!(newer.unwrap().strategy, Some(Strategy::MinimumPercentage(40)));
        assert_eq!(rules(&json!("consensus")).unwrap().strategy, Some(Strategy::Consensus));
        assert_eq!(rules(&json!({"message": "no"})), None);
        assert_eq!(Strategy::read(&json!({"strategy": "minimum_percentage"})), None);
    }
}
