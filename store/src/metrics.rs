//! What a store counts and measures of itself.
//!
//! The core has no clock: durations come from a stopwatch that the driver may lend to the worker
//! ([`Worker::measure_with`](crate::worker::Worker::measure_with)), asked a few times per round,
//! never per command. Without one, as in the simulation, nothing is measured.
//!
//! [`Metrics::families`] lists everything with its name, unit and help text, so that whoever
//! exports it needs to know nothing else. The number of series is fixed: labels are closed
//! enums, and no figure is per range.

mod instruments;

pub use instruments::{
    Counter, Counters, Distribution, Gauge, Histogram, Label, COUNTS, DURATIONS_NS,
};

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$value,)*];
            fn index(self) -> usize { self as usize }
            fn text(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }
        }
    };
}

label! {
    /// How a read was answered. Reads that the connection's own thread answers are counted per
    /// range, see [`StoreShared::local_reads`](crate::shared::StoreShared::local_reads).
    ReadPath {
        /// By the worker, under the leader's lease.
        Worker = "worker",
        /// After a ReadIndex round.
        ReadIndex = "read_index",
    }
}

label! {
    /// What a replica became in its group.
    Role {
        /// Follower.
        Follower = "follower",
        /// Asks whether it could be elected.
        PreCandidate = "pre_candidate",
        /// Asks for votes.
        Candidate = "candidate",
        /// Leader.
        Leader = "leader",
    }
}

label! {
    /// Why a request was not carried out.
    Refusal {
        /// This store has no replica of the range.
        RangeNotFound = "range_not_found",
        /// The replica doesn't lead, or not in the term by which the request was routed.
        NotLeader = "not_leader",
        /// The request was made for other bounds of the range.
        Epoch = "epoch",
        /// Too many requests wait behind a split, a merge, a transfer, or a leader's first entry.
        Blocked = "blocked",
        /// Too much is in flight in the range.
        Overlay = "overlay",
        /// The worker's mailbox is full.
        Mailbox = "mailbox",
        /// The disk is almost full.
        DiskFull = "disk_full",
        /// Raft did not take the proposal.
        Raft = "raft",
        /// Leadership was lost; nothing of the request can still happen.
        LeadershipLost = "leadership_lost",
        /// Leadership was lost while the write was being replicated: it may still happen.
        OutcomeUnknown = "outcome_unknown",
        /// The request makes no sense, whoever gets it.
        Invalid = "invalid",
    }
}

label! {
    /// Why a raft message was dropped.
    MessageDrop {
        /// Doesn't decode, or the envelope contradicts the message, or of a kind that stores don't send.
        Malformed = "malformed",
        /// For a replica that was removed from this store, or one before it.
        Stale = "stale",
        /// For a replica that does not exist, and can't be made (yet).
        NoReplica = "no_replica",
        /// A vote request soon after this store's start, or while it counts on a leader.
        VotePromised = "vote_promised",
        /// Raft refused it.
        Raft = "raft",
        /// The address of the receiving store is unknown, its stream is down, or its queue full.
        Unsendable = "unsendable",
    }
}

label! {
    /// What became of a snapshot.
    SnapshotEvent {
        /// Delivered, and accepted.
        Sent = "sent",
        /// Not delivered, or not accepted.
        SendFailed = "send_failed",
        /// Arrived whole and verified.
        Received = "received",
        /// Made visible.
        Installed = "installed",
    }
}

label! {
    /// Why a quiesced replica woke.
    Wake {
        /// A request that needs raft.
        Request = "request",
        /// A message from its leader, or to its leader.
        Message = "message",
        /// A vote was asked for.
        Vote = "vote",
        /// Another replica asked its leader to wake.
        Asked = "asked",
        /// The leader's store fell silent, or a leader heard no quorum any more.
        StoreSilent = "store_silent",
        /// A store of the group is heard again, or its process is another one.
        StoreBack = "store_back",
        /// Leaderships move away from this store, ranges merge, or somebody handles the replica by hand.
        Operator = "operator",
    }
}

