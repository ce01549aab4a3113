"""A small load whose history is checked while it is made: counters, incremented and read through all nodes.

Of each key it is known what was surely seen (`floor`: the greatest value in a reply that had arrived). By
linearizability, whatever is asked after that reply has a greater value if it is INCR, and one at least as great if it
is GET; no two INCRs have the same reply; and in the end a counter is at least the number of acknowledged increments and
at most the number of those sent. A command without a reply may or may not have been carried out, at any later time.
"""

import itertools
import random
import socket
import threading
import time
from collections import Counter

REPLY_MAX = 12  # seconds; nodes answer or refuse within five


class Broken(Exception):
    """The connection is no more."""


class Connection:
    """RESP over one socket."""

    def __init__(self, ip):
        self.socket = socket.create_connection((ip, 6379), timeout=2)
        self.socket.settimeout(REPLY_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")

    def ask(self, *words):
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        self.socket.sendall(request)
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise Broken("closed")
        kind, text = line[:1], line[1:-2]
        if kind == b"$":
            return None if text == b"-1" else self.replies.read(int(text) + 2)[:-2]
        return int(text) if kind == b":" else (kind + text).decode()

    def close(self):
        self.replies.close()
        self.socket.close()


class Load:
    """Runs from `with` to its end; then `faults` says what was wrong, and `figures` what it was like."""

    numbers = itertools.count()

    def __init__(self, hosts, threads=4, keys=40, pause=0.002, seed=1):
        self.ips = {host.name: host.ip for host in hosts}
        self.pause = pause
        self.lock = threading.Lock()
        # Keys that no load before this one has touched.
        self.keys = [b"counter:%d:%d" % (next(Load.numbers), n) for n in range(keys)]
        self.floor = dict.fromkeys(self.keys, 0)
        self.sent = Counter()
        self.acknowledged = Counter()
        self.given = {key: set() for key in self.keys}
        self.errors = Counter()
        self.faults = []
        self.replies = 0
        self.latest = time.monotonic()
        self.gap = 0.0
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(random.Random(seed * 1000 + n),)) for n in range(threads)]

    def __enter__(self):
        self.latest = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def mark(self):
        """Begins to measure the longest time without any success anew; what it was so far."""
        with self.lock:
            gap = max(self.gap, time.monotonic() - self.latest)
            self.gap, self.latest = 0.0, time.monotonic()
            return gap

    def _run(self, draw):
        connections = {}
        while not self.ending.is_set():
            name = draw.choice(sorted(self.ips))
            key = draw.choice(self.keys)
            writes = draw.random() < 0.5
            try:
                if name not in connections:
                    connections[name] = Connection(self.ips[name])
            except OSError as error:
                self._count(f"connect: {type(error).__name__}")
                self.ending.wait(0.05)
                continue
            with self.lock:
                floor = self.floor[key]
                self.sent[key] += writes
            try:
                reply = connections[name].ask(b"INCR" if writes else b"GET", key)
            except (OSError, Broken) as error:
                self._count(f"no reply: {type(error).__name__}")
                connections.pop(name).close()
                continue
            self._check(name, key, writes, floor, reply)
            self.ending.wait(self.pause)
        for connection in connections.values():
            connection.close()

    def _count(self, error):
        with self.lock:
            self.errors[error] += 1

    def _check(self, name, key, writes, floor, reply):
        if isinstance(reply, str) and reply.startswith("-"):
            self._count(reply.split()[0][1:])
            return
        value = int(reply or 0)
        with self.lock:
            now = time.monotonic()
            self.gap, self.latest = max(self.gap, now - self.latest), now
            self.replies += 1
            if writes:
                self.acknowledged[key] += 1
                if value <= floor:
                    self.faults.append(f"INCR of {key} through {name} gives {value} after {floor} was seen")
                if value in self.given[key]:
                    self.faults.append(f"INCR of {key} through {name} gives {value} for the second time")
                self.given[key].add(value)
            elif value < floor:
                self.faults.append(f"GET of {key} through {name} gives {value} after {floor} was seen: too old")
            self.floor[key] = max(self.floor[key], value)

    def settle(self):
        """When all is healed: every counter through every node, which must agree."""
        for key in self.keys:
            values = set()
            for ip in self.ips.values():
                connection = Connection(ip)
                deadline = time.monotonic() + 30
                while isinstance(value := connection.ask(b"GET", key), str):
                    if time.monotonic() > deadline:
                        raise AssertionError(f"GET {key} through {ip}: {value}")
                    time.sleep(0.05)
                connection.close()
                values.add(int(value or 0))
            least, most = self.acknowledged[key], self.sent[key]
            if len(values) > 1 or not all(least <= value <= most for value in values):
                self.faults.append(f"{key} is {values} in the end: {least} increments were acknowledged, {most} sent")
            if values and max(values) < self.floor[key]:
                self.faults.append(f"{key} is {values} in the end, but {self.floor[key]} was seen")

    def verdict(self):
        self.settle()
        assert not self.faults, "\n".join(self.faults[:20])
        assert self.replies > 0, self.errors
        return f"{self.replies} replies, errors {dict(self.errors)}"
