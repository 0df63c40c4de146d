//! Processes of these tests are threads. Limits are far longer than what is promised, so that a busy machine passes.

use super::lock::lock;
use super::message::{Join, LONGEST};
use super::*;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// Longer than any step of a test takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Job {
    watches: Vec<Watch>,
    losses: Vec<Receiver<Loss>>,
    progress: Vec<Arc<JobProgress>>,
}

fn options(rank: usize, processes: usize, timeout: Duration) -> (WatchOptions, Receiver<Loss>) {
    let (sender, losses) = channel();
    let sender = Mutex::new(sender);
    let failed = Box::new(move |loss: Loss| drop(lock(&sender).send(loss)));
    (WatchOptions { rank, processes, timeout, start_timeout: PATIENCE, progress: Arc::default(), failed }, losses)
}

/// The address of a listener of a test.
fn here() -> Vec<String> {
    vec!["127.0.0.1".to_string()]
}

fn lead(listener: Listener, token: &Token, options: WatchOptions) -> JoinHandle<Result<Watch>> {
    let token = token.clone();
    std::thread::spawn(move || Watch::lead(listener, &token, options))
}

/// Starts the watches of a job; `disturb` is called before any process joins.
fn start(processes: usize, timeout: Duration, disturb: impl FnOnce(u16, &Token)) -> Job {
    let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
    let port = listener.port();
    let (own, lost) = options(0, processes, timeout);
    let (mut losses, mut progress) = (vec![lost], vec![Arc::clone(&own.progress)]);
    let mut threads = vec![lead(listener, &token, own)];
    disturb(port, &token);
    for rank in 1..processes {
        let (options, lost) = options(rank, processes, timeout);
        losses.push(lost);
        progress.push(Arc::clone(&options.progress));
        let token = token.clone();
        threads.push(std::thread::spawn(move || Watch::follow(&here(), port, &token, options)));
    }
    Job { watches: threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect(), losses, progress }
}

/// Asserts that the processes lose `lost`, once each, for a reason.
fn assert_lost(job: &Job, by: impl IntoIterator<Item = usize>, lost: usize, reason: &str) {
    for rank in by {
        let loss = job.losses[rank].recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("process {rank} hears nothing"));
        assert_eq!(loss.rank, lost, "{loss}");
        assert_eq!(loss.host, host_name());
        assert!(loss.to_string().contains(reason), "{loss}");
        assert!(job.losses[rank].recv_timeout(Duration::from_millis(50)).is_err(), "process {rank} hears it twice");
    }
}

/// Asserts that no process hears of a loss for a while.
fn assert_undisturbed(job: &Job, time: Duration) {
    std::thread::sleep(time);
    assert!(job.losses.iter().all(|losses| losses.try_recv().is_err()));
}

fn join_of(rank: usize, processes: usize, token: &Token) -> Join {
    options(rank, processes, PATIENCE).0.introduce(token).unwrap()
}

