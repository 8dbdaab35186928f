//! One validator, in a process of its own: the event loop between the library and the consensus.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use unbroken::crossbeam_channel::{at, bounded, never, select};
use unbroken::{BULK, Event, Node, Outgoing, PeerConfig, PeerId, PendingReply, URGENT, codec};

use crate::Failure;
use crate::chain::Block;
use crate::consensus::{Consensus, Promise};

/// How long a peer is waited for that was asked for blocks, before another one is asked.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the parent closes its end of the standard input.
pub(crate) fn run(home: &Path) -> Result<(), Failure> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let key = home.join("node.key");
    let node = Node::builder().network("bft").identity_file(key).listen(listen).start()?;
    let address = *node.local_addrs().first().ok_or("the node listens nowhere")?;
    writeln!(io::stdout(), "listen {} {address}", node.id())?;

    // All validators in their order, this one among them: ID@HOST:PORT.
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let configs: Vec<PeerConfig> = line.split_whitespace().map(PeerConfig::new).collect();
    let validators: Vec<PeerId> = configs.iter().filter_map(|config| config.id).collect();
    let me = validators.iter().position(|id| *id == node.id()).ok_or("this node is no validator")?;
    for config in configs.into_iter().filter(|config| config.id != Some(node.id())) {
        node.add_peer(config)?;
    }
    let (ending, ended) = bounded::<()>(0);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(ending);
    })?;

    let promise_file = home.join("promise");
    let promise: Option<Promise> =
        std::fs::read(&promise_file).ok().map(|bytes| codec::decode(&bytes)).transpose()?;
    let mut consensus = Consensus::new(me, validators.len(), promise, Instant::now());
    let others: Vec<PeerId> = validators.iter().copied().filter(|id| *id != node.id()).collect();
    let (mut fetch, mut fetches, mut printed) = (None::<PendingReply>, 0, 0);
    loop {
        let fetched = fetch.as_ref().map_or_else(never, PendingReply::ready);
        select! {
            recv(node.ready()) -> _ => while let Some(event) = node.try_recv()? {
                handle(&node, &validators, &mut consensus, event)?;
            },
            recv(fetched) -> _ => if let Some(Ok(reply)) = fetch.take().and_then(|fetch| fetch.poll()) {
                let blocks: Vec<Block> = reply.decode().unwrap_or_default();
                consensus.catch_up(blocks, Instant::now());
            },
            recv(at(consensus.deadline())) -> _ => {}
            recv(ended) -> _ => break,
        }
        consensus.advance(Instant::now());
        let messages = consensus.take_outbox();
        if !messages.is_empty() {
            // First the file, then the peers: a validator that restarts must not contradict itself.
            let new = promise_file.with_extension("new");
            std::fs::write(&new, codec::encode(&consensus.promise())?)?;
            std::fs::rename(&new, &promise_file)?;
        }
        for message in &messages {
            node.broadcast_to(&others, Outgoing::typed(URGENT, message)?);
        }
        for block in consensus.chain().iter().skip(printed) {
            let hash: String = block.hash().iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(io::stdout(), "commit {} {hash}", block.height)?;
        }
        printed = consensus.chain().len();
        if fetch.is_none()
            && let Some(ahead) = consensus.ahead()
        {
            // Another one each time, since one of them may be gone or lie.
            fetches += 1;
            let peer =
                ahead.iter().cycle().nth(fetches % ahead.len()).and_then(|index| validators.get(*index));
            let peer = *peer.ok_or("nobody is ahead")?;
            fetch =
                node.request_timeout(peer, Outgoing::typed(BULK, &consensus.height())?, FETCH_TIMEOUT).ok();
        }
    }
    node.shutdown(Duration::from_secs(1));
    Ok(())
}

fn handle(
    node: &Node,
    validators: &[PeerId],
    consensus: &mut Consensus,
    event: Event,
) -> Result<(), Failure> {
    match event {
        Event::Message(mut message) => {
            let Some(from) = validators.iter().position(|id| *id == message.peer()) else { return Ok(()) };
            if !message.is_request() {
                // A validator that sends nonsense counts as one that sends nothing.
                message.decode().into_iter().for_each(|message| consensus.take(from, message));
            } else if let Ok(height) = message.decode::<u64>() {
                let known = usize::try_from(height.saturating_sub(1))?;
                let blocks = consensus.chain().get(known..).unwrap_or_default();
                // The peer asks again, or another one, if this is refused.
                let _ = message.reply_typed(blocks);
            }
        }
        // What its earlier life had received is lost to it.
        Event::PeerRestarted { peer, .. } => {
            for message in consensus.said() {
                node.broadcast_to(&[peer], Outgoing::typed(URGENT, message)?);
            }
        }
        _ => {}
    }
    Ok(())
}
