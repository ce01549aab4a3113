//! Scheduling scripts: `tests/schedule/*.txt`, each named for its scenario.
//!
//! A script is a sequence of blocks, parted by empty lines. A block changes the view, then one
//! round of all schedulers is run on it; below `---` stands what came of it. What was ordered
//! has arrived, and cools down, when the next block begins.
//!
//! ```text
//! config NAME=VALUE      (range-merge is off until this says otherwise)
//! store ID NAME [silent] [lost] [draining] [full] [placement]
//! only SCHEDULER...      (shows what these say)
//! range ID[-ID] on STORE... led-by STORE|nobody [moving-to STORE] [lagging STORE] [cooling]
//!     [held] [backing-off] [hot] [reshaped] [going-to STORE... [for-balance]]
//!     [size BYTES] [reads QPS] [writes QPS] [load-key KEY]
//! cooled                 (no range cools down any more)
//! gone ID                (the store was removed)
//! ```
//! After a store of a range: `?` learner, `+` incoming voter, `-` demoting voter.
//! `UPDATE_GOLDEN=1` rewrites the scripts; read the difference like code.

mod model;

use model::pursue;
use proptest::prelude::*;
use rangekv_pd::config::{self, Config};
use rangekv_pd::operator::{Goal, Proposal, Scheduler};
use rangekv_pd::schedule::schedule;
use rangekv_pd::view::{ClusterView, RangeView, StoreView};
use rangekv_proto::{Epoch, RangeDescriptor, RangeId, Replica, ReplicaId, ReplicaRole, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// A script's state.
#[derive(Default)]
struct Script {
    view: ClusterView,
    settings: BTreeMap<String, String>,
    shown: BTreeSet<String>,
}

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

fn play(text: &str) -> String {
    let mut script = Script::default();
    // Most scripts have few ranges, small and cold ones, and are about something else.
    command(&mut script, "config range-merge=off");
    let mut blocks = Vec::new();
    for block in text.split("\n\n") {
        let input: Vec<&str> = block.lines().take_while(|line| *line != "---").collect();
        for line in &input {
            command(&mut script, line);
        }
        blocks.push(format!("{}\n---\n{}", input.join("\n"), round(&mut script)));
    }
    blocks.join("\n")
}

fn command(script: &mut Script, line: &str) {
    let view = &mut script.view;
    let mut words = line.split_whitespace();
    match words.next() {
        None | Some("#") => {}
        Some("only") => script.shown = words.map(str::to_owned).collect(),
        Some("config") => {
            let (name, value) = words.next().unwrap().split_once('=').unwrap();
            let value = config::check(name, value).unwrap();
            script.settings.insert(name.to_owned(), value);
            view.config = Config::from_pairs(script.settings.iter());
        }
        Some("store") => {
            let id = StoreId(words.next().unwrap().parse().unwrap());
            let name = words.next().unwrap().to_owned();
            let rest: Vec<&str> = words.collect();
            let is = |word: &str| rest.contains(&word);
            let known = ["silent", "lost", "draining", "full", "placement"];
            assert!(rest.iter().all(|w| known.contains(w)), "{line}");
            view.stores.retain(|s| s.id != id);
            view.stores.push(StoreView {
                id,
                name,
                live: !is("silent") && !is("lost"),
                lost: is("lost"),
                draining: is("draining"),
                full: is("full"),
                placement: is("placement"),
            });
            view.stores.sort_by_key(|s| s.id);
        }
        Some("gone") => {
            let id = StoreId(words.next().unwrap().parse().unwrap());
            view.stores.retain(|s| s.id != id);
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
    let mut range = RangeView {
        range: RangeDescriptor {
            id: RangeId(id),
            start: id.to_be_bytes().to_vec().into(),
            end: (id + 1).to_be_bytes().to_vec().into(),
            epoch: Epoch {
                conf_version: 1,
                version: id,
            },
            replicas: Vec::new(),
        },
        ..RangeView::default()
    };
    let store = |word: &str| StoreId(word.parse().unwrap());
    let mut clause = "";
    for word in words {
        match (*word, clause) {
            ("cooling", _) => range.cooling = true,
            ("held", _) => range.held = true,
            ("backing-off", _) => range.backing_off = true,
            ("hot", _) => range.hot = true,
            ("reshaped", _) => range.reshaped = true,
            ("for-balance", _) => range.goal_of = Some(Scheduler::BalanceReplicas),
            (
                "on" | "led-by" | "moving-to" | "lagging" | "going-to" | "size" | "reads"
                | "writes" | "load-key",
                _,
            ) => clause = word,
            ("nobody", "led-by") => range.leader = None,
            (word, "led-by") => range.leader = Some(store(word)),
            (word, "size") => range.size_bytes = word.parse().unwrap(),
            (word, "reads") => range.reads = word.parse().unwrap(),
            (word, "writes") => range.writes = word.parse().unwrap(),
            (word, "load-key") => range.load_key = word.to_owned().into(),
            (word, "moving-to") => range.goal = Some(Goal::Lead(store(word))),
            (word, "going-to") => {
                let mut to = match range.goal.take() {
                    Some(Goal::Place { voters, .. }) => voters,
                    _ => BTreeSet::new(),
                };
                to.insert(store(word));
                range.goal = Some(Goal::Place {
                    voters: to,
                    learners: BTreeSet::new(),
                });
            }
            (word, "lagging") => {
                let id = id * 10 + word.parse::<u64>().unwrap();
                range.lagging.insert(ReplicaId(id));
            }
            (word, "on") => {
                let number: u64 = word.trim_end_matches(['?', '+', '-']).parse().unwrap();
                let role = match word.chars().last() {
                    Some('?') => ReplicaRole::Learner,
                    Some('+') => ReplicaRole::IncomingVoter,
                    Some('-') => ReplicaRole::DemotingVoter,
                    _ => ReplicaRole::Voter,
                };
                range.range.replicas.push(Replica {
                    id: ReplicaId(id * 10 + number),
                    store: StoreId(number),
                    role,
                });
            }
            (word, _) => panic!("unknown word {word}"),
        }
    }
    range
}

/// One round of all schedulers; then everything that was wanted comes to be, step by step.
fn round(script: &mut Script) -> String {
    let mut out = String::new();
    let view = &mut script.view;
    let mut reasons = Vec::new();
    for (scheduler, verdict) in schedule(view) {
        for p in verdict.proposals {
            let epoch = view.range(p.range).unwrap().range.epoch;
            let at = format!("{}/{}", epoch.conf_version, epoch.version);
            let (range, goal, why) = (p.range, &p.goal, &p.reason);
            writeln!(out, "range {range} at {at}: {goal} because {why}").unwrap();
            arrive(view, &p, &mut out);
        }
        if script.shown.is_empty() || script.shown.contains(scheduler.name()) {
            reasons.extend(verdict.reasons);
        }
    }
    for reason in reasons {
        let about = reason
            .range
            .map_or(String::new(), |r| format!(" of range {r}"));
        writeln!(out, "{}{about}: {}", reason.scheduler.name(), reason.text).unwrap();
    }
    out
}

fn arrive(view: &mut ClusterView, proposal: &Proposal, out: &mut String) {
    let stores = view.stores.clone();
    let mut ranges = view.ranges.iter_mut();
    let range = ranges.find(|r| r.range.id == proposal.range).unwrap();
    range.goal = None;
    range.cooling = matches!(proposal.goal, Goal::Lead(_));
    let (steps, stopped) = pursue(range, &proposal.goal, &stores);
    if matches!(proposal.goal, Goal::Place { .. }) {
        for step in steps {
            writeln!(out, "  {step}").unwrap();
        }
    }
    if let Some(why) = stopped {
        writeln!(out, "  {why}").unwrap();
    }
}

/// Up to six stores, some silent or draining, and ranges with replicas on random ones.
fn any_view() -> impl Strategy<Value = ClusterView> {
    let store = (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
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
            .map(|((live, draining, placement), id)| StoreView {
                id: StoreId(id),
                name: format!("n{id}"),
                live,
                lost: false,
                draining,
                full: false,
                placement,
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
                    cooling,
                    lagging,
                    ..RangeView::default()
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
    let able = view.data_stores().filter(|s| s.live && !s.draining);
    let counts: Vec<u64> = able.map(|s| leaders[&s.id]).collect();
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

/// What the schedulers that move leaders want.
fn transfers(view: &ClusterView) -> Vec<(RangeId, StoreId)> {
    let leading = [Scheduler::EvictLeaders, Scheduler::BalanceLeaders];
    let verdicts = schedule(view).into_iter();
    let proposals = verdicts
        .filter(|(s, _)| leading.contains(s))
        .flat_map(|(_, v)| v.proposals);
    let to = |p: Proposal| match p.goal {
        Goal::Lead(to) => (p.range, to),
        other => panic!("{other}"),
    };
    proposals.map(to).collect()
}

proptest! {
    #[test]
    fn every_order_is_allowed_and_useful(view in any_view()) {
        let round = schedule(&view);
        prop_assert_eq!(&round, &schedule(&view));
        prop_assert!(round.iter().all(|(_, v)| !v.reasons.is_empty() || !v.proposals.is_empty()));
        let wanted = round.iter().flat_map(|(_, v)| &v.proposals);
        let mut seen = BTreeSet::new();
        for proposal in wanted {
            prop_assert!(seen.insert(proposal.range), "two operators for {}", proposal.range);
        }
        for (_, verdict) in &round {
            for proposal in &verdict.proposals {
                let Goal::Place { voters, learners } = &proposal.goal else { continue };
                let range = view.range(proposal.range).unwrap();
                let given = (voters | learners).into_iter().filter(|s| range.range.replica_on(*s).is_none());
                for store in given {
                    prop_assert!(view.belongs(proposal.range, store), "{} to {store}", proposal.range);
                }
            }
        }
        for (id, to) in transfers(&view) {
            let range = view.range(id).unwrap();
            let target = view.store(to).unwrap();
            let source = view.store(range.leader.unwrap()).unwrap();
            let replica = range.range.replica_on(to).unwrap();
            prop_assert!(target.live && !target.draining && source.live && to != source.id);
            prop_assert!(!range.cooling && !range.range.is_joint());
            prop_assert!(replica.role == ReplicaRole::Voter && !range.lagging.contains(&replica.id));
            prop_assert!(id != RangeId(1) || source.draining);
        }
    }

    #[test]
    fn rounds_come_to_rest(view in any_view()) {
        let mut view = view;
        view.stores.iter_mut().for_each(|s| s.draining = false);
        // Leaders alone.
        view.config.off.extend(["replica-repair", "replica-balance"]);
        for _ in 0..40 {
            let before = spread(&view);
            let transfers = transfers(&view);
            if transfers.is_empty() {
                return Ok(());
            }
            for (id, to) in transfers {
                let mut ranges = view.ranges.iter_mut();
                ranges.find(|r| r.range.id == id).unwrap().leader = Some(to);
            }
            prop_assert!(spread(&view) <= before, "spread {} -> {}", before, spread(&view));
        }
        prop_assert!(false, "never quiet");
    }
}
