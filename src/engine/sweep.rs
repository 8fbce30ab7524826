//! Removing what has run out, a bounded batch per commit.

use super::app::App;
use super::commit::Durability;
use super::db::{Space, StorageError};
use super::records::{Session, decode, expiry_token};
use super::tokens;

/// Records removed by one commit.
const BATCH: usize = 512;
/// How long a command's outcome can be polled (protocol reference, E.2).
const COMMANDS_MS: u64 = 24 * 3_600 * 1_000;

type Keys = Vec<Vec<u8>>;

/// Expired reservations and aliases, ended sessions, old command outcomes.
pub(super) async fn expire_records(app: &App, now: u64) -> Result<(), StorageError> {
    let upto = now.saturating_add(1).to_be_bytes().to_vec();
    remove(app, Space::Expiries, move |app| first_keys(app, Space::Expiries, &upto)).await?;
    remove(app, Space::Sessions, move |app| ended_sessions(app, now)).await?;
    // A command id begins with its milliseconds, as 48 bits.
    let upto = now.saturating_sub(COMMANDS_MS).to_be_bytes()[2..].to_vec();
    remove(app, Space::Commands, move |app| first_keys(app, Space::Commands, &upto)).await
}

async fn remove(
    app: &App,
    space: Space,
    find: impl Fn(&App) -> Result<Keys, StorageError>,
) -> Result<(), StorageError> {
    loop {
        let keys = find(app)?;
        let last = keys.len() < BATCH;
        if !keys.is_empty() {
            app.committer
                .run(Durability::Process, move |tx| {
                    for key in keys {
                        match (space, key.first_chunk(), expiry_token(&key)) {
                            (Space::Expiries, Some(at), Some(name)) => {
                                tokens::expire(tx, u64::from_be_bytes(*at), name)?;
                            }
                            _ => tx.remove(space, &key),
                        }
                    }
                    Ok::<_, StorageError>(())
                })
                .await?;
        }
        if last {
            return Ok(());
        }
    }
}

fn first_keys(app: &App, space: Space, upto: &[u8]) -> Result<Keys, StorageError> {
    let range = app.db.keyspace(space).range(..upto.to_vec());
    range.take(BATCH).map(|guard| Ok(guard.key()?.to_vec())).collect()
}

fn ended_sessions(app: &App, now: u64) -> Result<Keys, StorageError> {
    let mut keys = Keys::new();
    for guard in app.db.keyspace(Space::Sessions).iter() {
        let (key, value) = guard.into_inner()?;
        let session: Session = decode(&value)?;
        if session.expires_at <= now {
            keys.push(key.to_vec());
        }
        if keys.len() == BATCH {
            break;
        }
    }
    Ok(keys)
}
