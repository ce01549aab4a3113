//! How placement nodes find each other: each is told where the status HTTP of the others is.
//!
//! 1. Every node asks all peers who they are, and says whom it has met (`/identity`).
//! 2. While none belongs to a cluster, the first of them by name makes one, of all of them, as soon
//!    as each has met the same nodes as it has: lists that don't agree never make two clusters.
//!    The others wait for the seat that it offers ([`bootstrap`](super::bootstrap)).
//! 3. Where a peer belongs to a cluster that knows this node's name, a seat is on its way, or the
//!    directory was wiped, and the log says so. One that doesn't know it is joined.

use super::bootstrap::found_placement;
use super::join;
use super::options::Member;
use super::seat::Seat;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A peer has this long to answer.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);
/// More of an answer is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The answer to `/identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Of the node.
    pub name: String,
    /// `store` or `placement node`.
    pub role: String,
    /// Where others reach it.
    pub grpc_address: String,
    /// Of its data directory, in hex.
    pub incarnation: String,
    /// Its cluster in hex; `None` = it waits for its place.
    pub cluster: Option<String>,
    /// Whom it has met, itself among them, by incarnation in hex.
    pub met: BTreeSet<String>,
    /// Names of the stores of its cluster.
    pub members: Vec<String>,
}

impl Introduction {
    /// Of the store of `seat`.
    pub fn of(seat: &Seat) -> Self {
        let identity = seat.identity();
        Introduction {
            name: seat.name(),
            role: seat.role().name().into(),
            grpc_address: seat.addresses().grpc.clone(),
            incarnation: hex_u64(seat.incarnation()),
            cluster: identity.as_ref().map(|i| hex_u64(i.cluster)),
            met: seat.met().into_iter().map(hex_u64).collect(),
            members: match identity {
                Some(_) => seat.known_names(),
                None => Vec::new(),
            },
        }
    }
}

/// What the answers of all peers mean for this node.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask again; why.
    Wait(String),
    /// Make a cluster of these, in this order.
    Found(Vec<Member>),
    /// Ask these for a place in theirs.
    Join(Vec<String>),
}

