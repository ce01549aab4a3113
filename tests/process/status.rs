//! Status over HTTP, asked of real nodes: figures that move, a node that dies, the page.

use crate::browser::Browser;
use crate::cluster::{rangekv, until, Cluster, PATIENCE};
use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Pictures of the page are written to the directory that this variable names.
const PICTURES: &str = "RANGEKV_PICTURES";

struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One request on a connection of its own.
fn request(to: SocketAddr, head: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let text = format!(
        "{head}\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.unwrap_or(0),
        headers: head.to_owned(),
        body: body.to_owned(),
    })
}

fn get(to: SocketAddr, path: &str) -> Answer {
    request(to, &format!("GET {path} HTTP/1.1"), "").unwrap_or_else(|e| panic!("{to}{path}: {e}"))
}

/// The number that a store shows for one series of a metric.
pub fn metric(to: SocketAddr, name: &str, label: Option<(&str, &str)>) -> u64 {
    let metrics = get(to, "/metrics").json();
    let samples = metrics[name]["samples"].as_array().cloned();
    let is_meant =
        |sample: &Value| label.is_none_or(|(name, value)| sample["labels"][name] == value);
    let found = samples.unwrap_or_default().into_iter().find(is_meant);
    let found = found.unwrap_or_else(|| panic!("{name} {label:?} in {metrics}"));
    let number = found.get("value").or(found.get("count"));
    number.and_then(Value::as_u64).unwrap()
}

#[test]
fn figures_move_and_any_node_answers() {
    let cluster = Cluster::serving(3);
    let doors: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.http).collect();
    let mut redis = cluster.nodes[0].door();

    let sets = ("command", "set");
    let before = metric(doors[0], "rangekv_door_requests_total", Some(sets));
    let errors = metric(
        doors[0],
        "rangekv_door_errors_total",
        Some(("kind", "WRONGTYPE")),
    );
    let syncs = metric(doors[0], "rangekv_log_syncs_total", None);
    for n in 0..10 {
        redis
            .call(&[b"SET", format!("k{n}").as_bytes(), b"v"])
            .unwrap();
    }
    assert_eq!(
        metric(doors[0], "rangekv_door_requests_total", Some(sets)),
        before + 10
    );
    assert_eq!(
        metric(
            doors[0],
            "rangekv_door_errors_total",
            Some(("kind", "WRONGTYPE"))
        ),
        errors
    );
    assert!(metric(doors[0], "rangekv_log_syncs_total", None) > syncs);
    assert!(
        metric(
            doors[0],
            "rangekv_door_request_seconds",
            Some(("door", "redis"))
        ) >= 10
    );
    let text = get(doors[0], "/metrics?format=prometheus");
    assert!(
        text.headers.contains("openmetrics-text"),
        "{}",
        text.headers
    );
    assert!(text.body.ends_with("# EOF\n"));

    // Every node shows the same leader of range 1, and its log grows with what it does.
    let state =
        |door: SocketAddr, group: u64| get(door, &format!("/raft/state?group={group}")).json();
    until("one leader in all answers", || {
        let leaders: Vec<Value> = doors
            .iter()
            .map(|d| state(*d, 1)["leader"]["store"].clone())
            .collect();
        match leaders[0].is_u64() && leaders.iter().all(|leader| *leader == leaders[0]) {
            true => Ok(()),
            false => Err(format!("{leaders:?}")),
        }
    });
    let before = state(doors[1], 1);
    assert_eq!(before["members"].as_array().map(Vec::len), Some(3));
    let set = json!({ "name": "leader-balance-tolerance", "value": "7" }).to_string();
    let post = "POST /pd/api/v1/config HTTP/1.1\r\ncontent-type: application/json";
    let done = request(doors[2], post, &set).unwrap();
    assert_eq!(
        (done.status, &done.json()["value"]),
        (200, &json!("7")),
        "{}",
        done.body
    );
    until("the follower applies it", || {
        let now = state(doors[1], 1)["applied"].as_u64();
        match now > before["applied"].as_u64() {
            true => Ok(()),
            false => Err(format!("{now:?} after {before}")),
        }
    });

    for (path, status, quoted) in [
        ("/raft/state?group=x", 400, "group=\\\"x\\\""),
        ("/raft/state?group=99", 404, "group=99"),
        ("/pd/api/v1/ranges/99", 404, "range 99"),
        ("/nowhere", 404, "/nowhere"),
        ("/partitions/key", 400, "?key="),
    ] {
        let answer = get(doors[0], path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(quoted), "{path}: {}", answer.body);
        assert_eq!(answer.json()["success"], false);
    }
    let wrong = request(doors[0], "DELETE /cluster HTTP/1.1", "").unwrap();
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, Some("GET, HEAD"))
    );

    // An HTTP client at the gRPC port, and the gRPC client of `probe` at the HTTP port, are told.
    let wrong = get(cluster.nodes[0].grpc, "/health");
    let said = wrong.json()["message"].to_string();
    assert_eq!(wrong.status, 421, "{said}");
    assert!(said.contains(&format!("http://{}/", doors[0])), "{said}");
    let probe = rangekv()
        .args(["probe", &doors[0].to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probe.stderr).into_owned();
    assert!(
        !probe.status.success() && said.contains("this is the HTTP port"),
        "{said}"
    );
}

