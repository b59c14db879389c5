"""What the instances cost: for the runs they did, and for standing idle."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from comfyui_workflow.fleet.instance import Instance
from comfyui_workflow.fleet.state import InstanceState
from comfyui_workflow.fleet.usage import Usage
from comfyui_workflow.runs.summary import RunSummary


@dataclass(frozen=True, kw_only=True)
class InstanceCosts:
    """Seconds and money since the instance came into the directory; None for money without a price."""

    instance: Instance
    runs: int
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
    runs_of: dict[str | None, list[RunSummary]] = defaultdict(list)
    for summary in summaries:
        runs_of[summary.instance_id].append(summary)
    return [_costs(each, runs_of[each.id], usage_of(each.id), at) for each in instances]


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


def _costs(instance: Instance, runs: Sequence[RunSummary], usage: Usage, at: datetime) -> InstanceCosts:
    price = instance.price_per_hour
    costs = [cost for run in runs if (cost := run.cost(at)) is not None]
    return InstanceCosts(
        instance=instance,
        runs=sum(run.start_time is not None for run in runs),
        gpu_s=sum(run.gpu_seconds(at) for run in runs),
        run_cost=sum(costs) if costs else None,
        usage=usage,
        idle_cost=None if price is None else price * usage.idle_s / 3600,
    )
