//! The judge is judged: against a brute-force oracle that shares no code with it, with
//! planted anomalies, and on histories of the size that a run produces.

use super::*;
use crate::history::{Op, Reply};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn bulk(text: &str) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op(call: u64, end: u64, op: Op, reply: Reply) -> Record {
    Record {
        client: call as u32,
        op,
        call,
        called_at: 0,
        outcome: Outcome::Replied { at: end, reply },
        ended_at: 0,
    }
}

fn unknown(call: u64, op: Op) -> Record {
    Record {
        client: call as u32,
        op,
        call,
        called_at: 0,
        outcome: Outcome::Unknown,
        ended_at: 0,
    }
}

fn of_client(client: u32, record: Record) -> Record {
    Record { client, ..record }
}

fn both(a: &str, b: &str) -> Reply {
    Reply::Array(vec![Some(text(a)), Some(text(b))])
}

fn is_linearizable(records: &[Record]) -> bool {
    match check_key(records, &WallBounds::default(), BUDGET) {
        Verdict::Linearizable { .. } => true,
        Verdict::Violation { .. } => false,
        Verdict::Undecided { at } => panic!("undecided at {at}"),
    }
}

/// Redis strings, plainly: the reply and the new value.
fn redis(op: &Op, old: Option<&str>) -> (Reply, Option<String>) {
    let value = |b: &Bytes| Some(String::from_utf8(b.to_vec()).unwrap());
    let keep = old.map(str::to_string);
    let found = old.map_or(Reply::Nil, bulk);
    match op {
        Op::Get => (found, keep),
        Op::Strlen => (Reply::Int(old.map_or(0, |o| o.len() as i64)), keep),
        Op::Exists => (Reply::Int(i64::from(old.is_some())), keep),
        Op::Set(v) => (Reply::Ok, value(v)),
        Op::GetSet(v) => (found, value(v)),
        Op::SetNx(v) if old.is_none() => (Reply::Ok, value(v)),
        Op::SetNx(_) => (Reply::Nil, keep),
        Op::SetNxGet(v) if old.is_none() => (Reply::Nil, value(v)),
        Op::SetNxGet(_) => (found, keep),
        Op::Del => (Reply::Int(i64::from(old.is_some())), None),
        Op::GetDel => (found, None),
        Op::IncrBy(n) => match old.unwrap_or("0").parse::<i64>() {
            Ok(base) => (Reply::Int(base + n), Some((base + n).to_string())),
            Err(_) => (
                Reply::Error("ERR value is not an integer or out of range".into()),
                keep,
            ),
        },
        Op::Append(v) => {
            let new = keep.unwrap_or_default() + std::str::from_utf8(v).unwrap();
            (Reply::Int(new.len() as i64), Some(new))
        }
        Op::PairSet(v) => (Reply::Ok, value(v)),
        Op::PairGet => {
            let text = old.map(text);
            (Reply::Array(vec![text.clone(), text]), keep)
        }
        other => unreachable!("{other:?} is not drawn"),
    }
}

/// Tries every order and every subset of unknown operations.
fn oracle(records: &[Record]) -> bool {
    fn search(records: &[Record], done: u32, state: Option<&str>) -> bool {
        let open = |i: usize| done & (1 << i) == 0;
        let ends = |r: &Record| match r.outcome {
            Outcome::Replied { at, .. } => Some(at),
            _ => None,
        };
        if (0..records.len()).all(|i| !open(i) || ends(&records[i]).is_none()) {
            return true;
        }
        (0..records.len()).filter(|i| open(*i)).any(|i| {
            let blocked = (0..records.len()).any(|j| {
                let comes_first = |e: u64| {
                    e < records[i].call
                        || j < i
                            && records[j].client == records[i].client
                            && ends(&records[i]).is_some()
                };
                j != i && open(j) && ends(&records[j]).is_some_and(comes_first)
            });
            if blocked {
                return false;
            }
            let (reply, next) = redis(&records[i].op, state);
            let fits = match &records[i].outcome {
                Outcome::Replied { reply: seen, .. } => match (seen, &reply) {
                    (Reply::Error(_), Reply::Error(_)) => true,
                    (seen, reply) => seen == reply,
                },
                Outcome::Unknown => true,
                Outcome::NotExecuted => return false,
            };
            fits && search(records, done | 1 << i, next.as_deref())
        })
    }
    let records: Vec<Record> = records
        .iter()
        .filter(|r| r.outcome != Outcome::NotExecuted)
        .cloned()
        .collect();
    search(&records, 0, None)
}

