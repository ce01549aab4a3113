"""Operators of a cluster who know Redis: MEET, FORGET, FAILOVER, METARAFT. Three nodes are a
cluster, the fourth waits: `operators.py HOST:PORT HOST:PORT HOST:PORT HOST:PORT GRPC`, GRPC being
where the fourth one is reached by other stores."""

import sys

import redis

from steps import order, until

NODES = [(host, int(port)) for host, port in (a.rsplit(":", 1) for a in sys.argv[1:5])]
GRPC = sys.argv[5]


def connect(n):
    host, port = NODES[n]
    return redis.Redis(host, port, decode_responses=True, protocol=3)


def refused(r, *command):
    try:
        reply = r.execute_command(*command)
    except redis.RedisError as error:
        return str(error)
    raise AssertionError(f"{command} was answered by {reply}")


def members(r):
    return {m["name"]: m for m in r.execute_command("CLUSTER METARAFT MEMBERS")}


first, second = connect(0), connect(1)
status = first.execute_command("CLUSTER METARAFT STATUS")
assert status["voters"] == 3 and status["learners"] == 0 and status["term"] > 0, status
group = members(second)
assert set(group) == {"n1", "n2", "n3"}
assert [m["name"] for m in group.values() if m["leader"]] == [status["leader-name"]]
assert all(m["role"] == "voter" and m["address"] for m in group.values())

# A store that waits is given its place, by its Redis address; once more changes nothing.
until("n1 knows all", lambda: len(first.cluster("NODES")) == 3)
host, port = NODES[3]
assert "no RangeKV store answers" in refused(first, "CLUSTER", "MEET", host, 1)
assert "--join" in refused(first, "CLUSTER", "MEET", host, 1)
for _ in range(2):
    assert first.execute_command("CLUSTER", "MEET", host, port) == "OK"
for n in range(4):
    until(f"n{n + 1} knows all", lambda: len(connect(n).cluster("NODES")) == 4)
fourth = connect(3)
assert fourth.set("by-the-fourth", 1) and first.get("by-the-fourth") == "1"

# It becomes a learner of the placement driver's group, and a voter, by any of its names.
order("MANUAL")
node_id = fourth.execute_command("CLUSTER", "MYID")
assert "registered at" in refused(first, "CLUSTER METARAFT ADDLEARNER", "n4", "10.0.0.1:1")
until("learner", lambda: first.execute_command("CLUSTER METARAFT ADDLEARNER", "n4", GRPC) == "OK")
assert members(first)["n4"]["role"] == "learner"
until("voter", lambda: second.execute_command("CLUSTER METARAFT PROMOTE", node_id) == "OK")
assert members(first)["n4"]["role"] == "voter"
until("gone", lambda: second.execute_command("CLUSTER METARAFT REMOVE", "n4") == "OK")
assert set(members(first)) == {"n1", "n2", "n3"}

# All leaderships that it can have; replicas still move to the new node meanwhile.
mine = second.execute_command("CLUSTER", "MYID")


def leads_what_it_holds():
    assert second.execute_command("CLUSTER", "FAILOVER") == "OK"
    return not [
        entry
        for entry in second.execute_command("CLUSTER", "SLOTS")
        if entry[2][2] != mine and mine in [replica[2] for replica in entry[3:]]
    ]


until("leading all that it holds", leads_what_it_holds)
assert "TAKEOVER" in refused(second, "CLUSTER FAILOVER TAKEOVER")

# A store that serves is not forgotten; one that is gone is.
assert "drain it first" in refused(first, "CLUSTER", "FORGET", node_id)
assert "can't forget myself" in refused(fourth, "CLUSTER", "FORGET", node_id)
assert "Unknown node" in refused(first, "CLUSTER", "FORGET", "0" * 40)
order("KILL", 3)


def forgotten():
    try:
        return first.execute_command("CLUSTER", "FORGET", node_id) == "OK"
    except redis.ResponseError as error:
        # What was said not to be known, or to be too late, may have been done.
        if "Unknown node" in str(error):
            return True
        raise


until("forgotten", forgotten)
until("three are left", lambda: len(second.cluster("NODES")) == 3)
until("ok", lambda: second.cluster("INFO")["cluster_state"] == "ok")
