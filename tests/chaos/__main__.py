"""Injects every fault at every step of a run, many times, and prints a table. Exit code 1 if a promise was
broken.

python -m tests.chaos --tries 20 [--only NAME] [--jobs 2]
python -m tests.chaos --tries 100 --only "power cut" --jobs 6
python -m tests.chaos --soak 500
python -m tests.chaos --parts 10
"""

import argparse
import queue
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.harness import Stage, Verdict
from tests.chaos.parts import parts_matrix
from tests.chaos.report import kinds_table, said, table
from tests.chaos.soak import soak
from tests.chaos.steps import Step
from tests.chaos.trial import Knobs

Work = "queue.SimpleQueue[tuple[Fault, Step]]"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        if options.parts:
            return parts_matrix(Path(directory), options.parts)
        if options.soak:
            return soak(Path(directory), options.soak)
        return _matrix(Path(directory), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tries", type=int, default=20, help="tries of each fault at each step")
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel stages")
    parser.add_argument("--refused-s", type=float, default=30.0, help="how long connections are refused")
    parser.add_argument("--soak", type=int, metavar="RUNS", help="instead: RUNS runs on one server")
    parser.add_argument(
        "--parts",
        type=int,
        metavar="TRIES",
        help="instead: runs over several instances, TRIES for each victim",
    )
    return parser.parse_args()


def _matrix(directory: Path, options: argparse.Namespace) -> int:
    chosen = [fault for fault in FAULTS if options.only in fault.name]
    left_out = {fault.name: reason for fault in chosen if (reason := fault.lacks())}
    pairs = [(fault, step) for fault in chosen if fault.name not in left_out for step in fault.steps]
    began_s = time.monotonic()
    verdicts = _tried(directory, pairs, options)
    ordered = _in_order(verdicts, pairs)
    print(table(ordered, left_out))
    print(kinds_table(ordered))
    broken = sum(bool(verdict.broken) for verdict in verdicts)
    print(f"\n{len(verdicts)} tries in {time.monotonic() - began_s:.0f} s, {broken} promises broken.")
    return 1 if broken else 0


def _tried(directory: Path, pairs: list[tuple[Fault, Step]], options: argparse.Namespace) -> list[Verdict]:
    """Tries all pairs in rounds, so that all were tried equally often if the program ends early."""
    work: Work = queue.SimpleQueue()
    for pair in pairs * options.tries:
        work.put(pair)
    verdicts: list[Verdict] = []
    knobs = Knobs(refused_s=options.refused_s)
    with ThreadPoolExecutor(options.jobs) as pool:
        places = [directory / f"stage-{number}" for number in range(options.jobs)]
        for ended in [pool.submit(_carry_out, place, knobs, work, verdicts) for place in places]:
            ended.result()
    return verdicts


def _carry_out(directory: Path, knobs: Knobs, work: Work, verdicts: list[Verdict]) -> None:
    directory.mkdir()
    with Stage(directory, knobs) as stage:
        while True:
            try:
                fault, step = work.get_nowait()
            except queue.Empty:
                return
            began_s = time.monotonic()
            verdict = stage.attempt(fault, step)
            verdicts.append(verdict)
            word = "broken" if verdict.broken else "kept"
            print(f"{word}  {time.monotonic() - began_s:5.1f} s  {fault.name} | {step}", file=sys.stderr)
            if verdict.broken:
                print(said(verdict), file=sys.stderr, flush=True)


def _in_order(verdicts: list[Verdict], pairs: list[tuple[Fault, Step]]) -> list[Verdict]:
    order = {(fault.name, str(step)): position for position, (fault, step) in enumerate(pairs)}
    return sorted(verdicts, key=lambda verdict: order[verdict.fault, verdict.step])


if __name__ == "__main__":
    sys.exit(main())
