//! Trouble: each kind comes as a Poisson process of its own rate until all is healed.

use crate::cluster::{trace, Caller, Cluster, Event};
use crate::faults::Class;
use crate::random::exponential;
use crate::schedule::{Time, MS};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::Rng;
use rangekv_proto::Response;
use rangekv_store::event::Event as StoreEvent;
use rangekv_store::meta::Merging;
use rangekv_store::worker::GroupView;

/// What the nemesis does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Cuts some links.
    Partition,
    /// Mends them.
    Mend(Vec<(usize, usize)>),
    /// Clogs some links.
    Clog,
    /// Frees one.
    Unclog(usize, usize),
    /// Crashes a store, or all.
    Crash,
    /// Starts one again.
    Restart(usize),
    /// Stops a process for a while.
    Pause,
    /// Stops this one.
    Stop(usize, Time),
    /// Keeps a leader from hearing, and stops it.
    Deafen,
    /// Cuts a voter off from a leader, so that it campaigns; then lets another voter forget,
    /// by a restart, that it has just heard that leader.
    Amnesia,
    /// The second part of that: who leads, and who forgets.
    Forget(usize, usize),
    /// Sets a wall clock.
    WallJump,
    /// Makes a disk slow.
    SlowDisk,
    /// Makes it as fast as before.
    FastDisk(usize),
    /// Fills a disk.
    DiskFull,
    /// Frees it.
    DiskFree(usize),
    /// Flushes a state engine.
    Flush,
    /// Asks for a split.
    Split,
    /// Asks for a merge, or for what must come before.
    Merge,
    /// Makes other trouble, while a merge goes on.
    Trip,
    /// Cuts off a store on which a range is frozen, as soon as there is one; looks so many times.
    Estrange(u32),
    /// Cuts off this one.
    Isolate(usize),
    /// Asks for a transfer.
    Transfer,
    /// Asks for a membership change.
    Membership,
    /// Lets all clients pause.
    Lull,
    /// Has a store emptied, or used again.
    Drain,
    /// Loses a store for ever; an empty one joins.
    Wipe,
    /// What was asked for to make all well again.
    Repair,
}

impl Cluster {
    /// Starts all processes of trouble.
    pub(crate) fn begin_trouble(&mut self) {
        let all = [
            Trouble::Partition,
            Trouble::Clog,
            Trouble::Crash,
            Trouble::Pause,
            Trouble::Deafen,
            Trouble::Amnesia,
            Trouble::WallJump,
            Trouble::SlowDisk,
            Trouble::DiskFull,
            Trouble::Flush,
            Trouble::Split,
            Trouble::Merge,
            Trouble::Transfer,
            Trouble::Membership,
            Trouble::Lull,
            Trouble::Drain,
        ];
        for trouble in all {
            self.come_again(trouble);
        }
        if self.faults.wipe_at > 0 {
            self.schedule
                .at(self.faults.wipe_at, Event::Trouble(Trouble::Wipe));
        }
    }

    fn interval(&self, trouble: &Trouble) -> Time {
        let f = &self.faults;
        match trouble {
            Trouble::Partition => f.partition_every,
            Trouble::Clog => f.clog_every,
            Trouble::Crash => f.crash_every,
            Trouble::Pause => f.pause_every,
            Trouble::Deafen => f.deafen_every,
            Trouble::Amnesia => f.amnesia_every,
            Trouble::WallJump => f.wall_jump_every,
            Trouble::SlowDisk => f.slow_disk_every,
            Trouble::DiskFull => f.disk_full_every,
            Trouble::Flush => f.flush_every,
            Trouble::Split => f.split_every,
            Trouble::Merge => f.merge_every,
            Trouble::Transfer => f.transfer_every,
            Trouble::Membership => f.membership_every,
            Trouble::Lull => f.lull_every,
            Trouble::Drain => f.drain_every,
            _ => 0,
        }
    }

    fn come_again(&mut self, trouble: Trouble) {
        let every = self.interval(&trouble);
        if every > 0 {
            let delay = exponential(&mut self.rng, every) + MS;
            self.schedule.after(delay, Event::Trouble(trouble));
        }
    }

