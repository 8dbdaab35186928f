//! Plain TCP in the place of a node, for comparison: one connection, a priority queue, chunks of a given
//! size, and TCP_NOTSENT_LOWAT of the same size. Speaks to the parent as [`crate::agent`] does.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::agent::{Job, Senders, micros};
use crate::net::{B, PORT};
use unbroken_test_support::numbered;

/// Lane, whether the chunk ends its message, and its length.
const HEAD: usize = 6;

/// The messages of a lane, and how much of the first one was sent.
type Queue = (VecDeque<Vec<u8>>, usize);

#[derive(Default)]
struct Queues {
    /// By lane: the lowest goes first.
    lanes: Mutex<BTreeMap<u8, Queue>>,
    changed: Condvar,
}

/// `dials`: this is a.
pub(crate) fn run(chunk: usize, dials: bool) {
    println!("\n@up");
    let stream = if dials {
        TcpStream::connect((B, PORT)).expect("a connection")
    } else {
        TcpListener::bind(("0.0.0.0", PORT)).expect("a listener").accept().expect("a connection").0
    };
    println!("@event {} LinkUp", micros());
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_notsent_lowat(chunk as u32).expect("TCP_NOTSENT_LOWAT");
    let queues = Arc::new(Queues::default());
    let (reader, writer) = (stream.try_clone().expect("a clone"), stream.try_clone().expect("a clone"));
    let its_queues = Arc::clone(&queues);
    thread::spawn(move || read(reader));
    thread::spawn(move || write(writer, &its_queues, chunk));
    let mut senders = Senders::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match line.split(' ').next() {
            Some("send") => {
                let queues = Arc::clone(&queues);
                senders.start(Job::parse(&line), move |lane, body| {
                    queues.lanes.lock().entry(lane.0).or_default().0.push_back(body.to_vec());
                    queues.changed.notify_all();
                    Ok(())
                });
            }
            Some("hold") => senders.hold(),
            _ => println!("@figures {}", serde_json::to_string(&crate::agent::Figures::default()).unwrap()),
        }
    }
    std::process::exit(0);
}

fn write(mut stream: TcpStream, queues: &Queues, chunk: usize) {
    loop {
        let mut lanes = queues.lanes.lock();
        let next = lanes.iter_mut().find(|(_, (queue, _))| !queue.is_empty());
        let Some((lane, (queue, sent))) = next else {
            queues.changed.wait_for(&mut lanes, Duration::from_secs(1));
            continue;
        };
        let message = &queue[0];
        let piece = &message[*sent..message.len().min(*sent + chunk)];
        let ends = *sent + piece.len() == message.len();
        let mut frame = vec![*lane, u8::from(ends)];
        frame.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        frame.extend_from_slice(piece);
        *sent += piece.len();
        if ends {
            queue.pop_front();
            *sent = 0;
        }
        drop(lanes);
        if stream.write_all(&frame).is_err() {
            return;
        }
    }
}

fn read(mut stream: TcpStream) {
    let mut messages: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut head = [0; HEAD];
    while stream.read_exact(&mut head).is_ok() {
        let [lane, ends, length @ ..] = head;
        let mut piece = vec![0; u32::from_le_bytes(length) as usize];
        if stream.read_exact(&mut piece).is_err() {
            return;
        }
        messages.entry(lane).or_default().extend_from_slice(&piece);
        if ends == 1 {
            match numbered::read(&messages.remove(&lane).unwrap_or_default()) {
                Ok((stream, seq)) => println!("@took {lane} {stream} {seq} {}", micros()),
                Err(error) => println!("@error {error}"),
            }
        }
    }
}
