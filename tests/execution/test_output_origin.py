"""Detection of files of other prompts: by time, by the graph in the file, by later prompts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.errors import RemoteFileError, RemoteFileOverwritten
from comfyui_workflow.execution.output_origin import OriginCheck, WriteTime
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.graph import Graph
from tests.runs.test_state_machine import new_run

BEGAN = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=10)
OUTPUT = OutputFile(filename="final.png", node_id="2", made_after=BEGAN, made_before=ENDED)


def graph(seed: int, class_type: str = "Own") -> dict[str, Any]:
    return {
        "1": {"class_type": "Sample", "inputs": {"seed": seed}},
        "2": {"class_type": class_type, "inputs": {"images": ["1", 0]}},
    }


def ours(seed: int) -> dict[str, Any]:
    """A graph with a node of each kind: "2" may overwrite, "3" numbers its files."""
    return graph(seed) | {"3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}


@dataclass
class ComfyUI:
    """The parts of a session that are used. `modified_s` counts from the end of the prompt."""

    modified_s: float | None = None
    others: list[HistoryEntry] = field(default_factory=list)
    running: Mapping[str, Graph] = field(default_factory=dict)
    executed: Graph = field(default_factory=lambda: ours(1))

    @property
    def client(self) -> "ComfyUI":
        return self

    def view_info(self, filename: str, *, subfolder: str, folder: str) -> ViewedFile:
        if self.modified_s is None:
            return ViewedFile(pieces=iter([]))
        modified_ns = int((ENDED.timestamp() + self.modified_s) * 1e9)
        return ViewedFile(pieces=iter([]), size_bytes=1, tag=f'"{modified_ns:x}-1"')

    def history(self, prompt_id: str) -> HistoryEntry:
        return replace(entry(prompt_id), graph=self.executed)

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        return self.others

    def running_graphs(self) -> Mapping[str, Graph]:
        return self.running


def entry(prompt_id: str, *outputs: OutputFile) -> HistoryEntry:
    return HistoryEntry(prompt_id=prompt_id, outcome=Outcome.SUCCESS, outputs=outputs)


THEIRS = entry("theirs", OUTPUT)
UNRELATED = entry("theirs", replace(OUTPUT, filename="other.png"))


def check(
    tmp_path: Path, comfyui: ComfyUI, *, seed: int | None, at_s: float | None, output: OutputFile = OUTPUT
) -> None:
    """Checks a picture that contains the graph with this seed, modified `at_s` seconds after the prompt."""
    texts = PngInfo()
    if seed is not None:
        texts.add_text("prompt", json.dumps(graph(seed, "SaveImage" if output.node_id == "3" else "Own")))
    Image.new("RGB", (8, 8)).save(tmp_path / "part", format="PNG", pnginfo=texts)
    run = replace(new_run(ours(1)), prompt_id="ours")
    at = None if at_s is None else ENDED.timestamp() + at_s
    written = None if at is None else WriteTime(earliest_s=at, latest_s=at + 1)
    OriginCheck(cast(ComfyUISession, comfyui), run).check(output, tmp_path / "part", written)


@pytest.mark.parametrize("seed", [1, 2, None])
def test_what_was_written_while_the_prompt_ran_is_its_own(tmp_path: Path, seed: int | None) -> None:
    check(tmp_path, ComfyUI(others=[THEIRS]), seed=seed, at_s=-5)


def test_a_graph_inside_proves_it_however_late_it_is(tmp_path: Path) -> None:
    check(tmp_path, ComfyUI(modified_s=60, others=[THEIRS]), seed=1, at_s=60)


@pytest.mark.parametrize("seed", [2, None])
def test_what_another_prompt_wrote_afterwards_is_not(tmp_path: Path, seed: int | None) -> None:
    for comfyui in (
        ComfyUI(3.0, [THEIRS]),
        ComfyUI(3.0, [entry("ours"), THEIRS]),
        ComfyUI(3.0, [], {"x": graph(9)}),
    ):
        with pytest.raises(RemoteFileOverwritten, match="ComfyUI overwrote final"):
            check(tmp_path, comfyui, seed=seed, at_s=3)


@pytest.mark.parametrize("seed", [2, None])
def test_a_late_file_that_nobody_else_can_have_written_is_its_own(tmp_path: Path, seed: int | None) -> None:
    """A disk whose clock is ahead; a node that changes the graph that it writes; those of before us."""
    for others in ([], [entry("before", OUTPUT), entry("ours")]):
        check(tmp_path, ComfyUI(3.0, others), seed=seed, at_s=3)
    check(tmp_path, ComfyUI(3.0, [UNRELATED], executed=graph(2)), seed=seed, at_s=3)


def test_a_doubt_of_a_second_is_settled_by_the_web_server(tmp_path: Path) -> None:
    check(tmp_path, ComfyUI(-0.001, [THEIRS]), seed=None, at_s=-0.5)
    with pytest.raises(RemoteFileOverwritten):
        check(tmp_path, ComfyUI(0.1, [THEIRS]), seed=None, at_s=-0.5)


def test_without_times_the_names_of_the_prompts_after_it_tell(tmp_path: Path) -> None:
    """ComfyUI before July 2024."""
    timeless = replace(OUTPUT, made_after=None, made_before=None)
    check(tmp_path, ComfyUI(others=[THEIRS, entry("ours")]), seed=None, at_s=3, output=timeless)
    with pytest.raises(RemoteFileOverwritten):
        check(tmp_path, ComfyUI(others=[entry("ours"), THEIRS]), seed=None, at_s=3, output=timeless)


def test_an_old_file_of_another_prompt_is_none_of_this_one(tmp_path: Path) -> None:
    """In a directory of another ComfyUI, by the same number; what a cache brings back is old, too."""
    numbered = replace(OUTPUT, node_id="3")
    for output in (OUTPUT, numbered):
        check(tmp_path, ComfyUI(), seed=1, at_s=-3600, output=output)
        check(tmp_path, ComfyUI(), seed=None, at_s=-3600, output=output)
        with pytest.raises(RemoteFileError, match="made by another prompt"):
            check(tmp_path, ComfyUI(), seed=2, at_s=-3600, output=output)
