//! The parent: starts the validators, causes the faults, and checks what the validators print.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use unbroken::PathConfig;
use unbroken_test_support::process::Child;
use unbroken_test_support::proxy::FaultProxy;

use crate::consensus::{BLOCK_TIME, ROUND_TIME};
use crate::{Args, Failure, HOME};

/// How long anything may take that must happen in the end, on a machine busy with other things too.
const TIMEOUT: Duration = Duration::from_secs(60);
const FREEZE: Duration = Duration::from_secs(3);
const AWAY: Duration = Duration::from_secs(1);
/// For machines that are busy with other things.
const PATIENCE: u32 = 3;
/// The validators that suffer.
const CUT: (usize, usize) = (0, 1);
const FROZEN: usize = 2;
const KILLED: usize = 3;

/// A validator, as the parent sees it.
struct Member {
    child: Child,
    /// Where it keeps its key and its promise.
    home: PathBuf,
    /// ID@HOST:PORT.
    id: String,
    address: SocketAddr,
    height: u64,
    /// When it last committed. `None`: it is frozen, or has not committed since it came back.
    last: Option<Instant>,
    longest_pause: Duration,
    lives: u32,
    killed: bool,
    /// How long it took to reach the head that the others had when it came back.
    caught_up: Option<Duration>,
}

impl Member {
    fn start(home: &Path) -> Result<Member, Failure> {
        fs::create_dir_all(home)?;
        let mut command = Child::current_exe()?;
        command.env(HOME, home);
        let mut child = Child::spawn(command)?;
        let line =
            child.wait_line(TIMEOUT, |line| line.starts_with("listen ")).ok_or("a node does not listen")?;
        let mut words = line.split(' ').skip(1);
        let (id, address) = words.next().zip(words.next()).ok_or("a node does not say where it listens")?;
        let (home, id, address) = (home.into(), id.into(), address.parse()?);
        let (last, longest_pause, caught_up) = (None, Duration::ZERO, None);
        Ok(Member {
            child,
            home,
            id,
            address,
            height: 0,
            last,
            longest_pause,
            lives: 1,
            killed: false,
            caught_up,
        })
    }

    /// Counts the time since the last commit.
    fn note_pause(&mut self, now: Instant) {
        let pause = self.last.map_or(Duration::ZERO, |last| now - last);
        self.longest_pause = self.longest_pause.max(pause);
    }
}

struct Run {
    members: Vec<Member>,
    /// By the validator that dials and the one that is dialled.
    proxies: BTreeMap<(usize, usize), FaultProxy>,
    /// The hash at each height, by the validator that committed there first.
    hashes: BTreeMap<u64, String>,
    began: Instant,
}

/// Runs the whole show. The error names what has failed.
pub(crate) fn run(args: &Args, directory: &Path) -> Result<(), Failure> {
    let home = |index| directory.join(format!("node-{index}"));
    let members = (0..args.nodes).map(|index| Member::start(&home(index))).collect::<Result<Vec<_>, _>>()?;
    let mut proxies = BTreeMap::new();
    for (to, member) in members.iter().enumerate() {
        for from in (0..args.nodes).filter(|from| *from != to) {
            proxies.insert((from, to), FaultProxy::start(member.address)?);
        }
    }
    let mut run = Run { members, proxies, hashes: BTreeMap::new(), began: Instant::now() };
    for index in 0..args.nodes {
        run.introduce(index)?;
    }
    run.expect("the first block is committed", |run| run.members.iter().all(|member| member.height > 0))?;
    run.began = Instant::now();

    run.listen_until(args.time.mul_f64(0.1))?;
    run.say(&format!("the connections between {} and {} go silent", CUT.0, CUT.1));
    for pair in [CUT, (CUT.1, CUT.0)] {
        if let Some(proxy) = run.proxies.get(&pair).filter(|proxy| !proxy.black_hole()) {
            proxy.reset_all(); // This kernel cannot do it.
        }
    }

    run.listen_until(args.time.mul_f64(0.3))?;
    run.say(&format!("{FROZEN} is frozen for {FREEZE:?}"));
    run.member(FROZEN)?.child.freeze()?;
    run.listen_until(args.time.mul_f64(0.3) + FREEZE)?;
    run.member(FROZEN)?.last = None;
    run.member(FROZEN)?.child.thaw()?;
    run.expect_caught_up(FROZEN)?;

    run.listen_until(args.time.mul_f64(0.7))?;
    run.say(&format!("{KILLED} is killed, to be restarted after {AWAY:?}"));
    let member = run.member(KILLED)?;
    (member.last, member.killed) = (None, true);
    member.child.kill()?;
    let back = run.began.elapsed() + AWAY;
    run.listen_until(back)?;
    run.restart(KILLED)?;
    run.expect_caught_up(KILLED)?;

    run.listen_until(args.time)?;
    run.finish()
}

impl Run {
    fn member(&mut self, index: usize) -> Result<&mut Member, Failure> {
        self.members.get_mut(index).ok_or_else(|| format!("there is no node {index}").into())
    }

    fn say(&self, what: &str) {
        println!("{:5.1} s, height {}: {what}", self.began.elapsed().as_secs_f64(), self.head());
    }

    /// The greatest height that any validator has committed.
    fn head(&self) -> u64 {
        self.hashes.keys().last().copied().unwrap_or(0)
    }

