//! The faults of the cluster, one after the other, and the balance at the end.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::args::Args;
use crate::cluster::{Cluster, LinkEvents, PATHS, Row};
use crate::content::now_us;
use crate::ledger::Counts;
use crate::plan::{
    FROZEN, Fault, HOLE_SILENCE, LEARNED_SILENCE, LESSONS, NAT_MEMORY, NAT_SILENCE, ROUNDS, SHORT_MEMORY,
    share_out,
};
use crate::record::Record;
use crate::report;
use crate::strangers::Crowd;
use crate::table::{Balance, Line, Verdict};
use crate::wire::{Command, Work};
use unbroken::test_util::{CloseIdle, FaultProxy, Faults, Ways};

/// In seconds: a vote that takes longer while nothing is wrong with its path is late, on a busy machine too.
const LATE: f64 = 2.0;

/// The result of one fault.
struct Shown {
    /// From `since` to when the last of the affected pairs had a vote through again.
    first_vote: Option<Duration>,
    since: &'static str,
    note: String,
    skipped: bool,
}

impl Shown {
    fn skipped() -> Shown {
        let note = "this kernel refuses TCP_MD5SIG".into();
        Shown { first_vote: None, since: "-", note, skipped: true }
    }
}

struct Run<'a> {
    args: &'a Args,
    cluster: Cluster,
    rng: fastrand::Rng,
    /// When the current fault is over.
    end: Instant,
}

/// Runs all faults. True when the books balance.
pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    if let Some(file) = &args.report {
        report::check(file).map_err(|error| format!("--report: cannot write {}: {error}", file.display()))?;
    }
    let cluster = match Cluster::start(args) {
        Ok(cluster) => cluster,
        Err(error) => {
            let nothing = Balance { error: Some(error.to_string()), ..Balance::default() };
            write_report(args, &Record::new(args.nodes, now_us()), &nothing)?;
            return Err(error);
        }
    };
    let rng = fastrand::Rng::with_seed(args.seed);
    let mut run = Run { args, cluster, rng, end: Instant::now() };
    // The first row is that of the start.
    let mut shown = vec![None];
    let result = run.all(&mut shown);
    // Whatever happened, the books are closed and shown.
    run.finish(result, shown)
}

