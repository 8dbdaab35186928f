//! There and back with 64 B, one at a time: a request and its reply, a vote and its receipt, and beside
//! them a ping-pong over plain sockets. Encrypted as by default, and in plaintext. Most of each is the cost
//! of waking sleeping threads.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run shall say so and stop"
)]
#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make undocumented functions")]

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use unbroken::{Encryption, Event, NORMAL, Outcome, URGENT};

const SIZE: usize = 64;

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip/64B");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));

    for (mode, encryption) in common::MODES {
        both_ways(&mut group, mode, encryption);
    }

    let (mut a, mut b) = common::sockets();
    common::spawn("raw echo", move || {
        let mut buffer = [0; SIZE];
        while b.read_exact(&mut buffer).is_ok() && b.write_all(&buffer).is_ok() {}
    });
    let mut buffer = [7; SIZE];
    group.bench_function("raw", |bencher| {
        bencher.iter(|| {
            a.write_all(&buffer).unwrap();
            a.read_exact(&mut buffer).unwrap();
        });
    });
    group.finish();
}

fn both_ways(group: &mut BenchmarkGroup<'_, WallTime>, mode: &str, encryption: Encryption) {
    let nodes = common::nodes(encryption);
    let server = nodes.b.clone();
    common::spawn("server", move || {
        while let Ok(event) = server.recv() {
            if let Event::Message(mut message) = event
                && message.is_request()
            {
                let reply = message.payload().clone().into_bytes();
                message.reply(reply).unwrap();
            }
        }
    });
    let body = Bytes::from(vec![7; SIZE]);
    group.bench_function(format!("{mode}/request_and_reply"), |bencher| {
        bencher.iter(|| nodes.a.request(nodes.b_id, (NORMAL, body.clone())).unwrap().wait().unwrap());
    });
    group.bench_function(format!("{mode}/vote_and_receipt"), |bencher| {
        bencher.iter(|| {
            let receipt = nodes.a.send(nodes.b_id, (URGENT, body.clone())).unwrap();
            assert_eq!(receipt.wait(), Outcome::Taken);
        });
    });
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
