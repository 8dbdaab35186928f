//! The command line: what is asked for, or what is wrong with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use unbroken::{Config, PeerConfig};

pub(crate) const USAGE: &str = "\
One node: keeps links to its peers, sends them numbered votes, says what happens.

Usage: node [--listen ADDR]... [--peer [ID@]HOST:PORT [--important]]... [options]
       node keygen FILE    makes a new key, with mode 0600, and prints its ID
       node id FILE        prints the ID of a key

  --listen ADDR          accept connections here, e.g. 0.0.0.0:7000 or [::]:7000; repeatable.
                         Port 0 lets the system choose; the `listening` line says which.
  --peer [ID@]HOST:PORT  keep a link to this peer; repeatable. A name is resolved at each attempt. With ID,
                         which a node prints when it starts, nobody else can pass for it.
  --important            marks the --peer just before it as important.
  --connections N        connections of each link, 1 to 3 [1, and 2 for important peers].
  --learn HOST:PORT      a peer that may be linked with; repeatable. Dialled while there are fewer than:
  --target-peers N       how many peers to be linked with [0: candidates are not dialled].
  --records FILE         what this node knows of peers, JSON: read at the start if it is there, written
                         every minute and at the end.
  --name NAME            how this node is called in the lines of its peers.
  --vote-every DURATION  time between two votes to each peer, on the urgent lane [1s]; 0s: no votes.
  --bulk-every DURATION  time between two blocks to each peer, on the bulk lane [0s: no blocks].
  --bulk-size BYTES      size of a block: 65536, 64KiB, 1MiB, 1.5MB ... [1MiB]
  --idle-first DURATION  send nothing for so long after the first link came up [0s].
  --seconds N            end after N seconds, fractions allowed [run until SIGINT or SIGTERM].
  --config FILE          settings of the library, TOML, as in `peers = [\"host:7000\"]` or `max_queued = \"2GiB\"`; the
                         flags above are added to them. consensus.toml, wide_area.toml and local_test.toml beside
                         this program's source are samples.
  --identity FILE        the node's secret key, as Identity::load_or_generate keeps it: made, with mode
                         0600, if there is none. Without it the node has a new ID each time it starts.
  --view PATH            serve the live view at this Unix domain socket, for examples/dashboard. Anyone who may open
                         it may command the node: ping, replace, disconnect, ban. Its mode is 0600; it is removed
                         at the end, and the socket of a process that has died is replaced.
  --json                 one JSON object a line, with `t_ms`, `event`, `peer` and `seq` where they apply.
  --help                 this text.

Durations are written as 500ms, 10s, 1m 30s. At SIGINT and SIGTERM the node flushes what it has for at
most 5 s, then prints its summary; a second signal ends it at once. RUST_LOG=debug shows the library's log.

Exit code: 0; 1 if a message was missing, repeated, damaged or dropped while the node ran, or the node
could not start; 2 if the command line or a setting is wrong.";

/// The arguments of the command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) config: Config,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) records: Option<PathBuf>,
    pub(crate) learn: Vec<String>,
    pub(crate) vote_every: Option<Duration>,
    pub(crate) bulk_every: Option<Duration>,
    pub(crate) bulk_size: usize,
    pub(crate) idle_first: Duration,
    pub(crate) run_for: Option<Duration>,
    pub(crate) view: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Whether to run, or only to say how.
#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Args>),
    Help,
    /// Make a key in this file.
    Keygen(PathBuf),
    /// Say whose key is in this file.
    Id(PathBuf),
}

