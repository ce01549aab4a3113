//! What was written, and what may therefore be read.
//!
//! Each key has one writer, who sends one write at a time. After a write of unknown outcome,
//! which may take effect at any later time, its key is never written again. So what the key
//! must hold in the end is known exactly, save for whether that last write is part of it.
//!
//! A write that was refused must never show: "nothing was written" is a promise.

use crate::resp::{describe, CallError, Door, Reply};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a healthy cluster may take to answer a read.
const READ_MAX: Duration = Duration::from_secs(30);

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client was told that it is done.
    Acknowledged,
    /// The client was told, or knows, that nothing was written.
    Refused,
    /// Either, perhaps later.
    Unknown,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SET: the last write stays. Shows lost and late writes.
    Register,
    /// APPEND: all writes stay. Shows each write that is lost, doubled or out of order.
    Journal,
}

/// One key and all that was written to it, in order; unique tokens that end in `;`.
#[derive(Clone, Debug)]
pub struct Record {
    /// The key.
    pub key: String,
    /// How it is written.
    pub kind: Kind,
    /// Tokens and what became of them.
    pub writes: Vec<(String, Outcome)>,
}

/// All keys of one or several writers.
#[derive(Default)]
pub struct Ledger {
    records: Vec<Record>,
}

impl Record {
    /// A key without writes.
    pub fn new(key: String, kind: Kind) -> Record {
        let writes = Vec::new();
        Record { key, kind, writes }
    }

    /// Sends the next write.
    pub fn write(&mut self, door: &mut Door) -> Outcome {
        let token = format!("{}:{};", self.key, self.writes.len());
        let command: &[u8] = match self.kind {
            Kind::Register => b"SET",
            Kind::Journal => b"APPEND",
        };
        assert!(self.is_open(), "{} after an unknown outcome", self.key);
        let reply = door.call(&[command, self.key.as_bytes(), token.as_bytes()]);
        let outcome = self.classify(&reply);
        if outcome != Outcome::Acknowledged {
            println!("{token} {outcome:?}: {}", describe(&reply));
        }
        self.writes.push((token, outcome));
        outcome
    }

    /// No outcome is unknown.
    pub fn is_open(&self) -> bool {
        !matches!(self.writes.last(), Some((_, Outcome::Unknown)))
    }

    fn classify(&self, reply: &Result<Reply, CallError>) -> Outcome {
        match (self.kind, reply) {
            (Kind::Register, Ok(Reply::Simple(ok))) if ok == "OK" => Outcome::Acknowledged,
            (Kind::Journal, Ok(Reply::Integer(_))) => Outcome::Acknowledged,
            (_, Ok(Reply::Error(e))) if e.starts_with("UNKNOWN") => Outcome::Unknown,
            (_, Ok(Reply::Error(e)))
                if e.starts_with("CLUSTERDOWN") || e.starts_with("TRYAGAIN") =>
            {
                Outcome::Refused
            }
            (_, Err(CallError::NotSent(_))) => Outcome::Refused,
            (_, Err(CallError::Lost(_))) => Outcome::Unknown,
            (kind, Ok(reply)) => panic!("{kind:?} {}: unexpected reply {reply:?}", self.key),
        }
    }

    /// Judges what was read when all was over.
    pub fn check(&self, value: Option<&str>) -> Result<(), String> {
        let allowed = self.allowed();
        let value = value.unwrap_or("");
        if allowed.iter().any(|a| a == value) {
            return Ok(());
        }
        Err(format!(
            "{:?} {} holds {value:?}, not {}; writes: {:?}",
            self.kind,
            self.key,
            allowed
                .iter()
                .map(|a| format!("{a:?}"))
                .collect::<Vec<_>>()
                .join(" or "),
            self.writes
        ))
    }

