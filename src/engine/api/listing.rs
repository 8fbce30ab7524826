//! C.4.7: pages of a profile's permanent tokens, oldest first, with exact-match filters.
//!
//! A page is read from one snapshot of the database, so it is never short because of a
//! change that happens meanwhile. Without a filter its first token is found through the
//! in-memory order; with a context filter through the context index; other filters scan.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use fjall::Slice;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::pages;
use super::params::{Caller, Fields, scan};
use crate::engine::app::App;
use crate::engine::commit::Durability;
use crate::engine::db::{Item, Records, Space, StorageError, View};
use crate::engine::records::{Entry, Token, context_prefix, order_key};
use crate::engine::refusal::Refusal;
use crate::engine::shape::ListItems;
use crate::engine::time::rfc3339;

/// What a listing asks for.
struct Asked {
    profile: Uuid,
    page: usize,
    per_page: usize,
    file_name: Option<String>,
    extension: Option<String>,
    data_type: Option<String>,
    context: Option<String>,
    token: Option<String>,
}

/// Tokens of one page, and how many there are on all.
type Page = (Vec<(String, Token)>, usize);

/// `GET /data-token/list-data-tokens`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let asked = Asked::read(caller.profile, &Fields::of_query(query.as_deref()))?;
    let (page, per_page) = (asked.page, asked.per_page);
    let (items, count) = match asked.is_unfiltered() {
        true => ordered(&app, asked).await?,
        false => {
            let app = Arc::clone(&app);
            scan(move || filtered(&app.db.view(), &asked)).await?
        }
    };
    let form = app.shape.read().items;
    let shown = items.iter().map(|(name, token)| of_form(form, item(name, token)));
    let items: Vec<Value> = shown.collect();
    Ok(pages::shown(&app, &items, count, (page, per_page)))
}

impl Asked {
    fn read(profile: Uuid, fields: &Fields) -> Result<Self, Refusal> {
        let (page, per_page) = pages::bounds(fields)?;
        let filter = |name: &str| fields.get(&format!("filters[{name}]")).map(str::to_owned);
        Ok(Self {
            profile,
            page,
            per_page,
            file_name: filter("meta.file.fileName"),
            extension: filter("meta.file.extension"),
            data_type: filter("meta.data.type"),
            context: filter("context"),
            token: filter("token"),
        })
    }

    fn skip(&self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// Whether a record has to be read to know if it matches.
    fn reads_meta(&self) -> bool {
        self.file_name.is_some() || self.extension.is_some() || self.data_type.is_some()
    }

    fn is_unfiltered(&self) -> bool {
        !self.reads_meta() && self.context.is_none() && self.token.is_none()
    }

    fn matches(&self, token: &Token) -> bool {
        let same = |wanted: &Option<String>, found: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == found)
        };
        let file = token.file.as_ref();
        token.profile == self.profile
            && same(&self.file_name, file.map(|file| &file.file_name))
            && same(&self.extension, file.map(|file| &file.extension))
            && same(&self.data_type, token.data_type.as_ref())
            && same(&self.context, Some(&token.context))
    }
}

async fn ordered(app: &Arc<App>, asked: Asked) -> Result<Page, Refusal> {
    let place = app.listings.page(asked.profile, asked.skip(), 1);
    let (first, count) = match place {
        Some(place) => place,
        None => build(app, &asked).await?,
    };
    let Some(first) = first.first().copied() else { return Ok((Vec::new(), count)) };
    let app = Arc::clone(app);
    let page = scan(move || {
        let view = app.db.view();
        let from = order_key(asked.profile, first);
        let names = values(view.from(Space::Order, asked.profile.as_bytes(), &from));
        load(&view, names.take(asked.per_page))
    });
    Ok((page.await?, count))
}

/// Builds a profile's order on the committer, so that no change is missed.
async fn build(app: &Arc<App>, asked: &Asked) -> Result<(Vec<u64>, usize), Refusal> {
    let (db, listings) = (Arc::clone(&app.db), Arc::clone(&app.listings));
    let (profile, skip) = (asked.profile, asked.skip());
    app.committer
        .run(Durability::Process, move |_| {
            if listings.page(profile, skip, 1).is_none() {
                listings.build(&db, profile)?;
            }
            Ok::<_, Refusal>(())
        })
        .await?;
    Ok(app.listings.page(profile, skip, 1).unwrap_or_default())
}

