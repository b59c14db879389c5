"""Requests of the parts of a run: pure functions of the run's own request, so that a part that a crash has
lost can be made again."""

from dataclasses import replace
from pathlib import Path

from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.parts import PartOrder, PartsOrder, folder_of_part


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
    return replace(
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
        seed_step=number,
        output_dir=str(Path(request.output_dir) / folder_of_part(number)),
    )
