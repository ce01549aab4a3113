//! Committed entries, applied: blind writes, splits, membership changes.
//!
//! Invariant I9: nothing is refused here. What an entry says was decided when it was proposed;
//! a surprise is a bug or corruption, and ends the process.

use super::ready::Round;
use super::{Ctx, Replica};
use crate::bugs::{self, Bug};
use crate::engine::WriteBatch;
use crate::meta;
use crate::payload::{self, Payload};
use raft::eraftpb::{Entry, EntryType};

impl Replica {
    /// Applies entries into the round's batch; returns whether one was an admin entry.
    pub(super) fn apply(
        &mut self,
        ctx: &mut Ctx<'_>,
        entries: Vec<Entry>,
        round: &mut Round<'_>,
    ) -> bool {
        if entries.is_empty() {
            return false;
        }
        ctx.metrics.entries_applied.add(entries.len() as u64);
        let mut admin = false;
        for entry in entries {
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
            admin |= self.apply_entry(ctx, &entry, round);
            let mut sent = None;
            if let Some(lead) = self.lead.as_mut() {
                if entry.term == lead.term && !lead.ready {
                    lead.ready = true;
                    ctx.metrics.leaders_elected.increment();
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
            self.release(entry.index, &mut round.completions);
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
                match decoded {
                    Payload::Data { clock_ms, writes } => {
                        self.applied.clock_ms = self.applied.clock_ms.max(clock_ms);
                        self.clock_ms = self.clock_ms.max(clock_ms);
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
