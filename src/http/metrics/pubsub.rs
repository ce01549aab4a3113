//! What Pub/Sub counts: subscriptions, messages, and those that were lost.

use super::{Family, Kind, Unit, Value};
use rangekv_router::pubsub::Figures;

/// The families of this node's part.
pub(super) fn of(figures: &Figures) -> Vec<Family> {
    let gauge = |name, help| Family::new(name, Kind::Gauge, Unit::Count, help);
    let counter = |name, count, help| {
        Family::new(name, Kind::Counter, Unit::Count, help).with(Value::Whole(count))
    };
    let mut subscriptions = gauge(
        "rangekv_pubsub_subscriptions",
        "Subscriptions of this node's connections, by kind.",
    );
    let kinds = ["channel", "pattern", "shard"];
    for (kind, count) in kinds.into_iter().zip(figures.subscriptions) {
        subscriptions.add([("kind", kind.into())], Value::Whole(count));
    }
    let mut lost = Family::new(
        "rangekv_pubsub_lost_total",
        Kind::Counter,
        Unit::Count,
        "Messages lost. connection: delivered, but the subscriber's connection ended before they were \
         written; node: another node did not answer for them, once for each node.",
    );
    for (reason, count) in [("connection", figures.dropped), ("node", figures.unreached)] {
        lost.add([("reason", reason.into())], Value::Whole(count));
    }
    vec![
        gauge(
            "rangekv_pubsub_subscribers",
            "Connections of this node with a subscription.",
        )
        .with(Value::Whole(figures.subscribers)),
        subscriptions,
        counter(
            "rangekv_pubsub_published_total",
            figures.published,
            "Messages that clients of this node have published.",
        ),
        counter(
            "rangekv_pubsub_delivered_total",
            figures.delivered,
            "Messages left for subscribers of this node, once for each subscription.",
        ),
        counter(
            "rangekv_pubsub_connections_cut_off_total",
            figures.cut_off,
            "Subscribers' connections closed because more waited for them than the limit allows.",
        ),
        lost,
    ]
}
