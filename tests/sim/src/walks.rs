//! What walks over all ranges promise: a key that is there from a walk's first command to its
//! last reply is found, each key at most once, and nothing that never was. Ranges split, move
//! and change leaders meanwhile.
//!
//! Keys that are written once and stay show it. An error reply only means to try again.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::Rng;
use rangekv_router::reply;
use std::collections::{BTreeMap, BTreeSet};

/// A command that walks.
#[derive(Clone, Debug)]
pub enum Walk {
    /// `SCAN`, one call of it.
    Scan,
    /// `KEYS *`, `KEYS keep-*`.
    Keys {
        /// Only keys that stay.
        kept_only: bool,
        /// Position at which it was sent.
        began: u64,
    },
    /// `DBSIZE`
    Count {
        /// Position at which it was sent.
        began: u64,
    },
    /// `RANDOMKEY`
    Random {
        /// Position at which it was sent.
        began: u64,
    },
}

/// Names that may exist, and those that do since a position, for ever.
type Names<'a> = (&'a BTreeSet<Bytes>, &'a BTreeMap<Bytes, u64>);

/// A scan that goes on from call to call, also through other stores.
#[derive(Debug)]
struct Scan {
    cursor: Bytes,
    began: u64,
    kept_only: bool,
    found: BTreeSet<Bytes>,
    /// A cursor was used twice: keys may be found twice.
    repeated: bool,
}

/// The walks of one client.
#[derive(Debug, Default)]
pub struct Walking {
    scan: Option<Scan>,
}

/// Begins the names of keys that stay.
pub const KEPT: &str = "keep-";

fn words(words: &[&str]) -> Vec<Bytes> {
    words
        .iter()
        .map(|w| Bytes::copy_from_slice(w.as_bytes()))
        .collect()
}

impl Walking {
    /// The next command.
    pub fn next(&mut self, rng: &mut SmallRng, position: u64) -> (Walk, Vec<Bytes>) {
        let began = position;
        let pattern = format!("{KEPT}*");
        if self.scan.is_none() {
            match rng.random_range(0..6) {
                0 => return (Walk::Count { began }, words(&["DBSIZE"])),
                1 => return (Walk::Random { began }, words(&["RANDOMKEY"])),
                2 => {
                    let kept_only = false;
                    return (Walk::Keys { kept_only, began }, words(&["KEYS", "*"]));
                }
                3 => {
                    let kept_only = true;
                    return (Walk::Keys { kept_only, began }, words(&["KEYS", &pattern]));
                }
                n => {
                    self.scan = Some(Scan {
                        cursor: Bytes::from_static(b"0"),
                        began,
                        kept_only: n == 4,
                        found: BTreeSet::new(),
                        repeated: false,
                    });
                }
            }
        }
        let scan = self.scan.as_ref().expect("begun");
        let mut args = words(&["SCAN"]);
        args.push(scan.cursor.clone());
        args.extend(words(&["COUNT", &rng.random_range(1..40).to_string()]));
        if scan.kept_only {
            args.extend(words(&["MATCH", &pattern]));
        }
        (Walk::Scan, args)
    }

    /// What is asked when all is well.
    pub fn last(began: u64) -> [(Walk, Vec<Bytes>); 2] {
        let kept_only = false;
        [
            (Walk::Keys { kept_only, began }, words(&["KEYS", "*"])),
            (Walk::Count { began }, words(&["DBSIZE"])),
        ]
    }

    /// A call of the scan will have no reply.
    pub fn lost(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.repeated = true;
        }
    }

    /// Takes in a reply; whether a walk is complete. The error is a finding.
    pub fn heard(&mut self, walk: Walk, reply: &Bytes, names: Names<'_>) -> Result<bool, String> {
        if reply.starts_with(b"-CLUSTERDOWN ") || reply.starts_with(b"-TRYAGAIN ") {
            self.lost();
            return Ok(false);
        }
        let nonsense = || format!("{walk:?} is answered {}", reply.escape_ascii());
        match walk {
            Walk::Keys { kept_only, began } => {
                let mut found = BTreeSet::new();
                collect(reply, &mut found, true).ok_or_else(nonsense)??;
                judge(&found, began, kept_only, names)?;
            }
            Walk::Count { began } => {
                let count = reply::int(reply).ok_or_else(nonsense)?;
                let least = names.1.values().filter(|at| **at <= began).count() as i64;
                if count < least || count > names.0.len() as i64 {
                    return Err(format!(
                        "DBSIZE is {count}; {least} keys stay, and {} may be",
                        names.0.len()
                    ));
                }
            }
            Walk::Random { began } => {
                let found = reply::bulk(reply).ok_or_else(nonsense)?;
                let stays = names.1.values().any(|at| *at <= began);
                match found {
                    Some(key) if !names.0.contains(&key) => {
                        return Err(format!("RANDOMKEY found {key:?}, which nobody wrote"));
                    }
                    None if stays => return Err("RANDOMKEY found nothing".to_string()),
                    _ => {}
                }
            }
            Walk::Scan => {
                let parts = reply::array(reply).ok_or_else(nonsense)?;
                let [cursor, page] = &parts[..] else {
                    return Err(nonsense());
                };
                let cursor = reply::bulk(cursor).flatten().ok_or_else(nonsense)?;
                let scan = self.scan.as_mut().ok_or_else(nonsense)?;
                collect(page, &mut scan.found, !scan.repeated).ok_or_else(nonsense)??;
                scan.repeated = false;
                if cursor[..] != b"0"[..] {
                    scan.cursor = cursor;
                    return Ok(false);
                }
                let scan = self.scan.take().expect("just seen");
                judge(&scan.found, scan.began, scan.kept_only, names)?;
            }
        }
        Ok(true)
    }
}

/// Adds the keys of an array; `None` if it is none.
fn collect(reply: &Bytes, found: &mut BTreeSet<Bytes>, once: bool) -> Option<Result<(), String>> {
    for element in reply::array(reply)? {
        let key = reply::bulk(&element)??;
        if !found.insert(key.clone()) && once {
            return Some(Err(format!("a walk found {key:?} twice")));
        }
    }
    Some(Ok(()))
}

fn judge(
    found: &BTreeSet<Bytes>,
    began: u64,
    kept_only: bool,
    (may, kept): Names<'_>,
) -> Result<(), String> {
    if let Some((missed, _)) = kept
        .iter()
        .find(|(name, at)| **at <= began && !found.contains(*name))
    {
        return Err(format!(
            "a walk over {} keys missed {missed:?}, which was there all the time",
            found.len()
        ));
    }
    let wanted =
        |name: &Bytes| may.contains(name) && (!kept_only || name.starts_with(KEPT.as_bytes()));
    match found.iter().find(|name| !wanted(name)) {
        Some(stranger) => Err(format!("a walk found {stranger:?}, which is not there")),
        None => Ok(()),
    }
}
