#!/usr/bin/env python3
"""Runs a program on a disk whose syncs take longer.

    slowsync.py MILLISECONDS PROGRAM [ARGUMENT ...]

Each fsync and fdatasync of the program and of its children begins MILLISECONDS late; syncs of
different threads wait side by side. No other system call stops, so that unlike under a tracer
everything else costs what it did. The kernel holds the calls by a seccomp filter that asks this
process (seccomp_unotify(2); Linux 5.5 or later, x86-64 or arm64). Exits with the program's status.
"""

import ctypes
import fcntl
import heapq
import os
import platform
import select
import signal
import socket
import struct
import sys
import time

SYNCS = {"x86_64": (0xC000003E, (74, 75)), "aarch64": (0xC00000B7, (82, 83))}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF
ALLOW, ASK = 0x7FFF0000, 0x7FC00000
NEW_LISTENER, SET_MODE_FILTER, SYS_SECCOMP = 1 << 3, 1, {"x86_64": 317, "aarch64": 277}
PR_SET_NO_NEW_PRIVS = 38
ASKED_BYTES, ANSWER = 80, struct.Struct("=QqiI")  # struct seccomp_notif, seccomp_notif_resp
RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1


def listener():
    """Installs the filter in this process; returns what tells of its syncs."""
    machine = platform.machine()
    if machine not in SYNCS:
        sys.exit(f"slowsync: the numbers of {machine}'s system calls are unknown")
    architecture, calls = SYNCS[machine]
    steps = [(LOAD, 0, 0, 4), (EQUAL, 0, len(calls) + 1, architecture), (LOAD, 0, 0, 0)]
    steps += [(EQUAL, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ASK)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    number = SYS_SECCOMP[machine]
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        fd = libc.syscall(number, SET_MODE_FILTER, NEW_LISTENER, program)
        if fd >= 0:
            return fd
    sys.exit(f"slowsync: no filter: {os.strerror(ctypes.get_errno())}")


def hold(fd, delay):
    """Lets each sync go on `delay` seconds after it was called, until the last caller is gone."""
    held = []
    while True:
        timeout = max(0, held[0][0] - time.monotonic()) if held else None
        for _, events in happened(fd, timeout):
            if events & select.POLLIN:
                asked = bytearray(ASKED_BYTES)
                try:
                    fcntl.ioctl(fd, RECEIVE, asked)
                    heapq.heappush(held, (time.monotonic() + delay, asked[:8]))
                except OSError:
                    pass  # The caller died meanwhile.
            elif events & select.POLLHUP:
                return
        while held and held[0][0] <= time.monotonic():
            call = int.from_bytes(heapq.heappop(held)[1], sys.byteorder)
            try:
                fcntl.ioctl(fd, SEND, ANSWER.pack(call, 0, 0, CONTINUE))
            except OSError:
                pass  # As above.


def happened(fd, timeout):
    """What has happened on `fd` within `timeout` seconds: poll's own timeout is in milliseconds."""
    readable, _, _ = select.select([fd], [], [], timeout)
    if not readable:
        return []
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll(0)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    delay = float(sys.argv[1]) / 1000
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        # The filter is the program's alone: it ends with the last process that has it.
        fd = listener()
        socket.send_fds(theirs, [b"-"], [fd])
        os.execvp(sys.argv[2], sys.argv[2:])
    theirs.close()
    fds = socket.recv_fds(ours, 1, 1)[1]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: os.kill(child, n))
    if fds:
        hold(fds[0], delay)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
