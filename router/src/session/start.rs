//! How a command is placed on ranges: started, and started over when it was refused.
//!
//! A command goes to one range as it is, or in parts to several, or walks through all. Where
//! its keys lie is asked anew each time that it starts over: ranges may have split or merged.

use super::gather::{self, Gather, Merge};
use super::keyspace::Figures;
use super::pubsub::Asking;
use super::walk::Walk;
use super::{Context, Session, State};
use crate::cache::Route;
use crate::dispatch::{Call, CallId, Dispatcher, Outcome};
use crate::stores::Stores;
use bytes::Bytes;
use rangekv_model::redis::codec::encode_command;
use rangekv_model::redis::spec::{self, Spec};
use rangekv_model::redis::{keys, records, reply};
use rangekv_proto::EvaluatorId;
use std::sync::Arc;

/// What came of the attempt to start a command.
pub(super) enum Begun {
    Reply(Bytes),
    Single,
    Gather(Box<Gather>),
    Walk(Box<Walk>),
    Others(Box<Asking>),
    Errand,
    Blocked,
}

impl Session {
    /// Starts a command if it may not overtake anything. Takes `args` if it needs to keep them
    /// in another form than as they are.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn begin(
        &mut self,
        number: u64,
        spec: &'static Spec,
        args: &mut Vec<Bytes>,
        context: Context,
        deadline_ms: u64,
        now_ms: u64,
        stores: &dyn Stores,
    ) -> Begun {
        if self.walking.is_some() || self.is_held(spec, now_ms) {
            return Begun::Blocked;
        }
        if spec.group == spec::Group::PubSub {
            return self.begin_pubsub(number, spec, args, now_ms, stores);
        }
        let Context { db, protocol, .. } = context;
        if spec.route == spec::Route::Node {
            return self.begin_for_node(number, spec, args, context, stores);
        }
        if spec.route == spec::Route::Keyspace {
            if !self.calls.is_idle() {
                return Begun::Blocked;
            }
            let bytes_max = self.door.config.keys_reply_bytes_max;
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            return match Walk::new(spec, args, db, protocol, self.seed, bytes_max) {
                Err(error) => Begun::Reply(error),
                Ok(walk) => self.begin_walk(number, walk),
            };
        }
        if spec.name == "info" {
            if !self.calls.is_idle() {
                return Begun::Blocked;
            }
            let figures = Figures::new(args, self.info_text(args));
            return self.begin_walk(number, Walk::info(figures, protocol));
        }
        self.calls.refresh();
        let first = usize::from(spec.first_key);
        let record_keys = match spec.may_have_several_keys(args.len()) {
            true => spec::record_keys(spec, db, args),
            false => Vec::new(),
        };
        let first_key = match (record_keys.first(), args.get(first)) {
            (Some(key), _) => key.clone(),
            (None, Some(key)) if first > 0 => keys::record_key(db, key),
            // `OBJECT HELP` and its like have no key: any range can answer.
            _ => keys::slot_start(0),
        };
        let placed = match record_keys.len() {
            2.. => place(&self.calls, spec, &record_keys),
            _ => Placed::One(self.calls.lookup(&first_key)),
        };
        let redis = EvaluatorId::REDIS;
        let read_only = spec.is_readonly();
        if !read_only {
            self.last_write = Some(first_key.clone());
        }
        let (groups, merge) = match placed {
            Placed::One(route) => {
                if !self.calls.admits(route.as_deref()) {
                    return Begun::Blocked;
                }
                let command = encode_command(protocol, db, args);
                let id = CallId {
                    command: number,
                    part: 0,
                };
                let call = Call::new(id, first_key, redis, read_only, command, deadline_ms);
                let begun = match self.calls.start(call, route, now_ms, stores) {
                    Some(reply) if spec.is_sort() && records::names_other_ranges(args, &reply) => {
                        let keys = vec![keys::record_key(db, &args[1])];
                        let args = std::mem::take(args);
                        let gather = Gather::new(Merge::Sort, spec, db, protocol, args, keys);
                        self.fetching.push(number);
                        Begun::Gather(Box::new(gather))
                    }
                    Some(reply) => return Begun::Reply(reply),
                    None => Begun::Single,
                };
                // What it reads is known later: nothing may be written before that.
                let is_open = matches!(begun, Begun::Gather(_))
                    || spec.is_sort() && args.iter().any(|arg| arg.contains(&b'*'));
                if is_open {
                    self.walking = Some(number);
                }
                return begun;
            }
            Placed::Apart => return Begun::Reply(cross_range(spec)),
            Placed::Parts(groups, merge) => (groups, merge),
        };
        if !groups
            .iter()
            .all(|(route, _)| self.calls.admits(route.as_deref()))
        {
            return Begun::Blocked;
        }
        let typed = std::mem::take(args);
        let mut gather = Gather::new(merge, spec, db, protocol, typed, record_keys);
        let parts: Vec<_> = groups
            .into_iter()
            .map(|(route, of)| (route, gather.add(of)))
            .collect();
        for (route, (part, key, command)) in parts {
            let id = CallId {
                command: number,
                part,
            };
            let call = Call::new(id, key, redis, read_only, command, deadline_ms);
            if let Some(reply) = self.calls.start(call, route, now_ms, stores) {
                if let Some(reply) = gather.answer(part, reply) {
                    // Whoever asks later what was slow needs them.
                    args.extend_from_slice(gather.args());
                    return Begun::Reply(reply);
                }
            }
        }
        Begun::Gather(Box::new(gather))
    }

    /// Starts a walk; no other is under way.
    pub(super) fn begin_walk(&mut self, number: u64, walk: Walk) -> Begun {
        self.walking = Some(number);
        self.page_due = true;
        Begun::Walk(Box::new(walk))
    }

    /// A range has said that the patterns of a `SORT` name keys of others: begins to fetch the
    /// records of all of them. The next [`restart`](Self::restart) sends what is due.
    pub(super) fn fetch_for_sort(&mut self, number: u64) {
        let index = (number - self.first) as usize;
        let Some(slot) = self.queue.get_mut(index) else {
            return;
        };
        let State::Single { spec, args } = &mut slot.state else {
            return;
        };
        let Context { db, protocol, .. } = slot.context;
        let keys = vec![keys::record_key(db, &args[1])];
        let args = std::mem::take(args);
        let gather = Gather::new(Merge::Sort, spec, db, protocol, args, keys);
        slot.state = State::Gather(Box::new(gather));
        self.fetching.push(number);
    }

    /// Asks for the records that `SORT`s need next.
    fn fetch(&mut self, now_ms: u64, stores: &dyn Stores, outcomes: &mut Vec<Outcome>) {
        for number in std::mem::take(&mut self.fetching) {
            let index = number.checked_sub(self.first);
            let slot = index.and_then(|index| self.queue.get_mut(index as usize));
            let Some(slot) = slot else {
                continue;
            };
            let deadline_ms = slot.deadline_ms;
            let State::Gather(gather) = &mut slot.state else {
                continue;
            };
            let Some(due) = gather.due() else {
                continue;
            };
            self.calls.refresh();
            let groups = gather::group(self.calls.routes(), gather.keys(), &due);
            let parts: Vec<_> = groups
                .into_iter()
                .map(|(route, of)| (route, gather.add(of)))
                .collect();
            let redis = EvaluatorId::REDIS;
            for (route, (part, key, command)) in parts {
                let id = CallId {
                    command: number,
                    part,
                };
                let range_end = route.as_ref().map(|r| r.descriptor.end.clone());
                let call = Call::new(id, key, redis, true, command, deadline_ms);
                if let Some(reply) = self.calls.start(call, route, now_ms, stores) {
                    outcomes.push(Outcome {
                        id,
                        result: Ok(reply),
                        range_end: range_end.unwrap_or_default(),
                    });
                }
            }
        }
    }

    /// Lets calls start over whose lane is answered and whose time has come.
    pub(super) fn restart(&mut self, now_ms: u64, stores: &dyn Stores) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        while !self.fetching.is_empty() {
            self.fetch(now_ms, stores, &mut outcomes);
            outcomes.drain(..).for_each(|outcome| self.settle(outcome));
        }
        while let Some(calls) = self.calls.take_due(now_ms, &mut outcomes) {
            for call in calls {
                self.restart_call(call, now_ms, stores, &mut outcomes);
            }
            outcomes.drain(..).for_each(|outcome| self.settle(outcome));
        }
        outcomes.drain(..).for_each(|outcome| self.settle(outcome));
        self.outcomes = outcomes;
    }

    /// Routes a call anew: its range may be another one, or its keys may lie in several.
    fn restart_call(
        &mut self,
        call: Call,
        now_ms: u64,
        stores: &dyn Stores,
        outcomes: &mut Vec<Outcome>,
    ) {
        let id = call.id;
        let Some(index) = id.command.checked_sub(self.first) else {
            return;
        };
        let Some(slot) = self.queue.get_mut(index as usize) else {
            return;
        };
        let db = slot.context.db;
        let mut start = |calls: &mut Dispatcher, call: Call, route: Option<Arc<Route>>| {
            let id = call.id;
            let range_end = route.as_ref().map(|r| r.descriptor.end.clone());
            if let Some(reply) = calls.start(call, route, now_ms, stores) {
                let range_end = range_end.unwrap_or_default();
                outcomes.push(Outcome {
                    id,
                    result: Ok(reply),
                    range_end,
                });
            }
        };
        if let State::Single { spec, args } = &mut slot.state {
            let record_keys = match spec.may_have_several_keys(args.len()) {
                true => spec::record_keys(spec, db, args),
                false => Vec::new(),
            };
            let placed = match record_keys.len() > 1 {
                true => place(&self.calls, spec, &record_keys),
                false => Placed::One(self.calls.lookup(&call.key)),
            };
            let merge = match placed {
                Placed::One(route) => return start(&mut self.calls, call, route),
                Placed::Apart => {
                    slot.state = State::Done(cross_range(spec));
                    return;
                }
                Placed::Parts(_, merge) => merge,
            };
            let all: Vec<u32> = (0..record_keys.len() as u32).collect();
            let args = std::mem::take(args);
            let protocol = slot.context.protocol;
            let mut gather = Gather::new(merge, spec, db, protocol, args, record_keys);
            // One part for now; it is cut below.
            gather.add(all);
            slot.state = State::Gather(Box::new(gather));
        }
        match &mut slot.state {
            State::Gather(gather) => {
                let of = gather.of(id.part).to_vec();
                let groups = gather::group(self.calls.routes(), gather.keys(), &of);
                for (n, (route, of)) in groups.into_iter().enumerate() {
                    let (part, key, command) = match n {
                        0 => gather.narrow(id.part, of),
                        _ => gather.add(of),
                    };
                    let id = CallId { part, ..id };
                    start(&mut self.calls, call.divided(id, key, command), route);
                }
            }
            State::Walk(_) => {
                let route = self.calls.lookup(&call.key);
                start(&mut self.calls, call, route);
            }
            State::Single { .. }
            | State::Waiting { .. }
            | State::Answered { .. }
            | State::Others(_)
            | State::Executed(_)
            | State::Errand
            | State::Done(_) => {}
        }
    }
}

