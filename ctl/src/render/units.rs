//! Numbers and text as people read them.

use std::time::Duration;

/// Text from elsewhere without what could steer a terminal or hide what it says; line breaks become spaces.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_format(*c))
        .collect()
}

/// Characters that reorder or join the text around them, or cannot be seen.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes in powers of 1024, two or three digits.
pub(super) fn bytes(count: u64) -> String {
    let mut unit = 1_u64;
    let mut name = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if count / unit < 1024 {
            break;
        }
        unit *= 1024;
        name = next;
    }
    let (whole, tenth) = (count / unit, count % unit * 10 / unit);
    if unit > 1 && whole < 10 { format!("{whole}.{tenth} {name}") } else { format!("{whole} {name}") }
}

/// A span of time by its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    // Beyond ten of the larger unit, the smaller one is noise.
    let shown = if parts[first].0 >= 10 { 1 } else { 2 };
    let words: Vec<String> = parts[first..]
        .iter()
        .take(shown)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n} {unit}"))
        .collect();
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

/// The same, for a [`Duration`].
pub(super) fn span_of(duration: Duration) -> String {
    span(duration.as_secs())
}

/// A round trip.
pub(super) fn rtt(ms: f64) -> String {
    if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else if ms >= 1.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.2} ms")
    }
}

/// "1 member", "2 members".
pub(super) fn count(number: impl Into<u64>, thing: &str) -> String {
    let number = number.into();
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_239, "9.9 KiB"),
            (10_240, "10 KiB"),
            (5_767_168, "5.5 MiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn spans_have_at_most_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (754, "12 min"),
            (3_660, "1 h 1 min"),
            (86_400, "1 d"),
            (100_000, "1 d 3 h"),
            (1_000_000, "11 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn round_trips_have_three_digits() {
        assert_eq!([0.417, 12.345, 250.4].map(rtt), ["0.42 ms", "12.3 ms", "250 ms"]);
    }

    #[test]
    fn text_from_peers_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\x07c\u{9b}d\ne\u{202e}f\u{200b}g ü"), "a[31mbcd efg ü");
    }
}
