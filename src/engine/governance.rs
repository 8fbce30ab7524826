//! What a profile has decided about votes: its defaults, voting configurations (C.7) and
//! policies (C.8). One record per profile, because they refer to each other and are few.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commit::Tx;
use super::db::{Records, Space, StorageError};
use super::devices;
use super::records::RiskMeta;
use super::refusal::Refusal;
use super::templates::Event;

/// Longest time to vote, in seconds: a week.
pub(super) const TIME_LIMIT: u64 = 7 * 86_400;
/// Time to vote until a profile sets its own, in seconds.
const DEFAULT_TIME_LIMIT: u64 = 300;
/// Most voting configurations and most policies of a profile.
const MOST: usize = 1_000;
/// What a policy's configuration can name, in the order of the templates.
pub(super) const MEMBERS: [&str; 3] = ["classification", "label", "handling"];
const ANYTHING: &str = "*";

/// How votes decide (C.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Strategy {
    /// All must approve.
    Unanimous,
    /// More than half must approve.
    Consensus,
    /// One approval is enough.
    Affirmative,
    /// At least this many percent must approve, and at least one.
    MinimumPercentage(u8),
}

impl Strategy {
    /// Reads the word and the percentage, which goes with one of the words only.
    pub(super) fn read(
        word: &str,
        percentage: Option<u64>,
        field: &'static str,
    ) -> Result<Self, Refusal> {
        let wrong = |reason: &str| Refusal::parameter("percentageRequired", reason);
        let strategy = match word {
            "minimum_percentage" => {
                let percentage = percentage.ok_or_else(|| wrong("this field is missing"))?;
                let percentage = u8::try_from(percentage).ok().filter(|percent| *percent <= 100);
                let percentage = percentage.ok_or_else(|| wrong("between 0 and 100"))?;
                return Ok(Self::MinimumPercentage(percentage));
            }
            "unanimous" => Self::Unanimous,
            "consensus" => Self::Consensus,
            "affirmative" => Self::Affirmative,
            _ => return Err(Refusal::parameter(field, "not one of the strategies offered")),
        };
        match percentage {
            None => Ok(strategy),
            Some(_) => Err(wrong("only with the strategy minimum_percentage")),
        }
    }

    /// The word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unanimous => "unanimous",
            Self::Consensus => "consensus",
            Self::Affirmative => "affirmative",
            Self::MinimumPercentage(_) => "minimum_percentage",
        }
    }

    /// `percentageRequired`, where there is one.
    pub(super) fn percentage(self) -> Option<u8> {
        match self {
            Self::MinimumPercentage(percentage) => Some(percentage),
            _ => None,
        }
    }

    /// How many of `asked` devices have to approve.
    pub(super) fn needed(self, asked: usize) -> usize {
        match self {
            Self::Unanimous => asked,
            Self::Consensus => asked / 2 + 1,
            Self::Affirmative => 1,
            Self::MinimumPercentage(percentage) => {
                (asked * usize::from(percentage)).div_ceil(100).max(1)
            }
        }
    }
}

/// A profile's own settings (the `set-` calls of C.7). Strategy and time limit serve
/// policies that name no voting configuration; quorum and attempts serve every pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Defaults {
    pub strategy: Strategy,
    /// Seconds.
    pub time_limit: u64,
    /// Fewest approvals, whatever the strategy asks for.
    pub quorum: u64,
    /// Most ballots of one device in one pool; any number if `None`.
    pub attempts: Option<u64>,
}

impl Default for Defaults {
    fn default() -> Self {
        let strategy = Strategy::Unanimous;
        Self { strategy, time_limit: DEFAULT_TIME_LIMIT, quorum: 1, attempts: None }
    }
}

/// Who votes, how and for how long (C.7).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Configuration {
    pub id: Uuid,
    /// Unique in the profile.
    pub name: String,
    pub strategy: Strategy,
    /// Seconds.
    pub time_limit: u64,
    /// Identifiers of authenticators; empty for all that the profile has.
    pub devices: Vec<String>,
    pub created_at: u64,
}

