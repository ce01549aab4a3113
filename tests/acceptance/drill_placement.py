"""Three placement nodes and stores that only know them by name: rows H1, H4 and H8."""

import os
import time

from drill import Drill as Base
from drill import apart
from load import Connection
from typed import grpc, http, redis, settle, type_, until

VALUE = 256 << 10
VALUES = 80  # 20 MiB: five times the limit of a gRPC message


class Drill(Base):
    def setup(self):
        """Three stores, listening everywhere, known by name."""
        for n in range(1, 4):
            self.host(f"s{n}", 180 + n)
        self.members = ",".join(f"{host.name}={host.name}:50051" for host in self.hosts)

    def argv(self, host, *more):
        return ["/app", "--id", host.name, "--address", "0.0.0.0:50051", "--advertise-address", f"{host.name}:50051",
                "--data-dir", host.data, *more]

    def test_H1_names_as_addresses_and_an_advertised_one(self):
        one = self.hosts[0]
        status, out = one.try_(["/app", "--id", "s1", "--address", "0.0.0.0:50051", "--data-dir", "/data/x",
                                "--bootstrap", "--bootstrap-members", self.members])
        assert status != 0 and "--advertise-address" in out, (status, out)
        for host in self.hosts:
            first = ["--bootstrap", "--bootstrap-members", self.members] if host is one else []
            host.run(self.argv(host, *first))
        settle(self.hosts)
        servers = grpc(one, "RaftAdmin/GetConfiguration")["servers"]
        assert {server["address"] for server in servers} == {f"{host.name}:50051" for host in self.hosts}, servers
        nodes = http(self.hosts[1], "/cluster")[1]["nodes"]
        for node in nodes:
            for kind in ("address", "redis_address", "http_address"):
                assert node[kind].split(":")[0] == node["name"], node

    def test_H4_a_snapshot_larger_than_a_message_and_a_kill_while_it_is_installed(self):
        connection = Connection(self.hosts[0].ip)
        written = {}
        for n in range(VALUES):
            key, value = b"{big}%d" % n, os.urandom(VALUE)
            until("a large value", lambda key=key, value=value: connection.ask(b"SET", key, value) == "+OK")
            written[key] = value
        type_(f"rangekv ctl --endpoints {self.hosts[0].grpc} config set replication-factor 3")
        four = self.host("s4", 184)
        four.run(self.argv(four, "--join", ",".join(f"{host.name}:50051" for host in self.hosts)))
        until("it has joined", lambda: redis(four, "SET", "joined", "yes") == "OK")
        # The range with the large values is given to it, and it is killed while that goes on, a few times.
        route = self.range_of("{big}1")
        gone = next(replica["name"] for replica in route["replicas"] if replica["name"] != route["leader"]["name"])
        if "s4" not in {replica["name"] for replica in route["replicas"]}:
            moved = lambda: "s4" in {r["name"] for r in self.range_of("{big}1")["replicas"] if r["role"] == "voter"}  # noqa: E731
            until("the move is ordered", lambda: moved() or type_(
                f"rangekv ctl --endpoints {self.hosts[0].grpc} range move {route['id']} {gone} s4", ok=False).status == 0, 60)
            for pause in (0.1, 0.3):
                time.sleep(pause)
                four.kill()
                four.start()
            until("the snapshot is installed", lambda: moved() or (type_(
                f"rangekv ctl --endpoints {self.hosts[0].grpc} range move {route['id']} {gone} s4", ok=False) and False), 90)
        # Whoever else holds the range is stopped: what is read now is what four has, by its own majority.
        settle([four])
        reader = Connection(four.ip)
        for key, value in written.items():
            assert reader.ask(b"GET", key) == value, key
        hashes = [replica for replica in self.range_of("{big}1")["replicas"] if replica["lagging"]]
        until("nobody lags", lambda: not [r for r in self.range_of("{big}1")["replicas"] if r["lagging"]], 60)
        del hashes
        others = [host for host in self.hosts if host is not four and host.name in
                  {replica["name"] for replica in self.range_of("{big}1")["replicas"]}]
        type_(f"rangekv ctl --endpoints {self.hosts[1].grpc},{self.hosts[2].grpc} range transfer-leader {route['id']} s4", ok=False)
        until("it leads", lambda: self.range_of("{big}1")["leader"]["name"] == "s4" or (type_(
            f"rangekv ctl --endpoints {self.hosts[1].grpc} range transfer-leader {route['id']} s4", ok=False) and False))
        assert others and Connection(four.ip).ask(b"GET", b"{big}7") == written[b"{big}7"]

    def range_of(self, key):
        status, reply = http(self.hosts[0], f"/partitions/key?key={key.replace('{', '%7B').replace('}', '%7D')}")
        assert status == 200, reply
        return reply.get("partition", reply)

    @apart
    def test_H8_placement_nodes_of_their_own(self):
        self.lab.retire(self.hosts)
        self.hosts.clear()
        placement = [self.host(f"pd{n}", 190 + n) for n in (1, 2, 3)]
        for n, host in enumerate(placement, 1):
            peers = ",".join(f"{'http://' if n != 2 else ''}{peer.name}:8080" for peer in placement if peer is not host)
            host.run(["/app", "pd", "--id", str(n), "--addr", "0.0.0.0:50051", "--advertise-address", f"{host.name}:50051",
                      "--peers", peers, "--http-port", "8080", "--storage-dir", f"{host.data}/raft"])
        until("one leader", lambda: len({grpc(host, "RaftAdmin/Leader").get("address") for host in placement} - {None}) == 1, 90)
        stores = [self.host(f"k{n}", 200 + n) for n in (1, 2, 3)]
        pd = ",".join(f"{host.name}:50051" for host in placement)
        for host in stores:
            host.run(["/app", "--id", host.name, "--address", f"{host.ip}:50051", "--data-dir", host.data, "--pd", pd])
        settle(stores)
        assert redis(stores[0], "SET", "placed", "elsewhere") == "OK" and redis(stores[2], "GET", "placed") == "elsewhere"
        members = grpc(placement[0], "RaftAdmin/GetConfiguration")["servers"]
        assert {server["address"] for server in members} == {f"{host.name}:50051" for host in placement}, members
        for r in http(stores[0], "/partitions")[1]["partitions"]:
            names = {replica["name"] for replica in r["replicas"]}
            holds = {"1", "2", "3"} if r["id"] == 1 else {host.name for host in stores}
            assert names <= holds, (r["id"], names)
        leader = next(host for host in placement if f"{host.name}:50051" == grpc(placement[0], "RaftAdmin/Leader")["address"])
        leader.kill()
        others = [host for host in placement if host is not leader]
        until("a new leader", lambda: len({grpc(host, "RaftAdmin/Leader").get("address") for host in others}
                                          - {None, f"{leader.name}:50051"}) == 1, 60)
        assert redis(stores[1], "GET", "placed") == "elsewhere"
