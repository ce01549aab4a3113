//! Answers as tables for people.

use super::unhex;
use super::wire::{
    Change, CtlCommand, Drain, OperatorInfo, Overview, RaftState, RangeDetail, RangeInfo,
    ReplicaState, SchedulerInfo, Setting, SplitDone, Status, StoreDetail, StoreInfo, TransferDone,
    WhyInfo,
};
use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use rangekv_model::redis::keys;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What people call the stores; who is not in it is shown by number.
pub type Names = BTreeMap<u64, String>;

/// The answer to `command` as text.
pub fn render(command: &CtlCommand, json: &str, names: &Names) -> serde_json::Result<String> {
    Ok(match command {
        CtlCommand::Status => status(&parse(json)?, names),
        CtlCommand::Overview => {
            let all: Overview = parse(json)?;
            let ranges = ranges(&all.ranges, names);
            format!("{}\n\n{ranges}", status(&all.status, names))
        }
        CtlCommand::StoreList => stores(&parse::<Vec<StoreInfo>>(json)?),
        CtlCommand::StoreShow { .. } => store(&parse(json)?, names),
        CtlCommand::StoreDrain { .. } => drain(&parse(json)?),
        CtlCommand::StoreRemove { .. } => {
            let store: StoreInfo = parse(json)?;
            format!("store {} ({}) is removed", store.id, store.name)
        }
        CtlCommand::RangeList => ranges(&parse::<Vec<RangeInfo>>(json)?, names),
        CtlCommand::RangeShow { .. } => detail(&parse(json)?, names),
        CtlCommand::RangeSplit { .. } => split(&parse(json)?, names),
        CtlCommand::RangeTransferLeader { .. } => {
            let done: TransferDone = parse(json)?;
            format!(
                "{} leads range {} in term {}",
                name(names, done.leader),
                done.range,
                done.term
            )
        }
        CtlCommand::RangeMerge { .. } => ranges([&parse::<RangeInfo>(json)?], names),
        CtlCommand::RangeMove { .. }
        | CtlCommand::PlacementAdd { .. }
        | CtlCommand::PlacementRemove { .. } => change(&parse(json)?, names),
        CtlCommand::RangeWhy { .. } => why(&parse::<Vec<WhyInfo>>(json)?),
        CtlCommand::OperatorList | CtlCommand::OperatorHistory => {
            operators(&parse::<Vec<OperatorInfo>>(json)?)
        }
        CtlCommand::OperatorCancel { .. } | CtlCommand::RangeChange { .. } => {
            operators(&[parse(json)?])
        }
        CtlCommand::OperatorShow { .. } => {
            let found: Option<OperatorInfo> = parse(json)?;
            operators(found.as_slice())
        }
        CtlCommand::SchedulerList => schedulers(&parse::<Vec<SchedulerInfo>>(json)?),
        CtlCommand::ConfigGet { .. } => parse::<Setting>(json)?.value,
        CtlCommand::ConfigList => settings(&parse::<Vec<Setting>>(json)?),
        CtlCommand::ConfigSet { .. } => {
            let setting: Setting = parse(json)?;
            format!("{} = {}", setting.name, setting.value)
        }
    })
}

fn parse<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    serde_json::from_str(json)
}

fn name(names: &Names, store: u64) -> String {
    let name = names.get(&store).cloned();
    name.unwrap_or_else(|| format!("store {store}"))
}

fn status(status: &Status, names: &Names) -> String {
    let placement = match status.placement_leader {
        Some(store) => format!("led by {}", name(names, store)),
        None => "without a leader: no scheduling; reads and writes go on".into(),
    };
    let mut troubles = Vec::new();
    for (count, what) in [
        (status.ranges_without_leader, "without a leader"),
        (status.ranges_under_replicated, "with too few live replicas"),
    ] {
        if count > 0 {
            troubles.push(format!("{count} {what}"));
        }
    }
    let health = if troubles.is_empty() {
        "all healthy".into()
    } else {
        troubles.join(", ")
    };
    format!(
        "cluster           {}\nplacement driver  {placement}\nranges            {} ({health}), catalog version {}\n\n{}",
        status.cluster,
        status.ranges,
        status.catalog_version,
        stores(&status.stores)
    )
}

fn stores(stores: &[StoreInfo]) -> String {
    let header = [
        "STORE", "NAME", "ROLE", "STATE", "GRPC", "REDIS", "LEADERS", "REPLICAS", "USED", "FREE",
        "SEEN",
    ];
    let rows = stores.iter().map(|store| {
        let seen = match store.heartbeat_age_ms {
            Some(age) => format!("{} ago", duration(age)),
            None => "never".into(),
        };
        [
            store.id.to_string(),
            store.name.clone(),
            store.role.clone(),
            store.state.clone(),
            store.grpc_address.clone(),
            store.redis_address.clone(),
            store.leaders.to_string(),
            store.replicas.to_string(),
            bytes(store.disk_used_bytes),
            bytes(store.disk_free_bytes),
            seen,
        ]
    });
    table(header, &[0, 6, 7, 8, 9, 10], rows)
}

