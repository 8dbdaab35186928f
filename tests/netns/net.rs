//! Three network namespaces, a - router - b, made for one fault and removed afterwards.
//!
//! All of them use the same addresses, for they do not see each other, and nothing of the machine's own
//! network is touched.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const PREFIX: &str = "unbroken-test";
/// The congestion control of connections that are made in a namespace (tcp(7)).
const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Those that a namespace may have.
const ALLOWED_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Where b lives first, and where it moves to.
pub(crate) const B: &str = "10.77.2.2";
pub(crate) const B_LATER: &str = "10.77.2.3";
/// Its address on the second path.
pub(crate) const B_SECOND: &str = "10.78.2.2";
pub(crate) const PORT: u16 = 7000;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    A,
    Router,
    B,
}

/// One of two ways from a to b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    First,
    Second,
}

impl Way {
    /// How all of its addresses begin.
    pub(crate) fn prefix(self) -> &'static str {
        if self == Way::First { "10.77." } else { "10.78." }
    }

    /// The router's interface on b's side.
    pub(crate) fn to_b(self) -> &'static str {
        if self == Way::First { "to-b" } else { "to-b2" }
    }

    /// A rule that drops so many percent of what goes this way, in each direction.
    pub(crate) fn loses(self, percent: u32) -> String {
        let lot = if percent < 100 { format!("numgen random mod 100 < {percent} ") } else { String::new() };
        format!("ip daddr {}0.0/16 {lot}drop", self.prefix())
    }
}

/// The namespaces. Dropping them removes them; those of a run that was killed are removed by the next.
pub(crate) struct Net {
    id: String,
    control: Option<&'static str>,
}

impl Net {
    /// `control`: the congestion control of all three; `None`: the machine's.
    ///
    /// # Errors
    /// Says why such networks cannot be made here.
    pub(crate) fn new(control: Option<&'static str>) -> Result<Net, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        for tool in ["ip", "tc", "nft", "conntrack"] {
            shell(&format!("command -v {tool}")).map_err(|_| format!("there is no `{tool}` here"))?;
        }
        SWEEP.call_once(sweep);
        let id = format!("{PREFIX}-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let net = Net { id, control }; // From here on a failure removes what was made.
        net.make().map_err(|error| {
            let first = error.lines().next().unwrap_or_default();
            format!("no network of namespaces: {first}")
        })?;
        Ok(net)
    }

    /// Another one, with the same congestion control.
    ///
    /// # Errors
    /// As [`Net::new`].
    pub(crate) fn another(&self) -> Result<Net, String> {
        Net::new(self.control)
    }

    fn make(&self) -> Result<(), String> {
        let [a, r, b] = [Place::A, Place::Router, Place::B].map(|place| self.name(place));
        shell(&format!(
            "ip netns add {a}; ip netns add {r}; ip netns add {b}
            ip link add eth0 netns {a} type veth peer name to-a netns {r}
            ip link add eth0 netns {b} type veth peer name to-b netns {r}
            for it in {a} {r} {b}; do ip -n $it link set lo up; done
            ip -n {a} addr add 10.77.1.2/24 dev eth0; ip -n {a} link set eth0 up
            ip -n {b} addr add {B}/24 dev eth0; ip -n {b} link set eth0 up
            ip -n {r} addr add 10.77.1.1/24 dev to-a; ip -n {r} link set to-a up
            ip -n {r} addr add 10.77.2.1/24 dev to-b; ip -n {r} link set to-b up
            ip -n {a} route add default via 10.77.1.1; ip -n {b} route add default via 10.77.2.1
            ip netns exec {r} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
        ))?;
        if let Some(control) = self.control {
            for name in [&a, &b] {
                shell(&format!("ip netns exec {name} sh -c 'echo {control} > {CONTROL}'"))?;
            }
        }
        self.try_nft("add table ip t\nadd chain ip t path { type filter hook forward priority 0; }")
    }

