//! Makes a cluster of a list of members: once, by one of them, without a quorum's help.
//!
//! 1. The founder asks all members that it can reach. If one belongs to a cluster, there is
//!    none to be made: this directory was wiped, or the flags are wrong. Of several members
//!    that were told to found, one does: each answers calls before it asks, so of two that
//!    ask at the same time at least one sees the other; the first of the list goes ahead.
//! 2. It draws the cluster's id, lays out the ranges over *all* members, and takes its own
//!    seat. Alone it can never elect itself: the groups have all members as voters.
//! 3. It offers each other member its seat until it is taken. Which member, in which
//!    incarnation, is recorded durably *before* the offer leaves: a member that took its seat
//!    and lost its directory is never seated again, for it may have voted.

use super::calls::identify;
use super::dial::{dial, Backoff};
use super::durable::{self, DurableError};
use super::greeting::wiped;
use super::options::Member;
use super::seat::{Founding, Seat};
use crate::ctl::{hex, unhex};
use parking_lot::Mutex;
use rangekv_pd::bootstrap::{default_data_ranges, Bootstrap, BootstrapError, Member as Planned};
use rangekv_pd::config::ReplicationFactor;
use rangekv_proto::internal as pb;
use rangekv_proto::{RangeDescriptor, StoreId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FORMAT: u32 = 1;
/// A member that finds its cluster made by another is offered its seat within this.
const SEAT_WAIT: Duration = Duration::from_secs(15);

/// Why no cluster is made.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// One of the members belongs to a cluster already.
    #[error(
        "{member} belongs to cluster {cluster:016x} already, but the data directory of this member is \
         empty, and the cluster has no free seat for it. If the directory was wiped: remove this store \
         (`rangekv ctl store remove {me}`), then start it with --join {address} instead of the bootstrap \
         flags. To make a new cluster, empty the data directories of all members"
    )]
    Exists {
        /// Who said so.
        member: String,
        /// Where.
        address: String,
        /// Its cluster.
        cluster: u64,
        /// This member.
        me: String,
    },
    /// This process is not among the members.
    #[error("the bootstrap members don't include this node, {0:?}: add {0}=host:port, or correct its name")]
    NotAMember(String),
    /// The members make no cluster.
    #[error(transparent)]
    Plan(#[from] BootstrapError),
    /// The record can't be kept.
    #[error(transparent)]
    Record(#[from] DurableError),
    /// Our own seat can't be taken.
    #[error("{0}")]
    Seat(String),
}

/// What the founder remembers, in BOOTSTRAP.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    cluster: u64,
    members: Vec<Invited>,
    /// All ranges, in protobuf and hex.
    ranges: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Invited {
    store: u64,
    name: String,
    address: String,
    /// To whom the seat was offered; 0 = to nobody yet.
    incarnation: u64,
    seated: bool,
}

/// What asking around has shown.
enum Asked {
    /// Nobody else makes a cluster.
    Nobody,
    /// Another member does.
    Another(String),
    /// A cluster exists.
    Exists(pb::Identity),
}

/// Makes a cluster of `members`, this store among them, unless one exists. Returns when this
/// store has a seat, in its own cluster or in one that another member made at the same time.
pub async fn found(
    seat: &Arc<Seat>,
    members: &[Member],
    data_ranges: Option<usize>,
) -> Result<(), FoundError> {
    let ranges = data_ranges.unwrap_or_else(|| default_data_ranges(members.len()));
    let plan = |planned: &[Planned]| Bootstrap::plan(planned, ranges, ReplicationFactor::Auto);
    found_by(seat, members, plan).await
}

/// The same of placement nodes, which hold range 1 and no data.
pub async fn found_placement(seat: &Arc<Seat>, members: &[Member]) -> Result<(), FoundError> {
    found_by(seat, members, Bootstrap::plan_placement).await
}

async fn found_by(
    seat: &Arc<Seat>,
    members: &[Member],
    plan: impl FnOnce(&[Planned]) -> Result<Bootstrap, BootstrapError>,
) -> Result<(), FoundError> {
    let me = seat.name();
    let Some(mine) = members.iter().position(|m| m.name == me) else {
        return Err(FoundError::NotAMember(me));
    };
    seat.set_founding(Founding::Asking);
    match ask_around(seat, members, mine).await {
        Asked::Nobody => seat.set_founding(Founding::Decided),
        Asked::Another(name) => {
            seat.set_founding(Founding::No);
            tracing::info!("{name} makes the cluster; waiting for a seat in it");
            seat.taken().await;
            return Ok(());
        }
        Asked::Exists(other) => {
            seat.set_founding(Founding::No);
            let waited = tokio::time::timeout(SEAT_WAIT, seat.taken()).await;
            return waited.map(drop).map_err(|_| FoundError::Exists {
                member: other.name,
                address: other.grpc_address,
                cluster: other.cluster,
                me,
            });
        }
    }
    let planned: Vec<Planned> = members
        .iter()
        .map(|m| Planned {
            name: m.name.clone(),
            grpc_address: m.address.clone(),
        })
        .collect();
    let plan = plan(&planned)?;
    let cluster = rand::random_range(1..=u64::MAX);
    let invited = |(store, member): &(StoreId, Planned)| Invited {
        store: store.0,
        name: member.name.clone(),
        address: member.grpc_address.clone(),
        incarnation: 0,
        seated: false,
    };
    let record = Record {
        cluster,
        members: plan.stores.iter().map(invited).collect(),
        ranges: plan.ranges.iter().map(|r| hex(&r.encode())).collect(),
    };
    durable::write(&path(seat.path()), "bootstrap", FORMAT, &record)?;
    let (store, _) = plan.stores[mine];
    let offer = plan.initialise(cluster, store, seat.incarnation());
    let offer = offer.expect("the plan has a place for each member");
    seat.take(&offer).map_err(FoundError::Seat)
}

async fn ask_around(seat: &Seat, members: &[Member], mine: usize) -> Asked {
    loop {
        let others = members.iter().enumerate().filter(|(i, _)| *i != mine);
        let answers = others.map(|(i, m)| async move { (i, identify(&m.address).await) });
        let answers = futures::future::join_all(answers).await;
        let mut wait = false;
        for (i, answer) in answers {
            let Ok(other) = answer else { continue };
            if other.incarnation == seat.incarnation() {
                continue; // Two names of one address: this process itself.
            }
            match other.founding {
                _ if other.cluster != 0 => return Asked::Exists(other),
                founding if founding == Founding::Decided as u32 => {
                    return Asked::Another(other.name)
                }
                founding if founding == Founding::Asking as u32 && i < mine => {
                    return Asked::Another(other.name)
                }
                founding => wait |= founding == Founding::Asking as u32,
            }
        }
        if !wait {
            return Asked::Nobody;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Offers the other members their seats, if this store made the cluster and some are free.
/// Returns when all are taken.
pub async fn seat_members(seat: Arc<Seat>) -> Result<(), DurableError> {
    let path = path(seat.path());
    let Some(record) = durable::read::<Record>(&path, "bootstrap", FORMAT)? else {
        return Ok(());
    };
    let Some(ranges) = record.ranges.iter().map(|r| decode_range(r)).collect() else {
        let why = "its ranges can't be read".into();
        return Err(DurableError::Damaged { path, why });
    };
    let plan = Bootstrap {
        stores: record.members.iter().map(planned).collect(),
        ranges,
    };
    let founder = Arc::new(Founder {
        path,
        plan,
        record: Mutex::new(record),
    });
    let count = founder.plan.stores.len();
    let offers = (0..count).map(|i| founder.clone().seat_member(&seat, i));
    futures::future::join_all(offers).await;
    Ok(())
}

struct Founder {
    path: PathBuf,
    plan: Bootstrap,
    /// Held while it is written to disk.
    record: Mutex<Record>,
}

impl Founder {
    /// Offers member `i` its seat until it is taken.
    async fn seat_member(self: Arc<Self>, me: &Seat, i: usize) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut last_problem = String::new();
        loop {
            let member = self.record.lock().members[i].clone();
            if member.seated || me.identity().is_some_and(|mine| mine.store == member.store) {
                return;
            }
            match self.offer(i, &member).await {
                Ok(()) => tracing::info!(
                    node = member.name,
                    store = member.store,
                    "member has its seat"
                ),
                Err(problem) => {
                    if problem != last_problem {
                        tracing::warn!(
                            node = member.name,
                            address = member.address,
                            problem,
                            "member has no seat yet"
                        );
                        last_problem = problem;
                    }
                    tokio::time::sleep(backoff.step()).await;
                }
            }
        }
    }

    async fn offer(&self, i: usize, member: &Invited) -> Result<(), String> {
        let other = identify(&member.address)
            .await
            .map_err(|e| e.message().to_string())?;
        let cluster = self.record.lock().cluster;
        if other.cluster != 0 {
            if (other.cluster, other.store) != (cluster, member.store) {
                return Err(format!(
                    "it is store {} of cluster {:016x}: check the list of members",
                    other.store, other.cluster
                ));
            }
            return self.note(i, |m| m.seated = true);
        }
        let known = member.incarnation;
        if known == 0 {
            self.note(i, |m| m.incarnation = other.incarnation)?;
        }
        // To a wiped member the offer goes with the number of the directory that it was for,
        // so that it hears what has happened, and refuses.
        let incarnation = if known == 0 { other.incarnation } else { known };
        let offer = self
            .plan
            .initialise(cluster, StoreId(member.store), incarnation)
            .ok_or("the plan has no place for it")?;
        let mut client = dial(&member.address)
            .await
            .map_err(|e| e.message().to_string())?;
        let answer = client.initialise_store(offer).await;
        let answer = answer.map_err(|e| e.message().to_string())?.into_inner();
        match answer.accepted {
            true => self.note(i, |m| m.seated = true),
            false if known != 0 && known != other.incarnation => {
                Err(wiped(&member.name, StoreId(member.store)))
            }
            false => Err(answer.reason),
        }
    }

    /// Changes the record, durably.
    fn note(&self, i: usize, change: impl FnOnce(&mut Invited)) -> Result<(), String> {
        let mut record = self.record.lock();
        change(&mut record.members[i]);
        durable::write(&self.path, "bootstrap", FORMAT, &*record).map_err(|e| e.to_string())
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("BOOTSTRAP")
}

fn planned(member: &Invited) -> (StoreId, Planned) {
    let planned = Planned {
        name: member.name.clone(),
        grpc_address: member.address.clone(),
    };
    (StoreId(member.store), planned)
}

fn decode_range(text: &str) -> Option<RangeDescriptor> {
    RangeDescriptor::decode(&unhex(text)?).ok()
}
