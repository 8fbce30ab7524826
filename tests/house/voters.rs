//! Policies and those who vote about them, spoken to an engine process without the client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::engine_process::{EngineProcess, Login};
use super::http::{self, Reply};

/// A profile's authenticators, and its login.
pub(crate) struct Voters<'a> {
    engine: &'a EngineProcess,
    session: String,
    /// Identifier and secret of each authenticator.
    voters: Vec<(String, String)>,
}

impl<'a> Voters<'a> {
    /// Registers `count` authenticators and a voting configuration of all of them.
    pub(crate) fn new(
        engine: &'a EngineProcess,
        login: &Login,
        count: usize,
        strategy: &str,
        seconds: u64,
    ) -> Self {
        let session = engine.authenticate(login);
        let mut voters = Self { engine, session, voters: Vec::new() };
        for n in 0..count {
            let voter = voters.authenticator(login, &format!("phone {n}"));
            voters.voters.push(voter);
        }
        let mut configuration = json!({
            "name": "board", "strategy": strategy, "timeLimit": seconds, "deviceIdentifiers": [],
        });
        if strategy == "minimum_percentage" {
            configuration["percentageRequired"] = json!(50);
        }
        voters.json("/verified-authenticator/voting-configuration/register", &configuration);
        voters
    }

    fn authenticator(&self, login: &Login, name: &str) -> (String, String) {
        let device = self.engine.authenticator(login, name);
        let configuration = self.get(&format!("/device/retrieve-device-configuration/{device}"));
        let secret = configuration["client-secret"].as_str().unwrap().to_owned();
        (device, secret)
    }

    /// An active policy on an event, about data of a classification (`*`: of any).
    pub(crate) fn gate(&self, event: &str, classification: &str) {
        let policy = json!({
            "policyTemplateId": "tpl-data-token", "applyingEventIds": [event], "name": event,
            "configuration": {"classification": classification}, "votingConfigurationId": "board",
        });
        self.json("/policy/register", &policy);
        let found = self.get(&format!("/policy/retrieve-policy/{event}"));
        let id = found["id"].as_str().unwrap();
        self.engine.command("/policy/activate", Some(&self.session), &[("policyId", id)]);
    }

    /// Votes as one of the authenticators.
    pub(crate) fn vote(&self, voter: usize, pool: &str, vote: &str) {
        let (device, secret) = &self.voters[voter];
        let basic = format!("Basic {}", STANDARD.encode(format!("{device}:{secret}")));
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Authorization", basic.as_str()),
        ];
        let form = http::form(&[("poolId", pool), ("vote", vote)]);
        let path = privicorefs::protocol::governance::path::POOL_BALLOT;
        let reply = self.request("POST", path, &headers, form.as_bytes());
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Every pool of the profile that has this status.
    pub(crate) fn pools(&self, status: &str) -> Vec<Value> {
        let path = privicorefs::protocol::governance::path::POOL_LIST;
        let list = self.get(&format!("{path}?status={status}"));
        list.as_array().unwrap().clone()
    }

    /// Approves every open pool, with all authenticators.
    pub(crate) fn approve_all(&self) {
        for pool in self.pools("open") {
            for voter in 0..self.voters.len() {
                self.vote(voter, pool["poolId"].as_str().unwrap(), "approve");
            }
        }
    }

    fn get(&self, path: &str) -> Value {
        self.engine.get(path, &self.session)
    }

    fn json(&self, path: &str, value: &Value) {
        let headers =
            [("Content-Type", "application/json"), ("X-DPT-AUTHORIZATION", &self.session)];
        let reply = self.request("POST", path, &headers, value.to_string().as_bytes());
        assert_eq!(reply.status, 202, "{path}: {reply:?}");
        self.engine.succeeded(path, &reply);
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        http::request(method, &self.engine.api_url, path, headers, body).unwrap()
    }
}
