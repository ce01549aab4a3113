//! `CLUSTER`, `WAIT` and `WAITAOF`: what cluster clients and operators ask of a node.
//!
//! What is known here is answered here, from [`super::slots`]. What takes other stores is an
//! [`Errand`], which the process runs; the connection does nothing else meanwhile.
//!
//! Every node answers for every slot, so nobody is ever told `MOVED`: a client with an old map
//! pays one hop more. `READONLY` and `ASKING` change nothing, since reads are linearizable
//! everywhere and slots do not migrate between nodes.

use super::connection::{arity, unknown_subcommand};
use super::slots::SlotMap;
use super::start::Begun;
use super::walk::{integer, Walk};
use super::{Context, Session, State, ERRAND};
use crate::stores::Stores;
use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::Spec;
use rangekv_model::redis::{keys, number};
use rangekv_proto::{Response, StoreId};
use std::sync::{Arc, Weak};

/// What a connection asks its process to do. Stores are named as operators name them: by name,
/// number, or node id.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Counts the replicas besides the leader which hold what was written at `key`.
    Wait {
        /// A key of the write; `None` = the connection has written nothing.
        key: Option<Bytes>,
        /// Answers when there are so many.
        replicas: u64,
        /// `WAITAOF`: also whether the leader's own disk has it; 1 = answers only then.
        local: Option<u64>,
        /// Answers after so many milliseconds at the latest; 0 = when there are as many as wanted.
        timeout_ms: u64,
        /// Gone when nobody waits any more.
        waiter: Weak<()>,
        /// How to answer.
        protocol: Protocol,
    },
    /// About the placement driver's group.
    Metaraft(Metaraft, Protocol),
    /// Gives the store at this address a place in the cluster.
    Meet {
        /// A name or an IP address.
        host: String,
        /// Its Redis port, or the one that other stores use.
        port: u16,
        /// The one that other stores use, if it was named.
        bus_port: Option<u16>,
    },
    /// Takes a store out of the cluster.
    Forget(StoreId),
    /// Takes over the leadership of all ranges of which this store has a voter.
    Failover,
}

/// `CLUSTER METARAFT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Metaraft {
    /// Its members.
    Members,
    /// How it is.
    Status,
    /// A store becomes a learner.
    AddLearner {
        /// Which.
        store: String,
        /// Where it must be; empty = wherever.
        address: String,
    },
    /// A learner becomes a voter.
    Promote(String),
    /// A store leaves it.
    Remove(String),
}

const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNTKEYSINSLOT <slot>",
    "    Answers how many keys of the database a slot has.",
    "FAILOVER [FORCE]",
    "    Makes this node's store the leader of all ranges of which it has a voter.",
    "FORGET <node-id>",
    "    Takes a store that is down or drained out of the cluster.",
    "GETKEYSINSLOT <slot> <count>",
    "    Answers keys of a slot.",
    "INFO",
    "    Answers how the cluster is, as this node sees it.",
    "KEYSLOT <key>",
    "    Answers the hash slot of a key.",
    "LINKS",
    "    Answers the links to other nodes that are up.",
    "MEET <host> <port> [<bus-port>]",
    "    Gives a store that waits for a cluster its place in this one.",
    "METARAFT MEMBERS|STATUS",
    "    Describes the placement driver's group.",
    "METARAFT ADDLEARNER <store> [<address>]|PROMOTE <store>|REMOVE <store>",
    "    Changes the members of the placement driver's group.",
    "MYID",
    "    Answers the id of this node.",
    "MYSHARDID",
    "    Answers the id of the shard whose slots this node owns.",
    "NODES",
    "    Answers all nodes with the slots that they own.",
    "REPLICAS <node-id>",
    "    Answers the nodes that replicate slots of a node.",
    "SHARDS",
    "    Answers the slots by owner and replicas.",
    "SLOTS",
    "    Answers ranges of slots with their owners and replicas.",
    "HELP",
    "    Prints this help.",
];

