//! A Redis string that expires, as a sequential object.
//!
//! When a value is gone is for the clock of the range's leader to say, and clocks differ and
//! jump. So a value has a moment *before* which no clock can have taken it away, and one *from*
//! which every clock must have: between them a reply may show either, but only once: what was
//! seen to be gone stays away.
//!
//! Writes of unknown outcome whose value nobody read leave nothing but, perhaps, an empty key.
//! Where there are many, what replies say of a key's presence alone is not looked at, so that
//! they can be taken for that.
//!
//! Expiry is no step of its own: an operation that finds the value gone takes it away, as it
//! does in the store. Values are unique.

use super::jit::Model;
use crate::clock::WallBounds;
use crate::history::{Op, Outcome, Record, Reply};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;

/// What the key holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A value, by its number.
    Value(usize, Option<Expiry>),
}

/// When a value expires, ms since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Expiry {
    /// Not before a clock shows this.
    not_before: i64,
    /// When all clocks show this at the latest.
    at_latest: i64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Nothing => write!(f, "nothing"),
            Held::Value(n, None) => write!(f, "value {n}"),
            Held::Value(n, Some(e)) => {
                write!(
                    f,
                    "value {n} that expires at {}..{}",
                    e.not_before, e.at_latest
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Ok,
    Nothing,
    Value(usize),
    Int(i64),
    /// A value that nobody wrote, or an error.
    Nonsense,
    /// Some reply.
    Any,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Exists,
    PTtl,
    Set(usize),
    SetPx(usize, i64),
    SetNxPxGet(usize, i64),
    GetEx(i64),
    PExpire(i64),
    Del,
    GetDel,
    /// No effect.
    Nothing,
}

struct Step {
    action: Action,
    seen: Option<Seen>,
    /// The least that the leader's clock may have shown, ms.
    least: i64,
    /// The greatest.
    greatest: i64,
}

/// The operations of one key's history.
pub struct ExpiryModel {
    steps: Vec<Step>,
    /// By value: which operations saw it.
    witnesses: Vec<Vec<usize>>,
}

impl ExpiryModel {
    /// Whether `op` has to do with expiry, so that its key needs this model.
    pub fn concerns(op: &Op) -> bool {
        matches!(
            op,
            Op::SetPx(..) | Op::SetNxPxGet(..) | Op::GetEx(_) | Op::PExpire(_) | Op::PTtl
        )
    }

    /// From a key's operations, which no operation on numbers or lengths is among.
    pub fn new<'a>(records: impl Iterator<Item = &'a Record>, clocks: &WallBounds) -> Self {
        let records: Vec<&Record> = records.collect();
        let mut numbers: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for value in records.iter().filter_map(|r| r.op.value()) {
            let number = numbers.len();
            let twice = numbers.insert(value, number);
            assert!(twice.is_none(), "{value:?} was written twice");
        }
        let last = records.iter().map(|r| r.called_at.max(r.ended_at)).max();
        let steps: Vec<Step> = records
            .iter()
            .map(|record| {
                let (seen, end, greatest) = match &record.outcome {
                    Outcome::Replied { reply, .. } => {
                        let end = record.ended_at;
                        (Some(seen(reply, &numbers)), end, clocks.greatest(end))
                    }
                    _ => (None, last.unwrap_or(0), i64::MAX / 2),
                };
                Step {
                    action: action(&record.op, &numbers),
                    seen,
                    least: clocks.least(record.called_at, end),
                    greatest,
                }
            })
            .collect();
        let mut steps = steps;
        forget_unread(&mut steps, numbers.len());
        let mut witnesses = vec![Vec::new(); numbers.len()];
        for (n, step) in steps.iter().enumerate() {
            if let Some(Seen::Value(value)) = step.seen {
                witnesses[value].push(n);
            }
        }
        ExpiryModel { steps, witnesses }
    }
}

/// Unknown writes of unread values, beyond which presence is not looked at.
const UNREAD_MAX: usize = 4;

