//! Two link cores in memory, bytes on the wire included: what the protocol costs without the system.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use unbroken::bench_support::Pair;
use unbroken::{BULK, LaneId, NORMAL};

/// `chunk_16KiB`: a message fills a chunk, so messages per second are chunks per second.
const CASES: [(&str, LaneId, usize, u64); 3] = [
    ("64B", NORMAL, 64, 20_000),
    ("chunk_16KiB", BULK, 16 * 1024 - 4, 2_000),
    ("256KiB", BULK, 256 * 1024, 200),
];

fn link_core(criterion: &mut Criterion) {
    for (name, lane, size, count) in CASES {
        let mut pair = Pair::new();
        let body = Bytes::from(vec![7; size]);
        let mut group = criterion.benchmark_group("link_core");
        group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |bencher| bencher.iter(|| pair.run(lane, &body, count)));
        group.finish();
    }
}

criterion_group!(benches, link_core);
criterion_main!(benches);
