//! The handshake vector of the page on the protocol: computed here by another implementation of Noise than
//! the library's own code, and compared with what the page says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: it fails by panicking")]

use snow::{Builder, HandshakeState};

const PAGE: &str = include_str!("../src/manual/protocol.rs");

/// 32 bytes that count up from `first`.
fn secret(first: u8) -> [u8; 32] {
    std::array::from_fn(|n| first + n as u8)
}

fn preface() -> Vec<u8> {
    let mut preface = b"unbroken\x01\x01\x01\x00testnet".to_vec();
    preface.resize(44, 0);
    preface
}

fn side(own: [u8; 32], ephemeral: [u8; 32], prologue: &[u8], dialer: bool) -> HandshakeState {
    let builder = Builder::new("Noise_XX_25519_AESGCM_SHA256".parse().unwrap());
    let builder = builder.prologue(prologue).unwrap().local_private_key(&own).unwrap();
    let builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral);
    if dialer { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
}

/// Writes a message on one side and reads it on the other.
fn pass(from: &mut HandshakeState, to: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let (mut message, mut read) = ([0; 256], [0; 256]);
    let len = from.write_message(payload, &mut message).unwrap();
    let read_len = to.read_message(&message[..len], &mut read).unwrap();
    assert_eq!(&read[..read_len], payload);
    message[..len].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_page_has_the_bytes_of_this_handshake() {
    let (dialers, listeners) = (secret(0x00), secret(0x20));
    let prologue = preface();
    let mut dialer = side(dialers, secret(0x40), &prologue, true);
    let mut listener = side(listeners, secret(0x60), &prologue, false);
    let first = pass(&mut dialer, &mut listener, &[]);
    let second = pass(&mut listener, &mut dialer, &[1, 2, 3, 4, 5, 6, 7, 8, 1, 1]);
    let third = pass(&mut dialer, &mut listener, &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    let peers =
        [listener.get_remote_static().unwrap().to_vec(), dialer.get_remote_static().unwrap().to_vec()];
    let hash = dialer.get_handshake_hash().to_vec();
    let (dialer, listener) =
        (dialer.into_stateless_transport_mode().unwrap(), listener.into_stateless_transport_mode().unwrap());
    let ping = [4, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let record = |side: &snow::StatelessTransportState, number| {
        let mut sealed = [0; 64];
        let len = side.write_message(number, &ping, &mut sealed).unwrap();
        [&(len as u16).to_le_bytes()[..], &sealed[..len]].concat()
    };
    let expected = [
        ("dialer's PeerId", peers[0].clone()),
        ("listener's PeerId", peers[1].clone()),
        ("preface, both", prologue),
        ("Noise message 1", first),
        ("Noise message 2", second),
        ("Noise message 3", third),
        ("handshake hash", hash),
        ("dialer's record 0", record(&dialer, 0)),
        ("dialer's record 1", record(&dialer, 1)),
        ("listener's record 0", record(&listener, 0)),
    ];
    let page: String = PAGE.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
    let lacking: Vec<_> = expected.iter().filter(|(_, bytes)| !page.contains(&hex(bytes))).collect();
    let lines = lacking.iter().map(|(what, bytes)| format!("{what:20} {}\n", hex(bytes)));
    assert!(lacking.is_empty(), "the page lacks:\n{}", lines.collect::<String>());
}
