//! What a tree of names must come to, on one machine and on several, held against
//! [`crate::catalog::conflict::tree`], which computes it at once.
//!
//! Histories follow from seeds. `NAMESPACE_HISTORIES` says how many there are of each kind, and
//! `NAMESPACE_SEED` repeats one alone.

#![allow(clippy::collapsible_match, reason = "an arm for each act, whatever comes of it")]

mod acted;
mod acts;
mod company;
mod house;
mod judge;
mod rules;