/// Subcommands by which Redis's operators place slots, which nobody does here.
const MANAGED: &[&str] = &[
    "addslots",
    "addslotsrange",
    "bumpepoch",
    "delslots",
    "delslotsrange",
    "flushslots",
    "replicate",
    "reset",
    "saveconfig",
    "set-config-epoch",
    "setslot",
];

/// Subcommands that take no further argument.
const ALONE: &[&str] = &[
    "help",
    "info",
    "links",
    "myid",
    "myshardid",
    "nodes",
    "shards",
    "slots",
    "bumpepoch",
    "flushslots",
];

impl Session {
    /// Starts a command of `Route::Node`. The caller has seen to it that no walk or errand is
    /// under way.
    pub(super) fn begin_for_node(
        &mut self,
        number: u64,
        spec: &Spec,
        args: &[Bytes],
        context: Context,
        stores: &dyn Stores,
    ) -> Begun {
        let begun = match spec.name {
            "cluster" => self.begin_cluster(args, context, stores),
            // What was written before must have been answered.
            _ if !self.calls.is_idle() => return Begun::Blocked,
            _ => self.wait(args, context.protocol).map(Start::Errand),
        };
        match begun {
            Err(error) => Begun::Reply(error),
            Ok(Start::Reply(reply)) => Begun::Reply(reply),
            Ok(Start::Walk(_) | Start::Errand(_)) if !self.calls.is_idle() => Begun::Blocked,
            Ok(Start::Walk(walk)) => self.begin_walk(number, walk),
            Ok(Start::Errand(errand)) => {
                let (node, sink) = (&self.door.node, self.sink.clone());
                match node.run(errand, sink, Self::token(ERRAND, number, 0)) {
                    Some(reply) => Begun::Reply(reply),
                    None => {
                        self.walking = Some(number);
                        Begun::Errand
                    }
                }
            }
        }
    }

    /// The node has done what a command asked for.
    pub(super) fn on_errand(&mut self, token: u64, response: Response) {
        let reply = response.unwrap_or_else(|error| reply::error(&format!("ERR {error}")));
        let Some((slot, place)) = self.of_token(token) else {
            return;
        };
        let done = match &mut slot.state {
            State::Errand => Some(reply),
            State::Executed(executed) => executed.answered(place, reply),
            _ => None,
        };
        if let Some(reply) = done {
            slot.state = State::Done(reply);
        }
    }

    /// `WAIT` and `WAITAOF` in a transaction that was executed: who holds it now, as Redis does not
    /// wait there either. The reply, or `None` if it comes later.
    pub(super) fn count_replicas(
        &mut self,
        number: u64,
        place: usize,
        args: &[Bytes],
        protocol: Protocol,
    ) -> Option<Bytes> {
        let mut errand = match self.wait(args, protocol) {
            Ok(errand) => errand,
            Err(error) => return Some(error),
        };
        if let Errand::Wait {
            replicas, local, ..
        } = &mut errand
        {
            *replicas = 0;
            *local = local.map(|_| 0);
        }
        let token = Self::token(ERRAND, number, place);
        self.door.node.run(errand, self.sink.clone(), token)
    }

    fn slot_map(&mut self, stores: &dyn Stores) -> SlotMap {
        self.calls.refresh();
        let map = SlotMap::new(self.door.node.cluster(), self.calls.routes().routes());
        if !map.is_served() {
            // What is shown may be old: the next one to ask finds it newer.
            stores.want_route(&keys::slot_start(0));
        }
        map
    }

    /// The host by which the client has reached this node.
    fn here(&self) -> String {
        let address = &self.client.local_address;
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_matches(['[', ']']).to_owned()
    }

