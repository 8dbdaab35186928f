//! A request that waits for its reply.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::clock;
use crate::message::Payload;
use crate::outcome::{DropReason, RequestError};
use crate::receipt::Receipt;

use super::link::{LinkHandle, Waiter};

/// A request that waits for its reply. Dropping it cancels the request.
#[derive(Debug)]
pub struct PendingReply {
    pub(crate) link: Arc<LinkHandle>,
    pub(crate) id: u64,
    pub(crate) waiter: Waiter,
    pub(crate) receipt: Receipt,
}

impl PendingReply {
    /// Waits for the reply. Ends at the latest with the request's deadline.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn wait(self) -> Result<Payload, RequestError> {
        self.waiter.wait(None, Option::take).flatten().unwrap_or(LOST)
    }

    /// Waits for the reply, at most for `timeout`. `None` when it has not come by then: the request goes on.
    /// The reply is returned once; after that this returns an error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{Event, NORMAL, Node, RequestError};
    ///
    /// let server = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// let address = server.local_addrs()[0].to_string();
    /// let client = Node::builder().peer(address).start()?;
    /// client.wait_linked(server.id(), Duration::from_secs(30))?;
    ///
    /// let height = client.request(server.id(), (NORMAL, "height"))?;
    /// assert!(height.wait_timeout(Duration::from_millis(1)).is_none());
    /// for event in server.events() {
    ///     if let Event::Message(mut message) = event {
    ///         message.reply("42")?;
    ///         break;
    ///     }
    /// }
    /// let reply = height.wait_timeout(Duration::from_secs(10)).expect("a reply within 10 s")?;
    /// assert_eq!(reply.into_bytes(), "42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Says why there is none.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Payload, RequestError>> {
        let ended = self.waiter.wait(clock::now().checked_add(timeout), Option::take)?;
        Some(ended.unwrap_or(LOST))
    }

    /// The reply, if it has come. It is given once.
    pub fn poll(&self) -> Option<Result<Payload, RequestError>> {
        self.waiter.poll(Option::take).flatten()
    }

    /// A channel for `crossbeam_channel::select!`: when the request has ended it gets one token and is
    /// disconnected, so everybody who selects on it wakes up, with a token or an error.
    pub fn ready(&self) -> Receiver<()> {
        self.waiter.ready()
    }

    /// The receipt of the request itself. It ends with the reply, or within the peer's
    /// [`Config::ack_delay`](crate::Config::ack_delay) after its application has received the request.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

/// A reply that was taken out before.
const LOST: Result<Payload, RequestError> = Err(RequestError::Dropped(DropReason::Shutdown));

impl Drop for PendingReply {
    fn drop(&mut self) {
        if self.waiter.poll(|_| ()).is_none() {
            self.link.cancel(self.id);
        }
    }
}