    /// Makes trouble, or ends some.
    pub(crate) fn trouble(&mut self, trouble: Trouble) -> Result<(), String> {
        match &trouble {
            Trouble::Restart(node) => {
                if self.nodes[*node].process.is_none() && !self.nodes[*node].wiped {
                    return self.start_node(*node);
                }
                return Ok(());
            }
            Trouble::Mend(_)
            | Trouble::Unclog(..)
            | Trouble::FastDisk(_)
            | Trouble::DiskFree(_) => {}
            _ if self.healed => return Ok(()),
            _ => self.note(9, self.nodes.len(), self.interval(&trouble)),
        }
        match trouble.clone() {
            Trouble::Partition => self.partition(),
            Trouble::Mend(cuts) => cuts
                .into_iter()
                .for_each(|(from, to)| self.net.mend(from, to)),
            Trouble::Clog => self.clog(),
            Trouble::Unclog(from, to) => self.unclog(from, to),
            Trouble::Crash => self.crash(),
            Trouble::Pause => self.pause(),
            Trouble::Stop(node, time) => self.stop(node, time),
            Trouble::Deafen => self.deafen(),
            Trouble::Amnesia => self.amnesia(),
            Trouble::Forget(leader, voter) => self.forget(leader, voter),
            Trouble::WallJump => {
                let node = self.any_node();
                let by = self
                    .rng
                    .random_range(-self.faults.wall_jump_ms..=self.faults.wall_jump_ms);
                trace!(self, "n{node}: the wall clock jumps by {by} ms");
                self.nodes[node].clock.jump_wall(by);
                self.note_clocks();
            }
            Trouble::SlowDisk => {
                let node = self.any_node();
                trace!(self, "n{node}: the disk is slow");
                self.nodes[node].sync_mean = self.faults.slow_sync_mean;
                let time = self.rng.random_range(100 * MS..4_000 * MS);
                self.schedule
                    .after(time, Event::Trouble(Trouble::FastDisk(node)));
            }
            Trouble::FastDisk(node) => self.nodes[node].sync_mean = self.faults.sync_mean,
            Trouble::DiskFull => self.disk_full(),
            Trouble::DiskFree(node) => self.disk_free(node),
            Trouble::Flush => {
                let node = self.any_node();
                let unflushed = self.nodes[node].engine.unflushed_batches();
                let upto = self.rng.random_range(0..=unflushed);
                self.nodes[node].engine.complete_flush(upto);
            }
            Trouble::Split => {
                let keys: Vec<_> = self
                    .workload
                    .keys
                    .iter()
                    .map(|k| k.record.clone())
                    .chain(self.workload.keeps.iter().map(|(_, record)| record.clone()))
                    .collect();
                let led = self.led();
                let command = self.admin.split(&led, &keys);
                self.ask(command, Trouble::Split);
            }
            Trouble::Merge => {
                let (led, stores) = (self.led(), self.lasting_stores());
                let merge = self.admin.merge(&led, &stores);
                if merge.is_none() || self.rng.random_bool(0.25) {
                    // Something to merge again.
                    let keys = self.workload.records();
                    let split = self.admin.split(&led, &keys);
                    self.ask(split, Trouble::Split);
                } else if let Some((command, is)) = merge {
                    if is == Trouble::Merge && self.rng.random_bool(0.5) {
                        let soon = self.rng.random_range(MS / 5..40 * MS);
                        let (trip, soon) = match self.rng.random_bool(0.4) {
                            true if self.has(Class::Partition) => (Trouble::Estrange(100), MS / 2),
                            _ => (Trouble::Trip, soon),
                        };
                        self.schedule.after(soon, Event::Trouble(trip));
                    }
                    self.ask(Some(command), is);
                }
            }
            Trouble::Estrange(tries) => self.estrange(tries),
            Trouble::Isolate(node) => self.isolate(node),
            Trouble::Trip => match self.rng.random_range(0..3) {
                0 if self.has(Class::Crash) => self.crash(),
                1 if self.has(Class::Pause) => self.pause(),
                2 if self.has(Class::Partition) => self.partition(),
                _ => {}
            },
            Trouble::Transfer => {
                let led = self.led();
                let command = self.admin.transfer(&led);
                self.ask(command, Trouble::Transfer);
            }
            Trouble::Membership => {
                let (led, stores) = (self.led(), self.lasting_stores());
                let careful = self.has(Class::Wipe);
                let command = self.admin.change_members(&led, &stores, careful);
                self.ask(command, Trouble::Membership);
            }
            Trouble::Lull => {
                let time = self.rng.random_range(500 * MS..=self.faults.lull_max);
                self.lull_until = self.schedule.now() + time;
                trace!(self, "a lull of {} ms", time / MS);
            }
            Trouble::Drain => self.drain(),
            Trouble::Wipe => self.wipe()?,
            Trouble::Restart(_) | Trouble::Repair => {}
        }
        if trouble != Trouble::Deafen {
            self.come_again(trouble);
        }
        Ok(())
    }

