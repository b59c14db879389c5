"""Validation of a workflow against an instance, without executing it: the `validate` of every API."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from comfyui_workflow.execution.prepare import prepared_graph, validate_on_instance
from comfyui_workflow.provisioning.offers import ModelOffers, Offer
from comfyui_workflow.provisioning.packs import PackOffer, PackOffers
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import address_of
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_session
from comfyui_workflow.sessions.session import InstanceKey
from comfyui_workflow.workflows.api_nodes import cost_findings, missing_key_findings
from comfyui_workflow.workflows.editable_inputs import KeyInput, key_inputs
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model_sources import (
    lacking_models,
    sources_of,
    with_model_names,
)
from comfyui_workflow.workflows.node_packs import lacking_packs
from comfyui_workflow.workflows.overrides import inputs_named
from comfyui_workflow.workflows.resolve import left_out
from comfyui_workflow.workflows.validation.preflight import Verdict

MOST_AT_ONCE = 4
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    graph: Graph
    """The graph that a run would submit."""
    verdict: Verdict
    key_inputs: Sequence[KeyInput]
    missing: Sequence[Offer] = ()
    """Models that the instance lacks, and where they can be had."""
    missing_packs: Sequence[PackOffer] = ()
    """Node packs that the instance lacks, as far as the editor file names them."""


class ValidationService:
    """Validates workflows. Thread-safe."""

    def __init__(self, sessions: Sessions, models: ModelOffers, packs: PackOffers) -> None:
        self._sessions = sessions
        self._models = models
        self._packs = packs
        self._limit = ConcurrencyLimit(MOST_AT_ONCE, f"{MOST_AT_ONCE} workflows are being validated just now")

    def inspect(self, request: RunRequest, *, host_key: str | None = None) -> ValidationResult:
        """Validates a workflow in one attempt, with a timeout of 30 seconds.

        Raises: InvalidRequest if it is no graph; InstanceError, ComfyUIError, Stopped; ServerBusy if too many
        validations run at the same time."""
        key = InstanceKey(
            address=address_of(request.target),
            comfyui_port=request.comfyui_port,
            host_key=host_key,
        )
        with self._limit.taken(), lease_session(self._sessions, key, PATIENCE_S) as session:
            graph = prepared_graph(session, request)
            given = inputs_named(graph, request.inputs)
            verdict = validate_on_instance(session, graph, request.input_images, given)
            object_info = session.definitions().object_info
            hints = [*left_out(request, session.definitions()), *cost_findings(graph, object_info)]
            if not request.has_comfy_org_api_key:
                hints += missing_key_findings(graph, object_info)
            verdict = replace(verdict, findings=(*verdict.findings, *hints))
            found = key_inputs(graph, session.definitions())
            named = with_model_names(graph, session.definitions())
            lacking = lacking_models(named, session.definitions(), sources_of(request))
            packs = lacking_packs(request.workflow.editor_file, session.definitions())
        return ValidationResult(  # the session is free meanwhile
            graph=graph,
            verdict=verdict,
            key_inputs=found,
            missing=self._models.of(lacking) if lacking else (),
            missing_packs=self._packs.of(packs) if packs else (),
        )
