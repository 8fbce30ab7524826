//! The routes of C.5 and C.7 to C.9, with the older ones (C.12).

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{authenticators, devices, policies, voting, with_id};
use crate::engine::app::App;
use crate::protocol::governance::{old_path, path};

/// All of them.
pub(super) fn routes() -> Router<Arc<App>> {
    device_routes().merge(authenticator_routes()).merge(policy_routes()).merge(voting_routes())
}

fn device_routes() -> Router<Arc<App>> {
    Router::new()
        .route(path::DEVICE_REQUEST, post(devices::request))
        .route(old_path::DEVICE_REQUEST, post(devices::request))
        .route(path::DEVICE_IDENTIFIER, post(devices::unique_identifier))
        .route(&with_id(old_path::DEVICE_IDENTIFIER), get(devices::unique_identifier_by_path))
        .route(path::DEVICE_LIST, get(devices::list).post(devices::list))
        .route(path::DEVICE_META, post(devices::configure_meta))
        .route(old_path::DEVICE_META, post(devices::configure_meta))
        .route(path::DEVICE_APPROVE, post(devices::approve))
        .route(path::DEVICE_REJECT, post(devices::reject))
        .route(&with_id(path::DEVICE_CONFIGURATION), get(devices::configuration))
        .route(path::DEVICE_DOWNLOAD, post(devices::download))
        .route(&with_id(path::DEVICE_FILE), get(devices::file))
        .route(path::DEVICE_REMOVE, post(devices::remove))
        .route(old_path::DEVICE_REMOVE, post(devices::remove))
}

fn authenticator_routes() -> Router<Arc<App>> {
    Router::new()
        .route(path::AUTHENTICATOR_REGISTER, post(authenticators::register))
        .route(old_path::AUTHENTICATOR_REGISTER, post(authenticators::register))
        .route(path::AUTHENTICATOR_LIST, get(authenticators::list))
        .route(path::AUTHENTICATOR_REMOVE, post(authenticators::remove))
        .route(path::STRATEGY, get(authenticators::strategy))
        .route(path::SET_QUORUM_SIZE, post(authenticators::set_quorum_size))
        .route(path::SET_QUORUM_STRATEGY, post(authenticators::set_quorum_strategy))
        .route(path::SET_TIME_LIMIT, post(authenticators::set_time_limit))
        .route(path::SET_ATTEMPTS, post(authenticators::set_attempts))
        .route(path::CONFIGURATION_REGISTER, post(authenticators::register_configuration))
        .route(old_path::CONFIGURATION_REGISTER, post(authenticators::register_configuration))
        .route(path::CONFIGURATION_UPDATE, post(authenticators::update_configuration))
        .route(path::CONFIGURATION_LIST, get(authenticators::list_configurations))
        .route(&with_id(path::CONFIGURATION_RETRIEVE), get(authenticators::configuration))
        .route(path::CONFIGURATION_DELETE, post(authenticators::delete_configuration))
}

fn policy_routes() -> Router<Arc<App>> {
    Router::new()
        .route(path::POLICY_TEMPLATES, get(policies::templates))
        .route(path::POLICY_REGISTER, post(policies::register))
        .route(old_path::POLICY_REGISTER, post(policies::register))
        .route(&with_id(path::POLICY_RETRIEVE), get(policies::retrieve))
        .route(path::POLICY_ACTIVATE, post(policies::activate))
        .route(old_path::POLICY_ACTIVATE, post(policies::activate))
        .route(path::POLICY_DEACTIVATE, post(policies::deactivate))
        .route(old_path::POLICY_DEACTIVATE, post(policies::deactivate))
        .route(path::POLICY_ACTIVE, get(policies::list_active))
        .route(path::POLICY_INACTIVE, get(policies::list_inactive))
        .route(path::POLICY_LIST, get(policies::list))
        .route(path::POLICY_DELETE, post(policies::delete))
}

fn voting_routes() -> Router<Arc<App>> {
    Router::new()
        .route(path::POOL_CREATE, post(voting::create))
        .route(&with_id(path::POOL_STATUS), get(voting::status))
        .route(path::POOL_LIST, get(voting::list))
        .route(path::POOL_CANCEL, post(voting::cancel))
        .route(path::POOL_BALLOT, post(voting::cast))
}
