//! An engine for the processes of a test, which are threads of one process.

use super::engine::{Engine, Incoming, Outgoing, PendingSum, Values};
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Which sums follow each other: those of a prepared group, or those that were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Series {
    Group(usize),
    Started,
}

/// What a process adds to a sum, and where it waits for it.
#[derive(Debug)]
struct Term {
    rank: usize,
    values: Vec<f64>,
    done: Sender<Vec<f64>>,
}

#[derive(Debug, Default)]
struct Board {
    /// Messages that nobody has received, by sender, receiver and tag.
    mail: HashMap<(usize, usize, u16), VecDeque<Vec<u8>>>,
    /// Sums that lack terms, by their series and number.
    sums: HashMap<(Series, u64), Vec<Term>>,
}

#[derive(Debug, Default)]
struct Shared {
    board: Mutex<Board>,
    arrived: Condvar,
}

/// What one process has prepared and begun.
#[derive(Debug, Default)]
struct Own {
    groups: Vec<Vec<usize>>,
    /// The number of sums of each series.
    sums: HashMap<Series, u64>,
    finished: bool,
}

/// The engine of one of these processes. A process that is never answered waits for ever.
#[derive(Debug)]
pub struct MemoryEngine {
    rank: usize,
    processes: usize,
    shared: Arc<Shared>,
    own: Mutex<Own>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryEngine {
    /// Creates the engines of all processes.
    pub fn all(processes: usize) -> Vec<MemoryEngine> {
        let shared: Arc<Shared> = Arc::default();
        let engine = |rank| MemoryEngine { rank, processes, shared: Arc::clone(&shared), own: Mutex::default() };
        (0..processes).map(engine).collect()
    }

    fn check(&self) -> Result<()> {
        let ended = || Error::Run("the exchange with other processes has ended".to_string());
        if lock(&self.own).finished { Err(ended()) } else { Ok(()) }
    }

    /// Adds a term to a sum. The process that adds the last one computes it, in the order of the processes.
    fn add(&self, series: Series, processes: usize, values: Vec<f64>) -> PendingSum {
        let (done, sum) = channel();
        // Threads of this process that sum at the same time come to the board in the order of their numbers.
        let mut own = lock(&self.own);
        let number = own.sums.entry(series).and_modify(|number| *number += 1).or_default();
        let mut board = lock(&self.shared.board);
        let terms = board.sums.entry((series, *number)).or_default();
        terms.push(Term { rank: self.rank, values, done });
        if terms.len() == processes {
            let mut terms = board.sums.remove(&(series, *number)).unwrap_or_default();
            terms.sort_by_key(|term| term.rank);
            let mut sum = vec![0.0; terms[0].values.len()];
            for term in &terms {
                sum.iter_mut().zip(&term.values).for_each(|(sum, value)| *sum += value);
            }
            for term in terms {
                // Who no longer waits does not need it.
                let _ = term.done.send(sum.clone());
            }
        }
        PendingSum(sum)
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &str {
        "memory"
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn processes(&self) -> usize {
        self.processes
    }

    fn prepare(&self, groups: &[Vec<usize>]) -> Result<()> {
        self.check()?;
        lock(&self.own).groups = groups.to_vec();
        Ok(())
    }

    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()> {
        self.check()?;
        let mut peers = outgoing.iter().map(|m| m.process).chain(incoming.iter().map(|m| m.process));
        if let Some(process) = peers.find(|&process| process == self.rank || process >= self.processes) {
            let (rank, processes) = (self.rank, self.processes);
            let message = format!("process {rank} of {processes} cannot exchange messages with process {process}");
            return Err(Error::Run(message));
        }
        let mut board = lock(&self.shared.board);
        for message in outgoing.iter().filter(|message| !message.bytes.is_empty()) {
            let key = (self.rank, message.process, message.tag);
            board.mail.entry(key).or_default().push_back(message.bytes.to_vec());
        }
        self.shared.arrived.notify_all();
        for message in incoming.iter_mut().filter(|message| !message.bytes.is_empty()) {
            let key = (message.process, self.rank, message.tag);
            let bytes = loop {
                match board.mail.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(bytes) => break bytes,
                    None => board = self.shared.arrived.wait(board).unwrap_or_else(PoisonError::into_inner),
                }
            };
            message.bytes.copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        self.check()?;
        let processes = lock(&self.own).groups.get(group).filter(|group| group.contains(&self.rank)).map(Vec::len);
        let Some(processes) = processes else {
            let rank = self.rank;
            let message =
                format!("process {rank} cannot sum over group {group}, which it is not in or has not prepared");
            return Err(Error::Run(message));
        };
        let series = Series::Group(group);
        match values {
            Values::F32(values) => {
                let wide = values.iter().map(|&value| f64::from(value)).collect();
                let sum = self.add(series, processes, wide).wait()?;
                values.iter_mut().zip(sum).for_each(|(value, sum)| *value = sum as f32);
            }
            Values::F64(values) => values.copy_from_slice(&self.add(series, processes, values.to_vec()).wait()?),
        }
        Ok(())
    }

    fn start_sum(&self, values: Vec<f64>) -> PendingSum {
        // Without a sender, the one who waits for the sum learns of the end.
        self.check().map_or_else(|_| PendingSum(channel().1), |()| self.add(Series::Started, self.processes, values))
    }

    fn pause_deadlines(&self, _: bool) {}

    fn finish(&self) {
        lock(&self.own).finished = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a function as every one of some processes.
    fn on_all(processes: usize, run: impl Fn(&MemoryEngine) + Sync) {
        let engines = MemoryEngine::all(processes);
        std::thread::scope(|scope| engines.iter().for_each(|engine| drop(scope.spawn(|| run(engine)))));
    }

    #[test]
    fn messages_of_a_tag_arrive_in_order() {
        on_all(3, |engine| {
            let rank = engine.rank() as u8;
            let others: Vec<usize> = (0..3).filter(|&other| other != engine.rank()).collect();
            for round in 0..20 {
                let sent = [rank, round];
                let out = |&process: &usize| {
                    [(0, &sent[..]), (1, &[][..]), (2, &sent[..1])].map(|(tag, bytes)| Outgoing { process, tag, bytes })
                };
                let out: Vec<Outgoing> = others.iter().flat_map(out).collect();
                let mut room = [[[0; 2]; 2]; 2];
                let mut into = Vec::new();
                for (&process, [first, second]) in others.iter().zip(&mut room) {
                    into.push(Incoming { process, tag: 2, bytes: &mut second[..1] });
                    into.push(Incoming { process, tag: 0, bytes: first });
                    into.push(Incoming { process, tag: 1, bytes: &mut [] });
                }
                engine.exchange(&out, &mut into).unwrap();
                let expected = |&other: &usize| [[other as u8, round], [other as u8, 0]];
                assert_eq!(room.to_vec(), others.iter().map(expected).collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn groups_sum_their_own_values() {
        on_all(4, |engine| {
            let rank = engine.rank();
            engine.prepare(&[vec![0, 1, 2, 3], vec![0, 2], vec![1, 3], vec![0, 2]]).unwrap();
            let mut own = [rank as f32, 1.0];
            engine.sum(1 + rank % 2, Values::F32(&mut own)).unwrap();
            assert_eq!(own, [[2.0, 2.0], [4.0, 2.0]][rank % 2]);
            let mut all = [rank as f64];
            engine.sum(0, Values::F64(&mut all)).unwrap();
            assert_eq!(all, [6.0]);
            let refused = engine.sum(2 - rank % 2, Values::F64(&mut all)).unwrap_err();
            assert!(refused.to_string().contains("cannot sum over group"), "{refused}");
        });
    }

    #[test]
    fn started_sums_do_not_wait_for_others() {
        let engines = MemoryEngine::all(2);
        let first: Vec<PendingSum> = (0..3).map(|i| engines[0].start_sum(vec![f64::from(i)])).collect();
        let second: Vec<PendingSum> = (0..3).map(|i| engines[1].start_sum(vec![10.0 * f64::from(i)])).collect();
        for (i, sum) in first.into_iter().enumerate() {
            assert_eq!(sum.wait().unwrap(), [11.0 * i as f64]);
        }
        assert_eq!(second.into_iter().map(|sum| sum.wait().unwrap()[0]).sum::<f64>(), 33.0);
    }

    #[test]
    fn calls_after_the_end_fail() {
        let [engine] = &MemoryEngine::all(1)[..] else { panic!("one engine") };
        engine.prepare(&[vec![0]]).unwrap();
        engine.finish();
        assert!(engine.sum(0, Values::F64(&mut [1.0])).is_err());
        assert!(engine.start_sum(vec![1.0]).wait().is_err());
        assert!(engine.exchange(&[], &mut []).is_err());
    }
}
