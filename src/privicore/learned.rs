//! What this session has learned about its service, so that nothing is tried twice that
//! was refused once (protocol B.4: remember the variant that worked).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::forms::Forms;

/// Whether the service takes something; unknown until it was tried.
#[derive(Debug, Default)]
pub(super) struct Taken(AtomicU8);

impl Taken {
    /// Known to be taken.
    pub(super) fn yes(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }

    /// Known to be refused.
    pub(super) fn no(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 2
    }

    /// What to try, in order: with it if that is `wanted` and not known to be refused,
    /// without it unless it is known to be taken.
    pub(super) fn choices(&self, wanted: bool) -> &'static [bool] {
        match (wanted, self.yes(), self.no()) {
            (false, ..) | (true, _, true) => &[false],
            (true, true, _) => &[true],
            (true, false, false) => &[true, false],
        }
    }

    /// Remembers; what was once taken stays so, because a later refusal is about
    /// something else.
    pub(super) fn set(&self, taken: bool) {
        let value = if taken { 1 } else { 2 };
        let _ = self.0.compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Learned {
    /// `GET /request-status/…`, rather than `POST` (D.10).
    pub(super) status_by_get: Taken,
    /// The `uuid` parameter of a reservation (C.4.1).
    pub(super) mark: Taken,
    /// A reservation's long time to live (D.1).
    pub(super) long_ttl: Taken,
    /// An empty `extension` (C.4.5).
    pub(super) empty_extension: Taken,
    /// Form updates of file meta (D.3).
    pub(super) update_meta: Taken,
    /// Filters of a listing (C.4.7).
    pub(super) filters: Taken,
    /// That a token promoted without a name of its own keeps its name (D.4).
    pub(super) keeps_token: Taken,
    /// That this service announces what is ready downstream (D.6).
    pub(super) announces: Taken,
    /// Which form of a call with several it knows (C.12).
    pub(super) forms: Forms,
    /// Page size of a listing.
    pub(super) per_page: AtomicU32,
    /// Whether the absence of storage devices was reported.
    pub(super) told_no_storage: AtomicBool,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            status_by_get: Taken::default(),
            mark: Taken::default(),
            long_ttl: Taken::default(),
            empty_extension: Taken::default(),
            update_meta: Taken::default(),
            filters: Taken::default(),
            keeps_token: Taken::default(),
            announces: Taken::default(),
            forms: Forms::default(),
            per_page: AtomicU32::new(100),
            told_no_storage: AtomicBool::new(false),
        }
    }
}
