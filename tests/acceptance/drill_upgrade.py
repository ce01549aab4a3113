"""A rolling upgrade as docs/OPERATIONS.md types it, under load, whose history is checked: from the binary of
`--previous` if it is given, else from the same one.
"""

import pathlib
import time

from drill import Drill as Base
from load import Load
from typed import grpc, settle, type_, until


class Drill(Base):
    def setup(self):
        for n in range(1, 4):
            self.host(f"u{n}", 150 + n)
        self.members = ",".join(f"{host.name}={host.grpc}" for host in self.hosts)
        previous = self.options.previous
        self.old = self.lab.prepare(pathlib.Path(previous).resolve(), "previous") if previous else None
        for host in self.hosts:
            host.run(self.argv(host), image=self.old)

    def argv(self, host):
        first = ["--bootstrap", "--bootstrap-members", self.members] if host is self.hosts[0] else []
        return ["/app", "--id", host.name, "--address", host.grpc, "--data-dir", host.data, *first]

    def test_U1_one_node_after_the_other_under_load(self):
        settle(self.hosts)
        with Load(self.hosts) as load:
            time.sleep(1)
            for host in self.hosts:
                status, seconds = host.stop()
                assert status == 0, (host, status)
                host.replace(self.argv(host))
                type_(f"until curl -fsS http://{host.ip}:8080/ready; do sleep 1; done", timeout=60)
                until("nothing lags", lambda: type_(
                    f"rangekv ctl --endpoints {host.grpc} --json status | jq .ranges_under_replicated") == "0")
                settle([host], keys=8)
            time.sleep(1)
            gap = load.mark()
        print(f"    longest without a success {gap:.2f} s; {load.verdict()}")
        refused = {kind: n for kind, n in load.errors.items() if not kind.startswith(("connect", "no reply"))}
        assert not refused, f"error replies although leaders move first: {refused}"
        assert all(grpc(host, "RaftAdmin/Leader") for host in self.hosts)
