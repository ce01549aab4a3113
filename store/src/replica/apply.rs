//! Committed entries, applied: blind writes, splits, steps of merges, membership changes.
//!
//! The commit of a merge waits until this store's replica of the other range has caught up, and what
//! is behind it waits as well; the worker applies it ([`crate::worker`], `merge.rs`).
//!
//! Invariant I9: nothing is refused here. What an entry says was decided when it was proposed;
//! a surprise is a bug or corruption, and ends the process.

use super::ready::Round;
use super::{Completions, Ctx, Replica};
use crate::bugs::{self, Bug};
use crate::engine::WriteBatch;
use crate::meta;
use crate::payload::{self, Payload};
use crate::trace::Election;
use raft::eraftpb::{Entry, EntryType};

impl Replica {
    /// Applies entries into the round's batch; returns whether one was an admin entry.
    pub(super) fn apply(
        &mut self,
        ctx: &mut Ctx<'_>,
        entries: Vec<Entry>,
        round: &mut Round<'_>,
    ) -> bool {
        self.unapplied.extend(entries);
        let before = self.applied.index;
        let mut admin = false;
        while self.can_apply() {
            let entry = self.begin_next_entry().expect("can_apply has seen it");
            admin |= self.apply_entry(ctx, &entry, round);
            self.end_entry(ctx, &entry, &mut round.completions);
        }
        if !self.unapplied.is_empty() {
            round.noted.push(self.range);
        }
        if self.applied.index == before {
            return false;
        }
        let record = (meta::applied_key(self.range), self.applied.encode());
        if bugs::active(Bug::AppliedIndexApart) {
            let mut apart = WriteBatch::default();
            apart.put(record.0, record.1);
            ctx.engine.write(&apart);
        } else {
            round.batch.put(record.0, record.1);
        }
        admin
    }

    /// Whether the next entry can be applied by this replica alone.
    pub(super) fn can_apply(&self) -> bool {
        let next = self.unapplied.front();
        next.is_some_and(|e| !payload::is_merge_commit(e))
    }

    /// Takes the next entry, and counts it as applied.
    pub(crate) fn begin_next_entry(&mut self) -> Option<Entry> {
        let entry = self.unapplied.pop_front()?;
        assert_eq!(
            entry.index,
            self.applied.index + 1,
            "range {}: entry {} applied after {}",
            self.range,
            entry.index,
            self.applied.index
        );
        assert!(
            entry.term >= self.applied.term,
            "term regression {} → {}",
            self.applied.term,
            entry.term
        );
        self.applied.index = entry.index;
        self.applied.term = entry.term;
        Some(entry)
    }

    /// What an applied entry means to a leader: it is ready, its lease is renewed, replies leave.
    pub(crate) fn end_entry(
        &mut self,
        ctx: &mut Ctx<'_>,
        entry: &Entry,
        completions: &mut Completions,
    ) {
        ctx.metrics.entries_applied.increment();
        let mut sent = None;
        if let Some(lead) = self.lead.as_mut() {
            if entry.term == lead.term && !lead.ready {
                lead.ready = true;
                ctx.metrics.leaders_elected.increment();
                if let Some(campaigned_ns) = self.campaigned_ns.take() {
                    ctx.traces.elected(Election {
                        range: self.range,
                        term: entry.term,
                        lap: (campaigned_ns, ctx.now.mono_ns),
                    });
                }
            }
            while lead
                .sends
                .front()
                .is_some_and(|sent| sent.index <= entry.index)
            {
                sent = lead.sends.pop_front();
            }
        }
        if let Some(sent) = sent {
            if let Some(durable_ns) = sent.durable_ns {
                let waited = ctx.now.mono_ns.saturating_sub(durable_ns);
                ctx.metrics.write.commit.observe(waited);
            }
            self.renew_lease(ctx, sent.sent_ns);
        }
        ctx.traces
            .committed(self.range, entry.index, ctx.now.mono_ns);
        self.release(entry.index, completions);
    }

    fn apply_entry(&mut self, ctx: &mut Ctx<'_>, entry: &Entry, round: &mut Round<'_>) -> bool {
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => false,
            EntryType::EntryNormal => {
                let decoded = payload::decode(entry.data.clone()).unwrap_or_else(|e| {
                    panic!(
                        "range {} entry {}: {e}: the raft log is corrupt",
                        self.range, entry.index
                    )
                });
                assert!(
                    !self.is_frozen() || matches!(decoded, Payload::Merge(_)),
                    "range {} entry {}: {decoded:?} in a frozen range",
                    self.range,
                    entry.index
                );
                match decoded {
                    Payload::Data { clock_ms, writes } => {
                        self.raise_clock(clock_ms);
                        let leads = self.lead.is_some();
                        for (key, value) in writes {
                            if leads {
                                self.overlay.applied(&key, entry.index);
                            }
                            round.batch.puts.push((key, value));
                        }
                        false
                    }
                    Payload::Split(split) => {
                        self.apply_split(&split, round);
                        true
                    }
                    Payload::Merge(step) => {
                        self.apply_merge_step(&step, entry.index, round);
                        true
                    }
                    Payload::MergeCommit(_) => panic!(
                        "range {} entry {}: applied by the worker only",
                        self.range, entry.index
                    ),
                }
            }
            EntryType::EntryConfChangeV2 => {
                self.apply_conf_change(entry, round);
                true
            }
            EntryType::EntryConfChange => {
                panic!(
                    "range {} entry {}: a version 1 configuration change",
                    self.range, entry.index
                )
            }
        }
        .then(|| {
            tracing::debug!(
                range = self.range.0,
                index = entry.index,
                at = ctx.now.mono_ns,
                "admin entry"
            )
        })
        .is_some()
    }
}
