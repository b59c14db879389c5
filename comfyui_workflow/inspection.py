"""What an instance would say of a workflow, without running it: the `validate` of every API."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from comfyui_workflow.errors import ConnectionFailed, ServerBusy, Stopped
from comfyui_workflow.instances.address import parse_ssh_address
from comfyui_workflow.instances.pool import Pool
from comfyui_workflow.link import InstanceKey, Link
from comfyui_workflow.preparation import look_over, prepared_graph
from comfyui_workflow.runs.model import Graph, RunRequest
from comfyui_workflow.workflows.checks.preflight import Verdict

MOST_AT_ONCE = 4
"""Who asks waits for the instance, in a thread of the server; most of those are left for the others."""
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Inspection:
    graph: Graph
    """As it would be submitted."""
    verdict: Verdict


class Inspector:
    """May be called from any thread."""

    def __init__(self, links: Pool[InstanceKey, Link]) -> None:
        self._links = links
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)

    def inspect(self, request: RunRequest) -> Inspection:
        """One attempt, given up after half a minute. Raises: InvalidRequest for what is no graph at all;
        InstanceError, ComfyUIError, Stopped; ServerBusy when too many ask at once."""
        key = InstanceKey(
            address=parse_ssh_address(request.ssh_connection), comfyui_port=request.comfyui_port
        )
        with self._a_place(), self._lease(key) as link:
            link.prove(again=False)
            graph = prepared_graph(link, request)
            return Inspection(graph=graph, verdict=look_over(link, graph, request.input_images))

    @contextmanager
    def _lease(self, key: InstanceKey) -> Iterator[Link]:
        deadline = time.monotonic() + PATIENCE_S
        with ExitStack() as stack:
            try:
                lease = self._links.lease(key, should_stop=lambda: time.monotonic() > deadline)
                link = stack.enter_context(lease)
            except Stopped as error:
                if time.monotonic() <= deadline:
                    raise
                raise ConnectionFailed(
                    f"{key.address.label} has not let us in within {PATIENCE_S:.0f} s; try again"
                ) from error
            yield link

    @contextmanager
    def _a_place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ServerBusy(f"{MOST_AT_ONCE} workflows are being validated just now; try again in a moment")
        try:
            yield
        finally:
            self._places.release()
