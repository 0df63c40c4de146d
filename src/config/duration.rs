//! Lengths of time, as text: `"10 minutes"`.

use std::time::Duration;

const UNITS: &[(&[&str], f64)] = &[
    (&["s", "second", "seconds"], 1.0),
    (&["min", "minute", "minutes"], 60.0),
    (&["h", "hour", "hours"], 3600.0),
    (&["day", "days"], 86_400.0),
];

/// Reads a number above 0 with its unit; at most 1000 days.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.trim().split_once(' ')?;
    let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit.trim()))?;
    let seconds = number.parse::<f64>().ok()? * seconds;
    (seconds > 0.0 && seconds <= 86_400_000.0).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_written_out_or_abbreviated() {
        for (text, seconds) in [("10 minutes", 600.0), ("1 hour", 3600.0), ("0.5 s", 0.5), ("2 days", 172_800.0)] {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for wrong in ["10", "minutes", "-1 s", "0 s", "nan s", "1e9 days", "5 weeks", "5minutes"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
