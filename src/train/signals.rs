//! Signals that end a run. SIGINT, SIGTERM and SIGHUP: a checkpoint, then death by that signal, so that loops and job
//! scripts stop too. SIGUSR1, which schedulers send before the time is up: a checkpoint, then exit code 75, "start me again".
//!
//! A second signal ends the process at once, and so does the first one before training begins; checkpoints are complete
//! or absent at every moment. A signal that was ignored when the process started, as SIGHUP under `nohup`, stays ignored.

use super::consent::{Consent, Wishes};
use crate::cluster::Team;
use crate::error::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The exit code after SIGUSR1: EX_TEMPFAIL of sysexits.h, which requeues a job.
pub const AGAIN: i32 = 75;

/// The signal that ends a process with [`AGAIN`].
pub const AGAIN_SIGNAL: i32 = SIGUSR1;

/// A signal this soon after the first is the same one: `timeout` and schedulers signal a process, then its group.
const SAME: Duration = Duration::from_millis(200);

/// Requests the end of a run once a signal has arrived.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requested: AtomicBool,
    /// The first signal; 0 if none has arrived.
    signal: AtomicI32,
    training: AtomicBool,
    /// When the time of the run is over.
    deadline: Mutex<Option<Instant>>,
    /// Whether a checkpoint is due by the clock.
    saves: AtomicBool,
    /// What the processes of a team agree on.
    consent: OnceLock<Mutex<Consent>>,
}

