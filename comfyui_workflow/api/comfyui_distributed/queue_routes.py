"""/distributed/queue: one workflow on several instances."""

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify

from comfyui_workflow.api.comfyui_distributed import schemas
from comfyui_workflow.api.comfyui_distributed.bodies import body_of_request
from comfyui_workflow.api.comfyui_distributed.errors import Undecodable
from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.api.comfyui_distributed.participants import participants_of
from comfyui_workflow.api.comfyui_distributed.queue_request import QueueRequest, read_queue_request
from comfyui_workflow.api.operations import Operation
from comfyui_workflow.api.request import idempotency_key
from comfyui_workflow.api.run_requests import OrderReader
from comfyui_workflow.distributed.nodes import DISTRIBUTED_CLASSES, wants_load_balance
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.services.distributed import DistributedOrder, DistributedRun, DistributedService
from comfyui_workflow.stores.base import DistributedSettingsStore
from comfyui_workflow.workflows.graph import Graph, check_graph

log = logging.getLogger(__name__)

SCOPE = " distributed"
NO_OUTPUTS = {
    "type": "prompt_no_outputs",
    "message": "Prompt has no outputs",
    "details": "",
    "extra_info": {},
}


@dataclass(frozen=True, kw_only=True)
class QueueViews:
    machines: Machines
    settings: DistributedSettingsStore
    distributed: DistributedService
    orders: OrderReader

    def queue(self) -> Response:
        key = idempotency_key(SCOPE)  # before the body is read: it is not kept
        order = read_queue_request(body_of_request())
        started = self._started(order, key)
        if order.trace_id is not None:
            log.info("[exec:%s] %s, prompt %s", order.trace_id, started.run.run_id, started.prompt_id)
        return jsonify(
            prompt_id=started.prompt_id,
            number=0,
            node_errors={},
            worker_count=started.worker_count,
            auto_prepare_supported=True,
            workflow_id=started.run.run_id,
        )

    def _started(self, order: QueueRequest, key: str | None) -> DistributedRun:
        """Raises: Undecodable if the prompt is invalid, as the plugin answers; StoreError."""
        graph = _checked(order.prompt)
        found = participants_of(self.machines, order.worker_ids)
        if found.master.id in found.answers:
            _check_classes(graph, found.answers[found.master.id].classes)
        delegates = order.delegate_master
        if delegates is None:
            delegates = self.settings.get().get("settings", {}).get("master_delegate_only") is True
        workers = found.workers
        if wants_load_balance(graph):
            chosen = found.least_busy
            delegates, workers = chosen.id != found.master.id, tuple({chosen} - {found.master})
        try:
            return self.distributed.submit(
                DistributedOrder(
                    graph=graph,
                    master=found.master,
                    workers=workers,
                    output_dir=self.orders.output_dir(),
                    delegate_master=delegates,
                    partial=order.partial,
                    installed=found.installed,
                    editor_file=order.workflow if isinstance(order.workflow, dict) else None,
                ),
                key,
            )
        except InvalidRequest as error:
            raise Undecodable(f"Invalid prompt: {error}") from error


def _checked(prompt: Mapping[str, Any]) -> Graph:
    """Raises: Undecodable."""
    if not prompt:
        raise Undecodable(f"Invalid prompt: {NO_OUTPUTS}")
    try:
        check_graph(prompt)
    except InvalidRequest as error:
        raise Undecodable(f"Invalid prompt: {error}") from error
    return prompt


def _check_classes(graph: Graph, known: Set[str]) -> None:
    """Raises: Undecodable for a node that the master does not have, in the words of ComfyUI."""
    for node_id, node in graph.items():
        class_type = node["class_type"]
        if class_type not in known and class_type not in DISTRIBUTED_CLASSES:
            error = {
                "type": "missing_node_type",
                "message": f"Node '{class_type}' not found. The custom node may not be installed.",
                "details": f"Node ID '#{node_id}'",
            }
            raise Undecodable(f"Invalid prompt: {error}")


OPERATIONS = (
    Operation(
        method="POST",
        rule="/queue",
        view=QueueViews.queue,
        summary="Run a workflow on several machines",
        description="Each participant renders what a `DistributedCollector` collects, with a seed of its "
        "own; what lies behind the collector runs on the master over all pictures. With `Idempotency-Key`, a "
        "repeated request gets the run of the first one. Errors: 400 in the words of the plugin; 500 the "
        "prompt is invalid.",
        body=schemas.QueueBody,
        answer=schemas.QueueResponse,
    ),
)
