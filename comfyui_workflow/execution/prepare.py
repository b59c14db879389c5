"""Prepares and validates the graph of a run before anything is uploaded to the instance."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from comfyui_workflow.comfyui.remote_validation import verdict_of
from comfyui_workflow.errors import InvalidGraph, InvalidInputs
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.editor.conversion import QueueContext
from comfyui_workflow.workflows.findings import CODES_OF_MISSING_PARTS, errors, sentence
from comfyui_workflow.workflows.graph import Graph, check_graph
from comfyui_workflow.workflows.input_files import InputFiles, provided_names
from comfyui_workflow.workflows.listed_spellings import unlisted_names, with_listed_spellings
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.model_sources import with_model_names
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.resolve import remote_routes, resolve_graph, widget_value_resolver
from comfyui_workflow.workflows.validation.preflight import Verdict
from comfyui_workflow.workflows.validation.replacements import NO_REPLACEMENTS, Replacements

WITHOUT_OUTPUT = "With the inputs of this run, ComfyUI would leave out an output of the workflow"
_random = random.SystemRandom()


def prepared_graph(session: ComfyUISession, request: RunRequest) -> Graph:
    """Returns the graph to submit; the request's own graph if nothing has to be changed. Raises:
    InvalidRequest; the error of a broken session."""
    graph = graph_on_instance(session, request)
    unlisted = unlisted_names(graph, session.definitions())
    if unlisted - InputFiles(request.input_images).references(unlisted).keys():
        session.invalidate_definitions()  # the file may have arrived since they were fetched
        graph = graph_on_instance(session, request)
    return graph


def graph_on_instance(session: ComfyUISession, request: GraphRequest) -> Graph:
    """Returns the graph for the node classes and models that the instance lists now. Raises: as
    `prepared_graph`."""
    definitions = session.definitions()
    routes = remote_routes(request, definitions)
    return graph_for(request, definitions, {route: session.client.choices(route) for route in routes})


def graph_for(
    request: GraphRequest, definitions: Definitions, remote_choices: Mapping[str, Sequence[Any]]
) -> Graph:
    """Converts the workflow for these node classes, draws seeds, sets inputs and spells names as the instance
    does. Raises: InvalidRequest."""
    own = _random if request.seed_series is None else random.Random(request.seed_series)  # noqa: S311 - no secret
    queueing = QueueContext(
        at=datetime.now(),  # local time: times in file names are in the user's time zone
        choose=own.choice,
        resolve_value=widget_value_resolver(request.seed_mode, own.randint),
        draw=own.randint,
        remote_choices=remote_choices,
    )
    graph = resolve_graph(request, definitions, queueing, own.randint)
    if request.provision:
        graph = with_model_names(graph, definitions)
    graph = with_listed_spellings(graph, definitions)
    return graph if graph is request.workflow.graph else check_graph(graph)


def validate_on_instance(
    session: ComfyUISession,
    graph: Graph,
    images: tuple[str, ...],
    given: frozenset[tuple[str, str]] = frozenset(),
) -> Verdict:
    """Validates the graph for this instance. `given`: the inputs (node id, name) that the request sets; a
    value there for which ComfyUI would leave out an output is an error.

    If the graph is refused by cached node definitions, these are loaded again first: a model may have arrived
    since, and a newer ComfyUI replaces some node classes that it no longer has."""
    verdict = _validate(session, graph, images, NO_REPLACEMENTS).refusing(given)
    if verdict.would_run:
        return verdict
    session.invalidate_definitions()
    return _validate(session, graph, images, session.client.replaced_classes()).refusing(given)


def refuse_unless_it_runs(verdict: Verdict) -> None:
    """Raises: InvalidGraph with all errors in one sentence; its node is the first one that has an error."""
    if verdict.would_run:
        return
    found = errors(verdict.findings)
    beginning = WITHOUT_OUTPUT if verdict.dropped_outputs else "The instance cannot run the workflow"
    is_lasting = not any(finding.code in CODES_OF_MISSING_PARTS for finding in found)
    refusal = (InvalidInputs if is_lasting else InvalidGraph)(f"{beginning}: {sentence(found)}")
    refusal.node_id = next((finding.node_id for finding in found if finding.node_id is not None), None)
    raise refusal


def _validate(
    session: ComfyUISession, graph: Graph, images: tuple[str, ...], replaced: Replacements
) -> Verdict:
    provided = provided_names(graph, images)
    return verdict_of(session.client, graph, session.definitions(), provided=provided, replaced=replaced)
