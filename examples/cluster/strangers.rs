//! A crowd that takes what a node gives to anybody: links that grant no credit, messages that never end,
//! visits, and handshakes that stop half-way. Each stranger is a thread that speaks the protocol by hand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use unbroken::BULK;

use unbroken_test_support::raw::{self, CHUNK, PING, PONG, Raw, RawIdentity};

const STRANGERS: u16 = 24;
/// Between two visits of one stranger.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a stranger that waits looks away from the flag that ends it.
const GLANCE: Duration = Duration::from_millis(200);

/// Strangers at work until they are told to leave.
pub(crate) struct Crowd {
    leave: Arc<AtomicBool>,
    visits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// `network`: without its name nobody gets in.
    pub(crate) fn start(target: SocketAddr, network: &str) -> io::Result<Crowd> {
        let mut crowd = Crowd { leave: Arc::default(), visits: Arc::default(), threads: Vec::new() };
        for number in 0..STRANGERS {
            let (leave, visits) = (Arc::clone(&crowd.leave), Arc::clone(&crowd.visits));
            let mut identity = RawIdentity::new(1000 + number, 0);
            identity.network = network.into();
            let thread = thread::Builder::new().name("stranger".into());
            crowd.threads.push(thread.spawn(move || {
                while !leave.load(SeqCst) {
                    // A refusal is what most of them may get.
                    let _refused = visit(target, &identity, number % 4, &leave);
                    visits.fetch_add(1, SeqCst);
                    thread::sleep(PAUSE);
                }
            })?);
        }
        Ok(crowd)
    }

    /// Ends it. Returns how many visits were tried.
    pub(crate) fn leave(self) -> Result<u64, &'static str> {
        self.leave.store(true, SeqCst);
        for thread in self.threads {
            thread.join().map_err(|_| "a stranger panicked")?;
        }
        Ok(self.visits.load(SeqCst))
    }
}

fn visit(target: SocketAddr, identity: &RawIdentity, kind: u16, leave: &AtomicBool) -> io::Result<()> {
    match kind {
        // Comes and goes.
        0 => Raw::dial(target, identity).map(drop),
        // Stops in the middle of the handshake.
        1 => {
            let stream = raw::preface_only(target, identity)?;
            stream.set_read_timeout(Some(GLANCE))?;
            stay(leave, || io::Read::read(&mut &stream, &mut [0; 64]).map(|count| count > 0))
        }
        // Grants no credit, and answers pings.
        2 => {
            let mut raw = Raw::dial(target, identity)?;
            raw.stream.set_read_timeout(Some(GLANCE))?;
            stay(leave, || {
                let (kind, body) = raw.read_frame()?;
                if kind == PING {
                    raw.send(PONG, &body)?;
                }
                Ok(true)
            })
        }
        // Begins a message as long as may be, and goes.
        _ => {
            let mut raw = Raw::dial(target, identity)?;
            let lane = raw.hello.lanes.iter().find(|lane| lane.lane == BULK.0);
            let (most, limit) = lane.map_or((0, 0), |lane| (u64::from(lane.max_message), lane.limit));
            let header = (most as u32).to_le_bytes();
            let (mut offset, mut piece) = (0, [&header[..], &[0; 64 * 1024]].concat());
            while offset < most - piece.len() as u64 && offset + (piece.len() as u64) < limit {
                raw.send(CHUNK, &[&[BULK.0, 0][..], &u64::to_le_bytes(offset), &piece].concat())?;
                offset += piece.len() as u64;
                piece.truncate(64 * 1024);
            }
            Ok(())
        }
    }
}

/// Repeats `turn` until it says no, fails for another reason than its time, or the crowd leaves.
fn stay(leave: &AtomicBool, mut turn: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    while !leave.load(SeqCst) {
        match turn() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
