//! How processes and times are named in sentences.

use std::time::Duration;

/// The most processes that are named one by one.
const MOST: usize = 16;

/// Names processes in a sentence: `process 3`, `processes 3, 5 and 7`. Of many, the first are named.
pub fn name_ranks(ranks: &[usize]) -> String {
    let list = |ranks: &[usize]| ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match ranks {
        [] => "no process".to_string(),
        [rank] => format!("process {rank}"),
        ranks if ranks.len() > MOST => {
            format!("processes {} and {} more", list(&ranks[..MOST]), ranks.len() - MOST)
        }
        [first @ .., last] => format!("processes {} and {last}", list(first)),
    }
}

/// Returns a duration in a sentence: `30 s`, `0.5 s`.
pub fn in_seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_durations_are_named() {
        let names = [&[][..], &[3], &[0, 1, 3]].map(name_ranks);
        assert_eq!(names, ["no process", "process 3", "processes 0, 1 and 3"]);
        assert!(name_ranks(&(0..20).collect::<Vec<_>>()).ends_with("14, 15 and 4 more"));
        assert_eq!([600_000, 2500].map(|ms| in_seconds(Duration::from_millis(ms))), ["600 s", "2.5 s"]);
    }
}
