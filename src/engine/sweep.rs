//! Removing what has run out, a bounded batch per commit.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::app::App;
use super::commit::{Durability, Tx};
use super::db::{Space, StorageError};
use super::records::{Session, decode, expiry_token};
use super::{oauth, pools, tokens};

/// Records removed by one commit.
const BATCH: usize = 512;
/// How long a command's outcome can be polled (protocol reference, E.2).
const COMMANDS_MS: u64 = 24 * 3_600 * 1_000;

/// Removed bytes that are worth a compaction.
const RECLAIM_BYTES: u64 = 64 << 20;

type Keys = Vec<Vec<u8>>;

/// Expired reservations and aliases, pools whose time is over, ended sessions and OAuth
/// grants, old command outcomes. Nothing that ran out before `since` is left, so the search
/// starts there and does not walk over what earlier sweeps removed.
pub(super) async fn expire_records(
    app: &Arc<App>,
    since: u64,
    now: u64,
) -> Result<(), StorageError> {
    let key = |at: u64| at.to_be_bytes().to_vec();
    let (from, upto) = (key(since), key(now.saturating_add(1)));
    remove(app, Space::Expiries, move |app| keys(app, Space::Expiries, &from, &upto)).await?;
    let (from, upto) = (key(since), key(now.saturating_add(1)));
    remove(app, Space::PoolTimes, move |app| keys(app, Space::PoolTimes, &from, &upto)).await?;
    let session_end = |session: &Session| session.expires_at;
    remove(app, Space::Sessions, ended(Space::Sessions, now, session_end)).await?;
    let request_end = |request: &oauth::Request| request.expires_at;
    remove(app, Space::OauthRequests, ended(Space::OauthRequests, now, request_end)).await?;
    let code_end = |code: &oauth::Code| code.expires_at;
    remove(app, Space::OauthCodes, ended(Space::OauthCodes, now, code_end)).await?;
    let pair_end = |pair: &oauth::Access| pair.refresh_expires_at;
    remove(app, Space::OauthAccess, ended(Space::OauthAccess, now, pair_end)).await?;
    // A command id begins with its milliseconds, as 48 bits.
    let key = |at: u64| at.saturating_sub(COMMANDS_MS).to_be_bytes()[2..].to_vec();
    let (from, upto) = (key(since), key(now));
    remove(app, Space::Commands, move |app| keys(app, Space::Commands, &from, &upto)).await
}

/// Gives disk space back once enough small payloads have been removed.
pub(super) async fn reclaim(app: &Arc<App>) -> Result<(), StorageError> {
    let Some(bytes) = app.committer.take_removed(RECLAIM_BYTES) else { return Ok(()) };
    let db = Arc::clone(&app.db);
    let work = tokio::task::spawn_blocking(move || db.reclaim());
    work.await.map_err(|_| StorageError::Stopped)??;
    tracing::debug!(bytes, "space of removed payloads reclaimed");
    Ok(())
}

/// Removes what `find` finds, until it finds no more.
async fn remove(
    app: &Arc<App>,
    space: Space,
    find: impl Fn(&App) -> Result<Keys, StorageError> + Clone + Send + 'static,
) -> Result<(), StorageError> {
    loop {
        let keys = {
            let (app, find) = (Arc::clone(app), find.clone());
            tokio::task::spawn_blocking(move || find(&app))
        };
        let keys = keys.await.map_err(|_| StorageError::Stopped)??;
        let last = keys.len() < BATCH;
        if !keys.is_empty() {
            let step = move |tx: &mut Tx<'_>| keys.iter().try_for_each(|k| drop_one(tx, space, k));
            app.committer.run(Durability::Process, step).await?;
        }
        if last {
            return Ok(());
        }
    }
}

fn drop_one(tx: &mut Tx<'_>, space: Space, key: &[u8]) -> Result<(), StorageError> {
    match (space, key.first_chunk(), expiry_token(key)) {
        (Space::Expiries, Some(at), Some(name)) => {
            tokens::expire(tx, u64::from_be_bytes(*at), name)
        }
        (Space::PoolTimes, ..) => pools::due(tx, key),
        _ => {
            tx.remove(space, key);
            Ok(())
        }
    }
}

/// Keys of a space from `from` to below `upto`.
fn keys(app: &App, space: Space, from: &[u8], upto: &[u8]) -> Result<Keys, StorageError> {
    let mut keys = Keys::new();
    for item in app.db.view().from(space, &[], from).take(BATCH) {
        let (key, _) = item?;
        if key.as_slice() >= upto {
            break;
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Finds keys of a space whose records have ended, by looking at all of them: there are
/// few of each kind.
fn ended<T: DeserializeOwned>(
    space: Space,
    now: u64,
    end: impl Fn(&T) -> u64 + Clone + Send + 'static,
) -> impl Fn(&App) -> Result<Keys, StorageError> + Clone + Send + 'static {
    move |app| {
        let mut keys = Keys::new();
        for item in app.db.view().from(space, &[], &[]) {
            let (key, value) = item?;
            if end(&decode(&value)?) <= now {
                keys.push(key);
            }
            if keys.len() == BATCH {
                break;
            }
        }
        Ok(keys)
    }
}
