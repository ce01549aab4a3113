"""Six nodes on one machine by deploy/six-nodes, with all their usual ports, in a network namespace of their
own: rows A."""

import json
import os
import shutil
import time

from drill import Drill as Base
from drill import Skip
from lab import DEPLOY, run
from typed import type_, until

SCRIPTS = DEPLOY / "six-nodes"


class Drill(Base):
    def setup(self):
        self.namespace = None
        self.base = self.lab.directory / "six"

    def here(self, command, ok=True, timeout=180, **more):
        """Types a command on that machine."""
        quoted = command.replace("'", "'\\''")
        return type_(f"ip netns exec {self.namespace} bash -o pipefail -c '{quoted}'", ok=ok, timeout=timeout,
                     cwd=self.lab.directory, environment={"BASE": str(self.base), **more})

    def cli(self, node, words, ok=True):
        return self.here(f"redis-cli -p {6378 + node} {words}", ok=ok)

    def test_A1_scripts_of_six_nodes(self):
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise Skip("a network namespace needs root and `ip`")
        self.namespace = f"{self.lab.tag}-six"
        run("ip", "netns", "add", self.namespace)
        self.here("ip link set lo up")
        # Before there is anything to make a cluster of: a failing step, by name.
        early = self.here(f"timeout 20 {SCRIPTS}/init-cluster.sh", ok=False, RANGEKV="/does/not/exist")
        assert early.status != 0, early
        early = self.here(f"{SCRIPTS}/start.sh", ok=False, RANGEKV="/does/not/exist")
        assert early.status != 0 and "/does/not/exist" in early.err, early
        self.here(f"{SCRIPTS}/start.sh")
        self.here(f"{SCRIPTS}/init-cluster.sh")
        # All of it once more.
        again = self.here(f"{SCRIPTS}/start.sh")
        assert again.count("runs already") == 6, again
        self.here(f"{SCRIPTS}/init-cluster.sh")
        assert self.cli(4, "SET six nodes") == "OK" and self.cli(6, "GET six") == "nodes"

    def test_A2_cluster_commands(self):
        for key, slot in [("mykey", 14687), ("foo", 12182), ("{user:1000}:name", 1649), ("123456789", 12739)]:
            assert self.cli(2, f"CLUSTER KEYSLOT {key}") == str(slot), key
        until("ok", lambda: "cluster_state:ok" in self.cli(1, "-c CLUSTER INFO"))
        info = self.cli(1, "-c CLUSTER INFO")
        assert "cluster_slots_assigned:16384" in info and "cluster_known_nodes:6" in info, info
        ids = {self.cli(n, "CLUSTER MYID") for n in range(1, 7)}
        assert len(ids) == 6 and all(len(id_) == 40 for id_ in ids), ids
        nodes = self.cli(3, "-c CLUSTER NODES").splitlines()
        assert {line.split()[0] for line in nodes} == ids and sum("myself" in line for line in nodes) == 1, nodes
        slots = json.loads(self.here("redis-cli -p 6381 --json CLUSTER SLOTS"))
        covered = sorted(slot for first, last, *_ in slots for slot in range(first, last + 1))
        assert covered == list(range(16384)), "every slot once"
        shards = json.loads(self.here("redis-cli -3 -p 6382 --json CLUSTER SHARDS"))
        assert shards, shards
        for key in ("{tag}a", "{tag}b"):
            self.cli(1, f"SET {key} x")
        slot = int(self.cli(1, "CLUSTER KEYSLOT {tag}a"))
        assert self.cli(1, f"-c CLUSTER COUNTKEYSINSLOT {slot}") in ("2", "0"), "of the replica that is asked"
        owner = next(entry for entry in slots if entry[0] <= slot <= entry[1])
        port = owner[2][1]
        assert self.here(f"redis-cli -p {port} CLUSTER COUNTKEYSINSLOT {slot}") == "2"
        assert set(self.here(f"redis-cli -p {port} CLUSTER GETKEYSINSLOT {slot} 10").split()) == {"{tag}a", "{tag}b"}
        assert "ERR" not in self.cli(1, f"CLUSTER REPLICAS {owner[2][2]}")

    def test_A3_metaraft(self):
        members = self.cli(1, "CLUSTER METARAFT MEMBERS")
        assert members and not members.startswith("ERR"), members
        status = self.cli(2, "CLUSTER METARAFT STATUS")
        assert status and not status.startswith("ERR"), status

    def test_A4_meet_forget_failover(self):
        id_ = self.cli(2, "CLUSTER MYID")
        # Everybody has met: a true OK. A leader can't be forgotten while it is up.
        assert self.cli(1, "CLUSTER MEET 127.0.0.1 6380") == "OK"
        assert self.cli(1, f"CLUSTER FORGET {id_}", ok=False).out.startswith("ERR"), "a store that is up is not forgotten"
        answer = self.cli(3, "CLUSTER FAILOVER", ok=False).out
        assert answer == "OK" or answer.startswith("ERR"), answer

    def test_A5_slots_are_not_assigned_by_hand(self):
        for command in ("ADDSLOTS 1 2", "DELSLOTS 1", "SETSLOT 1 NODE x", "ADDSLOTSRANGE 1 5", "FLUSHSLOTS"):
            answer = self.cli(1, f"CLUSTER {command}", ok=False).out
            assert answer.startswith("ERR slots are managed by the placement driver"), (command, answer)

    def test_A6_a_cluster_client_through_a_failover_and_a_split(self):
        script = SCRIPTS.parents[1] / "tests/acceptance/cluster_client.py"
        endpoints = ",".join(f"127.0.0.1:{50050 + n}" for n in range(1, 7))
        stop = self.lab.directory / "six-client"
        # An owner of slots is killed and a range is split while the client writes and reads.
        out = self.here(
            f"python3 {script} 127.0.0.1 6379 {stop} & client=$!; "
            f"until [ -e {stop}.owner ] || ! kill -0 $client; do sleep 0.1; done; sleep 2; "
            f"kill -9 $(cat {self.base}/node$(($(cat {stop}.owner) - 6378)).pid); sleep 3; "
            f"until rangekv ctl --endpoints {endpoints} range split --slot 9000; do sleep 1; done; sleep 3; "
            f"touch {stop}; wait $client", timeout=120)
        assert "no write was lost" in out, out
        self.here(f"{SCRIPTS}/start.sh")

    def test_A1_stop(self):
        self.here(f"{SCRIPTS}/stop.sh")
        self.here(f"{SCRIPTS}/stop.sh")
        assert self.cli(1, "PING", ok=False).status != 0
        self.here(f"{SCRIPTS}/start.sh")
        until("what was written", lambda: self.cli(2, "GET six") == "nodes")
        self.here(f"{SCRIPTS}/stop.sh --wipe")
        assert not self.base.exists()

    def show(self):
        for log in sorted(self.base.glob("*.log")):
            print(f"──── {log.name}", *log.read_text().splitlines()[-10:], sep="\n    ", flush=True)

    def close(self):
        if self.namespace:
            type_(f"ip netns exec {self.namespace} {SCRIPTS}/stop.sh --wipe", ok=False, environment={"BASE": str(self.base)})
            for pid in run("ip", "netns", "pids", self.namespace, check=False).split():
                run("kill", "-9", pid, check=False)
            until("no process is left", lambda: not run("ip", "netns", "pids", self.namespace, check=False).strip())
            time.sleep(0.1)
            run("ip", "netns", "del", self.namespace, check=False)
