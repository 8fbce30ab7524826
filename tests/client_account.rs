//! Profile, keys, authorization and storage devices, and a client that goes on with a kept
//! authorization.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "shared support")]

mod client_support;
mod conformance;

use std::sync::Arc;
use std::time::Duration;

use client_support::Bench;
use conformance::{content, fetch, meta, put};
use privicorefs::engine::{CommandBody, Fault, Reauthorize, Shape, StatusMethod, When};
use privicorefs::env::{Env, FixedClock};
use privicorefs::privicore::{Authorization, Client, MetaChange, Secret};
use privicorefs::protocol::public_key;
use privicorefs::store::{ListFilter, Store, StoreErrorKind, list_all};

const LOGIN: &str = "POST /profile/authenticate";
const CHANGE: &str = "POST /profile/change-password";
const DAY: u64 = 86_400;

/// The shapes in which the service may accept a command.
fn shapes() -> Vec<Shape> {
    let bodies = [
        CommandBody::String,
        CommandBody::Text,
        CommandBody::Array,
        CommandBody::Object,
        CommandBody::HeaderObject,
        CommandBody::Empty,
    ];
    let mut shapes: Vec<Shape> =
        bodies.map(|command_body| Shape { command_body, ..Shape::default() }).into_iter().collect();
    shapes.push(Shape { status: StatusMethod::Post, ..Shape::default() });
    shapes.push(Shape { reauthorize: Reauthorize::Replace, ..Shape::default() });
    shapes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_says_who_it_is() {
    let bench = Bench::new().await;
    let found = bench.client.whoami().await.unwrap();
    assert_eq!(found.username, "someone");
    assert_eq!(found.scope, Some(vec!["all".to_owned()]));
    assert!(!found.profile.is_empty());
    let told = bench.client.authorized_until().unwrap();
    let off = found.expires.unwrap().duration_since(told).unwrap_or_default();
    assert!(off < Duration::from_secs(2));
    assert_eq!(bench.another().await.whoami().await.unwrap().profile, found.profile);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_the_one_that_logs_in() {
    for shape in shapes() {
        let bench = Bench::with(shape).await;
        let (old, new) = (bench.config.password.clone(), Secret::new("another battery staple 8"));
        bench.client.change_password(&old, &new).await.unwrap();
        assert_eq!(bench.requests(CHANGE), 1, "the documented form is enough");
        bench.client.whoami().await.unwrap();
        let refused = Client::login(&bench.config, Env::system()).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unauthenticated);
        let mut config = bench.config.clone();
        config.password = new;
        Client::login(&config, Env::system()).await.unwrap();
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_are_refused_are_told_apart_and_not_shown() {
    let bench = Bench::new().await;
    let (right, wrong) = (bench.config.password.clone(), Secret::new("wrong horse battery 1"));
    let new = Secret::new("another battery staple 8");
    let error = bench.client.change_password(&wrong, &new).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(error.message.contains("wrong_password"), "{error}");
    assert_eq!(bench.requests(CHANGE), 1);
    let weak = Secret::new("weak");
    let error = bench.client.change_password(&right, &weak).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    assert!(error.message.contains("newPassword"), "{error}");
    assert_eq!(bench.requests(CHANGE), 3, "once more with the older form");
    let error = format!("{error} {error:?}");
    assert!(!error.contains("battery"), "{error}");
    Client::login(&bench.config, Env::system()).await.unwrap();
    bench.end().await;
}

/// A service that knows only the older two fields refuses the newer three (D.8).
#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_of_a_password_change_is_tried_once() {
    let bench = Bench::new().await;
    let fault = Fault::Status { code: 422, retry_after: None };
    bench.fault("/profile/change-password", fault, When::First(1));
    let new = Secret::new("another battery staple 8");
    bench.client.change_password(&bench.config.password, &new).await.unwrap();
    assert_eq!(bench.requests(CHANGE), 2);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_authorization_counts_however_the_service_does_it() {
    for shape in shapes() {
        let replaces = shape.reauthorize == Reauthorize::Replace;
        let bench = Bench::with(shape).await;
        let before = bench.client.authorize().await.unwrap();
        let logins = bench.requests(LOGIN);
        let after = bench.client.extend(Some(360 * DAY)).await.unwrap();
        assert!(after.expires > before.expires);
        assert_eq!(after.token != before.token, replaces);
        assert_eq!(bench.client.authorize().await.unwrap(), after);
        let kept = Client::resume(bench.config.clone(), after, Env::system()).unwrap();
        kept.whoami().await.unwrap();
        kept.close().await;
        assert_eq!(bench.requests(LOGIN), logins);
        let odd = bench.client.extend(Some(300)).await.unwrap_err();
        assert_eq!(odd.kind, StoreErrorKind::Invalid);
        bench.client.extend(None).await.unwrap();
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_authorization_is_the_end() {
    let bench = Bench::new().await;
    let kept = bench.client.authorize().await.unwrap();
    let logins = bench.requests(LOGIN);
    bench.client.revoke().await.unwrap();
    let error = bench.client.whoami().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    let resumed = Client::resume(bench.config.clone(), kept, Env::system()).unwrap();
    let error = resumed.revoke().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    resumed.close().await;
    assert_eq!(bench.requests(LOGIN), logins, "a revoked client does not log in again");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_does_everything_without_a_password() {
    let bench = Bench::new().await;
    let kept = Client::login(&bench.config, Env::system()).await.unwrap();
    assert!(!format!("{kept:?}").contains(kept.token.expose()));
    let mut config = bench.config.clone();
    config.password = "".into();
    let logins = bench.requests(LOGIN);
    let client = Client::resume(config, kept, Env::system()).unwrap();
    for (name, size) in [("small", 100), ("large", 100_000)] {
        let token = put(&*client, "kept", name, &content(1, size)).await;
        assert!(fetch(&*client, &token).await == content(1, size));
        client.delete(&token).await.unwrap();
    }
    assert_eq!(bench.requests(LOGIN), logins);
    client.close().await;
    bench.end().await;
}

/// Neither calls nor commands, whose channel cannot be joined either, try to log in.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_that_is_refused_says_so() {
    let bench = Bench::new().await;
    let logins = bench.requests(LOGIN);
    let kept = Authorization { token: Secret::new("T-invented"), expires: None };
    let client = Client::resume(bench.config.clone(), kept, Env::system()).unwrap();
    let refusals = [
        client.whoami().await.map(drop),
        client.list_storage().await.map(drop),
        client.extend(None).await.map(drop),
        client.delete(&privicorefs::store::Token::new("dtk-none")).await,
        client.get(&privicorefs::store::Token::new("dtk-none")).await.map(drop),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unauthenticated, "{error}");
        assert!(!error.to_string().contains("T-invented"), "{error}");
    }
    assert_eq!(bench.requests(LOGIN), logins);
    client.close().await;
    let unfit = Authorization { token: Secret::new("line\nbreak"), expires: None };
    assert!(Client::resume(bench.config.clone(), unfit, Env::system()).is_err());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_expires_and_is_not_renewed_by_itself() {
    let clock = Arc::new(FixedClock::default());
    let env = Env { clock: Arc::clone(&clock) as Arc<_>, ..Env::system() };
    let bench = Bench::custom(Shape::default(), env.clone(), |config| {
        config.session_ttl = Duration::from_secs(600);
    })
    .await;
    let kept = Client::login(&bench.config, env.clone()).await.unwrap();
    let client = Client::resume(bench.config.clone(), kept, env).unwrap();
    clock.advance(Duration::from_secs(590));
    client.whoami().await.unwrap();
    let renewals = bench.requests("POST /profile/reauthorize-authorization-token");
    assert_eq!(renewals, 0, "what is kept in a file must not be replaced behind its back");
    clock.advance(Duration::from_secs(20));
    let error = client.whoami().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated, "{error}");
    client.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_paths_are_used_where_the_newer_are_unknown() {
    let bench = Bench::new().await;
    let gone = |code| Fault::Status { code, retry_after: None };
    bench.fault("/profile/authorization-token/expiry", gone(405), When::Always);
    assert!(bench.client.expiry().await.unwrap().is_some());
    bench.fault("/profile/generate-token-qr", gone(404), When::Always);
    assert!(!bench.client.qr_token().await.unwrap().token.expose().is_empty());
    bench.fault("/dptcab/public-key", gone(404), When::Always);
    bench.client.engine_key().await.unwrap();
    bench.fault("/profile/retrieve-scope", gone(404), When::Always);
    assert_eq!(bench.client.whoami().await.unwrap().scope, None);
    bench.no_faults();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_verified_both_ways() {
    let bench = Bench::new().await;
    let key = public_key::encode(&[7; 32]);
    let upper = key.to_uppercase();
    bench.client.register_key(&upper).await.unwrap();
    let own = bench.client.own_key().await.unwrap().unwrap();
    assert_eq!(own.text, key);
    assert!(own.created.is_some());
    assert_ne!(bench.client.engine_key().await.unwrap().text, key);
    let before = bench.requests("POST /public-key/register-public-key");
    let altered = key.replacen("0707", "0708", 1);
    let error = bench.client.register_key(&altered).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    assert_eq!(bench.requests("POST /public-key/register-public-key"), before);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_device_goes_and_comes_back() {
    for shape in shapes() {
        let bench = Bench::with(shape).await;
        let devices = bench.client.list_storage().await.unwrap();
        assert_eq!(devices.len(), 1);
        let device = devices[0].identifier.clone();
        assert_eq!(devices[0].approved, Some(true));
        bench.client.synchronize_storage(&device).await.unwrap();
        bench.client.remove_storage(&device).await.unwrap();
        assert_eq!(bench.client.list_storage().await.unwrap(), []);
        bench.client.register_storage(&device).await.unwrap();
        assert_eq!(bench.client.list_storage().await.unwrap(), devices);
        let error = bench.client.register_storage("nobody").await.unwrap_err();
        assert!(error.to_string().contains("nobody"), "{error}");
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_meta_changes_one_at_a_time_and_a_type_comes_with_the_payload() {
    let bench = Bench::new().await;
    let token = put(&*bench.client, "here", "a.txt", &content(1, 100)).await;
    let change = MetaChange { context: Some("there".into()), ..MetaChange::default() };
    bench.client.change_meta(&token, &change).await.unwrap();
    let found = async |filter: ListFilter| list_all(&*bench.client, &filter).await.unwrap();
    let by_extension = ListFilter { extension: Some("txt".into()), ..ListFilter::default() };
    let record = found(by_extension.clone()).await.remove(0);
    assert_eq!((record.context.as_str(), record.file_name.as_deref()), ("there", Some("a.txt")));

    let by_type = ListFilter { data_type: Some("note".into()), ..ListFilter::default() };
    assert!(found(by_type.clone()).await.is_empty());
    let file = meta("there", "a.txt", 100);
    bench.client.replace(&token, &file, "note", &content(2, 100)).await.unwrap();
    let record = found(by_type).await.remove(0);
    assert_eq!((record.token, record.data_type.as_deref()), (token.clone(), Some("note")));
    assert!(fetch(&*bench.client, &token).await == content(2, 100));
    let error = bench.client.replace(&token, &file, "note", &content(3, 36_001)).await;
    assert_eq!(error.unwrap_err().kind, StoreErrorKind::TooLarge);
    let none = ListFilter { extension: Some("tx".into()), ..ListFilter::default() };
    assert!(found(none).await.is_empty());
    bench.end().await;
}
