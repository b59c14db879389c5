"""A workflow as data, and what makes the graph of it that is submitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from comfyui_workflow.workflows.graph import Graph


class SeedMode(StrEnum):
    """Treatment of the seeds of a workflow when it is queued."""

    SAVED = "saved"
    """They stay as they are in the workflow."""
    CONTROL = "control"
    """As the editor does it: what each node's own "control after generate" says."""
    RANDOMIZE = "randomize"
    """Every one is drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """The part of a request that many requests have in common."""

    graph: Graph
    editor_file: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """The part of a request that decides which graph is submitted."""

    graph: Graph
    """Empty when only the editor's file was given: the instance's node definitions make a graph of it."""
    editor_file: Mapping[str, Any] | None = None
    """The workflow as the editor saves it; it goes along with the prompt, and outputs open there again."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Values to set, by `<node id or title>.<input>`."""
    seed_mode: SeedMode = SeedMode.SAVED
