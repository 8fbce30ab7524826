//! What an access token may do: the vocabulary of C.2.
//!
//! A call's own scope is `<area>.<call>`, both taken from its path: `/data-token/request-data`
//! is `data_token.request_data`. It is covered by itself, by `<area>.all` and by `all`.

use crate::protocol::oauth::{self, SCOPE_ALL, SCOPE_AREAS};
use crate::protocol::{old_path, path};

/// Whether a text is in the vocabulary.
pub(super) fn is_scope(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    text == SCOPE_ALL
        || text.split_once('.').is_some_and(|(area, call)| {
            SCOPE_AREAS.contains(&area) && !call.is_empty() && call.bytes().all(is_word)
        })
}

/// Whether `scopes` include a scope.
pub(super) fn cover(scopes: &[String], wanted: &str) -> bool {
    let area = wanted.split_once('.').map(|(area, _)| area);
    let covers = |scope: &String| {
        scope == SCOPE_ALL
            || scope == wanted
            || (area.is_some() && scope.strip_suffix(".all") == area)
    };
    scopes.iter().any(covers)
}

/// Whether a token with `scopes` may make the call of a route. What concerns the token
/// itself needs no scope.
pub(super) fn allow(scopes: &[String], route: &str) -> bool {
    const OWN: [&str; 4] = [path::SCOPE, path::EXPIRY, old_path::EXPIRY, path::REVOKE];
    OWN.contains(&route) || cover(scopes, &of_route(route))
}

fn of_route(route: &str) -> String {
    const OAUTH: [&str; 4] =
        [oauth::REGISTER, oauth::CONFIGURATION, oauth::REQUEST_CODE, oauth::LIST];
    let mut segments = route.trim_start_matches('/').split('/');
    let (area, call) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let area = match route {
        path::ENGINE_KEY => "public_key",
        _ if OAUTH.contains(&route) => "oauth",
        _ => area,
    };
    format!("{area}.{call}").replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(|scope| (*scope).to_owned()).collect()
    }

    #[test]
    fn the_vocabulary() {
        for scope in ["all", "data_token.all", "storage.register", "voting.create_pool"] {
            assert!(is_scope(scope), "{scope}");
        }
        for scope in ["", "All", "data_token", "data_token.", "data-token:read", "files.all"] {
            assert!(!is_scope(scope), "{scope}");
        }
    }

    #[test]
    fn a_call_is_covered_by_itself_its_area_and_all() {
        let table = [
            (path::REQUEST_DATA, "data_token.request_data", true),
            (path::REQUEST_DATA, "data_token.list_data_tokens", false),
            ("/data-token/retrieve-temporary-data-token/{id}", "data_token.all", true),
            (path::STORAGE_LIST, "storage.list_storage_devices", true),
            (path::STORAGE_LIST, "data_token.all", false),
            (path::ENGINE_KEY, "public_key.all", true),
            (oauth::LIST, "oauth.all", true),
            (oauth::LIST, "profile.all", false),
            (path::PROFILE_ID, "profile.all", true),
            (path::EXPIRY, "voting.all", true),
            ("", "data_token.all", false),
            (path::DELETE, "all", true),
        ];
        for (route, scope, allowed) in table {
            assert_eq!(allow(&owned(&[scope]), route), allowed, "{route} {scope}");
        }
        assert!(!allow(&[], path::DELETE));
        assert!(cover(&owned(&["data_token.all"]), "data_token.all"));
        assert!(!cover(&owned(&["data_token.request_data"]), "data_token.all"));
        assert!(!cover(&owned(&["data_token.all"]), SCOPE_ALL));
    }
}
