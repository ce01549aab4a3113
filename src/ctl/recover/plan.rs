//! Which survivor of each range lives on: a pure function of the surveys of all that is left.
//!
//! - Every member of a range that nobody has surveyed must be given up by name: a store that is
//!   merely forgotten could still vote.
//! - A range that can elect a leader by what any of its survivors knows to be committed is left
//!   alone.
//! - Of the survivors the one with the most advanced log is chosen: by term of the last entry,
//!   then index, then the lesser store.
//! - A range whose keys another one holds in a greater version was cut or absorbed meanwhile, and
//!   would make two histories of them: it is not recovered.

use super::survey::{ReplicaFound, Survey, FORMAT};
use super::PlanArgs;
use crate::ctl::hex;
use rangekv_proto::{RangeDescriptor, StoreId, PLACEMENT_RANGE};
use rangekv_store::recover::has_quorum;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What is to be done on each survivor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// In hex.
    pub cluster: String,
    /// Stores that are gone for good.
    pub lost: BTreeMap<u64, String>,
    /// The greatest number of a range, replica or store that a survivor has met.
    pub highest_id: u64,
    /// Whom it was made for.
    pub stores: Vec<PlannedStore>,
    /// What becomes of the ranges.
    pub ranges: Vec<PlannedRange>,
}

/// A survivor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStore {
    /// Its number.
    pub store: u64,
    /// Its name.
    pub name: String,
    /// Of its data directory, in hex.
    pub incarnation: String,
    /// Of its survey.
    pub fingerprint: String,
}

/// A range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRange {
    /// Its number.
    pub range: u64,
    /// What becomes of it.
    pub fate: Fate,
    /// For people.
    pub why: String,
}

/// What becomes of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It can elect a leader.
    Healthy,
    /// The replica on this store lives on alone, those on others end.
    Recovered {
        /// Where it lives on.
        on: u64,
        /// Where it ends.
        ends_on: Vec<u64>,
    },
    /// It stays as it is, and is not served.
    Refused,
}

impl Plan {
    /// Names the plan: another one has another name.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("our own types serialise");
        format!("{:08x}", crc32fast::hash(&json))
    }

    /// Ranges that are recovered.
    pub fn recovered(&self) -> impl Iterator<Item = &PlannedRange> {
        let recovered = |r: &&PlannedRange| matches!(r.fate, Fate::Recovered { .. });
        self.ranges.iter().filter(recovered)
    }
}

/// One survivor of a range.
struct Found<'a> {
    store: &'a Survey,
    replica: &'a ReplicaFound,
    committed: RangeDescriptor,
    last: RangeDescriptor,
}

/// Decides.
pub fn plan(surveys: &[Survey], lost: &[String]) -> anyhow::Result<Plan> {
    let stores = check_surveys(surveys)?;
    let alive: BTreeSet<StoreId> = surveys.iter().map(Survey::store_id).collect();
    let lost = find_lost(lost, &stores, &alive)?;
    let mut ranges: BTreeMap<u64, Vec<Found<'_>>> = BTreeMap::new();
    for store in surveys {
        for replica in &store.replicas {
            let found = Found {
                store,
                replica,
                committed: replica.committed_range()?,
                last: replica.final_range()?,
            };
            ranges.entry(replica.range).or_default().push(found);
        }
    }
    // As somebody knows it to be by now.
    let newest: Vec<RangeDescriptor> = ranges
        .values()
        .filter_map(|found| {
            found
                .iter()
                .map(|f| &f.last)
                .max_by_key(|d| d.epoch.version)
        })
        .cloned()
        .collect();
    let mut planned = Vec::new();
    for (range, found) in &ranges {
        let (fate, why) = decide(found, &alive, &newest);
        if fate != Fate::Healthy {
            check_members(*range, found, &alive, &lost, &stores)?;
        }
        planned.push(PlannedRange {
            range: *range,
            fate,
            why,
        });
    }
    Ok(Plan {
        format: FORMAT,
        cluster: surveys[0].cluster.clone(),
        lost,
        highest_id: surveys.iter().map(|s| s.highest_id).max().unwrap_or(0),
        stores: surveys
            .iter()
            .map(|s| PlannedStore {
                store: s.store,
                name: s.name.clone(),
                incarnation: s.incarnation.clone(),
                fingerprint: s.fingerprint(),
            })
            .collect(),
        ranges: planned,
    })
}

