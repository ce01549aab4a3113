"""What a user types, typed: commands in a shell, waiting, Redis, HTTP, DynamoDB."""

import json
import os
import pathlib
import subprocess
import sys
import time

import boto3
from botocore.config import Config

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "grpc"))

# Programs are started all the time: gRPC shall not prepare for forks.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from grpc import RpcError  # noqa: E402
from reflection import Client, Refused  # noqa: E402

clients = {}

# For whatever must happen some time.
PATIENCE = 60


class Typed:
    """What came back."""

    def __init__(self, command, status, out, err, seconds):
        self.command, self.status, self.out, self.err, self.seconds = command, status, out, err, seconds

    def __repr__(self):
        return f"`{self.command}`: exit {self.status} after {self.seconds:.1f} s\n{self.out}{self.err}"


def type_(command, ok=True, timeout=60, cwd=None, environment=()):
    """Types a command line into bash. With `ok` it must succeed; the reply without its last newline."""
    began = time.monotonic()
    try:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], text=True, capture_output=True,
                              timeout=timeout, cwd=cwd,
                              env={**os.environ, **dict(environment)})
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"`{command}`: no end after {timeout} s\n{error.stdout}{error.stderr}") from None
    typed = Typed(command, done.returncode, done.stdout.rstrip("\n"), done.stderr, time.monotonic() - began)
    if ok:
        assert typed.status == 0, typed
        return typed.out
    return typed


def until(what, check, patience=PATIENCE):
    """Tries again until `check` returns something true, which it returns; shows the last failure."""
    deadline = time.monotonic() + patience
    while True:
        try:
            last = check()
            if last:
                return last
        except (AssertionError, OSError, KeyError, IndexError, ValueError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {patience} s; last: {last}")
        time.sleep(0.05)


def redis(host, *words, port=6379):
    """redis-cli's output, which for errors begins with the error's name."""
    done = subprocess.run(["redis-cli", "-h", getattr(host, "ip", host), "-p", str(port), *map(str, words)], text=True,
                          capture_output=True, timeout=30)
    return done.stdout.rstrip("\n") + done.stderr.rstrip("\n")


def settle(hosts, keys=32):
    """Waits until each host writes and reads keys of every range."""
    for host in hosts:
        for n in range(keys):
            until(f"{host} serves", lambda n=n: redis(host, "SET", f"settle:{n}", host.name) == "OK", 90)


def http(host, path, port=8080):
    """Status and JSON of a GET."""
    out = type_(f"curl -sS -m 10 -w '\\n%{{http_code}}' 'http://{host.ip}:{port}{path}'")
    body, _, status = out.rpartition("\n")
    return int(status), json.loads(body)


def dynamo(host, retries=0):
    return boto3.client("dynamodb", endpoint_url=f"http://{host.ip}:8000", region_name="eu-west-3",
                        aws_access_key_id="any", aws_secret_access_key="any",
                        config=Config(retries={"total_max_attempts": retries + 1}, connect_timeout=3, read_timeout=10))


def grpc(host, method, request=None, group=None):
    """What grpcurl would print, by the client that stands in for it, without a process for each call."""
    headers = {} if group is None else {"x-raft-group": str(group)}
    if host.grpc not in clients:
        clients[host.grpc] = Client(host.grpc)
    client = clients[host.grpc]
    try:
        return client.call(method, request or {}, headers, timeout=20)
    except (Refused, LookupError, RpcError) as error:
        # The address may have another host by the next time.
        clients.pop(host.grpc).channel.close()
        raise AssertionError(f"{host}: {method} {request or {}}: {error}") from None
