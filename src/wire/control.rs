//! The bodies of the control frames. To add a field is to add a line to one of the lists below; see
//! [`super::body`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::body::{Cursor, Entry, FIELD_HEAD_LEN, Field, Value, body, bounded, finish_frame, put_field};
use super::header::{HEADER_LEN, Kind, WireError, encode_header};
use super::refused::RefusedReason;
use crate::lane::LaneId;

/// The most lanes a link may have: far beyond any need, and few enough that HELLO and ACK fit their
/// bounds with all of them.
pub(crate) const MAX_LANES: usize = 64;
/// The longest application name, in bytes.
pub(crate) const MAX_NAME: usize = 64;
/// The longest text of a refusal, in bytes.
pub(crate) const MAX_TEXT: usize = 256;

body! {
    /// First frame of each side: what it remembers and what it accepts.
    #[derive(Default)]
    Hello is Kind::Hello {
        /// The sender's half of the session: drawn at random when its memory of this conversation began.
        session_id: u64;
        /// The dialer's name for this connection, drawn at random; the listener's means nothing.
        token: u64;
        /// Which of the link's connections this one is, from 0; the dialer's word counts.
        slot: u8;
        /// The limits of the sender, lane by lane.
        lanes: Vec<HelloLane>, at most MAX_LANES;
    }
    fields {
        /// The session id of the other side that the states of the lanes are about; `None` if the sender knows
        /// of none, or if nothing was sent or received in that session yet.
        1 => peer_session_id: Option<u64>;
        /// The dialer wants this connection in the place of that one.
        2 => replaces: Option<u64>;
        /// The application's name; for logs only.
        3 => name: String, at most MAX_NAME;
        /// Abilities of the sender beyond this version, a bit each; see [`crate::manual::protocol`].
        4 => features: u64;
        /// The longest that the sender waits with an acknowledgement, in milliseconds.
        5 => ack_delay_ms: Option<u32>;
        /// How many messages of this session had been begun towards an earlier life of the receiver, which may have
        /// processed them.
        6 => repeats: Option<u32>;
        /// Where the sender accepts connections: a port of the address that this connection comes from.
        7 => port: Option<u16>;
        /// As in ACK.
        8 => stale: Vec<StaleRange>, at most MAX_STALE;
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HelloLane {
    pub(crate) lane: LaneId,
    /// The largest message that is accepted, in bytes.
    pub(crate) max_message: u32,
    /// How many messages may be begun that are not taken.
    pub(crate) max_untaken: u32,
    /// The sender's state of this lane's stream; 0 when it knows nothing of this session.
    pub(crate) state: LaneAck,
}

impl Value for HelloLane {
    fn put(&self, out: &mut Vec<u8>) {
        self.lane.put(out);
        Value::put(&self.max_message, out);
        Value::put(&self.max_untaken, out);
        self.state.put(out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok(HelloLane {
            lane: Value::take(from)?,
            max_message: Value::take(from)?,
            max_untaken: Value::take(from)?,
            state: Value::take(from)?,
        })
    }
}

impl Entry for HelloLane {
    const LEN: u8 = 33;
}

/// The state of a lane at its receiver. Each number only ever grows within a session, so of two
/// states one is the newer in all three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneAck {
    /// Every byte of the stream up to here is in the receiver's memory.
    pub(crate) received: u64,
    /// The application has taken everything up to here.
    pub(crate) taken: u64,
    /// The sender may send up to here.
    pub(crate) limit: u64,
}

impl Value for LaneAck {
    fn put(&self, out: &mut Vec<u8>) {
        [self.received, self.taken, self.limit].iter().for_each(|number| Value::put(number, out));
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok(LaneAck { received: Value::take(from)?, taken: Value::take(from)?, limit: Value::take(from)? })
    }
}

impl Entry for (LaneId, LaneAck) {
    const LEN: u8 = 25;
}

/// The most ranges of stale messages that a frame names: their number is a byte.
pub(crate) const MAX_STALE: usize = 255;

/// Every message of this part of a lane's stream that could expire has expired before the receiver's
/// application took it, and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaleRange {
    pub(crate) lane: LaneId,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Value for StaleRange {
    fn put(&self, out: &mut Vec<u8>) {
        self.lane.put(out);
        Value::put(&self.from, out);
        Value::put(&self.to, out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok(StaleRange { lane: Value::take(from)?, from: Value::take(from)?, to: Value::take(from)? })
    }
}

impl Entry for StaleRange {
    const LEN: u8 = 17;
}

impl Entry for (LaneId, u64) {
    const LEN: u8 = 9;
}

body! {
    /// Acknowledgement and credit, for the lanes where they changed.
    #[derive(Default)]
    Ack is Kind::Ack {
        lanes: Vec<(LaneId, LaneAck)>, at most MAX_LANES;
    }
    fields {
        /// Messages that expired at the sender of this frame, until the other side has said that it knows.
        1 => stale: Vec<StaleRange>, at most MAX_STALE;
        /// Of these lanes the sender of this frame knows what expired at the other side, up to here.
        2 => settled: Vec<(LaneId, u64)>, at most MAX_LANES;
    }
}

/// Why a connection is drained. The reaction of the other side is in the second column.
///
/// | reason | the other side |
/// |---|---|
/// | Shutdown, Retired | dials again after the backoff, if it wants this peer |
/// | Replaced, Duplicate | goes on with the connection that stays |
/// | Removed | does not dial this peer for ten of its longest backoffs (10 minutes by default) |
/// | Other below 128 | as with Retired |
/// | Other from 128 on | as with Removed |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoawayReason {
    /// The node is going down.
    Shutdown,
    /// A newer connection took this one's place.
    Replaced,
    /// Both sides dialled at once and the other connection stays.
    Duplicate,
    /// The application removed this peer.
    Removed,
    /// The node keeps links to better peers.
    Retired,
    /// A reason of a later version, by its number on the wire.
    Other(u8),
}

impl fmt::Display for GoawayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GoawayReason::Shutdown => "shutdown",
            GoawayReason::Replaced => "replaced by a newer connection",
            GoawayReason::Duplicate => "duplicate of another connection",
            GoawayReason::Removed => "the application removed the peer",
            GoawayReason::Retired => "another peer took its place",
            GoawayReason::Other(code) => return write!(f, "reason {code}, which this version does not know"),
        })
    }
}