label! {
    /// The way of snapshot bytes.
    Direction {
        /// To other stores.
        Sent = "sent",
        /// From other stores.
        Received = "received",
    }
}

/// Where a write spends its time. Each stage is observed once per round or entry, not per
/// command: all commands that share it took part.
#[derive(Debug)]
pub struct WriteStages {
    /// From the arrival of a round's oldest request to the round's beginning.
    pub queue: Histogram,
    /// Stepping the round's messages and evaluating its requests.
    pub evaluate: Histogram,
    /// From staging a round's entries to their being durable here.
    pub log: Histogram,
    /// From an entry's being durable on its leader to its commit, per entry.
    pub commit: Histogram,
    /// From taking committed entries to their being visible.
    pub apply: Histogram,
}

/// Figures of one store.
#[derive(Debug)]
pub struct Metrics {
    /// Stages of writes.
    pub write: WriteStages,
    /// Syncs of the raft log, which rounds wait for.
    pub fsync: Histogram,
    /// Events that a round began with.
    pub round_events: Histogram,
    /// Groups that took part in a round.
    pub round_groups: Histogram,
    /// Entries proposed.
    pub proposals: Counter,
    /// Commands evaluated.
    pub commands: Counter,
    /// Entries applied, on leaders and followers.
    pub entries_applied: Counter,
    /// Syncs of the raft log.
    pub syncs: Counter,
    /// Those of them that no round waited for.
    pub syncs_beside: Counter,
    /// Entries written to the raft log.
    pub log_entries: Counter,
    /// Bytes written to the raft log.
    pub log_bytes: Counter,
    /// Reads that reached the worker.
    pub reads: Counters<ReadPath>,
    /// Roles that replicas took.
    pub roles: Counters<Role>,
    /// Elections that replicas of this store began, pre-votes included.
    pub elections_started: Counter,
    /// Terms in which a replica of this store began to serve as leader.
    pub leaders_elected: Counter,
    /// Ranges that absorbed their right neighbour here, on leaders and followers.
    pub merges: Counter,
    /// Requests refused.
    pub refused: Counters<Refusal>,
    /// Messages dropped.
    pub messages_dropped: Counters<MessageDrop>,
    /// Snapshots.
    pub snapshots: Counters<SnapshotEvent>,
    /// Bytes of snapshots.
    pub snapshot_bytes: Counters<Direction>,
    /// Leaders that quiesced their groups.
    pub quiesced_groups: Counter,
    /// Replicas that woke.
    pub woken: Counters<Wake>,
    /// Replicas that are quiesced.
    pub quiesced: Gauge,
    /// Replicas.
    pub replicas: Gauge,
    /// Replicas that lead.
    pub leaders: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = || Histogram::new(DURATIONS_NS);
        Metrics {
            write: WriteStages {
                queue: durations(),
                evaluate: durations(),
                log: durations(),
                commit: durations(),
                apply: durations(),
            },
            fsync: durations(),
            round_events: Histogram::new(COUNTS),
            round_groups: Histogram::new(COUNTS),
            proposals: Counter::default(),
            commands: Counter::default(),
            entries_applied: Counter::default(),
            syncs: Counter::default(),
            syncs_beside: Counter::default(),
            log_entries: Counter::default(),
            log_bytes: Counter::default(),
            reads: Counters::default(),
            roles: Counters::default(),
            elections_started: Counter::default(),
            leaders_elected: Counter::default(),
            merges: Counter::default(),
            refused: Counters::default(),
            messages_dropped: Counters::default(),
            snapshots: Counters::default(),
            snapshot_bytes: Counters::default(),
            quiesced_groups: Counter::default(),
            woken: Counters::default(),
            quiesced: Gauge::default(),
            replicas: Gauge::default(),
            leaders: Gauge::default(),
        }
    }
}

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, while the process lives. The name ends in `_total`.
    Counter,
    /// As it is now.
    Gauge,
    /// [`Value::Histogram`]s.
    Histogram,
}

