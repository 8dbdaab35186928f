//! Children that run a test of this very binary.

#![allow(unsafe_code, reason = "a second opinion from the kernel, not through the code under test")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use unbroken_test_support::process::Child;
use unbroken_test_support::rig::*;

const ROLE: &str = "CHILD_ROLE";

/// Not a test, unless the environment says so: what the children do.
#[test]
fn child_main() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "echo" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            println!("\nlistening {}", listener.local_addr().unwrap());
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) {
                    stream.write_all(&byte).unwrap();
                }
            }
        }
        "lines" => {
            for line in std::io::stdin().lines() {
                println!("\ngot {}", line.unwrap());
            }
            std::process::exit(7);
        }
        "parent" => {
            let child = spawn("echo");
            println!("\ngrandchild {}", child.pid());
            std::thread::sleep(Duration::from_secs(600));
        }
        _ => unreachable!(),
    }
}

fn spawn(role: &str) -> Child {
    let mut command = Child::current_exe().unwrap();
    command.args(["process::child_main", "--exact", "--nocapture"]);
    command.env(ROLE, role);
    Child::spawn(command).unwrap()
}

fn word_after(child: &mut Child, start: &str) -> String {
    let line = child.wait_line(LONG, |line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("{:?}", child.skipped()));
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_frozen_child_acknowledges_and_does_nothing() {
    let mut child = spawn("echo");
    let addr = word_after(&mut child, "listening");
    let mut stream = connect(addr.parse().unwrap());
    stream.write_all(b"1").unwrap();
    expect(&stream, b"1");
    for _ in 0..3 {
        child.freeze().unwrap();
        stream.write_all(b"2").unwrap();
        expect_silence(&stream);
        assert_eq!(unacknowledged(&stream), 0);
        child.thaw().unwrap();
        expect(&stream, b"2");
    }
    assert_eq!(child.wait_exit(ms(10)).unwrap(), None);
    child.freeze().unwrap();
    assert_eq!(child.kill().unwrap().signal(), Some(libc::SIGKILL));
    assert!(matches!((&stream).read(&mut [0]), Ok(0) | Err(_)));
    assert!(child.freeze().is_err());
    assert!(TcpStream::connect(&addr).is_err());
    assert_eq!(child.kill().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn terminate_and_wait() {
    let mut child = spawn("echo");
    word_after(&mut child, "listening");
    child.terminate().unwrap();
    let status = child.wait_exit(LONG).unwrap().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    assert_eq!(child.wait_exit(LONG).unwrap(), Some(status));
    assert_eq!(child.wait_line(LONG, |_| false), None);
}

#[test]
fn lines_in_and_out() {
    let mut child = spawn("lines");
    child.send_line("a").unwrap();
    child.send_line("b").unwrap();
    assert_eq!(word_after(&mut child, "got b"), "b");
    assert!(child.skipped().iter().any(|line| line == "got a"));
    child.send_line("c").unwrap();
    child.close_stdin();
    let rest: Vec<String> = child.lines().iter().collect();
    assert!(rest.iter().any(|line| line == "got c"));
    let status = child.wait_exit(LONG).unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn any_command() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $GREETING; exec sleep 600"]);
    command.env("GREETING", "hello");
    let mut child = Child::spawn(command).unwrap();
    assert_eq!(child.wait_line(LONG, |_| true).as_deref(), Some("hello"));
    assert!(Child::spawn(Command::new("/nonexistent")).is_err());
}

/// A child outlives the thread that asked for it, and not the process.
#[test]
fn children_die_with_their_parent_process_only() {
    let spawned = std::thread::spawn(|| spawn("parent"));
    let mut child = spawned.join().unwrap();
    let pid: i32 = word_after(&mut child, "grandchild").parse().unwrap();
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    assert!(fd >= 0, "the grandchild is alive");
    let mut slot = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(unsafe { libc::poll(&mut slot, 1, 100) }, 0);
    child.kill().unwrap();
    assert_eq!(unsafe { libc::poll(&mut slot, 1, 60_000) }, 1);
    unsafe { libc::close(fd) };
}
