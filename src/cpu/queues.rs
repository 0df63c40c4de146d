//! The queues of CPU devices. Each has one thread, which runs the queue's steps in order and waits for events of other
//! queues.
//!
//! An event means that queue q has finished its first n steps of this run. A queue's progress counter represents all
//! its events.

use crate::device::{Clock, Pool, Queue, thread};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_micros(20);

/// A program for the queues: for each queue a list of steps, each with the events for which it waits.
pub trait QueueProgram: Send + Sync {
    /// Returns the number of steps of a queue.
    fn len(&self, queue: usize) -> usize;
    /// Returns true if a queue has no steps.
    fn is_empty(&self, queue: usize) -> bool {
        self.len(queue) == 0
    }
    /// Returns the events for which a step waits, as (queue, number of its steps that must have finished).
    fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)];
    /// Executes the step.
    ///
    /// # Errors
    /// If it needs something outside this process that has ended.
    fn perform(&self, queue: usize, step: usize, clock: Clock, pool: &Pool) -> Result<()>;
    /// Returns the step's name, for messages.
    fn name(&self, queue: usize, step: usize) -> String;
}

struct Command {
    script: Option<Arc<dyn QueueProgram>>,
    clock: Clock,
}

struct Shared {
    order: Mutex<Command>,
    /// The number of the latest run requested from each queue.
    asked: Vec<AtomicU64>,
    /// The number of steps that each queue has finished in this run.
    progress: Vec<AtomicUsize>,
    /// The number of queues that have not finished this run.
    busy: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    /// The nanoseconds that the compute queue of each device worked in this run, without waiting for others.
    worked: Vec<AtomicU64>,
    /// The nanoseconds that it waited for the communication queue of a device.
    exposed: Vec<AtomicU64>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    bell: Mutex<()>,
    rung: Condvar,
    /// How long a thread spins before it sleeps. Spinning only helps if every thread has a core.
    spin: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    /// Waits until `ready` returns true: spins briefly, then sleeps until the bell rings.
    fn wait(&self, ready: impl Fn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < self.spin {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = lock(&self.bell);
        while !ready() {
            guard = self.rung.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes every sleeping thread. Must be called after each change of a condition that may be waited for.
    fn ring(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.bell));
            self.rung.notify_all();
        }
    }
}

/// The queue threads of one or more CPU devices.
pub struct Queues {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    runs: u64,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queues({})", self.handles.len())
    }
}

impl Queues {
    /// Starts the queues of `devices` devices; each device's compute queue has `threads` threads.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn new(devices: usize, threads: usize) -> Result<Self> {
        let count = devices * Queue::COUNT;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            order: Mutex::new(Command { script: None, clock: Clock::default() }),
            asked: (0..count).map(|_| AtomicU64::new(0)).collect(),
            progress: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            busy: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            worked: (0..devices).map(|_| AtomicU64::new(0)).collect(),
            exposed: (0..devices).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bell: Mutex::new(()),
            rung: Condvar::new(),
            spin: if devices * threads <= cores { SPIN } else { Duration::ZERO },
        });
        let mut queues = Queues { shared, handles: Vec::with_capacity(count), runs: 0 };
        for index in 0..count {
            let shared = Arc::clone(&queues.shared);
            let queue = Queue::ALL[index % Queue::COUNT];
            let pool = Pool::new(if queue == Queue::Compute { threads } else { 1 })?;
            let name = format!("cpu:{} {queue}", index / Queue::COUNT);
            // If a thread does not start, those already started end when `queues` is dropped.
            queues.handles.push(thread(name, move || serve(&shared, index, &pool))?);
        }
        Ok(queues)
    }

    /// Runs a program once on all queues and returns when every step has finished.
    ///
    /// # Errors
    /// If a step panics: the error names its device, queue and step. The queues cannot be used again after that.
    pub fn run(&mut self, script: &Arc<dyn QueueProgram>, clock: Clock) -> Result<()> {
        let shared = &*self.shared;
        if shared.failed.load(Ordering::SeqCst) {
            return Err(Error::Run("an earlier step failed; start the run again from its last checkpoint".into()));
        }
        self.runs += 1;
        let count = shared.progress.len();
        {
            let mut order = lock(&shared.order);
            order.script = Some(Arc::clone(script));
            order.clock = clock;
        }
        shared.progress.iter().for_each(|p| p.store(0, Ordering::SeqCst));
        shared.busy.store((0..count).filter(|&q| !script.is_empty(q)).count(), Ordering::SeqCst);
        for queue in (0..count).filter(|&q| !script.is_empty(q)) {
            shared.asked[queue].store(self.runs, Ordering::SeqCst);
            self.handles[queue].thread().unpark();
        }
        shared.wait(|| shared.busy.load(Ordering::SeqCst) == 0);
        match lock(&shared.failure).take() {
            Some(message) => Err(Error::Run(message)),
            None => Ok(()),
        }
    }

    /// Returns how long the compute queue of the slowest device worked in the last run, without waiting for other queues.
    pub fn worked(&self) -> Duration {
        most(&self.shared.worked)
    }

    /// Returns how long the compute queue of a device waited at most for communication in the last run.
    pub fn exposed(&self) -> Duration {
        most(&self.shared.exposed)
    }
}

