//! Short conversations, cut at every byte, and joined in every order.

use super::dice::Dice;
use super::plan::{MS, Plan, SECOND};
use super::random::run_named;
use super::world::{Event, State, World};

/// A few messages on two lanes each way, and a request and its reply.
fn script() -> Vec<(usize, usize, usize, bool)> {
    vec![
        (0, 0, 5, false),
        (0, 1, 60, false),
        (0, 0, 3, true),
        (1, 1, 7, true),
        (1, 0, 64, false),
        (0, 0, 0, false),
    ]
}

/// More bytes than the conversation has in either direction.
const END: u64 = 700;

fn cut(cuts: Vec<(usize, u64)>, cut_notice: [u64; 2]) {
    run_named(&format!("cuts {cuts:?}, noticed after {cut_notice:?}"), || {
        let plan = Plan { cuts, cut_notice, ..Plan::short(script()) };
        World::new(plan, Dice::seeded(0), false).run();
    });
}

#[test]
fn cut_after_every_byte() {
    for side in 0..2 {
        for at in 0..END {
            for notice in [[0, 0], [0, 500 * MS], [500 * MS, 0]] {
                cut(vec![(side, at)], notice);
            }
        }
    }
}

/// The strides have no common factor with each other or with the sizes of frames.
#[test]
fn cut_twice() {
    for sides in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for first in (0..END).step_by(7) {
            for second in (first % 11..END).step_by(11) {
                cut(vec![(sides.0, first), (sides.1, second)], [0, 0]);
            }
        }
    }
}

/// The steps on a connection until both sides have joined it: (says HELLO, or joins; side).
type Step = (bool, usize);

const ORDERS: [[Step; 4]; 4] = [
    [(true, 0), (true, 1), (false, 0), (false, 1)],
    [(true, 0), (true, 1), (false, 1), (false, 0)],
    [(true, 1), (true, 0), (false, 0), (false, 1)],
    [(true, 1), (true, 0), (false, 1), (false, 0)],
];

/// Both sides dial at once, and come to each step in every possible order.
#[test]
fn two_dials_in_every_order() {
    for before in ["first contact", "resumed", "restarted", "replaced"] {
        for smaller in 0..2 {
            for (one, two) in (0..16).map(|both| (both / 4, both % 4)) {
                for places in (0..256u32).filter(|places| places.count_ones() == 4) {
                    let name =
                        format!("{before}, smaller {smaller}, orders {one} {two}, places {places:08b}");
                    run_named(&name, || two_dials(before, smaller, [&ORDERS[one], &ORDERS[two]], places));
                }
            }
        }
    }
}

fn two_dials(before: &str, smaller: usize, orders: [&[Step; 4]; 2], places: u32) {
    let plan = Plan { delay: 0, smaller, dials_by_hand: true, chaos: 3 * SECOND, ..Plan::short(script()) };
    let mut world = World::new(plan, Dice::seeded(0), false);
    if before != "first contact" {
        world.dial(0, 0, false);
        world.run_for(11 * MS);
        if before == "restarted" {
            world.restart(0);
        }
        if before != "replaced" {
            (0..2).for_each(|side| world.end(side, 0));
        }
    }
    // Both want the one that serves to be replaced.
    let replaces = before == "replaced";
    let conns = [world.connect(0, 0, replaces), world.connect(1, 0, replaces)];
    let mut next = [0, 0];
    for place in 0..8 {
        let which = (places >> place & 1) as usize;
        let (hello, side) = orders[which][next[which]];
        next[which] += 1;
        let conn = conns[which];
        // A millisecond is enough for all that a step leads to.
        if hello {
            world.say_hello(side, conn);
        } else {
            world.at(world.now, Event::Attach { side, conn });
        }
        world.run_for(MS);
    }
    world.plan.dials_by_hand = false;
    world.run();
    let serving = world.sides.each_ref().map(|side| {
        let serving = side.link.conns().iter().filter(|conn| conn.is_serving());
        serving.map(|conn| (conn.token, conn.dialled)).collect::<Vec<_>>()
    });
    // One, the same for both, and not the one that was to go.
    let [[(here, dialled)], [(there, accepted)]] = serving.each_ref().map(Vec::as_slice) else {
        panic!("{serving:?}");
    };
    assert!(here == there && dialled != accepted, "{serving:?}");
    assert!(!replaces || world.conns[0].ends.iter().all(|end| end.state != State::Attached));
}