fn filtered(view: &View<'_>, asked: &Asked) -> Result<Page, Refusal> {
    if let Some(name) = &asked.token {
        let found = permanent(view, name)?.filter(|token| asked.matches(token));
        let found: Vec<_> = found.map(|token| (name.clone(), token)).into_iter().collect();
        let count = found.len();
        return Ok((found.into_iter().skip(asked.skip()).collect(), count));
    }
    let (space, prefix) = match &asked.context {
        Some(context) => (Space::Contexts, context_prefix(asked.profile, context)),
        None => (Space::Order, asked.profile.as_bytes().to_vec()),
    };
    let names = values(view.from(space, &prefix, &prefix));
    if !asked.reads_meta() {
        let items = load(view, names.skip(asked.skip()).take(asked.per_page))?;
        return Ok((items, view.count(space, &prefix)?));
    }
    let (mut items, mut count) = (Vec::new(), 0);
    for name in names {
        let name = text(&name?)?;
        let Some(token) = permanent(view, &name)?.filter(|token| asked.matches(token)) else {
            continue;
        };
        if count >= asked.skip() && items.len() < asked.per_page {
            items.push((name, token));
        }
        count += 1;
    }
    Ok((items, count))
}

fn values(
    items: impl Iterator<Item = Result<Item, StorageError>>,
) -> impl Iterator<Item = Result<Slice, StorageError>> {
    items.map(|item| item.map(|(_, value)| value))
}

fn load(
    view: &View<'_>,
    names: impl Iterator<Item = Result<Slice, StorageError>>,
) -> Result<Vec<(String, Token)>, Refusal> {
    let mut items = Vec::new();
    for name in names {
        let name = text(&name?)?;
        let token = permanent(view, &name)?.ok_or(StorageError::Record)?;
        items.push((name, token));
    }
    Ok(items)
}

fn text(name: &[u8]) -> Result<String, StorageError> {
    std::str::from_utf8(name).map(str::to_owned).map_err(|_| StorageError::Record)
}

fn permanent(view: &View<'_>, name: &str) -> Result<Option<Token>, StorageError> {
    let entry: Option<Entry> = view.load(Space::Tokens, name.as_bytes())?;
    Ok(entry.and_then(|entry| match entry {
        Entry::Token(token) if token.expires_at.is_none() => Some(*token),
        _ => None,
    }))
}

/// An item with the members that a form has.
fn of_form(form: ListItems, item: Value) -> Value {
    let names: &[&str] = match form {
        ListItems::Union => return item,
        ListItems::Flat => &["token", "context", "fileName", "extension", "size", "createdAt"],
        ListItems::Nested => &["uuid", "createdAt", "profile", "context", "token", "meta"],
    };
    names.iter().map(|&name| (name.to_owned(), item[name].clone())).collect()
}

/// The union of the documented item shapes: nested `meta`, and flat members beside it.
fn item(name: &str, token: &Token) -> Value {
    let mut meta = Map::new();
    if let Some(file) = &token.file {
        let file = json!({
            "fileName": file.file_name, "extension": file.extension,
            "size": file.size, "path": file.path,
        });
        meta.insert("file".to_owned(), file);
    }
    if let Some(kind) = &token.data_type {
        meta.insert("data".to_owned(), json!({ "type": kind }));
    }
    if let Some(risk) = &token.risk {
        let risk = json!({
            "classification": risk.classification, "label": risk.label,
            "handling": risk.handling,
        });
        meta.insert("information_security_risk".to_owned(), risk);
    }
    // An empty PHP array, as the vendor's own engine writes it.
    let meta = if meta.is_empty() { json!([]) } else { Value::Object(meta) };
    let file = token.file.as_ref();
    json!({
        "uuid": token.uuid,
        "createdAt": rfc3339(token.created_at),
        "profile": token.profile,
        "context": token.context,
        "token": name,
        "meta": meta,
        "fileName": file.map(|file| &file.file_name),
        "extension": file.map(|file| &file.extension),
        "size": file.map(|file| file.size),
    })
}
