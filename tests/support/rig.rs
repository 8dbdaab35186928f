//! A proxy with a listening target, and checks on plain std sockets.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;

use unbroken::test_util::{FaultProxy, black_hole_supported};

/// Far longer than anything takes, so that only a hang runs into it.
pub const LONG: Duration = Duration::from_secs(60);
/// How long nothing must happen: a false pass is possible on a busy machine, a false alarm is not.
pub const QUIET: Duration = Duration::from_millis(300);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub struct Rig {
    pub proxy: FaultProxy,
    pub target: TcpListener,
}

impl Rig {
    pub fn new() -> Rig {
        let target = listener();
        let proxy = FaultProxy::start(target.local_addr().unwrap()).unwrap();
        Rig { proxy, target }
    }

    /// A connected flow: the client's end and the target's.
    pub fn connect(&self) -> (TcpStream, TcpStream) {
        let before = self.proxy.stats().connected;
        let client = connect(self.proxy.addr());
        let target = accept(&self.target);
        assert!(self.proxy.wait_until(LONG, |s| s.connected > before));
        (client, target)
    }
}

pub fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Bounds accept, too.
    SockRef::from(&listener).set_read_timeout(Some(LONG)).unwrap();
    listener
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    prepare(listener.accept().unwrap().0)
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    prepare(TcpStream::connect_timeout(&addr, LONG).unwrap())
}

fn prepare(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Reads exactly these bytes.
#[track_caller]
pub fn expect(mut stream: &TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert!(read == bytes);
}

#[track_caller]
pub fn expect_eof(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[track_caller]
pub fn expect_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// Nothing arrives: no byte, no FIN, no RST.
#[track_caller]
pub fn expect_silence(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    stream.set_read_timeout(Some(LONG)).unwrap();
}

/// Bytes written that the peer's kernel has not acknowledged.
#[allow(unsafe_code, reason = "one ioctl that std does not have")]
pub fn unacknowledged(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    assert_eq!(unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) }, 0);
    bytes as usize
}

/// Writes until nothing has been accepted for a while. How many bytes the far kernel, and whatever
/// is behind it, has taken.
pub fn fill(mut stream: &TcpStream) -> usize {
    use std::io::Write;
    stream.set_write_timeout(Some(QUIET)).unwrap();
    let mut written = 0;
    loop {
        match stream.write(&[7; 4096]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(Some(LONG)).unwrap();
    written - unacknowledged(stream)
}

/// For tests that need black holes: false, with a printed reason, where the kernel has none.
pub fn can_black_hole() -> bool {
    if !black_hole_supported() {
        eprintln!("skipped: the kernel refuses TCP_MD5SIG");
    }
    black_hole_supported()
}

/// Bytes that differ from their neighbours, near and far.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}
