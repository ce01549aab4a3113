//! The exposition as Prometheus reads it, and the page that lists it.

use super::*;
use rangekv_router::metrics::{DoorMetrics, RESP_ERRORS};
use rangekv_store::engine::cached::Cached;
use rangekv_store::engine::rocks::{RocksConfig, RocksEngine};
use rangekv_store::engine::StateEngine;
use rangekv_store::metrics::Metrics;
use std::time::Duration;

/// Every family that a store can show.
fn all() -> Vec<Family> {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &RocksConfig::default()).unwrap();
    let engine = Cached::new(std::sync::Arc::new(engine), 1 << 16, 0);
    let stream = (rangekv_proto::StoreId(2), true);
    let facts = store::Facts {
        streams: vec![stream],
        ..Default::default()
    };
    let seen = doors::Seen {
        door: "redis",
        figures: DoorMetrics::new(vec!["get"], RESP_ERRORS).figures(),
        ..Default::default()
    };
    let mut families = process::families(Duration::from_secs(1));
    families.extend(doors::of(&[seen]));
    families.extend(store::of(&facts));
    families.extend(pubsub::of(&Default::default()));
    families.extend(placement::of(&placement::Facts {
        running: vec![("manual", 0)],
        proposed: vec![("balance-leaders", 0)],
        ..Default::default()
    }));
    families.extend(Metrics::default().families().into_iter().map(Family::from));
    families.extend(engine.families().into_iter().map(Family::from));
    families.sort_by(|a, b| a.name.cmp(&b.name));
    families
}

#[test]
fn names_are_unique_explained_and_end_in_their_unit() {
    let families = all();
    for pair in families.windows(2) {
        assert_ne!(pair[0].name, pair[1].name);
    }
    for family in &families {
        let name = &family.name;
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        assert!(!family.samples.is_empty(), "{name} shows nothing");
        let total = name.ends_with("_total");
        assert_eq!(total, family.kind == Kind::Counter, "{name}");
        let stem = name.strip_suffix("_total").unwrap_or(name);
        match family.unit {
            Unit::Bytes => assert!(stem.contains("_bytes"), "{name}"),
            Unit::Seconds => assert!(stem.ends_with("_seconds"), "{name}"),
            Unit::Count => assert!(
                !stem.contains("bytes") && !stem.contains("seconds"),
                "{name}"
            ),
        }
        let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(name.bytes().all(snake), "{name}");
    }
}

/// Each line is a comment of its family, or a sample whose name and labels are well formed, with
/// a value that is a number; histograms ascend to their count.
#[test]
fn the_exposition_parses() {
    let text = super::text(all()).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next_back(), Some("# EOF"));
    let (mut family, mut helped) = (String::new(), 0);
    let (mut histogram, mut below) = (String::new(), 0.0);
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(["HELP", "TYPE", "UNIT"].contains(&words[0]), "{line}");
            if words[0] == "HELP" {
                family = words[1].to_owned();
                helped += 1;
            }
            assert_eq!(words[1], family, "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with(&family), "{line} under {family}");
        for label in labels
            .strip_suffix('}')
            .unwrap()
            .split("\",")
            .filter(|l| !l.is_empty())
        {
            let (name, quoted) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            assert!(!quoted.contains('\n'), "{line}");
        }
        if name.ends_with("_bucket") {
            let beside_bound = labels.split("le=").next().unwrap_or_default();
            let of = format!("{name}{{{beside_bound}");
            if of != histogram {
                (histogram, below) = (of, 0.0);
            }
            assert!(value >= below, "{line}: below {below}");
            below = value;
        }
    }
    assert_eq!(helped, all().len());
}

/// docs/METRICS.md lists exactly what is there. `BLESS=1` writes it anew.
#[test]
fn metrics_page() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let page = markdown(&all());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "docs/METRICS.md: BLESS=1 writes it anew");
}

fn example() -> Vec<Family> {
    let requests = Family::new(
        "rangekv_example_requests_total",
        Kind::Counter,
        Unit::Count,
        "Requests.",
    )
    .labelled(
        [
            ("door", "redis".into()),
            ("command", "say \"hi\"\\\n".into()),
        ],
        Value::Whole(3),
    );
    let latency = Family::new(
        "rangekv_example_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "Time.",
    )
    .with(Value::Histogram {
        at_most: vec![(0.001, 2), (0.01, 5)],
        count: 6,
        sum: 1.5,
    });
    let sent = Family::new("sent_bytes_total", Kind::Counter, Unit::Bytes, "Bytes.")
        .with(Value::Number(0.5));
    let odd = Family::new(
        "delayed_bytes_per_second",
        Kind::Gauge,
        Unit::Bytes,
        "Rate.",
    )
    .with(Value::Whole(7));
    vec![requests, latency, sent, odd]
}

#[test]
fn the_text_of_families() {
    let text = super::text(example()).unwrap();
    let expected = r#"# HELP rangekv_example_requests Requests.
# TYPE rangekv_example_requests counter
rangekv_example_requests_total{door="redis",command="say \"hi\"\\\n"} 3
# HELP rangekv_example_seconds Time.
# TYPE rangekv_example_seconds histogram
# UNIT rangekv_example_seconds seconds
rangekv_example_seconds_sum 1.5
rangekv_example_seconds_count 6
rangekv_example_seconds_bucket{le="0.001"} 2
rangekv_example_seconds_bucket{le="0.01"} 5
rangekv_example_seconds_bucket{le="+Inf"} 6
# HELP sent_bytes Bytes.
# TYPE sent_bytes counter
# UNIT sent_bytes bytes
sent_bytes_total 0.5
# HELP delayed_bytes_per_second Rate.
# TYPE delayed_bytes_per_second gauge
delayed_bytes_per_second 7
# EOF
"#;
    assert_eq!(text, expected);
}

#[test]
fn the_same_as_json() {
    let json = super::json(&example());
    let latency = &json["rangekv_example_seconds"];
    assert_eq!(latency["kind"], "histogram");
    assert_eq!(latency["samples"][0]["count"], 6);
    assert_eq!(latency["samples"][0]["at_most"][1][1], 5);
    let requests = &json["rangekv_example_requests_total"]["samples"][0];
    assert_eq!(requests["labels"]["door"], "redis");
    assert_eq!(requests["value"], 3);
}