/// The names of all stores that somebody knows.
fn check_surveys(surveys: &[Survey]) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut stores = BTreeMap::new();
    let first = surveys
        .first()
        .ok_or_else(|| anyhow::anyhow!("no surveys"))?;
    let mut seen = BTreeSet::new();
    for survey in surveys {
        anyhow::ensure!(
            survey.format == FORMAT,
            "the survey of {} has format {}, this version knows {FORMAT}",
            survey.name,
            survey.format
        );
        anyhow::ensure!(
            survey.cluster == first.cluster,
            "{} belongs to cluster {}, {} to cluster {}",
            first.name,
            first.cluster,
            survey.name,
            survey.cluster
        );
        anyhow::ensure!(seen.insert(survey.store), "two surveys of {}", survey.name);
        stores.extend(survey.stores.clone());
    }
    Ok(stores)
}

fn find_lost(
    lost: &[String],
    stores: &BTreeMap<u64, String>,
    alive: &BTreeSet<StoreId>,
) -> anyhow::Result<BTreeMap<u64, String>> {
    let find = |word: &String| {
        let by_name = stores.iter().find(|(_, name)| *name == word);
        let found = by_name.or_else(|| stores.iter().find(|(id, _)| id.to_string() == *word));
        let Some((id, name)) = found else {
            let known: Vec<&str> = stores.values().map(String::as_str).collect();
            anyhow::bail!(
                "--lost {word:?}: no store is called so; there are {}",
                known.join(", ")
            );
        };
        anyhow::ensure!(
            !alive.contains(&StoreId(*id)),
            "--lost {word:?}: its survey is given, so it is not lost"
        );
        Ok((*id, name.clone()))
    };
    lost.iter().map(find).collect()
}

