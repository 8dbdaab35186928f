//! Typed messages in formats of one's own: votes in a fixed layout that any language can read, and reports of
//! a node in JSON. The wire carries bytes, so a codec is a matter of the two applications alone.
//!
//! What is decoded comes from a peer and may be anything. Here one peer sends a vote that is none; the
//! receiver counts that against it, and goes on.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use unbroken::codec::{Codec, CodecError};
use unbroken::{Misbehavior, NORMAL, Node, Outgoing, URGENT};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Vote {
    Prepare {
        height: u64,
        block: [u8; 32],
    },
    /// To give the round up.
    Skip {
        height: u64,
        round: u32,
    },
}

/// One byte for the kind, then the fields: integers big-endian, everything of fixed length.
struct FixedLayout;

const PREPARE: u8 = 1;
const SKIP: u8 = 2;

/// A codec for one type. It needs no serde.
impl Codec<Vote> for FixedLayout {
    fn encode(&self, vote: &Vote) -> Result<Vec<u8>, CodecError> {
        Ok(match vote {
            Vote::Prepare { height, block } => [&[PREPARE][..], &height.to_be_bytes(), block].concat(),
            Vote::Skip { height, round } => {
                [&[SKIP][..], &height.to_be_bytes(), &round.to_be_bytes()].concat()
            }
        })
    }

    /// Takes exactly the bytes of one vote: what is too short or too long is no vote.
    fn decode(&self, bytes: &[u8]) -> Result<Vote, CodecError> {
        let error = || CodecError::decode::<Vote>(format_args!("{} bytes of another layout", bytes.len()));
        let (kind, rest) = bytes.split_first().ok_or_else(error)?;
        let (height, rest) = rest.split_first_chunk().ok_or_else(error)?;
        let height = u64::from_be_bytes(*height);
        match *kind {
            PREPARE => Ok(Vote::Prepare { height, block: rest.try_into().map_err(|_| error())? }),
            SKIP => {
                let round = rest.try_into().map_err(|_| error())?;
                Ok(Vote::Skip { height, round: u32::from_be_bytes(round) })
            }
            _ => Err(error()),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Status {
    height: u64,
    version: String,
}

/// A codec for all types of a framework.
struct Json;

impl<M: Serialize + DeserializeOwned> Codec<M> for Json {
    fn encode(&self, message: &M) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(message).map_err(CodecError::encode::<M>)
    }

    fn decode(&self, bytes: &[u8]) -> Result<M, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::decode::<M>)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = bob.local_addrs().first().ok_or("nobody listens")?.to_string();
    let alice = Node::builder().peer(address).start()?;
    alice.wait_linked(bob.id(), Duration::from_secs(10))?;

    // Votes, and between them bytes that are none.
    let sent = [Vote::Prepare { height: 7, block: [0xab; 32] }, Vote::Skip { height: 7, round: 3 }];
    let [first, second] = &sent;
    alice.send(bob.id(), Outgoing::typed_with(&FixedLayout, URGENT, first)?)?;
    alice.send(bob.id(), (URGENT, [SKIP; 12].to_vec()))?;
    alice.send(bob.id(), Outgoing::typed_with(&FixedLayout, URGENT, second)?)?;

    let votes = bob.lane_receiver(URGENT).ok_or("no urgent lane")?;
    let mut received = Vec::new();
    for mut message in votes.iter().take(3) {
        match message.decode_with(&FixedLayout) {
            Ok(vote) => {
                println!("{} bytes: {vote:?}", message.len());
                received.push(vote);
            }
            Err(error) => {
                println!("not a vote: {error}");
                bob.report(message.peer(), Misbehavior::InvalidData);
            }
        }
    }
    if received != sent || bob.strikes(alice.id()) == 0 {
        return Err(format!("{received:?} is not what was sent").into());
    }

    // A request and its reply, in JSON.
    let status = Status { height: 7, version: "1.0".into() };
    let answer: Status = std::thread::scope(|scope| {
        let server = scope.spawn(|| answer_one(&bob, &status).map_err(|error| error.to_string()));
        let answer = alice.request_typed_with(&Json, bob.id(), NORMAL, &"status".to_string());
        server.join().unwrap_or_else(|_| Err("the server panicked".into()))?;
        answer.map_err(Box::<dyn Error>::from)
    })?;
    println!("the status of Bob: {answer:?}");
    if answer != status {
        return Err("the answer is another one".into());
    }
    Ok(())
}

/// Waits for a request, and answers it.
fn answer_one(node: &Node, status: &Status) -> Result<(), Box<dyn Error>> {
    let requests = node.lane_receiver(NORMAL).ok_or("no normal lane")?;
    let mut request = requests.recv_timeout(Duration::from_secs(10))?.ok_or("no request")?;
    let asked: String = request.decode_with(&Json)?;
    if asked != "status" {
        return Err(format!("unknown request: {asked}").into());
    }
    request.reply_typed_with(&Json, status)?;
    Ok(())
}
