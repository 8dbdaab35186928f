//! The ciphers, alone on one core: what one record of 64 B, 1 KiB and 64 KiB costs to seal and to open. What
//! records use first, then what else there is. `ring` works in place; the pure Rust ciphers are those of
//! `snow`, which copy.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run shall say so and stop")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use snow::params::CipherChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};

const TAG: usize = 16;

fn cipher(criterion: &mut Criterion) {
    for (name, size) in [("64B", 64), ("1KiB", 1024), ("64KiB", 65_535 - TAG)] {
        let mut group = criterion.benchmark_group(format!("cipher/{name}"));
        group.sample_size(10).measurement_time(Duration::from_secs(1));
        group.warm_up_time(Duration::from_millis(300)).throughput(Throughput::Bytes(size as u64));
        in_place(&mut group, "ring AES-256-GCM", &AES_256_GCM, size);
        in_place(&mut group, "ring ChaCha20-Poly1305", &CHACHA20_POLY1305, size);
        copying(&mut group, "Rust AES-256-GCM", &CipherChoice::AESGCM, size);
        copying(&mut group, "Rust ChaCha20-Poly1305", &CipherChoice::ChaChaPoly, size);
        group.finish();
    }
}

fn in_place(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, cipher: &'static Algorithm, size: usize) {
    let key = LessSafeKey::new(UnboundKey::new(cipher, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut text = vec![1; size];
    group.bench_function(format!("{name}/seal"), |bencher| {
        bencher.iter(|| key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut text).unwrap());
    });
    let mut sealed = vec![1; size];
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut opened = sealed.clone();
    group.bench_function(format!("{name}/open"), |bencher| {
        bencher.iter(|| {
            opened.copy_from_slice(&sealed);
            key.open_in_place(nonce(), Aad::empty(), &mut opened).unwrap().len()
        });
    });
}

fn copying(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, cipher: &CipherChoice, size: usize) {
    let mut cipher = DefaultResolver.resolve_cipher(cipher).unwrap();
    cipher.set(&[7; 32]);
    let text = vec![1; size];
    let mut sealed = vec![0; size + TAG];
    group.bench_function(format!("{name}/seal"), |bencher| {
        bencher.iter(|| cipher.encrypt(0, &[], &text, &mut sealed));
    });
    let mut opened = vec![0; size];
    group.bench_function(format!("{name}/open"), |bencher| {
        bencher.iter(|| cipher.decrypt(0, &[], &sealed, &mut opened).unwrap());
    });
}

criterion_group!(benches, cipher);
criterion_main!(benches);
