"""A rolling upgrade as docs/OPERATIONS.md types it, under load, whose history is checked: from the binary of
`--previous` if it is given, else from the same one.
"""

import pathlib
import struct
import time
import zlib

from drill import Drill as Base
from load import Load
from typed import grpc, http, settle, type_, until


# Leaders move before a node stops, so that there should be none of these either; but where processors are
# taken away for seconds, as on a shared machine, elections come by themselves.
RETRYABLE = ("connect", "no reply", "UNKNOWN", "CLUSTERDOWN", "TRYAGAIN")


def only_retryable(load):
    strange = {kind: n for kind, n in load.errors.items() if not kind.startswith(RETRYABLE)}
    assert not strange, f"errors that no client expects: {strange}"


def newer_file(text):
    """One of the small files (a line naming its format, JSON, a checksum) as a later version might write it."""
    body = text[:text.rindex(b"crc32 ")]
    head, rest = body.split(b"\n", 1)
    assert head.endswith(b" 1"), head
    body = head[:-1] + b"2\n" + rest
    return body + b"crc32 %08x\n" % zlib.crc32(body)


def newer_segment(log):
    """A segment of the raft log whose header says version 2."""
    head = log[:7] + b"\x02" + log[8:24]
    return head + struct.pack("<I", zlib.crc32(head)) + log[28:]


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
        only_retryable(load)
        assert all(grpc(host, "RaftAdmin/Leader") for host in self.hosts)

    def test_U2_a_node_is_added_emptied_and_removed_under_load(self):
        one = self.hosts[0]
        ctl = f"rangekv ctl --endpoints {one.grpc},{self.hosts[1].grpc}"
        with Load(self.hosts) as load:
            four = self.host("u4", 154)
            four.run(["/app", "--id", "u4", "--address", four.grpc, "--data-dir", four.data, "--join",
                      f"{one.grpc},{self.hosts[1].grpc}"])
            until("it holds replicas", lambda: self.held("u4") > 0, 60)
            type_(f"{ctl} store drain u4 --wait && {ctl} store remove u4", timeout=120)
            assert self.held("u4") == 0
        print(f"    longest without a success {load.mark():.2f} s; {load.verdict()}")
        only_retryable(load)
        assert "u4" not in [node["name"] for node in http(one, "/cluster")[1]["nodes"]]

    def test_U3_a_newer_format_is_refused(self):
        host = self.hosts[2]
        segment = max((host.disk / "log").glob("*.log"))
        for path, change, said in ((host.disk / "IDENTITY", newer_file, "has format 2, but this version of rangekv reads formats up to 1"),
                                   (segment, newer_segment, "has format 2, which this version does not know")):
            host.stop()
            # What is written after this is lost with the copy: the node is not running.
            kept = path.read_bytes()
            path.write_bytes(change(kept))
            host.start()
            until(f"{path.name} is refused", lambda said=said: said in host.logs(), 60)
            # It has ended; where there are containers, one starts again until it is told not to.
            host.stop()
            path.write_bytes(kept)
            host.start()
            settle([host], keys=8)

    def held(self, name):
        """Replicas on a store."""
        stats = http(self.hosts[0], "/partitions/stats")[1]["nodes"]
        return sum(node["partitions"] for node in stats if node["name"] == name)
