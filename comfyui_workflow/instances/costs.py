"""What the instances cost: for the runs they did, and for standing idle."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.state import InstanceState
from comfyui_workflow.runs.model import Stay
from comfyui_workflow.runs.usage import RemovedUsage, Usage
from comfyui_workflow.stores.base import BillableRun


@dataclass(frozen=True, kw_only=True)
class Costs:
    """None for money without a price."""

    runs: int
    """That began there."""
    gpu_s: float
    """How long prompts of our runs executed there."""
    run_cost: float | None
    """At the price that the instance had when each of them was given to it."""
    usage: Usage
    idle_cost: float | None
    """Of the time that it was connected and had nothing to do, at its price now."""


@dataclass(frozen=True, kw_only=True)
class FleetCosts:
    """`instances` since each came into the directory, `removed` of all that are not in it any more."""

    instances: tuple[tuple[Instance, Costs], ...]
    removed: Costs
    total: Costs


def costs_of(
    instances: Sequence[Instance],
    billable_runs: Iterable[BillableRun],
    usage_of: Callable[[str], Usage],
    removed: RemovedUsage,
    at: datetime,
) -> FleetCosts:
    usages = {each.id: usage_of(each.id) for each in instances}
    stays: dict[str | None, list[_StayOfRun]] = defaultdict(list)
    for bill in billable_runs:
        for stay in bill.all_stays(at):
            usage = usages.get(stay.instance_id)
            is_there_now = usage is not None and not _had_ended(bill, usage.since)
            stays[stay.instance_id if is_there_now else None].append((bill.run_id, stay))
    listed = tuple(
        (each, _costs(stays[each.id], usages[each.id], usages[each.id].idle_cost(each.price_per_hour)))
        for each in instances
    )
    gone = _costs(stays[None], removed.usage, removed.idle_cost)
    every_stay = [stay for some in stays.values() for stay in some]
    every_cost = [*(costs for _, costs in listed), gone]
    usage = Usage()
    for costs in every_cost:
        usage = usage.and_also(costs.usage.connected_s, costs.usage.busy_s)
    total = _costs(every_stay, usage, _sum(costs.idle_cost for costs in every_cost))
    return FleetCosts(instances=listed, removed=gone, total=total)


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


_StayOfRun = tuple[str, Stay]
"""With the id of the run, which may have been there twice."""


def _costs(stays: Sequence[_StayOfRun], usage: Usage, idle_cost: float | None) -> Costs:
    return Costs(
        runs=len({run_id for run_id, _ in stays}),
        gpu_s=sum(stay.gpu_s for _, stay in stays),
        run_cost=_sum(stay.cost for _, stay in stays),
        usage=usage,
        idle_cost=idle_cost,
    )


def _had_ended(run: BillableRun, since: datetime | None) -> bool:
    """Before the instance of that id came into the directory: it was at an earlier one."""
    return since is not None and run.end_time is not None and run.end_time < since


def _sum(costs: Iterable[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None
