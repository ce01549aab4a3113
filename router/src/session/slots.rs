//! The slot map: which store owns which hash slots, as cluster clients understand ownership.
//!
//! The owner of a slot is the leader of the range that holds the slot's first key; ranges are
//! cut on slot boundaries unless somebody, or the load of a single slot, wants otherwise. The
//! map is made from the routes that this node has anyway, so asking for it costs nothing, and
//! never waits for anybody.
//!
//! A range without a live leader is shown at a live member: whoever asks that store is answered
//! as soon as the range has a leader again. `CLUSTER INFO` counts its slots as failed.
//!
//! Shapes of the replies: Redis documentation, `CLUSTER NODES`, `CLUSTER SLOTS`, `CLUSTER SHARDS`.

use crate::cache::Route;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::keys::{self, mix, SLOTS};
use rangekv_model::redis::reply::Reply;
use rangekv_proto::{Replica, ReplicaRole, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A store, as cluster clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreView {
    /// Its id.
    pub id: StoreId,
    /// Its advertised Redis address: a host name or an IP address without brackets. Empty = the
    /// one by which the client has reached this node.
    pub host: String,
    /// Its Redis port.
    pub port: u16,
    /// The port that other stores use.
    pub bus_port: u16,
    /// This node reaches it.
    pub is_up: bool,
}

/// The stores of a cluster, as one of them sees the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster's id.
    pub cluster: u64,
    /// This node's store.
    pub me: StoreId,
    /// Grows with every change of the table of ranges.
    pub epoch: u64,
    /// All stores, this one included, by id.
    pub stores: Vec<StoreView>,
}

/// Neighbouring slots with the same owner and the same replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first: u16,
    /// Inclusive.
    last: u16,
    owner: Option<StoreId>,
    /// The other members of the range, by id.
    replicas: Vec<StoreId>,
    /// Its leader is up, and so is a majority of the voters.
    is_served: bool,
}

/// See the module's documentation.
pub struct SlotMap {
    view: ClusterView,
    runs: Vec<Run>,
}

/// The 40 hexadecimal digits by which cluster clients know a store: always the same for the same
/// store of the same cluster.
pub fn node_id(cluster: u64, store: StoreId) -> String {
    let mut id = String::with_capacity(40);
    let mut state = cluster ^ mix(store.0);
    for _ in 0..3 {
        state = mix(state.wrapping_add(0x9E37_79B9_7F4A_7C15));
        id.push_str(&format!("{state:016x}"));
    }
    id.truncate(40);
    id
}

/// The first slot whose first key is not below `bound`.
fn slot_from(bound: &[u8]) -> u16 {
    let slot = keys::slot_at(bound);
    match slot < SLOTS && keys::slot_start(slot)[..] < *bound {
        true => slot + 1,
        false => slot,
    }
}

impl ClusterView {
    /// The store with this node id.
    pub fn find(&self, id: &[u8]) -> Option<&StoreView> {
        let named = |s: &&StoreView| node_id(self.cluster, s.id).as_bytes() == id;
        self.stores.iter().find(named)
    }

    /// The node id of a store.
    pub fn node_id(&self, store: StoreId) -> String {
        node_id(self.cluster, store)
    }

    /// The id of the shard that has the slots which a store owns.
    pub fn shard_id(&self, store: StoreId) -> String {
        node_id(mix(self.cluster), store)
    }

    /// `CLUSTER LINKS`: those that this node has opened and that are up. Redis also tells when they
    /// were made and what waits on them, and of those that others have opened.
    pub fn links(&self, protocol: Protocol) -> Reply {
        let others = self.stores.iter().filter(|s| s.id != self.me && s.is_up);
        let linked: Vec<_> = others.collect();
        let mut reply = Reply::new(protocol);
        reply.array(linked.len());
        for store in linked {
            reply.map(2).bulk(b"direction").bulk(b"to");
            reply.bulk(b"node").bulk(self.node_id(store.id).as_bytes());
        }
        reply
    }

    fn store(&self, id: StoreId) -> Option<&StoreView> {
        self.stores.iter().find(|store| store.id == id)
    }

    fn is_up(&self, id: StoreId) -> bool {
        self.store(id).is_some_and(|store| store.is_up)
    }
}