/// When a vote is needed (C.8).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Policy {
    pub id: Uuid,
    /// Unique in the profile.
    pub name: String,
    pub template: String,
    pub events: Vec<Event>,
    /// Texts for members of [`MEMBERS`]; one that is not given matches anything.
    pub matches: Vec<(String, String)>,
    /// The voting configuration; the profile's defaults if `None`.
    pub voting: Option<Uuid>,
    pub active: bool,
    pub created_at: u64,
}

impl Policy {
    /// Whether it wants a vote on `event` for a token with this risk meta. Without risk
    /// meta only what matches anything matches.
    pub(super) fn covers(&self, event: Event, risk: Option<&RiskMeta>) -> bool {
        let value = |member: &str| {
            risk.and_then(|risk| match member {
                "classification" => Some(risk.classification.as_str()),
                "label" => Some(risk.label.as_str()),
                "handling" => Some(risk.handling.as_str()),
                _ => None,
            })
        };
        let matches = |(member, wanted): &(String, String)| {
            wanted.is_empty() || wanted == ANYTHING || value(member) == Some(wanted)
        };
        self.active && self.events.contains(&event) && self.matches.iter().all(matches)
    }
}

/// The record of a profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Governance {
    pub defaults: Defaults,
    pub configurations: Vec<Configuration>,
    pub policies: Vec<Policy>,
}

/// The record of a profile; the default one if it never decided anything.
pub(super) fn of(records: &impl Records, profile: Uuid) -> Result<Governance, StorageError> {
    Ok(records.load(Space::Governance, profile.as_bytes())?.unwrap_or_default())
}

/// Changes the record of a profile.
pub(super) fn update(
    tx: &mut Tx<'_>,
    profile: Uuid,
    change: impl FnOnce(&mut Governance) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut governance = of(tx, profile)?;
    change(&mut governance)?;
    Ok(tx.put(Space::Governance, profile.as_bytes(), &governance)?)
}

/// That every identifier is an authenticator of the profile.
pub(super) fn check_authenticators(
    records: &impl Records,
    profile: Uuid,
    identifiers: &[String],
    field: &'static str,
) -> Result<(), Refusal> {
    let known = devices::authenticators(records, profile)?;
    let is_known = |wanted: &&String| known.iter().any(|device| device.identifier == **wanted);
    match identifiers.iter().find(|wanted| !is_known(wanted)) {
        None => Ok(()),
        Some(_) => Err(Refusal::parameter(field, "not an authenticator of this profile")),
    }
}

fn is(id: Uuid, name: &str, wanted: &str) -> bool {
    name == wanted || Uuid::parse_str(wanted).is_ok_and(|wanted| wanted == id)
}

impl Governance {
    /// A voting configuration by name or id.
    pub(super) fn configuration(&self, wanted: &str) -> Result<&Configuration, Refusal> {
        let found = self.configurations.iter().find(|one| is(one.id, &one.name, wanted));
        found.ok_or(Refusal::NotFound)
    }

    /// Adds a voting configuration, or replaces the one with its id.
    pub(super) fn put_configuration(&mut self, new: Configuration) -> Result<(), Refusal> {
        let others = self.configurations.iter().filter(|one| one.id != new.id);
        free_name(others.map(|one| one.name.as_str()), &new.name)?;
        match self.configurations.iter_mut().find(|one| one.id == new.id) {
            Some(old) => *old = new,
            None => {
                room(self.configurations.len())?;
                self.configurations.push(new);
            }
        }
        Ok(())
    }

    /// Removes a voting configuration that no policy uses.
    pub(super) fn remove_configuration(&mut self, wanted: &str) -> Result<(), Refusal> {
        let id = self.configuration(wanted)?.id;
        if self.policies.iter().any(|policy| policy.voting == Some(id)) {
            return Err(Refusal::InUse);
        }
        self.configurations.retain(|one| one.id != id);
        Ok(())
    }

