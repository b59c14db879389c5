"""A workflow as data, and what makes the graph of it that is submitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from comfyui_workflow.workflows.editor.conversion import Queueing, convert
from comfyui_workflow.workflows.graph import Graph, check_graph
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.seed_mode import SeedMode

_NOT_QUEUED = Queueing(at=datetime(2000, 1, 1), choose=lambda choices: choices[0])


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A workflow as it was given: a graph, an editor file, or both (a picture has both inside).

    One workflow is one object on its whole way, however many requests share it, so that its outline is made
    once."""

    graph: Graph
    """Empty when only the editor's file was given: the instance's node definitions make a graph of it."""
    editor_file: Mapping[str, Any] | None = None
    """The workflow as the editor saves it; it goes along with the prompt, and outputs open there again."""

    @property
    def is_lost(self) -> bool:
        """Neither is known any more: its record was damaged."""
        return not self.graph and self.editor_file is None

    @property
    def outline(self) -> Graph:
        """The graph as far as it is known before an instance is asked. Raises: InvalidGraph."""
        return self.graph or self.editor_outline

    @cached_property
    def editor_outline(self) -> Graph:
        """The nodes of the editor's file that run and their links, converted without node definitions.
        Raises: InvalidGraph."""
        return check_graph(convert(self.editor_file, Definitions({}), _NOT_QUEUED))


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """The part of a request that decides which graph is submitted."""

    workflow: Workflow
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Values to set, by `<node id or title>.<input>`."""
    seed_mode: SeedMode = SeedMode.SAVED
