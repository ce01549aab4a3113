"""Every call of RaftAdmin and Distribution, to each node of a cluster that serves:
`cluster.py n1=HOST:PORT …`. The first three are the cluster's founders, the fourth has joined and
is no member of the placement driver's group."""

import base64
import sys
import time

from checks import refused, until
from reflection import Client, Refused


def b64(key):
    return base64.b64encode(key).decode()


def leader_of(nodes, group):
    """The name of the leader of a group, once all its members agree."""

    def agreed():
        asked = {}
        for name, node in nodes.items():
            try:
                asked[name] = node.call("RaftAdmin/Leader", {"group_id": group}).get("address")
            except Refused as error:
                if error.code != "NOT_FOUND":
                    raise
        said = set(asked.values())
        assert len(said) == 1 and None not in said, asked
        return next(name for name, node in nodes.items() if node.address in said)

    return until(f"the leader of group {group}", agreed)


def settled(nodes):
    """The catalog version that all tell, once it has stayed the same for two seconds: what was changed before
    may still be on its way to the catalog."""
    def stays():
        version, _ = same_version(nodes)
        time.sleep(2)
        again, _ = same_version(nodes)
        assert again == version, (version, again)
        return version
    return until("the catalog stays as it is", stays)


def at_the_version(nodes, node, method, body, **more):
    """The catalog version, and what a call that expects it answers. Again if it has become another one meanwhile."""
    for _ in range(10):
        version = settled(nodes)
        try:
            return version, node.call(method, {**body, "expectedCatalogVersion": version}, **more)
        except Refused as error:
            if error.code != "ABORTED":
                raise
            aborted = error
    raise aborted


def members(node, group=1):
    reply = node.call("RaftAdmin/GetConfiguration", {"groupId": group})
    return {server["id"]: server.get("suffrage", "VOTER") for server in reply["servers"]}


def configuration(nodes, names):
    expected = [{"id": name, "address": nodes[name].address} for name in names]
    for node in nodes.values():
        reply = node.call("RaftAdmin/GetConfiguration", {})
        assert reply == {"servers": expected}, f"{node.address}: {reply}"
        reply = node.call("RaftAdmin/Configuration", {})
        assert reply == {"servers": [{**s, "suffrage": "voter"} for s in expected]}, reply


def figures(nodes, group):
    """Of each replica: equal where they must be, and growing with what is written."""
    leader = leader_of(nodes, group)
    asked = {"group_id": group}
    node = nodes[leader]
    assert node.call("RaftAdmin/State", asked) == {"state": "LEADER"}
    before = node.call("RaftAdmin/Status", asked)
    assert before["state"] == "RAFT_ADMIN_STATE_LEADER", before
    assert before["leaderId"] == leader and before["leaderAddress"] == node.address, before
    assert before["groupId"] == str(group) and len(before["peers"]) >= 3, before
    barrier = node.call("RaftAdmin/Barrier", asked)
    index = int(barrier["index"])
    assert index > int(before["lastLogIndex"]) or group == 1, (barrier, before)
    assert int(node.call("RaftAdmin/AppliedIndex", asked)["index"]) >= index
    assert int(node.call("RaftAdmin/LastIndex", asked)["index"]) >= index
    awaited = node.call("RaftAdmin/Await", {"operation_token": barrier["operationToken"]})
    assert awaited == {"index": str(index)}, awaited
    assert node.call("RaftAdmin/Forget", {"operation_token": barrier["operationToken"]}) == {}
    refused("NOT_FOUND", node.call, "RaftAdmin/Await", {"operation_token": barrier["operationToken"]})
    assert "index" in node.call("RaftAdmin/VerifyLeader", asked)
    stats = node.call("RaftAdmin/Stats", asked)["stats"]
    assert stats["state"] == "Leader" and int(stats["commit_index"]) >= index, stats
    assert int(node.call("RaftAdmin/LastContact", asked)["unixNano"]) > 1_600_000_000 * 10**9

    for name in members(node, group):
        follower = nodes[name]
        if name == leader:
            continue
        until(f"{name} applies {index}", lambda: int(
            follower.call("RaftAdmin/AppliedIndex", asked)["index"]) >= index)
        assert follower.call("RaftAdmin/State", asked) == {}, "FOLLOWER is the zero value"
        status = follower.call("RaftAdmin/Status", asked)
        assert status["state"] == "RAFT_ADMIN_STATE_FOLLOWER" and "peers" not in status, status
        assert status["term"] == before["term"] and status["leaderId"] == leader, status
        for method in ("VerifyLeader", "Barrier"):
            named = refused("FAILED_PRECONDITION", follower.call, f"RaftAdmin/{method}", asked)
            assert leader in named and node.address in named, named