/// What the numbers of a family count. A name says so, in the base unit: `_seconds`, `_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// The numbers are nanoseconds, and the name says seconds: the exporter divides by 10⁹.
    Nanoseconds,
}

/// Series of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, as Prometheus wants it.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// What the numbers are.
    pub kind: Kind,
    /// What they count.
    pub unit: Unit,
    /// At least one; with a label's name and value if there can be more.
    pub samples: Vec<Sample>,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// A label's name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// Now.
    pub value: Value,
}

/// What a series shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(u64),
    /// Of a histogram.
    Histogram(Distribution),
}

impl Family {
    /// One number.
    pub fn number(
        kind: Kind,
        unit: Unit,
        name: &'static str,
        help: &'static str,
        number: u64,
    ) -> Self {
        let value = Value::Number(number);
        Family {
            name,
            help,
            kind,
            unit,
            samples: vec![Sample { label: None, value }],
        }
    }

    /// A number of things that only grows.
    pub fn counter(name: &'static str, help: &'static str, number: u64) -> Self {
        Family::number(Kind::Counter, Unit::Count, name, help, number)
    }

    /// A number of things, as it is now.
    pub fn gauge(name: &'static str, help: &'static str, number: u64) -> Self {
        Family::number(Kind::Gauge, Unit::Count, name, help, number)
    }

    fn labelled<L: Label>(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counters: &Counters<L>,
    ) -> Self {
        let sample = |value: &L| Sample {
            label: Some((label, value.text())),
            value: Value::Number(counters.of(*value).get()),
        };
        Family {
            name,
            help,
            kind: Kind::Counter,
            unit: Unit::Count,
            samples: L::ALL.iter().map(sample).collect(),
        }
    }

    fn histogram(
        name: &'static str,
        help: &'static str,
        unit: Unit,
        histogram: &Histogram,
    ) -> Self {
        let value = Value::Histogram(histogram.read());
        Family {
            name,
            help,
            kind: Kind::Histogram,
            unit,
            samples: vec![Sample { label: None, value }],
        }
    }
}

