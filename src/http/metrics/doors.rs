//! What the doors of this store count: requests by name, errors by kind, latencies, bytes.

use super::{Family, Kind, Unit, Value};
use crate::http::door::DoorCounters;
use crate::http::site::Site;
use rangekv_router::metrics::{DoorFigures, LATENCY_BOUNDS_US};
use std::borrow::Cow;

/// One door at one moment.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) door: &'static str,
    pub(super) figures: DoorFigures,
    pub(super) connections: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

/// Of all doors that are open.
pub fn families(site: &Site) -> Vec<Family> {
    let seen = |door, counters: &DoorCounters| Seen {
        door,
        figures: counters.metrics.figures(),
        connections: counters.connections(),
        accepted: counters.accepted(),
        refused: counters.refused(),
    };
    let mut doors = vec![seen("http", &site.door), seen("dynamodb", &site.dynamo)];
    if let Some(redis) = site.redis() {
        doors.push(Seen {
            door: "redis",
            figures: redis.metrics.figures(),
            connections: redis.clients.count() as u64,
            accepted: redis.clients.accepted(),
            refused: redis.clients.refused(),
        });
    }
    of(&doors)
}

/// The families of `doors`.
pub(super) fn of(doors: &[Seen]) -> Vec<Family> {
    let counter = |name, help| Family::new(name, Kind::Counter, Unit::Count, help);
    let bytes = |name, help| Family::new(name, Kind::Counter, Unit::Bytes, help);
    let mut requests = counter(
        "rangekv_door_requests_total",
        "Requests received, by door and command. other: the door has no such command.",
    );
    let mut errors = counter(
        "rangekv_door_errors_total",
        "Requests answered with an error, by door and kind of error.",
    );
    let mut latency = Family::new(
        "rangekv_door_request_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "Time from taking a request in to its answer's standing in the buffer to be sent, by door.",
    );
    let mut connections = Family::new(
        "rangekv_door_connections",
        Kind::Gauge,
        Unit::Count,
        "Open connections, by door.",
    );
    let mut accepted = counter(
        "rangekv_door_connections_accepted_total",
        "Connections accepted, by door.",
    );
    let mut refused = counter(
        "rangekv_door_connections_refused_total",
        "Connections refused because there were too many, by door.",
    );
    let mut received = bytes(
        "rangekv_door_received_bytes_total",
        "Bytes received, by door.",
    );
    let mut sent = bytes("rangekv_door_sent_bytes_total", "Bytes sent, by door.");
    for seen in doors {
        let door = || ("door", Cow::Borrowed(seen.door));
        for (command, count) in &seen.figures.requests {
            let labels = [door(), ("command", Cow::Borrowed(*command))];
            requests.add(labels, Value::Whole(*count));
        }
        for (kind, count) in &seen.figures.errors {
            let labels = [door(), ("kind", Cow::Borrowed(*kind))];
            errors.add(labels, Value::Whole(*count));
        }
        latency.add([door()], histogram(&seen.figures));
        for (family, count) in [
            (&mut connections, seen.connections),
            (&mut accepted, seen.accepted),
            (&mut refused, seen.refused),
            (&mut received, seen.figures.bytes_in),
            (&mut sent, seen.figures.bytes_out),
        ] {
            family.add([door()], Value::Whole(count));
        }
    }
    vec![
        requests,
        errors,
        latency,
        connections,
        accepted,
        refused,
        received,
        sent,
    ]
}

fn histogram(figures: &DoorFigures) -> Value {
    let mut count = 0;
    let mut at_most = Vec::with_capacity(LATENCY_BOUNDS_US.len());
    for (bound, bucket) in LATENCY_BOUNDS_US.iter().zip(&figures.latency_buckets) {
        count += bucket;
        at_most.push((*bound as f64 / 1e6, count));
    }
    count += figures.latency_buckets.last().copied().unwrap_or(0);
    Value::Histogram {
        at_most,
        count,
        sum: figures.latency_sum_us as f64 / 1e6,
    }
}
