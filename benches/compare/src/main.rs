//! unbroken beside plain sockets and other libraries: two processes over loopback, interleaved rounds, medians,
//! and ratios to plain sockets in the same round.
//!
//! ```text
//! unbroken-compare [--quick] [--only NAME[,NAME]] [--size BYTES[,BYTES]]
//! ```
//!
//! The ratios count: absolute figures drift by a third from run to run on a virtual machine. The CPU
//! time of both processes drifts less. The load that others put on the machine is printed above each table.
//!
//! Each contestant sends from one thread, as fast as it may, and receives on one thread, with its defaults and
//! `TCP_NODELAY`. See `README.md` for the settings of each.

mod contestants;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use contestants::{CONTESTANTS, Contestant};

type Failure = Box<dyn Error + Send + Sync>;

/// The size of a message, and how many of them a contestant with a share of 1 is given.
const ONE_WAY: [(usize, u64); 5] =
    [(64, 10_000_000), (256, 5_000_000), (1024, 3_000_000), (256 * 1024, 20_000), (4 << 20, 1_000)];

fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "child") {
        return child(&args[1..]);
    }
    let quick = take_flag(&mut args, "--quick");
    let only = take_list(&mut args, "--only")?;
    let sizes = take_list(&mut args, "--size")?;
    if let Some(unknown) = args.first() {
        return Err(format!("{unknown}: expected --quick, --only NAME[,NAME] or --size BYTES[,BYTES]").into());
    }
    let known = |name: &String| CONTESTANTS.iter().any(|contestant| contestant.name == name);
    if let Some(unknown) = only.iter().flatten().find(|name| !known(name)) {
        let names: Vec<_> = CONTESTANTS.iter().map(|contestant| contestant.name).collect();
        return Err(format!("{unknown}: expected one of {}", names.join(", ")).into());
    }
    let chosen: Vec<_> = CONTESTANTS
        .iter()
        .filter(|contestant| {
            contestant.name == "raw"
                || only.as_ref().is_none_or(|only| only.iter().any(|name| name == contestant.name))
        })
        .collect();
    let (rounds, share) = if quick { (3, 2) } else { (5, 1) };
    for (size, count) in ONE_WAY {
        if sizes.as_ref().is_none_or(|sizes| sizes.iter().any(|wanted| *wanted == size.to_string())) {
            one_way(&chosen, size, count / share, rounds)?;
        }
    }
    round_trip(&chosen, share, rounds)
}

fn take_flag(args: &mut Vec<String>, flag: &str) -> bool {
    let before = args.len();
    args.retain(|arg| arg != flag);
    args.len() < before
}

fn take_list(args: &mut Vec<String>, option: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some(at) = args.iter().position(|arg| arg == option) else { return Ok(None) };
    if at + 1 >= args.len() {
        return Err(format!("{option}: expected a list behind it").into());
    }
    let list = args.remove(at + 1);
    args.remove(at);
    Ok(Some(list.split(',').map(str::to_owned).collect()))
}

// --- one way ------------------------------------------------------------------------------------

/// One run of one contestant.
#[derive(Clone, Copy)]
struct Run {
    /// Messages per second.
    rate: f64,
    /// CPU time of both processes for a message.
    cpu: Duration,
}

fn one_way(chosen: &[&Contestant], size: usize, count: u64, rounds: usize) -> Result<(), Failure> {
    let mut runs = vec![Vec::new(); chosen.len()];
    let load = Load::start()?;
    for _ in 0..rounds {
        for (contestant, runs) in chosen.iter().zip(&mut runs) {
            runs.push(contestant.one_way(size, count)?);
        }
    }
    println!("\n### One way, {size} bytes ({load})\n");
    println!("| | messages/s | ratio to raw | lowest to highest | CPU us per message |");
    println!("| --- | --- | --- | --- | --- |");
    let raw = runs.first().cloned().unwrap_or_default();
    for (contestant, runs) in chosen.iter().zip(&runs) {
        let ratios = sorted(runs.iter().zip(&raw).map(|(run, raw)| run.rate / raw.rate));
        println!(
            "| {} | {:.0} | {:.3} | {:.3} to {:.3} | {:.3} |",
            contestant.name,
            median(&sorted(runs.iter().map(|run| run.rate))),
            median(&ratios),
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default(),
            median(&sorted(runs.iter().map(|run| run.cpu.as_nanos() as f64))) / 1000.0,
        );
    }
    Ok(())
}

impl Contestant {
    fn one_way(&self, size: usize, count: u64) -> Result<Run, Failure> {
        // Slow ones get fewer messages, so that a round takes seconds at most.
        let count = (count as f64 * self.share_of(size)).max(10.0) as u64;
        let (size, count) = (size.to_string(), count.to_string());
        let mut receiver = Process::start(&["receive", self.name, &size, &count])?;
        let addr = receiver.line()?;
        let mut sender = Process::start(&["send", self.name, &size, &count, &addr])?;
        let received = receiver.line()?;
        let mut numbers = received.split_whitespace().map(str::parse::<u64>);
        let (nanos, received_cpu) =
            (numbers.next().ok_or("no time")??, numbers.next().ok_or("no CPU time")??);
        sender.go_on()?;
        let sent_cpu: u64 = sender.line()?.parse()?;
        receiver.go_on()?;
        let count: f64 = count.parse()?;
        Ok(Run {
            rate: count / Duration::from_nanos(nanos).as_secs_f64(),
            cpu: Duration::from_nanos(((sent_cpu + received_cpu) as f64 / count) as u64),
        })
    }
}

