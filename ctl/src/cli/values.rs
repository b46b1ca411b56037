//! Values of options.

use std::time::Duration;

/// Seconds, with a fraction if need be; more than none.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "expected seconds, as 30 or 0.5".to_owned();
    let time =
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(wrong)?;
    if time.is_zero() || time > LONGEST {
        Err("expected more than 0 and at most ten years".into())
    } else {
        Ok(time)
    }
}

/// Whole numbers with units: `90s`, `1h30m`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time with a unit: 90s, 30m, 1h, 7d, or several of them".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.as_bytes().first() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            Some(_) | None => return Err(wrong()),
        };
        let seconds = number.parse::<u64>().map_err(|_| wrong())?.saturating_mul(unit);
        total = total.saturating_add(Duration::from_secs(seconds));
        rest = &tail[1..];
    }
    if total.is_zero() || total > LONGEST {
        Err("expected more than 0 and at most ten years".into())
    } else {
        Ok(total)
    }
}

/// Longer than anything meant, short enough to add to a clock.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_units_add_up() {
        for (text, expected) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800), ("1h30m", 5400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        for text in
            ["", "1", "h", "0s", "1w", "-1h", "1.5h", "1h 30m", "9999999999999999999999s", "4000d", "1µ"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "-1", "NaN", "inf", "1e300", "5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
