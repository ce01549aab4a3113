//! Scheduling scripts: `tests/schedule/*.txt`, each named for its scenario.
//!
//! A script is a sequence of blocks, parted by empty lines. A block changes the view, then one
//! round of all schedulers is run on it; below `---` stands what came of it. What was ordered
//! has arrived, and cools down, when the next block begins.
//!
//! ```text
//! config NAME=VALUE
//! store ID NAME [silent] [draining]
//! range ID[-ID] on STORE... led-by STORE|nobody [moving-to STORE] [lagging STORE] [cooling]
//! cooled                 (no range cools down any more)
//! ```
//! After a store of a range: `?` learner, `+` incoming voter, `-` demoting voter.
//! `UPDATE_GOLDEN=1` rewrites the scripts; read the difference like code.

use proptest::prelude::*;
use rangekv_pd::config::{self, Config};
use rangekv_pd::schedule::{schedule, ClusterView, RangeView, Step, StoreView};
use rangekv_proto::{Epoch, RangeDescriptor, RangeId, Replica, ReplicaId, ReplicaRole, StoreId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedule");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {dir:?}");
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, played).unwrap();
        } else {
            assert_eq!(played, script, "{path:?}; UPDATE_GOLDEN=1 rewrites it");
        }
    }
}

fn play(script: &str) -> String {
    let mut view = ClusterView::default();
    let mut settings = BTreeMap::new();
    let mut blocks = Vec::new();
    for block in script.split("\n\n") {
        let input: Vec<&str> = block.lines().take_while(|line| *line != "---").collect();
        for line in &input {
            command(&mut view, &mut settings, line);
        }
        blocks.push(format!("{}\n---\n{}", input.join("\n"), round(&mut view)));
    }
    blocks.join("\n")
}

fn command(view: &mut ClusterView, settings: &mut BTreeMap<String, String>, line: &str) {
    let mut words = line.split_whitespace();
    match words.next() {
        None | Some("#") => {}
        Some("config") => {
            let (name, value) = words.next().unwrap().split_once('=').unwrap();
            settings.insert(name.to_owned(), config::check(name, value).unwrap());
            view.config = Config::from_pairs(settings.iter());
        }
        Some("store") => {
            let id = StoreId(words.next().unwrap().parse().unwrap());
            let name = words.next().unwrap().to_owned();
            let rest: Vec<&str> = words.collect();
            assert!(
                rest.iter().all(|w| ["silent", "draining"].contains(w)),
                "{line}"
            );
            let draining = rest.contains(&"draining");
            view.stores.retain(|s| s.id != id);
            view.stores.push(StoreView {
                id,
                name,
                live: !rest.contains(&"silent"),
                draining,
            });
            view.stores.sort_by_key(|s| s.id);
        }
        Some("range") => {
            let ids = words.next().unwrap();
            let (first, last) = ids.split_once('-').unwrap_or((ids, ids));
            let rest: Vec<&str> = words.collect();
            for id in first.parse().unwrap()..=last.parse().unwrap() {
                let range = range(id, &rest);
                view.ranges.retain(|r| r.range.id != range.range.id);
                view.ranges.push(range);
            }
            view.ranges.sort_by_key(|r| r.range.id);
        }
        Some("cooled") => view.ranges.iter_mut().for_each(|r| r.cooling = false),
        Some(other) => panic!("unknown command {other}"),
    }
}

/// A range of which replica `10 * id + store` is on each store.
fn range(id: u64, words: &[&str]) -> RangeView {
    let mut replicas = Vec::new();
    let (mut leader, mut moving_to, mut lagging, mut cooling) = (None, None, Vec::new(), false);
    let mut clause = "";
    for word in words {
        match (*word, clause) {
            ("cooling", _) => cooling = true,
            ("on" | "led-by" | "moving-to" | "lagging", _) => clause = word,
            ("nobody", "led-by") => leader = None,
            (store, "led-by") => leader = Some(StoreId(store.parse().unwrap())),
            (store, "moving-to") => moving_to = Some(StoreId(store.parse().unwrap())),
            (store, "lagging") => lagging.push(ReplicaId(id * 10 + store.parse::<u64>().unwrap())),
            (store, "on") => {
                let number: u64 = store.trim_end_matches(['?', '+', '-']).parse().unwrap();
                let role = match store.chars().last() {
                    Some('?') => ReplicaRole::Learner,
                    Some('+') => ReplicaRole::IncomingVoter,
                    Some('-') => ReplicaRole::DemotingVoter,
                    _ => ReplicaRole::Voter,
                };
                let id = ReplicaId(id * 10 + number);
                replicas.push(Replica {
                    id,
                    store: StoreId(number),
                    role,
                });
            }
            (word, _) => panic!("unknown word {word}"),
        }
    }
    RangeView {
        range: RangeDescriptor {
            id: RangeId(id),
            start: id.to_be_bytes().to_vec().into(),
            end: (id + 1).to_be_bytes().to_vec().into(),
            epoch: Epoch {
                conf_version: 1,
                version: id,
            },
            replicas,
        },
        leader,
        moving_to,
        cooling,
        lagging: lagging.into_iter().collect(),
    }
}

