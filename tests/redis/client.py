"""redis-py, redis-cli and redis-benchmark against a cluster of three nodes, as their users use
them: `client.py HOST:PORT HOST:PORT HOST:PORT`."""

import asyncio
import subprocess
import sys

import redis
import redis.asyncio
from redis.cluster import ClusterNode, RedisCluster

from steps import order, until

NODES = [(host, int(port)) for host, port in (a.rsplit(":", 1) for a in sys.argv[1:])]


def plain():
    for protocol in (2, 3):
        for host, port in NODES:
            r = redis.Redis(host, port, protocol=protocol, decode_responses=True)
            assert r.ping()
            assert r.set("plain", port) and r.get("plain") == str(port)
            assert r.flushdb()
            assert r.hset("hash", mapping={"a": 1, "b": 2}) == 2
            assert r.hgetall("hash") == {"a": "1", "b": "2"}
            assert r.zadd("z", {"x": 1.5, "y": 2}) == 2
            assert [(m, s) for m, s in r.zrange("z", 0, -1, withscores=True)] == [
                ("x", 1.5),
                ("y", 2.0),
            ]
            pipe = r.pipeline(transaction=False)
            for n in range(100):
                pipe.set(f"p{n}", n)
            assert pipe.execute() == [True] * 100
            assert sorted(r.scan_iter(match="p*")) == sorted(f"p{n}" for n in range(100))
            # The slow log sees both kinds of answers: of this thread, and of a range's leader.
            r.config_set("slowlog-log-slower-than", 0)
            r.set("slow", "x" * 200)
            r.config_set("slowlog-log-slower-than", 10000)
            commands = [str(entry["command"]) for entry in r.slowlog_get(-1)]
            short = f"SET slow {'x' * 128}... (72 more bytes)"
            assert any(short in command for command in commands), commands
            assert r.slowlog_len() > 0 and r.slowlog_reset() and r.slowlog_len() == 0
            assert r.config_get("max*", "save")["save"] == ""
            refused(r.config_set, "appendonly", "no")
            refused(r.config_set, "nosuch", "1")
            assert r.memory_usage("hash") > 10 and r.memory_usage("none") is None
            assert r.command_count() > 150
            assert r.client_setname("me") and r.client_getname() == "me"
            assert any(c["name"] == "me" for c in r.client_list())
            info = r.info("everything")
            assert info["cluster_enabled"] == 1 and info["redis_mode"] == "standalone"
            assert info["cmdstat_set"]["calls"] > 100 and info["used_memory"] > 1000000
            # A majority of three holds what was answered; the third one soon does.
            assert r.execute_command("WAIT", 1, 5000) >= 1
            assert r.execute_command("WAIT", 2, 10000) == 2
            assert r.execute_command("WAITAOF", 1, 2, 10000) == [1, 2]
            assert r.execute_command("WAIT", 3, 10) == 2
            assert r.readonly() and r.readwrite()
            r.close()


def refused(command, *arguments):
    try:
        command(*arguments)
    except redis.ResponseError as error:
        return str(error)
    raise AssertionError(f"{arguments} was not refused")


async def asynchronous():
    host, port = NODES[1]
    r = redis.asyncio.Redis(host=host, port=port, decode_responses=True)
    await asyncio.gather(*(r.set(f"async{n}", n) for n in range(50)))
    assert await r.mget([f"async{n}" for n in range(50)]) == [str(n) for n in range(50)]
    await r.aclose()
    cluster = redis.asyncio.RedisCluster(host=host, port=port, decode_responses=True)
    await asyncio.gather(*(cluster.set(f"ac{n}", n) for n in range(50)))
    values = await asyncio.gather(*(cluster.get(f"ac{n}") for n in range(50)))
    assert values == [str(n) for n in range(50)]
    await cluster.aclose()


def slot_map():
    """What CLUSTER SLOTS, NODES, SHARDS and INFO say on each node: they must agree."""
    for host, port in NODES:
        # Leaders may move while a node is asked.
        until(f"the map of {port}", lambda: slot_map_of(host, port))


def slot_map_of(host, port):
    with redis.Redis(host, port, protocol=3, decode_responses=True) as r:
        info = r.cluster("INFO")
        assert info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384", info
        assert info["cluster_known_nodes"] == "3"
        owners = {}
        for first, last, owner, *replicas in r.execute_command("CLUSTER", "SLOTS"):
            assert tuple(owner[:2]) in NODES and len(replicas) == 2
            for slot in range(first, last + 1):
                assert slot not in owners
                owners[slot] = owner[2]
        assert len(owners) == 16384
        by_node = {}
        for line in r.execute_command("CLUSTER", "NODES").splitlines():
            node, address, flags, _, _, _, _, link, *slots = line.split()
            assert len(node) == 40 and link == "connected" and "master" in flags
            where = address.split("@")[0].rsplit(":", 1)
            assert (where[0], int(where[1])) in NODES
            assert ("myself" in flags) == ((where[0], int(where[1])) == (host, port))
            for span in slots:
                first, _, last = span.partition("-")
                by_node.update({s: node for s in range(int(first), int(last or first) + 1)})
        assert by_node == owners
        by_shard = {}
        for shard in r.execute_command("CLUSTER", "SHARDS"):
            master = [n for n in shard["nodes"] if n["role"] == "master"]
            assert len(master) == 1 and all(n["health"] == "online" for n in shard["nodes"])
            spans = zip(shard["slots"][::2], shard["slots"][1::2])
            for first, last in spans:
                by_shard.update({s: master[0]["id"] for s in range(first, last + 1)})
        assert by_shard == owners
        for key, slot in [
            ("mykey", 14687),
            ("foo", 12182),
            ("{user:1000}:name", 1649),
            ("123456789", 12739),
        ]:
            assert r.execute_command("CLUSTER KEYSLOT", key) == slot
        r.mset({"{tag}1": 1, "{tag}2": 2, "{tag}3": 3})
        slot = r.execute_command("CLUSTER KEYSLOT", "tag")
        assert r.execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 3
        assert r.execute_command("CLUSTER GETKEYSINSLOT", slot, 2) == ["{tag}1", "{tag}2"]
        refused(r.execute_command, "CLUSTER COUNTKEYSINSLOT", 16384)
        managed = "slots are managed by the placement driver"
        for command in ("ADDSLOTS 1", "SETSLOT 1 STABLE", "FLUSHSLOTS", "RESET", "BUMPEPOCH"):
            assert managed in refused(r.execute_command, "CLUSTER " + command)
        me = r.execute_command("CLUSTER", "MYID")
        if me in owners.values():
            assert len(r.execute_command("CLUSTER REPLICAS", me)) == 2
        assert "Unknown node" in refused(r.execute_command, "CLUSTER REPLICAS", "x")
        return True


