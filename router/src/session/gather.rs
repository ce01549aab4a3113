//! Commands that are cut into a part per range, and merged from the parts' replies: `MGET`,
//! sums such as `DEL`, and what combines values: `LCS`, `SUNION` and their kin, whose values are
//! fetched and combined here.
//!
//! Each part keeps its own keys, so that it can be cut again when its range has split. A part
//! is one evaluation; the whole command is not.

use crate::cache::{RangeCache, Route};
use crate::reply as parse;
use bytes::Bytes;
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::{self, Spec};
use rangekv_model::redis::{keys, records};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How replies are put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merge {
    /// Elements in the order of the keys.
    Array,
    /// The sum of integers.
    Sum,
    /// Values, which are compared here.
    Lcs,
    /// Records, over which the command is evaluated here.
    Records,
    /// As these; first those of the collection, then those that the patterns name.
    Sort,
}

/// A command in parts.
#[derive(Debug)]
pub(super) struct Gather {
    merge: Merge,
    db: u8,
    protocol: Protocol,
    read_only: bool,
    /// The command as the client sent it.
    args: Vec<Bytes>,
    /// Where its keys stand among the arguments.
    positions: Vec<usize>,
    /// What the patterns of a `SORT` name; they follow the one key that it has itself.
    named: records::Pairs,
    /// Their record keys.
    keys: Vec<Bytes>,
    parts: Vec<Part>,
    unanswered: usize,
    /// An error reply, which is the whole command's.
    failed: Option<Bytes>,
    took_effect: bool,
}

#[derive(Debug)]
struct Part {
    /// Indexes into `keys`.
    of: Vec<u32>,
    reply: Option<Bytes>,
}

/// Keys that lie in one range: its route, and their indexes in ascending order.
pub(super) type Group = (Option<Arc<Route>>, Vec<u32>);

/// Sorts keys by the range that holds them; those without a route come last, together.
pub(super) fn group(cache: &RangeCache, keys: &[Bytes], of: &[u32]) -> Vec<Group> {
    let mut order = of.to_vec();
    order.sort_unstable_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
    let mut groups: Vec<Group> = Vec::new();
    let mut unrouted = Vec::new();
    for index in order {
        let key = &keys[index as usize];
        match groups.last_mut() {
            Some((Some(route), group)) if route.descriptor.contains(key) => group.push(index),
            _ => match cache.lookup(key) {
                Some(route) => groups.push((Some(route.clone()), vec![index])),
                None => unrouted.push(index),
            },
        }
    }
    if !unrouted.is_empty() {
        groups.push((None, unrouted));
    }
    for (_, group) in &mut groups {
        group.sort_unstable();
    }
    groups
}

impl Gather {
    /// A command without parts yet.
    pub fn new(
        merge: Merge,
        spec: &Spec,
        db: u8,
        protocol: Protocol,
        args: Vec<Bytes>,
        keys: Vec<Bytes>,
    ) -> Self {
        let positions = spec::keys(spec, &args).collect();
        Gather {
            merge,
            db,
            protocol,
            // What SORTs fetch they only read.
            read_only: spec.is_readonly() || merge == Merge::Sort,
            args,
            positions,
            named: Vec::new(),
            keys,
            parts: Vec::new(),
            unanswered: 0,
            failed: None,
            took_effect: false,
        }
    }

    /// The command as the client sent it.
    pub fn args(&self) -> &[Bytes] {
        &self.args
    }

    /// Record keys of all parts.
    pub fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// Bytes of its arguments.
    pub fn bytes(&self) -> usize {
        self.args
            .iter()
            .chain(&self.keys)
            .map(|arg| arg.len() + size_of::<Bytes>())
            .sum()
    }

    /// The command only reads.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Adds a part over these keys: its number, its routing key, and its command.
    pub fn add(&mut self, of: Vec<u32>) -> (u32, Bytes, Bytes) {
        self.parts.push(Part { of, reply: None });
        self.unanswered += 1;
        self.part(self.parts.len() as u32 - 1)
    }

    /// Indexes of the keys of a part.
    pub fn of(&self, part: u32) -> &[u32] {
        &self.parts[part as usize].of
    }

    /// Leaves a part with fewer keys than it had.
    pub fn narrow(&mut self, part: u32, of: Vec<u32>) -> (u32, Bytes, Bytes) {
        self.parts[part as usize].of = of;
        self.part(part)
    }

    fn part(&self, part: u32) -> (u32, Bytes, Bytes) {
        let of = &self.parts[part as usize].of;
        let args: Vec<Bytes> = match self.merge {
            // A part of LCS is one key; two keys in one range are not gathered.
            Merge::Lcs => {
                vec![
                    Bytes::from_static(b"GET"),
                    self.args[self.positions[of[0] as usize]].clone(),
                ]
            }
            Merge::Records => {
                let keys = of.iter().map(|i| self.positions[*i as usize]);
                records::arguments(&self.args[0], keys.map(|at| self.args[at].clone()))
            }
            Merge::Sort if of[0] == 0 => {
                let name = Bytes::from_static(b"SORT");
                records::arguments(&name, std::iter::once(self.args[1].clone()))
            }
            Merge::Sort => {
                records::named_arguments(of.iter().map(|i| &self.named[*i as usize - 1]))
            }
            Merge::Array | Merge::Sum => std::iter::once(self.args[0].clone())
                .chain(
                    of.iter()
                        .map(|i| self.args[self.positions[*i as usize]].clone()),
                )
                .collect(),
        };
        let command = encode_command(self.protocol, self.db, &args);
        (part, self.keys[of[0] as usize].clone(), command)
    }

