//! Just-in-time linearization with memoized configurations.
//!
//! After Wing and Gong (1993) and Lowe, "Testing for linearizability" (2017). Events are taken
//! in real-time order. A *configuration* is a state of the object together with the operations
//! already linearized that have not returned yet. When an operation returns, every surviving
//! configuration must have it linearized, if need be after other pending ones.
//!
//! What keeps the set of configurations small:
//! - Operations that have returned are in every configuration and are not stored.
//! - An operation whose reply says that it changed nothing is linearized as soon as its reply
//!   fits: whatever can follow can follow without it, too.
//! - An operation of unknown outcome need never take effect. So of two configurations with the
//!   same state and the same obligations, the one that used fewer of them can do all that the
//!   other can, and replaces it.
//! - Of pending unknown operations that do the same, only the oldest is tried.
//! - Values are unique, so most states never recur. Such a state may only be left when all
//!   operations that saw it are linearized ([`Model::witnesses`]).
//! - The operations of one client are linearized in their order, also those that overlap.
//! - A write that nobody saw may as well have been overwritten at once ([`Model::unseen`]).

use crate::random::Hashed;
use std::fmt::Debug;
use std::hash::Hash;

/// When an operation was called and when it returned, in a global order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Position of the call.
    pub call: u64,
    /// Position of the return; `None` = outcome unknown, open for ever.
    pub end: Option<u64>,
    /// An earlier operation of the same client, still open when this one was called, before
    /// which this one can't take effect. Both return.
    pub after: Option<usize>,
}

/// A sequential object, and the operations that a history holds, by their position in it.
pub trait Model {
    /// What the object can hold.
    type State: Clone + Eq + Hash + Debug;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after operation `op` if, applied to `state`, it gives the reply that was
    /// observed (any reply, if the outcome is unknown); `None` if it doesn't.
    fn step(&self, state: &Self::State, op: usize) -> Option<Self::State>;

    /// Whether two operations of unknown outcome have the same effect in every state.
    fn same_effect(&self, a: usize, b: usize) -> bool;

    /// Whether who saw `from` can't have seen `to`.
    fn leaves(&self, from: &Self::State, to: &Self::State) -> bool {
        from != to
    }

    /// Operations whose replies show that they found the object in `state`; only for states
    /// that, once left, never come back.
    fn witnesses(&self, state: &Self::State) -> &[usize];

    /// Whether `op`, at a moment when it changes nothing, may as well take place then, wherever
    /// it did: as if its reply shows that it changed nothing.
    fn changed_nothing(&self, op: usize) -> bool;

    /// Whether `op` is a write that overwrites whatever it finds, and says nothing about it.
    fn overwrites(&self, op: usize) -> bool;

    /// Whether `op` overwrites, and no other operation's reply depends on whether what it wrote
    /// or what another write wrote was there.
    fn unseen(&self, op: usize) -> bool;

    /// May answer false for a state that no observation of the history can follow or precede.
    fn plausible(&self, _state: &Self::State) -> bool {
        true
    }
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A linearization exists. `configurations` is what it cost to find out.
    Linearizable {
        /// Number of steps tried.
        configurations: u64,
    },
    /// There is none: operation `at` fits into no order of what came before it.
    Violation {
        /// Position of the operation in the history.
        at: usize,
        /// States possible before it, at most a few, for the report.
        states: Vec<String>,
    },
    /// The budget ran out when operation `at` returned.
    Undecided {
        /// Position of the operation in the history.
        at: usize,
    },
}

/// Looks for a linearization, trying at most `budget` steps of the model.
pub fn linearize<M: Model>(model: &M, history: &[Interval], budget: u64) -> Verdict {
    let verdict = search(model, history, budget, true);
    if let Verdict::Violation { .. } = verdict {
        // Foresight stops at the first operation that dooms a later one. The report is clearer
        // about the later one.
        if let hindsight @ Verdict::Violation { .. } = search(model, history, budget, false) {
            return hindsight;
        }
    }
    verdict
}

