"""What an instance would say of a workflow, without running it: the `validate` of every API."""

from collections.abc import Sequence
from dataclasses import dataclass

from comfyui_workflow.execution.prepare import look_over, prepared_graph
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import address_of
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_within
from comfyui_workflow.sessions.session import InstanceKey
from comfyui_workflow.workflows.editable_inputs import KeyInput, key_inputs
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.validation.preflight import Verdict

MOST_AT_ONCE = 4
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    graph: Graph
    """As it would be submitted."""
    verdict: Verdict
    key_inputs: Sequence[KeyInput]


class ValidationService:
    """May be called from any thread."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._places = ConcurrencyLimit(
            MOST_AT_ONCE, f"{MOST_AT_ONCE} workflows are being validated just now"
        )

    def inspect(self, request: RunRequest, *, host_key: str | None = None) -> ValidationResult:
        """One attempt, given up after half a minute. Raises: InvalidRequest for what is no graph at all;
        InstanceError, ComfyUIError, Stopped; ServerBusy when too many ask at once."""
        key = InstanceKey(
            address=address_of(request.target),
            comfyui_port=request.comfyui_port,
            host_key=host_key,
        )
        with self._places.taken(), lease_within(self._sessions, key, PATIENCE_S) as session:
            session.ping(again=False)
            graph = prepared_graph(session, request)
            verdict = look_over(session, graph, request.input_images)
            found = key_inputs(graph, session.definitions())
            return ValidationResult(graph=graph, verdict=verdict, key_inputs=found)
