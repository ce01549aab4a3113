//! Traces: spans of sampled requests, and of rare work in the background, sent to a collector of
//! OpenTelemetry by OTLP (gRPC). Off unless `--otlp-endpoint` is given.
//!
//! The core has neither clock nor tracer. It hands out figures: a door's session what became of a
//! sampled command ([`rangekv_router::trace`]), the worker what it did for one
//! ([`rangekv_store::trace`]); here they become spans. [`spans`] says which and how they are named,
//! [`export`] sends them, [`current`] carries a trace through a door's own calls.
//!
//! Invariants:
//! - All ids that two stores must agree on follow from the trace's [`Mark`], which is all that travels.
//! - Nothing here ever waits for the collector: what it can't take in time is dropped and counted.

pub mod current;
pub mod export;
pub mod spans;

use crate::node::clock;
use crate::node::identity::Identity;
use crate::node::options::TraceOptions;
use current::Current;
use export::Batches;
use opentelemetry::{KeyValue, Value};
use rand::Rng;
use rangekv_proto::Mark;
use rangekv_router::trace::{Answered, Asked};
use rangekv_store::trace::{Election, Traced};
use spans::{root, unix, Root};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Makes spans, and hands them to who sends them.
pub struct Tracer {
    batches: Batches,
    share: f64,
}

impl Tracer {
    /// Spans of the node `me` go where `options` say. Called within a runtime, which sends them.
    pub fn start(options: &TraceOptions, me: &Identity) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Tracer {
            batches: Batches::start(&options.endpoint, &spans::resource(me))?,
            share: options.share,
        }))
    }

    /// Runs `work` for a request that has just come to a door whose requests are few, and traces it if it
    /// is drawn. `word` says what kind an error is.
    pub async fn sampled<T, E>(
        tracer: Option<&Arc<Self>>,
        door: &'static str,
        name: &'static str,
        word: impl Fn(&E) -> &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let drawn = |tracer: &&Arc<Self>| rand::rng().random::<f64>() < tracer.share;
        let Some(tracer) = tracer.filter(drawn) else {
            return work.await;
        };
        let (current, began_ns) = (Current::new(mark()), unix_ns());
        let done = current.run(work).await;
        let answered = Answered {
            mark: current.mark,
            name,
            began_ns,
            ended_ns: unix_ns(),
            asked: current.asked(),
            error: done.as_ref().err().map(|error| word(error).to_owned()),
        };
        tracer.request(door, answered);
        done
    }

    /// A traced request to a door has its answer.
    pub fn request(&self, door: &'static str, answered: Answered) {
        let name = match door {
            "redis" => answered.name.to_ascii_uppercase(),
            _ => answered.name.to_owned(),
        };
        let Asked {
            ranges,
            store,
            questions,
        } = answered.asked;
        let mut attributes = vec![
            KeyValue::new("rangekv.door", door),
            KeyValue::new("db.operation.name", name.clone()),
            KeyValue::new("rangekv.questions", questions as i64),
        ];
        if let Some(store) = store {
            attributes.push(KeyValue::new("rangekv.asked", store.0 as i64));
        }
        match &ranges[..] {
            [] => {}
            [range] => attributes.push(KeyValue::new("rangekv.range", range.0 as i64)),
            _ => attributes.push(KeyValue::new("rangekv.ranges", ranges.len() as i64)),
        }
        self.batches.push(root(Root {
            mark: answered.mark,
            serves: true,
            name: name.into(),
            began: unix(answered.began_ns),
            ended: unix(answered.ended_ns),
            attributes,
            error: answered.error,
        }));
    }

    /// The worker has done its part for traced requests, or has won elections.
    pub fn worker(
        &self,
        traced: impl Iterator<Item = Traced>,
        elections: impl Iterator<Item = Election>,
    ) {
        let moments = Moments::now();
        for traced in traced {
            for span in spans::stages(&traced, &|ns| moments.of(ns), &mut || rand::rng().random()) {
                self.batches.push(span);
            }
        }
        for election in elections {
            let attributes = vec![
                KeyValue::new("rangekv.range", election.range.0 as i64),
                KeyValue::new("rangekv.term", election.term as i64),
            ];
            self.batches.push(root(Root {
                mark: mark(),
                serves: false,
                name: "election".into(),
                began: moments.of(election.lap.0),
                ended: moments.of(election.lap.1),
                attributes,
                error: None,
            }));
        }
    }

    /// Work in the background begins. Of that everything is traced: there is little of it.
    pub fn begin(self: &Arc<Self>, name: &'static str) -> Work {
        Work {
            tracer: self.clone(),
            mark: mark(),
            name,
            began: SystemTime::now(),
            attributes: Vec::new(),
        }
    }

    /// Sends what waits, for so long at most. Nothing is sent afterwards.
    pub fn close(&self, within: Duration) {
        self.batches.close(within);
    }
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer")
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

/// The Redis door's tracer.
pub struct RedisTracer(pub Arc<Tracer>);

impl rangekv_router::trace::Tracer for RedisTracer {
    fn share(&self) -> f64 {
        self.0.share
    }

    fn seed(&self) -> u64 {
        rand::rng().random()
    }

    fn unix_ns(&self) -> u64 {
        unix_ns()
    }

    fn answered(&self, request: Answered) {
        self.0.request("redis", request);
    }
}

/// Background work that is being traced.
pub struct Work {
    tracer: Arc<Tracer>,
    mark: Mark,
    name: &'static str,
    began: SystemTime,
    attributes: Vec<KeyValue>,
}

impl Work {
    /// For the requests that it makes.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    /// It is done, or why not.
    pub fn end(self, error: Option<String>) {
        self.tracer.batches.push(root(Root {
            mark: self.mark,
            serves: false,
            name: self.name.into(),
            began: self.began,
            ended: SystemTime::now(),
            attributes: self.attributes,
            error,
        }));
    }
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn mark() -> Mark {
    Mark(rand::rng().random::<u64>().max(1))
}

/// Tells monotonic moments by the wall clock.
struct Moments {
    wall: SystemTime,
    mono_ns: u64,
}

impl Moments {
    fn now() -> Self {
        Moments {
            wall: SystemTime::now(),
            mono_ns: clock::mono_ns(),
        }
    }

    fn of(&self, mono_ns: u64) -> SystemTime {
        self.wall - Duration::from_nanos(self.mono_ns.saturating_sub(mono_ns))
    }
}