    fn begin_cluster(
        &mut self,
        args: &[Bytes],
        context: Context,
        stores: &dyn Stores,
    ) -> Result<Start, Bytes> {
        let sub = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        let wrong = || arity(&format!("cluster|{sub}"));
        let rest = &args[2..];
        if ALONE.contains(&sub.as_str()) && !rest.is_empty() {
            return Err(wrong());
        }
        if MANAGED.contains(&sub.as_str()) {
            let text = "ERR slots are managed by the placement driver";
            return Err(reply::error(text));
        }
        let protocol = context.protocol;
        let text = |text: &str| {
            let mut reply = Reply::new(protocol);
            reply.verbatim(b"txt", text.as_bytes());
            reply.finish()
        };
        Ok(Start::Reply(match (sub.as_str(), rest) {
            ("info", []) => text(&self.slot_map(stores).info()),
            ("nodes", []) => text(&self.slot_map(stores).nodes(&self.here())),
            ("slots", []) => self.slot_map(stores).slots(&self.here(), protocol).finish(),
            ("shards", []) => self
                .slot_map(stores)
                .shards(&self.here(), protocol)
                .finish(),
            ("myid", []) => {
                let view = self.door.node.cluster();
                reply::bulk(view.node_id(view.me).as_bytes())
            }
            ("myshardid", []) => {
                let view = self.door.node.cluster();
                reply::bulk(view.shard_id(view.me).as_bytes())
            }
            ("links", []) => self.door.node.cluster().links(protocol).finish(),
            ("replicas" | "slaves", [id]) => {
                let master = self.known_node(id)?;
                let map = self.slot_map(stores);
                map.replicas(master, &self.here(), protocol).finish()
            }
            ("help", []) => super::connection::help(HELP, protocol),
            ("keyslot", [key]) => reply::int(i64::from(keys::slot(key))),
            ("countkeysinslot", [slot]) => {
                let slot = slot_number(slot)?.ok_or_else(|| reply::error("ERR Invalid slot"))?;
                return Ok(Start::Walk(Walk::slot(slot, None, context.db, protocol)));
            }
            ("getkeysinslot", [slot, count]) => {
                let (slot, count) = (slot_number(slot)?, usize::try_from(integer(count)?));
                let (Some(slot), Ok(count)) = (slot, count) else {
                    return Err(reply::error("ERR Invalid slot or number of keys"));
                };
                let walk = Walk::slot(slot, Some(count), context.db, protocol);
                return Ok(Start::Walk(walk));
            }
            ("meet", [host, port]) => return meet(host, port, None),
            ("meet", [host, port, bus]) => return meet(host, port, Some(bus)),
            ("forget", [id]) => {
                let store = self.known_node(id)?;
                if store == self.door.node.cluster().me {
                    let text = "ERR I tried hard but I can't forget myself...";
                    return Err(reply::error(text));
                }
                return Ok(Start::Errand(Errand::Forget(store)));
            }
            ("failover", []) => return Ok(Start::Errand(Errand::Failover)),
            // The old leader need not be there for an election.
            ("failover", [how]) if how.eq_ignore_ascii_case(b"force") => {
                return Ok(Start::Errand(Errand::Failover));
            }
            ("failover", [how]) if how.eq_ignore_ascii_case(b"takeover") => {
                let text = "ERR TAKEOVER would lead without a majority, which no store does";
                return Err(reply::error(text));
            }
            ("failover", _) => return Err(reply::error("ERR syntax error")),
            ("metaraft", [sub, rest @ ..]) => {
                let metaraft = metaraft(sub, rest)?;
                return Ok(Start::Errand(Errand::Metaraft(metaraft, protocol)));
            }
            (
                "replicas" | "slaves" | "keyslot" | "countkeysinslot" | "getkeysinslot" | "meet"
                | "forget" | "metaraft",
                _,
            ) => return Err(wrong()),
            _ => return Err(unknown_subcommand("CLUSTER", &args[1])),
        }))
    }

    fn known_node(&self, id: &[u8]) -> Result<StoreId, Bytes> {
        let view = self.door.node.cluster();
        let unknown = || {
            let id = String::from_utf8_lossy(&id[..id.len().min(128)]);
            reply::error(&format!("ERR Unknown node {id}"))
        };
        view.find(id).map(|store| store.id).ok_or_else(unknown)
    }

