"""Parts: one run (the parent) whose work is done by several runs (its parts), each on one instance.

A part is an ordinary run. Its request names the parent; the record of the parent names all its parts, also
those that were replaced after they failed. So the parts of a run are found without a search.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from comfyui_workflow.runs.status import RunStatus

MOST_PARTS = 64
PARTS_FAILED = "parts_failed"
"""Error code of a run whose parts failed, where no part says it better."""


class Partial(StrEnum):
    """The consequence of a failed part for the run."""

    MOVE = "move"
    """Another instance takes the part, with the same seed."""
    KEEP = "keep"
    """The run is completed without it, and says which part is missing."""
    FAIL = "fail"
    """The other parts are cancelled, and the run fails."""


@dataclass(frozen=True, kw_only=True)
class CollectOrder:
    """The pictures of all parts are collected, and one instance makes the result of them."""

    master: str
    """Id of the instance that makes the result."""
    participants: tuple[str, ...]
    """Ids of the instances that take part, in their order, with the master."""
    delegate_master: bool = False
    """The master renders no part."""
    installed: tuple[str, ...] = ()
    """Node classes that every participant has."""
    directory: str
    """Directory of this server for the files of the parts."""


@dataclass(frozen=True, kw_only=True)
class PartsOrder:
    """The order of a run with parts."""

    count: int
    partial: Partial = Partial.MOVE
    among: tuple[str, ...] = ()
    """Ids of the instances that may take a part; all that the target allows if it is empty."""
    collects: CollectOrder | None = None
    """None: the same graph for each part, with another seed, and the outputs of all parts are those of the
    run."""


@dataclass(frozen=True, kw_only=True)
class PartOrder:
    """The order of one part."""

    parent_id: str
    number: int
    """Place of the part among all, from 0. A part that takes over has the number of the one that failed."""
    partial: Partial = Partial.MOVE
    among: tuple[str, ...] = ()
    first: str | None = None
    """Id of the instance that takes the part while it is ready."""
    without: tuple[str, ...] = ()
    """Ids of the instances on which this part failed."""


@dataclass(frozen=True, kw_only=True)
class PartState:
    """What the record of the parent tells about a part. The part itself has the newest state."""

    run_id: str
    number: int
    status: RunStatus = RunStatus.QUEUED
    instance: str | None = None
    """Name of the instance; its ssh string if it has no name."""
    instance_id: str | None = None
    gpu_s: float = 0.0
    cost: float | None = None
    error_message: str | None = None
    error_code: str | None = None


def current_parts(parts: Iterable[PartState]) -> tuple[PartState, ...]:
    """Returns the parts that count, in their order: of each number the last one."""
    by_number = {part.number: part for part in parts}
    return tuple(by_number[number] for number in sorted(by_number))


def with_part(parts: tuple[PartState, ...], changed: PartState) -> tuple[PartState, ...]:
    """Returns the parts with the changed one in its place, or at the end if it is new."""
    if all(part.run_id != changed.run_id for part in parts):
        return (*parts, changed)
    return tuple(changed if part.run_id == changed.run_id else part for part in parts)


def folder_of_part(number: int) -> str:
    """Returns the name of the directory of a part's outputs, below the output directory of the run."""
    return f"part_{number + 1}"


def missing_sentence(missing: Iterable[PartState], count: int) -> str:
    """Says which parts failed, and why. For one part: `Part 2 of 3 (gpu1): out of memory`."""
    return "; ".join(
        f"Part {part.number + 1} of {count}{f' ({part.instance})' if part.instance else ''}: "
        f"{(part.error_message or part.status.value).rstrip('.')}"
        for part in missing
    )


def cost_of_parts(parts: Iterable[PartState]) -> float | None:
    """Sum of the costs of all parts; None if no price is known."""
    costs = [part.cost for part in parts if part.cost is not None]
    return sum(costs) if costs else None
