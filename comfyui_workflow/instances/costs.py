"""Costs of the instances: of their runs, and of their idle time."""

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
    """Costs of one instance, or of several. An amount of money is None if no price is known."""

    runs: int
    """Number of runs that started on the instance."""
    gpu_s: float
    """Seconds that prompts of our runs executed there."""
    run_cost: float | None
    """Each run at the price that the instance had when the run was assigned to it."""
    usage: Usage
    idle_cost: float | None
    """The time that the instance was connected and idle, at its current price."""


@dataclass(frozen=True, kw_only=True)
class FleetCosts:
    """`instances`: costs since each was added to the registry. `removed`: all instances that were removed
    from it."""

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
    """Returns the costs of all instances. `usage_of` returns the usage of the instance with that id."""
    usages = {each.id: usage_of(each.id) for each in instances}
    stays: dict[str | None, list[_StayOfRun]] = defaultdict(list)
    for bill in billable_runs:
        for stay in bill.all_stays(at):
            usage = usages.get(stay.instance_id)
            belongs_to_current = usage is not None and not _ended_before(bill, usage.since)
            stays[stay.instance_id if belongs_to_current else None].append((bill.run_id, stay))
    listed = tuple(
        (each, _costs(stays[each.id], usages[each.id], usages[each.id].idle_cost(each.price_per_hour)))
        for each in instances
    )
    removed_costs = _costs(stays[None], removed.usage, removed.idle_cost)
    every_stay = [stay for group in stays.values() for stay in group]
    every_cost = [*(costs for _, costs in listed), removed_costs]
    usage = Usage()
    for costs in every_cost:
        usage = usage.plus(costs.usage.connected_s, costs.usage.busy_s)
    total = _costs(every_stay, usage, _sum(costs.idle_cost for costs in every_cost))
    return FleetCosts(instances=listed, removed=removed_costs, total=total)


def idle_warning(instance: Instance, state: InstanceState, at: datetime, limit_s: float) -> str | None:
    """Returns a sentence if the instance has been idle for longer than the limit, else None. A limit of 0
    disables the warning."""
    idle_s = state.idle_s(at)
    if not 0 < limit_s < idle_s:
        return None
    price = instance.price_per_hour
    cost = f", which has cost {price * idle_s / 3600:.2f}" if price else ""
    return (
        f"{instance.name} has had nothing to do for {_format_duration(idle_s)}{cost}: "
        "stop the machine if you are done"
    )


def _format_duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


_StayOfRun = tuple[str, Stay]
"""The id of the run and its stay; a run may have stayed on the same instance twice."""


def _costs(stays: Sequence[_StayOfRun], usage: Usage, idle_cost: float | None) -> Costs:
    return Costs(
        runs=len({run_id for run_id, _ in stays}),
        gpu_s=sum(stay.gpu_s for _, stay in stays),
        run_cost=_sum(stay.cost for _, stay in stays),
        usage=usage,
        idle_cost=idle_cost,
    )


def _ended_before(run: BillableRun, since: datetime | None) -> bool:
    """True if the run ended before `since`, when the instance of that id was added: it used an earlier
    instance with the same id."""
    return since is not None and run.end_time is not None and run.end_time < since


def _sum(costs: Iterable[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None