impl SlotMap {
    /// The map of `routes`, which are in key order.
    pub fn new(view: ClusterView, routes: &[Arc<Route>]) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for route in routes {
            let range = &route.descriptor;
            let first = slot_from(&range.start);
            let end = match range.end.is_empty() {
                true => SLOTS,
                false => slot_from(&range.end),
            };
            if first >= end {
                continue;
            }
            let run = Run::new(&view, route, first, end - 1);
            match runs.last_mut() {
                Some(last) if last.last + 1 == first && last.is_alike(&run) => last.last = run.last,
                _ => runs.push(run),
            }
        }
        SlotMap { view, runs }
    }

    /// Whether all slots have a live leader.
    pub fn is_served(&self) -> bool {
        self.count(|run| run.is_served) == u32::from(SLOTS)
    }

    /// Slots of the runs that are `wanted`.
    fn count(&self, wanted: impl Fn(&Run) -> bool) -> u32 {
        let runs = self.runs.iter().filter(|run| wanted(run));
        runs.map(|run| u32::from(run.last - run.first) + 1).sum()
    }

    /// `CLUSTER INFO`.
    pub fn info(&self) -> String {
        let served = self.count(|run| run.is_served);
        let assigned = self.count(|run| run.owner.is_some());
        let state = if self.is_served() { "ok" } else { "fail" };
        let owners: BTreeSet<_> = self.runs.iter().filter_map(|run| run.owner).collect();
        let epoch = self.view.epoch;
        let lines = [
            ("cluster_state", state.to_owned()),
            ("cluster_slots_assigned", assigned.to_string()),
            ("cluster_slots_ok", served.to_string()),
            ("cluster_slots_pfail", "0".to_owned()),
            ("cluster_slots_fail", (assigned - served).to_string()),
            ("cluster_known_nodes", self.view.stores.len().to_string()),
            ("cluster_size", owners.len().to_string()),
            ("cluster_current_epoch", epoch.to_string()),
            ("cluster_my_epoch", epoch.to_string()),
        ];
        let lines = lines.map(|(name, value)| format!("{name}:{value}\r\n"));
        lines.concat()
    }

    /// `CLUSTER NODES`; `here` is the host by which the client has reached this node.
    pub fn nodes(&self, here: &str) -> String {
        let mut text = String::new();
        for store in &self.view.stores {
            self.line(&mut text, store, None, here);
            for run in self.runs.iter().filter(|run| run.owner == Some(store.id)) {
                text.push(' ');
                text.push_str(&run.slots());
            }
            text.push('\n');
        }
        text
    }

    /// `CLUSTER REPLICAS`: a line for each store that replicates slots which `master` owns.
    pub fn replicas(&self, master: StoreId, here: &str, protocol: Protocol) -> Reply {
        let owned = self.runs.iter().filter(|run| run.owner == Some(master));
        let replicas: BTreeSet<StoreId> = owned.flat_map(|run| run.replicas.clone()).collect();
        let stores: Vec<_> = replicas
            .iter()
            .filter_map(|id| self.view.store(*id))
            .collect();
        let mut reply = Reply::new(protocol);
        reply.array(stores.len());
        for store in stores {
            let mut text = String::new();
            self.line(&mut text, store, Some(master), here);
            reply.bulk(text.as_bytes());
        }
        reply
    }

    /// A node without its slots.
    fn line(&self, text: &mut String, store: &StoreView, master: Option<StoreId>, here: &str) {
        let (port, bus) = (store.port, store.bus_port);
        let mut flags = Vec::new();
        if store.id == self.view.me {
            flags.push("myself");
        }
        flags.push(match master {
            None => "master",
            Some(_) => "slave",
        });
        if !store.is_up {
            flags.push("fail");
        }
        let link = match store.is_up {
            true => "connected",
            false => "disconnected",
        };
        let master = master.map_or("-".to_owned(), |master| self.view.node_id(master));
        text.push_str(&format!(
            "{} {}:{port}@{bus} {} {master} 0 0 {} {link}",
            self.view.node_id(store.id),
            host(store, here),
            flags.join(","),
            self.view.epoch
        ));
    }

    /// `CLUSTER SLOTS`.
    pub fn slots(&self, here: &str, protocol: Protocol) -> Reply {
        let owned: Vec<_> = self
            .runs
            .iter()
            .filter_map(|run| Some((run, self.view.store(run.owner?)?)))
            .collect();
        let mut reply = Reply::with_capacity(protocol, 64 + owned.len() * 256);
        reply.array(owned.len());
        for (run, owner) in owned {
            let replicas = run.replicas.iter().filter_map(|id| self.view.store(*id));
            let replicas: Vec<_> = replicas.filter(|store| store.is_up).collect();
            reply.array(3 + replicas.len());
            reply.int(i64::from(run.first)).int(i64::from(run.last));
            for store in std::iter::once(owner).chain(replicas) {
                reply.array(4).bulk(host(store, here).as_bytes());
                reply.int(i64::from(store.port));
                reply.bulk(self.view.node_id(store.id).as_bytes()).map(0);
            }
        }
        reply
    }

    /// `CLUSTER SHARDS`: a shard is the slots that have the same owner and the same replicas.
    pub fn shards(&self, here: &str, protocol: Protocol) -> Reply {
        type Members<'a> = (Option<StoreId>, &'a [StoreId]);
        let mut shards: BTreeMap<Members, Vec<&Run>> = BTreeMap::new();
        for run in self.runs.iter().filter(|run| run.owner.is_some()) {
            let members = (run.owner, &run.replicas[..]);
            shards.entry(members).or_default().push(run);
        }
        let seen: BTreeSet<StoreId> = shards
            .keys()
            .flat_map(|(owner, replicas)| owner.iter().chain(*replicas).copied())
            .collect();
        for store in self.view.stores.iter().filter(|s| !seen.contains(&s.id)) {
            shards.insert((Some(store.id), &[]), Vec::new());
        }
        let mut reply = Reply::with_capacity(protocol, 64 + shards.len() * 512);
        reply.array(shards.len());
        for ((owner, replicas), runs) in shards {
            reply.map(2).bulk(b"slots").array(runs.len() * 2);
            for run in runs {
                reply.int(i64::from(run.first)).int(i64::from(run.last));
            }
            let members = owner.iter().chain(replicas);
            let members: Vec<_> = members.filter_map(|id| self.view.store(*id)).collect();
            reply.bulk(b"nodes").array(members.len());
            for store in members {
                let host = host(store, here);
                let role = match Some(store.id) == owner {
                    true => "master",
                    false => "replica",
                };
                let health = match store.is_up {
                    true => "online",
                    false => "fail",
                };
                let id = self.view.node_id(store.id);
                reply.map(6).bulk(b"id").bulk(id.as_bytes());
                reply.bulk(b"port").int(i64::from(store.port));
                reply.bulk(b"ip").bulk(host.as_bytes());
                reply.bulk(b"endpoint").bulk(host.as_bytes());
                reply.bulk(b"role").bulk(role.as_bytes());
                reply.bulk(b"health").bulk(health.as_bytes());
            }
        }
        reply
    }
}