/// Reads the command line (without the program's name).
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut words = words.peekable();
    if let Some(command) = words.next_if(|word| ["keygen", "id"].contains(&word.as_str())) {
        let file = words.next().ok_or_else(|| format!("{command}: the path of a file is missing"))?.into();
        return match words.next() {
            Some(more) => Err(format!("{command}: one file, but {more:?} follows")),
            None if command == "id" => Ok(Parsed::Id(file)),
            None => Ok(Parsed::Keygen(file)),
        };
    }
    let mut args = Args {
        config: Config::default(),
        identity: None,
        records: None,
        learn: Vec::new(),
        vote_every: Some(Duration::from_secs(1)),
        bulk_every: None,
        bulk_size: 1024 * 1024,
        idle_first: Duration::ZERO,
        run_for: None,
        view: None,
        json: false,
    };
    let (mut listen, mut peers, mut name) = (Vec::new(), Vec::<PeerConfig>::new(), None);
    let (mut connections, mut target_peers) = (None, None);
    while let Some(word) = words.next() {
        let (flag, inline) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_string(), Some(value.to_string())),
            _ => (word, None),
        };
        let is_switch = matches!(flag.as_str(), "--important" | "--json" | "--help" | "-h");
        if is_switch && let Some(value) = &inline {
            return Err(format!("{flag}: takes no value, but was given {value:?}"));
        }
        let mut value = |expected: &str| {
            let value = inline.clone().or_else(|| words.next());
            value.ok_or_else(|| format!("{flag}: a value is missing, expected {expected}"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--json" => args.json = true,
            "--important" => match peers.last_mut() {
                Some(peer) => peer.important = true,
                None => return Err("--important: must follow the --peer that it marks".into()),
            },
            "--listen" => listen.push(parse_as::<SocketAddr>(&flag, &value(ADDR)?, ADDR)?),
            "--peer" => peers.push(PeerConfig::new(host_port(&flag, value(HOST_PORT)?)?)),
            "--connections" => {
                connections = Some(parse_as::<u8>(&flag, &value(CONNECTIONS)?, CONNECTIONS)?);
            }
            "--learn" => args.learn.push(host_port(&flag, value(HOST_PORT)?)?),
            "--target-peers" => target_peers = Some(parse_as::<usize>(&flag, &value(PEERS)?, PEERS)?),
            "--records" => args.records = Some(value("the path of a file")?.into()),
            "--name" => name = Some(value("a name of at most 64 bytes")?),
            "--vote-every" => args.vote_every = Some(duration(&flag, &value(DURATION)?)?),
            "--bulk-every" => args.bulk_every = Some(duration(&flag, &value(DURATION)?)?),
            "--idle-first" => args.idle_first = duration(&flag, &value(DURATION)?)?,
            "--bulk-size" => args.bulk_size = bytes(&flag, &value(BYTES)?)?,
            "--seconds" => {
                let text = value(SECONDS)?;
                let seconds = parse_as::<f64>(&flag, &text, SECONDS)?;
                let run_for = Duration::try_from_secs_f64(seconds).map_err(|_| bad(&flag, &text, SECONDS))?;
                args.run_for = Some(run_for);
            }
            "--config" => args.config = load(&flag, &value("the path of a TOML file")?)?,
            "--view" if cfg!(not(unix)) => {
                return Err("--view: needs a Unix domain socket, which this program has on Unix only".into());
            }
            "--view" => args.view = Some(value("the path of a socket")?.into()),
            "--identity" => args.identity = Some(value("the path of a file")?.into()),
            _ => return Err(format!("{flag}: there is no such flag; --help lists them")),
        }
    }
    args.vote_every = args.vote_every.filter(|every| !every.is_zero());
    args.bulk_every = args.bulk_every.filter(|every| !every.is_zero());
    args.config.listen.extend(listen);
    args.config.peers.extend(peers);
    if let Some(name) = name {
        args.config.name = name;
    }
    if let Some(connections) = connections {
        (args.config.connections, args.config.important_connections) = (connections, connections);
    }
    if let Some(target_peers) = target_peers {
        args.config.target_peers = target_peers;
    }
    check(&args)?;
    Ok(Parsed::Run(Box::new(args)))
}

/// Checks the flags against each other.
fn check(args: &Args) -> Result<(), String> {
    let config = &args.config;
    if !args.learn.is_empty() && config.target_peers == 0 {
        return Err("--learn: needs --target-peers, else no candidate is ever dialled".into());
    }
    if config.listen.is_empty() && config.peers.is_empty() && config.target_peers == 0 {
        return Err(
            "nothing to do: at least one --listen, --peer or --target-peers is needed; --help shows how"
                .into(),
        );
    }
    config.validate().map_err(|error| error.to_string())?;
    for (flag, lane, size) in [
        ("--vote-every", unbroken::URGENT, args.vote_every.map(|_| crate::vote::VOTE_SIZE)),
        ("--bulk-every", unbroken::BULK, args.bulk_every.map(|_| args.bulk_size)),
    ] {
        let Some(size) = size else { continue };
        match config.lanes.iter().find(|config| config.id == lane) {
            None => return Err(format!("{flag}: the configuration has no {lane} lane (id {})", lane.0)),
            Some(config) if size > config.max_message => {
                let max = config.max_message;
                return Err(format!("{flag}: {size} bytes are more than the {lane} lane allows ({max})"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

const ADDR: &str = "an address with a port, like 0.0.0.0:7000 or [::]:7000";
const HOST_PORT: &str = "HOST:PORT or ID@HOST:PORT, like node1.example.org:7000 or [2001:db8::1]:7000";
const CONNECTIONS: &str = "a number from 1 to 3";
const PEERS: &str = "a number of peers";
const DURATION: &str = "a duration, like 500ms, 10s or 1m";
const BYTES: &str = "a size, like 65536, 64KiB, 1MiB or 1.5MB";
const SECONDS: &str = "a number of seconds, like 60 or 2.5";

fn bad(flag: &str, text: &str, expected: &str) -> String {
    format!("{flag}: {text:?} is not {expected}")
}

fn parse_as<T: FromStr>(flag: &str, text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| bad(flag, text, expected))
}

fn host_port(flag: &str, text: String) -> Result<String, String> {
    let is_good =
        |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if text.rsplit_once(':').is_some_and(is_good) { Ok(text) } else { Err(bad(flag, &text, HOST_PORT)) }
}

fn duration(flag: &str, text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| bad(flag, text, DURATION))
}

fn bytes(flag: &str, text: &str) -> Result<usize, String> {
    let error = || bad(flag, text, BYTES);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(error()),
    };
    let size = number.parse::<f64>().map_err(|_| error())? * factor;
    if size < crate::vote::OVERHEAD as f64 {
        let least = crate::vote::OVERHEAD;
        return Err(format!("{flag}: {text:?} is too small, at least {least} bytes are needed"));
    }
    Ok(size as usize) // Saturates; the lane's bound is checked later.
}

fn load(flag: &str, path: &str) -> Result<Config, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{flag}: cannot read {path:?}: {error}"))?;
    toml::from_str(&text).map_err(|error| format!("{flag}: {path:?} is not a valid configuration: {error}"))
}