    /// Adds a second way between a and b, with interfaces and addresses of its own.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn second_way(&self) -> Result<(), String> {
        let [a, r, b] = [Place::A, Place::Router, Place::B].map(|place| self.name(place));
        shell(&format!(
            "ip link add eth1 netns {a} type veth peer name to-a2 netns {r}
            ip link add eth1 netns {b} type veth peer name to-b2 netns {r}
            ip -n {a} addr add 10.78.1.2/24 dev eth1; ip -n {a} link set eth1 up
            ip -n {b} addr add {B_SECOND}/24 dev eth1; ip -n {b} link set eth1 up
            ip -n {r} addr add 10.78.1.1/24 dev to-a2; ip -n {r} link set to-a2 up
            ip -n {r} addr add 10.78.2.1/24 dev to-b2; ip -n {r} link set to-b2 up
            ip -n {a} route add 10.78.2.0/24 via 10.78.1.1; ip -n {b} route add 10.78.1.0/24 via 10.78.2.1"
        ))
        .map(drop)
    }

    pub(crate) fn name(&self, place: Place) -> String {
        let letter = match place {
            Place::A => "a",
            Place::Router => "r",
            Place::B => "b",
        };
        format!("{}-{letter}", self.id)
    }

    /// A command that runs a program in a place.
    pub(crate) fn command(&self, place: Place, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(place)]).arg(program);
        command
    }

    /// Makes the router a NAT for a that keeps established flows for so many seconds of silence.
    ///
    /// # Errors
    /// Where the kernel has no such thing.
    pub(crate) fn nat(&self, seconds: u32, drop_invalid: bool) -> Result<(), String> {
        self.try_nft(
            "add chain ip t post { type nat hook postrouting priority 100; }
            add rule ip t post oifname to-b masquerade",
        )?;
        let invalid = if drop_invalid { "ct state invalid drop" } else { "ct state invalid accept" };
        self.try_nft(&format!(
            "add chain ip t local {{ type filter hook input priority 0; }}
            add rule ip t local {invalid}
            add rule ip t path {invalid}"
        ))?;
        // A real NAT passes nothing to its own ports that nobody asked for.
        if drop_invalid {
            self.try_nft("add rule ip t local ct state new iifname to-b drop")?;
        }
        let settings = [("timeout_established", seconds), ("loose", 0)];
        settings.into_iter().try_for_each(|(name, value)| {
            let file = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_{name}");
            shell(&format!("ip netns exec {} sh -c 'echo {value} > {file}'", self.name(Place::Router)))
                .map(drop)
        })
    }

    /// Makes both directions of the first way as slow as that, with a queue of half a second.
    pub(crate) fn slow(&self, kbit: u32) {
        for dev in ["to-a", "to-b"] {
            // The burst is what one packet needs.
            let tbf = format!("qdisc add dev {dev} root tbf rate {kbit}kbit burst 1600 latency 500ms");
            self.tool("tc", Place::Router, &tbf);
        }
    }

    /// Every packet is one of its own, as on a wire: no interface hands on several segments as one.
    pub(crate) fn no_offload(&self) {
        for (place, devs) in [(Place::A, "eth0"), (Place::Router, "to-a to-b"), (Place::B, "eth0")] {
            let name = self.name(place);
            self.run(&format!("for it in {devs}; do ip -n {name} link set $it gso_max_segs 1; done"));
        }
    }

    /// Sets a number below /proc/sys.
    ///
    /// # Errors
    /// Where the kernel has no such thing.
    pub(crate) fn set(&self, place: Place, name: &str, value: u32) -> Result<(), String> {
        let name_of_place = self.name(place);
        shell(&format!("ip netns exec {name_of_place} sh -c 'echo {value} > /proc/sys/{name}'")).map(drop)
    }

    /// The NAT loses its memory.
    pub(crate) fn forget(&self) {
        self.run(&format!("ip netns exec {} conntrack -D -p tcp", self.name(Place::Router)));
    }

    /// How many flows the NAT remembers as established.
    pub(crate) fn remembered(&self) -> usize {
        let name = self.name(Place::Router);
        let list = self.run(&format!("ip netns exec {name} conntrack -L -p tcp --state ESTABLISHED"));
        list.lines().filter(|line| line.contains("ESTABLISHED")).count()
    }

    fn try_nft(&self, script: &str) -> Result<(), String> {
        let mut command = self.command(Place::Router, "nft".as_ref());
        command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        stdin.write_all(format!("{script}\n").as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("nft: {text}: {script}")) }
    }

    /// Adds a rule for what the router forwards, like `iifname to-a drop`.
    pub(crate) fn rule(&self, rule: &str) {
        self.try_nft(&format!("add rule ip t path {rule}")).expect("a rule");
    }

    /// Replaces all rules for what the router forwards, at once.
    pub(crate) fn rules(&self, rules: &[String]) {
        let add = |rule: &String| format!("add rule ip t path {rule}\n");
        let rules: String = rules.iter().map(add).collect();
        self.try_nft(&format!("flush chain ip t path\n{rules}")).expect("rules");
    }

    /// Removes all rules for what the router forwards.
    pub(crate) fn no_rules(&self) {
        self.try_nft("flush chain ip t path").expect("no rules");
    }

    /// Runs `ip` or `tc` in a place.
    pub(crate) fn tool(&self, tool: &str, place: Place, arguments: &str) {
        self.run(&format!("{tool} -n {} {arguments}", self.name(place)));
    }

    /// Sets the addresses of names for programs that start in `place` from now on, or started when there was
    /// a file already.
    ///
    /// # Errors
    /// Where /etc cannot be written to.
    pub(crate) fn hosts(&self, place: Place, text: &str) -> Result<(), String> {
        let dir = PathBuf::from("/etc/netns").join(self.name(place));
        // In place: the file is mounted over /etc/hosts.
        let write = |()| fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{text}\n"));
        fs::create_dir_all(&dir).and_then(write).map_err(|error| format!("{}: {error}", dir.display()))
    }

    fn run(&self, script: &str) -> String {
        shell(script).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for place in [Place::A, Place::Router, Place::B] {
            remove(&self.name(place));
        }
    }
}

/// Whether a namespace may use this congestion control.
///
/// # Errors
/// Says why not.
pub(crate) fn may_use(control: &str) -> Result<(), String> {
    let allowed =
        fs::read_to_string(ALLOWED_CONTROLS).map_err(|error| format!("{ALLOWED_CONTROLS}: {error}"))?;
    match allowed.split_whitespace().any(|name| name == control) {
        true => Ok(()),
        false => Err(format!("no congestion control {control}: a namespace may use {}", allowed.trim())),
    }
}

fn remove(name: &str) {
    let _ = shell(&format!("ip netns del {name}"));
    let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(name));
}

/// Removes what runs that were killed have left behind. Their processes died with them.
fn sweep() {
    let dirs = ["/run/netns", "/etc/netns"].into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    for entry in dirs.flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        // This process's own number was another's before: it has made nothing yet.
        if pid == std::process::id() || !PathBuf::from(format!("/proc/{pid}")).exists() {
            remove(&name);
        }
    }
}

fn shell(script: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("sh: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{}\n{script}", error.trim())),
    }
}
