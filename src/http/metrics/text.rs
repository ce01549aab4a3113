//! The OpenMetrics text of families, encoded by `prometheus-client`.

use super::{Family, Kind, Unit, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{text::encode, DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry;
use std::borrow::Cow;
use std::fmt;

/// What Prometheus is sent.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of `families`.
pub fn text(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = registry::Registry::default();
    registry.register_collector(Box::new(Gathered(families)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Gathered(Vec<Family>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let (name, unit) = stem(family);
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            for sample in &family.samples {
                let labels: Vec<(&str, Cow<'static, str>)> = sample.labels.clone();
                match labels.is_empty() {
                    true => encode_value(&mut metric, family.kind, &sample.value)?,
                    false => {
                        let labels = &labels[..];
                        let mut one = metric.encode_family(&labels)?;
                        encode_value(&mut one, family.kind, &sample.value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The name without what the encoder appends to it: the unit, and `_total`.
fn stem(family: &Family) -> (&str, Option<registry::Unit>) {
    let name = family.name.strip_suffix("_total").unwrap_or(&family.name);
    let (suffix, unit) = match family.unit {
        Unit::Count => return (name, None),
        Unit::Bytes => ("_bytes", registry::Unit::Bytes),
        Unit::Seconds => ("_seconds", registry::Unit::Seconds),
    };
    match name.strip_suffix(suffix) {
        Some(stem) => (stem, Some(unit)),
        // Bytes of something, per something.
        None => (name, None),
    }
}

fn encode_value(
    encoder: &mut MetricEncoder<'_>,
    kind: Kind,
    value: &Value,
) -> Result<(), fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(n)) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Counter, Value::Number(n)) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Gauge, Value::Whole(n)) => encoder.encode_gauge(n),
        (Kind::Gauge, Value::Number(n)) => encoder.encode_gauge(n),
        (
            _,
            Value::Histogram {
                at_most,
                count,
                sum,
            },
        ) => {
            let mut below = 0;
            let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(at_most.len() + 1);
            for (bound, cumulative) in at_most {
                buckets.push((*bound, cumulative - below));
                below = *cumulative;
            }
            buckets.push((f64::INFINITY, count - below));
            encoder.encode_histogram::<NoLabelSet>(*sum, *count, &buckets, None)
        }
        (Kind::Histogram, Value::Whole(_) | Value::Number(_)) => Err(fmt::Error),
    }
}
