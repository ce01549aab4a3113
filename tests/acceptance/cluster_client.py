"""A cluster-mode client that writes and reads until a file appears: cluster_client.py HOST PORT STOP_FILE

Every acknowledged write must be read back; a command that fails is tried again for ten seconds.
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


host, port, stop = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
client = RedisCluster(host=host, port=port)
owners = {node.port for node in client.get_primaries()}
assert len(owners) > 1, f"one owner of all slots: {owners}"
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
