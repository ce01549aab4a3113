//! Moments of the requests that somebody traces, and of elections: plain figures for the driver.
//!
//! A request is traced if it carries a [`Mark`]. Its moments are those by which the stages of writes
//! are measured for all ([`crate::metrics::WriteStages`]); here they are kept for the one request,
//! and leave with the round's [`Outbox`]. They decide nothing. Where nothing is
//! traced, each place that would note something looks at an empty list.

use crate::event::Outbox;
use rangekv_proto::{Mark, RangeId};

/// Of more requests at a time no figures are kept.
const OPEN_MAX: usize = 1024;
/// An entry that takes longer to be applied is no longer waited for: leadership was lost, most likely.
const WAIT_MAX_NS: u64 = 10_000_000_000;

/// From when to when, monotonic ns.
pub type Lap = (u64, u64);

/// What a store did for a traced request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Which request.
    pub mark: Mark,
    /// Of which range.
    pub range: RangeId,
    /// The log entry that its reply waited for; `None` = none: it was a read, or was refused.
    pub index: Option<u64>,
    /// In the worker's mailbox.
    pub queue: Option<Lap>,
    /// Handled with the round's other requests and messages.
    pub evaluate: Option<Lap>,
    /// Its entry, from being staged to being durable here.
    pub log: Option<Lap>,
    /// From then to its commit.
    pub commit: Option<Lap>,
    /// From the round's taking committed entries to their being visible. `None` though it has an
    /// entry: that was not seen to be applied.
    pub apply: Option<Lap>,
}

impl Traced {
    /// The first moment and the last.
    pub fn lap(&self) -> Option<Lap> {
        let laps = [self.queue, self.evaluate, self.log, self.commit, self.apply];
        let began = laps.iter().flatten().map(|lap| lap.0).min()?;
        let ended = laps.iter().flatten().map(|lap| lap.1).max()?;
        Some((began, ended))
    }
}

/// An election that a replica of this store has won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Of which range.
    pub range: RangeId,
    /// The term that it serves in.
    pub term: u64,
    /// From its first candidature since it last followed somebody to its serving, monotonic ns.
    pub lap: Lap,
}

/// What is known so far of the traced requests that a worker handles.
#[derive(Default)]
pub struct Traces {
    open: Vec<Open>,
    done: Vec<Traced>,
    elections: Vec<Election>,
}

struct Open {
    traced: Traced,
    /// When it came to the worker.
    taken_ns: u64,
    staged_ns: Option<u64>,
    /// The job that makes its entry durable, if another thread does.
    job: Option<u64>,
    durable_ns: Option<u64>,
}

impl Traces {
    /// A request has arrived: at the mailbox at `arrived_ns` (0 = nobody has looked), here at
    /// `taken_ns`.
    pub(crate) fn begin(&mut self, mark: Mark, range: RangeId, arrived_ns: u64, taken_ns: u64) {
        if self.open.len() >= OPEN_MAX {
            return;
        }
        let traced = Traced {
            mark,
            range,
            index: None,
            queue: (arrived_ns > 0).then_some((arrived_ns, taken_ns)),
            evaluate: None,
            log: None,
            commit: None,
            apply: None,
        };
        self.open.push(Open {
            traced,
            taken_ns,
            staged_ns: None,
            job: None,
            durable_ns: None,
        });
    }

    /// The request's reply waits for the entry at `index`. It may have been handled before, in vain.
    pub(crate) fn waits_for(&mut self, mark: Mark, range: RangeId, index: u64, now_ns: u64) {
        if !mark.is_some() {
            return;
        }
        let is_new = |open: &&mut Open| {
            let traced = &open.traced;
            (traced.mark, traced.range, traced.index) == (mark, range, None)
        };
        match self.open.iter_mut().find(is_new) {
            Some(open) => open.traced.index = Some(index),
            None => {
                self.begin(mark, range, 0, now_ns);
                if let Some(open) = self.open.last_mut().filter(|o| o.traced.mark == mark) {
                    open.traced.index = Some(index);
                }
            }
        }
    }

    /// What came before `ended_ns` has been handled. Requests without an entry leave.
    pub(crate) fn evaluated(&mut self, ended_ns: Option<u64>) {
        if self.open.is_empty() {
            return;
        }
        for open in &mut self.open {
            // What is staged was evaluated later than others of its round: it had been waiting.
            if open.traced.evaluate.is_none() && open.staged_ns.is_none() {
                open.traced.evaluate = ended_ns.map(|ended_ns| (open.taken_ns, ended_ns));
            }
        }
        let left = self.open.extract_if(.., |o| o.traced.index.is_none());
        self.done.extend(left.map(|open| open.traced));
    }

    /// All entries so far are staged.
    pub(crate) fn staged(&mut self, now_ns: Option<u64>) {
        for open in &mut self.open {
            open.staged_ns = open.staged_ns.or(now_ns);
        }
    }

    /// Another thread makes durable what is staged.
    pub(crate) fn syncs(&mut self, job: u64) {
        for open in self.open.iter_mut().filter(|o| o.staged_ns.is_some()) {
            open.job = open.job.or(Some(job));
        }
    }

