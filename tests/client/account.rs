//! Profile, keys, authorization and storage devices, and a client that goes on with a kept
//! authorization.

use std::sync::Arc;
use std::time::Duration;

use privicorefs::engine::{CommandBody, Fault, Reauthorize, Shape, StatusMethod, When};
use privicorefs::env::Env;
use privicorefs::privicore::{Authorization, Client, MetaChange, Secret};
use privicorefs::protocol::public_key;
use privicorefs::store::{ListFilter, Store, StoreErrorKind, list_all};

use crate::house::Connected;
use crate::house::conformance::{content, fetch, meta, put};
use crate::house::doubles::FixedClock;

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
    let connected = Connected::new().await;
    let found = connected.client.whoami().await.unwrap();
    assert_eq!(found.username, "someone");
    assert_eq!(found.scope, Some(vec!["all".to_owned()]));
    assert!(!found.profile.is_empty());
    let told = connected.client.authorized_until().unwrap();
    let off = found.expires.unwrap().duration_since(told).unwrap_or_default();
    assert!(off < Duration::from_secs(2));
    assert_eq!(connected.another().await.whoami().await.unwrap().profile, found.profile);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_the_one_that_logs_in() {
    for shape in shapes() {
        let connected = Connected::with(shape).await;
        let (old, new) =
            (connected.config.password.clone(), Secret::new("another battery staple 8"));
        connected.client.change_password(&old, &new).await.unwrap();
        assert_eq!(connected.requests(CHANGE), 1, "the documented form is enough");
        connected.client.whoami().await.unwrap();
        let refused = Client::login(&connected.config, Env::system()).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unauthenticated);
        let mut config = connected.config.clone();
        config.password = new;
        Client::login(&config, Env::system()).await.unwrap();
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_are_refused_are_told_apart_and_not_shown() {
    let connected = Connected::new().await;
    let (right, wrong) = (connected.config.password.clone(), Secret::new("wrong horse battery 1"));
    let new = Secret::new("another battery staple 8");
    let error = connected.client.change_password(&wrong, &new).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(error.message.contains("wrong_password"), "{error}");
    assert_eq!(connected.requests(CHANGE), 1);
    let weak = Secret::new("weak");
    let error = connected.client.change_password(&right, &weak).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    assert!(error.message.contains("newPassword"), "{error}");
    assert_eq!(connected.requests(CHANGE), 3, "once more with the older form");
    let error = format!("{error} {error:?}");
    assert!(!error.contains("battery"), "{error}");
    Client::login(&connected.config, Env::system()).await.unwrap();
    connected.end().await;
}

/// A service that knows only the older two fields refuses the newer three (D.8).
#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_of_a_password_change_is_tried_once() {
    let connected = Connected::new().await;
    let fault = Fault::Status { code: 422, retry_after: None };
    connected.fault("/profile/change-password", fault, When::First(1));
    let new = Secret::new("another battery staple 8");
    connected.client.change_password(&connected.config.password, &new).await.unwrap();
    assert_eq!(connected.requests(CHANGE), 2);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_authorization_counts_however_the_service_does_it() {
    for shape in shapes() {
        let replaces = shape.reauthorize == Reauthorize::Replace;
        let connected = Connected::with(shape).await;
        let before = connected.client.authorize().await.unwrap();
        let logins = connected.requests(LOGIN);
        let after = connected.client.extend(Some(360 * DAY)).await.unwrap();
        assert!(after.expires > before.expires);
        assert_eq!(after.token != before.token, replaces);
        assert_eq!(connected.client.authorize().await.unwrap(), after);
        let kept = Client::resume(connected.config.clone(), after, Env::system()).unwrap();
        kept.whoami().await.unwrap();
        kept.close().await;
        assert_eq!(connected.requests(LOGIN), logins);
        let odd = connected.client.extend(Some(300)).await.unwrap_err();
        assert_eq!(odd.kind, StoreErrorKind::Invalid);
        connected.client.extend(None).await.unwrap();
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_authorization_is_the_end() {
    let connected = Connected::new().await;
    let kept = connected.client.authorize().await.unwrap();
    let logins = connected.requests(LOGIN);
    connected.client.revoke().await.unwrap();
    let error = connected.client.whoami().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    let resumed = Client::resume(connected.config.clone(), kept, Env::system()).unwrap();
    let error = resumed.revoke().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    resumed.close().await;
    assert_eq!(connected.requests(LOGIN), logins, "a revoked client does not log in again");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_does_everything_without_a_password() {
    let connected = Connected::new().await;
    let kept = Client::login(&connected.config, Env::system()).await.unwrap();
    assert!(!format!("{kept:?}").contains(kept.token.expose()));
    let mut config = connected.config.clone();
    config.password = "".into();
    let logins = connected.requests(LOGIN);
    let client = Client::resume(config, kept, Env::system()).unwrap();
    for (name, size) in [("small", 100), ("large", 100_000)] {
        let token = put(&*client, "kept", name, &content(1, size)).await;
        assert!(fetch(&*client, &token).await == content(1, size));
        client.delete(&token).await.unwrap();
    }
    assert_eq!(connected.requests(LOGIN), logins);
    client.close().await;
    connected.end().await;
}

/// Neither calls nor commands, whose channel cannot be joined either, try to log in.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_that_is_refused_says_so() {
    let connected = Connected::new().await;
    let logins = connected.requests(LOGIN);
    let kept = Authorization { token: Secret::new("T-invented"), expires: None };
    let client = Client::resume(connected.config.clone(), kept, Env::system()).unwrap();
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
    assert_eq!(connected.requests(LOGIN), logins);
    client.close().await;
    let unfit = Authorization { token: Secret::new("line\nbreak"), expires: None };
    assert!(Client::resume(connected.config.clone(), unfit, Env::system()).is_err());
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_authorization_expires_and_is_not_renewed_by_itself() {
    let clock = Arc::new(FixedClock::default());
    let env = Env { clock: Arc::clone(&clock) as Arc<_>, ..Env::system() };
    let connected = Connected::custom(Shape::default(), env.clone(), |config| {
        config.session_ttl = Duration::from_secs(600);
    })
    .await;
    let kept = Client::login(&connected.config, env.clone()).await.unwrap();
    let client = Client::resume(connected.config.clone(), kept, env).unwrap();
    clock.advance(Duration::from_secs(590));
    client.whoami().await.unwrap();
    let renewals = connected.requests("POST /profile/reauthorize-authorization-token");
    assert_eq!(renewals, 0, "what is kept in a file must not be replaced behind its back");
    clock.advance(Duration::from_secs(20));
    let error = client.whoami().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated, "{error}");
    client.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_paths_are_used_where_the_newer_are_unknown() {
    let connected = Connected::new().await;
    let gone = |code| Fault::Status { code, retry_after: None };
    connected.fault("/profile/authorization-token/expiry", gone(405), When::Always);
    assert!(connected.client.expiry().await.unwrap().is_some());
    connected.fault("/profile/generate-token-qr", gone(404), When::Always);
    assert!(!connected.client.qr_token().await.unwrap().token.expose().is_empty());
    connected.fault("/dptcab/public-key", gone(404), When::Always);
    connected.client.engine_key().await.unwrap();
    connected.fault("/profile/retrieve-scope", gone(404), When::Always);
    assert_eq!(connected.client.whoami().await.unwrap().scope, None);
    connected.no_faults();
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_verified_both_ways() {
    let connected = Connected::new().await;
    let key = public_key::encode(&[7; 32]);
    let upper = key.to_uppercase();
    connected.client.register_key(&upper).await.unwrap();
    let own = connected.client.own_key().await.unwrap().unwrap();
    assert_eq!(own.text, key);
    assert!(own.created.is_some());
    assert_ne!(connected.client.engine_key().await.unwrap().text, key);
    let before = connected.requests("POST /public-key/register-public-key");
    let altered = key.replacen("0707", "0708", 1);
    let error = connected.client.register_key(&altered).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    assert_eq!(connected.requests("POST /public-key/register-public-key"), before);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_device_goes_and_comes_back() {
    for shape in shapes() {
        let connected = Connected::with(shape).await;
        let devices = connected.client.list_storage().await.unwrap();
        assert_eq!(devices.len(), 1);
        let device = devices[0].identifier.clone();
        assert_eq!(devices[0].approved, Some(true));
        connected.client.synchronize_storage(&device).await.unwrap();
        connected.client.remove_storage(&device).await.unwrap();
        assert_eq!(connected.client.list_storage().await.unwrap(), []);
        connected.client.register_storage(&device).await.unwrap();
        assert_eq!(connected.client.list_storage().await.unwrap(), devices);
        let error = connected.client.register_storage("nobody").await.unwrap_err();
        assert!(error.to_string().contains("nobody"), "{error}");
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_meta_changes_one_at_a_time_and_a_type_comes_with_the_payload() {
    let connected = Connected::new().await;
    let token = put(&*connected.client, "here", "a.txt", &content(1, 100)).await;
    let change = MetaChange { context: Some("there".into()), ..MetaChange::default() };
    connected.client.change_meta(&token, &change).await.unwrap();
    let found = async |filter: ListFilter| list_all(&*connected.client, &filter).await.unwrap();
    let by_extension = ListFilter { extension: Some("txt".into()), ..ListFilter::default() };
    let record = found(by_extension.clone()).await.remove(0);
    assert_eq!((record.context.as_str(), record.file_name.as_deref()), ("there", Some("a.txt")));

    let by_type = ListFilter { data_type: Some("note".into()), ..ListFilter::default() };
    assert!(found(by_type.clone()).await.is_empty());
    let file = meta("there", "a.txt", 100);
    connected.client.replace(&token, &file, "note", &content(2, 100)).await.unwrap();
    let record = found(by_type).await.remove(0);
    assert_eq!((record.token, record.data_type.as_deref()), (token.clone(), Some("note")));
    assert!(fetch(&*connected.client, &token).await == content(2, 100));
    let error = connected.client.replace(&token, &file, "note", &content(3, 36_001)).await;
    assert_eq!(error.unwrap_err().kind, StoreErrorKind::TooLarge);
    let none = ListFilter { extension: Some("tx".into()), ..ListFilter::default() };
    assert!(found(none).await.is_empty());
    connected.end().await;
}