def cluster_client():
    """Survives the death of a leader's node, and a split."""
    nodes = [ClusterNode(host, port) for host, port in NODES]
    cluster = RedisCluster(startup_nodes=nodes, decode_responses=True)
    cluster.set("counter", 0)
    for n in range(200):
        assert cluster.set(f"c{n}", n)
    assert [cluster.get(f"c{n}") for n in range(200)] == [str(n) for n in range(200)]
    assert cluster.mget_nonatomic([f"c{n}" for n in range(10)]) == [str(n) for n in range(10)]
    leader = cluster.get_node_from_key("counter")
    dead = NODES.index((leader.host, leader.port))
    order("KILL", dead)
    errors, acknowledged = [], 0
    for n in range(200):
        key = f"c{n}"

        def write():
            try:
                return cluster.set(key, f"after-{n}")
            except redis.RedisError as error:
                errors.append(repr(error))
                raise

        until(f"SET {key}", write)
        acknowledged += 1
    print(f"{acknowledged} writes after the kill, errors on the way: {errors}")
    assert [cluster.get(f"c{n}") for n in range(200)] == [f"after-{n}" for n in range(200)]
    until("INCR", lambda: cluster.incr("counter"))
    host, port = next(node for n, node in enumerate(NODES) if n != dead)
    r = redis.Redis(host, port, decode_responses=True)
    until("state ok", lambda: r.cluster("INFO")["cluster_state"] == "ok")
    assert r.cluster("INFO")["cluster_known_nodes"] == "3"

    def nothing_left():
        gone = [n for n in r.cluster("NODES").values() if "fail" in n["flags"]]
        return len(gone) == 1 and not gone[0]["slots"]

    until("the dead node owns nothing", nothing_left)
    order("START", dead)
    # No write is refused while ranges are cut, on either side.
    for slot in (4000, 12000):
        order("SPLIT", slot)
        for n in range(200):
            assert cluster.set(f"c{n}", f"split-{slot}-{n}")
        values = [cluster.get(f"c{n}") for n in range(200)]
        assert values == [f"split-{slot}-{n}" for n in range(200)]
    until("all three", lambda: len(r.cluster("NODES")) == 3 and not any(
        "fail" in n["flags"] for n in r.cluster("NODES").values()
    ))
    cluster.close()
    r.close()


def cli(*arguments, stdin=None, program="redis-cli"):
    host, port = NODES[2]
    command = [program, "-h", host, "-p", str(port), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done)
    return done.stdout


def command_line():
    assert cli("-c", "SET", "health", "ok") == "OK\n"
    assert cli("-c", "GET", "health") == "ok\n"
    assert "cluster_state:ok" in cli("CLUSTER", "INFO")
    assert cli("FLUSHALL") == "OK\n"
    lines = "".join(f"*3\r\n$3\r\nSET\r\n$4\r\nk{n:03}\r\n$1\r\nv\r\n" for n in range(500))
    assert "errors: 0, replies: 500" in cli("--pipe", stdin=lines)
    assert sorted(cli("--scan").split()) == [f"k{n:03}" for n in range(500)]
    cli("RPUSH", "list", *map(str, range(100)))
    assert "Biggest   list found" in cli("--bigkeys")
    host, port = NODES[0]
    check = subprocess.run(
        ["redis-cli", "--cluster", "check", f"{host}:{port}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert check.returncode == 0, check
    assert "[OK] All 16384 slots covered." in check.stdout, check.stdout
    assert "[OK] All nodes agree about slots configuration." in check.stdout, check.stdout
    speed = cli("-t", "set,get", "-n", "2000", "-q", program="redis-benchmark")
    assert speed.count("requests per second") >= 2, speed


def settled():
    """The balancer has moved leaders for the last time for a moment."""
    last = [None]

    def same():
        now = set()
        for host, port in NODES:
            r = redis.Redis(host, port, decode_responses=True)
            info = r.cluster("INFO")
            lines = r.execute_command("CLUSTER", "SLOTS")
            now.add((info["cluster_state"], repr([line[:3] for line in lines])))
            r.close()
        before, last[0] = last[0], now
        return len(now) == 1 and before == now and next(iter(now))[0] == "ok"

    until("the same map everywhere", same)


settled()
for part in (plain, slot_map, command_line, cluster_client):
    part()
    print(part.__name__, "passed", flush=True)
asyncio.run(asynchronous())
