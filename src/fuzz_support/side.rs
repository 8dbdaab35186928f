//! A link core and what its application was promised.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::script::Script;
use crate::health::liveness::Limits;
use crate::id::PeerId;
use crate::lane::{AckMode, LaneConfig, LaneId, Priority};
use crate::link::harness::{Core, Fx, Numbered};
use crate::link::{Link, OutboundMessage, Purpose, Settings};

/// Three lanes with next to no room, so that every bound is met soon.
pub(super) fn lanes(small: bool) -> Vec<LaneConfig> {
    let (max_message, max_untaken) = if small { (100, 3) } else { (1000, 20) };
    let lane = |id, priority, ack_mode| LaneConfig {
        id: LaneId(id),
        priority,
        max_message,
        window: max_message + 16 + 700,
        max_untaken,
        queue: 3 * max_message + 500,
        ack_mode,
        ..LaneConfig::default()
    };
    vec![
        lane(0, Priority::Urgent, AckMode::Received),
        lane(1, Priority::Weighted(4), AckMode::Done),
        lane(7, Priority::Weighted(1), AckMode::Received),
    ]
}

pub(super) fn settings(side: usize, lanes: Vec<LaneConfig>, hurried: bool) -> Settings {
    let id = |side| PeerId::from_bytes([side as u8 + 1; 32]);
    let ms = Duration::from_millis;
    Settings {
        us: id(side),
        peer: id(1 - side),
        name: String::new(),
        lanes: lanes.into(),
        liveness: Limits { ping_interval: ms(1000), suspect_after: ms(200), dead_after: ms(3000) },
        min_ping_interval: ms(100),
        ack_delay: ms(25),
        resumption: if hurried { ms(2000) } else { ms(60_000) },
        drain_timeout: ms(500),
        max_requests: 4,
        max_queued: 5000,
        max_chunk: 1024,
    }
}

pub(super) struct Side {
    pub(super) link: Core,
}

impl Side {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        Side { link: Link::new(settings, seed) }
    }

    /// A message or a request of some size; its body begins with its number. Returns the id of a request, and
    /// the number of its waiter.
    pub(super) fn send(
        &mut self,
        script: &mut Script<'_>,
        lane: usize,
        asks: bool,
        now: Instant,
        ledger: &mut Ledger,
        output: &mut Fx,
    ) -> Option<(u64, usize)> {
        let what = script.byte();
        let token = ledger.token(what & 1 == 1);
        let number = token.number;
        let mut body = (number as u64).to_le_bytes().to_vec();
        body.resize(8 + (script.small() << (what >> 5 & 1)), 3);
        let lane = LaneId([0, 1, 7].get(lane).copied().unwrap_or(0));
        let deadline = (what & 2 == 2).then(|| now + Duration::from_millis(script.small() as u64));
        let message = OutboundMessage { lane, body: &Bytes::from(body), deadline };
        let wait = Duration::from_millis(u64::from(script.byte()) * 20);
        let purpose = if asks { Purpose::Request { wait, waiter: number } } else { Purpose::Message };
        let sent = self.link.send(message, purpose, token, now, output);
        ledger.accepted(number, sent.is_ok());
        if asks && sent.is_ok() {
            ledger.asked(number);
        }
        sent.ok().map(|id| (id, number))
    }
}

/// The messages that were accepted, and how they ended.
#[derive(Default)]
pub(super) struct Ledger {
    /// The number that was given last.
    last: usize,
    messages: HashMap<usize, bool>,
    requests: HashMap<usize, bool>,
}

impl Ledger {
    pub(super) fn token(&mut self, awaited: bool) -> Numbered {
        self.last += 1;
        Numbered { number: self.last, awaited }
    }

    pub(super) fn accepted(&mut self, number: usize, accepted: bool) {
        if accepted {
            self.messages.insert(number, false);
        }
    }

    fn asked(&mut self, number: usize) {
        self.requests.insert(number, false);
    }

    /// Nobody waits any longer: there will be no word of it.
    pub(super) fn cancelled(&mut self, number: usize) {
        self.requests.insert(number, true);
    }

    /// Everything ends once, and nothing ends that was not accepted.
    pub(super) fn note(&mut self, output: Fx) {
        let ended = output.ended.into_iter();
        for (token, outcome) in
            ended.flat_map(|ended| ended.tokens.iter().map(move |token| (token, ended.outcome)))
        {
            // A message on a lane that the peer refuses ends before `send` returns.
            let ended = self.messages.insert(token.number, true);
            assert_eq!(ended, Some(false), "message {} ended as {outcome}", token.number);
        }
        for (number, reply) in output.replies {
            let ended = self.requests.insert(number, true);
            assert_eq!(ended, Some(false), "request {number} ended as {reply:?}");
        }
    }

    /// To be asked when the link has ended.
    pub(super) fn check_end(&self) {
        let open =
            |map: &HashMap<usize, bool>| map.iter().find(|(_, ended)| !**ended).map(|(number, _)| *number);
        assert_eq!(open(&self.messages), None, "a message never ended");
        assert_eq!(open(&self.requests), None, "a request never ended");
    }
}