/// A history of a real object: each operation takes effect at a moment between its call and
/// its return. Some outcomes are then hidden from the client.
fn true_history(
    rng: &mut SmallRng,
    length: usize,
    clients: usize,
    unknown_share: f64,
    mut draw: impl FnMut(&mut SmallRng, usize) -> Op,
) -> Vec<Record> {
    let mut free_at = vec![0u64; clients];
    // Of each client: the last call, the last point, and the ends of what is open, and before.
    let mut last = vec![(0u64, 0u64, [0u64; 3]); clients];
    let window = rng.random_range(1..=3);
    let mut steps = Vec::new();
    for n in 0..length {
        let client = (0..clients).min_by_key(|c| (free_at[*c], *c)).unwrap();
        let (last_call, last_point, [_, b, c]) = last[client];
        let call = free_at[client].max(last_call) + rng.random_range(1..20);
        let point = call.max(last_point) + rng.random_range(1..100);
        let end = point.max(c) + rng.random_range(1..100);
        last[client] = (call, point, [b, c, end]);
        free_at[client] = [end, c, b][window - 1];
        steps.push((point, call, end, client, draw(rng, n)));
    }
    steps.sort_by_key(|s| (s.0, s.1));
    let mut state: Option<String> = None;
    let mut records = Vec::new();
    for (_, call, end, client, op) in steps {
        let hidden = rng.random_bool(unknown_share);
        let lost = hidden && rng.random_bool(0.5);
        let (reply, next) = redis(&op, state.as_deref());
        if !lost {
            state = next;
        }
        let outcome = if hidden {
            Outcome::Unknown
        } else {
            Outcome::Replied {
                at: end * 64 + 1,
                reply,
            }
        };
        records.push(Record {
            client: client as u32,
            op,
            call: call * 64,
            called_at: 0,
            outcome,
            ended_at: 0,
        });
    }
    // As a run does: a read of each key when all is over.
    // In the order in which they were begun, as a run notes them.
    records.sort_by_key(|r: &Record| r.call);
    let over = last.iter().map(|l| l.2[2]).max().unwrap() * 64 + 100;
    let reply = redis(&Op::Get, state.as_deref()).0;
    records.push(Record {
        client: clients as u32,
        op: Op::Get,
        call: over,
        called_at: 0,
        outcome: Outcome::Replied {
            at: over + 1,
            reply,
        },
        ended_at: 0,
    });
    records
}

fn any_op(rng: &mut SmallRng, n: usize) -> Op {
    let value = text(&format!("v{n};"));
    match rng.random_range(0..14) {
        0..=2 => Op::Get,
        3 => Op::Strlen,
        4 => Op::Exists,
        5 | 6 => Op::Set(value),
        7 => Op::GetSet(value),
        8 => Op::SetNx(value),
        9 => Op::SetNxGet(value),
        10 => Op::Del,
        11 => Op::GetDel,
        12 => Op::IncrBy(rng.random_range(1..3)),
        _ => Op::Append(value),
    }
}

fn counter_op(rng: &mut SmallRng, _: usize) -> Op {
    if rng.random_bool(0.3) {
        Op::Get
    } else {
        Op::IncrBy(1)
    }
}

fn append_op(rng: &mut SmallRng, n: usize) -> Op {
    match rng.random_range(0..10) {
        0 | 1 => Op::Get,
        2 => Op::Strlen,
        _ => Op::Append(text(&format!("{n};"))),
    }
}

fn cas_op(rng: &mut SmallRng, n: usize) -> Op {
    let value = text(&format!("v{n}"));
    match rng.random_range(0..12) {
        0..=3 => Op::Get,
        4 => Op::Exists,
        5 => Op::Set(value),
        6 => Op::GetSet(value),
        7 => Op::SetNx(value),
        8 | 9 => Op::SetNxGet(value),
        10 => Op::Del,
        _ => Op::GetDel,
    }
}

/// Values that are not unique: nothing may be concluded from one.
fn colliding_op(rng: &mut SmallRng, n: usize) -> Op {
    let same = n % 2;
    any_op(rng, same)
}

fn register_op(rng: &mut SmallRng, n: usize) -> Op {
    if rng.random_bool(0.5) {
        Op::Get
    } else {
        Op::Set(text(&format!("v{n}")))
    }
}