    /// A policy by name or id.
    pub(super) fn policy(&self, wanted: &str) -> Result<&Policy, Refusal> {
        let found = self.policies.iter().find(|one| is(one.id, &one.name, wanted));
        found.ok_or(Refusal::NotFound)
    }

    /// Adds a policy, whose voting configuration must be there.
    pub(super) fn add_policy(&mut self, new: Policy) -> Result<(), Refusal> {
        free_name(self.policies.iter().map(|one| one.name.as_str()), &new.name)?;
        room(self.policies.len())?;
        if new.voting.is_some_and(|id| self.configurations.iter().all(|one| one.id != id)) {
            return Err(Refusal::parameter("votingConfigurationId", "no such configuration"));
        }
        self.policies.push(new);
        Ok(())
    }

    /// Activates a policy or deactivates it; once more does no harm.
    pub(super) fn set_active(&mut self, wanted: &str, active: bool) -> Result<(), Refusal> {
        let found = self.policies.iter_mut().find(|one| is(one.id, &one.name, wanted));
        found.ok_or(Refusal::NotFound)?.active = active;
        Ok(())
    }

    /// Removes a policy.
    pub(super) fn remove_policy(&mut self, wanted: &str) -> Result<(), Refusal> {
        let id = self.policy(wanted)?.id;
        self.policies.retain(|one| one.id != id);
        Ok(())
    }
}

fn free_name<'a>(mut taken: impl Iterator<Item = &'a str>, name: &str) -> Result<(), Refusal> {
    if taken.any(|other| other == name) {
        return Err(Refusal::parameter("name", "this name is taken"));
    }
    Ok(())
}

fn room(there: usize) -> Result<(), Refusal> {
    let full = || Refusal::parameter("name", "there are too many already");
    (there < MOST).then_some(()).ok_or_else(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approvals_that_each_strategy_needs() {
        let needed = |strategy: Strategy| [1, 2, 3, 4].map(|asked| strategy.needed(asked));
        assert_eq!(needed(Strategy::Unanimous), [1, 2, 3, 4]);
        assert_eq!(needed(Strategy::Consensus), [1, 2, 2, 3]);
        assert_eq!(needed(Strategy::Affirmative), [1, 1, 1, 1]);
        assert_eq!(needed(Strategy::MinimumPercentage(0)), [1, 1, 1, 1]);
        assert_eq!(needed(Strategy::MinimumPercentage(50)), [1, 1, 2, 2]);
        assert_eq!(needed(Strategy::MinimumPercentage(51)), [1, 2, 2, 3]);
        assert_eq!(needed(Strategy::MinimumPercentage(100)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_percentage_goes_with_one_strategy_only() {
        assert!(Strategy::read("minimum_percentage", None, "strategy").is_err());
        assert!(Strategy::read("minimum_percentage", Some(101), "strategy").is_err());
        assert!(Strategy::read("unanimous", Some(10), "strategy").is_err());
        assert!(Strategy::read("loud", None, "strategy").is_err());
        assert!(Strategy::read("minimum_percentage", Some(100), "strategy").is_ok());
    }

    #[test]
    fn a_policy_compares_what_it_names() {
        let policy = |matches: &[(&str, &str)]| Policy {
            id: Uuid::nil(),
            name: String::new(),
            template: String::new(),
            events: vec![Event::DataDeleted],
            matches: matches.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            voting: None,
            active: true,
            created_at: 0,
        };
        let risk = RiskMeta {
            classification: "secret".into(),
            label: "blue".into(),
            handling: String::new(),
        };
        let covers = |matches: &[(&str, &str)], risk: Option<&RiskMeta>| {
            policy(matches).covers(Event::DataDeleted, risk)
        };
        assert!(covers(&[("classification", "secret"), ("label", "*")], Some(&risk)));
        assert!(!covers(&[("classification", "secret"), ("label", "red")], Some(&risk)));
        assert!(!covers(&[("classification", "secret")], None));
        assert!(covers(&[("classification", "*"), ("handling", "")], None));
        assert!(!policy(&[]).covers(Event::DataRequested, None));
    }
}
