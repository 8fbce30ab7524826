//! Commands on stored tokens: delete, file meta, risk meta, listing.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::client::Client;
use super::holds::{Key, Outcome};
use super::listing;
use super::transport::{Call, encode};
use crate::protocol::{INLINE_CLIENT_LIMIT, path};
use crate::store::{
    Download, FileMeta, ListFilter, ListPage, Payload, RiskMeta, Store, StoreError, StoreErrorKind,
    StoreResult, Token,
};

/// Page size for services that refuse a larger one (C.4.7).
const SMALL_PAGE: u32 = 25;

/// Changes of file meta; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaChange {
    /// Display name.
    pub file_name: Option<String>,
    /// Extension without the dot.
    pub extension: Option<String>,
    /// Context.
    pub context: Option<String>,
}

#[async_trait]
impl Store for Client {
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token> {
        if mark.is_empty() {
            // Nothing by which it could be resumed: a vote is waited for as long as for any
            // acknowledgement.
            let stored = self.store(meta, mark, payload).await;
            return stored.map_err(|error| named(error, &meta.file_name));
        }
        let (client, key) = (self.shared("put")?, Key::Put(mark.to_owned()));
        let (meta, mark, name) = (meta.clone(), mark.to_owned(), meta.file_name.as_str());
        let work = async move { client.store(&meta, &mark, payload).await.map(Outcome::Stored) };
        match self.unless_held(key, "put", name, work).await {
            Ok(Outcome::Stored(token)) => Ok(token),
            other => Err(unexpected("put", other)).map_err(|error| named(error, name)),
        }
    }

    async fn get(&self, token: &Token) -> StoreResult<Download> {
        let (client, wanted) = (self.shared("get")?, token.clone());
        let work = async move { client.fetch(&wanted).await.map(Outcome::Fetched) };
        match self.unless_held(Key::Get(token.clone()), "get", token.as_str(), work).await {
            Ok(Outcome::Fetched(download)) => Ok(download),
            other => Err(unexpected("get", other)).map_err(|error| named(error, token.as_str())),
        }
    }

    async fn delete(&self, token: &Token) -> StoreResult<()> {
        let (client, victim) = (self.shared("delete")?, token.clone());
        let work = async move { client.remove(&victim).await };
        self.simple(Key::Delete(token.clone()), "delete", token, work).await
    }

    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()> {
        let change = MetaChange {
            file_name: Some(meta.file_name.clone()),
            extension: Some(meta.extension.clone()),
            context: Some(meta.context.clone()),
        };
        let (client, victim) = (self.shared("update-meta")?, token.clone());
        let work = async move { client.change_meta(&victim, &change).await };
        self.simple(Key::Meta(token.clone()), "update-meta", token, work).await
    }

    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()> {
        let fields = [
            ("token", token.as_str()),
            ("classification", &risk.classification),
            ("label", &risk.label),
            ("handling", &risk.handling),
        ];
        let call = Call::form("set-risk", path::CONFIGURE_RISK, &fields);
        let client = self.shared("set-risk")?;
        let work = async move { client.command(&call).await.map(drop) };
        self.simple(Key::Risk(token.clone()), "set-risk", token, work).await
    }

    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        self.list_page(filter, page).await
    }

    fn clock(&self) -> Option<u64> {
        self.wire.clock()
    }
}

/// The error of an operation that did not give what it is for.
fn unexpected(operation: &'static str, result: StoreResult<Outcome>) -> StoreError {
    match result {
        Err(error) => error,
        Ok(_) => {
            StoreError::new(StoreErrorKind::Protocol, operation, "the outcome of another call")
        }
    }
}

fn named(error: StoreError, victim: &str) -> StoreError {
    if error.target.is_none() { error.on(victim) } else { error }
}

impl Client {
    /// An operation on a token that gives nothing.
    async fn simple(
        &self,
        key: Key,
        operation: &'static str,
        token: &Token,
        work: impl Future<Output = StoreResult<()>> + Send + 'static,
    ) -> StoreResult<()> {
        let work = async move { work.await.map(|()| Outcome::Done) };
        let done = self.unless_held(key, operation, token.as_str(), work).await;
        done.map(drop).map_err(|error| named(error, token.as_str()))
    }

