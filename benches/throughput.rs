//! One way, as fast as it goes: two nodes over loopback, and beside each size a pair of plain sockets
//! with large batched writes. The ratio of the two is what counts: absolute figures drift by a third
//! from run to run on a virtual machine. Encrypted as by default, and in plaintext. Messages per second are
//! criterion's `elem/s`.

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
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Receiver, bounded};
use unbroken::{BULK, Encryption, LaneId, NORMAL};

/// The bytes of one round: enough to make its beginning and end small.
const CASES: [(&str, LaneId, usize, u64); 3] =
    [("64B", NORMAL, 64, 100_000), ("1KiB", NORMAL, 1024, 50_000), ("256KiB", BULK, 256 * 1024, 400)];

fn throughput(criterion: &mut Criterion) {
    for (name, lane, size, count) in CASES {
        let mut group = criterion.benchmark_group(format!("throughput/{name}"));
        group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(count));
        for (name, encryption) in common::MODES {
            unbroken(&mut group, name, encryption, lane, size, count);
        }
        raw(&mut group, size, count);
        group.finish();
    }
}

/// From the first send until the receiving application has taken the last message.
fn unbroken(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    encryption: Encryption,
    lane: LaneId,
    size: usize,
    count: u64,
) {
    let nodes = common::nodes(encryption);
    let receiver = nodes.b.lane_receiver(lane).unwrap();
    let (done, all_taken) = bounded(1);
    common::spawn("receiver", move || {
        let mut taken = 0;
        while let Ok(messages) = receiver.recv_batch(1024) {
            assert!(messages.iter().all(|message| message.len() == size));
            taken += messages.len() as u64;
            if taken == count {
                taken = 0;
                let _ = done.send(());
            }
        }
    });
    let body = Bytes::from(vec![7; size]);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            for _ in 0..count {
                nodes.a.send(nodes.b_id, (lane, body.clone())).unwrap();
            }
            all_taken.recv().unwrap();
        });
    });
}

/// The limit of the machine: writes of at least 64 KiB, reads of 64 KiB, nothing done per message.
fn raw(group: &mut BenchmarkGroup<'_, WallTime>, size: usize, count: u64) {
    let (mut a, b) = common::sockets();
    let all_read = raw_reader(b, size as u64 * count);
    let per_write = (64 * 1024 / size).max(1);
    let batch = vec![7; per_write * size];
    group.bench_function("raw", |bencher| {
        bencher.iter(|| {
            let mut left = size * count as usize;
            while left > 0 {
                let write = left.min(batch.len());
                a.write_all(&batch[..write]).unwrap();
                left -= write;
            }
            all_read.recv().unwrap();
        });
    });
}

fn raw_reader(mut socket: std::net::TcpStream, total: u64) -> Receiver<()> {
    let (done, all_read) = bounded(1);
    common::spawn("raw reader", move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut read = 0;
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            read += count as u64;
            if read == total {
                read = 0;
                let _ = done.send(());
            }
        }
    });
    all_read
}

criterion_group!(benches, throughput);
criterion_main!(benches);
