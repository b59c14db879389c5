"""From what was asked for to the graph that is submitted."""

from collections.abc import Callable
from typing import Any

from comfyui_workflow.workflows.editor.conversion import Queueing, convert
from comfyui_workflow.workflows.editor.widget_values import WidgetValue
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import with_inputs
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.seeds import Draw, settled, with_new_seeds


def graph_of(request: GraphRequest, definitions: Definitions, queueing: Queueing, draw: Draw) -> Graph:
    """The request's own graph, the same object, where nothing has to be done to it. Inputs that were named
    are set last: they win over drawn seeds. Raises: InvalidRequest."""
    graph = request.workflow.graph
    if is_to_convert(request):
        graph = convert(request.workflow.editor_file, definitions, queueing)
    elif request.seed_mode is SeedMode.RANDOMIZE:  # a graph does not tell of controls
        graph = with_new_seeds(graph, definitions, draw)
    return with_inputs(graph, request.inputs, definitions) if request.inputs else graph


def foreseen_graph(request: GraphRequest) -> Graph:
    """What is known of the graph before an instance is asked: inputs that are named are set, and of an
    editor's file there is what can be read without node definitions. Raises: InvalidRequest."""
    workflow = request.workflow
    graph = workflow.editor_outline if is_to_convert(request) else workflow.graph
    return with_inputs(graph, request.inputs, Definitions({})) if request.inputs else graph


def is_to_convert(request: GraphRequest) -> bool:
    """A picture brings both formats: the graph that made it, and the file that knows how seeds change."""
    workflow = request.workflow
    has_both = bool(workflow.graph) and workflow.editor_file is not None
    return not workflow.graph or (has_both and request.seed_mode is SeedMode.CONTROL)


def settling(mode: SeedMode, draw: Draw) -> Callable[[WidgetValue], Any]:
    return lambda widget: settled(widget, mode, draw)


def remote_routes(request: GraphRequest, definitions: Definitions) -> set[str]:
    """The routes of the instance that widgets of the editor's file take their choices from."""
    if not is_to_convert(request):
        return set()
    found = {node["class_type"] for node in request.workflow.editor_outline.values()}
    known = [definition for name in found if (definition := definitions.get(name))]
    remotes = [each.remote for definition in known for each in definition.inputs]
    return {remote.route for remote in remotes if remote and remote.takes_first}