fn most(all: &[AtomicU64]) -> Duration {
    let most = all.iter().map(|nanoseconds| nanoseconds.load(Ordering::SeqCst)).max();
    Duration::from_nanos(most.unwrap_or(0))
}

/// Runs some steps of a program, as (queue, step of that queue), which wait for no event: one on this thread, several at the same time.
///
/// # Errors
/// As for [`Queues::run`].
pub fn run_together(script: &dyn QueueProgram, steps: &[(usize, usize)], clock: Clock, pool: &Pool) -> Result<()> {
    if let [(queue, step)] = *steps {
        return perform(script, queue, step, clock, pool).map_err(Error::Run);
    }
    std::thread::scope(|scope| {
        let run = |&(queue, step): &(usize, usize)| {
            scope.spawn(move || perform(script, queue, step, clock, &Pool::new(1).map_err(|error| error.to_string())?))
        };
        let threads: Vec<_> = steps.iter().map(run).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| Err(panic_text(&*panic))));
        ended.fold(Ok(()), std::result::Result::and).map_err(Error::Run)
    })
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            let _ = handle.join();
        }
    }
}

fn serve(shared: &Shared, queue: usize, pool: &Pool) {
    let mut served = 0;
    loop {
        let start = Instant::now();
        while shared.asked[queue].load(Ordering::SeqCst) == served {
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            if start.elapsed() < shared.spin { std::hint::spin_loop() } else { std::thread::park() }
        }
        served = shared.asked[queue].load(Ordering::SeqCst);
        let (script, clock) = {
            let order = lock(&shared.order);
            (Arc::clone(order.script.as_ref().expect("a run sets its program before it is requested")), order.clock)
        };
        let (begun, mut waited, mut exposed) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        for step in 0..script.len(queue) {
            for &(other, count) in script.waits(queue, step) {
                let done = || shared.progress[other].load(Ordering::SeqCst) >= count;
                if !done() {
                    let asked = Instant::now();
                    shared.wait(|| done() || shared.failed.load(Ordering::SeqCst));
                    let waited_here = asked.elapsed();
                    waited += waited_here;
                    if Queue::ALL[other % Queue::COUNT] == Queue::Communication {
                        exposed += waited_here;
                    }
                }
            }
            if shared.failed.load(Ordering::SeqCst) {
                break;
            }
            if let Err(message) = perform(&*script, queue, step, clock, pool) {
                lock(&shared.failure).get_or_insert(message);
                shared.failed.store(true, Ordering::SeqCst);
                shared.ring();
                break;
            }
            shared.progress[queue].fetch_add(1, Ordering::SeqCst);
            shared.ring();
        }
        drop(script);
        if Queue::ALL[queue % Queue::COUNT] == Queue::Compute {
            let worked = begun.elapsed().saturating_sub(waited).as_nanos() as u64;
            shared.worked[queue / Queue::COUNT].store(worked, Ordering::SeqCst);
            shared.exposed[queue / Queue::COUNT].store(exposed.as_nanos() as u64, Ordering::SeqCst);
        }
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        shared.ring();
    }
}

