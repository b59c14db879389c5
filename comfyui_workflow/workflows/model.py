"""Data model of a workflow, and of a request that turns it into the submitted graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.graph import Graph, check_graph
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.seed_mode import SeedMode

_NOT_QUEUED = QueueContext(at=datetime(2000, 1, 1), choose=lambda choices: choices[0])


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A workflow as it was received: a graph, an editor file, or both (a picture can contain both).

    All requests for one workflow share one object, so its outline is computed only once."""

    graph: Graph
    """Empty if only the editor file was received: its conversion needs the instance's node definitions."""
    editor_file: Mapping[str, Any] | None = None
    """The workflow in the editor's format. It is sent with the prompt, so the editor can open the outputs."""

    @property
    def is_lost(self) -> bool:
        """True if neither is known: the record was damaged, or a job was ordered without a workflow."""
        return not self.graph and self.editor_file is None

    @property
    def outline(self) -> Graph:
        """The part of the graph that is known without an instance. Raises: InvalidGraph."""
        return self.graph or self.editor_outline

    @cached_property
    def editor_outline(self) -> Graph:
        """The nodes of the editor file that run, and their links, converted without node definitions.
        Raises: InvalidGraph."""
        return check_graph(convert(self.editor_file, Definitions({}), _NOT_QUEUED))


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """The part of a request that decides which graph is submitted."""

    workflow: Workflow
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Values to set; the keys are `<node id or title>.<input>`."""
    seed_mode: SeedMode = SeedMode.SAVED
    provision: bool = False
    """What the instance lacks may be downloaded there, and a loader may have a URL in place of a name."""
    seed_series: str | None = None
    """Requests with the same text here draw the same random values. None: every request draws its own."""
    seed_step: int = 0
    """Added to every seed after all values are set and drawn."""