/// Connects and sends bytes; the connection stays open.
fn stranger(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // It may be closed already.
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn eight_processes_join_and_hear_of_each_other() {
    let job = start(8, PATIENCE, |_, _| {});
    for (rank, watch) in job.watches.iter().enumerate() {
        assert_eq!(
            watch.hosts(),
            vec![Whereabouts { host: host_name(), pid: std::process::id() }; 8],
            "process {rank}"
        );
        assert_eq!(watch.progress().iter().flatten().count(), if rank == 0 { 8 } else { 2 });
    }
    job.progress[5].at_step(3);
    job.watches.iter().for_each(Watch::finish);
    // A goodbye brings the last place along.
    assert_eq!(job.watches[0].progress().len(), 8);
    assert_undisturbed(&job, Duration::from_millis(200));
}

#[test]
fn one_process_alone_needs_nobody() {
    let job = start(1, PATIENCE, |_, _| {});
    job.watches[0].finish();
    assert_undisturbed(&job, Duration::from_millis(10));
}

#[test]
fn signs_of_life_carry_progress_to_process_0() {
    let job = start(3, Duration::from_millis(500), |_, _| {});
    job.progress[2].at_step(7);
    job.progress[2].begin(40);
    job.progress[2].end(39);
    let expected = Some(Reached { step: 7, begun: 40, ended: 39 });
    let begin = Instant::now();
    while job.watches[0].progress()[2] != expected {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_whose_connection_closes_is_lost_at_once() {
    for lost in 0..4 {
        let mut job = start(4, PATIENCE, |_, _| {});
        job.progress[lost].at_step(17);
        drop(job.watches.remove(lost));
        assert_lost(&job, (0..4).filter(|rank| *rank != lost), lost, "its connection closed without a goodbye");
        assert!(job.losses[lost].try_recv().is_err());
    }
}

#[test]
fn a_silent_process_is_lost_after_the_timeout_and_hears_of_it_itself() {
    let timeout = Duration::from_secs(1);
    let job = start(4, timeout, |_, _| {});
    let begin = Instant::now();
    job.watches[2].shared.muted.store(true, Ordering::SeqCst);
    assert_lost(&job, 0..4, 2, "heard nothing of it for");
    assert!(begin.elapsed() > timeout / 2);
}

#[test]
fn if_process_0_is_silent_the_others_find_out_by_themselves() {
    let job = start(3, Duration::from_secs(1), |_, _| {});
    job.watches[0].shared.muted.store(true, Ordering::SeqCst);
    assert_lost(&job, 0..3, 0, "heard nothing of it for");
}

#[test]
fn the_error_of_a_process_reaches_all_others_but_not_itself() {
    for lost in [0, 2] {
        let job = start(4, PATIENCE, |_, _| {});
        job.progress[lost].at_step(9);
        job.progress[lost].begin(5);
        let begin = Instant::now();
        job.watches[lost].fail("its disk is full\u{7}");
        assert!(begin.elapsed() < Duration::from_secs(5));
        let reason = format!(
            "process {lost} (host {}) ended with an error: its disk is full ; it was at step 9, collective 5",
            host_name()
        );
        assert_lost(&job, (0..4).filter(|rank| *rank != lost), lost, &reason);
        assert!(job.losses[lost].try_recv().is_err());
    }
}

#[test]
fn of_an_overdue_collective_the_process_that_has_not_begun_it_is_named() {
    for reporter in [0, 1] {
        let job = start(4, Duration::from_secs(2), |_, _| {});
        for rank in [0, 1, 2] {
            job.progress[rank].begin(1234);
        }
        job.progress[3].begin(1230);
        job.progress[3].at_step(17);
        job.watches[reporter].report_timeout(1234, "all-reduce conv1", Duration::from_secs(600));
        let reason = format!(
            "process 3 (host {}) did not begin collective 1234 \"all-reduce conv1\" within 600 s, for which process {reporter} waits; it \
             was at step 17",
            host_name()
        );
        assert_lost(&job, 0..4, 3, &reason);
    }
}

#[test]
fn an_overdue_collective_after_the_goodbye_of_process_0_is_blamed_on_it() {
    let job = start(3, PATIENCE, |_, _| {});
    job.watches[0].finish();
    job.watches[2].report_timeout(5, "sum", Duration::from_secs(1));
    assert_lost(&job, [2], 0, "had ended when process 2 waited for collective 5 \"sum\"");
    assert!(job.losses[0].try_recv().is_err());
}

#[test]
fn after_a_goodbye_a_closed_connection_is_no_loss() {
    let timeout = Duration::from_millis(500);
    let mut job = start(3, timeout, |_, _| {});
    job.watches[1].finish();
    drop(job.watches.remove(1));
    assert_undisturbed(&job, 3 * timeout);
    job.watches[0].finish();
    drop(job.watches.remove(0));
    assert_undisturbed(&job, 3 * timeout);
}

#[test]
fn a_goodbye_does_not_wait_for_a_process_that_is_stopped() {
    let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
    let port = listener.port();
    let lead = lead(listener, &token, options(0, 2, PATIENCE).0);
    let silent = stranger(port, &Message::Join(join_of(1, 2, &token)).to_frame().unwrap());
    let watch = lead.join().unwrap().unwrap();
    let begin = Instant::now();
    watch.finish();
    drop(watch);
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn strangers_do_not_disturb_the_join() {
    let mut held = Vec::new();
    let job = start(4, PATIENCE, |port, token| {
        held.extend((0..100).map(|_| stranger(port, b"")));
        held.push(stranger(port, b"GET / HTTP/1.1\r\n\r\n"));
        held.push(stranger(port, &[0xff; 9000]));
        held.push(stranger(port, &[0, 0, 7, 0, b'{']));
        held.push(stranger(port, &Message::Alive(Reached::default()).to_frame().unwrap()));
        held.push(stranger(port, &Message::Join(join_of(1, 4, &Token::random().unwrap())).to_frame().unwrap()));
        // Half of a right join.
        held.push(stranger(port, &Message::Join(join_of(2, 4, token)).to_frame().unwrap()[..80]));
        // These come and go.
        (0..1000).for_each(|_| drop(stranger(port, b"x")));
    });
    assert_eq!(job.watches[3].hosts().len(), 4);
    assert_undisturbed(&job, Duration::from_millis(200));
}

#[test]
fn processes_join_while_strangers_connect_without_end() {
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut floods = Vec::new();
    let job = start(8, PATIENCE, |port, _| {
        for _ in 0..2 {
            let over = Arc::clone(&over);
            floods.push(std::thread::spawn(move || {
                let (mut held, mut count) = (std::collections::VecDeque::new(), 0);
                while !over.load(Ordering::SeqCst) {
                    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                    held.push_back(stream);
                    held.drain(..held.len().saturating_sub(100));
                    count += 1;
                }
                count
            }));
        }
    });
    over.store(true, Ordering::SeqCst);
    assert!(floods.into_iter().map(|flood| flood.join().unwrap()).sum::<usize>() > 0);
    assert_undisturbed(&job, Duration::from_millis(100));
}

#[test]
fn after_the_join_nobody_listens_any_more_and_the_job_goes_on() {
    let mut at = 0;
    let job = start(3, Duration::from_secs(1), |port, _| at = port);
    for _ in 0..200 {
        // A connection may find itself at both ends, but not the watch.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", at)) {
            assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let _ = stream.write_all(b"x");
        }
    }
    assert_undisturbed(&job, Duration::from_secs(2));
}

#[test]
fn a_wrong_token_is_refused_without_a_word() {
    let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
    let port = listener.port();
    let (mut own, _losses) = options(0, 3, PATIENCE);
    own.start_timeout = Duration::from_secs(2);
    let lead = lead(listener, &token, own);
    let mut wrong = stranger(port, &Message::Join(join_of(1, 3, &Token::random().unwrap())).to_frame().unwrap());
    let mut answer = Vec::new();
    // The end of the connection, or a reset of it.
    let _ = wrong.read_to_end(&mut answer);
    assert!(answer.is_empty());
    let error = lead.join().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("processes 1 and 2 have not connected to "), "{error}");
    assert!(error.contains("within 2 s (1 connection brought the token of another job)"), "{error}");
    assert!(error.contains("firewall"), "{error}");
}

#[test]
fn who_cannot_belong_to_the_job_ends_it_with_the_same_sentence_on_both_sides() {
    let expected = [
        (
            "runs version 9.9.9, process 0 runs",
            Join { version: "9.9.9".to_string(), ..join_of(1, 3, &Token::random().unwrap()) },
        ),
        ("belongs to a job of 4 processes, process 0 to one of 3", join_of(1, 4, &Token::random().unwrap())),
        ("cannot join, expected ranks from 1 to 2", Join { rank: 7, ..join_of(1, 3, &Token::random().unwrap()) }),
        (
            "has a timeout of 5 s, process 0 of 30 s",
            Join { timeout_milliseconds: 5000, ..join_of(1, 3, &Token::random().unwrap()) },
        ),
    ];
    for (sentence, join) in expected {
        let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
        let port = listener.port();
        let lead = lead(listener, &token, options(0, 3, PATIENCE).0);
        let waiting = {
            let token = token.clone();
            let options = WatchOptions { start_timeout: Duration::from_secs(2), ..options(2, 3, PATIENCE).0 };
            std::thread::spawn(move || Watch::follow(&here(), port, &token, options))
        };
        let join = Join { token, ..join };
        let wrong = join::join(&here(), port..=port, &join, PATIENCE).map(|_| ()).unwrap_err();
        let error = lead.join().unwrap().unwrap_err();
        assert_eq!(wrong.to_string(), error.to_string());
        assert!(error.to_string().contains(sentence), "{error}");
        assert!(waiting.join().unwrap().is_err());
    }
}

#[test]
fn a_rank_that_is_there_already_is_refused_and_the_job_starts() {
    let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
    let port = listener.port();
    let lead = lead(listener, &token, options(0, 3, PATIENCE).0);
    let follow = |rank| {
        let token = token.clone();
        std::thread::spawn(move || Watch::follow(&here(), port, &token, options(rank, 3, PATIENCE).0))
    };
    let twice = [follow(1), follow(1)];
    let begin = Instant::now();
    while !twice.iter().any(JoinHandle::is_finished) {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let last = follow(2);
    let errors: Vec<Error> = twice.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("process 1 has joined already, from host"), "{}", errors[0]);
    assert!(lead.join().unwrap().is_ok() && last.join().unwrap().is_ok());
}

#[test]
fn a_process_that_starts_again_during_the_join_takes_its_place() {
    let mut place = None;
    let job = start(3, PATIENCE, |port, token| {
        let mut first = stranger(port, &Message::Join(join_of(1, 3, token)).to_frame().unwrap());
        let mut answer = [0; 14];
        first.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[4..], b"\"Accepted\"");
        place = Some(port);
    });
    assert_eq!(job.watches[1].hosts().len(), 3);
}

#[test]
fn all_processes_name_those_that_are_missing() {
    let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
    let port = listener.port();
    let short = |rank| WatchOptions { start_timeout: Duration::from_secs(1), ..options(rank, 5, PATIENCE).0 };
    let lead = lead(listener, &token, short(0));
    let second = Watch::follow(&here(), port, &token, short(2)).unwrap_err().to_string();
    let first = lead.join().unwrap().unwrap_err().to_string();
    assert!(first.starts_with("processes 1, 3 and 4 have not connected to "), "{first}");
    assert_eq!(first, second);
}

#[test]
fn who_finds_nobody_reports_where_it_looked() {
    let nobody = Listener::bind(None).unwrap();
    let port = nobody.port();
    drop(nobody);
    let (mut own, _) = options(3, 4, PATIENCE);
    own.start_timeout = Duration::from_millis(300);
    let candidates = ["no-such-host.invalid".to_string(), "127.0.0.1".to_string()];
    let error = Watch::follow(&candidates, port, &Token::random().unwrap(), own).unwrap_err().to_string();
    let expected = format!(
        "process 3 could not connect to process 0 at port {port} of no-such-host.invalid or 127.0.0.1 within 0.3 s"
    );
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("127.0.0.1: ") && error.contains("no-such-host.invalid: "), "{error}");
}

