"""Faults between five hosts under load, whose history is checked: no acknowledged increment is lost, nothing is read
that is too old, and after each fault all nodes serve again. `--long SECONDS` goes on with random faults.
"""

import os
import random
import time
from collections import defaultdict

from drill import Drill as Base
from drill import Skip
from lab import run
from load import Load
from typed import settle, until

SHORT = 3  # seconds of each fault
SLOW = 10  # seconds after a fault: longer is worth a line
NODES = 5
DISK_MIB = 480  # of which 256 are the node's reserve


class Drill(Base):
    def setup(self):
        for n in range(1, NODES + 1):
            self.host(f"f{n}", 100 + n)
        self.members = ",".join(f"{host.name}={host.grpc}" for host in self.hosts)
        # The last one has a small disk.
        self.mounted = os.geteuid() == 0
        if self.mounted:
            run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", self.hosts[-1].disk)
        for host in self.hosts:
            first = ["--bootstrap", "--bootstrap-members", self.members] if host is self.hosts[0] else []
            host.run(["/app", "--id", host.name, "--address", host.grpc, "--data-dir", host.data, *first])
        self.load = None

    def under_load(self, name, begin, end, seconds=SHORT):
        """One fault under load; all serve again before the history is judged."""
        with Load(self.hosts) as load:
            time.sleep(1)
            load.mark()
            begin()
            time.sleep(seconds)
            gap = load.mark()
            end()
            healed = time.monotonic()
            settle(self.hosts, keys=8)
            back = time.monotonic() - healed
            time.sleep(0.5)
        print(f"    {name}: longest without a success {gap:.1f} s, all serve {back:.1f} s after its end; {load.verdict()}")

    def heal(self):
        for host in self.hosts:
            host.heal()

    def cut(self, name, *pairs, both=True):
        """Hosts of each pair hear nothing of each other."""
        def begin():
            for one, other in pairs:
                one.refuse(other, both=both)
        self.under_load(name, begin, self.heal)

    def test_F1_one_node_isolated(self):
        settle(self.hosts)
        for host in self.hosts:
            try:
                host.in_network("iptables", "-S")
            except AssertionError as error:
                raise Skip(f"iptables does not work in a host: {error}") from None
        one, *others = self.hosts
        self.cut("one isolated", *((one, other) for other in others))

    def test_F2_minority_and_majority(self):
        few, many = self.hosts[:2], self.hosts[2:]
        self.cut("two against three", *((one, other) for one in few for other in many))

    def test_F3_one_way(self):
        one, *others = self.hosts[1:]
        self.cut("one hears nobody, and is heard", *((one, other) for other in others), both=False)

    def test_F4_bridge(self):
        left, right = self.hosts[:2], self.hosts[3:]
        self.cut("two pairs, one in the middle", *((one, other) for one in left for other in right))

    def test_F5_loss(self):
        def begin():
            for host in self.hosts:
                host.lose(0.2, *(other for other in self.hosts if other is not host))
        self.under_load("a fifth of all packets lost", begin, self.heal)

    def test_F6_pause(self):
        self.under_load("one paused", self.hosts[1].pause, self.hosts[1].resume)

    def test_F7_kill(self):
        two = self.hosts[2:4]
        def begin():
            for host in two:
                host.kill()
        def end():
            for host in two:
                host.start()
        self.under_load("two of five killed", begin, end)

    def test_F8_full_disk(self):
        if not self.mounted:
            raise Skip("a small disk needs root, to be mounted")
        full = self.hosts[-1]
        filler = full.disk / "filler"
        def begin():
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 20))
                        file.flush()
                except OSError:
                    return
        def end():
            filler.unlink()
            until("it runs", lambda: full.running() or full.start())
        self.under_load("one disk full to the last byte", begin, end)

    def test_F9_delay(self):
        def begin():
            for host in self.hosts:
                host.slow(0.02, 0.005)
        self.under_load("20 ms more on every way", begin, self.heal)

    def test_F11_throttle(self):
        one = self.hosts[1]
        self.under_load("100 kB/s from one node to the others", lambda: one.slow(0.0, rate=100_000), self.heal)

    def test_F10_many_at_random(self):
        if not self.options.long:
            raise Skip("only with --long SECONDS")
        seed = int(time.time())
        print(f"    seed {seed}")
        draw, until_ = random.Random(seed), time.monotonic() + self.options.long
        # By kind of fault: how long until all five served again, and the longest time without any success.
        back, gaps = defaultdict(list), defaultdict(list)
        with Load(self.hosts, seed=seed) as load:
            while time.monotonic() < until_ and not load.faults:
                load.mark()
                kind = self.random_fault(draw)
                healed = time.monotonic()
                settle(self.hosts, keys=8)
                back[kind].append(time.monotonic() - healed)
                gaps[kind].append(load.mark())
                if back[kind][-1] > SLOW:
                    print(f"    {time.strftime('%H:%M:%S')} {kind}: {back[kind][-1]:.0f} s until all served, load average "
                          f"{os.getloadavg()[0]:.0f}", flush=True)
        for kind in sorted(back):
            print(f"    {kind}: {len(back[kind])} times; all serve {max(back[kind]):.1f} s after its end at the latest, longest "
                  f"without a success {max(gaps[kind]):.1f} s")
        print(f"    {sum(map(len, back.values()))} faults in {self.options.long} s; {load.verdict()}")

    def random_fault(self, draw):
        hosts = draw.sample(self.hosts, NODES)
        kind = draw.choice(["split", "one-way", "bridge", "loss", "slow", "pause", "kill", "kill all"])
        seconds = draw.uniform(0.2, 8)
        down = hosts[:2] if kind == "kill" else hosts if kind == "kill all" else []
        if kind == "split":
            size = draw.randint(1, 2)
            for one in hosts[:size]:
                one.refuse(*hosts[size:])
        elif kind == "one-way":
            hosts[0].refuse(*hosts[1:draw.randint(2, 5)], both=False)
        elif kind == "bridge":
            for one in hosts[:2]:
                one.refuse(*hosts[3:])
        elif kind == "loss":
            for host in hosts:
                host.lose(draw.uniform(0.05, 0.4), *(other for other in hosts if other is not host))
        elif kind == "slow":
            for host in hosts:
                host.slow(draw.uniform(0.005, 0.1), draw.uniform(0, 0.02))
        elif kind == "pause":
            hosts[0].pause()
        for host in down:
            host.kill()
        time.sleep(seconds)
        if kind == "pause":
            hosts[0].resume()
        for host in down:
            host.start()
        if not down:
            self.heal()
        return kind