def groups(nodes, outsider):
    """By field and by header; of a group that is not here."""
    n1 = nodes["n1"]
    routes = n1.call("Distribution/ListRoutes")["routes"]
    data = next(route for route in routes if len(route["replicas"]) < len(nodes) and route["routeId"] != "1")
    group = int(data["routeId"])
    holders = [replica["id"] for replica in data["replicas"]]
    stranger = next(name for name in nodes if name not in holders)
    for method in ("State", "GetConfiguration", "Status", "LeadershipTransfer", "Snapshot"):
        named = refused("NOT_FOUND", nodes[stranger].call, f"RaftAdmin/{method}", {"group_id": group})
        assert all(holder in named for holder in holders), named
    refused("NOT_FOUND", n1.call, "RaftAdmin/Leader", {"group_id": 999_999})
    holder = nodes[holders[0]]
    by_field = holder.call("RaftAdmin/GetConfiguration", {"groupId": group})
    by_header = holder.call("RaftAdmin/GetConfiguration", headers={"x-raft-group": str(group)})
    assert by_field == by_header, (by_field, by_header)
    assert {server["id"] for server in by_field["servers"]} == set(holders), by_field
    for request, header in (({"group_id": 1}, str(group)), ({}, "seven")):
        refused("INVALID_ARGUMENT", holder.call, "RaftAdmin/State", request, {"x-raft-group": header})
    # The placement driver's group is known to those that have no replica of it.
    leader = leader_of({name: node for name, node in nodes.items() if name != outsider}, 1)
    assert nodes[outsider].call("RaftAdmin/Leader") == {"address": nodes[leader].address}
    named = refused("NOT_FOUND", nodes[outsider].call, "RaftAdmin/State")
    assert "n1" in named and "n2" in named, named
    return group


def transfers(nodes, group):
    """In both generations of names, asked of the leader and of another."""
    names = list(members(nodes[leader_of(nodes, group)], group))
    calls = [
        ("LeadershipTransferToServer", lambda name: {"id": name, "address": nodes[name].address}),
        ("TransferLeadership", lambda name: {"target_id": name, "target_address": nodes[name].address}),
        ("LeadershipTransferToServer", lambda name: {"id": name}),
        ("TransferLeadership", lambda name: {"targetAddress": nodes[name].address}),
    ]
    for number, (method, request) in enumerate(calls):
        leader = leader_of(nodes, group)
        target = next(name for name in names if name != leader)
        asked = nodes[leader] if number % 2 else nodes[target]
        reply = asked.call(f"RaftAdmin/{method}", {**request(target), "group_id": group})
        if method == "LeadershipTransferToServer":
            assert int(reply["index"]) > 0 and reply["operationToken"], reply
        until(f"{target} leads", lambda: leader_of(nodes, group) == target)
    for method in ("LeadershipTransfer", "TransferLeadership"):
        leader = leader_of(nodes, group)
        nodes[leader].call(f"RaftAdmin/{method}", {"group_id": group})
        until("another leads", lambda: leader_of(nodes, group) != leader)
    refused("INVALID_ARGUMENT", asked.call, "RaftAdmin/LeadershipTransferToServer", {"group_id": group})


def snapshot(nodes, group):
    leader = nodes[leader_of(nodes, group)]
    leader.call("RaftAdmin/Barrier", {"group_id": group})
    before = int(leader.call("RaftAdmin/Status", {"group_id": group})["lastSnapshotIndex"])
    until("the log is collected", lambda: int(
        leader.call("RaftAdmin/Snapshot", {"group_id": group})["index"]) > before)