fn store(detail: &StoreDetail, names: &Names) -> String {
    let mut text = stores(std::slice::from_ref(&detail.store));
    if let Some(progress) = &detail.drain {
        text += &format!("\n\n{}", drain(progress));
    }
    format!("{text}\n\n{}", ranges(&detail.ranges, names))
}

fn drain(drain: &Drain) -> String {
    let Drain { store, name, .. } = drain;
    match (drain.draining, drain.done) {
        (false, _) => format!("store {store} ({name}) is used again"),
        (true, true) => format!("store {store} ({name}) is empty; it can be removed"),
        (true, false) => format!("store {store} ({name}) drains: {}", drain.waits_for),
    }
}

fn change(change: &Change, names: &Names) -> String {
    let after = match change.done {
        true => "done".into(),
        false => format!("goes on: {}", change.waits_for),
    };
    format!("{}\n\n{after}", ranges([&change.range], names))
}

fn why(reasons: &[WhyInfo]) -> String {
    if reasons.is_empty() {
        return "nothing is to be done, and nothing is in the way".into();
    }
    let header = ["SCHEDULER", "ABOUT", "SAYS"];
    let row = |reason: &WhyInfo| {
        let about = match reason.about_range {
            true => "this range",
            false => "all ranges",
        };
        [reason.scheduler.clone(), about.into(), reason.text.clone()]
    };
    table(header, &[], reasons.iter().map(row))
}

fn operators(operators: &[OperatorInfo]) -> String {
    let header = [
        "OPERATOR", "RANGE", "BY", "STATE", "BEGAN", "GOAL", "STEPS", "NOTE",
    ];
    let row = |o: &OperatorInfo| {
        let note = match o.detail.is_empty() {
            true => o.reason.clone(),
            false => format!("{}; {}", o.reason, o.detail),
        };
        [
            o.id.to_string(),
            o.range.to_string(),
            o.scheduler.clone(),
            o.state.clone(),
            format!("{} ago", duration(o.age_ms)),
            o.goal.clone(),
            o.steps.len().to_string(),
            note,
        ]
    };
    table(header, &[0, 1, 6], operators.iter().map(row))
}

fn schedulers(schedulers: &[SchedulerInfo]) -> String {
    let header = ["SCHEDULER", "STATE", "SAYS"];
    let row = |s: &SchedulerInfo| {
        let state = if s.enabled { "on" } else { "off" };
        [s.name.clone(), state.into(), s.reasons.join("; ")]
    };
    table(header, &[], schedulers.iter().map(row))
}

fn ranges<'a>(ranges: impl IntoIterator<Item = &'a RangeInfo>, names: &Names) -> String {
    let header = [
        "RANGE", "START", "END", "EPOCH", "LEADER", "TERM", "REPLICAS", "SIZE", "KEYS",
    ];
    let rows = ranges.into_iter().map(|range| {
        [
            range.id.to_string(),
            bound(&range.start, "beginning"),
            bound(&range.end, "end"),
            format!("{}.{}", range.conf_version, range.version),
            range
                .leader
                .map_or("none known".into(), |store| name(names, store)),
            range.term.to_string(),
            replicas(range, names),
            bytes(range.size_bytes),
            range.keys.to_string(),
        ]
    });
    table(header, &[0, 5, 7, 8], rows)
}

/// Anything but a healthy voter says so.
fn replicas(range: &RangeInfo, names: &Names) -> String {
    let replica = |replica: &super::wire::ReplicaInfo| {
        let role = match replica.role.as_str() {
            "voter" => String::new(),
            role => format!(" {role}"),
        };
        format!(
            "{}{role}{}",
            name(names, replica.store),
            if replica.lagging { " lagging" } else { "" }
        )
    };
    range
        .replicas
        .iter()
        .map(replica)
        .collect::<Vec<_>>()
        .join(", ")
}

fn detail(detail: &RangeDetail, names: &Names) -> String {
    let header = [
        "REPLICA",
        "STORE",
        "ROLE",
        "TERM",
        "COMMITTED",
        "APPLIED",
        "LAST",
        "TRUNCATED",
        "SIZE",
        "NOTE",
    ];
    let rows = detail.replicas.iter().map(|replica| {
        let (id, store) = (replica.id.to_string(), name(names, replica.store));
        let none = String::new;
        match &replica.state {
            ReplicaState::Raft(raft) => [
                id,
                store,
                raft.role.clone(),
                raft.term.to_string(),
                raft.committed.to_string(),
                raft.applied.to_string(),
                raft.last_index.to_string(),
                raft.truncated.to_string(),
                bytes(raft.size_bytes),
                note(raft),
            ],
            ReplicaState::Error(error) => {
                let silent = "no answer".into();
                [
                    id,
                    store,
                    silent,
                    none(),
                    none(),
                    none(),
                    none(),
                    none(),
                    none(),
                    error.clone(),
                ]
            }
        }
    });
    let replicas = table(header, &[0, 3, 4, 5, 6, 7, 8], rows);
    format!("{}\n\n{replicas}", ranges([&detail.range], names))
}

