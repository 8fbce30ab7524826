//! RFC 3339 timestamps of the wire (B.3): read tolerantly, written to the second with
//! `+00:00`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads `2026-02-21T15:33:44[.fff](Z|+hh:mm|+hhmm)`; a blank instead of `T` and a
/// missing offset (taken as UTC) are accepted. `None` for anything else, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if bytes.len() < 19 || !text.is_ascii() {
        return None;
    }
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, sep)| bytes[at] != sep)
        || !matches!(bytes[10], b'T' | b't' | b' ')
    {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute) = (number(&text[11..13])?, number(&text[14..16])?);
    // A leap second counts as the one before it.
    let second = number(&text[17..19])?.min(59);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    let (nanos, offset) = fraction(&text[19..])?;
    let local = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = u64::try_from(local - offset_seconds(offset)?).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Writes `2026-02-21T15:33:44+00:00`, to the second; a time before 1970 as 1970.
pub fn format_rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(i64::try_from(days).unwrap_or(i64::MAX / 2));
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

fn number(digits: &str) -> Option<i64> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Nanoseconds of a leading `.fff`, and what follows it.
fn fraction(rest: &str) -> Option<(u32, &str)> {
    let Some(tail) = rest.strip_prefix('.') else { return Some((0, rest)) };
    let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    if end == 0 {
        return None;
    }
    let nanos = tail[..end].bytes().chain(std::iter::repeat(b'0')).take(9);
    Some((nanos.fold(0, |n, digit| n * 10 + u32::from(digit - b'0')), &tail[end..]))
}

fn offset_seconds(offset: &str) -> Option<i64> {
    if matches!(offset, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = offset[1..].replace(':', "");
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(&digits[..2])?, number(&digits[2..])?),
        _ => return None,
    };
    Some(sign * (hours * 3_600 + minutes * 60))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (H. Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_every_source_are_read() {
        let at = |s: u64, n: u32| Some(UNIX_EPOCH + Duration::new(s, n));
        let table = [
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("2026-02-21T15:33:44+00:00", at(1_771_688_024, 0)),
            ("2027-04-21T12:00:00Z", at(1_808_308_800, 0)),
            ("2026-02-21T17:03:44+01:30", at(1_771_688_024, 0)),
            ("2026-02-21 10:33:44.5-0500", at(1_771_688_024, 500_000_000)),
            ("2024-02-29T00:00:00.123456789Z", at(1_709_164_800, 123_456_789)),
            ("2026-02-21T15:33:44", at(1_771_688_024, 0)),
            ("2026-02-21T15:33:60Z", at(1_771_688_039, 0)),
            ("2026-13-21T15:33:44Z", None),
            ("2026-02-21T15:33:44.Z", None),
            ("2026-02-21T15:33:44 CET", None),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let known = UNIX_EPOCH + Duration::from_secs(1_771_688_024);
        assert_eq!(format_rfc3339(known), "2026-02-21T15:33:44+00:00");
        // every day of five centuries, leap years among them
        for day in 0..180_000 {
            let at = UNIX_EPOCH + Duration::from_secs(day * 86_400 + 86_399);
            assert_eq!(parse_rfc3339(&format_rfc3339(at)), Some(at));
        }
    }
}