impl Metrics {
    /// Everything, as it is now, under names that don't change.
    pub fn families(&self) -> Vec<Family> {
        let w = &self.write;
        let stages = [
            ("queue", &w.queue),
            ("evaluate", &w.evaluate),
            ("log", &w.log),
            ("commit", &w.commit),
            ("apply", &w.apply),
        ];
        let stage = |(name, histogram): (&'static str, &Histogram)| Sample {
            label: Some(("stage", name)),
            value: Value::Histogram(histogram.read()),
        };
        vec![
            Family {
                name: "rangekv_write_stage_seconds",
                help: "Time per stage of a write, per round (commit: per entry). queue: a round's oldest request waits; \
                       evaluate: on the leader; log: from staged to durable here; commit: from durable here to durable \
                       on a majority; apply: from committed to visible.",
                kind: Kind::Histogram,
                unit: Unit::Nanoseconds,
                samples: stages.into_iter().map(stage).collect(),
            },
            Family::histogram(
                "rangekv_log_sync_seconds",
                "Time of one sync of the raft log.",
                Unit::Nanoseconds,
                &self.fsync,
            ),
            Family::histogram(
                "rangekv_round_events",
                "Requests and frames that a worker's round began with.",
                Unit::Count,
                &self.round_events,
            ),
            Family::histogram(
                "rangekv_round_groups",
                "Raft groups that took part in a worker's round.",
                Unit::Count,
                &self.round_groups,
            ),
            Family::counter(
                "rangekv_proposals_total",
                "Raft entries proposed.",
                self.proposals.get(),
            ),
            Family::counter(
                "rangekv_commands_total",
                "Commands evaluated by the worker.",
                self.commands.get(),
            ),
            Family::counter(
                "rangekv_entries_applied_total",
                "Raft entries applied, as leader and as follower.",
                self.entries_applied.get(),
            ),
            Family::counter(
                "rangekv_log_syncs_total",
                "Syncs of the raft log.",
                self.syncs.get(),
            ),
            Family::counter(
                "rangekv_log_syncs_beside_total",
                "Syncs of the raft log that went on beside the worker's rounds, because the disk is slow.",
                self.syncs_beside.get(),
            ),
            Family::counter(
                "rangekv_log_entries_total",
                "Entries written to the raft log.",
                self.log_entries.get(),
            ),
            Family::number(
                Kind::Counter,
                Unit::Bytes,
                "rangekv_log_bytes_total",
                "Bytes written to the raft log.",
                self.log_bytes.get(),
            ),
            Family::labelled(
                "rangekv_worker_reads_total",
                "Reads that the worker answered, by how.",
                "path",
                &self.reads,
            ),
            Family::labelled(
                "rangekv_raft_role_changes_total",
                "Roles that replicas took in their groups.",
                "role",
                &self.roles,
            ),
            Family::counter(
                "rangekv_elections_started_total",
                "Elections that replicas of this store began, pre-votes included.",
                self.elections_started.get(),
            ),
            Family::counter(
                "rangekv_leaders_elected_total",
                "Terms in which a replica of this store began to serve as leader.",
                self.leaders_elected.get(),
            ),
            Family::counter(
                "rangekv_merges_total",
                "Ranges that absorbed their right neighbour on this store, as leaders and as followers.",
                self.merges.get(),
            ),
            Family::labelled(
                "rangekv_requests_refused_total",
                "Requests that were not carried out, by reason.",
                "reason",
                &self.refused,
            ),
            Family::labelled(
                "rangekv_messages_dropped_total",
                "Raft messages dropped, by reason.",
                "reason",
                &self.messages_dropped,
            ),
            Family::labelled(
                "rangekv_snapshots_total",
                "Range snapshots, by what became of them.",
                "event",
                &self.snapshots,
            ),
            Family {
                unit: Unit::Bytes,
                ..Family::labelled(
                    "rangekv_snapshot_bytes_total",
                    "Bytes of range snapshots, by direction.",
                    "direction",
                    &self.snapshot_bytes,
                )
            },
            Family::counter(
                "rangekv_quiesced_groups_total",
                "Groups without work that their leader here quiesced.",
                self.quiesced_groups.get(),
            ),
            Family::labelled(
                "rangekv_replicas_woken_total",
                "Quiesced replicas that woke, by reason.",
                "reason",
                &self.woken,
            ),
            Family::gauge(
                "rangekv_replicas_quiesced",
                "Replicas on this store that are quiesced: no heartbeats, no ticks.",
                self.quiesced.get(),
            ),
            Family::gauge(
                "rangekv_replicas",
                "Replicas on this store.",
                self.replicas.get(),
            ),
            Family::gauge(
                "rangekv_leaders",
                "Replicas on this store that lead.",
                self.leaders.get(),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_kind_and_unit() {
        let metrics = Metrics::default();
        let mut seen = BTreeSet::new();
        for family in metrics.families() {
            let name = family.name;
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.contains("_seconds"),
                family.unit == Unit::Nanoseconds,
                "{name}"
            );
            assert_eq!(
                name.contains("_bytes"),
                family.unit == Unit::Bytes,
                "{name}"
            );
            assert!(
                family.help.ends_with('.') && !family.samples.is_empty(),
                "{name}"
            );
            let labels: BTreeSet<_> = family.samples.iter().map(|s| s.label).collect();
            assert_eq!(labels.len(), family.samples.len(), "{name}: a series twice");
        }
    }

    #[test]
    fn a_label_counts_under_its_own_text() {
        let metrics = Metrics::default();
        for (n, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(reason.index(), n);
            metrics.refused.of(*reason).add(n as u64 + 1);
        }
        let families = metrics.families();
        let refused = families
            .iter()
            .find(|f| f.name == "rangekv_requests_refused_total")
            .expect("it is there");
        for (n, sample) in refused.samples.iter().enumerate() {
            assert_eq!(sample.label, Some(("reason", Refusal::ALL[n].text())));
            assert_eq!(sample.value, Value::Number(n as u64 + 1));
        }
    }
}
