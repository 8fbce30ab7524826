//! The client's calls of the OAuth chain and of the statistics, against the engine.

use std::time::{Duration, SystemTime};

use privicorefs::engine::{Fault, ListForm, Shape, When};
use privicorefs::privicore::{Client, OauthCredentials, TransactionCounts};
use privicorefs::protocol::{oauth, path};
use privicorefs::store::{Store, StoreErrorKind, StoreResult};

use crate::house::Connected;
use crate::house::conformance::{content, fetch, put};

const HOOK: &str = "https://app.example.com/hook";

async fn registered(client: &Client, scopes: &[&str]) -> OauthCredentials {
    let id = client.register_oauth_application("reader", HOOK, scopes).await.unwrap();
    client.oauth_configuration(&id).await.unwrap()
}

fn kind<T: std::fmt::Debug>(outcome: StoreResult<T>) -> StoreErrorKind {
    outcome.unwrap_err().kind
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_leads_to_a_pair_that_is_refreshed() {
    for list in [ListForm::Items, ListForm::Array] {
        let connected = Connected::with(Shape { list, ..Shape::default() }).await;
        let client = &*connected.client;
        let scopes = ["data_token.all", "profile.all"];
        let application = registered(client, &scopes).await;
        let listed = client.oauth_applications().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "reader");
        assert_eq!(listed[0].scopes, scopes);
        assert_eq!(listed[0].client_id.as_ref(), Some(&application.client_id));
        assert_eq!(listed[0].redirect_uri.as_deref(), Some(HOOK));

        let wanted = ["profile.all"];
        let id = client.request_authorization_code(&application.client_id, "n", &wanted).await;
        let code = client.authorization_code(&application, &id.unwrap(), "n").await.unwrap();
        let pair = client.access_token(&application, &code).await.unwrap();
        assert_eq!(pair.scopes, wanted);
        let life = pair.expires.unwrap().duration_since(SystemTime::UNIX_EPOCH);
        assert!(life.unwrap() > Duration::ZERO && pair.refresh_expires > pair.expires);
        assert_eq!(client.access_token_scopes(&pair.token).await.unwrap(), wanted);
        let new = client.refresh_access_token(&pair).await.unwrap();
        assert_eq!(new.scopes, wanted);
        let dead = client.access_token_scopes(&pair.token).await;
        assert_eq!(kind(dead), StoreErrorKind::Unauthenticated);
        assert_eq!(kind(client.refresh_access_token(&pair).await), StoreErrorKind::Unauthenticated);
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_application_of_a_long_list_is_seen_once() {
    for list in [ListForm::Items, ListForm::Array] {
        let connected = Connected::with(Shape { list, ..Shape::default() }).await;
        let register = |_| async {
            connected.client.register_oauth_application("one", HOOK, &[]).await.unwrap()
        };
        let mut ids = futures_util::future::join_all((0..101).map(register)).await;
        let listed = connected.client.oauth_applications().await.unwrap();
        let mut found: Vec<_> = listed.into_iter().map(|application| application.id).collect();
        ids.sort();
        found.sort();
        assert_eq!(found, ids);
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_apart() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let bad = client.register_oauth_application("n", "nowhere", &[]).await.unwrap_err();
    assert_eq!(bad.kind, StoreErrorKind::Invalid);
    assert!(bad.message.contains("redirectUri"), "{bad}");
    let bad = client.register_oauth_application("n", HOOK, &["nonsense"]).await.unwrap_err();
    assert!(bad.message.contains("scopes"), "{bad}");
    let id = client.register_oauth_application("n", HOOK, &[]).await.unwrap();
    let application = client.oauth_configuration(&id).await.unwrap();
    let again = client.oauth_configuration(&id).await;
    assert_eq!(kind(again), StoreErrorKind::Invalid);
    assert_eq!(kind(client.oauth_configuration("none").await), StoreErrorKind::NotFound);

    let request = client.request_authorization_code(&application.client_id, "n", &[]).await;
    let request = request.unwrap();
    let wrong = OauthCredentials { client_secret: "S-wrong".into(), ..application.clone() };
    let refused = client.authorization_code(&wrong, &request, "n").await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unauthenticated);
    assert!(!format!("{refused:?} {wrong:?}").contains("S-wrong"));
    let nonce = client.authorization_code(&application, &request, "m").await;
    assert_eq!(kind(nonce), StoreErrorKind::Invalid);
    let code = client.authorization_code(&application, &request, "n").await.unwrap();
    // Without the secret, the code itself is the credential.
    client.access_token(&wrong, &code).await.unwrap();
    assert_eq!(kind(client.access_token(&application, &code).await), StoreErrorKind::NotFound);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_the_calls_is_unsupported() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    for code in [404, 405, 501] {
        let absent = Fault::Status { code, retry_after: None };
        connected.fault(oauth::LIST, absent.clone(), When::Always);
        let error = client.oauth_applications().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported, "{code}: {error}");
        connected.fault(oauth::REGISTER, absent.clone(), When::Always);
        let error = client.register_oauth_application("n", HOOK, &[]).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported, "{code}: {error}");
        connected.fault(path::STATISTICS, absent, When::Always);
        let error = client.transaction_statistics().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported, "{code}: {error}");
    }
    let said = client.transaction_statistics().await.unwrap_err().to_string();
    assert!(said.contains("does not offer this call"), "{said}");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_counted() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    assert_eq!(client.transaction_statistics().await.unwrap().total, TransactionCounts::default());
    let token = put(client, "count", "a", &content(1, 100)).await;
    put(client, "count", "b", &content(2, 100_000)).await;
    fetch(client, &token).await;
    client.delete(&token).await.unwrap();
    let found = client.transaction_statistics().await.unwrap();
    assert_eq!(found.total, TransactionCounts { stores: 2, retrievals: 1, deletions: 1 });
    // Two days, if midnight passed meanwhile.
    assert!((1..=2).contains(&found.days.len()));
    assert_eq!(found.days.iter().map(|(_, counts)| counts.stores).sum::<u64>(), 2);
    connected.end().await;
}