#[test]
fn agrees_with_the_oracle_on_small_histories() {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut verdicts = [0, 0];
    for round in 0..90_000 {
        let length = rng.random_range(1..6);
        let clients = rng.random_range(1..5);
        let draw = [
            any_op,
            counter_op,
            append_op,
            register_op,
            cas_op,
            colliding_op,
        ][round % 6];
        let mut records = true_history(&mut rng, length, clients, 0.25, draw);
        // Spoil most of them: swap two replies, or invent one.
        for _ in 0..rng.random_range(0..3) {
            let (a, b) = (rng.random_range(0..length), rng.random_range(0..length));
            let reply = match &records[a].outcome {
                Outcome::Replied { reply, .. } => reply.clone(),
                _ => [Reply::Nil, Reply::Ok, Reply::Int(1), bulk("v0;")][rng.random_range(0..4)]
                    .clone(),
            };
            if let Outcome::Replied { at, .. } = records[b].outcome {
                records[b].outcome = Outcome::Replied { at, reply };
            }
        }
        let want = oracle(&records);
        verdicts[usize::from(want)] += 1;
        assert_eq!(
            is_linearizable(&records),
            want,
            "round {round}: {records:#?}"
        );
    }
    assert!(
        verdicts.iter().all(|n| *n > 10_000),
        "one-sided test: {verdicts:?}"
    );
}

#[test]
fn true_histories_pass() {
    let mut rng = SmallRng::seed_from_u64(11);
    for round in 0..400 {
        let draw = [any_op, counter_op, append_op, register_op, cas_op][round % 5];
        let length = rng.random_range(20..200);
        let clients = rng.random_range(1..10);
        let records = true_history(&mut rng, length, clients, 0.05, draw);
        assert!(is_linearizable(&records), "round {round}: {records:#?}");
    }
}