    /// The values it may have; "" = none.
    fn allowed(&self) -> Vec<String> {
        let mut allowed = vec![String::new()];
        for (token, outcome) in &self.writes {
            let last = allowed.last().expect("never empty");
            let next = match self.kind {
                Kind::Register => token.clone(),
                Kind::Journal => format!("{last}{token}"),
            };
            match outcome {
                Outcome::Acknowledged => allowed = vec![next],
                Outcome::Refused => {}
                Outcome::Unknown => allowed.push(next),
            }
        }
        allowed
    }
}

impl Ledger {
    /// Adds a key.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Adds the keys of another writer.
    pub fn merge(&mut self, other: Ledger) {
        self.records.extend(other.records);
    }

    /// Writes with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        let writes = self.records.iter().flat_map(|record| &record.writes);
        writes.filter(|(_, o)| *o == outcome).count()
    }

    /// Reads every key back, each through two doors in turn, and returns what is wrong.
    pub fn violations(&self, doors: &[SocketAddr]) -> Vec<String> {
        let mut doors: Vec<Door> = doors
            .iter()
            .map(|address| Door::new(*address, READ_MAX))
            .collect();
        let mut violations = Vec::new();
        for (n, record) in self.records.iter().enumerate() {
            for through in [n % doors.len(), (n + 1 + n / doors.len()) % doors.len()] {
                let value = read_back(&mut doors[through], &record.key);
                violations.extend(record.check(value.as_deref()).err());
            }
        }
        violations
    }

    /// Fails if an acknowledged write is lost, or a refused one shows.
    pub fn verify(&self, doors: &[SocketAddr]) {
        let violations = self.violations(doors);
        println!(
            "{} keys, {} writes acknowledged, {} unknown, {} refused, {} violations",
            self.records.len(),
            self.count(Outcome::Acknowledged),
            self.count(Outcome::Unknown),
            self.count(Outcome::Refused),
            violations.len()
        );
        assert!(
            violations.is_empty(),
            "{} violations:\n{}",
            violations.len(),
            violations[..violations.len().min(20)].join("\n")
        );
    }
}

/// A key's value, asked for until there is an answer.
fn read_back(door: &mut Door, key: &str) -> Option<String> {
    let deadline = Instant::now() + READ_MAX;
    loop {
        match door.call(&[b"GET", key.as_bytes()]) {
            Ok(Reply::Bulk(value)) => {
                return value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            other if Instant::now() > deadline => panic!("{key} can't be read: {other:?}"),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind, outcomes of the writes 0, 1, …; values that are right, and some that are wrong.
    #[test]
    fn knows_what_may_be_read() {
        for (kind, outcomes, right, wrong) in [
            (Kind::Register, "", &[""][..], &["0"][..]),
            (Kind::Register, "a", &["0"], &["", "1"]),
            (Kind::Register, "aa", &["1"], &["", "0"]),
            (Kind::Register, "aar", &["1"], &["", "0", "2"]),
            (Kind::Register, "au", &["0", "1"], &["", "2"]),
            (Kind::Register, "ru", &["", "1"], &["0"]),
            (
                Kind::Journal,
                "aaa",
                &["012"],
                &["", "2", "02", "0122", "021"],
            ),
            (Kind::Journal, "ara", &["02"], &["012", "0", "2", ""]),
            (Kind::Journal, "aau", &["01", "012"], &["0122", "02", "12"]),
        ] {
            let token = |n: usize| format!("{n};");
            let mut record = Record::new("k".into(), kind);
            record.writes = outcomes
                .chars()
                .enumerate()
                .map(|(n, outcome)| {
                    let outcome = match outcome {
                        'a' => Outcome::Acknowledged,
                        'r' => Outcome::Refused,
                        _ => Outcome::Unknown,
                    };
                    (token(n), outcome)
                })
                .collect();
            let check = |digits: &str| {
                let digits = digits.chars().map(|c| c.to_digit(10).unwrap() as usize);
                let value: String = digits.map(token).collect();
                record.check((!value.is_empty()).then_some(&value))
            };
            for digits in right {
                check(digits).unwrap();
            }
            for digits in wrong {
                check(digits).expect_err(&format!("{kind:?} {outcomes} {digits:?}"));
            }
        }
    }
}
