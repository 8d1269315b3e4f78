//! Ages and durations as kubectl prints them: two units at most, and fewer the longer it is.

use jiff::Timestamp;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago an RFC 3339 `timestamp` of an object was: `5d3h`; `<unknown>` when it is not set and
/// `<invalid>` when it lies in the future by more than clocks usually differ.
pub fn age(timestamp: &Value, now: Timestamp) -> Value {
    let since = timestamp.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    since
        .map_or_else(|| "<unknown>".to_owned(), |since| between(since, now))
        .into()
}

/// The time from `since` to `now` as [`human_duration`] prints it.
pub fn between(since: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(since).as_secs())
}

/// Whole seconds, printed as upstream's `duration.HumanDuration` does.
pub fn human_duration(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two_units(s, (MINUTE, "m"), (1, "s")),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two_units(s, (HOUR, "h"), (MINUTE, "m")),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two_units(s, (DAY, "d"), (HOUR, "h")),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two_units(s, (YEAR, "y"), (DAY, "d")),
        s => format!("{}y", s / YEAR),
    }
}

/// The second unit is left out when there is none of it.
fn two_units(seconds: i64, large: (i64, &str), small: (i64, &str)) -> String {
    let (count, rest) = (seconds / large.0, seconds % large.0 / small.0);
    match rest {
        0 => format!("{count}{}", large.1),
        _ => format!("{count}{}{rest}{}", large.1, small.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lose_precision_as_they_grow() {
        let table = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (8 * HOUR, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (5 * DAY + 3 * HOUR, "5d3h"),
            (8 * DAY + 3 * HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (8 * YEAR + DAY, "8y"),
        ];
        for (seconds, expected) in table {
            assert_eq!(human_duration(seconds), expected, "{seconds} seconds");
        }
    }

    #[test]
    fn an_age_is_told_for_whole_and_fractional_seconds_and_unknown_without_a_time() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(age(&"2026-01-02T03:01:35Z".into(), now), "2m30s");
        assert_eq!(age(&"2026-01-02T03:04:00.500000Z".into(), now), "4s");
        assert_eq!(age(&"2026-01-02T03:04:06Z".into(), now), "0s");
        assert_eq!(age(&"2027-01-02T03:04:06Z".into(), now), "<invalid>");
        assert_eq!(age(&Value::Null, now), "<unknown>");
    }
}
