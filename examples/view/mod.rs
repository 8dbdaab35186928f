//! Serves the live view of a node to dashboards on the same machine (`examples/dashboard`), over a Unix
//! domain socket. The lines on it: [`wire`].
//!
//! **Anyone who may open the socket may command the node**: ping, replace, disconnect, ban. Its file has mode
//! 0600, so that is the user who runs the node, and root.
//!
//! Not an example by itself: `examples/node` and `examples/cluster` include it.

#![allow(clippy::disallowed_macros, reason = "a part of applications: its lines have their target")]

#[cfg(unix)]
mod server;
#[cfg(unix)]
mod wire;

#[cfg(unix)]
pub(crate) use server::View;

/// There are no such sockets here.
#[cfg(not(unix))]
pub(crate) enum View {}

#[cfg(not(unix))]
impl View {
    pub(crate) fn serve(_node: &unbroken::Node, path: &std::path::Path) -> std::io::Result<View> {
        let why = format!("cannot serve {path:?}: expected a system with Unix domain sockets");
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, why))
    }

    pub(crate) fn event(&self, _peer: Option<unbroken::PeerId>, _event: &str, _text: &str) {
        match *self {}
    }
}
