//! One survivor's part of a plan.

use super::plan::{Fate, Plan};
use super::survey::{Stopped, FORMAT};
use super::ApplyArgs;
use crate::node::durable;
use anyhow::Context;
use prost::Message;
use rangekv_model::eval::View;
use rangekv_pd::bootstrap::FIRST_ALLOCATED_ID;
use rangekv_pd::keys;
use rangekv_pd::state::StoreState;
use rangekv_proto::internal::StoreRecord;
use rangekv_proto::{RangeId, StoreId, PLACEMENT_RANGE};
use rangekv_store::log::RaftLog;
use rangekv_store::payload::{self, Payload, Writes};
use rangekv_store::recover::Survivor;
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};

/// What this store has to do.
struct Part {
    alone: Vec<RangeId>,
    ends: Vec<RangeId>,
}

/// Carries the plan out, once somebody has agreed.
pub fn run(args: &ApplyArgs) -> anyhow::Result<String> {
    let plan: Plan = super::read(&args.plan, "plan")?;
    anyhow::ensure!(
        plan.format == FORMAT,
        "the plan has format {}, this version knows {FORMAT}",
        plan.format
    );
    let mut store = Stopped::open(&args.data_dir)?;
    let (id, name) = (plan.id(), store.identity.name.clone());
    let part = check(&plan, &store)?;
    let Some(part) = part else {
        return Ok(format!("{name} has done its part of plan {id} already"));
    };
    if !args.yes_i_accept_data_loss {
        agree(&id, &name)?;
    }
    for range in &part.ends {
        store.survivors[range].stand_down(&mut store.log);
    }
    for range in &part.alone {
        let survivor = &store.survivors[range];
        let writes = match *range == PLACEMENT_RANGE {
            true => Some(forget_lost(&plan, &store, survivor)?),
            false => None,
        };
        survivor.stand_alone(&mut store.log, writes)?;
    }
    // One record: a crash leaves all of it or nothing.
    store.log.write().context("the raft log")?;
    store.log.sync().context("the raft log")?;
    let note = store.data.path().join("RECOVERED");
    durable::write(&note, "recovered", FORMAT, &id)?;
    Ok(format!(
        "{name}: {} ranges live on here alone, {} end here. Start it when every survivor has done \
         its part of plan {id}.",
        part.alone.len(),
        part.ends.len()
    ))
}

/// What there is to do; `None` = it is done already.
fn check(plan: &Plan, store: &Stopped) -> anyhow::Result<Option<Part>> {
    let me = &store.identity;
    let survey = store.survey()?;
    let planned = plan.stores.iter().find(|s| s.store == me.store);
    let planned = planned.filter(|s| s.incarnation == survey.incarnation);
    anyhow::ensure!(
        planned.is_some() && plan.cluster == survey.cluster,
        "{} was not surveyed for this plan: survey it, and plan again",
        me.name
    );
    let mut part = Part {
        alone: Vec::new(),
        ends: Vec::new(),
    };
    for range in plan.recovered() {
        let Fate::Recovered { on, ends_on } = &range.fate else {
            continue;
        };
        if *on == me.store {
            part.alone.push(RangeId(range.range));
        } else if ends_on.contains(&me.store) {
            part.ends.push(RangeId(range.range));
        }
    }
    let is_alone = |range: &RangeId| {
        let survivor = store.survivors.get(range);
        let members = survivor.and_then(|s| Some((s.id, s.members().ok()?)));
        members.is_some_and(|(id, d)| d.replicas.len() == 1 && d.replicas[0].id == id)
    };
    let has_ended = |range: &RangeId| !store.survivors.contains_key(range);
    if part.alone.iter().all(is_alone) && part.ends.iter().all(has_ended) {
        return Ok(None);
    }
    anyhow::ensure!(
        planned.is_some_and(|s| s.fingerprint == survey.fingerprint()),
        "{} is not as it was when it was surveyed: it has run since, or another plan was applied to \
         it, and this one could make two histories of its ranges; survey all survivors and plan again",
        me.name
    );
    Ok(Some(part))
}

fn counter(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// Asks for the plan's name.
fn agree(id: &str, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdin().is_terminal(),
        "acknowledged writes may be lost by this; nothing was changed. Read what `rangekv ctl recover \
         plan` says, then give --yes-i-accept-data-loss"
    );
    eprint!("Acknowledged writes may be lost on {name}. Type the plan's name, {id}, to go on: ");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    anyhow::ensure!(typed.trim() == id, "not agreed to; nothing was changed");
    Ok(())
}

/// Numbers that were handed out and forgotten with the majority: far more than can be at once.
const IDS_FORGOTTEN_MAX: u64 = 1_000_000;

/// The entry by which the lost stores leave the registry, and which keeps it from handing out a
/// number for the second time, though it may have forgotten the first.
fn forget_lost(plan: &Plan, store: &Stopped, survivor: &Survivor) -> anyhow::Result<Vec<u8>> {
    let mut clock_ms = survivor.applied.clock_ms;
    let mut records: BTreeMap<u64, StoreRecord> = store
        .registered()
        .into_iter()
        .map(|r| (r.store, r))
        .collect();
    let mut counters = [keys::NEXT_ID, keys::CATALOG_VERSION].map(|key| {
        let value = store.engine.get(key);
        (
            key,
            value
                .and_then(|v| counter(&v))
                .unwrap_or(FIRST_ALLOCATED_ID),
        )
    });
    // What the log has and the state has not.
    for entry in survivor.tail().filter(|e| !e.data.is_empty()) {
        let Ok(Payload::Data {
            clock_ms: then,
            writes,
        }) = payload::decode(entry.data.clone())
        else {
            continue;
        };
        clock_ms = clock_ms.max(then);
        for (key, value) in writes {
            if let (Some(known), Some(value)) =
                (counters.iter_mut().find(|(k, _)| key == *k), &value)
            {
                known.1 = counter(value).unwrap_or(known.1);
                continue;
            }
            let record = value.and_then(|v| StoreRecord::decode(v).ok());
            if let (Some(StoreId(id)), Some(record)) = (keys::decode_store(&key), record) {
                records.insert(id, record);
            }
        }
    }
    let mut writes = Writes::new();
    for (key, value) in counters {
        let above = value.max(plan.highest_id) + IDS_FORGOTTEN_MAX;
        writes.insert(key.into(), Some(above.to_be_bytes().to_vec().into()));
    }
    for (id, name) in &plan.lost {
        let known = records.remove(id);
        let gone = StoreRecord {
            state: StoreState::Removed as u32,
            // A member of a new cluster may not have registered: its number is taken all the same.
            ..known.unwrap_or_else(|| StoreRecord {
                store: *id,
                name: name.clone(),
                ..StoreRecord::default()
            })
        };
        writes.insert(keys::store(StoreId(*id)), Some(gone.encode_to_vec().into()));
    }
    Ok(payload::encode_data(clock_ms, &writes))
}
