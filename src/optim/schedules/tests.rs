//! The rates of schedules, by hand and against PyTorch's.

use super::*;
use crate::optim::Interval;
use crate::settings::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

fn at(step: u64, epoch: u64) -> RunProgress {
    RunProgress { step, epoch, per_epoch: 10, steps: 100 }
}

fn list(schedules: Vec<Box<dyn Schedule>>) -> ScheduleList {
    ScheduleList(schedules.into_iter().map(Arc::from).collect())
}

/// Returns the rates of the first updates of a run of `steps`, with a base of 1.
fn rates(schedules: Vec<Box<dyn Schedule>>, steps: u64) -> Vec<f64> {
    let list = list(schedules);
    let rate = |step| list.lr(1.0, RunProgress { steps, ..at(step, step / 10) }, &ScheduleState::default());
    (0..steps).map(rate).collect()
}

fn close(got: &[f64], expected: &[f64]) {
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{got:?}");
}

#[test]
fn the_step_schedule_falls_at_its_interval() {
    let schedule = read("step", table("every = 3\nfactor = 0.1")).unwrap().unwrap();
    let list = list(vec![schedule]);
    let lr: Vec<f64> = (0..7).map(|step| list.lr(2.0, at(step, 0), &ScheduleState::default())).collect();
    assert_eq!(lr, [2.0, 2.0, 2.0, 2.0 * 0.1, 2.0 * 0.1, 2.0 * 0.1, 2.0 * (0.1 * 0.1)]);
    let epochs = read("step", table("every = \"2 epochs\"\nfactor = 0.5")).unwrap().unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|epoch| epochs.factor(&at(8, epoch), &[])), [1.0, 1.0, 0.5, 0.5, 0.25]);
}

#[test]
fn no_schedule_is_the_base() {
    let far = at(1_000_000, 7);
    assert_eq!(ScheduleList::default().lr(0.3, far, &ScheduleState::default()), 0.3);
    assert_eq!(list(vec![Box::new(Constant {})]).lr(0.3, far, &ScheduleState::default()), 0.3);
    assert!(read("constant", table("factor = 1")).unwrap().is_err());
    assert!(read("cosin", table("")).is_none());
}

#[test]
fn cosine_is_pytorchs() {
    // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=6, eta_min=0.1) with a rate of 1.
    let expected = [1.0, 0.9397114317029974, 0.775, 0.55, 0.325, 0.1602885682970026];
    close(&rates(vec![Box::new(Cosine { final_factor: 0.1, ..Cosine::default() })], 6), &expected);
}

#[test]
fn restarts_are_pytorchs() {
    // torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(T_0=2, T_mult=2, eta_min=0.1) with a rate of 1.
    let expected = [
        1.0,
        0.55,
        1.0,
        0.8681980515339464,
        0.55,
        0.23180194846605365,
        1.0,
        0.9657457896300791,
        0.8681980515339464,
        0.7222075445642904,
        0.55,
        0.3777924554357096,
        0.23180194846605365,
        0.13425421036992097,
    ];
    close(&rates(vec![Box::new(Cosine { final_factor: 0.1, restarts: 2, growth: 2.0 })], 14), &expected);
    let twice = rates(vec![Box::new(Cosine { restarts: 1, ..Cosine::default() })], 12);
    assert_eq!(twice[..6], twice[6..]);
}