fn search<M: Model>(model: &M, history: &[Interval], budget: u64, foresight: bool) -> Verdict {
    // (position, is a return, operation): at one position calls precede returns, so that
    // operations that merely touch count as concurrent.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
    for (op, interval) in history.iter().enumerate() {
        events.push((interval.call, false, op));
        if let Some(end) = interval.end {
            events.push((end, true, op));
        }
    }
    events.sort_unstable();

    let mut search = Search {
        model,
        history,
        foresight,
        pending: Vec::new(),
        returned: vec![false; history.len()],
        steps: 0,
        budget,
    };
    let mut configurations = Frontier::default();
    configurations.insert(Configuration {
        state: model.initial(),
        must: vec![],
        may: vec![],
    });
    for (_, returns, op) in events {
        if !returns {
            search.pending.push(op);
            continue;
        }
        match search.linearize_until(&configurations, op) {
            None => return Verdict::Undecided { at: op },
            Some(next) if next.is_empty() => {
                let mut states: Vec<String> = configurations
                    .iter()
                    .map(|c| format!("{:?}", c.state))
                    .collect();
                states.sort();
                states.dedup();
                states.truncate(8);
                return Verdict::Violation { at: op, states };
            }
            Some(next) => configurations = next,
        }
        search.pending.retain(|p| *p != op);
        search.returned[op] = true;
    }
    Verdict::Linearizable {
        configurations: search.steps,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration<S> {
    state: S,
    /// Linearized operations that will return; ascending.
    must: Vec<usize>,
    /// Linearized operations of unknown outcome; ascending.
    may: Vec<usize>,
}

/// Configurations none of which can replace another.
struct Frontier<S> {
    /// By state and obligations: the least sets of unknown operations that lead there.
    least: Hashed<(S, Vec<usize>), Vec<Vec<usize>>>,
}

impl<S> Default for Frontier<S> {
    fn default() -> Self {
        Frontier {
            least: Hashed::default(),
        }
    }
}

impl<S: Clone + Eq + Hash> Frontier<S> {
    /// Adds a configuration unless one that can replace it is there.
    fn insert(&mut self, c: Configuration<S>) -> bool {
        let sets = self.least.entry((c.state, c.must)).or_default();
        if sets.iter().any(|set| is_subset(set, &c.may)) {
            return false;
        }
        sets.retain(|set| !is_subset(&c.may, set));
        sets.push(c.may);
        true
    }

    fn is_empty(&self) -> bool {
        self.least.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = Configuration<S>> + '_ {
        self.least.iter().flat_map(|((state, must), sets)| {
            sets.iter().map(|may| Configuration {
                state: state.clone(),
                must: must.clone(),
                may: may.clone(),
            })
        })
    }
}

/// Whether ascending `a` is contained in ascending `b`.
fn is_subset(a: &[usize], b: &[usize]) -> bool {
    let mut b = b.iter();
    a.iter().all(|x| b.any(|y| y == x))
}

fn with(set: &[usize], op: usize) -> Vec<usize> {
    let at = set.partition_point(|o| *o < op);
    let mut set = set.to_vec();
    set.insert(at, op);
    set
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Interval],
    /// Whether replies that are yet to come may rule out a configuration.
    foresight: bool,
    /// Called and not returned, in order of call.
    pending: Vec<usize>,
    returned: Vec<bool>,
    steps: u64,
    budget: u64,
}

impl<M: Model> Search<'_, M> {
    /// All configurations that follow from `before` and have `op` linearized, without it;
    /// `None` when the budget runs out.
    fn linearize_until(
        &mut self,
        before: &Frontier<M::State>,
        op: usize,
    ) -> Option<Frontier<M::State>> {
        let mut after = Frontier::default();
        let mut seen = Frontier::default();
        let mut stack = Vec::new();
        for configuration in before.iter() {
            self.visit(configuration, op, &mut seen, &mut after, &mut stack);
        }
        while let Some(configuration) = stack.pop() {
            for i in 0..self.pending.len() {
                let candidate = self.pending[i];
                if !self.is_worth_trying(&configuration, i) {
                    continue;
                }
                self.steps += 1;
                if self.steps > self.budget {
                    return None;
                }
                let before = &configuration.state;
                let Some(state) = self.model.step(before, candidate) else {
                    continue;
                };
                let unknown = self.history[candidate].end.is_none();
                if self.foresight && !self.model.plausible(&state)
                    || unknown && state == *before
                    || self.model.leaves(before, &state)
                        && self.is_still_wanted(&configuration, candidate)
                {
                    continue;
                }
                let mut next = configuration.clone();
                next.state = state;
                if unknown {
                    next.may = with(&next.may, candidate);
                } else {
                    next.must = with(&next.must, candidate);
                }
                if self.model.overwrites(candidate) {
                    self.hide_unseen(&mut next, candidate);
                }
                self.visit(next, op, &mut seen, &mut after, &mut stack);
            }
        }
        Some(after)
    }

    /// Whether what `op` must come after is linearized in `c`.
    fn may_come_next(&self, c: &Configuration<M::State>, op: usize) -> bool {
        self.history[op]
            .after
            .is_none_or(|first| self.returned[first] || c.must.binary_search(&first).is_ok())
    }

    /// Whether the pending operation at `i` may come next in `c`.
    fn is_worth_trying(&self, c: &Configuration<M::State>, i: usize) -> bool {
        let candidate = self.pending[i];
        if c.must.binary_search(&candidate).is_ok() || c.may.binary_search(&candidate).is_ok() {
            return false;
        }
        if self.history[candidate].end.is_some() {
            return self.may_come_next(c, candidate);
        }
        if self.model.unseen(candidate) {
            return false;
        }
        // The oldest of those that do the same stands for all.
        !self.pending[..i].iter().any(|&older| {
            self.history[older].end.is_none()
                && c.may.binary_search(&older).is_err()
                && self.model.same_effect(older, candidate)
        })
    }

    /// Whether some operation other than `next` saw the state of `c` and is not linearized.
    fn is_still_wanted(&self, c: &Configuration<M::State>, next: usize) -> bool {
        let witnesses = if self.foresight {
            self.model.witnesses(&c.state)
        } else {
            &[]
        };
        witnesses
            .iter()
            .any(|w| *w != next && !self.returned[*w] && c.must.binary_search(w).is_err())
    }

    /// Linearizes pending writes that nobody saw just before `write`, which led to `c`.
    fn hide_unseen(&self, c: &mut Configuration<M::State>, write: usize) {
        for &p in &self.pending {
            if self.history[p].end.is_some()
                && self.model.unseen(p)
                && self.history[p].after != Some(write)
                && self.may_come_next(c, p)
            {
                if let Err(at) = c.must.binary_search(&p) {
                    c.must.insert(at, p);
                }
            }
        }
    }

    /// Linearizes what changes nothing, then files the configuration: done, or to be extended.
    fn visit(
        &mut self,
        mut c: Configuration<M::State>,
        op: usize,
        seen: &mut Frontier<M::State>,
        after: &mut Frontier<M::State>,
        stack: &mut Vec<Configuration<M::State>>,
    ) {
        for &p in &self.pending {
            if self.model.changed_nothing(p)
                && c.must.binary_search(&p).is_err()
                && self.may_come_next(&c, p)
            {
                self.steps += 1;
                if self.model.step(&c.state, p).as_ref() == Some(&c.state) {
                    c.must = with(&c.must, p);
                }
            }
        }
        if let Ok(at) = c.must.binary_search(&op) {
            c.must.remove(at);
            after.insert(c);
        } else if seen.insert(c.clone()) {
            stack.push(c);
        }
    }
}
