//! The worker's thread: read links, drain, handle, write, send, sync, send, reply.
//!
//! One loop is one group commit: while `sync` waits for the disk the mailbox fills, and the
//! next loop takes all of it. Where the disk is slow other threads wait for it
//! ([`super::syncers`]), and the worker goes on. Messages that may leave before the sync (a leader's appends)
//! do, so that followers write while we do.

use super::clock;
use super::company::Company;
use super::mailbox::{Inbox, Taken};
use super::syncers::Syncers;
use super::watchdog::{Doing, Pulse};
use rangekv_proto::StoreId;
use rangekv_router::poll::ports::Ports;
use rangekv_store::event::{Event, Outbox, SnapshotToSend};
use rangekv_store::trace::{Election, Traced};
use rangekv_store::wire::Envelope;
use rangekv_store::worker::Worker;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

/// An idle worker wakes at least this often, whatever its next tick.
const PARK_MAX: Duration = Duration::from_secs(1);

/// Where a worker's messages go. Never blocks.
pub trait Post: Send {
    /// Sends `envelopes` to `store`, in order, or drops them.
    fn envelopes(&self, store: StoreId, envelopes: Vec<Envelope>);
    /// Streams a snapshot, and posts `Event::SnapshotSent` when that has ended.
    fn snapshot(&self, snapshot: SnapshotToSend);
    /// Tells who traces of what was done for requests that are traced, and of elections won.
    fn figures(&self, traced: Drain<'_, Traced>, elections: Drain<'_, Election>);
}

/// Runs a worker until its mailbox is closed, then returns it. What comes on the links of
/// `ports` goes through the mailbox as everything else does.
pub fn run(
    mut worker: Worker,
    inbox: Inbox,
    mut ports: Ports,
    post: impl Post,
    pulse: &Arc<Pulse>,
    syncers: &Syncers,
) -> Worker {
    let mut events: Vec<Event> = Vec::new();
    let mut outbox = Outbox::default();
    let mut company = Company::default();
    let mut handled = 0;
    loop {
        let events_before = std::mem::take(&mut handled);
        if let Some(pause) = company.wait(clock::mono_ns(), events_before, syncers.mean_ns()) {
            std::thread::sleep(pause);
        }
        wait(&mut ports, Duration::ZERO);
        ports.turns(|_, _| {});
        let taken = inbox.take(&mut events);
        let now = clock::now();
        if events.is_empty() && !worker.has_work() && now.mono_ns < worker.next_tick() {
            if taken == Taken::Closed && !syncers.are_busy() {
                return worker;
            }
            pulse.rest();
            let until_tick = Duration::from_nanos(worker.next_tick() - now.mono_ns);
            if inbox.fall_asleep(syncers.are_busy()) {
                wait(&mut ports, until_tick.min(PARK_MAX));
                inbox.awake();
                ports.turns(|_, _| {});
            }
            continue;
        }
        pulse.begin(Doing::Working);
        handled = events.len();
        for event in events.drain(..) {
            worker.handle(now, event);
        }
        let sync = worker.begin_round(now, &mut outbox);
        send(&post, &mut outbox);
        let later = match sync && syncers.are_worth_it() {
            true => worker.sync_later(),
            false => None,
        };
        match later {
            Some(job) => syncers.submit(job),
            None if sync => {
                pulse.begin(Doing::Syncing);
                let began = clock::now();
                worker.sync(began);
                syncers.observe(clock::mono_ns() - began.mono_ns);
                pulse.begin(Doing::Working);
            }
            None => {}
        }
        worker.finish_round(clock::now(), &mut outbox);
        send(&post, &mut outbox);
    }
}

fn wait(ports: &mut Ports, timeout: Duration) {
    let waited = ports.wait(Some(timeout));
    waited.expect("waiting on an epoll of our own");
}

/// Hands the outbox over, coalesced per store; the order per store is kept.
fn send(post: &impl Post, outbox: &mut Outbox) {
    for (store, envelopes) in by_store(outbox.envelopes.drain(..)) {
        post.envelopes(store, envelopes);
    }
    for snapshot in outbox.snapshots.drain(..) {
        post.snapshot(snapshot);
    }
    if !outbox.traced.is_empty() || !outbox.elections.is_empty() {
        post.figures(outbox.traced.drain(..), outbox.elections.drain(..));
    }
}

/// Groups messages by store. A cluster has few stores: a vector beats a map.
fn by_store<T>(messages: impl Iterator<Item = (StoreId, T)>) -> Vec<(StoreId, Vec<T>)> {
    let mut groups: Vec<(StoreId, Vec<T>)> = Vec::new();
    for (store, message) in messages {
        match groups.iter_mut().find(|(s, _)| *s == store) {
            Some((_, group)) => group.push(message),
            None => groups.push((store, vec![message])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_store_and_keeps_the_order() {
        let messages = [(1, 'a'), (2, 'b'), (1, 'c'), (3, 'd'), (2, 'e')];
        let groups = by_store(messages.into_iter().map(|(s, m)| (StoreId(s), m)));
        let want = vec![
            (StoreId(1), vec!['a', 'c']),
            (StoreId(2), vec!['b', 'e']),
            (StoreId(3), vec!['d']),
        ];
        assert_eq!(groups, want);
    }
}
