//! `rangekv ctl` against a cluster: what it changes, and the statuses with which it ends.

use crate::cluster::{rangekv, until, Cluster};
use crate::operator::{ask, command, stop_balancing};
use crate::writers::Writers;
use serde_json::Value;

/// `rangekv ctl` with `words`: its exit status, and what it printed.
fn run(cluster: &Cluster, words: &[&str]) -> (i32, String) {
    let output = command(cluster, words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// The answer to `words`, however long it takes: each command may be repeated.
fn told(cluster: &Cluster, words: &[&str]) -> Value {
    until(&format!("{words:?}"), || ask(cluster, words))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Stores of a range's replicas, once it has a leader and as many as it had.
fn stores_of(cluster: &Cluster, range: &str) -> Vec<u64> {
    until(&format!("range {range} is shown"), || {
        let shown = ask(cluster, &["range", "show", range])?;
        let replicas = shown["range"]["replicas"].as_array().cloned();
        let stores = replicas.unwrap_or_default();
        Ok(stores.iter().filter_map(|r| r["store"].as_u64()).collect())
    })
}

#[test]
fn an_operator_steers_a_cluster() {
    let mut cluster = Cluster::serving(3);
    stop_balancing(&cluster);
    cluster.add_joining().start();
    until("n4 has joined", || {
        let stores = ask(&cluster, &["store", "list"])?;
        let stores = stores.as_array().cloned().unwrap_or_default();
        match stores.iter().filter(|s| s["state"] == "up").count() {
            4 => Ok(()),
            up => Err(format!("{up} are up")),
        }
    });
    let writers = Writers::start("steered", 2, &cluster.doors());

    // The placement driver's group: one more, one less, by name and by number.
    let added = told(&cluster, &["placement", "members", "add", "n4"]);
    assert_eq!(added["done"], true, "{added}");
    assert_eq!(stores_of(&cluster, "1").len(), 4);
    let n4 = added["range"]["replicas"][3]["store"].to_string();
    let removed = told(&cluster, &["placement", "members", "remove", &n4]);
    assert_eq!(removed["done"], true, "{removed}");
    assert_eq!(stores_of(&cluster, "1").len(), 3);
    let again = told(&cluster, &["placement", "members", "remove", "n4"]);
    assert_eq!(again["done"], true, "what is done already is done: {again}");

    // A replica moves, and is said to have moved. Who leads range 1 begins a history of its own:
    // until one leader has seen all of it, the replica is moved to and fro.
    let n4: u64 = n4.parse().expect("a store's id");
    let leader = || told(&cluster, &["status"])["placement_leader"].clone();
    let seen_by_one_leader = || {
        let led = leader();
        let before = stores_of(&cluster, "2");
        let from = before[0].to_string();
        let to = [1, 2, 3, n4].into_iter().find(|s| !before.contains(s));
        let to = to.expect("three of four hold it").to_string();
        let moved = told(&cluster, &["range", "move", "2", &from, &to]);
        assert_eq!(moved["done"], true, "{moved}");
        let now = stores_of(&cluster, "2");
        let has = |store: &str| now.iter().any(|s| s.to_string() == store);
        assert!(has(&to) && !has(&from) && now.len() == 3, "{now:?}");
        // The leader hears of the last step from the range's next report.
        until("the move is in the history", || {
            let history = told(&cluster, &["operators", "history"]);
            let all = history.as_array().cloned().unwrap_or_default();
            let by_hand = |o: &&Value| o["range"] == 2 && o["scheduler"] == "manual";
            let states: Vec<&str> = all
                .iter()
                .filter(by_hand)
                .map(|o| text(o, "state"))
                .collect();
            match states.contains(&"done") || leader() != led {
                true => Ok(()),
                false => Err(history.to_string()),
            }
        });
        let why = told(&cluster, &["why", "2"]);
        (leader() == led).then_some(why)
    };
    let why = (0..5)
        .find_map(|_| seen_by_one_leader())
        .expect("a placement driver that keeps its leader");
    let held = |reason: &Value| text(reason, "text").contains("a person changed it");
    assert!(
        why.as_array().is_some_and(|all| all.iter().any(held)),
        "{why}"
    );

    // A store is emptied, shown to be empty, and used again.
    let drained = told(&cluster, &["store", "drain", "n4", "--wait"]);
    assert_eq!(
        (&drained["done"], &drained["replicas"]),
        (&true.into(), &0.into())
    );
    let shown = told(&cluster, &["store", "show", "n4"]);
    assert_eq!(text(&shown["store"], "state"), "draining");
    assert_eq!(shown["ranges"].as_array().map(Vec::len), Some(0), "{shown}");
    let back = told(&cluster, &["store", "drain", "n4", "--undo"]);
    assert_eq!(back["draining"], false, "{back}");

    // Settings.
    told(
        &cluster,
        &["config", "set", "leader-balance-tolerance", "7"],
    );
    let got = told(&cluster, &["config", "get", "leader-balance-tolerance"]);
    assert_eq!(text(&got, "value"), "7");
    let schedulers = told(&cluster, &["schedulers"]);
    let names = schedulers.as_array().cloned().unwrap_or_default();
    assert!(
        names.iter().any(|s| text(s, "name") == "finish-joint"),
        "{schedulers}"
    );

    let ledger = writers.finish();
    ledger.verify(&cluster.doors());
}

#[test]
fn exit_statuses_tell_what_happened() {
    let mut cluster = Cluster::serving(3);
    for (words, status, said) in [
        (&["range", "show", "999999"][..], 1, "no range 999999"),
        (&["store", "show", "n9"], 1, "no store \"n9\""),
        (&["range", "move", "2", "n1", "n9"], 1, "no store \"n9\""),
        (&["config", "get", "no-such"], 1, "no setting no-such"),
        (&["operators", "cancel", "1"], 1, "not under way"),
        (&["placement", "members", "add", "n9"], 1, "no store \"n9\""),
        (&["range", "split", "--slot", "99999"], 2, "--slot"),
        (&["store"], 2, "Usage"),
        (&["status"], 0, "placement_leader"),
    ] {
        let (ended, text) = until("an answer", || match run(&cluster, words) {
            (3, text) if status != 3 => Err(text),
            ended => Ok(ended),
        });
        assert_eq!(ended, status, "{words:?}: {text}");
        assert!(text.contains(said), "{words:?}: {text}");
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    let mut command = rangekv();
    let endpoint = cluster.nodes[0].grpc.to_string();
    let silent = command
        .args(["ctl", "--timeout", "300ms", "--endpoints", &endpoint])
        .args(["config", "set", "leader-balance", "on"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&silent.stderr);
    assert_eq!(silent.status.code(), Some(3), "sent to nobody: {text}");
}
