//! Runs the faults of a family at once, and makes the table of what they did.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crate::net::{Net, may_use};
use unbroken_test_support::cluster::skip;

/// The effect of a fault.
pub(crate) struct Row {
    /// The longest that a vote took after the fault, each way.
    pub(crate) to_b: Duration,
    pub(crate) to_a: Duration,
    /// The effect that was allowed.
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

/// A case of a test: its name and what it does.
pub(crate) type Case<R = Row> = (&'static str, Fault<R>);

/// Runs all under the machine's congestion control.
pub(crate) fn run<R: Line + Send + 'static>(faults: &[Case<R>]) {
    run_all(faults.iter().map(|(name, fault)| (String::from(*name), *fault, None)).collect());
}

/// Runs each under each of these congestion controls that a namespace may use here.
pub(crate) fn run_under<R: Line + Send + 'static>(controls: &[&'static str], faults: &[Case<R>]) {
    for control in controls {
        match may_use(control) {
            Ok(()) => {
                let case = |(name, fault): &Case<R>| (format!("{name}, {control}"), *fault, Some(*control));
                run_all(faults.iter().map(case).collect());
            }
            Err(why) => skip(&why),
        }
    }
}

fn run_all<R: Line + Send + 'static>(mut faults: Vec<(String, Fault<R>, Option<&'static str>)>) {
    let only = std::env::var("UNBROKEN_FAULT").unwrap_or_default();
    faults.retain(|(name, ..)| name.contains(&only));
    let runs = faults.into_iter().map(|(name, fault, control)| {
        let run = move || catch_unwind(AssertUnwindSafe(|| fault(Net::new(control)?)));
        (name.clone(), thread::Builder::new().name(name).spawn(run).unwrap())
    });
    let runs: Vec<_> = runs.collect();
    let mut table = R::heading();
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    for (name, run) in runs {
        match run.join().unwrap() {
            Ok(Ok(row)) => table += &row.line(&name),
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
