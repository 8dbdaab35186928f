//! Runs the faults of a family at once, and makes the table of what they did.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crate::net::Net;
use crate::support::cluster::skip;

/// What a fault did.
pub(crate) struct Row {
    /// The longest that a vote took after the fault, each way.
    pub(crate) to_b: Duration,
    pub(crate) to_a: Duration,
    /// What was allowed.
    pub(crate) bound: Duration,
    /// Votes and blocks that were taken.
    pub(crate) messages: usize,
    /// Messages that a restarted receiver got again.
    pub(crate) again: usize,
    pub(crate) resent: u64,
    pub(crate) reconnects: u64,
    /// Connections that were relieved by a successor while they still served.
    pub(crate) replaced: usize,
}

/// A fault: what it did, or why it cannot be made here. It fails by panicking.
pub(crate) type Fault<R = Row> = fn(Net) -> Result<R, String>;

/// One line of a table.
pub(crate) trait Line {
    fn heading() -> String;
    fn line(&self, name: &str) -> String;
}

pub(crate) fn run<R: Line + Send + 'static>(faults: &[(&'static str, Fault<R>)]) {
    let only = std::env::var("UNBROKEN_FAULT").unwrap_or_default();
    let faults: Vec<_> = faults.iter().filter(|(name, _)| name.contains(&only)).copied().collect();
    let runs = faults.iter().map(|(name, fault)| {
        let fault = *fault;
        let run = move || catch_unwind(AssertUnwindSafe(|| fault(Net::new()?)));
        (*name, thread::Builder::new().name((*name).into()).spawn(run).unwrap())
    });
    let runs: Vec<_> = runs.collect();
    let mut table = R::heading();
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    for (name, run) in runs {
        match run.join().unwrap() {
            Ok(Ok(row)) => table += &row.line(name),
            Ok(Err(why)) => {
                table += &format!("| {name:<44} | skipped\n");
                skipped.push(why);
            }
            Err(_) => {
                table += &format!("| {name:<44} | FAILED\n");
                failed.push(name);
            }
        }
    }
    // In one piece: other tests print at the same time.
    let _ = std::io::stdout().flush();
    println!("\n{table}");
    skipped.sort();
    skipped.dedup();
    skipped.iter().for_each(|why| skip(why));
    let required = std::env::var("UNBROKEN_NETNS").is_ok_and(|value| value == "required");
    assert!(!required || skipped.is_empty(), "skipped: {skipped:?}");
    assert!(failed.is_empty(), "{failed:?}");
}

impl Line for Row {
    fn heading() -> String {
        let columns =
            ["fault", "to b", "to a", "bound", "messages", "again", "resent", "reconnects", "replaced"];
        let [fault, to_b, to_a, bound, messages, again, resent, reconnects, replaced] = columns;
        format!(
            "| {fault:<44} | {to_b:>9} | {to_a:>9} | {bound:>9} | {messages} | {again} | {resent:>9} | {reconnects} | {replaced} |\n"
        )
    }

    fn line(&self, name: &str) -> String {
        let millis = |time: Duration| format!("{} ms", time.as_millis());
        format!(
            "| {name:<44} | {:>9} | {:>9} | {:>9} | {:>8} | {:>5} | {:>9} | {:>10} | {:>8} |\n",
            millis(self.to_b),
            millis(self.to_a),
            millis(self.bound),
            self.messages,
            self.again,
            self.resent,
            self.reconnects,
            self.replaced
        )
    }
}