#[test]
fn a_dead_node_stays_listed_and_the_page_says_so() {
    let mut cluster = Cluster::serving(3);
    let door = cluster.nodes[0].http;
    let ready = |door| get(door, "/ready").status;
    assert_eq!((ready(door), get(door, "/health").status), (200, 200));
    let detailed = get(door, "/health/detailed").json();
    assert_eq!(detailed["node"], "n1");
    assert_eq!(
        detailed["groups"].as_array().map(Vec::len),
        detailed["replicas"].as_u64().map(|n| n as usize)
    );

    let listed = get(door, "/cluster");
    let etag = listed.header("etag").unwrap().to_owned();
    let again = format!("GET /cluster HTTP/1.1\r\nif-none-match: {etag}");
    until("nothing changes", || match request(door, &again, "") {
        Ok(answer) if answer.status == 304 => Ok(()),
        other => Err(other.map(|answer| answer.body).unwrap_or_default()),
    });

    let url = format!("http://{door}/");
    let profile = cluster.root().join("browser");
    let mut browser = Browser::start(&profile);
    match &mut browser {
        Some(page) => look_at_the_page(page, &url),
        None => println!("no Chromium on this machine: the page was not looked at"),
    }

    cluster.nodes[2].kill();
    until("n3 is no longer active", || {
        let nodes = get(door, "/cluster").json()["nodes"].clone();
        match (nodes.as_array().map(Vec::len), nodes[2]["status"].as_str()) {
            (Some(3), Some("down")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(request(door, &again, "").unwrap().status, 200);
    if let Some(page) = &mut browser {
        page.until("document.querySelector('#stores [data-state=down] h3')?.textContent === 'n3'");
        page.until("document.querySelector('#verdict').textContent.includes('n3 is down')");
        keep(page, "one-down");
    }

    cluster.nodes[1].kill();
    if let Some(page) = &mut browser {
        page.until("!document.querySelector('#banner').hidden");
        keep(page, "no-leader");
        assert_eq!(page.evaluate("faults"), json!([]));
    }
    // The last one leads as long as it may believe that others hear it.
    until("nobody leads", || {
        let refused = get(door, "/pd/api/v1/operators");
        match (refused.status, refused.json()["leader"].clone()) {
            (503, Value::Null) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.start_all();
    cluster.wait_until_serving();
}

/// What is there at first, in words, by keys, and on a phone.
fn look_at_the_page(page: &mut Browser, url: &str) {
    page.resize(1280, 900, false);
    page.prefer("light");
    page.open(url);
    page.until("document.querySelectorAll('#stores > li').length === 3");
    page.until("document.querySelector('#verdict').textContent.startsWith('3 stores serve')");
    page.until("document.querySelectorAll('#strip [role=option]').length >= 4");
    page.until("document.querySelectorAll('#strip [role=option][tabindex=\"0\"]').length === 1");
    page.evaluate("document.querySelector('#strip [tabindex=\"0\"]').focus()");
    let press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', \
                 { key: KEY, bubbles: true, cancelable: true }))";
    page.evaluate(&press.replace("KEY", "'ArrowRight'"));
    page.evaluate(&press.replace("KEY", "'Enter'"));
    page.until("document.querySelectorAll('#range tbody tr').length === 3");
    page.until(
        "[...document.querySelectorAll('#range tbody td')].some(td => td.textContent === 'leader')",
    );
    keep(page, "laptop-light");
    page.prefer("dark");
    page.resize(390, 844, true);
    page.until("document.documentElement.scrollWidth <= 390");
    keep(page, "phone-dark");
    page.evaluate(&press.replace("KEY", "'Escape'"));
    page.until("document.querySelector('#range').hidden");
    page.resize(1280, 900, false);
    assert_eq!(page.evaluate("faults"), json!([]));
}

/// Writes a picture of the page, if somebody wants to see it.
fn keep(page: &mut Browser, name: &str) {
    if let Some(directory) = std::env::var_os(PICTURES) {
        let path = std::path::Path::new(&directory).join(format!("{name}.png.base64"));
        std::fs::write(path, page.picture()).unwrap();
    }
}
