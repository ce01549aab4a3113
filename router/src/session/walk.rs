//! Commands over a whole keyspace (`KEYS`, `DBSIZE`, `RANDOMKEY`, `FLUSHDB`, `FLUSHALL`; `SCAN`
//! is in [`super::scan`], the last section of `INFO` in [`super::keyspace`]): ranges in key
//! order, page by page.
//!
//! A walk is where it stands (a record key) and what it has gathered. Each page is asked of
//! whichever range holds that key *then*, and the next one begins where it ended: a range that
//! splits, merges or moves in the middle changes who is asked, never what has been seen.
//!
//! A connection does nothing else while it walks, so that `FLUSHALL` removes what was written
//! before it on that connection and nothing that is written after it.

use super::keyspace::Figures;
use super::scan::Scan;
use crate::reply as parse;
use bytes::{Bytes, BytesMut};
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::Spec;
use rangekv_model::redis::{keys, number, paging};

/// Records that one page visits at most: bounds how long a worker is kept.
const PAGE_RECORDS: u32 = 2_000;
/// As [`PAGE_RECORDS`], for walks through one slot, of which most are small.
const SLOT_PAGE_RECORDS: u32 = 500;

/// A walk in progress.
#[derive(Debug)]
pub(super) struct Walk {
    db: u8,
    protocol: Protocol,
    /// Where the next page begins: a record key, or the start of a range.
    at: Bytes,
    /// Where it is over.
    end: Bytes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Count {
        keys: i64,
    },
    Keys {
        pattern: Bytes,
        count: usize,
        found: BytesMut,
        bytes_max: usize,
    },
    Flush {
        all: bool,
        began: bool,
    },
    Random {
        origin: Bytes,
        wrapped: bool,
    },
    Scan(Scan),
    Info(Figures),
    /// The keys of one slot, or how many.
    Slot {
        slot: u16,
        wanted: usize,
        /// Whether they are only counted.
        counts: bool,
        count: usize,
        found: Vec<Bytes>,
    },
}

/// What follows a page.
pub(super) enum Step {
    /// Another page.
    Again,
    /// The command's reply.
    Reply(Bytes),
}

impl Walk {
    /// Begins the command; the error reply if its arguments are wrong.
    ///
    /// `seed` decides where `RANDOMKEY` looks; replies of `KEYS` are refused beyond `bytes_max`.
    pub fn new(
        spec: &Spec,
        args: &[Bytes],
        db: u8,
        protocol: Protocol,
        seed: u64,
        bytes_max: usize,
    ) -> Result<Self, Bytes> {
        let mut at = keys::slot_start(0);
        let kind = match spec.name {
            "dbsize" => Kind::Count { keys: 0 },
            "keys" => {
                let pattern = if args[1][..] == b"*"[..] {
                    Bytes::new()
                } else {
                    args[1].clone()
                };
                Kind::Keys {
                    pattern,
                    count: 0,
                    found: BytesMut::new(),
                    bytes_max,
                }
            }
            "flushdb" | "flushall" => {
                let is = |name: &[u8]| args.get(1).is_some_and(|a| a.eq_ignore_ascii_case(name));
                if args.len() > 2 || (args.len() == 2 && !is(b"sync") && !is(b"async")) {
                    return Err(CommandError::Syntax.to_reply());
                }
                Kind::Flush {
                    all: spec.name == "flushall",
                    began: false,
                }
            }
            "randomkey" => {
                at = keys::slot_start((seed % u64::from(keys::SLOTS)) as u16);
                Kind::Random {
                    origin: at.clone(),
                    wrapped: false,
                }
            }
            "scan" => {
                let scan = Scan::new(args)?;
                at = scan.start();
                Kind::Scan(scan)
            }
            other => {
                return Err(reply::error(&format!(
                    "ERR '{other}' does not walk a keyspace"
                )))
            }
        };
        Ok(Walk {
            db,
            protocol,
            at,
            end: keys::slot_start(keys::SLOTS),
            kind,
        })
    }

    /// `INFO` with figures of the keyspace.
    pub fn info(figures: Figures, protocol: Protocol) -> Self {
        Walk {
            db: 0,
            protocol,
            at: keys::slot_start(0),
            end: keys::slot_start(keys::SLOTS),
            kind: Kind::Info(figures),
        }
    }

