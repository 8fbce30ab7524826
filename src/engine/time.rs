//! Timestamps as the wire writes them: RFC 3339, seconds, `+00:00` (B.3).

const SECOND: u64 = 1_000;
const DAY_SECONDS: u64 = 86_400;

/// `2026-02-21T15:33:44+00:00` for milliseconds since the epoch.
pub(super) fn rfc3339(millis: u64) -> String {
    let seconds = millis / SECOND;
    let (year, month, day) = civil(seconds / DAY_SECONDS);
    let clock = seconds % DAY_SECONDS;
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// Year, month and day of a day count since 1970-01-01, by Howard Hinnant's
/// `civil_from_days` for non-negative days: eras of 400 years that start in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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
