"""Five VMs with one container each, as deploy/README.md types it: rows E, and of H those that need no more."""

import json
import re
import threading
import time

import botocore.exceptions
from drill import Drill as Base
from lab import DEPLOY
from typed import dynamo, grpc, http, redis, settle, type_, until

NODES = 5


class Drill(Base):
    def setup(self):
        for n in range(1, NODES + 1):
            self.host(f"n{n}", 10 + n)
        self.members = ",".join(f"{host.name}={host.grpc}" for host in self.hosts)
        self.map = ",".join(f"{host.grpc}={host.ip}:6379" for host in self.hosts)

    def argv(self, host, bootstrap=False):
        return ["/app", "--address", host.grpc, "--redisAddress", f"{host.ip}:6379", "--dynamoAddress",
                f"{host.ip}:8000", "--raftId", host.name, "--raftDataDir", host.data, "--raftRedisMap", self.map,
                *(["--raftBootstrapMembers", self.members, "--raftBootstrap"] if bootstrap else [])]

    def leader(self, group=None):
        """Of a group, by asking every node that runs."""
        def agreed():
            said = {grpc(host, "RaftAdmin/Leader").get("address") for host in self.hosts if host.running()}
            assert len(said) == 1 and None not in said, said
            return next(host for host in self.hosts if host.grpc in said)
        return until("one leader", agreed)

    def test_E3_a_malformed_command_line_is_quoted(self):
        host = self.hosts[0]
        good = self.argv(host, bootstrap=True)
        for flag, value, quoted in [
            ("--raftBootstrapMembers", f"n1={host.grpc},n2", "'n2'"),
            ("--raftBootstrapMembers", f"n1={host.grpc},n1={self.hosts[1].grpc}", f"'n1={self.hosts[1].grpc}'"),
            ("--raftBootstrapMembers", f"n2={self.hosts[1].grpc}", "'n1'"),
            ("--raftBootstrapMembers", "n1=10.9.9.9:50051", "'n1=10.9.9.9:50051'"),
            ("--raftRedisMap", f"{host.grpc}", f"'{host.grpc}'"),
            ("--raftRedisMap", f"{host.grpc}=redis", f"'{host.grpc}=redis'"),
        ]:
            line = list(good)
            line[line.index(flag) + 1] = value
            status, out = host.try_(line)
            assert status != 0 and quoted in out and "expected" in out.lower(), (flag, value, status, out)

    def test_E2_without_bootstrap_they_wait(self):
        for host in reversed(self.hosts[1:]):
            host.run(self.argv(host))
        for host in self.hosts[1:]:
            type_(f"until redis-cli -h {host.ip} PING; do sleep 0.2; done", timeout=20)
        time.sleep(2)
        for host in self.hosts[1:]:
            answer = type_(f"redis-cli -h {host.ip} SET health ok", ok=False)
            assert answer.seconds < 5 and re.match("(CLUSTERDOWN|LOADING|TRYAGAIN) ", answer.out), answer
            try:
                dynamo(host).list_tables()
                raise AssertionError(f"{host} lists tables without a cluster")
            except botocore.exceptions.ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (500, 503), error
            assert "becoming leader" not in host.logs(), host.logs()

    def test_E4_the_port_lists_its_services_without_a_leader(self):
        for host in self.hosts[1:]:
            out = type_(f"until grpcurl -plaintext {host.grpc} list; do sleep 1; done", timeout=20)
            expected = ["Distribution", "RaftAdmin", "grpc.health.v1.Health",
                        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
            assert set(expected) <= set(out.split()), out
        assert grpc(self.hosts[1], "RaftAdmin/Leader") == {}

    def test_E1_one_bootstraps_and_restarts_with_the_same_command_line(self):
        first = self.hosts[0]
        first.run(self.argv(first, bootstrap=True))
        settle(self.hosts)
        assert redis(first, "SET", "kept", "over restarts") == "OK"
        status, _ = first.stop()
        assert status == 0, status
        first.start()
        settle([first])
        assert first.running() and redis(first, "GET", "kept") == "over restarts"

    def test_E5_configuration_from_any_node(self):
        typed = json.loads(type_(f"grpcurl -plaintext -d '{{}}' {self.hosts[2].grpc} RaftAdmin/GetConfiguration"))
        assert {server["id"] for server in typed["servers"]} == {host.name for host in self.hosts}, typed
        expected = {"servers": [{"id": host.name, "address": host.grpc} for host in self.hosts]}
        for host in self.hosts:
            until("all members", lambda host=host: grpc(host, "RaftAdmin/GetConfiguration") == expected)

    def test_E6_the_same_leader_from_any_node(self):
        self.leader()

    def test_E7_one_range_by_field_and_by_header(self):
        routes = grpc(self.hosts[0], "Distribution/ListRoutes")["routes"]
        group = int(next(route["routeId"] for route in routes if route["routeId"] != "1"))
        host = self.hosts[2]
        by_field = grpc(host, "RaftAdmin/GetConfiguration", {"group_id": group})
        by_header = grpc(host, "RaftAdmin/GetConfiguration", group=group)
        assert by_field == by_header and len(by_field["servers"]) == NODES, (by_field, by_header)
        unknown = type_(f"grpcurl -plaintext -d '{{\"group_id\":99999}}' {host.grpc} RaftAdmin/State", ok=False)
        assert unknown.status != 0 and "NOT_FOUND" in unknown.err.replace("NotFound", "NOT_FOUND"), unknown

    def test_E8_both_generations_of_names(self):
        leader = self.leader()
        for method in ["State", "Status", "Stats", "AppliedIndex", "LastIndex", "LastContact", "VerifyLeader",
                       "Barrier", "Snapshot", "Configuration"]:
            until(method, lambda method=method: grpc(self.leader(), f"RaftAdmin/{method}") is not None, 20)
        follower = next(host for host in self.hosts if host is not leader)
        refused = type_(f"grpcurl -plaintext -d '{{}}' {follower.grpc} RaftAdmin/VerifyLeader", ok=False)
        assert refused.status != 0 and self.leader().grpc in refused.err, refused
        group = {"group_id": 1}
        gone = next(host for host in self.hosts if host is not self.leader())
        grpc(follower, "RaftAdmin/RemoveServer", {**group, "id": gone.name})
        names = lambda: [server["id"] for server in grpc(self.leader(), "RaftAdmin/GetConfiguration")["servers"]]  # noqa: E731
        until("removed", lambda: gone.name not in names())
        grpc(self.leader(), "RaftAdmin/AddLearner", {**group, "id": gone.name, "address": gone.grpc})
        servers = lambda: {s["id"]: s.get("suffrage", "VOTER") for s in grpc(self.leader(), "RaftAdmin/GetConfiguration")["servers"]}  # noqa: E731
        until("a learner", lambda: servers().get(gone.name) == "NONVOTER")
        until("promoted", lambda: type_(
            f"grpcurl -plaintext -d '{{\"id\":\"{gone.name}\"}}' {self.leader().grpc} RaftAdmin/PromoteLearner", ok=False).status == 0
            or servers().get(gone.name) == "VOTER")
        until("a voter", lambda: servers().get(gone.name) == "VOTER")
        to = next(host for host in self.hosts if host is not self.leader())
        grpc(self.leader(), "RaftAdmin/LeadershipTransferToServer", {"id": to.name, "address": to.grpc})
        until("transferred", lambda: self.leader() is to)
        grpc(to, "RaftAdmin/LeadershipTransfer", {})
        until("transferred on", lambda: self.leader() is not to)

    def test_E9_a_range_is_split_while_it_is_used(self):
        first, last = self.hosts[0], self.hosts[-1]
        stop, faults = threading.Event(), []

        def use():
            n = 0
            while not stop.is_set():
                n += 1
                for host in (first, last):
                    if redis(host, "SET", f"split:{n % 50}", n) != "OK" or redis(last, "GET", f"split:{n % 50}") != str(n):
                        faults.append(f"{host} at {n}")

        user = threading.Thread(target=use)
        user.start()
        try:
            def split():
                routes = grpc(first, "Distribution/ListRoutes")
                # The widest data range has its bounds in base64; a key between them, of the same kind.
                route = next(r for r in routes["routes"] if r["routeId"] != "1" and r.get("start") and r.get("end"))
                return routes, route
            routes, route = split()
            import base64
            start = base64.b64decode(route["start"])
            key = base64.b64encode(start + b"\x00m").decode()
            version = int(routes.get("catalogVersion", routes.get("version", 0)))
            request = {"expectedCatalogVersion": version, "routeId": int(route["routeId"]), "splitKey": key}
            done = grpc(last, "Distribution/SplitRange", request)
            assert int(done["catalogVersion"]) > version and "left" in done and "right" in done, done
            stale = type_(f"grpcurl -plaintext -d '{json.dumps(request)}' {first.grpc} Distribution/SplitRange", ok=False)
            assert stale.status != 0 and "ABORTED" in stale.err, stale
            now = int(done["catalogVersion"])
            for wrong in (base64.b64encode(start).decode(), "/////w=="):
                until("refused", lambda wrong=wrong: "INVALID_ARGUMENT" in type_(
                    "grpcurl -plaintext -d '" + json.dumps({**request, "expectedCatalogVersion": int(grpc(
                        first, "Distribution/ListRoutes").get("catalogVersion", now)), "splitKey": wrong})
                    + f"' {first.grpc} Distribution/SplitRange", ok=False).err)
            time.sleep(1)
        finally:
            stop.set()
            user.join()
        assert not faults, faults

    def test_E10_written_through_one_read_through_another(self):
        one, other = self.hosts[0].ip, self.hosts[1].ip
        for n in range(5):
            assert type_(f"redis-cli -h {one} SET health ok{n}") == "OK"
            assert type_(f"redis-cli -h {other} GET health") == f"ok{n}"
        # Binary keys, and every node.
        for host in self.hosts:
            assert type_(f"printf 'SET \"\\\\xff\\\\x00\" {host.name}\\n' | redis-cli -h {host.ip}") == "OK"
            for reader in self.hosts:
                out = type_(f"printf 'GET \"\\\\xff\\\\x00\"\\n' | redis-cli -h {reader.ip}")
                assert out.strip('"') == host.name, out

    def aws(self, host, words):
        """The AWS CLI, with what credentials and region somebody happens to have."""
        mine = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "eu-west-3"}
        out = type_(f"aws dynamodb {words} --endpoint-url http://{host.ip}:8000", environment=mine)
        return json.loads(out) if out else None

    def test_E14_dynamodb_through_every_node(self):
        for host in self.hosts:
            assert self.aws(host, "list-tables") == {"TableNames": []}
        first, *_, last = self.hosts
        self.aws(first, "create-table --table-name items --billing-mode PAY_PER_REQUEST "
                        "--attribute-definitions AttributeName=id,AttributeType=S --key-schema AttributeName=id,KeyType=HASH")
        self.aws(first, "wait table-exists --table-name items")
        for host in self.hosts:
            dynamo(host).put_item(TableName="items", Item={"id": {"S": host.name}, "b": {"B": b"\xff\x00"}})
            for reader in self.hosts:
                item = dynamo(reader).get_item(TableName="items", Key={"id": {"S": host.name}}, ConsistentRead=True)["Item"]
                assert item["b"]["B"] == b"\xff\x00", item
        updated = self.aws(first, f"""update-item --table-name items --key '{{"id":{{"S":"{last.name}"}}}}' """
                                  """--update-expression 'ADD n :n' --expression-attribute-values '{":n":{"N":"1.50"}}' """
                                  "--return-values UPDATED_NEW")
        assert updated == {"Attributes": {"n": {"N": "1.5"}}}, updated
        pages = self.aws(last, "scan --table-name items --consistent-read --page-size 2")
        assert len(pages["Items"]) == NODES, pages
        self.aws(last, "delete-table --table-name items")

    def test_H7_raft_state_over_http(self):
        status, state = http(self.hosts[0], "/raft/state")
        assert status == 200, state
        text = json.dumps(state)
        for word in ("role", "term", "leader", "members", "commit", "applied"):
            assert word in text, f"no {word!r} in {text[:400]}"
        status, one = http(self.hosts[0], "/raft/state?group=2")
        assert status == 200 and "snapshot" in json.dumps(one), one

    def test_H3_who_is_not_the_leader_names_it(self):
        leader = self.leader()
        follower = next(host for host in self.hosts if host is not leader)
        refused = type_(f"grpcurl -plaintext -d '{{}}' {follower.grpc} RaftAdmin/Barrier", ok=False)
        assert leader.grpc in refused.err, refused
        # Our own client: a list of endpoints, of which the first does not answer.
        dead = f"{self.lab.prefix}.250:50051"
        out = type_(f"rangekv ctl --endpoints {dead},{follower.grpc} --timeout 20s --json status")
        assert json.loads(out), out

    def test_M1_dashboards_and_alerts_name_metrics_that_exist(self):
        exported = type_(f"curl -s '{self.leader().ip}:8080/metrics?format=prometheus'")
        families = set(re.findall(r"^# TYPE (\S+) ", exported, re.M))
        doors = set(re.findall(r'door="([^"]+)"', exported))
        files = [DEPLOY / "observability/alerts.yml", *(DEPLOY / "observability/dashboards").glob("*.json")]
        assert len(files) >= 5, files
        for file in files:
            for panel in json.loads(file.read_text())["panels"] if file.suffix == ".json" else [file.read_text()]:
                text = json.dumps(panel).replace('\\"', '"')
                named = {re.sub("_bucket$", "", name) for name in re.findall(r"\b(?:rangekv|process)_[a-z0-9_]+", text)}
                # OpenMetrics names a counter's family without its ending.
                unknown = {name for name in named if name not in families and name.removesuffix("_total") not in families}
                assert not unknown, f"{file.name} names {unknown}"
                unknown = set(re.findall(r'door=\\*"([^"\\]+)', text)) - doors
                assert not unknown, f"{file.name} names the doors {unknown}"

    def test_E12_two_of_five_stop(self):
        for host in self.hosts[3:]:
            status, seconds = host.stop()
            assert status == 0 and seconds < 8, (host, status, seconds)
        assert type_(f"redis-cli -h {self.hosts[0].ip} SET survive yes") == "OK"
        assert type_(f"redis-cli -h {self.hosts[1].ip} GET survive") == "yes"

    def test_E13_they_rejoin_and_a_wiped_one_is_refused(self):
        four, five = self.hosts[3:]
        assert redis(self.hosts[0], "SET", "missed", "yes") == "OK"
        four.start()
        five.start()
        settle([four, five])
        assert redis(four, "GET", "missed") == redis(five, "GET", "missed") == "yes"
        five.stop()
        five.wipe()
        five.start()
        # Refused with a message that says how to replace it, again and again.
        until("refused", lambda: re.search(r"store remove", five.logs()), 40)
        assert re.search("(CLUSTERDOWN|LOADING|TRYAGAIN|refused)", redis(five, "SET", "x", "y")), redis(five, "SET", "x", "y")
        for host in self.hosts[:4]:
            assert redis(host, "SET", "others", "go on") == "OK"
        five.remove()
        type_(f"until rangekv ctl --endpoints {self.hosts[0].grpc} store remove n5; do sleep 1; done")
        five.disk.mkdir()
        five.run([*self.argv(five), "--join", f"{self.hosts[0].grpc},{self.hosts[1].grpc}"])
        settle([five])
        until("five replicas again", lambda: {
            server["id"] for server in grpc(five, "RaftAdmin/GetConfiguration", {"group_id": 2})["servers"]
            if server.get("suffrage", "VOTER") == "VOTER"} == {host.name for host in self.hosts}, 90)

    def test_H2_a_dead_leader_is_succeeded(self):
        leader = self.leader()
        others = [host for host in self.hosts if host is not leader]
        leader.kill()
        killed = time.monotonic()

        def succeeded():
            said = {grpc(host, "RaftAdmin/Leader").get("address") for host in others}
            return len(said) == 1 and said <= {host.grpc for host in others}
        until("a new leader", succeeded, 30)
        until("writes", lambda: redis(others[0], "SET", "after", "H2") == "OK", 30)
        print(f"    writes again {time.monotonic() - killed:.1f} s after the kill")
        leader.start()
        settle([leader])

    def test_H6_role_changes_are_logged(self):
        for host in self.hosts[:4]:
            lines = [line for line in host.logs().splitlines() if "becoming leader" in line or "starting election" in line]
            assert all("group=" in line and "term=" in line and "node=" in line for line in lines), lines
        assert any("starting election" in host.logs() for host in self.hosts[:4])

    def test_H5_all_are_killed_and_resume(self):
        written = {}
        for n in range(200):
            host = self.hosts[n % NODES]
            if redis(host, "SET", f"kill:{n}", n) == "OK":
                written[f"kill:{n}"] = str(n)
        assert len(written) == 200, len(written)
        for host in self.hosts:
            host.kill()
        for host in self.hosts[:3]:
            host.start()
        settle(self.hosts[:3])
        for key, value in written.items():
            assert redis(self.hosts[0], "GET", key) == value, key

    def test_E11_without_a_majority_errors_in_time(self):
        one, two, three = self.hosts[:3]
        three.kill()
        two.kill()
        for command in ("SET alone no", "GET health"):
            answer = until("CLUSTERDOWN", lambda command=command: (lambda answer: "CLUSTERDOWN" in answer.out and answer)(
                type_(f"redis-cli -h {one.ip} {command}", ok=False)), 15)
            assert answer.seconds < 6, answer
        try:
            dynamo(one).list_tables()
            raise AssertionError("tables without a majority")
        except botocore.exceptions.ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, error
        began = time.monotonic()
        two.start()
        three.start()
        until("writes commit", lambda: redis(one, "SET", "alone", "no more") == "OK", 30)
        print(f"    writes commit {time.monotonic() - began:.1f} s after the third is started")