    /// `CLUSTER COUNTKEYSINSLOT slot`, or `CLUSTER GETKEYSINSLOT slot wanted`.
    pub fn slot(slot: u16, wanted: Option<usize>, db: u8, protocol: Protocol) -> Self {
        let kind = Kind::Slot {
            slot,
            wanted: wanted.unwrap_or(usize::MAX),
            counts: wanted.is_none(),
            count: 0,
            found: Vec::new(),
        };
        Walk {
            db,
            protocol,
            at: keys::database_start(slot, db),
            end: keys::database_start(slot, db + 1),
            kind,
        }
    }

    /// The command's name.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Count { .. } => "DBSIZE",
            Kind::Keys { .. } => "KEYS",
            Kind::Flush { all: false, .. } => "FLUSHDB",
            Kind::Flush { all: true, .. } => "FLUSHALL",
            Kind::Random { .. } => "RANDOMKEY",
            Kind::Scan(_) => "SCAN",
            Kind::Info(_) => "INFO",
            Kind::Slot { .. } => "CLUSTER",
        }
    }

    /// Where the next page begins: it is asked of the range that holds this key.
    pub fn at(&self) -> &Bytes {
        &self.at
    }

    /// Whether pages have no effect.
    pub fn is_read_only(&self) -> bool {
        !matches!(self.kind, Kind::Flush { .. })
    }

    /// Whether something may have been deleted already.
    pub fn has_effect(&self) -> bool {
        matches!(self.kind, Kind::Flush { began: true, .. })
    }

    /// The next page's command, in the model's encoding.
    pub fn page(&self) -> Bytes {
        let word = Bytes::from_static;
        let number = |n: u32| Bytes::from(n.to_string());
        let start = self.at.clone();
        let args = match &self.kind {
            Kind::Count { .. } => vec![word(paging::COUNT), start, number(PAGE_RECORDS)],
            Kind::Info(_) => vec![word(paging::FIGURES), start, number(PAGE_RECORDS)],
            Kind::Keys { pattern, .. } => vec![
                word(paging::KEYS),
                start,
                number(PAGE_RECORDS),
                pattern.clone(),
                Bytes::new(),
            ],
            Kind::Flush { all: false, .. } => {
                vec![word(paging::FLUSH), start, number(PAGE_RECORDS)]
            }
            Kind::Flush { all: true, .. } => {
                vec![
                    word(paging::FLUSH),
                    start,
                    number(PAGE_RECORDS),
                    word(b"ALL"),
                ]
            }
            Kind::Slot { wanted, .. } => vec![
                word(paging::KEYS),
                start,
                // What lies behind the slot is read for nothing.
                number(
                    SLOT_PAGE_RECORDS
                        .min(u32::try_from(*wanted).unwrap_or(u32::MAX))
                        .max(1),
                ),
                Bytes::new(),
                Bytes::new(),
            ],
            // An empty start lets the range choose by its own seed.
            Kind::Random { .. } => vec![word(paging::RANDOM), Bytes::new()],
            Kind::Scan(scan) => vec![
                word(paging::KEYS),
                start,
                number(scan.page_records()),
                scan.pattern(),
                scan.kind(),
            ],
        };
        encode_command(Protocol::Resp2, self.db, &args)
    }

    /// How long a page may take at most, in milliseconds, if less than a command has.
    pub fn patience_ms(&self) -> Option<u64> {
        match &self.kind {
            Kind::Info(figures) => figures.patience_ms(),
            _ => None,
        }
    }

    /// The reply when a page can't be had because of `error`.
    pub fn fail(&self, error: Bytes) -> Bytes {
        match &self.kind {
            Kind::Info(figures) => figures.without(self.protocol).unwrap_or(error),
            _ => error,
        }
    }

    /// Takes in a page from a range that ends at `range_end`.
    pub fn on_page(&mut self, page: &Bytes, range_end: &Bytes) -> Step {
        if parse::is_error(page) {
            return Step::Reply(self.fail(page.clone()));
        }
        self.take(page, range_end).unwrap_or_else(|| {
            Step::Reply(reply::error(
                "ERR a range answered with a page that can't be read",
            ))
        })
    }

    /// `None` if the page is not of the shape that was asked for.
    fn take(&mut self, page: &Bytes, range_end: &Bytes) -> Option<Step> {
        if let Kind::Random { origin, wrapped } = &mut self.kind {
            if parse::bulk(page)?.is_some() {
                return Some(Step::Reply(page.clone()));
            }
            let next = next_start(&Bytes::new(), range_end, &self.end);
            if *wrapped && next.as_ref().is_none_or(|next| *next > *origin) {
                return Some(Step::Reply(reply::nil(self.protocol)));
            }
            *wrapped |= next.is_none();
            self.at = next.unwrap_or_else(|| keys::slot_start(0));
            return Some(Step::Again);
        }
        let parts = parse::array(page)?;
        let [next, found] = &parts[..] else {
            return None;
        };
        let mut next = next_start(&parse::bulk(next)??, range_end, &self.end);
        match &mut self.kind {
            Kind::Count { keys } => *keys += parse::int(found)?,
            Kind::Flush { began, .. } => {
                parse::int(found)?;
                *began = true;
            }
            Kind::Keys {
                count,
                found: bytes,
                bytes_max,
                ..
            } => {
                let elements = parse::array(found)?;
                *count += elements.len();
                for element in elements {
                    bytes.extend_from_slice(&element);
                }
                if bytes.len() > *bytes_max {
                    let text = format!("ERR the reply to KEYS exceeds {bytes_max} bytes; use SCAN");
                    return Some(Step::Reply(reply::error(&text)));
                }
            }
            Kind::Scan(scan) => {
                let mut user_keys = Vec::new();
                for element in parse::array(found)? {
                    user_keys.push(parse::bulk(&element)??);
                }
                let Some(at) = scan.on_page(user_keys, next) else {
                    return Some(Step::Reply(scan.reply()));
                };
                self.at = at;
                return Some(Step::Again);
            }
            Kind::Info(figures) => {
                let numbers = parse::array(found)?;
                let numbers: Option<Vec<i64>> = numbers.iter().map(|n| parse::int(n)).collect();
                figures.add(&numbers?)?;
                if figures.is_enough() {
                    let at = next.as_ref().map(|next| keys::slot_at(next));
                    return Some(Step::Reply(figures.reply(at, self.protocol)));
                }
            }
            Kind::Slot {
                slot,
                wanted,
                counts,
                count,
                found: taken,
            } => {
                for element in parse::array(found)? {
                    let user_key = parse::bulk(&element)??;
                    if keys::slot(&user_key) != *slot {
                        next = None;
                        break;
                    }
                    *count += 1;
                    if !*counts && taken.len() < *wanted {
                        taken.push(user_key);
                    }
                }
                if *count >= *wanted {
                    next = None;
                }
            }
            Kind::Random { .. } => return None,
        }
        if let Some(next) = next {
            self.at = next;
            return Some(Step::Again);
        }
        Some(Step::Reply(match &mut self.kind {
            Kind::Count { keys } => reply::int(*keys),
            Kind::Keys { count, found, .. } => {
                let mut whole = BytesMut::with_capacity(found.len() + 16);
                whole.extend_from_slice(format!("*{count}\r\n").as_bytes());
                whole.extend_from_slice(found);
                whole.freeze()
            }
            Kind::Flush { .. } => reply::ok(),
            Kind::Info(figures) => figures.reply(None, self.protocol),
            Kind::Slot {
                counts: true,
                count,
                ..
            } => reply::int(*count as i64),
            Kind::Slot { found, .. } => {
                let mut reply = Reply::new(self.protocol);
                reply.array(found.len());
                for key in found.iter() {
                    reply.bulk(key);
                }
                reply.finish()
            }
            Kind::Random { .. } | Kind::Scan(_) => return None,
        }))
    }
}

/// Where a walk goes on after a page: within the range, at its end, or not at all.
fn next_start(next: &Bytes, range_end: &Bytes, end: &Bytes) -> Option<Bytes> {
    let at = if next.is_empty() { range_end } else { next };
    (!at.is_empty() && at < end).then(|| at.clone())
}

/// A number among a command's arguments, as Redis reads it.
pub(super) fn integer(arg: &[u8]) -> Result<i64, Bytes> {
    number::parse_int(arg).ok_or_else(|| CommandError::NotInteger.to_reply())
}
