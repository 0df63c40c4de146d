//! Which of several processes computes slowest: all others wait for it in every collective, which hides who it is. And how long devices
//! wait for communication.

use crate::report::SlowestProcess;

/// A process is slow if it works longer than the median of the processes by this share.
const SLOW: f64 = 0.1;
/// It is said if the others wait for it for this share of the time. Where updates are short, their time is that of messages.
const COST: f64 = 0.05;
/// For how many seconds a process is the slowest before that is said.
const LONG: f64 = 30.0;
/// The seconds after which an update counts e times less.
const MEMORY: f64 = 10.0;

/// The seconds that each process worked, by its number: computed and waited for data, but not for others.
#[derive(Debug, Clone, PartialEq, Default)]
struct Worked(Vec<f64>);

impl Worked {
    /// Adds an update; what was added before counts by a factor.
    fn add(&mut self, kept: f64, of_update: &[f64]) {
        self.0.resize(of_update.len(), 0.0);
        self.0.iter_mut().zip(of_update).for_each(|(sum, seconds)| *sum = *sum * kept + seconds);
    }

    /// Returns the slowest process, and the seconds of the median and its own; none if nothing was measured.
    fn slowest(&self) -> Option<(usize, f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        // Of two, the faster one.
        let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        let (process, most) = self.0.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (median > 0.0).then_some((process, median, *most))
    }
}

/// How long the processes of a team work for an update.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Lately.
    recent: Worked,
    /// The seconds of the same updates.
    seconds: f64,
    /// Since the start or the resume of the run.
    all: Worked,
    /// The process that is slow, since when in seconds, and whether that was said.
    slow: Option<(usize, f64, bool)>,
    /// When the last update was added.
    last: f64,
    /// The updates of which the time for communication was measured, and that time.
    exposed: (u64, f64),
}

impl Pace {
    /// Adds the seconds that each process worked for an update that ended at a time, in seconds. Returns the slow process once it has
    /// been slow for long.
    pub fn add(&mut self, worked: &[f64], now: f64) -> Option<SlowestProcess> {
        // In an evaluation, nothing is measured.
        if worked.iter().all(|&seconds| seconds == 0.0) {
            return None;
        }
        let update = now - std::mem::replace(&mut self.last, now);
        let kept = (-update / MEMORY).exp();
        self.recent.add(kept, worked);
        self.seconds = self.seconds * kept + update;
        self.all.add(1.0, worked);
        let is_slow =
            |&(_, median, own): &(usize, f64, f64)| own > median * (1.0 + SLOW) && own - median > COST * self.seconds;
        let Some((process, median, own)) = self.recent.slowest().filter(is_slow) else {
            self.slow = None;
            return None;
        };
        let (_, since, said) = self.slow.filter(|(slow, ..)| *slow == process).unwrap_or((process, now, false));
        let says = !said && now - since >= LONG;
        self.slow = Some((process, since, said || says));
        says.then(|| SlowestProcess { process, host: String::new(), behind: own / median - 1.0 })
    }

    /// Adds the seconds of an update, or of a part of one, in which devices waited for each other's data.
    pub fn add_exposed(&mut self, seconds: f64, is_whole: bool) {
        self.exposed.0 += u64::from(is_whole);
        self.exposed.1 += seconds;
    }

    /// Returns the mean of these seconds over the updates; none if there were none.
    pub fn exposed(&self) -> Option<f64> {
        let (updates, seconds) = self.exposed;
        (updates > 0).then(|| seconds / updates as f64)
    }

    /// Returns the process that worked longest.
    pub fn slowest(&self) -> Option<SlowestProcess> {
        let (process, median, own) = self.all.slowest()?;
        Some(SlowestProcess { process, host: String::new(), behind: own / median - 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds updates of a second each, and returns the times at which a slow process was named.
    fn named(pace: &mut Pace, seconds: std::ops::Range<u32>, worked: [f64; 4]) -> Vec<(u32, usize, i32)> {
        let add = |now| Some((now, pace.add(&worked, f64::from(now))?));
        seconds.filter_map(add).map(|(now, slow)| (now, slow.process, (100.0 * slow.behind).round() as i32)).collect()
    }

    #[test]
    fn a_process_that_is_slow_for_long_is_named_once() {
        let mut pace = Pace::default();
        assert_eq!(named(&mut pace, 0..100, [1.0, 1.05, 1.0, 1.0]), []);
        // 0.25 (1 - exp(-n / 10)) is above 0.1 from the sixth update on, and 0.243 thirty seconds later.
        assert_eq!(named(&mut pace, 100..500, [1.0, 1.0, 1.25, 1.0]), [(135, 2, 24)]);
        assert_eq!(named(&mut pace, 500..510, [1.0; 4]), []);
        // Another one, and the first again after a time in which it was not slow.
        assert_eq!(named(&mut pace, 510..600, [2.0, 1.0, 1.0, 1.0])[0].1, 0);
        named(&mut pace, 600..700, [1.0; 4]);
        assert_eq!(named(&mut pace, 700..800, [1.0, 1.0, 2.0, 1.0])[0].1, 2);
        assert_eq!(pace.slowest().unwrap().process, 2);
    }

    #[test]
    fn a_process_that_costs_little_is_not_named() {
        let mut pace = Pace::default();
        assert_eq!(named(&mut pace, 0..200, [0.1, 0.14, 0.1, 0.1]), []);
        assert_eq!(pace.slowest().unwrap().process, 1);
        assert_eq!(named(&mut pace, 200..300, [0.1, 0.2, 0.1, 0.1])[0].1, 1);
    }

    #[test]
    fn evaluations_do_not_count_and_two_processes_compare_with_each_other() {
        let mut pace = Pace::default();
        assert!(pace.slowest().is_none() && pace.add(&[], 1.0).is_none() && pace.add(&[0.0, 0.0], 2.0).is_none());
        (3..40).for_each(|now| drop(pace.add(&[3.0, 2.0], f64::from(now))));
        let slowest = pace.slowest().unwrap();
        assert_eq!((slowest.process, slowest.behind), (0, 0.5));
    }
}
