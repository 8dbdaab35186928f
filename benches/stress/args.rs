//! The command line.

use std::time::Duration;

use unbroken::{Config, Encryption};

pub const HELP: &str = "\
cargo bench --bench stress -- [FLAGS]
  --peers N       peers, 1 to 4000 (default 20)
  --threads N     threads that send (default 2; 0: broadcasts and votes only)
  --size BYTES    size of their messages, 24 or more (default 256)
  --seconds S     how long to send (default 5)
  --pause MS      between two broadcasts of 256 bytes (default 20)
  --stream        broadcasts on the normal lane, one behind the other, instead of one after the other on the urgent lane
  --faults        cuts connections, by a proxy before each peer
  --idle S        measures the linked nodes without traffic first (default 0: does not)
  --outage S      stops all peers for that time at the end, and waits until they are linked again (default 0: does not)
  --plaintext     without encryption";

#[derive(Clone, Debug)]
pub struct Args {
    pub peers: usize,
    pub threads: usize,
    pub size: usize,
    pub time: Duration,
    pub pause: Duration,
    pub stream: bool,
    pub faults: bool,
    pub idle: Duration,
    pub outage: Duration,
    pub plaintext: bool,
    /// This process has the peers.
    pub child: bool,
}

impl Args {
    /// # Errors
    /// The text to print: help, or the fault.
    pub fn parse(given: &[String]) -> Result<Args, String> {
        let mut args = Args {
            peers: 20,
            threads: 2,
            size: 256,
            time: Duration::from_secs(5),
            pause: Duration::from_millis(20),
            stream: false,
            faults: false,
            idle: Duration::ZERO,
            outage: Duration::ZERO,
            plaintext: false,
            child: false,
        };
        let mut given = given.iter();
        while let Some(flag) = given.next() {
            let mut number = || -> Result<usize, String> {
                let value = given.next().ok_or(format!("{flag}: expected a number behind it"))?;
                value.parse().map_err(|_| format!("{flag}: expected a whole number, got {value:?}"))
            };
            match flag.as_str() {
                "--peers" => args.peers = number()?,
                "--threads" => args.threads = number()?,
                "--size" => args.size = number()?,
                "--seconds" => args.time = Duration::from_secs(number()? as u64),
                "--pause" => args.pause = Duration::from_millis(number()? as u64),
                "--idle" => args.idle = Duration::from_secs(number()? as u64),
                "--outage" => args.outage = Duration::from_secs(number()? as u64),
                "--stream" => args.stream = true,
                "--faults" => args.faults = true,
                "--plaintext" => args.plaintext = true,
                "--child" => args.child = true,
                "--help" | "-h" => return Err(HELP.into()),
                _ => return Err(format!("unknown flag {flag:?}\n{HELP}")),
            }
        }
        if !(1..=4000).contains(&args.peers) || args.size < 24 {
            return Err(format!(
                "--peers: 1 to 4000, --size: 24 or more; got {} and {}",
                args.peers, args.size
            ));
        }
        Ok(args)
    }

    pub fn for_child(&self) -> Vec<String> {
        let mut flags = vec!["--child".into(), "--peers".into(), self.peers.to_string()];
        flags.extend(self.plaintext.then(|| "--plaintext".into()));
        flags
    }

    pub fn configure(&self, config: &mut Config) {
        if self.plaintext {
            config.encryption = Encryption::Plaintext;
        }
        config.max_connections = config.max_connections.max(2 * self.peers);
        // All peers come from one address.
        config.admission.exempt = ["127.0.0.0/8"].iter().filter_map(|network| network.parse().ok()).collect();
    }
}