/// Each row: what is planted, a history that has it, and the same history repaired.
#[test]
fn planted_anomalies_are_found() {
    let set = |v: &str| Op::Set(text(v));
    let append = |v: &str| Op::Append(text(v));
    let rows: Vec<(&str, Vec<Record>, Vec<Record>)> = vec![
        (
            "stale read",
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 4, set("b"), Reply::Ok),
                op(5, 6, Op::Get, bulk("a")),
            ],
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 6, set("b"), Reply::Ok),
                op(4, 5, Op::Get, bulk("a")),
            ],
        ),
        (
            "two reads that disagree about the order",
            vec![
                op(1, 10, set("a"), Reply::Ok),
                op(2, 11, set("b"), Reply::Ok),
                op(12, 13, Op::Get, bulk("a")),
                op(14, 15, Op::Get, bulk("b")),
            ],
            vec![
                op(1, 10, set("a"), Reply::Ok),
                op(2, 11, set("b"), Reply::Ok),
                op(12, 13, Op::Get, bulk("b")),
                op(14, 15, Op::Get, bulk("b")),
            ],
        ),
        (
            "new value, then the old one again, while the write is in flight",
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 20, set("b"), Reply::Ok),
                op(4, 5, Op::Get, bulk("b")),
                op(6, 7, Op::Get, bulk("a")),
            ],
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 20, set("b"), Reply::Ok),
                op(4, 5, Op::Get, bulk("a")),
                op(6, 7, Op::Get, bulk("b")),
            ],
        ),
        (
            "lost update: two increments, one result",
            vec![
                op(1, 5, Op::IncrBy(1), Reply::Int(1)),
                op(2, 6, Op::IncrBy(1), Reply::Int(1)),
            ],
            vec![
                op(1, 5, Op::IncrBy(1), Reply::Int(1)),
                op(2, 6, Op::IncrBy(1), Reply::Int(2)),
            ],
        ),
        (
            "lost write after an acknowledgement",
            vec![op(1, 2, set("a"), Reply::Ok), op(3, 4, Op::Get, Reply::Nil)],
            vec![op(1, 2, set("a"), Reply::Ok), op(3, 4, Op::Get, bulk("a"))],
        ),
        (
            "lost append",
            vec![
                op(1, 2, append("a;"), Reply::Int(2)),
                op(3, 4, append("b;"), Reply::Int(4)),
                op(5, 6, Op::Get, bulk("b;")),
            ],
            vec![
                op(1, 2, append("a;"), Reply::Int(2)),
                op(3, 4, append("b;"), Reply::Int(4)),
                op(5, 6, Op::Get, bulk("a;b;")),
            ],
        ),
        (
            "appended twice (a re-proposal)",
            vec![
                op(1, 2, append("a;"), Reply::Int(2)),
                op(3, 4, Op::Get, bulk("a;a;")),
            ],
            vec![
                op(1, 2, append("a;"), Reply::Int(2)),
                op(3, 4, Op::Get, bulk("a;")),
            ],
        ),
        (
            "dirty read: seen once, then never again",
            vec![
                unknown(1, set("a")),
                op(2, 3, Op::Get, bulk("a")),
                op(4, 5, Op::Get, Reply::Nil),
            ],
            vec![
                unknown(1, set("a")),
                op(2, 3, Op::Get, Reply::Nil),
                op(4, 5, Op::Get, bulk("a")),
            ],
        ),
        (
            "aborted read: the store said that it had done nothing",
            vec![
                Record {
                    client: 1,
                    op: set("a"),
                    call: 1,
                    called_at: 0,
                    outcome: Outcome::NotExecuted,
                    ended_at: 0,
                },
                op(2, 3, Op::Get, bulk("a")),
            ],
            vec![
                Record {
                    client: 1,
                    op: set("a"),
                    call: 1,
                    called_at: 0,
                    outcome: Outcome::NotExecuted,
                    ended_at: 0,
                },
                op(2, 3, Op::Get, Reply::Nil),
            ],
        ),
        (
            "a pipelined read that overtook the connection's own write",
            vec![
                of_client(7, op(1, 10, set("a"), Reply::Ok)),
                of_client(7, op(2, 11, Op::Get, Reply::Nil)),
            ],
            vec![
                of_client(7, op(1, 10, set("a"), Reply::Ok)),
                of_client(8, op(2, 11, Op::Get, Reply::Nil)),
            ],
        ),
        (
            "pipelined writes in the wrong order",
            vec![
                of_client(7, op(1, 10, set("a"), Reply::Ok)),
                of_client(7, op(2, 11, set("b"), Reply::Ok)),
                op(12, 13, Op::Get, bulk("a")),
            ],
            vec![
                of_client(7, op(1, 10, set("a"), Reply::Ok)),
                of_client(7, op(2, 11, set("b"), Reply::Ok)),
                op(12, 13, Op::Get, bulk("b")),
            ],
        ),
        (
            "half of a pair",
            vec![
                op(1, 2, Op::PairSet(text("a")), Reply::Ok),
                op(3, 10, Op::PairSet(text("b")), Reply::Ok),
                op(4, 5, Op::PairGet, both("b", "a")),
            ],
            vec![
                op(1, 2, Op::PairSet(text("a")), Reply::Ok),
                op(3, 10, Op::PairSet(text("b")), Reply::Ok),
                op(4, 5, Op::PairGet, both("b", "b")),
            ],
        ),
        (
            "SET NX refused by a write that never was",
            vec![
                op(1, 2, Op::SetNx(text("b")), Reply::Nil),
                op(3, 4, Op::Get, Reply::Nil),
            ],
            vec![
                op(1, 2, Op::SetNx(text("b")), Reply::Ok),
                op(3, 4, Op::Get, bulk("b")),
            ],
        ),
        (
            "two SET NX that both win",
            vec![
                op(1, 5, Op::SetNx(text("a")), Reply::Ok),
                op(2, 6, Op::SetNx(text("b")), Reply::Ok),
            ],
            vec![
                op(1, 5, Op::SetNx(text("a")), Reply::Ok),
                op(2, 6, Op::SetNx(text("b")), Reply::Nil),
            ],
        ),
        (
            "SET GET that skips a value in between",
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 4, set("b"), Reply::Ok),
                op(5, 6, Op::GetSet(text("c")), bulk("a")),
            ],
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 4, set("b"), Reply::Ok),
                op(5, 6, Op::GetSet(text("c")), bulk("b")),
            ],
        ),
        (
            "deleted twice",
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 6, Op::Del, Reply::Int(1)),
                op(4, 7, Op::Del, Reply::Int(1)),
            ],
            vec![
                op(1, 2, set("a"), Reply::Ok),
                op(3, 6, Op::Del, Reply::Int(1)),
                op(4, 7, Op::Del, Reply::Int(0)),
            ],
        ),
        (
            "an unknown write that takes effect before it was called",
            vec![op(1, 2, Op::Get, bulk("a")), unknown(3, set("a"))],
            vec![unknown(1, set("a")), op(2, 3, Op::Get, bulk("a"))],
        ),
        (
            "an unknown write that takes effect twice",
            vec![
                unknown(1, set("a")),
                op(2, 3, Op::Get, bulk("a")),
                op(4, 5, set("b"), Reply::Ok),
                op(6, 7, Op::Get, bulk("a")),
            ],
            vec![
                unknown(1, set("a")),
                op(2, 3, Op::Get, Reply::Nil),
                op(4, 5, set("b"), Reply::Ok),
                op(6, 7, Op::Get, bulk("a")),
            ],
        ),
        (
            "crossed wires: a value that nobody wrote",
            vec![op(1, 2, set("a"), Reply::Ok), op(3, 4, Op::Get, bulk("z"))],
            vec![op(1, 2, set("a"), Reply::Ok), op(3, 4, Op::Get, bulk("a"))],
        ),
    ];
    for (name, bad, good) in rows {
        assert!(!is_linearizable(&bad), "{name}: not found");
        assert!(!oracle(&bad), "{name}: the oracle disagrees");
        assert!(is_linearizable(&good), "{name}: false alarm");
        assert!(
            oracle(&good),
            "{name}: the oracle sees a violation in the repaired history"
        );
    }
}

