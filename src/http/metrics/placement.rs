//! What the placement driver does, on the store that leads it.

use super::{Family, Kind, Unit, Value};
use crate::node::placement::now_ms;
use crate::node::running::Running;
use rangekv_pd::leader::Leader;
use rangekv_proto::internal::PlacementState;
use std::borrow::Cow;
use std::time::Duration;

/// A stuck worker shall not hold up a scrape.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// As of one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// By scheduler.
    pub(super) running: Vec<(&'static str, u64)>,
    /// By scheduler, in this term.
    pub(super) proposed: Vec<(&'static str, u64)>,
    pub(super) under_replicated: u64,
}

/// Of this store, if it leads the placement driver.
pub async fn look(node: &Running) -> Option<Vec<Family>> {
    let seen = node
        .placement
        .inspect(|leader, _, state| Facts::of(leader, state));
    let seen = tokio::time::timeout(LOOK_TIME_MAX, seen).await.ok()?;
    Some(of(&seen.ok()?))
}

impl Facts {
    fn of(leader: &Leader, state: &PlacementState) -> Self {
        let status = leader.scheduler_status();
        let running = |name| {
            let of_it = leader.operators().filter(|o| o.scheduler.name() == name);
            (name, of_it.count() as u64)
        };
        let names = status.iter().map(|s| s.scheduler.name());
        Facts {
            running: names.chain(["manual"]).map(running).collect(),
            proposed: status
                .iter()
                .map(|s| (s.scheduler.name(), s.proposed_in_all))
                .collect(),
            under_replicated: leader.under_replicated(now_ms(), state).len() as u64,
        }
    }
}

/// The families of `facts`.
pub(super) fn of(facts: &Facts) -> Vec<Family> {
    let mut running = Family::new(
        "rangekv_placement_operators",
        Kind::Gauge,
        Unit::Count,
        "Operators under way, by scheduler. On the placement driver's leader alone, as all of \
         rangekv_placement_….",
    );
    let mut proposed = Family::new(
        "rangekv_placement_proposals_total",
        Kind::Counter,
        Unit::Count,
        "Operators that schedulers have proposed; from 0 with each term of the placement driver.",
    );
    for (family, figures) in [
        (&mut running, &facts.running),
        (&mut proposed, &facts.proposed),
    ] {
        for (scheduler, count) in figures {
            let labels = [("scheduler", Cow::Borrowed(*scheduler))];
            family.add(labels, Value::Whole(*count));
        }
    }
    let under_replicated = Family::new(
        "rangekv_placement_ranges_under_replicated",
        Kind::Gauge,
        Unit::Count,
        "Ranges with fewer healthy voters than they should have.",
    );
    vec![
        running,
        proposed,
        under_replicated.with(Value::Whole(facts.under_replicated)),
    ]
}
