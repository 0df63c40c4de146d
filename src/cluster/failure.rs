//! The end of an exchange between processes that cannot go on.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Why the processes cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFailure {
    /// The processes that were waited for, sorted; none if it is not known which.
    pub peers: Vec<usize>,
    /// How long they were waited for; zero if a call failed.
    pub waited: Duration,
    /// What happened.
    pub message: String,
}

impl EngineFailure {
    /// Returns the failure of a call.
    pub fn of_call(message: String) -> Self {
        EngineFailure { peers: Vec::new(), waited: Duration::ZERO, message }
    }
}

/// What is called when the processes cannot go on, possibly by several threads at the same time. It ends the process, best without
/// handlers of exit: a thread may be in a call of a library.
#[derive(Clone)]
pub struct Failed(Arc<dyn Fn(EngineFailure) + Send + Sync>);

impl Failed {
    /// Creates it.
    pub fn new(call: impl Fn(EngineFailure) + Send + Sync + 'static) -> Self {
        Failed(Arc::new(call))
    }

    /// Ends the process.
    pub fn fail(&self, failure: EngineFailure) -> ! {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.0)(failure)));
        // It should have ended the process. Callers whose memory a library may still use cannot go on.
        std::process::abort()
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failed")
    }
}