def grow_and_shrink(nodes, newcomer, group=1):
    """A member more and one less, in both generations of names; asked of leader and others."""
    leader = leader_of(nodes, group)
    first = nodes[leader]
    other = next(node for name, node in nodes.items() if name not in (leader, newcomer))
    here = {"group_id": group}
    wrong = {"id": newcomer, "address": "127.0.0.1:1", **here}
    assert "registered at" in refused("INVALID_ARGUMENT", first.call, "RaftAdmin/AddVoter", wrong)
    refused("NOT_FOUND", first.call, "RaftAdmin/AddVoter", {"id": "n99", "address": "10.0.0.1:1", **here})
    refused("INVALID_ARGUMENT", first.call, "RaftAdmin/AddVoter", here)
    new = {"id": newcomer, "address": nodes[newcomer].address, **here}
    version = int(first.call("RaftAdmin/Status", here)["confVersion"])
    refused("ABORTED", first.call, "RaftAdmin/AddVoter", {**new, "previous_index": version + 7})
    absent = {"id": newcomer, **here}
    refused("FAILED_PRECONDITION", first.call, "RaftAdmin/PromoteLearner", absent)

    def is_now(role):
        asked = nodes[leader_of(nodes, group)]
        until(f"{newcomer} is {role}", lambda: members(asked, group).get(newcomer) == role)

    done(other, other.call("RaftAdmin/AddLearner", {**new, "previous_index": version}))
    is_now("NONVOTER")
    refused("FAILED_PRECONDITION", first.call, "RaftAdmin/PromoteLearner",
            {**absent, "min_applied_index": 10**12})
    done(first, first.call("RaftAdmin/PromoteLearner", absent))
    is_now("VOTER")
    done(other, other.call("RaftAdmin/DemoteVoter", absent))
    is_now("NONVOTER")
    done(first, first.call("RaftAdmin/RemoveServer", absent))
    is_now(None)
    done(first, first.call("RaftAdmin/AddNonvoter", new))
    is_now("NONVOTER")
    done(other, other.call("RaftAdmin/RemoveServer", absent))
    is_now(None)
    done(other, other.call("RaftAdmin/AddVoter", new))
    is_now("VOTER")
    # The leader itself: it hands over first.
    leader = leader_of(nodes, group)
    asked = next(node for name, node in nodes.items() if name != leader)
    done(asked, until("a new leader that knows enough", lambda: asked.call("RaftAdmin/RemoveServer", {"id": leader, **here})))
    rest = {name: node for name, node in nodes.items() if name != leader}
    until(f"{leader} is gone", lambda: leader not in members(rest[leader_of(rest, group)], group))
    done(asked, until("a new leader that knows enough", lambda: asked.call("RaftAdmin/AddVoter", {"id": leader, **here})))
    done(asked, until("a new leader that knows enough", lambda: asked.call("RaftAdmin/RemoveServer", absent)))
    is_now(None)


def done(node, future):
    """As the clients of the first generation do: begin, await, forget."""
    token = {"operationToken": future["operationToken"]}
    reply = node.call("RaftAdmin/Await", token)
    assert "error" not in reply and int(reply["index"]) > 0, reply
    assert node.call("RaftAdmin/Forget", token) == {}


def same_version(nodes):
    told = {name: node.call("Distribution/ListRoutes") for name, node in nodes.items()}
    versions = {reply["catalogVersion"] for reply in told.values()}
    assert len(versions) == 1, versions
    routes = list(told.values())[0]["routes"]
    assert "start" not in routes[0] and "end" not in routes[-1], routes
    for left, right in zip(routes, routes[1:]):
        assert left["end"] == right["start"], (left, right)
    for route in routes:
        assert route["routeId"] == route["raftGroupId"] and route["state"] == "ROUTE_STATE_ACTIVE", route
        assert "leader" in route, f"nobody is known to lead {route}"
        assert route["leader"]["id"] in [replica["id"] for replica in route["replicas"]], route
    return int(versions.pop()), routes