    /// Takes in the reply to a part; the whole reply if it was the last.
    pub fn answer(&mut self, part: u32, reply: Bytes) -> Option<Bytes> {
        self.took_effect |= !self.read_only;
        if parse::is_error(&reply) {
            let reply = match self.merge {
                Merge::Lcs => CommandError::LcsNotStrings.to_reply(),
                Merge::Array | Merge::Sum | Merge::Records | Merge::Sort => reply,
            };
            self.failed.get_or_insert(reply);
        } else {
            self.parts[part as usize].reply = Some(reply);
        }
        self.answered()
    }

    /// Takes in that a part has no reply, and what the client is told of that.
    pub fn fail(&mut self, error: Bytes, unknown: bool) -> Option<Bytes> {
        self.took_effect |= unknown;
        self.failed.get_or_insert(error);
        self.answered()
    }

    fn answered(&mut self) -> Option<Bytes> {
        self.unanswered -= 1;
        if self.unanswered > 0 {
            return None;
        }
        if self.merge == Merge::Sort && self.parts.len() == 1 && self.failed.is_none() {
            match self.name() {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => self.failed = Some(error),
            }
        }
        Some(match self.failed.take() {
            // To say that nothing was written would be false.
            Some(error)
                if self.took_effect
                    && (error.starts_with(b"-CLUSTERDOWN") || error.starts_with(b"-TRYAGAIN")) =>
            {
                reply::error("UNKNOWN outcome unknown: it took effect on some of the keys only")
            }
            Some(error) => error,
            None => self.merged().unwrap_or_else(|| {
                reply::error("ERR a range answered with a reply that can't be merged")
            }),
        })
    }

    /// Finds out what the patterns name; whether there is anything to be fetched.
    fn name(&mut self) -> Result<bool, Bytes> {
        let unreadable = || reply::error("ERR a range answered with records that can't be read");
        let records = self.records().ok_or_else(unreadable)?;
        self.named = records::named(&records, self.db, &self.args)?;
        let db = self.db;
        let keys = self.named.iter().map(|(key, _)| keys::record_key(db, key));
        self.keys.extend(keys);
        Ok(!self.named.is_empty())
    }

    /// Keys of which nothing is asked yet, though all that is asked is answered.
    pub fn due(&self) -> Option<Vec<u32>> {
        if self.merge != Merge::Sort || self.unanswered > 0 {
            return None;
        }
        match self.parts.len() {
            0 => Some(vec![0]),
            1 if !self.named.is_empty() => Some((1..self.keys.len() as u32).collect()),
            _ => None,
        }
    }

    fn records(&self) -> Option<BTreeMap<Bytes, Bytes>> {
        let mut all = BTreeMap::new();
        for part in &self.parts {
            for pair in parse::array(part.reply.as_ref()?)?.chunks_exact(2) {
                all.insert(parse::bulk(&pair[0])??, parse::bulk(&pair[1])??);
            }
        }
        Some(all)
    }

    fn merged(&self) -> Option<Bytes> {
        match self.merge {
            Merge::Sum => {
                let mut sum = 0i64;
                for part in &self.parts {
                    sum = sum.checked_add(parse::int(part.reply.as_ref()?)?)?;
                }
                Some(reply::int(sum))
            }
            Merge::Array => {
                let mut elements = vec![Bytes::new(); self.keys.len()];
                let mut bytes = 16;
                for part in &self.parts {
                    let reply = part.reply.as_ref()?;
                    let of_part = parse::array(reply)?;
                    if of_part.len() != part.of.len() {
                        return None;
                    }
                    bytes += reply.len();
                    for (i, element) in part.of.iter().zip(of_part) {
                        elements[*i as usize] = element;
                    }
                }
                let mut reply = Reply::with_capacity(self.protocol, bytes);
                reply.array(elements.len());
                for element in &elements {
                    reply.raw(element);
                }
                Some(reply.finish())
            }
            Merge::Records | Merge::Sort => {
                let (all, db) = (self.records()?, self.db);
                Some(records::evaluate_over(&all, self.protocol, db, &self.args))
            }
            Merge::Lcs => {
                let mut values = [Bytes::new(), Bytes::new()];
                for part in &self.parts {
                    let value = parse::bulk(part.reply.as_ref()?)?.unwrap_or_default();
                    *values.get_mut(part.of[0] as usize)? = value;
                }
                let [a, b] = &values;
                Some(rangekv_model::redis::lcs(self.protocol, &self.args, a, b))
            }
        }
    }
}