fn decide(
    found: &[Found<'_>],
    alive: &BTreeSet<StoreId>,
    newest: &[RangeDescriptor],
) -> (Fate, String) {
    if let Some(able) = found.iter().find(|f| has_quorum(&f.committed, alive)) {
        let voters = able.committed.replicas.len();
        return (
            Fate::Healthy,
            format!("a majority of its {voters} replicas is left"),
        );
    }
    let best = found.iter().max_by_key(|f| {
        (
            f.replica.last_term,
            f.replica.last,
            std::cmp::Reverse(f.store.store),
        )
    });
    let best = best.expect("found somewhere");
    let superseded = newest.iter().find(|d| {
        d.id != best.last.id && d.overlaps(&best.last) && d.epoch.version > best.last.epoch.version
    });
    if let Some(other) = superseded {
        return (
            Fate::Refused,
            format!("range {} holds keys of it in a later version", other.id),
        );
    }
    if !best.replica.refused.is_empty() {
        return (
            Fate::Refused,
            format!("{}: {}", best.store.name, best.replica.refused),
        );
    }
    let others = found
        .iter()
        .map(|f| f.store.store)
        .filter(|s| *s != best.store.store);
    let ReplicaFound {
        applied,
        committed,
        last,
        last_term,
        ..
    } = best.replica;
    let mut why = format!("its log ends with entry {last} of term {last_term}, applied {applied}");
    if last > committed {
        let _ = write!(
            why,
            "; {} entries that are not known to be committed take effect",
            last - committed
        );
    }
    if best.replica.splits {
        why += "; one of them cuts it in two, and the new half must be surveyed after a start";
    }
    let fate = Fate::Recovered {
        on: best.store.store,
        ends_on: others.collect(),
    };
    (fate, why)
}

/// Every member is either surveyed or given up.
fn check_members(
    range: u64,
    found: &[Found<'_>],
    alive: &BTreeSet<StoreId>,
    lost: &BTreeMap<u64, String>,
    stores: &BTreeMap<u64, String>,
) -> anyhow::Result<()> {
    let members = found
        .iter()
        .flat_map(|f| f.committed.replicas.iter().chain(&f.last.replicas));
    for member in members.map(|r| r.store) {
        let name = stores.get(&member.0).cloned();
        let name = name.unwrap_or_else(|| format!("store {member}"));
        anyhow::ensure!(
            alive.contains(&member) || lost.contains_key(&member.0),
            "range {range} has a replica on {name}, whose survey is missing: give it, or, if that \
             store is gone for good, say --lost {name}"
        );
    }
    Ok(())
}

/// What the plan means, for people.
pub fn describe(plan: &Plan, surveys: &[Survey]) -> String {
    let name = |id: u64| {
        let planned = plan.stores.iter().find(|s| s.store == id);
        planned.map_or(id.to_string(), |s| s.name.clone())
    };
    let mut out = String::new();
    let lost: Vec<&str> = plan.lost.values().map(String::as_str).collect();
    let _ = writeln!(
        out,
        "cluster {}: {} gone for good",
        plan.cluster,
        lost.join(", ")
    );
    for range in &plan.ranges {
        let bounds = surveys
            .iter()
            .flat_map(|s| &s.replicas)
            .filter(|r| r.range == range.range);
        let bounds = bounds
            .filter_map(|r| r.final_range().ok())
            .max_by_key(|d| d.epoch.version);
        let bounds = bounds.map_or(String::new(), |d| {
            let end = match d.end.is_empty() {
                true => "the end".into(),
                false => hex(&d.end),
            };
            format!(" [{}, {end})", hex(&d.start))
        });
        let fate = match &range.fate {
            Fate::Healthy => "left alone".into(),
            Fate::Recovered { on, ends_on } if ends_on.is_empty() => {
                format!("LOST ITS MAJORITY, lives on on {}", name(*on))
            }
            Fate::Recovered { on, ends_on } => {
                let ends: Vec<String> = ends_on.iter().map(|s| name(*s)).collect();
                format!(
                    "LOST ITS MAJORITY, lives on on {}, ends on {}",
                    name(*on),
                    ends.join(", ")
                )
            }
            Fate::Refused => "LOST ITS MAJORITY, can't be recovered".into(),
        };
        let _ = writeln!(out, "range {}{bounds}: {fate}: {}", range.range, range.why);
        for survey in surveys {
            for r in survey.replicas.iter().filter(|r| r.range == range.range) {
                let _ = writeln!(
                    out,
                    "    {}: replica {}, term {}, last entry {} of term {}, committed {}, applied {}",
                    survey.name, r.replica, r.term, r.last, r.last_term, r.committed, r.applied
                );
            }
        }
    }
    for gap in gaps(surveys) {
        let _ = writeln!(
            out,
            "NOBODY HOLDS the keys {gap}: they are lost, and stay unserved"
        );
    }
    let recovered = plan.recovered().count();
    if recovered == 0 {
        out += "nothing is to be recovered";
        return out;
    }
    let _ = write!(
        out,
        "{recovered} ranges are recovered. What may be lost: every write to them that was \
         acknowledged and reached none of the survivors; how many those are, nobody can know. What \
         was answered as \"outcome unknown\" may take effect."
    );
    if !plan.recovered().any(|r| r.range == PLACEMENT_RANGE.0) {
        let _ = write!(
            out,
            " The registry (range 1) is not among them: when the survivors run, take each lost \
             store out by `rangekv ctl store remove`."
        );
    }
    let _ = write!(
        out,
        "\nApply this plan to every survivor ({}) before any of them starts.",
        plan.stores
            .iter()
            .map(|s| s.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    );
    out
}

/// Where no survivor holds anything.
fn gaps(surveys: &[Survey]) -> Vec<String> {
    let replicas = surveys.iter().flat_map(|s| &s.replicas);
    let mut ranges: Vec<RangeDescriptor> = replicas.filter_map(|r| r.final_range().ok()).collect();
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    let (mut gaps, mut reached) = (Vec::new(), Some(bytes::Bytes::new()));
    for range in ranges {
        let Some(end) = reached.clone() else { break };
        if range.start > end {
            gaps.push(format!("[{}, {})", hex(&end), hex(&range.start)));
        }
        reached = match range.end.is_empty() {
            true => None,
            false => Some(end.max(range.end.clone())),
        };
    }
    gaps.extend(reached.map(|end| format!("[{}, the end)", hex(&end))));
    gaps
}

/// Reads the surveys, says what is to be done, and keeps the plan if it is asked to.
pub fn run(args: &PlanArgs) -> anyhow::Result<String> {
    let surveys = args.surveys.iter().map(|path| super::read(path, "survey"));
    let surveys = surveys.collect::<anyhow::Result<Vec<Survey>>>()?;
    let plan = plan(&surveys, &args.lost)?;
    let mut text = describe(&plan, &surveys);
    if let Some(out) = &args.out {
        let json = serde_json::to_string_pretty(&plan)?;
        std::fs::write(out, json).map_err(|e| anyhow::anyhow!("{}: {e}", out.display()))?;
        let _ = write!(text, "\nPlan {} is in {}.", plan.id(), out.display());
    }
    Ok(text)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