// --- round trip ---------------------------------------------------------------------------------

fn round_trip(chosen: &[&Contestant], share: u64, rounds: usize) -> Result<(), Failure> {
    let mut runs = vec![Vec::new(); chosen.len()];
    let load = Load::start()?;
    for _ in 0..rounds {
        for (contestant, runs) in chosen.iter().zip(&mut runs) {
            let count = (contestant.trips / share).max(50).to_string();
            let mut echo = Process::start(&["echo", contestant.name, &count])?;
            let addr = echo.line()?;
            let mut asker = Process::start(&["ask", contestant.name, &count, &addr])?;
            let line = asker.line()?;
            let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            asker.go_on()?;
            let echo_cpu: u64 = echo.line()?.parse()?;
            echo.go_on()?;
            let [p50, p99, cpu] = numbers[..] else { return Err("expected three numbers".into()) };
            runs.push([p50, p99, (cpu + echo_cpu) / count.parse::<u64>()?]);
        }
    }
    println!("\n### Round trip, 64 bytes, one at a time ({load})\n");
    println!("| | p50 us | p99 us | CPU us of both sides |");
    println!("| --- | --- | --- | --- |");
    for (contestant, runs) in chosen.iter().zip(&runs) {
        let of = |which: usize| median(&sorted(runs.iter().map(|run| run[which] as f64))) / 1000.0;
        println!("| {} | {:.0} | {:.0} | {:.1} |", contestant.name, of(0), of(1), of(2));
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

// --- processes ----------------------------------------------------------------------------------

/// A child of this process, which tells a line at a time.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(args: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("child")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or("no pipes")?;
        Ok(Process { child, input, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(format!("a child ended: {}", self.child.wait()?).into()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    fn go_on(&mut self) -> Result<(), Failure> {
        Ok(self.input.write_all(b"\n")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn child(args: &[String]) -> Result<(), Failure> {
    let [role, name, rest @ ..] = args else { return Err("expected a role and a name".into()) };
    let contestant = CONTESTANTS.iter().find(|contestant| contestant.name == name).ok_or("unknown name")?;
    let tell = |line: String| -> Result<(), Failure> {
        println!("{line}");
        Ok(std::io::stdout().flush()?)
    };
    match (role.as_str(), rest) {
        ("receive", [size, count]) => {
            let (size, count): (usize, u64) = (size.parse()?, count.parse()?);
            let warm_up = warm_up(count);
            let (mut seen, mut start) = (0, None);
            (contestant.receive)(size, count + warm_up, &mut |addr| tell(addr), &mut |messages| {
                seen += messages;
                if seen >= warm_up && start.is_none() {
                    start = Some((Instant::now(), cpu_time(), seen));
                }
            })?;
            let (since, cpu, at) = start.ok_or("nothing was received")?;
            let part = |nanos: u128| (nanos as f64 * count as f64 / (seen - at).max(1) as f64) as u64;
            let (lasted, cpu) = (since.elapsed().as_nanos(), (cpu_time() - cpu).as_nanos());
            tell(format!("{} {}", part(lasted), part(cpu)))?;
        }
        ("send", [size, count, addr]) => {
            let (size, count): (usize, u64) = (size.parse()?, count.parse()?);
            let all = count + warm_up(count);
            let mut wait = || Ok(std::io::stdin().read_line(&mut String::new()).map(drop)?);
            (contestant.send)(size, all, addr, &mut wait)?;
            let cpu = cpu_time().as_nanos() as f64 * count as f64 / all as f64;
            tell((cpu as u64).to_string())?;
        }
        ("echo", [count]) => {
            (contestant.echo)(count.parse()?, &mut |addr| tell(addr))?;
            tell(cpu_time().as_nanos().to_string())?;
        }
        ("ask", [count, addr]) => {
            let count: u64 = count.parse()?;
            let mut took = Vec::new();
            let mut before = Instant::now();
            (contestant.ask)(count, addr, &mut |_| {
                took.push(before.elapsed().as_nanos() as f64);
                before = Instant::now();
            })?;
            let cpu = cpu_time().as_nanos();
            let took = sorted(took.into_iter().skip((count / 10) as usize));
            let quantile = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
            tell(format!("{} {} {cpu}", quantile(50) as u64, quantile(99) as u64))?;
        }
        _ => return Err("unknown role".into()),
    }
    // The parent ends both when it has heard both.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// So many messages go before those that are measured: buffers, windows and chunks grow meanwhile.
fn warm_up(count: u64) -> u64 {
    count / 2
}

fn cpu_time() -> Duration {
    used(libc::RUSAGE_SELF)
}

/// CPU time of this process, or of its children that have ended, getrusage(2).
fn used(whose: libc::c_int) -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writes, and all zeroes are a valid `rusage`.
    let usage = unsafe {
        libc::getrusage(whose, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// How busy the machine is with others: what all processors did, less what this program and its children did.
struct Load {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl Load {
    fn start() -> Result<Self, Failure> {
        Ok(Load { start: Instant::now(), busy: busy_time()?, own: used(libc::RUSAGE_CHILDREN) })
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = busy_time().unwrap_or_default().saturating_sub(self.busy);
        let others = all.saturating_sub(used(libc::RUSAGE_CHILDREN).saturating_sub(self.own));
        write!(f, "others used {:.2} processors", others.as_secs_f64() / self.start.elapsed().as_secs_f64())
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
