//! What a session tells of commands that are traced.

mod common;

use common::{session, Faults, TestNode, World};
use parking_lot::Mutex;
use rangekv_router::session::Door;
use rangekv_router::trace::{Answered, Tracer};
use std::sync::Arc;

/// Keeps what it is told; its clock counts how often it is asked.
#[derive(Default)]
struct Told {
    clock: Mutex<u64>,
    answered: Mutex<Vec<Answered>>,
}

impl Tracer for Told {
    fn share(&self) -> f64 {
        1.0
    }
    fn seed(&self) -> u64 {
        7
    }
    fn unix_ns(&self) -> u64 {
        let mut clock = self.clock.lock();
        *clock += 1;
        *clock
    }
    fn answered(&self, request: Answered) {
        self.answered.lock().push(request);
    }
}

fn traced(faults: Faults) -> (World, Arc<Told>) {
    let mut world = World::new(1, 3, faults);
    let told = Arc::<Told>::default();
    let cache = world.door.cache.clone();
    let mut door = Door::new(Default::default(), cache, Arc::new(TestNode));
    door.tracer = Some(told.clone());
    world.door = Arc::new(door);
    world.session = session(&world.door, 1);
    (world, told)
}

#[test]
fn each_command_is_told_once_in_order_with_what_it_asked() {
    let (mut world, told) = traced(Faults::default());
    // One behind the other: the walk waits for the write, and all that comes after it for the walk.
    for command in [
        "SET a 1",
        "MGET a b c",
        "KEYS *",
        "LPUSH a x",
        "NOSUCH",
        "PING",
    ] {
        world.send(command);
    }
    world.settle();
    assert_eq!(world.replies().len(), 6);
    let answered = std::mem::take(&mut *told.answered.lock());
    let seen: Vec<_> = answered
        .iter()
        .map(|a| (a.name, a.error.as_deref(), a.asked.questions > 0))
        .collect();
    assert_eq!(
        seen,
        [
            ("set", None, true),
            ("mget", None, true),
            ("keys", None, true),
            ("lpush", Some("WRONGTYPE"), true),
            ("unknown", Some("ERR"), false),
            ("ping", None, false),
        ]
    );
    for one in &answered {
        assert!(one.mark.is_some() && one.began_ns < one.ended_ns, "{one:?}");
        assert_eq!(one.asked.store.is_some(), one.asked.questions > 0);
    }
    let marks: std::collections::BTreeSet<u64> = answered.iter().map(|a| a.mark.0).collect();
    assert_eq!(marks.len(), answered.len(), "each has a mark of its own");
}

#[test]
fn what_was_refused_and_asked_again_is_one_request_with_more_questions() {
    let refusing = Faults {
        busy: 100,
        ..Faults::default()
    };
    let (mut world, told) = traced(refusing);
    for n in 0..200 {
        world.ask(&format!("SET k{n} x"));
    }
    let answered = told.answered.lock();
    assert_eq!(answered.len(), 200);
    assert!(answered.iter().all(|a| a.asked.questions >= 1));
    assert!(answered.iter().any(|a| a.asked.questions > 1));
    assert!(answered.iter().all(|a| a.asked.ranges.len() == 1));
}