    /// Tells a validator who the validators are, and where: the others behind their proxies.
    fn introduce(&mut self, index: usize) -> Result<(), Failure> {
        let entry = |(to, member): (usize, &Member)| {
            let proxy = self.proxies.get(&(index, to)).map_or(member.address, FaultProxy::addr);
            format!("{}@{proxy}", member.id)
        };
        let line = self.members.iter().enumerate().map(entry).collect::<Vec<_>>().join(" ");
        Ok(self.member(index)?.child.send_line(&line)?)
    }

    /// Starts a killed validator again, with its key, its promise, and a new port.
    fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let old = self.member(index)?;
        let (home, lives, longest_pause) = (old.home.clone(), old.lives + 1, old.longest_pause);
        *old = Member { lives, longest_pause, ..Member::start(&home)? };
        let address = old.address;
        for (_, proxy) in self.proxies.iter().filter(|((_, to), _)| *to == index) {
            proxy.retarget(address);
        }
        self.introduce(index)
    }

    fn expect_caught_up(&mut self, index: usize) -> Result<(), Failure> {
        let (head, start) = (self.head(), Instant::now());
        let caught_up = |run: &Run| run.members.get(index).is_some_and(|member| member.height >= head);
        self.expect(&format!("{index} has caught up to height {head}"), caught_up)?;
        self.member(index)?.caught_up = Some(start.elapsed());
        self.say(&format!("{index} is back and has caught up to height {head}"));
        Ok(())
    }

    // --- listening -------------------------------------------------------------------------------

    fn expect(&mut self, what: &str, condition: impl Fn(&Run) -> bool) -> Result<(), Failure> {
        match self.listen(Instant::now() + TIMEOUT, condition)? {
            true => Ok(()),
            false => Err(format!("waited {TIMEOUT:?} in vain until {what}").into()),
        }
    }

    fn listen_until(&mut self, time: Duration) -> Result<(), Failure> {
        self.listen(self.began + time, |_| false).map(drop)
    }

    /// Takes what the validators print until the condition holds; false if it did not by `until`.
    fn listen(&mut self, until: Instant, condition: impl Fn(&Run) -> bool) -> Result<bool, Failure> {
        for index in (0..self.members.len()).cycle() {
            // Each in turn: one that has nothing to say delays the others by so much.
            let member = self.member(index)?;
            let first = member.child.lines().recv_timeout(Duration::from_millis(2));
            if first == Err(RecvTimeoutError::Disconnected) && !member.killed {
                return Err(format!("{index} has ended").into());
            }
            let lines: Vec<String> = first.into_iter().chain(member.child.lines().try_iter()).collect();
            lines.iter().try_for_each(|line| self.take(index, line))?;
            if condition(self) {
                return Ok(true);
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(false)
    }

    /// Takes a line `commit HEIGHT HASH`: the heights of each life follow one another, and the hashes are those
    /// of all others.
    fn take(&mut self, index: usize, line: &str) -> Result<(), Failure> {
        let commit = line.strip_prefix("commit ").and_then(|line| line.split_once(' '));
        let (height, hash) = commit.ok_or_else(|| format!("{index} says {line:?}"))?;
        let (height, now) = (height.parse()?, Instant::now());
        let first = self.hashes.entry(height).or_insert_with(|| hash.into());
        if first != hash {
            return Err(
                format!("{index} has committed {hash} at height {height}, and another {first}").into()
            );
        }
        let member = self.member(index)?;
        if height != member.height + 1 {
            return Err(format!("{index} has committed height {height} after {}", member.height).into());
        }
        member.note_pause(now);
        (member.height, member.last) = (height, Some(now));
        Ok(())
    }

    // --- the end ---------------------------------------------------------------------------------

    fn finish(mut self) -> Result<(), Failure> {
        let now = Instant::now();
        self.members.iter_mut().for_each(|member| member.note_pause(now));
        let head = self.head();
        let all = |run: &Run| run.members.iter().all(|member| member.height >= head);
        self.expect(&format!("all have committed height {head}"), all)?;
        for member in &mut self.members {
            member.child.close_stdin();
            let status = member.child.wait_exit(TIMEOUT)?.ok_or("a node does not end")?;
            if !status.success() {
                return Err(format!("a node has ended with {status}").into());
            }
        }
        println!("\nnode  lives  height  longest pause  caught up after");
        for (index, Member { lives, height, longest_pause, caught_up, .. }) in self.members.iter().enumerate()
        {
            let pause = longest_pause.as_secs_f64();
            let caught_up = caught_up.map_or("-".into(), |time| format!("{:.2} s", time.as_secs_f64()));
            println!("{index:4} {lives:6} {height:7} {pause:12.2} s {caught_up:>16}");
        }
        let bound = (PathConfig::default().suspect_after + BLOCK_TIME + ROUND_TIME) * PATIENCE;
        let longest = self.members.iter().map(|member| member.longest_pause).max().unwrap_or_default();
        if longest > bound {
            return Err(
                format!("{longest:.2?} went by without a commit, which is more than {bound:.1?}").into()
            );
        }
        let nodes = self.members.len();
        println!(
            "success: {head} blocks, the same on all {nodes} nodes; longest time without one {longest:.2?} (bound {bound:.1?})"
        );
        Ok(())
    }
}
