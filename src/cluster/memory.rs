//! An engine for the processes of a test, which are threads of one process.

use super::engine::{Engine, Incoming, Outgoing, PendingSum, Values};
use crate::error::Result;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A sum of several processes, before all of them have said their values.
#[derive(Debug, Default)]
struct Open {
    /// The values of each process, and where it waits for the sum.
    terms: Vec<(usize, Vec<f64>, Sender<Vec<f64>>)>,
}

#[derive(Debug, Default)]
struct Exchanged {
    /// Messages by sender, receiver and tag.
    mail: HashMap<(usize, usize, u16), VecDeque<Vec<u8>>>,
    /// Sums by their group, which is none for those of [`Engine::start_sum`], and their number.
    sums: HashMap<(Option<usize>, usize), Open>,
}

#[derive(Debug, Default)]
struct Shared {
    exchanged: Mutex<Exchanged>,
    arrived: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchanged> {
        self.exchanged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine of one of these processes.
#[derive(Debug)]
pub struct MemoryEngine {
    rank: usize,
    processes: usize,
    shared: Arc<Shared>,
    groups: Mutex<Vec<Vec<usize>>>,
    /// How many sums of each group this process has taken part in.
    begun: Mutex<HashMap<Option<usize>, usize>>,
}

impl MemoryEngine {
    /// Returns the engines of all processes.
    pub fn all(processes: usize) -> Vec<MemoryEngine> {
        let shared: Arc<Shared> = Arc::default();
        let engine = |rank| MemoryEngine {
            rank,
            processes,
            shared: Arc::clone(&shared),
            groups: Mutex::default(),
            begun: Mutex::default(),
        };
        (0..processes).map(engine).collect()
    }

    /// Adds this process's values to a sum. The last process computes it, in the order of the processes.
    fn join(&self, group: Option<usize>, processes: usize, values: Vec<f64>) -> PendingSum {
        let (sender, receiver) = channel();
        let number = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            let count = begun.entry(group).or_default();
            *count += 1;
            *count
        };
        let mut exchanged = self.shared.lock();
        let open = exchanged.sums.entry((group, number)).or_default();
        open.terms.push((self.rank, values, sender));
        if open.terms.len() == processes {
            let mut terms = std::mem::take(&mut open.terms);
            exchanged.sums.remove(&(group, number));
            terms.sort_by_key(|(rank, ..)| *rank);
            let mut sum = vec![0.0; terms[0].1.len()];
            terms.iter().for_each(|(_, term, _)| sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term));
            for (_, _, sender) in terms {
                // Who no longer waits does not need it.
                let _ = sender.send(sum.clone());
            }
        }
        PendingSum(receiver)
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
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = groups.to_vec();
        Ok(())
    }

    fn exchange(&self, outgoing: &[Outgoing<'_>], incoming: &mut [Incoming<'_>]) -> Result<()> {
        for message in outgoing.iter().filter(|message| !message.bytes.is_empty()) {
            let key = (self.rank, message.process, message.tag);
            self.shared.lock().mail.entry(key).or_default().push_back(message.bytes.to_vec());
        }
        self.shared.arrived.notify_all();
        for message in incoming.iter_mut().filter(|message| !message.bytes.is_empty()) {
            let key = (message.process, self.rank, message.tag);
            let mut exchanged = self.shared.lock();
            let bytes = loop {
                match exchanged.mail.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(bytes) => break bytes,
                    None => exchanged = self.shared.arrived.wait(exchanged).unwrap_or_else(PoisonError::into_inner),
                }
            };
            message.bytes.copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        let processes = self.groups.lock().unwrap_or_else(PoisonError::into_inner)[group].len();
        match values {
            Values::F32(values) => {
                let sum =
                    self.join(Some(group), processes, values.iter().map(|&value| f64::from(value)).collect()).wait()?;
                values.iter_mut().zip(sum).for_each(|(value, sum)| *value = sum as f32);
            }
            Values::F64(values) => {
                let sum = self.join(Some(group), processes, values.to_vec()).wait()?;
                values.copy_from_slice(&sum);
            }
        }
        Ok(())
    }

    fn start_sum(&self, values: Vec<f64>) -> PendingSum {
        self.join(None, self.processes, values)
    }

    fn pause_deadlines(&self, _: bool) {}

    fn finish(&self) {}
}
