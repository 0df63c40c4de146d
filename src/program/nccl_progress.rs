//! How far the collectives of NCCL have come, and what ends a process that waits in one for ever.
//!
//! The host does not see collectives that a graph replays. Each therefore begins with a copy of its number to host memory, which a thread
//! looks at: for flight records, and so that a process whose GPU hangs is told from those that wait for it. The thread also asks the
//! library for errors.

use super::exchange::DeviceCollective;
use super::{InputStaging, Plan, Work};
use crate::cluster::flight::Ticket;
use crate::cluster::{EngineFailure, Flown, Team};
use crate::device::Queue;
use crate::error::Result;
use crate::gpu::nccl::Communicators;
use crate::gpu::{Gpus, HostNumbers};
use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(100);

/// A step whose end the host has not seen.
#[derive(Debug)]
struct UnderWay {
    program: usize,
    slot: usize,
    step: u64,
    since: Instant,
    /// The collectives that are recorded.
    recorded: usize,
    /// The last of them, until it has ended.
    open: Option<Ticket>,
}

#[derive(Debug)]
struct Shared {
    team: Arc<Team>,
    /// The collectives of the first device, by program.
    collectives: Vec<Vec<Flown>>,
    steps: Mutex<VecDeque<UnderWay>>,
    /// The number of the collective that a step is in, by slot.
    reached: HostNumbers,
}

/// The progress of the first device of this process.
#[derive(Debug)]
pub(super) struct NcclProgress {
    shared: Arc<Shared>,
    /// Numbers on the device, from 1.
    numbers: u64,
    /// Ends the thread when it is dropped.
    _stop: Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the collectives of a step up to a number.
    fn record(&self, step: &mut UnderWay, up_to: usize) {
        let flight = self.team.flight();
        for flown in self.collectives[step.program].get(step.recorded..up_to).unwrap_or_default() {
            if let Some(ticket) = step.open.take() {
                flight.end(ticket);
            }
            step.open = Some(flight.begin(flown.kind, &flown.name, &flown.processes, flown.bytes));
            step.recorded += 1;
        }
    }

    /// Looks at the first step; returns since when it is under way, if it is, and its number.
    fn look(&self) -> Option<(Instant, u64)> {
        let mut steps = self.lock();
        let first = steps.front_mut()?;
        self.record(first, self.reached.get(first.slot) as usize);
        Some((first.since, first.step))
    }

    fn watch(&self, communicators: &Communicators) {
        let (peers, limit) = (
            || (0..self.team.processes()).filter(|&process| process != self.team.rank()),
            self.team.timeouts().collective,
        );
        let first = self.look();
        if let Some(message) = communicators.failure() {
            let message = format!("a collective between GPUs failed: {message}");
            self.team.fail(EngineFailure { peers: Vec::new(), waited: Duration::ZERO, message });
        }
        if let Some((_, step)) = first.filter(|(since, _)| since.elapsed() > limit) {
            let message = format!("step {step} did not end within {} s", limit.as_secs_f64());
            self.team.fail(EngineFailure { peers: peers().collect(), waited: limit, message });
        }
    }
}

impl NcclProgress {
    /// Begins to watch over the collectives of a plan.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn begin(plan: &Plan, gpus: &mut Gpus, team: &Arc<Team>, communicators: &Arc<Communicators>) -> Result<Self> {
        let of_program = |program: &super::Program| {
            let own = program.instructions.iter().filter(|step| step.device == 0);
            let flown = own.flat_map(|step| {
                DeviceCollective::of(&step.work).map(|(collective, part)| {
                    let element = program.buffers[part.to.0].element;
                    collective.flown(&step.name, part, element, &plan.spec.processes)
                })
            });
            flown.collect::<Vec<_>>()
        };
        let collectives: Vec<Vec<Flown>> = plan.programs.iter().map(of_program).collect();
        let most = collectives.iter().map(Vec::len).max().unwrap_or(0);
        let numbers: Vec<u32> = (1..=most as u32).collect();
        let numbers = gpus.upload(0, &numbers)?;
        let reached = HostNumbers::new(gpus, InputStaging::SLOTS)?;
        let shared = Arc::new(Shared { team: Arc::clone(team), collectives, steps: Mutex::default(), reached });
        let (stop, stopped) = channel();
        let (watched, communicators) = (Arc::clone(&shared), Arc::downgrade(communicators));
        let watch = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let Some(communicators) = communicators.upgrade() else { return };
                watched.watch(&communicators);
            }
        };
        let thread = std::thread::Builder::new().name("nccl watch".to_string());
        thread.spawn(watch).map_err(|error| crate::error::Error::Run(format!("the watch over NCCL: {error}")))?;
        Ok(NcclProgress { shared, numbers, _stop: stop })
    }

    /// Issues the copy of a collective's number, from 0, in the program of a slot.
    pub fn mark(&self, gpus: &Gpus, number: usize, slot: usize) -> Result<()> {
        let from = self.numbers + (number * size_of::<u32>()) as u64;
        self.shared.reached.copy(gpus, (0, Queue::Communication), from, slot)
    }

    /// Records that a step is about to be issued.
    pub fn begins(&self, program: usize, slot: usize, step: u64) {
        self.shared.reached.set(slot, 0);
        let since = Instant::now();
        self.shared.lock().push_back(UnderWay { program, slot, step, since, recorded: 0, open: None });
    }

    /// Records that the first step under way has ended.
    pub fn ended(&self) {
        let mut steps = self.shared.lock();
        let Some(mut first) = steps.pop_front() else { return };
        if let Some(next) = steps.front_mut() {
            next.since = Instant::now();
        }
        let all = self.shared.collectives[first.program].len();
        self.shared.record(&mut first, all);
        if let Some(ticket) = first.open.take() {
            self.shared.team.flight().end(ticket);
        }
    }
}

/// Returns the number of each collective of the first device, by its instruction; none for others.
pub(super) fn numbers(program: &super::Program) -> Vec<Option<usize>> {
    let mut next = 0;
    let number = |step: &super::Instruction| {
        let counts = step.device == 0 && matches!(step.work, Work::Collective { .. });
        next += usize::from(counts);
        counts.then(|| next - 1)
    };
    program.instructions.iter().map(number).collect()
}
