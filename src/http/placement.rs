//! `/pd/api/v1`: what the placement driver knows and does, in the words of `rangekv ctl --json`.
//!
//! Every answer says whose view it is. What only the placement driver's leader can know is 503
//! when there is none.

use super::answer::{Answer, Failure};
use super::snapshot::{self, Snapshot};
use crate::ctl::wire::{CtlCommand, OperatorInfo, RangeDetail};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// What it consists of.
pub const PATHS: &[&str] = &[
    "/pd/api/v1/status",
    "/pd/api/v1/stores",
    "/pd/api/v1/ranges",
    "/pd/api/v1/ranges/{id}",
    "/pd/api/v1/operators",
    "/pd/api/v1/history",
    "/pd/api/v1/schedulers",
    "/pd/api/v1/config",
];

/// The cluster at a glance.
pub fn status(snapshot: &Snapshot) -> Answer {
    answer(snapshot, "status", &snapshot.overview.status)
}

/// All stores.
pub fn stores(snapshot: &Snapshot) -> Answer {
    answer(snapshot, "stores", &snapshot.overview.status.stores)
}

/// All ranges, in key order.
pub fn ranges(snapshot: &Snapshot) -> Answer {
    let ranges: Vec<Value> = snapshot
        .overview
        .ranges
        .iter()
        .map(snapshot::range)
        .collect();
    answer(snapshot, "ranges", &ranges)
}

/// One range and what each of its replicas says of itself.
pub fn range(snapshot: &Snapshot, mut detail: RangeDetail) -> Answer {
    // The replicas know their state, the placement driver the load.
    let known = snapshot.overview.ranges.iter();
    if let Some(known) = known.into_iter().find(|r| r.id == detail.range.id) {
        (detail.range.reads, detail.range.writes) = (known.reads, known.writes);
        detail.range.keys = known.keys;
        for replica in &mut detail.range.replicas {
            let lags = |r: &&crate::ctl::wire::ReplicaInfo| r.id == replica.id && r.lagging;
            replica.lagging = known.replicas.iter().any(|r| lags(&r));
        }
    }
    let value = json!({
        "source": snapshot.source(),
        "range": snapshot::range(&detail.range),
        "replicas": detail.replicas,
    });
    Answer::json(&value)
}

/// Operators under way.
pub fn operators(snapshot: &Snapshot) -> Result<Answer, Failure> {
    of_leader(snapshot, "operators")?;
    Ok(answer(snapshot, "operators", &select(snapshot, true)))
}

/// Operators that have ended, the newest last.
pub fn history(snapshot: &Snapshot) -> Result<Answer, Failure> {
    of_leader(snapshot, "the history of operators")?;
    Ok(answer(snapshot, "history", &select(snapshot, false)))
}

/// What the schedulers do, and why they do no more.
pub fn schedulers(snapshot: &Snapshot) -> Result<Answer, Failure> {
    of_leader(snapshot, "schedulers")?;
    let schedulers = &snapshot.overview.schedulers;
    Ok(answer(snapshot, "schedulers", schedulers))
}

/// Settings with their values, defaults and meanings.
pub fn config(snapshot: &Snapshot) -> Result<Answer, Failure> {
    of_leader(snapshot, "the configuration")?;
    let settings = &snapshot.overview.settings;
    Ok(answer(snapshot, "settings", settings))
}

/// The command in the body of `POST /pd/api/v1/config`. `content_type` has to be JSON: a page
/// of another site can't send that without asking first, and nothing here would say yes.
pub fn set_config(content_type: Option<&str>, body: &[u8]) -> Result<CtlCommand, Failure> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Set {
        name: String,
        value: String,
    }
    let expected = r#"expected {"name":"replication-factor","value":"3"}"#;
    let essence = content_type
        .and_then(|t| t.split(';').next())
        .map(str::trim);
    if !essence.is_some_and(|t| t.eq_ignore_ascii_case("application/json")) {
        return Err(Failure::UnsupportedMediaType(format!(
            "Content-Type {:?}: expected application/json",
            content_type.unwrap_or_default()
        )));
    }
    match serde_json::from_slice(body) {
        Ok(Set { name, value }) => Ok(CtlCommand::ConfigSet { name, value }),
        Err(error) => Err(Failure::BadRequest(format!(
            "{:?}: {error}; {expected}",
            String::from_utf8_lossy(&body[..body.len().min(200)])
        ))),
    }
}

/// The id in `/pd/api/v1/ranges/{id}`.
pub fn range_id(text: &str) -> Result<u64, Failure> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        Failure::BadRequest(format!(
            "range {text:?}: expected a number; /pd/api/v1/ranges lists them"
        ))
    })
}

fn select(snapshot: &Snapshot, running: bool) -> Vec<&OperatorInfo> {
    let all = snapshot.overview.operators.iter();
    all.filter(|o| (o.state == "running") == running).collect()
}

fn answer(snapshot: &Snapshot, name: &str, value: &impl Serialize) -> Answer {
    let value = serde_json::to_value(value).expect("plain data");
    let mut body = json!({ "source": snapshot.source() });
    if let Value::Array(list) = &value {
        body["count"] = json!(list.len());
    }
    body[name] = value;
    Answer::json(&body)
}

fn of_leader(snapshot: &Snapshot, what: &str) -> Result<(), Failure> {
    match snapshot.is_of_leader() {
        true => Ok(()),
        false => Err(Failure::Unavailable {
            why: format!("{what}: the placement driver has no leader that this store can reach"),
            leader: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::snapshot::tests::example;

    #[test]
    fn without_a_leader_only_what_this_store_knows() {
        let mut snapshot = example();
        assert!(operators(&snapshot).is_ok() && config(&snapshot).is_ok());
        snapshot.overview.status.placement_leader = None;
        for refused in [
            operators(&snapshot),
            history(&snapshot),
            schedulers(&snapshot),
            config(&snapshot),
        ] {
            assert!(matches!(refused, Err(Failure::Unavailable { .. })));
        }
    }

    #[test]
    fn a_setting_is_changed_by_json_alone() {
        let body = br#"{"name":"replication-factor","value":"3"}"#;
        let set = |content_type, body: &[u8]| set_config(content_type, body);
        assert_eq!(
            set(Some("application/json; charset=utf-8"), body),
            Ok(CtlCommand::ConfigSet {
                name: "replication-factor".into(),
                value: "3".into()
            })
        );
        for content_type in [None, Some("text/plain"), Some("application/jsonp")] {
            let refused = set(content_type, body);
            assert!(matches!(refused, Err(Failure::UnsupportedMediaType(_))));
        }
        let refused = set(Some("application/json"), br#"{"name":3}"#);
        let Err(Failure::BadRequest(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("name") && why.contains("expected {"), "{why}");
    }

    #[test]
    fn ids_are_digits() {
        assert_eq!(range_id("7"), Ok(7));
        for text in ["", "x", "-1", "+7", "99999999999999999999"] {
            let refused = range_id(text);
            assert!(
                matches!(&refused, Err(Failure::BadRequest(why)) if why.contains(text)),
                "{refused:?}"
            );
        }
    }
}