    /// `WAIT numreplicas timeout`, `WAITAOF numlocal numreplicas timeout`.
    fn wait(&mut self, args: &[Bytes], protocol: Protocol) -> Result<Errand, Bytes> {
        let (local, counts) = match args {
            [_, local, rest @ ..] if rest.len() == 2 => match integer(local)? {
                local @ 0..=1 => (Some(local as u64), rest),
                _ => {
                    let text = "ERR value is out of range, value must between 0 and 1";
                    return Err(reply::error(text));
                }
            },
            args => (None, &args[1..]),
        };
        let replicas = match (integer(&counts[0])?, local) {
            (count @ 0.., _) => count as u64,
            // More is never asked for: the same as none.
            (_, None) => 0,
            (_, Some(_)) => {
                let text = "ERR value is out of range, must be positive";
                return Err(reply::error(text));
            }
        };
        let timeout_ms = match number::parse_int(&counts[1]) {
            Some(timeout @ 0..) => timeout as u64,
            Some(_) => return Err(reply::error("ERR timeout is negative")),
            None => {
                let text = "ERR timeout is not an integer or out of range";
                return Err(reply::error(text));
            }
        };
        Ok(Errand::Wait {
            key: self.last_write.clone(),
            replicas,
            local,
            timeout_ms,
            waiter: Arc::downgrade(self.waiter.get_or_insert_default()),
            protocol,
        })
    }
}

/// How a command of `Route::Node` is answered.
enum Start {
    Reply(Bytes),
    Walk(Walk),
    Errand(Errand),
}

/// A slot; `None` if there is none of this number.
fn slot_number(arg: &[u8]) -> Result<Option<u16>, Bytes> {
    let slot = u16::try_from(integer(arg)?).ok();
    Ok(slot.filter(|slot| *slot < keys::SLOTS))
}

fn meet(host: &[u8], port: &[u8], bus: Option<&Bytes>) -> Result<Start, Bytes> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
    let number = |arg: &[u8], what: &str| match number::parse_int(arg) {
        Some(port) => Ok(u16::try_from(port).ok().filter(|port| *port > 0)),
        None => Err(reply::error(&format!(
            "ERR Invalid {what} specified: {}",
            text(arg)
        ))),
    };
    let bus_port = match bus {
        Some(bus) => Some(number(bus, "bus port")?),
        None => None,
    };
    let invalid = || {
        let (host, port) = (text(host), text(port));
        reply::error(&format!(
            "ERR Invalid node address specified: {host}:{port}"
        ))
    };
    let port = number(port, "base port")?.ok_or_else(invalid)?;
    let bus_port = match bus_port {
        Some(None) => return Err(invalid()),
        Some(port) => port,
        None => None,
    };
    let host = std::str::from_utf8(host).map_err(|_| invalid())?;
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid());
    }
    Ok(Start::Errand(Errand::Meet {
        host: host.to_owned(),
        port,
        bus_port,
    }))
}

fn metaraft(sub: &Bytes, rest: &[Bytes]) -> Result<Metaraft, Bytes> {
    let name = String::from_utf8_lossy(sub).to_ascii_lowercase();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(match (name.as_str(), rest) {
        ("members", []) => Metaraft::Members,
        ("status", []) => Metaraft::Status,
        ("addlearner", [store]) => Metaraft::AddLearner {
            store: text(store),
            address: String::new(),
        },
        ("addlearner", [store, address]) => Metaraft::AddLearner {
            store: text(store),
            address: text(address),
        },
        ("promote", [store]) => Metaraft::Promote(text(store)),
        ("remove", [store]) => Metaraft::Remove(text(store)),
        ("members" | "status" | "addlearner" | "promote" | "remove", _) => {
            return Err(arity(&format!("cluster|metaraft|{name}")));
        }
        _ => return Err(unknown_subcommand("CLUSTER METARAFT", sub)),
    })
}