/// Gets this placement node its seat: in a new cluster of it and its `peers`, or in theirs.
pub async fn meet(seat: &Arc<Seat>, peers: &[String]) -> anyhow::Result<()> {
    let mut last_problem = String::new();
    loop {
        let asking = peers.iter().map(|peer| async move {
            let answer = tokio::time::timeout(ASK_TIME_MAX, introduce(peer)).await;
            match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(format!("{peer} does not answer: {error:#}")),
                Err(_) => Err(format!("{peer} does not answer within {ASK_TIME_MAX:?}")),
            }
        });
        let answers = tokio::select! {
            answers = futures::future::join_all(asking) => answers,
            _ = seat.taken() => return Ok(()),
        };
        let mut met = BTreeSet::from([seat.incarnation()]);
        let known = answers.iter().flatten();
        met.extend(known.filter_map(|a| u64::from_str_radix(&a.incarnation, 16).ok()));
        seat.set_met(met);
        match next(&Introduction::of(seat), answers)? {
            Next::Found(members) => return Ok(found_placement(seat, &members).await?),
            Next::Join(addresses) => {
                let joined = join::join(seat, &addresses, None).await;
                return joined.map_err(anyhow::Error::msg);
            }
            Next::Wait(problem) => {
                if problem != last_problem {
                    tracing::info!(problem, "no seat yet; asking on");
                    last_problem = problem;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = seat.taken() => return Ok(()),
        }
    }
}

/// What to do about the `answers` of all peers. The error is final.
fn next(me: &Introduction, answers: Vec<Result<Introduction, String>>) -> anyhow::Result<Next> {
    let stranger = answers.iter().flatten().find(|a| a.role != me.role);
    if let Some(peer) = stranger {
        anyhow::bail!(
            "--peers: {} at {} is a {}, not a {}; to give a running cluster of stores placement \
             nodes, start them with --join {} instead",
            peer.name,
            peer.grpc_address,
            peer.role,
            me.role,
            peer.grpc_address
        );
    }
    let seated: Vec<&Introduction> = answers
        .iter()
        .flatten()
        .filter(|a| a.cluster.is_some())
        .collect();
    if let Some(one) = seated.first() {
        return Ok(match seated.iter().any(|a| a.members.contains(&me.name)) {
            true => Next::Wait(format!(
                "the cluster of {} has a place for {}, or had one: if its directory was wiped, \
                 remove it with `rangekv ctl store remove {}`, and it joins anew",
                one.name, me.name, me.name
            )),
            false => Next::Join(seated.iter().map(|a| a.grpc_address.clone()).collect()),
        });
    }
    let mut all = vec![me.clone()];
    for answer in answers {
        match answer {
            // An address of this process itself.
            Ok(peer)
                if all
                    .iter()
                    .any(|known| known.incarnation == peer.incarnation) => {}
            Ok(peer) => all.push(peer),
            Err(problem) => return Ok(Next::Wait(problem)),
        }
    }
    all.sort_by_cached_key(|a| (a.name.parse::<u64>().unwrap_or(u64::MAX), a.name.clone()));
    let wanted: BTreeSet<&String> = all.iter().map(|a| &a.incarnation).collect();
    if let Some(other) = all
        .iter()
        .find(|a| !a.met.iter().eq(wanted.iter().copied()))
    {
        return Ok(Next::Wait(format!(
            "{} has met {} of the {} placement nodes; each must name all others in its --peers",
            other.name,
            other.met.len(),
            all.len()
        )));
    }
    let twice = all.windows(2).find(|pair| pair[0].name == pair[1].name);
    if let Some([one, other]) = twice {
        anyhow::bail!(
            "{} and {} both call themselves {:?}; expected another --id for each",
            one.grpc_address,
            other.grpc_address,
            one.name
        );
    }
    Ok(match all[0].incarnation == me.incarnation {
        true => Next::Found(all.into_iter().map(member).collect()),
        false => Next::Wait(format!("{} makes the cluster", all[0].name)),
    })
}

fn member(node: Introduction) -> Member {
    Member {
        name: node.name,
        address: node.grpc_address,
    }
}

/// Asks who is at `address`.
async fn introduce(address: &str) -> anyhow::Result<Introduction> {
    let stream = TcpStream::connect(address).await?;
    let (mut http, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    // Ends with the request's sender.
    let connection = tokio::spawn(connection);
    let request = Request::get("/identity")
        .header(HOST, address)
        .body(Empty::new())?;
    let response = http.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let body = body
        .await
        .map_err(|error| anyhow::anyhow!(error))?
        .to_bytes();
    connection.abort();
    anyhow::ensure!(status.is_success(), "HTTP status {status}");
    serde_json::from_slice(&body).context("what answers is no status port of RangeKV")
}

fn hex_u64(number: u64) -> String {
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_pd::state::StoreRole;

    /// Node `name` of an empty directory that has met `met`.
    fn node(name: &str, met: &[&str]) -> Introduction {
        Introduction {
            name: name.into(),
            role: StoreRole::Placement.name().into(),
            grpc_address: format!("pd{name}:50051"),
            incarnation: format!("i{name}"),
            cluster: None,
            met: met.iter().map(|name| format!("i{name}")).collect(),
            members: Vec::new(),
        }
    }

    fn names(next: &Next) -> Vec<&str> {
        match next {
            Next::Found(members) => members.iter().map(|m| m.name.as_str()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_by_number_makes_the_cluster_when_all_have_met() {
        let all = ["2", "10", "3"];
        let two = node("2", &all);
        let others = || vec![Ok(node("10", &all)), Ok(node("3", &all))];
        assert_eq!(names(&next(&two, others()).unwrap()), ["2", "3", "10"]);
        let ten = next(
            &node("10", &all),
            vec![Ok(two.clone()), Ok(node("3", &all))],
        )
        .unwrap();
        assert_eq!(ten, Next::Wait("2 makes the cluster".into()));
        let alone = node("2", &["2"]);
        assert_eq!(names(&next(&alone, vec![]).unwrap()), ["2"]);
        // Its own address among the peers.
        assert_eq!(
            names(&next(&alone, vec![Ok(alone.clone())]).unwrap()),
            ["2"]
        );
    }

    #[test]
    fn nobody_makes_one_while_somebody_is_missing_or_sees_others() {
        let me = node("1", &["1", "2", "3"]);
        let two = node("2", &["1", "2", "3"]);
        let silent = next(&me, vec![Ok(two.clone()), Err("pd3 is silent".into())]).unwrap();
        assert_eq!(silent, Next::Wait("pd3 is silent".into()));
        for met in [&["1", "3"][..], &["1", "2", "3", "4"], &["2", "3", "4"]] {
            let other = next(&me, vec![Ok(two.clone()), Ok(node("3", met))]).unwrap();
            assert!(
                matches!(&other, Next::Wait(why) if why.starts_with("3 has met")),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_cluster_is_joined_unless_it_knows_the_name() {
        let me = node("4", &["4", "1"]);
        let mut one = node("1", &[]);
        one.cluster = Some("7".into());
        one.members = vec!["1".into(), "2".into()];
        let joined = next(&me, vec![Ok(one.clone()), Err("down".into())]).unwrap();
        assert_eq!(joined, Next::Join(vec!["pd1:50051".into()]));
        let two = next(&node("2", &["1", "2"]), vec![Ok(one.clone())]).unwrap();
        assert!(
            matches!(&two, Next::Wait(why) if why.contains("store remove 2")),
            "{two:?}"
        );
        let store = Introduction {
            role: StoreRole::Store.name().into(),
            ..one
        };
        let error = next(&me, vec![Ok(store)]).unwrap_err();
        assert!(error.to_string().contains("--join pd1:50051"), "{error}");
        let error = next(
            &node("1", &["1", "x"]),
            vec![Ok(Introduction {
                incarnation: "ix".into(),
                ..node("1", &["1", "x"])
            })],
        );
        assert!(error
            .unwrap_err()
            .to_string()
            .contains("call themselves \"1\""));
    }
}