    fn any_node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    /// A random node, but in half of the cases one that leads something.
    fn some_node(&mut self) -> usize {
        let led = self.led();
        match led.choose(&mut self.rng) {
            Some((_, hint)) if self.rng.random_bool(0.5) => self.node_of(hint.store).unwrap_or(0),
            _ => self.any_node(),
        }
    }

    // ---- network -----------------------------------------------------------------------

    fn partition(&mut self) {
        let n = self.nodes.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut self.rng);
        let victim = self.some_node();
        let one_way = self.rng.random_bool(self.faults.one_way);
        let side: Vec<usize> = match self.rng.random_range(0..4) {
            0 | 1 => vec![victim],
            2 => order[..n / 2].to_vec(),
            _ => Vec::new(),
        };
        let mut cuts = Vec::new();
        for from in 0..n {
            for to in 0..n {
                let cut = match (side.is_empty(), one_way) {
                    // A ring: each store reaches its neighbours alone, so that everybody
                    // sees a majority, and no two the same (for five stores).
                    (true, _) => {
                        let at = |x: usize| order.iter().position(|o| *o == x).unwrap_or(0);
                        let apart = at(from).abs_diff(at(to));
                        from != to
                            && apart.min(n - apart) > n / 4
                            && (n > 3
                                || (from, to) == (order[0], order[1])
                                || (to, from) == (order[0], order[1]))
                    }
                    (false, false) => side.contains(&from) != side.contains(&to),
                    (false, true) => side.contains(&from) && !side.contains(&to),
                };
                if cut {
                    cuts.push(if one_way && self.rng.random_bool(0.5) {
                        (to, from)
                    } else {
                        (from, to)
                    });
                }
            }
        }
        if one_way {
            // All in one direction, in or out.
            let inward = self.rng.random_bool(0.5);
            cuts.iter_mut().for_each(|cut| {
                let out = side.contains(&cut.0) || side.is_empty();
                if out == inward {
                    *cut = (cut.1, cut.0);
                }
            });
        }
        cuts.sort_unstable();
        cuts.dedup();
        trace!(self, "partition: {cuts:?}");
        self.counts.partitions += 1;
        cuts.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        let time = self
            .rng
            .random_range(50 * MS..=self.faults.partition_max.max(51 * MS));
        self.schedule
            .after(time, Event::Trouble(Trouble::Mend(cuts)));
    }

    /// Stops the links of a node one after the other, frees them in another order.
    fn clog(&mut self) {
        let node = self.some_node();
        let links: Vec<(usize, usize)> = (0..self.nodes.len())
            .filter(|o| *o != node)
            .flat_map(|o| [(node, o), (o, node)])
            .collect();
        trace!(self, "clog around n{node}");
        for (from, to) in links {
            if self.rng.random_bool(0.7) {
                self.net.clog(from, to);
                let time = self.rng.random_range(10 * MS..3_000 * MS);
                self.schedule
                    .after(time, Event::Trouble(Trouble::Unclog(from, to)));
            }
        }
    }

    fn unclog(&mut self, from: usize, to: usize) {
        let now = self.schedule.now();
        for (time, bytes) in self.net.unclog(now, from, to) {
            self.schedule.at(time, Event::Frame { from, to, bytes });
        }
    }

    // ---- processes ---------------------------------------------------------------------

    fn crash(&mut self) {
        let all = self.rng.random_bool(self.faults.crash_all);
        let victims: Vec<usize> = if all {
            (0..self.nodes.len()).collect()
        } else {
            vec![self.some_node()]
        };
        for node in victims {
            let power_cut = self.rng.random_bool(self.faults.power_cut);
            self.crash_node(node, power_cut);
            let down = self.rng.random_range(MS..=self.faults.down_max.max(2 * MS));
            self.schedule
                .after(down, Event::Trouble(Trouble::Restart(node)));
        }
    }

    fn pause(&mut self) {
        let node = self.some_node();
        let time = self
            .rng
            .random_range(10 * MS..=self.faults.pause_max.max(11 * MS));
        self.stop(node, time);
    }

    fn stop(&mut self, node: usize, time: Time) {
        let until = self.schedule.now() + time;
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.paused_until = process.paused_until.max(until);
            self.counts.pauses += 1;
            for connection in &mut self.connections {
                if connection.node == node {
                    connection.is_held_up(until);
                }
            }
            trace!(self, "n{node} is stopped until {:.3}", until as f64 / 1e9);
        }
    }

    /// A leader that waits for acknowledgements is deaf, then also stopped until another one
    /// leads, and then hears, one by one, the answers to what it sent before.
    fn deafen(&mut self) {
        let now = self.schedule.now();
        let waits = |node: &crate::node::Node| match &node.process {
            Some(process) if process.paused_until <= now => process
                .groups(node.now(now))
                .iter()
                .any(|g| g.is_leader && g.last_index > g.committed),
            _ => false,
        };
        let nodes = self.nodes.len();
        let hears = |to: usize| (0..nodes).all(|from| !self.net.is_clogged(from, to));
        let waiting: Vec<usize> = (0..nodes)
            .filter(|n| waits(&self.nodes[*n]) && hears(*n))
            .collect();
        let Some(&node) = waiting.choose(&mut self.rng) else {
            let soon = self.rng.random_range(MS / 2..5 * MS);
            return self.schedule.after(soon, Event::Trouble(Trouble::Deafen));
        };
        trace!(self, "n{node} is deaf");
        let deaf = self.rng.random_range(MS / 10..20 * MS);
        let time = self.rng.random_range(1_200 * MS..4_000 * MS);
        self.schedule
            .after(deaf, Event::Trouble(Trouble::Stop(node, time)));
        for from in (0..self.nodes.len()).filter(|from| *from != node) {
            let late = self.rng.random_range(MS..700 * MS);
            self.net.clog(from, node);
            self.schedule.after(
                deaf + time + late,
                Event::Trouble(Trouble::Unclog(from, node)),
            );
        }
        let every = exponential(&mut self.rng, self.faults.deafen_every) + MS;
        self.schedule.after(every, Event::Trouble(Trouble::Deafen));
    }

    fn amnesia(&mut self) {
        let led: Vec<_> = self
            .led()
            .into_iter()
            .filter(|(d, _)| d.replicas.len() == 3)
            .collect();
        let Some((descriptor, hint)) = led.choose(&mut self.rng) else {
            return;
        };
        let mut others: Vec<usize> = descriptor
            .replicas
            .iter()
            .filter(|r| r.store != hint.store)
            .filter_map(|r| self.node_of(r.store))
            .collect();
        others.shuffle(&mut self.rng);
        let (Some(leader), &[candidate, voter]) = (self.node_of(hint.store), &others[..]) else {
            return;
        };
        trace!(self, "n{candidate} is cut off from n{leader}");
        self.cut_for(leader, candidate, 5_000 * MS);
        let delay = self.rng.random_range(1_000 * MS..3_500 * MS);
        self.schedule
            .after(delay, Event::Trouble(Trouble::Forget(leader, voter)));
    }

    fn forget(&mut self, leader: usize, voter: usize) {
        self.cut_for(leader, voter, 1_500 * MS);
        self.crash_node(voter, false);
        let down = self.rng.random_range(MS..40 * MS);
        self.schedule
            .after(down, Event::Trouble(Trouble::Restart(voter)));
    }

    fn estrange(&mut self, tries: u32) {
        let now = self.schedule.now();
        let frozen = |group: &GroupView| {
            !group.is_leader && matches!(group.merging, Some(Merging::Frozen { .. }))
        };
        let nodes: Vec<usize> = (0..self.nodes.len())
            .filter(|n| {
                let node = &self.nodes[*n];
                let process = node.process.as_ref();
                process.is_some_and(|p| p.groups(node.now(now)).iter().any(frozen))
            })
            .collect();
        let Some(&node) = nodes.choose(&mut self.rng) else {
            if tries > 0 {
                let again = Event::Trouble(Trouble::Estrange(tries - 1));
                self.schedule.after(MS / 5, again);
            }
            return;
        };
        // It may have said by then that it is frozen, or not.
        let soon = self.rng.random_range(0..3 * MS);
        self.schedule
            .after(soon, Event::Trouble(Trouble::Isolate(node)));
    }

    fn isolate(&mut self, node: usize) {
        trace!(self, "n{node} is cut off from all");
        let time = self.rng.random_range(500 * MS..6_000 * MS);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut_for(node, other, time);
        }
    }

    fn cut_for(&mut self, a: usize, b: usize, time: Time) {
        let cuts = vec![(a, b), (b, a)];
        cuts.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        self.schedule
            .after(time, Event::Trouble(Trouble::Mend(cuts)));
    }

    fn disk_full(&mut self) {
        let node = self.any_node();
        trace!(self, "n{node}: the disk is full");
        self.nodes[node].engine.set_full(true);
        // The product's shell watches the free space and says so in time; or it is too late.
        if self.rng.random_bool(0.3) {
            self.nodes[node].disk.set_bytes_max(Some(0));
        }
        self.deliver(node, StoreEvent::DiskFull(true));
        let time = self.rng.random_range(100 * MS..3_000 * MS);
        self.schedule
            .after(time, Event::Trouble(Trouble::DiskFree(node)));
    }

    pub(crate) fn disk_free(&mut self, node: usize) {
        self.nodes[node].engine.set_full(false);
        self.nodes[node].disk.set_bytes_max(None);
        self.deliver(node, StoreEvent::DiskFull(false));
    }

    fn wipe(&mut self) -> Result<(), String> {
        let node = self.any_node();
        // Who is lost before it has registered is waited for: it counts as a member of a new
        // cluster that is on its way.
        let process = self.nodes[node].process.as_ref();
        if self.has_placement() && process.is_none_or(|p| !p.placement.is_registered()) {
            self.schedule.after(300 * MS, Event::Trouble(Trouble::Wipe));
            return Ok(());
        }
        trace!(self, "n{node} is lost for ever");
        self.crash_node(node, true);
        self.nodes[node].wiped = true;
        let new = self.add_node();
        self.start_node(new)
    }

    // ---- ranges ------------------------------------------------------------------------

    pub(crate) fn ask(
        &mut self,
        command: Option<(rangekv_proto::StoreId, rangekv_proto::Request)>,
        what: Trouble,
    ) {
        let Some((store, request)) = command else {
            return;
        };
        let token = self.token();
        trace!(
            self,
            "admin asks s{store} ({token}) for {what:?} of range {}",
            request.range
        );
        self.admin_open.insert(token, what);
        self.send_request(store, Caller::Admin, token, request);
    }

    pub(crate) fn admin_heard(&mut self, token: u64, response: Response) {
        let Some(what) = self.admin_open.remove(&token) else {
            return;
        };
        if response.is_ok() {
            match what {
                Trouble::Split => self.counts.splits += 1,
                Trouble::Merge => self.counts.merges += 1,
                Trouble::Transfer => self.counts.transfers += 1,
                Trouble::Membership | Trouble::Repair => self.counts.member_changes += 1,
                _ => {}
            }
        }
    }
}
