"""Faults of runs over several instances: each instance and the server in turn, at random moments.

The promise: the run is completed, with the pictures of all parts in their order; none is there twice.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.test_distributed_runs import COLORS, collecting, colors, submitted
from tests.integration.test_parts import pixels, seeded
from tests.scheduling.machines import Json, Machines, machines

INSTANCES = ("gpu0", "gpu1", "gpu2")
VICTIMS = ("server", *INSTANCES)
LATEST_S = 4.0
"""The last moment of a fault after the order. A run without a fault takes about that long."""
FINISH_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to use several instances. `order` returns the id of the run, `broken` what is wrong with its
    end."""

    name: str
    order: Callable[[Machines, int], str]
    broken: Callable[[Json], list[str]]
    executions: int


@dataclass(frozen=True, kw_only=True)
class PartsVerdict:
    kind: str
    victim: str
    broken: tuple[str, ...]


def _order_spread(fleet: Machines, number: int) -> str:
    graph = seeded(1000 * number, steps=3, prefix=f"try{number}")
    graph["7"] = {
        "class_type": "SandboxSlow",
        "inputs": {"image": ["5", 0], "steps": 10, "seconds_per_step": 0.1},
    }
    graph["6"]["inputs"]["images"] = ["7", 0]
    return fleet.server.execute("any", graph, spread=len(INSTANCES))


def _broken_spread(done: Json) -> list[str]:
    parts = [output["part"] for output in done["outputs"]]
    different = len({pixels(output) for output in done["outputs"] if output["local_path"]})
    sentences = [] if parts == [1, 2, 3] else [f"the outputs are of the parts {parts}"]
    return sentences + ([] if different == len(INSTANCES) else [f"{different} pictures are different"])


def _order_collected(fleet: Machines, number: int) -> str:
    graph = collecting(1.0)
    graph["6"]["inputs"]["filename_prefix"] = "all"
    graph["3"]["inputs"]["seed"] = number
    return submitted(fleet, graph).run.run_id


def _broken_collected(done: Json) -> list[str]:
    found, expected = colors(done), [color for color in COLORS for _ in range(2)]
    return [] if found == expected else [f"the pictures are {[hex(color) for color in found]}"]


KINDS = (
    Kind(name="spread", order=_order_spread, broken=_broken_spread, executions=3),
    Kind(name="collected", order=_order_collected, broken=_broken_collected, executions=4),
)


@contextmanager
def parts_stage(directory: Path) -> Iterator[Machines]:
    with machines(directory, (None, None, None), move_after_s=1, connection_idle_s=60) as fleet:
        yield fleet


def attempt(fleet: Machines, kind: Kind, victim: str, number: int) -> PartsVerdict:
    """Orders a run, kills the victim at a random moment, and starts it again: a worker only after the run."""
    before = _executions(fleet)
    run_id = kind.order(fleet, number)
    time.sleep(random.uniform(0, LATEST_S))
    comes_back = _kill(fleet, victim)
    if victim in ("server", "gpu0"):
        comes_back()
    done = fleet.server.until_finished(run_id, timeout_s=FINISH_LIMIT_S)
    if victim not in ("server", "gpu0"):
        comes_back()
    broken = [] if done["status"] == "completed" else [f"it is {done['status']}: {done['error_message']}"]
    broken += kind.broken(done) if not broken else []
    executed = (_executions(fleet) - before).total()
    if victim == "server" and executed != kind.executions:
        broken.append(f"{executed} prompts were executed, not {kind.executions}")
    return PartsVerdict(kind=kind.name, victim=victim, broken=tuple(broken))


def _kill(fleet: Machines, victim: str) -> Callable[[], None]:
    """Returns the function that starts it again."""
    if victim == "server":
        fleet.server.kill()
        return fleet.server.start
    fleet.sandboxes[victim].kill()
    return fleet.sandboxes[victim].start


def _executions(fleet: Machines) -> Counter[str]:
    return sum(fleet.executions().values(), Counter[str]())


def parts_matrix(directory: Path, tries: int) -> int:
    """Prints a table. Returns 1 if a promise was broken."""
    verdicts: list[PartsVerdict] = []
    with parts_stage(directory) as fleet:
        for number in range(tries):
            for kind in KINDS:
                for victim in VICTIMS:
                    verdicts.append(attempt(fleet, kind, victim, 1 + len(verdicts)))
                    print(f"{number} {verdicts[-1]}", flush=True)
    print("| run | killed | tries | ended as promised |\n| --- | --- | --- | --- |")
    for kind in KINDS:
        for victim in VICTIMS:
            tried = [each for each in verdicts if (each.kind, each.victim) == (kind.name, victim)]
            print(f"| {kind.name} | {victim} | {len(tried)} | {sum(not each.broken for each in tried)} |")
    return int(any(each.broken for each in verdicts))
