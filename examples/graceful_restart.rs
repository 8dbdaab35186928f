//! A node is stopped, and started again at its address with its key, while a peer goes on sending to it: each
//! number is taken once, by the first life or by the second one.

use std::error::Error;
use std::time::Duration;
use std::{env, fs, process, thread};

use unbroken::{Builder, NORMAL, Node, Outcome};

const NUMBERS: u64 = 200;
/// The first life takes so many.
const FIRST: u64 = 80;
const TIMEOUT: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let key = env::temp_dir().join(format!("unbroken-restart-{}.key", process::id()));
    let builder = || Node::builder().identity_file(&key);
    let result = run(builder);
    fs::remove_file(&key)?;
    result
}

fn run(builder: impl Fn() -> Builder) -> Result<(), Box<dyn Error>> {
    let receiver = builder().listen("127.0.0.1:0".parse()?).start()?;
    let (id, address) = (receiver.id(), *receiver.local_addrs().first().ok_or("nobody listens")?);
    let sender = Node::builder().peer(address.to_string()).start()?;
    sender.wait_linked(id, TIMEOUT)?;

    let sending = thread::Builder::new().name("sender".into()).spawn({
        let sender = sender.clone();
        move || {
            let send = |number: u64| sender.send(id, (NORMAL, number.to_le_bytes().to_vec()));
            (0..NUMBERS).map(send).collect::<Result<Vec<_>, _>>()
        }
    })?;

    let mut numbers = Vec::new();
    take(&receiver, FIRST, &mut numbers)?;
    // Says goodbye, so that the peer waits for it and does not suspect its own path. What was received and
    // not taken is sent again to the next life.
    receiver.shutdown(Duration::from_secs(1));
    println!("the first life took {} numbers and has ended", numbers.len());

    let receiver = builder().listen(address).start()?;
    take(&receiver, NUMBERS - FIRST, &mut numbers)?;
    println!("the second life took {}", numbers.len() as u64 - FIRST);

    if !numbers.iter().copied().eq(0..NUMBERS) {
        return Err(format!("not each number once and in order: {numbers:?}").into());
    }
    for receipt in sending.join().map_err(|_| "the sending thread panicked")?? {
        match receipt.wait_timeout(TIMEOUT) {
            Some(Outcome::Taken) => {}
            other => return Err(format!("a receipt says {other:?}").into()),
        }
    }
    println!("all {NUMBERS} numbers were taken once and in order, and the sender knows it");
    Ok(())
}

/// Takes so many numbers.
fn take(node: &Node, count: u64, numbers: &mut Vec<u64>) -> Result<(), Box<dyn Error>> {
    let receiver = node.lane_receiver(NORMAL).ok_or("no normal lane")?;
    for _ in 0..count {
        let number = receiver.recv_timeout(TIMEOUT)?.ok_or("a number is late")?.into_bytes();
        numbers.push(u64::from_le_bytes(number.as_ref().try_into()?));
    }
    Ok(())
}
