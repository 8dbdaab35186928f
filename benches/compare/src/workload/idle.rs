//! Resident memory for each connection that carries nothing.

use std::cell::Cell;

use super::{Plan, Rounds};
use crate::Failure;
use crate::contestants::{Contestant, Idle, Shape};
use crate::process::{Load, Process, resident_kib, tell, wait};
use crate::table::{Row, Table};

/// How many connections there are.
pub const CONNECTIONS: usize = 500;

const SHAPES: [(Shape, &str); 3] =
    [(Shape::Both, "both"), (Shape::OneAccepts, "one-accepts"), (Shape::OneDials, "one-dials")];

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Accepts,
    Dials,
}

pub fn run(plan: &Plan) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.idle.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    let count = plan.idle.to_string();
    for _ in 0..plan.idle_rounds {
        for (name, idle) in &contestants {
            for (shape, word) in SHAPES.iter().filter(|(shape, _)| idle.shapes.contains(shape)) {
                let mut accepts = Process::start(&["idle-accept", name, word, &count])?;
                let addr = accepts.line()?;
                let mut dials = Process::start(&["idle-dial", name, word, &count, &addr])?;
                let (dialled, accepted): ([u64; 2], [u64; 2]) = (dials.numbers()?, accepts.numbers()?);
                if *shape != Shape::OneAccepts {
                    rounds.add((*name, Side::Dials), dialled);
                }
                if *shape != Shape::OneDials {
                    rounds.add((*name, Side::Accepts), accepted);
                }
            }
        }
    }
    let title = format!("Resident memory with {count} idle connections");
    let mut table = Table::new(title, &load);
    table.columns = &[
        "the side that accepts: KiB without connections",
        "KiB per connection",
        "the side that dials: KiB without connections",
        "KiB per connection",
    ];
    table.bars = "KiB per connection at the side that accepts, median";
    for (name, _) in &contestants {
        let (accepts, dials) = ((*name, Side::Accepts), (*name, Side::Dials));
        let before = |[before, _]: &[u64; 2]| *before as f64;
        let each = |[before, after]: &[u64; 2]| (*after as f64 - *before as f64) / plan.idle as f64;
        let bar = rounds.median(&accepts, each);
        table.rows.push(Row {
            name: (*name).to_owned(),
            cells: vec![
                format!("{:.0}", rounds.median(&accepts, before)),
                format!("{bar:.1}"),
                format!("{:.0}", rounds.median(&dials, before)),
                format!("{:.1}", rounds.median(&dials, each)),
            ],
            bar,
        });
    }
    plan.show(&table, of)
}

fn shape(word: &str) -> Result<Shape, Failure> {
    let found = SHAPES.iter().find(|(_, other)| *other == word);
    let (shape, _) = found.ok_or_else(|| {
        let words = SHAPES.map(|(_, word)| word).join(", ");
        format!("{word:?} is no shape of idle connections, expected one of {words}")
    })?;
    Ok(*shape)
}

pub fn accept(idle: &Idle, word: &str, count: usize) -> Result<(), Failure> {
    let before = Cell::new(0);
    let mut listening = |addrs: String| {
        before.set(resident_kib()?);
        tell(&addrs)
    };
    (idle.accept)(shape(word)?, count, &mut listening, &mut || tell_memory(before.get()))
}

pub fn dial(idle: &Idle, word: &str, count: usize, addrs: &str) -> Result<(), Failure> {
    let before = Cell::new(0);
    let mut ready = || before.set(resident_kib().unwrap_or_default());
    (idle.dial)(shape(word)?, count, addrs, &mut ready, &mut || tell_memory(before.get()))
}

fn tell_memory(before: u64) -> Result<(), Failure> {
    tell(&format!("{before} {}", resident_kib()?))?;
    // The other side may still count connections: they stand until the parent ends both processes.
    wait()
}
