//! Durations as people write them: `500ms 30s 5m 2h 7d`; a bare number is seconds.

use std::time::Duration;

/// Reads a duration; the error says what was expected.
///
/// # Errors
/// When the text is not a number followed by one of the units, or does not fit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example 500ms, 30s, 5m, 2h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let factor_s = match &text[split..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * factor_s).map_err(|_| wrong())
}

/// Writes a duration in the shortest of the units that is exact to the millisecond.
#[must_use]
pub fn format(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Serde for durations as text.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    /// Writes the duration as text.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*duration))
    }

    /// Reads the duration from text.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_reads_and_writes() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            let duration = parse(text).unwrap();
            assert_eq!(duration.as_millis(), ms);
            assert_eq!(format(duration), text);
        }
        assert_eq!(parse("1.5").unwrap(), Duration::from_millis(1_500));
        for bad in ["", "s", "5 m", "-1s", "1w", "1e400d", "nan", "."] {
            assert!(parse(bad).is_err(), "{bad} must be refused");
        }
    }
}