/// Executes a step; a panic becomes a message that names the step.
fn perform(
    script: &dyn QueueProgram,
    queue: usize,
    step: usize,
    clock: Clock,
    pool: &Pool,
) -> std::result::Result<(), String> {
    let failed = |why: &str| {
        let (device, name) = (queue / Queue::COUNT, script.name(queue, step));
        format!("device {device}, {} queue, step {} \"{name}\": {why}", Queue::ALL[queue % Queue::COUNT], clock.step)
    };
    let work = std::panic::AssertUnwindSafe(|| script.perform(queue, step, clock, pool));
    match std::panic::catch_unwind(work) {
        Ok(result) => result.map_err(|error| failed(&error.to_string())),
        Err(panic) => Err(failed(&panic_text(&*panic)) + "; this is a bug in peristyle, please report it"),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step of queue q waits for the same step of queue q - 1.
    struct Chain {
        log: Mutex<Vec<(usize, usize)>>,
        waits: Vec<[(usize, usize); 1]>,
        fail: Option<(usize, usize)>,
    }

    impl QueueProgram for Chain {
        fn len(&self, queue: usize) -> usize {
            if queue < 4 { 5 } else { 0 }
        }
        fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)] {
            if queue == 0 { &[] } else { &self.waits[(queue - 1) * 5 + step] }
        }
        fn perform(&self, queue: usize, step: usize, _: Clock, _: &Pool) -> Result<()> {
            assert!(self.fail != Some((queue, step)), "planted");
            lock(&self.log).push((queue, step));
            Ok(())
        }
        fn name(&self, queue: usize, step: usize) -> String {
            format!("q{queue} s{step}")
        }
    }

    fn chain(fail: Option<(usize, usize)>) -> Arc<Chain> {
        let waits = (0..3).flat_map(|q| (0..5).map(move |s| [(q, s + 1)])).collect();
        Arc::new(Chain { log: Mutex::new(Vec::new()), waits, fail })
    }

    #[test]
    fn steps_wait_for_their_events() -> Result<()> {
        let mut queues = Queues::new(2, 1)?;
        for _ in 0..100 {
            let chain = chain(None);
            queues.run(&(Arc::clone(&chain) as Arc<dyn QueueProgram>), Clock::default())?;
            let log = lock(&chain.log);
            assert_eq!(log.len(), 20);
            let at = |q, s| log.iter().position(|&x| x == (q, s));
            assert!((1..4).all(|q| (0..5).all(|s| at(q, s) > at(q - 1, s))));
        }
        Ok(())
    }

    #[test]
    fn steps_run_alone_or_together_and_one_that_panics_is_named() -> Result<()> {
        let (pool, list) = (Pool::new(1)?, [(2, 0), (0, 0), (2, 1)]);
        let script = chain(None);
        list.iter().try_for_each(|step| run_together(&*script, std::slice::from_ref(step), Clock::default(), &pool))?;
        assert_eq!(*lock(&script.log), list);
        run_together(&*script, &list, Clock::default(), &pool)?;
        assert_eq!(lock(&script.log).len(), 6);
        let error = run_together(&*chain(Some((0, 0))), &list, Clock::default(), &pool).unwrap_err().to_string();
        assert!(error.contains("device 0, compute queue, step 0 \"q0 s0\": planted"), "{error}");
        Ok(())
    }

    #[test]
    fn a_step_that_panics_ends_the_run_and_is_named() {
        let mut queues = Queues::new(2, 1).unwrap();
        let script: Arc<dyn QueueProgram> = chain(Some((1, 2)));
        let error = queues.run(&script, Clock { step: 7, ..Clock::default() }).unwrap_err().to_string();
        assert!(error.contains("device 0, communication queue, step 7 \"q1 s2\": planted"), "{error}");
        assert!(queues.run(&script, Clock::default()).is_err());
    }
}
