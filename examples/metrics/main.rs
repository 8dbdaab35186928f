//! A node whose figures Prometheus can fetch: `cargo run --example metrics --features metrics --
//! 127.0.0.1:9100`. Without an address the example fetches them once by itself and prints them.
//! `grafana.json` beside this file is a dashboard for them.
//!
//! The server is a thread with a blocking listener, like everything else here: it reads one request line, and
//! answers with the text format of Prometheus.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{env, io, thread};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use unbroken::crossbeam_channel::tick;
use unbroken::metrics::Reporter;
use unbroken::{Node, Outcome, URGENT};

/// A client that takes longer to ask, or to read the answer, is cut off.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = PrometheusBuilder::new().install_recorder()?;

    // The other side of this example.
    let other = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = other.local_addrs().first().ok_or("nobody listens")?.to_string();
    let node = Node::builder().peer(address).start()?;
    node.wait_linked(other.id(), Duration::from_secs(10))?;

    let argument = env::args().nth(1);
    let listener = TcpListener::bind(argument.as_deref().unwrap_or("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    println!("the figures are at http://{address}/metrics");
    let figures = node.clone();
    thread::Builder::new().name("metrics".into()).spawn(move || serve(&listener, &figures, &recorder))?;

    let votes = other.lane_receiver(URGENT).ok_or("no urgent lane")?;
    let rounds = tick(Duration::from_millis(100));
    loop {
        let receipt = node.send(other.id(), (URGENT, "a vote"))?;
        let vote = votes.recv()?;
        if receipt.wait() != Outcome::Taken {
            return Err(format!("{vote:?} was not taken").into());
        }
        if argument.is_none() {
            let mut client = TcpStream::connect(address)?;
            write!(client, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
            let mut answer = String::new();
            client.read_to_string(&mut answer)?;
            println!("{answer}");
            return Ok(());
        }
        rounds.recv()?;
    }
}

/// Answers one request after the other: there is one Prometheus.
fn serve(listener: &TcpListener, node: &Node, recorder: &PrometheusHandle) {
    let mut reporter = Reporter::new();
    for client in listener.incoming() {
        let answered = client.and_then(|client| {
            reporter.report(&node.snapshot());
            answer(client, &recorder.render())
        });
        if let Err(error) = answered {
            eprintln!("a request for the figures failed: {error}");
        }
    }
}

fn answer(mut client: TcpStream, figures: &str) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(Read::take(&client, 8 * 1024)).lines();
    let first = request.next().transpose()?.unwrap_or_default();
    // Bytes that are not read when the connection is closed would reset it.
    request.by_ref().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let (status, body) = match first.split(' ').collect::<Vec<_>>()[..] {
        ["GET", "/metrics", _] => ("200 OK", figures),
        _ => ("404 Not Found", "GET /metrics has the figures\n"),
    };
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
