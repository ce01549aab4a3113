//! What this store knows of itself and of its cluster: its own figures, those of its worker
//! and its raft log, and those of its state engine.

use super::{Family, Kind, Sample, Unit, Value};
use crate::node::running::Running;
use rangekv_proto::StoreId;
use rangekv_store::metrics as store;
use std::borrow::Cow;

/// What is gathered in the process, beside the store's and the engine's own families.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) node: String,
    pub(super) store: u64,
    pub(super) cluster: u64,
    pub(super) streams: Vec<(StoreId, bool)>,
    pub(super) ranges: u64,
    pub(super) leaderless: u64,
    pub(super) local_reads: u64,
    pub(super) stuck: bool,
    pub(super) disk_full: bool,
    pub(super) disk_free_bytes: u64,
    pub(super) disk_used_bytes: u64,
}

/// Of a store that has its place.
pub fn families(node: &Running) -> Vec<Family> {
    let me = node.identity.store_id();
    let disk = &node.heartbeats.disk;
    let transport = &node.stores.transport;
    let routes = node.calls.routes();
    let others = node.book.all().into_keys().filter(|store| *store != me);
    let mut families = of(&Facts {
        node: node.identity.name.clone(),
        store: node.identity.store,
        cluster: node.identity.cluster,
        streams: others.map(|s| (s, transport.is_connected(s))).collect(),
        ranges: routes.len() as u64,
        leaderless: routes.iter().filter(|r| r.leader.is_none()).count() as u64,
        local_reads: node.shared.local_reads(),
        stuck: node.pulse.is_stuck(),
        disk_full: disk.is_full(),
        disk_free_bytes: disk.free_bytes(),
        disk_used_bytes: disk.used_bytes(),
    });
    families.extend(node.shared.metrics.families().into_iter().map(Family::from));
    families.extend(node.engine.families().into_iter().map(Family::from));
    families
}

/// The families of `facts`.
pub(super) fn of(facts: &Facts) -> Vec<Family> {
    let gauge = |name, help| Family::new(name, Kind::Gauge, Unit::Count, help);
    let bytes = |name, help| Family::new(name, Kind::Gauge, Unit::Bytes, help);
    let text = |text: String| Cow::<'static, str>::Owned(text);
    let mut streams = gauge(
        "rangekv_stream_up",
        "1 if the stream to that store is up, else 0.",
    );
    for (store, up) in &facts.streams {
        streams.add(
            [("store", text(store.to_string()))],
            Value::Whole((*up).into()),
        );
    }
    let build = gauge(
        "rangekv_build_info",
        "Always 1; its labels name the program's version and this store.",
    );
    vec![
        build.labelled(
            [
                ("version", Cow::Borrowed(env!("CARGO_PKG_VERSION"))),
                ("node", text(facts.node.clone())),
                ("store", text(facts.store.to_string())),
                ("cluster", text(format!("{:016x}", facts.cluster))),
            ],
            Value::Whole(1),
        ),
        streams,
        Family::new(
            "rangekv_local_reads_total",
            Kind::Counter,
            Unit::Count,
            "Reads that connections' own threads answered, under the leader's lease. The others \
             are in rangekv_worker_reads_total.",
        )
        .with(Value::Whole(facts.local_reads)),
        gauge(
            "rangekv_ranges_known",
            "Ranges of the cluster that this store can route to.",
        )
        .with(Value::Whole(facts.ranges)),
        gauge(
            "rangekv_ranges_without_known_leader",
            "Ranges whose leader this store does not know.",
        )
        .with(Value::Whole(facts.leaderless)),
        gauge(
            "rangekv_worker_stuck",
            "1 while the worker has not finished a step for two seconds, else 0.",
        )
        .with(Value::Whole(facts.stuck.into())),
        gauge(
            "rangekv_disk_full",
            "1 while so little of the disk is free that writes are refused, else 0.",
        )
        .with(Value::Whole(facts.disk_full.into())),
        bytes(
            "rangekv_disk_free_bytes",
            "Bytes free for this store's data.",
        )
        .with(Value::Whole(facts.disk_free_bytes)),
        bytes("rangekv_disk_used_bytes", "Bytes in the data directory.")
            .with(Value::Whole(facts.disk_used_bytes)),
    ]
}

impl From<store::Family> for Family {
    fn from(family: store::Family) -> Self {
        let (unit, scale) = match family.unit {
            store::Unit::Count => (Unit::Count, 1.0),
            store::Unit::Bytes => (Unit::Bytes, 1.0),
            store::Unit::Nanoseconds => (Unit::Seconds, 1e9),
        };
        let value = |value: store::Value| match value {
            store::Value::Number(n) if scale == 1.0 => Value::Whole(n),
            store::Value::Number(n) => Value::Number(n as f64 / scale),
            store::Value::Histogram(d) => Value::Histogram {
                at_most: d
                    .at_most
                    .into_iter()
                    .map(|(bound, count)| (bound as f64 / scale, count))
                    .collect(),
                count: d.count,
                sum: d.sum as f64 / scale,
            },
        };
        let sample = |sample: store::Sample| Sample {
            labels: sample
                .label
                .map(|(name, text)| (name, Cow::Borrowed(text)))
                .into_iter()
                .collect(),
            value: value(sample.value),
        };
        Family {
            name: family.name.into(),
            help: family.help,
            kind: match family.kind {
                store::Kind::Counter => Kind::Counter,
                store::Kind::Gauge => Kind::Gauge,
                store::Kind::Histogram => Kind::Histogram,
            },
            unit,
            samples: family.samples.into_iter().map(sample).collect(),
        }
    }
}
