"""Three nodes of deploy/docker-compose.yml and a fourth, as deploy/README.md types it: rows C.

Without containers the same nodes, with the same variables, run in network namespaces; row C1 is then skipped.
"""

import json
import shutil
import time

from drill import Drill as Base
from drill import Skip
from lab import DEPLOY, run
from typed import http, redis, settle, type_, until

NAMES = ["node1", "node2", "node3"]
MEMBERS = ",".join(f"{name}={name}:50051" for name in NAMES)


class Service:
    """One service of the compose file."""

    def __init__(self, drill, name):
        self.drill, self.name, self.label = drill, name, f"compose-{name}"

    def __repr__(self):
        return self.name

    @property
    def container(self):
        return run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.drill.project}",
                   "--filter", f"label=com.docker.compose.service={self.name}").strip()

    @property
    def ip(self):
        """Of the container as it runs now."""
        if self.name not in self.drill.ips:
            self.drill.ips[self.name] = run(
                "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                self.container).strip()
        return self.drill.ips[self.name]

    def stop(self):
        self.drill.compose(f"stop {self.name}")

    def start(self):
        self.drill.compose(f"start {self.name}")

    def logs(self):
        return self.drill.compose(f"logs --tail=100 {self.name}")

    def exec(self, *arguments):
        done = type_(f"docker-compose exec -T {self.name} /app {' '.join(arguments)}", ok=False,
                     cwd=DEPLOY, environment=self.drill.variables)
        return done.status, done.out + done.err

    def remove(self):
        pass


class Drill(Base):
    def setup(self):
        self.composed = self.lab.kind == "containers" and bool(shutil.which("docker-compose"))
        if self.composed:
            # A loopback address of its own, so that the ports are those that a user types.
            self.bind = f"127.{self.lab.prefix.split('.')[2]}.231.1"
            self.project = f"{self.lab.tag}-compose"
            self.ips = {}
            self.variables = {"RANGEKV_IMAGE": self.lab.image, "RANGEKV_BIND": self.bind,
                              "COMPOSE_PROJECT_NAME": self.project}
            self.hosts = [Service(self, name) for name in NAMES]
        else:
            for n, name in enumerate(NAMES, 1):
                self.host(name, 50 + n)

    def compose(self, words):
        if words.split()[0] not in ("logs", "ps"):
            # Containers that start may get other addresses.
            self.ips.clear()
        return type_(f"docker-compose {words}", cwd=DEPLOY, environment=self.variables, timeout=120)

    def run_node(self, host, environment=(), arguments=("start",)):
        host.run(["/app", *arguments], {"NODE_ID": host.name, "RAFT_ADDR": f"{host.name}:50051",
                                        "DATA_DIR": host.data, **dict(environment)})

    def test_C1_compose_up_stop_start_down(self):
        if not self.composed:
            for host in self.hosts:
                first = ("--bootstrap", "--bootstrap-members", MEMBERS)
                self.run_node(host, arguments=first if host.name == "node1" else ("start",))
            settle(self.hosts)
            raise Skip("docker-compose needs a Docker Engine; the nodes run without it")
        began = time.monotonic()
        self.compose("up -d")
        up = time.monotonic()
        settle(self.hosts)
        print(f"    up after {up - began:.1f} s, serving {time.monotonic() - up:.1f} s later")
        assert redis(self.bind, "SET", "composed", "yes") == "OK"
        self.compose("stop node2")
        assert redis(self.bind, "GET", "composed") == "yes"
        self.compose("start node2")
        settle(self.hosts)
        until("healthy", lambda: all("healthy" in run("docker", "inspect", "-f", "{{.State.Health.Status}}", host.container).split()
                                     for host in self.hosts))
        assert "node1" in self.compose("logs --tail=100 node1")
        self.compose("down")
        self.compose("up -d")
        settle(self.hosts)
        assert redis(self.bind, "GET", "composed") == "yes"
        self.compose("down -v")
        self.compose("up -d")
        settle(self.hosts)
        assert redis(self.bind, "GET", "composed") == "", "gone after down -v"

    def test_C2_nodes_of_the_cluster(self):
        address = f"{self.bind if self.composed else self.hosts[0].ip}:8080"
        until("three nodes", lambda: type_(f"curl -s {address}/cluster | jq '.nodes | length'") == "3")
        assert type_(f"curl -s {address}/cluster | jq '.cluster.nodes | length'") == "3"
        etag = lambda: type_(f"curl -sD - -o /dev/null {address}/cluster | grep -i ^etag: | tr -d '\\r'")  # noqa: E731
        before = etag()
        assert before, "an ETag"
        self.hosts[1].stop()
        def gone():
            status, cluster = http(self.hosts[0], "/cluster")
            node = next(node for node in cluster["nodes"] if "node2" in json.dumps(node))
            assert len(cluster["nodes"]) == 3, cluster
            return str(node.get("status", "")).lower() not in ("active", "")
        until("node2 is listed, not as active", gone, 40)
        self.hosts[1].start()
        settle(self.hosts)
        until("active", lambda: all(str(node["status"]).lower() == "active" for node in http(self.hosts[0], "/cluster")[1]["nodes"]))

    def test_C3_health(self):
        for host in self.hosts:
            status, health = http(host, "/health")
            assert status == 200 and health["success"] is True and health["message"] == "healthy", health
            status, ready = http(host, "/ready")
            assert status == 200, ready
            status, detailed = http(host, "/health/detailed")
            text = json.dumps(detailed)
            assert status == 200 and host.name in text and "uptime" in text and "lag" in text and "leader" in text, text[:600]
        before = http(self.hosts[0], "/health/detailed")[1]
        redis(self.hosts[0], "SET", "moves", "figures")
        until("figures move", lambda: http(self.hosts[0], "/health/detailed")[1] != before)

    def test_C5_partitions(self):
        status, partitions = http(self.hosts[0], "/partitions")
        assert status == 200, partitions
        ranges = partitions.get("partitions", partitions)
        assert len(ranges) >= 2 and all("leader" in r and "replicas" in r for r in ranges), ranges[:2]
        status, stats = http(self.hosts[1], "/partitions/stats")
        assert status == 200 and "under_replicated" in json.dumps(stats), stats
        status, one = http(self.hosts[2], "/partitions/key?key=user:123")
        assert status == 200 and "leader" in json.dumps(one), one

    def test_C6_metrics(self):
        for host in self.hosts:
            json.loads(type_(f"curl -s -H 'Accept: */*' {host.ip}:8080/metrics"))
            for asked in (f"{host.ip}:8080/metrics?format=prometheus", f"-H 'Accept: text/plain' {host.ip}:8080/metrics"):
                text = type_(f"curl -s {asked}")
                assert "# TYPE rangekv_replicas gauge" in text, text[:300]

    def test_C9_probe_a_neighbour(self):
        status, out = self.hosts[0].exec("probe", "node2:50051")
        assert status == 0 and "node2" in out, out
        status, out = self.hosts[0].exec("probe", "node2:50099", "--timeout", "2s")
        assert status != 0 and "node2:50099" in out, out

    def test_C4_keys_over_http(self):
        first, second, third = self.hosts
        json_ = "-H 'Content-Type: application/json'"
        set_ = type_(f"curl -s -X POST {first.ip}:9080/kv/set {json_} -d '{{\"key\":\"user:123\",\"value\":\"John Doe\"}}'")
        assert json.loads(set_)["status"] == "success" and json.loads(set_)["key"] == "user:123", set_
        for host in self.hosts:
            got = type_(f"curl -s '{host.ip}:9080/kv/get?key=user:123'")
            assert "John Doe" in got, got
            assert redis(host, "GET", "user:123") == "John Doe"
        assert redis(second, "SET", "by:redis", "too") == "OK"
        assert http(third, "/kv/get?key=by:redis", 9080)[0] == 200
        until("equal counts", lambda: len({http(host, "/kv/list?limit=1000", 9080)[1]["count"] for host in self.hosts}) == 1)
        assert type_(f"curl -s -X POST '{second.ip}:9080/kv/delete?key=user:123' -o /dev/null -w '%{{http_code}}'") == "200"
        for host in self.hosts:
            assert type_(f"curl -s '{host.ip}:9080/kv/get?key=user:123' -o /dev/null -w '%{{http_code}}'") == "404"
        for asked, status in [(f"-X POST {first.ip}:9080/kv/set {json_} -d '{{oops'", "400"), (f"-X DELETE {first.ip}:9080/kv/set", "405")]:
            assert type_(f"curl -s {asked} -o /dev/null -w '%{{http_code}}'") == status, asked

    def test_C7_a_fourth_joins_and_holds_replicas(self):
        # Without a variable: an exit that names it.
        stranger = self.lab.host("compose", "node5", 59)
        try:
            status, out = stranger.try_(["/app", "start"], {"NODE_ID": "node5", "JOIN_ADDR": "node1:50051", "DATA_DIR": "/data"})
            assert status != 0 and "RAFT_ADDR" in out, (status, out)
        finally:
            self.lab.retire([stranger])
        if self.composed:
            self.compose("--profile node4 up -d node4")
            self.hosts.append(Service(self, "node4"))
        else:
            self.run_node(self.host("node4", 54), {"JOIN_ADDR": "node1:50051,node2:50051"})
        began = time.monotonic()
        four = self.hosts[3]
        until("it serves", lambda: redis(four, "SET", "joined", "yes") == "OK")
        until("it holds replicas", lambda: any("node4" in names for names in holders(four)), 60)
        print(f"    replicas after {time.monotonic() - began:.1f} s")

    def test_C8_a_node_that_stays_away_is_replaced(self):
        two, four = self.hosts[1], self.hosts[3]
        type_(f"rangekv ctl --endpoints {self.hosts[0].ip}:50051 config set max-store-down-time 10s")
        two.stop()

        def replaced():
            held = holders(four)
            assert all(len(names) == 3 and "node2" not in names for names in held), held
            return True
        until("node2's replicas are elsewhere", replaced, 90)
        # Another one goes, and there is no spare: nobody else loses a place.
        self.hosts[2].stop()
        time.sleep(15)
        for name in ("node1", "node4"):
            host = next(host for host in self.hosts if host.name == name)
            until(f"{name} serves", lambda host=host: redis(host, "SET", "degraded", "yes") == "OK")
        held = holders(four)
        assert all(names == {"node1", "node3", "node4"} for names in held), held
        status = type_(f"rangekv ctl --endpoints {four.ip}:50051 status")
        assert "with too few live replicas" in status, status

    def close(self):
        if self.composed:
            type_("docker-compose --profile node4 down -v -t 2", ok=False, cwd=DEPLOY, environment=self.variables, timeout=120)
        else:
            super().close()


def partitions(host):
    status, reply = http(host, "/partitions")
    assert status == 200, reply
    return reply.get("partitions", reply)


def holders(host):
    """For each range the names of the nodes that hold it."""
    return [{replica["name"] for replica in r["replicas"]} for r in partitions(host)]
