//! The kernel's statistics of a connection: TCP_INFO of tcp(7), by getsockopt(2).
//!
//! The one module with unsafe code: no crate that is kept well gives the fields that came late. Kernels
//! differ in how much they know; each field is taken only if the kernel has filled it. Cheap enough for a
//! monitor (5 us per call, measured).
#![allow(unsafe_code)]

use socket2::Socket;

use crate::health::kernel::KernelSample;

/// The kernel's statistics of this connection. `None` where there are none: other systems, no TCP socket.
#[cfg(target_os = "linux")]
pub(crate) fn read(socket: &Socket) -> Option<KernelSample> {
    let mut info = [0; LONGEST];
    parse(fill(socket, &mut info)?)
}

/// The segments of any kind received so far (`tcpi_segs_in`), where the kernel tells (Linux 4.2).
#[cfg(all(feature = "test-util", target_os = "linux"))]
pub(crate) fn segments_in(socket: &Socket) -> Option<u32> {
    let mut info = [0; LONGEST];
    Some(u32::from_ne_bytes(*fill(socket, &mut info)?.get(140..)?.first_chunk()?))
}

/// Linux 6.18 fills 248 bytes; what a later kernel adds is cut off.
#[cfg(target_os = "linux")]
const LONGEST: usize = 256;

