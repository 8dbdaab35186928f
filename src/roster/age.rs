//! When a connection has become old.

use std::time::{Duration, Instant};

use crate::id::ConnId;

/// When a connection that was opened then is to be replaced: after `max_age`, up to 20 % earlier or later,
/// decided once for each connection, so that connections made together do not end together.
pub(crate) fn aged_at(opened: Instant, max_age: Duration, conn: ConnId, seed: u64) -> Instant {
    let draw = fastrand::Rng::with_seed(seed ^ conn.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)).f64();
    opened + max_age.mul_f64(0.8 + 0.4 * draw)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn spread_over_forty_percent_and_the_same_each_time() {
        let opened = Instant::now();
        let age = |conn| aged_at(opened, Duration::from_secs(100), ConnId(conn), 7) - opened;
        let ages: Vec<_> = (0..1000).map(age).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(80) && *least < Duration::from_secs(82), "{least:?}");
        assert!(*most <= Duration::from_secs(120) && *most > Duration::from_secs(118), "{most:?}");
        assert_eq!(ages, (0..1000).map(age).collect::<Vec<_>>());
    }
}
