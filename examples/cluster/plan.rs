//! Which faults there are, and how long each needs.

use std::time::Duration;

/// By how much timeouts are shortened, unless `--real-time` is given.
pub(crate) const SCALE: u32 = 10;

/// How long the NAT of the idle fault remembers a silent flow: the strictest known.
pub(crate) const NAT_MEMORY: Duration = Duration::from_secs(30);
/// How long nothing is said through it: what the log of the broken node showed.
pub(crate) const NAT_SILENCE: Duration = Duration::from_secs(51);
/// How long nothing is said into a black hole: the bound within which it must be noticed.
pub(crate) const HOLE_SILENCE: Duration = Duration::from_secs(25);
/// How long the NAT with the short memory, or the proxy with the idle timeout, keeps a silent flow: less than
/// the time between pings, and less than what the first lesson makes of it.
pub(crate) const SHORT_MEMORY: Duration = Duration::from_millis(4500);
/// How long the lessons may take: each a ping interval, and the time until the connection is dead. Of 40 runs
/// most took 30 to 50 s, two took 60.
pub(crate) const LESSONS: Duration = Duration::from_secs(150);
/// How long nothing is said through it when the lessons are learned.
pub(crate) const LEARNED_SILENCE: Duration = Duration::from_secs(15);
/// How often each node replaces all its connections.
pub(crate) const ROUNDS: u32 = 5;
/// How long a node is frozen: longer than its peers wait for any sign of life.
pub(crate) const FROZEN: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    PlannedReplacement,
    UrgentPathHole,
    BulkPathHole,
    DegradingPath,
    IdleNat,
    ShortMemoryNat,
    IdleTimeout,
    BlackHoleIdle,
    BlackHoleLoad,
    ResetStorm,
    Freeze,
    Kill,
    SlowConsumer,
    SlowLink,
    TwoNodesOneName,
    Strangers,
}

impl Fault {
    /// The NAT with the short memory comes before what else teaches that pings must come more often, and
    /// after the one through which the usual pings are enough.
    pub(crate) const ALL: [Fault; 16] = [
        Fault::PlannedReplacement,
        Fault::UrgentPathHole,
        Fault::BulkPathHole,
        Fault::DegradingPath,
        Fault::IdleNat,
        Fault::ShortMemoryNat,
        Fault::IdleTimeout,
        Fault::BlackHoleIdle,
        Fault::BlackHoleLoad,
        Fault::ResetStorm,
        Fault::Freeze,
        Fault::Kill,
        Fault::SlowConsumer,
        Fault::SlowLink,
        Fault::TwoNodesOneName,
        Fault::Strangers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::PlannedReplacement => "planned-replacement",
            Fault::UrgentPathHole => "urgent-path-hole",
            Fault::BulkPathHole => "bulk-path-hole",
            Fault::DegradingPath => "degrading-path",
            Fault::IdleNat => "idle-nat",
            Fault::BlackHoleIdle => "black-hole-idle",
            Fault::BlackHoleLoad => "black-hole-load",
            Fault::ResetStorm => "reset-storm",
            Fault::Freeze => "freeze",
            Fault::Kill => "kill",
            Fault::SlowConsumer => "slow-consumer",
            Fault::SlowLink => "slow-link",
            Fault::TwoNodesOneName => "two-nodes-one-name",
            Fault::Strangers => "strangers",
            Fault::ShortMemoryNat => "short-memory-nat",
            Fault::IdleTimeout => "idle-timeout",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Fault::PlannedReplacement => {
                "every node replaces all its connections several times under full load"
            }
            Fault::UrgentPathHole => "of the two paths of every link, that of the votes vanishes under load",
            Fault::BulkPathHole => "of the two paths of every link, that of the blocks vanishes under load",
            Fault::DegradingPath => "the path of a node's votes gets slower, then loses bursts of packets",
            Fault::IdleNat => "nobody says anything for longer than the NAT remembers a silent flow",
            Fault::BlackHoleIdle => "all connections of a node vanish silently while nobody says anything",
            Fault::BlackHoleLoad => "all connections of a node vanish silently in mid-traffic",
            Fault::ResetStorm => "connections are reset again and again, in mid-message",
            Fault::Freeze => "a node stands still (SIGSTOP) until its peers have given its connections up",
            Fault::Kill => "a node is killed in mid-traffic and started again",
            Fault::SlowConsumer => "a node processes transactions and blocks slowly; its votes must not wait",
            Fault::SlowLink => "blocks saturate the links of a node, 1 MB/s each; its votes must not wait",
            Fault::TwoNodesOneName => "one of the two addresses of a node leads to another node",
            Fault::Strangers => "a crowd grants no credit, leaves messages unfinished, comes and goes",
            Fault::IdleTimeout => {
                "a proxy closes idle connections sooner than pings come: that is learned, too"
            }
            Fault::ShortMemoryNat => "a NAT forgets sooner than pings come: how often to ping is learned",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    pub(crate) fn names() -> String {
        Fault::ALL.map(Fault::name).join(", ")
    }

    /// The least time that shows it, before scaling, and its share of what is left.
    fn needs(self) -> (u64, u32) {
        match self {
            Fault::PlannedReplacement => (20, 3),
            Fault::UrgentPathHole | Fault::BulkPathHole => (15, 2),
            Fault::DegradingPath => (25, 2),
            Fault::IdleNat => (54, 1),
            Fault::BlackHoleIdle => (28, 1),
            Fault::BlackHoleLoad => (12, 3),
            Fault::ResetStorm => (12, 3),
            Fault::Freeze => (32, 2),
            Fault::Kill => (10, 3),
            Fault::SlowConsumer => (10, 3),
            Fault::SlowLink => (15, 3),
            Fault::TwoNodesOneName => (15, 2),
            Fault::Strangers => (20, 3),
            Fault::ShortMemoryNat | Fault::IdleTimeout => (60, 1),
        }
    }
}

/// How long each of these faults takes. `time` is shared out; what a fault needs comes first.
pub(crate) fn share_out(faults: &[Fault], time: Duration, factor: u32) -> Vec<Duration> {
    let least = |fault: Fault| Duration::from_secs(fault.needs().0) / factor;
    let left = time.saturating_sub(faults.iter().map(|fault| least(*fault)).sum());
    let weights: u32 = faults.iter().map(|fault| fault.needs().1).sum();
    faults.iter().map(|fault| least(*fault) + left * fault.needs().1 / weights.max(1)).collect()
}