#[test]
fn decays_at_given_times_and_at_every_update_are_pytorchs() {
    // MultiStepLR(milestones=[2, 5], gamma=0.5) and ExponentialLR(gamma=0.5) with a rate of 1.
    let at = || vec![Interval::Steps(2), Interval::Steps(5)];
    let multi = MultiStep { at: at(), factor: 0.5, factors: None };
    close(&rates(vec![Box::new(multi)], 7), &[1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]);
    let factors = MultiStep { at: at(), factor: 0.1, factors: Some(vec![0.5, 0.25]) };
    close(&rates(vec![Box::new(factors)], 6), &[1.0, 1.0, 0.5, 0.5, 0.5, 0.125]);
    let exponential = |every| Box::new(Exponential { every, factor: 0.5 });
    close(&rates(vec![exponential(Interval::Steps(1))], 4), &[1.0, 0.5, 0.25, 0.125]);
    let root = 0.5f64.powf(0.1);
    close(&rates(vec![exponential(Interval::Epochs(1))], 3), &[1.0, root, root * root]);
    let check = |text: &str| read("multi_step", table(text)).unwrap().unwrap().check().map_err(|fault| fault.message);
    assert_eq!(check("at = [3, \"2 epochs\"]"), Ok(()));
    assert_eq!(check("at = []").unwrap_err(), "at is an empty list, expected at least one time");
    assert!(check("at = [3, 4]\nfactors = [0.1]").unwrap_err().starts_with("factors has 1 numbers, expected one for"));
    assert!(check("at = [3]\nfactors = [0.0]").unwrap_err().starts_with("0 in factors, expected a number above 0"));
}

#[test]
fn one_cycle_is_pytorchs() {
    // OneCycleLR(max_lr=1, total_steps=10), and with pct_start=0.4, anneal_strategy="linear", div_factor=10,
    // final_div_factor=100; the last rate is 1 / 25 / 1e4, and 1 / 10 / 100.
    let expected = [
        0.04,
        0.52,
        1.0,
        0.9504846320134737,
        0.8117456539497631,
        0.6112620219362893,
        0.38874197806371075,
        0.18825834605023697,
        0.049519367986526286,
        4e-6,
    ];
    close(&rates(vec![Box::new(OneCycle::default())], 10), &expected);
    let lines = OneCycle { peak: 0.4, initial_factor: 0.1, final_factor: 1e-3, linear: true };
    let expected = [0.1, 0.4, 0.7, 1.0, 0.8335, 0.667, 0.5005, 0.334, 0.1675, 1e-3];
    close(&rates(vec![Box::new(lines)], 10), &expected);
    close(&rates(vec![Box::new(OneCycle::default())], 1), &[1.0]);
}

#[test]
fn inverse_decays() {
    close(&rates(vec![Box::new(Inverse { c: Interval::Steps(2) })], 5), &[1.0, 2.0 / 3.0, 0.5, 0.4, 1.0 / 3.0]);
    // (1 + t / 2)^-2.
    close(&rates(vec![Box::new(Inv { gamma: 0.5, power: 2.0 })], 3), &[1.0, 4.0 / 9.0, 0.25]);
}

#[test]
fn dexp_falls_in_stages() {
    // Of six updates, at the shares 0, 1/6 .. 5/6, three stages end at 1/3, 2/3 and 1.
    let dexp = Dexp { final_factor: 0.01, stages: 3 };
    close(&rates(vec![Box::new(dexp)], 6), &[1.0, 1.0, 1.0, 0.1, 0.1, 0.01]);
}

#[test]
fn a_warmup_may_rise_by_a_power() {
    let warmup = Warmup { steps: Some(4), power: 2.0, ..Warmup::default() };
    close(&rates(vec![Box::new(warmup)], 5), &[0.0625, 0.25, 0.5625, 1.0, 1.0]);
}

#[test]
fn what_follows_a_warmup_begins_at_its_end_and_what_precedes_it_at_the_start() {
    let warmup = || Box::new(Warmup { steps: Some(4), ..Warmup::default() });
    let cosine = [1.0, 0.9397114317029974, 0.775, 0.55, 0.325, 0.1602885682970026];
    let expected = [&[0.25, 0.5, 0.75, 1.0], &cosine[..]].concat();
    close(&rates(vec![warmup(), Box::new(Cosine { final_factor: 0.1, ..Cosine::default() })], 10), &expected);
    let halves = || Box::new(StepDecay { every: Interval::Steps(3), factor: 0.5 });
    close(&rates(vec![halves(), warmup()], 7), &[0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25]);
    close(&rates(vec![warmup(), halves()], 8), &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.5]);
    // An epoch has ten updates.
    let epochs = Box::new(Warmup { epochs: Some(1), start: 0.5, ..Warmup::default() });
    let by_epoch = Box::new(StepDecay { every: Interval::Epochs(1), factor: 0.5 });
    let got = rates(vec![epochs, by_epoch], 22);
    close(&[got[0], got[9], got[10], got[19], got[20]], &[0.55, 1.0, 1.0, 1.0, 0.5]);
}

