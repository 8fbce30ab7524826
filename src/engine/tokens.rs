//! The life of a data token, as steps of a commit.
//!
//! ```text
//! reserve -> temporary --exchange or upload--> temporary with data --configure--> permanent
//!                |                                      |
//!                +----------- expires ------------------+      permanent --delete--> gone
//! ```
//!
//! Of the two readings of promotion (protocol reference, section A) this is the strict
//! one: only configure-file-meta makes a token permanent, under a new name, and the
//! temporary name stays an alias until it would have expired. An exchanged token that is
//! never configured expires like any other, and is never listed.
//!
//! Invariants: a permanent token has an entry in `Order` and in `Contexts` under its
//! sequence; a temporary token or alias has one in `Expiries`; a payload in the store
//! belongs to exactly one token.

use uuid::Uuid;

use super::commit::{Arrival, Received, Tx};
use super::db::{Records, Space, StorageError};
use super::records::{
    Entry, FileMeta, Payload, RiskMeta, Token, context_key, expiry_key, order_key,
};
use super::refusal::Refusal;
use super::replicas::Holders;
use super::statistics::{self, Transaction};

const MINUTE_MS: u64 = 60_000;

/// What a reservation asks for.
#[derive(Debug)]
pub(super) struct Reservation {
    pub profile: Uuid,
    pub uuid: String,
    pub context: String,
    pub note: Option<String>,
    /// Minutes.
    pub ttl: u32,
}

/// Changes to metadata; `None` leaves a member as it is.
#[derive(Debug, Default)]
pub(super) struct MetaChange {
    pub file_name: Option<String>,
    pub extension: Option<String>,
    pub size: Option<u64>,
    pub path: Option<String>,
    pub context: Option<String>,
    pub data_type: Option<String>,
    pub risk: Option<RiskMeta>,
}

/// A token found under a name, which for an alias is not its own.
#[derive(Debug)]
pub(super) struct Found {
    pub name: String,
    pub token: Token,
}

