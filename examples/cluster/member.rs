//! One node process, as its parent sees it.

use std::io;
use std::net::SocketAddr;

use crate::node::{Role, VIEW};
use crate::wire::LinkFigures;
use unbroken_test_support::process::Child;

pub(crate) struct Member {
    pub(crate) child: Child,
    pub(crate) role: Role,
    /// Where it listens, once it has said so.
    pub(crate) addr: Option<SocketAddr>,
    /// It has had links to all peers and sends.
    pub(crate) linked: bool,
    pub(crate) frozen: bool,
    /// The links that are up, by what the node said last.
    pub(crate) links: Vec<bool>,
    /// The last state of its links that it reported, and when.
    pub(crate) figures: Vec<Option<(u64, LinkFigures)>>,
    /// Connections that this node had dialled and that were replaced, for each peer.
    pub(crate) replaced: Vec<u64>,
    /// It was told to end.
    pub(crate) quitting: bool,
    /// It was killed, or closed its output.
    pub(crate) gone: bool,
}

impl Member {
    /// Starts a node in a process of its own.
    pub(crate) fn start(role: Role) -> io::Result<Member> {
        let mut command = Child::current_exe()?;
        let (name, value) = role.to_environment();
        command.env(name, value);
        command.envs(role.view.as_ref().map(|dir| (VIEW, dir)));
        let nodes = role.nodes;
        let child = Child::spawn(command)?;
        Ok(Member {
            child,
            role,
            addr: None,
            linked: false,
            frozen: false,
            links: vec![false; nodes],
            figures: vec![None; nodes],
            replaced: vec![0; nodes],
            quitting: false,
            gone: false,
        })
    }

    /// In a word, for the table.
    pub(crate) fn state(&self) -> &'static str {
        match (self.gone, self.frozen, self.linked) {
            (true, ..) if self.quitting => "ended",
            (true, ..) => "dead",
            (_, true, _) => "frozen",
            (_, _, false) => "starting",
            _ => "runs",
        }
    }
}
