"""A store that waits for its place: `waiting.py ADDRESS`."""

import sys

from checks import refused, until
from reflection import VERSIONS, Client

SERVICES = ["Distribution", "RaftAdmin", "grpc.health.v1.Health", *VERSIONS]


def check(address):
    for version in VERSIONS:
        client = Client(address, version)
        services = until("the port listens", lambda: Client(address, version).list())
        missing = [service for service in SERVICES if service not in services]
        assert not missing, f"{missing} are missing among {services}"
        assert "etcdserverpb.KV" not in services, "etcd's interface is not offered"
        names = [method.name for method in client.describe("RaftAdmin").methods]
        assert "AddVoter" in names and "TransferLeadership" in names, names
    assert client.call("RaftAdmin/Leader") == {}
    waits = refused("UNAVAILABLE", client.call, "RaftAdmin/GetConfiguration")
    assert "waits to be initialised" in waits, waits
    refused("UNAVAILABLE", client.call, "Distribution/ListRoutes")
    health = client.call("grpc.health.v1.Health/Check")
    assert health == {"status": "NOT_SERVING"}, health


if __name__ == "__main__":
    check(sys.argv[1])