/// Looks a name up; expired ones are not there.
pub(super) fn find(
    records: &impl Records,
    name: &str,
    now: u64,
) -> Result<Option<Found>, StorageError> {
    let live = |expires_at: u64| expires_at > now;
    match records.load::<Entry>(Space::Tokens, name.as_bytes())? {
        Some(Entry::Token(token)) if token.expires_at.is_none_or(live) => {
            Ok(Some(Found { name: name.to_owned(), token: *token }))
        }
        Some(Entry::Alias { to, expires_at }) if live(expires_at) => {
            match records.load::<Entry>(Space::Tokens, to.as_bytes())? {
                Some(Entry::Token(token)) => Ok(Some(Found { name: to, token: *token })),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// As [`find`], for one profile's own.
pub(super) fn own(
    records: &impl Records,
    profile: Uuid,
    name: &str,
    now: u64,
) -> Result<Found, Refusal> {
    let found = find(records, name, now)?.ok_or(Refusal::NoToken)?;
    if found.token.profile == profile { Ok(found) } else { Err(Refusal::NotOwner) }
}

/// Makes the temporary token `name`.
pub(super) fn reserve(tx: &mut Tx<'_>, name: &str, wanted: Reservation) -> Result<(), Refusal> {
    let expires_at = tx.now + u64::from(wanted.ttl) * MINUTE_MS;
    let token = Token {
        profile: wanted.profile,
        uuid: wanted.uuid,
        sequence: 0,
        created_at: tx.now,
        context: wanted.context,
        note: wanted.note,
        file: None,
        data_type: None,
        risk: None,
        payload: None,
        expires_at: Some(expires_at),
        ttl: wanted.ttl,
    };
    store(tx, name, token)?;
    tx.put_raw(Space::Expiries, &expiry_key(expires_at, name), Vec::new().into());
    Ok(())
}

/// Gives a reserved token its data.
pub(super) fn fill(
    tx: &mut Tx<'_>,
    profile: Uuid,
    name: &str,
    id: Uuid,
    arrival: Arrival,
) -> Result<(), Refusal> {
    let mut found = own(tx, profile, name, tx.now)?;
    if found.token.payload.is_some() {
        return Err(Refusal::AlreadyExchanged);
    }
    let holders = need_storage(tx, profile)?;
    statistics::count(tx, profile, Transaction::Store)?;
    found.token.payload = Some(tx.keep(&holders, id, arrival)?);
    store(tx, &found.name, found.token)?;
    Ok(())
}

/// Lets a temporary token or alias live until `until` and its time to live more; it never
/// lives shorter for it. Others stay as they are.
pub(super) fn prolong(tx: &mut Tx<'_>, name: &str, until: u64) -> Result<(), StorageError> {
    let Some(mut entry) = tx.load::<Entry>(Space::Tokens, name.as_bytes())? else {
        return Ok(());
    };
    let ttl = match &entry {
        Entry::Token(token) => u64::from(token.ttl) * MINUTE_MS,
        Entry::Alias { .. } => 0,
    };
    let expires_at = match &mut entry {
        Entry::Token(token) => token.expires_at.as_mut(),
        Entry::Alias { expires_at, .. } => Some(expires_at),
    };
    let Some(expires_at) = expires_at.filter(|expires_at| **expires_at < until + ttl) else {
        return Ok(());
    };
    tx.remove(Space::Expiries, &expiry_key(*expires_at, name));
    *expires_at = until + ttl;
    tx.put_raw(Space::Expiries, &expiry_key(*expires_at, name), Vec::new().into());
    tx.put(Space::Tokens, name.as_bytes(), &entry)
}

fn need_storage(tx: &Tx<'_>, profile: Uuid) -> Result<Holders, Refusal> {
    let holders = Holders::of(tx, profile)?;
    if holders.is_empty() { Err(Refusal::NoStorage) } else { Ok(holders) }
}

/// Takes the data of a token into the engine's own store again, if the token still has it.
pub(super) fn take_back(
    tx: &mut Tx<'_>,
    name: &str,
    payload: Payload,
    received: Received,
) -> Result<(), StorageError> {
    let Some(Entry::Token(mut token)) = tx.load::<Entry>(Space::Tokens, name.as_bytes())? else {
        return Ok(());
    };
    if token.payload == Some(payload) {
        token.payload = Some(tx.take_back(payload, received)?);
        store(tx, name, *token)?;
    }
    Ok(())
}

/// Sets the file meta and makes the token permanent: under `permanent`, or under its own
/// name if that is `None`. Repeated, it changes the meta only. Returns the lasting name.
pub(super) fn configure(
    tx: &mut Tx<'_>,
    profile: Uuid,
    name: &str,
    file: FileMeta,
    context: String,
    permanent: Option<String>,
) -> Result<String, Refusal> {
    let mut found = own(tx, profile, name, tx.now)?;
    if found.token.payload.is_none() {
        return Err(Refusal::NoData);
    }
    found.token.file = Some(file);
    let Some(expires_at) = found.token.expires_at.take() else {
        move_context(tx, &found.name, &mut found.token, context);
        store(tx, &found.name, found.token)?;
        return Ok(found.name);
    };
    found.token.context = context;
    found.token.created_at = tx.now;
    found.token.sequence = tx.next_sequence();
    let lasting = permanent.unwrap_or_else(|| found.name.clone());
    if lasting == found.name {
        tx.remove(Space::Expiries, &expiry_key(expires_at, &found.name));
    } else {
        let alias = Entry::Alias { to: lasting.clone(), expires_at };
        tx.put(Space::Tokens, found.name.as_bytes(), &alias)?;
    }
    let Token { profile, sequence, .. } = found.token;
    let context_key = context_key(profile, &found.token.context, sequence);
    tx.put_raw(Space::Order, &order_key(profile, sequence), lasting.as_bytes().into());
    tx.put_raw(Space::Contexts, &context_key, lasting.as_bytes().into());
    tx.listed(profile, sequence);
    store(tx, &lasting, found.token)?;
    Ok(lasting)
}

/// Changes the metadata of a token that holds data.
pub(super) fn change(
    tx: &mut Tx<'_>,
    profile: Uuid,
    name: &str,
    change: MetaChange,
) -> Result<(), Refusal> {
    let mut found = own(tx, profile, name, tx.now)?;
    if found.token.payload.is_none() {
        return Err(Refusal::NoData);
    }
    apply(tx, &mut found, change);
    store(tx, &found.name, found.token)?;
    Ok(())
}

/// Replaces the data of a permanent token, and the metadata that is given.
pub(super) fn replace(
    tx: &mut Tx<'_>,
    profile: Uuid,
    name: &str,
    id: Uuid,
    arrival: Arrival,
    change: MetaChange,
) -> Result<(), Refusal> {
    let mut found = own(tx, profile, name, tx.now)?;
    if found.token.expires_at.is_some() {
        return Err(Refusal::Temporary);
    }
    let holders = need_storage(tx, profile)?;
    statistics::count(tx, profile, Transaction::Store)?;
    apply(tx, &mut found, change);
    let old: Option<Payload> = found.token.payload.replace(tx.keep(&holders, id, arrival)?);
    if let Some(old) = old {
        tx.discard(profile, old)?;
    }
    store(tx, &found.name, found.token)?;
    Ok(())
}

fn apply(tx: &mut Tx<'_>, found: &mut Found, change: MetaChange) {
    let named = change.file_name.is_some()
        || change.extension.is_some()
        || change.size.is_some()
        || change.path.is_some();
    if named {
        let file = found.token.file.get_or_insert_with(|| FileMeta {
            file_name: String::new(),
            extension: String::new(),
            size: 0,
            path: "/".to_owned(),
        });
        set(&mut file.file_name, change.file_name);
        set(&mut file.extension, change.extension);
        set(&mut file.size, change.size);
        set(&mut file.path, change.path);
    }
    if change.data_type.is_some() {
        found.token.data_type = change.data_type;
    }
    if change.risk.is_some() {
        found.token.risk = change.risk;
    }
    if let Some(context) = change.context {
        move_context(tx, &found.name, &mut found.token, context);
    }
}

fn set<T>(member: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *member = value;
    }
}

/// Changes a token's context, in the index too if it is there.
fn move_context(tx: &mut Tx<'_>, name: &str, token: &mut Token, context: String) {
    if token.sequence != 0 && token.context != context {
        tx.remove(Space::Contexts, &context_key(token.profile, &token.context, token.sequence));
        let key = context_key(token.profile, &context, token.sequence);
        tx.put_raw(Space::Contexts, &key, name.as_bytes().into());
    }
    token.context = context;
}

/// Removes a permanent token and its data. A temporary one is left to expire.
pub(super) fn delete(tx: &mut Tx<'_>, profile: Uuid, name: &str) -> Result<(), Refusal> {
    let found = own(tx, profile, name, tx.now)?;
    if found.token.expires_at.is_some() {
        return Err(Refusal::NoToken);
    }
    let Token { profile, sequence, context, payload, .. } = found.token;
    tx.remove(Space::Tokens, found.name.as_bytes());
    tx.remove(Space::Order, &order_key(profile, sequence));
    tx.remove(Space::Contexts, &context_key(profile, &context, sequence));
    tx.unlisted(profile, sequence);
    statistics::count(tx, profile, Transaction::Deletion)?;
    if let Some(payload) = payload {
        tx.discard(profile, payload)?;
    }
    Ok(())
}

/// Removes a temporary token or alias whose time is over; a name that was promoted under
/// itself meanwhile stays.
pub(super) fn expire(tx: &mut Tx<'_>, expires_at: u64, name: &str) -> Result<(), StorageError> {
    tx.remove(Space::Expiries, &expiry_key(expires_at, name));
    match tx.load::<Entry>(Space::Tokens, name.as_bytes())? {
        Some(Entry::Token(token)) if token.expires_at == Some(expires_at) => {
            tx.remove(Space::Tokens, name.as_bytes());
            if let Some(payload) = token.payload {
                tx.discard(token.profile, payload)?;
            }
        }
        Some(Entry::Alias { .. }) => tx.remove(Space::Tokens, name.as_bytes()),
        _ => {}
    }
    Ok(())
}

fn store(tx: &mut Tx<'_>, name: &str, token: Token) -> Result<(), StorageError> {
    tx.put(Space::Tokens, name.as_bytes(), &Entry::Token(Box::new(token)))
}
