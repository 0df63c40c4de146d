//! Processes of these tests are threads; losses are made by hand.

use super::join::connect;
use super::*;
use std::io::Write;
use std::sync::mpsc::{Receiver, channel};

/// Longer than any step of a test takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Job {
    watches: Vec<Watch>,
    losses: Vec<Receiver<Loss>>,
    progress: Vec<Arc<JobProgress>>,
}

fn options(rank: usize, processes: usize, timeout: Duration) -> (WatchOptions, Receiver<Loss>) {
    let (sender, losses) = channel();
    let sender = Mutex::new(sender);
    let failed = Box::new(move |loss: &Loss| drop(lock(&sender).send(loss.clone())));
    let progress = Arc::default();
    (WatchOptions { rank, processes, timeout, start_timeout: PATIENCE, progress, failed }, losses)
}

/// Starts the watches of a job; `disturb` is called with the meeting before any process joins.
fn start(processes: usize, timeout: Duration, disturb: impl FnOnce(&Meeting)) -> Job {
    let listener = Listener::bind().unwrap();
    let meeting = listener.meeting.clone();
    disturb(&meeting);
    let (mut losses, mut progress, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    let mut listener = Some(listener);
    for rank in 0..processes {
        let (options, lost) = options(rank, processes, timeout);
        losses.push(lost);
        progress.push(Arc::clone(&options.progress));
        let (listener, meeting) = (listener.take(), meeting.clone());
        threads.push(std::thread::spawn(move || match listener {
            Some(listener) => Watch::lead(listener, options).unwrap(),
            None => Watch::follow(&meeting, options).unwrap(),
        }));
    }
    Job { watches: threads.into_iter().map(|thread| thread.join().unwrap()).collect(), losses, progress }
}

/// Asserts that all processes but `lost` are told of its loss, once.
fn assert_lost(job: &Job, lost: usize, reason: &str) {
    for (rank, losses) in job.losses.iter().enumerate().filter(|(rank, _)| *rank != lost) {
        let loss = losses.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("process {rank} is told nothing"));
        assert_eq!(loss.rank, lost, "{loss}");
        assert!(loss.to_string().contains(reason), "{loss}");
        assert!(losses.recv_timeout(Duration::from_millis(50)).is_err(), "process {rank} is told twice");
    }
}

/// Closes the connections of a process without a goodbye, as its end does.
fn kill(watch: &Watch) {
    watch.0.over.store(true, Ordering::SeqCst);
    watch.0.peers.iter().for_each(|peer| drop(peer.connection.shutdown(Shutdown::Both)));
}

#[test]
fn a_process_whose_connection_closes_is_lost_at_once() {
    for lost in 0..4 {
        let job = start(4, PATIENCE, |_| {});
        job.progress[lost].at_step(17);
        kill(&job.watches[lost]);
        assert_lost(&job, lost, "its connection closed");
    }
}

#[test]
fn a_silent_process_is_lost_after_the_timeout() {
    let listener = Listener::bind().unwrap();
    let meeting = listener.meeting.clone();
    let (own, losses) = options(0, 2, Duration::from_millis(500));
    let lead = std::thread::spawn(move || Watch::lead(listener, own).unwrap());
    // It joins, and then says nothing.
    let silent = connect(&meeting, (1, 2), &this_process(), PATIENCE).unwrap();
    let watch = lead.join().unwrap();
    let loss = losses.recv_timeout(PATIENCE).unwrap();
    assert!(loss.rank == 1 && loss.reason.contains("nothing was heard of it"), "{loss}");
    drop((silent, watch));
}

#[test]
fn an_error_is_told_and_a_goodbye_is_no_loss() {
    let job = start(3, PATIENCE, |_| {});
    job.watches[2].fail("failed: its disk is full");
    assert_lost(&job, 2, "failed: its disk is full");
    let job = start(3, PATIENCE, |_| {});
    job.watches.iter().for_each(Watch::finish);
    drop(job.watches);
    assert!(job.losses.iter().all(|losses| losses.recv_timeout(Duration::from_millis(200)).is_err()));
}

#[test]
fn of_a_late_collective_the_process_that_has_not_begun_it_is_named() {
    for waits in [0, 1] {
        let job = start(4, Duration::from_secs(3), |_| {});
        for progress in job.progress.iter().enumerate().filter(|(rank, _)| *rank != 3).map(|(_, progress)| progress) {
            (0..5).for_each(|_| {
                progress.begin_collective();
            });
        }
        // Signs of life carry that.
        std::thread::sleep(Duration::from_millis(1500));
        job.watches[waits].late("the sum of gradients");
        for losses in &job.losses {
            let loss = losses.recv_timeout(PATIENCE).unwrap();
            assert_eq!(loss.rank, 3, "{loss}");
            assert!(loss.reason.contains(&format!("process {waits} waits for the sum of gradients")), "{loss}");
        }
    }
}

#[test]
fn strangers_do_not_disturb_the_start() {
    let job = start(3, PATIENCE, |meeting| {
        let strange = || TcpStream::connect(("127.0.0.1", meeting.port)).unwrap();
        let silent: Vec<TcpStream> = (0..40).map(|_| strange()).collect();
        let mut garbage = strange();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Who guesses the form, but not the token.
        let member = this_process();
        let version = env!("CARGO_PKG_VERSION").to_string();
        Note::Join { rank: 1, processes: 3, version, member, token: Token::random() }.send(&strange()).unwrap();
        // They stay until the job has started.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            drop((silent, garbage));
        });
    });
    assert_eq!(job.watches[1].members().len(), 3);
    assert!(job.losses.iter().all(|losses| losses.try_recv().is_err()));
}

#[test]
fn who_does_not_belong_to_the_job_is_told_why() {
    for (rank, processes, expected) in [(5, 3, "does not belong"), (1, 4, "does not belong")] {
        let listener = Listener::bind().unwrap();
        let meeting = listener.meeting.clone();
        let (mut own, _) = options(0, 3, PATIENCE);
        own.start_timeout = Duration::from_secs(2);
        let lead = std::thread::spawn(move || Watch::lead(listener, own).map(|_| ()));
        let (other, _) = options(rank, processes, PATIENCE);
        let error = Watch::follow(&meeting, other).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let error = lead.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("2 processes of 3 did not reach process 0") && error.contains(": 1, 2;"), "{error}");
    }
}
