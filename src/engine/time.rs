//! The engine's clock counts milliseconds; the wire writes RFC 3339 (B.3).

use std::time::{Duration, UNIX_EPOCH};

use crate::protocol::time::format_rfc3339;

/// `2026-02-21T15:33:44+00:00` for milliseconds since the epoch.
pub(super) fn rfc3339(millis: u64) -> String {
    format_rfc3339(UNIX_EPOCH + Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00+00:00");
        assert_eq!(rfc3339(1_771_688_024_999), "2026-02-21T15:33:44+00:00");
        assert_eq!(rfc3339(4_107_542_399_000), "2100-02-28T23:59:59+00:00");
    }
}
