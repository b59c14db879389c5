"""Run summaries: the fields that lists, filters, batches and costs need. A summary is small, so the summaries
of all runs fit in memory."""

import itertools
from dataclasses import dataclass, field
from datetime import datetime

from comfyui_workflow.runs.model import (
    NAME_IN_RECORDS,
    FileType,
    LostParts,
    NodeProgress,
    Phase,
    Run,
    RunStatus,
    Stay,
    cost_of,
    seconds_here,
    sum_of_costs,
)
from comfyui_workflow.runs.parts import cost_of_parts
from comfyui_workflow.runs.state_machine import CACHED

LONGEST_MESSAGE = 300
MOST_PICTURES = 4
MOST_NOTICES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """A list entry. Fields without a comment have the same meaning as in `Run`."""

    run_id: str = field(metadata=NAME_IN_RECORDS)
    workflow_name: str
    workflow_file: str | None = None
    ssh_connection: str
    """The target as requested: an ssh string, the name of an instance, or `any`."""
    instance_id: str | None = None
    """The assigned instance, or else the named instance of the request."""
    instance_name: str | None = None
    """None until the run is assigned to an instance."""
    price_per_hour: float | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    """The run that this one is a part of. Lists hide it."""
    priority: int = 0
    status: RunStatus
    phase: Phase
    message: str | None = None
    prompt_id: str | None = None
    submissions: int = 0
    is_cancel_requested: bool = False
    queue_position: int | None = None
    total_nodes: int = 0
    completed_nodes: int = 0
    current_node: str | None = None
    current_node_id: str | None = None
    current_node_title: str | None = None
    current_node_progress: float | None = None
    current_node_message: str | None = None
    output_count: int = 0
    pictures: tuple[int, ...] = ()
    """Indexes of the first outputs that are downloaded pictures."""
    error_message: str | None = None
    """The first `LONGEST_MESSAGE` characters."""
    notices: tuple[str, ...] = ()
    """The first `MOST_NOTICES`, each with its first `LONGEST_MESSAGE` characters."""
    error_code: str | None = None
    failed_node: str | None = None
    failed_node_id: str | None = None
    lost: frozenset[LostParts] = frozenset()
    queue_time: datetime
    last_update: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    gpu_s: float = 0.0
    stays: tuple[Stay, ...] = ()
    gpu_since: datetime | None = None
    graph_signature: str | None = None
    prompt_s: float | None = None
    """Duration of the prompt, for estimates of the next one. None if it tells nothing about the next one."""
    part_count: int = 0
    parts_gpu_s: float = 0.0
    """GPU seconds and cost of the parts of this run that have ended."""
    parts_cost: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def progress_percent(self) -> float:
        if self.status is RunStatus.COMPLETED:
            return 100.0
        return round(100 * self.completed_nodes / self.total_nodes, 1) if self.total_nodes else 0.0

    def gpu_seconds(self, at: datetime) -> float:
        return self._own_gpu_seconds(at) + self.parts_gpu_s

    def _own_gpu_seconds(self, at: datetime) -> float:
        running_s = 0.0 if self.gpu_since is None else max(0.0, (at - self.gpu_since).total_seconds())
        return self.gpu_s + running_s

    def cost(self, at: datetime) -> float | None:
        own = cost_of(self._own_gpu_seconds(at), self.price_per_hour, self.stays)
        return sum_of_costs(own, self.parts_cost)

    def all_stays(self, at: datetime) -> tuple[Stay, ...]:
        """Earlier stays, and the stay at the current or last instance if the run began there."""
        here = stay_here(
            self.instance_id,
            seconds_here(self._own_gpu_seconds(at), self.stays),
            self.price_per_hour,
            has_begun=self.start_time is not None,
        )
        return (*self.stays, *here)