fn note(raft: &RaftState) -> String {
    let mut notes = Vec::new();
    if raft.lease_remaining_ms > 0 {
        notes.push(format!("lease {}", duration(raft.lease_remaining_ms)));
    }
    if raft.pending_conf_change {
        notes.push("membership change under way".into());
    }
    notes.join(", ")
}

fn split(done: &SplitDone, names: &Names) -> String {
    ranges([&done.left, &done.right], names)
}

fn settings(settings: &[Setting]) -> String {
    let header = ["NAME", "VALUE", "DEFAULT", "MEANING"];
    let row = |s: &Setting| {
        [
            s.name.clone(),
            s.value.clone(),
            s.default.clone(),
            s.help.clone(),
        ]
    };
    table(header, &[], settings.iter().map(row))
}

fn table<const N: usize>(
    header: [&str; N],
    right_aligned: &[usize],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for &column in right_aligned {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A bound of a range in the terms of who uses it: slots and Redis keys.
fn bound(hex: &str, when_empty: &str) -> String {
    let Some(key) = unhex(hex) else {
        return hex.to_owned();
    };
    match &key[..] {
        [] => when_empty.to_owned(),
        [keys::TAG, high, low] => format!("slot {}", u16::from_be_bytes([*high, *low])),
        key => match keys::decode(key) {
            Some((slot, db, user_key)) => {
                format!("slot {slot} db {db} \"{}\"", user_key.escape_ascii())
            }
            None => format!("0x{hex}"),
        },
    }
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 100.0);
    format!("{value:.decimals$} {}", units[unit])
}

fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{:.1} s", millis as f64 / 1e3),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::wire::{ReplicaDetail, ReplicaInfo};

    fn range() -> RangeInfo {
        RangeInfo {
            id: 7,
            start: String::new(),
            end: crate::ctl::hex(&keys::slot_start(5461)),
            conf_version: 2,
            version: 3,
            leader: Some(1),
            term: 9,
            replicas: vec![
                ReplicaInfo {
                    id: 1,
                    store: 1,
                    role: "voter".into(),
                    lagging: false,
                },
                ReplicaInfo {
                    id: 2,
                    store: 2,
                    role: "learner".into(),
                    lagging: true,
                },
            ],
            size_bytes: 3 << 20,
            keys: 40,
            reads: 0,
            writes: 0,
        }
    }

    fn render_json<T: serde::Serialize>(command: &CtlCommand, reply: &T) -> String {
        let names = Names::from([(1, "n1".to_owned())]);
        render(command, &serde_json::to_string(reply).unwrap(), &names).unwrap()
    }

    #[test]
    fn ranges_are_shown_in_slots() {
        assert_eq!(
            render_json(&CtlCommand::RangeList, &vec![range()]),
            concat!(
                " RANGE  START      END        EPOCH  LEADER  TERM  REPLICAS                        SIZE  KEYS\n",
                "     7  beginning  slot 5461  2.3    n1         9  n1, store 2 learner lagging  3.0 MiB    40",
            )
        );
    }

    #[test]
    fn a_replica_that_is_away_says_why() {
        let detail = RangeDetail {
            range: range(),
            replicas: vec![ReplicaDetail {
                id: 2,
                store: 2,
                state: ReplicaState::Error("connection refused".into()),
            }],
        };
        let text = render_json(&CtlCommand::RangeShow { range: 7 }, &detail);
        assert!(text.contains("no answer"), "{text}");
        assert!(text.ends_with("connection refused"), "{text}");
    }

    #[test]
    fn status_names_what_is_wrong() {
        let status = Status {
            cluster: "00ff".into(),
            catalog_version: 4,
            placement_leader: None,
            ranges: 9,
            ranges_without_leader: 2,
            ranges_under_replicated: 0,
            stores: vec![],
        };
        let text = render_json(&CtlCommand::Status, &status);
        assert!(
            text.contains("9 (2 without a leader), catalog version 4"),
            "{text}"
        );
        assert!(
            text.contains("placement driver  without a leader"),
            "{text}"
        );
    }

    #[test]
    fn bounds() {
        let hex = crate::ctl::hex;
        for (key, shown) in [
            (hex(b""), "end"),
            (hex(&keys::slot_start(8192)), "slot 8192"),
            (
                hex(&keys::record_key(3, b"foo\xff")),
                "slot 3391 db 3 \"foo\\xff\"",
            ),
            (hex(b"\x10"), "0x10"),
        ] {
            let shown = shown.replace("3391", &keys::slot(b"foo\xff").to_string());
            assert_eq!(bound(&key, "end"), shown);
        }
    }

    #[test]
    fn quantities() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (150 << 20, "150 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
        for (millis, shown) in [
            (999, "999 ms"),
            (1_500, "1.5 s"),
            (150_000, "2 min"),
            (7_200_000, "2 h"),
        ] {
            assert_eq!(duration(millis), shown);
        }
    }
}