fn round(view: &mut ClusterView) -> String {
    let mut out = String::new();
    let (operators, reasons) = schedule(view);
    for operator in &operators {
        let Step::TransferLeader(to) = operator.step;
        let (range, epoch, why) = (operator.range, operator.epoch, &operator.reason);
        let at = format!("{}/{}", epoch.conf_version, epoch.version);
        writeln!(
            out,
            "range {range} at {at}: leader to store {to} because {why}"
        )
        .unwrap();
        let range = view
            .ranges
            .iter_mut()
            .find(|r| r.range.id == range)
            .unwrap();
        (range.leader, range.moving_to, range.cooling) = (Some(to), None, true);
    }
    for reason in reasons {
        writeln!(out, "{}: {}", reason.scheduler, reason.text).unwrap();
    }
    out
}

/// Up to six stores, some silent or draining, and ranges with replicas on random ones.
fn any_view() -> impl Strategy<Value = ClusterView> {
    let store = (prop::bool::weighted(0.8), prop::bool::weighted(0.2));
    let one = (
        any::<u64>(),
        0usize..9,
        prop::bool::weighted(0.1),
        any::<u8>(),
        0u8..10,
    );
    let stores = prop::collection::vec(store, 1..7);
    (stores, prop::collection::vec(one, 0..40)).prop_map(|(stores, ranges)| {
        let n = stores.len() as u64;
        let stores: Vec<StoreView> = stores
            .into_iter()
            .zip(1..)
            .map(|((live, draining), id)| StoreView {
                id: StoreId(id),
                name: format!("n{id}"),
                live,
                draining,
            })
            .collect();
        let ranges = ranges
            .into_iter()
            .zip(1..)
            .map(|((bits, leader, cooling, lag, role), id)| {
                let on = (1..=n).filter(|s| bits >> s & 1 == 1);
                let mut replicas: Vec<Replica> = on
                    .map(|s| Replica {
                        id: ReplicaId(id * 10 + s),
                        store: StoreId(s),
                        role: ReplicaRole::Voter,
                    })
                    .collect();
                let leader = replicas.get(leader).map(|r| r.store);
                let lagging = replicas.iter().filter(|r| lag >> (r.store.0 % 8) & 1 == 1);
                let lagging = lagging.map(|r| r.id).collect();
                if let Some(last) = replicas.last_mut() {
                    last.role = match role {
                        0 => ReplicaRole::IncomingVoter,
                        1 => ReplicaRole::DemotingVoter,
                        2 => ReplicaRole::Learner,
                        _ => ReplicaRole::Voter,
                    };
                }
                let words = ["on"];
                RangeView {
                    range: RangeDescriptor {
                        replicas,
                        ..range(id, &words).range
                    },
                    leader,
                    moving_to: None,
                    cooling,
                    lagging,
                }
            });
        ClusterView {
            stores,
            ranges: ranges.collect(),
            config: Config::default(),
        }
    })
}

/// Most minus least leaders among the stores that may lead.
fn spread(view: &ClusterView) -> u64 {
    let leaders = view.leaders();
    let able = view.stores.iter().filter(|s| s.live && !s.draining);
    let counts: Vec<u64> = able.map(|s| leaders[&s.id]).collect();
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

proptest! {
    #[test]
    fn every_order_is_allowed_and_useful(view in any_view()) {
        let (operators, reasons) = schedule(&view);
        prop_assert_eq!(&(operators.clone(), reasons.clone()), &schedule(&view));
        prop_assert!(!reasons.is_empty());
        let mut seen = std::collections::BTreeSet::new();
        for operator in &operators {
            prop_assert!(seen.insert(operator.range), "two operators for {}", operator.range);
            let range = view.ranges.iter().find(|r| r.range.id == operator.range).unwrap();
            let Step::TransferLeader(to) = operator.step;
            let target = view.stores.iter().find(|s| s.id == to).unwrap();
            let source = view.stores.iter().find(|s| Some(s.id) == range.leader).unwrap();
            let replica = range.range.replica_on(to).unwrap();
            prop_assert!(target.live && !target.draining && source.live && to != source.id);
            prop_assert!(!range.cooling && !range.range.is_joint());
            prop_assert!(replica.role == ReplicaRole::Voter && !range.lagging.contains(&replica.id));
            prop_assert!(operator.range != RangeId(1) || source.draining);
            prop_assert_eq!(operator.epoch, range.range.epoch);
        }
    }

    #[test]
    fn rounds_come_to_rest(view in any_view()) {
        let mut view = view;
        view.stores.iter_mut().for_each(|s| s.draining = false);
        for _ in 0..40 {
            let before = spread(&view);
            let (operators, _) = schedule(&view);
            if operators.is_empty() {
                return Ok(());
            }
            for operator in &operators {
                let Step::TransferLeader(to) = operator.step;
                let range = view.ranges.iter_mut().find(|r| r.range.id == operator.range).unwrap();
                range.leader = Some(to);
            }
            prop_assert!(spread(&view) <= before, "spread {} -> {}", before, spread(&view));
        }
        prop_assert!(false, "never quiet");
    }
}