def stay_here(
    instance_id: str | None, gpu_s: float, price_per_hour: float | None, *, has_begun: bool
) -> tuple[Stay, ...]:
    """The stay at the current or last instance; empty if the run did not begin there."""
    if instance_id is None or not (has_begun or gpu_s):
        return ()
    return (Stay(instance_id=instance_id, gpu_s=gpu_s, price_per_hour=price_per_hour),)


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """A filter for runs. A field that is left out matches every run."""

    statuses: frozenset[RunStatus] = frozenset()
    name_contains: str | None = None
    """Part of the workflow's name, case-insensitive."""
    batches_named: frozenset[str] = frozenset()
    """Ids of the batches whose name contains that part. Their runs match too."""
    instance: str | None = None
    """Id or name of an instance. Matches runs that are assigned to it or that request it."""
    batch_id: str | None = None
    with_parts: bool = False
    """Runs that are a part of another one match too."""

    def matches(self, summary: RunSummary) -> bool:
        return (
            (self.with_parts or summary.parent_id is None)
            and (not self.statuses or summary.status in self.statuses)
            and (self.batch_id is None or summary.batch_id == self.batch_id)
            and (self.instance is None or self._is_at(summary, self.instance.casefold()))
            and (
                self.name_contains is None
                or summary.batch_id in self.batches_named
                or self.name_contains.casefold() in summary.workflow_name.casefold()
            )
        )

    def _is_at(self, summary: RunSummary, instance: str) -> bool:
        """The requested name counts only until the run is assigned to an instance."""
        given = (summary.instance_id, summary.instance_name or summary.ssh_connection)
        return any(each is not None and each.casefold() == instance for each in given)


EVERY_RUN = RunFilter(with_parts=True)
EVERY_LISTED_RUN = RunFilter()


def summary_of(run: Run) -> RunSummary:
    request, placement, node = run.request, run.placement, _current_node(run)
    return RunSummary(
        run_id=run.run_id,
        workflow_name=request.workflow_name,
        workflow_file=request.workflow_file,
        ssh_connection=request.ssh_connection,
        instance_id=request.instance_id if placement is None else placement.instance_id,
        instance_name=None if placement is None else placement.name,
        price_per_hour=None if placement is None else placement.price_per_hour,
        batch_id=request.batch_id,
        parent_id=request.parent_id,
        priority=run.priority,
        status=run.status,
        phase=run.phase,
        message=run.message,
        prompt_id=run.prompt_id,
        submissions=run.submissions,
        is_cancel_requested=run.is_cancel_requested,
        queue_position=run.queue_position,
        total_nodes=len(run.nodes),
        completed_nodes=run.completed_nodes,
        current_node=node.node_type if node else None,
        current_node_id=run.current_node_id,
        current_node_title=node.title if node else None,
        current_node_progress=node.progress if node else None,
        current_node_message=node.message if node else None,
        output_count=len(run.outputs),
        pictures=_pictures(run),
        error_message=None if run.error_message is None else _cut(run.error_message),
        notices=tuple(_cut(notice) for notice in run.notices[:MOST_NOTICES]),
        error_code=run.error_code,
        failed_node=run.node_type(run.failed_node_id),
        failed_node_id=run.failed_node_id,
        lost=run.lost,
        queue_time=run.queue_time,
        last_update=run.last_update,
        start_time=run.start_time,
        end_time=run.end_time,
        gpu_s=run.gpu_s if run.contact_lost_at is None else run.own_gpu_seconds(run.contact_lost_at),
        stays=run.stays,
        gpu_since=run.gpu_since if run.contact_lost_at is None else None,
        graph_signature=run.graph_signature,
        prompt_s=_prompt_s(run),
        part_count=len(run.current_parts),
        parts_gpu_s=sum(part.gpu_s for part in run.parts),
        parts_cost=cost_of_parts(run.parts),
    )


def _current_node(run: Run) -> NodeProgress | None:
    return next((node for node in run.nodes if node.node_id == run.current_node_id), None)


def _pictures(run: Run) -> tuple[int, ...]:
    found = (
        number
        for number, output in enumerate(run.outputs)
        if output.file_type is FileType.IMAGE and output.is_downloaded
    )
    return tuple(itertools.islice(found, MOST_PICTURES))


def _prompt_s(run: Run) -> float | None:
    """None if the number would mislead: after a lost prompt, `gpu_s` contains two executions; and a fully
    cached prompt takes no time."""
    if run.status is not RunStatus.COMPLETED or run.times_lost_running or not run.gpu_s:
        return None
    makers = {output.node_id for output in run.outputs}
    counted_nodes = [node for node in run.nodes if node.node_id in makers] or run.nodes
    return None if all(node.message == CACHED for node in counted_nodes) else run.gpu_s


def _cut(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
