//! The attackers of a node, their capabilities, and what is left to the application. There is no code here.
//!
//! # What is to be protected
//! - The messages between two nodes: nobody else reads, changes or replays them.
//! - Identity: a [`PeerId`](crate::PeerId) is proven before anything else of the peer counts.
//! - The delivery guarantees towards every honest peer, whatever other peers do.
//! - This process: its memory, threads, descriptors and processor.
//!
//! # Who attacks, and what he can do
//!
//! | who | can | cannot |
//! |---|---|---|
//! | reads the path | see addresses, times and sizes, that this protocol is spoken, and the network's name | read messages, names or identities; read old connections when he steals a key later (the keys of a connection are drawn anew and thrown away) |
//! | changes the path | delay, drop and cut, as any bad network: connections are replaced, messages wait; keep two nodes apart that have no other path | change, repeat, reorder or leave out a part of what arrives; pretend to be either side; make a cut look like a goodbye ([`EndReason`](crate::EndReason) tells them apart); get somebody banned |
//! | is a stranger, off the path, with or without a key of his own (it costs nothing) | connect at the rate that [`AdmissionConfig`](crate::AdmissionConfig) allows; learn the node's identity if he knows the network's name; if nobody forbids it come in, and take as many places as his addresses give him | take places that are reserved for wanted peers; get an answer longer than his question before he has named the network; speak as somebody else; send more than his credit, or more worthless frames than are allowed |
//! | is let in, and lies | end his own connections; withhold acknowledgement and credit from us, so that what waits for him waits, or expires, within his queue; claim to have taken what he threw away | have anything forgotten that he never got; move another link; hold more of our memory than twice his windows, his queue, and a chunk for each of his connections; keep the application from anybody else's messages for ever |
//! | is a wanted peer, and lies | the same; and he is not banned for it, unless [`ConductConfig::ban_wanted`](crate::ConductConfig::ban_wanted) says so | the same |
//! | has stolen a node's key | be that node towards everybody, until the others are told ([`Node::ban`](crate::Node::ban)), also while the real one is connected: he learns its incarnation when he dials it, and passes for a further connection of it | read what that node has said before |
//!
//! In plaintext ([`Encryption::Plaintext`](crate::Encryption::Plaintext)) the first two rows can do
//! everything, and anybody who can reach the node can speak as anybody else. The bounds on memory and work
//! still hold, and two processes that were given one name by mistake do not take turns (the one that is
//! connected and answers stays).
//!
//! # What each hostile input leads to
//! *Ends* means: that connection, with its threads, and nothing else. Each row is a test (`tests/hostile`, if
//! no other is named) over a real socket, beside an honest pair that votes all the time. The causes are those
//! of [`EndCause`](crate::EndCause); what follows for the ban target is in
//! [`Misbehavior`](crate::Misbehavior).
//!
//! | input | what it leads to |
//! |---|---|
//! | **before the handshake is complete** | |
//! | connects and is silent, a byte now and then, half a handshake | ends, `HandshakeTimeout`: 10 s from the first byte to the last |
//! | thousands of half-handshakes from one address | 64 at once from there; others come in; when all places are taken the oldest of the largest subnet goes |
//! | many clients behind a load balancer, or a header that claims to come from one | each client has limits of its own; a header from elsewhere is refused (`proxy_protocol.rs`) |
//! | many honest peers behind one address | admitted, 64 by default |
//! | wrong magic, version, mode or network; another protocol | ends, `Refused`; at most 12 bytes are answered |
//! | a Noise message said again, or spoilt | ends, `Tampered`; nobody is blamed; the session that it was taken from goes on |
//! | a key without a secret (low order) | ends, `Tampered` |
//! | another identity than the one expected | `Refused`; the dial has failed, and the other side was not told who called |
//! | this node itself, by an alias | `SelfConnection`; the entry rests for the longest backoff |
//! | HELLO that is none, comes twice, names slot 3, has lists or names beyond their bounds | ends, `Protocol`, before memory is reserved |
//! | **records and frames** | |
//! | a record flipped, cut, repeated, left out, reordered, of length 0 or without content | ends, `Tampered`; nothing of it is delivered, and nobody is blamed: whoever is on the path can do it |
//! | a length beyond the kind's bound, up to 16 MiB | ends, `Protocol`, before anything is reserved |
//! | the greatest length, then silence or a trickle | memory grows with what arrived; ends, `Dead`, when the frame took 20 s |
//! | an unknown kind | from 128 on skipped and counted, too many are a `Flood`; below it ends, `Protocol` |
//! | a lane that was not agreed, a gap, an impossible offset, message or flag | ends, `Protocol`; it can come back and go on where it was |
//! | chunks of next to nothing, pings, pongs, acknowledgements, cancellations, replies, requests as fast as it can | a budget each ([`protocol`](crate::manual::protocol)), then `Flood`; one pong waits at most |
//! | a message that never ends | at most `max_message` bytes are held, until it ends, or the link does, or a stranger is forgotten for it |
//! | unfinished messages of many names that come and go | the share below; others are let in, and named peers go on where they were (`named_peers_first.rs`) |
//! | large chunks that came before but for a few bytes | what is new is copied out of them: a link holds at most twice what counts in its windows |
//! | **credit and acknowledgements** | |
//! | bytes or messages past the credit | ends, `CreditOverrun` |
//! | acknowledges what was never sent, or contradicts itself | ends, `Protocol`; nothing is forgotten on its word |
//! | an acknowledgement that is older in all numbers, credit that shrinks | ignored: it may have been overtaken by another connection's |
//! | credit without end | is taken; the queue bounds what waits |
//! | credit withheld, or given byte by byte | that lane waits, messages expire if they were told to, the queue is full; the other lanes go on |
//! | answers pings, never reads | ends, `WriteTimeout`, 5 s |
//! | data comes in, pongs are late | nothing: any byte is a sign of life |
//! | largest messages both ways through tiny buffers | both arrive |
//! | floods the urgent lane | its window bounds it; other peers' votes take turns with it, and after 16 messages a less urgent one is given out |
//! | **who is who, and which connection stays** | |
//! | the same life again | the older connection of that slot is drained |
//! | another life, and the first one answers | the newcomer ends, `IdentityInUse`; both applications are told (`told_why.rs`) |
//! | another life, and the first one is half-open | it is probed; the newcomer is in within a second or eight round trips |
//! | hundreds of connections, every slot, tokens of others | six of one identity; tokens count only within its own link |
//! | resumes with more than was sent | ends, `Protocol` |
//! | resumes with less than it had acknowledged | is held to its word; what it threw away is its own loss |
//! | forgets, or restarts in a loop | begins anew; [`Event::Lost`](crate::Event::Lost) tells what may be lost; what earlier lives left counts in its window |
//! | both dial at once | both choose the same (`pooled.rs`) |
//! | announces a port, and answers no longer | its own address is dialled there, three times at most for each of its connections, within the limits of strangers below; no other address can be named (`dial_back.rs`, unit tests of `roster`) |
//! | cut after any byte, restart in the middle of a replay | each message once (`nothing_lost.rs`) |
//! | **leaving** | |
//! | GOAWAY, then more | ends, `Protocol` |
//! | GOAWAY, and stays | ends, `DrainTimeout`, 5 s |
//! | comes, greets and leaves in a loop, also after a message on an earlier visit | banned for a time; if it resets instead, only the rate of its address bounds it |
//! | **too much of everything** | |
//! | thousands of connections at once | the cap holds; wanted peers have places of their own |
//! | full speed into a slow application | windows, and [`Config::max_inbox`](crate::Config::max_inbox); beyond it nobody new is let in |
//! | descriptors run out | accepting pauses, links live on (`descriptors.rs`) |
//! | shutdown in the middle of all that | joins every thread within its grace (`clean_exit.rs`) |
//! | the wall clock steps | nothing: nobody reads it |
//!
//! # Shared resources
//! Every resource that peers share has an owner, a share that belongs to the peers that the operator named,
//! and a bound for each stranger. A *named* peer was configured or added
//! ([`Node::add_peer`](crate::Node::add_peer)); everybody else is a stranger, also a candidate that this node
//! dialled.
//!
//! | resource | owner | share of named peers | bound of a stranger | at the bound | test |
//! |---|---|---|---|---|---|
//! | queue of a lane ([`LaneConfig::queue`](crate::LaneConfig::queue)) | the link | each peer has its own | the same | `send` waits, `try_send` and `broadcast` return `Full` | `known_cost.rs` |
//! | queues of a peer ([`Config::max_queued_per_peer`](crate::Config::max_queued_per_peer)) | the link | each peer has its own | the same | the same | `known_cost.rs` |
//! | queues of the node ([`Config::max_queued`](crate::Config::max_queued)) | the node | half, less one largest message, in equal parts | a sixteenth of what stays free of the strangers' part (half of what is not guaranteed), or one message | the same; senders of a lane are served in the order in which they came; names that are gone are forgotten if what waits for them is in the way | `known_cost.rs`, `named_peers_first.rs` |
//! | inboxes of the node ([`Config::max_inbox`](crate::Config::max_inbox)) | the node | half; what strangers hold withholds no credit from them | all together half, and half of that in unfinished messages | no credit for strangers whose messages wait, new ones are refused; the one whose unfinished messages took the most memory for the longest time is forgotten | `named_peers_first.rs`, `known_cost.rs`, unit tests of `received` |
//! | events that wait ([`Config::max_events`](crate::Config::max_events)) | the node | half | 32; all strangers together half, and what named peers leave | merged; then the oldest is dropped and counted, one that tells of lost messages last | `named_peers_first.rs`, unit tests |
//! | the application's attention ([`Node::recv`](crate::Node::recv)) | the node | events about named peers take turns with messages | one event about strangers for 16 messages or other events | events about strangers wait; messages do not | `named_peers_first.rs` |
//! | places (also of connections that dial back), strikes ([`AdmissionConfig::reserved`](crate::AdmissionConfig::reserved), [`ConductConfig`](crate::ConductConfig)) | the node | reserved places; strikes disconnect and do not ban | limits per address and subnet; strikes ban, candidates that were dialled too | a further connection makes room for the first one of another peer; else refused, and both applications are told why; or the worst stranger is evicted | `admission.rs`, `told_why.rs` |
//! | rate of connections of an address ([`AdmissionConfig::connects_at_once`](crate::AdmissionConfig::connects_at_once)) | the node | given back once they are let in | 128 at once, then 2 a second | refused; the dialler backs off | `admission.rs` |
//! | threads that read, write and watch the time | the node | no code of the application runs on them | the same | destructors of message bodies and the sink of the log run on a thread of their own | `honest_sends.rs`, `log_is_bounded.rs` |
//! | the log (`info` and above) | the node | 200 lines at once, then 10 a second | all together 20 at once, then one a second | left out; the next line says how many | `log_is_bounded.rs` |
//! | dials under way, with their threads and descriptors ([`Config::max_dials`](crate::Config::max_dials)) | the node | those that were linked before 7/8, an eighth alone; those that never were 3/4 | candidates, and strangers that are dialled back, together 1/8; one each | the dial waits, which is no failure; first dials are short while others wait | unit tests of `roster`, `dial_limit.rs` |
//! | descriptors for further addresses of an entry | the node | half of `max_dials` | 8 a dial, and few dials | the attempt waits for the one before it, or takes its place after 1 s | unit tests of `roster` |
//! | the resolver, and its 32 threads | the node | first, and half alone | half | the dial waits for up to 20 s, literal addresses and `shutdown` do not | unit tests of `node` |
//! | replacements of serving connections ([`Config::max_replacements_per_minute`](crate::Config::max_replacements_per_minute)) | the node | half; what did not help is not repeated on the same path, so none of them uses up that of the others | candidates together half, and the same backoff; so have strangers that are dialled back | the connection serves until its turn comes; dead ones do not wait | unit tests of `roster`, `never_worse.rs` |
//! | window of a lane ([`LaneConfig::window`](crate::LaneConfig::window)) | the link | each peer has its own | the same | no more credit until the application has taken messages; a sender that ignores that is disconnected | `known_cost.rs`, `hostile` |
//!
//! # What is left to the application
//! - **Whom to trust.** Who is let in: [`AdmissionConfig::allow_peers`](crate::AdmissionConfig::allow_peers)
//!   or [`Builder::admit`](crate::Builder::admit). Peers that matter are best given as `id@host:port`: an
//!   address alone is as good as DNS and the path to it.
//! - **What messages mean.** They are whole and come from who they say; they may be wrong. Report it:
//!   [`Node::report`](crate::Node::report).
//! - **Once for all.** A message can be seen by two lives of a receiver, and the same text can be sent twice:
//!   votes need numbers.
//! - **Its own pace.** What is not taken stays in memory. A lane of its own thread
//!   ([`LaneReceiver`](crate::LaneReceiver)) keeps urgent messages from waiting behind the handling of
//!   others.
//! - **Events are hints.** Those about strangers are merged, and dropped when there are too many
//!   ([`Config::max_events`](crate::Config::max_events)): what must be known is asked of
//!   [`Node::peers`](crate::Node::peers). A peer's name ([`PeerSnapshot::name`](crate::PeerSnapshot::name))
//!   is anything that it likes.
//! - **Its key.** Who can read the file is the node. Bans and records are kept where the application keeps
//!   them.
//!
//! # Limits, honestly
//! - **Traffic analysis.** Nothing is padded or delayed. An observer sees sizes and times, and can tell a
//!   vote from a block.
//! - **The protocol can be recognised,** and blocked: the preface is in the open, with the network's name.
//! - **Identities cost nothing.** To ban one deters nobody; limits by address and subnet are what a stranger
//!   with many names meets. An attacker with many subnets takes all places that are not reserved, and within
//!   one lane each of his links gets the same turns as an honest one. Networks that cannot bear that have an
//!   allow list.
//! - **Candidates can be poisoned.** The library remembers and chooses among what
//!   [`Node::learn`](crate::Node::learn) is given, from several subnets, with those first that did well. An
//!   attacker that fills that list decides which peers a node can find; wanted peers are not affected.
//! - **An address may be shared.** A peer that misbehaves in plaintext gets its address banned for 5 minutes,
//!   with all others that dial from there. This node still dials them. Encrypted, the library blames only
//!   names that were proven; failed handshakes are bounded by the limits of addresses and subnets, and blame
//!   nobody, for whoever is on the path can spoil them.
//! - **Bandwidth.** Chunks of 1 KiB and more that came before are dropped, but not counted as a flood, for a
//!   lane that moves sends them honestly. They cost the line as much on both sides. The same holds for credit
//!   byte by byte and records of one byte: they cost him more.
//! - **Handshakes cost processor time,** about as much for both sides. Their number and rate are bounded; an
//!   attacker with many addresses can keep a core busy.
//! - **A chunk is taken whole.** What has arrived of it, up to 1 MiB a connection, counts in no budget until
//!   it is complete, or its 20 s are over.
//! - **Memory is bounded, not small.** By default a stranger may hold 46 MiB here if nobody takes his
//!   messages; a message of no bytes costs about 120. Smaller windows, or a smaller `max_inbox`, are for the
//!   application to choose.
//! - **Not against quantum computers.** X25519 falls to a large one, also for what is recorded today.
//! - **Denial by the network** cannot be prevented, only noticed, told, and waited out.
