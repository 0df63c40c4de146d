//! The worker threads of one device, either a CPU device or an emulated GPU.
//!
//! A job is a number of tasks, which depends only on shapes. The result does not depend on which worker executes which
//! task. Workers spin for some microseconds and then sleep, so that having more threads than cores does not cost time.

use crate::error::{Error, Result};
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_micros(20);

/// A task: called with (task, worker).
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The open job, if any.
struct Job {
    task: Option<*const Task<'static>>,
    tasks: usize,
    active: usize,
    stop: bool,
}

// SAFETY: the pointer is only used after `run` publishes it and before `run` observes `active == 0`.
unsafe impl Send for Job {}

struct Shared {
    job: Mutex<Job>,
    opened: Condvar,
    closed: Condvar,
    generation: AtomicU64,
    next: AtomicUsize,
    panicked: AtomicBool,
    /// The payload of the first worker's panic.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Starts a thread.
///
/// # Errors
/// If the operating system cannot start it; the message gives the system's reason and suggests what to change.
pub fn thread<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let started = std::thread::Builder::new().name(name.clone()).spawn(work);
    started.map_err(|error| {
        Error::Run(format!("cannot start the thread \"{name}\": {error}; use fewer devices or fewer threads"))
    })
}

/// A fixed number of threads, including the caller, that share the tasks of a job.
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads - 1` workers; the thread that calls [`Pool::run`] is the last one.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            job: Mutex::new(Job { task: None, tasks: 0, active: 0, stop: false }),
            opened: Condvar::new(),
            closed: Condvar::new(),
            generation: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, threads: threads.max(1), handles: Vec::new() };
        for worker in 1..pool.threads {
            let shared = Arc::clone(&pool.shared);
            // If a thread does not start, those already started end when `pool` is dropped.
            pool.handles.push(thread(format!("worker-{worker}"), move || work(&shared, worker))?);
        }
        Ok(pool)
    }

    /// Returns the number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(i, worker)` once for every i in 0..tasks and returns when all calls have finished.
    ///
    /// `worker` is less than [`Pool::threads`], and no two running tasks share it, so it can select scratch memory.
    ///
    /// # Panics
    /// If a task panics on any thread.
    pub fn run(&self, tasks: usize, task: impl Fn(usize, usize) + Sync) {
        if self.threads == 1 || tasks <= 1 {
            (0..tasks).for_each(|i| task(i, 0));
            return;
        }
        self.share(tasks, &task);
    }

    /// Has all threads take tasks until none is left.
    fn share(&self, tasks: usize, task: &Task<'_>) {
        let shared = &*self.shared;
        let borrowed: *const Task<'_> = task;
        // SAFETY: only the lifetime changes; `Finish` waits until no worker holds the pointer, also on panic.
        let erased: *const Task<'static> = unsafe { std::mem::transmute(borrowed) };
        shared.next.store(0, Ordering::Relaxed);
        {
            let mut job = shared.lock();
            job.task = Some(erased);
            job.tasks = tasks;
            shared.generation.fetch_add(1, Ordering::Release);
        }
        shared.opened.notify_all();
        {
            let _finish = Finish(shared);
            claim(shared, tasks, task, 0);
        }
        if shared.panicked.swap(false, Ordering::AcqRel) {
            let panic = shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            std::panic::resume_unwind(panic.expect("a worker that panicked stores its payload first"));
        }
    }

    /// Divides a slice into chunks of `size` elements, and calls `task(index, chunk, worker)` for each, in parallel.
    pub fn chunks<T: Send>(&self, all: &mut [T], size: usize, task: impl Fn(usize, &mut [T], usize) + Sync) {
        struct Start<T>(*mut T);
        // SAFETY: every task takes a chunk of its own.
        unsafe impl<T: Send> Sync for Start<T> {}
        impl<T> Start<T> {
            fn at(&self, index: usize) -> *mut T {
                self.0.wrapping_add(index)
            }
        }
        let (len, start) = (all.len(), Start(all.as_mut_ptr()));
        self.run(len.div_ceil(size.max(1)), |i, worker| {
            let first = i * size;
            // SAFETY: the chunk lies inside the slice, which stays borrowed until all tasks have ended, and no other task
            // has this index.
            let chunk = unsafe { std::slice::from_raw_parts_mut(start.at(first), size.min(len - first)) };
            task(i, chunk, worker);
        });
    }

    /// Divides 0..n into blocks of length `block` and calls `task(start..end)` for each, in parallel.
    pub fn blocks(&self, n: usize, block: usize, task: impl Fn(std::ops::Range<usize>) + Sync) {
        self.run(n.div_ceil(block), |i, _| task(i * block..n.min((i + 1) * block)));
    }
}

/// Closes the job and waits for its last worker when dropped, so also if a task panics.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut job = self.0.lock();
        job.task = None;
        while job.active > 0 {
            job = self.0.closed.wait(job).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

fn claim(shared: &Shared, tasks: usize, task: &Task<'_>, worker: usize) {
    loop {
        let i = shared.next.fetch_add(1, Ordering::Relaxed);
        if i >= tasks {
            return;
        }
        task(i, worker);
    }
}

fn work(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let start = Instant::now();
        while shared.generation.load(Ordering::Acquire) == seen && start.elapsed() < SPIN {
            std::hint::spin_loop();
        }
        let mut job = shared.lock();
        while shared.generation.load(Ordering::Acquire) == seen && !job.stop {
            job = shared.opened.wait(job).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if job.stop {
            return;
        }
        seen = shared.generation.load(Ordering::Acquire);
        let Some(task) = job.task else { continue };
        let tasks = job.tasks;
        job.active += 1;
        drop(job);
        // SAFETY: `active` was incremented under the lock while the job was open, so `run` has not returned.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            claim(shared, tasks, unsafe { &*task }, worker);
        }));
        if let Err(panic) = result {
            shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(panic);
            shared.panicked.store(true, Ordering::Release);
        }
        let mut job = shared.lock();
        job.active -= 1;
        if job.active == 0 {
            shared.closed.notify_all();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.opened.notify_all();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_workers_never_share_a_number() {
        let pool = Pool::new(4).unwrap();
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        for round in 0..200 {
            let counts: Vec<AtomicUsize> = (0..round).map(|_| AtomicUsize::new(0)).collect();
            pool.run(round, |i, worker| {
                assert!(!busy[worker].swap(true, Ordering::AcqRel));
                counts[i].fetch_add(1, Ordering::Relaxed);
                busy[worker].store(false, Ordering::Release);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_remains_usable() {
        let pool = Pool::new(3).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(64, |i, _| assert!(i != 33, "task {i}"));
        }));
        assert_eq!(result.unwrap_err().downcast_ref::<String>().map(String::as_str), Some("task 33"));
        let sum = AtomicUsize::new(0);
        pool.run(10, |i, _| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 45);
    }
}