#[test]
fn garbage_over_a_joined_connection_is_a_loss_and_no_panic() {
    let long = (LONGEST as u32 + 1).to_be_bytes();
    for garbage in [&b"\0\0\0\x03{}{"[..], &long, &[0xff; 100], b"\0\0\0\x08\"Bogus\" "] {
        let (listener, token) = (Listener::bind(None).unwrap(), Token::random().unwrap());
        let port = listener.port();
        let (own, losses) = options(0, 2, PATIENCE);
        let lead = lead(listener, &token, own);
        let mut odd = stranger(port, &Message::Join(join_of(1, 2, &token)).to_frame().unwrap());
        let watch = lead.join().unwrap().unwrap();
        odd.write_all(garbage).unwrap();
        let loss = losses.recv_timeout(PATIENCE).unwrap();
        assert!(loss.rank == 1 && loss.reason.contains("was lost"), "{loss}");
        drop(watch);
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let token = Token::random().unwrap();
    for (rank, processes, timeout) in [(0, 257, PATIENCE), (3, 3, PATIENCE), (0, 0, PATIENCE), (1, 2, Duration::ZERO)] {
        let error = Watch::follow(&here(), 1, &token, options(rank, processes, timeout).0).unwrap_err();
        assert!(matches!(&error, Error::Usage(message) if message.contains("expected")), "{error}");
    }
}

#[test]
#[ignore = "a thousand threads: run by hand"]
fn the_most_processes_join_and_lose_one() {
    let begin = Instant::now();
    let job = start(MOST_PROCESSES, PATIENCE, |_, _| {});
    eprintln!("joined after {:?}", begin.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    let begin = Instant::now();
    job.watches[200].fail("its disk is full");
    eprintln!("failed after {:?}", begin.elapsed());
    let all = (0..MOST_PROCESSES).filter(|rank| *rank != 200);
    let losses: Vec<Loss> = all.map(|rank| job.losses[rank].recv_timeout(PATIENCE).unwrap()).collect();
    eprintln!("all were told after {:?}", begin.elapsed());
    assert!(losses.iter().all(|loss| loss.rank == 200));
}
