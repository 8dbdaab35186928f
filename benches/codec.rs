//! Frames to bytes and back: chunks full of messages, each with an acknowledgement behind it.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use unbroken::bench_support::{Encoder, decode};

const CHUNK: usize = 16 * 1024;

fn codec(criterion: &mut Criterion) {
    for (name, size) in [("64B", 64), ("1KiB", 1024), ("256KiB", 256 * 1024)] {
        let mut encoder = Encoder::new(size, CHUNK);
        encoder.encode();
        let bytes = encoder.bytes();
        let mut group = criterion.benchmark_group(format!("codec/{name}"));
        group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(encoder.per_round() as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| black_box(encoder.encode())));
        group.bench_function("decode", |bencher| bencher.iter(|| decode(black_box(&bytes))));
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