    /// What is staged is durable; of what other threads sync, what the jobs up to `job` do.
    pub(crate) fn durable(&mut self, job: Option<u64>, now_ns: Option<u64>) {
        for open in &mut self.open {
            let covered = job.is_none_or(|job| open.job.is_some_and(|own| own <= job));
            let ends = (open.staged_ns, now_ns);
            if let (true, None, (Some(staged_ns), Some(now_ns))) = (covered, open.durable_ns, ends)
            {
                open.durable_ns = Some(now_ns);
                open.traced.log = Some((staged_ns, now_ns));
            }
        }
    }

    /// The range's entry at `index` is being applied.
    pub(crate) fn committed(&mut self, range: RangeId, index: u64, now_ns: u64) {
        for open in &mut self.open {
            let traced = &mut open.traced;
            let waited = traced.index.is_some_and(|waited| waited <= index);
            if traced.range == range && waited && traced.commit.is_none() {
                let durable_ns = open.durable_ns.unwrap_or(now_ns);
                traced.commit = Some((durable_ns, now_ns.max(durable_ns)));
            }
        }
    }

    /// What was applied is visible.
    pub(crate) fn visible(&mut self, began_ns: Option<u64>, ended_ns: Option<u64>) {
        if self.open.is_empty() {
            return;
        }
        let left = self.open.extract_if(.., |o| o.traced.commit.is_some());
        self.done.extend(left.map(|open| Traced {
            apply: began_ns.zip(ended_ns),
            ..open.traced
        }));
    }

    /// Time has passed: what has waited for too long leaves as it is.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        if self.open.is_empty() {
            return;
        }
        let left = self
            .open
            .extract_if(.., |o| o.taken_ns + WAIT_MAX_NS < now_ns);
        self.done.extend(left.map(|open| open.traced));
    }

    /// A replica has won an election.
    pub(crate) fn elected(&mut self, election: Election) {
        self.elections.push(election);
    }

    /// Moves what is finished to the outbox.
    pub(crate) fn take_done(&mut self, out: &mut Outbox) {
        out.traced.append(&mut self.done);
        out.elections.append(&mut self.elections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mark = Mark(7);
    const B: Mark = Mark(8);
    const RANGE: RangeId = RangeId(3);

    fn done(traces: &mut Traces) -> Vec<Traced> {
        let mut out = Outbox::default();
        traces.take_done(&mut out);
        out.traced
    }

    #[test]
    fn a_write_has_all_stages_and_a_read_the_first_two() {
        let mut traces = Traces::default();
        traces.begin(A, RANGE, 90, 100);
        traces.begin(B, RANGE, 95, 100);
        traces.waits_for(A, RANGE, 11, 100);
        traces.waits_for(Mark::NONE, RANGE, 11, 100);
        traces.evaluated(Some(110));
        let read = done(&mut traces);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].mark, read[0].index), (B, None));
        assert_eq!(read[0].lap(), Some((95, 110)));
        traces.staged(Some(120));
        traces.durable(None, Some(150));
        traces.committed(RangeId(4), 11, 170);
        traces.committed(RANGE, 10, 170);
        traces.visible(Some(171), Some(180));
        assert!(done(&mut traces).is_empty());
        traces.committed(RANGE, 12, 190);
        traces.visible(Some(191), Some(200));
        let want = Traced {
            mark: A,
            range: RANGE,
            index: Some(11),
            queue: Some((90, 100)),
            evaluate: Some((100, 110)),
            log: Some((120, 150)),
            commit: Some((150, 190)),
            apply: Some((191, 200)),
        };
        assert_eq!(done(&mut traces), [want]);
    }

    #[test]
    fn an_entry_is_durable_with_its_own_job_or_a_sync_of_all() {
        let mut traces = Traces::default();
        for (mark, index, job) in [(A, 11, 1), (B, 12, 2)] {
            traces.begin(mark, RANGE, 0, 100);
            traces.waits_for(mark, RANGE, index, 100);
            traces.evaluated(Some(101));
            traces.staged(Some(100 + index));
            traces.syncs(job);
        }
        traces.durable(Some(1), Some(130));
        traces.durable(None, Some(140));
        traces.committed(RANGE, 12, 150);
        traces.visible(Some(150), Some(160));
        let laps: Vec<_> = done(&mut traces)
            .iter()
            .map(|t| (t.log, t.commit))
            .collect();
        let want = [
            (Some((111, 130)), Some((130, 150))),
            (Some((112, 140)), Some((140, 150))),
        ];
        assert_eq!(laps, want);
    }

    #[test]
    fn what_waits_in_vain_leaves_and_nothing_piles_up() {
        let mut traces = Traces::default();
        traces.waits_for(A, RANGE, 11, 100);
        traces.tick(100 + WAIT_MAX_NS);
        assert!(done(&mut traces).is_empty());
        traces.tick(101 + WAIT_MAX_NS);
        let left = done(&mut traces);
        assert_eq!(
            (left.len(), left[0].index, left[0].apply),
            (1, Some(11), None)
        );
        for n in 0..2 * OPEN_MAX as u64 {
            traces.begin(Mark(n + 1), RANGE, 0, 100);
            traces.waits_for(Mark(n + 1), RANGE, n, 100);
        }
        assert_eq!(traces.open.len(), OPEN_MAX);
    }
}
