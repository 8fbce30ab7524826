//! A simulated Privicore service behind the client's transport, in memory and in virtual
//! time, for the flows of a token store.
//!
//! [`Wire`] is the transport that the client is given: calls and streams take a moment, and
//! a fault may strike each (`fault`). Behind it stands the [`vault`](vault::Vault), which
//! does what an honest service does, in one of the shapes that the protocol leaves open
//! (`shape`). A [`Course`] says all that a client is asked and all faults that strike, in
//! order; nothing is drawn while it runs but delays, and those by its seed. The `judge`
//! knows what was acknowledged and looks into the vault.
//!
//! The service is honest: what it acknowledged is there at once, and its listings show all
//! that is there. What strikes lies on the way: proxies, lost and late messages, a service
//! that carries something out later than it was asked to.

mod channel;
mod course;
mod fault;
mod judge;
pub(crate) mod planted;
mod replies;
pub(crate) mod shape;
mod streams;
mod transport;
mod vault;

pub(crate) use self::course::{Course, Report, Step, run, run_over};
pub(crate) use self::fault::{At, When, WireFault, Wrong};
pub(crate) use self::judge::{Clause, Finding};
pub(crate) use self::shape::Shape;
