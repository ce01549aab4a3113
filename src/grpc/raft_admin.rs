//! `RaftAdmin`: one Raft group at a time.

use super::group::group;
use super::operations::Operations;
use super::status;
use crate::admin::failure::Failure;
use crate::admin::groups::{
    self, is_here, leader_address, leader_status, not_here, not_leader, own_status,
};
use crate::admin::members::{pursue, Pursuit, Wish};
use crate::admin::stores::{registered, role_name, store_name};
use crate::admin::{ranges, CALL_TIME_MAX, LOOK};
use crate::node::running::Running;
use crate::node::service::Here;
use prost::Message;
use rangekv_proto::admin::raft_admin_server::RaftAdmin;
use rangekv_proto::admin::*;
use rangekv_proto::internal::{admin_command::Kind, AdminReply, ReplicaStatus};
use rangekv_proto::{
    RangeDescriptor, RangeId, ReplicaRole, RequestError, StoreId, PLACEMENT_RANGE,
};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::{Request, Response, Status};

/// A call waits so long for what it has begun, and then returns the token alone.
const PATIENCE: Duration = Duration::from_secs(8);
/// A membership change is looked after for so long, catching up included.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// See the module's documentation.
pub struct Groups {
    here: Here,
    operations: Operations,
}

type Answer<T> = Result<Response<T>, Status>;

/// A running store, and the group that a request is about.
struct Asked {
    node: Arc<Running>,
    range: RangeId,
}

impl Groups {
    /// Answers for the store that is here, once it runs.
    pub fn new(here: Here) -> Self {
        Groups {
            here,
            operations: Operations::default(),
        }
    }

    fn asked<T>(&self, request: &Request<T>, group_id: u64) -> Result<Asked, Status> {
        let range = group(request.metadata(), group_id)?;
        let node = self.here.running()?.clone();
        Ok(Asked { node, range })
    }

    async fn begin(
        &self,
        work: impl Future<Output = Result<u64, Failure>> + Send + 'static,
    ) -> Answer<rangekv_proto::admin::Future> {
        let (operation_token, outcome) = self.operations.begin(PATIENCE, work).await;
        let index = match outcome {
            Some(Ok(index)) => index,
            Some(Err(failure)) => {
                self.operations.forget(&operation_token);
                return Err(status(failure));
            }
            None => 0,
        };
        Ok(Response::new(rangekv_proto::admin::Future {
            operation_token,
            index,
        }))
    }

    /// A change of the members, checked before it begins.
    async fn change(
        &self,
        asked: Asked,
        (id, address): (&str, &str),
        previous_index: u64,
        wish: impl FnOnce(StoreId) -> Wish,
    ) -> Answer<rangekv_proto::admin::Future> {
        let (_, range) = asked.leader().await?;
        check_version(&range, previous_index).map_err(status)?;
        let store = asked.store(id, address).await?;
        let wish = wish(store);
        self.begin(async move {
            match pursue(&asked.node, asked.range, wish, CHANGE_TIME_MAX).await? {
                Pursuit::Met(range) => Ok(range.epoch.conf_version),
                Pursuit::UnderWay(what) => Err(Failure::Unknown(format!(
                    "not done after {CHANGE_TIME_MAX:?}: {what}"
                ))),
            }
        })
        .await
    }

    /// A transfer of the leadership, to the best suited voter if `id` and `address` are empty.
    async fn transfer(
        &self,
        asked: Asked,
        id: &str,
        address: &str,
    ) -> Answer<rangekv_proto::admin::Future> {
        let (leader, range) = asked.leader().await?;
        let target = match (id, address) {
            ("", "") => best_successor(&leader, &range).map_err(status)?,
            ("", address) => {
                let book = asked.node.book.all();
                let found = book.iter().find(|(_, entry)| entry.grpc == address);
                let found = found.map(|(store, _)| *store);
                found.ok_or_else(|| Status::not_found(format!("no store is at {address}")))?
            }
            (id, address) => asked.store(id, address).await?,
        };
        self.begin(async move { ranges::transfer_leader(&asked.node, asked.range.0, target).await })
            .await
    }
}

impl Asked {
    /// What this store's replica says of itself.
    async fn replica(&self) -> Result<(ReplicaStatus, RangeDescriptor), Status> {
        own_status(&self.node, self.range).await.map_err(status)
    }