/// Makes of many unknown writes whose values nobody read what they amount to.
fn forget_unread(steps: &mut [Step], values: usize) {
    let mut read = vec![false; values];
    for step in &*steps {
        if let Some(Seen::Value(n)) = step.seen {
            read[n] = true;
        }
    }
    let writes = |step: &Step| match step.action {
        Action::Set(n) | Action::SetPx(n, _) | Action::SetNxPxGet(n, _) => Some(n),
        _ => None,
    };
    let unread = |step: &Step| step.seen.is_none() && writes(step).is_some_and(|n| !read[n]);
    if steps.iter().filter(|step| unread(step)).count() <= UNREAD_MAX {
        return;
    }
    for step in steps {
        match step.action {
            // In place of another value, it expired before anybody looked.
            Action::SetPx(..) if unread(step) => step.action = Action::Del,
            // It was overwritten, or stood where there was nothing, before anybody looked.
            Action::Set(_) | Action::SetNxPxGet(..) if unread(step) => {
                step.action = Action::Nothing
            }
            Action::Exists | Action::PTtl | Action::PExpire(_) | Action::Del
                if step.seen.is_some() =>
            {
                step.seen = Some(Seen::Any);
            }
            _ => {}
        }
    }
}

fn action(op: &Op, numbers: &BTreeMap<&Bytes, usize>) -> Action {
    match op {
        Op::Get => Action::Get,
        Op::Exists => Action::Exists,
        Op::PTtl => Action::PTtl,
        Op::Set(v) => Action::Set(numbers[v]),
        Op::SetPx(v, ms) => Action::SetPx(numbers[v], *ms as i64),
        Op::SetNxPxGet(v, ms) => Action::SetNxPxGet(numbers[v], *ms as i64),
        Op::GetEx(ms) => Action::GetEx(*ms as i64),
        Op::PExpire(ms) => Action::PExpire(*ms as i64),
        Op::Del => Action::Del,
        Op::GetDel => Action::GetDel,
        other => unreachable!("{other:?} on a key that expires"),
    }
}

fn seen(reply: &Reply, numbers: &BTreeMap<&Bytes, usize>) -> Seen {
    match reply {
        Reply::Ok => Seen::Ok,
        Reply::Nil => Seen::Nothing,
        Reply::Int(n) => Seen::Int(*n),
        Reply::Bulk(text) => numbers
            .get(text)
            .map_or(Seen::Nonsense, |n| Seen::Value(*n)),
        Reply::Error(_) | Reply::Array(_) => Seen::Nonsense,
        Reply::Any => Seen::Any,
    }
}

impl Step {
    /// Whether the key may have been found empty.
    fn may_find_nothing(&self, held: &Held) -> bool {
        match held {
            Held::Nothing => true,
            Held::Value(_, expiry) => expiry.is_some_and(|e| e.not_before <= self.greatest),
        }
    }

    /// The value that may have been found, and when it expires.
    fn may_find(&self, held: &Held) -> Option<(usize, Option<Expiry>)> {
        match held {
            Held::Value(n, expiry) if expiry.is_none_or(|e| self.least < e.at_latest) => {
                Some((*n, *expiry))
            }
            _ => None,
        }
    }

    /// When a value expires that was given `ms`.
    fn expiry(&self, ms: i64) -> Expiry {
        Expiry {
            not_before: self.least + ms,
            at_latest: self.greatest.saturating_add(ms),
        }
    }
}

impl Model for ExpiryModel {
    type State = Held;

    fn initial(&self) -> Held {
        Held::Nothing
    }

