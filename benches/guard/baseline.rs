//! The figures that the guard compares with, and where they were counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/guard/baseline.txt");
const HEAD: &str = "\
# Written by `cargo bench --bench guard -- --update`. Elsewhere than in this environment the guard compares,
# but does not fail: compiler, C library and instruction set change the figures.
";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
}

pub(crate) struct Baseline {
    /// What the figures depend on, apart from the code.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) figures: BTreeMap<String, Figures>,
}

/// Returns whether something is worse by more than 10 %, and so wrong here.
pub(crate) fn compare(now: &Baseline) -> bool {
    let before = Baseline::read(&fs::read_to_string(FILE).unwrap());
    println!("{:30} {:>12} {:>12} {:>8} {:>12}", "", "baseline", "instructions", "", "allocations");
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    for (name, now) in &now.figures {
        let Some(before) = before.figures.get(name) else {
            worse.push(format!("{name} is not in the baseline"));
            continue;
        };
        let Figures { instructions, allocations } = before;
        let change = 100.0 * (now.instructions as f64 / *instructions as f64 - 1.0);
        let allocated = format!("{allocations} -> {}", now.allocations);
        println!("{name:30} {instructions:12} {:12} {change:+7.1}% {allocated:>12}", now.instructions);
        for (what, before, now) in [
            ("instructions", *instructions, now.instructions),
            ("allocations", *allocations, now.allocations),
        ] {
            let what = format!("{name}: {before} {what} before, {now} now");
            if now * 10 > before * 11 {
                worse.push(what);
            } else if now * 11 < before * 10 {
                better.push(what);
            }
        }
    }
    for what in &better {
        println!("better by 10 %: {what}; please update the baseline");
    }
    for what in &worse {
        println!("WORSE by 10 %: {what}");
    }
    if now.environment == before.environment {
        return !worse.is_empty();
    }
    println!("The baseline is from another environment: nothing of this is an error here.");
    for ((name, before), (_, now)) in before.environment.iter().zip(&now.environment) {
        if before != now {
            println!("  {name}: {before}; here: {now}");
        }
    }
    false
}

/// The compiler, the flags it was given, the C library (its allocator and copies are counted too), valgrind,
/// and those instruction sets of the processor that valgrind knows.
pub(crate) fn environment() -> Vec<(String, String)> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let host = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    vec![
        ("rustc".to_owned(), format!("{} {host}", first_line(&rustc, &["--version"]))),
        ("flags".to_owned(), option_env!("RUSTFLAGS").unwrap_or("none").to_owned()),
        ("libc".to_owned(), first_line("getconf", &["GNU_LIBC_VERSION"])),
        ("valgrind".to_owned(), first_line("valgrind", &["--version"])),
        ("processor".to_owned(), processor()),
    ]
}

#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    let has = |name, has: bool| has.then_some(name);
    let names = [
        has("aes", is_x86_feature_detected!("aes")),
        has("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        has("avx", is_x86_feature_detected!("avx")),
        has("avx2", is_x86_feature_detected!("avx2")),
        has("bmi2", is_x86_feature_detected!("bmi2")),
    ];
    names.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    "unknown".to_owned()
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

impl Baseline {
    pub(crate) fn write(&self) {
        let mut text = HEAD.to_owned();
        for (name, value) in &self.environment {
            writeln!(text, "{name}: {}", value.trim()).unwrap();
        }
        writeln!(text, "# {:28} {:>12} {:>12}", "case", "instructions", "allocations").unwrap();
        for (name, Figures { instructions, allocations }) in &self.figures {
            writeln!(text, "{name:30} {instructions:>12} {allocations:>12}").unwrap();
        }
        fs::write(FILE, &text).unwrap();
        print!("{text}");
    }

    fn read(text: &str) -> Self {
        let mut read = Baseline { environment: Vec::new(), figures: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, value)) = line.split_once(": ") {
                read.environment.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let [name, instructions, allocations] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("no line of a baseline: {line}");
            };
            let [instructions, allocations] =
                [instructions, allocations].map(|number| number.parse().unwrap());
            read.figures.insert(name.to_owned(), Figures { instructions, allocations });
        }
        read
    }
}