    /// What the leader says, for a change: to be asked of a store that has a replica.
    async fn leader(&self) -> Result<(ReplicaStatus, RangeDescriptor), Status> {
        if self.range != PLACEMENT_RANGE && !is_here(&self.node, self.range) {
            return Err(status(not_here(&self.node, self.range)));
        }
        let leader = leader_status(&self.node, self.range, CALL_TIME_MAX).await;
        leader.map_err(status)
    }

    /// The members, as this store's replica knows them; those of the placement driver's group
    /// are known everywhere.
    async fn members(&self) -> Result<RangeDescriptor, Status> {
        if self.range == PLACEMENT_RANGE && !is_here(&self.node, self.range) {
            return Ok(self.leader().await?.1);
        }
        Ok(self.replica().await?.1)
    }

    /// The registered store called `id`.
    async fn store(&self, id: &str, address: &str) -> Result<StoreId, Status> {
        let record = registered(&self.node, id, address).await.map_err(status)?;
        Ok(StoreId(record.store))
    }

    fn name(&self, store: StoreId) -> String {
        store_name(&self.node, store)
    }

    fn address(&self, store: StoreId) -> String {
        self.node.book.grpc(store).unwrap_or_default()
    }

    /// Asks this store's replica for what the leader alone can do.
    async fn of_leader(&self, kind: Kind) -> Result<u64, Failure> {
        let (_, range) = own_status(&self.node, self.range).await?;
        let me = self.node.identity.store_id();
        let version = range.epoch.version;
        match groups::ask(&self.node, self.range, version, me, kind).await {
            Ok(reply) => AdminReply::decode(reply)
                .map(|reply| reply.index)
                .map_err(|e| Failure::Unavailable(e.to_string())),
            Err(RequestError::NotLeader { leader, .. }) => {
                Err(not_leader(&self.node, self.range, leader))
            }
            Err(RequestError::OutcomeUnknown(why)) => Err(Failure::Unavailable(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// `previous` is the version by which a change was decided; 0 = it does not matter.
fn check_version(range: &RangeDescriptor, previous: u64) -> Result<(), Failure> {
    match range.epoch.conf_version {
        now if previous != 0 && previous != now => Err(Failure::Stale(format!(
            "the configuration of group {} is at index {now}, not at {previous}",
            range.id
        ))),
        _ => Ok(()),
    }
}

/// The voter that has most of the leader's log, among those that it hears from.
fn best_successor(leader: &ReplicaStatus, range: &RangeDescriptor) -> Result<StoreId, Failure> {
    let votes = |store| {
        let member = range.replica_on(store);
        member.is_some_and(|r| r.role == ReplicaRole::Voter)
    };
    let others = leader.peers.iter().filter(|p| p.replica != leader.replica);
    let able = others.filter(|p| p.active && p.caught_up && votes(StoreId(p.store)));
    let best = able.max_by_key(|p| (p.matched, std::cmp::Reverse(p.store)));
    best.map(|p| StoreId(p.store)).ok_or_else(|| {
        Failure::Refused(format!(
            "group {} has no other voter that could lead now",
            range.id
        ))
    })
}

#[tonic::async_trait]
impl RaftAdmin for Groups {
    async fn state(&self, request: Request<StateRequest>) -> Answer<StateResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let state = match asked.replica().await?.0.role.as_str() {
            "Leader" => state_response::State::Leader,
            "Follower" => state_response::State::Follower,
            _ => state_response::State::Candidate,
        };
        Ok(Response::new(StateResponse {
            state: state.into(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let (replica, range) = asked.replica().await?;
        Ok(Response::new(asked.describe(&replica, &range)))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Answer<StatsResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let (replica, range) = asked.replica().await?;
        let stats = stats(&asked.describe(&replica, &range), &replica, &range);
        let stats = stats.into_iter().map(|(name, value)| (name.into(), value));
        Ok(Response::new(StatsResponse {
            stats: stats.collect(),
        }))
    }

    async fn applied_index(
        &self,
        request: Request<AppliedIndexRequest>,
    ) -> Answer<AppliedIndexResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let index = asked.replica().await?.0.applied;
        Ok(Response::new(AppliedIndexResponse { index }))
    }

    async fn last_index(&self, request: Request<LastIndexRequest>) -> Answer<LastIndexResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let index = asked.replica().await?.0.last_index;
        Ok(Response::new(LastIndexResponse { index }))
    }

    async fn last_contact(
        &self,
        request: Request<LastContactRequest>,
    ) -> Answer<LastContactResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let ago = Duration::from_millis(asked.replica().await?.0.last_contact_ms);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = since.unwrap_or_default().saturating_sub(ago);
        Ok(Response::new(LastContactResponse {
            unix_nano: at.as_nanos() as i64,
        }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Answer<LeaderResponse> {
        let range = group(request.metadata(), request.get_ref().group_id)?;
        let Some(node) = self.here.running.get() else {
            return Ok(Response::new(LeaderResponse::default()));
        };
        let address = leader_address(node, range).await.map_err(status)?;
        Ok(Response::new(LeaderResponse {
            address: address.unwrap_or_default(),
        }))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Answer<GetConfigurationResponse> {
        use get_configuration_response::{server::Suffrage, Server};
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let server = |member: &rangekv_proto::Replica| Server {
            suffrage: match member.role {
                ReplicaRole::Voter | ReplicaRole::DemotingVoter => Suffrage::Voter,
                ReplicaRole::Learner => Suffrage::Nonvoter,
                ReplicaRole::IncomingVoter => Suffrage::Staging,
            }
            .into(),
            id: asked.name(member.store),
            address: asked.address(member.store),
        };
        let members = asked.members().await?.replicas;
        Ok(Response::new(GetConfigurationResponse {
            servers: members.iter().map(server).collect(),
        }))
    }

    async fn configuration(
        &self,
        request: Request<ConfigurationRequest>,
    ) -> Answer<ConfigurationResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let member = |member: &rangekv_proto::Replica| RaftAdminMember {
            id: asked.name(member.store),
            address: asked.address(member.store),
            suffrage: role_name(member.role).into(),
        };
        let members = asked.members().await?.replicas;
        Ok(Response::new(ConfigurationResponse {
            servers: members.iter().map(member).collect(),
        }))
    }

    async fn verify_leader(
        &self,
        request: Request<VerifyLeaderRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        self.begin(async move { asked.of_leader(Kind::VerifyLeader(true)).await })
            .await
    }

    async fn barrier(
        &self,
        request: Request<BarrierRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        self.begin(async move { asked.of_leader(Kind::Barrier(true)).await })
            .await
    }

    async fn add_voter(
        &self,
        request: Request<AddVoterRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        self.change(asked, (&r.id, &r.address), r.previous_index, Wish::Voter)
            .await
    }

    async fn add_learner(
        &self,
        request: Request<AddLearnerRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        self.change(asked, (&r.id, &r.address), r.previous_index, Wish::Learner)
            .await
    }

    async fn add_nonvoter(
        &self,
        request: Request<AddNonvoterRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        self.change(asked, (&r.id, &r.address), r.previous_index, Wish::Learner)
            .await
    }

    async fn promote_learner(
        &self,
        request: Request<PromoteLearnerRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        if r.min_applied_index > 0 && !r.skip_min_applied_check {
            let (leader, _) = asked.leader().await?;
            let store = asked.store(&r.id, "").await?;
            let peer = leader.peers.iter().find(|p| p.store == store.0);
            let matched = peer.map_or(0, |p| p.matched);
            if matched < r.min_applied_index {
                return Err(Status::failed_precondition(format!(
                    "{} has index {matched}, not yet {}",
                    r.id, r.min_applied_index
                )));
            }
        }
        self.change(asked, (&r.id, ""), r.previous_index, Wish::Promoted)
            .await
    }

    async fn demote_voter(
        &self,
        request: Request<DemoteVoterRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        self.change(asked, (&r.id, ""), r.previous_index, Wish::Demoted)
            .await
    }

    async fn remove_server(
        &self,
        request: Request<RemoveServerRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        self.change(asked, (&r.id, ""), r.previous_index, Wish::Gone)
            .await
    }

    async fn leadership_transfer(
        &self,
        request: Request<LeadershipTransferRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        self.transfer(asked, "", "").await
    }

    async fn leadership_transfer_to_server(
        &self,
        request: Request<LeadershipTransferToServerRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        if r.id.is_empty() && r.address.is_empty() {
            return Err(Status::invalid_argument(
                "to whom? id and address are empty",
            ));
        }
        self.transfer(asked, &r.id, &r.address).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Answer<TransferLeadershipResponse> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        let r = request.into_inner();
        let begun = self
            .transfer(asked, &r.target_id, &r.target_address)
            .await?;
        match begun.into_inner().index {
            0 => Err(Status::deadline_exceeded("the transfer goes on")),
            _ => Ok(Response::new(TransferLeadershipResponse {})),
        }
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Answer<rangekv_proto::admin::Future> {
        let asked = self.asked(&request, request.get_ref().group_id)?;
        asked.replica().await?;
        self.begin(async move { snapshot(&asked).await }).await
    }

    async fn r#await(
        &self,
        request: Request<rangekv_proto::admin::Future>,
    ) -> Answer<AwaitResponse> {
        let token = request.into_inner().operation_token;
        let outcome = self.operations.wait(&token).await;
        let (index, error) = match outcome.ok_or_else(|| unknown_token(&token))? {
            Ok(index) => (index, String::new()),
            Err(failure) => (0, failure.to_string()),
        };
        Ok(Response::new(AwaitResponse { error, index }))
    }

    async fn forget(
        &self,
        request: Request<rangekv_proto::admin::Future>,
    ) -> Answer<ForgetResponse> {
        let token = request.into_inner().operation_token;
        match self.operations.forget(&token) {
            true => Ok(Response::new(ForgetResponse {})),
            false => Err(unknown_token(&token)),
        }
    }
}

fn unknown_token(token: &str) -> Status {
    Status::not_found(format!(
        "no operation {token:?} was begun here, or it is forgotten"
    ))
}

/// Makes the replica's state durable, and has its log collected.
async fn snapshot(asked: &Asked) -> Result<u64, Failure> {
    let engine = asked.node.engine.clone();
    let flushed = tokio::task::spawn_blocking(move || engine.flush()).await;
    flushed.map_err(|e| Failure::Unknown(format!("the flush failed: {e}")))?;
    let me = asked.node.identity.store_id();
    groups::ask(&asked.node, asked.range, 0, me, Kind::Compact(true)).await?;
    let (before, _) = own_status(&asked.node, asked.range).await?;
    let until = Instant::now() + CALL_TIME_MAX;
    loop {
        let (now, _) = own_status(&asked.node, asked.range).await?;
        // A member that is behind keeps the log from being collected: what is there is needed.
        if now.truncated > before.truncated || Instant::now() >= until {
            return Ok(now.truncated);
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Asked {
    fn describe(&self, replica: &ReplicaStatus, range: &RangeDescriptor) -> StatusResponse {
        let leader = replica.leader.map(|hint| StoreId(hint.store));
        let state = match replica.role.as_str() {
            "Leader" => RaftAdminState::Leader,
            "Follower" => RaftAdminState::Follower,
            "Candidate" | "PreCandidate" => RaftAdminState::Candidate,
            _ => RaftAdminState::Unknown,
        };
        let store_of = |id: u64| range.store_of(rangekv_proto::ReplicaId(id));
        let peer = |peer: &rangekv_proto::internal::PeerProgress| status_response::Peer {
            id: self.name(StoreId(peer.store)),
            replica_id: peer.replica,
            match_index: peer.matched,
            next_index: peer.next,
            state: peer.state.clone(),
            active: peer.active,
            caught_up: peer.caught_up,
        };
        StatusResponse {
            state: state.into(),
            leader_id: leader.map(|store| self.name(store)).unwrap_or_default(),
            leader_address: leader.map(|store| self.address(store)).unwrap_or_default(),
            term: replica.term,
            commit_index: replica.committed,
            applied_index: replica.applied,
            last_log_index: replica.last_index,
            last_snapshot_index: replica.truncated,
            fsm_pending: replica.committed - replica.applied,
            num_peers: range.replicas.len() as u64 - 1,
            last_contact_nanos: replica.last_contact_ms as i64 * 1_000_000,
            group_id: self.range.0,
            replica_id: replica.replica,
            last_log_term: replica.last_log_term,
            conf_version: range.epoch.conf_version,
            version: range.epoch.version,
            pending_conf_change: replica.pending_conf_change,
            lease_remaining_ms: replica.lease_remaining_ms,
            log_bytes: replica.log_bytes,
            size_bytes: replica.size_bytes,
            transfer_target: store_of(replica.transferee)
                .map(|store| self.name(store))
                .unwrap_or_default(),
            peers: replica.peers.iter().map(peer).collect(),
        }
    }
}

/// The status in the names that hashicorp/raft uses, and what else there is.
fn stats(
    status: &StatusResponse,
    replica: &ReplicaStatus,
    range: &RangeDescriptor,
) -> Vec<(&'static str, String)> {
    let contact = match (replica.role.as_str(), replica.leader) {
        ("Leader", _) => "0".into(),
        (_, None) => "never".into(),
        (_, Some(_)) => format!("{}ms", replica.last_contact_ms),
    };
    let voters = range
        .replicas
        .iter()
        .filter(|r| r.role != ReplicaRole::Learner);
    vec![
        ("state", replica.role.clone()),
        ("term", status.term.to_string()),
        ("commit_index", status.commit_index.to_string()),
        ("applied_index", status.applied_index.to_string()),
        ("fsm_pending", status.fsm_pending.to_string()),
        ("last_log_index", status.last_log_index.to_string()),
        ("last_log_term", status.last_log_term.to_string()),
        (
            "last_snapshot_index",
            status.last_snapshot_index.to_string(),
        ),
        ("last_snapshot_term", replica.truncated_term.to_string()),
        (
            "latest_configuration_index",
            status.conf_version.to_string(),
        ),
        ("last_contact", contact),
        ("num_peers", status.num_peers.to_string()),
        ("num_voters", voters.count().to_string()),
        ("leader_id", status.leader_id.clone()),
        ("leader_address", status.leader_address.clone()),
        ("group_id", status.group_id.to_string()),
        ("replica_id", status.replica_id.to_string()),
        ("durable_index", replica.durable_applied.to_string()),
        ("log_bytes", status.log_bytes.to_string()),
        ("size_bytes", status.size_bytes.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::internal::PeerProgress;
    use rangekv_proto::{Epoch, Replica, ReplicaId};

    fn range() -> RangeDescriptor {
        let replica = |store: u64, role| Replica {
            id: ReplicaId(10 + store),
            store: StoreId(store),
            role,
        };
        RangeDescriptor {
            id: RangeId(7),
            start: bytes::Bytes::new(),
            end: bytes::Bytes::new(),
            epoch: Epoch {
                conf_version: 3,
                version: 1,
            },
            replicas: vec![
                replica(1, ReplicaRole::Voter),
                replica(2, ReplicaRole::Voter),
                replica(3, ReplicaRole::Voter),
                replica(4, ReplicaRole::Learner),
            ],
        }
    }

    #[test]
    fn a_leader_hands_over_to_a_voter_that_keeps_up() {
        let peer = |store: u64, matched, active| PeerProgress {
            replica: 10 + store,
            store,
            matched,
            active,
            caught_up: matched > 80,
            ..PeerProgress::default()
        };
        for (peers, expected) in [
            (vec![peer(2, 90, true), peer(3, 95, true)], Some(3)),
            (vec![peer(2, 95, true), peer(3, 95, true)], Some(2)),
            (vec![peer(2, 90, true), peer(3, 95, false)], Some(2)),
            (vec![peer(2, 90, true), peer(4, 100, true)], Some(2)),
            (vec![peer(1, 100, true), peer(2, 10, true)], None),
        ] {
            let leader = ReplicaStatus {
                replica: 11,
                peers,
                ..ReplicaStatus::default()
            };
            let best = best_successor(&leader, &range());
            assert_eq!(best.ok().map(|store| store.0), expected);
        }
    }

    #[test]
    fn a_change_that_was_decided_by_another_configuration_is_refused() {
        assert_eq!(check_version(&range(), 0), Ok(()));
        assert_eq!(check_version(&range(), 3), Ok(()));
        let stale = check_version(&range(), 2);
        assert!(matches!(stale, Err(Failure::Stale(why)) if why.contains("at index 3")));
    }
}
