"""Preparation of the graph of a run."""

import unicodedata
from dataclasses import dataclass, replace
from typing import Any, cast

from comfyui_workflow.execution.prepare import prepared_graph
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from tests.runs.test_state_machine import new_run

GRAPH: dict[str, Any] = {"1": {"class_type": "LoadImage", "inputs": {"image": "é.png"}}}
DECOMPOSED = unicodedata.normalize("NFD", "é.png")


@dataclass
class Session:
    """Node definitions that list a new file only after they are fetched again."""

    fetched: int = 1

    def definitions(self) -> Definitions:
        listed = [DECOMPOSED] if self.fetched > 1 else []
        return Definitions(
            {"LoadImage": {"input": {"required": {"image": [listed, {"image_upload": True}]}}}}
        )

    def invalidate_definitions(self) -> None:
        self.fetched += 1


def request(*images: str) -> RunRequest:
    return replace(new_run(GRAPH).request, workflow=Workflow(graph=GRAPH), input_images=images)


def test_a_new_file_is_found_in_another_spelling() -> None:
    graph = prepared_graph(cast(ComfyUISession, Session()), request())
    assert graph["1"]["inputs"]["image"] == DECOMPOSED


def test_a_file_that_is_sent_along_is_not_looked_for() -> None:
    session = Session()
    assert prepared_graph(cast(ComfyUISession, session), request("/home/me/é.png")) is GRAPH
    assert session.fetched == 1
