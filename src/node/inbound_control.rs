//! The state by which inbound connections are admitted and misbehavior is counted.
//!
//! Admission and conduct have a lock each, held for computations only and never together with another one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::admission::{Admission, Hook};
use crate::bucket::Bucket;
use crate::clock;
use crate::conduct::{Ban, Conduct};
use crate::config::Config;
use crate::lock::{LEAF, Ordered};

/// The application's hook, if there is one.
#[derive(Clone, Default)]
pub(crate) struct AdmitHook(pub(crate) Option<Arc<Hook>>);

impl fmt::Debug for AdmitHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AdmitHook(set)" } else { "AdmitHook(none)" })
    }
}

/// The state of admission and conduct.
pub(crate) struct InboundControl {
    pub(super) admit_hook: AdmitHook,
    /// Protects the connections that are admitted.
    pub(super) admission: Ordered<Admission, LEAF>,
    /// Protects records and bans.
    pub(super) conduct: Ordered<Conduct, LEAF>,
    /// Connections that were refused, and those that were ended for others.
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Protects how many more refusals of strangers the application is told of: of peers that said who they
    /// are, and of connections that did not come so far. A flood of the latter costs next to nothing,
    /// and hides none of the former.
    told: [Ordered<Bucket, LEAF>; 2],
}

impl InboundControl {
    pub(crate) fn new(config: &Config, admit_hook: AdmitHook, secret: u64) -> Self {
        let admission = Admission::new(
            config.admission.clone(),
            config.max_connections,
            config.max_handshakes,
            config.path.handshake_timeout,
            secret,
        );
        InboundControl {
            admit_hook,
            admission: Ordered::new(admission),
            conduct: Ordered::new(Conduct::new(config.conduct.clone())),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            told: [(); 2].map(|()| Ordered::new(Bucket::new(1.0, 20.0))),
        }
    }

    /// Whether the application is told of one more refusal of a stranger.
    pub(crate) fn tells_of_stranger(&self, is_known: bool) -> bool {
        let [known, unknown] = &self.told;
        let bucket = if is_known { known } else { unknown };
        bucket.lock().acquire(1.0, clock::now())
    }

    pub(crate) fn bans(&self) -> Vec<Ban> {
        self.conduct.lock().bans(clock::now())
    }
}
