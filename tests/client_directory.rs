//! The client's calls of the directory family, against the engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "shared support")]

mod client_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use client_support::Bench;
use privicorefs::engine::{Fault, ListForm, Shape, When};
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig, Secret};
use privicorefs::protocol::directory::DirectoryCalls;
use privicorefs::store::{StoreErrorKind, StoreResult};

const PASSWORD: &str = "correct horse battery staple 8";

fn kind<T: std::fmt::Debug>(outcome: StoreResult<T>) -> StoreErrorKind {
    outcome.unwrap_err().kind
}

fn as_user(config: &ClientConfig, username: &str, password: &str) -> ClientConfig {
    let (username, password) = (username.to_owned(), password.into());
    ClientConfig { username, password, ..config.clone() }
}

async fn client_of(bench: &Bench, username: &str) -> Arc<Client> {
    let config = as_user(&bench.config, username, PASSWORD);
    Client::register(config.clone(), Env::system()).await.unwrap();
    Client::connect(config, Env::system()).await.unwrap()
}

fn map(members: &[(&str, &str)]) -> BTreeMap<String, String> {
    members.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_its_users() {
    for list in [ListForm::Items, ListForm::Array] {
        let bench = Bench::with(Shape { list, ..Shape::default() }).await;
        let owner = &*bench.client;
        let id = owner.register_directory("works").await.unwrap();
        owner.store_directory_meta(&id, &map(&[("city", "Oslo"), ("a", "1")])).await.unwrap();
        owner.store_directory_meta(&id, &map(&[("a", "")])).await.unwrap();
        let found = owner.directory(&id).await.unwrap();
        assert_eq!((found.name.as_str(), found.role.as_deref()), ("works", Some("owner")));
        assert_eq!(found.meta, map(&[("city", "Oslo")]));
        assert_eq!(owner.owned_directories().await.unwrap(), [found]);
        assert_eq!(owner.assigned_directories().await.unwrap(), []);

        let password = Secret::new(PASSWORD);
        let worker = owner.create_directory_user(&id, "worker", &password).await.unwrap();
        let known = map(&[("title", "clerk")]);
        owner.update_directory_user(&id, &worker, &known).await.unwrap();
        let profile = owner.directory_profile(&id, &worker).await.unwrap();
        assert_eq!(profile.username.as_deref(), Some("worker"));
        assert_eq!((profile.role.as_deref(), &profile.information), (Some("member"), &known));
        let infos = owner.directory_profiles(&id, &[&worker]).await.unwrap();
        assert_eq!(infos, [profile]);
        assert_eq!(owner.directory_users(&id).await.unwrap().len(), 2);

        let new = Secret::new("another good password 9");
        owner.set_profile_password(&id, &worker, &new).await.unwrap();
        let config = as_user(&bench.config, "worker", new.expose());
        let login = Client::connect(config, Env::system()).await.unwrap();
        assert_eq!(login.assigned_directories().await.unwrap().len(), 1);
        login.close().await;

        let device = owner.create_profile_device(&id, &worker, "vault").await.unwrap();
        owner.add_profile_storage(&id, &worker, &device).await.unwrap();
        let devices = owner.directory_devices(&id).await.unwrap();
        let made = devices.iter().find(|found| found.identifier == device).unwrap();
        assert_eq!((made.name.as_deref(), made.storage), (Some("vault"), Some(true)));
        assert_eq!(made.profile.as_ref(), Some(&worker));
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_answered() {
    let bench = Bench::new().await;
    let owner = &*bench.client;
    let guest = client_of(&bench, "guest").await;
    let mine = guest.register_directory("mine").await.unwrap();
    let guest_id = guest.directory_users(&mine).await.unwrap()[0].profile.clone();
    let id = owner.register_directory("works").await.unwrap();
    let first = owner.invite_profile(&id, &guest_id).await.unwrap();
    let waiting = owner.directory_invitations(Some(&id)).await.unwrap();
    assert_eq!(guest.directory_invitations(None).await.unwrap(), waiting);
    assert_eq!((&waiting[0].id, waiting[0].profile.as_ref()), (&first, Some(&guest_id)));
    assert_eq!(waiting[0].directory_name.as_deref(), Some("works"));
    guest.process_directory_invitation(&first, false).await.unwrap();
    assert_eq!(kind(guest.directory(&id).await), StoreErrorKind::Denied);
    let second = owner.invite_profile(&id, &guest_id).await.unwrap();
    assert_eq!(
        kind(owner.process_directory_invitation(&second, true).await),
        StoreErrorKind::Denied
    );
    guest.process_directory_invitation(&second, true).await.unwrap();
    assert_eq!(guest.directory(&id).await.unwrap().role.as_deref(), Some("member"));
    assert_eq!(kind(owner.invite_profile(&id, &guest_id).await), StoreErrorKind::Invalid);
    let password = Secret::new(PASSWORD);
    let refused = owner.set_profile_password(&id, &guest_id, &password).await;
    assert_eq!(kind(refused), StoreErrorKind::Denied);
    assert_eq!(kind(guest.directory_devices(&id).await), StoreErrorKind::Denied);
    guest.close().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_call_is_told_from_a_missing_record() {
    let bench = Bench::new().await;
    let client = &*bench.client;
    let id = client.register_directory("works").await.unwrap();
    let pool = client.create_directory_voting_pool(&id, "t", "q").await.unwrap_err();
    assert_eq!(pool.kind, StoreErrorKind::Unsupported);
    assert!(pool.message.contains("does not offer this call"), "{pool}");
    assert_eq!(kind(client.directory("none").await), StoreErrorKind::NotFound);
    assert_eq!(kind(client.directory_profile(&id, "none").await), StoreErrorKind::NotFound);
    let none = client.process_directory_invitation("none", true).await;
    assert_eq!(kind(none), StoreErrorKind::NotFound);
    assert_eq!(kind(client.register_directory("").await), StoreErrorKind::Invalid);
    for code in [404, 405, 501] {
        let absent = Fault::Status { code, retry_after: None };
        for call in [&DirectoryCalls::ENGINE.retrieve, &DirectoryCalls::ENGINE.list_owned] {
            bench.fault(&call.path, absent.clone(), When::Always);
            let asked = match call == &DirectoryCalls::ENGINE.retrieve {
                true => client.directory(&id).await.map(drop),
                false => client.owned_directories().await.map(drop),
            };
            assert_eq!(kind(asked), StoreErrorKind::Unsupported, "{code} {call}");
        }
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_configuration_is_followed() {
    let bench = Bench::new().await;
    let mut config = bench.config.clone();
    let text = "register = \"PUT /elsewhere\"\nlist_owned = \"GET /of/{page}/by/{perPage}\"";
    config.directory = toml::from_str(text).unwrap();
    let client = Client::connect(config, Env::system()).await.unwrap();
    assert_eq!(kind(client.register_directory("works").await), StoreErrorKind::Unsupported);
    assert_eq!(kind(client.owned_directories().await), StoreErrorKind::Unsupported);
    assert_eq!(client.assigned_directories().await.unwrap(), []);
    // The engine has neither route, and counts them as unknown.
    let unknown = |method: &str| bench.requests(&format!("{method} (unknown)"));
    assert_eq!((unknown("PUT"), unknown("GET")), (1, 1));
    client.close().await;
    bench.end().await;
}
