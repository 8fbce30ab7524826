//! Transaction statistics (C.4.12). Their fields are undocumented: those of the embedded
//! engine are read.

use serde_json::Value;

use super::client::Client;
use super::optional::incomplete;
use super::reply::field;
use super::transport::Call;
use crate::protocol::path;
use crate::store::StoreResult;

/// How many transactions of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionCounts {
    /// Data stored or replaced.
    pub stores: u64,
    /// Data retrieved.
    pub retrievals: u64,
    /// Tokens deleted.
    pub deletions: u64,
}

/// A profile's transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionStatistics {
    /// Since the profile was registered.
    pub total: TransactionCounts,
    /// Of the last days that had any, oldest first, each with its date (`2026-02-21`, UTC).
    pub days: Vec<(String, TransactionCounts)>,
}

impl Client {
    /// Counts of the profile's transactions. `Unsupported` where the service has none.
    pub async fn transaction_statistics(&self) -> StoreResult<TransactionStatistics> {
        const OPERATION: &str = "transaction statistics";
        let reply = self.ask(&Call::get(OPERATION, path::STATISTICS)).await?;
        reply.json().as_ref().and_then(statistics).ok_or_else(|| incomplete(OPERATION))
    }
}

fn statistics(json: &Value) -> Option<TransactionStatistics> {
    let total = json.get("total").and_then(counts)?;
    let days = json.get("days").and_then(Value::as_array).into_iter().flatten();
    let day = |day: &Value| Some((field(day, &["date"])?, counts(day)?));
    Some(TransactionStatistics { total, days: days.filter_map(day).collect() })
}

/// Counts; those that are not there are 0.
fn counts(json: &Value) -> Option<TransactionCounts> {
    let count = |name: &str| json.get(name).and_then(Value::as_u64).unwrap_or(0);
    json.is_object().then(|| TransactionCounts {
        stores: count("stores"),
        retrievals: count("retrievals"),
        deletions: count("deletions"),
    })
}
