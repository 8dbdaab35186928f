//! Processes of this program, what they use, and how busy others keep the machine.

use std::error::Error;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use crate::Failure;

/// A child of this process, which tells a line at a time.
pub struct Process {
    child: Child,
    /// What it does, for error messages.
    args: String,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// How long a child may say nothing. When one of two has failed, the other may wait for it without end.
const SILENCE: Duration = Duration::from_secs(120);

impl Process {
    pub fn start(args: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("child")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or("no pipes to a child, expected two")?;
        let args = args.iter().take(4).copied().collect::<Vec<_>>().join(" ");
        let (told, lines) = unbounded();
        thread::spawn(move || {
            let read = BufReader::new(output).lines().map_while(Result::ok);
            // Nobody listens any more when this fails.
            let _ = read.map(|line| told.send(line)).find(Result::is_err);
        });
        Ok(Process { child, args, input, lines })
    }

    pub fn line(&mut self) -> Result<String, Failure> {
        let told = self.lines.recv_timeout(SILENCE);
        told.map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                format!("the child {:?} told nothing for {SILENCE:?}, expected a line", self.args).into()
            }
            RecvTimeoutError::Disconnected => {
                format!("the child {:?} ended, expected a line", self.args).into()
            }
        })
    }

    /// A line of so many numbers.
    pub fn numbers<const N: usize>(&mut self) -> Result<[u64; N], Failure> {
        let line = self.line()?;
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| format!("the child {:?} told {line:?}, expected {N} numbers", self.args).into())
    }

    pub fn go_on(&mut self) -> Result<(), Failure> {
        Ok(self.input.write_all(b"\n")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the parent a line.
pub fn tell(line: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Waits until the parent says to go on.
pub fn wait() -> Result<(), Failure> {
    Ok(std::io::stdin().read_line(&mut String::new()).map(drop)?)
}

/// Ends the process with an error of another thread than the main one, which may wait for its parent.
pub fn fail(error: &dyn Error) -> ! {
    eprintln!("Error: {error}");
    std::process::exit(1)
}

/// Lets this process have as many open files as the system allows.
pub fn raise_file_limit() -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// CPU time of this process.
pub fn cpu_time() -> Duration {
    used(UsageWho::RUSAGE_SELF)
}

/// CPU time of this process, or of its children that have ended, getrusage(2).
fn used(whose: UsageWho) -> Duration {
    let usage = getrusage(whose).expect("getrusage(2) knows these two");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// Resident memory of this process in KiB, proc_pid_status(5).
pub fn resident_kib() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("/proc/self/status has no VmRSS, expected one in KiB")?.parse()?)
}

/// How busy the machine is with others: what all processors did, less what this program and its children did.
pub struct Load {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl Load {
    pub fn start() -> Result<Self, Failure> {
        Ok(Load { start: Instant::now(), busy: busy_time()?, own: used(UsageWho::RUSAGE_CHILDREN) })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = busy_time().unwrap_or_default().saturating_sub(self.busy);
        let others = all.saturating_sub(used(UsageWho::RUSAGE_CHILDREN).saturating_sub(self.own));
        let others = others.as_secs_f64() / self.start.elapsed().as_secs_f64();
        write!(f, "others used {others:.2} processors")
    }
}

/// User, nice, system, interrupts and stolen time of all processors, proc_stat(5), in ticks of 10 ms.
fn busy_time() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let numbers: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| numbers.get(*index)).sum::<u64>();
    Ok(Duration::from_millis(busy * 10))
}
