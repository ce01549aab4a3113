//! What spans there are, how they are named, and which is whose child.
//!
//! ```text
//! SET                     at the door: from being read until its reply stands in the buffer
//! └ write                 at the leader: from its mailbox until the write is visible ("request" if it has
//!   ├ queue                 no log entry: a read that the worker answers, a refusal)
//!   ├ evaluate
//!   ├ log
//!   ├ commit
//!   └ apply
//! ```
//! The stages are those of `rangekv_write_stage_seconds` (docs/METRICS.md).

use crate::node::identity::Identity;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::Resource;
use rangekv_proto::Mark;
use rangekv_router::trace::mix;
use rangekv_store::trace::{Lap, Traced};
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The service of all stores.
const SERVICE: &str = "rangekv";
/// Makes the root span's id another one than the trace's.
const ROOT: u64 = 0x726f_6f74_7370_616e;

/// Who sends spans.
pub fn resource(me: &Identity) -> Resource {
    Resource::builder()
        .with_service_name(SERVICE)
        .with_attributes([
            KeyValue::new("service.instance.id", me.name.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("rangekv.cluster", format!("{:016x}", me.cluster)),
            KeyValue::new("rangekv.store", me.store as i64),
        ])
        .build()
}

/// A moment, by nanoseconds since the Unix epoch.
pub fn unix(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

/// The first span of a trace.
pub struct Root {
    /// Which trace.
    pub mark: Mark,
    /// It answers a client.
    pub serves: bool,
    /// Of the operation.
    pub name: Cow<'static, str>,
    /// From
    pub began: SystemTime,
    /// until.
    pub ended: SystemTime,
    /// Besides the outcome.
    pub attributes: Vec<KeyValue>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A trace's first span.
pub fn root(root: Root) -> SpanData {
    let mut attributes = root.attributes;
    let status = match root.error {
        None => {
            attributes.push(KeyValue::new("rangekv.outcome", "ok"));
            Status::Unset
        }
        Some(error) => {
            attributes.push(KeyValue::new("rangekv.outcome", error.clone()));
            attributes.push(KeyValue::new("error.type", error.clone()));
            Status::error(error)
        }
    };
    SpanData {
        span_kind: match root.serves {
            true => SpanKind::Server,
            false => SpanKind::Internal,
        },
        status,
        ..span(
            trace_id(root.mark),
            root_id(root.mark),
            SpanId::INVALID,
            root.name,
            (root.began, root.ended),
            attributes,
        )
    }
}

/// What the worker did for a traced request, and the stages of that. `time` tells monotonic
/// nanoseconds by the wall clock.
pub fn stages(
    traced: &Traced,
    time: &dyn Fn(u64) -> SystemTime,
    random: &mut dyn FnMut() -> u64,
) -> Vec<SpanData> {
    let Some(lap) = traced.lap() else {
        return Vec::new();
    };
    let (trace, mut id) = (trace_id(traced.mark), || SpanId::from(random().max(1)));
    let ends = |(began_ns, ended_ns): Lap| (time(began_ns), time(ended_ns));
    let mut attributes = vec![KeyValue::new("rangekv.range", traced.range.0 as i64)];
    let name = match traced.index {
        Some(index) => {
            attributes.push(KeyValue::new("rangekv.index", index as i64));
            let seen = traced.apply.is_some();
            let outcome = if seen {
                "applied"
            } else {
                "not seen to be applied"
            };
            attributes.push(KeyValue::new("rangekv.outcome", outcome));
            "write"
        }
        None => "request",
    };
    let all = id();
    let parent = root_id(traced.mark);
    let whole = span(trace, all, parent, name.into(), ends(lap), attributes);
    let mut spans = vec![SpanData {
        // It may have come from another store, and nobody here knows.
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        ..whole
    }];
    for (name, lap) in [
        ("queue", traced.queue),
        ("evaluate", traced.evaluate),
        ("log", traced.log),
        ("commit", traced.commit),
        ("apply", traced.apply),
    ] {
        if let Some(lap) = lap {
            spans.push(span(trace, id(), all, name.into(), ends(lap), Vec::new()));
        }
    }
    spans
}

/// The trace of a mark: the mark itself, and bits that follow from it.
fn trace_id(mark: Mark) -> TraceId {
    TraceId::from(u128::from(mix(mark.0)) << 64 | u128::from(mark.0))
}

/// The first span of a mark's trace.
fn root_id(mark: Mark) -> SpanId {
    SpanId::from(mix(mark.0 ^ ROOT).max(1))
}

fn span(
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    name: Cow<'static, str>,
    (began, ended): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            trace,
            id,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time: began,
        end_time: ended.max(began),
        attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder(SERVICE).build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::RangeId;

    fn traced() -> Traced {
        Traced {
            mark: Mark(77),
            range: RangeId(4),
            index: Some(9),
            queue: Some((10, 20)),
            evaluate: Some((20, 30)),
            log: Some((30, 60)),
            commit: Some((60, 90)),
            apply: Some((91, 95)),
        }
    }

    fn of(traced: &Traced) -> Vec<SpanData> {
        let mut last = 100;
        stages(traced, &unix, &mut || {
            last += 1;
            last
        })
    }

    #[test]
    fn stages_hang_below_the_write_and_that_below_the_root_of_another_store() {
        let spans = of(&traced());
        let names: Vec<_> = spans.iter().map(|s| &s.name[..]).collect();
        assert_eq!(
            names,
            ["write", "queue", "evaluate", "log", "commit", "apply"]
        );
        let first = root(Root {
            mark: Mark(77),
            serves: true,
            name: "SET".into(),
            began: unix(1),
            ended: unix(2),
            attributes: Vec::new(),
            error: None,
        });
        let whole = &spans[0];
        assert_eq!(whole.parent_span_id, first.span_context.span_id());
        assert_eq!((whole.start_time, whole.end_time), (unix(10), unix(95)));
        for span in &spans[1..] {
            assert_eq!(span.parent_span_id, whole.span_context.span_id());
        }
        for span in &spans {
            assert_eq!(span.span_context.trace_id(), first.span_context.trace_id());
            assert!(span.span_context.is_valid() && span.span_context.is_sampled());
        }
    }

    #[test]
    fn a_read_has_two_stages_and_what_was_never_handled_none() {
        let read = Traced {
            index: None,
            log: None,
            commit: None,
            apply: None,
            ..traced()
        };
        let spans = of(&read);
        let names: Vec<_> = spans.iter().map(|s| &s.name[..]).collect();
        assert_eq!(names, ["request", "queue", "evaluate"]);
        let nothing = Traced {
            queue: None,
            evaluate: None,
            ..read
        };
        assert!(of(&nothing).is_empty());
    }

    #[test]
    fn every_mark_has_ids_of_its_own() {
        let mut ids = std::collections::BTreeSet::new();
        for mark in (1..1000).map(Mark) {
            assert!(root_id(mark) != SpanId::INVALID && trace_id(mark) != TraceId::INVALID);
            ids.insert((trace_id(mark).to_bytes(), root_id(mark).to_bytes()));
        }
        assert_eq!(ids.len(), 999);
    }
}