def distribution(nodes):
    settled(nodes)
    version, routes = until("all tell the same", lambda: same_version(nodes))
    n1, others = nodes["n1"], [node for name, node in nodes.items() if name != "n1"]
    last = routes[-1]
    key = base64.b64decode(last["start"]) + b"m"
    found = n1.call("Distribution/GetRoute", {"key": b64(key)})
    assert found["raftGroupId"] == last["routeId"] and "end" not in found, found

    watched = others[-1].stream("Distribution/WatchCatalog")
    first = watched.next()["snapshot"]
    assert int(first["catalogVersion"]) >= version, first
    assert len(first["routes"]) == len(routes), first

    split = {"expectedCatalogVersion": version, "routeId": last["routeId"], "splitKey": b64(key)}
    for asked, code in [
        ({**split, "expectedCatalogVersion": version + 1000}, "ABORTED"),
        ({**split, "expectedCatalogVersion": 0}, "ABORTED"),
        ({**split, "routeId": 999_999}, "NOT_FOUND"),
        ({**split, "splitKey": last["start"]}, "INVALID_ARGUMENT"),
        ({**split, "splitKey": b64(b"\x11")}, "INVALID_ARGUMENT"),
        ({**split, "splitKey": ""}, "INVALID_ARGUMENT"),
    ]:
        for node in nodes.values():
            refused(code, node.call, "Distribution/SplitRange", asked)
    version, cut = at_the_version(nodes, others[0], "Distribution/SplitRange", split)
    left, right = cut["left"], cut["right"]
    assert left["routeId"] == last["routeId"] and right["routeId"] != left["routeId"], cut
    assert left["end"] == right["start"] == b64(key) and "end" not in right, cut
    after = int(cut["catalogVersion"])
    assert after > version, cut
    refused("ABORTED", n1.call, "Distribution/SplitRange", {**split, "expectedCatalogVersion": version})

    def shown():
        delta = watched.next()["delta"]
        seen.extend(route["routeId"] for route in delta.get("changed", []))
        return {left["routeId"], right["routeId"]} <= set(seen)

    seen = []
    until("the watcher hears of the split", shown)
    watched.cancel()

    def listed():
        now, routes = same_version(nodes)
        assert now >= after, (now, after)
        return right["routeId"] in [route["routeId"] for route in routes]

    until("everyone lists the new range", listed)
    return int(right["routeId"])


def moves(nodes, group):
    """A replica goes to a store without one, and the leadership to a follower."""
    def route():
        _, routes = same_version(nodes)
        return next(route for route in routes if route["routeId"] == str(group))

    before = until("the route", route)
    holders = [replica["id"] for replica in before["replicas"]]
    to = next(name for name in nodes if name not in holders)
    move = {"expectedCatalogVersion": settled(nodes), "routeId": group, "from": before["leader"]["id"], "to": to}
    refused("NOT_FOUND", nodes["n2"].call, "Distribution/MoveReplica", {**move, "to": "n99"})
    refused("ABORTED", nodes["n2"].call, "Distribution/MoveReplica", {**move, "expectedCatalogVersion": 1})
    version, moved = at_the_version(nodes, nodes["n2"], "Distribution/MoveReplica", move, timeout=90)
    assert int(moved["catalogVersion"]) > version, moved
    now = [replica["id"] for replica in moved["route"]["replicas"]]
    assert to in now and move["from"] not in now and len(now) == len(holders), moved
    assert all(replica["role"] == "voter" for replica in moved["route"]["replicas"]), moved

    leader = until("it has a leader", route)["leader"]["id"]
    target = next(name for name in now if name != leader)
    reply = nodes["n3"].call("Distribution/TransferLeader", {"routeId": group, "to": target})
    assert reply["route"]["leader"]["id"] == target, reply
    outsider = next(name for name in nodes if name not in now)
    refused("FAILED_PRECONDITION", nodes["n3"].call, "Distribution/TransferLeader",
            {"routeId": group, "to": outsider})


def main(nodes):
    founders = ["n1", "n2", "n3"]
    until("all are members", lambda: configuration(nodes, founders) or True)
    until("ranges cover the keyspace", lambda: same_version(nodes))
    for name, node in nodes.items():
        for service in ({}, {"service": "RaftAdmin"}):
            health = node.call("grpc.health.v1.Health/Check", service)
            assert health == {"status": "SERVING"}, (name, health)
    right = distribution(nodes)
    print("distribution: done")
    figures(nodes, 1)
    figures(nodes, right)
    print("figures: done")
    group = groups(nodes, "n4")
    transfers(nodes, 1)
    transfers(nodes, right)
    print("transfers: done")
    snapshot(nodes, group)
    grow_and_shrink(nodes, "n4")
    print("placement members: done")
    moves(nodes, right)
    print("moves: done")


if __name__ == "__main__":
    main({name: Client(address) for name, address in (word.split("=") for word in sys.argv[1:])})
