"""Requests of the parts of a run: pure functions of the run's own request, so that a part that a crash has
lost can be made again."""

from dataclasses import replace
from pathlib import Path

from comfyui_workflow.distributed.model import Participant, Plan
from comfyui_workflow.distributed.plan import make_plan
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.parts import CollectOrder, PartOrder, PartsOrder, folder_of_part
from comfyui_workflow.runs.target import AnyInstance
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import Workflow


def plan_of(graph: Graph, order: CollectOrder) -> Plan:
    """Returns the plan of a run whose pictures are collected. Raises: InvalidRequest."""
    participants = [
        Participant(participant_id=each, is_master=each == order.master) for each in order.participants
    ]
    return make_plan(
        graph,
        participants,
        delegate_master=order.delegate_master,
        installed=frozenset(order.installed),
    )


def part_request(
    parent_id: str, request: RunRequest, order: PartsOrder, number: int, without: tuple[str, ...] = ()
) -> RunRequest:
    """Returns the request of part `number`, which does not use the instances in `without`.

    The run itself uploads the outputs and notifies of its end, so its parts do neither."""
    part = PartOrder(
        parent_id=parent_id,
        number=number,
        partial=order.partial,
        among=order.among,
        first=order.among[number % len(order.among)] if order.among else None,
        without=without,
    )
    own = replace(
        request,
        part=part,
        parts=None,
        batch_id=None,
        batch_name=None,
        batch_total=None,
        batch_on_error=None,
        stagger_s=0.0,
        batch_webhook=None,
        webhook=None,
        upload=None,
        seed_series=parent_id,
    )
    if order.collects is not None:
        return _collected_part(own, part, order.collects)
    folder = Path(request.output_dir) / folder_of_part(number)
    return replace(own, seed_step=number, output_dir=str(folder))


def _collected_part(request: RunRequest, part: PartOrder, order: CollectOrder) -> RunRequest:
    """Its files are collected, so they stay as they are, in a directory of this server."""
    planned = plan_of(request.workflow.graph, order).parts[part.number]
    return replace(
        request,
        target=AnyInstance(),
        part=replace(part, first=planned.participant_id),
        workflow=Workflow(graph=planned.graph),
        output_dir=str(Path(order.directory, part.parent_id, folder_of_part(part.number))),
        convert=None,
        include_previews=False,
    )
