"""What the instances cost: for the runs they did, and for standing idle."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from comfyui_workflow.fleet.instance import Instance
from comfyui_workflow.fleet.state import InstanceState
from comfyui_workflow.fleet.usage import Usage
from comfyui_workflow.runs.model import Stay
from comfyui_workflow.runs.summary import RunSummary


@dataclass(frozen=True, kw_only=True)
class InstanceCosts:
    """Seconds and money since the instance came into the directory; None for money without a price."""

    instance: Instance
    runs: int
    """That began there."""
    gpu_s: float
    """How long prompts of our runs executed there."""
    run_cost: float | None
    """At the price that the instance had when each of them was given to it."""
    usage: Usage
    idle_cost: float | None
    """Of the time that it was connected and had nothing to do, at its price now."""


def costs_of(
    instances: Sequence[Instance],
    summaries: Iterable[RunSummary],
    usage_of: Callable[[str], Usage],
    at: datetime,
) -> list[InstanceCosts]:
    stays_of: dict[str, list[tuple[str, Stay]]] = defaultdict(list)
    for summary in summaries:
        for stay in summary.all_stays(at):
            stays_of[stay.instance_id].append((summary.workflow_id, stay))
    return [_costs(each, stays_of[each.id], usage_of(each.id)) for each in instances]


def idle_warning(instance: Instance, state: InstanceState, at: datetime, limit_s: float) -> str | None:
    """A sentence once the instance has had nothing to do for longer than the limit; 0 means never."""
    idle_s = state.idle_s(at)
    if not 0 < limit_s < idle_s:
        return None
    price = instance.price_per_hour
    cost = f", which has cost {price * idle_s / 3600:.2f}" if price else ""
    return (
        f"{instance.name} has had nothing to do for {_span(idle_s)}{cost}: stop the machine if you are done"
    )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _costs(instance: Instance, stays: Sequence[tuple[str, Stay]], usage: Usage) -> InstanceCosts:
    """`stays`: with the run of each; one may have been there twice."""
    price = instance.price_per_hour
    costs = [stay.cost for _, stay in stays if stay.cost is not None]
    return InstanceCosts(
        instance=instance,
        runs=len({workflow_id for workflow_id, _ in stays}),
        gpu_s=sum(stay.gpu_s for _, stay in stays),
        run_cost=sum(costs) if costs else None,
        usage=usage,
        idle_cost=None if price is None else price * usage.idle_s / 3600,
    )