impl GoawayReason {
    /// Another connection of the same link does the work of this one.
    pub(crate) fn is_changeover(self) -> bool {
        matches!(self.meaning(), GoawayReason::Replaced | GoawayReason::Duplicate)
    }

    const KNOWN: [GoawayReason; 5] = [
        GoawayReason::Shutdown,
        GoawayReason::Replaced,
        GoawayReason::Duplicate,
        GoawayReason::Removed,
        GoawayReason::Retired,
    ];

    fn code(self) -> u8 {
        match self {
            GoawayReason::Shutdown => 0,
            GoawayReason::Replaced => 1,
            GoawayReason::Duplicate => 2,
            GoawayReason::Removed => 3,
            GoawayReason::Retired => 4,
            GoawayReason::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        let known = GoawayReason::KNOWN.into_iter().find(|reason| reason.code() == code);
        known.unwrap_or(GoawayReason::Other(code))
    }

    /// The reason that this version takes it for.
    pub(crate) fn meaning(self) -> Self {
        match self {
            GoawayReason::Other(128..) => GoawayReason::Removed,
            GoawayReason::Other(_) => GoawayReason::Retired,
            known => known,
        }
    }
}

impl Value for GoawayReason {
    fn put(&self, out: &mut Vec<u8>) {
        Value::put(&self.code(), out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        <u8 as Value>::take(from).map(GoawayReason::from_code)
    }
}

body! {
    /// The sender's last frame on this connection.
    Goaway is Kind::Goaway {
        reason: GoawayReason;
        /// The sender's state of each lane, over all connections: nobody need wait for it elsewhere.
        lanes: Vec<(LaneId, LaneAck)>, at most MAX_LANES;
    }
    fields {
        /// As in ACK.
        1 => stale: Vec<StaleRange>, at most MAX_STALE;
    }
}

body! {
    /// In the place of HELLO: the sender does not want this connection. Its last frame.
    Refused is Kind::Refused {
        reason: RefusedReason;
    }
    fields {
        /// For logs: what the reason alone does not say.
        1 => text: String, at most MAX_TEXT;
        /// For how many seconds another attempt is in vain.
        2 => wait_secs: Option<u32>;
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if !self.text.is_empty() {
            write!(f, ": {:?}", self.text)?;
        }
        match self.wait_secs {
            Some(secs) => write!(f, ", for {secs} s"),
            None => Ok(()),
        }
    }
}

body! {
    /// The requester no longer waits for the reply to this request.
    #[derive(Copy)]
    Cancel is Kind::Cancel {
        request: u64;
    }
    fields {}
}

/// The field of PING and PONG whose zero bytes make the frame as long as a full segment.
const PADDING: u8 = 1;
/// The field of PONG with the time of its sender's clock.
const CLOCK: u8 = 2;
const CLOCK_LEN: usize = FIELD_HEAD_LEN + 8;
/// The most padding: the body stays within its bound.
pub(crate) const MAX_PADDING: usize = Kind::Ping.max_body() - 8 - FIELD_HEAD_LEN;

/// `padding`: how many bytes of it, at most [`MAX_PADDING`]; with 0 there is no such field.
pub(crate) fn encode_ping(nonce: u64, padding: usize, out: &mut Vec<u8>) {
    encode_probe(Kind::Ping, nonce, padding, None, out);
}

/// The answer to a PING with this nonce and padding: as long as the PING, or longer if that had little.
/// `clock`: the time of this side's clock, in milliseconds.
pub(crate) fn encode_pong(nonce: u64, padding: usize, clock: Option<u64>, out: &mut Vec<u8>) {
    let padding = padding.min(MAX_PADDING);
    let shorter = padding.checked_sub(CLOCK_LEN).filter(|rest| *rest > 0 && clock.is_some());
    let padding = shorter.unwrap_or(padding);
    encode_probe(Kind::Pong, nonce, padding, clock, out);
}

fn encode_probe(kind: Kind, nonce: u64, padding: usize, clock: Option<u64>, out: &mut Vec<u8>) {
    let padding = Padding(padding.min(MAX_PADDING));
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    Value::put(&nonce, out);
    put_field(PADDING, &padding, out);
    put_field(CLOCK, &clock, out);
    let len = out.len() - start - HEADER_LEN;
    if let Some(header) = out.get_mut(start..start + HEADER_LEN) {
        header.copy_from_slice(&encode_header(kind, len));
    }
}

/// The contents of a PING or PONG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) nonce: u64,
    /// How many bytes of it there are.
    pub(crate) padding: usize,
    /// The time of the clock of a PONG's sender, in milliseconds.
    pub(crate) clock: Option<u64>,
}

/// The counterpart of [`encode_ping`] and [`encode_pong`].
pub(crate) fn decode_probe(kind: Kind, body: &[u8]) -> Result<Probe, WireError> {
    let mut rest = Cursor::new(kind, body);
    let mut probe = Probe { nonce: rest.value("nonce")?, padding: 0, clock: None };
    let mut before = None;
    while let Some((id, value)) = rest.next_field(&mut before)? {
        match id {
            PADDING => probe.padding = Padding::take(value)?.0,
            CLOCK => probe.clock = Field::take(value.named("clock"))?,
            _ => {}
        }
    }
    Ok(probe)
}

/// So many bytes that mean nothing: zeros when written, anything when read.
struct Padding(usize);

impl Field for Padding {
    fn is_missing(&self) -> bool {
        self.0 == 0
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.0, 0);
    }

    fn take(from: Cursor<'_>) -> Result<Self, WireError> {
        Ok(Padding(from.rest.len()))
    }
}