/// Where the keys of a command lie.
enum Placed {
    /// In one range; or in some that is not known yet.
    One(Option<Arc<Route>>),
    /// In several, and the command can be cut.
    Parts(Vec<gather::Group>, Merge),
    /// In several, and it can't.
    Apart,
}

fn place(calls: &Dispatcher, spec: &Spec, keys: &[Bytes]) -> Placed {
    // Most often: the first key's range has them all.
    let first = keys.first().and_then(|key| calls.lookup(key));
    if let Some(route) = &first {
        if keys.iter().all(|key| route.descriptor.contains(key)) {
            return Placed::One(first);
        }
    }
    let all: Vec<u32> = (0..keys.len() as u32).collect();
    let groups = gather::group(calls.routes(), keys, &all);
    match (merge_of(spec), groups.len()) {
        (Some(merge), 2..) => Placed::Parts(groups, merge),
        (None, 2..) if groups.iter().all(|(route, _)| route.is_some()) => Placed::Apart,
        _ => Placed::One(None),
    }
}

fn merge_of(spec: &Spec) -> Option<Merge> {
    match spec.route {
        spec::Route::FanOutArray => Some(Merge::Array),
        spec::Route::FanOutSum => Some(Merge::Sum),
        spec::Route::Lcs => Some(Merge::Lcs),
        spec::Route::FanOutRecords => Some(Merge::Records),
        spec::Route::SingleRange
        | spec::Route::Connection
        | spec::Route::Node
        | spec::Route::Keyspace => None,
    }
}

fn cross_range(spec: &Spec) -> Bytes {
    reply::error(&format!(
        "CROSSSLOT Keys of '{}' lie in different ranges; atomic writes across ranges are not \
         supported yet, use a {{hash tag}}",
        spec.name
    ))
}
