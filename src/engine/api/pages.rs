//! Pages of listings (C.4.7, D.2): which one is asked for, and its outer form.

use axum::response::Response;
use serde_json::{Value, json};

use super::params::Fields;
use super::reply;
use crate::engine::app::App;
use crate::engine::refusal::Refusal;
use crate::engine::shape::ListForm;
use crate::protocol::{LIST_PAGE_DEFAULT, LIST_PAGE_LIMIT};

/// `page`, from 1, and `perPage`, at most the limit.
pub(super) fn bounds(fields: &Fields) -> Result<(usize, usize), Refusal> {
    let positive = |name, default: usize| match fields.number(name)? {
        Some(0) => Err(Refusal::parameter(name, "this value should be positive")),
        Some(n) => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        None => Ok(default),
    };
    Ok((positive("page", 1)?, positive("perPage", LIST_PAGE_DEFAULT)?.min(LIST_PAGE_LIMIT)))
}

/// The page asked for of a listing that is at hand.
pub(super) fn page(app: &App, fields: &Fields, items: &[Value]) -> Result<Response, Refusal> {
    let (page, per_page) = bounds(fields)?;
    let skip = (page - 1).saturating_mul(per_page).min(items.len());
    let end = skip.saturating_add(per_page).min(items.len());
    Ok(shown(app, &items[skip..end], items.len(), (page, per_page)))
}

/// One page, of `count` items on all, in the form in force.
pub(super) fn shown(
    app: &App,
    items: &[Value],
    count: usize,
    (page, per_page): (usize, usize),
) -> Response {
    if app.shape.read().list == ListForm::Array {
        return reply::ok(&json!(items));
    }
    let meta = json!({ "count": count, "page": page, "perPage": per_page });
    reply::ok(&json!({ "items": items, "meta": meta }))
}
