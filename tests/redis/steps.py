"""What both scripts need: the test that runs them does to the cluster what they ask for."""

import faulthandler
import sys
import time

# A client that hangs is a failure that says where.
faulthandler.dump_traceback_later(240, exit=True, file=sys.__stdout__)
sys.stderr = sys.stdout

PATIENCE = 60


def order(*words):
    """Has the test do something, and waits until it is done."""
    print("DO", *words, flush=True)
    answer = sys.stdin.readline().strip()
    assert answer == "done", answer


def until(what, attempt):
    """Tries again until it returns something true; fails with what it last said."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = attempt()
            if found:
                return found
            last = found
        except Exception as error:
            last = f"{error!r} {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {last!r}")
        time.sleep(0.05)
