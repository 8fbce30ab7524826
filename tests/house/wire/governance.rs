//! Devices, policies and votes, spoken raw.

use privicorefs::protocol;
use privicorefs::protocol::governance::path;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Channel, WireClient, body, header};

/// A device that votes.
#[derive(Clone, Debug)]
pub(crate) struct Voter {
    pub(crate) identifier: String,
    pub(crate) secret: String,
}

impl WireClient {
    pub(crate) async fn json(&self, path: &str, value: &Value) -> Response {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        request.body(value.to_string()).send().await.unwrap()
    }

    /// A call with a JSON body whose command succeeds.
    pub(crate) async fn json_done(&self, channel: &mut Channel, path: &str, value: &Value) {
        let reply = self.json(path, value).await;
        assert_eq!(reply.status(), StatusCode::ACCEPTED, "{path} {value}");
        channel.ack(&header(&reply, protocol::COMMAND_ID)).await;
    }

    /// A call with a form whose command succeeds.
    pub(crate) async fn done(&self, channel: &mut Channel, path: &str, form: &[(&str, &str)]) {
        let id = self.command(path, form).await;
        channel.ack(&id).await;
    }

    /// A call with a form whose command is rejected; the reason.
    pub(crate) async fn rejected(
        &self,
        channel: &mut Channel,
        path: &str,
        form: &[(&str, &str)],
    ) -> String {
        let id = self.command(path, form).await;
        let ack = channel.settled(&id).await;
        assert_eq!(ack["command_status"], 3, "{path}");
        ack["body"].as_str().unwrap().to_owned()
    }

    /// A 200 and its body.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status(), StatusCode::OK, "{path}");
        body(reply).await
    }

    /// A pending device.
    pub(crate) async fn device(&self, channel: &mut Channel, name: &str) -> String {
        let id = self.command(path::DEVICE_REQUEST, &[("deviceName", name)]).await;
        channel.ack(&id).await;
        let reply = self.post(path::DEVICE_IDENTIFIER, &[("id", &id)]).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await["deviceIdentifier"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn approved_device(&self, channel: &mut Channel, name: &str) -> String {
        let device = self.device(channel, name).await;
        self.done(channel, path::DEVICE_APPROVE, &[("deviceIdentifier", &device)]).await;
        device
    }

    pub(crate) async fn authenticator(&self, channel: &mut Channel, name: &str) -> Voter {
        let identifier = self.approved_device(channel, name).await;
        let form = [("deviceIdentifier", identifier.as_str())];
        self.done(channel, path::AUTHENTICATOR_REGISTER, &form).await;
        let configuration = self.read(&format!("{}{identifier}", path::DEVICE_CONFIGURATION)).await;
        let secret = configuration["client-secret"].as_str().unwrap().to_owned();
        Voter { identifier, secret }
    }

    pub(crate) async fn authenticators<const N: usize>(&self, channel: &mut Channel) -> [Voter; N] {
        let mut voters = Vec::new();
        for n in 0..N {
            voters.push(self.authenticator(channel, &format!("phone {n}")).await);
        }
        voters.try_into().unwrap()
    }

    /// A voting configuration of all authenticators.
    pub(crate) async fn configuration(
        &self,
        channel: &mut Channel,
        name: &str,
        strategy: &str,
        time_limit: u64,
    ) {
        let mut value = json!({
            "name": name, "strategy": strategy, "timeLimit": time_limit, "deviceIdentifiers": [],
        });
        if strategy == "minimum_percentage" {
            value["percentageRequired"] = json!(50);
        }
        self.json_done(channel, path::CONFIGURATION_REGISTER, &value).await;
    }

    /// An active policy of one event, which the template of that name has.
    pub(crate) async fn policy(
        &self,
        channel: &mut Channel,
        name: &str,
        voting: &str,
        event: &str,
        configuration: Value,
    ) {
        let template =
            if event.starts_with("device") { "tpl-device-registration" } else { "tpl-data-token" };
        let value = json!({
            "policyTemplateId": template, "applyingEventIds": [event], "name": name,
            "configuration": configuration, "votingConfigurationId": voting,
        });
        self.json_done(channel, path::POLICY_REGISTER, &value).await;
        let policy = self.read(&format!("{}{name}", path::POLICY_RETRIEVE)).await;
        let id = policy["id"].as_str().unwrap();
        self.done(channel, path::POLICY_ACTIVATE, &[("policyId", id)]).await;
    }

    /// A ballot, with whatever credentials.
    pub(crate) async fn cast(&self, voter: &Voter, pool: &str, vote: &str) -> Response {
        let request = self.clone().with_token(None).request(Method::POST, path::POOL_BALLOT);
        let request = request.basic_auth(&voter.identifier, Some(&voter.secret));
        request.form(&[("poolId", pool), ("vote", vote)]).send().await.unwrap()
    }

    /// A ballot that counts; the pool's status after it.
    pub(crate) async fn vote(&self, voter: &Voter, pool: &str, vote: &str) -> String {
        let reply = self.cast(voter, pool, vote).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn pool(&self, pool: &str) -> Value {
        self.read(&format!("{}{pool}", path::POOL_STATUS)).await
    }

    pub(crate) async fn pools(&self, status: &str) -> Vec<Value> {
        let list = self.read(&format!("{}?status={status}", path::POOL_LIST)).await;
        list.as_array().unwrap().clone()
    }
}

impl Channel {
    /// The pool that a held command waits for.
    pub(crate) async fn held(&mut self, command: &str) -> String {
        let ack = self.settled(command).await;
        assert_eq!(ack["command_status"], 1, "{ack}");
        assert_eq!(ack["body"]["message"], "awaiting approval");
        ack["body"]["poolId"].as_str().unwrap().to_owned()
    }
}