    /// Deletes; a token that is not there is deleted. Repeating is safe (E.2).
    async fn remove(&self, token: &Token) -> StoreResult<()> {
        let call = Call::form("delete", path::DELETE, &[("token", token.as_str())]);
        match self.command(&call).await.map(drop) {
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
            // A rejection learned by polling has no text: it may mean "not found" (C.4.11).
            Err(error) if error.kind == StoreErrorKind::Denied => {
                if self.is_gone(token).await.unwrap_or(false) { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    /// Whether the listing says that there is no such token.
    async fn is_gone(&self, token: &Token) -> StoreResult<bool> {
        let filter = ListFilter { token: Some(token.clone()), ..ListFilter::default() };
        Ok(crate::store::list_all(self, &filter).await?.is_empty())
    }

    /// Replaces what a token holds, keeping the token, with file meta and a type of the data
    /// (the JSON variant of C.4.8, which alone takes a type). `TooLarge` for what does not
    /// go inline: the call has no streamed form.
    pub async fn replace(
        &self,
        token: &Token,
        meta: &FileMeta,
        data_type: &str,
        sealed: &[u8],
    ) -> StoreResult<()> {
        const REPLACE: &str = "replace";
        if sealed.len() > INLINE_CLIENT_LIMIT {
            let what = format!("{} sealed bytes are more than go inline", sealed.len());
            return Err(StoreError::new(StoreErrorKind::TooLarge, REPLACE, what).on(token));
        }
        let file = json!({
            "fileName": meta.file_name, "extension": meta.extension,
            "size": meta.size, "path": meta.path,
        });
        // Complete, because the call may replace all of it (D.3).
        let meta = json!({ "file": file, "data": { "type": data_type } });
        let body =
            json!({ "dataToken": token.as_str(), "data": STANDARD.encode(sealed), "meta": meta });
        let call = Call::json(REPLACE, path::UPDATE_DATA, &body);
        self.command(&call).await.map(drop).map_err(|error| named(error, token.as_str()))
    }

    /// Changes file meta by the form call; a service without it is remembered (D.3).
    pub async fn change_meta(&self, token: &Token, change: &MetaChange) -> StoreResult<()> {
        const UPDATE: &str = "update-meta";
        let known = &self.learned.update_meta;
        let mut fields = vec![("token", token.as_str())];
        fields.extend(change.file_name.iter().map(|v| ("fileName", v.as_str())));
        fields.extend(change.extension.iter().map(|v| ("extension", v.as_str())));
        fields.extend(change.context.iter().map(|v| ("context", v.as_str())));
        if !known.no() {
            let reply = self.command_reply(&Call::form(UPDATE, path::UPDATE_META, &fields)).await?;
            let absent = match reply.status {
                405 | 501 => true,
                // A missing route and a missing record are both 404 (B.4).
                404 => !known.yes() && !self.is_gone(token).await?,
                _ => false,
            };
            if reply.is_success() {
                known.set(true);
                return Ok(());
            }
            if !absent {
                return Err(self.error(&reply, UPDATE));
            }
            known.set(false);
        }
        let what = "the service cannot change file meta";
        Err(StoreError::new(StoreErrorKind::Unsupported, UPDATE, what))
    }

    async fn list_page(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage> {
        loop {
            let per_page = self.learned.per_page.load(Ordering::Relaxed);
            let filtered = !self.learned.filters.no() && *filter != ListFilter::default();
            let mut call = Call::get("list", path::LIST);
            call.query = Some(list_query(filtered.then_some(filter), page, per_page));
            let reply = self.call(&call).await?;
            if reply.is_success() {
                if filtered {
                    self.learned.filters.set(true);
                }
                let json = reply.json().and_then(|json| listing::page(&json));
                return json.ok_or_else(|| {
                    StoreError::new(StoreErrorKind::Protocol, "list", "a reply without a list")
                });
            }
            if reply.status == 422 && per_page != SMALL_PAGE {
                self.learned.per_page.store(SMALL_PAGE, Ordering::Relaxed);
            } else if reply.status == 422 && filtered && !self.learned.filters.yes() {
                self.learned.filters.set(false);
            } else {
                return Err(self.error(&reply, "list"));
            }
        }
    }
}

fn list_query(filter: Option<&ListFilter>, page: u32, per_page: u32) -> String {
    let (page, per_page) = (page.to_string(), per_page.to_string());
    let mut fields = vec![("page", page.as_str()), ("perPage", per_page.as_str())];
    if let Some(filter) = filter {
        fields.extend(filter.context.iter().map(|v| ("filters[context]", v.as_str())));
        fields.extend(filter.file_name.iter().map(|v| ("filters[meta.file.fileName]", v.as_str())));
        let extension = filter.extension.iter();
        fields.extend(extension.map(|v| ("filters[meta.file.extension]", v.as_str())));
        fields.extend(filter.data_type.iter().map(|v| ("filters[meta.data.type]", v.as_str())));
        fields.extend(filter.token.iter().map(|v| ("filters[token]", v.as_str())));
    }
    encode(&fields)
}
