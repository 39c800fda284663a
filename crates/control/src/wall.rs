//! Wall-clock time for people, in UTC: RFC 3339 with milliseconds, and as the common log format has it. Never used to decide anything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kakei_proxy::seam::Wall;

/// `2026-01-31T23:59:59.999Z`. Times before 1970 are written as its first moment.
pub fn rfc3339(at: SystemTime) -> String {
    let since = since_epoch(at);
    let (year, month, day) = Wall::from_secs(since.as_secs()).day();
    format!("{year:04}-{month:02}-{day:02}T{}.{:03}Z", time_of_day(since), since.subsec_millis())
}

/// `31/Jan/2026:23:59:59 +0000`.
pub fn common(at: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = since_epoch(at);
    let (year, month, day) = Wall::from_secs(since.as_secs()).day();
    format!("{day:02}/{}/{year:04}:{} +0000", MONTHS[month as usize - 1], time_of_day(since))
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn time_of_day(since: Duration) -> String {
    let second = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second % 3600 / 60, second % 60)
}

/// Whole seconds since 1970.
pub fn unix_seconds(at: SystemTime) -> u64 {
    since_epoch(at).as_secs()
}

/// Whole milliseconds since 1970.
pub fn unix_millis(at: SystemTime) -> u64 {
    u64::try_from(since_epoch(at).as_millis()).unwrap_or_default()
}

/// As [`rfc3339`], of whole seconds since 1970.
pub fn seconds(at: i64) -> String {
    let at = rfc3339(UNIX_EPOCH + Duration::from_secs(at.max(0).unsigned_abs()));
    at.replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_as_the_calendar_has_them() {
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, text) in known {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }
}
