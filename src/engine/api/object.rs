//! Bodies that are objects: JSON, or the form that some of these calls once took (C.12).

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::params::{Fields, Json, TEXT_BYTES};
use crate::engine::app::App;
use crate::engine::refusal::Refusal;

/// Most entries of an array.
const ENTRIES: usize = 1_000;

/// The members of a body. In a form, `name[]` is an entry of an array and `name[member]`
/// a member of an object. `null` is as good as absent.
#[derive(Debug)]
pub(super) struct Object(Map<String, Value>);

impl FromRequest<Arc<App>> for Object {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let header = request.headers().get(CONTENT_TYPE);
        let kind = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let form = kind.starts_with("application/x-www-form-urlencoded")
            || kind.starts_with("multipart/form-data");
        if form {
            return Ok(Self::of_form(&Fields::from_request(request, app).await?));
        }
        Ok(Self(Json::from_request(request, app).await?.0))
    }
}

impl Object {
    fn of_form(fields: &Fields) -> Self {
        let mut members = Map::new();
        for (name, value) in fields.all() {
            match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
                Some((array, "")) => {
                    let entries = members.entry(array).or_insert_with(|| json!([]));
                    if let Value::Array(entries) = entries {
                        entries.push(json!(value));
                    }
                }
                Some((object, member)) => {
                    let entries = members.entry(object).or_insert_with(|| json!({}));
                    if let Value::Object(entries) = entries {
                        entries.insert(member.to_owned(), json!(value));
                    }
                }
                None => {
                    members.insert(name.to_owned(), json!(value));
                }
            }
        }
        Self(members)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A bounded text, if it was sent.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        self.get(name).map(|value| text(name, value)).transpose()
    }

    /// A text that must be sent and say something.
    pub(super) fn required(&self, name: &'static str) -> Result<String, Refusal> {
        let missing = || Refusal::parameter(name, "this field is missing");
        let value = self.text(name)?.ok_or_else(missing)?;
        if value.is_empty() {
            return Err(Refusal::parameter(name, "this value should not be blank"));
        }
        Ok(value)
    }

    /// A whole number, if it was sent; digits in a text will do.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let wrong = || Refusal::parameter(name, "this value should be an integer");
        let read = |value: &Value| match value {
            Value::String(text) => text.parse().map_err(|_| wrong()),
            other => other.as_u64().ok_or_else(wrong),
        };
        self.get(name).map(read).transpose()
    }

    /// Texts in a row, if they were sent.
    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || Refusal::parameter(name, "this value should be an array of texts");
        let entries = value.as_array().ok_or_else(wrong)?;
        if entries.len() > ENTRIES {
            return Err(Refusal::parameter(name, "too many entries"));
        }
        let read = |value: &Value| text(name, value).map_err(|_| wrong());
        entries.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// The texts of an object, if it was sent.
    pub(super) fn members(
        &self,
        name: &'static str,
    ) -> Result<Option<Vec<(String, String)>>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || Refusal::parameter(name, "this value should be an object of texts");
        let members = value.as_object().ok_or_else(wrong)?.iter();
        let read = |(key, value): (&String, &Value)| {
            text(name, value).map(|value| (key.clone(), value)).map_err(|_| wrong())
        };
        members.map(read).collect::<Result<_, _>>().map(Some)
    }
}

fn text(name: &'static str, value: &Value) -> Result<String, Refusal> {
    match value.as_str() {
        Some(text) if text.len() > TEXT_BYTES => Err(Refusal::parameter(name, "too long")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Refusal::parameter(name, "this value should be a text")),
    }
}
