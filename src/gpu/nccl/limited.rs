//! Calls that may never return.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Whether such a call has not returned.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Runs something on a thread of its own; returns its result, or none if that takes longer than a time. The thread is then left behind.
pub(super) fn limited<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = channel();
    let thread = std::thread::Builder::new().name("nccl".to_string()).spawn(move || {
        // Nobody may wait any more.
        let _ = done.send(run());
    });
    let result = thread.ok().and_then(|_| result.recv_timeout(limit).ok());
    if result.is_none() {
        LEFT.store(true, Ordering::Relaxed);
    }
    result
}

/// Returns whether threads of this process are in calls of NCCL that have not returned: the process must then end without handlers of
/// exit, which could wait for them.
pub fn leaves_threads() -> bool {
    LEFT.load(Ordering::Relaxed)
}