fn lock(consent: &Mutex<Consent>) -> MutexGuard<'_, Consent> {
    consent.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// Starts a thread that handles the signals.
    ///
    /// # Errors
    /// If the operating system rejects the handlers or the thread.
    pub fn listen() -> Result<Self> {
        let failed = |e: std::io::Error| Error::Run(format!("cannot handle signals: {e}"));
        let ignored = ignored();
        let handled = [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(handled).map_err(failed)?;
        // Without a handler this signal kills; with one, the write that exceeds a limit on file sizes reports an error.
        flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
        let stop = Stop::default();
        let of_thread = stop.clone();
        let handle = move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                match first {
                    None => of_thread.0.signal.store(signal, Ordering::SeqCst),
                    Some(at) if at.elapsed() < SAME => continue,
                    Some(_) => end(signal),
                }
                first = Some(Instant::now());
                of_thread.request();
                if !of_thread.0.training.load(Ordering::SeqCst) {
                    end(signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(handle).map_err(failed)?;
        Ok(stop)
    }

    /// Declares that training begins: from now on a signal leads to a checkpoint.
    pub fn training(&self) {
        self.0.training.store(true, Ordering::SeqCst);
    }

    /// Lets all processes of a team stop at the same place: from now on, the answers are those of the last [`Stop::look`].
    pub fn join(&self, team: &Arc<Team>) {
        let _ = self.0.consent.set(Mutex::new(Consent::new(team)));
    }

    /// Looks what is requested. All processes of a team call it at the same places of a run, and learn what any of them wished at the place
    /// before. `saves` is whether a checkpoint is due by the clock, `worked` the seconds that this process worked since the look before.
    ///
    /// # Errors
    /// If the processes cannot exchange data.
    pub fn look(&self, saves: bool, worked: f64) -> Result<()> {
        let own = Wishes {
            requested: self.0.requested.load(Ordering::SeqCst),
            signal: self.0.signal.load(Ordering::SeqCst),
            out_of_time: self.is_over(),
            saves,
        };
        match self.0.consent.get() {
            Some(consent) => lock(consent).look(own, worked),
            None => {
                self.0.saves.store(saves, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    /// Returns the seconds that each process of a team worked before the look before the last one; none if there are no others.
    pub fn worked(&self) -> Vec<f64> {
        self.0.consent.get().map_or_else(Vec::new, |consent| lock(consent).worked.clone())
    }

    /// Returns whether a checkpoint was due by the clock at the last [`Stop::look`].
    pub fn saves(&self) -> bool {
        self.0.consent.get().map_or(self.0.saves.load(Ordering::SeqCst), |consent| lock(consent).agreed.saves)
    }

    /// Declares that a checkpoint was written.
    pub fn saved(&self) {
        self.0.saves.store(false, Ordering::SeqCst);
        if let Some(consent) = self.0.consent.get() {
            lock(consent).saved();
        }
    }

    /// Returns true once a signal has arrived, [`Stop::request`] was called, or the time is over.
    pub fn requested(&self) -> bool {
        match self.0.consent.get() {
            Some(consent) => {
                let agreed = lock(consent).agreed;
                agreed.requested || agreed.out_of_time
            }
            None => self.0.requested.load(Ordering::SeqCst) || self.is_over(),
        }
    }

    /// Requests the end at a time; of several, the first counts.
    pub fn at(&self, deadline: Instant) {
        let mut earliest = self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *earliest = Some(earliest.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Returns true once the time is over.
    pub fn out_of_time(&self) -> bool {
        self.0.consent.get().map_or_else(|| self.is_over(), |consent| lock(consent).agreed.out_of_time)
    }

    fn is_over(&self) -> bool {
        let deadline = *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Requests the end, as a signal does.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
    }

    /// Returns the signal that has arrived, if any.
    pub fn signal(&self) -> Option<i32> {
        let own = || self.0.signal.load(Ordering::SeqCst);
        let signal = self.0.consent.get().map_or_else(own, |consent| lock(consent).agreed.signal);
        Some(signal).filter(|&signal| signal != 0)
    }
}

/// Ends the process as a signal requires: by exit code 75 or by the signal itself.
pub fn end(signal: i32) -> ! {
    if signal != SIGUSR1 && std::process::id() == 1 {
        // The first process of a container cannot end by a signal.
        low_level::exit(128 + signal);
    }
    if signal != SIGUSR1 {
        let _ = low_level::emulate_default_handler(signal);
    }
    low_level::exit(AGAIN)
}

/// Ends the process at once, without what libraries and threads do at an orderly end: after the loss of another process, some of that never ends.
pub fn leave(code: i32) -> ! {
    low_level::exit(code)
}

/// Returns the name of a signal.
pub fn name(signal: i32) -> &'static str {
    low_level::signal_name(signal).unwrap_or("a signal")
}

/// Returns the mask of the signals that this process ignores; bit 0 is signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "PERISTYLE_TEST_SIGNALS";

    /// Raises two signals in the child, the second after a pause of milliseconds. Neither is SIGINT, which a job in the
    /// background ignores.
    fn twice(pause: u64) {
        let stop = Stop::listen().unwrap();
        stop.training();
        assert!(!stop.requested());
        low_level::raise(SIGUSR1).unwrap();
        while !stop.requested() {
            std::thread::yield_now();
        }
        assert_eq!(stop.signal(), Some(SIGUSR1));
        std::thread::sleep(Duration::from_millis(pause));
        low_level::raise(SIGTERM).unwrap();
        std::thread::sleep(Duration::from_secs(if pause == 0 { 1 } else { 60 }));
        low_level::exit(3);
    }

    #[test]
    fn a_second_signal_ends_the_process_unless_it_is_the_first_one_again() {
        if let Ok(pause) = std::env::var(CHILD) {
            twice(pause.parse().unwrap());
        }
        let name = "train::signals::tests::a_second_signal_ends_the_process_unless_it_is_the_first_one_again";
        for (pause, signal, code) in [("1000", Some(SIGTERM), None), ("0", None, Some(3))] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let status = child.args(["--exact", name]).env(CHILD, pause).output().unwrap().status;
            assert_eq!((status.signal(), status.code()), (signal, code), "{pause} ms: {status}");
        }
    }

    #[test]
    fn the_end_is_requested_when_the_time_is_over() {
        let stop = Stop::default();
        stop.at(Instant::now() + Duration::from_secs(3600));
        assert!(!stop.requested() && !stop.out_of_time());
        let stop = Stop::default();
        stop.at(Instant::now());
        assert!(stop.requested() && stop.out_of_time() && stop.signal().is_none());
    }
}
