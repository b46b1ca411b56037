//! Points in time as people and `jq` read them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time in milliseconds since 1970 UTC; JSON has it as RFC 3339 text, `2026-05-04T10:20:30.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The wall clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// From seconds since 1970 UTC.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self::from_unix_ms(seconds.saturating_mul(1000))
    }

    /// From milliseconds since 1970 UTC; later than the year 9999 counts as its end.
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms.min(END_OF_9999_MS))
    }

    /// Milliseconds since 1970 UTC.
    pub fn as_unix_ms(self) -> u64 {
        self.0
    }

    /// How long ago it was at `now`; zero when it lies ahead.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / DAY_MS, self.0 % DAY_MS);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second, milli) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// The text is not a time in UTC of the form `2026-05-04T10:20:30[.123]Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form 2026-05-04T10:20:30.123Z")]
pub struct ParseTimestampError;

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (date, time) =
            text.strip_suffix('Z').and_then(|t| t.split_once('T')).ok_or(ParseTimestampError)?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return Err(ParseTimestampError);
        }
        if year < 1970 || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseTimestampError);
        }
        let milli = fraction.bytes().chain(*b"00").take(3).fold(0, |sum, b| sum * 10 + u64::from(b - b'0'));
        let seconds = ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
        Ok(Self::from_unix_ms(seconds * 1000 + milli))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Digit groups of fixed width with one separator.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Result<[u64; 3], ParseTimestampError> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (value, width) in out.iter_mut().zip(widths) {
        let part = parts.next().ok_or(ParseTimestampError)?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseTimestampError);
        }
        *value = part.parse().map_err(|_| ParseTimestampError)?;
    }
    if parts.next().is_some() { Err(ParseTimestampError) } else { Ok(out) }
}

/// Year, month and day of a day number since 1970, by the 400-year cycle of the Gregorian calendar with years that
/// start in March, so that the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`] from 1970 on.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * DAYS_PER_ERA + day_of_era).saturating_sub(DAYS_BEFORE_1970)
}

const DAY_MS: u64 = 86_400_000;
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;
/// RFC 3339 has four digits for the year.
const END_OF_9999_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_print_and_parse() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_777_890_030_123, "2026-05-04T10:20:30.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (END_OF_9999_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_unix_ms(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp::from_unix_ms(ms)));
        }
    }

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for day in 0..DAYS_PER_ERA + 400 {
            let time = Timestamp::from_unix_ms(day * DAY_MS);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2026",
            "2026-05-04",
            "2026-05-04T10:20:30",
            "2026-05-04T10:20:30+02:00",
            "2026-5-4T10:20:30Z",
            "2026-13-04T10:20:30Z",
            "2026-05-04T24:20:30Z",
            "1969-12-31T23:59:59Z",
            "2026-05-04T10:20:30.Z",
            "2026-05-04T10:20:30.1xZ",
            "2026-05-04T10:20:30:40Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError), "{text}");
        }
    }
}