impl Run {
    fn new(view: &ClusterView, route: &Route, first: u16, last: u16) -> Self {
        let members = &route.descriptor.replicas;
        let leader = route.leader.map(|hint| hint.store);
        let leader = leader.filter(|leader| members.iter().any(|m| m.store == *leader));
        let is_up = |member: &&Replica| view.is_up(member.store);
        let voters = || members.iter().filter(|m| m.role != ReplicaRole::Learner);
        let live = leader.filter(|leader| view.is_up(*leader));
        let stand_in = || voters().find(is_up).map(|member| member.store);
        let owner = live.or_else(stand_in).or(leader);
        let others = members.iter().map(|member| member.store);
        let others: BTreeSet<_> = others.filter(|store| Some(*store) != owner).collect();
        Run {
            first,
            last,
            owner,
            replicas: others.into_iter().collect(),
            is_served: live.is_some() && voters().filter(is_up).count() * 2 > voters().count(),
        }
    }

    fn is_alike(&self, other: &Run) -> bool {
        (self.owner, &self.replicas, self.is_served)
            == (other.owner, &other.replicas, other.is_served)
    }

    fn slots(&self) -> String {
        match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        }
    }
}

fn host<'a>(store: &'a StoreView, here: &'a str) -> &'a str {
    match store.host.is_empty() {
        true => here,
        false => &store.host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rangekv_proto::{Epoch, LeaderHint, RangeDescriptor, RangeId, ReplicaId};

    fn view(down: &[u64]) -> ClusterView {
        let store = |n: u64| StoreView {
            id: StoreId(n),
            host: format!("10.0.0.{n}"),
            port: 6379,
            bus_port: 50051,
            is_up: !down.contains(&n),
        };
        ClusterView {
            cluster: 0xab,
            me: StoreId(1),
            epoch: 7,
            stores: (1..=3).map(store).collect(),
        }
    }

    fn range(id: u64, start: &[u8], end: &[u8], leader: Option<u64>) -> Arc<Route> {
        let replica = |store: u64| Replica {
            id: ReplicaId(id * 10 + store),
            store: StoreId(store),
            role: ReplicaRole::Voter,
        };
        Arc::new(Route {
            descriptor: RangeDescriptor {
                id: RangeId(id),
                start: Bytes::copy_from_slice(start),
                end: Bytes::copy_from_slice(end),
                epoch: Epoch::default(),
                replicas: (1..=3).map(replica).collect(),
            },
            leader: leader.map(|store| LeaderHint {
                store: StoreId(store),
                term: 8,
            }),
        })
    }

    /// The placement driver's range; slots up to 8191; a cut inside slot 8192; the rest.
    fn routes(leader: Option<u64>) -> Vec<Arc<Route>> {
        let half = keys::slot_start(8192);
        let inside = [&half[..], &[0, 1]].concat();
        vec![
            range(1, b"", b"\x10", Some(2)),
            range(2, b"\x10", &half, Some(1)),
            range(3, &half, &inside, Some(2)),
            range(4, &inside, b"", leader),
        ]
    }

    fn line(text: &str, name: &str) -> String {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    }

    #[test]
    fn a_slot_belongs_to_the_leader_of_its_first_key() {
        let map = SlotMap::new(view(&[]), &routes(Some(3)));
        let id = |n| node_id(0xab, StoreId(n));
        let expected = format!(
            "{} 10.0.0.1:6379@50051 myself,master - 0 0 7 connected 0-8191\n\
             {} 10.0.0.2:6379@50051 master - 0 0 7 connected 8192\n\
             {} 10.0.0.3:6379@50051 master - 0 0 7 connected 8193-16383\n",
            id(1),
            id(2),
            id(3)
        );
        assert_eq!(map.nodes("here"), expected);
        let info = map.info();
        assert_eq!(line(&info, "cluster_state:"), "ok");
        assert_eq!(line(&info, "cluster_slots_ok:"), "16384");
        assert_eq!(line(&info, "cluster_size:"), "3");
        assert_eq!(line(&info, "cluster_current_epoch:"), "7");
    }

    #[test]
    fn without_a_live_leader_slots_have_failed_and_a_live_member_stands_in() {
        for (leader, down) in [(Some(3), &[3][..]), (None, &[])] {
            let map = SlotMap::new(view(down), &routes(leader));
            let info = map.info();
            assert_eq!(line(&info, "cluster_state:"), "fail");
            assert_eq!(line(&info, "cluster_slots_assigned:"), "16384");
            assert_eq!(line(&info, "cluster_slots_ok:"), "8193");
            assert_eq!(line(&info, "cluster_slots_fail:"), "8191");
            assert!(map.nodes("").contains(" 0-8191 8193-16383\n"));
        }
        // A leader without a majority serves nothing; a range that is unknown has no owner.
        let map = SlotMap::new(view(&[2, 3]), &routes(Some(3))[..3]);
        let info = map.info();
        assert_eq!(line(&info, "cluster_slots_ok:"), "0");
        assert_eq!(line(&info, "cluster_slots_assigned:"), "8193");
        assert!(map.nodes("").contains("master,fail - 0 0 7 disconnected\n"));
    }

    #[test]
    fn slots_name_the_owner_first_and_replicas_that_are_up() {
        let slots = SlotMap::new(view(&[3]), &routes(Some(1))[..2]).slots("", Protocol::Resp2);
        let node = |n: u64| {
            let id = node_id(0xab, StoreId(n));
            format!("*4\r\n$8\r\n10.0.0.{n}\r\n:6379\r\n$40\r\n{id}\r\n*0\r\n")
        };
        let expected = format!("*1\r\n*4\r\n:0\r\n:8191\r\n{}{}", node(1), node(2));
        assert_eq!(slots.finish(), expected.as_bytes());
    }

    #[test]
    fn a_shard_has_all_slots_of_the_same_members() {
        let half = [
            range(2, b"\x10", &keys::slot_start(10), Some(1)),
            range(3, &keys::slot_start(10), &keys::slot_start(20), Some(2)),
            range(4, &keys::slot_start(20), b"", Some(1)),
        ];
        let map = SlotMap::new(view(&[]), &half);
        let shards = map.shards("", Protocol::Resp3).finish();
        let shards = String::from_utf8_lossy(&shards).into_owned();
        assert!(shards.starts_with(
            "*2\r\n%2\r\n$5\r\nslots\r\n*4\r\n:0\r\n:9\r\n:20\r\n:16383\r\n$5\r\nnodes\r\n*3\r\n%6\r\n"
        ));
        assert_eq!(shards.matches("$6\r\nmaster\r\n").count(), 2);
        assert_eq!(shards.matches("$7\r\nreplica\r\n").count(), 4);
        let replicas = map.replicas(StoreId(2), "", Protocol::Resp2).finish();
        let replicas = String::from_utf8_lossy(&replicas).into_owned();
        let master = node_id(0xab, StoreId(2));
        assert!(replicas.contains(&format!("myself,slave {master} 0 0 7 connected\r\n")));
        assert!(replicas.starts_with("*2\r\n"));
    }

    #[test]
    fn node_ids_are_stable_and_differ() {
        assert_eq!(node_id(1, StoreId(1)), node_id(1, StoreId(1)));
        let ids: BTreeSet<_> = (0..1000)
            .map(|n| node_id(n % 10, StoreId(n / 10)))
            .collect();
        assert_eq!(ids.len(), 1000);
        let digits = |id: &String| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(ids.iter().all(digits));
    }
}
