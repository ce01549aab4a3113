"""Types every row of the acceptance list into a cluster of hosts, and checks what comes back.

    run.py BINARY                       all rows
    run.py BINARY --only E12,C4         these rows, with those of their drill that they build on
    run.py BINARY --hosts namespaces    network namespaces instead of containers
    run.py BINARY --long 600            faults between hosts for so many seconds per kind of cluster
    run.py BINARY --previous OLD        the rolling upgrade begins with this binary

A drill (drill_….py) is one cluster and many rows, in the order in which they are written: a method
`test_E12_…` is row E12. A row of not_there_yet.txt must fail: once it passes, its line must go.
Exit status 0: all rows hold, or nothing could be run, in which case the reason is printed.
"""

import argparse
import importlib
import os
import pathlib
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True

from lab import Skip, Unavailable, open_lab  # noqa: E402

# What comes after so many failed rows of a drill would only say the same again.
FAILURES_MAX = 3

DRILLS = ["drill_image", "drill_vms", "drill_compose", "drill_six", "drill_placement", "drill_upgrade", "drill_faults"]


def rows(drill):
    """(row, method) in the order of the source."""
    methods = [value for name, value in vars(drill).items() if name.startswith("test_")]
    return [(method.__name__.split("_")[1], method) for method in methods]


def not_there_yet():
    lines = (HERE / "not_there_yet.txt").read_text().splitlines()
    return dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", default="")
    parser.add_argument("--hosts", default="auto", choices=["auto", "containers", "namespaces"])
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--previous")
    parser.add_argument("--keep-going", action="store_true", help="go on with a drill after a failed row")
    options = parser.parse_args()
    only = {row for row in options.only.split(",") if row}
    binary = pathlib.Path(options.binary).resolve()
    began = time.monotonic()
    # Removes what it has made also when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        lab, reasons = open_lab(binary, options.hosts)
    except Unavailable as error:
        print(f"SKIPPED, all rows: this machine has no hosts to give ({error})")
        return 0
    print(f"hosts: {lab.kind} on {lab.prefix}.0/24" + "".join(f" (no {reason})" for reason in reasons), flush=True)
    programs = lab.directory / "bin"
    programs.mkdir()
    (programs / "rangekv").symlink_to(binary)
    # What a shell finds: the Python that runs this, rangekv, and a stand-in where grpcurl is not installed.
    os.environ["PATH"] = ":".join(map(str, [pathlib.Path(sys.executable).parent, programs, os.environ["PATH"], HERE / "bin"]))
    awaited = not_there_yet()
    outcomes, failures = {}, []
    try:
        for name in DRILLS:
            if not (HERE / f"{name}.py").exists():
                continue
            drill = importlib.import_module(name).Drill
            if only and not only & {row for row, _ in rows(drill)}:
                continue
            for row, outcome, why in run_drill(drill, lab, options, only, awaited):
                outcomes.setdefault(row, []).append(outcome)
                if outcome == "FAILED":
                    failures.append(f"{row}: {why}")
    finally:
        lab.close()
    failed = [row for row, all_ in outcomes.items() if "FAILED" in all_]
    skipped = [row for row, all_ in outcomes.items() if "SKIPPED" in all_]
    late = [row for row, all_ in outcomes.items() if "NOT YET" in all_]
    # Again, at the end: whoever keeps only the last lines of a long output needs them.
    for failure in failures:
        print(f"FAILED   {failure}", flush=True)
    print(f"{len(outcomes) - len(failed) - len(skipped) - len(late)} hold, failed: {' '.join(failed) or 'none'}, "
          f"not there yet: {' '.join(late) or 'none'}, skipped: {' '.join(skipped) or 'none'}; "
          f"{time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def run_drill(drill, lab, options, only, awaited):
    """Runs a drill's rows up to the last one that is asked for."""
    wanted = rows(drill)
    if only:
        last = max(n for n, (row, _) in enumerate(wanted) if row in only)
        wanted = [(row, method) for n, (row, method) in enumerate(wanted) if row in only or n <= last and not getattr(method, "apart", False)]
    try:
        drill = drill(lab, options)
    except Exception:
        why = f"no hosts for it\n{traceback.format_exc()}"
        print(f"FAILED   {drill.__module__}: {why}", flush=True)
        yield from ((row, "FAILED", why) for row, _ in wanted)
        return
    failures = 0
    try:
        for row, method in wanted:
            began, why = time.monotonic(), ""
            try:
                method(drill)
                outcome = "ok"
                if row in awaited:
                    outcome, why = "FAILED", "it passes: take it off not_there_yet.txt"
            except Skip as skip:
                outcome, why = "SKIPPED", str(skip)
            except Exception as error:
                outcome = "NOT YET" if row in awaited else "FAILED"
                why = awaited.get(row) or "".join(traceback.format_exception(error))
            print(f"{outcome:8} {row:9} {method.__name__} ({time.monotonic() - began:.1f} s) {why}", flush=True)
            if outcome == "FAILED":
                drill.show()
                failures += 1
            yield row, outcome, why
            if failures >= FAILURES_MAX:
                print(f"the rest of {drill.name} is not tried after {failures} failures", flush=True)
                break
    finally:
        drill.close()


if __name__ == "__main__":
    sys.exit(main())
