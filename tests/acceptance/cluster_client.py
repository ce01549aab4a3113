"""A cluster-mode client that writes and reads until a file appears: cluster_client.py HOST PORT STOP_FILE

It begins when slots have several owners, and writes the port of one of them to STOP_FILE.owner. Every
acknowledged write must be read back; a command that fails is tried again for ten seconds.
"""

import pathlib
import sys
import time

from redis.cluster import RedisCluster
from redis.exceptions import RedisError


def insist(what):
    deadline = time.monotonic() + 10
    while True:
        try:
            return what()
        except RedisError as error:
            if time.monotonic() > deadline:
                raise
            print(f"again after: {error!r}", flush=True)
            time.sleep(0.1)


def with_several_owners(host, port):
    """A client, and the ports of the owners. Leaders of a new cluster are spread within seconds."""
    deadline = time.monotonic() + 30
    while True:
        client = RedisCluster(host=host, port=port)
        owners = {node.port for node in client.get_primaries()}
        if len(owners) > 1:
            return client, owners
        client.close()
        assert time.monotonic() < deadline, f"one owner of all slots: {owners}"
        time.sleep(0.1)


host, port, stop = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
client, owners = with_several_owners(host, port)
partial = pathlib.Path(f"{stop}.partial")
partial.write_text(str(max(owners)))
partial.rename(f"{stop}.owner")
written, n = {}, 0
deadline = time.monotonic() + 60
while not stop.exists() and time.monotonic() < deadline:
    n += 1
    key = f"client:{n % 500}"
    insist(lambda: client.set(key, n))
    written[key] = n
    read = insist(lambda: client.get(key))
    assert read == str(n).encode(), (key, n, read)
for key, value in written.items():
    read = insist(lambda: client.get(key))
    assert read == str(value).encode(), (key, value, read)
print(f"{n} writes to {len(owners)} owners, no write was lost")
