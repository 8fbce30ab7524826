//! What waits for a vote: for how long, and on whom.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::privicore::{Client, VotingPool, format_rfc3339};
use crate::store::Hold;

/// How long the service may take to say on whom a pool waits.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// Pools asked for at once.
const AT_ONCE: usize = 8;

/// Every held operation, oldest first. `files` are the holds that are about a file, with
/// its path.
pub(super) async fn list(client: Arc<Client>, files: Vec<(String, Arc<Hold>)>) -> Vec<Value> {
    let mut held = client.held();
    held.sort_by_key(|(_, hold)| hold.since());
    let mut pools: Vec<String> = held.iter().filter_map(|(_, hold)| hold.pool()).collect();
    pools.sort();
    pools.dedup();
    let pools: HashMap<String, VotingPool> = stream::iter(pools)
        .map(|id| ask(&client, id))
        .buffer_unordered(AT_ONCE)
        .filter_map(async |found| found)
        .collect()
        .await;
    let path = |hold: &Arc<Hold>| {
        files.iter().find(|(_, of_file)| Arc::ptr_eq(of_file, hold)).map(|(path, _)| path)
    };
    let describe = |(target, hold): &(String, Arc<Hold>)| {
        let id = hold.pool();
        let pool = id.as_ref().and_then(|id| pools.get(id));
        json!({
            "operation": hold.operation(),
            "path": path(hold),
            "target": target,
            "pool": id,
            "since": format_rfc3339(hold.since()),
            "seconds": hold.lasted().as_secs(),
            "expires": pool.and_then(|pool| pool.expires).map(format_rfc3339),
            "policy": pool.and_then(|pool| pool.policy.as_ref()),
            "waits_on": pool.map(waits_on).unwrap_or_default(),
        })
    };
    held.iter().map(describe).collect()
}

async fn ask(client: &Client, id: String) -> Option<(String, VotingPool)> {
    let asked = timeout(ASKED_FOR, client.voting_pool(&id)).await.ok()?;
    Some((id, asked.ok()?))
}

/// The devices that have not voted, by name where they have one.
fn waits_on(pool: &VotingPool) -> Vec<&str> {
    let silent = pool.ballots.iter().filter(|ballot| ballot.vote.is_none());
    silent.map(|ballot| ballot.name.as_deref().unwrap_or(&ballot.device)).collect()
}
