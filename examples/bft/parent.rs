//! The parent: starts the validators, causes the faults, and checks what the validators print.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use unbroken::test_util::FaultProxy;
use unbroken_test_support::process::Child;

use crate::{HOME, Result};

/// How long anything may take that must happen in the end, on a machine busy with other things too.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long the parent listens to a validator that has nothing to say, before it listens to the next one.
const TURN: Duration = Duration::from_millis(2);
/// How long a validator that runs may commit nothing: three times the 1 s after which a connection is
/// suspect, the 0.2 s until the next block, and the 0.5 s of a round.
const BOUND: Duration = Duration::from_millis(5100);

/// A validator, as the parent sees it.
struct Member {
    child: Child,
    /// ID@HOST:PORT.
    entry: String,
    height: usize,
    /// When it last committed. `None`: it was frozen or killed, and has not committed since then.
    last: Option<Instant>,
    longest_pause: Duration,
}

fn start(home: &Path) -> Result<Member> {
    std::fs::create_dir_all(home)?;
    let mut command = Child::current_exe()?;
    command.env(HOME, home);
    let mut child = Child::spawn(command)?;
    let entry = child.wait_line(TIMEOUT, |_| true).ok_or("a validator does not say where it listens")?;
    Ok(Member { child, entry, height: 0, last: None, longest_pause: Duration::ZERO })
}

struct Run {
    members: Vec<Member>,
    /// The hash at each height, by the validator that committed there first.
    hashes: BTreeMap<usize, String>,
    began: Instant,
}

/// Runs the whole show. The error names what has failed.
pub(crate) fn run(nodes: usize, time: Duration, directory: &Path) -> Result {
    let home = |index: usize| directory.join(index.to_string());
    let members = (0..nodes).map(|index| start(&home(index))).collect::<Result<_>>()?;
    let mut run = Run { members, hashes: BTreeMap::new(), began: Instant::now() };
    let (id, address) = run.member(0)?.entry.split_once('@').ok_or("validator 0 has no address")?;
    let proxy = FaultProxy::start(address.parse()?)?;
    run.member(0)?.entry = format!("{id}@{}", proxy.addr());
    let all = run.members.iter().map(|member| member.entry.as_str()).collect::<Vec<_>>().join(" ");
    // The others dial validator 0 through the proxy, and commit a block, before it knows where they are.
    for index in 1..nodes {
        run.member(index)?.child.send_line(&all)?;
    }
    run.wait("the others have dialled 0", |run| proxy.flows() + 1 == nodes && !run.hashes.is_empty())?;
    run.member(0)?.child.send_line(&all)?;
    run.wait_for_height("all have the first block", 0..nodes, 1)?;

    run.began = Instant::now();
    run.wait_until(time / 10, "the connections to 0 go silent")?;
    if !proxy.black_hole() {
        proxy.reset_all(); // The kernel cannot do it.
    }

    run.wait_until(time * 3 / 10, "2 is frozen")?;
    run.member(2)?.child.freeze()?;
    run.wait_until(time * 3 / 10 + Duration::from_secs(3), "2 runs again")?;
    run.member(2)?.last = None;
    run.member(2)?.child.thaw()?;
    run.wait_for_height("2 has caught up", 2..3, run.hashes.len())?;

    run.wait_until(time * 7 / 10, "3 is killed")?;
    run.member(3)?.child.kill()?;
    run.wait_until(time * 7 / 10 + Duration::from_secs(1), "3 is restarted")?;
    *run.member(3)? = start(&home(3))?;
    run.member(3)?.child.send_line(&all)?; // It dials the others: they need not know its new port.
    run.wait_for_height("3 has caught up", 3..4, run.hashes.len())?;

    run.wait_until(time, "the time is over")?;
    run.wait_for_height("all have one more block", 0..nodes, run.hashes.len() + 1)?;
    println!("\nnode  height  longest time without a commit (in its last life)");
    for (index, Member { height, longest_pause, .. }) in run.members.iter().enumerate() {
        println!("{index:4} {height:7}  {longest_pause:.2?}");
    }
    println!("\nsuccess: {} blocks, the same on all {nodes} nodes, never {BOUND:?} apart", run.hashes.len());
    Ok(())
}

impl Run {
    fn member(&mut self, index: usize) -> Result<&mut Member> {
        self.members.get_mut(index).ok_or_else(|| format!("there is no validator {index}").into())
    }

    fn wait_until(&mut self, time: Duration, what: &str) -> Result {
        self.wait(what, |run| run.began.elapsed() >= time)
    }

    fn wait_for_height(&mut self, what: &str, of: std::ops::Range<usize>, height: usize) -> Result {
        let reached = |member: &Member| member.height >= height;
        self.wait(what, |run| run.members.iter().skip(of.start).take(of.len()).all(reached))
    }

    /// Takes what the validators print until the condition holds.
    fn wait(&mut self, what: &str, condition: impl Fn(&Run) -> bool) -> Result {
        let deadline = Instant::now() + TIMEOUT;
        while !condition(self) {
            for index in 0..self.members.len() {
                while let Ok(line) = self.member(index)?.child.lines().recv_timeout(TURN) {
                    self.take(index, &line)?;
                }
            }
            if Instant::now() > deadline {
                return Err(format!("waited {TIMEOUT:?} in vain: {what}").into());
            }
        }
        println!("{:6.2} s, height {}: {what}", self.began.elapsed().as_secs_f64(), self.hashes.len());
        Ok(())
    }

    /// Takes a line `commit HEIGHT HASH`. The heights of each life must follow one another, and the hashes be
    /// those of all others.
    fn take(&mut self, index: usize, line: &str) -> Result {
        let commit = line.strip_prefix("commit ").and_then(|commit| commit.split_once(' '));
        let (height, hash) = commit.ok_or_else(|| format!("{index} says {line:?}"))?;
        let height = height.parse()?;
        let first = self.hashes.entry(height).or_insert_with(|| hash.into()).clone();
        let member = self.member(index)?;
        if first != hash || height != member.height + 1 {
            let error = format!("{index} commits {hash} at {height} after {}, not {first}", member.height);
            return Err(error.into());
        }
        let pause = member.last.map_or(Duration::ZERO, |last| last.elapsed());
        if pause > BOUND {
            return Err(format!("{index} committed nothing for {pause:.2?}, more than {BOUND:?}").into());
        }
        member.longest_pause = member.longest_pause.max(pause);
        (member.height, member.last) = (height, Some(Instant::now()));
        Ok(())
    }
}
