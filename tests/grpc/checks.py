"""What the checks have in common: waiting, and errors that are expected."""

import time

from reflection import Refused

PATIENCE = 60


def refused(code, call, *args, **kwargs):
    """The details of the error with which `call` must end."""
    try:
        reply = call(*args, **kwargs)
    except Refused as error:
        assert error.code == code, f"{args}: {error}, not {code}"
        return error.details
    raise AssertionError(f"{args} is answered with {reply}, not with {code}")


def until(what, check):
    """Tries again until `check` returns something true; its last result or error is shown."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            last = check()
            if last:
                return last
        except (Refused, AssertionError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {last!r} after {PATIENCE} s")
        time.sleep(0.05)