#[test]
fn a_warmup_has_one_length() {
    let check = |text: &str| read("warmup", table(text)).unwrap().unwrap().check().map_err(|fault| fault.message);
    assert_eq!(check("steps = 5"), Ok(()));
    assert_eq!(check("steps = 5\nepochs = 2").unwrap_err(), "steps and epochs are both given, expected one of them");
    assert!(check("").unwrap_err().starts_with("no length"));
    assert_eq!(check("epochs = 0").unwrap_err(), "epochs = 0, expected at least 1");
}

/// Feeds losses to a schedule and returns its factor after each.
fn observed(plateau: Plateau, losses: &[f64]) -> Vec<f64> {
    let set = match plateau.monitor() {
        Some(Monitor::Evaluated(set)) => set,
        _ => panic!("an evaluation is observed"),
    };
    let list = list(vec![Box::new(plateau)]);
    let mut states = list.states(&BTreeMap::new());
    let after = |&loss: &f64| {
        list.observe(&mut states, Observation::Evaluation("train", 0.0));
        list.observe(&mut states, Observation::Evaluation(set, loss));
        list.lr(1.0, at(0, 0), &states)
    };
    losses.iter().map(after).collect()
}

#[test]
fn plateau_is_pytorchs() {
    // torch.optim.lr_scheduler.ReduceLROnPlateau with these losses and a rate of 1.
    let losses = [5.0, 4.0, 4.0, 4.0, 3.9999, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7, 2.0, 2.1, 2.2, 2.3, 2.4];
    let plain = Plateau { monitor: plateau::PlateauMonitor::Validation, ..Plateau::default() };
    let tens = |n: i32| 10f64.powi(-n);
    let expected = [0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6].map(tens);
    close(&observed(Plateau { patience: 1, ..plain.clone() }, &losses), &expected);
    let expected = [0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5].map(|n| 0.5f64.powi(n));
    close(&observed(Plateau { factor: 0.5, patience: 0, cooldown: 2, ..plain.clone() }, &losses), &expected);
    let bounded = observed(Plateau { factor: 0.5, patience: 0, min_factor: 0.2, ..plain }, &losses[..6]);
    close(&bounded, &[1.0, 1.0, 0.5, 0.25, 0.2, 0.2]);
}

#[test]
fn plateau_observes_the_mean_loss_of_each_epoch() {
    let list = list(vec![Box::new(Plateau { patience: 0, ..Plateau::default() })]);
    let mut states = list.states(&BTreeMap::new());
    let mut epoch = |losses: &[f64]| {
        losses.iter().for_each(|&loss| list.observe(&mut states, Observation::Update(loss)));
        list.observe(&mut states, Observation::Epoch);
        list.lr(1.0, at(0, 0), &states)
    };
    // The means are 2, 1.5, 1.5 without what is not finite, and nothing.
    assert_eq!(epoch(&[1.0, 3.0]), 1.0);
    assert_eq!(epoch(&[2.0, 1.0]), 1.0);
    assert_eq!(epoch(&[1.0, f64::NAN, 2.0]), 0.1);
    assert_eq!(epoch(&[]), 0.1 * 0.1);
    assert_eq!(epoch(&[0.5]), 0.1 * 0.1);
    assert!(list.named(&states)["plateau"].iter().all(|x| x.is_finite()), "JSON has no other numbers");
}

#[test]
fn settings_have_ranges() {
    for factor in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
        let schedule = StepDecay { every: Interval::Steps(1), factor };
        assert_eq!(schedule.check_ranges().unwrap_err().key, Some("factor"));
    }
    assert!(all_examples().iter().all(|schedule| KEYS.contains(&schedule.key()) && schedule.check().is_ok()));
}
