//! Disaster recovery as docs/OPERATIONS.md types it: a majority is gone for good, and the survivors
//! serve again what reached them.

use crate::cluster::{rangekv, until, Cluster};
use crate::operator::ask;
use crate::resp::Reply;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// Keys written before the disaster: they lie in all ranges.
const KEYS: usize = 200;

/// `rangekv ctl recover …`
fn recover(words: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = rangekv();
    command
        .args(["ctl", "recover"])
        .args(words.iter().map(|w| w.as_ref()));
    command.stdin(std::process::Stdio::null());
    command.output().expect("rangekv runs")
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn refused(output: Output, why: &str) {
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains(why),
        "{why}: {said}"
    );
}

/// Five stores, of which three are lost with their disks.
#[test]
fn two_of_five_are_left() {
    let mut cluster = Cluster::serving(5);
    let mut door = cluster.nodes[0].door();
    let mut written = 0;
    for n in 0..KEYS {
        let (key, value) = (format!("kept-{n}"), format!("value-{n}"));
        until("a write", || {
            match door.call(&[b"SET", key.as_bytes(), value.as_bytes()]) {
                Ok(Reply::Simple(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        written += 1;
    }
    assert_eq!(written, KEYS);
    // Every write has reached every store: what is read back is not a matter of luck.
    until("nobody lags", || lagging(&cluster));
    refused(
        recover(&[&"survey", &"--data-dir", &cluster.nodes[0].data_dir]),
        "in use by another rangekv process",
    );
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes[2..] {
        std::fs::remove_dir_all(&node.data_dir).unwrap();
    }

    let root = cluster.root().to_path_buf();
    let survey_of = |n: usize| root.join(format!("n{n}.json"));
    let plan = root.join("plan.json");
    for n in [1, 2] {
        let survey = recover(&[&"survey", &"--data-dir", &cluster.nodes[n - 1].data_dir]);
        std::fs::write(survey_of(n), &survey.stdout).unwrap();
        done(survey);
    }
    refused(
        recover(&[&"plan", &survey_of(1), &survey_of(2), &"--lost", &"n3,n4"]),
        "n5, whose survey is missing",
    );
    let said = done(recover(&[
        &"plan",
        &survey_of(1),
        &survey_of(2),
        &"--lost",
        &"n3,n4,n5",
        &"--out",
        &plan,
    ]));
    println!("{said}");
    assert!(
        said.contains("range 1 [, 10): LOST ITS MAJORITY, lives on on"),
        "{said}"
    );
    assert!(said.contains("What may be lost"), "{said}");

    let directories: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.data_dir.clone())
        .collect();
    let data = |n: usize| directories[n - 1].clone();
    let apply = |dir: &Path, yes: bool| {
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"apply", &"--data-dir", &dir];
        words.extend([&"--plan" as &dyn AsRef<std::ffi::OsStr>, &plan]);
        if yes {
            words.push(&"--yes-i-accept-data-loss");
        }
        recover(&words)
    };
    refused(apply(&data(1), false), "nothing was changed");
    for n in [1, 2] {
        done(apply(&data(n), true));
        assert!(
            done(apply(&data(n), true)).contains("already"),
            "twice is as good as once"
        );
    }

    for node in &mut cluster.nodes[..2] {
        node.start();
    }
    let mut door = cluster.nodes[1].door();
    for n in 0..KEYS {
        let (key, value) = (format!("kept-{n}"), format!("value-{n}"));
        until(&key, || match door.call(&[b"GET", key.as_bytes()]) {
            Ok(Reply::Bulk(Some(found))) if found == value.as_bytes() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // A store that has run is no longer what was surveyed.
    cluster.nodes[1].stop();
    let again = text(&apply(&data(2), true));
    assert!(
        again.contains("already") || again.contains("survey all survivors"),
        "{again}"
    );
    cluster.nodes[1].start();

    // Those that were lost are out; new ones make the cluster whole, under their old names.
    let stores = until("the registry", || ask(&cluster, &["store", "list"]));
    let state = |name: &str| {
        let all = stores.as_array().cloned().unwrap_or_default();
        all.iter()
            .find(|s| s["name"] == name)
            .map(|s| s["state"].clone())
    };
    for name in ["n3", "n4", "n5"] {
        assert_eq!(state(name), Some("removed".into()), "{stores}");
    }
    let first = cluster.nodes[0].grpc.to_string();
    for node in &mut cluster.nodes[2..] {
        node.flags = vec!["--join".into(), first.clone()];
        node.start();
    }
    until("five voters of each range", || {
        let ranges = ask(&cluster, &["range", "list"])?;
        let ranges = ranges.as_array().cloned().unwrap_or_default();
        let five = |r: &Value| {
            let replicas = r["replicas"].as_array().cloned().unwrap_or_default();
            replicas.len() == 5
                && replicas
                    .iter()
                    .all(|m| m["role"] == "voter" && m["lagging"] == false)
        };
        match ranges.iter().all(five) && !ranges.is_empty() {
            true => Ok(()),
            false => Err(format!("{ranges:?}")),
        }
    });
    cluster.wait_until_serving();
}

fn lagging(cluster: &Cluster) -> Result<(), String> {
    let ranges = ask(cluster, &["range", "list"])?;
    let ranges = ranges.as_array().cloned().unwrap_or_default();
    let lags = |r: &&Value| {
        let replicas = r["replicas"].as_array().cloned().unwrap_or_default();
        replicas.len() != 5 || replicas.iter().any(|m| m["lagging"] != false)
    };
    match ranges.iter().find(lags) {
        None if !ranges.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
