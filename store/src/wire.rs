//! Raft messages between stores: the envelope that names range, replicas and epoch, and its codec.
//!
//! Envelopes of one worker round for one store travel as one block of bytes, in one frame.

use crate::codec::{get_bytes, get_varint, put_bytes, put_varint, Corrupt};
use crate::replica::quiesce::QuietAt;
use bytes::{Buf, Bytes};
use protobuf::Message as _;
use raft::eraftpb::Message;
use rangekv_proto::{Epoch, RangeId, ReplicaId};

/// In the place of a receiving replica, which a keepalive has none of: its sender is about to stop.
/// Versions that don't know this don't look there.
const LEAVING: ReplicaId = ReplicaId(1);

/// What one replica says to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The group.
    pub range: RangeId,
    /// The sending replica.
    pub from: ReplicaId,
    /// The receiving replica.
    pub to: ReplicaId,
    /// The sender's epoch (zero while it is uninitialised).
    pub epoch: Epoch,
    /// The sender's bounds, when the receiver may not exist yet and this may create it.
    pub bounds: Option<(Bytes, Bytes)>,
    /// What is said.
    pub payload: Payload,
}

/// The contents of an [`Envelope`].
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A raft message. A MsgSnapshot travels here without its records.
    Raft(Message),
    /// "The configuration that I applied, at `epoch`, does not contain you: destroy yourself."
    Gone,
    /// "I have heard no leader for long: am I still a member?" Answered by `Gone`, or by nothing.
    AmIMember,
    /// From the leader of a range that absorbs another: "is your replica of that one frozen for
    /// the merge that I began at this index?" Answered by `Frozen`, or by nothing.
    AskFrozen {
        /// The range to be absorbed.
        source: RangeId,
        /// Names the merge.
        begun: u64,
    },
    /// "Here the range that you absorb has durably applied that it is frozen for this merge."
    Frozen {
        /// Names the merge.
        begun: u64,
        /// Where the range's log says so.
        index: u64,
    },
    /// "The range that you speak for is no more."
    Merged {
        /// What absorbed it.
        target: RangeId,
        /// Whether you were a member until then. If so, your replica of `target` absorbs it.
        member: bool,
    },
    /// "Nothing is going on: this leader sends no more heartbeats. Do not miss them."
    Quiesce(QuietAt),
    /// "Something is going on: lead us again." To a leader that may be quiesced.
    Wake,
    /// From store to store, of no range: "I am here."
    Keepalive {
        /// The process's.
        boot_id: u64,
        /// It is about to stop, and wants to lead nothing.
        leaving: bool,
    },
}

impl Envelope {
    /// A sign of life of a store.
    pub fn keepalive(boot_id: u64, leaving: bool) -> Self {
        Envelope {
            range: RangeId(0),
            from: ReplicaId(0),
            to: ReplicaId(0),
            epoch: Epoch::default(),
            bounds: None,
            payload: Payload::Keepalive { boot_id, leaving },
        }
    }
}

/// Envelopes as bytes.
pub fn encode<'a>(envelopes: impl IntoIterator<Item = &'a Envelope>) -> Bytes {
    let mut out = Vec::with_capacity(256);
    for e in envelopes {
        encode_one(&mut out, e);
    }
    out.into()
}