fn write_report(args: &Args, record: &Record, balance: &Balance) -> Result<(), Failure> {
    let Some(file) = &args.report else { return Ok(()) };
    let page = report::page(args, record, balance, now_us());
    std::fs::write(file, page).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

/// The traffic of nodes unless a fault wants another.
fn usual() -> Work {
    Work { proposal_ms: 100, transactions: 100, block_ms: 400, saturate: Vec::new() }
}

fn nothing() -> Work {
    Work::default()
}

impl Run<'_> {
    fn scaled(&self, time: Duration) -> Duration {
        time / self.args.factor()
    }

    fn all(&mut self, shown: &mut Vec<Option<Shown>>) -> Result<(), Failure> {
        let times = share_out(&self.args.faults, self.args.time, self.args.factor());
        for ((number, fault), time) in (1..).zip(&self.args.faults).zip(times) {
            self.cluster.begin_row(fault.name())?;
            self.cluster.display.announce(number, self.args.faults.len(), *fault);
            self.end = Instant::now() + time;
            self.cluster.work(usual())?;
            let result = self.show(*fault);
            let row = self.cluster.rows.last().cloned().unwrap_or_default();
            match result {
                Ok(result) => {
                    let wrong = self.cluster.ledger.is_wrong(self.cluster.rows.len() - 1);
                    let line = Line::new(row, Counts::default(), Some(&result), wrong);
                    self.cluster.display.verdict(&line);
                    shown.push(Some(result));
                }
                Err(error) => {
                    let line =
                        Line { note: error.to_string(), ..Line::new(row, Counts::default(), None, true) };
                    self.cluster.display.verdict(&line);
                    return Err(error);
                }
            }
        }
        self.fall_silent()
    }

    /// From before a fault until all that was sent before its end has arrived.
    fn show(&mut self, fault: Fault) -> Result<Shown, Failure> {
        let shown = self.inflict(fault)?;
        self.cluster.listen(self.end)?;
        self.cluster.show_links();
        self.heal();
        self.cluster.end_row();
        let sent = self.cluster.ledger.sent();
        self.cluster.expect("all that was sent has arrived", |cluster| cluster.ledger.has(&sent))?;
        Ok(shown)
    }

    fn inflict(&mut self, fault: Fault) -> Result<Shown, Failure> {
        // Every fault meets a cluster in which votes flow.
        self.cluster.watch_votes(self.cluster.pairs());
        self.cluster.first_votes()?;
        let victim = self.rng.usize(0..self.args.nodes);
        match fault {
            Fault::PlannedReplacement => self.planned_replacement(),
            Fault::UrgentPathHole => self.path_hole(0),
            Fault::BulkPathHole => self.path_hole(1),
            Fault::DegradingPath => self.degrading_path(victim),
            Fault::IdleNat => self.idle_nat(),
            Fault::BlackHoleIdle => self.black_hole_idle(victim),
            Fault::BlackHoleLoad => self.black_hole_load(victim),
            Fault::ResetStorm => self.reset_storm(),
            Fault::Freeze => self.freeze(victim),
            Fault::Kill => self.kill(victim),
            Fault::SlowConsumer => self.slow_consumer(victim),
            Fault::SlowLink => self.slow_link(victim),
            Fault::TwoNodesOneName => self.two_nodes_one_name(victim),
            Fault::Strangers => self.strangers(victim),
            Fault::ShortMemoryNat => self.short_memory(victim, false),
            Fault::IdleTimeout => self.short_memory(victim, true),
        }
    }

    fn heal(&self) {
        for proxy in self.cluster.proxies.values() {
            proxy.set(Faults::default());
            proxy.heal();
        }
    }

    /// Some time of load before the fault strikes, never the same.
    fn lead(&mut self, most: Duration) -> Result<(), Failure> {
        let millis = self.scaled(most).as_millis() as u64;
        let lead = Duration::from_millis(self.rng.u64(millis / 4..=millis));
        self.cluster.listen(Instant::now() + lead)
    }

    fn since(&mut self, since: &'static str, pairs: Vec<(usize, usize)>) -> Result<Shown, Failure> {
        self.cluster.watch_votes(pairs);
        self.watched(since)
    }

    fn watched(&mut self, since: &'static str) -> Result<Shown, Failure> {
        Ok(Shown { first_vote: self.cluster.first_votes()?, since, note: String::new(), skipped: false })
    }

    /// Nobody sends, and everything has arrived.
    fn fall_silent(&mut self) -> Result<(), Failure> {
        self.cluster.work(nothing())?;
        // A transaction or a vote may be just on its way to the books.
        let mut before = (0, 0);
        loop {
            self.cluster.expect("all messages have arrived", |cluster| cluster.ledger.is_settled())?;
            self.cluster.listen(Instant::now() + Duration::from_millis(100))?;
            let totals = self.cluster.ledger.totals();
            if totals == before && self.cluster.ledger.is_settled() {
                return Ok(());
            }
            before = totals;
        }
    }

    /// Nobody has done anything to the links but their owners.
    fn planned_replacement(&mut self) -> Result<Shown, Failure> {
        let saturate = (0..self.args.nodes).collect();
        self.cluster.work(Work { saturate, ..usual() })?;
        self.lead(Duration::from_secs(3))?;
        let all = self.cluster.replaced();
        self.cluster.watch_votes(self.cluster.pairs());
        self.cluster.strike();
        const ORDERS: u32 = 4;
        let (mut slowest, mut unfinished) = (0, 0);
        for round in 0..ROUNDS {
            let ordered = now_us();
            let all_new = |cluster: &Cluster| cluster.pools_are_new(ordered);
            let mut done = false;
            // A connection that was in its handshake when the order came had nothing to be replaced yet: it
            // is ordered again.
            for _ in 0..ORDERS {
                self.cluster.tell_all(&Command::Replace { peer: None })?;
                let until = Instant::now() + self.scaled(Duration::from_secs(15));
                done = self.cluster.wait_for(until, all_new)?;
                if done {
                    break;
                }
            }
            unfinished += u32::from(!done);
            slowest = (now_us() - ordered).max(slowest);
            let pause = self.end.saturating_duration_since(Instant::now()) / (ROUNDS - round);
            self.cluster.listen(Instant::now() + pause)?;
        }
        self.cluster.relent();
        let shown = self.watched("first order")?;
        self.cluster.work(usual())?;
        let replaced = sum(&self.cluster.replaced()) - sum(&all);
        let links = all.len();
        let note = format!(
            "{ROUNDS} rounds, {replaced} connections of {links} links replaced; a round took {:.2} s at most{}",
            slowest as f64 / 1e6,
            if unfinished > 0 { format!(", {unfinished} NOT finished") } else { String::new() }
        );
        Ok(Shown { note, ..shown })
    }

    /// Each connection of each pool goes by the path of its place again, whatever it fled from before. What
    /// that takes does not count for the fault.
    fn spread(&mut self) -> Result<(), Failure> {
        let patience = self.scaled(Duration::from_secs(20));
        for _ in 0..10 {
            let since = now_us();
            self.cluster.wait_for(Instant::now() + patience, |cluster| cluster.pools_are_full(since))?;
            let wrong = self.cluster.not_spread();
            if wrong.is_empty() {
                break;
            }
            // A place that was lost dials the address that worked last, unless an earlier place has it: then
            // it begins with its own. That takes two connections by path 0 apart. All others are
            // replaced: a successor goes by another address.
            let by_first = |paths: &[usize]| paths.iter().copied().eq([0; PATHS]);
            let (lost, replaced): (Vec<_>, Vec<_>) =
                wrong.into_iter().partition(|(_, paths)| by_first(paths));
            for ((a, b), _) in replaced {
                self.cluster.tell(a, &Command::Replace { peer: Some(b) })?;
                self.cluster.tell(b, &Command::Replace { peer: Some(a) })?;
            }
            let lost: Vec<_> = lost.into_iter().map(|(link, _)| link).collect();
            let of_links =
                |(from, to, _): &(usize, usize, usize)| lost.contains(&(*from.min(to), *from.max(to)));
            let proxies: Vec<_> = self.cluster.proxies.iter().filter(|(key, _)| of_links(key)).collect();
            // All refuse until the last is reset: otherwise who dials in between ends up on the other path.
            proxies.iter().for_each(|(_, proxy)| proxy.update(|faults| faults.refuse = true));
            proxies.iter().for_each(|(_, proxy)| proxy.reset_all());
            proxies.iter().for_each(|(_, proxy)| proxy.update(|faults| faults.refuse = false));
        }
        if let Some(row) = self.cluster.rows.last_mut() {
            row.events = LinkEvents::default();
        }
        self.cluster.watch_votes(self.cluster.pairs());
        self.cluster.first_votes().map(drop)
    }

    fn path(&self, path: usize) -> impl Iterator<Item = &FaultProxy> {
        self.cluster.proxies.iter().filter(move |((.., by), _)| *by == path).map(|(_, proxy)| proxy)
    }

    /// One of the two paths of every link is gone, also for newcomers.
    fn path_hole(&mut self, path: usize) -> Result<Shown, Failure> {
        self.spread()?;
        let work = Work { block_ms: usual().block_ms / 4, ..usual() };
        self.cluster.work(work)?;
        self.lead(Duration::from_secs(3))?;
        let mut all = true;
        self.cluster.strike();
        for proxy in self.path(path) {
            all &= proxy.black_hole_new(true) && proxy.black_hole();
        }
        if !all {
            return Ok(Shown::skipped());
        }
        let struck = now_us();
        let shown = self.since("black hole", self.cluster.pairs())?;
        self.cluster.expect("all pools are full again", |cluster| cluster.pools_are_full(struck))?;
        let full = (now_us() - struck) as f64 / 1e6;
        self.cluster.work(usual())?;
        let note = format!("path {path} of all links; all pools full again by the other after {full:.2} s");
        Ok(Shown { note, ..shown })
    }

    /// As far as one machine goes, whose own links lose nothing: delay that rises, then short black holes,
    /// longer and longer, each of which loses what is in flight.
    fn degrading_path(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.spread()?;
        self.cluster.work(Work { block_ms: usual().block_ms / 4, ..usual() })?;
        let left = self.end.saturating_duration_since(Instant::now());
        let third = left.max(self.scaled(Duration::from_secs(15))) / 3;
        self.cluster.strike();
        const STEPS: u32 = 8;
        for step in 1..=STEPS {
            let delay = Ways::both(Duration::from_millis(5) * step);
            self.path_of(0, victim).for_each(|proxy| proxy.update(|faults| faults.delay = delay));
            self.cluster.listen(Instant::now() + third / STEPS)?;
        }
        let worst = self.worst_parts(victim);
        let (delayed, stop) = (self.events().replaced, Instant::now() + third * 3 / 2);
        let mut bursts = 0;
        while Instant::now() < stop {
            let mut all = true;
            for proxy in self.path_of(0, victim) {
                all &= proxy.black_hole();
            }
            if !all {
                return Ok(Shown::skipped());
            }
            let hole = Duration::from_millis(40 + 4 * bursts).min(Duration::from_millis(120));
            self.cluster.listen(Instant::now() + hole)?;
            self.path_of(0, victim).for_each(FaultProxy::heal);
            bursts += 1;
            self.cluster.listen(Instant::now() + Duration::from_millis(60))?;
        }
        self.cluster.relent();
        let shown = self.since("last burst", self.cluster.pairs_of(victim))?;
        let LinkEvents { replaced, suspects, poor, .. } = self.events();
        let note = format!(
            "node {victim}: path 0 slower by up to 80 ms{worst}: {delayed} replaced; {bursts} bursts of loss: \
             {suspects} suspected, {poor} found poor, {} replaced",
            replaced - delayed
        );
        self.cluster.work(usual())?;
        Ok(Shown { note, ..shown })
    }

    fn path_of(&self, path: usize, victim: usize) -> impl Iterator<Item = &FaultProxy> {
        let of =
            move |(from, to, by): &(usize, usize, usize)| *by == path && (*from == victim || *to == victim);
        self.cluster.proxies.iter().filter(move |(key, _)| of(key)).map(|(_, proxy)| proxy)
    }

    fn events(&self) -> LinkEvents {
        self.cluster.rows.last().map(|row| row.events).unwrap_or_default()
    }

    /// The worst score among the connections of a node, by what either end says.
    fn worst_parts(&self, victim: usize) -> String {
        let members = self.cluster.members.iter().enumerate();
        let all =
            members.flat_map(|(node, member)| member.figures.iter().flatten().map(move |(_, f)| (node, f)));
        let its = all.filter(|(node, figures)| *node == victim || figures.peer == victim);
        let worst = its.map(|(_, figures)| figures).min_by(|a, b| a.score.total_cmp(&b.score));
        worst.map(|worst| format!(", score {:.2}{}", worst.score, worst.parts)).unwrap_or_default()
    }

    fn forgotten(&self, victim: usize) -> u64 {
        let stats = self.cluster.proxies_of(victim).map(FaultProxy::stats);
        stats.map(|stats| stats.forgotten + stats.timed_out).sum()
    }

    /// Connections die of silence between two pings, until it has been learned how often to ping.
    /// `announced`: they are closed, and not just forgotten.
    fn short_memory(&mut self, victim: usize, announced: bool) -> Result<Shown, Failure> {
        self.fall_silent()?;
        let memory = self.scaled(SHORT_MEMORY);
        let longest_ping = |cluster: &Cluster| cluster.ping_ms(victim).into_iter().fold(0.0, f64::max);
        let usual_ms = longest_ping(&self.cluster);
        let strike = |faults: &mut Faults| match announced {
            true => faults.close_idle = Some(CloseIdle { after: memory, reset: false }),
            false => faults.forget_idle = Some(memory),
        };
        self.cluster.strike();
        self.cluster.proxies_of(victim).for_each(|proxy| proxy.update(strike));
        let (start, before) = (Instant::now(), self.forgotten(victim));
        // Learned is what outlives a long silence.
        let (mut forgotten, mut took, mut learned) = (0, Duration::ZERO, false);
        while !learned && start.elapsed() < self.scaled(LESSONS) {
            self.cluster.listen(Instant::now() + self.scaled(LEARNED_SILENCE))?;
            let now = self.forgotten(victim) - before;
            learned = now == forgotten;
            if !learned {
                (forgotten, took) = (now, start.elapsed());
            }
        }
        let ping_ms = longest_ping(&self.cluster);
        self.cluster.watch_votes(self.cluster.pairs());
        self.cluster.work(usual())?;
        let shown = self.watched("end of silence")?;
        let how = match learned {
            true => format!(
                "within {:.0} s, then none for {:?}",
                took.as_secs_f64(),
                self.scaled(LEARNED_SILENCE)
            ),
            false => "and NOT learned".into(),
        };
        let what = if announced { "closed" } else { "forgotten" };
        let note = format!(
            "node {victim}, {what} after {memory:?}: pings every {usual_ms:.0} ms become {ping_ms:.0} ms; \
             {forgotten} flows {what} {how}"
        );
        if !learned {
            return Err(note.into());
        }
        Ok(Shown { note, ..shown })
    }

    fn idle_nat(&mut self) -> Result<Shown, Failure> {
        self.fall_silent()?;
        let before = self.events().reconnects();
        self.cluster.strike();
        let forget_idle = Some(self.scaled(NAT_MEMORY));
        self.cluster.proxies.values().for_each(|proxy| proxy.update(|f| f.forget_idle = forget_idle));
        self.cluster.listen(Instant::now() + self.scaled(NAT_SILENCE))?;
        let forgotten: u64 = self.cluster.proxies.values().map(|proxy| proxy.stats().forgotten).sum();
        let reconnected = self.events().reconnects().saturating_sub(before);
        self.cluster.watch_votes(self.cluster.pairs());
        self.cluster.work(usual())?;
        let shown = self.watched("end of silence")?;
        Ok(Shown { note: format!("{forgotten} flows forgotten, {reconnected} reconnected"), ..shown })
    }

    /// Makes all connections of the node vanish. False where the kernel cannot.
    fn black_hole(&mut self, victim: usize) -> bool {
        self.cluster.strike();
        let mut all = true;
        for proxy in self.cluster.proxies_of(victim) {
            all &= proxy.black_hole();
        }
        all
    }

    fn black_hole_idle(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.fall_silent()?;
        let struck = now_us();
        let pairs = self.cluster.pairs_of(victim);
        if !self.black_hole(victim) {
            self.cluster.work(usual())?;
            return Ok(Shown::skipped());
        }
        self.cluster.listen(Instant::now() + self.scaled(HOLE_SILENCE))?;
        let again = |pair| self.cluster.connected_us.get(pair).filter(|at| **at > struck);
        let again: Vec<u64> = pairs.iter().filter_map(again).map(|at| at - struck).collect();
        let note = format!(
            "node {victim}: {} of {} link ends reconnected in silence, the last after {:.2} s",
            again.len(),
            pairs.len(),
            again.iter().max().copied().unwrap_or(0) as f64 / 1e6
        );
        self.cluster.watch_votes(pairs);
        self.cluster.work(usual())?;
        Ok(Shown { note, ..self.watched("end of silence")? })
    }

    fn black_hole_load(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.lead(Duration::from_secs(3))?;
        if !self.black_hole(victim) {
            return Ok(Shown::skipped());
        }
        // Counted from when the last connection had vanished: what is sent from here on meets the hole.
        let shown = self.since("black hole", self.cluster.pairs_of(victim))?;
        Ok(Shown { note: format!("node {victim}"), ..shown })
    }

    fn reset_storm(&mut self) -> Result<Shown, Failure> {
        let saturate = (0..self.args.nodes).collect();
        self.cluster.work(Work { saturate, ..usual() })?;
        let keys: Vec<_> = self.cluster.proxies.keys().copied().collect();
        let mut resets = 0;
        // Leave a fifth of the time, at least a second, to see it end.
        let left = self.end.saturating_duration_since(Instant::now());
        let stop = self.end - (left / 5).max(Duration::from_secs(1)).min(left);
        self.cluster.strike();
        while Instant::now() < stop {
            for key in &keys {
                let hit = self.rng.u8(0..3) == 0;
                if hit && let Some(proxy) = self.cluster.proxies.get(key) {
                    resets += proxy.reset_some(usize::MAX);
                }
            }
            let pause = Duration::from_millis(self.rng.u64(5..250));
            self.cluster.listen(Instant::now() + pause)?;
        }
        self.cluster.relent();
        let shown = self.since("last reset", self.cluster.pairs())?;
        self.cluster.work(usual())?;
        Ok(Shown { note: format!("{resets} connections reset"), ..shown })
    }

    fn freeze(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.lead(Duration::from_secs(3))?;
        self.cluster.strike();
        self.cluster.freeze(victim, true)?;
        self.cluster.listen(Instant::now() + self.scaled(FROZEN))?;
        self.cluster.watch_votes(self.cluster.pairs_of(victim));
        self.cluster.freeze(victim, false)?;
        self.cluster.relent();
        let shown = self.watched("thaw")?;
        Ok(Shown { note: format!("node {victim}, for {:?}", self.scaled(FROZEN)), ..shown })
    }

    fn kill(&mut self, victim: usize) -> Result<Shown, Failure> {
        // Full queues and inboxes in all directions, so that there is something to lose.
        let saturate = (0..self.args.nodes).collect();
        self.cluster.work(Work { saturate, transactions: 500, ..usual() })?;
        self.lead(Duration::from_secs(3))?;
        self.cluster.strike();
        self.cluster.kill(victim)?;
        self.cluster.work(usual())?;
        let away = Duration::from_millis(self.rng.u64(100..1000));
        self.cluster.listen(Instant::now() + away)?;
        self.cluster.watch_votes(self.cluster.pairs_of(victim));
        self.cluster.restart(victim)?;
        self.cluster.relent();
        let shown = self.watched("restart")?;
        Ok(Shown { note: format!("node {victim}, away for {away:?}"), ..shown })
    }

    /// Votes pass the transactions and blocks that wait.
    fn slow_consumer(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.cluster.work(Work { saturate: vec![victim], ..usual() })?;
        self.cluster.watch_votes(self.cluster.pairs_of(victim));
        self.cluster.strike();
        self.cluster.tell(victim, &Command::Slow { ms: 100 })?;
        let shown = self.watched("slowness")?;
        self.cluster.listen(self.end)?;
        self.cluster.tell(victim, &Command::Slow { ms: 0 })?;
        self.cluster.relent();
        self.cluster.work(usual())?;
        Ok(Shown { note: format!("node {victim} takes 100 ms for each"), ..shown })
    }

    fn slow_link(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.cluster.strike();
        for proxy in self.cluster.proxies_of(victim) {
            proxy.update(|faults| {
                faults.rate = Ways::both(Some(1_000_000));
                faults.recv_buffer = Some(32 * 1024);
            });
            // The buffer that stands for the slow link's own queue is that of new connections.
            proxy.reset_all();
        }
        let slow = Instant::now();
        let before: u64 = self.bytes(victim);
        let everybody = (0..self.args.nodes).collect();
        let saturate = |to| Work { saturate: to, ..usual() };
        self.cluster.work(saturate(vec![victim]))?;
        self.cluster.tell(victim, &Command::Work(saturate(everybody)))?;
        let shown = self.since("throttle", self.cluster.pairs_of(victim))?;
        self.cluster.listen(self.end)?;
        let rate = (self.bytes(victim) - before) as f64 / slow.elapsed().as_secs_f64() / 1e6;
        let ways = 2 * (self.args.nodes - 1);
        self.cluster.work(usual())?;
        let note = format!("node {victim}, {rate:.1} MB/s over {ways} ways of 1 MB/s");
        Ok(Shown { note, ..shown })
    }

    /// The second address of the victim leads to another node. Its pools go by the first, and the second is
    /// tried no more than now and then.
    fn two_nodes_one_name(&mut self, victim: usize) -> Result<Shown, Failure> {
        self.spread()?;
        let addr_of = |node: usize| self.cluster.members.get(node).and_then(|member| member.addr);
        let other = (victim + 1) % self.args.nodes;
        let right = addr_of(victim).ok_or("the victim listens nowhere")?;
        let wrong = addr_of(other).ok_or("a node listens nowhere")?;
        let second = |(_, to, path): &(usize, usize, usize)| *to == victim && *path == 1;
        let misled: Vec<_> = self.cluster.proxies.keys().copied().filter(second).collect();
        let all = |cluster: &Cluster| -> Vec<u64> {
            misled.iter().filter_map(|key| cluster.proxies.get(key)).map(FaultProxy::accepted).collect()
        };
        let (before, start) = (all(&self.cluster), Instant::now());
        self.cluster.strike();
        for proxy in misled.iter().filter_map(|key| self.cluster.proxies.get(key)) {
            proxy.retarget(wrong);
            proxy.reset_all();
        }
        let shown = self.since("change of address", self.cluster.pairs_of(victim))?;
        self.cluster.listen(self.end)?;
        let dials = all(&self.cluster).into_iter().zip(&before).map(|(now, before)| now - before);
        let (most, lasted) = (dials.max().unwrap_or(0), start.elapsed());
        for proxy in misled.iter().filter_map(|key| self.cluster.proxies.get(key)) {
            proxy.retarget(right);
        }
        self.cluster.relent();
        let note = format!(
            "path 1 to node {victim} leads to node {other} for {lasted:.1?}: {most} dials there by any one node"
        );
        // At once, and then with a backoff that doubles.
        let bound = 10 + 2 * lasted.as_secs();
        if most > bound {
            return Err(format!("{note}; {bound} at most were expected").into());
        }
        Ok(Shown { note, ..shown })
    }

    /// A crowd at one node. Its share must not be missing to the others.
    fn strangers(&mut self, victim: usize) -> Result<Shown, Failure> {
        let member = self.cluster.members.get(victim).ok_or("no such node")?;
        let target = member.addr.ok_or("the victim listens nowhere")?;
        let network = member.role.network();
        self.cluster.strike();
        let crowd = Crowd::start(target, &network)?;
        let shown = self.since("first visit", self.cluster.pairs_of(victim))?;
        self.cluster.listen(self.end)?;
        let visits = crowd.leave()?;
        self.cluster.relent();
        let worst = self.cluster.rows.last().map_or(0, |row| row.worst_vote_us) as f64 / 1e6;
        let note = format!("node {victim}: {visits} visits; the slowest vote took {worst:.2} s");
        if worst > LATE {
            return Err(format!("{note}; {LATE} s at most were expected").into());
        }
        Ok(Shown { note, ..shown })
    }

    fn bytes(&self, victim: usize) -> u64 {
        let bytes = self.cluster.proxies_of(victim).map(|proxy| proxy.stats().bytes);
        bytes.map(|bytes| bytes.to_target + bytes.to_client).sum()
    }

    /// Ends the nodes, closes the books, prints them and writes the report.
    fn finish(mut self, result: Result<(), Failure>, shown: Vec<Option<Shown>>) -> Result<bool, Failure> {
        self.cluster.end_row();
        let ended = result.and_then(|()| self.cluster.quit());
        let Cluster { ledger, rows, mut display, record, .. } = self.cluster;
        let (counts, complaints) = ledger.close();
        let mut total = Counts::default();
        counts.iter().for_each(|counts| total.add(counts));
        let shown = shown.into_iter().chain(std::iter::repeat_with(|| None));
        let lines =
            rows.into_iter().zip(&counts).zip(shown).enumerate().map(|(index, ((row, counts), shown))| {
                // The first row, that of the start, has no fault that could fail.
                let wrong = !counts.balance() || (index > 0 && shown.is_none());
                Line::new(row, counts.clone(), shown.as_ref(), wrong)
            });
        let mut lines: Vec<_> = lines.collect();
        let (ok, error) = (total.balance() && ended.is_ok(), ended.err().map(|error| error.to_string()));
        let interrupted = |line: &&mut Line| line.verdict == Verdict::Fail && line.note.is_empty();
        if let (Some(error), Some(line)) = (&error, lines.last_mut().filter(interrupted)) {
            line.note = error.clone();
        }
        let balance = Balance { lines, total, complaints, ok, error };
        display.finish(&balance);
        write_report(self.args, &record, &balance)?;
        Ok(ok)
    }
}

impl Line {
    fn new(row: Row, counts: Counts, shown: Option<&Shown>, wrong: bool) -> Line {
        let verdict = match shown {
            _ if wrong => Verdict::Fail,
            Some(shown) if shown.skipped => Verdict::Skip,
            _ => Verdict::Pass,
        };
        Line {
            row,
            counts,
            verdict,
            first_vote: shown.and_then(|shown| shown.first_vote),
            since: shown.map_or("-", |shown| shown.since),
            note: shown.map(|shown| shown.note.clone()).unwrap_or_default(),
        }
    }
}

fn sum(counts: &std::collections::BTreeMap<(usize, usize), u64>) -> u64 {
    counts.values().sum()
}
