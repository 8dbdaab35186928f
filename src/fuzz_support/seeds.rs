//! The seeds in `tests/fuzz/corpus`: every one is run with the ordinary tests, and those that can be made
//! from the encoders are made here. The others were found by the fuzzer.

use std::fs;
use std::path::PathBuf;

use super::script::Script;
use crate::config::{Config, PeerConfig};
use crate::id::{Identity, Incarnation};
use crate::lane::LaneId;
use crate::wire::control::{
    Ack, Cancel, Goaway, GoawayReason, Hello, HelloLane, LaneAck, Refused, StaleRange, encode_ping,
    encode_pong,
};
use crate::wire::header::encode_chunk_head;
use crate::wire::preface::{Claim, Mode, NetworkName, Preface, Versions};
use crate::wire::proxy_header::SIGNATURE;
use crate::wire::refused::RefusedReason;

fn fuzz_config(text: &[u8]) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    if let Ok(config) = toml::from_str::<Config>(text) {
        super::config(&config);
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&written).unwrap(), config, "{written}");
    }
}

type Target = fn(&[u8]);
const TARGETS: [(&str, Target); 7] = [
    ("frames", super::frames),
    ("records", super::records),
    ("handshake", super::handshake),
    ("proxy_header", super::proxy_header),
    ("link", super::link),
    ("pair", super::pair),
    ("config", fuzz_config),
];

fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fuzz/corpus", target].iter().collect()
}

#[test]
fn every_seed_holds() {
    if !corpus("").exists() {
        return; // The published package has no corpus: it is part of another crate.
    }
    for (name, target) in TARGETS {
        let mut seeds = 0;
        for entry in fs::read_dir(corpus(name)).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("{}", path.display());
            target(&fs::read(&path).unwrap());
            seeds += 1;
        }
        assert!(seeds > 3, "{name} has {seeds} seeds");
    }
}

#[test]
fn a_script_that_is_over_says_nothing_but_zero() {
    let mut script = Script::new(&[3, 1]);
    assert_eq!((script.byte(), script.word(), script.number()), (3, 1, 0));
    assert!(script.is_over());
    assert_eq!((script.below(0), script.below(5), script.near(7)), (None, Some(0), 7_u64.wrapping_sub(64)));
}

fn hello() -> Hello {
    let state = LaneAck { received: 10, taken: 5, limit: 1 << 20 };
    let lane = |lane| HelloLane { lane: LaneId(lane), max_message: 1 << 20, max_untaken: 100, state };
    let lanes = (0..3).map(lane).collect();
    Hello {
        session_id: 7,
        peer_session_id: Some(8),
        token: 9,
        slot: 1,
        replaces: Some(6),
        lanes,
        name: "seed".into(),
        features: 1,
        ack_delay_ms: Some(25),
        repeats: Some(3),
        port: Some(4000),
        stale: vec![StaleRange { lane: LaneId(2), from: 1, to: 5 }],
    }
}

fn refused() -> Refused {
    Refused { reason: RefusedReason::Banned, text: "seed".into(), wait_secs: Some(60) }
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let state = LaneAck { received: 100, taken: 50, limit: 4096 };
    let lanes = vec![(LaneId(0), state), (LaneId(2), state)];
    let stale = vec![StaleRange { lane: LaneId(0), from: 10, to: 50 }];
    let frame = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    let chunk = |len: usize| {
        frame(&|out| {
            out.extend_from_slice(&encode_chunk_head(LaneId(1), 1, 77, len));
            out.resize(out.len() + len, 5);
        })
    };
    vec![
        ("hello", frame(&|out| hello().encode(out).unwrap())),
        (
            "ack",
            frame(&|out| {
                Ack { lanes: lanes.clone(), stale: stale.clone(), settled: vec![(LaneId(1), 9)] }
                    .encode(out)
                    .unwrap()
            }),
        ),
        ("ping", frame(&|out| encode_ping(1, 0, out))),
        ("ping_padded", frame(&|out| encode_ping(1, 1460, out))),
        ("pong", frame(&|out| encode_pong(u64::MAX, 0, Some(1), out))),
        (
            "goaway",
            frame(&|out| {
                Goaway { reason: GoawayReason::Retired, lanes: lanes.clone(), stale: stale.clone() }
                    .encode(out)
                    .unwrap()
            }),
        ),
        ("cancel", frame(&|out| Cancel { request: 3 }.encode(out).unwrap())),
        ("refused", frame(&|out| refused().encode(out).unwrap())),
        // An entry, a field and a reason of later versions.
        (
            "later-ack",
            vec![3, 34, 0, 0, 1, 26].into_iter().chain([0; 26]).chain([9, 3, 0, 1, 2, 3]).collect(),
        ),
        ("later-goaway", vec![6, 3, 0, 0, 200, 0, 25]),
        ("hint", vec![200, 3, 0, 0, 1, 2, 3]),
        ("chunk", chunk(100)),
        ("large-chunk", chunk(9000)),
    ]
}

