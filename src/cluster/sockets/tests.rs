use super::*;
use crate::cluster::Team;
use std::sync::mpsc::Receiver;

/// Connects processes, which are threads here, and runs something on each.
fn run<T: Send + 'static>(
    processes: usize,
    timeout: Duration,
    what: impl Fn(SocketEngine) -> T + Send + Sync + 'static,
) -> (Vec<T>, Receiver<(usize, EngineFailure)>) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (failures, failed) = channel();
    let what = Arc::new(what);
    let threads: Vec<_> = (0..processes)
        .map(|rank| {
            let (what, failures) = (Arc::clone(&what), failures.clone());
            std::thread::spawn(move || {
                let options = SocketOptions {
                    place: (rank, processes),
                    address: Address::of("127.0.0.1".to_string(), port),
                    token: Token::default().of_job("test"),
                    start_timeout: Duration::from_secs(20),
                    collective_timeout: timeout,
                    failed: Failed::new(move |failure| {
                        failures.send((rank, failure)).unwrap();
                        // A process would end here.
                        loop {
                            std::thread::park();
                        }
                    }),
                };
                what(SocketEngine::open(options).unwrap())
            })
        })
        .collect();
    (threads.into_iter().map(|thread| thread.join().unwrap()).collect(), failed)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn messages_sums_and_the_end_reach_all_processes() {
    let (all, failed) = run(4, LONG, |engine| {
        let team = Team::new(Box::new(engine), 1);
        let rank = team.rank();
        let said = team.gather(&format!("{rank}{}", "x".repeat(rank * 1000))).unwrap();
        assert_eq!(said.iter().map(String::len).collect::<Vec<_>>(), [1, 1001, 2001, 3001]);
        let sums: Vec<_> = (0..50).map(|n| team.engine().start_sum(vec![rank as f64, f64::from(n)])).collect();
        for (n, sum) in sums.into_iter().enumerate() {
            assert_eq!(sum.wait().unwrap(), [6.0, 4.0 * n as f64]);
        }
        team.engine().prepare(&[vec![1, 3], vec![0, 1, 2, 3]]).unwrap();
        let mut values = [rank as f32, 1.0];
        team.sum(0, Values::F32(&mut values)).unwrap();
        assert_eq!(values, if rank % 2 == 1 { [4.0, 2.0] } else { [rank as f32, 1.0] });
        let mut values = [rank as f64];
        team.sum(1, Values::F64(&mut values)).unwrap();
        team.engine().finish();
        assert!(team.gather("late").is_err());
        values[0]
    });
    assert_eq!(all, [6.0; 4]);
    assert!(failed.try_recv().is_err());
}

/// Messages that are longer than what is sent ahead cross in both directions at the same time, also between others than process 0.
#[test]
fn long_messages_cross() {
    let bytes = |from: usize, to: usize| -> Vec<u8> {
        (0..20_000_000 + from).map(|i| (i * 31 + from * 7 + to) as u8).collect()
    };
    let (_, failed) = run(3, LONG, move |engine| {
        let rank = engine.rank();
        let others = || (0..3).filter(|&other| other != rank);
        let out: Vec<Vec<u8>> = others().map(|to| bytes(rank, to)).collect();
        let mut into: Vec<Vec<u8>> = others().map(|from| vec![0; 20_000_000 + from]).collect();
        let outgoing: Vec<Outgoing> =
            others().zip(&out).map(|(process, bytes)| Outgoing { process, tag: 3, bytes }).collect();
        let mut incoming: Vec<Incoming> =
            others().zip(&mut into).map(|(process, bytes)| Incoming { process, tag: 3, bytes }).collect();
        engine.exchange(&outgoing, &mut incoming).unwrap();
        others().zip(&into).for_each(|(from, got)| assert!(*got == bytes(from, rank)));
        engine.finish();
    });
    assert!(failed.try_recv().is_err());
}

#[test]
fn a_process_that_leaves_early_is_a_failure_of_the_others() {
    let (_, failed) = run(2, LONG, |engine| {
        // Neither says goodbye.
        if engine.rank() == 1 {
            engine.links.close();
        }
    });
    let (rank, failure) = failed.recv_timeout(LONG).unwrap();
    assert_eq!((rank, failure.message.as_str()), (0, "process 1 was lost: its connection closed"));
}

#[test]
fn a_message_that_never_comes_is_a_failure_after_the_timeout() {
    let (engines, failed) = run(2, Duration::from_millis(300), |engine| engine);
    let [first, _second] = <[SocketEngine; 2]>::try_from(engines).ok().unwrap();
    std::thread::spawn(move || first.exchange(&[], &mut [Incoming { process: 1, tag: 0, bytes: &mut [0; 8] }]));
    let (rank, failure) = failed.recv_timeout(LONG).unwrap();
    assert_eq!((rank, failure.message.as_str()), (0, "no message came from process 1 within 0.3 s"));
    assert_eq!((failure.peers, failure.waited), (vec![1], Duration::from_millis(300)));
}
