//! Which process has been silent for too long, judged by a clock that may itself have been stopped.

use std::time::{Duration, Instant};

/// Judges silence.
#[derive(Debug)]
pub(super) struct Silence {
    timeout: Duration,
    /// The longest planned time between two looks.
    interval: Duration,
    /// The last look.
    last: Instant,
}

impl Silence {
    /// Begins at `now`.
    pub fn new(timeout: Duration, interval: Duration, now: Instant) -> Self {
        Silence { timeout, interval, last: now }
    }

    /// Returns which process has been silent for longest, if for longer than the timeout, and for how long. `heard` is when each was last
    /// heard; none if it need not be heard.
    ///
    /// If this look comes late by more than half of the timeout, this process was stopped itself, and may have what the others sent
    /// meanwhile still before it: all count as heard now, and have the whole timeout again.
    pub fn look(&mut self, now: Instant, heard: &mut [Option<Instant>]) -> Option<(usize, Duration)> {
        let late = now.saturating_duration_since(self.last) > self.interval + self.timeout / 2;
        self.last = now;
        if late {
            heard.iter_mut().flatten().for_each(|heard| *heard = now.max(*heard));
            return None;
        }
        let silent = |heard: &Option<Instant>| heard.map(|heard| now.saturating_duration_since(heard));
        let all = heard.iter().enumerate().filter_map(|(index, heard)| Some((index, silent(heard)?)));
        all.filter(|(_, silent)| *silent > self.timeout).max_by_key(|(_, silent)| *silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_a_silence_longer_than_the_timeout_counts() {
        let begin = Instant::now();
        let mut silence = Silence::new(10 * SECOND, 2 * SECOND, begin);
        let mut heard = [Some(begin), None, Some(begin + SECOND)];
        for second in 1..=10 {
            assert_eq!(silence.look(begin + second * SECOND, &mut heard), None);
        }
        assert_eq!(silence.look(begin + 12 * SECOND, &mut heard), Some((0, 12 * SECOND)));
        heard[0] = Some(begin + 13 * SECOND);
        assert_eq!(silence.look(begin + 13 * SECOND, &mut heard), Some((2, 12 * SECOND)));
    }

    #[test]
    fn who_was_stopped_itself_gives_the_others_the_whole_timeout_again() {
        let begin = Instant::now();
        let mut silence = Silence::new(10 * SECOND, 2 * SECOND, begin);
        let mut heard = [Some(begin)];
        let woken = begin + 3600 * SECOND;
        assert_eq!(silence.look(woken, &mut heard), None);
        for second in 1..=10 {
            assert_eq!(silence.look(woken + second * SECOND, &mut heard), None);
        }
        assert_eq!(silence.look(woken + 11 * SECOND, &mut heard), Some((0, 11 * SECOND)));
    }
}