/// Appends one envelope.
pub fn encode_one(out: &mut Vec<u8>, e: &Envelope) {
    put_varint(out, e.range.0);
    put_varint(out, e.from.0);
    let to = match e.payload {
        Payload::Keepalive { leaving: true, .. } => LEAVING,
        _ => e.to,
    };
    put_varint(out, to.0);
    put_varint(out, e.epoch.conf_version);
    put_varint(out, e.epoch.version);
    let kind = match e.payload {
        Payload::Raft(_) => 0,
        Payload::Gone => 1,
        Payload::AmIMember => 2,
        Payload::AskFrozen { .. } => 3,
        Payload::Frozen { .. } => 4,
        Payload::Merged { .. } => 5,
        Payload::Quiesce(_) => 6,
        Payload::Wake => 7,
        Payload::Keepalive { .. } => 8,
    };
    out.push(kind | if e.bounds.is_some() { 0x80 } else { 0 });
    if let Some((start, end)) = &e.bounds {
        put_bytes(out, start);
        put_bytes(out, end);
    }
    match &e.payload {
        Payload::Raft(message) => {
            // The sizes that this keeps are those that the next step writes.
            put_varint(out, u64::from(message.compute_size()));
            let mut stream = protobuf::CodedOutputStream::vec(out);
            let written = message.write_to_with_cached_sizes(&mut stream);
            let written = written.and_then(|()| stream.flush());
            written.expect("a message always fits in memory");
        }
        Payload::AskFrozen { source, begun } => {
            put_varint(out, source.0);
            put_varint(out, *begun);
        }
        Payload::Frozen { begun, index } => {
            put_varint(out, *begun);
            put_varint(out, *index);
        }
        Payload::Merged { target, member } => {
            put_varint(out, target.0);
            put_varint(out, u64::from(*member));
        }
        Payload::Quiesce(at) => {
            put_varint(out, at.term);
            put_varint(out, at.index);
            put_varint(out, at.log_term);
        }
        Payload::Keepalive { boot_id, .. } => put_varint(out, *boot_id),
        Payload::Gone | Payload::AmIMember | Payload::Wake => {}
    }
}

/// The reverse of [`encode`].
pub fn decode(mut bytes: Bytes) -> Result<Vec<Envelope>, Corrupt> {
    let mut envelopes = Vec::new();
    while bytes.has_remaining() {
        let range = RangeId(get_varint(&mut bytes)?);
        let from = ReplicaId(get_varint(&mut bytes)?);
        let to = ReplicaId(get_varint(&mut bytes)?);
        let conf_version = get_varint(&mut bytes)?;
        let version = get_varint(&mut bytes)?;
        if !bytes.has_remaining() {
            return Err(Corrupt("envelope: ends early"));
        }
        let kind = bytes.get_u8();
        let bounds = match kind & 0x80 {
            0 => None,
            _ => Some((get_bytes(&mut bytes)?, get_bytes(&mut bytes)?)),
        };
        let payload = match kind & 0x7f {
            0 => {
                let raw = get_bytes(&mut bytes)?;
                let mut message = Message::default();
                let mut stream = protobuf::CodedInputStream::from_carllerche_bytes(&raw);
                message
                    .merge_from(&mut stream)
                    .map_err(|_| Corrupt("raft message"))?;
                Payload::Raft(message)
            }
            1 => Payload::Gone,
            2 => Payload::AmIMember,
            3 => Payload::AskFrozen {
                source: RangeId(get_varint(&mut bytes)?),
                begun: get_varint(&mut bytes)?,
            },
            4 => Payload::Frozen {
                begun: get_varint(&mut bytes)?,
                index: get_varint(&mut bytes)?,
            },
            5 => Payload::Merged {
                target: RangeId(get_varint(&mut bytes)?),
                member: get_varint(&mut bytes)? == 1,
            },
            6 => Payload::Quiesce(QuietAt {
                term: get_varint(&mut bytes)?,
                index: get_varint(&mut bytes)?,
                log_term: get_varint(&mut bytes)?,
            }),
            7 => Payload::Wake,
            8 => Payload::Keepalive {
                boot_id: get_varint(&mut bytes)?,
                leaving: to == LEAVING,
            },
            _ => return Err(Corrupt("envelope: unknown kind")),
        };
        envelopes.push(Envelope {
            range,
            from,
            to: match payload {
                Payload::Keepalive { .. } => ReplicaId(0),
                _ => to,
            },
            epoch: Epoch {
                conf_version,
                version,
            },
            bounds,
            payload,
        });
    }
    Ok(envelopes)
}