/// Writes what the encoders give: `cargo test write_the_seeds -- --ignored`.
#[test]
#[ignore = "writes into the checkout"]
fn write_the_seeds() {
    let write = |target: &str, name: &str, parts: &[&[u8]]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), parts.concat()).unwrap();
    };
    // One byte for the cuts, one that says that the bytes are as they are.
    let frames = frames();
    for (name, bytes) in &frames {
        write("frames", name, &[&[1, 0], bytes]);
    }
    let all: Vec<u8> = frames
        .iter()
        .filter(|(name, _)| *name != "large-chunk")
        .flat_map(|(_, bytes)| bytes)
        .copied()
        .collect();
    write("frames", "all", &[&[2, 0], &all]);
    // Chunks that do not fit the first buffer, and small frames between them.
    let many: Vec<u8> = (0..20).flat_map(|n| [2, n, 0, 184, 11, 0, 128, 1, n, 0, 0, 0, 0, 0, 0, 0]).collect();
    write("frames", "many", &[&[4, 1], &many]);
    write("frames", "long", &[&[3, 1, 2, 1, 1, 255, 255, 192, 200, 1, 3, 0, 0, 40, 0, 0]]);

    let preface = |mode, network| {
        Preface { versions: Versions::OURS, mode, network: NetworkName::new(network).unwrap() }.encode()
    };
    let claim = Claim { peer: Identity::from_bytes([2; 32]).peer_id(), incarnation: Incarnation(1) }.encode();
    let hello = &frames.iter().find(|(name, _)| *name == "hello").unwrap().1;
    let refused = &frames.iter().find(|(name, _)| *name == "refused").unwrap().1;
    for (dialled, name) in [(0, "listener"), (1, "dialer")] {
        let plain = preface(Mode::Plaintext, "fuzz");
        write("handshake", &format!("plaintext-{name}"), &[&[dialled, 0, 0, 1], &plain, &claim, hello]);
        write("handshake", &format!("refused-{name}"), &[&[dialled, 0, 0, 1], &plain, &claim, refused]);
        write("handshake", &format!("other-mode-{name}"), &[&[dialled, 1, 0, 1], &plain, &claim]);
        let noise = preface(Mode::Noise, "fuzz");
        write("handshake", &format!("noise-{name}"), &[&[dialled, 1, 0, 1], &noise, &[9; 112]]);
        let elsewhere = preface(Mode::Noise, "elsewhere");
        write("handshake", &format!("other-network-{name}"), &[&[dialled, 1, 0, 1], &elsewhere, &[9; 112]]);
        for mode in [0, 1] {
            write("handshake", &format!("honest-{mode}-{name}"), &[&[dialled, mode, 1, 0, 0, 0]]);
            write("handshake", &format!("unexpected-{mode}-{name}"), &[&[dialled, mode, 2, 0, 0, 0]]);
            write(
                "handshake",
                &format!("changed-{mode}-{name}"),
                &[&[dialled, mode, 0, 0, 1, 60, 0, 128, 0]],
            );
            write("handshake", &format!("cut-{mode}-{name}"), &[&[dialled, mode, 0, 0, 0, 1, 100, 0]]);
        }
    }

    // One byte for the cuts.
    let proxied = |name: &str, command: u8, family: u8, rest: &[u8]| {
        let fixed = [command, family, 0, rest.len() as u8];
        write("proxy_header", name, &[&[1], &SIGNATURE, &fixed, rest, b"unbroken"]);
    };
    let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 220, 4, 15, 160];
    proxied("ipv4", 0x21, 0x11, &v4);
    proxied("ipv4-with-tlv", 0x21, 0x11, &[&v4[..], &[4, 0, 4, 0, 0, 0, 0]].concat());
    proxied("ipv6", 0x21, 0x21, &[&[0x20, 1, 0xd, 0xb8], &[1; 32][..]].concat());
    proxied("mapped", 0x21, 0x21, &[&[0; 10][..], &[0xff; 2], &[1; 24]].concat());
    proxied("unix", 0x21, 0x31, &[b'a'; 216]);
    proxied("local", 0x20, 0, &[]);
    proxied("reserved", 0x21, 0x41, &v4);
    write("proxy_header", "text", &[&[1], b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 4000\r\n"]);
    write("proxy_header", "long", &[&[1], &SIGNATURE, &[0x21, 0x11, 2, 9], &[1; 600]]);

    // Lives of a peer one after the other: the connection ends, another one joins, the link grants credit,
    // and empty messages come that nobody takes. See `Liar::step` for the numbers.
    let life = |incarnation: u8, messages: u8| {
        let terms = [255, 160, 255, 160, 255, 160];
        let joins = [&[128, 0, 0, 68, 4 | incarnation, 0, incarnation << 3], &terms[..], &[0; 11]].concat();
        let content = [100, 0, 0].repeat(usize::from(messages));
        [joins, vec![88, 0, 132, 6 | (messages - 1) << 3], content, vec![0]].concat()
    };
    // The first one has no connection before it that could end.
    let lives: Vec<u8> = (0..24).flat_map(|n| life(n % 4, 3)).skip(3).collect();
    write("link", "many-lives", &[&[1, 0], &lives]);
    write("link", "too-many-untaken", &[&[1, 0], life(0, 7).get(3..).unwrap()]);

    // Two writes, 300 bytes and 40,000, and what is done to their records.
    let writes = [0, 0, 0, 1, 44, 1, 0, 64, 156, 0];
    for (kind, name) in ["flipped", "truncated", "cut", "repeated", "replaced", "left-out"].iter().enumerate()
    {
        write("records", name, &[&writes, &[kind as u8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 2, 9]]);
    }
    write("records", "whole", &[&writes]);
    write("records", "new-key", &[&[0, 0, 1, 1, 44, 1, 0, 64, 156, 0]]);
    write("records", "forged", &[&[0, 1, 40, 0], &[1; 60]]);
    write("records", "short", &[&[0, 1, 16, 0], &[1; 16]]);

    let text = toml::to_string(&Config::default()).unwrap();
    write("config", "default", &[text.as_bytes()]);
    let mut config = Config { listen: vec!["[::]:7000".parse().unwrap()], ..Config::default() };
    config.peers.push(PeerConfig { path: Some(config.path.clone()), ..PeerConfig::new("a:1") });
    write("config", "peer", &[toml::to_string(&config).unwrap().as_bytes()]);
    write("config", "far", &[b"ack_delay = '500000000000years'"]);
    write("config", "lane", &[b"[[lanes]]\nid = 9\npriority = { weighted = 3 }\nmax_message = 1\nslot = 3"]);
    write("config", "admission", &[b"[admission]\nmax_inbound = 0\n[conduct]\nhalf_life = '1s'"]);
    let human = b"listen = '[::]:1'\npeers = ['a:1', { address = 'b:1', alternatives = 'c:1' }]\nmax_queued = '2GiB'\n\
        [admission]\nallow_addresses = '10.0.0.1'\n[path]\nmax_chunk = '64 KiB'";
    write("config", "human", &[human]);
    let lanes = b"lanes = [{ id = 2, remove = true }, { id = 9, priority = 'urgent', max_message = '64kB' }, { id = 0 }]";
    write("config", "lanes", &[lanes]);
}
