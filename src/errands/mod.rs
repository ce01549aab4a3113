//! What Redis clients ask of a node that takes other stores: `CLUSTER METARAFT`, `MEET`, `FORGET`,
//! `FAILOVER`, and `WAIT`. The door's connection waits; each errand ends within its time.

mod meet;
mod metaraft;
mod wait;

use crate::admin::failure::Failure;
use crate::admin::ranges::transfer_leader;
use crate::ctl::server::ask;
use crate::ctl::wire::{CtlCommand, StoreInfo};
use crate::node::running::Running;
use bytes::Bytes;
use rangekv_model::redis::reply;
use rangekv_proto::{ReplicaRole, ReplySink, StoreId, PLACEMENT_RANGE};
use rangekv_router::session::Errand;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// As long as any command may take.
const TIME_MAX: Duration = Duration::from_secs(5);

/// The one response to a token; given when dropped at the latest.
pub struct Answer(Option<(Arc<dyn ReplySink>, u64)>);

impl Answer {
    /// To `sink`, as the response to `token`.
    pub fn new(sink: Arc<dyn ReplySink>, token: u64) -> Self {
        Answer(Some((sink, token)))
    }

    /// Gives it.
    pub fn give(mut self, reply: Bytes) {
        self.complete(reply);
    }

    fn complete(&mut self, reply: Bytes) {
        if let Some((sink, token)) = self.0.take() {
            sink.complete(token, Ok(reply));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.complete(error(&Failure::Unknown("the node stops".into())));
    }
}

/// Runs an errand; its reply.
pub async fn run(node: Arc<Running>, errand: Errand) -> Bytes {
    let done = match errand {
        Errand::Wait {
            key,
            replicas,
            local,
            timeout_ms,
            waiter,
            protocol,
        } => {
            let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
            let wanted = wait::Wanted { replicas, local };
            let held = wait::wait(&node, key, wanted, timeout, &waiter).await;
            return held.reply(local.is_some(), protocol);
        }
        Errand::Metaraft(what, protocol) => within(metaraft::run(&node, what, protocol)).await,
        Errand::Meet {
            host,
            port,
            bus_port,
        } => within(meet::meet(&node, &host, port, bus_port)).await,
        Errand::Forget(store) => within(forget(&node, store)).await,
        Errand::Failover => within(take_over(&node)).await,
    };
    done.unwrap_or_else(|failure| error(&failure))
}

async fn within(errand: impl Future<Output = Result<Bytes, Failure>>) -> Result<Bytes, Failure> {
    let late = |_| Failure::Unknown(format!("it is not done after {TIME_MAX:?}"));
    tokio::time::timeout(TIME_MAX, errand).await.map_err(late)?
}

/// What a Redis client is told.
fn error(failure: &Failure) -> Bytes {
    reply::error(&match failure {
        Failure::Unavailable(why) => format!("CLUSTERDOWN The cluster is down: {why}"),
        Failure::Unknown(why) => format!("UNKNOWN outcome unknown: {why}"),
        failure => format!("ERR {failure}"),
    })
}

/// Takes `store` out of the cluster, if that hurts nobody.
async fn forget(node: &Running, store: StoreId) -> Result<Bytes, Failure> {
    let store = store.to_string();
    ask::<StoreInfo>(node, &CtlCommand::StoreRemove { store }).await?;
    Ok(reply::ok())
}

/// Makes this store the leader of all data ranges of which it has a voter.
async fn take_over(node: &Arc<Running>) -> Result<Bytes, Failure> {
    let me = node.identity.store_id();
    let mut transfers = JoinSet::new();
    for (range, leader) in node.shared.routes() {
        let votes = range.replica_on(me).map(|r| r.role) == Some(ReplicaRole::Voter);
        let leads = leader.is_some_and(|hint| hint.store == me);
        if votes && !leads && range.id != PLACEMENT_RANGE {
            let node = node.clone();
            transfers.spawn(async move { transfer_leader(&node, range.id.0, me).await });
        }
    }
    if transfers.is_empty() {
        let why = "this store leads all ranges of which it has a voter; send CLUSTER FAILOVER to \
                   another one";
        return Err(Failure::Refused(why.into()));
    }
    let (mut done, mut failed) = (0, None);
    while let Some(transfer) = transfers.join_next().await {
        match transfer {
            Ok(Ok(_)) => done += 1,
            Ok(Err(failure)) => failed = Some(failure.to_string()),
            Err(panicked) => failed = Some(panicked.to_string()),
        }
    }
    match failed {
        None => Ok(reply::ok()),
        Some(why) => Err(Failure::Refused(format!(
            "{done} ranges were taken over, not all: {why}"
        ))),
    }
}