    fn step(&self, held: &Held, op: usize) -> Option<Held> {
        let step = &self.steps[op];
        let gone = step.may_find_nothing(held);
        let there = step.may_find(held);
        let is = |value: usize| there.filter(|(n, _)| *n == value);
        let nothing = gone.then_some(Held::Nothing);
        match (step.action, step.seen) {
            (_, Some(Seen::Nonsense)) => None,
            (Action::Get, Some(Seen::Value(v))) => is(v).map(|_| *held),
            (Action::Get, Some(Seen::Nothing)) => nothing,
            (Action::Exists, Some(Seen::Int(1))) => there.map(|_| *held),
            (Action::Exists, Some(Seen::Int(0))) => nothing,
            (Action::PTtl, Some(Seen::Int(-2))) => nothing,
            (Action::PTtl, Some(Seen::Int(-1))) => {
                there.filter(|(_, expiry)| expiry.is_none()).map(|_| *held)
            }
            (Action::PTtl, Some(Seen::Int(left))) => {
                let expiry = there.and_then(|(_, expiry)| expiry)?;
                let fits = step.least + left <= expiry.at_latest
                    && expiry.not_before <= step.greatest + left;
                fits.then_some(*held)
            }
            (Action::Exists | Action::PTtl, Some(Seen::Any)) => Some(*held),
            (Action::PExpire(ms), Some(Seen::Any)) => Some(match *held {
                Held::Nothing => Held::Nothing,
                // It had an effect or none.
                Held::Value(n, old) => {
                    let never = Expiry {
                        not_before: i64::MAX,
                        at_latest: i64::MAX,
                    };
                    let (old, new) = (old.unwrap_or(never), step.expiry(ms));
                    let either = Expiry {
                        not_before: old.not_before.min(new.not_before),
                        at_latest: old.at_latest.max(new.at_latest),
                    };
                    Held::Value(n, Some(either))
                }
            }),
            (Action::Set(new), None | Some(Seen::Ok)) => Some(Held::Value(new, None)),
            (Action::SetPx(new, ms), None | Some(Seen::Ok)) => {
                Some(Held::Value(new, Some(step.expiry(ms))))
            }
            // Where it finds a value it changes nothing; then, if the outcome is unknown, it
            // need not be a step at all.
            (Action::SetNxPxGet(new, ms), None | Some(Seen::Nothing)) => {
                gone.then(|| Held::Value(new, Some(step.expiry(ms))))
            }
            (Action::SetNxPxGet(..), Some(Seen::Value(v))) => is(v).map(|_| *held),
            (Action::GetEx(ms), Some(Seen::Value(v))) => {
                is(v).map(|(n, _)| Held::Value(n, Some(step.expiry(ms))))
            }
            (Action::GetEx(_), Some(Seen::Nothing)) => nothing,
            (Action::PExpire(_), Some(Seen::Int(0))) => nothing,
            (Action::GetEx(ms), None) | (Action::PExpire(ms), None | Some(Seen::Int(1))) => {
                there.map(|(n, _)| Held::Value(n, Some(step.expiry(ms))))
            }
            (Action::Del, Some(Seen::Int(1))) => there.map(|_| Held::Nothing),
            (Action::Del, Some(Seen::Int(0))) => nothing,
            (Action::Del, None | Some(Seen::Any)) | (Action::GetDel, None) => Some(Held::Nothing),
            (Action::GetDel, Some(Seen::Value(v))) => is(v).map(|_| Held::Nothing),
            (Action::GetDel, Some(Seen::Nothing)) => nothing,
            _ => None,
        }
    }

    fn leaves(&self, from: &Held, to: &Held) -> bool {
        match (from, to) {
            (Held::Value(a, _), Held::Value(b, _)) => a != b,
            (Held::Value(..), Held::Nothing) => true,
            (Held::Nothing, _) => false,
        }
    }

    fn same_effect(&self, a: usize, b: usize) -> bool {
        let removes = |n: usize| matches!(self.steps[n].action, Action::Del | Action::GetDel);
        removes(a) && removes(b)
    }

    fn witnesses(&self, held: &Held) -> &[usize] {
        match held {
            Held::Nothing => &[],
            Held::Value(n, _) => &self.witnesses[*n],
        }
    }

    /// In the state in which it is asked of: an operation that finds a value gone may change
    /// another one.
    fn changed_nothing(&self, op: usize) -> bool {
        let step = &self.steps[op];
        match step.action {
            Action::Get | Action::Exists | Action::PTtl => step.seen.is_some(),
            Action::SetNxPxGet(..) => matches!(step.seen, Some(Seen::Value(_))),
            Action::GetEx(_) | Action::GetDel => step.seen == Some(Seen::Nothing),
            Action::PExpire(_) | Action::Del => step.seen == Some(Seen::Int(0)),
            Action::Set(_) | Action::SetPx(..) | Action::Nothing => false,
        }
    }

    /// None is told apart: a value that nobody read may be why another one was found gone.
    fn overwrites(&self, _: usize) -> bool {
        false
    }

