//! The protocol, version 1: a second implementation can be written from this page alone.
//!
//! All integers are little-endian. A connection is one TCP stream in each direction:
//!
//! ```text
//! encrypted   preface (44 bytes) | Noise messages | record | record | record ...
//! plaintext   preface (44 bytes) | claim (40 bytes) | frame | frame | frame ...
//! ```
//!
//! The side that opened the TCP connection is the *dialer*, the other one the *listener*.
//!
//! # In front of the preface: a load balancer
//! A load balancer may put a header of the PROXY protocol, version 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>), in front of what the dialer sends. A
//! listener reads it on connections from the networks of
//! [`Config::proxy_protocol_from`](crate::Config::proxy_protocol_from), where it must be there, and on no
//! others. It is at most 536 bytes long and has to come before the deadline of the handshake. PROXY over
//! TCP/IPv4 or TCP/IPv6 sets the dialer's address; LOCAL, UNSPEC, datagrams and Unix sockets leave that of
//! the TCP connection. TLVs are skipped, that of CRC-32C among them. Anything else ends the connection
//! without an answer. A dialer never sends such a header.
//!
//! # Preface
//! The dialer sends its preface first, together with its claim or its first Noise message. The listener
//! answers with its own only after it has read and accepted the dialer's, so an unauthenticated peer never
//! receives more bytes than it sent.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | the ASCII letters `unbroken` |
//! | 8 | lowest | `u8`: the lowest version of the protocol that the sender speaks |
//! | 9 | highest | `u8`: the highest one; both are 1 now |
//! | 10 | mode | `u8`: 0 plaintext, 1 Noise; others are reserved |
//! | 11 | answer | `u8`: 0 in every preface that is sent in full |
//! | 12..44 | network | the network's name in UTF-8, at most 32 bytes, padded with zero bytes; it contains none itself |
//!
//! Magic, mode and network must be equal on both sides, and the two ranges of versions must overlap. The
//! version spoken is the highest one that both ranges contain. A listener that does not accept the preface
//! sends the first 12 bytes of its own preface with one of these answers, half-closes, and reads on until the
//! dialer has closed (at most 16 KiB, and at most until the deadline of the handshake). With another magic it
//! sends nothing.
//!
//! | answer | meaning |
//! |---|---|
//! | 1 | no common version |
//! | 2 | another mode |
//! | 3 | another network |
//! | others | an answer of a later version; the connection is refused |
//!
//! # Noise: identities, proven
//! In mode 1 the prefaces are followed by the three messages of `Noise_XX_25519_AESGCM_SHA256`
//! (<https://noiseprotocol.org/noise.html>, revision 34; the dialer is the initiator). The prologue is the 44
//! bytes of the dialer's preface. Each message has one fixed length and no length field:
//!
//! | message | from | bytes | payload |
//! |---|---|---|---|
//! | `e` | dialer, behind its preface | 32 | none |
//! | `e, ee, s, es` | listener, behind its preface | 106 | 10 bytes: its incarnation, `u64`; its lowest and highest version, `u8` each |
//! | `s, se` | dialer | 72 | 8 bytes: its incarnation, `u64` |
//!
//! The incarnation is drawn at random when the process starts. The static public key of a side (X25519) is
//! its `PeerId`. The dialer ends the connection before the third message if the listener is not the one that
//! it expects, is the dialer itself, or names other versions in its payload than in its preface: nobody on
//! the path can talk two sides into an older version. A Diffie-Hellman result that is all zero ends the
//! connection on either side (RFC 7748 section 6.1).
//!
//! # Records: what follows, sealed
//! After the third message each direction is a sequence of records. Their contents, concatenated, are the
//! sequence of frames; a frame may begin in one record and end in another.
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | `u16`: length of the rest, 17 to 65,535 |
//! | 2.. | the frames' bytes, encrypted, followed by the tag of 16 bytes |
//!
//! A record is a Noise transport message: AES-256-GCM without associated data, under the key of its
//! direction, with a nonce of four zero bytes and the number of the record, from 0, as a big-endian `u64`.
//! After each 65,536 records of a direction its key is replaced by REKEY of the specification (section 4.2:
//! the first 32 bytes of 32 zero bytes encrypted with nonce 2^64 - 1); the numbers continue. That number
//! itself is never used for a record: a direction that would need it ends. A record that does not
//! authenticate, or whose length is below 17, ends the connection, and nothing behind it counts. So does the
//! end of the stream inside a record. An end between two records may have been made by anybody on the path:
//! only a GOAWAY is the other side's word.
//!
//! A sender may fill records as it likes. This implementation puts at most 16 KiB into each, since nothing of
//! a record can be used before all of it has arrived.
//!
//! # Claim: identities, unproven
//! In mode 0 each preface is followed by 40 bytes. Nothing proves them.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..32 | peer | the sender's `PeerId` (X25519 public key) |
//! | 32..40 | incarnation | `u64`, as above |
//!
//! The listener sends its preface and claim only if it accepts the dialer's claim, or if the claim is its
//! own.
//!
//! # Handshake vector
//! All values in hexadecimal. The secrets are 32 bytes that count up: static secret of the dialer from `00`,
//! of the listener from `20`, ephemeral secret of the dialer from `40`, of the listener from `60`. The
//! network is `testnet`; the incarnation of the dialer has the bytes 11 to 18, that of the listener 01 to 08.
//! Each record contains one PING with nonce 1.
//!
//! ```text
//! dialer's PeerId
//!     8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f
//! listener's PeerId
//!     358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254
//! preface, both
//!     756e62726f6b656e01010100746573746e657400000000000000000000000000000000000000000000000000
//! Noise message 1
//!     79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a
//! Noise message 2
//!     675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52fd678966b51aab864c309cda10faf8b94
//!     104fa031dacdf106761b92651def7effd7bb9cead3d3779c832151dd39e5e2a7285574580e518f8f25c9c7d1f87365c4
//!     d049b1abf144408cab98
//! Noise message 3
//!     72566db126c34b9ff02b215ebc15ee7763470c037559245ad718ae0f89777d776711a9474c450079488365f8364bdede
//!     c19d4cb1ae64c2f5698ab590b962d29324a761f22d571284
//! handshake hash
//!     4f43cd203c45eb11b3d00880b0d0989280afc4eb50f9265e51d553b8685e8784
//! dialer's record 0
//!     1c00419b82f937bea8fe16dcceb9f9cb4e88f87ac1917631d20ee053725a
//! dialer's record 1
//!     1c00bddbaf09c9c3259ce60835814e6299c22781f77c440e745982492b82
//! listener's record 0
//!     1c00052056e9b75eea15e2e647a882cd95c0daed42fad4a1110800732875
//! ```
//!
//! # Frames
//! After its part of the handshake each side sends frames, in mode 1 in records. The first frame of each side
//! is a HELLO or a REFUSED; neither may come later. A side may send its HELLO before it has read the other's.
//! The dialer considers the connection as joined when it has the listener's HELLO; the listener sends it
//! last, when nothing stands against the connection any longer.
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
//! | 4 | PING | 16 KiB |
//! | 5 | PONG | 16 KiB |
//! | 6 | GOAWAY | 16 KiB |
//! | 7 | CANCEL | 1 KiB |
//! | 8 | REFUSED | 1 KiB |
//!
//! A longer body ends the connection before anything is read or reserved for it. A kind
//! from 128 to 255 that the receiver does not know is skipped and counted, so that later versions can
//! add hints; its greatest body is 1 KiB. Any other unknown kind is a protocol error.
//!
//! ## Bodies
//! All bodies except that of CHUNK consist of the values of the tables below, one after the other, and then
//! of *fields*, to the end of the body:
//!
//! | bytes | of a field |
//! |---|---|
//! | 0 | id, `u8` |
//! | 1..3 | `u16`: length of the value in bytes |
//! | 3.. | value |
//!
//! Fields come in ascending order of their ids, each at most once. A receiver skips fields whose id it does
//! not know, and bytes of a value behind those that it knows. A field that is absent is none, 0, or the empty
//! text. A *list* is the number of its entries, `u8`; the length of each entry, `u8`; and the entries.
//! Entries that are longer than known are accepted, their additional bytes skipped; shorter ones are a
//! protocol error. So is a body that ends inside a value or field, a field out of order, text that is not
//! UTF-8, and a list or text past its bound.
//!
//! # HELLO: what a side remembers and what it accepts
//! Each side composes it once it knows the identity of the other: its `session_id` depends on that.
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0..8 | session_id | `u64` | the sender's half of the session: drawn at random when its memory of this conversation began |
//! | 8..16 | token | `u64` | the dialer's name for this connection, drawn at random; the listener's is any number and means nothing |
//! | 16 | slot | `u8` | which of the link's connections this is, 0 to 2; only the dialer's counts |
//! | 17.. | lanes | list, at most 64 entries of 33 bytes | what the sender accepts, lane by lane, in any order |
//!
//! | id | field | type | meaning |
//! |---|---|---|---|
//! | 1 | peer_session_id | `u64` | the other side's session_id that the states below are about; absent if the sender knows of none, or if nothing was sent or received in that session yet |
//! | 2 | replaces | `u64` | the token of the connection in whose place the dialer wants this one; only the dialer's counts |
//! | 3 | name | UTF-8, at most 64 bytes | the application's name; for logs only |
//! | 4 | features | `u64` | a bit for each ability beyond this version; unknown ones are ignored. Bit 0: messages that [expire on arrival](#messages-that-expire) |
//! | 5 | ack_delay | `u32` | the longest that the sender delays an acknowledgement, in milliseconds; see [Time](#time). Absent: at most 250 |
//! | 6 | repeats | `u32` | how many messages of this session had been begun towards an earlier life of the receiver, which may have processed them; for its application |
//! | 7 | port | `u16` | a port of the sender's own address on this connection at which it accepts connections; see [Dialling back](#dialling-back). Absent or 0: none |
//! | 8 | stale | list, at most 255 entries of 17 bytes | as in ACK |
//!
//! Each entry of `lanes`. A lane that is not in the list is not accepted; of one that is there twice the
//! first entry counts.
//!
//! | bytes | value | type | meaning |
//! |---|---|---|---|
//! | 0 | lane | `u8` | see [Lanes](#lanes) |
//! | 1..5 | max_message | `u32` | the largest payload that is accepted, in bytes |
//! | 5..9 | max_untaken | `u32` | how many messages may be begun that are not taken |
//! | 9..33 | state | as in ACK | received and taken are 0 when the sender knows nothing of this session. The limit may be any number from `taken` on, also then; it may be 0, and follow in an ACK |
//!
//! # ACK: acknowledgement and credit
//! For the lanes where something changed, by any connection of the link: best by the one on which the lane's
//! chunks arrive, so that its silence means something.
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0.. | lanes | list, at most 64 entries of 25 bytes | see below; may be empty |
//!
//! | id | field | type | meaning |
//! |---|---|---|---|
//! | 1 | stale | list, at most 255 entries of 17 bytes | parts of lanes: see [Messages that expire](#messages-that-expire) |
//! | 2 | settled | list, at most 64 entries of 9 bytes | a lane, `u8`, and an offset, `u64`: the sender of this frame knows which of its messages that end up to there have expired |
//!
//! Each entry of `lanes`:
//!
//! | bytes | value | type | meaning |
//! |---|---|---|---|
//! | 0 | lane | `u8` | |
//! | 1..9 | received | `u64` | every byte of the stream up to here is in the receiver's memory |
//! | 9..17 | taken | `u64` | the application has taken everything up to here |
//! | 17..25 | limit | `u64` | the sender may send up to here |
//!
//! Each number only grows within a session, so of two states one is the newer in all three. An older
//! one may arrive late, by another connection, and is ignored. One that is newer in one number and
//! older in another is a protocol error, and so is `received` past what was sent or `taken` past
//! `received`. `taken` may lie inside a message; that message counts as taken when `taken` has reached its
//! end.
//!
//! # PING, PONG: a sign of life
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0..8 | nonce | `u64` | any number; the answer to a PING is a PONG with the same one |
//!
//! | id | field | type | meaning |
//! |---|---|---|---|
//! | 1 | padding | bytes | mean nothing, zero when sent; a PONG has so many that it is no shorter than the PING that it answers |
//! | 2 | clock | `u64` | only in a PONG: the time of its sender's clock, in milliseconds since any instant that is fixed for the session; see [Messages that expire](#messages-that-expire) |
//!
//! A receiver answers at once, before any chunk that it has not begun to write. If several PINGs are
//! unanswered, answering the latest is enough.
//!
//! # GOAWAY: the sender's last frame on this connection
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0 | reason | `u8` | see below |
//! | 1.. | lanes | list, at most 64 entries of 25 bytes | what the sender has of each lane, as in ACK, whatever connection it came by |
//!
//! | id | field | type | meaning |
//! |---|---|---|---|
//! | 1 | stale | list, at most 255 entries of 17 bytes | as in ACK |
//!
//! | reason | name | the other side |
//! |---|---|---|
//! | 0, 4 | shutdown, retired | dials again after the backoff, if it wants this peer |
//! | 1, 2 | replaced, duplicate | continues on the connection that stays |
//! | 3 | removed | does not dial this peer for ten of its longest backoffs (10 minutes by default) |
//! | 5 to 127 | of a later version | as retired |
//! | 128 to 255 | of a later version | as removed |
//!
//! The sender half-closes the connection behind it. The receiver of a GOAWAY sends no further CHUNK on that
//! connection: it sends the ACK and PONG frames that are due, and half-closes too. It need not answer with a
//! GOAWAY; both sides may say it at once. Either side resets the connection if the other one has not finished
//! within its drain timeout (5 s by default). A frame behind a GOAWAY is a protocol error.
//!
//! # CANCEL: the requester no longer waits
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0..8 | request | `u64` | id of the request; one that is not open is ignored |
//!
//! # REFUSED: instead of HELLO
//! The sender knows the identity of the other side and does not want this connection. It half-closes behind
//! it, and reads on until the other side has closed (at most 16 KiB, and at most until the deadline of the
//! handshake).
//!
//! | bytes of the body | value | type | meaning |
//! |---|---|---|---|
//! | 0 | reason | `u8` | see below |
//!
//! | id | field | type | meaning |
//! |---|---|---|---|
//! | 1 | text | UTF-8, at most 256 bytes | what the reason alone does not say; for logs |
//! | 2 | wait | `u32` | for how many seconds another attempt is in vain |
//!
//! | reason | meaning |
//! |---|---|
//! | 0 | not told |
//! | 1 | identity or address denied, or not among those allowed |
//! | 2 | the application refused |
//! | 3 | banned |
//! | 4 | another process with this identity is connected and alive |
//! | 5 | another network, version or mode; this version says that in the preface, and never here |
//! | 6 to 127 | of a later version: lasts until somebody changes something |
//! | 128 | no room |
//! | 129, 130, 131 | too many connections from this address, from this subnet, of this peer |
//! | 132 | this address connects too often |
//! | 133 | too many handshakes are under way |
//! | 134 | the session changed during the handshake: the next attempt will agree |
//! | 135 | shutting down |
//! | 136 to 255 | of a later version: passes by itself |
//!
//! A peer may close without a REFUSED; the dialer then learns no reason. This implementation does so towards
//! strangers if [`AdmissionConfig::tell_strangers`](crate::AdmissionConfig::tell_strangers) is false.
//!
//! # CHUNK: a piece of a lane's stream
//!
//! | bytes of the body | field | meaning |
//! |---|---|---|
//! | 0 | lane | `u8` |
//! | 1 | flags | bit 0: ACK_NOW, the receipt of a message in this chunk is waited for |
//! | 2..10 | offset | `u64`: where in the lane's stream this piece begins |
//! | 10.. | data | 1 byte to 1 MiB of the stream |
//!
//! There is no length field: the data extends to the end of the body. The flags in bits 1 to 3 must be known
//! to understand the chunk: one that is set and not known is a protocol error. Bits 4 to 7 are ignored if
//! they are not known.
//!
//! # Lanes
//! A lane is an ordered stream of messages in each direction. Its number is the application's choice; the
//! defaults are URGENT 0, NORMAL 1, BULK 2. Between lanes there is no order, and the credit of one is
//! independent of the others.
//!
//! A lane's stream is the concatenation of its messages, each preceded by a header. Chunks cut the
//! stream anywhere, so one chunk may hold many small messages, or a piece of a large one.
//!
//! | bytes | field | present in |
//! |---|---|---|
//! | 0..4 | `u32`: kind in the upper 4 bits, length of the payload in the lower 28 | every message |
//! | 4..12 | request id, `u64` | request, reply |
//! | 4..12 | time, `u64`, at which it is worth nothing, by the clock of its sender | expiring message |
//! | 12..16 | time the requester will wait, `u32` milliseconds | request |
//! | then | payload | every message |
//!
//! Kinds: 0 message, 1 request, 2 reply, 3 expiring message; any other is a protocol error. A payload may be
//! empty, and may not be larger than the lane's `max_message` in the receiver's HELLO. Offsets count every
//! byte of the stream, headers included, from 0 at the start of a session.
//!
//! The requester chooses the ids. An id must not be that of a request that is still open at the other side:
//! it is free again after the reply, or after its time is over (at most 60 s count, whatever the header
//! says). To count upwards is simplest. A reply travels on the lane of its request. A side that has more
//! requests open than it allows lets one go: a cancelled one, or else the one with the least time left.
//!
//! # Messages that expire
//! A message of kind 3 is sent only to a peer whose HELLO has bit 0 of `features`. The receiver knows a lower
//! bound of the sender's clock: what the last PONG said, and the time that has passed since it came. This
//! implementation takes 1/2,000 off that time, as clocks drift, and keeps a higher bound that it knew before,
//! as far as the round trip of that PING permits. A message whose time has come by that bound
//! when the application would take it may be dropped; it then counts as taken.
//!
//! The receiver says so by the field `stale` of ACK, HELLO and GOAWAY. Each entry is a part of a lane's
//! stream: the lane, `u8`; the offset where its first message begins, and the one where its last message
//! ends, `u64` each. All messages of kind 3 in it were dropped; those of other kinds in between were not. A
//! frame that says that something was taken up to an offset names all parts before it, and repeats them in
//! later frames, until the sender has sent an ACK whose `settled` reaches the end of the part. The sender
//! does so when it has read a part. A part that ends past what was sent is a protocol error.
//!
//! # Sessions
//! A session is a pair of session ids, one of each side, as the HELLOs of a connection name them. Offsets,
//! `state` and request ids belong to it.
//!
//! | the peer's HELLO names | then |
//! |---|---|
//! | a peer_session_id other than the session_id of this side's HELLO | the states are about a session that is gone: this side ends the connection; the peer has read the new session_id and dials again |
//! | the session_id that is known | the session continues: each lane from the `state` in the peer's HELLO |
//! | a session_id, and none was known | a session begins |
//! | another one, with another incarnation | the peer restarted. A new session, for which the HELLO of this side already named a new session_id; earlier connections end, if they do not answer a PING |
//! | another one, with the same incarnation | the peer forgot. If nothing was sent or received in the session yet, a new one begins with this connection. Otherwise, whatever peer_session_id it names, this side draws a new session_id too and ends the connection; the next one agrees |
//!
//! In a new session after a restart the sender sends again what had not been taken, from the start of each
//! message. After the peer forgot, messages that had been begun are dropped (they may have arrived), the
//! others are sent.
//!
//! # Which connection stays
//! A link has up to three slots, and a slot holds one connection. HELLO says which slot a connection is for
//! and which connection, if any, it replaces. Until both sides have come to the same choice all of them
//! serve. When a connection joins a slot that has one:
//!
//! | the incumbent | opened by | then |
//! |---|---|---|
//! | is named by the newcomer's `replaces`, or an answer of it is overdue | any | it is drained when the newcomer has proved itself |
//! | is alive | the same side as the newcomer | it is drained at once: its opener knows that it is gone |
//! | is alive | the other side | the one that was opened by the side with the smaller `PeerId` (compared byte by byte) stays. An incumbent that should stay is sent a PING, and is drained instead if it does not answer |
//!
//! To drain is to send GOAWAY (`replaced`, or `duplicate` where each side opened one). A newcomer *proves
//! itself* by a PONG, or by an acknowledgement of data that it carried. Where it names an incumbent, both
//! sides pad their PINGs on it to a full TCP segment until one was answered, and nothing but that PONG proves
//! it: some paths pass small packets alone. If it does not answer and the incumbent does again, the dialer
//! drains the newcomer. Either side may drain; both see the same connections and come to the same choice.
//! Lanes may be sent by any connection of the link that is not draining, and may move at any time: on the new
//! connection a lane continues from what the peer has acknowledged.
//!
//! # Dialling back
//! The side that accepted a connection may replace it as well, if the dialer's HELLO named a port: it dials
//! the address that the connection came from, at that port, expects the identity that the connection has, and
//! names the connection in `replaces`. This implementation does so when an answer is overdue for 250 ms more
//! than the time below, and nothing of its configuration leads to that peer; at most three times for one
//! connection, and only if something was answered on it before. It takes such a dial for what it is: the
//! connection counts as one that the peer opened. A port may lead to nobody, as behind a NAT; then the dialer
//! has to notice by itself.
//!
//! # Rules for both sides
//! - On one connection the chunks of a lane are contiguous: each begins where the one before it ended, or,
//!   when the peer's ACK shows that it has more already, further on, but never past what the peer has
//!   acknowledged; or, when the lane comes back to a connection that it had left, further back. A chunk that
//!   begins past what the receiver has is a protocol error; what it has already, it drops.
//! - No chunk reaches past the limit that the receiver gave for that lane, and of the messages that the
//!   receiver has not said to be taken no more are begun than its `max_untaken`.
//! - A connection carries frames only for the session that its two HELLOs agreed on.
//! - After GOAWAY its sender sends no further frame on that connection.
//!
//! # Time
//! A peer of this implementation must do the following in time. The times are those of the default settings;
//! to be later is no protocol error and costs no strikes:
//!
//! | what | within | otherwise |
//! |---|---|---|
//! | the whole handshake, from the TCP connection to the end of HELLO | 10 s | the connection is closed |
//! | PONG, or any other byte, after a PING | 1 s, or 8 round trips if that is longer | another connection is dialled, and takes over when it has proved itself |
//! | ACK, or any other byte, after a chunk | 1 s, 8 round trips or 4 times `ack_delay` (of which at most 10 s count), whichever is the longest | the same |
//! | any byte, while PINGs are sent (every 10 s by default) | 20 s | the connection is closed |
//! | a frame, from its first byte to its last | 20 s | the connection is closed |
//! | to acknowledge by TCP what was sent | 30 s | the connection is closed |
//! | to finish after a GOAWAY | 5 s | the connection is reset |
//! | to come back to a session without a connection | 1 h | the session is forgotten; earlier that of a peer that nobody configured, if memory is short |
//!
//! A receiver acknowledges within its `ack_delay`, and at once when a message of a chunk with ACK_NOW is
//! taken, when the limit can rise by a quarter of the lane's window, and when an eighth of the window has
//! arrived that was not acknowledged. While urgent messages come by a connection, and for 10 s after the
//! last one, this implementation raises the limits of the other lanes on it only to what was received and
//! 2 MiB and one and a half times the bandwidth-delay product of the path, if the window is more: what is
//! under way beyond that stands in front of urgent messages. A quarter is then a quarter of that. It should
//! send a PING of its own where it has heard nothing for 10 s, so that NATs and firewalls keep the flow.
//!
//! # What costs more than it carries
//! Each link has these budgets. A frame for which nothing is left is a *flood*, which ends the connection. A
//! sender that keeps to the rules of the right column never empties one, at any speed.
//!
//! | frames | cost | at once | per second | earned by |
//! |---|---|---|---|---|
//! | chunk | 64 | 262,144 | 16,384 | its new bytes; a 16th of the bytes that came before; 64 for each message that it ends; 64 for each ACK of the receiver that raised the limit |
//! | each lane in an ACK | 1 | 131,072 | 10,000 | free if it ends a message; 1 for each chunk that it can be about; 4 a lane when a connection joins; 1 for each lane of which a frame named stale parts. An ACK without lanes costs as one lane |
//! | PING | 1 | 4,000 | 4,000 | 1 when a connection joins |
//! | PONG that was not asked for, on one connection | 1 | 16 | 0 | |
//! | CANCEL | 1 | 8,192 | 1,000 | 1 for each request |
//! | request beyond those that may be open | 1 | 16,384 | 10,000 | |
//! | reply that is not waited for | 1 | 65,536 | 1,000 | 1 for each request of the receiver |
//! | unknown kind from 128 on | 1 | 10,000 | 1,000 | |
//!
//! # Strikes
//! | misbehavior | strikes |
//! |---|---|
//! | protocol error on a connection that had joined | 60 |
//! | more bytes or messages than credit was given for | 60 |
//! | flood | 60 |
//! | protocol error before HELLO | 10 |
//! | to dial, join and leave within a second without a message | 2 |
//!
//! At 100 strikes a peer is banned for a while ([`ConductConfig`](crate::ConductConfig)); strikes lose half
//! of their weight every ten minutes. Peers that the operator named are disconnected instead. Timeouts,
//! resets and records that do not authenticate cost nothing: anybody on the path can cause them
//! ([`Misbehavior`](crate::Misbehavior)).
//!
//! # Compatibility
//! A release that changes the meaning of bytes that an older one understands raises the highest version of
//! the preface, and speaks the one before it as well for at least one minor release (before 1.0) or one major
//! release (from 1.0 on). Additions that an older receiver skips (fields, longer entries, extensions, feature
//! bits, flags 4 to 7, reasons) need no new version. A lower bound is raised only in a release that semantic
//! versioning calls breaking, and the changelog says so. The bytes of version 1 are pinned by tests.
