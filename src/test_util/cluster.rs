//! Several nodes in one process, with a proxy on each path.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock;
use crate::config::Announce;
use crate::id::Identity;
use crate::node::{Builder, Node, StartError, WaitError};

use super::FaultProxy;

/// Nodes of this process that are all linked with each other, each pair by a path with a [`FaultProxy`] on
/// it.
///
/// The later one of two nodes dials. The other one never dials back ([`Announce::Nothing`]): it would go
/// round the proxy. Dropping the cluster shuts all nodes down.
pub struct Cluster {
    nodes: Vec<Node>,
    identities: Vec<Identity>,
    make: Box<dyn Fn(usize) -> Builder + Send>,
    /// By the node that listens, and the later one that dials it.
    paths: BTreeMap<(usize, usize), FaultProxy>,
}

impl Cluster {
    /// Starts `count` nodes. `make` returns the builder of each, by its index, with everything that the
    /// program under test would set but the identity, listeners, peers and
    /// [`Config::announce`](crate::Config::announce).
    ///
    /// # Errors
    /// Those of [`Builder::start`], and of binding a port or starting a thread for a proxy.
    pub fn start(
        count: usize,
        make: impl Fn(usize) -> Builder + Send + 'static,
    ) -> Result<Cluster, StartError> {
        let system = |error| StartError::System("random numbers", error);
        let identities =
            (0..count).map(|_| Identity::generate().map_err(system)).collect::<Result<_, _>>()?;
        let paths = BTreeMap::new();
        let mut cluster = Cluster { nodes: Vec::new(), identities, make: Box::new(make), paths };
        for index in 0..count {
            let node = cluster.make_node(index)?;
            for later in index + 1..count {
                let proxy = FaultProxy::start(address(&node));
                let proxy = proxy.map_err(|error| StartError::System("a proxy", error))?;
                cluster.paths.insert((index, later), proxy);
            }
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    fn make_node(&self, index: usize) -> Result<Node, StartError> {
        let builder = (self.make)(index).configure(|config| config.announce = Announce::Nothing);
        let mut builder = builder.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        if let Some(identity) = self.identities.get(index) {
            builder = builder.identity(identity.clone());
        }
        let dials = self.paths.iter().filter(|((_, dialer), _)| *dialer == index);
        builder.peers(dials.map(|(_, proxy)| proxy.addr().to_string())).start()
    }

    /// The nodes, in the order of their indices.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The path between two nodes, in either order. `None` if there are no such nodes.
    pub fn path(&self, a: usize, b: usize) -> Option<&FaultProxy> {
        self.paths.get(&(a.min(b), a.max(b)))
    }

    /// All paths that lead to or from this node.
    pub fn paths_of(&self, node: usize) -> impl Iterator<Item = &FaultProxy> {
        self.paths.iter().filter(move |((a, b), _)| [*a, *b].contains(&node)).map(|(_, proxy)| proxy)
    }

    /// Waits until each node is linked with each other one, at most for `timeout`.
    ///
    /// # Errors
    /// [`WaitError`] of the first node that is not linked with one of the others.
    pub fn wait_linked(&self, timeout: Duration) -> Result<(), WaitError> {
        let deadline = clock::after(timeout);
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.id() != node.id()) {
                node.wait_linked(other.id(), deadline.saturating_duration_since(clock::now()))?;
            }
        }
        Ok(())
    }

    /// Makes everything vanish that this node and the others send to each other, new connections included.
    /// Returns false if the kernel cannot do that ([`FaultProxy::black_hole`]); then undo it by
    /// [`Cluster::rejoin`].
    #[must_use = "without TCP_MD5SIG nothing happens"]
    pub fn isolate(&self, node: usize) -> bool {
        self.paths_of(node).all(|path| path.black_hole_new(true) && path.black_hole())
    }

    /// Ends [`Cluster::isolate`].
    pub fn rejoin(&self, node: usize) {
        self.paths_of(node).for_each(FaultProxy::heal);
    }

    /// Shuts a node down within `grace` and starts it again: the same identity, at another port to which its
    /// paths lead from now on, and with no memory of its own. All that the program under test has of the old
    /// node, its receivers among it, is closed. Without grace, and with [`FaultProxy::reset_all`] of its
    /// paths before, this is what the others see when a process is killed.
    ///
    /// # Errors
    /// Those of [`Builder::start`]. An index that has no node does nothing.
    pub fn restart(&mut self, node: usize, grace: Duration) -> Result<(), StartError> {
        if let Some(old) = self.nodes.get(node) {
            old.shutdown(grace);
            let new = self.make_node(node)?;
            let listens = self.paths.iter().filter(|((listener, _), _)| *listener == node);
            listens.for_each(|(_, path)| path.retarget(address(&new)));
            if let Some(slot) = self.nodes.get_mut(node) {
                *slot = new;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.shutdown(Duration::ZERO));
    }
}

/// The one address at which a node of a cluster listens.
fn address(node: &Node) -> SocketAddr {
    node.local_addrs().first().copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}
