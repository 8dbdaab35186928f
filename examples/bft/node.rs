//! One validator, in a process of its own: the event loop between the library and the consensus.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use unbroken::crossbeam_channel::{at, never, select};
use unbroken::{BULK, Event, Node, Outgoing, PeerConfig, PeerId, PendingReply, URGENT, codec};

use crate::{Result, consensus::Consensus};

/// Runs until the parent kills this process.
pub(crate) fn run(home: &Path) -> Result {
    let key = home.join("node.key");
    let node = Node::builder().network("bft").identity_file(key).listen("127.0.0.1:0".parse()?).start()?;
    println!("{}@{}", node.id(), node.local_addrs().first().ok_or("the node listens nowhere")?);

    // All validators in their order, this one among them: ID@HOST:PORT.
    let line = io::stdin().lines().next().ok_or("the parent names no validators")??;
    let configs: Vec<PeerConfig> = line.split_whitespace().map(PeerConfig::new).collect();
    let validators: Vec<PeerId> = configs.iter().filter_map(|config| config.id).collect();
    let me = validators.iter().position(|id| *id == node.id()).ok_or("this node is no validator")?;
    let mut others = configs.into_iter().filter(|config| config.id != Some(node.id()));
    others.try_for_each(|config| node.add_peer(config))?;

    let path = home.join("state");
    let state = if path.try_exists()? { codec::decode(&fs::read(&path)?)? } else { Default::default() };
    let mut consensus = Consensus::new(me, validators.len(), state, Instant::now());
    let (mut fetch, mut printed) = (None::<PendingReply>, 0);
    loop {
        let fetched = fetch.as_ref().map_or_else(never, PendingReply::ready);
        select! {
            recv(node.ready()) -> _ => while let Some(event) = node.try_recv()? {
                handle(&node, &validators, &mut consensus, event)?;
            },
            recv(fetched) -> _ => if let Some(Ok(reply)) = fetch.take().and_then(|fetch| fetch.poll()) {
                // A peer that answers with nonsense counts as one that does not answer.
                consensus.catch_up(reply.decode().unwrap_or_default(), Instant::now());
            },
            recv(consensus.deadline().map_or_else(never, at)) -> _ => {}
        }
        consensus.advance(Instant::now());
        if !consensus.outbox.is_empty() {
            // First the file, then the peers: a validator that restarts must not contradict itself.
            fs::write(home.join("new"), codec::encode(&consensus.state)?)?;
            fs::rename(home.join("new"), &path)?;
        }
        for vote in consensus.outbox.drain(..) {
            // This node is no peer of its own, and is passed over.
            node.broadcast_to(&validators, Outgoing::typed(URGENT, &vote)?);
        }
        for block in consensus.chain.iter().skip(printed) {
            let hash: String = block.hash().iter().map(|byte| format!("{byte:02x}")).collect();
            println!("commit {} {hash}", block.height);
        }
        printed = consensus.chain.len();
        // Another one each time, since one of them may lie, or be gone: it is waited for no longer than 2 s.
        let ahead = fastrand::choice(consensus.ahead()).and_then(|index| validators.get(index));
        if let (None, Some(peer)) = (&fetch, ahead) {
            let request = Outgoing::typed(BULK, &consensus.height())?;
            fetch = node.request_timeout(*peer, request, Duration::from_secs(2)).ok();
        }
    }
}

fn handle(node: &Node, validators: &[PeerId], consensus: &mut Consensus, event: Event) -> Result {
    match event {
        Event::Message(mut message) if message.is_request() => {
            let known = message.decode::<u64>().unwrap_or(1).saturating_sub(1) as usize;
            // If it is refused, the peer asks again, or another one.
            let _ = message.reply_typed(consensus.chain.get(known..).unwrap_or_default());
        }
        Event::Message(mut message) => {
            let from = validators.iter().position(|id| *id == message.peer());
            if let (Some(from), Ok(vote)) = (from, message.decode()) {
                consensus.take(from, vote);
            }
        }
        // Its new life does not have the votes that the earlier one had received.
        Event::PeerRestarted { peer, .. } => {
            for vote in &consensus.state.votes {
                node.broadcast_to(&[peer], Outgoing::typed(URGENT, vote)?);
            }
        }
        _ => {}
    }
    Ok(())
}