/// Returns the part that the kernel has filled.
#[cfg(target_os = "linux")]
fn fill<'a>(socket: &Socket, info: &'a mut [u8; LONGEST]) -> Option<&'a [u8]> {
    use std::os::fd::AsRawFd;

    let mut length = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed. The kernel writes at most `length`
    // bytes to `info`, which is that long, and any bytes are valid there; it writes how many to `length`.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return None;
    }
    info.get(..usize::try_from(length).ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read(_: &Socket) -> Option<KernelSample> {
    None
}

/// Takes the fields at their places in `struct tcp_info` of linux/tcp.h, where fields are only ever added at
/// the end. `None` if it ends before the first 104 bytes, which every kernel since 2.6 has.
#[cfg(target_os = "linux")]
fn parse(info: &[u8]) -> Option<KernelSample> {
    let byte = |at: usize| info.get(at).copied();
    let u32 = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let u64 = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let from_micros = |micros: u64| micros as f64 / 1000.0;
    let sample = KernelSample {
        retransmits: byte(2)?,
        backoff: byte(4)?,
        snd_mss: u32(16)?,
        unacked: u32(24)?,
        last_data_recv_ms: u32(52)?.into(),
        last_ack_recv_ms: u32(56)?.into(),
        rtt_ms: from_micros(u32(68)?.into()),
        total_retrans: u32(100)?,
        bytes_acked: u64(120),
        notsent_bytes: u32(144),
        // All ones until there was a round trip.
        min_rtt_ms: u32(148).filter(|micros| *micros != u32::MAX).map(|micros| from_micros(micros.into())),
        data_segs_out: u32(156),
        busy_ms: u64(168).map(from_micros),
        rwnd_limited_ms: u64(176).map(from_micros),
        sndbuf_limited_ms: u64(184).map(from_micros),
        bytes_sent: u64(200),
        bytes_retrans: u64(208),
        snd_wnd: u32(228),
    };
    Some(sample)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use std::os::fd::AsRawFd;

    use super::*;
    use crate::clock;
    use crate::health::liveness::{Limits, Liveness, LivenessEvent};
    use crate::health::score::ConnScore;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours.into(), listener.accept().unwrap().0)
    }

    /// Samples until `is` says yes: acknowledgements take their time (delayed ones up to 40 ms).
    fn until(socket: &Socket, what: &str, is: impl Fn(&KernelSample) -> bool) -> KernelSample {
        let deadline = clock::now() + Duration::from_secs(5);
        loop {
            let sample = read(socket).unwrap();
            if is(&sample) {
                return sample;
            }
            assert!(clock::now() < deadline, "not {what}: {sample:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_figures_move_when_data_flows() {
        let (mut ours, mut theirs) = pair();
        let before = read(&ours).unwrap();
        ours.write_all(&[7; 10_000]).unwrap();
        theirs.read_exact(&mut [0; 10_000]).unwrap();
        let after = until(&ours, "acknowledged", |sample| {
            sample.unacked == 0 && sample.bytes_acked >= before.bytes_acked.map(|bytes| bytes + 10_000)
        });
        assert_eq!(
            after.bytes_acked.zip(before.bytes_acked).map(|(after, before)| after - before),
            Some(10_000)
        );
        // The SYN counts as acknowledged.
        assert_eq!((after.bytes_sent, after.written()), (Some(10_000), Some(10_001)));
        assert!(after.data_segs_out > before.data_segs_out, "{after:?}");
        assert!((0.001..1000.0).contains(&after.rtt_ms), "{after:?}");
        assert!(after.min_rtt_ms.is_some_and(|least| least > 0.0 && least < 1000.0), "{after:?}");
        assert!(after.busy_ms.is_some() && after.bytes_retrans == Some(0), "{after:?}");
        assert_eq!((after.notsent_bytes, after.retransmits, after.backoff), (Some(0), 0, 0), "{after:?}");
        assert!(after.snd_wnd.is_some_and(|window| window > 10_000), "{after:?}");

        theirs.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
        let heard = read(&ours).unwrap();
        assert!(heard.last_data_recv_ms < 1000.0 && heard.last_ack_recv_ms < 1000.0, "{heard:?}");
    }

    #[test]
    fn a_peer_that_does_not_read_closes_its_window_and_data_waits() {
        let (mut ours, mut theirs) = pair();
        let open = read(&ours).unwrap().snd_wnd.unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut written = 0;
        let chunk = vec![7; 1 << 20];
        let full = loop {
            match ours.write(&chunk) {
                Ok(count) => written += count,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            let sample = read(&ours).unwrap();
            if sample.unacked == 0 && sample.notsent_bytes > Some(100_000) {
                break sample;
            }
            assert!(written < 1 << 30, "{sample:?}");
        };
        assert!(full.snd_wnd.is_some_and(|window| window < open / 2), "{open} {full:?}");
        let full = until(&ours, "limited", |sample| sample.rwnd_limited_ms > Some(1.0));

        let mut left = written;
        let mut to = vec![0; 1 << 20];
        while left > 0 {
            left -= theirs.read(&mut to).unwrap();
        }
        let empty = until(&ours, "empty", |sample| sample.notsent_bytes == Some(0) && sample.unacked == 0);
        assert!(empty.snd_wnd > full.snd_wnd && empty.bytes_acked > full.bytes_acked, "{empty:?}");
    }

    #[test]
    fn an_older_kernel_gives_less_and_another_socket_nothing() {
        let info = [1u8; 256];
        assert_eq!(parse(&info[..103]), None);
        let least = parse(&info[..104]).unwrap();
        assert_eq!((least.unacked, least.bytes_acked), (0x0101_0101, None));
        // Linux 4.6, which has segments and min_rtt; 4.10, which has times; 5.4, which has the window.
        let sample = parse(&info[..168]).unwrap();
        assert!(sample.data_segs_out.is_some() && sample.busy_ms.is_none(), "{sample:?}");
        let sample = parse(&info[..192]).unwrap();
        assert!(sample.sndbuf_limited_ms.is_some() && sample.bytes_retrans.is_none(), "{sample:?}");
        assert!(parse(&info[..228]).unwrap().snd_wnd.is_none());
        assert!(parse(&info[..232]).unwrap().snd_wnd.is_some());
        assert_eq!(read(&UdpSocket::bind("127.0.0.1:0").unwrap().into()), None);
    }

    /// Drops all segments of this socket, or no longer: those without a signature (TCP_MD5SIG_EXT of
    /// linux/tcp.h) are not for it. False where the kernel has none.
    fn set_hole(socket: &impl AsRawFd, on: bool) -> bool {
        // struct tcp_md5sig: the address (family first), flags (1: a prefix), its length, the key's, the key.
        let mut option = [0u8; 216];
        option[..2].copy_from_slice(&2u16.to_ne_bytes());
        option[128] = 1;
        option[130..132].copy_from_slice(&u16::from(on).to_ne_bytes());
        option[136] = b'k';
        // SAFETY: pointer and length describe `option`, which outlives the call.
        let done = unsafe {
            let length = option.len() as libc::socklen_t;
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, 32, option.as_ptr().cast(), length)
        };
        done == 0
    }

    #[test]
    fn a_real_hole_makes_suspect_although_bytes_arrive_and_ends_with_it() {
        let (mut ours, mut theirs) = pair();
        if !set_hole(&theirs, true) {
            println!("skipped: this kernel has no TCP_MD5SIG");
            return;
        }
        let second = Duration::from_secs(1);
        let limits =
            Limits { ping_interval: 60 * second, suspect_after: second / 2, dead_after: 120 * second };
        let start = clock::now();
        let mut liveness = Liveness::new(limits, start, 7);
        let mut score = ConnScore::new(start);
        assert!(matches!(liveness.poll(start), Some(LivenessEvent::Ping(_))));
        ours.write_all(&[7; 10_000]).unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(20))).unwrap();

        let mut sample_until = |what: &str, verdict| {
            let begun = clock::now();
            loop {
                // Nothing comes: this is the time between two samples.
                assert!(ours.read(&mut [0]).is_err());
                let now = clock::now();
                // As far as the application's side of it can tell, the peer speaks on.
                liveness.handle_received(now);
                let sample = read(&ours).unwrap();
                liveness.handle_kernel(&sample, now);
                score.handle_kernel(&sample, now);
                match liveness.poll(now) {
                    None => assert!(now < begun + 20 * second, "not {what}: {sample:?}"),
                    found => {
                        assert_eq!(found, Some(verdict), "{sample:?}");
                        return (now - begun, score.parts(now));
                    }
                }
            }
        };
        let (took, parts) = sample_until("suspect", LivenessEvent::Suspect);
        assert!(took >= second / 2 && took < 5 * second, "{took:?}");
        assert!(parts.path <= 0.5, "{parts:?}");
        assert!(set_hole(&theirs, false));
        let (_, parts) = sample_until("recovered", LivenessEvent::Recovered);
        assert!(parts.path > 0.9, "{parts:?}");
        theirs.read_exact(&mut [0; 10_000]).unwrap();
    }
}
