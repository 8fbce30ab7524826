//! Tolerant reader of token listings (protocol C.4.7, D.2): a bare array or a page
//! object, flat or nested fields, `meta: []` for an empty one.

use serde_json::{Map, Value};

use super::reply::{created, field};
use crate::store::{ListPage, RiskMeta, Token, TokenRecord};

/// Reads a listing; `None` if it has no list at all.
pub(super) fn page(json: &Value) -> Option<ListPage> {
    let (items, more) = items(json)?;
    Some(ListPage { records: items.iter().filter_map(record).collect(), more })
}

/// The items of a page, and whether there may be another page.
pub(super) fn items(json: &Value) -> Option<(&[Value], bool)> {
    let items = json
        .as_array()
        .or_else(|| json.get("items")?.as_array())
        .or_else(|| json.get("data")?.as_array())?;
    let per_page = json.get("meta").and_then(|meta| field(meta, &["perPage", "per_page"]));
    let per_page = per_page.and_then(|text| text.parse::<usize>().ok()).filter(|&n| n > 0);
    // Without a page size only an empty page, or one without news, is known to be the last.
    let more = !items.is_empty() && per_page.is_none_or(|size| items.len() >= size);
    Some((items, more))
}

/// Reads one record; `None` without a token.
fn record(item: &Value) -> Option<TokenRecord> {
    let empty = Value::Object(Map::new());
    let unfolded;
    let meta = match item.get("meta") {
        // Some PHP services keep it as text.
        Some(Value::String(text)) => {
            unfolded = serde_json::from_str(text).unwrap_or(Value::Null);
            &unfolded
        }
        Some(meta) => meta,
        None => &empty,
    };
    let file = meta.get("file").unwrap_or(&empty);
    let either = |name: &str| field(file, &[name]).or_else(|| field(item, &[name]));
    Some(TokenRecord {
        token: Token::new(field(item, &["token"])?),
        context: field(item, &["context"]).unwrap_or_default(),
        file_name: either("fileName"),
        extension: text(file, "extension").or_else(|| text(item, "extension")),
        path: either("path"),
        size: either("size").and_then(|size| size.parse().ok()),
        created: created(item),
        mark: field(item, &["uuid"]),
        data_type: meta.get("data").and_then(|data| field(data, &["type"])),
        risk: meta.get("information_security_risk").and_then(risk),
    })
}

/// A string that may be empty.
fn text(json: &Value, name: &str) -> Option<String> {
    json.get(name)?.as_str().map(str::to_owned)
}

fn risk(json: &Value) -> Option<RiskMeta> {
    let map = json.as_object().filter(|map| !map.is_empty())?;
    let part = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(RiskMeta {
        classification: part("classification"),
        label: part("label"),
        handling: part("handling"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn only(json: Value) -> TokenRecord {
        page(&json).unwrap().records.remove(0)
    }

    #[test]
    fn flat_and_nested_records_read_the_same() {
        let flat = json!({"items": [{
            "token": "t", "context": "a/b", "fileName": "n.txt", "extension": "txt",
            "size": 39, "createdAt": "1970-01-01T00:00:01Z", "path": "/", "uuid": "m"
        }], "meta": {"count": 1, "page": 1, "perPage": 25}});
        let nested = json!([{
            "uuid": "m", "createdAt": "1970-01-01T01:00:01+01:00", "profile": "p",
            "context": "a/b", "token": "t", "meta": {
                "file": {"fileName": "n.txt", "extension": "txt", "size": "39", "path": "/"},
                "data": {"type": "file"}
            }
        }]);
        let nested = only(nested);
        assert_eq!(nested.data_type.as_deref(), Some("file"), "the flat form has none");
        assert_eq!(only(flat.clone()), TokenRecord { data_type: None, ..nested });
        let record = only(flat);
        assert_eq!(record.size, Some(39));
        assert_eq!(record.mark.as_deref(), Some("m"));
        assert!(record.created.is_some() && record.risk.is_none());
    }

    #[test]
    fn nested_fields_win_and_risk_is_read() {
        let record = only(json!({"data": [{
            "token": "t", "fileName": "flat", "extension": "x",
            "meta": {"file": {"fileName": "nested", "extension": ""},
                     "information_security_risk": {"classification": "internal", "label": "l"}}
        }]}));
        assert_eq!(record.file_name.as_deref(), Some("nested"));
        assert_eq!(record.extension.as_deref(), Some(""));
        let risk = record.risk.unwrap();
        assert_eq!((risk.classification.as_str(), risk.handling.as_str()), ("internal", ""));
    }

    #[test]
    fn an_empty_meta_may_be_an_array_a_null_or_missing() {
        for meta in [json!([]), json!({}), json!(null), json!("")] {
            let record = only(json!([{"token": "t", "context": "c", "meta": meta}]));
            assert_eq!((record.file_name, record.risk), (None, None));
        }
        let record =
            only(json!([{"token": "t", "meta": {"file": [], "information_security_risk": []}}]));
        assert_eq!((record.file_name, record.risk), (None, None));
    }

    #[test]
    fn the_end_of_a_listing_is_known_by_the_returned_page_size() {
        let of = |n: usize| (0..n).map(|i| json!({"token": i.to_string()})).collect::<Vec<_>>();
        let table = [
            (json!({"items": of(25), "meta": {"perPage": 25}}), true),
            (json!({"items": of(24), "meta": {"perPage": 25}}), false),
            (json!({"items": of(24), "meta": {"perPage": "24"}}), true),
            (json!({"items": of(3)}), true),
            (json!({"items": [], "meta": {"perPage": 25}}), false),
            (json!(of(3)), true),
            (json!([]), false),
        ];
        for (json, more) in table {
            assert_eq!(page(&json).unwrap().more, more, "{json}");
        }
        assert!(page(&json!({"message": "no"})).is_none());
        assert!(page(&json!([{"context": "without token"}])).unwrap().records.is_empty());
    }
}
