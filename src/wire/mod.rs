//! The bytes on the wire, completely: from this page a second implementation can be written.
//!
//! All integers are little-endian. A connection is one TCP stream in each direction:
//!
//! ```text
//! encrypted   preface (44 bytes) | Noise messages | record | record | record ...
//! plaintext   preface (44 bytes) | claim (40 bytes) | frame | frame | frame ...
//! ```
//!
//! # Preface
//! The dialer sends its preface first, together with its claim or its first Noise message; the listener
//! answers with its own only after it has read and accepted the dialer's, and so never answers a stranger with
//! more bytes than it was sent.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | the ASCII letters `unbroken` |
//! | 8..10 | version | `u16`, now 1 |
//! | 10..12 | mode | `u16`: 0 plaintext, 1 Noise; others are reserved |
//! | 12..44 | network | the network's name in UTF-8, filled up with zero bytes |
//!
//! Magic, version, mode and network must be equal on both sides, or the connection ends. A listener whose
//! version or mode is another answers with the first 12 bytes of its own preface before it ends the
//! connection, so that the dialer knows why; with a wrong magic or network it answers nothing. A
//! network's name holds no zero byte and has at most 32 bytes.
//!
//! # Noise: who is there, proven
//! In mode 1 the prefaces are followed by the three messages of `Noise_XX_25519_AESGCM_SHA256`
//! (<https://noiseprotocol.org/noise.html>, revision 34; the dialer is the initiator). The prologue is the 44
//! bytes of the preface. Each message has one length only, and no length field:
//!
//! | message | from | bytes | payload |
//! |---|---|---|---|
//! | `e` | dialer, behind its preface | 32 | none |
//! | `e, ee, s, es` | listener, behind its preface | 104 | 8 bytes: its incarnation, `u64` |
//! | `s, se` | dialer | 72 | 8 bytes: its incarnation, `u64` |
//!
//! The incarnation is drawn at random when the process starts. A side's static public key is its `PeerId`. The dialer
//! ends the connection before the third message if the listener is not the one it expects, or is
//! itself. A Diffie-Hellman result that is all zero ends the connection on either side (RFC 7748 section 6.1).
//!
//! # Records: what follows, sealed
//! After the third message each direction is a sequence of records. What is in them, put together, is the
//! sequence of frames; a frame may begin in one record and end in another.
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | `u16`: length of the rest, 17 to 65,535 |
//! | 2.. | the frames' bytes, encrypted, with the tag of 16 bytes behind them |
//!
//! A record is a Noise transport message: AES-256-GCM with no associated data, under the key of its direction, with a
//! nonce of four zero bytes and the number of the record, from 0, as a big-endian `u64`. After
//! each 65,536 records of a direction its key is replaced by REKEY of the specification (section 4.2: the first 32
//! bytes of 32 zero bytes encrypted with nonce 2^64 - 1); the numbers go on. That number itself is never used for a
//! record: a direction that would need it ends. A record that does not open, or whose length is below 17, ends the connection, and
//! nothing behind it counts. So does the end of the stream inside a record. An end between two records may have been made by
//! anybody on the path: only a GOAWAY is the other side's word.
//!
//! A sender may fill records as it likes. This one puts at most 16 KiB into each, for nothing of a record
//! can be used before all of it has arrived.
//!
//! # Claim: who is there, unproven
//! In mode 0 each preface is followed by 40 bytes. Nothing proves them.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..32 | peer | the sender's `PeerId` (X25519 public key) |
//! | 32..40 | incarnation | `u64`, as above |
//!
//! # Frames
//! After its part of the handshake each side sends frames, in mode 1 in records. The first is a HELLO, and there is only one.
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
//! | 6 | GOAWAY | 16 KiB |
//! | 7 | CANCEL | 16 |
//!
//! A body longer than that ends the connection before anything is read or reserved for it. A kind
//! from 128 to 255 that the receiver does not know is skipped and counted (so that later versions can
//! add hints); its greatest body is 1 KiB. Any other unknown kind is a protocol error.
//!
//! The bodies of all frames but CHUNK are structs in the format of [`crate::codec`]. The tables below
//! are that format spelled out: an option is one byte, 0 or 1, and then what is there; an enum is the index of its variant as
//! `u32`; a list or text has its length before it as `u64`, in items or in bytes. A body must be used
//! up exactly: bytes that are missing or left over are a protocol error, and so is an option other than
//! 0 or 1, a variant that does not exist, text that is not UTF-8, and a length past its bound.
//!
//! # HELLO: what a side remembers and what it accepts
//! Each side draws it up once it knows who the other is: its memory depends on who is there.
//!
//! | bytes of the body | field | type | meaning |
//! |---|---|---|---|
//! | 0..8 | memory | `u64` | the sender's memory of this conversation: drawn at random when that began |
//! | 8 | p | `u8` | 1 if a memory follows, 0 if not |
//! | then 0 or 8 | paired | `u64` | the other side's memory that the states below are about; none if the sender knows of none, or if nothing was sent or received in that session yet |
//! | then 8 | token | `u64` | the dialer's name for this connection, drawn at random; the listener says 0 |
//! | then 1 | slot | `u8` | which of the link's connections this is, 0 to 2; the dialer's word counts |
//! | then 1 | r | `u8` | 1 if a token follows, 0 if not |
//! | then 0 or 8 | replaces | `u64` | the token of the connection in whose place the dialer wants this one; the dialer's word counts |
//! | then 8 | n | `u64` | how many lanes follow, at most 64 |
//! | then | lanes | n times 33 bytes | what the sender accepts, lane by lane, in any order |
//! | then 8 | m | `u64` | length of the name in bytes, at most 64 |
//! | then m | name | UTF-8 | the application's name; for logs only |
//!
//! Each lane. A lane that is not in the list is not accepted; one that is there twice counts as it
//! stands first.
//!
//! | bytes | field | type | meaning |
//! |---|---|---|---|
//! | 0 | lane | `u8` | |
//! | 1..5 | max_message | `u32` | the largest payload that is accepted, in bytes |
//! | 5..9 | max_untaken | `u32` | how many messages may be begun that are not taken |
//! | 9..33 | state | | as in ACK; all 0 when the sender has no memory, and the limit may follow in an ACK |
//!
//! # ACK: acknowledgement and credit
//! For the lanes where they changed, by any connection of the link: best by the one on which the lane's chunks
//! arrive, so that its silence means something.
//!
//! | bytes of the body | field | type | meaning |
//! |---|---|---|---|
//! | 0..8 | n | `u64` | how many lanes follow, at most 64 |
//! | 8.. | lanes | n times 25 bytes | see below |
//!
//! | bytes | field | type | meaning |
//! |---|---|---|---|
//! | 0 | lane | `u8` | |
//! | 1..9 | received | `u64` | every byte of the stream up to here is in the receiver's memory |
//! | 9..17 | taken | `u64` | the application has taken everything up to here |
//! | 17..25 | limit | `u64` | the sender may send up to here |
//!
//! Each number only grows within a session, so of two states one is the newer in all three. An older
//! one may arrive late, by another connection, and is ignored. One that is newer in one number and
//! older in another is a protocol error, and so is `received` past what was sent or `taken` past
//! `received`.
//!
//! # PING, PONG: a sign of life
//!
//! | bytes of the body | field | type | meaning |
//! |---|---|---|---|
//! | 0..8 | nonce | `u64` | any number; the answer to a PING is a PONG with the same one |
//!
//! # GOAWAY: the sender's last word on this connection
//!
//! | bytes of the body | field | type | meaning |
//! |---|---|---|---|
//! | 0..4 | reason | `u32` | 0 shutdown, 1 replaced, 2 duplicate, 3 removed, 4 retired |
//! | 4..12 | n | `u64` | how many lanes follow, at most 64 |
//! | 12.. | lanes | n times 25 bytes | what the sender has of each lane, as in ACK, whatever connection it came by |
//!
//! | reason | the other side |
//! |---|---|
//! | shutdown, retired | dials again after the backoff, if it wants this peer |
//! | replaced, duplicate | goes on with the connection that stays |
//! | removed | does not dial this peer for ten of its longest backoffs (10 minutes by default) |
//!
//! # CANCEL: the requester no longer waits
//!
//! | bytes of the body | field | type | meaning |
//! |---|---|---|---|
//! | 0..8 | request | `u64` | id of the request; one that is not open is ignored |
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
//! Here alone there is no length field: the data fills the rest of the body.
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
//! Kinds: 0 message, 1 request, 2 reply; any other is a protocol error. A payload may be empty, and may
//! not be larger than the lane's `max_message` in the receiver's HELLO. Offsets count every byte of the stream, headers included,
//! from 0 at the start of a session.
//!
//! # Sessions
//! A session is a pair of memories, the two that the HELLOs of a connection name. Offsets, `state` and
//! request ids belong to it.
//!
//! | the peer's HELLO names | then |
//! |---|---|
//! | as paired another memory than the one that this side's HELLO names | it speaks of a session that is gone: this side ends the connection; the peer has read of it and comes back |
//! | the memory that is known | the session goes on: each lane from the `state` in the peer's HELLO |
//! | a memory, and none was known | a session begins |
//! | another one, with another incarnation | the peer restarted. A new session, for which the HELLO of this side already named a new memory; earlier connections end, if they do not answer a PING |
//! | another one, with the same incarnation | the peer forgot. If nothing was sent or received in the session yet, a new one begins with this connection. Otherwise, whatever is paired, this side draws a new memory too and ends the connection; the next one agrees |
//!
//! # Rules for both sides
//! - On one connection the chunks of a lane are contiguous: each begins where the one before it ended,
//!   or, when the peer's ACK shows that it has more already, further on, but never past what the peer
//!   has acknowledged; or, when the lane comes back to a connection that it had left, further back.
//!   A chunk that begins past what the receiver has is a protocol error; what it has
//!   already, it drops.
//! - No chunk reaches past the limit that the receiver gave for that lane, and of the messages that the
//!   receiver has not said to be taken no more are begun than its `max_untaken`.
//! - A connection carries frames only for the session that its two HELLOs agreed on.
//! - After GOAWAY its sender sends no further frame on that connection and half-closes it. The other side
//!   sends no further CHUNK on it either, and half-closes it too.

pub(crate) mod batch;
mod body;
pub(crate) mod buffer;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod preface;
pub(crate) mod reader;
pub(crate) mod refused;
pub(crate) mod stream;

#[cfg(test)]
mod tests;
