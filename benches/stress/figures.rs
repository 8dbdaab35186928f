//! What processes use, and how long things take.

use std::fmt;
use std::fs;
use std::time::Duration;

use super::Failure;

/// Of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
    pub threads: u64,
}

impl Usage {
    pub fn here() -> Result<Usage, Failure> {
        Usage::of(std::process::id())
    }

    /// Reads proc(5).
    pub fn of(pid: u32) -> Result<Usage, Failure> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may have spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| -> Result<u64, Failure> {
            Ok(fields.get(number - 3).ok_or("a short line in /proc")?.parse()?)
        };
        // In hundredths of a second: USER_HZ is 100 on every architecture that Rust runs on.
        let ticks = field(14)? + field(15)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc")?;
        let resident: u64 = resident.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(Usage { cpu: Duration::from_millis(10 * ticks), resident: resident * 1024, threads: field(20)? })
    }
}

/// The spread of measured times, in milliseconds.
pub struct Spread {
    count: usize,
    /// p50, p99, p99.9 and the longest.
    at: [Duration; 4],
}

impl Spread {
    pub fn of(times: &[Duration]) -> Spread {
        let mut times = times.to_vec();
        times.sort_unstable();
        let at = [0.5, 0.99, 0.999, 1.0].map(|share| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        });
        Spread { count: times.len(), at }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999, longest] = self.at.map(|time| time.as_secs_f64() * 1e3);
        write!(f, "p50 {p50:.3}, p99 {p99:.3}, p99.9 {p999:.3}, longest {longest:.3} ({} times)", self.count)
    }
}
