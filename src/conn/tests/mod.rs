//! The handshake and the records, byte by byte, and threads that write. The other side is often `snow` with
//! its own ciphers.

mod handshake;
mod records;
mod writing;

use snow::TransportState;

use super::noise::{FIRST, Keys, Noise, SECOND, SECOND_PAYLOAD, THIRD};
use super::record::Key;
use crate::id::Identity;

const PROLOGUE: &[u8] = b"the same for both";

fn identity(seed: u8) -> Identity {
    Identity::from_bytes([seed; 32])
}

/// `snow` as it comes.
fn stock(seed: u8, dialled: bool) -> snow::HandshakeState {
    let secret = [seed; 32];
    let builder = snow::Builder::new("Noise_XX_25519_AESGCM_SHA256".parse().unwrap());
    let builder = builder.local_private_key(&secret).unwrap().prologue(PROLOGUE).unwrap();
    if dialled { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
}

/// The keys of a connection whose other side is `snow` as it comes.
fn keys_and_stock() -> (Keys, TransportState) {
    let mut ours = Noise::new(&identity(1), PROLOGUE, true).unwrap();
    let mut theirs = stock(2, false);
    let mut buffer = [0; 256];
    theirs.read_message(&ours.write::<FIRST>(&[]).unwrap(), &mut buffer).unwrap();
    let len = theirs.write_message(&[7; SECOND_PAYLOAD], &mut buffer).unwrap();
    assert_eq!(len, SECOND);
    let (peer, payload) = ours.read_name(&buffer[..len]).unwrap();
    assert_eq!((peer, payload), (identity(2).peer_id(), [7; SECOND_PAYLOAD]));
    let third = ours.write::<THIRD>(&8u64.to_le_bytes()).unwrap();
    let len = theirs.read_message(&third, &mut buffer).unwrap();
    assert_eq!(buffer[..len], 8u64.to_le_bytes());
    assert_eq!(theirs.get_remote_static(), Some(identity(1).peer_id().as_bytes().as_slice()));
    (ours.finish().unwrap(), theirs.into_transport_mode().unwrap())
}

fn key(seed: u8) -> Option<Key> {
    Key::new(&[seed; 32])
}
