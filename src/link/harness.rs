//! Drives a link core without threads: shared by the simulation, the fuzz targets and the benches.

use std::time::Instant;

use crate::id::ConnId;
use crate::link::{Link, Output, Token, Transmit, Writes};
use crate::wire::batch::Batch;
use crate::wire::frame::Frame;
use crate::wire::reader::{FrameReader, ReadError};

/// The sender's half of a receipt: the number of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: usize,
    pub(crate) awaited: bool,
}

impl Token for Numbered {
    fn skip(self, count: usize) -> Self {
        Numbered { number: self.number + count, ..self }
    }
}

/// A link whose waiters are the numbers of requests.
pub(crate) type Core = Link<Numbered, usize>;
pub(crate) type Fx = Output<Numbered, usize>;

#[cfg(test)]
impl Token for bool {
    fn skip(self, _: usize) -> Self {
        self
    }
}

/// A link with these settings, without a connection.
#[cfg(test)]
pub(crate) fn link(config: &crate::config::Config) -> Link<bool, ()> {
    use crate::id::PeerId;

    let (us, peer) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
    Link::new(config.link_settings(&config.path, us, peer), 1)
}

/// The next write of a connection. Panics if its writer would spin.
pub(crate) fn write(
    link: &mut Core,
    conn: ConnId,
    writes: Writes,
    now: Instant,
    output: &mut Fx,
) -> (Vec<u8>, Transmit) {
    let (mut batch, mut bytes) = (Batch::default(), Vec::new());
    let transmit = link.poll_transmit(conn, writes, now, &mut batch, |tokens| tokens.first.awaited, output);
    batch.copy(0..batch.len(), &mut bytes);
    assert_eq!(bytes.len(), batch.len());
    if let Transmit::Continue { at: Some(at), .. } = transmit {
        assert!(!bytes.is_empty() || at > now, "an idle writer that is not to sleep spins");
    }
    (bytes, transmit)
}

/// The frames of what a link wrote, one by one.
pub(crate) fn for_each_frame(bytes: &[u8], mut act: impl FnMut(Frame)) {
    let mut reader = FrameReader::new(bytes);
    loop {
        match reader.next_buffered() {
            Ok(Some(frame)) => act(frame),
            Ok(None) => match reader.fill() {
                Ok(_) => {}
                Err(ReadError::Eof) => return,
                Err(error) => unreachable!("what was written cannot be read: {error:?}"),
            },
            Err(error) => unreachable!("what was written cannot be read: {error:?}"),
        }
    }
}
