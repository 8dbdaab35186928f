//! Long random conversations with random faults, by seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::dice::Dice;
use super::plan::Plan;
use super::world::World;

/// Runs a world; a failure names the run.
pub(super) fn run_named(name: &str, run: impl FnOnce()) {
    if let Err(cause) = catch_unwind(AssertUnwindSafe(run)) {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        panic!("{name}: {}", text.unwrap_or_default());
    }
}

fn run_seed(seed: u64, trace: bool) {
    run_named(&format!("UNBROKEN_SEED={seed}"), || {
        let plan = Plan::random(&mut Dice::seeded(seed ^ 0x51_2e_77));
        if trace {
            eprintln!("{plan:#?}");
        }
        World::new(plan, Dice::seeded(seed), trace).run();
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn random_runs_a() {
    (0..1000).for_each(|seed| run_seed(seed, false));
}

#[test]
fn random_runs_b() {
    (1000..2000).for_each(|seed| run_seed(seed, false));
}

/// `UNBROKEN_RUNS` (default 1,000,000) runs from `UNBROKEN_FIRST` (default 0) on.
#[test]
#[ignore = "a million runs, about 3 hours on one core"]
fn a_million_runs() {
    let (first, runs) = (number("UNBROKEN_FIRST").unwrap_or(0), number("UNBROKEN_RUNS").unwrap_or(1_000_000));
    (first..first + runs).for_each(|seed| run_seed(seed, false));
}

/// Replays `UNBROKEN_SEED` and prints what happens.
#[test]
#[ignore = "replays one seed with a trace"]
fn one_seed() {
    run_seed(number("UNBROKEN_SEED").unwrap_or(0), true);
}
