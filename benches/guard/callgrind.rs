//! Counts instructions and allocations by `valgrind --tool=callgrind`, one process for each case.

use std::fs;

use crate::baseline::{self, Baseline, Figures};
use crate::cases::CASES;
use crate::{scratch, under};

/// The argument that makes this program run a case.
pub(crate) const RUN: &str = "--case";
/// Writes a profile of what ran before the counted function, one of the function, and one of the rest. With
/// `--toggle-collect` calls would be counted from the start of the program on.
const DUMP: [&str; 2] =
    ["--dump-before=guard::cases::counted_section", "--dump-after=guard::cases::counted_section"];
/// What the allocator of the system is called by.
const ALLOCATE: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// Returns whether something is worse than in the baseline.
pub(crate) fn compare() -> bool {
    match count() {
        Ok(now) => baseline::compare(&now),
        Err(why) => {
            println!("instructions and allocations: SKIPPED, {why}");
            false
        }
    }
}

/// Writes the baseline. Returns whether that failed.
pub(crate) fn update() -> bool {
    count().map(|now| now.write()).inspect_err(|why| eprintln!("the baseline stays: {why}")).is_err()
}

/// Returns why nothing can be counted here, if so. A case that fails is a panic.
fn count() -> Result<Baseline, String> {
    let out = scratch("callgrind");
    let to = format!("--callgrind-out-file={out}");
    let args = ["--tool=callgrind", "-q", &to, DUMP[0], DUMP[1], "--compress-strings=no"];
    // In debug builds the symbols of the program are those of another program.
    if cfg!(debug_assertions) {
        return Err("this is no release build".to_owned());
    }
    let figures = CASES.map(|(name, _)| {
        let status = under("valgrind", &args).map(|mut command| {
            command.arg(std::env::current_exe().unwrap()).args([RUN, name]).status().unwrap()
        })?;
        assert!(status.success(), "case {name}: {status}");
        let text = fs::read_to_string(format!("{out}.2"));
        for part in [".1", ".2", ""] {
            let _ = fs::remove_file(format!("{out}{part}"));
        }
        let Ok(text) = text else { panic!("callgrind did not find the counted function by its name") };
        Ok((name.to_owned(), figures(&text)))
    });
    let figures = figures.into_iter().collect::<Result<_, String>>()?;
    Ok(Baseline { environment: baseline::environment(), figures })
}

/// Reads a profile: see "Callgrind Format Specification" in the manual of valgrind. Names are in full.
fn figures(profile: &str) -> Figures {
    let mut found = Figures { instructions: 0, allocations: 0 };
    let mut called = "";
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATE.contains(&called)
        {
            found.allocations += calls.split(' ').next().unwrap().parse::<u64>().unwrap();
        } else if let Some(total) = line.strip_prefix("totals: ") {
            found.instructions = total.trim().parse().unwrap();
        }
    }
    assert!(found.instructions > 0, "no profile:\n{profile}");
    found
}