#[test]
fn one_wrong_reply_in_a_long_history_is_found() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut found = 0;
    for round in 0..100 {
        let draw = [counter_op, append_op, register_op][round % 3];
        let mut records = true_history(&mut rng, 600, 6, 0.02, draw);
        // Give a read the reply of a read that ended long before it was called.
        let reads: Vec<usize> = (0..records.len())
            .filter(|i| records[*i].op == Op::Get && records[*i].outcome != Outcome::Unknown)
            .collect();
        let late = reads[rng.random_range(reads.len() / 2..reads.len())];
        let early = reads[rng.random_range(0..reads.len() / 4)];
        let Outcome::Replied { reply, .. } = records[early].outcome.clone() else {
            unreachable!()
        };
        let Outcome::Replied { at, .. } = records[late].outcome else {
            unreachable!()
        };
        records[late].outcome = Outcome::Replied { at, reply };
        found += usize::from(!is_linearizable(&records));
    }
    assert_eq!(found, 100);
}

#[test]
fn the_budget_yields_undecided() {
    let mut records: Vec<Record> = (0..40)
        .map(|n| unknown(n, Op::Append(text(&format!("{};", n % 7)))))
        .collect();
    // No value is ever read, so nothing but the budget bounds the orders of appends.
    records.push(op(100, 101, Op::Strlen, Reply::Int(41)));
    assert!(matches!(
        check_key(&records, &WallBounds::default(), 10_000),
        Verdict::Undecided { .. }
    ));
    let mut history = History::default();
    for r in &records {
        let id = history.begin(0, &text("k"), r.op.clone(), r.call, 0);
        if r.outcome != Outcome::Unknown {
            history.end(&id, r.outcome.clone(), 0);
        }
    }
    let failures = check(&history, 10_000);
    assert!(failures.len() == 1 && failures[0].undecided);
    assert!(failures[0].description.contains("undecided"));
}

#[test]
fn a_report_names_the_operation_that_fits_nowhere() {
    let mut history = History::default();
    for (call, end, o, reply) in [
        (1, 2, Op::Set(text("a")), Reply::Ok),
        (3, 4, Op::Set(text("b")), Reply::Ok),
        (5, 6, Op::Get, bulk("a")),
    ] {
        let id = history.begin(9, &text("k"), o, call, 0);
        history.end(&id, Outcome::Replied { at: end, reply }, 0);
    }
    let failures = check(&history, BUDGET);
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0].description.contains("client 9 Get"),
        "{}",
        failures[0].description
    );
}

/// What a long run costs, in steps of the model, which is what its time is proportional to.
#[test]
fn long_histories_cost_little() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut costs = Vec::new();
    for (name, draw) in [
        ("registers", register_op as fn(&mut SmallRng, usize) -> Op),
        ("counters", counter_op),
        ("appends", append_op),
        ("compare-and-set", cas_op),
        ("everything", any_op),
    ] {
        for unknown_share in [0.0, 0.005] {
            // All operations mixed on one key leave too many traces of an unknown one open.
            let length = if name == "everything" { 1_500 } else { 10_000 };
            let records = true_history(&mut rng, length, 8, unknown_share, draw);
            let verdict = check_key(&records, &WallBounds::default(), 50_000_000);
            let Verdict::Linearizable { configurations } = verdict else {
                panic!("{name} with {unknown_share} unknown: {verdict:?}")
            };
            println!("{name:16} {unknown_share:5}: {configurations} steps");
            costs.push(((name, unknown_share), configurations));
        }
    }
    for (which, cost) in costs {
        assert!(cost < 10_000_000, "{which:?} cost {cost} steps");
    }
}
