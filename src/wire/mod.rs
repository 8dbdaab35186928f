//! The bytes on the wire, completely: from this page a second implementation can be written.
//!
//! All integers are little-endian. A connection is one TCP stream in each direction:
//!
//! ```text
//! preface (84 bytes) | frame | frame | frame ...
//! ```
//!
//! # Preface
//! The dialer sends its preface first; the listener answers with its own only after it has read and
//! accepted the dialer's, and so never answers a stranger with more bytes than it was sent.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | the ASCII letters `unbroken` |
//! | 8..10 | version | `u16`, now 1 |
//! | 10..12 | mode | `u16`: 0 plaintext; other values are reserved for encryption |
//! | 12..44 | network | the network's name in UTF-8, filled up with zero bytes |
//! | 44..76 | peer | the sender's `PeerId` (X25519 public key) |
//! | 76..84 | incarnation | `u64`, drawn at random when the sender's process started |
//!
//! Version, mode and network must be equal on both sides, or the connection ends.
//!
//! # Frames
//! After its preface each side sends frames. The first is a HELLO, and there is only one.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | kind |
//! | 1..4 | `u24`: length of the body in bytes |
//! | 4.. | body |
//!
//! | kind | frame | greatest body |
//! |---|---|---|
//! | 1 | HELLO | 8 KiB |
//! | 2 | CHUNK | 1 MiB + 10 |
//! | 3 | ACK | 16 KiB |
//! | 4 | PING | 8 |
//! | 5 | PONG | 8 |
//! | 6 | GOAWAY | 1 KiB |
//! | 7 | CANCEL | 16 |
//!
//! A body longer than that ends the connection before anything is read or reserved for it. A kind
//! from 128 to 255 that the receiver does not know is skipped and counted (so that later versions can
//! add hints); its greatest body is 1 KiB. Any other unknown kind is a protocol error.
//!
//! The bodies of the control frames (all but CHUNK) are structs in the format of [`crate::codec`];
//! their fields, in order, are those of the structs in `wire::control`.
//!
//! # CHUNK: a piece of a lane's stream
//!
//! | bytes of the body | field | meaning |
//! |---|---|---|
//! | 0 | lane | `u8` |
//! | 1 | flags | bit 0: ACK_NOW, somebody waits for a receipt in this chunk; other bits are zero |
//! | 2..10 | offset | `u64`: where in the lane's stream this piece begins |
//! | 10.. | data | 1 byte to 1 MiB of the stream |
//!
//! # The stream of a lane
//! A lane's stream is the concatenation of its messages, each with a header before it. Chunks cut the
//! stream anywhere, so one chunk may hold many small messages, or a piece of a large one.
//!
//! | bytes | field | present in |
//! |---|---|---|
//! | 0..4 | `u32`: kind in the upper 4 bits, length of the payload in the lower 28 | every message |
//! | 4..12 | request id, `u64` | request, reply |
//! | 12..16 | time the requester will wait, `u32` milliseconds | request |
//! | then | payload | every message |
//!
//! Kinds: 0 message, 1 request, 2 reply. Offsets count every byte of the stream, headers included,
//! from 0 at the start of a session ([`crate::link`]).
//!
//! # Rules for both sides
//! - On one connection the chunks of a lane are contiguous: each begins where the one before it ended,
//!   or, when the peer's ACK shows that it has more already, further on, but never past what the peer
//!   has acknowledged. A chunk that begins past what the receiver has is a protocol error; what it has
//!   already, it drops.
//! - No chunk reaches past the limit that the receiver gave for that lane, and no more messages are
//!   begun than the receiver's `max_untaken`.
//! - A connection carries frames only for the session that its two HELLOs agreed on.
//! - After GOAWAY its sender sends no further CHUNK on that connection, and then half-closes it.

pub(crate) mod batch;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod preface;
pub(crate) mod reader;
pub(crate) mod stream;

#[cfg(test)]
mod tests;
