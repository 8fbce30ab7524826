//! The Privicore client: a [`Store`](crate::store::Store) over the service's HTTP API and
//! its WebSocket channel.
//!
//! ```text
//! put, get, tokens      the flows: store, fetch, delete / meta / risk / list
//! oauth, directory, statistics    optional     calls that a service may not offer
//! devices, authenticators, policies, voting    forms     who decides, and calls that the
//!                       sources know in several forms
//! account    storage    what commands ask: profile, keys, authorization; storage devices
//! client                authenticated calls, commands and their acknowledgements
//! session    channel    the authorization token; the WebSocket and its owner task
//! wire       rendezvous deadlines; where messages and those who wait for them meet
//! transport             the trait under all of it: calls, bodies, pushed messages
//! http       socket     the transport that ships
//! reply, push, listing, time      pure, tolerant readers of everything the service says
//! ```
//!
//! Every command is an HTTP `202` followed by an acknowledgement on the channel. The
//! acknowledgement may come before the reply that names it, late, twice, or never:
//! `rendezvous` takes it in any order, and [`Client`] polls the command's status where it
//! is missing. A rejection is final; silence means "unknown", and the flow decides what
//! is safe to repeat. No wait is without a deadline.
//!
//! What differs between services (protocol, section D) is read tolerantly by the readers,
//! and what a service refuses once is not sent again in the same session (`learned`).

mod account;
mod authenticators;
mod channel;
mod client;
mod config;
mod devices;
mod directory;
mod forms;
mod get;
mod holds;
mod http;
mod learned;
mod listing;
mod oauth;
mod optional;
mod policies;
mod push;
mod put;
mod register;
mod rendezvous;
mod reply;
mod secret;
mod session;
mod socket;
mod statistics;
mod storage;
mod tokens;
pub mod transport;
mod voting;
mod wire;

pub use crate::protocol::time::{format_rfc3339, parse_rfc3339};
pub use account::{PublicKey, QrToken, Whoami};
pub use authenticators::{Strategy, VotingRules};
pub use channel::ChannelState;
pub use client::Client;
pub use config::ClientConfig;
pub use devices::{Approval, Device, DeviceConfiguration};
pub use directory::{Directory, DirectoryDevice, DirectoryInvitation, DirectoryUser};
pub use oauth::{AccessToken, AuthorizationCode, OauthApplication, OauthCredentials};
pub use policies::{NewPolicy, Policy, PolicyEvent, PolicyTemplate};
pub use reply::Authorization;
pub use secret::{PasswordSource, Secret};
pub use statistics::{TransactionCounts, TransactionStatistics};
pub use storage::StorageDevice;
pub use tokens::MetaChange;
pub use voting::{
    Ballot, NewVotingConfiguration, NewVotingPool, Vote, VotingConfiguration,
    VotingConfigurationChange, VotingPool,
};