    fn unseen(&self, _: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check_key, Verdict, BUDGET};
    use super::*;
    use crate::schedule::MS;

    /// At these milliseconds, which are the positions too.
    fn op(from: u64, to: u64, op: Op, reply: Reply) -> Record {
        Record {
            client: from as u32,
            op,
            call: from * 10,
            called_at: from * MS,
            outcome: Outcome::Replied { at: to * 10, reply },
            ended_at: to * MS,
        }
    }

    fn bulk(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    fn set(ms: u64) -> Record {
        op(10, 20, Op::SetPx(Bytes::from_static(b"v"), ms), Reply::Ok)
    }

    #[test]
    fn what_expires_is_there_for_its_time_and_then_gone_for_good() {
        let apart = |by: i64| {
            let mut clocks = WallBounds::default();
            clocks.note(0, [-by, by].into_iter());
            clocks
        };
        let (exact, loose) = (apart(0), apart(50));
        let get = |from, to, reply| op(from, to, Op::Get, reply);
        let rows: Vec<(&str, Vec<Record>, &WallBounds, bool)> = vec![
            (
                "gone at its time",
                vec![set(100), get(109, 110, Reply::Nil)],
                &exact,
                true,
            ),
            (
                "gone before its time",
                vec![set(100), get(108, 109, Reply::Nil)],
                &exact,
                false,
            ),
            (
                "gone before its time by the clocks of others",
                vec![set(100), get(108, 109, Reply::Nil)],
                &loose,
                true,
            ),
            (
                "there for as long as may be",
                vec![set(100), get(119, 130, bulk("v"))],
                &exact,
                true,
            ),
            (
                "there for too long",
                vec![set(100), get(120, 130, bulk("v"))],
                &exact,
                false,
            ),
            (
                "there for too long by the clocks of others",
                vec![set(100), get(219, 230, bulk("v"))],
                &loose,
                true,
            ),
            (
                "gone, and back",
                vec![
                    set(100),
                    get(108, 115, Reply::Nil),
                    get(116, 117, bulk("v")),
                ],
                &exact,
                false,
            ),
            (
                "gone, and back, on clocks that allow anything",
                vec![
                    set(100),
                    get(108, 115, Reply::Nil),
                    get(116, 117, bulk("v")),
                ],
                &loose,
                false,
            ),
            (
                "one of two that overlap finds it",
                vec![
                    set(100),
                    get(108, 117, Reply::Nil),
                    get(109, 116, bulk("v")),
                ],
                &exact,
                true,
            ),
            (
                "given more time",
                vec![
                    set(100),
                    op(90, 100, Op::GetEx(100), bulk("v")),
                    get(180, 189, bulk("v")),
                ],
                &exact,
                true,
            ),
            (
                "time that was given is not kept",
                vec![
                    set(100),
                    op(90, 100, Op::PExpire(100), Reply::Int(1)),
                    get(150, 160, Reply::Nil),
                ],
                &exact,
                false,
            ),
            (
                "the time left",
                vec![set(100), op(40, 50, Op::PTtl, Reply::Int(75))],
                &exact,
                true,
            ),
            (
                "the time left is too long",
                vec![set(100), op(40, 50, Op::PTtl, Reply::Int(81))],
                &exact,
                false,
            ),
            (
                "a lock that was free again",
                vec![
                    set(100),
                    op(
                        105,
                        112,
                        Op::SetNxPxGet(Bytes::from_static(b"w"), 50),
                        Reply::Nil,
                    ),
                    get(113, 114, bulk("w")),
                ],
                &exact,
                true,
            ),
            (
                "a lock that was given to two",
                vec![
                    set(100),
                    op(
                        90,
                        100,
                        Op::SetNxPxGet(Bytes::from_static(b"w"), 50),
                        Reply::Nil,
                    ),
                ],
                &exact,
                false,
            ),
        ];
        for (what, records, clocks, fine) in rows {
            let verdict = check_key(&records, clocks, BUDGET);
            assert_eq!(
                matches!(verdict, Verdict::Linearizable { .. }),
                fine,
                "{what}: {verdict:?}"
            );
        }
    }
}
